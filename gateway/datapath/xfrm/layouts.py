"""The C structs of `<linux/xfrm.h>` as field types for pyroute2 messages: a struct is a dict of its members.

Members stand in their C order under their C names. Holes a C compiler leaves are members whose name starts
with `_`; they are written as zero and not read. `>` marks network byte order, all else is the host's. The
layouts are those of ABIs that align 64-bit integers to 8 bytes, which is every one but 32-bit x86.
"""

import struct
from collections.abc import Mapping
from typing import Any, ClassVar

#: A member's name and its `struct` format, or the layout of the struct it is.
Members = tuple[tuple[str, "str | type[Layout]"], ...]

#: The members of a decoded struct by name: integers, bytes, and dicts for inner structs.
Fields = dict[str, Any]


class Layout:
    """One C struct. pyroute2 calls `decode_from` and `encode_into` for message fields of such a type."""

    members: ClassVar[Members] = ()

    @classmethod
    def size(cls) -> int:
        """Return the size in bytes."""
        return size_of(cls.members)

    @classmethod
    def decode_from(cls, data: bytes | bytearray, offset: int) -> tuple[Fields, int]:
        """Return the members of the struct at `offset`, and the offset behind it.

        Raises:
            struct.error: It does not end within `data`.
        """
        fields: Fields = {}
        for name, kind in cls.members:
            if not isinstance(kind, str):
                fields[name], offset = kind.decode_from(data, offset)
                continue
            if not name.startswith("_"):
                (fields[name],) = struct.unpack_from(kind, data, offset)
            offset += struct.calcsize(kind)
        return fields, offset

    @classmethod
    def encode_into(cls, data: bytearray, offset: int, value: Mapping[str, Any] | int) -> int:
        """Append the struct to `data`, which ends at `offset`, and return the new end.

        Args:
            value: The members that are not zero. 0 is what pyroute2 passes for a struct left out.

        Raises:
            struct.error: A value is not of its member's kind or range.
        """
        fields = value if isinstance(value, Mapping) else {}
        for name, kind in cls.members:
            if not isinstance(kind, str):
                offset = kind.encode_into(data, offset, fields.get(name, 0))
                continue
            length = struct.calcsize(kind)
            data.extend(bytes(length))
            if name in fields:
                struct.pack_into(kind, data, offset, fields[name])
            offset += length
        return offset

    @classmethod
    def pack(cls, value: Mapping[str, Any]) -> bytes:
        """Return the struct as bytes."""
        data = bytearray()
        cls.encode_into(data, 0, value)
        return bytes(data)


def size_of(members: Members) -> int:
    """Return the size in bytes of a struct with these members."""
    return sum(struct.calcsize(kind) if isinstance(kind, str) else kind.size() for _, kind in members)


class XfrmId(Layout):
    """`xfrm_id`, 24 bytes."""

    members = (("daddr", "16s"), ("spi", ">I"), ("proto", "B"), ("_pad", "3x"))


class XfrmSelector(Layout):
    """`xfrm_selector`, 56 bytes."""

    members = (
        ("daddr", "16s"),
        ("saddr", "16s"),
        ("dport", ">H"),
        ("dport_mask", ">H"),
        ("sport", ">H"),
        ("sport_mask", ">H"),
        ("family", "H"),
        ("prefixlen_d", "B"),
        ("prefixlen_s", "B"),
        ("proto", "B"),
        ("_pad", "3x"),
        ("ifindex", "i"),
        ("user", "I"),
    )


class XfrmLifetimeCfg(Layout):
    """`xfrm_lifetime_cfg`, 64 bytes."""

    members = (
        ("soft_byte_limit", "Q"),
        ("hard_byte_limit", "Q"),
        ("soft_packet_limit", "Q"),
        ("hard_packet_limit", "Q"),
        ("soft_add_expires_seconds", "Q"),
        ("hard_add_expires_seconds", "Q"),
        ("soft_use_expires_seconds", "Q"),
        ("hard_use_expires_seconds", "Q"),
    )


class XfrmLifetimeCur(Layout):
    """`xfrm_lifetime_cur`, 32 bytes."""

    members = (("bytes", "Q"), ("packets", "Q"), ("add_time", "Q"), ("use_time", "Q"))


