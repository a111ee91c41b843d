"""One Child SA: its record, and the pair of SAs it yields from KEYMAT (RFC 7296 §2.17).

Negotiation is elsewhere; here everything is already agreed. Which exchange made the Child SA decides whose
keys are whose, whatever the roles in the IKE SA: "initiator" is that of the exchange (§2.17), which at a
rekey may be either side.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from gateway.ike.crypto.keymat import ChildKeys
from gateway.ike.events import ChildSaId, ChildSaInfo, IkeSaId
from gateway.ike.path import Path
from gateway.ike.v2.states import ChildSaState, ChildSaTrigger, next_child_state
from gateway.ipsec.algorithms import Encr, Integ
from gateway.ipsec.connection import Child
from gateway.ipsec.lifetime import SEQUENCE_SOFT_FRACTION, Lifetime, Limit, jittered
from gateway.ipsec.mark import Mark, Marks
from gateway.ipsec.proposal import Proposal, ProtocolId
from gateway.ipsec.sa import Direction, IpsecProtocol, Mode, SaId, SecurityAssociation, Spi, UdpEncapsulation
from gateway.ipsec.secret import Secret
from gateway.ipsec.selectors import TrafficSelector

SEQUENCE_SPACE: Final = 1 << 32
SEQUENCE_SPACE_ESN: Final = 1 << 64


# --- lifetimes ----------------------------------------------------------------------------------


def child_lifetime(child: Child, *, esn: bool, draw: float) -> Lifetime:
    """Return the soft and hard limits of one new Child SA.

    Soft: what is configured, shortened by `draw` of the jitter, and never beyond 75 % of the sequence
    space. Hard: what is configured, lengthened by `over`, and never beyond the sequence space, which must
    not cycle (RFC 4303 §3.3.3).

    Args:
        child: The configuration.
        esn: Whether sequence numbers have 64 bits.
        draw: Uniform in [0, 1), from the endpoint's entropy; the same for both directions.
    """
    space = SEQUENCE_SPACE_ESN if esn else SEQUENCE_SPACE
    configured = jittered(child.rekey, child.over, child.jitter, draw)
    ceiling = int(space * SEQUENCE_SOFT_FRACTION)
    return Lifetime(
        soft=_at_most(configured.soft, ceiling),
        hard=_at_most(configured.hard, space - 1),
    )


def _at_most(limit: Limit, packets: int) -> Limit:
    return Limit(seconds=limit.seconds, bytes=limit.bytes, packets=min(limit.packets or packets, packets))


# --- the pair -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Resource:
    """That a Child SA is one among several for the same traffic, as SA_RESOURCE_INFO says (RFC 9611 §3)."""

    cpu: int | None
    """The CPU of ours that it is for; `None`: all, the one to fall back to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSaParameters:
    """Everything agreed about a Child SA but its keys."""

    child_sa_id: ChildSaId
    connection: str
    child: Child
    proposal: Proposal
    """Agreed: one transform of each type."""
    mode: Mode
    spi_in: Spi
    """Chosen by us: the peer sends with it."""
    spi_out: Spi
    """Chosen by the peer."""
    local_ts: tuple[TrafficSelector, ...]
    remote_ts: tuple[TrafficSelector, ...]
    path: Path
    """Of the IKE SA, floated if there is a NAT."""
    is_encapsulated: bool
    """Whether ESP goes over UDP, on the ports of `path` (RFC 7296 §2.23); AH never does."""
    lifetime: Lifetime
    resource: Resource | None = None
    """Of one among several for the same traffic (RFC 9611)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SaPair:
    """Both directions of a Child SA."""

    inbound: SecurityAssociation
    outbound: SecurityAssociation


def make_pair(parameters: ChildSaParameters, keys: ChildKeys, *, is_initiator: bool) -> SaPair:
    """Make both SAs of a Child SA.

    Args:
        parameters: What was agreed.
        keys: Of both directions, in the sense of the exchange.
        is_initiator: Whether we initiated the exchange that makes the Child SA.
    """
    forth, back = (keys.encryption_i, keys.integrity_i), (keys.encryption_r, keys.integrity_r)
    sending, receiving = (forth, back) if is_initiator else (back, forth)
    agreed = _agreed(parameters.proposal)
    return SaPair(
        inbound=_direction(parameters, agreed, receiving, Direction.INBOUND),
        outbound=_direction(parameters, agreed, sending, Direction.OUTBOUND),
    )


class _Agreed(NamedTuple):
    """What both directions take from the proposal."""

    protocol: IpsecProtocol
    encr: Encr
    key_bits: int
    integ: Integ
    esn: bool


@lru_cache(maxsize=64)
def _agreed(proposal: Proposal) -> _Agreed:
    return _Agreed(
        protocol=IpsecProtocol.AH if proposal.protocol is ProtocolId.AH else IpsecProtocol.ESP,
        encr=proposal.encr,
        key_bits=proposal.key_bits,
        integ=proposal.integ,
        esn=proposal.esn,
    )


def _direction(
    parameters: ChildSaParameters, agreed: _Agreed, keys: tuple[Secret, Secret], direction: Direction
) -> SecurityAssociation:
    path, child = parameters.path, parameters.child
    here, there = (path.local, path.local_port), (path.remote, path.remote_port)
    is_inbound = direction is Direction.INBOUND
    source, destination = (there, here) if is_inbound else (here, there)
    return SecurityAssociation(
        spi=parameters.spi_in if is_inbound else parameters.spi_out,
        direction=direction,
        protocol=agreed.protocol,
        mode=parameters.mode,
        source=source[0],
        destination=destination[0],
        encapsulation=UdpEncapsulation(source_port=source[1], destination_port=destination[1])
        if parameters.is_encapsulated
        else None,
        encryption=agreed.encr,
        encryption_key=keys[0],
        key_bits=agreed.key_bits,
        integrity=agreed.integ,
        integrity_key=keys[1],
        esn=agreed.esn,
        replay_window_packets=child.replay_window_packets,
        local_ts=parameters.local_ts,
        remote_ts=parameters.remote_ts,
        lifetime=parameters.lifetime,
        copy_dscp=child.copy_dscp,
        copy_df=child.copy_df,
        connection=parameters.connection,
        child=child.name,
        child_sa_id=parameters.child_sa_id,
        placement=child.placement,
        interface_id=child.interface_id,
        cpu=None if parameters.resource is None else parameters.resource.cpu,
        mark=_mark(child.marks, direction),
        set_mark=child.marks.set_inbound if is_inbound else child.marks.set_outbound,
    )


def _mark(marks: Marks, direction: Direction) -> Mark | None:
    """Return the mark that the packets of an SA have."""
    if direction is Direction.OUTBOUND:
        return marks.outbound
    return marks.inbound if marks.on_inbound_sa else None


# --- the record ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Which exchange first made a Child SA, whatever rekeyed it since; both sides know the same of it."""

    is_ours: bool
    """Whether we initiated that exchange."""
    lowest_nonce: bytes
    """The lower of its two nonces: it decides between twins, as between successors (RFC 7296 §2.8.1)."""


