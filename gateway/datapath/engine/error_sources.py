"""From which addresses of this machine espd sends ICMP errors at each device."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gateway.host.network import IpAddress, LocalAddress


class Surroundings(NamedTuple):
    """What addresses this machine has, and which of its links espd has for itself."""

    addresses: Sequence[LocalAddress] = ()
    """As the kernel lists them: of each link, the primary one first."""
    inner: Sequence[int] = ()
    """Links to the networks that are protected, those with more to say first."""
    outer: Sequence[int] = ()
    """Links to nobody but the peers."""


def error_source(version: int, link: int, around: Surroundings) -> IpAddress | None:
    """Return the address that ICMP errors about what a link has to do with should come from.

    It is one of the link's own (RFC 1812 §4.3.2.4). A link without one, as a tunnel's, borrows another's, as
    Linux does: of an inner link first, for that is what the SPD is about and what its hosts know; of one to
    the peers only where there is no other. A link-local address is the last (RFC 4443 §2.2): beyond its link
    it says nothing.

    Args:
        version: 4 or 6.
        link: Its index; 0: none.
        around: Where the address is taken from.

    Returns:
        `None` where this machine has no such address.
    """
    ranked = (
        (_rank(local, link, around), place, local.address)
        for place, local in enumerate(around.addresses)
        if local.address.version == version and local.is_preferred and not local.address.is_loopback
    )
    best = min(_known(ranked), default=None)
    return None if best is None else best[2]


def _rank(local: LocalAddress, link: int, around: Surroundings) -> int | None:
    """Return how far an address is from being the best; `None`: it is never taken."""
    if not local.is_global:
        return 3 + len(around.inner) if local.link == link else None
    if local.link == link:
        return 0
    if local.link in around.inner:
        return 1 + around.inner.index(local.link)
    return (2 if local.link in around.outer else 1) + len(around.inner)


def _known(
    ranked: Iterable[tuple[int | None, int, IpAddress]],
) -> Iterable[tuple[int, int, IpAddress]]:
    return ((rank, place, address) for rank, place, address in ranked if rank is not None)
