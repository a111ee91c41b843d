"""`xdp_outbound`: frames in, verdict and reason out."""

from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from scapy.layers.inet import IP, TCP, UDP, IPOption_Timestamp
from scapy.layers.inet6 import ICMPv6ND_NS, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from gateway.host.bpf.abi import LOCALS, Exit, Local, Word
from gateway.host.bpf.objects import LoadedObject
from gateway.host.bpf.spd import SpdMaps, compile_spd
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.policy import Action
from tests.ebpf.program_table import Row, Verdict, drop, engine, link, loaded_program, policy, run, to_stack
from tests.ebpf.xsk import receiver

POLICIES = (
    policy("lan", Action.PROTECT, "10.1.0.0/16", "10.2.0.0/16"),
    policy("lan6", Action.PROTECT, "2001:db8:1::/48", "2001:db8:2::/48"),
    policy("dns", Action.PROTECT, "10.5.0.0/16", "10.6.0.0/16[udp/53]"),
    policy("bgp", Action.BYPASS, "10.1.0.0/16", "10.2.0.0/16[tcp/179]", priority=10),
    policy("bad", Action.DISCARD, "10.0.0.0/8", "10.66.0.0/16"),
    policy("net", Action.PROTECT, "10.7.0.0/24", "0.0.0.0/0"),
    policy("exception", Action.BYPASS, "10.7.0.0/24", "10.8.0.0/24", priority=10),
)


@pytest.fixture(scope="module")
def outbound() -> Iterator[LoadedObject]:
    with loaded_program("xdp_outbound") as loaded, receiver() as socket:
        SpdMaps(loaded.maps).publish(compile_spd(POLICIES))
        LOCALS.of(loaded.maps).set(Local(ip_address("10.7.0.1")), Word(1))
        loaded.maps["gw_xsks"].update(bytes(4), socket.value)
        yield loaded


def lan(destination: str = "10.2.0.9", source: str = "10.1.0.9", **fields: object) -> Packet:
    return link() / IP(src=source, dst=destination, **fields)


def lan6(**fields: object) -> Packet:
    return link() / IPv6(src="2001:db8:1::9", dst="2001:db8:2::9", **fields)


DNS = {"source": "10.5.0.1", "destination": "10.6.0.1"}
ROWS = (
    engine("PROTECT", lan() / TCP()),
    engine("PROTECT on a VLAN", link(vlans=[9]) / IP(src="10.1.0.9", dst="10.2.0.9") / TCP()),
    engine("PROTECT with options", lan(options=[IPOption_Timestamp()]) / TCP()),
    engine("PROTECT a later fragment", lan(frag=4, proto=17) / Raw(bytes(40))),
    engine("PROTECT over IPv6", lan6() / UDP()),
    engine("PROTECT over IPv6 behind an extension header", lan6() / IPv6ExtHdrDestOpt() / UDP()),
    engine("PROTECT a protocol without ports", lan(proto=47) / Raw(bytes(8))),
    engine("PROTECT by port", lan(**DNS) / UDP(dport=53)),
    engine("PROTECT everything else", lan("203.0.113.9", "10.7.0.9") / TCP()),
    to_stack("another port", lan(**DNS) / UDP(dport=54), Exit.NO_ENTRY),
    to_stack("another protocol", lan(**DNS) / TCP(dport=53), Exit.NO_ENTRY),
    drop(
        "a later fragment that may be DNS", lan(**DNS, frag=4, proto=17) / Raw(bytes(40)), DropReason.FRAGMENT
    ),
    to_stack("BYPASS before PROTECT", lan() / TCP(dport=179), Exit.BYPASS),
    to_stack("BYPASS of a narrower range", lan("10.8.0.1", "10.7.0.9") / TCP(), Exit.BYPASS),
    drop("DISCARD", lan("10.66.0.1") / TCP(), DropReason.POLICY_DISCARD),
    to_stack("no entry", lan("10.9.0.1") / TCP(), Exit.NO_ENTRY),
    to_stack("this machine", lan("10.7.0.1", "10.7.0.9") / TCP(dport=22), Exit.NOT_OURS),
    to_stack("ARP", link() / ARP(), Exit.NOT_IP),
    to_stack(
        "broadcast",
        Ether(dst="ff:ff:ff:ff:ff:ff") / IP(src="10.7.0.9", dst="10.7.0.255") / UDP(),
        Exit.LINK_LOCAL,
    ),
    to_stack(
        "DHCP",
        Ether(dst="ff:ff:ff:ff:ff:ff") / IP(src="0.0.0.0", dst="255.255.255.255") / UDP(),
        Exit.LINK_LOCAL,
    ),
    to_stack("multicast", lan("224.0.0.5", "10.7.0.9") / UDP(), Exit.LINK_LOCAL),
    to_stack("link-local IPv4", lan("169.254.1.1", "10.7.0.9") / UDP(), Exit.LINK_LOCAL),
    to_stack("link-local IPv6", link() / IPv6(src="fe80::1", dst="fe80::2") / UDP(), Exit.LINK_LOCAL),
    to_stack("multicast IPv6", link() / IPv6(src="2001:db8:1::9", dst="ff05::2") / UDP(), Exit.LINK_LOCAL),
    to_stack("neighbour discovery", lan6(hlim=255) / ICMPv6ND_NS(), Exit.LINK_LOCAL),
    drop(
        "a first fragment without ports",
        lan(**DNS, flags="MF", proto=17) / Raw(bytes(2)),
        DropReason.FRAGMENT,
    ),
    drop(
        "an IPv6 fragment that hides its protocol, malformed",
        lan6(plen=4) / IPv6ExtHdrFragment(offset=4, nh=60),
        DropReason.MALFORMED,
    ),
)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_frame_ends_as_the_table_says(outbound: LoadedObject, row: Row) -> None:
    done, reason = run(outbound, row.frame)

    assert (Verdict(done.verdict), reason) == (row.verdict, row.reason)
    assert done.frame == bytes(row.frame)


@pytest.mark.parametrize("row", [row for row in ROWS if row.reason is Exit.ENGINE], ids=str)
def test_a_frame_cut_anywhere_is_malformed(outbound: LoadedObject, row: Row) -> None:
    whole = bytes(row.frame)

    reasons = {run(outbound, whole[:length])[1] for length in range(14, len(whole))}

    assert reasons == {DropReason.MALFORMED}


def test_without_a_socket_of_the_engine_nothing_leaves_in_clear() -> None:
    with loaded_program("xdp_outbound") as loaded:
        SpdMaps(loaded.maps).publish(compile_spd(POLICIES))

        done, reason = run(loaded, lan() / TCP())

    assert (Verdict(done.verdict), reason) == (Verdict.DROP, DropReason.NO_ENGINE)


def test_inbound_and_outbound_share_one_spd(outbound: LoadedObject) -> None:
    with loaded_program("xdp_inbound", outbound.maps) as inbound:
        _, leaving = run(outbound, lan() / TCP())
        _, coming = run(inbound, lan(source="10.2.0.9", destination="10.1.0.9") / TCP())

    assert (leaving, coming) == (Exit.ENGINE, DropReason.CLEAR_INBOUND)