class XfrmStats(Layout):
    """`xfrm_stats`, 12 bytes."""

    members = (("replay_window", "I"), ("replay", "I"), ("integrity_failed", "I"))


class XfrmReplayState(Layout):
    """`xfrm_replay_state`, 12 bytes."""

    members = (("oseq", "I"), ("seq", "I"), ("bitmap", "I"))


class XfrmReplayStateEsn(Layout):
    """`xfrm_replay_state_esn` without its bitmap, 24 bytes."""

    members = (
        ("bmp_len", "I"),
        ("oseq", "I"),
        ("seq", "I"),
        ("oseq_hi", "I"),
        ("seq_hi", "I"),
        ("replay_window", "I"),
    )


class XfrmAlgo(Layout):
    """`xfrm_algo` without its key, 68 bytes."""

    members = (("alg_name", "64s"), ("alg_key_len", "I"))


class XfrmAlgoAuth(Layout):
    """`xfrm_algo_auth` without its key, 72 bytes."""

    members = (("alg_name", "64s"), ("alg_key_len", "I"), ("alg_trunc_len", "I"))


class XfrmAlgoAead(Layout):
    """`xfrm_algo_aead` without its key, 72 bytes."""

    members = (("alg_name", "64s"), ("alg_key_len", "I"), ("alg_icv_len", "I"))


class XfrmUserSecCtx(Layout):
    """`xfrm_user_sec_ctx` without the context behind it, 8 bytes."""

    members = (("len", "H"), ("exttype", "H"), ("ctx_alg", "B"), ("ctx_doi", "B"), ("ctx_len", "H"))


class XfrmUserTmpl(Layout):
    """`xfrm_user_tmpl`, 64 bytes."""

    members = (
        ("id", XfrmId),
        ("family", "H"),
        ("_pad", "2x"),
        ("saddr", "16s"),
        ("reqid", "I"),
        ("mode", "B"),
        ("share", "B"),
        ("optional", "B"),
        ("_pad2", "1x"),
        ("aalgos", "I"),
        ("ealgos", "I"),
        ("calgos", "I"),
    )


class XfrmEncapTmpl(Layout):
    """`xfrm_encap_tmpl`, 24 bytes."""

    members = (
        ("encap_type", "H"),
        ("encap_sport", ">H"),
        ("encap_dport", ">H"),
        ("_pad", "2x"),
        ("encap_oa", "16s"),
    )


class XfrmUserpolicyType(Layout):
    """`xfrm_userpolicy_type`, 6 bytes."""

    members = (("type", "B"), ("_pad", "1x"), ("reserved1", "H"), ("reserved2", "B"), ("_pad2", "1x"))


class XfrmMark(Layout):
    """`xfrm_mark`, 8 bytes."""

    members = (("v", "I"), ("m", "I"))


class XfrmuSadhinfo(Layout):
    """`xfrmu_sadhinfo`, 8 bytes."""

    members = (("sadhcnt", "I"), ("sadhmcnt", "I"))


class XfrmuSpdinfo(Layout):
    """`xfrmu_spdinfo`, 24 bytes."""

    members = (
        ("incnt", "I"),
        ("outcnt", "I"),
        ("fwdcnt", "I"),
        ("inscnt", "I"),
        ("outscnt", "I"),
        ("fwdscnt", "I"),
    )


class XfrmuSpdhinfo(Layout):
    """`xfrmu_spdhinfo`, 8 bytes."""

    members = (("spdhcnt", "I"), ("spdhmcnt", "I"))


class XfrmuSpdhthresh(Layout):
    """`xfrmu_spdhthresh`, 2 bytes."""

    members = (("lbits", "B"), ("rbits", "B"))


class XfrmUsersaInfo(Layout):
    """`xfrm_usersa_info`, 224 bytes, of which the last 7 are a hole."""

    members = (
        ("sel", XfrmSelector),
        ("id", XfrmId),
        ("saddr", "16s"),
        ("lft", XfrmLifetimeCfg),
        ("curlft", XfrmLifetimeCur),
        ("stats", XfrmStats),
        ("seq", "I"),
        ("reqid", "I"),
        ("family", "H"),
        ("mode", "B"),
        ("replay_window", "B"),
        ("flags", "B"),
        ("_pad", "7x"),
    )


