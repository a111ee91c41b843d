"""Programs on veth pairs: modes, conflicts, redirection, and replacement under traffic."""

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.packet import Packet, Raw

from gateway.host.bpf.abi import (
    CPU_LIST,
    CPUS,
    DEVICES,
    LEASE,
    OFFLOADED_SAS,
    PORTS,
    SAS,
    Counter,
    CpuQueue,
    Exit,
    InboundSa,
    NextHop,
    OffloadedSa,
    Port,
    PortKey,
    Side,
    Spi,
    Word,
    read_counters,
)
from gateway.host.bpf.attach import InterfaceTakenError, XdpMode, attach_xdp, attached_program
from gateway.host.bpf.compiled import read_program
from gateway.host.bpf.errors import BpfError
from gateway.host.bpf.objects import LoadedObject, load_object
from gateway.host.bpf.pins import adopt_link, mount_bpffs, pin, unmount_bpffs
from gateway.host.bpf.spd import SpdMaps, compile_spd
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.policy import Action
from tests.conformance.larval_sas import kernel_sad
from tests.ebpf.program_table import OUR_MAC, THEIR_MAC, link, policy, run
from tests.ebpf.xsk import receiver

US = "192.0.2.1"
REPLACEMENTS = 20


@pytest.fixture
def veth() -> Iterator[tuple[str, str]]:
    """A pair of devices that nothing but the test uses: frames sent on the second arrive at the first."""
    ip("link", "add", "gw0", "address", OUR_MAC, "type", "veth", "peer", "name", "net0", "address", THEIR_MAC)
    for device in ("gw0", "net0"):
        Path(f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6").write_text("1")
        ip("link", "set", device, "up")
    yield "gw0", "net0"
    ip("link", "delete", "gw0")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@contextmanager
def packet_socket(device: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003)) as opened:
        opened.bind((device, 0))
        opened.settimeout(60)
        yield opened


def esp(spi: int, sequence: int = 1) -> Packet:
    payload = Raw(spi.to_bytes(4, "big") + sequence.to_bytes(4, "big") + bytes(32))
    return link() / IP(src="192.0.2.2", dst=US, proto=50) / payload


def load_inbound() -> LoadedObject:
    loaded = load_object(read_program("xdp_inbound"))
    SAS.of(loaded.maps).set(Spi(0x1001), InboundSa(destination=ip_address(US), protocol=50))
    return loaded


def test_a_driver_with_xdp_runs_the_program_itself(veth: tuple[str, str]) -> None:
    with load_inbound() as loaded:
        attachment = attach_xdp(loaded.programs["gw_inbound"], "gw0")
        with attachment.link:
            found = attached_program(socket.if_nametoindex("gw0"))

    assert (attachment.mode, attachment.reason) == (XdpMode.DRIVER, "")
    assert found is not None
    assert found[1] == "in the driver"
    assert attached_program(socket.if_nametoindex("gw0")) is None


def test_without_xdp_in_the_driver_it_runs_generically_and_says_why() -> None:
    ip("link", "add", "gw1", "type", "bridge")
    try:
        with load_inbound() as loaded:
            attachment = attach_xdp(loaded.programs["gw_inbound"], "gw1")
            attachment.link.close()
    finally:
        ip("link", "delete", "gw1")

    assert attachment.mode is XdpMode.GENERIC
    assert attachment.reason.startswith("the driver of gw1 takes no XDP program")


def test_another_program_on_the_interface_is_named(veth: tuple[str, str]) -> None:
    with (
        load_inbound() as one,
        load_inbound() as other,
        attach_xdp(one.programs["gw_inbound"], "gw0").link,
        pytest.raises(InterfaceTakenError) as taken,
    ):
        attach_xdp(other.programs["gw_inbound"], "gw0")

    assert (taken.value.interface, taken.value.program) == ("gw0", "gw_inbound")
    assert taken.value.program_id > 0


def test_an_interface_that_is_none_is_named() -> None:
    with load_inbound() as loaded, pytest.raises(BpfError, match="no interface 'absent'"):
        attach_xdp(loaded.programs["gw_inbound"], "absent")


