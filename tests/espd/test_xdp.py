"""espd as a router whose frames come in by XDP and leave by every method, as it ships.

    lan1 (the test: a host) ═══ lan0 ── AF_XDP ── espd ── AF_XDP ── outside ═══ beyond (the test: the peer)

XDP programs steer all that comes in to espd: what it gives back to the kernel goes there by the TUN device.
"""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from gateway.datapath.engine import protocol as p
from gateway.host.bpf.live import load_live_frames
from gateway.ipsec.drop_reason import DropReason
from tests.conformance.namespace import fresh_network_namespace, neighbour
from tests.espd.client import Client
from tests.espd.machine import (
    IN,
    INNER,
    LOCAL,
    OURS,
    OUT,
    OUTER,
    OUTSIDE,
    POLICY,
    PORT,
    REMOTE,
    TUN,
    TUNNEL,
    Machine,
    Peer,
    be_host,
    inbound,
    load_pair,
    open_outer,
    open_tun,
    opener,
    outbound,
    running,
    sealer,
)
from tests.espd_io.wire import FRAME_BYTES, FRAMES, cable, give_napi, steered

pytestmark = pytest.mark.netns

LAN = 3
SENDING = [p.IoKind.XDP_COPY, p.IoKind.LIVE_FRAME, p.IoKind.PACKET]


@dataclass
class Router:
    client: Client
    host: Peer
    peer: Peer
    replies: dict[int, p.DeviceReply]


def open_device(client: Client, device: int, *, name: str, steering: int, **fields: int) -> p.DeviceReply:
    """Open a device that receives by AF_XDP; `fields` are its flags and queues, and the method to send by."""
    flags, queues, send = fields["flags"], fields.get("queues", 1), fields["send"]
    message = p.Device(
        device=device,
        ifindex=socket.if_nametoindex(name),
        name=name.encode(),
        flags=flags | p.DeviceFlag.STEERING,
        mtu=1500,
        queues=queues,
    )
    message.mac[:] = neighbour(name)
    message.receive_methods[0] = p.IoKind.XDP_COPY
    # A worker without a queue of its own can only send, and not by AF_XDP.
    message.send_methods[:2] = [send, p.IoKind.PACKET]
    return client.set_device(message, [steering])


