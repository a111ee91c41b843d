"""A kernel behind NETLINK_XFRM, in bytes: a SAD, an SPD, and NICs that take of them what their profiles say.

It does what no test machine can be made to do: drivers that only profiles know, kernels that fall back to
software without a word, tables that are full, devices that go down under their SAs. How the kernel deals with
a driver's answer is as net/xfrm/xfrm_device.c of Linux 6.12 has it (xfrm_dev_state_add, xfrm_dev_policy_add);
it encrypts nothing. The profile is read here by other code than `gateway.datapath.ability` has, as a driver
would.
"""

import errno
import os
import struct
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.codec import decode, encode
from gateway.datapath.xfrm.numbers import MessageType, Mode, OffloadFlag, PolicyDirection, SaFlag
from gateway.hardware.profiles import Algorithm, Offload, Profile

_ERROR, _DONE = 2, 3
_CAPPED, _TLVS = 0x100, 0x200
_DUMP = 0x300
_FROM_THE_KERNEL = (0, 0)
_WORDS = {Mode.TUNNEL: "tunnel", Mode.TRANSPORT: "transport"}
_ESP = 50


class Refusal(Exception):
    """The kernel says no.

    Attributes:
        code: A positive errno.
    """

    def __init__(self, code: int, text: str = "") -> None:
        super().__init__(text)
        self.code = code


@dataclass(kw_only=True)
class FakeNic:
    """A device whose driver takes what its profile says.

    Attributes:
        profile: `None`: it has no offload at all.
        unsupported: What the driver answers to an SA it does not take. EOPNOTSUPP to crypto offload makes the
            kernel fall back without an error; drivers differ, and one driver from check to check.
        max_sas: Instead of what the profile says.
    """

    name: str
    index: int
    profile: Profile | None = None
    unsupported: int = errno.EINVAL
    max_sas: int | None = None
    is_up: bool = True
    taken: int = 0

    def add_sa(self, info: r.SaInfo, attributes: r.Attributes) -> None:
        """Take an SA, or say why not, as a driver's xdo_dev_state_add does."""
        assert attributes.offload is not None
        assert self.profile is not None
        is_packet = bool(attributes.offload.flags & OffloadFlag.PACKET)
        offload = self.profile.packet if is_packet else self.profile.crypto
        if offload is None:
            raise Refusal(self.unsupported, "Unsupported offload type")
        said = _first_objection(offload, info, attributes, is_packet=is_packet)
        if said:
            raise Refusal(self.unsupported, said)
        limit = self.max_sas if self.max_sas is not None else offload.max_sas or None
        if limit is not None and self.taken >= limit:
            raise Refusal(errno.ENOSPC, "No space in SA table!")
        self.taken += 1


def _first_objection(offload: Offload, info: r.SaInfo, attributes: r.Attributes, *, is_packet: bool) -> str:
    assert attributes.offload is not None
    is_inbound = bool(attributes.offload.flags & OffloadFlag.INBOUND)
    window = attributes.replay_esn.window_packets if attributes.replay_esn is not None else 0
    objections: Mapping[str, bool] = {
        "Unsupported protocol": info.id.protocol != _ESP,
        "Cannot offload this algorithm, key or ICV length": not _takes_algorithms(offload, attributes),
        "Only one direction is offloaded": ("inbound" if is_inbound else "outbound")
        not in offload.directions,
        "Unsupported mode": _WORDS.get(info.mode, "") not in offload.modes,
        "Cannot offload ESN": bool(info.flags & SaFlag.ESN) and not offload.esn,
        "Unsupported replay window size": is_inbound
        and bool(offload.replay_windows)
        and window not in offload.replay_windows,
        "Encapsulation is not supported": attributes.encapsulation is not None
        and _WORDS.get(info.mode, "") not in offload.encapsulation_modes,
        "Unsupported upper protocol of the selector": bool(offload.selector_protocols)
        and info.selector.protocol not in (0, *offload.selector_protocols),
        "Cannot offload without reqid": is_packet and info.reqid == 0,
    }
    return next((text for text, objects in objections.items() if objects), "")


def _takes_algorithms(offload: Offload, attributes: r.Attributes) -> bool:
    if attributes.aead is not None:
        salt_bits = 24 if attributes.aead.name.startswith("rfc4309") else 32
        bits = len(attributes.aead.key) * 8 - salt_bits
        return _has(offload, attributes.aead.name, key_bits=bits, icv_bits=attributes.aead.icv_bits)
    if attributes.encryption is None or attributes.integrity is None:
        return False
    name, key = attributes.encryption.name, attributes.encryption.key
    icv_bits = getattr(attributes.integrity, "icv_bits", None)
    return _has(offload, name, key_bits=len(key) * 8) and _has(
        offload, attributes.integrity.name, icv_bits=icv_bits
    )


