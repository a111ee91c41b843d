"""Captures of the link between the gateways: tcpdump does the work."""

import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.bench.topology import Namespace, TopologyError

PROTECTED = "net 10.1.0.0/16 or net 10.2.0.0/16 or net fd00:1::/32 or net fd00:2::/32"
"""Addresses of the protected networks of `topology.site_to_site`: none may be seen outside."""


_IMMEDIATE = ("--immediate-mode", "-U", "-B", "16384", "-s", "0")
"""Each packet is in the file at once and whole."""
_FAST = ("-B", "131072", "-s", "128")
"""Headers only, by the block, with 128 MB for what tcpdump had no CPU to take."""
_BLOCK_S = 1.5
"""The kernel hands over a block that is not full after a second."""
_AT_END = re.compile(r"(\d+) packets? (captured|dropped by kernel)")


@dataclass(slots=True)
class HeaderCapture:
    """Of every frame the first bytes; the counts are there when the context has ended."""

    path: Path
    frames: int = 0
    dropped: int = 0
    """Frames that the kernel had no room for, as tcpdump did not take those before them."""


@contextmanager
def capturing(namespace: Namespace, device: str, path: Path, expression: str = "") -> Iterator[Path]:
    """Capture everything (or what `expression` selects) on a device while the context lasts."""
    with _tcpdump(namespace, device, path, (*_IMMEDIATE, expression), wait_s=0.3):
        yield path


@contextmanager
def capturing_headers(namespace: Namespace, device: str, path: Path) -> Iterator[HeaderCapture]:
    """Capture the first 128 bytes of every frame of a device, at tens of thousands a second, and count."""
    capture = HeaderCapture(path)
    with _tcpdump(namespace, device, path, _FAST, wait_s=_BLOCK_S) as said:
        yield capture
    counts = {what: int(number) for number, what in _AT_END.findall("".join(said))}
    try:
        capture.frames, capture.dropped = counts["captured"], counts["dropped by kernel"]
    except KeyError:
        raise TopologyError(f"tcpdump on {device} did not say what it dropped: {said}") from None


@contextmanager
def _tcpdump(
    namespace: Namespace, device: str, path: Path, words: tuple[str, ...], *, wait_s: float
) -> Iterator[list[str]]:
    """Run tcpdump while the context lasts and for `wait_s`; return what it says, complete at its end."""
    process = namespace.popen(
        *("tcpdump", "-Z", "root", "-i", device, "-w", str(path), *filter(None, words)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    while "listening on" not in line:
        if not line:
            raise TopologyError(f"tcpdump on {device} in {namespace.name} ended at once")
        line = process.stderr.readline()
    said: list[str] = []
    try:
        yield said
    finally:
        time.sleep(wait_s)  # what the kernel has already queued for tcpdump
        process.send_signal(signal.SIGINT)
        said.append(process.communicate(timeout=60)[1])


def count_packets(capture: Path, expression: str) -> int:
    """Return how many packets of a capture match a pcap filter expression.

    Raises:
        TopologyError: tcpdump cannot read the capture.
    """
    done = subprocess.run(
        ["tcpdump", "-n", "-q", "-r", str(capture), expression], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise TopologyError(f"tcpdump cannot read {capture}: {done.stderr.strip()}")
    return len(done.stdout.splitlines())


def clear_packets(capture: Path) -> int:
    """Return how many packets with a protected address are in a capture of the outside link."""
    return count_packets(capture, PROTECTED)
