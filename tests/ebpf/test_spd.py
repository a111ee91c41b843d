"""The SPD in BPF maps against the software SPD: the same decision for every packet and every SPD."""

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from gateway.datapath.software.spd import Spd, make_entry
from gateway.esp.flow import Flow, parse_flow
from gateway.host.bpf.abi import SPD_LOCAL4, SPD_REMOTE4, Exit, SpdRule
from gateway.host.bpf.errors import KernelRefusedError
from gateway.host.bpf.objects import LoadedObject
from gateway.host.bpf.spd import SpdMaps, SpdTables, SpdUnsupportedError, compile_spd
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.policy import Action, Policy
from gateway.ipsec.selectors import TrafficSelector
from tests.ebpf.program_table import loaded_program, run

SEEDS = range(12)
PACKETS = 60
_DECISIONS = {
    Exit.NO_ENTRY: None,
    Exit.BYPASS: Action.BYPASS,
    DropReason.CLEAR_INBOUND: Action.PROTECT,
    DropReason.POLICY_DISCARD: Action.DISCARD,
}


@pytest.fixture(scope="module")
def inbound() -> Iterator[LoadedObject]:
    with loaded_program("xdp_inbound") as loaded:
        yield loaded


#: Few, and over one another, so that packets and selectors meet; one is no prefix.
RANGES = {
    4: ("0.0.0.0/0", "10.0.0.0/8", "10.0.1.0/24", "10.0.1.1-10.0.1.6", "10.0.1.5/32", "10.0.2.0/23"),
    6: ("::/0", "2001:db8::/32", "2001:db8::1:0/112", "2001:db8::1:1-2001:db8::1:6", "2001:db8::1:5/128"),
}
ADDRESSES = {
    4: ("10.0.1.1", "10.0.1.5", "10.0.1.7", "10.0.2.9", "10.9.9.9", "203.0.113.1"),
    6: ("2001:db8::1:1", "2001:db8::1:5", "2001:db8::1:7", "2001:db8::2:9", "2001:db9::9"),
}
PORTS = ("", "/53", "/0-1023", "/1024-65535", "/opaque")
ICMP_PORTS = ("", "/8", "/8(0)", "/0-7")
PROTOCOLS = ("", "", "tcp", "udp", "gre", "icmp")


def selector(chance: random.Random, version: int, protocol: str) -> TrafficSelector:
    ports = chance.choice(ICMP_PORTS if protocol == "icmp" else PORTS)
    return TrafficSelector.parse(
        chance.choice(RANGES[version]) + (f"[{protocol}{ports}]" if protocol else "")
    )


def random_spd(chance: random.Random) -> list[Policy]:
    policies = []
    for number in range(chance.randrange(1, 7)):
        version = chance.choice((4, 6))
        protocol = chance.choice(PROTOCOLS)
        policies.append(
            Policy(
                name=f"p{number}",
                action=chance.choice(tuple(Action)),
                local_ts=(selector(chance, version, protocol),),
                remote_ts=tuple(selector(chance, version, protocol) for _ in range(chance.randrange(1, 3))),
                priority=chance.randrange(5),
            )
        )
    return policies


def random_packet(chance: random.Random) -> Packet:
    """Return a packet from a remote to a local address, neither of them ours."""
    version = chance.choice((4, 6))
    source, destination = (chance.choice(ADDRESSES[version]) for _ in range(2))
    port = chance.choice((53, 80, 5000))
    upper = chance.choice(
        (TCP(sport=port, dport=53), UDP(sport=53, dport=port), ICMP(type=8), Raw(bytes(24)), Raw(bytes(24)))
    )
    protocol = chance.choice((6, 17, 47, 132))
    if version == 6:
        header = IPv6(src=source, dst=destination, **({"nh": protocol} if isinstance(upper, Raw) else {}))
        if chance.random() < 0.3:
            offset = chance.choice((0, 0, 9))
            header /= IPv6ExtHdrFragment(
                nh=chance.choice((protocol, 60)) if offset else protocol, offset=offset
            )
            upper = IPv6ExtHdrDestOpt(nh=59) / upper if header[1].nh == 60 else Raw(bytes(24))
        return header / upper
    fragment = {"frag": chance.choice((0, 0, 0, 7))}
    return (
        IP(src=source, dst=destination, **fragment, **({"proto": protocol} if isinstance(upper, Raw) else {}))
        / upper
    )


def expected(spd: Spd, flow: Flow) -> Action | None:
    """Return what the software SPD decides, read in the outbound direction.

    What a fragment hides may match any entry that is no BYPASS, if none that can be seen came before.
    """
    turned = flow._replace(
        source=flow.destination,
        destination=flow.source,
        source_port=flow.destination_port,
        destination_port=flow.source_port,
    )
    for entry in spd.entries:
        if entry.selectors.permits_outbound(turned):
            return entry.policy.action
        hides = turned.is_fragment and not turned.is_first_fragment
        if hides and entry.policy.action is not Action.BYPASS:
            protocols = range(256) if turned.protocol is None else (turned.protocol,)
            if any(entry.any_port.permits_outbound(turned._replace(protocol=number)) for number in protocols):
                return entry.policy.action
    return None