def _has(offload: Offload, name: str, *, key_bits: int | None = None, icv_bits: int | None = None) -> bool:
    def fits(algorithm: Algorithm) -> bool:
        return (
            algorithm.name == name
            and (key_bits is None or not algorithm.key_bits or key_bits in algorithm.key_bits)
            and (icv_bits is None or not algorithm.icv_bits or icv_bits in algorithm.icv_bits)
        )

    return any(fits(algorithm) for algorithm in offload.algorithms)


@dataclass
class _Held:
    info: r.SaInfo
    attributes: r.Attributes


@dataclass
class FakeKernel:
    """Everything behind the socket.

    Attributes:
        has_esp: Without it every SA is refused with EPROTONOSUPPORT.
        nics: By interface index.
        sas: By name.
        policies: By selector and direction.
        requests: Types of what was asked, in order.
    """

    has_esp: bool = True
    nics: dict[int, FakeNic] = field(default_factory=dict)
    sas: dict[r.SaId, _Held] = field(default_factory=dict)
    policies: dict[tuple[Any, r.Selector], tuple[r.PolicyInfo, r.Attributes]] = field(default_factory=dict)
    requests: list[MessageType] = field(default_factory=list)
    _next_spi: int = 0xC0000001

    @contextmanager
    def opening(self) -> Iterator["FakeSocket"]:
        """Yield a socket; stands in for `gateway.datapath.xfrm.netlink._opening`."""
        yield FakeSocket(self)

    def take_down(self, index: int) -> None:
        """Take a device down: the kernel deletes the SAs that it carries, and tells nobody (NETDEV_DOWN)."""
        self.nics[index].is_up = False
        for name, held in tuple(self.sas.items()):
            if held.attributes.offload is not None and held.attributes.offload.link == index:
                self._forget(name)

    # --- requests -----------------------------------------------------------------------------------

    def answer(self, data: bytes) -> bytes:
        """Return what the kernel says to a request: its answers, and the acknowledgement or the end."""
        request = decode(data)
        self.requests.append(request.type)
        if request.flags & _DUMP == _DUMP:
            found = b"".join(self._reply(request, *entry) for entry in self._dump(request))
            return found + _frame(_DONE, request.sequence, struct.pack("=i", 0), 2)
        try:
            entries, said = self._handle(request)
        except Refusal as refusal:
            return _ack(request.sequence, refusal.code, str(refusal))
        return b"".join(self._reply(request, *entry) for entry in entries) + _ack(request.sequence, 0, said)

    def _reply(
        self, request: r.Message[r.Body], kind: MessageType, body: r.Body, attributes: r.Attributes
    ) -> bytes:
        flags = 2 if request.flags & _DUMP == _DUMP else 0
        return bytes(
            encode(
                r.Message(type=kind, body=body, attributes=attributes, sequence=request.sequence, flags=flags)
            )
        )

    def _dump(self, request: r.Message[r.Body]) -> list[tuple[MessageType, r.Body, r.Attributes]]:
        if request.type is MessageType.GETSA:
            return [(MessageType.NEWSA, held.info, held.attributes) for held in self.sas.values()]
        return [(MessageType.NEWPOLICY, info, attributes) for info, attributes in self.policies.values()]

    def _handle(
        self, request: r.Message[r.Body]
    ) -> tuple[list[tuple[MessageType, r.Body, r.Attributes]], str]:
        handlers: dict[MessageType, Callable[[Any, r.Attributes], Any]] = {
            MessageType.NEWSA: self._new_sa,
            MessageType.UPDSA: self._update_sa,
            MessageType.GETSA: self._get_sa,
            MessageType.DELSA: self._delete_sa,
            MessageType.ALLOCSPI: self._allocate_spi,
            MessageType.UPDPOLICY: self._update_policy,
            MessageType.NEWPOLICY: self._update_policy,
            MessageType.GETPOLICY: self._get_policy,
            MessageType.DELPOLICY: self._delete_policy,
        }
        handler = handlers.get(request.type)
        if handler is None:
            raise Refusal(errno.EOPNOTSUPP, f"this fake has no {request.type.name}")
        answers, said = handler(request.body, request.attributes)
        return answers, said

    # --- the SAD ------------------------------------------------------------------------------------

    def _new_sa(self, info: r.SaInfo, attributes: r.Attributes) -> tuple[list[Any], str]:
        if not self.has_esp:
            raise Refusal(errno.EPROTONOSUPPORT)
        if info.id in self.sas:
            raise Refusal(errno.EEXIST)
        attributes, said = self._offloaded(info, attributes)
        self.sas[info.id] = _Held(info, attributes)
        return [], said

    def _update_sa(self, info: r.SaInfo, attributes: r.Attributes) -> tuple[list[Any], str]:
        if info.id not in self.sas:
            raise Refusal(errno.ESRCH)
        attributes, said = self._offloaded(info, attributes)
        self._forget(info.id)
        self.sas[info.id] = _Held(info, attributes)
        return [], said

    def _offloaded(self, info: r.SaInfo, attributes: r.Attributes) -> tuple[r.Attributes, str]:
        """Return the attributes as the kernel keeps them, and what it says beside its success."""
        offload = attributes.offload
        if offload is None:
            return attributes, ""
        is_packet = bool(offload.flags & OffloadFlag.PACKET)
        nic = self.nics.get(offload.link)
        if nic is None:
            raise Refusal(errno.ENODEV)
        in_software = replace(attributes, offload=None)
        if nic.profile is None:
            if is_packet:
                raise Refusal(errno.EINVAL)
            return in_software, ""
        crypto = nic.profile.crypto
        if not is_packet and info.flags & SaFlag.ESN and crypto is not None and not crypto.esn:
            raise Refusal(errno.EINVAL, "Device doesn't support offload with ESN")
        try:
            nic.add_sa(info, attributes)
        except Refusal as refusal:
            if is_packet or refusal.code != errno.EOPNOTSUPP:
                raise
            return in_software, str(refusal)
        return attributes, ""

    def _get_sa(self, name: r.SaId, _: r.Attributes) -> tuple[list[Any], str]:
        held = self._find(name)
        return [(MessageType.NEWSA, held.info, held.attributes)], ""

    def _delete_sa(self, name: r.SaId, _: r.Attributes) -> tuple[list[Any], str]:
        self._find(name)
        self._forget(name)
        return [], ""

    def _find(self, name: r.SaId) -> _Held:
        held = self.sas.get(name)
        if held is None:
            raise Refusal(errno.ESRCH)
        return held

    def _forget(self, name: r.SaId) -> None:
        offload = self.sas.pop(name).attributes.offload
        if offload is not None:
            self.nics[offload.link].taken -= 1

    def _allocate_spi(self, spis: r.SpiRange, _: r.Attributes) -> tuple[list[Any], str]:
        name = replace(spis.sa.id, spi=self._next_spi)
        self._next_spi += 1
        info = replace(spis.sa, id=name, selector=r.Selector(has_family=False))
        self.sas[name] = _Held(info, r.NO_ATTRIBUTES)
        return [(MessageType.NEWSA, info, r.NO_ATTRIBUTES)], ""

    # --- the SPD ------------------------------------------------------------------------------------

    def _update_policy(self, info: r.PolicyInfo, attributes: r.Attributes) -> tuple[list[Any], str]:
        offload = attributes.offload
        if offload is not None:
            nic = self.nics.get(offload.link)
            if nic is None:
                raise Refusal(errno.ENODEV)
            if nic.profile is None or nic.profile.packet is None:
                raise Refusal(errno.EINVAL, "Policy offload is not supported")
            if info.direction is PolicyDirection.FORWARD:
                raise Refusal(errno.EINVAL, "Cannot offload forward policy")
        self.policies[info.direction, info.selector] = (info, attributes)
        return [], ""

    def _get_policy(self, policy: r.PolicyId, _: r.Attributes) -> tuple[list[Any], str]:
        found = self.policies.get((policy.direction, policy.selector))
        if found is None:
            raise Refusal(errno.ENOENT)
        return [(MessageType.NEWPOLICY, *found)], ""

    def _delete_policy(self, policy: r.PolicyId, _: r.Attributes) -> tuple[list[Any], str]:
        if self.policies.pop((policy.direction, policy.selector), None) is None:
            raise Refusal(errno.ENOENT)
        return [], ""


