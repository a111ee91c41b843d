"""The XDP programs in front of espd: attached, told what there is, left alone and adopted."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.packet import Raw

from gateway.datapath.engine.xdp_steering import Side, XdpSteering
from gateway.host.bpf.abi import Counter, Exit, InboundSa, Spi
from gateway.host.bpf.attach import attached_program
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.policy import Action
from gateway.ipsec.selectors import TrafficSelector
from tests.ebpf.program_table import link, policy
from tests.espd.machine import link_index
from tests.espd_io.wire import Cable, await_arrival, cable, ip, packet_socket

US, THEM = ip_address("192.0.2.1"), ip_address("192.0.2.2")
SPI = Spi(0x1001)
SA = InboundSa(destination=US, protocol=50)
NOBODY = DropReason.NO_ENGINE
"""How a packet for a known SA ends where espd has no socket."""


def esp(spi: int = 0x1001) -> bytes:
    return bytes(link() / IP(src=str(THEM), dst=str(US), proto=50) / Raw(spi.to_bytes(4, "big") + bytes(36)))


def clear(source: str = "10.2.0.1", destination: str = "10.1.0.1") -> bytes:
    return bytes(link() / IP(src=source, dst=destination) / UDP() / Raw(b"in clear"))


def send(over: Cable, *frames: bytes) -> None:
    with packet_socket(over.far) as sender:
        for frame in frames:
            sender.send(frame)


def ended(steering: XdpSteering, reason: DropReason | Exit) -> int:
    return steering.counters().get(reason, Counter()).packets


@pytest.fixture
def steering() -> Iterator[XdpSteering]:
    """Programs that end with the test."""
    made = XdpSteering(None)
    made.open()
    yield made
    made.remove()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where programs outlive who attached them."""
    yield tmp_path / "bpf"
    last = XdpSteering(tmp_path / "bpf")
    last.open()
    last.remove()


def open_in(folder: Path) -> XdpSteering:
    made = XdpSteering(folder)
    made.open()
    return made


def test_only_packets_of_known_sas_are_steered(steering: XdpSteering, lan: Cable) -> None:
    steering.attach(lan.near)
    steering.set_addresses([US])
    steering.add_sa(SPI, SA)

    send(lan, esp(), esp(0x9999))
    await_arrival(lan.near, 2)
    steering.remove_sa(SPI)
    send(lan, esp())
    await_arrival(lan.near, 3)

    assert (ended(steering, NOBODY), ended(steering, Exit.STRANGE_SPI)) == (1, 2)


def test_interfaces_share_all_but_their_sockets(steering: XdpSteering, lan: Cable, outer: Cable) -> None:
    interfaces = [steering.attach(name) for name in (lan.near, outer.near)]
    steering.add_sa(SPI, SA)

    for over in (lan, outer):
        send(over, esp())
        await_arrival(over.near, 1)

    assert ended(steering, NOBODY) == 2
    assert len({interface.sockets_fd for interface in interfaces}) == 2


def test_what_should_be_protected_is_dropped(steering: XdpSteering, lan: Cable) -> None:
    steering.attach(lan.near)
    said = steering.set_policies([policy("lan", Action.PROTECT, "10.1.0.0/16", "10.2.0.0/16")])

    send(lan, clear(), clear("10.3.0.1"))
    await_arrival(lan.near, 2)

    assert said == ""
    assert (ended(steering, DropReason.CLEAR_INBOUND), ended(steering, Exit.NO_ENTRY)) == (1, 1)


def test_an_inner_interface_brings_what_is_to_be_protected(steering: XdpSteering, lan: Cable) -> None:
    """Towards the peer the SPD's PROTECT is for espd, and ESP is as good as any packet."""
    steering.attach(lan.near, Side.INNER)
    steering.add_sa(SPI, SA)
    steering.set_addresses([US])
    steering.set_policies([policy("lan", Action.PROTECT, "10.1.0.0/16", "10.2.0.0/16")])

    send(lan, clear("10.1.0.1", "10.2.0.1"), clear("10.1.0.1", "10.3.0.1"), esp())
    await_arrival(lan.near, 3)

    assert ended(steering, NOBODY) == 1
    assert (ended(steering, Exit.NO_ENTRY), ended(steering, Exit.NOT_OURS)) == (1, 1)


