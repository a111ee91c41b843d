"""`xdp_one_arm`: what the outer side lets pass is asked for by the inner side."""

from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6ND_NS, IPv6, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP
from scapy.packet import Packet, Raw

from gateway.host.bpf.abi import LOCALS, SAS, Exit, InboundSa, Local, Spi, Word
from gateway.host.bpf.objects import LoadedObject
from gateway.host.bpf.spd import SpdMaps, compile_spd
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.policy import Action
from tests.ebpf.program_table import Row, Verdict, drop, engine, link, loaded_program, policy, run, to_stack
from tests.ebpf.xsk import receiver

US = "192.0.2.1"
POLICIES = (
    policy("lan", Action.PROTECT, "10.1.0.0/16", "10.2.0.0/16"),
    policy("lan6", Action.PROTECT, "2001:db8:1::/48", "2001:db8:2::/48"),
    policy("ssh", Action.BYPASS, "10.1.0.0/16", "10.2.0.0/16[tcp/22]", priority=10),
    policy("bad", Action.DISCARD, "10.0.0.0/8", "10.66.0.0/16"),
    policy("everything", Action.PROTECT, "10.7.0.0/24", "0.0.0.0/0"),
)


@pytest.fixture(scope="module")
def one_arm() -> Iterator[LoadedObject]:
    with loaded_program("xdp_one_arm") as loaded, receiver() as socket:
        SpdMaps(loaded.maps).publish(compile_spd(POLICIES))
        LOCALS.of(loaded.maps).set(Local(ip_address(US)), Word(1))
        SAS.of(loaded.maps).set(Spi(0x1001), InboundSa(destination=ip_address(US), protocol=50))
        loaded.maps["gw_xsks"].update(bytes(4), socket.value)
        yield loaded


def ip(source: str, destination: str, **fields: object) -> Packet:
    return link() / IP(src=source, dst=destination, **fields)


def esp(spi: int = 0x1001) -> Raw:
    return Raw(spi.to_bytes(4, "big") + bytes(40))


LAN, FAR = "10.1.0.9", "10.2.0.9"
ROWS = (
    engine("out, PROTECT", ip(LAN, FAR) / UDP()),
    engine("out, PROTECT on a VLAN", link(vlans=[7]) / IP(src=LAN, dst=FAR) / UDP()),
    engine(
        "out, PROTECT over IPv6 behind an extension header",
        link() / IPv6(src="2001:db8:1::9", dst="2001:db8:2::9") / IPv6ExtHdrHopByHop() / UDP(),
    ),
    engine("out, PROTECT of ESP in transit", ip(LAN, FAR, proto=50) / esp(0x9999)),
    engine("out, PROTECT of ESP in UDP in transit", ip(LAN, FAR) / UDP(dport=4500) / esp(0x9999)),
    engine("in, a known SPI", ip("192.0.2.2", US, proto=50) / esp()),
    engine("out to everywhere", ip("10.7.0.9", "203.0.113.1") / UDP()),
    drop("in, clear, PROTECT", ip(FAR, LAN) / UDP(), DropReason.CLEAR_INBOUND),
    drop("in from everywhere", ip("203.0.113.1", "10.7.0.9") / UDP(), DropReason.CLEAR_INBOUND),
    drop("out, DISCARD", ip(LAN, "10.66.0.1") / UDP(), DropReason.POLICY_DISCARD),
    drop("in, DISCARD", ip("10.66.0.1", LAN) / UDP(), DropReason.POLICY_DISCARD),
    to_stack("out, BYPASS", ip(LAN, FAR) / TCP(dport=22), Exit.BYPASS),
    to_stack("in, BYPASS", ip(FAR, LAN) / TCP(sport=22, dport=99), Exit.NO_ENTRY),
    to_stack("no entry", ip("198.51.100.1", "203.0.113.1") / UDP(), Exit.NO_ENTRY),
    to_stack("this machine", ip(LAN, US) / TCP(dport=22), Exit.NO_ENTRY),
    to_stack("IKE", ip("192.0.2.2", US) / UDP(dport=500) / Raw(bytes(28)), Exit.IKE),
    to_stack("an unknown SPI", ip("192.0.2.2", US, proto=50) / esp(0x9999), Exit.STRANGE_SPI),
    to_stack(
        "an ICMP error for this machine", ip("192.0.2.9", US) / ICMP(type=3) / Raw(bytes(28)), Exit.ICMP_ERROR
    ),
    to_stack("multicast", ip(LAN, "224.0.0.5") / UDP(), Exit.LINK_LOCAL),
    to_stack("ARP", link() / ARP(), Exit.NOT_IP),
    to_stack(
        "neighbour discovery",
        link() / IPv6(src="2001:db8:1::9", dst="2001:db8:1::1", hlim=255) / ICMPv6ND_NS(),
        Exit.LINK_LOCAL,
    ),
)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_frame_ends_as_the_table_says(one_arm: LoadedObject, row: Row) -> None:
    done, reason = run(one_arm, row.frame)

    assert (Verdict(done.verdict), reason) == (row.verdict, row.reason)
    assert done.frame == bytes(row.frame)


@pytest.mark.parametrize("row", [row for row in ROWS if row.reason is Exit.ENGINE], ids=str)
def test_a_frame_cut_anywhere_never_passes(one_arm: LoadedObject, row: Row) -> None:
    whole = bytes(row.frame)
    headers = whole.index(b"\x99\x99") if b"\x99\x99" in whole else len(whole)

    reasons = {run(one_arm, whole[:length])[1] for length in range(14, headers)}

    assert reasons == {DropReason.MALFORMED}
