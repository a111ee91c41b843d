"""What a person is told about a connection."""

from dataclasses import replace
from ipaddress import IPv4Address

from gateway.controller.explain import PLACEMENT_ADVICE, explain_connection
from gateway.controller.facade import ChildSaStatus, ConnectionState, ConnectionStatus, Fact, SaPlacement
from gateway.ike.events import Failure, FailureReason
from gateway.ipsec.connection import Child, Connection, Side
from gateway.ipsec.interface import TunnelInterface
from gateway.ipsec.placement import Engine, PlacementReason, PlacementRefusal
from gateway.ipsec.sa import SaId
from tests.fakes.records import make_child_sa

STATUS = ConnectionStatus(
    connection=Connection(
        name="paris",
        local=Side(),
        remote=Side(addresses=(IPv4Address("192.0.2.2"),)),
        children=(Child(name="lan"),),
    ),
    psk_is_set=True,
    state=ConnectionState.UP,
    last_failure=Failure(
        reason=FailureReason.NO_PROPOSAL_CHOSEN,
        detail="the peer refused Child SA 'lan'",
        offered="aes256gcm16",
        configured="aes128-sha256",
    ),
    last_failure_at=90.0,
)


def explained(status: ConnectionStatus, *child_sas: ChildSaStatus) -> tuple[Fact, ...]:
    return explain_connection(
        status=status,
        ike_sas=(),
        child_sas=child_sas,
        datapath_problem="",
        policy_problems={},
        next_attempt_in_s=None,
        now=100.0,
    )


def test_an_ike_sa_that_is_up_without_its_child_sa_is_told_with_both_sides_wishes_and_advice() -> None:
    facts = explained(STATUS)

    assert facts == (
        Fact(topic="state", text="paris is up"),
        Fact(
            topic="failure",
            text="10 s ago: no_proposal_chosen: the peer refused Child SA 'lan'",
            advice="give both sides one proposal in common",
        ),
        Fact(topic="offered", text="aes256gcm16"),
        Fact(topic="configured", text="aes128-sha256"),
        Fact(topic="child", text="lan has no Child SA", advice="`ipsecgw up paris/lan`"),
    )


def test_child_of_an_interface_says_that_routes_decide_and_how_to_see_them() -> None:
    interface = TunnelInterface(name="ipsec0", id=42)
    connection = replace(STATUS.connection, children=(Child(name="all", interface=interface),))

    facts = explained(replace(STATUS, connection=connection))

    assert facts[-1] == Fact(
        topic="interface",
        text="all carries what routes lead into ipsec0 (if_id 42)",
        advice="`ip route show dev ipsec0` shows them",
    )


def test_what_is_down_says_how_to_bring_it_up_and_nothing_of_its_children() -> None:
    (fact,) = explained(replace(STATUS, state=ConnectionState.DOWN, last_failure=None, last_failure_at=None))

    assert fact == Fact(topic="state", text="paris is down", advice="`ipsecgw up paris`")


def _refused(engine: Engine, reason: PlacementReason, text: str) -> PlacementRefusal:
    return PlacementRefusal(engine=engine, reason=reason, text=text)


NO_BACKEND = PlacementReason.NO_BACKEND
NO_ESP = (
    _refused(Engine.NIC_PACKET, NO_BACKEND, "xfrm cannot run here"),
    _refused(Engine.NIC_CRYPTO, NO_BACKEND, "xfrm cannot run here"),
    _refused(Engine.ENGINE, NO_BACKEND, "espd is not installed"),
)


def test_what_was_asked_what_became_of_it_and_every_reason_are_told_with_advice() -> None:
    where = SaPlacement(sa_id=SaId("x"), engine=Engine.KERNEL, refusals=NO_ESP)

    facts = explained(STATUS, ChildSaStatus(info=make_child_sa(1), inbound=where, outbound=where))

    assert [fact for fact in facts if fact.topic == "placement"] == [
        Fact(
            topic="placement",
            text="lan in and out are on kernel; it prefers nic_packet, nic_crypto, engine, kernel, software",
        ),
        Fact(
            topic="placement",
            text="lan in and out not on nic_packet, nic_crypto: NO_BACKEND: xfrm cannot run here",
            advice=PLACEMENT_ADVICE[NO_BACKEND],
        ),
        Fact(
            topic="placement",
            text="lan in and out not on engine: NO_BACKEND: espd is not installed",
            advice=PLACEMENT_ADVICE[NO_BACKEND],
        ),
    ]


def test_directions_that_fared_differently_are_told_apart() -> None:
    window = (_refused(Engine.NIC_PACKET, PlacementReason.REPLAY_WINDOW, "not 1024"),)
    inbound = SaPlacement(sa_id=SaId("x"), engine=Engine.NIC_CRYPTO, refusals=window)
    outbound = SaPlacement(sa_id=SaId("y"), engine=Engine.NIC_PACKET)

    facts = explained(STATUS, ChildSaStatus(info=make_child_sa(1), inbound=inbound, outbound=outbound))

    texts = [fact.text.partition(";")[0] for fact in facts if fact.topic == "placement"]
    assert texts == [
        "lan in is on nic_crypto",
        "lan in not on nic_packet: REPLAY_WINDOW: not 1024",
        "lan out is on nic_packet",
    ]


def test_every_reason_has_advice() -> None:
    assert set(PLACEMENT_ADVICE) == set(PlacementReason)


def test_a_child_without_sas_for_its_cpus_is_told_with_the_reason() -> None:
    child = Child(name="lan", per_cpu_sas=None)
    status = replace(STATUS, last_failure=None, connection=replace(STATUS.connection, children=(child,)))
    one = ChildSaStatus(info=make_child_sa(1, child="lan"))
    beside = ChildSaStatus(info=replace(make_child_sa(2, child="lan"), cpu=3))

    def told(cpus: int, *child_sas: ChildSaStatus) -> list[str]:
        facts = explain_connection(
            status=status,
            ike_sas=(),
            child_sas=child_sas,
            datapath_problem="",
            policy_problems={},
            next_attempt_in_s=None,
            cpus=cpus,
            now=100.0,
        )
        return [fact.text for fact in facts if fact.topic == "cpus"]

    assert told(0, one) == ["lan has one SA for all CPUs: the datapath cannot give each CPU one"]
    assert told(4, one) == ["lan has one SA for all CPUs: the peer did not agree to more (RFC 9611)"]
    assert told(4, one, beside) == []
    assert any("lan for CPU 3 is " in fact.text for fact in explained(status, one, beside))
