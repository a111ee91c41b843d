"""What the operator asked for: connections, their authentication and their Child SAs (RFC 4301 §4.4.3)."""

from dataclasses import dataclass
from enum import Enum

from gateway.ipsec.authentication import PSK_AUTHENTICATION, Authentication
from gateway.ipsec.identity import Identity
from gateway.ipsec.interface import TunnelInterface
from gateway.ipsec.lifetime import Limit
from gateway.ipsec.mark import NO_MARKS, Marks
from gateway.ipsec.placement import Placement
from gateway.ipsec.policy import Action
from gateway.ipsec.proposal import Proposal, ProtocolId
from gateway.ipsec.sa import IpAddress, Mode
from gateway.ipsec.selectors import TrafficSelector


class Fragmentation(Enum):
    """Whether large messages of an IKE SA may be fragmented by IKE itself (RFC 7383)."""

    YES = "yes"
    """If the peer can too."""
    NO = "no"
    """Neither said nor done; IP may have to fragment, which many networks drop."""


class Unique(Enum):
    """What becomes of IKE SAs with the same pair of identities when there is a new one."""

    REPLACE = "replace"
    """The new one takes the place of the others as soon as it carries their traffic."""
    REJECT = "reject"
    """The new one is refused, unless it comes from the address that the old one is with."""
    ALLOW = "allow"
    """They stay side by side, until the peer says INITIAL_CONTACT (RFC 7296 §2.4)."""
    NEVER = "never"
    """They stay side by side, whatever the peer says."""


class Childless(Enum):
    """Whether an IKE SA may come up without a Child SA (RFC 6023)."""

    ALLOW = "allow"
    """If the peer wants it, or if no Child SA is to start and the peer can."""
    FORCE = "force"
    """Always: the first Child SA is made by CREATE_CHILD_SA like the others, with its own key exchange."""
    NEVER = "never"


class LossAction(Enum):
    """What is done when a Child SA is lost."""

    CLEAR = "clear"
    """Nothing: it is gone until somebody asks for it."""
    TRAP = "trap"
    """The next packet that its policy protects brings it up again."""
    RESTART = "restart"
    """It is brought up again at once, and so often until it is."""


class Start(Enum):
    """When a Child SA is brought up."""

    NONE = "none"
    """Only when asked, or by the peer."""
    START = "start"
    """At once, and again whenever it is lost."""
    ON_TRAFFIC = "on_traffic"
    """By the first packet that its policy protects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One end of a connection."""

    addresses: tuple[IpAddress, ...] = ()
    """Tried in this order. Empty: as local, whatever the kernel chooses; as remote, see `names`."""
    names: tuple[str, ...] = ()
    """Host names of the remote side, tried after the addresses, resolved anew for each attempt.

    Neither these nor addresses mean any peer (`%any`), for which we only respond.
    """
    id: Identity | None = None
    """`None` means the address in use as ID_IPV4_ADDR/ID_IPV6_ADDR; for the peer, that it may be any."""
    auth: Authentication = PSK_AUTHENTICATION

    @property
    def is_known(self) -> bool:
        """Whether it is known where this side is, so that we can initiate to it."""
        return bool(self.addresses or self.names)


@dataclass(frozen=True, slots=True, kw_only=True)
class IkeOptions:
    """How the IKE SA is made and kept. Times in seconds."""

    proposals: tuple[Proposal, ...] = ()
    """In order of preference; empty means the defaults of `gateway.ipsec.proposal`."""
    rekey_s: float = 14400.0
    """Soft lifetime before jitter; 0 never."""
    over_s: float = 1440.0
    """From soft to hard: how long a failing rekey may be tried before the IKE SA is deleted."""
    jitter: float = 0.1
    """The soft lifetime is shortened by a random part of this fraction, so that ends and tunnels spread."""
    dpd_delay_s: float = 30.0
    """Liveness check after this much silence (RFC 7296 §2.4); 0 never."""
    retransmit_timeout_s: float = 1.0
    retransmit_base: float = 1.8
    retransmit_tries: int = 5
    """After the last one, and its wait, the peer is dead (RFC 7296 §2.4)."""
    encapsulation: bool = False
    """Force UDP encapsulation as if a NAT had been found."""
    unique: Unique = Unique.REPLACE
    ike_sas_per_peer: int = 16
    """So many IKE SAs one pair of identities may have; the oldest goes for another."""
    childless: Childless = Childless.ALLOW
    reauth_s: float = 0.0
    """After this time, less jitter, authenticate anew, with a new IKE SA; at most `over_s` later the old one
    ends. 0: never."""
    fragmentation: Fragmentation = Fragmentation.YES
    fragment_packet_bytes: int = 1280
    """Largest IP packet that a message may fill before it is fragmented.

    RFC 7383 §2.5.1 recommends 1280 for IPv6, and for IPv4 576 unless the path is known to carry more. Nearly
    all do, and requests that go unanswered fall back to 576 (§2.5.2), so that 1280 is for both.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """One wanted Child SA (or a BYPASS/DISCARD entry) of a connection."""

    name: str
    local_ts: tuple[TrafficSelector, ...] = ()
    """Empty means the local address of the IKE SA (dynamic: host to host)."""
    remote_ts: tuple[TrafficSelector, ...] = ()
    mode: Mode = Mode.TUNNEL
    action: Action = Action.PROTECT
    proposals: tuple[Proposal, ...] = ()
    """In order of preference, all of ESP or all of AH; empty means ESP with the defaults."""
    start: Start = Start.NONE
    rekey: Limit = Limit(seconds=3600.0)
    """Soft lifetime before jitter. Rekey before 75 % of the sequence space happens whatever this says."""
    over: float = 0.1
    """Hard lifetime = soft * (1 + over), for seconds, bytes and packets."""
    jitter: float = 0.1
    replay_window_packets: int = 1024
    copy_dscp: bool = True
    copy_df: bool = True
    priority: int = 1000
    placement: Placement = Placement()
    interface: TunnelInterface | None = None
    """Carry what is routed into this interface, and nothing else."""
    dpd_action: LossAction | None = None
    """When the peer is dead, or the SA lost otherwise. None: what `start` says, see `on_loss`."""
    close_action: LossAction | None = None
    """When the peer deletes it. None: what `start` says."""
    per_cpu_sas: int | None = 0
    """How many CPUs may have an SA of their own beside the one for all (RFC 9611); 0: none. None: as many as
    the datapath can tell apart."""
    marks: Marks = NO_MARKS

    @property
    def protocol(self) -> ProtocolId:
        """Return what protects its packets: ESP or AH."""
        return self.proposals[0].protocol if self.proposals else ProtocolId.ESP

    @property
    def interface_id(self) -> int:
        """Return the id of its interface, 0 if it has none."""
        return 0 if self.interface is None else self.interface.id

    def on_loss(self, *, by_peer: bool) -> LossAction:
        """Return what to do when the peer deleted it (`by_peer`) or it was lost otherwise."""
        wanted = self.close_action if by_peer else self.dpd_action
        return _AFTER[self.start] if wanted is None else wanted


_AFTER = {
    Start.NONE: LossAction.CLEAR,
    Start.START: LossAction.RESTART,
    Start.ON_TRAFFIC: LossAction.TRAP,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """One configured peer: who both sides are, how IKE is spoken, which Child SAs are wanted."""

    name: str
    local: Side
    remote: Side
    ike: IkeOptions = IkeOptions()
    children: tuple[Child, ...] = ()
    allow_weak: tuple[str, ...] = ()
    """Keywords of weak or MUST NOT algorithms the operator allows here, by name."""
