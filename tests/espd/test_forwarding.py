"""espd as a router: a host's wire inside, the peer's outside, and no kernel between them.

lan1 (the test: a host) ═══ lan0 ── AF_PACKET ── espd ── AF_PACKET ── outside ═══ beyond (the test: the peer)
"""

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import ICMPv6PacketTooBig, ICMPv6TimeExceeded, IPv6
from scapy.packet import Packet, Raw

from gateway.datapath.engine import protocol as p
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.sa import UdpEncapsulation
from tests.conformance.namespace import neighbour
from tests.espd.client import Client
from tests.espd.machine import (
    IN,
    INNER,
    LOCAL,
    OUT,
    OUTER,
    POLICY,
    REMOTE,
    TUNNEL,
    Machine,
    Peer,
    inbound,
    ip,
    load_pair,
    open_outer,
    open_packet,
    opener,
    outbound,
    sealer,
)

LAN = 3
ROUTER = {4: "10.1.0.254", 6: "fd00:1::fe"}
PATH_MTU = 1500


@dataclass
class Router:
    """A configured espd between two wires."""

    client: Client
    host: Peer
    peer: Peer


def open_lan(client: Client, *, queues: int = 1) -> None:
    """Lay the wire to the host, and give it to espd."""
    ip("link", "add", "lan0", "type", "veth", "peer", "name", "lan1")
    for device in ("lan0", "lan1"):
        ip("link", "set", device, "addrgenmode", "none")
        ip("link", "set", device, "up")
    client.set_device(lan_device(queues=queues))
    for version, prefix in ((4, "10.1.0.0/16"), (6, "fd00:1::/64")):
        client.set_route(prefix, p.RouteKind.FORWARD, device=LAN)
        client.set_neighbour(LAN, INNER[version][0], neighbour("lan1"))


def lan_device(addresses: Mapping[int, str] = ROUTER, *, mtu: int = 1500, queues: int = 1) -> p.Device:
    """Return the wire to the host, as a device; by IP version, what addresses espd has there."""
    message = p.Device(
        device=LAN,
        ifindex=socket.if_nametoindex("lan0"),
        name=b"lan0",
        flags=p.DeviceFlag.CLEAR,
        mtu=mtu,
        queues=queues,
    )
    message.mac[:] = neighbour("lan0")
    message.receive_methods[0] = message.send_methods[0] = p.IoKind.PACKET
    for version, field in ((4, message.address4), (6, message.address6)):
        if version in addresses:
            field[:] = ip_address(addresses[version]).packed
    return message


@contextmanager
def routing(machine: Machine, *, workers: int = 1, outside_flags: int = 0) -> Iterator[Router]:
    """Make a router of espd."""
    client = machine.client
    client.hello()
    client.configure(workers=workers)
    open_lan(client)
    open_packet(client, p.DeviceFlag.PROTECTED | outside_flags)
    host = Peer("lan1", "lan0")
    yield Router(client, host, machine.peer)
    host.close()


@pytest.fixture
def router(machine: Machine) -> Iterator[Router]:
    with routing(machine) as router:
        load_pair(router.client, outbound(), inbound(), path_mtu=PATH_MTU)
        yield router


def to_peer(version: int = 4, **header: int) -> Packet:
    source, destination = INNER[version]
    layer = IP if version == 4 else IPv6
    return layer(src=source, dst=destination, **header)


def to_host(version: int = 4, **header: int) -> Packet:
    destination, source = INNER[version]
    layer = IP if version == 4 else IPv6
    return layer(src=source, dst=destination, **header)


# --- what a router does ---------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 6])
def test_packets_are_one_hop_further_on_both_ways(router: Router, version: int) -> None:
    hops = {"ttl": 9} if version == 4 else {"hlim": 9}
    further = {"ttl": 8} if version == 4 else {"hlim": 8}

    router.host.put(bytes(to_peer(version, **hops) / UDP(sport=1, dport=2) / b"out"))
    seen = open_outer(opener(outbound()), router.peer.take(50))
    router.peer.put(
        sealer(inbound()).seal(bytes(to_host(version, **hops) / UDP(sport=2, dport=1) / b"in"), 0.0)
    )

    assert seen == bytes(to_peer(version, **further) / UDP(sport=1, dport=2) / b"out")
    assert router.host.take(17) == bytes(to_host(version, **further) / UDP(sport=2, dport=1) / b"in")
    counters = router.client.counters()
    assert (counters.forwarded, counters.slow_path) == (1, 0)


@pytest.mark.parametrize("version", [4, 6])
def test_a_packet_at_the_end_of_its_hops_is_answered(router: Router, version: int) -> None:
    hops = {"ttl": 1} if version == 4 else {"hlim": 1}
    packet = bytes(to_peer(version, **hops) / UDP(sport=1, dport=2) / b"late")

    router.host.put(packet)
    answer = router.host.take(1 if version == 4 else 58)

    if version == 4:
        parsed = IP(answer)
        assert (parsed[ICMP].type, parsed[ICMP].code) == (11, 0)
    else:
        parsed = IPv6(answer)
        assert parsed[ICMPv6TimeExceeded].code == 0
    assert (parsed.src, parsed.dst) == (ROUTER[version], INNER[version][0])
    assert answer.endswith(packet)
    router.client.await_drops({DropReason.TTL_EXPIRED: 1})


