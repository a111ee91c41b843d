"""Sockets of NETLINK_XFRM: requests with their answers, and notifications.

`XfrmSocket` blocks and belongs to one thread; `XfrmThread` is that thread for asyncio. Both, and
`XfrmListener`, stay in the network namespace of the thread that made them. Only a dump that was disturbed
is asked again.
"""

import asyncio
import errno
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final, Self, TypeVar

from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.codec import decode, encode
from gateway.datapath.xfrm.errors import (
    EventsLostError,
    KernelRefusedError,
    NoAnswerError,
    NoSocketError,
    XfrmDecodeError,
)
from gateway.datapath.xfrm.messages import (
    HEADER_BYTES,
    NLM_F_DUMP,
    aligned,
    attribute_spans,
    message_class,
)
from gateway.datapath.xfrm.numbers import Group, MessageType
from gateway.host.sockets import BpfInstruction, attach_filter

T = TypeVar("T")

#: An SA and a policy, as the kernel lists them.
Sa = r.Message[r.SaInfo]
Policy = r.Message[r.PolicyInfo]

# <linux/netlink.h>
_NETLINK_XFRM: Final = 6
_SOL_NETLINK: Final = 270
_NETLINK_ADD_MEMBERSHIP: Final = 1
_NETLINK_EXT_ACK: Final = 11
_NLMSG_NOOP: Final = 1
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_NLM_F_REQUEST: Final = 0x1
_NLM_F_ACK: Final = 0x4
_NLM_F_DUMP_INTR: Final = 0x10
_NLM_F_REPLACE: Final = 0x100
_NLM_F_EXCL: Final = 0x200
_NLM_F_CREATE: Final = 0x400
_NLM_F_CAPPED: Final = 0x100
_NLM_F_ACK_TLVS: Final = 0x200
_NLMSGERR_ATTR_MSG: Final = 1
_NLMSGERR_ATTR_OFFS: Final = 2
_NLMSGERR_ATTR_MISS_TYPE: Final = 5

# <linux/bpf_common.h>
_BPF_LOAD_TYPE: Final = (0x28, 0, 0, 4)
"""BPF_LD | BPF_H | BPF_ABS of `nlmsg_type`."""
_BPF_JEQ_K: Final = 0x15
_BPF_RET_K: Final = 0x06

# <asm/socket.h>
_SO_RCVBUFFORCE: Final = 33

_RECEIVE_BYTES: Final = 1 << 18
"""More than the kernel puts into one datagram of a dump (32 KiB) or of a notification."""
_TIMEOUT_S: Final = 10.0
"""The kernel answers within the system call, unless it waits for a lock or loads a module."""
_DUMP_TRIES: Final = 8
"""A dump that the SAD or SPD changed under may miss entries and is asked again."""


@contextmanager
def _opening() -> Iterator[socket.socket]:
    """Yield a bound socket of this family to set its options; it stays open unless that fails.

    Raises:
        NoSocketError: The kernel gives none, or refuses an option.
    """
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    try:
        opened = socket.socket(socket.AF_NETLINK, kind, _NETLINK_XFRM)
    except OSError as error:
        raise NoSocketError(
            f"the kernel gives no NETLINK_XFRM socket ({error.strerror}): it needs CONFIG_XFRM_USER, "
            "as a module xfrm_user"
        ) from error
    try:
        opened.bind((0, 0))
        yield opened
    except OSError as error:
        opened.close()
        raise NoSocketError(f"the kernel refused to set up the netlink socket: {error.strerror}") from error


