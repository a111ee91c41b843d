"""What the kernel tells of its SAs and policies over NETLINK_XFRM's multicast groups, by real traffic."""

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, IPv6Interface
from pathlib import Path

import pytest

from gateway.bench.topology import Link, Namespace, connect, delete_namespace, make_namespace
from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.netlink import XfrmListener, XfrmSocket
from gateway.datapath.xfrm.numbers import (
    ANY_PROTOCOL,
    AeventFlag,
    EncapsulationType,
    Group,
    MessageType,
    Mode,
    PolicyDirection,
)
from gateway.host.sockets import UDP_ENCAP, UDP_ENCAP_ESPINUDP
from tests.conformance.namespace import inside
from tests.guest.sas import EVERYTHING6, GCM_128, HERE, HERE6, PEER, PEER6, esp, host_policy
from tests.netns.xfrm_witness import told

pytestmark = pytest.mark.guest

SPI_AB, SPI_BA = 0x1001, 0x2001
ELSEWHERE = IPv4Address("192.0.2.9")
HOME = IPv6Address("2001:db8::77")
DISCARD_PORT = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """Two hosts with a link; tests run in the first."""

    a: Namespace
    b: Namespace


@pytest.fixture(scope="module")
def wire() -> Iterator[Hosts]:
    a, b = make_namespace("xfrm-a"), make_namespace("xfrm-b")
    connect(
        Link(
            left=a,
            left_device="wire",
            left_addresses=(f"{HERE}/24", f"{HERE6}/64"),
            right=b,
            right_device="wire",
            right_addresses=(f"{PEER}/24", f"{PEER6}/64"),
        )
    )
    yield Hosts(a=a, b=b)
    for namespace in (a, b):
        delete_namespace(namespace)


@pytest.fixture
def hosts(wire: Hosts) -> Iterator[Hosts]:
    with inside(wire.a):
        yield wire
    for namespace in (wire.a, wire.b):
        with inside(namespace), XfrmSocket() as kernel:
            kernel.flush_sas(ANY_PROTOCOL)
            kernel.flush_policies()


@pytest.fixture
def xfrm(hosts: Hosts) -> Iterator[XfrmSocket]:
    with XfrmSocket() as kernel:
        yield kernel


def send(count: int = 1) -> None:
    """Send datagrams to the peer, whether they get there or not."""
    with socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.setblocking(False)
        for _ in range(count):
            with suppress(OSError):
                udp.sendto(b"x" * 100, (str(PEER), DISCARD_PORT))


def protect_outbound(xfrm: XfrmSocket, sa: r.SaInfo, attributes: r.Attributes = GCM_128) -> None:
    """Protect what goes to the peer."""
    xfrm.add_sa(sa, attributes)
    xfrm.add_policy(*host_policy(HERE, PEER, PolicyDirection.OUT))


OUTBOUND = esp(SPI_AB, mode=Mode.TRANSPORT)


def test_sa_expires_by_packets_first_softly(xfrm: XfrmSocket) -> None:
    limits = r.LifetimeLimits(soft_packets=2, hard_packets=4)
    protect_outbound(xfrm, replace(OUTBOUND, limits=limits))

    with XfrmListener([Group.EXPIRE]) as listener:
        send(6)
        soft, hard = told(listener, r.Expire), told(listener, r.Expire)

    assert (soft.body.is_hard, soft.body.sa.id, soft.body.sa.usage.packets) == (False, OUTBOUND.id, 2)
    assert (hard.body.is_hard, hard.body.sa.id, hard.body.sa.usage.packets) == (True, OUTBOUND.id, 4)
    assert OUTBOUND.id not in [sa.body.id for sa in xfrm.sas()]


def test_sa_expires_by_time(xfrm: XfrmSocket) -> None:
    # Far enough apart that a kernel which stands still for a while does not come to the second one first.
    limits = r.LifetimeLimits(soft_add_s=1, hard_add_s=4)

    with XfrmListener([Group.EXPIRE]) as listener:
        xfrm.add_sa(replace(OUTBOUND, limits=limits), GCM_128)
        soft, hard = told(listener, r.Expire), told(listener, r.Expire)

    assert (soft.body.is_hard, hard.body.is_hard) == (False, True)
    assert hard.body.sa.limits == limits


