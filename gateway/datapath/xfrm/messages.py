"""The messages of NETLINK_XFRM as pyroute2 classes: a dict of the body's members, and a list of attributes.

What the classes do beyond pyroute2's own: a length that lies is an error, never read past; attributes are
decoded at once; key bytes are `Secret`, so that a printed message shows no key. `parse` reads any message.
"""

import struct
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final

from pyroute2.netlink import NotInitialized, nla, nlmsg

from gateway.datapath.xfrm import layouts
from gateway.datapath.xfrm.errors import XfrmDecodeError
from gateway.datapath.xfrm.layouts import Fields, Layout
from gateway.datapath.xfrm.numbers import Attribute, MessageType, SadAttribute, SpdAttribute
from gateway.ipsec.secret import Secret

HEADER_BYTES: Final = 16
"""`nlmsghdr`."""
ATTRIBUTE_HEADER_BYTES: Final = 4
"""`nlattr`."""
ADDRESS_BYTES: Final = 16
"""`xfrm_address_t`: an IPv4 address is its first four bytes."""
NLM_F_DUMP: Final = 0x300
_TYPE_MASK: Final = 0x3FFF
"""Of `nla_type`, without NLA_F_NESTED and NLA_F_NET_BYTEORDER."""
_ESN_WORD_BYTES: Final = 4


def aligned(length: int) -> int:
    """Return `length` rounded up to the 4 bytes netlink aligns everything to."""
    return (length + 3) & ~3


class _Attribute(nla):  # type: ignore[misc]  # pyroute2 has no types
    """An attribute whose value is read and written whole."""

    __slots__ = ()

    value: Any
    least_bytes: ClassVar[int] = 0
    """Of the value; a shorter one is an error, a longer one comes from a newer kernel."""

    @classmethod
    def get_size(cls) -> int:
        return cls.least_bytes

    def payload(self) -> bytes:
        """Return the bytes of the value as received."""
        return bytes(self.data[self.offset + ATTRIBUTE_HEADER_BYTES : self.offset + self.length])

    def ft_decode(self, offset: int) -> None:  # noqa: ARG002  # pyroute2's signature
        self.value = self.value_of(self.payload())

    def ft_encode(self, offset: int) -> tuple[int, int]:
        data = self.bytes_of(dict(self) if self.value is NotInitialized else self.value)
        padding = aligned(len(data)) - len(data)
        self.data.extend(data)
        self.data.extend(bytes(padding))
        return offset + len(data) + padding, padding

    def value_of(self, payload: bytes) -> Any:
        """Return the value in these bytes."""
        raise NotImplementedError

    def bytes_of(self, value: Any) -> bytes:
        """Return the bytes of a value."""
        raise NotImplementedError


class _Struct(_Attribute):
    """An attribute that is one C struct."""

    __slots__ = ()
    layout: ClassVar[type[Layout]] = Layout

    @classmethod
    def get_size(cls) -> int:
        return cls.layout.size()

    def value_of(self, payload: bytes) -> Fields:
        return self.layout.decode_from(payload, 0)[0]

    def bytes_of(self, value: Mapping[str, Any]) -> bytes:
        return self.layout.pack(value)


class _Structs(_Attribute):
    """An attribute that is an array of C structs; its value is a list of dicts."""

    __slots__ = ()
    layout: ClassVar[type[Layout]] = Layout

    def value_of(self, payload: bytes) -> list[Fields]:
        size = self.layout.size()
        if len(payload) % size:
            raise XfrmDecodeError(f"{len(payload)} bytes are no array of structs of {size} bytes")
        return [self.layout.decode_from(payload, offset)[0] for offset in range(0, len(payload), size)]

    def bytes_of(self, value: list[Fields]) -> bytes:
        return b"".join(self.layout.pack(one) for one in value)


