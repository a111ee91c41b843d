"""The maps of our XDP programs with types: the other side of `ebpf/include/gw_abi.h`.

Each `Table` names a map, the layouts of its key and value, and is compared with the BTF of an object before
it is loaded. Nothing here decides what belongs into a map.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final, Generic, TypeVar

from gateway.host.bpf.errors import AbiMismatchError
from gateway.host.bpf.layout import (
    ADDRESS,
    ADDRESS4,
    ADDRESS_OCTETS,
    BE32,
    MAC,
    U8,
    U16,
    U32,
    U64,
    IpAddress,
    Layout,
    nested,
)
from gateway.host.bpf.maps import Map, split
from gateway.host.bpf.spec import ObjectSpec
from gateway.ipsec.drop_reason import DropReason

K = TypeVar("K")
V = TypeVar("V")

SPD_LEAF_RULES: Final = 32
"""GW_SPD_LEAF_RULES."""
_EXIT_FIRST: Final = 64
_EXIT_PREFIX: Final = "GW_EXIT_"
_DROP_PREFIX: Final = "GW_EXIT_DROP_"


class Exit(StrEnum):
    """How an XDP program ends when it drops nothing (GW_EXITS)."""

    NOT_IP = "not_ip"
    """To the stack: ARP and the like."""
    LINK_LOCAL = "link_local"
    """To the stack: what an IPv6 link needs to live, or what is meant for more than one."""
    IKE = "ike"
    """To the stack."""
    KEEPALIVE = "keepalive"
    """To the stack: a NAT keepalive (RFC 3948 §2.3)."""
    LOCAL_FRAGMENT = "local_fragment"
    """To the stack: a part of something for this machine, to be put together first."""
    ICMP_ERROR = "icmp_error"
    """To the stack: an error for this machine, perhaps about its own ESP."""
    STACK_SA = "stack_sa"
    """To the stack: the kernel, or a socket, has the SA."""
    STRANGE_SPI = "strange_spi"
    """To the stack: no SA has this SPI, and the program was told to let such packets pass."""
    BYPASS = "bypass"
    """To the stack: a BYPASS entry matched."""
    NO_ENTRY = "no_entry"
    """To the stack: no entry of the SPD matched."""
    STACK_PROTECTS = "stack_protects"
    """To the stack: PROTECT matched, and the stack is who does it."""
    NOT_OURS = "not_ours"
    """To the stack: not sent to a link address, or not over a VLAN, that we forward for."""
    NOT_PLAIN = "not_plain"
    """To the stack: IP options, hop-by-hop headers, fragments or two VLAN tags."""
    TTL = "ttl"
    """To the stack: the TTL or hop limit runs out here."""
    NEEDS_FRAGMENTS = "needs_fragments"
    """To the stack: too big, and may be fragmented; or too big for the LAN, and came out of a tunnel."""
    NO_NEXT_HOP = "no_next_hop"
    """To the stack: no mirrored next hop leads there."""
    IPSEC = "ipsec"
    """To the stack: ESP, AH or IKE on its way through the kernel."""
    ENGINE = "engine"
    """To the engine's socket."""
    FORWARDED = "forwarded"
    """Out of another interface."""
    STEERED = "steered"
    """To another CPU's queue."""
    OTHER = "other"
    """To the stack: nothing that the program is about."""
    SA_GONE = "sa_gone"
    """To the stack: the kernel has the SA no more that a NIC had, or it is about to lose it."""
    LEASE_OVER = "lease_over"
    """To the stack: the agent has not said for some time that what it told is still so."""
    UNDECIDED = "undecided"
    """To the stack: more rules of the SPD hold there than XDP looks at."""
    FORWARDED_IN = "forwarded_in"
    """Out of an interface to the protected networks: what a NIC decrypted."""


class Owner(IntEnum):
    """Who has an inbound SA (`enum gw_owner`)."""

    ENGINE = 0
    STACK = 1


class SpdAction(IntEnum):
    """What a leaf or a rule of the SPD says (`enum gw_action`)."""

    NONE = 0
    PROTECT = 1
    BYPASS = 2
    DISCARD = 3
    UNDECIDED = 4
    """The stack and the engine decide."""


class Side(IntEnum):
    """Which side of the gateway an interface is on (`enum gw_side`)."""

    LAN = 0
    OFFLOAD = 1


@dataclass(frozen=True, slots=True)
class Spi:
    """Key of `gw_sas` and `gw_spi_cpus`."""

    spi: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundSa:
    """One inbound SA."""

    destination: IpAddress
    protocol: int
    """50 or 51."""
    owner: int = Owner.ENGINE


