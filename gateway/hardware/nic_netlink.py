"""Ask generic netlink about NICs: ethtool's features and channels, netdev's XDP features, devlink's eswitch.

Reads only. Not for judging: `nic.py` says what the answers mean.
"""

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pyroute2.netlink import NLM_F_REQUEST, genlmsg
from pyroute2.netlink.devlink import devlinkcmd
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import GenericNetlinkSocket
from pyroute2.netlink.generic.ethtool import ethtoolbitset, ethtoolheader

from gateway.hardware.readings import Refused
from gateway.host.bpf.attach import attached_program, program_name

T = TypeVar("T")

# <linux/ethtool_netlink.h>, <linux/netdev.h>, <linux/devlink.h>
_FEATURES_GET: Final = 11
_CHANNELS_GET: Final = 17
_NETDEV_DEV_GET: Final = 1
_DEVLINK_ESWITCH_GET: Final = 29
_ESWITCH_MODES: Final = {0: "legacy", 1: "switchdev", 2: "switchdev_inactive"}


class _Features(genlmsg):  # type: ignore[misc]  # pyroute2 has no types
    nla_map = (
        ("UNSPEC", "none"),
        ("HEADER", "ethtoolheader"),
        ("HW", "ethtoolbitset"),
        ("WANTED", "ethtoolbitset"),
        ("ACTIVE", "ethtoolbitset"),
        ("NOCHANGE", "ethtoolbitset"),
    )
    ethtoolheader = ethtoolheader
    ethtoolbitset = ethtoolbitset


class _Channels(genlmsg):  # type: ignore[misc]  # pyroute2 has no types
    nla_map = (
        ("UNSPEC", "none"),
        ("HEADER", "ethtoolheader"),
        ("RX_MAX", "uint32"),
        ("TX_MAX", "uint32"),
        ("OTHER_MAX", "uint32"),
        ("COMBINED_MAX", "uint32"),
        ("RX_COUNT", "uint32"),
        ("TX_COUNT", "uint32"),
        ("OTHER_COUNT", "uint32"),
        ("COMBINED_COUNT", "uint32"),
    )
    ethtoolheader = ethtoolheader


class _NetdevDevice(genlmsg):  # type: ignore[misc]  # pyroute2 has no types
    nla_map = (
        ("UNSPEC", "none"),
        ("IFINDEX", "uint32"),
        ("PAD", "none"),
        ("XDP_FEATURES", "uint64"),
        ("XDP_ZC_MAX_SEGS", "uint32"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSets:
    """ETHTOOL_MSG_FEATURES_GET: names of features."""

    changeable: frozenset[str]
    """The driver can turn them on and off (`hw`)."""
    active: frozenset[str]
    fixed: frozenset[str]
    """Nobody can change them (`nochange`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """ETHTOOL_MSG_CHANNELS_GET: receive queues, a combined channel counted as one."""

    receive: int
    receive_max: int


def ask_features(index: int) -> FeatureSets | Refused:
    """Return the offload features of an interface, by its index."""

    def read(reply: Any) -> FeatureSets:
        return FeatureSets(
            changeable=_names(reply, "HW"),
            active=_names(reply, "ACTIVE"),
            fixed=_names(reply, "NOCHANGE"),
        )

    return _ask(
        "ethtool", _Features, _FEATURES_GET, [_header(index)], source="ETHTOOL_MSG_FEATURES_GET", read=read
    )


def ask_channels(index: int) -> Channels | Refused:
    """Return how many receive queues an interface has and could have."""

    def read(reply: Any) -> Channels:
        counts = {name: reply.get_attr(name) or 0 for name, _ in _Channels.nla_map[2:]}
        return Channels(
            receive=counts["RX_COUNT"] + counts["COMBINED_COUNT"],
            receive_max=counts["RX_MAX"] + counts["COMBINED_MAX"],
        )

    return _ask(
        "ethtool", _Channels, _CHANNELS_GET, [_header(index)], source="ETHTOOL_MSG_CHANNELS_GET", read=read
    )


def ask_xdp_program(index: int) -> str | Refused:
    """Return the XDP program that is attached to an interface, and where it runs; empty: none.

    Without privilege it has no name but its number.
    """
    try:
        found = attached_program(index)
    except NetlinkError as error:
        return Refused(source="RTM_GETLINK", number=error.code or errno.EIO)
    if found is None:
        return ""
    number, mode = found
    return f"{program_name(number) or f'id {number}'}, {mode}"


def ask_xdp_features(index: int) -> int | Refused:
    """Return the NETDEV_XDP_ACT_* bits of an interface (Linux 6.3 and later)."""

    def read(reply: Any) -> int:
        return int(reply.get_attr("XDP_FEATURES") or 0)

    return _ask(
        "netdev", _NetdevDevice, _NETDEV_DEV_GET, [("IFINDEX", index)], source="NETDEV_CMD_DEV_GET", read=read
    )


def ask_eswitch_mode(bus: str) -> str | Refused:
    """Return the mode of the eswitch at a PCI address: `legacy`, `switchdev`. Only root is told."""

    def read(reply: Any) -> str:
        mode = reply.get_attr("DEVLINK_ATTR_ESWITCH_MODE")
        return _ESWITCH_MODES.get(mode, str(mode))

    attributes = [("DEVLINK_ATTR_BUS_NAME", "pci"), ("DEVLINK_ATTR_DEV_NAME", bus)]
    return _ask(
        "devlink", devlinkcmd, _DEVLINK_ESWITCH_GET, attributes, source="DEVLINK_CMD_ESWITCH_GET", read=read
    )


def _header(index: int) -> tuple[str, Any]:
    return ("HEADER", {"attrs": [("ETHTOOL_A_HEADER_DEV_INDEX", index)]})


def _names(reply: Any, attribute: str) -> frozenset[str]:
    """Return the names of a bitset of the long form; without a mask, the listed bits are the set ones."""
    bitset = reply.get_attr(attribute)
    bits = bitset.get_attr("ETHTOOL_A_BITSET_BITS") if bitset is not None else None
    if bits is None:
        return frozenset()
    is_list = bitset.get_attr("ETHTOOL_A_BITSET_NOMASK") is not None
    return frozenset(
        bit.get_attr("ETHTOOL_A_BITSET_BIT_NAME")
        for bit in bits.get_attrs("ETHTOOL_A_BITSET_BITS_BIT")
        if is_list or bit.get_attr("ETHTOOL_A_BITSET_BIT_VALUE") is not None
    )


def _ask(
    family: str,
    message: Any,  # A class of pyroute2, which has no types.
    command: int,
    attributes: list[tuple[str, Any]],
    *,
    source: str,
    read: Callable[[Any], T],
) -> T | Refused:
    """Send one request; return what `read` makes of the reply, or the errno."""
    request = message()
    request["cmd"] = command
    request["version"] = 1
    request["attrs"] = attributes
    try:
        with GenericNetlinkSocket() as sock:
            sock.bind(family, message)
            for reply in sock.nlm_request(request, msg_type=sock.prid, msg_flags=NLM_F_REQUEST):
                return read(reply)
    except NetlinkError as error:
        return Refused(source=source, number=error.code)
    except OSError as error:
        return Refused(source=source, number=error.errno or 0)
    return Refused(source=source, number=errno.ENODATA)
