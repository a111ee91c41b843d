"""What the tests of I/O methods are made of: cables (veth pairs), witnesses at their ends, and the program.

sender ── lan.far ═══ lan.near ── io_bench ── outer.near ═══ outer.far ── witness
"""

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from gateway.host.bpf.attach import attach_xdp
from gateway.host.bpf.live import LiveFrames
from gateway.host.bpf.objects import LoadedObject, load_object
from gateway.host.bpf.spec import parse_object
from tests.ebpf.program_table import OUR_MAC, THEIR_MAC
from tests.ebpf.small_objects import compile_object

PROBE_ETHERTYPE = b"\x88\xb5"
_SOL_PACKET, _PACKET_QDISC_BYPASS, _PACKET_IGNORE_OUTGOING = 263, 20, 23
_SO_RCVBUFFORCE = 33
PATIENCE_S = 30.0
FRAMES, FRAME_BYTES = 2048, 4096
"""Of the pool of io_bench."""


class Kind(IntEnum):
    """`enum gw_io_kind` of hw/espd/include/gw_control.h."""

    XDP_ZERO_COPY = 1
    XDP_COPY = 2
    LIVE_FRAME = 3
    PACKET = 4


@dataclass(frozen=True)
class Cable:
    """A veth pair."""

    near: str
    far: str

    def set(self, *arguments: str, end: str | None = None) -> None:
        ip("link", "set", end or self.near, *arguments)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@contextmanager
def cable(near: str, far: str, *, queues: int = 1, mtu: int = 3300) -> Iterator[Cable]:
    """Lay a cable over which nothing but the test sends; its far end takes redirected frames too."""
    count = ("numrxqueues", str(queues), "numtxqueues", str(queues))
    ends = [("name", near, "address", OUR_MAC), ("name", far, "address", THEIR_MAC)]
    one, other = [(*end, "mtu", str(mtu), *count) for end in ends]
    ip("link", "add", *one, "type", "veth", "peer", *other)
    try:
        for end in (near, far):
            Path(f"/proc/sys/net/ipv6/conf/{end}/disable_ipv6").write_text("1")
            ip("link", "set", end, "up")
        give_napi(far)
        yield Cable(near, far)
    finally:
        with suppress(subprocess.CalledProcessError):
            ip("link", "delete", near)


def give_napi(device: str, *, on: bool = True) -> None:
    """Have a veth device poll what comes to it, or not: without, it takes no redirected frame."""
    subprocess.run(["ethtool", "-K", device, "gro", "on" if on else "off"], check=True, capture_output=True)


def poll_in_a_thread(device: str, cpu: int) -> None:
    """Have a thread of the kernel's on one CPU poll a veth device: what has a higher rank there stops it."""
    before = set(Path("/proc").glob("[0-9]*"))
    script = f"mount -t sysfs sysfs /sys && echo 1 > /sys/class/net/{device}/threaded"
    subprocess.run(["unshare", "--mount", "sh", "-c", script], check=True, capture_output=True)
    threads = [
        task for task in Path("/proc").glob("[0-9]*") if task not in before and _is_poller(task, device)
    ]
    assert threads, f"no thread polls {device}"
    for task in threads:
        os.sched_setaffinity(int(task.name), {cpu})


def _is_poller(task: Path, device: str) -> bool:
    with suppress(OSError):
        return (task / "comm").read_text().startswith(f"napi/{device}"[:15])
    return False


@contextmanager
def packet_socket(device: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as opened:
        opened.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 << 20)
        opened.settimeout(PATIENCE_S)
        opened.bind((device, 0x0003))
        yield opened


def receive(witness: socket.socket, count: int, *, timeout_s: float = PATIENCE_S) -> list[bytes]:
    """Return so many frames of ours, or those that came in time; probes are no frames of ours."""
    frames: list[bytes] = []
    witness.settimeout(timeout_s)
    with suppress(TimeoutError):
        while len(frames) < count:
            frame = witness.recv(65536)
            if frame[12:14] != PROBE_ETHERTYPE:
                frames.append(frame)
    return frames