def test_esp_comes_to_the_engines_socket_whole(veth: tuple[str, str]) -> None:
    with ExitStack() as stack:
        loaded = stack.enter_context(load_inbound())
        engine = stack.enter_context(receiver())
        stack.enter_context(attach_xdp(loaded.programs["gw_inbound"], "gw0").link)
        engine.bind("gw0", 0)
        loaded.maps["gw_xsks"].update(bytes(4), engine.value)
        sender = stack.enter_context(packet_socket("net0"))

        sent = [bytes(esp(0x1001, sequence)) for sequence in range(10)]
        for frame in sent:
            sender.send(frame)
        received = list(engine.frames(len(sent)))

        assert received == sent
        assert read_counters(loaded.maps)[Exit.ENGINE].packets == len(sent)


def test_a_queue_without_socket_of_its_own_has_no_engine() -> None:
    """A socket takes frames of its own queue only; that of another queue does not help."""
    ip("link", "add", "gw2", "numrxqueues", "2", "type", "veth", "peer", "name", "net2")
    try:
        with (
            load_inbound() as loaded,
            receiver() as engine,
            attach_xdp(loaded.programs["gw_inbound"], "gw2").link,
        ):
            where = {"ifindex": socket.if_nametoindex("gw2"), "queue": 1}
            loaded.maps["gw_xsks"].update((0).to_bytes(4, "little"), engine.value)
            _, with_socket_of_queue_0 = run(loaded, esp(0x1001), **where)
            loaded.maps["gw_xsks"].update((1).to_bytes(4, "little"), engine.value)
            _, with_socket_of_queue_1 = run(loaded, esp(0x1001), **where)
    finally:
        ip("link", "delete", "gw2")

    assert (with_socket_of_queue_0, with_socket_of_queue_1) == (DropReason.NO_ENGINE, Exit.ENGINE)


def test_without_an_engine_esp_does_not_reach_the_stack(veth: tuple[str, str]) -> None:
    with ExitStack() as stack:
        loaded = stack.enter_context(load_inbound())
        stack.enter_context(attach_xdp(loaded.programs["gw_inbound"], "gw0").link)
        sender = stack.enter_context(packet_socket("net0"))
        stack_side = stack.enter_context(packet_socket("gw0"))

        sender.send(bytes(esp(0x1001)))
        sender.send(bytes(esp(0x9999)))
        (seen, _) = stack_side.recvfrom(2048)

        assert seen == bytes(esp(0x9999))
        assert read_counters(loaded.maps)[DropReason.NO_ENGINE].packets == 1


def test_replacing_the_program_under_traffic_loses_nothing(veth: tuple[str, str]) -> None:
    """Each packet is counted by one of the programs: there is none that no program saw."""
    with ExitStack() as stack:
        versions = [stack.enter_context(load_inbound()) for _ in range(2)]
        programs = [version.programs["gw_inbound"] for version in versions]
        attached = stack.enter_context(attach_xdp(programs[0], "gw0").link)
        sender = stack.enter_context(packet_socket("net0"))
        frame = bytes(esp(0x1001))
        is_enough = threading.Event()
        sent = [0]

        def send() -> None:
            while not is_enough.is_set():
                sent[0] += sender.send(frame) == len(frame)

        thread = threading.Thread(target=send)
        thread.start()
        for replacement in range(1, REPLACEMENTS + 1):
            attached.replace(programs[replacement % 2])
        is_enough.set()
        thread.join()
        stats = [counted(version) for version in versions]

    assert sum(stats) == sent[0]
    assert min(stats) > 0


def counted(loaded: LoadedObject) -> int:
    return read_counters(loaded.maps).get(DropReason.NO_ENGINE, Counter()).packets


def test_a_pinned_link_keeps_the_program_and_is_adopted(veth: tuple[str, str], tmp_path: Path) -> None:
    mount_bpffs(tmp_path)
    ifindex = socket.if_nametoindex("gw0")
    try:
        with load_inbound() as first, attach_xdp(first.programs["gw_inbound"], "gw0").link as made:
            pin(made, tmp_path / "gw0")
        before = attached_program(ifindex)
        with load_inbound() as second:
            adopted = adopt_link(tmp_path / "gw0")
            assert adopted is not None
            with adopted:
                adopted.replace(second.programs["gw_inbound"])
                after = attached_program(ifindex)
                adopted.detach()
    finally:
        unmount_bpffs(tmp_path)

    assert before is not None
    assert after is not None
    assert before[0] != after[0]
    assert attached_program(ifindex) is None


