"""`xdp_inbound`: frames in, verdict and reason out."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_Timestamp
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6MLReport2,
    ICMPv6ND_NS,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP
from scapy.packet import Packet, Raw

from gateway.host.bpf.abi import EVENT, LOCALS, SAS, Exit, InboundSa, Local, Owner, Spi, Word
from gateway.host.bpf.objects import LoadedObject
from gateway.host.bpf.ringbuf import RingReader
from gateway.host.bpf.spd import SpdMaps, compile_spd
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.policy import Action
from tests.ebpf.program_table import Row, Verdict, drop, engine, link, loaded_program, policy, run, to_stack
from tests.ebpf.xsk import receiver

US4, US6, PEER4, PEER6 = "192.0.2.1", "2001:db8::1", "192.0.2.2", "2001:db8::2"
SECOND_NS = 1_000_000_000


POLICIES = (
    policy("lan", Action.PROTECT, "10.1.0.0/16", "10.2.0.0/16"),
    policy("lan6", Action.PROTECT, "2001:db8:1::/48", "2001:db8:2::/48"),
    policy("bgp", Action.BYPASS, "10.1.0.0/16[tcp/179]", "10.2.0.0/16", priority=10),
    policy("dns", Action.PROTECT, "10.5.0.0/16[udp/53]", "10.6.0.0/16"),
    policy("bad", Action.DISCARD, "10.0.0.0/8", "10.66.0.0/16"),
    policy("host", Action.PROTECT, US4, PEER4),
)


def fill(loaded: LoadedObject) -> None:
    sas = SAS.of(loaded.maps)
    us4, us6 = ip_address(US4), ip_address(US6)
    sas.set(Spi(0x1001), InboundSa(destination=us4, protocol=50))
    sas.set(Spi(0x1002), InboundSa(destination=us4, protocol=51))
    sas.set(Spi(0x1003), InboundSa(destination=us6, protocol=50))
    sas.set(Spi(0x1004), InboundSa(destination=us6, protocol=51))
    sas.set(Spi(0x2001), InboundSa(destination=us4, protocol=50, owner=Owner.STACK))
    for address in (us4, us6):
        LOCALS.of(loaded.maps).set(Local(address), Word(1))
    SpdMaps(loaded.maps).publish(compile_spd(POLICIES))


@pytest.fixture(scope="module")
def inbound() -> Iterator[LoadedObject]:
    """The program with an engine behind queue 0 of every interface."""
    with loaded_program("xdp_inbound") as loaded, receiver() as socket:
        fill(loaded)
        loaded.maps["gw_xsks"].update(bytes(4), socket.value)
        yield loaded


def ip4(**fields: object) -> Packet:
    return link() / IP(src=PEER4, dst=US4, **fields)


def ip6(**fields: object) -> Packet:
    return link() / IPv6(src=PEER6, dst=US6, **fields)


def esp(spi: int, length: int = 40) -> Raw:
    return Raw(spi.to_bytes(4, "big") + (1).to_bytes(4, "big") + bytes(length))


def ah(spi: int) -> Raw:
    return Raw(bytes((59, 4, 0, 0)) + spi.to_bytes(4, "big") + (1).to_bytes(4, "big") + bytes(12))


def ike(exchange: int = 34, flags: int = 0x08, responder_spi: bytes = bytes(8)) -> Raw:
    return Raw(
        b"\1" * 8 + responder_spi + bytes((33, 0x20, exchange, flags)) + bytes(4) + (28).to_bytes(4, "big")
    )


def clear4(**fields: object) -> Packet:
    return link() / IP(src="10.2.0.9", dst="10.1.0.9", **fields)


MARKER = Raw(bytes(4))
NAT_T = UDP(sport=4500, dport=4500, chksum=0)
ROWS = (
    # --- to the engine
    engine("ESP over IPv4", ip4(proto=50) / esp(0x1001)),
    engine("AH over IPv4", ip4(proto=51) / ah(0x1002)),
    engine("ESP over IPv6", ip6(nh=50) / esp(0x1003)),
    engine("AH over IPv6", ip6(nh=51) / ah(0x1004)),
    engine("ESP in UDP", ip4() / NAT_T / esp(0x1001)),
    engine("ESP in UDP over IPv6", ip6() / NAT_T / esp(0x1003)),
    engine("ESP behind one VLAN tag", link(vlans=[7]) / IP(src=PEER4, dst=US4, proto=50) / esp(0x1001)),
    engine("ESP behind two VLAN tags", link(vlans=[7, 8]) / IP(src=PEER4, dst=US4, proto=50) / esp(0x1001)),
    engine("ESP behind IPv4 options", ip4(proto=50, options=[IPOption_Timestamp()]) / esp(0x1001)),
    engine(
        "ESP behind extension headers",
        ip6() / IPv6ExtHdrHopByHop() / IPv6ExtHdrRouting() / IPv6ExtHdrDestOpt(nh=50) / esp(0x1003),
    ),
    engine("ESP in an atomic fragment", ip6() / IPv6ExtHdrFragment(nh=50, offset=0, m=0) / esp(0x1003)),
    engine("the shortest ESP", ip4(proto=50) / esp(0x1001, 0)),
    # --- SPIs that are not the engine's
    to_stack("ESP of the kernel", ip4(proto=50) / esp(0x2001), Exit.STACK_SA),
    to_stack("an unknown SPI", ip4(proto=50) / esp(0x9999), Exit.STRANGE_SPI),
    to_stack("the SPI of an AH SA in ESP", ip4(proto=50) / esp(0x1002), Exit.STRANGE_SPI),
    to_stack("an SPI to another address", ip6(nh=50) / esp(0x1001), Exit.STRANGE_SPI),
    drop("ESP without a sequence number", ip4(proto=50) / Raw(bytes(7)), DropReason.MALFORMED),
    drop("AH without a sequence number", ip4(proto=51) / Raw(bytes(11)), DropReason.MALFORMED),
    drop("three octets in UDP", ip4() / NAT_T / Raw(bytes(3)), DropReason.MALFORMED),
    drop("an SPI in UDP and no more", ip4() / NAT_T / Raw(b"\0\0\x10\1"), DropReason.MALFORMED),
    # --- IKE and what belongs to it
    to_stack("IKE on 500", ip4() / UDP(sport=500, dport=500) / ike(), Exit.IKE),
    to_stack("IKE on 4500", ip4() / NAT_T / MARKER / ike(), Exit.IKE),
    to_stack("IKE over IPv6", ip6() / UDP(sport=500, dport=500) / ike(), Exit.IKE),
    to_stack("IKE too short for a header", ip4() / UDP(sport=500, dport=500) / Raw(b"x"), Exit.IKE),
    to_stack("a NAT keepalive", ip4() / NAT_T / Raw(b"\xff"), Exit.KEEPALIVE),
    to_stack("an ICMP error for us", ip4() / ICMP(type=3, code=4) / Raw(bytes(28)), Exit.ICMP_ERROR),
    to_stack("an ICMPv6 error for us", ip6() / ICMPv6PacketTooBig() / Raw(bytes(48)), Exit.ICMP_ERROR),
    to_stack("a fragment of ESP", ip4(proto=50, flags="MF") / esp(0x1001), Exit.LOCAL_FRAGMENT),
    to_stack("a later fragment for us", ip4(proto=50, frag=5) / Raw(bytes(64)), Exit.LOCAL_FRAGMENT),
    to_stack(
        "a later IPv6 fragment for us",
        ip6() / IPv6ExtHdrFragment(nh=50, offset=5) / Raw(bytes(64)),
        Exit.LOCAL_FRAGMENT,
    ),
    # --- what a link needs
    to_stack("ARP", link() / ARP(), Exit.NOT_IP),
    to_stack(
        "neighbour discovery", link() / IPv6(src=PEER6, dst=US6, hlim=255) / ICMPv6ND_NS(), Exit.LINK_LOCAL
    ),
    to_stack(
        "neighbour discovery in a protected range",
        link() / IPv6(src="2001:db8:2::9", dst="2001:db8:1::9", hlim=255) / ICMPv6ND_NS(),
        Exit.LINK_LOCAL,
    ),
    drop(
        "neighbour discovery that crossed a router",
        link() / IPv6(src="2001:db8:2::9", dst="2001:db8:1::9", hlim=254) / ICMPv6ND_NS(),
        DropReason.CLEAR_INBOUND,
    ),
    to_stack(
        "listener discovery",
        link() / IPv6(src="fe80::2", dst="ff02::16", hlim=1) / ICMPv6MLReport2(),
        Exit.LINK_LOCAL,
    ),
    # --- in clear
    drop("clear TCP that wants PROTECT", clear4() / TCP(), DropReason.CLEAR_INBOUND),
    drop("clear ICMP that wants PROTECT", clear4() / ICMP(), DropReason.CLEAR_INBOUND),
    drop(
        "a clear fragment that wants PROTECT",
        clear4(frag=9, proto=6) / Raw(bytes(64)),
        DropReason.CLEAR_INBOUND,
    ),
    drop(
        "clear TCP that wants PROTECT behind options",
        clear4(options=[IPOption_Timestamp()]) / TCP(),
        DropReason.CLEAR_INBOUND,
    ),
    drop(
        "clear TCP that wants PROTECT on a VLAN",
        link(vlans=[5]) / IP(src="10.2.0.9", dst="10.1.0.9") / TCP(),
        DropReason.CLEAR_INBOUND,
    ),
    drop(
        "clear IPv6 that wants PROTECT",
        link() / IPv6(src="2001:db8:2::9", dst="2001:db8:1::9") / ICMPv6EchoRequest(),
        DropReason.CLEAR_INBOUND,
    ),
    drop("transit ESP that wants PROTECT", clear4(proto=50) / esp(0x1001), DropReason.CLEAR_INBOUND),
    drop("clear ping from a peer protected host to host", ip4() / ICMP(), DropReason.CLEAR_INBOUND),
    to_stack("BGP that may pass", clear4() / TCP(sport=4000, dport=179), Exit.BYPASS),
    drop("BGP the other way round", clear4() / TCP(sport=179, dport=4000), DropReason.CLEAR_INBOUND),
    drop("a DISCARD entry", link() / IP(src="10.66.1.1", dst="10.1.0.9") / TCP(), DropReason.POLICY_DISCARD),
    drop(
        "DNS that wants PROTECT",
        link() / IP(src="10.6.0.1", dst="10.5.0.1") / UDP(sport=9, dport=53),
        DropReason.CLEAR_INBOUND,
    ),
    to_stack(
        "UDP beside DNS", link() / IP(src="10.6.0.1", dst="10.5.0.1") / UDP(sport=9, dport=54), Exit.NO_ENTRY
    ),
    drop(
        "a later fragment that could be DNS",
        link() / IP(src="10.6.0.1", dst="10.5.0.1", proto=17, frag=3) / Raw(bytes(32)),
        DropReason.CLEAR_INBOUND,
    ),
    to_stack(
        "a later fragment that cannot be DNS",
        link() / IP(src="10.6.0.1", dst="10.5.0.1", proto=6, frag=3) / Raw(bytes(32)),
        Exit.NO_ENTRY,
    ),
    to_stack("nothing of ours", link() / IP(src="198.51.100.1", dst="203.0.113.1") / TCP(), Exit.NO_ENTRY),
    # --- malformed
    drop("IPv4 with a header of 16", clear4(ihl=4), DropReason.MALFORMED),
    drop("IPv4 with version 5", clear4(version=5), DropReason.MALFORMED),
    drop("IPv4 longer than the frame", clear4(len=200) / TCP(), DropReason.MALFORMED),
    drop("IPv4 shorter than its header", clear4(len=19) / TCP(), DropReason.MALFORMED),
    drop("IPv6 longer than the frame", ip6(plen=200) / ICMPv6EchoRequest(), DropReason.MALFORMED),
    drop("IPv6 shorter than its headers", ip6(plen=4) / IPv6ExtHdrDestOpt() / TCP(), DropReason.MALFORMED),
    drop("an IPv6 jumbogram", ip6(plen=0) / IPv6ExtHdrHopByHop() / TCP(), DropReason.MALFORMED),
    drop("three VLAN tags", link(vlans=[1, 2, 3]) / IP() / TCP(), DropReason.UNSUPPORTED),
    drop(
        "eleven extension headers",
        ip6(nh=60) / Raw(bytes((60, 0, 1, 4, 0, 0, 0, 0)) * 11),
        DropReason.UNSUPPORTED,
    ),
)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_frame_ends_as_the_table_says(inbound: LoadedObject, row: Row) -> None:
    done, reason = run(inbound, row.frame)

    assert (Verdict(done.verdict), reason) == (row.verdict, row.reason)
    assert done.frame == bytes(row.frame)


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.reason in (Exit.ENGINE, DropReason.CLEAR_INBOUND)], ids=str
)
def test_a_frame_cut_anywhere_is_malformed(inbound: LoadedObject, row: Row) -> None:
    whole = bytes(row.frame)

    reasons = {run(inbound, whole[:length])[1] for length in range(14, len(whole))}

    assert reasons == {DropReason.MALFORMED}


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_octets_behind_the_packet_change_nothing(inbound: LoadedObject, row: Row) -> None:
    """A link pads short frames."""
    done, reason = run(inbound, bytes(row.frame) + b"\xff" * 20)

    assert (Verdict(done.verdict), reason) == (row.verdict, row.reason)


# --- what depends on more than the frame ----------------------------------------------------------


@contextmanager
def load_inbound(**constants: int) -> Iterator[LoadedObject]:
    """Load the program with constants of its own, and fill its maps."""
    with loaded_program("xdp_inbound", **constants) as loaded:
        fill(loaded)
        yield loaded


def test_without_a_socket_of_the_engine_its_packets_are_dropped() -> None:
    with load_inbound() as loaded:
        done, reason = run(loaded, ip4(proto=50) / esp(0x1001))

    assert (Verdict(done.verdict), reason) == (Verdict.DROP, DropReason.NO_ENGINE)


def test_unknown_spis_are_dropped_when_told_so() -> None:
    with load_inbound(gw_drop_unknown_spi=1) as loaded:
        done, reason = run(loaded, ip4(proto=50) / esp(0x9999))

    assert (Verdict(done.verdict), reason) == (Verdict.DROP, DropReason.UNKNOWN_SPI)


def test_an_unknown_spi_is_told_with_its_addresses() -> None:
    with load_inbound(gw_event_interval_ns=1) as loaded:
        events = RingReader(loaded.maps["gw_events"])

        run(loaded, ip6() / NAT_T / esp(0x9999))
        (event,) = [EVENT.decode(record) for record in events.read()]
        events.close()

    assert (event.source, event.destination) == (ip_address(PEER6), ip_address(US6))
    assert (event.spi, event.protocol, event.ifindex, event.suppressed) == (0x9999, 50, 1, 0)


@pytest.fixture
def one_cpu() -> Iterator[None]:
    """Stay on one CPU: what is counted for each CPU is then one number."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    yield
    os.sched_setaffinity(0, allowed)


