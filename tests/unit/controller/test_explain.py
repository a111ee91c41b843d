"""What a person is told about a connection."""

from dataclasses import replace
from ipaddress import IPv4Address

from gateway.controller.explain import explain_connection
from gateway.controller.facade import ConnectionState, ConnectionStatus, Fact
from gateway.ike.events import Failure, FailureReason
from gateway.ipsec.connection import Child, Connection, Side

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


def explained(status: ConnectionStatus) -> tuple[Fact, ...]:
    return explain_connection(
        status=status,
        ike_sas=(),
        child_sas=(),
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


def test_what_is_down_says_how_to_bring_it_up_and_nothing_of_its_children() -> None:
    (fact,) = explained(replace(STATUS, state=ConnectionState.DOWN, last_failure=None, last_failure_at=None))

    assert fact == Fact(topic="state", text="paris is down", advice="`ipsecgw up paris`")
