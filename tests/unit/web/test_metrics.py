"""The page of metrics, parsed as Prometheus parses it."""

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from gateway.controller.facade import (
    ChildSaStatus,
    ClockReading,
    ConnectionState,
    ConnectionStatus,
    GatewayStatus,
    SaPlacement,
)
from gateway.controller.tally import Tally
from gateway.datapath.backend import SaCounters
from gateway.ike.events import Failure, FailureReason, IkeSaEstablished, IkeSaFailed
from gateway.ipsec.connection import Child
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.placement import Engine, PlacementReason, PlacementRefusal
from gateway.ipsec.policy import Action
from gateway.ipsec.sa import SaId
from gateway.web.metrics import FAMILIES, Reading, families
from tests.fakes.pair import alice_connection
from tests.fakes.records import make_child_sa, make_ike_sa

NO_PROPOSAL = Failure(reason=FailureReason.NO_PROPOSAL_CHOSEN, detail="nothing in common")
CHILDREN = (Child(name="lan"), Child(name="way-out", action=Action.BYPASS))


class Page(Collector):
    def __init__(self, reading: Reading) -> None:
        self.collect = lambda: families(reading)


def scrape(reading: Reading) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return every sample by name and labels."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Page(reading))
    text = generate_latest(registry).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def reading(
    *,
    states: dict[str, ConnectionState] | None = None,
    child_sas: tuple[ChildSaStatus, ...] = (),
    tally: Tally | None = None,
) -> Reading:
    return Reading(
        clock=ClockReading(monotonic=1000.0, wall=1_700_000_000.0),
        status=GatewayStatus(
            version="1.2",
            started_at=1_699_999_000.0,
            datapath_address="",
            datapath=None,
            ike_sas=2,
            half_open_ike_sas=1,
            ike_drops={DropReason.IKE_COOKIE: 5},
            datapath_drops={DropReason.REPLAY: 7},
        ),
        connections=tuple(
            ConnectionStatus(
                connection=alice_connection(name=name, children=CHILDREN),
                psk_is_set=True,
                state=state,
                last_failure=NO_PROPOSAL if state is ConnectionState.FAILED else None,
                last_failure_at=940.0 if state is ConnectionState.FAILED else None,
            )
            for name, state in (states or {}).items()
        ),
        child_sas=child_sas,
        tally=tally or Tally(),
    )


def labels(**given: str) -> frozenset[tuple[str, str]]:
    return frozenset(given.items())


def test_a_connection_that_is_configured_and_down_is_a_visible_0() -> None:
    page = scrape(reading(states={"paris": ConnectionState.DOWN}))

    assert page["gw_connection_up", labels(connection="paris")] == 0
    assert page["gw_child_up", labels(connection="paris", child="lan")] == 0
    for direction in ("inbound", "outbound"):
        at = labels(connection="paris", child="lan", direction=direction)
        assert page["gw_child_packets_total", at] == 0
        assert page["gw_child_bytes_total", at] == 0
    at = labels(connection="paris", role="initiator", result="established")
    assert page["gw_ike_handshakes_total", at] == 0


def test_only_protected_children_are_tunnels_that_can_be_down() -> None:
    page = scrape(reading(states={"paris": ConnectionState.DOWN}))

    assert not [key for key in page if ("child", "way-out") in key[1]]


def test_a_connection_that_is_up_says_so_and_where_its_sas_are() -> None:
    child_sa = make_child_sa(1)
    refusal = PlacementRefusal(
        engine=Engine.NIC_PACKET, reason=PlacementReason.ESN, text="eth0 does no ESN in packet offload"
    )
    half = SaPlacement(sa_id=SaId("in:esp:192.0.2.1:00001001"), engine=Engine.NIC_CRYPTO, refusals=(refusal,))
    tally = Tally()
    tally.on_event(IkeSaEstablished(ike_sa=make_ike_sa(1, began_at=99.0, established_at=99.2)))
    assert child_sa.inbound is not None
    counted = SaCounters(sa_id=child_sa.inbound.sa_id, packets=3, bytes=300, sequence=3)
    tally.on_counters([child_sa.inbound], {child_sa.inbound.sa_id: counted})

    page = scrape(
        reading(
            states={"paris": ConnectionState.UP},
            child_sas=(ChildSaStatus(info=child_sa, inbound=half, effective_mtu=1438),),
            tally=tally,
        )
    )

    assert page["gw_connection_up", labels(connection="paris")] == 1
    assert page["gw_child_up", labels(connection="paris", child="lan")] == 1
    assert page["gw_child_mtu_bytes", labels(connection="paris", child="lan")] == 1438
    placed = labels(connection="paris", child="lan", direction="inbound", placement="nic_crypto")
    assert page["gw_child_sas", placed] == 1
    child = {"connection": "paris", "child": "lan", "direction": "inbound", "placement": "nic_crypto"}
    assert page["gw_child_sa_placements", labels(**child, requested="nic_crypto", reason="")] == 1
    assert page["gw_child_sa_placements", labels(**child, requested="nic_packet", reason="ESN")] == 1
    assert not any(refusal.text in str(name) for name in page)
    assert page["gw_child_packets_total", labels(connection="paris", child="lan", direction="inbound")] == 3
    assert page["gw_ike_handshake_seconds_bucket", labels(role="initiator", le="0.1")] == 0
    assert page["gw_ike_handshake_seconds_bucket", labels(role="initiator", le="0.25")] == 1
    assert page["gw_ike_handshake_seconds_count", labels(role="initiator")] == 1
    assert page["gw_ike_handshake_seconds_sum", labels(role="initiator")] == pytest.approx(0.2)


def test_the_last_failure_is_told_with_its_reason_and_wall_clock_time() -> None:
    tally = Tally()
    tally.on_event(IkeSaFailed(ike_sa=make_ike_sa(1), failure=NO_PROPOSAL))

    page = scrape(reading(states={"paris": ConnectionState.FAILED}, tally=tally))

    at = labels(connection="paris", reason="no_proposal_chosen")
    assert page["gw_connection_last_failure_time_seconds", at] == 1_700_000_000.0 - 60.0
    at = labels(connection="paris", role="initiator", result="no_proposal_chosen")
    assert page["gw_ike_handshakes_total", at] == 1


def test_every_drop_reason_is_there_once_in_its_layer() -> None:
    page = scrape(reading())

    shown = [dict(key[1]) for key in page if key[0] == "gw_drops_total"]
    assert sorted(item["reason"] for item in shown) == sorted(reason.value for reason in DropReason)
    assert page["gw_drops_total", labels(layer="ike", reason="ike_cookie")] == 5
    assert page["gw_drops_total", labels(layer="datapath", reason="replay")] == 7
    assert page["gw_drops_total", labels(layer="datapath", reason="integrity")] == 0


def test_names_are_unique_and_carry_a_help_text() -> None:
    made = [make(reading()) for make in FAMILIES]

    assert len({family.name for family in made}) == len(made)
    assert all(family.name.startswith("gw_") for family in made)
    assert all(family.documentation.endswith(".") for family in made)