def test_an_interface_may_change_sides_with_the_next_agent(folder: Path, lan: Cable) -> None:
    first = open_in(folder)
    first.attach(lan.near)
    first.add_sa(SPI, SA)
    first.close()
    second = open_in(folder)
    second.attach(lan.near, Side.INNER)

    send(lan, esp())
    await_arrival(lan.near, 1)

    assert (ended(second, NOBODY), ended(second, Exit.NO_ENTRY)) == (0, 1)
    second.close()


def test_an_interface_of_both_sides_knows_where_a_packet_comes_from(
    steering: XdpSteering, lan: Cable
) -> None:
    steering.attach(lan.near, Side.BOTH)
    steering.add_sa(SPI, SA)
    steering.set_addresses([US])
    steering.set_policies([policy("lan", Action.PROTECT, "10.1.0.0/16", "10.2.0.0/16")])

    send(lan, clear("10.1.0.1", "10.2.0.1"), clear(), esp(), clear("10.3.0.1"))
    await_arrival(lan.near, 4)

    assert ended(steering, NOBODY) == 2
    assert (ended(steering, DropReason.CLEAR_INBOUND), ended(steering, Exit.NO_ENTRY)) == (1, 1)


def test_entries_of_tunnel_interfaces_are_left_to_the_routes(steering: XdpSteering, lan: Cable) -> None:
    steering.attach(lan.near, Side.INNER)
    entry = policy("vpn", Action.PROTECT, "0.0.0.0/0", "0.0.0.0/0")
    steering.set_policies([replace(entry, interface_id=7)])

    send(lan, clear("10.1.0.1", "10.2.0.1"))
    await_arrival(lan.near, 1)

    assert ended(steering, Exit.NO_ENTRY) == 1


def test_an_spd_that_has_no_room_leaves_all_to_the_stack(steering: XdpSteering, lan: Cable) -> None:
    steering.attach(lan.near, Side.INNER)
    first = policy("first", Action.PROTECT, "10.1.0.0/16", "10.2.0.0/16")
    ports = TrafficSelector.parse("10.2.0.0/16[udp/1]")
    many = [
        replace(
            first,
            name=f"p{number}",
            local_ts=(TrafficSelector.parse(f"10.1.{number // 200}.{number % 200}/32"),),
            remote_ts=tuple(
                replace(ports, start_port=port, end_port=port) for port in range(number, number + 32)
            ),
        )
        for number in range(1030)
    ]

    assert steering.set_policies([first]) == ""
    said = steering.set_policies(many)
    send(lan, clear("10.1.0.1", "10.2.0.1"))
    await_arrival(lan.near, 1)

    assert said == "the SPD has 32960 rules: XDP has room for 32768"
    assert steering.set_policies(many) == ""
    assert (ended(steering, Exit.NO_ENTRY), ended(steering, NOBODY)) == (1, 0)


def test_first_ike_messages_come_at_a_limited_rate(lan: Cable) -> None:
    steering = XdpSteering(None, ike_per_s=1)
    steering.open()
    steering.attach(lan.near)
    steering.set_addresses([US])
    first = b"\1" * 8 + bytes(8) + bytes((33, 0x20, 34, 8)) + bytes(4) + (28).to_bytes(4)

    send(lan, *[bytes(link() / IP(src=str(THEM), dst=str(US)) / UDP(dport=500) / Raw(first))] * 6)
    await_arrival(lan.near, 6)

    assert (ended(steering, Exit.IKE), ended(steering, DropReason.IKE_RATE_LIMIT)) == (3, 3)
    steering.remove()


