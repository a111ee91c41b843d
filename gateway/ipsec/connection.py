"""What the operator asked for: connections, their authentication and their Child SAs (RFC 4301 §4.4.3)."""

from dataclasses import dataclass
from enum import Enum

from gateway.ipsec.authentication import PSK_AUTHENTICATION, Authentication
from gateway.ipsec.identity import Identity
from gateway.ipsec.lifetime import Limit
from gateway.ipsec.placement import Placement
from gateway.ipsec.policy import Action
from gateway.ipsec.proposal import Proposal
from gateway.ipsec.sa import IpAddress, Mode
from gateway.ipsec.selectors import TrafficSelector


class Fragmentation(Enum):
    """Whether large messages of an IKE SA may be fragmented by IKE itself (RFC 7383)."""

    YES = "yes"
    """If the peer can too."""
    NO = "no"
    """Neither said nor done; IP may have to fragment, which many networks drop."""


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
    """Empty means any (`%any`): as local, whatever the kernel chooses; as remote, respond only."""
    id: Identity | None = None
    """`None` means the address in use as ID_IPV4_ADDR/ID_IPV6_ADDR; for the peer, that it may be any."""
    auth: Authentication = PSK_AUTHENTICATION


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