def test_a_steered_packet_reaches_the_stack_on_its_cpu(veth: tuple[str, str]) -> None:
    with ExitStack() as stack:
        spec = read_program("xdp_cpumap").with_constants({"gw_cpu_count": (1).to_bytes(4, "little")})
        loaded = stack.enter_context(load_object(spec))
        CPUS.of(loaded.maps).set(Word(1), CpuQueue(frames=64))
        CPU_LIST.of(loaded.maps).set(Word(0), Word(1))
        stack.enter_context(attach_xdp(loaded.programs["gw_cpumap"], "gw0").link)
        sender = stack.enter_context(packet_socket("net0"))
        stack_side = stack.enter_context(packet_socket("gw0"))

        sender.send(bytes(esp(0x1001)))
        (seen, _) = stack_side.recvfrom(2048)

        assert seen == bytes(esp(0x1001))
        assert read_counters(loaded.maps)[Exit.STEERED].packets == 1


def test_a_packet_is_forwarded_from_one_interface_to_another(veth: tuple[str, str]) -> None:
    """For a redirected frame the receiving end of a veth needs NAPI: GRO gives it."""
    ip("link", "add", "nic0", "type", "veth", "peer", "name", "wire0")
    try:
        for device in ("nic0", "wire0"):
            Path(f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6").write_text("1")
            ip("link", "set", device, "up")
        subprocess.run(["ethtool", "-K", "wire0", "gro", "on"], check=True, capture_output=True)
        _forward_one()
    finally:
        ip("link", "delete", "nic0")


def _forward_one() -> None:
    lan, nic = socket.if_nametoindex("gw0"), socket.if_nametoindex("nic0")
    mac = bytes.fromhex(OUR_MAC.replace(":", ""))
    with ExitStack() as stack:
        loaded = stack.enter_context(load_object(read_program("xdp_forward")))
        peer = ip_address("192.0.2.2")
        stack.enter_context(kernel_sad()).add(peer, 0x1001)
        spd = compile_spd([policy("lan", Action.PROTECT, "10.1.0.0/16", "10.2.0.0/16")], offloaded={"lan": 1})
        SpdMaps(loaded.maps).publish(spd)
        unset = ip_address("::")
        PORTS.of(loaded.maps).set(
            PortKey(ifindex=lan), Port(address4=unset, address6=unset, mac=mac, side=Side.LAN)
        )
        hop = NextHop(ifindex=nic, mtu=1438, destination_mac=b"\2" * 6, source_mac=b"\4" * 6, vlan_id=12)
        sa = OffloadedSa(destination=peer, spi=0x1001, family=4, hop=hop)
        OFFLOADED_SAS.of(loaded.maps).set(Word(1), sa)
        LEASE.of(loaded.maps).set(Word(0), Word(time.monotonic_ns() + 60 * 10**9))
        DEVICES.of(loaded.maps).set(Word(nic), Word(nic))
        for device in ("gw0", "nic0"):
            stack.enter_context(attach_xdp(loaded.programs["gw_forward"], device).link)
        sender = stack.enter_context(packet_socket("net0"))
        wire = stack.enter_context(packet_socket("wire0"))
        wire.setsockopt(263, 8, 1)  # SOL_PACKET, PACKET_AUXDATA: a tag may be there and not in the frame

        sender.send(bytes(link() / IP(src="10.1.0.9", dst="10.2.0.9", ttl=9) / UDP() / Raw(b"payload")))
        frame, auxiliary, _, _ = wire.recvmsg(2048, 256)

        assert frame[:12] == b"\2" * 6 + b"\4" * 6
        assert bytes(IP(src="10.1.0.9", dst="10.2.0.9", ttl=8) / UDP() / Raw(b"payload")) in frame
        tag = frame[12:16] if frame[12:14] == b"\x81\x00" else auxiliary[0][2]
        assert b"\x00\x0c" in tag or b"\x0c\x00" in tag
        assert read_counters(loaded.maps)[Exit.FORWARDED].packets == 1