class _Algorithm(_Struct):
    """An algorithm: a struct with its key behind it, which is the member `alg_key`."""

    __slots__ = ()

    def value_of(self, payload: bytes) -> Fields:
        fields = super().value_of(payload)
        key = payload[self.layout.size() :]
        key_bytes = (fields["alg_key_len"] + 7) // 8
        if len(key) < key_bytes:
            raise XfrmDecodeError(f"the key has {len(key)} bytes, its length says {key_bytes}")
        return fields | {"alg_key": Secret(key[:key_bytes])}

    def bytes_of(self, value: Mapping[str, Any]) -> bytes:
        key: Secret = value["alg_key"]
        return super().bytes_of(value) + key.reveal()


class XfrmMessage(nlmsg):  # type: ignore[misc]  # pyroute2 has no types
    """A message: header, body, attributes."""

    __slots__ = ()
    prefix = "XFRMA_"
    layout: ClassVar[type[Layout]] = Layout
    """The body; the default is none."""

    nla_map: ClassVar[tuple[tuple[int, str, str], ...]] = (
        (Attribute.ALG_AUTH, "XFRMA_ALG_AUTH", "algo"),
        (Attribute.ALG_CRYPT, "XFRMA_ALG_CRYPT", "algo"),
        (Attribute.ALG_COMP, "XFRMA_ALG_COMP", "algo"),
        (Attribute.ENCAP, "XFRMA_ENCAP", "encap"),
        (Attribute.TMPL, "XFRMA_TMPL", "templates"),
        (Attribute.SA, "XFRMA_SA", "sa"),
        (Attribute.POLICY, "XFRMA_POLICY", "policy"),
        (Attribute.SEC_CTX, "XFRMA_SEC_CTX", "security_context"),
        (Attribute.LTIME_VAL, "XFRMA_LTIME_VAL", "lifetime"),
        (Attribute.REPLAY_VAL, "XFRMA_REPLAY_VAL", "replay"),
        (Attribute.REPLAY_THRESH, "XFRMA_REPLAY_THRESH", "uint32"),
        (Attribute.ETIMER_THRESH, "XFRMA_ETIMER_THRESH", "uint32"),
        (Attribute.SRCADDR, "XFRMA_SRCADDR", "address"),
        (Attribute.COADDR, "XFRMA_COADDR", "address"),
        (Attribute.LASTUSED, "XFRMA_LASTUSED", "uint64"),
        (Attribute.POLICY_TYPE, "XFRMA_POLICY_TYPE", "policy_type"),
        (Attribute.MIGRATE, "XFRMA_MIGRATE", "migrations"),
        (Attribute.ALG_AEAD, "XFRMA_ALG_AEAD", "aead"),
        (Attribute.KMADDRESS, "XFRMA_KMADDRESS", "kmaddress"),
        (Attribute.ALG_AUTH_TRUNC, "XFRMA_ALG_AUTH_TRUNC", "auth"),
        (Attribute.MARK, "XFRMA_MARK", "mark"),
        (Attribute.TFCPAD, "XFRMA_TFCPAD", "uint32"),
        (Attribute.REPLAY_ESN_VAL, "XFRMA_REPLAY_ESN_VAL", "replay_esn"),
        (Attribute.SA_EXTRA_FLAGS, "XFRMA_SA_EXTRA_FLAGS", "uint32"),
        (Attribute.PROTO, "XFRMA_PROTO", "uint8"),
        (Attribute.ADDRESS_FILTER, "XFRMA_ADDRESS_FILTER", "address_filter"),
        (Attribute.PAD, "XFRMA_PAD", "none"),
        (Attribute.OFFLOAD_DEV, "XFRMA_OFFLOAD_DEV", "offload"),
        (Attribute.SET_MARK, "XFRMA_SET_MARK", "uint32"),
        (Attribute.SET_MARK_MASK, "XFRMA_SET_MARK_MASK", "uint32"),
        (Attribute.IF_ID, "XFRMA_IF_ID", "uint32"),
        (Attribute.MTIMER_THRESH, "XFRMA_MTIMER_THRESH", "uint32"),
        (Attribute.SA_DIR, "XFRMA_SA_DIR", "uint8"),
        (Attribute.NAT_KEEPALIVE_INTERVAL, "XFRMA_NAT_KEEPALIVE_INTERVAL", "uint32"),
        (Attribute.SA_PCPU, "XFRMA_SA_PCPU", "uint32"),
        (Attribute.IPTFS_DROP_TIME, "XFRMA_IPTFS_DROP_TIME", "uint32"),
        (Attribute.IPTFS_REORDER_WINDOW, "XFRMA_IPTFS_REORDER_WINDOW", "uint16"),
        (Attribute.IPTFS_DONT_FRAG, "XFRMA_IPTFS_DONT_FRAG", "flag"),
        (Attribute.IPTFS_INIT_DELAY, "XFRMA_IPTFS_INIT_DELAY", "uint32"),
        (Attribute.IPTFS_MAX_QSIZE, "XFRMA_IPTFS_MAX_QSIZE", "uint32"),
        (Attribute.IPTFS_PKT_SIZE, "XFRMA_IPTFS_PKT_SIZE", "uint32"),
    )

    class algo(_Algorithm):  # noqa: N801  # pyroute2 names attribute classes so
        """`xfrm_algo`."""

        __slots__ = ()
        layout = layouts.XfrmAlgo

    class auth(_Algorithm):  # noqa: N801
        """`xfrm_algo_auth`."""

        __slots__ = ()
        layout = layouts.XfrmAlgoAuth

    class aead(_Algorithm):  # noqa: N801
        """`xfrm_algo_aead`."""

        __slots__ = ()
        layout = layouts.XfrmAlgoAead

    class encap(_Struct):  # noqa: N801
        """`xfrm_encap_tmpl`."""

        __slots__ = ()
        layout = layouts.XfrmEncapTmpl

    class templates(_Structs):  # noqa: N801
        """`xfrm_user_tmpl`, one or more."""

        __slots__ = ()
        layout = layouts.XfrmUserTmpl

    class sa(_Struct):  # noqa: N801
        """`xfrm_usersa_info`."""

        __slots__ = ()
        layout = layouts.XfrmUsersaInfo

    class policy(_Struct):  # noqa: N801
        """`xfrm_userpolicy_info`."""

        __slots__ = ()
        layout = layouts.XfrmUserpolicyInfo

    class security_context(_Struct):  # noqa: N801
        """`xfrm_user_sec_ctx`, its context the member `ctx_str`."""

        __slots__ = ()
        layout = layouts.XfrmUserSecCtx

        def value_of(self, payload: bytes) -> Fields:
            """Return the struct's members and the context."""
            fields = super().value_of(payload)
            context = payload[self.layout.size() :]
            if len(context) < fields["ctx_len"]:
                raise XfrmDecodeError(f"the context has {len(context)} bytes of {fields['ctx_len']}")
            return fields | {"ctx_str": context[: fields["ctx_len"]]}

        def bytes_of(self, value: Mapping[str, Any]) -> bytes:
            """Return the struct and the context behind it."""
            return super().bytes_of(value) + bytes(value["ctx_str"])

    class lifetime(_Struct):  # noqa: N801
        """`xfrm_lifetime_cur`."""

        __slots__ = ()
        layout = layouts.XfrmLifetimeCur

    class replay(_Struct):  # noqa: N801
        """`xfrm_replay_state`."""

        __slots__ = ()
        layout = layouts.XfrmReplayState

    class replay_esn(_Struct):  # noqa: N801
        """`xfrm_replay_state_esn`, its bitmap the member `bmp`: words of 32 bits.

        A request may leave out the whole bitmap and tell its length only, as iproute2 does: it is then zero.
        """

        __slots__ = ()
        layout = layouts.XfrmReplayStateEsn

        def value_of(self, payload: bytes) -> Fields:
            """Return the struct's members and the words of the bitmap."""
            fields = super().value_of(payload)
            words = payload[self.layout.size() :]
            if not words:
                return fields | {"bmp": ()}
            if len(words) < fields["bmp_len"] * _ESN_WORD_BYTES:
                raise XfrmDecodeError(f"the bitmap has {len(words)} bytes of {fields['bmp_len']} words")
            return fields | {"bmp": struct.unpack_from(f"={fields['bmp_len']}I", words)}

        def bytes_of(self, value: Mapping[str, Any]) -> bytes:
            """Return the struct and the words behind it."""
            return super().bytes_of(value) + struct.pack(f"={len(value['bmp'])}I", *value["bmp"])

    class address(_Attribute):  # noqa: N801
        """`xfrm_address_t`: 16 bytes, whose family the body tells."""

        __slots__ = ()
        least_bytes = ADDRESS_BYTES

        def value_of(self, payload: bytes) -> bytes:
            """Return the 16 bytes."""
            return payload[:ADDRESS_BYTES]

        def bytes_of(self, value: bytes) -> bytes:
            """Return the 16 bytes."""
            return value

    class policy_type(_Struct):  # noqa: N801
        """`xfrm_userpolicy_type`."""

        __slots__ = ()
        layout = layouts.XfrmUserpolicyType

    class migrations(_Structs):  # noqa: N801
        """`xfrm_user_migrate`, one or more."""

        __slots__ = ()
        layout = layouts.XfrmUserMigrate

    class kmaddress(_Struct):  # noqa: N801
        """`xfrm_user_kmaddress`."""

        __slots__ = ()
        layout = layouts.XfrmUserKmaddress

    class mark(_Struct):  # noqa: N801
        """`xfrm_mark`."""

        __slots__ = ()
        layout = layouts.XfrmMark

    class address_filter(_Struct):  # noqa: N801
        """`xfrm_address_filter`."""

        __slots__ = ()
        layout = layouts.XfrmAddressFilter

    class offload(_Struct):  # noqa: N801
        """`xfrm_user_offload`."""

        __slots__ = ()
        layout = layouts.XfrmUserOffload

    def ft_encode(self, offset: int) -> tuple[int, int]:
        """Append the body, padded if attributes follow; called by pyroute2. Return the end, and 0."""
        # A plain dict: `get` of a message also finds attributes, such as XFRMA_POLICY for `policy`.
        offset = self.layout.encode_into(self.data, offset, dict(self))
        padding = aligned(offset) - offset if self["attrs"] else 0
        self.data.extend(bytes(padding))
        return offset + padding, 0

    def ft_decode(self, offset: int) -> None:
        """Read the body and find the attributes; called by pyroute2."""
        fields, offset = self.layout.decode_from(self.data, offset)
        self.update(fields)
        self.decode_nlas(aligned(offset))

    def decode(self) -> None:
        """Decode the message and every attribute of it.

        Raises:
            XfrmDecodeError: A length lies, or a value is not what its attribute wants.
        """
        _check_frame(bytes(self.data[self.offset :]), self.layout.size())
        super().decode()
        for slot in self["attrs"]:
            name, attribute = slot.cell
            if attribute.length - ATTRIBUTE_HEADER_BYTES < attribute.get_size():
                has = attribute.length - ATTRIBUTE_HEADER_BYTES
                raise XfrmDecodeError(f"{name} has {has} bytes, wants {attribute.get_size()}")
            try:
                attribute.decode()
            except XfrmDecodeError as error:
                raise XfrmDecodeError(f"{name}: {error}") from None