def test_reserved_spi_that_nobody_uses_expires(xfrm: XfrmSocket) -> None:
    expires = Path("/proc/sys/net/core/xfrm_acq_expires")
    before = expires.read_text()
    expires.write_text("1")
    try:
        with XfrmListener([Group.EXPIRE]) as listener:
            made = xfrm.allocate_spi(r.SpiRange(sa=esp(0), lowest=0x5000, highest=0x5000))
            gone = told(listener, r.Expire)
    finally:
        expires.write_text(before)

    assert gone.body.is_hard
    assert gone.body.sa.id == made.body.id


def test_policy_expires_by_time(xfrm: XfrmSocket) -> None:
    policy, attributes = host_policy(HERE, PEER, PolicyDirection.FORWARD)

    with XfrmListener([Group.EXPIRE]) as listener:
        xfrm.add_policy(replace(policy, limits=r.LifetimeLimits(hard_add_s=1)), attributes)
        gone = told(listener, r.PolicyExpire)

    assert gone.body.is_hard
    assert gone.body.policy.selector == policy.selector
    assert xfrm.policies() == ()


def test_sa_that_answers_an_acquire_carries_the_traffic(xfrm: XfrmSocket) -> None:
    xfrm.add_policy(*host_policy(HERE, PEER, PolicyDirection.OUT))

    with XfrmListener([Group.ACQUIRE]) as listener:
        send()
        asked = told(listener, r.Acquire)
    xfrm.add_sa(replace(OUTBOUND, sequence=asked.body.sequence), GCM_128)
    send(3)

    assert asked.body.id.destination == PEER
    assert (asked.body.selector.protocol, asked.body.selector.destination_port) == (17, DISCARD_PORT)
    # The SA has taken the place of the one that waited.
    (sa,) = xfrm.sas()
    assert (sa.body.id, sa.body.usage.packets) == (OUTBOUND.id, 3)


def test_new_sas_and_their_end_are_told(xfrm: XfrmSocket) -> None:
    with XfrmListener([Group.SA]) as listener:
        xfrm.add_sa(OUTBOUND, GCM_128)
        added = told(listener, r.SaInfo)
        xfrm.update_sa(replace(OUTBOUND, limits=r.LifetimeLimits(soft_packets=9)), GCM_128)
        updated = told(listener, r.SaInfo)
        xfrm.delete_sa(OUTBOUND.id)
        deleted = told(listener, r.SaId)
        xfrm.add_sa(OUTBOUND, GCM_128)
        told(listener, r.SaInfo)
        xfrm.flush_sas(50)
        flushed = told(listener, r.FlushSas)

    assert (added.type, added.body.id) == (MessageType.NEWSA, OUTBOUND.id)
    assert (updated.type, updated.body.limits.soft_packets) == (MessageType.UPDSA, 9)
    assert (deleted.type, deleted.body) == (MessageType.DELSA, OUTBOUND.id)
    assert (flushed.type, flushed.body.protocol) == (MessageType.FLUSHSA, 50)


def test_policies_and_their_flush_are_told(xfrm: XfrmSocket) -> None:
    policy, attributes = host_policy(HERE, PEER, PolicyDirection.OUT)

    with XfrmListener([Group.POLICY]) as listener:
        xfrm.add_policy(policy, attributes)
        added = told(listener, r.PolicyInfo)
        xfrm.update_policy(replace(policy, priority=5), attributes)
        updated = told(listener, r.PolicyInfo)
        xfrm.flush_policies()
        flushed = told(listener, r.Nothing)

    assert (added.type, added.body.selector) == (MessageType.NEWPOLICY, policy.selector)
    assert (updated.type, updated.body.priority) == (MessageType.UPDPOLICY, 5)
    assert flushed.type == MessageType.FLUSHPOLICY


def test_sequence_numbers_are_told_by_the_threshold(xfrm: XfrmSocket) -> None:
    protect_outbound(xfrm, OUTBOUND, replace(GCM_128, replay_threshold=2))

    with XfrmListener([Group.AEVENTS]) as listener:
        send(6)
        event = told(listener, r.Aevent)

    assert event.body.id == OUTBOUND.id
    assert AeventFlag.CAUSE_REPLAY in event.body.flags
    assert event.attributes.replay is not None
    assert event.attributes.replay.outbound >= 2
    assert event.attributes.usage is not None


