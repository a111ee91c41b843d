"""A tunnel interface: what the machine's routes lead into it, a Child SA carries (route-based tunnels)."""

import hashlib
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from typing import Final

from gateway.ipsec.errors import VocabularyError
from gateway.ipsec.selectors import TrafficSelector

MAX_NAME_BYTES: Final = 15
"""IFNAMSIZ of Linux, less the octet that ends a name."""
MIN_MTU_BYTES: Final = 576
MAX_MTU_BYTES: Final = 65535
#: What a Child with an interface is about unless it says less: routes decide.
EVERYTHING: Final = (TrafficSelector.parse("0.0.0.0/0"), TrafficSelector.parse("::/0"))


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelInterface:
    """One virtual interface of this machine. SAs and SPD entries are about its traffic by its id.

    One that is there already when it is needed, and that its maker gave the same id, is used as it is; then
    `addresses`, `routes`, `vrf` and `mtu_bytes` have to be left to its maker.

    Raises:
        VocabularyError: It has no usable name, or a number is out of its range.
    """

    name: str
    id: int
    """What `ip link` calls if_id: 32 bits, not 0, another one for each interface."""
    mtu_bytes: int = 0
    """0: as much as its Child SAs carry in one piece."""
    addresses: tuple[IPv4Interface | IPv6Interface, ...] = ()
    """It gets these."""
    routes: tuple[IPv4Network | IPv6Network, ...] = ()
    """Prefixes that are led into it, in the main table or in that of `vrf`."""
    vrf: str = ""
    """Name of the VRF that it is a port of; empty: of none."""

    def __post_init__(self) -> None:
        for name in (self.name, *([self.vrf] if self.vrf else [])):
            check_link_name(name)
        if not 0 < self.id < 1 << 32:
            raise VocabularyError(f"the id of an interface is 1 to {(1 << 32) - 1}, got {self.id}")
        if self.mtu_bytes and not MIN_MTU_BYTES <= self.mtu_bytes <= MAX_MTU_BYTES:
            raise VocabularyError(f"an MTU is {MIN_MTU_BYTES} to {MAX_MTU_BYTES}, got {self.mtu_bytes}")


def check_link_name(name: str) -> None:
    """Check that Linux takes a name for an interface.

    Raises:
        VocabularyError: It does not.
    """
    is_plain = name.isprintable() and not any(character in "/: " for character in name)
    if not is_plain or name in {".", ".."} or not 0 < len(name.encode()) <= MAX_NAME_BYTES:
        raise VocabularyError(
            f"{name!r} is no name for an interface: 1 to {MAX_NAME_BYTES} bytes without `/`, `:` and spaces"
        )


def id_of_name(name: str) -> int:
    """Return the id of an interface to which the operator gave none: the same for each life of a gateway."""
    return int.from_bytes(hashlib.blake2s(name.encode(), digest_size=4).digest()) >> 1 | 1
