"""The gateway in numbers, as Prometheus and OpenMetrics name them.

Made from the desired state: a connection that is configured and down is a visible 0, one that is deleted is
gone. Labels take names from the configuration and from enumerations only (`gateway.controller.tally`).
`FAMILIES` lists everything that is exposed; docs/metrics.md is generated from it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)

from gateway.controller.facade import (
    ChildSaStatus,
    ClockReading,
    ConnectionState,
    ConnectionStatus,
    ControlFacade,
    GatewayStatus,
)
from gateway.controller.tally import ESTABLISHED, Carried, Tally
from gateway.controller.uniqueness import is_carrying
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.policy import Action
from gateway.ipsec.sa import Direction

ROLES: Final = ("initiator", "responder")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Everything one page of metrics is made of, of one moment."""

    clock: ClockReading
    status: GatewayStatus
    connections: tuple[ConnectionStatus, ...]
    child_sas: tuple[ChildSaStatus, ...]
    tally: Tally


async def read(controller: ControlFacade) -> Reading:
    """Read a controller, in its event loop."""
    child_sas = await controller.child_sas()
    return Reading(
        clock=controller.clock(),
        status=await controller.status(),
        connections=controller.connections(),
        child_sas=child_sas,
        tally=controller.tally(),
    )


def families(reading: Reading) -> Iterator[Metric]:
    """Yield everything that is exposed."""
    for make in FAMILIES:
        yield make(reading)


# --- the gateway ----------------------------------------------------------------------------------


def _build(reading: Reading) -> Metric:
    return InfoMetricFamily("gw_build", "The version that runs.", value={"version": reading.status.version})


def _start_time(reading: Reading) -> Metric:
    return GaugeMetricFamily(
        "gw_start_time_seconds",
        "When the controller was started, Unix time.",
        value=reading.status.started_at,
    )


def _datapath_up(reading: Reading) -> Metric:
    return GaugeMetricFamily(
        "gw_datapath_up",
        "Whether the datapath answers the controller.",
        value=int(reading.status.datapath is not None),
    )


def _ike_sas(reading: Reading) -> Metric:
    return GaugeMetricFamily("gw_ike_sas", "IKE SAs that serve.", value=reading.status.ike_sas)


def _half_open(reading: Reading) -> Metric:
    return GaugeMetricFamily(
        "gw_ike_sas_half_open",
        "IKE SAs that others began and that are not authenticated yet.",
        value=reading.status.half_open_ike_sas,
    )


def _drops(reading: Reading) -> Metric:
    family = CounterMetricFamily(
        "gw_drops",
        "What was dropped: datagrams by the controller (layer ike), packets by the datapath.",
        labels=("layer", "reason"),
    )
    for layer, drops in (("ike", reading.status.ike_drops), ("datapath", reading.status.datapath_drops)):
        for reason in DropReason:
            if reason in drops or reason.value.startswith("ike_") == (layer == "ike"):
                family.add_metric((layer, reason.value), drops.get(reason, 0))
    return family


# --- connections ------------------------------------------------------------------------------------


def _connection_up(reading: Reading) -> Metric:
    family = GaugeMetricFamily(
        "gw_connection_up", "Whether there is an authenticated IKE SA.", labels=("connection",)
    )
    for entry in reading.connections:
        family.add_metric((entry.connection.name,), int(entry.state is ConnectionState.UP))
    return family


def _last_failure(reading: Reading) -> Metric:
    family = GaugeMetricFamily(
        "gw_connection_last_failure_time_seconds",
        "When the connection last failed, Unix time, and why.",
        labels=("connection", "reason"),
    )
    for entry in reading.connections:
        if entry.last_failure is not None and entry.last_failure_at is not None:
            at = reading.clock.wall - (reading.clock.monotonic - entry.last_failure_at)
            family.add_metric((entry.connection.name, entry.last_failure.reason.value), at)
    return family


def _handshakes(reading: Reading) -> Metric:
    family = CounterMetricFamily(
        "gw_ike_handshakes",
        "Ended attempts to set up an IKE SA: established, or why not; those of strangers without a name.",
        labels=("connection", "role", "result"),
    )
    counted = Counter(
        {(entry.connection.name, role, ESTABLISHED): 0 for entry in reading.connections for role in ROLES}
    )
    counted.update(reading.tally.handshakes)
    for key, count in counted.items():
        family.add_metric(key, count)
    return family


def _handshake_time(reading: Reading) -> Metric:
    family = HistogramMetricFamily(
        "gw_ike_handshake_seconds",
        "Time from the first IKE_SA_INIT message to both sides authenticated.",
        labels=("role",),
    )
    for role, latency in sorted(reading.tally.latency.items()):
        buckets = [("+Inf" if bound == float("inf") else str(bound), n) for bound, n in latency.cumulative()]
        family.add_metric((role,), buckets, latency.sum_s)
    return family


def _ike_sa_ends(reading: Reading) -> Metric:
    return _counted(
        CounterMetricFamily(
            "gw_ike_sa_ends", "Established IKE SAs that ended, by reason.", labels=("connection", "reason")
        ),
        reading.tally.ike_sa_ends.items(),
    )


