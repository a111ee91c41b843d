"""The bounds on half-open IKE SAs, and when a stranger must bring a cookie first (RFC 7296 §2.6, RFC 8019).

Whoever can forge a source address can make state in its name until cookies start, but never in the share
of those that proved, by a cookie, that they receive at their address. So nobody locks a peer out by
pretending to be it.

Among those that proved their address nobody is refused either. A whole site may sit behind one address of
a NAT, and an attacker among them: a refusal would hit both alike, for as long as the attacker's half-open
IKE SAs live. Instead the *oldest* half-open IKE SA of the fullest place makes room. An honest handshake goes
on to IKE_AUTH within a round trip or two and is safe from then on, whereas the attacker's are the ones
that stay. An IPv6 host has a whole /64 of addresses and a customer a /48, so that networks are counted as
well as addresses.
"""

from typing import Final

from gateway.ike.events import IkeSaId
from gateway.ike.v2.options import EndpointOptions
from gateway.ipsec.sa import IpAddress

Prefix = tuple[int, int]
"""Prefix length (IPv4: plus 1000), and the leading bits of the address."""

_IPV4: Final = 1000
#: Per address family: how many bits are cut off, and how many shares of a single place the prefix has.
_LEVELS: Final[dict[int, tuple[tuple[int, int], ...]]] = {
    4: ((0, 1), (8, 2)),
    6: ((64, 1), (72, 2), (80, 4)),
}


class HalfOpenTable:
    """Every IKE SA that answered an IKE_SA_INIT request and has not got a valid IKE_AUTH yet."""

    __slots__ = ("_members", "_options", "_proven", "_unproven")

    def __init__(self, options: EndpointOptions) -> None:
        self._options = options
        self._members: dict[IkeSaId, tuple[IpAddress, bool]] = {}
        self._unproven: dict[Prefix, int] = {}
        """How many of one place brought no cookie."""
        self._proven: dict[Prefix, dict[IkeSaId, None]] = {}
        """Those that brought one, by every prefix they count for, oldest first."""

    def __len__(self) -> int:
        return len(self._members)

    def members(self) -> tuple[IkeSaId, ...]:
        """Return everyone that is counted, oldest first."""
        return tuple(self._members)

    def add(self, ike_sa_id: IkeSaId, address: IpAddress, *, is_proven: bool) -> None:
        """Count a new half-open IKE SA; `is_proven`: its initiator returned a cookie."""
        self._members[ike_sa_id] = (address, is_proven)
        if not is_proven:
            place = narrowest(address)
            self._unproven[place] = self._unproven.get(place, 0) + 1
            return
        for prefix, _ in _prefixes(address):
            self._proven.setdefault(prefix, {})[ike_sa_id] = None

    def discard(self, ike_sa_id: IkeSaId) -> None:
        """Stop counting an IKE SA; one that is not counted is fine."""
        member = self._members.pop(ike_sa_id, None)
        if member is None:
            return
        address, is_proven = member
        if not is_proven:
            place = narrowest(address)
            self._unproven[place] -= 1
            if not self._unproven[place]:
                del self._unproven[place]
            return
        for prefix, _ in _prefixes(address):
            there = self._proven[prefix]
            del there[ike_sa_id]
            if not there:
                del self._proven[prefix]

    def wants_cookie(self, address: IpAddress) -> bool:
        """Tell whether a request from `address` has to bring a cookie."""
        options = self._options
        return (
            len(self._members) >= options.cookie_threshold
            or self._unproven.get(narrowest(address), 0) >= options.cookie_threshold_per_prefix
        )

    def crowded_out(self, address: IpAddress) -> tuple[IkeSaId, ...]:
        """Return who is to make room for one more from `address`, the best first; empty: there is room.

        Only one of them has to go. All are named, because some may be beyond being half-open by now.
        """
        share = self._options.half_open_per_prefix
        for prefix, times in _prefixes(address) if self._proven else ():
            there = self._proven.get(prefix)
            if there is not None and len(there) >= share * times:
                return tuple(there)
        if len(self._members) < self._options.half_open_limit:
            return ()
        fullest = max(self._proven.values(), key=len, default={})
        return (*fullest, *self._members)


def narrowest(address: IpAddress) -> Prefix:
    """Return what counts as one place: an IPv4 address, or an IPv6 network of 64 bits."""
    if address.version == 4:
        return _IPV4 + 32, int(address)
    return 64, int(address) >> 64


def _prefixes(address: IpAddress) -> list[tuple[Prefix, int]]:
    """Return every prefix an address counts for, the narrowest first, with its share of places."""
    version, number = address.version, int(address)
    base = _IPV4 + 32 if version == 4 else 128
    return [((base - cut, number >> cut), times) for cut, times in _LEVELS[version]]
