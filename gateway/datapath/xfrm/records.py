"""Typed records for what NETLINK_XFRM carries: bodies of messages, values of attributes, and whole messages.

Integers are in host order, addresses are of `ipaddress`, times in seconds unless the name says otherwise. A
message is a type, a body and its `Attributes`, the same record for all messages, which names each attribute
once.
"""

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from socket import AF_INET, AF_INET6, AF_UNSPEC
from typing import Final, Generic, TypeVar

from gateway.datapath.xfrm.numbers import (
    AeventFlag,
    DefaultAction,
    EncapsulationType,
    MessageType,
    Mode,
    OffloadFlag,
    PolicyAction,
    PolicyDirection,
    PolicyFlag,
    PolicyType,
    SaDirection,
    SaExtraFlag,
    SaFlag,
    Share,
)
from gateway.ipsec.secret import Secret

IpAddress = IPv4Address | IPv6Address

IpPrefix = IPv4Interface | IPv6Interface
"""An address and a prefix length: the kernel keeps the bits behind the prefix and compares them too."""

ALL_ALGORITHMS: Final = 2**32 - 1
"""Of a template: any algorithm will do."""


def family_of(address: IpAddress | None) -> int:
    """Return the address family of an address, AF_UNSPEC of none."""
    if address is None:
        return AF_UNSPEC
    return AF_INET if address.version == 4 else AF_INET6


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """Which packets (`xfrm_selector`); the default is every packet, of either family."""

    source: IpPrefix | None = None
    destination: IpPrefix | None = None
    """Either both addresses are there, of one family, or none is."""
    protocol: int = 0
    """0 is any."""
    source_port: int = 0
    source_port_mask: int = 0
    destination_port: int = 0
    destination_port_mask: int = 0
    """For ICMP the source port is the type and the destination port the code."""
    link: int = 0
    """Interface index; 0 is any."""
    user: int = 0
    has_family: bool = True
    """Not so for an SA that `ALLOCSPI` made: it has addresses, but matches packets of no family."""

    @property
    def family(self) -> int:
        """AF_INET, AF_INET6, or AF_UNSPEC without addresses or `has_family`."""
        return family_of(self.destination) if self.has_family else AF_UNSPEC


@dataclass(frozen=True, slots=True, kw_only=True)
class LifetimeLimits:
    """When an SA or a policy expires (`xfrm_lifetime_cfg`); `None` and, for times, 0 mean never."""

    soft_bytes: int | None = None
    hard_bytes: int | None = None
    soft_packets: int | None = None
    hard_packets: int | None = None
    soft_add_s: int = 0
    """Seconds since it was added."""
    hard_add_s: int = 0
    soft_use_s: int = 0
    """Seconds since it was first used."""
    hard_use_s: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LifetimeUsage:
    """What an SA or a policy has carried (`xfrm_lifetime_cur`)."""

    bytes: int = 0
    packets: int = 0
    add_time_s: int = 0
    """Seconds since 1970."""
    use_time_s: int = 0
    """Of the first use, seconds since 1970; 0 before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What an SA has refused (`xfrm_stats`), in packets."""

    replay_window: int = 0
    """Behind the window."""
    replay: int = 0
    """Seen before."""
    integrity_failed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SaId:
    """Name of one SA, and the body of DELSA and GETSA (`xfrm_usersa_id`)."""

    destination: IpAddress
    spi: int
    """0 while it is not known."""
    protocol: int
    """50 ESP, 51 AH, 108 IPComp, 43 and 60 for Mobile IPv6."""

    @property
    def family(self) -> int:
        """AF_INET or AF_INET6."""
        return family_of(self.destination)


