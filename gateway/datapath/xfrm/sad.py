"""The SAs that we have put into the kernel's SAD, and how its messages find them."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from gateway.datapath.spent_keys import SpentKeys
from gateway.datapath.spi_reservations import SpiReservations
from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.installation import Whereabouts
from gateway.datapath.xfrm.numbers import OffloadFlag
from gateway.datapath.xfrm.spd import Carrier, Carriers, Serves
from gateway.ipsec.placement import Engine, PlacementRefusal
from gateway.ipsec.sa import Direction, SaId, SecurityAssociation, Spi

_FIRST_REQID: Final = 0x69700000
"""Far from 1, where other key managers begin to count."""


@dataclass(slots=True, kw_only=True, eq=False)
class Held:
    """One SA in the kernel."""

    sa: SecurityAssociation
    generation: int
    engine: Engine
    refusals: tuple[PlacementRefusal, ...] = ()
    at: Whereabouts
    offload: r.Offload | None = None
    """What was read back of the device that carries it."""
    device: str = ""
    """Its name."""
    mtu_bytes: int = 0
    """What an outbound SA carries in one piece, as its path was when it was last measured."""
    is_worn: bool = False
    """Whether it was told that its sequence numbers run out."""

    @property
    def kernel_id(self) -> r.SaId:
        """Return the kernel's name of it."""
        return self.at.id_of(self.sa)

    @property
    def serves(self) -> Serves:
        """Return the (connection, child) it serves."""
        return self.sa.connection, self.sa.child

    @property
    def is_inbound(self) -> bool:
        """Whether it is of packets to us."""
        return self.sa.direction is Direction.INBOUND

    def carrier(self) -> Carrier:
        """Return what policies need to know of it."""
        packet = None
        if self.offload is not None and self.offload.flags & OffloadFlag.PACKET:
            # Of a policy the direction says the rest.
            packet = r.Offload(link=self.offload.link, flags=OffloadFlag.PACKET)
        return Carrier(
            source=self.at.source,
            destination=self.at.destination,
            mode=self.sa.mode,
            protocol=self.sa.protocol,
            local_ts=self.sa.local_ts,
            remote_ts=self.sa.remote_ts,
            offload=packet,
        )


class Sad:
    """Every SA of ours, by its name, by the kernel's, and by what it serves.

    Args:
        entropy: Returns that many unpredictable bytes.
    """

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._held: dict[SaId, Held] = {}
        self._by_kernel_id: dict[r.SaId, Held] = {}
        self._serving: dict[Serves, dict[SaId, Held]] = {}
        self._reqids: dict[Serves, int] = {}
        self._next_reqid = _FIRST_REQID
        self._mtus: Counter[int] = Counter()
        self._taken: dict[Spi, int] = {}
        self.reservations = SpiReservations(entropy, self._taken.__contains__)
        self.keys = SpentKeys(entropy(32))

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Held]:
        return iter(tuple(self._held.values()))

    def get(self, sa_id: SaId) -> Held | None:
        """Return an SA by our name, if it is there."""
        return self._held.get(sa_id)

    def of_kernel(self, kernel_id: r.SaId) -> Held | None:
        """Return an SA by the kernel's name, if it is ours."""
        return self._by_kernel_id.get(kernel_id)

    def add(self, held: Held) -> None:
        """Add an SA."""
        self._held[held.sa.sa_id] = held
        self._by_kernel_id[held.kernel_id] = held
        self._serving.setdefault(held.serves, {})[held.sa.sa_id] = held
        if held.is_inbound:
            self._taken[held.sa.spi] = self._taken.get(held.sa.spi, 0) + 1
            self.reservations.use(held.sa.spi)
        else:
            self._mtus[held.mtu_bytes] += 1

    def remove(self, sa_id: SaId) -> Held | None:
        """Remove an SA and return it, if it was there."""
        held = self._held.pop(sa_id, None)
        if held is None:
            return None
        del self._by_kernel_id[held.kernel_id]
        serving = self._serving[held.serves]
        del serving[sa_id]
        if not serving:
            del self._serving[held.serves]
        if held.is_inbound:
            self._taken[held.sa.spi] -= 1
            if not self._taken[held.sa.spi]:
                del self._taken[held.sa.spi]
        else:
            self._mtus[held.mtu_bytes] -= 1
            if not self._mtus[held.mtu_bytes]:
                del self._mtus[held.mtu_bytes]
            self.keys.retire(self.keys.fingerprint(held.sa))
        return held

    @property
    def narrowest_bytes(self) -> int | None:
        """Return what the narrowest outbound SA carries in one piece; `None` without any."""
        return min(self._mtus, default=None)

    def refit(self, held: Held, mtu_bytes: int) -> None:
        """Note that an outbound SA carries more or less in one piece now."""
        self._mtus[held.mtu_bytes] -= 1
        if not self._mtus[held.mtu_bytes]:
            del self._mtus[held.mtu_bytes]
        self._mtus[mtu_bytes] += 1
        held.mtu_bytes = mtu_bytes

    def move(self, held: Held, at: Whereabouts) -> None:
        """Note that an SA is elsewhere now."""
        del self._by_kernel_id[held.kernel_id]
        held.at = at
        self._by_kernel_id[held.kernel_id] = held

    def partner(self, held: Held) -> Held | None:
        """Return the other direction of the same Child SA, if it is there."""
        for other in self._serving.get(held.serves, {}).values():
            same = other.sa.child_sa_id == held.sa.child_sa_id
            if same and other.sa.direction is not held.sa.direction:
                return other
        return None

    # --- what policies need -----------------------------------------------------------------------

    def reqid(self, serves: Serves) -> int:
        """Return the number that joins the SAs of a (connection, child) with its policies."""
        if serves not in self._reqids:
            self._reqids[serves] = self._next_reqid
            self._next_reqid += 2
        return self._reqids[serves]

    def restore_reqid(self, serves: Serves, reqid: int) -> None:
        """Have a (connection, child) keep the number of a former life."""
        self._reqids[serves] = reqid
        self._next_reqid = max(self._next_reqid, reqid + 2)

    def carriers(self, serves: Serves) -> Carriers:
        """Return the SAs of a (connection, child), the newest first."""
        newest_first = tuple(reversed(self._serving.get(serves, {}).values()))
        reqid = self.reqid(serves)
        return Carriers(
            reqid=reqid,
            trap_reqid=reqid + 1,
            inbound=tuple(held.carrier() for held in newest_first if held.is_inbound),
            outbound=tuple(held.carrier() for held in newest_first if not held.is_inbound),
        )
