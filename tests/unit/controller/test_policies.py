from dataclasses import replace
from ipaddress import IPv4Address

from gateway.controller.policies import child_policy, wanted_policies
from gateway.ipsec.connection import Child, Connection, Side, Start
from gateway.ipsec.policy import Action
from gateway.ipsec.sa import IpAddress
from gateway.ipsec.selectors import TrafficSelector
from tests.fakes.records import HERE, LOCAL_TS, REMOTE_TS, THERE

CHILD = Child(name="lan", local_ts=LOCAL_TS, remote_ts=REMOTE_TS, start=Start.ON_TRAFFIC)
CONNECTION = Connection(
    name="paris", local=Side(addresses=(HERE,)), remote=Side(addresses=(THERE,)), children=(CHILD,)
)


def nowhere(remote: IpAddress) -> IpAddress | None:
    return None


def test_a_policy_takes_its_selectors_and_addresses_from_the_configuration() -> None:
    policy = child_policy(CONNECTION, CHILD, nowhere)

    assert policy is not None
    assert (policy.name, policy.connection, policy.child) == ("paris/lan", "paris", "lan")
    assert (policy.local_ts, policy.remote_ts) == (LOCAL_TS, REMOTE_TS)
    assert (policy.local_address, policy.remote_address) == (HERE, THERE)
    assert policy.acquire


def test_only_what_starts_on_traffic_and_has_a_peer_to_call_asks_for_sas() -> None:
    respond_only = replace(CONNECTION, remote=Side())

    for connection, child in (
        (CONNECTION, replace(CHILD, start=Start.START)),
        (CONNECTION, replace(CHILD, start=Start.NONE)),
        (respond_only, CHILD),
    ):
        policy = child_policy(connection, child, nowhere)
        assert policy is not None
        assert not policy.acquire


def test_empty_selectors_mean_the_two_gateways_themselves() -> None:
    policy = child_policy(CONNECTION, Child(name="self"), nowhere)

    assert policy is not None
    assert policy.local_ts == (TrafficSelector(HERE, HERE),)
    assert policy.remote_ts == (TrafficSelector(THERE, THERE),)


def test_an_address_left_to_the_kernel_is_asked_of_it() -> None:
    connection = replace(CONNECTION, local=Side())
    chosen = IPv4Address("198.51.100.7")

    policy = child_policy(connection, Child(name="self"), lambda remote: chosen)

    assert policy is not None
    assert policy.local_ts == (TrafficSelector(chosen, chosen),)
    assert child_policy(connection, Child(name="self"), nowhere) is None


def test_every_child_of_every_connection_has_its_policy_and_bypass_ones_too() -> None:
    bypass = Child(name="ssh", local_ts=LOCAL_TS, remote_ts=LOCAL_TS, action=Action.BYPASS)
    connection = replace(CONNECTION, children=(CHILD, bypass))

    wanted = wanted_policies([connection], nowhere)

    assert {name: policy.action for name, policy in wanted.items()} == {
        "paris/lan": Action.PROTECT,
        "paris/ssh": Action.BYPASS,
    }
