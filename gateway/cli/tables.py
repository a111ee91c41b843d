"""Messages and records as lines for a terminal."""

from collections.abc import Iterable, Sequence

from google.protobuf.message import Message

from gateway.api.control.v1 import control_pb2 as pb
from gateway.api.datapath.v1 import datapath_pb2 as dpb
from gateway.api.plain import to_plain
from gateway.datapath.backend import InstalledSa
from gateway.ipsec.policy import Policy


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> list[str]:
    """Return left-aligned columns below their heads, or the one line `empty`."""
    texts = [[str(cell) for cell in row] for row in rows]
    if not texts:
        return [empty]
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


def connections(entries: Iterable[pb.ConnectionEntry]) -> list[str]:
    """Return one line per connection."""
    return table(
        ("name", "state", "remote", "children", "last failure"),
        (
            (
                entry.connection.name,
                _word(entry.status, "state"),
                entry.connection.remote.address or ",".join(entry.connection.remote.addresses) or "any",
                ",".join(child.name for child in entry.connection.children),
                entry.status.last_failure.reason or "-",
            )
            for entry in entries
        ),
        empty="no connections",
    )


def ike_sas(items: Iterable[pb.IkeSa]) -> list[str]:
    """Return one line per IKE SA."""
    return table(
        ("id", "connection", "state", "role", "local", "remote", "remote id", "spi_i", "spi_r", "proposal"),
        (
            (
                *(
                    sa.ike_sa_id,
                    sa.connection or "-",
                    sa.state,
                    "initiator" if sa.is_initiator else "responder",
                ),
                *(_endpoint(sa.local), _endpoint(sa.remote), sa.remote_id or "-"),
                *(sa.spi_i, sa.spi_r, sa.proposal or "-"),
            )
            for sa in items
        ),
        empty="no IKE SAs",
    )


def child_sas(items: Iterable[pb.ChildSa]) -> list[str]:
    """Return one line per Child SA."""
    return table(
        (
            *("id", "connection/child", "state", "in", "out", "packets in", "packets out"),
            *("placement", "proposal", "selectors"),
        ),
        (
            (
                *(sa.child_sa_id, f"{sa.connection}/{sa.child}", sa.state),
                *(sa.inbound.spi or "-", sa.outbound.spi or "-", sa.inbound.packets, sa.outbound.packets),
                *(_word(sa.outbound, "placement"), sa.proposal),
                f"{','.join(sa.local_ts)} === {','.join(sa.remote_ts)}",
            )
            for sa in items
        ),
        empty="no Child SAs",
    )


def sas(items: Iterable[InstalledSa]) -> list[str]:
    """Return one line per SA at the datapath."""
    return table(
        ("sa", "connection/child", "mode", "encryption", "placement", "generation"),
        (
            (
                *(item.sa.sa_id, f"{item.sa.connection}/{item.sa.child}", item.sa.mode.value),
                f"{item.sa.encryption.name.lower()} {item.sa.key_bits}",
                *(item.placement.value, item.generation),
            )
            for item in items
        ),
        empty="no SAs",
    )


def policies(items: Iterable[Policy]) -> list[str]:
    """Return one line per SPD entry."""
    return table(
        ("priority", "name", "action", "mode", "selectors"),
        (
            (
                *(policy.priority, policy.name, policy.action.value, policy.mode.value),
                f"{','.join(map(str, policy.local_ts))} === {','.join(map(str, policy.remote_ts))}",
            )
            for policy in items
        ),
        empty="no policies",
    )


def status(message: pb.GetStatusResponse, entries: Sequence[pb.ConnectionEntry]) -> list[str]:
    """Return the gateway at a glance, with its connections."""
    datapath = message.datapath_problem or f"{message.datapath.name} at {message.datapath_address}"
    drops = ", ".join(f"{drop.reason} {drop.packets}" for drop in message.ike_drops) or "none"
    lines = [
        f"ipsecgw {message.version}, up since {message.start_time.ToJsonString()}",
        f"datapath   {datapath}",
        f"IKE SAs    {message.ike_sas} ({message.half_open_ike_sas} half-open)",
        f"Child SAs  {message.child_sas}",
        f"IKE drops  {drops}",
        *(f"warning    {warning}" for warning in message.warnings),
        "",
    ]
    return lines + connections(entries)


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