@dataclass(frozen=True, slots=True, kw_only=True)
class SaInfo:
    """An SA without its attributes: the body of NEWSA and UPDSA (`xfrm_usersa_info`)."""

    id: SaId
    source: IpAddress
    mode: Mode
    reqid: int = 0
    selector: Selector = Selector()
    limits: LifetimeLimits = LifetimeLimits()
    usage: LifetimeUsage = LifetimeUsage()
    statistics: Statistics = Statistics()
    sequence: int = 0
    """Of the ACQUIRE this answers; 0 for none. Not an ESP sequence number."""
    replay_window: int = 0
    """Packets, at most 32; larger windows stand in `Attributes.replay_esn`."""
    flags: SaFlag = SaFlag(0)

    @property
    def family(self) -> int:
        """AF_INET or AF_INET6, of the outer addresses."""
        return family_of(self.source)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpiRange:
    """Ask for an SPI in a range: the body of ALLOCSPI (`xfrm_userspi_info`)."""

    sa: SaInfo
    lowest: int
    highest: int

    @property
    def family(self) -> int:
        """AF_INET or AF_INET6."""
        return self.sa.family


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyInfo:
    """A policy without its attributes: the body of NEWPOLICY and UPDPOLICY (`xfrm_userpolicy_info`)."""

    selector: Selector
    direction: PolicyDirection
    action: PolicyAction = PolicyAction.ALLOW
    priority: int = 0
    """The lowest number wins."""
    index: int = 0
    """The kernel's name for it; 0 lets the kernel choose."""
    limits: LifetimeLimits = LifetimeLimits()
    usage: LifetimeUsage = LifetimeUsage()
    flags: PolicyFlag = PolicyFlag(0)
    share: Share = Share.ANY

    @property
    def family(self) -> int:
        """AF_INET, AF_INET6 or AF_UNSPEC, of the selector."""
        return self.selector.family


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyId:
    """Name of one policy: the body of DELPOLICY, GETPOLICY and MIGRATE (`xfrm_userpolicy_id`)."""

    direction: PolicyDirection
    selector: Selector = Selector()
    index: int = 0
    """Unless 0 the kernel looks by it and not by the selector."""

    @property
    def family(self) -> int:
        """AF_INET, AF_INET6 or AF_UNSPEC, of the selector."""
        return self.selector.family


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquire:
    """Traffic needs an SA: the body of ACQUIRE (`xfrm_user_acquire`)."""

    id: SaId
    """Its SPI is 0."""
    source: IpAddress
    selector: Selector
    """The packet that asks."""
    policy: PolicyInfo
    sequence: int
    """An SA that answers carries it in `SaInfo.sequence`."""
    authentication_algorithms: int = ALL_ALGORITHMS
    encryption_algorithms: int = ALL_ALGORITHMS
    compression_algorithms: int = ALL_ALGORITHMS

    @property
    def family(self) -> int:
        """AF_INET or AF_INET6, of the outer addresses."""
        return family_of(self.source)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expire:
    """An SA reached a limit: the body of EXPIRE (`xfrm_user_expire`)."""

    sa: SaInfo
    is_hard: bool
    """The kernel has deleted the SA."""

    @property
    def family(self) -> int:
        """AF_INET or AF_INET6."""
        return self.sa.family


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyExpire:
    """A policy reached a limit: the body of POLEXPIRE (`xfrm_user_polexpire`)."""

    policy: PolicyInfo
    is_hard: bool
    """The kernel has deleted the policy."""

    @property
    def family(self) -> int:
        """AF_INET, AF_INET6 or AF_UNSPEC."""
        return self.policy.family