@pytest.mark.parametrize("seed", SEEDS)
def test_xdp_decides_as_the_software_spd_does(inbound: LoadedObject, seed: int) -> None:
    chance = random.Random(seed)
    policies = random_spd(chance)
    SpdMaps(inbound.maps).publish(compile_spd(policies))
    spd = Spd(make_entry(policy, 0) for policy in policies)

    for _ in range(PACKETS):
        packet = random_packet(chance)
        _, reason = run(inbound, Ether(type=0x0800 if packet.version == 4 else 0x86DD) / packet)

        assert _DECISIONS[reason] is expected(spd, parse_flow(bytes(packet))), packet.summary()


def protect(local: str, remote: str, name: str = "p") -> Policy:
    return Policy(
        name=name,
        action=Action.PROTECT,
        local_ts=(TrafficSelector.parse(local),),
        remote_ts=(TrafficSelector.parse(remote),),
    )


def clear(source: str, destination: str) -> Packet:
    return Ether() / IP(src=source, dst=destination) / UDP()


def test_a_new_spd_replaces_the_old_one_whole(inbound: LoadedObject) -> None:
    maps = SpdMaps(inbound.maps)
    maps.publish(compile_spd([protect("10.1.0.0/16", "10.2.0.0/16[udp]")]))

    maps.publish(compile_spd([protect("10.3.0.0/16", "10.4.0.0/16[udp]")]))

    assert run(inbound, clear("10.2.0.1", "10.1.0.1"))[1] is Exit.NO_ENTRY
    assert run(inbound, clear("10.4.0.1", "10.3.0.1"))[1] is DropReason.CLEAR_INBOUND


def test_an_empty_spd_is_an_spd(inbound: LoadedObject) -> None:
    maps = SpdMaps(inbound.maps)
    maps.publish(compile_spd([protect("0.0.0.0/0", "0.0.0.0/0")]))

    maps.publish(compile_spd([]))
    maps.publish(compile_spd([]))

    assert run(inbound, clear("10.2.0.1", "10.1.0.1"))[1] is Exit.NO_ENTRY
    assert list(SPD_REMOTE4.of(inbound.maps).items()) == list(SPD_LOCAL4.of(inbound.maps).items()) == []


