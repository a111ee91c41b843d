"""The SPD as kernel policies: which there must be, and which changes lead there. Pure.

One SPD entry becomes policies for three directions: OUT, IN, and FORWARD for what passes through
this machine. What an SA carries gets policies of its own, as narrow as its selectors, whose template names
the SA's addresses and the reqid of its (connection, child): with several SAs the kernel takes the newest. The
rest of a PROTECT entry is held by policies with another reqid, which no SA ever has, so that it raises an
ACQUIRE outbound and is dropped inbound:

    label      IN  "too big" to an SA's outer address, which routers say in clear (RFC 4301 §8.2.1)
    label + 1  OUT  local -> remote   template of the newest outbound SA that these selectors are of
               IN, FORWARD  remote -> local   template of the inbound SAs
    label + 2  the same for the whole entry, with the reqid that no SA has; BLOCK if it has no addresses
               OUT, FORWARD  BLOCK of fragments whose ports cannot be seen
    label + 3  FORWARD  local -> remote   allowed: OUT decides about it

The kernel has room for one policy of each selector, and a policy that a device has goes with the device. So
beneath those of packet offload the rest stands under another tag (`closed_tag`): it is there when they go.

An entry with an interface id is only about the traffic of the XFRM interface that has it. One with marks is
only about outbound packets that have the one, and about decrypted packets that have the other; clear packets
from outside are dropped all the same.

So it is closed before the first SA and after the last. IPv6 lives on without SAs too: neighbour and multicast
listener discovery, and what this machine says to itself, pass before everything else, as long as any entry
is about IPv6. Where two entries have a
policy of the same selector, the kernel has room for one: the first in the order of the SPD has it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from socket import AF_INET6
from typing import Final

from gateway.datapath.backend import DatapathError, ErrorReason
from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.numbers import Mode, PolicyAction, PolicyDirection
from gateway.datapath.xfrm.order import Order, OrderFullError
from gateway.datapath.xfrm.selectors import Cell, Ports, cells, common, hidden_cells, meet
from gateway.ipsec import sa as ipsec
from gateway.ipsec.mark import Mark
from gateway.ipsec.policy import Action, Policy
from gateway.ipsec.selectors import TrafficSelector

KERNEL_MODE: Final = {ipsec.Mode.TUNNEL: Mode.TUNNEL, ipsec.Mode.TRANSPORT: Mode.TRANSPORT}
ANY_ADDRESS: Final[dict[int, ipsec.IpAddress]] = {4: IPv4Address(0), 6: IPv6Address(0)}

# Counted from the label of an entry: `order.STEPS` numbers are its own.
_TOO_BIG: Final = 0
_CARRIED: Final = 1
_TRAPPED: Final = 2
_THROUGH: Final = 3
_BEHIND_ALL: Final = 1 << 31
"""Not counted from a label, and behind the last of them."""

#: By IP version: protocol, type and code of what a router says about a packet that is too big.
_ICMP_TOO_BIG: Final = {4: (1, 3, 4), 6: (58, 2, 0)}
_OCTET: Final = 0xFFFF
_EVERYWHERE: Final[dict[int, IPv4Network | IPv6Network]] = {
    4: IPv4Network("0.0.0.0/0"),
    6: IPv6Network("::/0"),
}

#: (connection, child): what joins SPD entries and SAs.
Serves = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Key:
    """The name of a kernel policy."""

    direction: PolicyDirection
    selector: r.Selector
    if_id: int = 0
    mark: r.Mark | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelPolicy:
    """The rest of a kernel policy."""

    priority: int
    """Of what one entry wants, counted from its label."""
    action: PolicyAction = PolicyAction.ALLOW
    templates: tuple[r.Template, ...] = ()
    offload: r.Offload | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Carrier:
    """What a policy needs to know of an SA."""

    source: ipsec.IpAddress
    destination: ipsec.IpAddress
    mode: ipsec.Mode
    protocol: ipsec.IpsecProtocol
    local_ts: tuple[TrafficSelector, ...]
    remote_ts: tuple[TrafficSelector, ...]
    offload: r.Offload | None = None
    """Of an SA with packet offload: its policies need it too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Carriers:
    """The SAs of one (connection, child), the newest first, and its numbers."""

    reqid: int
    """Of its SAs."""
    trap_reqid: int
    """Of no SA."""
    inbound: tuple[Carrier, ...] = ()
    outbound: tuple[Carrier, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """One step towards the policies that there must be; `policy` is `None` to delete."""

    key: Key
    policy: KernelPolicy | None


# --- one entry ------------------------------------------------------------------------------------


def kernel_policies(policy: Policy, carriers: Carriers, tag: int) -> dict[Key, KernelPolicy]:
    """Return what one entry wants; where two policies would be of one name, the first of the table above.

    Raises:
        DatapathError: TABLE_FULL or ADDRESS_FAMILY: its selectors cannot be kernel policies.
    """
    if not any(True for _ in meet(policy.local_ts, policy.remote_ts)):
        raise DatapathError(
            ErrorReason.ADDRESS_FAMILY,
            "no local and remote selector of one family and protocol: this policy matches no packet",
        )
    found: dict[Key, KernelPolicy] = {}
    for key, made in _every_policy(policy, carriers, tag):
        found.setdefault(*_marked(policy, replace(key, if_id=policy.interface_id), made))
    return found


def kernel_mark(mark: Mark | None) -> r.Mark | None:
    """Return a mark as the kernel wants it."""
    return None if mark is None else r.Mark(value=mark.value, mask=mark.mask)


def _marked(policy: Policy, key: Key, made: KernelPolicy) -> tuple[Key, KernelPolicy]:
    """Return a kernel policy as it is with the marks of its entry.

    What comes in in clear has no mark of ours. So that it is dropped and other entries with these selectors
    and other marks get theirs, what drops it comes behind all entries.
    """
    if key.direction is PolicyDirection.OUT:
        return replace(key, mark=kernel_mark(policy.mark_out)), made
    if policy.mark_in is not None and made.priority == _CARRIED:
        return replace(key, mark=kernel_mark(policy.mark_in)), made
    if policy.mark_in is not None and made.priority == _TRAPPED:
        return key, replace(made, priority=_BEHIND_ALL)
    return key, made


def _every_policy(policy: Policy, carriers: Carriers, tag: int) -> Iterator[tuple[Key, KernelPolicy]]:
    whole = cells(policy.local_ts, policy.remote_ts, may_widen=policy.action is not Action.BYPASS)
    if policy.action is Action.PROTECT:
        yield from _carried(policy, carriers, tag)
        yield from _trapped(policy, carriers.trap_reqid, whole, _trap_tag(carriers, tag))
    else:
        action = PolicyAction.ALLOW if policy.action is Action.BYPASS else PolicyAction.BLOCK
        for cell in whole:
            for key in (_out(cell, tag), *_in(cell, tag)):
                yield key, KernelPolicy(priority=_CARRIED, action=action)
    if policy.action is not Action.BYPASS:
        for cell in hidden_cells(policy.local_ts, policy.remote_ts):
            blocked = KernelPolicy(priority=_TRAPPED, action=PolicyAction.BLOCK)
            yield _out(cell, tag), blocked
            yield Key(PolicyDirection.FORWARD, cell.inbound(tag)), blocked
    if policy.action is not Action.DISCARD:
        for cell in whole:
            yield Key(PolicyDirection.FORWARD, cell.outbound(tag)), KernelPolicy(priority=_THROUGH)


def _carried(policy: Policy, carriers: Carriers, tag: int) -> Iterator[tuple[Key, KernelPolicy]]:
    """Yield the policies of what SAs carry."""
    for carrier in carriers.outbound:
        if any(selector.contains(carrier.source) for selector in policy.local_ts):
            yield _too_big(carrier.source, tag), KernelPolicy(priority=_TOO_BIG)
        template = _template(carrier, carriers.reqid, carrier.source, carrier.destination)
        made = KernelPolicy(priority=_CARRIED, templates=(template,), offload=carrier.offload)
        for cell in _cells_of(policy, carrier):
            yield _out(cell, tag), made
    for carrier in carriers.inbound:
        made = KernelPolicy(
            priority=_CARRIED, templates=(_template(carrier, carriers.reqid),), offload=carrier.offload
        )
        for cell in _cells_of(policy, carrier):
            for key in _in(cell, tag):
                # A device has no policy for what passes through (mlx5: "Cannot offload forward policy").
                offload = made.offload if key.direction is PolicyDirection.IN else None
                yield key, replace(made, offload=offload)


def closed_tag(tag: int) -> int:
    """Return what is in the selectors of policies that must not be in the place of others of an agent."""
    return tag ^ 2


def _trap_tag(carriers: Carriers, tag: int) -> int:
    offloaded = any(carrier.offload is not None for carrier in (*carriers.inbound, *carriers.outbound))
    return closed_tag(tag) if offloaded else tag


def _trapped(
    policy: Policy, reqid: int, whole: Iterable[Cell], tag: int
) -> Iterator[tuple[Key, KernelPolicy]]:
    """Yield the policies of what no SA carries."""
    closed = KernelPolicy(priority=_TRAPPED, templates=(_template(policy, reqid),))
    asking = closed
    if policy.mode is ipsec.Mode.TUNNEL:
        asking = KernelPolicy(priority=_TRAPPED, action=PolicyAction.BLOCK)
        if policy.remote_address is not None:
            local = policy.local_address or ANY_ADDRESS[policy.remote_address.version]
            template = _template(policy, reqid, local, policy.remote_address)
            asking = KernelPolicy(priority=_TRAPPED, templates=(template,))
    for cell in whole:
        yield _out(cell, tag), asking
        for key in _in(cell, tag):
            yield key, closed


def _cells_of(policy: Policy, carrier: Carrier) -> tuple[Cell, ...]:
    local_ts = common(carrier.local_ts, policy.local_ts)
    remote_ts = common(carrier.remote_ts, policy.remote_ts)
    return cells(local_ts, remote_ts, may_widen=True)


def _template(
    kind: Policy | Carrier,
    reqid: int,
    source: ipsec.IpAddress | None = None,
    destination: ipsec.IpAddress | None = None,
) -> r.Template:
    """Return a template; without addresses any SA of that reqid fits."""
    is_tunnel = kind.mode is ipsec.Mode.TUNNEL
    return r.Template(
        source=source if is_tunnel else None,
        destination=destination if is_tunnel else None,
        protocol=kind.protocol,
        mode=KERNEL_MODE[kind.mode],
        reqid=reqid,
    )


def _too_big(address: ipsec.IpAddress, tag: int) -> Key:
    """Return the name of the policy for what routers say to an outer address that is itself protected."""
    protocol, kind, code = _ICMP_TOO_BIG[address.version]
    here = IPv4Network(address) if isinstance(address, IPv4Address) else IPv6Network(address)
    cell = Cell(here, _EVERYWHERE[address.version], protocol, Ports(kind, _OCTET), Ports(code, _OCTET))
    return Key(PolicyDirection.IN, cell.inbound(tag))


def _out(cell: Cell, tag: int) -> Key:
    return Key(PolicyDirection.OUT, cell.outbound(tag))


def _in(cell: Cell, tag: int) -> tuple[Key, Key]:
    selector = cell.inbound(tag)
    return Key(PolicyDirection.IN, selector), Key(PolicyDirection.FORWARD, selector)


# --- what IPv6 cannot do without --------------------------------------------------------------------

_NEIGHBOUR_DISCOVERY: Final = (133, 134, 135, 136, 137)
"""RFC 4861 §4; the kernel itself takes them with a hop limit of 255 only, which no router lets pass."""
_LISTENER_DISCOVERY: Final = (130, 131, 132, 143)
"""RFC 2710 §3, RFC 3810 §5."""
_LINK_MULTICAST: Final = IPv6Network("ff02::/16")
_FIRST: Final = KernelPolicy(priority=1)
_LOOPBACK_LINK: Final = 1
"""Index of `lo` in every network namespace: nothing from outside comes in by it."""


def discovery_policies(tag: int) -> dict[Key, KernelPolicy]:
    """Return the policies that let the upkeep of an IPv6 link pass; no IPsec peer can do it for us."""
    everywhere = _EVERYWHERE[6]
    cells_of = [
        (Cell(everywhere, everywhere, 58, Ports(kind, _OCTET)),) * 2 for kind in _NEIGHBOUR_DISCOVERY
    ] + [
        (
            Cell(everywhere, _LINK_MULTICAST, 58, Ports(kind, _OCTET)),
            Cell(_LINK_MULTICAST, everywhere, 58, Ports(kind, _OCTET)),
        )
        for kind in _LISTENER_DISCOVERY
    ]
    found: dict[Key, KernelPolicy] = {}
    for outbound, inbound in cells_of:
        found[_out(outbound, tag)] = _FIRST
        found[Key(PolicyDirection.IN, inbound.inbound(tag))] = _FIRST
    return found


def loopback_policies(address: IPv6Address, tag: int) -> dict[Key, KernelPolicy]:
    """Return the policies for what this machine says to itself; over IPv4 Linux does not ask the SPD."""
    here = Cell(IPv6Network(address), IPv6Network(address))
    inbound = replace(here.inbound(tag), link=_LOOPBACK_LINK)
    return {_out(here, tag): _FIRST, Key(PolicyDirection.IN, inbound): _FIRST}


# --- all of them ----------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class Entry:
    """One SPD entry."""

    policy: Policy
    generation: int
    claims: dict[Key, KernelPolicy] = field(default_factory=dict)
    """What it wants of the kernel."""

    @property
    def place(self) -> tuple[int, str]:
        """Return what orders the SPD."""
        return self.policy.priority, self.policy.name


class Spd:
    """Every entry, and what the kernel has of them.

    `put`, `drop` and `follow` say what is wanted, `changes` what the kernel needs to hear, and `note` that it
    did. Nothing here is undone: to take something back, say what was wanted before.

    Args:
        tag: In the selector of each policy, to tell ours from others'.
    """

    def __init__(self, tag: int) -> None:
        self._tag = tag
        self._order = Order()
        self._entries: dict[str, Entry] = {}
        self._serving: dict[Serves, dict[str, None]] = {}
        self._claimants: dict[Key, dict[str, None]] = {}
        self._exempt = discovery_policies(tag)
        self._ipv6_keys = 0
        self._in_kernel: dict[Key, KernelPolicy] = {}
        self._unsure: dict[Key, None] = {}

    def get(self, name: str) -> Entry | None:
        """Return an entry, if it is there."""
        return self._entries.get(name)

    def entries(self) -> tuple[Entry, ...]:
        """Return the entries in the order in which they are searched."""
        return tuple(sorted(self._entries.values(), key=lambda entry: entry.place))

    def entries_of(self, serves: Serves) -> tuple[Entry, ...]:
        """Return the entries that the SAs of a (connection, child) serve."""
        return tuple(self._entries[name] for name in self._serving.get(serves, ()))

    def label(self, name: str) -> int:
        """Return the number from which on an entry's policies are numbered."""
        return self._order.label(self._entries[name].place)

    def owner(self, key: Key) -> Entry | None:
        """Return the entry that a kernel policy is of."""
        names = self._claimants.get(key)
        return self._entries[self._first(names)] if names else None

    def has(self, key: Key) -> bool:
        """Return whether a kernel policy of this name is wanted."""
        return self._wanted(key) is not None

    def in_kernel(self, key: Key) -> KernelPolicy | None:
        """Return what the kernel has under this name, as far as it was noted."""
        return self._in_kernel.get(key)

    def use_addresses(self, addresses: Iterable[ipsec.IpAddress]) -> None:
        """Let this machine speak with itself: these are its addresses."""
        exempt = discovery_policies(self._tag)
        for address in addresses:
            if isinstance(address, IPv6Address):
                exempt |= loopback_policies(address, self._tag)
        self._unsure.update(dict.fromkeys((*self._exempt, *exempt)))
        self._exempt = exempt

    def come_after(self, number: int) -> None:
        """Number new entries behind this number: what is before is of a former life, and not known."""
        self._order.come_after(number)

    # --- what is wanted ---------------------------------------------------------------------------

    def put(self, policy: Policy, generation: int, carriers: Carriers, label: int | None = None) -> None:
        """Add an entry, or replace the one of that name.

        Args:
            policy: The entry.
            generation: Who wants it.
            carriers: Its SAs.
            label: Its number in a former life.

        Raises:
            DatapathError: It cannot be kernel policies; nothing is changed.
        """
        claims = kernel_policies(policy, carriers, self._tag)
        old = self._entries.get(policy.name)
        place = (policy.priority, policy.name)
        try:
            renumbered = self._order.add(place, label)
        except OrderFullError as error:
            raise DatapathError(ErrorReason.TABLE_FULL, str(error)) from error
        if old is not None:
            self._leave(old.policy)
            if old.place != place:
                self._order.remove(old.place)
        self._entries[policy.name] = Entry(
            policy=policy, generation=generation, claims={} if old is None else old.claims
        )
        self._serving.setdefault(_serves(policy), {})[policy.name] = None
        self._claim(policy.name, claims)
        if renumbered:
            self._unsure.update(dict.fromkeys(self._claimants))

    def drop(self, name: str) -> Entry | None:
        """Remove an entry and return it, if it was there."""
        entry = self._entries.get(name)
        if entry is None:
            return None
        self._claim(name, {})
        self._leave(entry.policy)
        del self._entries[name]
        self._order.remove(entry.place)
        return entry

    def follow(self, name: str, carriers: Carriers) -> None:
        """Have an entry want what its SAs need now."""
        entry = self._entries[name]
        self._claim(name, kernel_policies(entry.policy, carriers, self._tag))

    def _leave(self, policy: Policy) -> None:
        names = self._serving[_serves(policy)]
        names.pop(policy.name, None)
        if not names:
            del self._serving[_serves(policy)]

    def _claim(self, name: str, claims: dict[Key, KernelPolicy]) -> None:
        entry = self._entries[name]
        for key in (*entry.claims, *claims):
            self._unsure[key] = None
        for key in entry.claims.keys() - claims.keys():
            del self._claimants[key][name]
            if not self._claimants[key]:
                del self._claimants[key]
                self._count_ipv6(key, -1)
        for key in claims:
            if key not in self._claimants:
                self._count_ipv6(key, 1)
            self._claimants.setdefault(key, {})[name] = None
        entry.claims = claims

    def _count_ipv6(self, key: Key, step: int) -> None:
        if key.selector.family == AF_INET6:
            self._ipv6_keys += step
            if self._ipv6_keys in {0, 1}:
                self._unsure.update(dict.fromkeys(self._exempt))

    def _first(self, names: Iterable[str]) -> str:
        return min(names, key=lambda name: self._entries[name].place)

    # --- what the kernel needs to hear --------------------------------------------------------------

    def changes(self) -> tuple[Change, ...]:
        """Return the steps to what is wanted: what is new first, so that there is no gap.

        What devices are given comes behind what lies beneath it.
        """
        puts: list[Change] = []
        deletions: list[Change] = []
        # What IPv6 cannot do without comes before what would stop it, and goes after it.
        for key in sorted(self._unsure, key=lambda key: (key in self._exempt) is not bool(self._ipv6_keys)):
            wanted = self._wanted(key)
            if wanted == self._in_kernel.get(key):
                del self._unsure[key]
            else:
                (deletions if wanted is None else puts).append(Change(key, wanted))
        puts.sort(key=lambda change: change.policy is not None and change.policy.offload is not None)
        return (*puts, *deletions)

    def _wanted(self, key: Key) -> KernelPolicy | None:
        if self._ipv6_keys and key in self._exempt:
            return self._exempt[key]
        owner = self.owner(key)
        if owner is None:
            return None
        claim = owner.claims[key]
        if claim.priority >= _BEHIND_ALL:
            return claim
        return replace(claim, priority=claim.priority + self._order.label(owner.place))

    def note(self, key: Key, policy: KernelPolicy | None) -> None:
        """Note what the kernel has under this name: `None` is nothing."""
        if policy is None:
            self._in_kernel.pop(key, None)
        else:
            self._in_kernel[key] = policy
        self._unsure[key] = None


def _serves(policy: Policy) -> Serves:
    return policy.connection, policy.child
