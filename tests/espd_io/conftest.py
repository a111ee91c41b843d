"""Every module of these tests has a network namespace of its own, with veth pairs to send over."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.host.bpf.live import LiveFrames, load_live_frames
from tests.conformance.namespace import fresh_network_namespace
from tests.engine.conftest import BUILD, make
from tests.espd.conftest import ESPD, sanitized, shipped
from tests.espd_io.wire import FRAME_BYTES, FRAMES, Cable, cable

__all__ = ["sanitized", "shipped"]  # espd, built


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
    return make("io_bench", build=BUILD / "sanitized", source=ESPD, SANITIZE="yes") / "io_bench"


@pytest.fixture(scope="module")
def live(namespace: None) -> Iterator[LiveFrames]:
    """The program for live frames of one worker whose frames are a page each."""
    with load_live_frames(frames=FRAMES, frame_bytes=FRAME_BYTES) as loaded:
        yield loaded
