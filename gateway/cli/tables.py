"""Messages and records as lines for a terminal."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.api.connection_view import Difference
from gateway.api.control.v1 import connection_pb2 as cpb
from gateway.api.control.v1 import control_pb2 as pb
from gateway.api.convert import read_placement, read_refusals
from gateway.api.datapath.v1 import datapath_pb2 as dpb
from gateway.api.duration import format_duration
from gateway.api.plain import to_plain
from gateway.api.types.v1 import ipsec_pb2 as tpb
from gateway.api.types.v1 import status_pb2 as spb
from gateway.api.violations import Violations
from gateway.datapath.backend import InstalledSa, SaCounters
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.placement import Placement, PlacementRefusal
from gateway.ipsec.policy import Action, Policy
from gateway.ipsec.sa import SaId

INTERFACE: Final = "interface"
"""The head of a column that is left out where no row has an interface."""


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> list[str]:
    """Return left-aligned columns below their heads, or the one line `empty`."""
    texts = [[str(cell) for cell in row] for row in rows]
    if not texts:
        return [empty]
    if INTERFACE in head:
        column = head.index(INTERFACE)
        if all(line[column] == "-" for line in texts):
            head = [*head[:column], *head[column + 1 :]]
            texts = [[*line[:column], *line[column + 1 :]] for line in texts]
    widths = [max(len(line[column]) for line in [list(head), *texts]) for column in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [[name.upper() for name in head], *texts]
    ]


def _word(message: Message, field: str) -> str:
    """Return an enum field as files spell it."""
    return str(to_plain(message).get(field, "-"))


def _endpoint(endpoint: dpb.Endpoint) -> str:
    return (
        f"[{endpoint.address}]:{endpoint.port}"
        if ":" in endpoint.address
        else f"{endpoint.address}:{endpoint.port}"
    )


def _until(message: Message, field: str, now: float) -> str:
    """Return how long it is from `now` (Unix time) to a timestamp field: `-` if it is not set."""
    if not message.HasField(field):
        return "-"
    time = getattr(message, field)
    assert isinstance(time, Timestamp)
    return duration(time.seconds + time.nanos / 1e9 - now)


def duration(seconds: float) -> str:
    """Return a time span as a person reads it at a glance: its two largest units."""
    unit = 1.0 if seconds < 3600.0 else 60.0 if seconds < 86400.0 else 3600.0
    return format_duration(max(0.0, seconds) // unit * unit)


def connections(entries: Iterable[pb.ConnectionEntry]) -> list[str]:
    """Return one line per connection."""
    return table(
        ("name", "state", "remote", "children", INTERFACE, "child sas", "last failure"),
        (
            (
                entry.connection.name,
                _word(entry.status, "state"),
                entry.connection.remote.address or ",".join(entry.connection.remote.addresses) or "any",
                ",".join(child.name for child in entry.connection.children),
                _all_interfaces(entry.connection),
                len(entry.status.child_sa_ids),
                entry.status.last_failure.reason or "-",
            )
            for entry in entries
        ),
        empty="no connections",
    )


def _interfaces(connection: cpb.Connection) -> dict[str, str]:
    """Return the tunnel interface of each child that has one, by the child's name."""
    return {child.name: child.interface.name for child in connection.children if child.HasField("interface")}


def _all_interfaces(connection: cpb.Connection) -> str:
    return ",".join(dict.fromkeys(_interfaces(connection).values())) or "-"


_IMPACT = (
    ("ike_sa_rekeys", "IKE SA rekeys"),
    ("child_sa_rekeys", "Child SA rekeys"),
    ("ike_sa_restarts", "IKE SA restarts"),
    ("child_sa_restarts", "Child SA restarts"),
    ("ike_sa_ends", "IKE SA ends"),
    ("child_sa_ends", "Child SA ends"),
)


def impact(message: pb.Impact) -> str:
    """Return what happens to SAs, as `Child SA rekeys 1`; what does not happen is left out."""
    return ", ".join(f"{text} {getattr(message, name)}" for name, text in _IMPACT if getattr(message, name))


def difference(changed: Difference) -> list[str]:
    """Return one line for each connection that changed."""
    lines = [f"{name}: removed" for name in changed.removed]
    for entry in changed.upserted:
        status = entry.status
        failure = f", {status.last_failure.reason}" if status.state == pb.CONNECTION_STATE_FAILED else ""
        lines.append(
            f"{entry.connection.name}: {_word(status, 'state')}{failure}, "
            f"Child SAs {len(status.child_sa_ids)}, generation {entry.generation}"
        )
    return lines


_NAT = {(False, False): "-", (True, False): "here", (False, True): "there", (True, True): "both"}