@dataclass(frozen=True, slots=True)
class Local:
    """Key of `gw_locals`: an address of this machine."""

    address: IpAddress


@dataclass(frozen=True, slots=True)
class Word:
    """A number as key or value."""

    value: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix4:
    """Key of a longest-prefix match over IPv4."""

    prefix_bits: int
    address: IPv4Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix6:
    """Key of a longest-prefix match over IPv6."""

    prefix_bits: int
    address: IPv6Address


@dataclass(frozen=True, slots=True)
class RemoteClass:
    """Value of the SPD's first stage."""

    remote_class: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberedPrefix4:
    """Key of the SPD's stages over IPv4."""

    prefix_bits: int
    """32 for the number, and those of the address."""
    number: int
    """In the first stage the generation, in the second the class that the first gave."""
    address: IPv4Address


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberedPrefix6:
    """Key of the SPD's stages over IPv6: as `NumberedPrefix4`."""

    prefix_bits: int
    number: int
    address: IPv6Address


@dataclass(frozen=True, slots=True, kw_only=True)
class SpdLeaf:
    """What holds for one pair of prefixes."""

    first_rule: int = 0
    rule_count: int = 0
    action: int = SpdAction.NONE
    offloaded_sa: int = 0
    """Of PROTECT: key of `gw_offloaded_sas`, for what goes out; 0: none."""
    inbound_sa: int = 0
    """Of PROTECT: key of `gw_inbound_sas`, for what comes in; 0: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpdRule:
    """One rule with a protocol or ports. Ports are inclusive."""

    local_first: int
    local_last: int
    remote_first: int
    remote_last: int
    protocol: int
    """0: any."""
    action: int
    offloaded_sa: int = 0
    """As of a leaf."""
    inbound_sa: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """What ended in one way."""

    packets: int = 0
    bytes: int = 0
    """Of frames, link headers included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A packet with an SPI that no SA has."""

    time_ns: int
    """CLOCK_MONOTONIC."""
    source: IpAddress
    destination: IpAddress
    spi: int
    protocol: int
    """50 or 51."""
    ifindex: int
    suppressed: int
    """How many others came since the last event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PortKey:
    """An interface of ours, or one VLAN on it."""

    ifindex: int
    vlan_id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """What we are on an interface."""

    address4: IpAddress
    """Source of ICMP errors; the unspecified address: none are sent."""
    address6: IpAddress
    mac: bytes
    side: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NextHop:
    """Where packets to a prefix go."""

    ifindex: int
    """0: where the stack sends them."""
    mtu: int
    """The largest IP packet that fits, with what ESP will add taken off: bytes."""
    destination_mac: bytes
    source_mac: bytes
    vlan_id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OffloadedSa:
    """An outbound SA that a NIC encrypts for."""

    destination: IpAddress
    """Of the SA, outside."""
    spi: int
    hop: NextHop
    """Towards that destination, out of that NIC."""
    family: int
    """Of the destination: 4 or 6."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundNicSa:
    """An SA by which a NIC decrypts that lets nothing in in clear."""

    destination: IpAddress
    """Of the SA, outside: an address of ours."""
    spi: int
    family: int
    """Of the destination: 4 or 6."""
    ifindex: int
    """Of the NIC."""
    mtu: int = 0
    """Of the way back through the tunnel, for the MSS of a SYN: bytes. 0: not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuQueue:
    """What waits for a CPU."""

    frames: int
    """At most."""
    program_fd: int = 0
    """Of a program that runs there; 0: none."""