class FakeSocket:
    """The other end of `XfrmSocket` and `XfrmListener`: answers wait in a queue; nothing is ever notified."""

    def __init__(self, kernel: FakeKernel) -> None:
        self._kernel = kernel
        self._waiting: deque[bytes] = deque()
        self._is_blocking = True
        self._descriptor = os.eventfd(0)

    def setsockopt(self, *_: object) -> None:
        pass

    def settimeout(self, _: float) -> None:
        pass

    def setblocking(self, flag: bool) -> None:
        self._is_blocking = flag

    def fileno(self) -> int:
        return self._descriptor

    def send(self, data: bytes) -> None:
        self._waiting.append(self._kernel.answer(bytes(data)))

    def recvfrom(self, _most: int) -> tuple[bytes, tuple[int, int]]:
        if not self._waiting:
            raise TimeoutError if self._is_blocking else BlockingIOError
        return self._waiting.popleft(), _FROM_THE_KERNEL

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


def _frame(kind: int, sequence: int, body: bytes, flags: int) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body


def _ack(sequence: int, code: int, text: str) -> bytes:
    """Return an acknowledgement whose request is not repeated, with a text if there is one."""
    said = b""
    if text:
        value = text.encode() + b"\0"
        said = struct.pack("=HH", 4 + len(value), 1) + value + bytes(-len(value) % 4)
    echo = struct.pack("=IHHII", 16, 0, 0, sequence, 0)
    return _frame(_ERROR, sequence, struct.pack("=i", -code) + echo + said, _CAPPED | (_TLVS if said else 0))
