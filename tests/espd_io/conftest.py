"""Every module of these tests has a network namespace of its own, with veth pairs to send over."""

import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.host.bpf.live import LiveFrames, load_live_frames
from tests.conformance.namespace import fresh_network_namespace
from tests.espd_io.wire import FRAME_BYTES, FRAMES, Cable, cable

SOURCES = Path(__file__).parents[2] / "hw" / "espd" / "bench"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Making devices and loading programs needs root."""
    for item in items:
        if item.path.parent.name == "espd_io":
            item.add_marker(pytest.mark.netns)


@pytest.fixture(scope="module", autouse=True)
def namespace() -> Iterator[None]:
    """Enter a fresh namespace."""
    with fresh_network_namespace():
        yield


@pytest.fixture
def lan() -> Iterator[Cable]:
    """Where frames come in: what is sent on `lan.far` arrives at `lan.near`."""
    with cable("lan0", "lan1") as made:
        yield made


@pytest.fixture
def outer() -> Iterator[Cable]:
    """Where frames leave: what is sent by `outer.near` arrives at `outer.far`."""
    with cable("out0", "out1") as made:
        yield made


@pytest.fixture(scope="session")
def program() -> Path:
    """io_bench, built under the sanitizers from the sources as they are."""
    build = Path(os.environ.get("IPSECGW_CACHE") or Path.home() / ".cache" / "ipsecgw") / "espd" / "sanitized"
    build.mkdir(parents=True, exist_ok=True)
    with (build / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        done = subprocess.run(
            ["make", "--no-print-directory", "-C", SOURCES, f"BUILD={build}", "SANITIZE=yes"],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    return build / "io_bench"


@pytest.fixture(scope="module")
def live(namespace: None) -> Iterator[LiveFrames]:
    """The program for live frames of one worker whose frames are a page each."""
    with load_live_frames(frames=FRAMES, frame_bytes=FRAME_BYTES) as loaded:
        yield loaded