_SPI: Final = Layout("gw_spi_key", Spi, (("spi_be", BE32),))
_LOCAL: Final = Layout("gw_address", Local, (("address", ADDRESS),))
_WORD: Final = Layout("", Word, (("value", U32),))
_PREFIX4: Final = Layout("gw_prefix4", Prefix4, (("prefix_bits", U32), ("address_be", ADDRESS4)))
_PREFIX6: Final = Layout("gw_prefix6", Prefix6, (("prefix_bits", U32), ("address", ADDRESS_OCTETS)))
_NUMBERED_PREFIX4: Final = Layout(
    "gw_numbered_prefix4",
    NumberedPrefix4,
    (("prefix_bits", U32), ("number_be", BE32), ("address_be", ADDRESS4)),
)
_NUMBERED_PREFIX6: Final = Layout(
    "gw_numbered_prefix6",
    NumberedPrefix6,
    (("prefix_bits", U32), ("number_be", BE32), ("address", ADDRESS_OCTETS)),
)
_COUNTER: Final = Layout("gw_counter", Counter, (("packets", U64), ("bytes", U64)))
EVENT: Final = Layout(
    "gw_event",
    Event,
    (
        ("time_ns", U64),
        ("source", ADDRESS),
        ("destination", ADDRESS),
        ("spi_be", BE32),
        ("protocol", U32),
        ("ifindex", U32),
        ("suppressed", U32),
    ),
)
_REMOTE_CLASS: Final = Layout("gw_remote_class", RemoteClass, (("remote_class_be", BE32),))
_NEXT_HOP: Final = Layout(
    "gw_next_hop",
    NextHop,
    (
        ("ifindex", U32),
        ("mtu", U32),
        ("destination_mac", MAC),
        ("source_mac", MAC),
        ("vlan_id", U16),
        ("padding", U16),
    ),
)
_SPD_LEAF: Final = Layout(
    "gw_spd_leaf",
    SpdLeaf,
    (
        ("first_rule", U32),
        ("rule_count", U16),
        ("action", U8),
        ("padding", U8),
        ("offloaded_sa", U32),
        ("inbound_sa", U32),
    ),
)


@dataclass(frozen=True, slots=True)
class Table(Generic[K, V]):
    """A map by its name, and what is in it."""

    name: str
    key: Layout[K]
    value: Layout[V]

    def of(self, maps: Mapping[str, Map]) -> "View[K, V]":
        """Return the map of this name, with types.

        Raises:
            KeyError: There is none.
        """
        return View(maps[self.name], self)


class View(Generic[K, V]):
    """A map whose keys and values are records."""

    def __init__(self, content: Map, table: Table[K, V]) -> None:
        self._map = content
        self._table = table

    def get(self, key: K) -> V | None:
        """Return the value of an entry, or `None`."""
        found = self._map.lookup(self._table.key.encode(key))
        return None if found is None else self._table.value.decode(found)

    def set(self, key: K, value: V) -> None:
        """Set an entry.

        Raises:
            KernelRefusedError: The map is full.
        """
        self._map.update(self._table.key.encode(key), self._table.value.encode(value))

    def set_many(self, entries: Mapping[K, V]) -> None:
        """Set many entries at once.

        Raises:
            KernelRefusedError: The map is full: some may have been set.
        """
        encode_key, encode_value = self._table.key.encode, self._table.value.encode
        self._map.update_batch((encode_key(key), encode_value(value)) for key, value in entries.items())

    def delete(self, key: K) -> bool:
        """Remove an entry; return whether it was there."""
        return self._map.delete(self._table.key.encode(key))

    def delete_many(self, keys: Iterable[K]) -> None:
        """Remove many entries; those that are not there do not matter."""
        for key in keys:
            self.delete(key)

    def items(self) -> Iterator[tuple[K, V]]:
        """Yield all entries, in the kernel's order."""
        for key, value in self._map.items():
            yield self._table.key.decode(key), self._table.value.decode(value)


