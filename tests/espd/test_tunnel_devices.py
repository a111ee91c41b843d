"""A TUN device with policies of its own: what the kernel routes into it takes its tunnel.

Traffic through a tunnel interface is protected by where it is routed to, not by what its selectors are.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gateway.datapath.engine import protocol as p
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.sa import SecurityAssociation
from tests.espd.client import PATIENCE_S, Client
from tests.espd.machine import (
    INNER,
    PORT,
    SPI_IN,
    SPI_OUT,
    Machine,
    inbound,
    ip,
    load_pair,
    open_outer,
    open_raw,
    open_tun,
    opener,
    outbound,
    sealer,
)
from tests.unit.esp.samples import ANY, ip_packet

INTERFACE, OTHER = 4, 5
NONE = p.DeviceFlag(0)
OUT, IN = 70, 71
ELSEWHERE = "203.0.113.9"


def open_interface(
    client: Client, flags: p.DeviceFlag = NONE, device: int = INTERFACE, name: str = "ipsec1"
) -> None:
    """Have espd make another TUN device."""
    message = p.Device(
        device=device,
        name=name.encode(),
        flags=p.DeviceFlag.CLEAR | p.DeviceFlag.OFFLOAD | p.DeviceFlag.TUNNEL | flags,
        mtu=1400,
        queues=1,
    )
    message.receive_methods[0] = message.send_methods[0] = p.IoKind.TUN
    client.set_device(message)
    ip("link", "set", name, "addrgenmode", "none")
    ip("link", "set", name, "up")


def route_into() -> None:
    ip("route", "add", "203.0.113.0/24", "dev", "ipsec1", "src", INNER[4][0])


def open_all(machine: Machine, flags: p.DeviceFlag = NONE) -> None:
    client = machine.client
    client.hello()
    client.configure()
    open_tun(client)
    open_raw(client)
    load_pair(client, outbound(), inbound())
    open_interface(client, flags)
    route_into()


def carry(client: Client, number: int, device: int) -> tuple[SecurityAssociation, SecurityAssociation]:
    """Have a device's traffic carried by SAs of its own; return those out and in."""
    out = outbound(spi=SPI_OUT + number, local_ts=ANY, remote_ts=ANY)
    into = inbound(spi=SPI_IN + number, local_ts=ANY, remote_ts=ANY)
    client.add_sa(out, OUT + 10 * number, device=device)
    client.add_sa(into, IN + 10 * number, device=device)
    client.set_tunnel(1 + number, [OUT + 10 * number])
    client.set_policy(1 + number, p.PolicyAction.PROTECT, ANY, ANY, tunnel=1 + number, device=device)
    client.commit()
    return out, into


