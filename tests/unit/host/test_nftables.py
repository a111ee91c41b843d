"""The guard's rules as data: what is exempt, the order of the SPD, fragments, and errors that quote."""

import json
from typing import Any

import pytest

from gateway.host.nftables import Guard, guard_commands
from gateway.ipsec.policy import Action, Policy
from gateway.ipsec.selectors import TrafficSelector

GUARD = Guard(tag="t", tunnel_device="tun7", mark=77, arrival_mark=78)


def policy(
    action: Action = Action.PROTECT, local: str = "10.1.0.0/16", remote: str = "10.2.0.0/16"
) -> Policy:
    return Policy(
        name="p",
        action=action,
        local_ts=(TrafficSelector.parse(local),),
        remote_ts=(TrafficSelector.parse(remote),),
    )


def rules(commands: list[dict[str, Any]], chain: str) -> list[list[dict[str, Any]]]:
    return [
        command["add"]["rule"]["expr"]
        for command in commands
        if "rule" in command.get("add", {}) and command["add"]["rule"]["chain"] == chain
    ]


def verdicts(chain: list[list[dict[str, Any]]]) -> list[str]:
    return [next(iter(expressions[-1])) for expressions in chain]


def match(left: dict[str, Any], right: object, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


def test_transaction_is_json_and_flushes_before_it_adds() -> None:
    commands = guard_commands(GUARD, [policy()], [1])

    json.dumps(commands)
    for chain in ("postrouting", "input", "forward", "out_1", "in_1"):
        flush = commands.index({"flush": {"chain": {"family": "inet", "table": "ipsecgw_t", "name": chain}}})
        first = next(
            number
            for number, command in enumerate(commands)
            if command.get("add", {}).get("rule", {}).get("chain") == chain
        )
        assert flush < first


def test_outbound_lets_pass_the_tunnel_device_the_mark_and_neighbour_discovery() -> None:
    chain = rules(guard_commands(GUARD, [policy()], [1]), "postrouting")

    assert [match({"meta": {"key": "oifname"}}, "tun7"), {"accept": None}] in chain
    assert [match({"meta": {"key": "mark"}}, 77), {"accept": None}] in chain
    types = next(e[0]["match"]["right"]["set"] for e in chain if "icmpv6" in json.dumps(e))
    assert set(types) == {133, 134, 135, 136, 137}
    assert chain[-1] == [{"jump": {"target": "out_1"}}]


@pytest.mark.parametrize("name", ["postrouting", "input"])
def test_what_keeps_an_ipv6_link_alive_is_exempt_only_with_a_hop_limit_no_router_lets_pass(name: str) -> None:
    chain = rules(guard_commands(GUARD, [policy()], [1]), name)

    discovery = [e for e in chain if {"protocol": "icmpv6", "field": "type"} in _left_sides(e)]
    exempt = [e for e in discovery if e[-1] == {"accept": None} and "base" not in json.dumps(e)]
    hop_limits = [
        m["match"]["right"]
        for e in exempt
        for m in e[:-1]
        if m["match"]["left"] == {"payload": {"protocol": "ip6", "field": "hoplimit"}}
    ]
    assert len(exempt) == 2
    assert hop_limits == [255, 1]


def _left_sides(expressions: list[dict[str, Any]]) -> list[Any]:
    return [e["match"]["left"].get("payload") for e in expressions if "match" in e]


def test_inbound_lets_ike_and_esp_in_to_us_but_not_through() -> None:
    commands = guard_commands(GUARD, [policy()], [1])

    assert "dport" in json.dumps(rules(commands, "input"))
    assert "dport" not in json.dumps(rules(commands, "forward"))
    assert "l4proto" not in json.dumps(rules(commands, "forward"))


@pytest.mark.parametrize("chain", ["input", "prerouting"])
def test_ah_over_ipv6_is_known_by_the_base_header_or_behind_one_other(chain: str) -> None:
    # To nftables it is an extension header: `meta l4proto` is what it protects.
    commands = rules(guard_commands(GUARD, [policy()], [1]), chain)
    next_header = {"payload": {"protocol": "ip6", "field": "nexthdr"}}
    one_further = {"payload": {"base": "nh", "offset": 320, "len": 8}}

    matches = [[e for e in expressions if "match" in e][:2] for expressions in commands]

    assert any(found[:1] == [match(next_header, 51)] for found in matches)
    assert [match(next_header, {"set": [0, 43, 60, 44]}), match(one_further, 51)] in matches


def test_icmp_errors_about_ah_come_in() -> None:
    chain = rules(guard_commands(GUARD, [policy()], [1]), "input")

    for offset in (136, 112):
        quoted = {"payload": {"base": "th", "offset": offset, "len": 8}}
        assert any(match(quoted, {"set": [50, 51]}) in expressions for expressions in chain)


def test_protect_drops_and_counts_both_ways() -> None:
    commands = guard_commands(GUARD, [policy()], [1])

    local = {"prefix": {"addr": "10.1.0.0", "len": 16}}
    remote = {"prefix": {"addr": "10.2.0.0", "len": 16}}
    saddr, daddr = ({"payload": {"protocol": "ip", "field": field}} for field in ("saddr", "daddr"))
    assert rules(commands, "out_1")[0] == [
        match(saddr, local),
        match(daddr, remote),
        {"counter": "clear_outbound"},
        {"drop": None},
    ]
    assert rules(commands, "in_1") == [
        [match(saddr, remote), match(daddr, local), {"counter": "clear_inbound"}, {"drop": None}]
    ]


def test_errors_about_decrypted_packets_are_dropped_whatever_their_source() -> None:
    quoting = rules(guard_commands(GUARD, [policy()], [1]), "out_1")[1]

    assert "saddr" not in json.dumps(quoting)
    assert match(
        {"payload": {"base": "th", "offset": 192, "len": 32}}, {"range": ["0xa010000", "0xa01ffff"]}
    ) in (quoting)
    assert quoting[-1] == {"drop": None}


def test_order_of_the_spd_is_the_order_of_the_rules() -> None:
    policies = [policy(Action.BYPASS, "10.1.0.0/16[tcp]"), policy(), policy(Action.DISCARD, "10.0.0.0/8")]

    assert verdicts(rules(guard_commands(GUARD, policies, [1]), "in_1")) == ["return", "drop", "drop"]


def test_selectors_with_ports_drop_later_fragments_too() -> None:
    inbound = rules(guard_commands(GUARD, [policy(remote="10.2.0.0/16[udp/53]")], [1]), "in_1")

    assert verdicts(inbound) == ["drop", "drop"]
    assert match({"payload": {"protocol": "th", "field": "sport"}}, 53) in inbound[0]
    assert "frag-off" in json.dumps(inbound[1])


def test_bypass_with_ports_lets_no_later_fragment_pass() -> None:
    chain = rules(guard_commands(GUARD, [policy(Action.BYPASS, remote="10.2.0.0/16[udp/53]")], [1]), "in_1")

    assert "frag-off" not in json.dumps(chain)
    assert len(chain) == 1


def test_opaque_ports_match_later_fragments_only() -> None:
    chain = rules(guard_commands(GUARD, [policy(remote="10.2.0.0/16[udp/opaque]")], [1]), "in_1")

    assert len(chain) == 1
    assert "frag-off" in json.dumps(chain[0])


@pytest.mark.parametrize(
    ("remote", "offset", "right"),
    [
        ("10.2.0.0/16[icmp/8]", 0, {"range": [0x800, 0x8FF]}),
        ("10.2.0.0/16[icmp/3(4)]", 0, 0x304),
    ],
)
def test_icmp_type_and_code_are_matched(remote: str, offset: int, right: object) -> None:
    first = rules(guard_commands(GUARD, [policy(remote=remote)], [1]), "in_1")[0]

    assert match({"payload": {"base": "th", "offset": offset, "len": 16}}, right) in first


def test_ranges_and_single_addresses_are_said_as_such() -> None:
    text = json.dumps(guard_commands(GUARD, [policy(local="10.1.0.3-10.1.0.9", remote="10.2.0.5")], [1]))

    assert '{"range": ["10.1.0.3", "10.1.0.9"]}' in text
    assert '"right": "10.2.0.5"' in text


def test_everything_still_names_its_family() -> None:
    first = rules(guard_commands(GUARD, [policy(local="::/0", remote="::/0")], [1]), "in_1")[0]

    assert first[0] == match({"meta": {"key": "nfproto"}}, "ipv6")


def test_selectors_that_no_packet_meets_make_no_rule() -> None:
    mixed = policy(local="10.1.0.0/16[tcp]", remote="10.2.0.0/16[udp]")

    assert rules(guard_commands(GUARD, [mixed], [1]), "in_1") == []


def test_former_lives_stay_in_force_beside_our_own() -> None:
    commands = guard_commands(GUARD, [policy()], [3, 4, 5], [1])

    jumps = [e[0]["jump"]["target"] for e in rules(commands, "postrouting") if "jump" in e[0]]
    assert jumps == ["out_3", "out_4", "out_5"]
    assert rules(commands, "out_3") == []  # untouched
    deleted = [c["delete"]["chain"]["name"] for c in commands if "delete" in c]
    assert deleted == ["out_1", "in_1"]


def test_arrival_mark_exempts_from_nothing() -> None:
    commands = guard_commands(GUARD, [policy()], [1])

    assert "78" in json.dumps(rules(commands, "prerouting"))
    for chain in ("postrouting", "input", "forward", "out_1", "in_1"):
        assert "78" not in json.dumps(rules(commands, chain))