def test_of_many_unknown_spis_a_sample_is_told(one_cpu: None) -> None:
    with load_inbound(gw_event_interval_ns=3600 * SECOND_NS) as loaded:
        events = RingReader(loaded.maps["gw_events"])

        for spi in range(0x9000, 0x9064):
            run(loaded, ip4(proto=50) / esp(spi))
        told = [EVENT.decode(record) for record in events.read()]
        events.close()

    assert [event.spi for event in told] == [0x9000]


def test_what_was_suppressed_is_told_with_the_next_event(one_cpu: None) -> None:
    """Here events are suppressed because the ring is full."""
    with load_inbound(gw_event_interval_ns=1) as loaded:
        ring = loaded.maps["gw_events"]
        events = RingReader(ring)
        room = ring.spec.max_entries // (8 + EVENT.size)
        program = loaded.programs["gw_inbound"]

        program.test_run(bytes(ip4(proto=50) / esp(0x9999)), repeat=room + 5)
        before = [EVENT.decode(record) for record in events.read()]
        program.test_run(bytes(ip4(proto=50) / esp(0x9999)), repeat=200)
        after = [EVENT.decode(record) for record in events.read()]
        events.close()

    lost = room + 5 - len(before)
    assert lost >= 5
    assert sum(event.suppressed for event in before) == 0
    assert [event.suppressed for event in after][:2] == [lost, 0]


