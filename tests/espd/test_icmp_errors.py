"""ICMP errors of espd as a router: about what it answers, from which address, and what it never tells whom.

The rig is that of `test_forwarding`: a host's wire inside, the peer's outside, and no kernel between them.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, UDP, IPerror
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrFragment,
)
from scapy.packet import Packet, Raw

from gateway.datapath.engine import protocol as p
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.selectors import TrafficSelector
from tests.conformance.namespace import fresh_network_namespace
from tests.espd.client import Client
from tests.espd.machine import (
    INNER,
    LOCAL,
    OURS,
    OUTER,
    OUTSIDE,
    POLICY,
    REMOTE,
    Machine,
    inbound,
    load_pair,
    open_outer,
    opener,
    outbound,
    running,
    sealer,
)
from tests.espd.test_forwarding import (
    LAN,
    PATH_MTU,
    ROUTER,
    Router,
    lan_device,
    routing,
    to_host,
    to_peer,
)
from tests.espd.test_succession import successor

STRAY = TrafficSelector.parse("10.1.99.0/24")
"""Of our side by the SPD, and beyond the peers' wire by the routes."""
STRAY_HOST = "10.1.99.1"
SECOND_POLICY = POLICY + 1
ERRORS_PER_SECOND = 100
_LAST_HOP = {4: {"ttl": 1}, 6: {"hlim": 1}}


@pytest.fixture
def router(machine: Machine) -> Iterator[Router]:
    with routing(machine) as router:
        load_pair(router.client, outbound(), inbound(), path_mtu=PATH_MTU)
        yield router


def late(version: int = 4, data: bytes = b"late") -> bytes:
    """Return a packet of the host whose hops end at the router."""
    return bytes(to_peer(version, **_LAST_HOP[version]) / UDP(sport=1, dport=2) / data)


def source_of(packet: bytes) -> str:
    return str((IP(packet) if packet[0] >> 4 == 4 else IPv6(packet)).src)


def set_stray_policy(client: Client, action: p.PolicyAction, local: TrafficSelector) -> None:
    """Have an entry about what goes from our side to the stray part; PROTECT has no SA."""
    client.set_policy(
        SECOND_POLICY,
        action,
        (local,),
        (STRAY,),
        tunnel=2 if action is p.PolicyAction.PROTECT else 0,
        order=1,
        acquire=False,
    )
    client.commit()


def is_quiet_outside(router: Router) -> bool:
    """Say whether the next packet on the peers' wire is one that is sealed only now."""
    router.host.put(bytes(to_peer() / UDP(sport=1, dport=2) / b"a sign"))
    return open_outer(opener(outbound()), router.peer.take(1, 17, 50, 58)).endswith(b"a sign")


def route_to_stray(router: Router) -> None:
    """Have a part of our side be reached by way of the peers' wire."""
    router.client.set_route(str(STRAY), p.RouteKind.FORWARD, device=OUTSIDE, gateway=OUTER[4][1])
    router.client.commit()


# --- from which address ---------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 6])
def test_an_open_device_answers_from_its_new_address_and_stays_open(router: Router, version: int) -> None:
    new = {4: "10.1.0.77", 6: "fd00:1::77"}
    router.host.put(late(version))
    assert source_of(router.host.take(1, 58)) == ROUTER[version]
    received = router.client.read_device(LAN).received_packets

    router.client.set_device(lan_device(new))
    router.host.put(late(version))

    assert source_of(router.host.take(1, 58)) == new[version]
    assert router.client.read_device(LAN).received_packets > received > 0


@pytest.mark.parametrize("version", [4, 6])
def test_a_device_without_an_address_answers_nothing(router: Router, version: int) -> None:
    router.client.set_device(lan_device({}))
    router.host.put(late(version, b"first"))
    router.client.await_drops({DropReason.TTL_EXPIRED: 1})

    router.client.set_device(lan_device())
    router.host.put(late(version, b"second"))

    assert router.host.take(1, 58).endswith(b"second")


def test_the_new_mtu_of_an_open_device_is_heeded(router: Router) -> None:
    router.client.set_device(lan_device(mtu=1300))

    packet = to_host(4, flags="DF") / UDP(sport=2, dport=1) / bytes(1372)
    router.peer.put(sealer(inbound()).seal(bytes(packet), 0.0))
    answer = IP(open_outer(opener(outbound()), router.peer.take(50)))

    assert (answer.src, answer.dst) == (ROUTER[4], INNER[4][1])
    assert (answer[ICMP].type, answer[ICMP].code, answer[ICMP].nexthopmtu) == (3, 4, 1300)


def test_the_next_espd_answers_from_the_address_that_the_last_one_was_told(
    shipped: Path, tmp_path: Path
) -> None:
    with (
        fresh_network_namespace(*OURS),
        running(shipped, tmp_path) as machine,
        routing(machine) as router,
    ):
        load_pair(router.client, outbound(), inbound(), path_mtu=PATH_MTU)
        router.client.set_device(lan_device({4: "10.1.0.77"}))

        with successor(shipped, machine.path):
            assert machine.wait() == 0
            router.host.put(late())

            assert source_of(router.host.take(1)) == "10.1.0.77"


# --- to the host behind the peer: through the tunnel ----------------------------------------------


@pytest.mark.parametrize("version", [4, 6])
def test_a_host_behind_the_peer_is_told_through_the_tunnel(router: Router, version: int) -> None:
    packet = bytes(to_host(version, **_LAST_HOP[version]) / UDP(sport=2, dport=1) / b"late")

    router.peer.put(sealer(inbound()).seal(packet, 0.0))
    answer = open_outer(opener(outbound()), router.peer.take(50))

    parsed = IP(answer) if version == 4 else IPv6(answer)
    assert (parsed.src, parsed.dst) == (ROUTER[version], INNER[version][1])
    assert ICMPv6TimeExceeded in parsed if version == 6 else parsed[ICMP].type == 11
    assert answer.endswith(packet)
    router.client.await_drops({DropReason.TTL_EXPIRED: 1})


