"""Packets through espd by AF_XDP and live frames, steered to it by the XDP program of the outer side."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pytest
from scapy.layers.inet import IP
from scapy.layers.l2 import Dot1Q, Ether

from gateway.datapath.engine import protocol as p
from gateway.host.bpf.abi import LOCALS, SAS, Exit, InboundSa, Local, Spi, Word, read_counters
from gateway.host.bpf.attach import attach_xdp
from gateway.host.bpf.compiled import read_program
from gateway.host.bpf.live import LiveFrames, load_live_frames
from gateway.host.bpf.objects import LoadedObject, load_object
from gateway.ipsec.drop_reason import DropReason
from tests.conformance.namespace import fresh_network_namespace, neighbour
from tests.espd.client import configuration
from tests.espd.machine import (
    INNER,
    OUTER,
    OUTSIDE,
    PORT,
    SPI_IN,
    Machine,
    inbound,
    link_index,
    load_pair,
    open_outer,
    open_tun,
    opener,
    outbound,
    running,
    sealer,
    set_local_routes,
)
from tests.espd_io.wire import give_napi, ip, packet_socket
from tests.unit.esp.samples import ip_packet

FRAMES, FRAME_BYTES = 4096, 2048
SENDING = (p.IoKind.XDP_COPY, p.IoKind.LIVE_FRAME, p.IoKind.PACKET)
ADDRESSES = ("192.0.2.1/24", "2001:db8::1/64")


@pytest.fixture
def namespace() -> Iterator[None]:
    """Each of these tests has a namespace of its own, in which `outside` has two queues."""
    with fresh_network_namespace():
        ip("link", "delete", "outside")
        two, one = (("numrxqueues", count, "numtxqueues", count) for count in "21")
        ip("link", "add", "outside", *two, "type", "veth", "peer", "name", "beyond", *one)
        for device in ("outside", "beyond"):
            Path(f"/proc/sys/net/ipv6/conf/{device}/accept_dad").write_text("0")
            ip("link", "set", device, "up")
        for address in ADDRESSES:
            ip("address", "add", address, "dev", "outside")
        give_napi("beyond")
        yield


@dataclass
class Gateway:
    """A running espd whose outside is steered to it."""

    machine: Machine
    steering: LoadedObject
    opened: p.DeviceReply


def start(
    stack: ExitStack, espd: Path, folder: Path, sending: tuple[p.IoKind, ...], *, workers: int = 1
) -> Gateway:
    """Start espd with a tunnel device inside, and AF_XDP outside."""
    live: list[LiveFrames] = [
        stack.enter_context(load_live_frames(frames=FRAMES, frame_bytes=FRAME_BYTES)) for _ in range(workers)
    ]
    steering = stack.enter_context(load_object(read_program("xdp_inbound")))
    stack.enter_context(attach_xdp(steering.programs["gw_inbound"], "outside").link)
    machine = stack.enter_context(running(espd, folder))
    client = machine.client
    client.hello()
    message = configuration(workers=workers, frames=FRAMES, frame_bytes=FRAME_BYTES)
    client.ask(p.MessageType.CONFIGURE, message, descriptors=[fd for one in live for fd in one.descriptors])
    open_tun(client)
    device = p.Device(
        device=OUTSIDE,
        ifindex=link_index("outside"),
        name=b"outside",
        flags=p.DeviceFlag.PROTECTED | p.DeviceFlag.STEERING,
        mtu=1500,
        queues=2,
    )
    device.mac[:] = neighbour("outside")
    device.receive_methods[0] = p.IoKind.XDP_COPY
    device.send_methods[: len(sending)] = sending
    opened = client.set_device(device, [steering.maps["gw_xsks"].fd])
    set_local_routes(client)
    for version, prefix in ((4, "192.0.2.0/24"), (6, "2001:db8::/64")):
        client.set_route(prefix, p.RouteKind.FORWARD, device=OUTSIDE)
        client.set_neighbour(OUTSIDE, OUTER[version][1], neighbour("beyond"))
        LOCALS.of(steering.maps).set(Local(ip_address(OUTER[version][0])), Word(1))
    client.commit()
    return Gateway(machine, steering, opened)


def expect(steering: LoadedObject, version: int) -> None:
    """Have the program know the SA by which the peer sends."""
    ours = ip_address(OUTER[version][0])
    SAS.of(steering.maps).set(Spi(SPI_IN), InboundSa(destination=ours, protocol=50))


def answer_to(packet: bytes) -> bytes:
    """Return a packet with its addresses turned round."""
    at, size = (12, 4) if packet[0] >> 4 == 4 else (8, 16)
    ends = packet[at + size : at + 2 * size] + packet[at : at + size]
    return packet[:at] + ends + packet[at + 2 * size :]


@pytest.mark.parametrize("version", [4, 6], ids="v{}".format)
@pytest.mark.parametrize("method", SENDING, ids=lambda method: method.name.lower())
def test_packets_go_through_both_ways(
    *, method: p.IoKind, version: int, namespace: None, shipped: Path, tmp_path: Path
) -> None:
    """With espd as it ships, which may make few system calls once it runs."""
    with ExitStack() as stack:
        gateway = start(stack, shipped, tmp_path, (method,))
        out, into = outbound(version), inbound(version)
        load_pair(gateway.machine.client, out, into)
        expect(gateway.steering, version)
        program = gateway.machine.program(version)

        program.sendto(b"to the peer", (INNER[version][1], PORT))
        packet = open_outer(opener(out), gateway.machine.peer.take(50))
        gateway.machine.peer.put(sealer(into).seal(answer_to(packet), 0.0))

        assert packet.endswith(b"to the peer")
        assert program.recvfrom(100)[0] == b"to the peer"
        assert (gateway.opened.receive_method, gateway.opened.send_method) == (p.IoKind.XDP_COPY, method)
        counters = gateway.machine.client.counters()
        assert (counters.sealed, counters.opened, counters.slow_path) == (1, 1, 1)
        assert read_counters(gateway.steering.maps)[Exit.ENGINE].packets == 1


@pytest.mark.parametrize("tags", [1, 2])
def test_what_comes_on_a_vlan_is_opened(
    *, tags: int, namespace: None, sanitized: Path, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        gateway = start(stack, sanitized, tmp_path, (p.IoKind.XDP_COPY,))
        into = inbound()
        gateway.machine.client.add_sa(into, 8)
        expect(gateway.steering, 4)
        program = gateway.machine.program()
        datagram = PORT.to_bytes(2) * 2 + (14).to_bytes(2) + bytes(2) + b"tagged"
        inner = ip_packet(4, datagram, protocol=17, addresses={4: INNER[4][::-1]})
        link = Ether(src=gateway.machine.peer.mac, dst=neighbour("outside"))
        for vlan in range(tags):
            link /= Dot1Q(vlan=7 + vlan)

        with packet_socket("beyond") as sender:
            sender.send(bytes(link / IP(sealer(into).seal(inner, 0.0))))

        assert program.recvfrom(100)[0] == b"tagged"


@pytest.mark.parametrize("owner", [0, 1])
def test_a_packet_comes_to_the_worker_that_owns_its_sa(
    *, owner: int, namespace: None, sanitized: Path, tmp_path: Path
) -> None:
    """The peer's end has one queue, so all frames arrive in queue 0, which is worker 0's."""
    with ExitStack() as stack:
        gateway = start(stack, sanitized, tmp_path, (p.IoKind.LIVE_FRAME,), workers=2)
        client = gateway.machine.client
        into = inbound()
        client.add_sa(into, 8, worker=owner)
        expect(gateway.steering, 4)
        program = gateway.machine.program()
        peer = sealer(into)

        datagram = PORT.to_bytes(2) * 2 + (13).to_bytes(2) + bytes(2) + b"first"
        inner = ip_packet(4, datagram, protocol=17, addresses={4: INNER[4][::-1]})
        gateway.machine.peer.put(peer.seal(inner, 0.0))

        assert program.recvfrom(100)[0] == b"first"
        assert client.counters(owner).opened == 1
        assert client.counters(0).handed_over == owner


@pytest.mark.parametrize("others", [(p.IoKind.XDP_COPY,), ()], ids=["copy", "none"])
def test_a_device_goes_on_with_the_next_method_or_stays(
    *, others: tuple[p.IoKind, ...], namespace: None, sanitized: Path, tmp_path: Path
) -> None:
    """Where there is no next one it sends again when it can; either way it goes on receiving."""
    with ExitStack() as stack:
        gateway = start(stack, sanitized, tmp_path, (p.IoKind.LIVE_FRAME, *others))
        client = gateway.machine.client
        out, into = outbound(), inbound()
        load_pair(client, out, into)
        expect(gateway.steering, 4)
        program = gateway.machine.program()
        give_napi("beyond", on=False)

        program.sendto(b"lost", (INNER[4][1], PORT))
        event = client.next_event()
        give_napi("beyond", on=not others)
        program.sendto(b"not lost", (INNER[4][1], PORT))

        assert isinstance(event, p.MethodEvent)
        assert (event.old_method, event.new_method, event.sends) == (
            p.IoKind.LIVE_FRAME,
            (*others, p.IoKind.LIVE_FRAME)[0],
            1,
        )
        assert b"the other end of a veth does not poll" in event.reason
        packet = open_outer(opener(out), gateway.machine.peer.take(50))
        assert packet.endswith(b"not lost")
        gateway.machine.peer.put(sealer(into).seal(answer_to(packet), 0.0))
        assert program.recv(100) == b"not lost"
        assert client.drops()[DropReason.SEND_FAILED] == 1
