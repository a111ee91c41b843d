"""`xdp_forward`: frames in; verdict, reason and frame out."""

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_Timestamp
from scapy.layers.inet6 import (
    ICMPv6ND_NS,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from gateway.host.bpf.abi import (
    DEVICES,
    INBOUND_SAS,
    LEASE,
    LOCALS,
    NEXT_HOPS4,
    NEXT_HOPS6,
    OFFLOADED_SAS,
    PORTS,
    Exit,
    InboundNicSa,
    Local,
    NextHop,
    OffloadedSa,
    Port,
    PortKey,
    Prefix4,
    Prefix6,
    Side,
    Word,
)
from gateway.host.bpf.objects import LoadedObject
from gateway.host.bpf.programs import TestRun
from gateway.host.bpf.spd import SpdMaps, compile_spd
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.policy import Action
from gateway.ipsec.sa import IpAddress
from tests.conformance.larval_sas import KernelSad, kernel_sad
from tests.ebpf.program_table import (
    OUR_MAC,
    THEIR_MAC,
    Row,
    Verdict,
    drop,
    link,
    loaded_program,
    policy,
    run,
    to_stack,
)

OUR_NIC_MAC, ROUTER_MAC, HOST_MAC = "02:00:00:00:01:01", "02:00:00:00:01:02", "02:00:00:00:00:03"
MTU = 1438
PEER, PEER6 = ip_address("192.0.2.2"), ip_address("2001:db8:ffff::2")
SPI, SPI6, SPI_TAGGED, SPI_GONE = 0x1001, 0x1002, 0x1003, 0x1004
OFFLOADED = {"lan": 1, "lan6": 2, "dns": 1, "loopback": 1, "tagged": 3, "lost": 4, "withdrawn": 5}
OURS, OURS6 = ip_address("192.0.2.1"), ip_address("2001:db8:ffff::1")
IN, IN6, IN_GONE, IN_ELSEWHERE = 0x3001, 0x3002, 0x3003, 0x3004
INBOUND = {"lan": 11, "lan6": 12, "far": 11, "lost": 13, "withdrawn": 14, "elsewhere": 15}
FOREVER_NS = (1 << 64) - 1
POLICIES = (
    policy("tagged", Action.PROTECT, "10.1.0.0/16", "10.2.99.0/24", priority=900),
    policy("lan", Action.PROTECT, "10.1.0.0/16", "10.2.0.0/16"),
    policy("lan6", Action.PROTECT, "2001:db8:1::/48", "2001:db8:2::/48"),
    policy("dns", Action.PROTECT, "10.1.0.0/16", "10.6.0.0/16[udp/53]"),
    policy("kernel", Action.PROTECT, "10.1.0.0/16", "10.3.0.0/16"),
    policy("bypass", Action.BYPASS, "10.1.0.0/16", "10.4.0.0/16"),
    policy("bad", Action.DISCARD, "10.1.0.0/16", "10.5.0.0/16"),
    policy("loopback", Action.PROTECT, "127.0.0.0/8", "10.2.0.0/16"),
    policy("far", Action.PROTECT, "10.8.0.0/16", "10.9.0.0/16"),
    policy("lost", Action.PROTECT, "10.1.0.0/16", "10.10.0.0/16"),
    policy("withdrawn", Action.PROTECT, "10.1.0.0/16", "10.11.0.0/16"),
    policy("elsewhere", Action.PROTECT, "10.1.0.0/16", "10.12.0.0/16"),
    policy("clear", Action.PROTECT, "10.1.0.0/16", "10.13.0.0/16"),
)


def octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def sas_of(nic: int) -> dict[int, OffloadedSa]:
    """Return the SAs that the NIC has, and the next hop of what it sends."""
    macs = {"destination_mac": octets(ROUTER_MAC), "source_mac": octets(OUR_NIC_MAC)}
    plain, tagged = (NextHop(ifindex=nic, mtu=MTU, vlan_id=vlan, **macs) for vlan in (0, 99))
    return {
        1: OffloadedSa(destination=PEER, spi=SPI, family=4, hop=plain),
        2: OffloadedSa(destination=PEER6, spi=SPI6, family=6, hop=plain),
        3: OffloadedSa(destination=PEER, spi=SPI_TAGGED, family=4, hop=tagged),
        4: OffloadedSa(destination=PEER, spi=SPI_GONE, family=4, hop=plain),
    }


def inbound_sas_of(nic: int, other: int) -> dict[int, InboundNicSa]:
    """Return the SAs that the NIC decrypts by, and one of another NIC."""
    return {
        11: InboundNicSa(destination=OURS, spi=IN, family=4, ifindex=nic, mtu=MTU),
        12: InboundNicSa(destination=OURS6, spi=IN6, family=6, ifindex=nic),
        13: InboundNicSa(destination=OURS, spi=IN_GONE, family=4, ifindex=nic),
        15: InboundNicSa(destination=OURS, spi=IN_ELSEWHERE, family=4, ifindex=other),
    }


@pytest.fixture(scope="module")
def sad() -> Iterator[KernelSad]:
    """The kernel has all of the NIC's SAs but one in each direction."""
    with kernel_sad() as found:
        outbound = ((PEER, SPI), (PEER6, SPI6), (PEER, SPI_TAGGED))
        for destination, spi in (*outbound, (OURS, IN), (OURS6, IN6), (OURS, IN_ELSEWHERE)):
            found.add(destination, spi)
        yield found


@pytest.fixture(scope="module")
def forward(sad: KernelSad) -> Iterator[LoadedObject]:
    """A gateway with the LAN on `outside`, untagged and as VLAN 7, and the NIC on `beyond`."""
    lan, nic = (socket.if_nametoindex(name) for name in ("outside", "beyond"))
    with loaded_program("xdp_forward", gw_error_interval_ns=0) as loaded:
        spd = compile_spd(POLICIES, offloaded=OFFLOADED, inbound=INBOUND)
        SpdMaps(loaded.maps).publish(spd)
        OFFLOADED_SAS.of(loaded.maps).set_many({Word(key): sa for key, sa in sas_of(nic).items()})
        inbound = inbound_sas_of(nic, lan)
        INBOUND_SAS.of(loaded.maps).set_many({Word(key): sa for key, sa in inbound.items()})
        LEASE.of(loaded.maps).set(Word(0), Word(FOREVER_NS))
        for address in ("10.1.0.1", "10.2.0.1"):
            LOCALS.of(loaded.maps).set(Local(ip_address(address)), Word(1))
        ports = PORTS.of(loaded.maps)
        for vlan_id in (0, 7):
            ports.set(
                PortKey(ifindex=lan, vlan_id=vlan_id),
                Port(
                    address4=ip_address("10.1.0.1"),
                    address6=ip_address("2001:db8:1::1"),
                    mac=octets(OUR_MAC),
                    side=Side.LAN,
                ),
            )
        ports.set(
            PortKey(ifindex=nic),
            Port(
                address4=ip_address("192.0.2.1"),
                address6=ip_address("::"),
                mac=octets(OUR_NIC_MAC),
                side=Side.OFFLOAD,
            ),
        )
        to_host = {"ifindex": lan, "destination_mac": octets(HOST_MAC), "source_mac": octets(OUR_MAC)}
        for prefix, hop in {
            "10.1.0.0/16": NextHop(mtu=1500, **to_host),
            "10.1.8.0/24": NextHop(ifindex=0, mtu=0, destination_mac=bytes(6), source_mac=bytes(6)),
            "10.1.9.0/24": NextHop(mtu=1300, **to_host),
            "10.1.7.0/24": NextHop(mtu=1500, vlan_id=7, **to_host),
            "2001:db8:1::/48": NextHop(mtu=1500, **to_host),
        }.items():
            network = ip_network(prefix)
            if network.version == 4:
                key4 = Prefix4(prefix_bits=network.prefixlen, address=network.network_address)
                NEXT_HOPS4.of(loaded.maps).set(key4, hop)
            else:
                key6 = Prefix6(prefix_bits=network.prefixlen, address=network.network_address)
                NEXT_HOPS6.of(loaded.maps).set(key6, hop)
        for device in (lan, nic):
            DEVICES.of(loaded.maps).set(Word(device), Word(device))
        yield loaded


def send(
    loaded: LoadedObject, frame: Packet | bytes, device: str = "outside"
) -> tuple[TestRun, DropReason | Exit]:
    return run(loaded, frame, ifindex=socket.if_nametoindex(device))


def lan4(destination: str = "10.2.0.9", **fields: object) -> Packet:
    return IP(src="10.1.0.9", dst=destination, **fields)


def lan6(**fields: object) -> Packet:
    return IPv6(src="2001:db8:1::9", dst="2001:db8:2::9", **fields)


def mss(value: int, *before: object) -> list[object]:
    return [*before, ("MSS", value), ("NOP", None), ("WScale", 7)]


@dataclass(frozen=True, kw_only=True)
class Forwarded:
    """A packet that is forwarded, and the frame it becomes."""

    name: str
    frame: Packet
    expected: Packet
    device: str = "outside"

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


TO_ROUTER = Ether(dst=ROUTER_MAC, src=OUR_NIC_MAC)
TO_HOST = Ether(dst=HOST_MAC, src=OUR_MAC)
FROM_ROUTER = Ether(dst=OUR_NIC_MAC, src=ROUTER_MAC)
DATA = Raw(bytes(range(100)))
FORWARDED = (
    Forwarded(
        name="UDP",
        frame=link() / lan4(ttl=64) / UDP() / DATA,
        expected=TO_ROUTER / lan4(ttl=63) / UDP() / DATA,
    ),
    Forwarded(
        name="UDP over IPv6",
        frame=link() / lan6(hlim=64) / UDP() / DATA,
        expected=TO_ROUTER / lan6(hlim=63) / UDP() / DATA,
    ),
    Forwarded(
        name="IPv6 with destination options",
        frame=link() / lan6(hlim=64) / IPv6ExtHdrDestOpt() / UDP() / DATA,
        expected=TO_ROUTER / lan6(hlim=63) / IPv6ExtHdrDestOpt() / UDP() / DATA,
    ),
    Forwarded(
        name="the last hop but one",
        frame=link() / lan4(ttl=2) / UDP(),
        expected=TO_ROUTER / lan4(ttl=1) / UDP(),
    ),
    Forwarded(
        name="a VLAN tag taken off",
        frame=link(vlans=[7]) / lan4(ttl=64) / UDP() / DATA,
        expected=TO_ROUTER / lan4(ttl=63) / UDP() / DATA,
    ),
    Forwarded(
        name="a VLAN tag put on",
        frame=link() / lan4("10.2.99.1", ttl=64) / UDP() / DATA,
        expected=TO_ROUTER / Dot1Q(vlan=99) / lan4("10.2.99.1", ttl=63) / UDP() / DATA,
    ),
    Forwarded(
        name="a VLAN tag changed",
        frame=link(vlans=[7]) / lan4("10.2.99.1", ttl=64) / UDP() / DATA,
        expected=TO_ROUTER / Dot1Q(vlan=99) / lan4("10.2.99.1", ttl=63) / UDP() / DATA,
    ),
    Forwarded(
        name="a SYN with a large MSS",
        frame=link() / lan4(ttl=64) / TCP(flags="S", options=mss(1460)),
        expected=TO_ROUTER / lan4(ttl=63) / TCP(flags="S", options=mss(MTU - 40)),
    ),
    Forwarded(
        name="a SYN ACK with a large MSS at an odd place",
        frame=link() / lan4(ttl=64) / TCP(flags="SA", options=mss(1460, ("NOP", None))),
        expected=TO_ROUTER / lan4(ttl=63) / TCP(flags="SA", options=mss(MTU - 40, ("NOP", None))),
    ),
    Forwarded(
        name="a SYN with the MSS behind other options",
        frame=link()
        / lan4(ttl=64)
        / TCP(flags="S", options=[("SAckOK", b""), ("Timestamp", (1, 0)), ("MSS", 9000)]),
        expected=TO_ROUTER
        / lan4(ttl=63)
        / TCP(flags="S", options=[("SAckOK", b""), ("Timestamp", (1, 0)), ("MSS", MTU - 40)]),
    ),
    Forwarded(
        name="a SYN with a small MSS",
        frame=link() / lan4(ttl=64) / TCP(flags="S", options=mss(536)),
        expected=TO_ROUTER / lan4(ttl=63) / TCP(flags="S", options=mss(536)),
    ),
    Forwarded(
        name="a SYN without MSS",
        frame=link() / lan4(ttl=64) / TCP(flags="S"),
        expected=TO_ROUTER / lan4(ttl=63) / TCP(flags="S"),
    ),
    Forwarded(
        name="a SYN over IPv6",
        frame=link() / lan6(hlim=64) / TCP(flags="S", options=mss(1440)),
        expected=TO_ROUTER / lan6(hlim=63) / TCP(flags="S", options=mss(MTU - 60)),
    ),
    Forwarded(
        name="TCP that is no SYN",
        frame=link() / lan4(ttl=64) / TCP(flags="A", options=mss(1460)),
        expected=TO_ROUTER / lan4(ttl=63) / TCP(flags="A", options=mss(1460)),
    ),
    Forwarded(
        name="the largest that fits",
        frame=link() / lan4(ttl=64) / UDP() / Raw(bytes(MTU - 28)),
        expected=TO_ROUTER / lan4(ttl=63) / UDP() / Raw(bytes(MTU - 28)),
    ),
    Forwarded(
        name="decrypted by the NIC",
        frame=FROM_ROUTER / IP(src="10.2.0.9", dst="10.1.0.9", ttl=60) / UDP() / DATA,
        expected=TO_HOST / IP(src="10.2.0.9", dst="10.1.0.9", ttl=59) / UDP() / DATA,
        device="beyond",
    ),
    Forwarded(
        name="a SYN from the NIC, whose answers must fit into the tunnel",
        frame=FROM_ROUTER / IP(src="10.2.0.9", dst="10.1.0.9", ttl=60) / TCP(flags="S", options=mss(1460)),
        expected=TO_HOST / IP(src="10.2.0.9", dst="10.1.0.9", ttl=59) / TCP(flags="S", options=mss(MTU - 40)),
        device="beyond",
    ),
    Forwarded(
        name="decrypted by the NIC for a VLAN",
        frame=FROM_ROUTER / IP(src="10.2.0.9", dst="10.1.7.9", ttl=60) / UDP() / DATA,
        expected=TO_HOST / Dot1Q(vlan=7) / IP(src="10.2.0.9", dst="10.1.7.9", ttl=59) / UDP() / DATA,
        device="beyond",
    ),
    Forwarded(
        name="decrypted by the NIC over IPv6",
        frame=FROM_ROUTER / IPv6(src="2001:db8:2::9", dst="2001:db8:1::9", hlim=60) / UDP() / DATA,
        expected=TO_HOST / IPv6(src="2001:db8:2::9", dst="2001:db8:1::9", hlim=59) / UDP() / DATA,
        device="beyond",
    ),
    Forwarded(
        name="a SYN from the NIC where the way back is not known",
        frame=FROM_ROUTER
        / IPv6(src="2001:db8:2::9", dst="2001:db8:1::9", hlim=60)
        / TCP(flags="S", options=mss(8940)),
        expected=TO_HOST
        / IPv6(src="2001:db8:2::9", dst="2001:db8:1::9", hlim=59)
        / TCP(flags="S", options=mss(1440)),
        device="beyond",
    ),
    Forwarded(
        name="a SYN from the NIC to a link that is narrower than the tunnel",
        frame=FROM_ROUTER / IP(src="10.2.0.9", dst="10.1.9.9", ttl=60) / TCP(flags="S", options=mss(1460)),
        expected=TO_HOST / IP(src="10.2.0.9", dst="10.1.9.9", ttl=59) / TCP(flags="S", options=mss(1260)),
        device="beyond",
    ),
    Forwarded(
        name="the largest that fits the LAN",
        frame=FROM_ROUTER / IP(src="10.2.0.9", dst="10.1.0.9", ttl=60) / UDP() / Raw(bytes(1472)),
        expected=TO_HOST / IP(src="10.2.0.9", dst="10.1.0.9", ttl=59) / UDP() / Raw(bytes(1472)),
        device="beyond",
    ),
)


@pytest.mark.parametrize("row", FORWARDED, ids=str)
def test_a_packet_is_forwarded_as_a_router_would(forward: LoadedObject, row: Forwarded) -> None:
    done, reason = send(forward, row.frame, row.device)

    expected = Exit.FORWARDED if row.device == "outside" else Exit.FORWARDED_IN
    assert (Verdict(done.verdict), reason) == (Verdict.REDIRECT, expected)
    assert done.frame == bytes(row.expected)


def back(packet: Packet) -> Packet:
    """Return a frame that comes from the NIC's side."""
    return FROM_ROUTER / packet


OTHERS = (
    to_stack("ARP", link() / ARP(), Exit.NOT_IP),
    to_stack("to another link address", Ether(dst=THEIR_MAC) / lan4() / UDP(), Exit.NOT_OURS),
    to_stack("on another VLAN", link(vlans=[8]) / lan4() / UDP(), Exit.NOT_OURS),
    to_stack("behind two VLAN tags", link(vlans=[7, 8]) / lan4() / UDP(), Exit.NOT_PLAIN),
    to_stack("multicast", link() / lan4("224.0.0.9") / UDP(), Exit.LINK_LOCAL),
    to_stack("neighbour discovery", link() / lan6(hlim=255) / ICMPv6ND_NS(), Exit.LINK_LOCAL),
    to_stack("IPv4 options", link() / lan4(options=[IPOption_Timestamp()]) / UDP(), Exit.NOT_PLAIN),
    to_stack("a hop-by-hop header", link() / lan6() / IPv6ExtHdrHopByHop() / UDP(), Exit.NOT_PLAIN),
    to_stack("TTL 1", link() / lan4(ttl=1) / UDP(), Exit.TTL),
    to_stack("hop limit 0", link() / lan6(hlim=0) / UDP(), Exit.TTL),
    to_stack("PROTECT by the kernel", link() / lan4("10.3.0.9") / UDP(), Exit.STACK_PROTECTS),
    to_stack("BYPASS", link() / lan4("10.4.0.9") / UDP(), Exit.BYPASS),
    drop("DISCARD", link() / lan4("10.5.0.9") / UDP(), DropReason.POLICY_DISCARD),
    to_stack("no entry", link() / lan4("10.8.0.9") / UDP(), Exit.NO_ENTRY),
    to_stack("to an address of ours", link() / lan4("10.2.0.1") / UDP(), Exit.NOT_OURS),
    to_stack("of an SA that the kernel has no more", link() / lan4("10.10.0.9") / UDP(), Exit.SA_GONE),
    to_stack("of an SA that was withdrawn", link() / lan4("10.11.0.9") / UDP(), Exit.SA_GONE),
    to_stack("a first fragment", link() / lan4(flags="MF") / UDP() / DATA, Exit.NOT_PLAIN),
    to_stack("a later fragment", link() / lan4(frag=7, proto=17) / DATA, Exit.NOT_PLAIN),
    to_stack("a fragment over IPv6", link() / lan6() / IPv6ExtHdrFragment(m=1) / UDP(), Exit.NOT_PLAIN),
    to_stack("too big without DF", link() / lan4() / UDP() / Raw(bytes(1420)), Exit.NEEDS_FRAGMENTS),
    drop("cut", link() / lan4(len=90) / UDP(), DropReason.MALFORMED),
)
FROM_THE_NIC = (
    to_stack("no next hop", back(IP(src="10.9.0.9", dst="10.8.0.9") / UDP()), Exit.NO_NEXT_HOP),
    to_stack(
        "what the NIC may have let in in clear",
        back(IP(src="10.13.0.9", dst="10.1.0.9") / UDP()),
        Exit.STACK_PROTECTS,
    ),
    to_stack(
        "of an SA that the kernel has no more",
        back(IP(src="10.10.0.9", dst="10.1.0.9") / UDP()),
        Exit.SA_GONE,
    ),
    to_stack("of an SA that was withdrawn", back(IP(src="10.11.0.9", dst="10.1.0.9") / UDP()), Exit.SA_GONE),
    to_stack(
        "of an SA of another NIC", back(IP(src="10.12.0.9", dst="10.1.0.9") / UDP()), Exit.STACK_PROTECTS
    ),
    to_stack("to where the stack sends", back(IP(src="10.2.0.9", dst="10.1.8.9") / UDP()), Exit.NO_NEXT_HOP),
    to_stack(
        "too big for the LAN",
        back(IP(src="10.2.0.9", dst="10.1.9.9", flags="DF") / UDP() / Raw(bytes(1300))),
        Exit.NEEDS_FRAGMENTS,
    ),
    to_stack(
        "too big for the LAN over IPv6",
        back(IPv6(src="2001:db8:2::9", dst="2001:db8:1::9") / UDP() / Raw(bytes(1460))),
        Exit.NEEDS_FRAGMENTS,
    ),
    to_stack("TTL 1", back(IP(src="10.2.0.9", dst="10.1.0.9", ttl=1) / UDP()), Exit.TTL),
    to_stack(
        "a fragment", back(IP(src="10.2.0.9", dst="10.1.0.9", flags="MF") / UDP() / DATA), Exit.NOT_PLAIN
    ),
    to_stack(
        "to another link address",
        Ether(dst=THEIR_MAC, src=ROUTER_MAC) / IP(src="10.2.0.9", dst="10.1.0.9") / UDP(),
        Exit.NOT_OURS,
    ),
    to_stack("to an address of ours", back(IP(src="10.2.0.9", dst="10.1.0.1") / UDP()), Exit.NOT_OURS),
    to_stack("ESP", back(IP(src="192.0.2.2", dst="192.0.2.1", proto=50) / DATA), Exit.IPSEC),
    to_stack("IKE", back(IP(src="192.0.2.2", dst="192.0.2.1") / UDP(dport=500) / DATA), Exit.IPSEC),
    to_stack("PROTECT by the kernel", back(IP(src="10.3.0.9", dst="10.1.0.9") / UDP()), Exit.STACK_PROTECTS),
    to_stack("no entry", back(IP(src="198.51.100.1", dst="10.1.0.9") / UDP()), Exit.NO_ENTRY),
    drop("DISCARD", back(IP(src="10.5.0.9", dst="10.1.0.9") / UDP()), DropReason.POLICY_DISCARD),
)


@pytest.mark.parametrize("row", OTHERS, ids=str)
def test_what_is_not_forwarded_from_the_lan(forward: LoadedObject, row: Row) -> None:
    done, reason = send(forward, row.frame)

    assert (Verdict(done.verdict), reason) == (row.verdict, row.reason)
    assert done.frame == bytes(row.frame)


@pytest.mark.parametrize("row", FROM_THE_NIC, ids=str)
def test_what_is_not_forwarded_from_the_nic(forward: LoadedObject, row: Row) -> None:
    done, reason = send(forward, row.frame, "beyond")

    assert (Verdict(done.verdict), reason) == (row.verdict, row.reason)
    assert done.frame == bytes(row.frame)


@pytest.mark.parametrize("vlans", [[], [7]], ids=["untagged", "tagged"])
def test_too_big_with_df_is_answered(forward: LoadedObject, vlans: list[int]) -> None:
    packet = lan4(flags="DF", id=7) / UDP() / Raw(bytes(range(256)) * 6)

    done, reason = send(forward, link(vlans=vlans) / packet)

    assert (Verdict(done.verdict), reason) == (Verdict.TX, DropReason.TOO_BIG)
    quoted = Raw(bytes(packet)[:512])
    tags = link(vlans=vlans).payload
    error = (
        IP(src="10.1.0.1", dst="10.1.0.9", tos=0xC0, id=0, ttl=64)
        / ICMP(type=3, code=4, nexthopmtu=MTU)
        / quoted
    )
    header = Ether(dst=THEIR_MAC, src=OUR_MAC)
    assert done.frame == bytes(header / tags / error if vlans else header / error)


def test_too_big_over_ipv6_is_answered(forward: LoadedObject) -> None:
    packet = lan6() / UDP() / Raw(bytes(range(256)) * 6)

    done, reason = send(forward, link() / packet)

    assert (Verdict(done.verdict), reason) == (Verdict.TX, DropReason.TOO_BIG)
    quoted = Raw(bytes(packet)[:1232])
    error = IPv6(src="2001:db8:1::1", dst="2001:db8:1::9", hlim=64) / ICMPv6PacketTooBig(mtu=MTU) / quoted
    assert done.frame == bytes(Ether(dst=THEIR_MAC, src=OUR_MAC) / error)


@pytest.mark.parametrize(
    "packet",
    [
        lan4(flags="DF") / ICMP(type=3, code=4) / Raw(bytes(1420)),
        lan6() / ICMPv6PacketTooBig() / Raw(bytes(1420)),
        IP(src="127.0.0.1", dst="10.2.0.9", flags="DF") / UDP() / Raw(bytes(1420)),
    ],
    ids=["about an ICMP error", "about an ICMPv6 error", "from a loopback address"],
)
def test_no_error_is_sent(forward: LoadedObject, packet: Packet) -> None:
    done, reason = send(forward, link() / packet)

    assert (Verdict(done.verdict), reason) == (Verdict.DROP, DropReason.TOO_BIG)


def test_no_error_is_sent_where_we_have_no_address(sad: KernelSad) -> None:
    with loaded_program("xdp_forward") as loaded:
        lan, unset = socket.if_nametoindex("outside"), ip_address("::")
        SpdMaps(loaded.maps).publish(compile_spd(POLICIES, offloaded=OFFLOADED))
        PORTS.of(loaded.maps).set(
            PortKey(ifindex=lan), Port(address4=unset, address6=unset, mac=octets(OUR_MAC), side=Side.LAN)
        )
        OFFLOADED_SAS.of(loaded.maps).set(Word(1), sas_of(lan)[1])
        LEASE.of(loaded.maps).set(Word(0), Word(FOREVER_NS))

        done, reason = send(loaded, link() / lan4(flags="DF") / UDP() / Raw(bytes(1460)))

    assert (Verdict(done.verdict), reason) == (Verdict.DROP, DropReason.TOO_BIG)


def test_errors_are_limited(sad: KernelSad) -> None:
    packet = lan4(flags="DF") / UDP() / Raw(bytes(1460))
    with loaded_program("xdp_forward", gw_error_interval_ns=3600 * 10**9) as loaded:
        lan = socket.if_nametoindex("outside")
        SpdMaps(loaded.maps).publish(compile_spd(POLICIES, offloaded=OFFLOADED))
        PORTS.of(loaded.maps).set(
            PortKey(ifindex=lan),
            Port(
                address4=ip_address("10.1.0.1"), address6=ip_address("::"), mac=octets(OUR_MAC), side=Side.LAN
            ),
        )
        OFFLOADED_SAS.of(loaded.maps).set(Word(1), sas_of(lan)[1])
        LEASE.of(loaded.maps).set(Word(0), Word(FOREVER_NS))
        verdicts = [Verdict(send(loaded, link() / packet)[0].verdict) for _ in range(8)]

    # One for each CPU that the test ran on.
    assert 1 <= verdicts.count(Verdict.TX) <= 2
    assert verdicts.count(Verdict.DROP) == 8 - verdicts.count(Verdict.TX)


@pytest.mark.parametrize("length", range(1, 44))
def test_tcp_options_of_any_kind_leave_the_packet_whole(forward: LoadedObject, length: int) -> None:
    """Options that lie about their length are left as they are."""
    options = bytes((2, length, 5, 0xB4)) + bytes((9, 0)) * 18
    packet = bytes(link() / lan4(ttl=64) / TCP(flags="S", dataofs=15) / Raw(options))

    done, reason = send(forward, packet)

    changed = [at for at, (old, new) in enumerate(zip(packet, done.frame, strict=True)) if old != new]
    assert reason is Exit.FORWARDED
    allowed = {*range(12), 22, 24, 25} | ({56, 57, 50, 51} if length == 4 else set())
    assert set(changed) <= allowed


@pytest.mark.parametrize("row", [row for row in FORWARDED if row.device == "outside"], ids=str)
def test_a_frame_cut_anywhere_is_malformed(forward: LoadedObject, row: Forwarded) -> None:
    whole = bytes(row.frame)

    reasons = {send(forward, whole[:length])[1] for length in range(14, min(len(whole), 120))}

    assert reasons == {DropReason.MALFORMED}


# --- what stops it ----------------------------------------------------------------------------------


def test_nothing_is_forwarded_before_the_agent_said_anything(sad: KernelSad) -> None:
    with loaded_program("xdp_forward") as loaded:
        lan = socket.if_nametoindex("outside")
        unset = ip_address("::")
        PORTS.of(loaded.maps).set(
            PortKey(ifindex=lan), Port(address4=unset, address6=unset, mac=octets(OUR_MAC), side=Side.LAN)
        )
        SpdMaps(loaded.maps).publish(compile_spd(POLICIES, offloaded=OFFLOADED))
        OFFLOADED_SAS.of(loaded.maps).set(Word(1), sas_of(lan)[1])

        done, reason = send(loaded, link() / lan4() / UDP())

    assert (Verdict(done.verdict), reason) == (Verdict.PASS, Exit.LEASE_OVER)


@pytest.mark.parametrize(
    ("frame", "device"),
    [
        (link() / lan4() / UDP(), "outside"),
        (FROM_ROUTER / IP(src="10.2.0.9", dst="10.1.0.9") / UDP(), "beyond"),
    ],
    ids=["from the LAN", "from the NIC"],
)
def test_a_lease_that_is_over_ends_forwarding(forward: LoadedObject, frame: Packet, device: str) -> None:
    lease = LEASE.of(forward.maps)
    lease.set(Word(0), Word(time.monotonic_ns() - 1))
    try:
        done, reason = send(forward, frame, device)
    finally:
        lease.set(Word(0), Word(FOREVER_NS))

    assert (Verdict(done.verdict), reason) == (Verdict.PASS, Exit.LEASE_OVER)
    assert send(forward, frame, device)[1] in (Exit.FORWARDED, Exit.FORWARDED_IN)


FROM_PEER = back(IP(src="10.2.0.9", dst="10.1.0.9") / UDP())
FROM_PEER6 = back(IPv6(src="2001:db8:2::9", dst="2001:db8:1::9") / UDP())


@pytest.mark.parametrize(
    ("sa", "frame", "device"),
    [
        ((PEER, SPI), link() / lan4() / UDP(), "outside"),
        ((PEER6, SPI6), link() / lan6() / UDP(), "outside"),
        ((OURS, IN), FROM_PEER, "beyond"),
        ((OURS6, IN6), FROM_PEER6, "beyond"),
    ],
    ids=["IPv4", "IPv6", "from the NIC over IPv4", "from the NIC over IPv6"],
)
def test_the_packet_after_the_kernel_gave_up_the_sa_goes_to_the_stack(
    forward: LoadedObject, sad: KernelSad, sa: tuple[IpAddress, int], frame: Packet, device: str
) -> None:
    assert send(forward, frame, device)[1] in (Exit.FORWARDED, Exit.FORWARDED_IN)

    sad.remove(*sa)
    try:
        done, reason = send(forward, frame, device)
    finally:
        sad.add(*sa)

    assert (Verdict(done.verdict), reason) == (Verdict.PASS, Exit.SA_GONE)
    assert done.frame == bytes(frame)