@dataclass(frozen=True, slots=True, kw_only=True)
class FlushSas:
    """Delete every SA of a protocol: the body of FLUSHSA (`xfrm_usersa_flush`); 0 and 255 are all."""

    protocol: int
    family: int = field(default=AF_UNSPEC, init=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing:
    """The body of FLUSHPOLICY and of dump requests."""

    family: int = field(default=AF_UNSPEC, init=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Aevent:
    """Counters of one SA, asked or told: the body of NEWAE and GETAE (`xfrm_aevent_id`)."""

    id: SaId
    source: IpAddress
    flags: AeventFlag = AeventFlag(0)
    reqid: int = 0

    @property
    def family(self) -> int:
        """AF_INET or AF_INET6."""
        return family_of(self.source)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A packet that Mobile IPv6 could not protect: the body of REPORT (`xfrm_user_report`)."""

    protocol: int
    selector: Selector

    @property
    def family(self) -> int:
        """AF_INET, AF_INET6 or AF_UNSPEC."""
        return self.selector.family


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """The peer behind a NAT has a new address or port: the body of MAPPING (`xfrm_user_mapping`)."""

    id: SaId
    old_source: IpAddress
    new_source: IpAddress
    old_source_port: int
    new_source_port: int
    reqid: int = 0

    @property
    def family(self) -> int:
        """AF_INET or AF_INET6."""
        return self.id.family


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyDefaults:
    """What becomes of traffic no policy matches: body of SETDEFAULT, GETDEFAULT (`xfrm_userpolicy_default`).

    UNSPECIFIED leaves a direction as it is.
    """

    inbound: DefaultAction = DefaultAction.UNSPECIFIED
    forward: DefaultAction = DefaultAction.UNSPECIFIED
    outbound: DefaultAction = DefaultAction.UNSPECIFIED
    family: int = field(default=AF_UNSPEC, init=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class HashInfo:
    """Size of a hash table (`xfrmu_sadhinfo`, `xfrmu_spdhinfo`), in buckets."""

    buckets: int
    most_buckets: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SadInfo:
    """The SAD in numbers: GETSADINFO, with every part `None`, and NEWSADINFO."""

    flags: int = 2**32 - 1
    """The kernel echoes them and reads nothing in them."""
    sas: int | None = None
    hash: HashInfo | None = None
    family: int = field(default=AF_UNSPEC, init=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyCounts:
    """Policies by direction (`xfrmu_spdinfo`): those of the SPD and those of sockets."""

    inbound: int = 0
    outbound: int = 0
    forward: int = 0
    socket_inbound: int = 0
    socket_outbound: int = 0
    socket_forward: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HashThreshold:
    """From which prefix lengths on policies are hashed (`xfrmu_spdhthresh`), in bits."""

    local_bits: int
    remote_bits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SpdInfo:
    """The SPD in numbers: GETSPDINFO, every part `None`, and NEWSPDINFO, which also sets the thresholds."""

    flags: int = 2**32 - 1
    policies: PolicyCounts | None = None
    hash: HashInfo | None = None
    ipv4_threshold: HashThreshold | None = None
    ipv6_threshold: HashThreshold | None = None
    family: int = field(default=AF_UNSPEC, init=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """A cipher, a compression, or an integrity algorithm at its full ICV (`xfrm_algo`)."""

    name: str
    """As in /proc/crypto: `cbc(aes)`, `hmac(sha256)`, `deflate`."""
    key: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthAlgorithm:
    """An integrity algorithm with a truncated ICV (`xfrm_algo_auth`)."""

    name: str
    key: Secret
    icv_bits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AeadAlgorithm:
    """A combined-mode algorithm (`xfrm_algo_aead`); its salt is the end of the key."""

    name: str
    key: Secret
    icv_bits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Encapsulation:
    """ESP in UDP or TCP (`xfrm_encap_tmpl`); RFC 3948, RFC 8229."""

    type: EncapsulationType
    source_port: int
    destination_port: int
    original_address: IpAddress | None = None
    """The peer's before NAT; the kernel does nothing with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """One SA that a policy asks for (`xfrm_user_tmpl`)."""

    source: IpAddress | None
    destination: IpAddress | None
    """Outer addresses in tunnel mode; `None` for both leaves the family to the policy."""
    protocol: int
    mode: Mode
    reqid: int = 0
    """0 is any."""
    spi: int = 0
    """0 is any."""
    share: Share = Share.ANY
    is_optional: bool = False
    authentication_algorithms: int = ALL_ALGORITHMS
    encryption_algorithms: int = ALL_ALGORITHMS
    compression_algorithms: int = ALL_ALGORITHMS


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityContext:
    """The label of a policy or an SA (`xfrm_user_sec_ctx`)."""

    context: bytes
    """With the zero byte at its end, if the module wants one."""
    algorithm: int = 1
    """1 is SELinux."""
    domain: int = 1
    """1 is the security module's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayState:
    """Sequence numbers and window of 32 packets (`xfrm_replay_state`)."""

    outbound: int = 0
    inbound: int = 0
    bitmap: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayStateEsn:
    """Sequence numbers and window of any size, with or without ESN (`xfrm_replay_state_esn`)."""

    window_packets: int
    """At most 4096."""
    outbound: int = 0
    """Low half of the sequence number."""
    outbound_high: int = 0
    inbound: int = 0
    inbound_high: int = 0
    bitmap: tuple[int, ...] = ()
    """Words of 32 bits that together hold the window; none stands for all of them zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One template that gets new addresses (`xfrm_user_migrate`); RFC 4555."""

    old_source: IpAddress
    old_destination: IpAddress
    new_source: IpAddress
    new_destination: IpAddress
    protocol: int
    mode: Mode
    reqid: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class KmAddress:
    """The addresses IKE should use from now on (`xfrm_user_kmaddress`)."""

    local: IpAddress
    remote: IpAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A packet mark and the mask it is compared under (`xfrm_mark`)."""

    value: int
    mask: int = 2**32 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressFilter:
    """List only SAs between these (`xfrm_address_filter`)."""

    source: IpPrefix | None = None
    destination: IpPrefix | None = None
    """`None` for both lists SAs of either family."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offload:
    """The device that shall carry an SA or a policy (`xfrm_user_offload`)."""

    link: int
    """Interface index; 0 lets the kernel look by the route."""
    flags: OffloadFlag = OffloadFlag(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """The attributes of a message, `None` where there is none; since which kernel: `numbers.Attribute`."""

    authentication: Algorithm | None = None
    encryption: Algorithm | None = None
    compression: Algorithm | None = None
    encapsulation: Encapsulation | None = None
    templates: tuple[Template, ...] | None = None
    sa: SaInfo | None = None
    """The SA that was deleted."""
    policy: PolicyInfo | None = None
    """The policy that was deleted."""
    security_context: SecurityContext | None = None
    usage: LifetimeUsage | None = None
    replay: ReplayState | None = None
    replay_threshold: int | None = None
    """Tell after so many packets."""
    timer_threshold_ds: int | None = None
    """Tell after so many tenths of a second. So the kernel says it; it takes jiffies (CONFIG_HZ)."""
    source: IpAddress | None = None
    care_of_address: IpAddress | None = None
    last_used_s: int | None = None
    """Seconds since 1970."""
    policy_type: PolicyType | None = None
    migrations: tuple[Migration, ...] | None = None
    aead: AeadAlgorithm | None = None
    km_address: KmAddress | None = None
    integrity: AuthAlgorithm | None = None
    mark: Mark | None = None
    tfc_padding_bytes: int | None = None
    """Pad every packet to this size (RFC 4303 §2.7)."""
    replay_esn: ReplayStateEsn | None = None
    extra_flags: SaExtraFlag | None = None
    protocol: int | None = None
    """Of the SAs to list."""
    address_filter: AddressFilter | None = None
    offload: Offload | None = None
    set_mark: int | None = None
    """Mark of packets this SA has processed."""
    set_mark_mask: int | None = None
    if_id: int | None = None
    """Of the XFRM interface."""
    mapping_threshold_s: int | None = None
    """Tell a new mapping at most once in so many seconds."""
    direction: SaDirection | None = None
    nat_keepalive_s: int | None = None
    cpu: int | None = None
    iptfs_drop_time_us: int | None = None
    """How long to wait for a missing packet (RFC 9347 §2.5)."""
    iptfs_reorder_window_packets: int | None = None
    iptfs_dont_fragment: bool | None = None
    """A flag: False is written as `None` is, by its absence."""
    iptfs_init_delay_us: int | None = None
    """How long to wait for more to send."""
    iptfs_max_queue_bytes: int | None = None
    iptfs_packet_bytes: int | None = None
    """Size of outer packets; 0 is the path MTU."""


NO_ATTRIBUTES: Final = Attributes()

Body = (
    SaInfo
    | SaId
    | SpiRange
    | FlushSas
    | PolicyInfo
    | PolicyId
    | Nothing
    | Acquire
    | Expire
    | PolicyExpire
    | Aevent
    | Report
    | Mapping
    | PolicyDefaults
    | SadInfo
    | SpdInfo
)

B_co = TypeVar("B_co", bound=Body, covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message(Generic[B_co]):
    """One message of NETLINK_XFRM, either way."""

    type: MessageType
    body: B_co
    attributes: Attributes = NO_ATTRIBUTES
    flags: int = 0
    """`nlmsg_flags`: NLM_F_*."""
    sequence: int = 0
    """`nlmsg_seq`: an answer carries that of its request, a notification that of the request behind it."""
    port: int = 0
    """`nlmsg_pid`: the netlink port of who sent the request; 0 for the kernel."""