def ike_sas(items: Iterable[pb.IkeSa], now: float, entries: Iterable[pb.ConnectionEntry] = ()) -> list[str]:
    """Return one line per IKE SA; `now` is Unix time, and the connections tell the tunnel interfaces."""
    interfaces = {entry.connection.name: _all_interfaces(entry.connection) for entry in entries}
    return table(
        (
            *("id", "connection", INTERFACE, "state", "role", "local", "remote", "remote id", "nat"),
            *("spi_i", "spi_r", "rekey in", "proposal"),
        ),
        (
            (
                *(
                    sa.ike_sa_id,
                    sa.connection or "-",
                    interfaces.get(sa.connection, "-"),
                    sa.state,
                    "initiator" if sa.is_initiator else "responder",
                ),
                *(_endpoint(sa.local), _endpoint(sa.remote), sa.remote_id or "-"),
                *(_NAT[sa.nat_local, sa.nat_remote], sa.spi_i, sa.spi_r),
                *(_until(sa, "rekey_time", now), sa.proposal or "-"),
            )
            for sa in items
        ),
        empty="no IKE SAs",
    )


def child_sas(
    items: Iterable[pb.ChildSa], now: float, entries: Iterable[pb.ConnectionEntry] = ()
) -> list[str]:
    """Return one line per Child SA; `now` is Unix time, and the connections tell the tunnel interfaces.

    MTU is the largest inner packet that fits whole.
    """
    interfaces = {
        (entry.connection.name, child): interface
        for entry in entries
        for child, interface in _interfaces(entry.connection).items()
    }
    return table(
        (
            *("id", "connection/child", INTERFACE, "state", "mode", "spi in", "spi out", "packets in/out"),
            *("bytes in/out", "mtu", "requested", "placement", "why not better", "rekey in", "proposal"),
            "selectors",
        ),
        (
            (
                *(sa.child_sa_id, f"{sa.connection}/{sa.child}"),
                interfaces.get((sa.connection, sa.child), f"#{sa.interface_id}") if sa.interface_id else "-",
                *(sa.state, _mode(sa)),
                *(sa.inbound.spi or "-", sa.outbound.spi or "-"),
                f"{sa.inbound.packets}/{sa.outbound.packets}",
                f"{sa.inbound.bytes}/{sa.outbound.bytes}",
                *(sa.effective_mtu or "-", _requested(sa), _placements(sa)),
                _whys(dict.fromkeys(read_refusals((*sa.inbound.refusals, *sa.outbound.refusals)))),
                *(_until(sa, "rekey_time", now), sa.proposal),
                f"{','.join(sa.local_ts)} === {','.join(sa.remote_ts)}",
            )
            for sa in items
        ),
        empty="no Child SAs",
    )


def _mode(sa: pb.ChildSa) -> str:
    """Return the mode, and what else there is than ESP on IP."""
    if sa.protocol == tpb.IPSEC_PROTOCOL_AH:
        return f"{_word(sa, 'mode')} AH"
    return _word(sa, "mode") + (" in UDP" if sa.udp_encapsulation else "")


def _placements(sa: pb.ChildSa) -> str:
    """Return where both directions are: once, if they are at one place."""
    words = dict.fromkeys(
        _word(half, "placement") for half in (sa.inbound, sa.outbound) if half.spi or half.placement
    )
    return "/".join(words) or "-"


def _requested(sa: pb.ChildSa) -> str:
    """Return the engine that was wanted most, of either direction: the wish is the Child's."""
    half = sa.inbound if sa.HasField("inbound") else sa.outbound
    return _wish(read_placement(half.requested, "", Violations()))


def _wish(placement: Placement) -> str:
    """Return what was asked for, in a word or two."""
    if placement.require is not None:
        return f"{placement.require.value} only"
    return next((engine.value for engine in placement.wanted), "nothing")


def _whys(refusals: Iterable[PlacementRefusal]) -> str:
    """Return the codes of why not on better engines: `ipsecgw explain` has the sentences."""
    codes: dict[str, list[str]] = {}
    for refusal in refusals:
        codes.setdefault(refusal.reason.value, []).append(refusal.engine.value)
    return " ".join(f"{'/'.join(engines)}:{code}" for code, engines in codes.items()) or "-"