def _ike_sa_rekeys(reading: Reading) -> Metric:
    return _counted(
        CounterMetricFamily("gw_ike_sa_rekeys", "Rekeys of IKE SAs.", labels=("connection",)),
        reading.tally.ike_sa_rekeys.items(),
    )


# --- children ---------------------------------------------------------------------------------------


def _child_up(reading: Reading) -> Metric:
    family = GaugeMetricFamily(
        "gw_child_up", "Whether a Child SA carries the traffic of this child.", labels=("connection", "child")
    )
    carrying = {
        (item.info.connection, item.info.child) for item in reading.child_sas if is_carrying(item.info)
    }
    for key in _children(reading.connections):
        family.add_metric(key, int(key in carrying))
    return family


def _child_sas(reading: Reading) -> Metric:
    family = GaugeMetricFamily(
        "gw_child_sas",
        "SAs of this child at the datapath, by direction and by the engine they were placed on.",
        labels=("connection", "child", "direction", "placement"),
    )
    placed = Counter(
        (item.info.connection, item.info.child, direction.value, half.engine.value)
        for item in reading.child_sas
        for direction, half in ((Direction.INBOUND, item.inbound), (Direction.OUTBOUND, item.outbound))
        if half is not None
    )
    for key, count in sorted(placed.items()):
        family.add_metric(key, count)
    return family


def _child_placements(reading: Reading) -> Metric:
    family = GaugeMetricFamily(
        "gw_child_sa_placements",
        "SAs of this child by the engine that was asked for, the one they are on, and the reason code of the "
        "difference: one for the engine they are on, without a reason, and one for each better one refused.",
        labels=("connection", "child", "direction", "requested", "placement", "reason"),
    )
    placed: Counter[tuple[str, ...]] = Counter()
    for item in reading.child_sas:
        for direction, half in ((Direction.INBOUND, item.inbound), (Direction.OUTBOUND, item.outbound)):
            if half is None:
                continue
            where = item.info.connection, item.info.child, direction.value
            asked = [
                (half.engine, ""),
                *((refused.engine, refused.reason.value) for refused in half.refusals),
            ]
            placed.update((*where, engine.value, half.engine.value, reason) for engine, reason in asked)
    for key, count in sorted(placed.items()):
        family.add_metric(key, count)
    return family


def _child_mtu(reading: Reading) -> Metric:
    family = GaugeMetricFamily(
        "gw_child_mtu_bytes",
        "Largest inner packet that fits without fragmentation.",
        labels=("connection", "child"),
    )
    for item in reading.child_sas:
        if item.effective_mtu is not None and is_carrying(item.info):
            family.add_metric((item.info.connection, item.info.child), item.effective_mtu)
    return family


def _packets(reading: Reading) -> Metric:
    return _carried(reading, "gw_child_packets", "Packets that the SAs of this child carried.", _packets_of)


def _bytes(reading: Reading) -> Metric:
    return _carried(
        reading, "gw_child_bytes", "Inner bytes of the packets that the SAs of this child carried.", _bytes_of
    )


def _child_sa_rekeys(reading: Reading) -> Metric:
    return _counted(
        CounterMetricFamily("gw_child_sa_rekeys", "Rekeys of Child SAs.", labels=("connection", "child")),
        reading.tally.child_sa_rekeys.items(),
    )


def _child_sa_failures(reading: Reading) -> Metric:
    return _counted(
        CounterMetricFamily(
            "gw_child_sa_failures",
            "Child SAs that did not come up, and rekeys that failed, by reason.",
            labels=("connection", "child", "reason"),
        ),
        reading.tally.child_sa_failures.items(),
    )


# --- pieces -----------------------------------------------------------------------------------------


def _children(connections: Sequence[ConnectionStatus]) -> Iterator[tuple[str, str]]:
    for entry in connections:
        for child in entry.connection.children:
            if child.action is Action.PROTECT:
                yield entry.connection.name, child.name


def _packets_of(carried: Carried) -> int:
    return carried.packets


def _bytes_of(carried: Carried) -> int:
    return carried.bytes


def _carried(reading: Reading, name: str, text: str, number: Callable[[Carried], int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=("connection", "child", "direction"))
    for connection, child in _children(reading.connections):
        for direction in Direction:
            carried = reading.tally.carried.get((connection, child, direction), Carried())
            family.add_metric((connection, child, direction.value), number(carried))
    return family


def _counted(family: CounterMetricFamily, counts: Iterable[tuple[tuple[str, ...], int]]) -> Metric:
    for key, count in sorted(counts):
        family.add_metric(key, count)
    return family


FAMILIES: Final[tuple[Callable[[Reading], Metric], ...]] = (
    _build,
    _start_time,
    _datapath_up,
    _ike_sas,
    _half_open,
    _drops,
    _connection_up,
    _last_failure,
    _handshakes,
    _handshake_time,
    _ike_sa_ends,
    _ike_sa_rekeys,
    _child_up,
    _child_sas,
    _child_placements,
    _child_mtu,
    _packets,
    _bytes,
    _child_sa_rekeys,
    _child_sa_failures,
)
