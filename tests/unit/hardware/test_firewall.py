"""What rulesets do with packets, in the JSON of nft 1.0.6; tests/netns/test_doctor.py asks the kernel."""

from typing import Any

import pytest

from gateway.hardware.firewall import Match, Packet, Verdict, holds, judge

IKE = Packet("udp", 4, 500)
IKE_V6 = Packet("udp", 6, 500)
ESP = Packet("esp", 4)

Rule = list[dict[str, Any]]


def match(left: dict[str, Any], right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


def payload(protocol: str, field: str) -> dict[str, Any]:
    return {"payload": {"protocol": protocol, "field": field}}


L4PROTO = {"meta": {"key": "l4proto"}}
STATE = {"ct": {"key": "state"}}
ACCEPT: dict[str, Any] = {"accept": None}
DROP: dict[str, Any] = {"drop": None}


def ruleset(
    *rules: Rule, policy: str = "accept", family: str = "inet", table: str = "t", **chains: list[Rule]
) -> Any:
    base = {"family": family, "table": table, "name": "in", "hook": "input", "prio": 0, "policy": policy}
    others = [{"chain": {"family": family, "table": table, "name": name}} for name in chains]
    of_chains = [(name, rule) for name, rules_ in {"in": rules, **chains}.items() for rule in rules_]
    return [
        {"metainfo": {"json_schema_version": 1}},
        {"chain": base},
        *others,
        *(
            {"rule": {"family": family, "table": table, "chain": name, "expr": rule}}
            for name, rule in of_chains
        ),
    ]


@pytest.mark.parametrize(
    ("condition", "packet", "answer"),
    [
        (match(payload("udp", "dport"), 500), IKE, Match.YES),
        (match(payload("udp", "dport"), {"set": [500, 4500]}), IKE, Match.YES),
        (match(payload("udp", "dport"), {"set": [{"range": [400, 600]}]}), IKE, Match.YES),
        (match(payload("udp", "dport"), {"range": [501, 600]}), IKE, Match.NO),
        (match(payload("udp", "dport"), 500, "!="), IKE, Match.NO),
        (match(payload("udp", "dport"), "@ports"), IKE, Match.UNKNOWN),
        (match(payload("udp", "dport"), 500), ESP, Match.NO),
        (match(payload("tcp", "dport"), 500), IKE, Match.NO),
        (match(payload("th", "dport"), 500), IKE, Match.YES),
        (match(payload("udp", "sport"), 500), IKE, Match.UNKNOWN),
        (match(payload("ip", "protocol"), {"set": ["esp", "ah"]}), ESP, Match.YES),
        (match(payload("ip", "protocol"), 50), ESP, Match.YES),
        (match(payload("ip6", "nexthdr"), "udp"), IKE_V6, Match.YES),
        (match(payload("ip6", "nexthdr"), "udp"), IKE, Match.NO),
        (match(payload("ip", "saddr"), "192.0.2.1"), IKE, Match.UNKNOWN),
        (match(L4PROTO, "esp"), ESP, Match.YES),
        (match(L4PROTO, "esp", "!="), IKE, Match.YES),
        (match({"meta": {"key": "nfproto"}}, "ipv4"), IKE_V6, Match.NO),
        (match({"meta": {"key": "iifname"}}, "lo"), IKE, Match.NO),
        (match({"meta": {"key": "iifname"}}, "eth0"), IKE, Match.UNKNOWN),
        (match({"meta": {"key": "mark"}}, 1), IKE, Match.UNKNOWN),
        (match(STATE, ["established", "related"], "in"), IKE, Match.NO),
        (match(STATE, ["new"], "in"), IKE, Match.YES),
    ],
)
def test_conditions(condition: dict[str, Any], packet: Packet, answer: Match) -> None:
    assert holds(condition["match"], packet) is answer


@pytest.mark.parametrize(
    ("rules", "verdicts"),
    [
        (ruleset(), {Verdict.ACCEPT}),
        (ruleset(policy="drop"), {Verdict.DROP}),
        (
            ruleset([match(payload("udp", "dport"), 500), {"counter": {}}, ACCEPT], policy="drop"),
            {Verdict.ACCEPT},
        ),
        (ruleset([match(payload("udp", "dport"), 4500), ACCEPT], policy="drop"), {Verdict.DROP}),
        (ruleset([{"reject": None}]), {Verdict.DROP}),
        (
            ruleset([match(payload("ip", "saddr"), "192.0.2.1"), ACCEPT], policy="drop"),
            {Verdict.ACCEPT, Verdict.DROP},
        ),
        (ruleset([{"limit": {"rate": 5}}, ACCEPT], policy="drop"), {Verdict.ACCEPT, Verdict.DROP}),
        (ruleset([{"jump": {"target": "c"}}], [DROP], c=[[ACCEPT]]), {Verdict.ACCEPT}),
        (ruleset([{"jump": {"target": "c"}}], [DROP], c=[[{"return": None}], [ACCEPT]]), {Verdict.DROP}),
        (ruleset([{"jump": {"target": "c"}}], [DROP], c=[[match(L4PROTO, "esp"), ACCEPT]]), {Verdict.DROP}),
        (
            ruleset(
                [{"vmap": {"key": payload("udp", "dport"), "data": {"set": [[53, DROP], [500, ACCEPT]]}}}],
                policy="drop",
            ),
            {Verdict.ACCEPT, Verdict.DROP},
        ),
        (ruleset([{"jump": {"target": "c"}}], c=[[{"jump": {"target": "c"}}]]), {Verdict.ACCEPT}),
    ],
)
def test_chains(rules: Any, verdicts: set[Verdict]) -> None:
    (judged,) = judge(rules, IKE, "input")

    assert judged.chain == "inet t in"
    assert judged.verdicts == verdicts


def test_chains_of_other_families_hooks_and_our_own_are_no_matter() -> None:
    assert judge(ruleset(policy="drop", family="ip6"), IKE, "input") == ()
    assert judge(ruleset(policy="drop"), IKE, "output") == ()
    assert judge(ruleset(policy="drop", table="ipsecgw_0"), IKE, "input") == ()
