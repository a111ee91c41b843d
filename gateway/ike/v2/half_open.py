"""The bounds on half-open IKE SAs, and when a stranger must bring a cookie first (RFC 7296 §2.6).

Whoever can forge a source address can make state in its name until cookies start, but never in the share
of those that proved, by a cookie, that they receive at their address. So nobody locks a peer out by
pretending to be it. An IPv6 host has a whole /64 of addresses, so that its network is what is counted.
"""

from collections import Counter
from enum import Enum
from typing import Final

from gateway.ike.events import IkeSaId
from gateway.ike.v2.options import EndpointOptions
from gateway.ipsec.sa import IpAddress

_IPV6_HOST_BITS: Final = 64


class Admission(Enum):
    """What to do with an IKE_SA_INIT request."""

    ADMIT = "admit"
    WANT_COOKIE = "want_cookie"
    DROP = "drop"


class HalfOpenTable:
    """Every IKE SA that answered an IKE_SA_INIT request and is not authenticated yet."""

    __slots__ = ("_members", "_options", "_per_address")

    def __init__(self, options: EndpointOptions) -> None:
        self._options = options
        self._members: dict[IkeSaId, tuple[_Source, bool]] = {}
        self._per_address: Counter[tuple[_Source, bool]] = Counter()

    def __len__(self) -> int:
        return len(self._members)

    def add(self, ike_sa_id: IkeSaId, address: IpAddress, *, is_proven: bool) -> None:
        """Count a new half-open IKE SA; `is_proven`: its initiator returned a cookie."""
        member = _source(address), is_proven
        self._members[ike_sa_id] = member
        self._per_address[member] += 1

    def discard(self, ike_sa_id: IkeSaId) -> None:
        """Stop counting an IKE SA; one that is not counted is fine."""
        member = self._members.pop(ike_sa_id, None)
        if member is None:
            return
        self._per_address[member] -= 1
        if not self._per_address[member]:
            del self._per_address[member]

    def admission(self, address: IpAddress, *, is_proven: bool) -> Admission:
        """Decide on a request from `address` that brought a valid cookie (`is_proven`) or none."""
        options, source = self._options, _source(address)
        if len(self) >= options.half_open_limit:
            return Admission.DROP
        if is_proven:
            is_full = self._per_address[source, True] >= options.half_open_per_address
            return Admission.DROP if is_full else Admission.ADMIT
        is_loaded = (
            len(self) >= options.cookie_threshold
            or self._per_address[source, False] >= options.cookie_threshold_per_address
        )
        return Admission.WANT_COOKIE if is_loaded else Admission.ADMIT


_Source = tuple[int, int]
"""Version, and the address or the network that is counted as one."""


def _source(address: IpAddress) -> _Source:
    number = int(address)
    return address.version, number >> _IPV6_HOST_BITS if address.version == 6 else number
