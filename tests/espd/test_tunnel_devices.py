"""A TUN device with policies of its own: what the kernel routes into it takes its tunnel.

Traffic through a tunnel interface is protected by where it is routed to, not by what its selectors are.
"""

import socket

import pytest

from gateway.datapath.engine import protocol as p
from gateway.ipsec.drop_reason import DropReason
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

INTERFACE = 4
OUT, IN = 70, 71
ELSEWHERE = "203.0.113.9"


def open_interface(client: Client) -> None:
    """Have espd make a second TUN device, and the kernel route something into it."""
    message = p.Device(
        device=INTERFACE,
        name=b"ipsec1",
        flags=p.DeviceFlag.CLEAR | p.DeviceFlag.OFFLOAD,
        mtu=1400,
        queues=1,
    )
    message.receive_methods[0] = message.send_methods[0] = p.IoKind.TUN
    client.set_device(message)
    ip("link", "set", "ipsec1", "addrgenmode", "none")
    ip("link", "set", "ipsec1", "up")
    ip("route", "add", "203.0.113.0/24", "dev", "ipsec1", "src", INNER[4][0])


def open_all(machine: Machine) -> None:
    client = machine.client
    client.hello()
    client.configure()
    open_tun(client)
    open_raw(client)
    load_pair(client, outbound(), inbound())
    open_interface(client)


def test_a_device_has_a_tunnel_of_its_own_both_ways(machine: Machine) -> None:
    open_all(machine)
    client = machine.client
    out = outbound(spi=SPI_OUT + 1, local_ts=ANY, remote_ts=ANY)
    into = inbound(spi=SPI_IN + 1, local_ts=ANY, remote_ts=ANY)
    client.add_sa(out, OUT, device=INTERFACE)
    client.add_sa(into, IN, device=INTERFACE)
    client.set_tunnel(2, [OUT])
    client.set_policy(2, p.PolicyAction.PROTECT, ANY, ANY, tunnel=2, device=INTERFACE)
    client.commit()
    program = machine.program()

    program.sendto(b"by its route", (ELSEWHERE, PORT))
    routed = machine.peer.take(50)
    program.sendto(b"by its selectors", (INNER[4][1], PORT))
    selected = machine.peer.take(50)

    assert open_outer(opener(out), routed).endswith(b"by its route")
    assert open_outer(opener(outbound()), selected).endswith(b"by its selectors")

    # What its SA brings comes out of the device, not out of another: the kernel sees where it came from.
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800)) as tap:
        tap.settimeout(PATIENCE_S)
        tap.bind(("ipsec1", 0x0800))
        packet = ip_packet(4, b"back", addresses={4: (ELSEWHERE, INNER[4][0])})
        machine.peer.put(sealer(into).seal(packet, 0.0))
        while (seen := tap.recvfrom(2000))[1][2] == socket.PACKET_OUTGOING:
            pass
    assert seen[0] == packet


def test_a_device_with_policies_of_its_own_has_no_others(machine: Machine) -> None:
    open_all(machine)
    client = machine.client
    client.set_policy(2, p.PolicyAction.DISCARD, ANY, ANY, device=INTERFACE)
    client.commit()
    program = machine.program()
    ip("route", "replace", "10.2.0.0/16", "dev", "ipsec1", "src", INNER[4][0])

    program.sendto(b"wrong way", (INNER[4][1], PORT))

    client.await_drops({DropReason.POLICY_DISCARD: 1})


def test_an_sa_of_a_device_that_is_not_there_is_refused(machine: Machine) -> None:
    machine.client.hello()
    machine.client.configure()

    with pytest.raises(p.EspdRefused) as refused:
        machine.client.add_sa(inbound(), IN, device=INTERFACE)

    assert refused.value.code is p.ControlError.NO_ENTRY