def sas(items: Iterable[InstalledSa], counted: Mapping[SaId, SaCounters]) -> list[str]:
    """Return one line per SA at the datapath, with its counters by SA id."""
    return table(
        (
            *("sa", "connection/child", "mode", "algorithm", "packets", "bytes", "sequence", "idle"),
            *("mtu", "requested", "placement", "why not better", "drops"),
        ),
        (
            (
                *(item.sa.sa_id, f"{item.sa.connection}/{item.sa.child}", item.sa.mode.value),
                _algorithm(item),
                *_counted(counted.get(item.sa.sa_id)),
                *(item.effective_mtu or "-", _wish(item.sa.placement), item.placement.value),
                _whys(item.refusals),
                _drops(counted[item.sa.sa_id].drops if item.sa.sa_id in counted else {}, none="-"),
            )
            for item in items
        ),
        empty="no SAs",
    )


def _algorithm(item: InstalledSa) -> str:
    names = [f"{item.sa.encryption.name.lower()} {item.sa.key_bits}"]
    if item.sa.integrity is not None:
        names.append(item.sa.integrity.name.lower())
    return " ".join(names)


def _counted(counters: SaCounters | None) -> tuple[object, ...]:
    if counters is None:
        return ("-",) * 4
    idle = counters.last_used_s_ago
    return (
        *(counters.packets, counters.bytes, counters.sequence),
        "-" if idle is None else duration(idle),
    )


def _drops(drops: Mapping[DropReason, int], *, none: str = "none") -> str:
    return ", ".join(f"{reason.value} {packets}" for reason, packets in drops.items() if packets) or none


def policies(items: Iterable[Policy]) -> list[str]:
    """Return one line per SPD entry."""
    return table(
        ("priority", "name", "action", "mode", "outer addresses", "selectors"),
        (
            (
                *(policy.priority, policy.name, policy.action.value),
                policy.mode.value if policy.action is Action.PROTECT else "-",
                f"{policy.local_address or 'any'} - {policy.remote_address or 'any'}"
                if policy.action is Action.PROTECT
                else "-",
                f"{','.join(map(str, policy.local_ts))} === {','.join(map(str, policy.remote_ts))}",
            )
            for policy in items
        ),
        empty="no policies",
    )


def status(message: pb.GetStatusResponse, entries: Sequence[pb.ConnectionEntry], now: float) -> list[str]:
    """Return the gateway at a glance, with its connections; `now` is Unix time."""
    datapath = message.datapath_problem or f"{message.datapath.name} at {message.datapath_address}"
    up_for = duration(now - message.start_time.seconds)
    lines = [
        f"ipsecgw {message.version}, up for {up_for}, since {_to_the_second(message.start_time)}",
        f"datapath   {datapath}",
        f"desired    {message.desired_state}",
        f"IKE SAs    {message.ike_sas} ({message.half_open_ike_sas} half-open)",
        f"Child SAs  {message.child_sas}",
        f"IKE drops  {_drop_counts(message.ike_drops)}",
        f"ESP drops  {'not known' if message.datapath_problem else _drop_counts(message.datapath_drops)}",
        *(f"warning    {warning}" for warning in message.warnings),
        "",
    ]
    return lines + connections(entries)


def _drop_counts(counts: Iterable[spb.DropCount]) -> str:
    return ", ".join(f"{_word(drop, 'reason')} {drop.packets}" for drop in counts) or "none"


def _to_the_second(time: Timestamp) -> str:
    return Timestamp(seconds=time.seconds).ToJsonString()


def failure_lines(failure: pb.Failure) -> list[str]:
    """Return a failure with what both sides wanted, as far as it is known."""
    lines = [f"{failure.reason}: {failure.detail}"]
    for name, value in (
        ("notify", failure.notify),
        ("offered", failure.offered),
        ("configured", failure.configured),
    ):
        if value:
            lines.append(f"{name}: {value}")
    return lines


def event(message: pb.Event) -> str:
    """Return one event as one line."""
    kind = message.WhichOneof("event") or "event"
    body = to_plain(getattr(message, kind), defaults=False) if kind != "event" else {}
    if len(body) == 1 and isinstance(inner := next(iter(body.values())), dict):
        body = inner  # `ike_sa.` before every word of an event about one IKE SA tells nothing.
    return f"{message.time.ToJsonString()} {message.sequence} {kind} " + " ".join(_flat("", body))


def _flat(prefix: str, value: object) -> Iterable[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else str(key), inner)
    elif isinstance(value, list):
        yield f"{prefix}={','.join(str(item) for item in value)}"
    else:
        text = str(value)
        yield f"{prefix}={text}" if " " not in text else f'{prefix}="{text}"'


def facts(items: Iterable[pb.Fact]) -> list[str]:
    """Return facts, each with its advice below."""
    lines = []
    for fact in items:
        lines.append(f"{fact.topic:<10} {fact.text}")
        if fact.advice:
            lines.append(f"{'':<10} -> {fact.advice}")
    return lines