def test_sas_and_addresses_are_what_was_said_last(steering: XdpSteering, lan: Cable) -> None:
    steering.attach(lan.near)
    steering.set_addresses([THEM])
    steering.set_sas({Spi(0x2002): SA, SPI: SA})
    steering.set_addresses([US])
    steering.set_sas({SPI: SA})

    send(lan, esp(), esp(0x2002))
    await_arrival(lan.near, 2)

    assert (ended(steering, NOBODY), ended(steering, Exit.STRANGE_SPI)) == (1, 1)


def test_the_next_agent_goes_on_with_what_runs(folder: Path, lan: Cable) -> None:
    first = open_in(folder)
    first.attach(lan.near)
    first.add_sa(SPI, SA)
    first.close()

    send(lan, esp())
    await_arrival(lan.near, 1)
    second = open_in(folder)
    before = attached_program(link_index(lan.near))
    second.attach(lan.near)
    send(lan, esp())
    await_arrival(lan.near, 2)

    assert ended(second, NOBODY) == 2
    assert before is not None
    assert before != attached_program(link_index(lan.near))
    second.close()


def test_no_packet_passes_while_an_agent_takes_over(folder: Path, lan: Cable) -> None:
    """Each is counted by the old program or by the new one, in the same map."""
    steering = open_in(folder)
    steering.attach(lan.near)
    steering.add_sa(SPI, SA)
    sent, is_enough = [0], threading.Event()

    def flood() -> None:
        with packet_socket(lan.far) as sender:
            while not is_enough.is_set():
                sent[0] += sender.send(esp()) > 0

    thread = threading.Thread(target=flood)
    thread.start()
    for _ in range(5):
        steering.close()
        steering = open_in(folder)
        steering.attach(lan.near)
    is_enough.set()
    thread.join()
    await_arrival(lan.near, sent[0])

    assert ended(steering, NOBODY) == sent[0]
    steering.close()


def test_an_interface_that_was_made_anew_is_steered_again(folder: Path) -> None:
    with cable("anew0", "anew1") as first:
        steering = open_in(folder)
        steering.attach(first.near)
        steering.close()
    with cable("anew0", "anew1") as second:
        steering = open_in(folder)
        steering.attach(second.near)

        assert attached_program(link_index("anew0")) is not None
        steering.close()


def test_interfaces_that_are_not_wanted_any_more_are_let_go(folder: Path, lan: Cable, outer: Cable) -> None:
    steering = open_in(folder)
    for name in (lan.near, outer.near):
        steering.attach(name)
    steering.close()

    steering = open_in(folder)
    steering.keep_only({lan.near})

    assert attached_program(link_index(lan.near)) is not None
    assert attached_program(link_index(outer.near)) is None
    steering.close()


def test_an_interface_may_have_a_dot_in_its_name(folder: Path) -> None:
    """As those of VLANs have. A name in a bpffs may not."""
    with cable("dot.5", "dot.6") as dotted:
        steering = open_in(folder)
        steering.attach(dotted.near)
        steering.close()
        before = attached_program(link_index(dotted.near))
        steering = open_in(folder)
        steering.keep_only(())

        assert before is not None
        assert attached_program(link_index(dotted.near)) is None
        steering.close()


def test_without_xdp_in_the_driver_the_reason_is_told(steering: XdpSteering) -> None:
    ip("link", "add", "bridge0", "type", "bridge")
    try:
        interface = steering.attach("bridge0")
    finally:
        ip("link", "delete", "bridge0")

    assert interface.reason.startswith("the driver of bridge0 takes no XDP program")


def test_an_agent_that_adopts_such_an_interface_tells_it_too(folder: Path) -> None:
    ip("link", "add", "bridge0", "type", "bridge")
    try:
        first = open_in(folder)
        first.attach("bridge0")
        first.close()
        second = open_in(folder)
        interface = second.attach("bridge0")
        second.keep_only(())
        second.close()
    finally:
        ip("link", "delete", "bridge0")

    assert interface.reason == "the driver of bridge0 takes no XDP program: it runs generic"
