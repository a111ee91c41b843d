"""A port whose method sends nothing any more: it sends by the next one, and goes on receiving.

    lan1 (the test: a host) ═══ lan0 ── AF_XDP ── espd ── AF_XDP ── outside ═══ beyond (the test: the peer)

Rules and times without devices: hw/espd/tests/test_port.c.
"""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP

from gateway.datapath.engine import protocol as p
from gateway.esp.inbound import InboundSa
from gateway.esp.outbound import OutboundSa
from gateway.ipsec.drop_reason import DropReason
from tests.conformance.namespace import fresh_network_namespace
from tests.espd.machine import (
    INNER,
    OURS,
    OUTSIDE,
    inbound,
    ip,
    load_pair,
    open_outer,
    opener,
    outbound,
    sealer,
)
from tests.espd.test_succession import successor
from tests.espd.test_xdp import Router, make_router

pytestmark = pytest.mark.netns

ENOUGH = 16
"""GW_LOSS_PACKETS of hw/espd/src/io_loss.h."""
PROBES = 3
"""Of hw/espd/src/io_probe.c: frames that espd sends before it believes that nothing arrives."""


@contextmanager
def routing(program: Path, folder: Path) -> Iterator[Router]:
    """Run espd; it receives and sends by the same AF_XDP sockets, and could send by AF_PACKET."""
    with ExitStack() as stack:
        router = make_router(stack, program, folder, p.IoKind.XDP_COPY, 1)
        load_pair(router.client, outbound(), inbound(), path_mtu=1500)
        yield router


def be_macvlan() -> None:
    """Have `outside` be a macvlan above its wire, now `lower`.

    What its lower device does not take it drops, and says so by `tx_dropped` and nothing else, as a driver
    does that sends nothing.
    """
    ip("link", "set", "outside", "down")
    ip("link", "set", "outside", "name", "lower")
    ip("link", "add", "link", "lower", "name", "outside", "type", "macvlan", "mode", "private")
    for device in ("lower", "outside"):
        Path(f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6").write_text("1")
        ip("link", "set", device, "up")


def have_lower(command: str, *queue: str) -> None:
    """Give the lower device a queue, or none."""
    subprocess.run(["tc", "qdisc", command, "dev", "lower", "root", *queue], check=True, capture_output=True)


def send(router: Router, size: int, count: int = 1) -> None:
    """Have the host send to the other side."""
    source, destination = INNER[4]
    packet = bytes(IP(src=source, dst=destination) / UDP(sport=1, dport=2) / bytes(size))
    for _ in range(count):
        router.host.put(packet)


def assert_carries(router: Router, opened_by: InboundSa, seals: OutboundSa) -> None:
    """Check that a packet goes through each way."""
    source, destination = INNER[4]
    send(router, 77)
    assert len(IP(open_outer(opened_by, router.peer.take(50)))[UDP].payload) == 77
    answer = IP(src=destination, dst=source) / UDP(sport=2, dport=1) / b"answer"
    router.peer.put(seals.seal(bytes(answer), 0.0))
    assert bytes(IP(router.host.take(17))[UDP].payload) == b"answer"


def methods(router: Router) -> tuple[int, int]:
    said = router.client.read_device(OUTSIDE)
    return said.receive_method, said.send_method


def test_packets_that_are_too_long_for_the_peer_are_no_reason(shipped: Path, tmp_path: Path) -> None:
    with fresh_network_namespace(*OURS), routing(shipped, tmp_path) as router:
        ip("link", "set", "beyond", "mtu", "576")

        send(router, 1300, ENOUGH * 2)
        router.client.await_drops({DropReason.SEND_FAILED: ENOUGH * 2})

        assert methods(router) == (p.IoKind.XDP_COPY, p.IoKind.XDP_COPY)
        ip("link", "set", "beyond", "mtu", "1500")
        assert_carries(router, opener(outbound()), sealer(inbound()))


def test_what_cannot_send_any_more_goes_on_receiving(shipped: Path, tmp_path: Path) -> None:
    opened_by, seals = opener(outbound()), sealer(inbound())
    with fresh_network_namespace(*OURS):
        be_macvlan()
        with routing(shipped, tmp_path) as router:
            have_lower("replace", "bfifo", "limit", "1")  # byte: less than any packet

            send(router, 10, ENOUGH)
            event = router.client.next_event()

            assert isinstance(event, p.MethodEvent)
            now = (event.device, event.old_method, event.new_method, event.sends)
            assert now == (OUTSIDE, p.IoKind.XDP_COPY, p.IoKind.PACKET, 1)
            assert event.reason.startswith(b"outside dropped all of the 16 packets")
            have_lower("delete")
            assert methods(router) == (p.IoKind.XDP_COPY, p.IoKind.PACKET)
            for _ in range(2):
                assert_carries(router, opened_by, seals)
            assert ENOUGH <= router.client.drops()[DropReason.SEND_FAILED] <= ENOUGH + PROBES

            # So it does when another espd takes its place.
            with successor(shipped, tmp_path / "espd.sock") as new:
                new.hello()
                after = Router(new, router.host, router.peer, router.replies)
                assert methods(after) == (p.IoKind.XDP_COPY, p.IoKind.PACKET)
                said = new.read_device(OUTSIDE)
                assert b"outside dropped all of the 16 packets" in bytes(said.reply.reason)
                assert_carries(after, opened_by, seals)