def guarded() -> AbstractContextManager[LoadedObject]:
    """Allow three IKE_SA_INIT requests at once, and then one an hour."""
    hour_ns = 3600 * SECOND_NS
    return load_inbound(gw_ike_interval_ns=hour_ns, gw_ike_tolerance_ns=2 * hour_ns)


def ike_from(source: str, payload: Raw | None = None) -> Packet:
    network = IP(src=source, dst=US4) if "." in source else IPv6(src=source, dst=US6)
    return link() / network / UDP(sport=500, dport=500) / (payload or ike())


def test_ike_sa_init_is_limited_for_each_prefix_of_24_bits() -> None:
    with guarded() as loaded:
        from_one = [run(loaded, ike_from(f"198.51.100.{host}"))[1] for host in range(5)]
        from_another = run(loaded, ike_from("198.51.101.1"))[1]

    assert from_one == [Exit.IKE] * 3 + [DropReason.IKE_RATE_LIMIT] * 2
    assert from_another is Exit.IKE


def test_ike_sa_init_over_ipv6_is_limited_for_each_prefix_of_56_bits() -> None:
    with guarded() as loaded:
        from_one = [run(loaded, ike_from(f"2001:db8:5:{subnet:x}::1"))[1] for subnet in range(5)]
        from_another = run(loaded, ike_from("2001:db8:5:100::1"))[1]

    assert from_one == [Exit.IKE] * 3 + [DropReason.IKE_RATE_LIMIT] * 2
    assert from_another is Exit.IKE


def test_ike_sa_init_on_port_4500_is_limited_too() -> None:
    with guarded() as loaded:
        frame = link() / IP(src="198.51.100.1", dst=US4) / NAT_T / MARKER / ike()
        reasons = [run(loaded, frame)[1] for _ in range(4)]

    assert reasons == [Exit.IKE] * 3 + [DropReason.IKE_RATE_LIMIT]


@pytest.mark.parametrize(
    "payload",
    [ike(responder_spi=b"\2" * 8), ike(flags=0x20), ike(exchange=35, responder_spi=b"\2" * 8)],
    ids=["of an IKE SA", "response", "IKE_AUTH"],
)
def test_other_ike_messages_are_not_limited(payload: Raw) -> None:
    with guarded() as loaded:
        reasons = {run(loaded, ike_from("198.51.100.1", payload))[1] for _ in range(5)}

    assert reasons == {Exit.IKE}


def test_the_rate_recovers() -> None:
    """With an interval of a nanosecond every request is on time."""
    with load_inbound(gw_ike_interval_ns=1) as loaded:
        reasons = {run(loaded, ike_from("198.51.100.1"))[1] for _ in range(5)}

    assert reasons == {Exit.IKE}
