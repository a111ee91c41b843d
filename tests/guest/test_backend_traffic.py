"""Traffic through the xfrm backend: what passes, what is dropped, what is told, and what a rekey loses."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Interface, ip_address
from typing import Any, TypeVar

import pytest

from gateway.datapath.backend import (
    Acquire,
    Datapath,
    DatapathEvent,
    HardExpire,
    MappingChange,
    SasLost,
    SoftExpire,
)
from gateway.datapath.watch import Watch
from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.backend import XfrmBackend
from gateway.datapath.xfrm.netlink import XfrmSocket
from gateway.datapath.xfrm.numbers import ANY_PROTOCOL, PolicyDirection
from gateway.host.sockets import (
    UDP_ENCAP,
    UDP_ENCAP_ESPINUDP,
    bypass_xfrm,
    grow_receive_buffer,
)
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.lifetime import Lifetime, Limit
from gateway.ipsec.placement import Engine, Placement
from gateway.ipsec.policy import Action
from gateway.ipsec.sa import Mode, SecurityAssociation, UdpEncapsulation
from gateway.ipsec.selectors import TrafficSelector
from tests.conformance.namespace import inside
from tests.conformance.sas import inbound, outbound, policy
from tests.guest.backend_rig import Peer, ip

pytestmark = pytest.mark.guest

PORT = 7001
KERNEL = Placement(require=Engine.KERNEL)
E = TypeVar("E", bound=DatapathEvent)


@contextmanager
def udp(address: str, namespace: Any = None) -> Iterator[socket.socket]:
    """A program at an address of ours, or of the peer in its namespace."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    if namespace is None:
        made = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    else:
        with inside(namespace):
            made = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    with made:
        grow_receive_buffer(made, 1 << 23)
        made.bind((address, PORT))
        yield made


async def received(sock: socket.socket, timeout_s: float = 30.0) -> bytes:
    return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 2048), timeout_s)


async def next_of(events: Watch[DatapathEvent], kind: type[E], timeout_s: float = 30.0) -> E:
    """Return the next event of this kind."""
    async with asyncio.timeout(timeout_s):
        async for event in events:
            if isinstance(event, kind):
                return event
    raise AssertionError("the stream ended")


def couple(number: int = 1, **changes: Any) -> tuple[SecurityAssociation, SecurityAssociation]:
    """Return the inbound and outbound SA of one Child SA."""
    common = {"child_sa_id": number, "placement": KERNEL, **changes}
    return inbound(0x1000 + number, **common), outbound(0x2000 + number, **common)


async def bring_up(backend: Datapath, peer: Peer, **changes: Any) -> tuple[SecurityAssociation, ...]:
    """Install one Child SA at both ends, and return it."""
    sas = couple(**changes)
    protected = policy(mode=sas[0].mode, local_ts=sas[0].local_ts, remote_ts=sas[0].remote_ts)
    assert [result.error for result in await backend.apply_policies([protected])] == [None]
    assert [result.error for result in await backend.install_sas(sas)] == [None, None]
    peer.install(*sas)
    peer.protect(protected, sas[0])
    return sas


# --- rekey ------------------------------------------------------------------------------------------------


class Stream:
    """Numbered datagrams, as fast as one in two milliseconds, until it is stopped."""

    def __init__(self, sender: socket.socket, destination: str) -> None:
        self.sent = 0
        self._sender = sender
        self._destination = (destination, PORT)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._sender.sendto(self.sent.to_bytes(4, "big"), self._destination)
            self.sent += 1
            time.sleep(0.002)

    def __enter__(self) -> "Stream":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


async def more_of(*streams: Stream) -> None:
    """Return when each has sent some more."""
    wanted = [stream.sent + 5 for stream in streams]
    async with asyncio.timeout(30):
        while any(  # noqa: ASYNC110 - threads count
            stream.sent < enough for stream, enough in zip(streams, wanted, strict=True)
        ):
            await asyncio.sleep(0.005)