class XfrmSocket:
    """A socket for requests; every call blocks, none may overlap another.

    Every method raises `KernelRefusedError` when the kernel refuses, `NoAnswerError` when it does not answer,
    `XfrmDecodeError` when its answer makes no sense, `XfrmEncodeError` if a record cannot be written, and
    `NoSocketError` if the socket itself fails.
    """

    def __init__(self, *, timeout_s: float = _TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self.warning = ""
        """What the kernel said beside its success at the last request: why it offloaded nothing, for one."""
        self._sequence = 0
        with _opening() as self._socket:
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
            self._socket.settimeout(timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    # --- the SAD --------------------------------------------------------------------------------------

    def add_sa(self, sa: r.SaInfo, attributes: r.Attributes) -> None:
        """Add an SA; EEXIST if there is one of that name."""
        self.request(MessageType.NEWSA, sa, attributes, flags=_NLM_F_CREATE | _NLM_F_EXCL)

    def update_sa(self, sa: r.SaInfo, attributes: r.Attributes) -> None:
        """Give an SA that is there, perhaps from `allocate_spi`, its keys, lifetimes or addresses."""
        self.request(MessageType.UPDSA, sa, attributes)

    def delete_sa(self, sa: r.SaId, attributes: r.Attributes = r.NO_ATTRIBUTES) -> None:
        """Delete an SA; ESRCH if there is none of that name, mark and, if given, source."""
        self.request(MessageType.DELSA, sa, attributes)

    def sa(self, sa: r.SaId, attributes: r.Attributes = r.NO_ATTRIBUTES) -> Sa:
        """Return one SA; ESRCH if there is none of that name and mark."""
        return _only(self.request(MessageType.GETSA, sa, attributes), r.SaInfo)

    def sas(self, attributes: r.Attributes = r.NO_ATTRIBUTES) -> tuple[Sa, ...]:
        """List the SAD, or what `protocol` and `address_filter` leave of it."""
        return _all(self.dump(MessageType.GETSA, attributes), r.SaInfo)

    def allocate_spi(self, spis: r.SpiRange, attributes: r.Attributes = r.NO_ATTRIBUTES) -> Sa:
        """Reserve an SPI by an SA without keys, which expires when nobody updates it."""
        return _only(self.request(MessageType.ALLOCSPI, spis, attributes), r.SaInfo)

    def flush_sas(self, protocol: int) -> None:
        """Delete every SA of a protocol, or all with `ANY_PROTOCOL`; none there is no error."""
        self.request(MessageType.FLUSHSA, r.FlushSas(protocol=protocol))

    def sad_info(self) -> r.SadInfo:
        """Return the SAD in numbers."""
        return _only(self.request(MessageType.GETSADINFO, r.SadInfo()), r.SadInfo).body

    def aevent(self, event: r.Aevent, attributes: r.Attributes = r.NO_ATTRIBUTES) -> r.Message[r.Aevent]:
        """Return the counters of one SA that the flags of `event` ask for."""
        return _only(self.request(MessageType.GETAE, event, attributes), r.Aevent)

    def set_aevent(self, event: r.Aevent, attributes: r.Attributes) -> None:
        """Set counters and thresholds of one SA."""
        self.request(MessageType.NEWAE, event, attributes, flags=_NLM_F_REPLACE)

    def migrate(self, policy: r.PolicyId, attributes: r.Attributes) -> None:
        """Give the templates of a policy and their SAs new addresses."""
        self.request(MessageType.MIGRATE, policy, attributes)

    # --- the SPD --------------------------------------------------------------------------------------

    def add_policy(self, policy: r.PolicyInfo, attributes: r.Attributes = r.NO_ATTRIBUTES) -> None:
        """Add a policy; EEXIST if there is one of that selector, direction, mark and interface."""
        self.request(MessageType.NEWPOLICY, policy, attributes, flags=_NLM_F_CREATE | _NLM_F_EXCL)

    def update_policy(self, policy: r.PolicyInfo, attributes: r.Attributes = r.NO_ATTRIBUTES) -> None:
        """Add a policy, or replace it without a gap."""
        self.request(MessageType.UPDPOLICY, policy, attributes)

    def delete_policy(self, policy: r.PolicyId, attributes: r.Attributes = r.NO_ATTRIBUTES) -> None:
        """Delete a policy; ENOENT if there is none."""
        self.request(MessageType.DELPOLICY, policy, attributes)

    def policy(self, policy: r.PolicyId, attributes: r.Attributes = r.NO_ATTRIBUTES) -> Policy:
        """Return one policy; ENOENT if there is none."""
        return _only(self.request(MessageType.GETPOLICY, policy, attributes), r.PolicyInfo)

    def policies(self) -> tuple[Policy, ...]:
        """List the SPD, main and sub policies, those of sockets among them."""
        return _all(self.dump(MessageType.GETPOLICY), r.PolicyInfo)

    def flush_policies(self, attributes: r.Attributes = r.NO_ATTRIBUTES) -> None:
        """Delete every policy of a type, main unless `policy_type` says otherwise; those of sockets stay."""
        self.request(MessageType.FLUSHPOLICY, r.Nothing(), attributes)

    def spd_info(self) -> r.SpdInfo:
        """Return the SPD in numbers."""
        return _only(self.request(MessageType.GETSPDINFO, r.SpdInfo()), r.SpdInfo).body

    def set_spd_thresholds(self, ipv4: r.HashThreshold, ipv6: r.HashThreshold) -> None:
        """Set from which prefix lengths on policies are hashed."""
        self.request(MessageType.NEWSPDINFO, r.SpdInfo(ipv4_threshold=ipv4, ipv6_threshold=ipv6))

    def policy_defaults(self) -> r.PolicyDefaults:
        """Return what becomes of traffic that no policy matches; Linux 5.15."""
        return _only(self.request(MessageType.GETDEFAULT, r.PolicyDefaults()), r.PolicyDefaults).body

    def set_policy_defaults(self, defaults: r.PolicyDefaults) -> None:
        """Set what becomes of traffic that no policy matches; Linux 5.15."""
        self.request(MessageType.SETDEFAULT, defaults)

    # --- any request ----------------------------------------------------------------------------------

    def request(
        self,
        kind: MessageType,
        body: r.Body,
        attributes: r.Attributes = r.NO_ATTRIBUTES,
        *,
        flags: int = 0,
    ) -> tuple[r.Message[r.Body], ...]:
        """Send a request and return its answers, those before the acknowledgement."""
        return self._exchange(kind, body, attributes, flags | _NLM_F_ACK)[0]

    def dump(
        self, kind: MessageType, attributes: r.Attributes = r.NO_ATTRIBUTES
    ) -> tuple[r.Message[r.Body], ...]:
        """List what the kernel has, asking again if it changed meanwhile.

        Raises:
            KernelRefusedError: EINTR: it changed under every try.
        """
        for _ in range(_DUMP_TRIES):
            answers, is_whole = self._exchange(kind, r.Nothing(), attributes, NLM_F_DUMP)
            if is_whole:
                return answers
        raise KernelRefusedError(errno.EINTR, _spelled(kind), text="the list changed while it was read")

    def _exchange(
        self, kind: MessageType, body: r.Body, attributes: r.Attributes, flags: int
    ) -> tuple[tuple[r.Message[r.Body], ...], bool]:
        """Send a request; return the answers, and whether they are all of one moment."""
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        message = r.Message(
            type=kind,
            body=body,
            attributes=attributes,
            flags=flags | _NLM_F_REQUEST,
            sequence=self._sequence,
        )
        # What explains a refusal is kept apart, so that the bytes with the keys can go at once.
        data = encode(message)
        request = _Request(kind, message.flags, _attribute_offsets(kind, message.flags, data))
        try:
            self._socket.send(data)
        except OSError as error:
            raise NoSocketError(f"the netlink socket failed: {error.strerror}") from error
        finally:
            data[:] = bytes(len(data))
        answers: list[r.Message[r.Body]] = []
        failure: XfrmDecodeError | None = None
        is_whole = True
        for raw in self._answers(request):
            number, answer_flags = struct.unpack_from("=HH", raw, 4)
            is_whole &= not answer_flags & _NLM_F_DUMP_INTR
            if number in {_NLMSG_ERROR, _NLMSG_DONE}:
                self.warning = _check_end(raw, request)
                break
            if number == _NLMSG_NOOP:
                continue
            # A dump is read to its end whatever is in it: the kernel begins no other before.
            try:
                answers.append(decode(raw))
            except XfrmDecodeError as error:
                failure = failure or error
        if failure is not None:
            raise failure
        return tuple(answers), is_whole

    def _answers(self, request: "_Request") -> Iterator[bytes]:
        """Yield the messages that answer the last request, until the caller has enough."""
        while True:
            try:
                data, (port, _) = self._socket.recvfrom(_RECEIVE_BYTES)
            except TimeoutError:
                raise NoAnswerError(_spelled(request.kind), self._timeout_s) from None
            except OSError as error:
                raise NoSocketError(f"the netlink socket failed: {error.strerror}") from error
            # Another process may send to our port; only the kernel has port 0.
            if port != 0:
                continue
            for raw in split(data):
                # What is left of a request that timed out has an older number.
                if struct.unpack_from("=I", raw, 8)[0] == self._sequence:
                    yield raw


class _Request:
    """What is kept of a request to explain its refusal: no keys."""

    __slots__ = ("attributes", "flags", "kind")

    def __init__(self, kind: MessageType, flags: int, attributes: tuple[tuple[int, int, int], ...]) -> None:
        self.kind = kind
        self.flags = flags
        self.attributes = attributes
        """Type, offset and length of each."""

    def attribute_at(self, offset: int) -> str | None:
        """Return the name of the attribute at an offset of the request."""
        for kind, start, length in self.attributes:
            if start <= offset < start + length:
                return self.attribute_name(kind)
        return None

    def attribute_name(self, number: int) -> str:
        """Return the name of an attribute by its number."""
        names: dict[int, str] = {kind: name for kind, name, _ in message_class(self.kind, self.flags).nla_map}
        return names.get(number, f"attribute {number}")


def _spelled(kind: MessageType) -> str:
    return f"XFRM_MSG_{kind.name}"


def _attribute_offsets(kind: MessageType, flags: int, data: bytearray) -> tuple[tuple[int, int, int], ...]:
    start = aligned(HEADER_BYTES + message_class(kind, flags).layout.size())
    return tuple(attribute_spans(data, start, len(data)))


def split(data: bytes) -> Iterator[bytes]:
    """Yield each netlink message of a datagram.

    Raises:
        XfrmDecodeError: A length lies.
    """
    offset = 0
    while offset < len(data):
        left = len(data) - offset
        length = struct.unpack_from("=I", data, offset)[0] if left >= HEADER_BYTES else 0
        if not HEADER_BYTES <= length <= left:
            raise XfrmDecodeError(f"a netlink message says it has {length} bytes, {left} are left")
        yield data[offset : offset + length]
        offset += aligned(length)


def _check_end(raw: bytes, request: _Request) -> str:
    """Raise what an acknowledgement or the end of a dump says; of a success return the text beside it.

    The bytes: nlmsghdr, the negative errno, in an NLMSG_ERROR the request (its header if capped), then the
    attributes of the extended acknowledgement if there are any.
    """
    number, flags = struct.unpack_from("=HH", raw, 4)
    if len(raw) < HEADER_BYTES + 4:
        # An NLMSG_DONE without a code is what kernels before 4.20 end a dump with.
        if number == _NLMSG_DONE:
            return ""
        raise XfrmDecodeError(f"an acknowledgement of {len(raw)} bytes has no code")
    (code,) = struct.unpack_from("=i", raw, HEADER_BYTES)
    if code == 0 and not flags & _NLM_F_ACK_TLVS:
        return ""
    start = HEADER_BYTES + 4
    if number == _NLMSG_ERROR:
        if len(raw) < start + HEADER_BYTES:
            raise XfrmDecodeError(f"an acknowledgement of {len(raw)} bytes does not name its request")
        echoed = HEADER_BYTES if flags & _NLM_F_CAPPED else struct.unpack_from("=I", raw, start)[0]
        start += aligned(echoed)
    said: dict[int, bytes] = {}
    if flags & _NLM_F_ACK_TLVS:
        said = {
            kind: raw[offset + 4 : offset + length]
            for kind, offset, length in attribute_spans(raw, start, len(raw))
        }
    text = said.get(_NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode(errors="replace")
    if code == 0:
        return text
    attribute, is_missing = _pointed_at(said, request)
    raise KernelRefusedError(
        abs(code),
        _spelled(request.kind),
        text=text,
        attribute=attribute,
        is_missing=is_missing,
    )


def _pointed_at(said: dict[int, bytes], request: _Request) -> tuple[str | None, bool]:
    """Return the attribute an extended acknowledgement points at, and whether it is one that misses."""
    if missing := _u32(said.get(_NLMSGERR_ATTR_MISS_TYPE)):
        return request.attribute_name(missing), True
    offset = _u32(said.get(_NLMSGERR_ATTR_OFFS))
    return (request.attribute_at(offset) if offset else None), False


def _u32(value: bytes | None) -> int | None:
    return None if value is None or len(value) < 4 else int(struct.unpack_from("=I", value)[0])


B = TypeVar("B", bound=r.Body)


def _all(messages: Iterable[r.Message[r.Body]], body: type[B]) -> tuple[r.Message[B], ...]:
    """Return messages as those with this body, which they must be."""
    found: list[r.Message[B]] = []
    for message in messages:
        if not isinstance(message.body, body):
            raise XfrmDecodeError(f"the kernel answered with XFRM_MSG_{message.type.name}")
        # mypy does not narrow a type argument by one of its members.
        found.append(message)  # type: ignore[arg-type]
    return tuple(found)


def _only(messages: tuple[r.Message[r.Body], ...], body: type[B]) -> r.Message[B]:
    found = _all(messages, body)
    if len(found) != 1:
        raise XfrmDecodeError(f"the kernel gave {len(found)} answers where one is due")
    return found[0]


def _filter(kinds: Sequence[MessageType]) -> tuple[BpfInstruction, ...]:
    """Return the classic BPF program that lets messages of these types pass."""
    # BPF reads network order, netlink has the order of the host.
    tests = ((_BPF_JEQ_K, len(kinds) - number, 0, socket.htons(kind)) for number, kind in enumerate(kinds))
    return (_BPF_LOAD_TYPE, *tests, (_BPF_RET_K, 0, 0, 0), (_BPF_RET_K, 0, 0, _RECEIVE_BYTES))


class XfrmListener:
    """A socket for notifications; made readable by the kernel, read without blocking.

    Args:
        groups: What to be told.
        kinds: What of it; everything without any.
        buffer_bytes: How much may wait to be read; the kernel doubles it, and without CAP_NET_ADMIN it is at
            most net.core.rmem_max.

    Raises:
        NoSocketError: The kernel gives no such socket, or does not know a group.
    """

    def __init__(
        self, groups: Iterable[Group], *, kinds: Sequence[MessageType] = (), buffer_bytes: int = 1 << 20
    ) -> None:
        with _opening() as self._socket:
            self._socket.setblocking(False)
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer_bytes)
            except PermissionError:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
            if kinds:
                attach_filter(self._socket, _filter(kinds))
            for group in groups:
                self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def fileno(self) -> int:
        """Return the descriptor, for `loop.add_reader`."""
        return self._socket.fileno()

    def receive(self) -> tuple[r.Message[r.Body], ...]:
        """Return what waits, of one datagram; nothing if nothing waits.

        Raises:
            EventsLostError: The kernel dropped notifications; call again for those that follow.
            XfrmDecodeError: A datagram makes no sense; it is gone, call again for the next.
        """
        try:
            data, (port, _) = self._socket.recvfrom(_RECEIVE_BYTES)
        except BlockingIOError:
            return ()
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                raise EventsLostError("the kernel dropped notifications of the SAD and the SPD") from None
            raise NoSocketError(f"the netlink socket failed: {error.strerror}") from error
        if port != 0:
            return ()
        return tuple(decode(raw) for raw in split(data))


class XfrmThread:
    """One `XfrmSocket` in a thread of its own, for asyncio: `await thread.run(lambda xfrm: xfrm.sas())`."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="xfrm")
        self._socket: XfrmSocket | None = None

    async def run(self, call: Callable[[XfrmSocket], T]) -> T:
        """Call with the socket in the thread; calls run one after another, in their order.

        Raises:
            XfrmError: As the call does.
        """
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._in_thread, call)

    def _in_thread(self, call: Callable[[XfrmSocket], T]) -> T:
        if self._socket is None:
            self._socket = XfrmSocket()
        return call(self._socket)

    async def close(self) -> None:
        """Close the socket and end its thread."""

        def work() -> None:
            if self._socket is not None:
                self._socket.close()
                self._socket = None

        await asyncio.get_running_loop().run_in_executor(self._executor, work)
        self._executor.shutdown(wait=False)