def test_peer_behind_a_nat_that_has_a_new_port_is_told(hosts: Hosts, xfrm: XfrmSocket) -> None:
    def natted(source_port: int) -> r.Attributes:
        ports = r.Encapsulation(
            type=EncapsulationType.ESP_IN_UDP, source_port=source_port, destination_port=4500
        )
        return replace(GCM_128, encapsulation=ports)

    inbound = esp(SPI_BA, PEER, HERE, mode=Mode.TRANSPORT)
    xfrm.add_sa(inbound, natted(1025))
    with (
        socket.socket(type=socket.SOCK_DGRAM) as port_4500,
        XfrmListener([Group.MAPPING]) as listener,
    ):
        port_4500.bind((str(HERE), 4500))
        port_4500.setsockopt(socket.IPPROTO_UDP, UDP_ENCAP, UDP_ENCAP_ESPINUDP)
        with inside(hosts.b), XfrmSocket() as peer, socket.socket(type=socket.SOCK_DGRAM) as udp:
            peer.add_sa(inbound, natted(1026))
            peer.add_policy(*host_policy(PEER, HERE, PolicyDirection.OUT))
            udp.sendto(b"x", (str(HERE), DISCARD_PORT))
        moved = told(listener, r.Mapping)

    assert moved.body == r.Mapping(
        id=inbound.id,
        old_source=PEER,
        new_source=PEER,
        old_source_port=1025,
        new_source_port=1026,
        reqid=inbound.reqid,
    )


def test_migration_moves_policy_and_sa_and_is_told(xfrm: XfrmSocket) -> None:
    tunnel = esp(SPI_AB)
    policy, attributes = host_policy(HERE, PEER, PolicyDirection.OUT, mode=Mode.TUNNEL)
    xfrm.add_sa(tunnel, GCM_128)
    xfrm.add_policy(policy, attributes)
    move = r.Migration(
        old_source=HERE,
        old_destination=PEER,
        new_source=HERE,
        new_destination=ELSEWHERE,
        protocol=50,
        mode=Mode.TUNNEL,
        reqid=tunnel.reqid,
    )

    with XfrmListener([Group.MIGRATE]) as listener:
        xfrm.migrate(
            r.PolicyId(direction=PolicyDirection.OUT, selector=policy.selector),
            r.Attributes(migrations=(move,), km_address=r.KmAddress(local=HERE, remote=ELSEWHERE)),
        )
        event = told(listener, r.PolicyId)

    assert event.type == MessageType.MIGRATE
    assert event.attributes.migrations == (move,)
    assert event.attributes.km_address == r.KmAddress(local=HERE, remote=ELSEWHERE)
    (sa,) = xfrm.sas()
    assert sa.body.id == replace(tunnel.id, destination=ELSEWHERE)
    assert sa.attributes.aead == GCM_128.aead
    (moved,) = xfrm.policies()
    assert moved.attributes.templates is not None
    assert moved.attributes.templates[0].destination == ELSEWHERE


def test_packet_that_mobile_ipv6_could_not_protect_is_reported(hosts: Hosts, xfrm: XfrmSocket) -> None:
    # A correspondent takes a mobile node's packets by its home address (RFC 6275 §9.3.1), here only with ESP.
    xfrm.add_sa(
        r.SaInfo(
            id=r.SaId(destination=HERE6, spi=0, protocol=socket.IPPROTO_DSTOPTS),
            source=HOME,
            mode=Mode.ROUTEOPTIMIZATION,
            selector=EVERYTHING6,
        ),
        r.Attributes(care_of_address=PEER6),
    )
    selector = r.Selector(source=IPv6Interface(f"{HOME}/128"), destination=IPv6Interface(f"{HERE6}/128"))
    esp_wanted = r.Template(source=None, destination=None, protocol=50, mode=Mode.TRANSPORT)
    xfrm.add_policy(
        r.PolicyInfo(selector=selector, direction=PolicyDirection.IN), r.Attributes(templates=(esp_wanted,))
    )

    with XfrmListener([Group.REPORT]) as listener:
        with inside(hosts.b), socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            raw.sendto(from_home(), (str(HERE6), 0))
        said = told(listener, r.Report)

    assert said.body.protocol == socket.IPPROTO_DSTOPTS
    assert (said.body.selector.source, said.body.selector.destination) == (
        selector.source,
        selector.destination,
    )
    assert said.attributes.care_of_address == PEER6


def from_home() -> bytes:
    """Return a packet with a Home Address option (RFC 6275 §6.3) and nothing behind it."""
    nobodys_protocol = 253
    pad_to_8n_plus_6 = bytes([1, 2, 0, 0])
    option = bytes([nobodys_protocol, 2]) + pad_to_8n_plus_6 + bytes([201, 16]) + HOME.packed
    header = struct.pack("!IHBB", 6 << 28, len(option), socket.IPPROTO_DSTOPTS, 64)
    return header + PEER6.packed + HERE6.packed + option
