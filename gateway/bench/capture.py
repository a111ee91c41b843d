"""Captures of the link between the gateways: tcpdump does the work."""

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.bench.topology import Namespace, TopologyError

PROTECTED = "net 10.1.0.0/16 or net 10.2.0.0/16 or net fd00:1::/32 or net fd00:2::/32"
"""Addresses of the protected networks of `topology.site_to_site`: none may be seen outside."""


@contextmanager
def capturing(namespace: Namespace, device: str, path: Path, expression: str = "") -> Iterator[Path]:
    """Capture everything (or what `expression` selects) on a device while the context lasts."""
    process = namespace.popen(
        *("tcpdump", "--immediate-mode", "-U", "-Z", "root", "-B", "16384", "-s", "0"),
        *("-i", device, "-w", str(path), *([expression] if expression else [])),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    while "listening on" not in line:
        if not line:
            raise TopologyError(f"tcpdump on {device} in {namespace.name} ended at once")
        line = process.stderr.readline()
    try:
        yield path
    finally:
        time.sleep(0.3)  # what the kernel has already queued for tcpdump
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)


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