def make_router(stack: ExitStack, program: Path, folder: Path, send: p.IoKind, workers: int) -> Router:
    lan = stack.enter_context(cable("lan0", "lan1", queues=workers, mtu=1500))
    give_napi("beyond")
    for device in ("outside", "beyond"):
        Path(f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6").write_text("1")
    steer_lan = stack.enter_context(steered(lan.near)).maps["gw_xsks"].fd
    steer_outside = stack.enter_context(steered("outside")).maps["gw_xsks"].fd
    machine: Machine = stack.enter_context(running(program, folder))
    client = machine.client
    client.hello()
    sizes = {"workers": workers, "frames": FRAMES, "frame_bytes": FRAME_BYTES}
    if send is p.IoKind.LIVE_FRAME:
        live = stack.enter_context(load_live_frames(frames=FRAMES, frame_bytes=FRAME_BYTES))
        client.configure(live.descriptors, **sizes)
    else:
        client.configure(**sizes)
    open_tun(client, queues=workers, is_host=False)
    inside, protected = p.DeviceFlag.CLEAR, p.DeviceFlag.PROTECTED
    near, far = {"name": lan.near, "steering": steer_lan}, {"name": "outside", "steering": steer_outside}
    replies = {
        LAN: open_device(client, LAN, **near, flags=inside, queues=workers, send=send),
        OUTSIDE: open_device(client, OUTSIDE, **far, flags=protected, send=send),
    }
    client.set_route("10.1.0.0/16", p.RouteKind.FORWARD, device=LAN)
    client.set_route(f"{INNER[4][0]}/32", p.RouteKind.FORWARD, device=LAN)
    client.set_route("10.1.9.9/32", p.RouteKind.LOCAL)
    client.set_neighbour(LAN, INNER[4][0], neighbour(lan.far))
    client.set_route("192.0.2.0/24", p.RouteKind.FORWARD, device=OUTSIDE)
    client.set_route(f"{OUTER[4][0]}/32", p.RouteKind.LOCAL)
    client.set_neighbour(OUTSIDE, OUTER[4][1], machine.peer.mac)
    host = Peer(lan.far, lan.near)
    stack.callback(host.close)
    return Router(client, host, machine.peer, replies)


@pytest.fixture(params=SENDING, ids=lambda kind: kind.name.lower())
def router(request: pytest.FixtureRequest, shipped: Path, tmp_path: Path) -> Iterator[Router]:
    with fresh_network_namespace(*OURS), ExitStack() as stack:
        router = make_router(stack, shipped, tmp_path, request.param, 1)
        load_pair(router.client, outbound(), inbound(), path_mtu=1500)
        for reply in router.replies.values():
            assert (reply.receive_method, reply.send_method) == (p.IoKind.XDP_COPY, request.param)
        yield router


def test_packets_go_through_both_ways(router: Router) -> None:
    source, destination = INNER[4]
    opened_by, seals = opener(outbound()), sealer(inbound())

    for number in range(200):
        payload = bytes([number]) * (number * 7)
        router.host.put(bytes(IP(src=source, dst=destination) / UDP(sport=1, dport=2) / payload))
        seen = IP(open_outer(opened_by, router.peer.take(50)))
        assert (seen.ttl, bytes(seen[UDP].payload)) == (63, payload)
        answer = IP(src=destination, dst=source) / UDP(sport=2, dport=1) / payload
        router.peer.put(seals.seal(bytes(answer), 0.0))
        assert bytes(IP(router.host.take(17))[UDP].payload) == payload

    counters = router.client.counters()
    assert (counters.sealed, counters.opened, counters.forwarded) == (200, 200, 200)
    assert (counters.slow_path, router.client.drops()) == (0, {})


def test_what_xdp_gave_us_is_ours_to_judge(router: Router) -> None:
    """Nothing is left to the kernel: what no entry names is dropped, what should have been protected too."""
    router.client.set_policy(9, p.PolicyAction.DISCARD, LOCAL, LOCAL)
    router.client.commit()

    for source, destination in (("10.1.0.1", "10.3.0.1"), ("10.1.0.1", "10.1.0.2")):
        router.host.put(bytes(IP(src=source, dst=destination) / UDP(sport=1, dport=2)))
    router.peer.put(bytes(IP(src=INNER[4][1], dst=INNER[4][0]) / UDP(sport=1, dport=2)))

    router.client.await_drops(
        {DropReason.NO_POLICY: 1, DropReason.POLICY_DISCARD: 1, DropReason.CLEAR_INBOUND: 1}
    )


def test_what_is_for_this_machine_reaches_its_programs(router: Router) -> None:
    be_host({version: ours for version, (ours, _) in INNER.items()}, REMOTE)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as program:
        program.settimeout(60)
        program.bind((INNER[4][0], PORT))
        router.client.set_route(f"{INNER[4][0]}/32", p.RouteKind.LOCAL)
        router.client.commit()
        packet = IP(src=INNER[4][1], dst=INNER[4][0]) / UDP(sport=PORT, dport=PORT) / b"to a program"

        router.peer.put(sealer(inbound()).seal(bytes(packet), 0.0))

        assert program.recv(100) == b"to a program"
    assert router.client.counters().slow_path == 1


@pytest.mark.parametrize("owner", [0, 1])
def test_a_socket_hands_over_what_another_queue_s_worker_owns(
    shipped: Path, tmp_path: Path, owner: int
) -> None:
    with fresh_network_namespace(*OURS), ExitStack() as stack:
        router = make_router(stack, shipped, tmp_path, p.IoKind.XDP_COPY, 2)
        client = router.client
        client.add_sa(outbound(), OUT, worker=owner)
        client.add_sa(inbound(), IN, worker=owner)
        client.set_tunnel(TUNNEL, [OUT])
        client.set_policy(POLICY, p.PolicyAction.PROTECT, LOCAL, REMOTE, tunnel=TUNNEL)
        client.commit()
        opened_by = opener(outbound())
        frames = [
            Ether() / IP(src=INNER[4][0], dst=INNER[4][1]) / UDP(sport=port, dport=2) / b"x"
            for port in range(1, 65)
        ]

        for frame in frames:
            router.host.put(bytes(frame[IP]))
        ports = {IP(open_outer(opened_by, router.peer.take(50)))[UDP].sport for _ in frames}

        assert ports == set(range(1, 65))
        assert client.counters(owner).sealed == 64
        # Both queues have flows; those of the other one were handed over.
        handed = client.counters(1 - owner).handed_over
        assert 0 < handed < 64
        assert client.drops() == {}


def test_a_tunnel_device_is_there_for_all_of_them(router: Router) -> None:
    assert router.client.read_device(TUN).receive_method == p.IoKind.TUN