def await_arrival(device: str, count: int) -> None:
    """Wait until a device has received so many packets, all told.

    Raises:
        TimeoutError: It has not.
    """
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        shown = subprocess.run(["ip", "-s", "-j", "link", "show", device], check=True, capture_output=True)
        if json.loads(shown.stdout)[0]["stats64"]["rx"]["packets"] >= count:
            return
        time.sleep(0.02)
    raise TimeoutError(f"{device} received fewer than {count} packets")


def number_of(frame: bytes) -> int:
    """Return the number of a frame that io_bench made."""
    return int.from_bytes(frame[14:22], "little")


def frame_of(number: int, size: int) -> bytes:
    """Return an IPv6 packet without a next header that looks like no other, for the near end of a cable."""
    payload = number.to_bytes(4, "big") + bytes(
        (number * 7 + index * 13) & 0xFF for index in range(size - 58)
    )
    link = (OUR_MAC + THEIR_MAC).replace(":", "")
    packet = IPv6(src="2001:db8::2", dst="2001:db8::1", nh=59) / Raw(payload)
    return bytes.fromhex(link) + b"\x86\xdd" + bytes(packet)


@contextmanager
def steered(device: str, program: str = "steer_all") -> Iterator[LoadedObject]:
    """Have a program of `steer_all.bpf.c` run on a device."""
    spec = parse_object(compile_object("steer_all"))
    with load_object(spec) as loaded, attach_xdp(loaded.programs[program], device).link:
        yield loaded


@dataclass
class Bench:
    """A running io_bench; it ends when its standard input does.

    Attributes:
        ready: The line it began with.
        events: Lines about methods that were given up, so far.
        totals: The line it ended with, after `stop`.
    """

    process: "subprocess.Popen[str]"
    ready: dict[str, Any]
    events: list[dict[str, Any]] = field(default_factory=list)
    totals: dict[str, Any] = field(default_factory=dict)

    def stop(self) -> dict[str, Any]:
        """End it and return what it counted."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.wait()

    def wait(self) -> dict[str, Any]:
        """Await its end and return what it counted."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            found = json.loads(line)
            if "received" in found:
                self.totals = found
            else:
                self.events.append(found)
        assert self.process.wait(PATIENCE_S) == 0
        return self.totals

    def next_event(self) -> dict[str, Any]:
        """Await that a method is given up."""
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        self.events.append(found)
        return found


def kinds(*methods: Kind) -> str:
    """Return a list of methods as io_bench takes it."""
    return ",".join(str(int(method)) for method in methods)


@contextmanager
def bench(
    program: Path,
    *arguments: str,
    steering: int = -1,
    live: LiveFrames | None = None,
    alone_on: int | None = None,
) -> Iterator[Bench]:
    """Run io_bench until the block ends; an error of its own is an AssertionError with its text.

    Args:
        program: Where it is.
        arguments: What it shall do.
        steering: The XSKMAP of the device it receives from.
        live: What it sends live frames with.
        alone_on: A CPU that nobody takes from it.
    """
    alone = [] if alone_on is None else ["taskset", "--cpu-list", str(alone_on), "chrt", "--fifo", "50"]
    descriptors = [] if steering < 0 else [steering]
    options = [f"--frames={FRAMES}", f"--frame-bytes={FRAME_BYTES}", f"--steering={steering}"]
    if live is not None:
        descriptors += live.descriptors
        options += [
            f"--live-program={live.program.fd}",
            f"--live-burst={live.burst.fd}",
            f"--pool-map={live.frames.fd}",
        ]
    process = subprocess.Popen(
        [*alone, program, *options, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=descriptors,
    )
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        ready = json.loads(line) if line else {"error": f"io_bench ended with {process.wait()}"}
        assert "error" not in ready, ready["error"]
        yield Bench(process, ready)
    finally:
        watchdog.cancel()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(2)
        process.kill()
        process.wait()