def _check_frame(data: bytes, body_bytes: int) -> None:
    """Check the lengths of a message that `data` begins with, and of its attributes."""
    if len(data) < HEADER_BYTES:
        raise XfrmDecodeError(f"{len(data)} bytes are less than a netlink header")
    (length,) = struct.unpack_from("=I", data)
    if length > len(data):
        raise XfrmDecodeError(f"the message says it has {length} bytes, there are {len(data)}")
    if length < HEADER_BYTES + body_bytes:
        raise XfrmDecodeError(f"the message has {length} bytes, wants {HEADER_BYTES + body_bytes}")
    for _ in attribute_spans(data, aligned(HEADER_BYTES + body_bytes), length):
        pass


def attribute_spans(data: bytes | bytearray, offset: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield type, offset and length (with its header) of every attribute between `offset` and `end`.

    Raises:
        XfrmDecodeError: A length lies.
    """
    while offset < end:
        if end - offset < ATTRIBUTE_HEADER_BYTES:
            raise XfrmDecodeError(f"{end - offset} bytes are left behind the last attribute")
        length, kind = struct.unpack_from("=HH", data, offset)
        if not ATTRIBUTE_HEADER_BYTES <= length <= end - offset:
            raise XfrmDecodeError(f"an attribute says it has {length} bytes, {end - offset} are left")
        yield kind & _TYPE_MASK, offset, length
        offset += aligned(length)


class UsersaInfo(XfrmMessage):
    """NEWSA and UPDSA."""

    __slots__ = ()
    layout = layouts.XfrmUsersaInfo


class UsersaId(XfrmMessage):
    """DELSA, and GETSA of one SA."""

    __slots__ = ()
    layout = layouts.XfrmUsersaId


class UserspiInfo(XfrmMessage):
    """ALLOCSPI; its answer is a NEWSA."""

    __slots__ = ()
    layout = layouts.XfrmUserspiInfo


class UsersaFlush(XfrmMessage):
    """FLUSHSA."""

    __slots__ = ()
    layout = layouts.XfrmUsersaFlush


class UserpolicyInfo(XfrmMessage):
    """NEWPOLICY and UPDPOLICY."""

    __slots__ = ()
    layout = layouts.XfrmUserpolicyInfo


class UserpolicyId(XfrmMessage):
    """DELPOLICY, GETPOLICY of one policy, and MIGRATE."""

    __slots__ = ()
    layout = layouts.XfrmUserpolicyId


class NoBody(XfrmMessage):
    """FLUSHPOLICY, and the dumps of GETSA and GETPOLICY: attributes only."""

    __slots__ = ()


class UserAcquire(XfrmMessage):
    """ACQUIRE."""

    __slots__ = ()
    layout = layouts.XfrmUserAcquire


class UserExpire(XfrmMessage):
    """EXPIRE."""

    __slots__ = ()
    layout = layouts.XfrmUserExpire


class UserPolexpire(XfrmMessage):
    """POLEXPIRE."""

    __slots__ = ()
    layout = layouts.XfrmUserPolexpire


class AeventId(XfrmMessage):
    """NEWAE and GETAE."""

    __slots__ = ()
    layout = layouts.XfrmAeventId


class UserReport(XfrmMessage):
    """REPORT."""

    __slots__ = ()
    layout = layouts.XfrmUserReport


class UserMapping(XfrmMessage):
    """MAPPING."""

    __slots__ = ()
    layout = layouts.XfrmUserMapping


class UserpolicyDefault(XfrmMessage):
    """SETDEFAULT and GETDEFAULT."""

    __slots__ = ()
    layout = layouts.XfrmUserpolicyDefault


class _Flags(Layout):
    """The 32 bits of flags that SADINFO and SPDINFO have for a body; the kernel echoes them."""

    members = (("flags", "I"),)


class SadInfo(XfrmMessage):
    """NEWSADINFO and GETSADINFO."""

    __slots__ = ()
    prefix = "XFRMA_SAD_"
    layout = _Flags
    nla_map = (
        (SadAttribute.CNT, "XFRMA_SAD_CNT", "uint32"),
        (SadAttribute.HINFO, "XFRMA_SAD_HINFO", "hinfo"),
    )

    class hinfo(_Struct):  # noqa: N801
        """`xfrmu_sadhinfo`."""

        __slots__ = ()
        layout = layouts.XfrmuSadhinfo


class SpdInfo(XfrmMessage):
    """NEWSPDINFO and GETSPDINFO."""

    __slots__ = ()
    prefix = "XFRMA_SPD_"
    layout = _Flags
    nla_map = (
        (SpdAttribute.INFO, "XFRMA_SPD_INFO", "info"),
        (SpdAttribute.HINFO, "XFRMA_SPD_HINFO", "hinfo"),
        (SpdAttribute.IPV4_HTHRESH, "XFRMA_SPD_IPV4_HTHRESH", "threshold"),
        (SpdAttribute.IPV6_HTHRESH, "XFRMA_SPD_IPV6_HTHRESH", "threshold"),
    )

    class info(_Struct):  # noqa: N801
        """`xfrmu_spdinfo`."""

        __slots__ = ()
        layout = layouts.XfrmuSpdinfo

    class hinfo(_Struct):  # noqa: N801
        """`xfrmu_spdhinfo`."""

        __slots__ = ()
        layout = layouts.XfrmuSpdhinfo

    class threshold(_Struct):  # noqa: N801
        """`xfrmu_spdhthresh`."""

        __slots__ = ()
        layout = layouts.XfrmuSpdhthresh


#: The class of each message type; a GETSA or GETPOLICY that asks for a dump is a `NoBody` instead.
MESSAGES: Final[dict[MessageType, type[XfrmMessage]]] = {
    MessageType.NEWSA: UsersaInfo,
    MessageType.DELSA: UsersaId,
    MessageType.GETSA: UsersaId,
    MessageType.NEWPOLICY: UserpolicyInfo,
    MessageType.DELPOLICY: UserpolicyId,
    MessageType.GETPOLICY: UserpolicyId,
    MessageType.ALLOCSPI: UserspiInfo,
    MessageType.ACQUIRE: UserAcquire,
    MessageType.EXPIRE: UserExpire,
    MessageType.UPDPOLICY: UserpolicyInfo,
    MessageType.UPDSA: UsersaInfo,
    MessageType.POLEXPIRE: UserPolexpire,
    MessageType.FLUSHSA: UsersaFlush,
    MessageType.FLUSHPOLICY: NoBody,
    MessageType.NEWAE: AeventId,
    MessageType.GETAE: AeventId,
    MessageType.REPORT: UserReport,
    MessageType.MIGRATE: UserpolicyId,
    MessageType.NEWSADINFO: SadInfo,
    MessageType.GETSADINFO: SadInfo,
    MessageType.NEWSPDINFO: SpdInfo,
    MessageType.GETSPDINFO: SpdInfo,
    MessageType.MAPPING: UserMapping,
    MessageType.SETDEFAULT: UserpolicyDefault,
    MessageType.GETDEFAULT: UserpolicyDefault,
}

_DUMPED: Final = (MessageType.GETSA, MessageType.GETPOLICY)


def message_class(kind: MessageType, flags: int) -> type[XfrmMessage]:
    """Return the class of messages of this type with these `nlmsg_flags`."""
    if kind in _DUMPED and flags & NLM_F_DUMP:
        return NoBody
    return MESSAGES[kind]


def parse(data: bytes) -> XfrmMessage:
    """Return the message that `data` begins with, decoded with all its attributes.

    Raises:
        XfrmDecodeError: It is no whole, well-formed message of this family.
    """
    if len(data) < HEADER_BYTES:
        raise XfrmDecodeError(f"{len(data)} bytes are less than a netlink header")
    _, number, flags = struct.unpack_from("=IHH", data)
    try:
        kind = MessageType(number)
    except ValueError:
        raise XfrmDecodeError(f"message type {number:#x} is not one of NETLINK_XFRM") from None
    message = message_class(kind, flags)(bytearray(data))
    try:
        message.decode()
    except XfrmDecodeError as error:
        raise XfrmDecodeError(f"XFRM_MSG_{kind.name}: {error}") from None
    return message
