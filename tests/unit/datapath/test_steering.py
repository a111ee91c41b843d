"""From an SPD to policy rules and routes."""

from ipaddress import ip_address, ip_network

import pytest

from gateway.datapath.backend import DatapathError, ErrorReason
from gateway.datapath.steering import (
    UNREACHABLE_METRIC,
    SteeringOptions,
    frame_rules,
    policy_routes,
    policy_rules,
)
from gateway.host.network import Rule, RuleAction
from gateway.ipsec.policy import Action, Policy
from gateway.ipsec.selectors import TrafficSelector

OPTIONS = SteeringOptions(table=45, first_preference=1000, marks=(7, 8), tunnel_device="tun7")
LOCAL, REMOTE = ip_network("10.1.0.0/16"), ip_network("10.2.0.0/16")


def policy(
    local: str = "10.1.0.0/16", remote: str = "10.2.0.0/16", action: Action = Action.PROTECT, name: str = "p"
) -> Policy:
    return Policy(
        name=name,
        action=action,
        local_ts=(TrafficSelector.parse(local),),
        remote_ts=(TrafficSelector.parse(remote),),
    )


def rules(*policies: Policy, addresses: tuple[str, ...] = ()) -> tuple[Rule, ...]:
    return policy_rules(policies, OPTIONS, map(ip_address, addresses))


def test_protected_pair_is_led_into_the_table() -> None:
    assert rules(policy()) == (
        Rule(
            version=4,
            priority=1001,
            action=RuleAction.TABLE,
            table=45,
            source=LOCAL,
            destination=REMOTE,
        ),
    )


def test_traffic_without_a_source_is_led_only_where_an_address_of_ours_is_inside() -> None:
    assert len(rules(policy(), addresses=("192.0.2.1", "fd00::1"))) == 1

    _, unsourced = rules(policy(), addresses=("10.1.0.1",))

    assert unsourced.source == ip_network("0.0.0.0/32")
    assert unsourced.destination == REMOTE


def test_ipv6_asks_the_kernel_for_the_source_instead() -> None:
    (rule,) = rules(policy("fd00:1::/64", "fd00:2::/64"), addresses=("fd00:1::1",))

    assert rule.finds_source
    assert not rules(policy("fd00:1::/64", "fd00:2::/64"))[0].finds_source


def test_order_of_the_spd_is_the_order_of_the_rules() -> None:
    made = rules(policy(action=Action.BYPASS, remote="10.2.3.0/24"), policy())

    assert [(rule.priority, rule.action) for rule in made] == [
        (1001, RuleAction.GOTO),
        (1002, RuleAction.TABLE),
    ]
    assert made[0].goto == OPTIONS.last_preference


def test_discard_is_left_to_the_guard() -> None:
    assert rules(policy(action=Action.DISCARD)) == ()


def test_ranges_become_prefixes() -> None:
    made = rules(policy(local="10.1.0.1-10.1.0.2"))

    assert [str(rule.source) for rule in made] == ["10.1.0.1/32", "10.1.0.2/32"]


def test_everything_is_no_condition() -> None:
    (rule,) = rules(policy("0.0.0.0/0", "0.0.0.0/0"), addresses=("10.1.0.1",))

    assert rule.source is None
    assert rule.destination is None


def test_ports_are_said_where_the_kernel_can_hear_them() -> None:
    (rule,) = rules(policy("10.1.0.0/16[tcp]", "10.2.0.0/16[tcp/1000-65535]"))

    assert (rule.ip_protocol, rule.source_ports, rule.destination_ports) == (6, None, (1000, 65534))


def test_bypass_that_a_rule_would_widen_is_left_to_the_forwarder() -> None:
    assert rules(policy("10.1.0.0/16[icmp/8]", action=Action.BYPASS)) == ()
    assert len(rules(policy("10.1.0.0/16[icmp/8]"))) == 1  # PROTECT may be wider


def test_too_many_rules_are_refused() -> None:
    hosts = tuple(TrafficSelector.parse(f"10.3.{n}.1") for n in range(60))
    many = Policy(name="many", action=Action.PROTECT, local_ts=hosts, remote_ts=hosts)

    with pytest.raises(DatapathError) as refused:
        rules(many)

    assert refused.value.reason is ErrorReason.TABLE_FULL


def test_each_remote_prefix_is_unreachable_without_the_device() -> None:
    hint = ip_address("10.1.0.1")

    made = policy_routes([policy(), policy(name="q")], OPTIONS, link=9, hints={REMOTE: hint})

    assert [(str(r.destination), r.link, r.source_hint, r.metric) for r in made] == [
        ("10.2.0.0/16", 9, hint, 100),
        ("10.2.0.0/16", None, None, UNREACHABLE_METRIC),
    ]


def test_frame_leads_our_own_and_decrypted_packets_past() -> None:
    frame = list(frame_rules(OPTIONS, (4, 6)))

    gotos = [rule for rule in frame if rule.action is RuleAction.GOTO]
    assert {rule.mark for rule in gotos if rule.version == 4} == {7, 8, None}
    assert {rule.input_link for rule in gotos} == {"tun7", None}
    assert all(rule.goto == OPTIONS.last_preference for rule in gotos)
    assert [rule.destination for rule in gotos if rule.destination] == [ip_network("fe80::/10")]
    assert sum(rule.action is RuleAction.NOP for rule in frame) == 2