@pytest.mark.parametrize("version", [4, 6])
def test_a_packet_that_is_too_big_is_answered_with_what_fits(router: Router, version: int) -> None:
    flags = {"flags": "DF"} if version == 4 else {}
    packet = bytes(to_peer(version, **flags) / UDP(sport=1, dport=2) / bytes(1440))
    fits = router.client.read_sa(OUT).usage.effective_mtu

    router.host.put(packet)
    answer = router.host.take(1 if version == 4 else 58)

    if version == 4:
        parsed = IP(answer)
        assert (parsed[ICMP].type, parsed[ICMP].code, parsed[ICMP].nexthopmtu) == (3, 4, fits)
        assert len(answer) == 576
    else:
        assert IPv6(answer)[ICMPv6PacketTooBig].mtu == fits
        assert len(answer) == 1280
    router.client.await_drops({DropReason.TOO_BIG: 1})


def test_what_may_be_fragmented_is_before_it_is_sealed(router: Router) -> None:
    packet = to_peer(4, id=7) / UDP(sport=1, dport=2) / Raw(bytes(range(256)) * 5 + bytes(190))
    opened_by = opener(outbound())

    router.host.put(bytes(packet))
    first, second = (IP(open_outer(opened_by, router.peer.take(50))) for _ in range(2))

    assert (first.flags, first.frag, second.flags) == ("MF", 0, 0)
    assert first.ttl == second.ttl == 63
    whole = bytes(first.payload) + bytes(second.payload)
    assert whole == bytes(IP(bytes(packet)).payload)
    router.client.await_drops({})


def test_fragments_of_a_protected_packet_are_put_together(router: Router) -> None:
    sealed = sealer(inbound()).seal(bytes(to_host() / UDP(sport=2, dport=1) / bytes(1000)), 0.0)
    packet = IP(sealed)
    packet.flags = 0
    del packet.chksum

    for piece in fragment(packet, 600):
        router.peer.put(bytes(piece))

    assert len(router.host.take(17)) == 1028


@pytest.mark.parametrize("version", [4, 6])
def test_a_syn_says_what_fits_in_both_directions(router: Router, version: int) -> None:
    fits = router.client.read_sa(OUT).usage.effective_mtu - (40 if version == 4 else 60)
    syn = TCP(sport=1, dport=2, flags="S", options=[("NOP", None), ("MSS", 1460), ("SAckOK", b"")])
    layer = IP if version == 4 else IPv6

    router.host.put(bytes(to_peer(version) / syn))
    out = layer(open_outer(opener(outbound()), router.peer.take(50)))
    router.peer.put(sealer(inbound()).seal(bytes(to_host(version) / syn), 0.0))
    into = layer(router.host.take(6))

    for seen in (out, into):
        assert dict(seen[TCP].options)["MSS"] == fits
        checksum = seen[TCP].chksum
        del seen[TCP].chksum
        assert layer(bytes(seen))[TCP].chksum == checksum


# --- the SPD --------------------------------------------------------------------------------------


def test_the_first_match_in_the_order_of_entries_wins(router: Router) -> None:
    client = router.client
    client.set_policy(9, p.PolicyAction.DISCARD, LOCAL, REMOTE, order=1)
    client.commit()
    router.host.put(bytes(to_peer() / UDP(sport=1, dport=2) / b"discarded"))
    client.set_policy(9, p.PolicyAction.DISCARD, LOCAL, REMOTE, order=1000)
    router.host.put(bytes(to_peer() / UDP(sport=1, dport=2) / b"still"))
    # What was not taken from the kernel is not espd's to count; it waits until both were seen.
    received = 0
    while received < 2:
        received = client.read_device(LAN).received_packets
    client.commit()

    router.host.put(bytes(to_peer() / UDP(sport=1, dport=2) / b"protected"))

    assert open_outer(opener(outbound()), router.peer.take(50)).endswith(b"protected")


def test_a_clear_packet_that_wants_protection_is_dropped(machine: Machine) -> None:
    with routing(machine, outside_flags=p.DeviceFlag.ALL_FRAMES) as router:
        load_pair(router.client, outbound(), inbound())

        router.peer.put(bytes(to_host() / UDP(sport=2, dport=1) / b"in clear"))
        router.peer.put(sealer(inbound()).seal(bytes(to_host() / UDP(sport=2, dport=1) / b"good"), 0.0))

        assert router.host.take(17).endswith(b"good")
        router.client.await_drops({DropReason.CLEAR_INBOUND: 1})