@dataclass(slots=True, kw_only=True, eq=False)
class ChildSa:
    """One Child SA and where it is in its life; owned by its IKE SA, which changes when that is rekeyed."""

    ike_sa_id: IkeSaId
    parameters: ChildSaParameters
    pair: SaPair
    origin: Origin
    state: ChildSaState = ChildSaState.CREATING
    is_inbound_installed: bool = False
    is_outbound_installed: bool = False
    replaces: ChildSaId | None = None
    """The Child SA that this one was made to take over from."""
    established_at: float | None = None
    rekey_at: float | None = None
    expires_at: float | None = None
    peer_has_enough: bool = False
    """The peer said TS_MAX_QUEUE: it wants no more Child SAs beside this one (RFC 9611 §5.2)."""

    @property
    def child_sa_id(self) -> ChildSaId:
        """Return its number."""
        return self.parameters.child_sa_id

    @property
    def protocol(self) -> ProtocolId:
        """Return ESP or AH, as DELETE and REKEY_SA name it."""
        return self.parameters.proposal.protocol

    @property
    def spi_in(self) -> Spi:
        """Return the SPI that the peer sends with: the one our DELETE names (RFC 7296 §1.4.1)."""
        return self.parameters.spi_in

    @property
    def spi_out(self) -> Spi:
        """Return the SPI that we send with: the one the peer's DELETE names."""
        return self.parameters.spi_out

    @property
    def installed_sa_ids(self) -> tuple[SaId, ...]:
        """Return the names of the SAs that the datapath has: what `RemoveSas` must take away in the end."""
        inbound = (self.pair.inbound.sa_id,) if self.is_inbound_installed else ()
        outbound = (self.pair.outbound.sa_id,) if self.is_outbound_installed else ()
        return inbound + outbound

    @property
    def cpu(self) -> int | None:
        """Return the CPU it is for, or None: for all (RFC 9611)."""
        resource = self.parameters.resource
        return None if resource is None else resource.cpu

    @property
    def is_for_all_cpus(self) -> bool:
        """Return whether there may be others beside it, for one CPU each (RFC 9611)."""
        resource = self.parameters.resource
        return resource is not None and resource.cpu is None

    def is_carried_by(self, other: "ChildSa") -> bool:
        """Tell whether another Child SA is for the same traffic of the same Child, of all CPUs or of ours."""
        ours, theirs = self.parameters, other.parameters
        return other.cpu in (None, self.cpu) and (ours.child.name, ours.local_ts, ours.remote_ts) == (
            theirs.child.name,
            theirs.local_ts,
            theirs.remote_ts,
        )

    def follow(self, trigger: ChildSaTrigger) -> None:
        """Change the state by the table.

        Raises:
            LocalError: The table has no such transition.
        """
        self.state = next_child_state(self.state, trigger)

    def establish(self, now: float) -> None:
        """Note that both directions are installed, and start the lifetime.

        Raises:
            LocalError: It was not being created.
        """
        self.follow(ChildSaTrigger.BOTH_INSTALLED)
        self.established_at = now
        lifetime = self.parameters.lifetime
        self.rekey_at = None if lifetime.soft.seconds is None else now + lifetime.soft.seconds
        self.expires_at = None if lifetime.hard.seconds is None else now + lifetime.hard.seconds

    def info(self) -> ChildSaInfo:
        """Return what there is to know about it."""
        given = self.parameters
        return ChildSaInfo(
            child_sa_id=given.child_sa_id,
            ike_sa_id=self.ike_sa_id,
            connection=given.connection,
            child=given.child.name,
            state=self.state.value,
            inbound=self.pair.inbound,
            outbound=self.pair.outbound,
            proposal=given.proposal,
            local_ts=given.local_ts,
            remote_ts=given.remote_ts,
            established_at=self.established_at,
            rekey_at=self.rekey_at,
            expires_at=self.expires_at,
            cpu=self.cpu,
        )