def test_a_host_behind_the_peer_is_told_nothing_where_nothing_protects_it(router: Router) -> None:
    """The router's address is not among those that the SPD has PROTECT for."""
    router.client.set_device(lan_device({4: "172.16.0.1"}))

    packet = to_host(ttl=1) / UDP(sport=2, dport=1) / b"late"
    router.peer.put(sealer(inbound()).seal(bytes(packet), 0.0))
    router.client.await_drops({DropReason.TTL_EXPIRED: 1})

    assert is_quiet_outside(router)


# --- never in clear to the peers' side ------------------------------------------------------------


@pytest.mark.parametrize(
    "action", [None, p.PolicyAction.DISCARD, p.PolicyAction.PROTECT], ids=["no-entry", "discard", "protect"]
)
def test_an_error_does_not_leave_in_clear_by_the_peers_wire(
    router: Router, action: p.PolicyAction | None
) -> None:
    route_to_stray(router)
    if action is not None:
        set_stray_policy(router.client, action, LOCAL[0])

    router.host.put(bytes(IP(src=STRAY_HOST, dst=INNER[4][1], ttl=1) / UDP(sport=1, dport=2) / b"stray"))
    router.client.await_drops({DropReason.TTL_EXPIRED: 1})

    assert is_quiet_outside(router)


def test_an_error_leaves_by_the_peers_wire_where_the_spd_lets_it(router: Router) -> None:
    route_to_stray(router)
    set_stray_policy(router.client, p.PolicyAction.BYPASS, LOCAL[0])

    router.host.put(bytes(IP(src=STRAY_HOST, dst=INNER[4][1], ttl=1) / UDP(sport=1, dport=2) / b"stray"))

    assert IP(router.peer.take(1)).dst == STRAY_HOST


@pytest.mark.parametrize(
    ("action", "leaves"),
    [
        (None, False),
        (p.PolicyAction.DISCARD, False),
        (p.PolicyAction.PROTECT, False),
        (p.PolicyAction.BYPASS, True),
    ],
    ids=["no-entry", "discard", "protect", "bypass"],
)
def test_what_was_opened_leaves_by_the_peers_wire_only_where_the_spd_lets_it(
    router: Router, action: p.PolicyAction | None, leaves: bool
) -> None:
    """What one peer sends for the networks of another is the kernel's, whose guard drops it."""
    route_to_stray(router)
    if action is not None:
        set_stray_policy(router.client, action, REMOTE[0])
    before = router.client.counters().slow_path

    packet = IP(src=INNER[4][1], dst=STRAY_HOST) / UDP(sport=2, dport=1) / b"to another site"
    router.peer.put(sealer(inbound()).seal(bytes(packet), 0.0))

    if leaves:
        assert IP(router.peer.take(17)).dst == STRAY_HOST
    else:
        # There is no kernel here to take it.
        router.client.await_drops({DropReason.SEND_FAILED: 1})
        assert router.client.counters().slow_path == before + 1
        assert is_quiet_outside(router)


# --- what is never answered -----------------------------------------------------------------------

_UNANSWERED: dict[str, Packet] = {
    "icmp-error": to_peer(ttl=1)
    / ICMP(type=3, code=1)
    / IPerror(src=INNER[4][1], dst=INNER[4][0])
    / Raw(bytes(8)),
    "icmp-redirect": to_peer(ttl=1) / ICMP(type=5, code=1) / Raw(bytes(28)),
    "later-fragment": to_peer(ttl=1, frag=100, proto=17) / Raw(bytes(64)),
    "from-multicast": IP(src="224.0.0.5", dst=INNER[4][1], ttl=1) / UDP(sport=1, dport=2),
    "v6-error": to_peer(6, hlim=1) / ICMPv6PacketTooBig(mtu=1280) / Raw(bytes(48)),
    "v6-later-fragment": to_peer(6, hlim=1) / IPv6ExtHdrFragment(offset=100, nh=17) / Raw(bytes(64)),
}


@pytest.mark.parametrize("packet", _UNANSWERED.values(), ids=_UNANSWERED.keys())
def test_what_must_not_be_answered_is_not(router: Router, packet: Packet) -> None:
    """RFC 1812 §4.3.2.7, RFC 4443 §2.4 (e)."""
    everything = (TrafficSelector.parse("0.0.0.0/0"), TrafficSelector.parse("::/0"))
    router.client.set_policy(POLICY, p.PolicyAction.PROTECT, everything, REMOTE, tunnel=1)
    router.client.commit()
    router.host.put(bytes(packet))
    router.client.await_drops({DropReason.TTL_EXPIRED: 1})

    router.host.put(late(data=b"a question"))
    assert router.host.take(1, 58).endswith(b"a question")


def test_too_big_is_said_about_an_echo_request(router: Router) -> None:
    router.host.put(bytes(to_peer(6) / ICMPv6EchoRequest(data=bytes(1440))))

    assert ICMPv6PacketTooBig in IPv6(router.host.take(58))


def test_errors_are_limited_in_rate(router: Router) -> None:
    count = 4 * ERRORS_PER_SECOND
    began = time.monotonic()
    for _ in range(count):
        router.host.put(late())
    router.client.await_drops({DropReason.TTL_EXPIRED: count})
    # A second begins with the first packet in it.
    seconds = int(time.monotonic() - began) + 2

    answered = router.client.read_device(LAN).sent_packets
    assert ERRORS_PER_SECOND <= answered <= ERRORS_PER_SECOND * seconds