def test_several_sas_share_flows_and_each_flow_keeps_its_own(machine: Machine) -> None:
    with routing(machine) as router:
        client = router.client
        for number in range(4):
            client.add_sa(outbound(spi=0x3000 + number), 100 + number)
        client.set_tunnel(TUNNEL, [100, 101, 102, 103])
        client.set_policy(POLICY, p.PolicyAction.PROTECT, LOCAL, REMOTE, tunnel=TUNNEL)
        client.commit()

        seen: dict[int, set[int]] = {}
        for turn in range(2):
            for port in range(1, 33):
                router.host.put(bytes(to_peer() / UDP(sport=port, dport=2) / bytes([turn])))
                spi = int.from_bytes(router.peer.take(50)[20:24])
                seen.setdefault(port, set()).add(spi)

        assert all(len(spis) == 1 for spis in seen.values())
        assert len(set.union(*seen.values())) == 4


# --- more than one worker -------------------------------------------------------------------------


@pytest.mark.parametrize("owner", [0, 1])
def test_a_worker_hands_over_what_another_owns(machine: Machine, owner: int) -> None:
    """All frames come in at the first worker: the queue of the device is its own."""
    with routing(machine, workers=2) as router:
        client = router.client
        client.add_sa(outbound(), OUT, worker=owner)
        client.add_sa(inbound(), IN, worker=owner)
        client.set_tunnel(TUNNEL, [OUT])
        client.set_policy(POLICY, p.PolicyAction.PROTECT, LOCAL, REMOTE, tunnel=TUNNEL)
        client.commit()
        opened_by, seals = opener(outbound()), sealer(inbound())

        for number in range(3):
            router.host.put(bytes(to_peer() / UDP(sport=1, dport=2) / bytes([number])))
            assert open_outer(opened_by, router.peer.take(50))[-1] == number
            router.peer.put(seals.seal(bytes(to_host() / UDP(sport=2, dport=1) / bytes([number])), 0.0))
            assert router.host.take(17)[-1] == number

        assert client.counters().handed_over == 6 * owner
        assert client.counters(owner).sealed == client.counters(owner).opened == 3
        assert client.counters(1 - owner).sealed == 0


def test_an_sa_that_goes_leaves_nothing_behind_at_any_worker(machine: Machine) -> None:
    with routing(machine, workers=2) as router:
        client = router.client
        client.set_policy(POLICY, p.PolicyAction.PROTECT, LOCAL, REMOTE, tunnel=TUNNEL)
        client.commit()
        sealed = 0
        for turn in range(20):
            client.add_sa(outbound(spi=0x3000 + turn), 100 + turn, worker=1)
            client.set_tunnel(TUNNEL, [100 + turn])
            for _ in range(5):
                router.host.put(bytes(to_peer() / UDP(sport=1, dport=2) / b"x"))
            # What came between two SAs waits for the next.
            sealed += client.remove_sa(100 + turn).usage.packets
        drops = client.drops()

        assert drops.keys() <= {DropReason.NO_SA}
        assert client.counters().sealed == sealed <= 100 - drops.get(DropReason.NO_SA, 0)


# --- NAT ------------------------------------------------------------------------------------------


def test_a_peer_that_moved_is_followed_once_it_is_authentic(machine: Machine) -> None:
    encapsulation = UdpEncapsulation(source_port=4500, destination_port=4500)
    with routing(machine) as router:
        client = router.client
        load_pair(client, outbound(encapsulation=encapsulation), inbound(encapsulation=encapsulation))
        sealed = sealer(inbound(encapsulation=encapsulation)).seal(
            bytes(to_host() / UDP(sport=2, dport=1) / b"from elsewhere"), 0.0
        )
        esp = sealed[28:]
        elsewhere = IP(src="192.0.2.77", dst=IP(sealed).dst) / UDP(sport=31000, dport=4500)

        router.peer.put(bytes(elsewhere / Raw(esp[:-1] + bytes([esp[-1] ^ 1]))))
        router.peer.put(bytes(elsewhere / Raw(esp)))

        assert router.host.take(17).endswith(b"from elsewhere")
        event = client.next_event()
        assert isinstance(event, p.SaEvent)
        assert (event.event.cookie, event.event.port) == (IN, 31000)
        assert bytes(event.event.address)[:4] == ip_address("192.0.2.77").packed
        move = p.SaMove(cookie=OUT, port=31000)
        move.destination[:4] = ip_address("192.0.2.77").packed
        client.ask(p.MessageType.SA_MOVE, move)
        client.set_neighbour(2, "192.0.2.77", machine.peer.mac)
        client.commit()
        router.host.put(bytes(to_peer() / UDP(sport=1, dport=2) / b"follows"))
        moved = IP(router.peer.take(17))
        assert (moved.src, moved.dst, moved[UDP].dport) == (OUTER[4][0], "192.0.2.77", 31000)
        client.await_drops({DropReason.INTEGRITY: 1})
