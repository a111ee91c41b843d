"""What an nftables ruleset, as `nft -j list ruleset` tells it, does with one kind of packet.

A rule may ask what is not known here (an address, an interface, a rate). Then both ways are followed, and the
answer is the set of verdicts that are possible.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

#: One object of libnftables-json(5).
Json = dict[str, Any]

OWN_TABLES: Final = "ipsecgw_"
"""Tables of our guard: they let pass what is ours."""

_NUMBERS: Final = {"icmp": 1, "tcp": 6, "udp": 17, "esp": 50, "ah": 51, "ipv6-icmp": 58, "icmpv6": 58}
_TRANSPORTS: Final = frozenset(
    {"tcp", "udp", "udplite", "sctp", "dccp", "esp", "ah", "icmp", "icmpv6", "comp"}
)
_NETWORKS: Final = {"ip": 4, "ip6": 6}
_MAX_JUMPS: Final = 16
"""The kernel's own limit (NFT_JUMP_STACK_SIZE)."""


class Verdict(Enum):
    """What may become of a packet."""

    ACCEPT = "accepted"
    DROP = "dropped"
    CONTINUE = "neither"
    """It leaves a chain at its end."""


class Match(Enum):
    """Whether a condition holds for a packet."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"
    """It asks what is not known of the packet."""


@dataclass(frozen=True, slots=True)
class Packet:
    """A kind of packet that begins a flow, from or to a peer."""

    protocol: str
    """`udp` or `esp`."""
    version: int
    port: int | None = None
    """Of the destination."""

    def __str__(self) -> str:
        name = self.protocol.upper()
        return f"{name} {self.port} over IPv{self.version}" if self.port else f"{name} over IPv{self.version}"


@dataclass(frozen=True, slots=True)
class Judged:
    """What one base chain may do with a packet."""

    chain: str
    """`inet filter input`, as nft names it."""
    verdicts: frozenset[Verdict]


def judge(ruleset: Iterable[Json], packet: Packet, hook: str) -> tuple[Judged, ...]:
    """Return what each base chain of a hook may do with a packet; chains of our own guard are passed over.

    Args:
        ruleset: The objects below `nftables`.
        packet: The packet.
        hook: `input` or `output`.
    """
    chains: dict[tuple[str, str, str], Json] = {}
    rules: dict[tuple[str, str, str], list[Json]] = {}
    for item in ruleset:
        if chain := item.get("chain"):
            chains[chain["family"], chain["table"], chain["name"]] = chain
        elif rule := item.get("rule"):
            rules.setdefault((rule["family"], rule["table"], rule["chain"]), []).append(rule)
    families = {"inet", "ip" if packet.version == 4 else "ip6"}
    judged = []
    for key, chain in chains.items():
        family, table, name = key
        if chain.get("hook") != hook or family not in families or table.startswith(OWN_TABLES):
            continue
        walk = _Walk(
            packet, {n: rules.get((family, table, n), []) for f, t, n in chains if (f, t) == key[:2]}
        )
        verdicts = walk.chain(name, 0)
        if Verdict.CONTINUE in verdicts:
            policy = Verdict.DROP if chain.get("policy") == "drop" else Verdict.ACCEPT
            verdicts = (verdicts - {Verdict.CONTINUE}) | {policy}
        judged.append(Judged(f"{family} {table} {name}", frozenset(verdicts)))
    return tuple(judged)


@dataclass(frozen=True, slots=True)
class _Walk:
    packet: Packet
    rules: Mapping[str, Sequence[Json]]

    def chain(self, name: str, depth: int) -> set[Verdict]:
        """Return the verdicts that are possible; CONTINUE for the end of the chain."""
        found: set[Verdict] = set()
        if depth > _MAX_JUMPS:
            return {Verdict.CONTINUE}
        for rule in self.rules.get(name, ()):
            match, verdicts, ends = self._rule(rule.get("expr", ()), depth)
            if match is Match.NO:
                continue
            goes_on = Verdict.CONTINUE in verdicts and not ends
            found |= verdicts - ({Verdict.CONTINUE} if goes_on else set())
            if match is Match.YES and not goes_on:
                return found
        return found | {Verdict.CONTINUE}

    def _rule(self, expressions: Sequence[Json], depth: int) -> tuple[Match, set[Verdict], bool]:
        """Return whether a rule matches, what it may say, and whether the chain ends with it."""
        match = Match.YES
        for expression in expressions:
            ((kind, body),) = expression.items()
            if kind in _VERDICTS:
                return match, {_VERDICTS[kind]}, True
            if kind in ("jump", "goto"):
                return match, self.chain(body["target"], depth + 1), kind == "goto"
            if kind == "vmap":
                return _both(match, Match.UNKNOWN), self._map(body, depth), False
            if kind == "match":
                match = _both(match, holds(body, self.packet))
            elif kind in ("limit", "xt", "quota", "ct count", "fib"):
                match = _both(match, Match.UNKNOWN)
            if match is Match.NO:
                return match, set(), False
        return match, {Verdict.CONTINUE}, False

    def _map(self, body: Json, depth: int) -> set[Verdict]:
        """Return every verdict of a map that the packet may hit."""
        found = {Verdict.CONTINUE}
        data = body.get("data")
        for key, verdict in data.get("set", ()) if isinstance(data, dict) else ():
            condition = {"op": "==", "left": body.get("key"), "right": key}
            match = holds(condition, self.packet)
            if match is Match.NO:
                continue
            _, verdicts, _ = self._rule([verdict], depth)
            found |= verdicts
        return found


_VERDICTS: Final = {
    "accept": Verdict.ACCEPT,
    "drop": Verdict.DROP,
    "reject": Verdict.DROP,
    "return": Verdict.CONTINUE,
    "queue": Verdict.CONTINUE,
}


def _both(first: Match, second: Match) -> Match:
    if Match.NO in (first, second):
        return Match.NO
    return Match.UNKNOWN if Match.UNKNOWN in (first, second) else Match.YES


# --- conditions ---------------------------------------------------------------------------------


def holds(condition: Json, packet: Packet) -> Match:
    """Say whether a `match` holds for a packet."""
    known = _value(condition.get("left"), packet)
    if isinstance(known, Match):
        return known
    equal = _is_in(known, condition.get("right"))
    if equal is None or condition.get("op") not in ("==", "in", "!="):
        return Match.UNKNOWN
    return Match.YES if equal == (condition["op"] != "!=") else Match.NO


def _value(left: object, packet: Packet) -> str | int | Match:
    """Return what a packet has where a condition looks, NO where it has no such header."""
    if not isinstance(left, dict):
        return Match.UNKNOWN
    if payload := left.get("payload"):
        return _payload(payload.get("protocol", ""), payload.get("field", ""), packet)
    if meta := left.get("meta"):
        reader = _META.get(meta.get("key", ""))
        return Match.UNKNOWN if reader is None else reader(packet)
    if ct := left.get("ct"):
        return "new" if ct.get("key") == "state" else Match.UNKNOWN
    return Match.UNKNOWN


_META: Final[Mapping[str, Callable[[Packet], str | int]]] = {
    "l4proto": lambda packet: packet.protocol,
    "nfproto": lambda packet: f"ipv{packet.version}",
    "protocol": lambda packet: "ip" if packet.version == 4 else "ip6",
    # Peers come over no loopback, whatever the interface is called.
    "iifname": lambda _packet: "an interface to the peer",
    "oifname": lambda _packet: "an interface to the peer",
    "iif": lambda _packet: "an interface to the peer",
    "oif": lambda _packet: "an interface to the peer",
}


def _payload(protocol: str, field: str, packet: Packet) -> str | int | Match:
    if protocol in _NETWORKS:
        if _NETWORKS[protocol] != packet.version:
            return Match.NO
        return packet.protocol if field in ("protocol", "nexthdr") else Match.UNKNOWN
    if protocol not in ("th", packet.protocol):
        return Match.NO if protocol in _TRANSPORTS else Match.UNKNOWN
    if field == "dport":
        return Match.NO if packet.port is None else packet.port
    return Match.UNKNOWN


def _is_in(value: str | int, right: object) -> bool | None:
    """Say whether a value is what stands on the right; None where that cannot be told."""
    if isinstance(right, dict):
        if "range" in right and isinstance(value, int):
            low, high = right["range"]
            return low <= value <= high if isinstance(low, int) and isinstance(high, int) else None
        right = right.get("set")
        if not isinstance(right, list):
            return None
    if isinstance(right, list):
        answers = [_is_in(value, item) for item in right]
        return True if True in answers else (None if None in answers else False)
    if isinstance(right, str) and right.startswith("@"):
        return None
    if isinstance(value, str) and " " in value:
        # An interface that has no name here: the loopback is the only one it is not.
        return False if right == "lo" else None
    return right in (value, _NUMBERS.get(str(value)))