class XfrmUsersaId(Layout):
    """`xfrm_usersa_id`, 24 bytes."""

    members = (("daddr", "16s"), ("spi", ">I"), ("family", "H"), ("proto", "B"), ("_pad", "1x"))


class XfrmAeventId(Layout):
    """`xfrm_aevent_id`, 48 bytes."""

    members = (("sa_id", XfrmUsersaId), ("saddr", "16s"), ("flags", "I"), ("reqid", "I"))


class XfrmUserspiInfo(Layout):
    """`xfrm_userspi_info`, 232 bytes; the bounds are in host order, unlike any SPI."""

    members = (("info", XfrmUsersaInfo), ("min", "I"), ("max", "I"))


class XfrmUserpolicyInfo(Layout):
    """`xfrm_userpolicy_info`, 168 bytes."""

    members = (
        ("sel", XfrmSelector),
        ("lft", XfrmLifetimeCfg),
        ("curlft", XfrmLifetimeCur),
        ("priority", "I"),
        ("index", "I"),
        ("dir", "B"),
        ("action", "B"),
        ("flags", "B"),
        ("share", "B"),
        ("_pad", "4x"),
    )


class XfrmUserpolicyId(Layout):
    """`xfrm_userpolicy_id`, 64 bytes."""

    members = (("sel", XfrmSelector), ("index", "I"), ("dir", "B"), ("_pad", "3x"))


class XfrmUserAcquire(Layout):
    """`xfrm_user_acquire`, 280 bytes."""

    members = (
        ("id", XfrmId),
        ("saddr", "16s"),
        ("sel", XfrmSelector),
        ("policy", XfrmUserpolicyInfo),
        ("aalgos", "I"),
        ("ealgos", "I"),
        ("calgos", "I"),
        ("seq", "I"),
    )


class XfrmUserExpire(Layout):
    """`xfrm_user_expire`, 232 bytes."""

    members = (("state", XfrmUsersaInfo), ("hard", "B"), ("_pad", "7x"))


class XfrmUserPolexpire(Layout):
    """`xfrm_user_polexpire`, 176 bytes."""

    members = (("pol", XfrmUserpolicyInfo), ("hard", "B"), ("_pad", "7x"))


class XfrmUsersaFlush(Layout):
    """`xfrm_usersa_flush`, 1 byte."""

    members = (("proto", "B"),)


class XfrmUserReport(Layout):
    """`xfrm_user_report`, 60 bytes."""

    members = (("proto", "B"), ("_pad", "3x"), ("sel", XfrmSelector))


class XfrmUserKmaddress(Layout):
    """`xfrm_user_kmaddress`, 40 bytes."""

    members = (("local", "16s"), ("remote", "16s"), ("reserved", "I"), ("family", "H"), ("_pad", "2x"))


class XfrmUserMigrate(Layout):
    """`xfrm_user_migrate`, 76 bytes."""

    members = (
        ("old_daddr", "16s"),
        ("old_saddr", "16s"),
        ("new_daddr", "16s"),
        ("new_saddr", "16s"),
        ("proto", "B"),
        ("mode", "B"),
        ("reserved", "H"),
        ("reqid", "I"),
        ("old_family", "H"),
        ("new_family", "H"),
    )


class XfrmUserMapping(Layout):
    """`xfrm_user_mapping`, 64 bytes."""

    members = (
        ("id", XfrmUsersaId),
        ("reqid", "I"),
        ("old_saddr", "16s"),
        ("new_saddr", "16s"),
        ("old_sport", ">H"),
        ("new_sport", ">H"),
    )


class XfrmAddressFilter(Layout):
    """`xfrm_address_filter`, 36 bytes."""

    members = (("saddr", "16s"), ("daddr", "16s"), ("family", "H"), ("splen", "B"), ("dplen", "B"))


class XfrmUserOffload(Layout):
    """`xfrm_user_offload`, 8 bytes."""

    members = (("ifindex", "i"), ("flags", "B"), ("_pad", "3x"))


class XfrmUserpolicyDefault(Layout):
    """`xfrm_userpolicy_default`, 3 bytes; its members are called in, fwd and out."""

    members = (("in", "B"), ("fwd", "B"), ("out", "B"))