SAS: Final = Table(
    "gw_sas",
    _SPI,
    Layout("gw_inbound_sa", InboundSa, (("destination", ADDRESS), ("protocol", U32), ("owner", U32))),
)
LOCALS: Final = Table("gw_locals", _LOCAL, _WORD)
SPD_REMOTE4: Final = Table("gw_spd_remote4", _NUMBERED_PREFIX4, _REMOTE_CLASS)
SPD_REMOTE6: Final = Table("gw_spd_remote6", _NUMBERED_PREFIX6, _REMOTE_CLASS)
SPD_LOCAL4: Final = Table("gw_spd_local4", _NUMBERED_PREFIX4, _SPD_LEAF)
SPD_LOCAL6: Final = Table("gw_spd_local6", _NUMBERED_PREFIX6, _SPD_LEAF)
SPD_GENERATION: Final = Table("gw_spd_generation", _WORD, _WORD)
SPD_RULES: Final = Table(
    "gw_spd_rules",
    _WORD,
    Layout(
        "gw_spd_rule",
        SpdRule,
        (
            ("local_first", U16),
            ("local_last", U16),
            ("remote_first", U16),
            ("remote_last", U16),
            ("protocol", U8),
            ("action", U8),
            ("padding", U16),
            ("offloaded_sa", U32),
            ("inbound_sa", U32),
        ),
    ),
)
PORTS: Final = Table(
    "gw_ports",
    Layout("gw_port_key", PortKey, (("ifindex", U32), ("vlan_id", U16), ("padding", U16))),
    Layout("gw_port", Port, (("address4", ADDRESS), ("address6", ADDRESS), ("mac", MAC), ("side", U16))),
)
NEXT_HOPS4: Final = Table("gw_next_hops4", _PREFIX4, _NEXT_HOP)
NEXT_HOPS6: Final = Table("gw_next_hops6", _PREFIX6, _NEXT_HOP)
OFFLOADED_SAS: Final = Table(
    "gw_offloaded_sas",
    _WORD,
    Layout(
        "gw_offloaded_sa",
        OffloadedSa,
        (("destination", ADDRESS), ("spi_be", BE32), ("family", U32), ("hop", nested(_NEXT_HOP, 4))),
    ),
)
INBOUND_SAS: Final = Table(
    "gw_inbound_sas",
    _WORD,
    Layout(
        "gw_inbound_nic_sa",
        InboundNicSa,
        (("destination", ADDRESS), ("spi_be", BE32), ("family", U32), ("ifindex", U32), ("mtu", U32)),
    ),
)
LEASE: Final = Table("gw_lease", _WORD, Layout("", Word, (("value", U64),)))
DEVICES: Final = Table("gw_devices", _WORD, _WORD)
CPUS: Final = Table(
    "gw_cpus", _WORD, Layout("gw_cpu_queue", CpuQueue, (("frames", U32), ("program_fd", U32)))
)
CPU_LIST: Final = Table("gw_cpu_list", _WORD, _WORD)
SPI_CPUS: Final = Table("gw_spi_cpus", _SPI, _WORD)
_STATS: Final = Table("gw_stats", _WORD, _COUNTER)

#: Every table whose records are checked where an object has it. `Any`: each has records of its own.
TABLES: Final[tuple[Table[Any, Any], ...]] = (
    SAS,
    LOCALS,
    SPD_REMOTE4,
    SPD_REMOTE6,
    SPD_LOCAL4,
    SPD_LOCAL6,
    SPD_GENERATION,
    SPD_RULES,
    PORTS,
    NEXT_HOPS4,
    NEXT_HOPS6,
    OFFLOADED_SAS,
    INBOUND_SAS,
    LEASE,
    DEVICES,
    CPUS,
    CPU_LIST,
    SPI_CPUS,
    _STATS,
)


def check_abi(spec: ObjectSpec) -> None:
    """Compare the maps of an object, and the names of its ends, with what is here.

    Raises:
        AbiMismatchError: Something is laid out, or numbered, otherwise.
    """
    for table in TABLES:
        if table.name in spec.maps:
            found = spec.maps[table.name]
            table.key.check(spec.btf, found.key_type, f"the key of {table.name}")
            table.value.check(spec.btf, found.value_type, f"the value of {table.name}")
    if "gw_events" in spec.maps:
        EVENT.check(spec.btf, spec.maps["gw_events"].value_type, "a record of gw_events")
    exits = spec.btf.enum("gw_exit")
    if exits is not None and exits != _numbered_exits():
        differing = sorted(exits.items() ^ _numbered_exits().items())
        raise AbiMismatchError(f"the ends of programs are numbered otherwise in C and here: {differing}")


def read_counters(maps: Mapping[str, Map]) -> dict[DropReason | Exit, Counter]:
    """Return how often programs ended in which way, over all CPUs; what never happened is left out."""
    found = {}
    for key, values in maps[_STATS.name].items():
        reason = _NAMED.get(_WORD.decode(key).value)
        if reason is None or not any(values):
            continue
        each = [_COUNTER.decode(item) for item in split(values, _COUNTER.size, len(values) // _COUNTER.size)]
        found[reason] = Counter(
            packets=sum(counter.packets for counter in each), bytes=sum(counter.bytes for counter in each)
        )
    return found


_REASONS: Final[Mapping[DropReason | Exit, int]] = {
    **{reason: number for number, reason in enumerate(DropReason, start=1)},
    **{reason: number for number, reason in enumerate(Exit, start=_EXIT_FIRST)},
}

_NAMED: Final = {number: reason for reason, number in _REASONS.items()}


def _numbered_exits() -> dict[str, int]:
    names = {
        f"{_DROP_PREFIX if isinstance(reason, DropReason) else _EXIT_PREFIX}{reason.name}": number
        for reason, number in _REASONS.items()
    }
    return names | {"GW_EXIT_BEFORE_FIRST": _EXIT_FIRST - 1, "GW_EXIT_COUNT": _EXIT_FIRST + len(Exit)}