async def drained(sock: socket.socket, count: int) -> set[int]:
    """Return the numbers that arrived, as soon as they are so many; else after a while."""
    numbers: set[int] = set()
    for _ in range(600):
        with contextlib.suppress(BlockingIOError):
            while True:
                numbers.add(int.from_bytes(sock.recv(2048), "big"))
        if len(numbers) >= count:
            break
        await asyncio.sleep(0.05)
    return numbers


@pytest.mark.parametrize("mode", list(Mode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("udp_encapsulated", [False, True], ids=["ESP", "in UDP"])
async def test_rekeys_under_traffic_lose_nothing_in_either_direction(
    backend: XfrmBackend, peer: Peer, mode: Mode, udp_encapsulated: bool
) -> None:
    ours, theirs = ("10.1.0.1", "10.2.0.1") if mode is Mode.TUNNEL else ("192.0.2.1", "192.0.2.2")
    shape: dict[str, Any] = {
        "mode": mode,
        "local_ts": (TrafficSelector.parse(ours),),
        "remote_ts": (TrafficSelector.parse(theirs),),
        "encapsulation": UdpEncapsulation(source_port=4500, destination_port=4500)
        if udp_encapsulated
        else None,
    }
    old = await bring_up(backend, peer, **shape)
    with nat_t_of(peer), udp(ours) as here, udp(theirs, peer.namespace) as there:
        with Stream(here, theirs) as to_peer, Stream(there, ours) as from_peer:
            for number in range(2, 12):
                await more_of(to_peer, from_peer)
                new = couple(number, **shape)
                # In the order of docs/architecture: new inbound, new outbound, old outbound, old inbound.
                assert (await backend.install_sas(new[:1]))[0].ok
                peer.install(*new)
                assert (await backend.install_sas(new[1:]))[0].ok
                await more_of(to_peer, from_peer)
                await backend.remove_sas([old[1].sa_id])
                peer.remove(old[0])
                await more_of(to_peer, from_peer)
                peer.remove(old[1])
                await backend.remove_sas([old[0].sa_id])
                old = new
        assert set(range(to_peer.sent)) - await drained(there, to_peer.sent) == set()
        assert set(range(from_peer.sent)) - await drained(here, from_peer.sent) == set()
    assert (await backend.counters()).drops == {}


@contextmanager
def nat_t_of(peer: Peer) -> Iterator[socket.socket]:
    """The peer's UDP port 4500, whose ESP its kernel takes."""
    with inside(peer.namespace):
        port = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with port:
        port.bind(("0.0.0.0", 4500))
        port.setsockopt(socket.IPPROTO_UDP, UDP_ENCAP, UDP_ENCAP_ESPINUDP)
        assert bypass_xfrm(port)
        yield port


async def test_new_outbound_sa_carries_the_next_packet(backend: XfrmBackend, peer: Peer) -> None:
    old = await bring_up(backend, peer)
    new = couple(2)
    peer.install(*new)
    with udp("10.1.0.1") as here, udp("10.2.0.1", peer.namespace) as there:
        here.sendto(b"old", ("10.2.0.1", PORT))
        await received(there)
        await backend.install_sas(new)
        here.sendto(b"new", ("10.2.0.1", PORT))
        await received(there)

    packets = {count.sa_id: count.packets for count in (await backend.counters()).sas}
    assert (packets[old[1].sa_id], packets[new[1].sa_id]) == (1, 1)


# --- limits, acquire, loss --------------------------------------------------------------------------------


async def test_packet_limits_are_told_soft_then_hard_and_then_traffic_asks_again(
    backend: XfrmBackend, peer: Peer
) -> None:
    events = backend.events()
    lifetime = Lifetime(soft=Limit(packets=2), hard=Limit(packets=4))
    _, sending = await bring_up(backend, peer, lifetime=lifetime)
    await backend.apply_policies([policy(remote_address=ip_address("192.0.2.2"))])
    with udp("10.1.0.1") as here:
        for _ in range(4):
            here.sendto(b"x", ("10.2.0.1", PORT))
        with pytest.raises(OSError, match="Invalid argument"):
            here.sendto(b"x", ("10.2.0.1", PORT))
        soft, hard = await next_of(events, SoftExpire), await next_of(events, HardExpire)
        assert await until_gone(backend, sending)
        here.sendto(b"x", ("10.2.0.1", PORT))
        asked = await next_of(events, Acquire)

    assert (soft.sa_id, soft.limit) == (hard.sa_id, hard.limit) == (sending.sa_id, "packets")
    assert (asked.policy, asked.destination_port) == ("paris/lan", PORT)


async def until_gone(backend: XfrmBackend, sa: SecurityAssociation) -> bool:
    for _ in range(1500):
        if sa.sa_id not in {item.sa.sa_id for item in await backend.list_sas()}:
            return True
        await asyncio.sleep(0.02)
    return False


async def test_byte_limit_is_told_as_such(backend: XfrmBackend, peer: Peer) -> None:
    events = backend.events()
    _, sending = await bring_up(backend, peer, lifetime=Lifetime(soft=Limit(bytes=1000)))
    with udp("10.1.0.1") as here:
        # The kernel looks before it counts: the third packet finds that the limit is reached.
        for _ in range(3):
            here.sendto(bytes(900), ("10.2.0.1", PORT))

        told = await next_of(events, SoftExpire)

    assert (told.sa_id, told.limit) == (sending.sa_id, "bytes")


async def test_traffic_without_an_sa_asks_for_one_and_stays_here(backend: XfrmBackend, peer: Peer) -> None:
    events = backend.events()
    await backend.apply_policies([policy(remote_address=ip_address("192.0.2.2"))])
    with udp("10.1.0.1") as here, udp("10.2.0.1", peer.namespace) as there:
        here.sendto(b"x", ("10.2.0.1", PORT))

        asked = await next_of(events, Acquire)

        assert asked == Acquire(
            policy="paris/lan",
            source=ip_address("10.1.0.1"),
            destination=ip_address("10.2.0.1"),
            protocol=17,
            source_port=PORT,
            destination_port=PORT,
        )
        with pytest.raises(BlockingIOError):
            there.recv(10)


async def test_an_sa_answers_what_traffic_asked_and_when_it_goes_traffic_asks_anew(
    backend: XfrmBackend, peer: Peer
) -> None:
    events = backend.events()
    await backend.apply_policies([policy(remote_address=ip_address("192.0.2.2"))])
    sas = couple()
    with udp("10.1.0.1") as here:
        here.sendto(b"x", ("10.2.0.1", PORT))
        await next_of(events, Acquire)
        await backend.install_sas(sas)
        with XfrmSocket() as kernel:
            waiting = [sa for sa in kernel.sas() if sa.body.id.spi == 0]
        await backend.remove_sas([sa.sa_id for sa in sas])
        here.sendto(b"x", ("10.2.0.1", PORT))

        asked = await next_of(events, Acquire)

    assert waiting == []
    assert asked.policy == "paris/lan"


async def test_packet_outside_the_negotiated_selectors_asks_and_does_not_use_the_sa(
    backend: XfrmBackend, peer: Peer
) -> None:
    events = backend.events()
    await backend.apply_policies([policy(remote_address=ip_address("192.0.2.2"))])
    sas = couple(remote_ts=(TrafficSelector.parse("10.2.0.0/24"),))
    await backend.install_sas(sas)
    with udp("10.1.0.1") as here:
        here.sendto(b"x", ("10.2.7.1", PORT))

        asked = await next_of(events, Acquire)

    assert asked.destination == ip_address("10.2.7.1")
    assert all(count.packets == 0 for count in (await backend.counters()).sas)


async def test_two_peers_of_one_child_each_get_their_own_traffic(backend: XfrmBackend, peer: Peer) -> None:
    await backend.apply_policies([policy()])
    first = couple(1, remote_ts=(TrafficSelector.parse("10.2.0.1"),))
    other = ip_address("192.0.2.3")
    second = tuple(
        replace(sa, **{end: other})  # type: ignore[arg-type]
        for sa, end in zip(
            couple(2, remote_ts=(TrafficSelector.parse("10.2.7.1"),)), ("source", "destination"), strict=True
        )
    )
    await backend.install_sas([*first, *second])
    with udp("10.1.0.1") as here:
        here.sendto(b"x", ("10.2.0.1", PORT))
        here.sendto(b"x", ("10.2.7.1", PORT))
        here.sendto(b"x", ("10.2.7.1", PORT))

    # What a program sends goes through the SA before it goes on.
    packets = {count.sa_id: count.packets for count in (await backend.counters()).sas}
    assert (packets[first[1].sa_id], packets[second[1].sa_id]) == (1, 2)


@pytest.mark.parametrize("flushes", [False, True], ids=["deleted", "flushed"])
async def test_sa_that_another_process_takes_away_is_told_as_lost(
    backend: XfrmBackend, peer: Peer, flushes: bool
) -> None:
    events = backend.events()
    sa = inbound(placement=KERNEL)
    await backend.install_sas([sa])
    with XfrmSocket() as stranger:
        if flushes:
            stranger.flush_sas(ANY_PROTOCOL)
        else:
            stranger.delete_sa(r.SaId(destination=sa.destination, spi=sa.spi, protocol=50))

    lost = await next_of(events, SasLost)

    assert lost.sa_ids == (sa.sa_id,)
    assert "another process" in lost.reason
    assert await backend.list_sas() == ()


# --- the SPD ----------------------------------------------------------------------------------------------


async def test_clear_packets_from_outside_are_dropped_and_counted(backend: XfrmBackend, peer: Peer) -> None:
    await backend.apply_policies([policy()])
    with udp("10.1.0.1") as here, udp("10.2.0.1", peer.namespace) as there:
        there.sendto(b"clear", ("10.1.0.1", PORT))

        await until_dropped(backend, DropReason.CLEAR_INBOUND, 1)
        with pytest.raises(BlockingIOError):
            here.recv(10)


async def until_dropped(backend: XfrmBackend, reason: DropReason, count: int) -> None:
    for _ in range(600):
        drops = (await backend.counters()).drops
        if drops.get(reason, 0) >= count:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(drops)


async def test_discard_stops_and_bypass_lets_pass_in_the_order_of_the_spd(
    backend: XfrmBackend, peer: Peer
) -> None:
    here_ts, there_ts = TrafficSelector.parse("192.0.2.1"), TrafficSelector.parse("192.0.2.2")
    one_port = TrafficSelector.parse(f"192.0.2.2[udp/{PORT}]")
    wide = policy("no", action=Action.DISCARD, priority=20, local_ts=(here_ts,), remote_ts=(there_ts,))
    await backend.apply_policies([wide])
    with udp("192.0.2.1") as here, udp("192.0.2.2", peer.namespace) as there:
        with pytest.raises(PermissionError):
            here.sendto(b"x", ("192.0.2.2", PORT))
        await until_dropped(backend, DropReason.POLICY_DISCARD, 1)

        await backend.apply_policies(
            [policy("yes", action=Action.BYPASS, priority=10, local_ts=(here_ts,), remote_ts=(one_port,))]
        )
        here.sendto(b"x", ("192.0.2.2", PORT))
        assert await received(there) == b"x"
        with pytest.raises(PermissionError):
            here.sendto(b"x", ("192.0.2.2", PORT + 1))

        await backend.remove_policies(["yes"])
        with pytest.raises(PermissionError):
            here.sendto(b"x", ("192.0.2.2", PORT))


async def test_protection_outlives_the_backend_and_traffic_too(backend: XfrmBackend, peer: Peer) -> None:
    await bring_up(backend, peer)

    await backend.close()

    with udp("10.1.0.1") as here, udp("10.2.0.1", peer.namespace) as there:
        here.sendto(b"protected", ("10.2.0.1", PORT))
        assert await received(there) == b"protected"
        with XfrmSocket() as kernel:
            kernel.flush_sas(ANY_PROTOCOL)
        here.sendto(b"clear", ("10.2.0.1", PORT))
        with pytest.raises(TimeoutError):
            await received(there, 0.3)


async def test_ipv6_neighbours_are_found_under_a_policy_for_everything(
    backend: XfrmBackend, peer: Peer
) -> None:
    ip("-6", "neighbour", "flush", "dev", "outside")
    ip("-6", "neighbour", "del", "2001:db8::2", "dev", "outside")
    everything = (TrafficSelector.parse("::/0"),)
    await bring_up(backend, peer)
    # The neighbour has to be found by an ESP packet's own solicitation.
    source, destination = ip_address("2001:db8::1"), ip_address("2001:db8::2")
    sa = outbound(
        0x3001, source=source, destination=destination, local_ts=everything, remote_ts=everything, child="v6"
    )
    await backend.apply_policies([policy("paris/v6", local_ts=everything, remote_ts=everything, child="v6")])
    await backend.install_sas([sa])
    with udp("fd00:1::1") as here:
        here.sendto(b"x", ("fd00:2::1", PORT))
        for _ in range(600):
            shown = ip("-6", "neighbour", "show", "dev", "outside")
            if "2001:db8::2" in shown and "lladdr" in shown:
                break
            await asyncio.sleep(0.05)

    assert "lladdr" in shown


@pytest.mark.parametrize("address", ["127.0.0.1", "192.0.2.1", "::1", "fd00:1::1", "fd00:9::1"])
async def test_machine_may_speak_with_itself_whatever_the_spd_says(
    backend: XfrmBackend, peer: Peer, address: str
) -> None:
    for everything in ("0.0.0.0/0", "::/0"):
        selectors = (TrafficSelector.parse(everything),)
        await backend.apply_policies(
            [policy(everything, action=Action.DISCARD, local_ts=selectors, remote_ts=selectors)]
        )
    if address == "fd00:9::1":  # one that comes later
        ip("address", "add", f"{address}/64", "dev", "outside", "nodad")
        await until_spared(address)

    with udp(address) as here:
        here.sendto(b"x", (address, PORT))

        assert await received(here) == b"x"


async def until_spared(address: str) -> None:
    """Return when an address of this machine has policies of its own."""
    with XfrmSocket() as kernel:
        for _ in range(600):
            if any(address == str(one.body.selector.destination.ip) for one in kernel.policies()):
                return
            await asyncio.sleep(0.05)
    raise AssertionError(f"no policy of {address}")


async def test_what_others_put_into_the_kernel_is_left_alone(backend: XfrmBackend, peer: Peer) -> None:
    with XfrmSocket() as stranger:
        theirs = outbound(0x7777)
        there = Peer(peer.namespace, stranger)
        there.install(theirs)
        everything = IPv4Interface("0.0.0.0/0")
        selector = r.Selector(source=everything, destination=everything, protocol=99)
        info = r.PolicyInfo(selector=selector, direction=PolicyDirection.OUT, priority=9)
        stranger.add_policy(info)
        await bring_up(backend, peer)

        await backend.remove_protection()

        assert [sa.body.id.spi for sa in stranger.sas()] == [0x7777]
        left = [one for one in stranger.policies() if one.body.direction is PolicyDirection.OUT]
        assert [one.body.priority for one in left] == [9]


# --- route-based ------------------------------------------------------------------------------------------


async def test_what_is_routed_into_an_xfrm_interface_is_protected_and_nothing_else(
    backend: XfrmBackend, peer: Peer
) -> None:
    everything = (TrafficSelector.parse("0.0.0.0/0"),)
    route_through_an_xfrm_interface(42)
    wide = policy(local_ts=everything, remote_ts=everything, interface_id=42)
    sas = couple(local_ts=everything, remote_ts=everything, interface_id=42)
    peer.install(*(replace(sa, interface_id=0) for sa in sas))
    peer.protect(policy(), sas[0])
    assert [result.error for result in await backend.apply_policies([wide])] == [None]

    with udp("10.1.0.1") as here, udp("10.2.0.1", peer.namespace) as there:
        with contextlib.suppress(OSError):
            here.sendto(b"too early", ("10.2.0.1", PORT))
        assert [result.error for result in await backend.install_sas(sas)] == [None, None]
        here.sendto(b"there", ("10.2.0.1", PORT))
        assert await received(there) == b"there"
        there.sendto(b"and back", ("10.1.0.1", PORT))
        assert await received(here) == b"and back"
    packets = [count.packets for count in (await backend.counters()).sas]
    with udp("192.0.2.1") as here, udp("192.0.2.2", peer.namespace) as there:
        here.sendto(b"clear, not by the interface", ("192.0.2.2", PORT))
        assert await received(there) == b"clear, not by the interface"

    assert packets == [1, 1]
    await backend.remove_policies([wide.name])
    with XfrmSocket() as kernel:
        assert [one for one in kernel.policies() if one.body.selector.user] == []


async def test_traffic_of_an_xfrm_interface_asks_for_an_sa(backend: XfrmBackend, peer: Peer) -> None:
    events = backend.events()
    route_through_an_xfrm_interface(42)
    await backend.apply_policies([policy(interface_id=42, remote_address=ip_address("192.0.2.2"))])
    with udp("10.1.0.1") as here, contextlib.suppress(OSError):
        here.sendto(b"x", ("10.2.0.1", PORT))

    assert (await next_of(events, Acquire)).policy == "paris/lan"


def route_through_an_xfrm_interface(number: int) -> None:
    ip("link", "add", "ipsec0", "type", "xfrm", "dev", "outside", "if_id", str(number))
    ip("link", "set", "ipsec0", "up")
    ip("route", "add", "10.2.0.0/16", "dev", "ipsec0", "src", "10.1.0.1")


# --- a peer that moves ------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["192.0.2.2", "192.0.2.3"], ids=["port", "address and port"])
async def test_authenticated_peer_is_followed_to_where_it_sends_from(
    backend: XfrmBackend, peer: Peer, address: str
) -> None:
    events = backend.events()
    encapsulation = UdpEncapsulation(source_port=4500, destination_port=4500)
    receiving, sending = await bring_up(backend, peer, encapsulation=encapsulation)
    with udp("10.1.0.1") as here, udp("10.2.0.1", peer.namespace) as there, nat_t_of(peer):
        here.sendto(b"before", ("10.2.0.1", PORT))
        assert await received(there) == b"before"
        # The peer's NAT gives it another address or port: its kernel sends from there from now on.
        peer.remove(receiving)
        moved_ports = UdpEncapsulation(source_port=4510, destination_port=4500)
        moved = replace(receiving, source=ip_address(address), encapsulation=moved_ports)
        peer.install(moved)
        peer.protect(policy(), moved)
        with inside(peer.namespace):
            new_port = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        with new_port:
            new_port.bind((address, 4510))
            there.sendto(b"from elsewhere", ("10.1.0.1", PORT))
            assert await received(here) == b"from elsewhere"
            change = await next_of(events, MappingChange)

            assert (change.sa_id, change.new) == (receiving.sa_id, (ip_address(address), 4510))
            data, source = await first_to_arrive(here, "10.2.0.1", new_port)

    assert source == ("192.0.2.1", 4500)
    spi, sequence = int.from_bytes(data[:4], "big"), int.from_bytes(data[4:8], "big")
    assert spi == sending.spi
    assert sequence > 1
    assert [item.sa.sa_id for item in await backend.list_sas()] == [receiving.sa_id, sending.sa_id]


async def first_to_arrive(sender: socket.socket, address: str, there: socket.socket) -> tuple[bytes, Any]:
    """Send until something arrives there, and return it with its source: SAs and policies move one by one."""
    loop = asyncio.get_running_loop()
    for _ in range(150):
        with contextlib.suppress(OSError):  # no SA for the policy just now
            sender.sendto(b"after", (address, PORT))
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(loop.sock_recvfrom(there, 2048), 0.2)
    raise AssertionError("nothing arrived")