@contextmanager
def tapping(device: str) -> Iterator[socket.socket]:
    """Hear what a device brings the kernel."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800)) as tap:
        tap.settimeout(PATIENCE_S)
        tap.bind((device, 0x0800))
        yield tap


def coming_out(tap: socket.socket) -> bytes:
    while (seen := tap.recvfrom(2000))[1][2] == socket.PACKET_OUTGOING:
        pass
    return seen[0]


def back(to: str) -> bytes:
    """Return a packet from beyond the tunnel."""
    return ip_packet(4, b"back", addresses={4: (ELSEWHERE, to)})


def test_a_device_has_a_tunnel_of_its_own_both_ways(machine: Machine) -> None:
    open_all(machine)
    client = machine.client
    out, into = carry(client, 1, INTERFACE)
    program = machine.program()

    program.sendto(b"by its route", (ELSEWHERE, PORT))
    routed = machine.peer.take(50)
    program.sendto(b"by its selectors", (INNER[4][1], PORT))
    selected = machine.peer.take(50)

    assert open_outer(opener(out), routed).endswith(b"by its route")
    assert open_outer(opener(outbound()), selected).endswith(b"by its selectors")

    # What its SA brings comes out of the device, not out of another: the kernel sees where it came from.
    with tapping("ipsec1") as tap:
        packet = ip_packet(4, b"back", addresses={4: (ELSEWHERE, INNER[4][0])})
        machine.peer.put(sealer(into).seal(packet, 0.0))
        assert coming_out(tap) == packet


def test_a_device_with_policies_of_its_own_has_no_others(machine: Machine) -> None:
    open_all(machine)
    client = machine.client
    client.set_policy(2, p.PolicyAction.DISCARD, ANY, ANY, device=INTERFACE)
    client.commit()
    program = machine.program()
    ip("route", "replace", "10.2.0.0/16", "dev", "ipsec1", "src", INNER[4][0])

    program.sendto(b"wrong way", (INNER[4][1], PORT))

    client.await_drops({DropReason.POLICY_DISCARD: 1})


def test_a_device_without_policies_has_not_those_of_others(machine: Machine) -> None:
    open_all(machine)
    program = machine.program()
    ip("route", "replace", "10.2.0.0/16", "dev", "ipsec1", "src", INNER[4][0])

    program.sendto(b"no tunnel of its own", (INNER[4][1], PORT))

    machine.client.await_drops({DropReason.NO_POLICY: 1})


def test_what_an_sa_brings_for_a_device_that_is_not_there_goes_nowhere(machine: Machine) -> None:
    client = machine.client
    client.hello()
    client.configure()
    open_tun(client)
    open_raw(client)
    into = inbound(spi=SPI_IN + 1, local_ts=ANY, remote_ts=ANY)
    client.add_sa(into, IN, device=INTERFACE)

    machine.peer.put(sealer(into).seal(back(ELSEWHERE), 0.0))

    client.await_drops({DropReason.SEND_FAILED: 1})


def test_a_tunnels_device_and_its_routes_stay_when_espd_ends(machine: Machine) -> None:
    open_all(machine)
    machine.process.terminate()
    machine.wait()

    assert "203.0.113.0/24" in ip("route", "show", "dev", "ipsec1")
    ip("link", "delete", "ipsec1")


def test_a_device_that_somebody_removes_is_given_up(machine: Machine) -> None:
    open_all(machine)
    ip("link", "delete", "ipsec1")

    event = machine.client.next_event()

    assert isinstance(event, p.MethodEvent)
    assert (event.device, event.new_method) == (INTERFACE, 0)
    assert b"the TUN device is gone" in event.reason


# --- by the routes of espd's tables -----------------------------------------------------------------------


def test_one_tunnel_brings_what_the_next_carries_on_without_the_kernel(machine: Machine) -> None:
    """From one peer to another: the hub opens, and seals by the route."""
    open_all(machine, p.DeviceFlag.ROUTED)
    client = machine.client
    open_interface(client, device=OTHER, name="ipsec2")
    _, into = carry(client, 1, INTERFACE)
    out, _ = carry(client, 2, OTHER)
    client.set_route("198.51.100.0/24", p.RouteKind.FORWARD, device=OTHER)
    client.commit()
    packet = back("198.51.100.7")

    machine.peer.put(sealer(into).seal(packet, 0.0))
    carried = open_outer(opener(out), machine.peer.take(50))

    assert carried[8] == packet[8] - 1
    assert carried[12:] == packet[12:]
    counters = client.counters()
    assert (counters.forwarded, counters.slow_path) == (1, 0)


@pytest.mark.parametrize(
    "to",
    ["198.51.100.7", "203.0.113.7", "224.0.0.5", "169.254.9.1"],
    ids=["no sa", "its own way back", "multicast", "link-local"],
)
def test_what_the_tables_cannot_say_comes_out_of_the_tunnels_own_device(machine: Machine, to: str) -> None:
    open_all(machine, p.DeviceFlag.ROUTED)
    client = machine.client
    open_interface(client, device=OTHER, name="ipsec2")
    _, into = carry(client, 1, INTERFACE)
    client.set_route("0.0.0.0/0", p.RouteKind.FORWARD, device=OTHER)
    client.set_route("203.0.113.0/24", p.RouteKind.LOCAL)
    client.commit()
    packet = back(to)

    with tapping("ipsec1") as tap:
        machine.peer.put(sealer(into).seal(packet, 0.0))
        assert coming_out(tap) == packet
    assert client.counters().slow_path == 1


def test_a_device_that_is_not_routed_leaves_all_to_the_kernel(machine: Machine) -> None:
    """One in a VRF: the tables here are not its own."""
    open_all(machine)
    client = machine.client
    open_interface(client, device=OTHER, name="ipsec2")
    _, into = carry(client, 1, INTERFACE)
    carry(client, 2, OTHER)
    client.set_route("198.51.100.0/24", p.RouteKind.FORWARD, device=OTHER)
    client.commit()
    packet = back("198.51.100.7")

    with tapping("ipsec1") as tap:
        machine.peer.put(sealer(into).seal(packet, 0.0))
        assert coming_out(tap) == packet


def test_what_is_sealed_never_takes_a_tunnel(machine: Machine) -> None:
    """A default route into the tunnel: its own packets go by the kernel, which knows our mark."""
    open_all(machine)
    client = machine.client
    out, _ = carry(client, 1, INTERFACE)
    client.set_route("0.0.0.0/0", p.RouteKind.FORWARD, device=INTERFACE)
    client.commit()

    machine.program().sendto(b"by its route", (ELSEWHERE, PORT))

    assert open_outer(opener(out), machine.peer.take(50)).endswith(b"by its route")


def test_many_devices_are_all_served(machine: Machine) -> None:
    """More than are asked in each round."""
    open_all(machine)
    client = machine.client
    for number in range(20):
        open_interface(client, device=100 + number, name=f"many{number}")
    out, _ = carry(client, 1, 119)
    ip("route", "replace", "203.0.113.0/24", "dev", "many19", "src", INNER[4][0])
    program = machine.program()

    for number in range(30):
        program.sendto(b"%d" % number, (ELSEWHERE, PORT))
        assert open_outer(opener(out), machine.peer.take(50)).endswith(b"%d" % number)