def test_an_spd_that_is_written_in_part_decides_nothing(inbound: LoadedObject) -> None:
    """Of two nested prefixes the wider one is there first: the narrower must not follow it for a moment."""
    maps = SpdMaps(inbound.maps)
    maps.publish(compile_spd([protect("10.1.0.0/16", "10.0.0.0/8")]))
    room = len(list(SPD_REMOTE4.of(inbound.maps).items()))
    seen = []
    written = SpdMaps._write_remotes

    def look_after(*args: object) -> None:
        written(*args)
        seen.append(run(inbound, clear("10.2.0.1", "10.1.0.1"))[1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SpdMaps, "_write_remotes", look_after)
        maps.publish(
            compile_spd(
                [
                    replace(protect("10.1.0.0/16", "10.0.0.0/8", "wide"), action=Action.BYPASS, priority=10),
                    replace(
                        protect("10.1.0.0/16", "10.2.0.0/16", "narrow"), action=Action.DISCARD, priority=5
                    ),
                ]
            )
        )

    assert seen == [DropReason.CLEAR_INBOUND]
    assert run(inbound, clear("10.2.0.1", "10.1.0.1"))[1] is DropReason.POLICY_DISCARD
    assert run(inbound, clear("10.3.0.1", "10.1.0.1"))[1] is Exit.BYPASS
    assert len(list(SPD_REMOTE4.of(inbound.maps).items())) == room + 2


def test_an_spd_that_does_not_fit_leaves_the_one_before(inbound: LoadedObject) -> None:
    maps = SpdMaps(inbound.maps)
    maps.publish(compile_spd([protect("10.1.0.0/16", "10.2.0.0/16")]))
    too_many = tuple(
        SpdRule(local_first=0, local_last=1, remote_first=0, remote_last=1, protocol=17, action=1)
        for _ in range(32769)
    )

    with pytest.raises(SpdUnsupportedError, match="32769 rules"):
        maps.publish(SpdTables(remotes={}, leaves={}, rules=too_many))

    assert run(inbound, clear("10.2.0.1", "10.1.0.1"))[1] is DropReason.CLEAR_INBOUND


def test_a_full_map_leaves_the_spd_before_and_room_for_another() -> None:
    small = {"gw_spd_remote4": 4}
    policies = [protect("10.1.0.0/16", f"10.{second}.0.0/16", f"p{second}") for second in range(2, 9)]
    with loaded_program("xdp_inbound", entries=small) as inbound:
        maps = SpdMaps(inbound.maps)
        maps.publish(compile_spd(policies[:1]))

        with pytest.raises(KernelRefusedError, match="gw_spd_remote4"):
            maps.publish(compile_spd(policies))

        before = run(inbound, clear("10.2.0.1", "10.1.0.1"))[1]
        maps.publish(compile_spd(policies[1:3]))
        after = [run(inbound, clear(f"10.{second}.0.1", "10.1.0.1"))[1] for second in (2, 3)]

    assert before is DropReason.CLEAR_INBOUND
    assert after == [Exit.NO_ENTRY, DropReason.CLEAR_INBOUND]


def test_what_a_cpu_remembers_ends_with_its_spd(inbound: LoadedObject) -> None:
    maps = SpdMaps(inbound.maps)
    ends = []
    for local in ("10.1.0.0/16", "10.9.0.0/16", "10.1.0.0/24"):
        maps.publish(compile_spd([protect(local, "10.2.0.0/16")]))
        ends.append([run(inbound, clear("10.2.0.1", "10.1.0.1"))[1] for _ in range(2)])

    assert ends == [[end] * 2 for end in (DropReason.CLEAR_INBOUND, Exit.NO_ENTRY, DropReason.CLEAR_INBOUND)]


def test_another_life_goes_on_with_what_is_in_the_maps(inbound: LoadedObject) -> None:
    SpdMaps(inbound.maps).publish(compile_spd([protect("10.1.0.0/16", "10.2.0.0/16[udp]")]))

    SpdMaps(inbound.maps).publish(
        compile_spd([protect("10.1.0.0/16", "10.2.0.0/16[tcp]"), protect("10.1.0.0/16", "10.4.0.0/16", "q")])
    )

    assert run(inbound, clear("10.2.0.1", "10.1.0.1"))[1] is Exit.NO_ENTRY
    assert run(inbound, clear("10.4.0.1", "10.1.0.1"))[1] is DropReason.CLEAR_INBOUND


def test_what_the_spd_before_had_is_removed_at_the_next_publication(inbound: LoadedObject) -> None:
    maps = SpdMaps(inbound.maps)
    for third in range(1, 6):
        maps.publish(compile_spd([protect("10.1.0.0/16", f"10.{third}.0.0/16[udp]")]))

    # The last two SPDs, each with one leaf for everything and one for 10.1.0.0/16.
    assert len(list(SPD_LOCAL4.of(inbound.maps).items())) == 4
    assert len(list(SPD_REMOTE4.of(inbound.maps).items())) == 2


def test_a_class_without_leaf_discards(inbound: LoadedObject) -> None:
    """It cannot be; were it so, nothing may pass in clear."""
    SpdMaps(inbound.maps).publish(compile_spd([protect("10.1.0.0/16", "10.2.0.0/16")]))
    leaves = SPD_LOCAL4.of(inbound.maps)
    leaves.delete_many([key for key, _ in leaves.items()])

    assert run(inbound, clear("10.2.0.1", "10.9.0.1"))[1] is DropReason.POLICY_DISCARD


def test_what_the_first_32_rules_do_not_match_is_left_to_the_stack(inbound: LoadedObject) -> None:
    policies = [protect("10.1.0.0/16", f"10.2.0.0/16[udp/{port}]", f"p{port:02}") for port in range(1, 34)]
    SpdMaps(inbound.maps).publish(compile_spd(policies))

    reasons = [
        run(inbound, Ether() / IP(src="10.2.0.1", dst="10.1.0.1") / UDP(sport=port, dport=99))[1]
        for port in (1, 32, 33, 34)
    ]

    assert reasons == [DropReason.CLEAR_INBOUND] * 2 + [Exit.UNDECIDED] * 2


def test_a_leaf_holds_32_rules(inbound: LoadedObject) -> None:
    policies = [protect("10.1.0.0/16", f"10.2.0.0/16[udp/{port}]", f"p{port:02}") for port in range(1, 33)]
    SpdMaps(inbound.maps).publish(compile_spd(policies))

    reasons = [
        run(inbound, Ether() / IP(src="10.2.0.1", dst="10.1.0.1") / UDP(sport=port, dport=99))[1]
        for port in range(1, 34)
    ]

    assert reasons == [DropReason.CLEAR_INBOUND] * 32 + [Exit.NO_ENTRY]


def test_two_thousand_tunnels_share_leaves_where_they_can() -> None:
    policies = [
        protect("10.0.0.0/8", f"172.{16 + number // 256}.{number % 256}.0/24", f"t{number:04}")
        for number in range(2000)
    ]

    tables = compile_spd(policies)

    assert (len(tables.remotes), len(tables.leaves), len(tables.rules)) == (2000, 2, 0)
