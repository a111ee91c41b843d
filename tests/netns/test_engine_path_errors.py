"""The sockets by which the engine's agent hears of errors: packets that are in them wake nobody for long."""

import asyncio
import socket
import time
from collections.abc import Sequence

import pytest

from gateway.datapath.engine import path_errors
from gateway.datapath.engine.path_errors import PathErrors
from gateway.host.sockets import BpfInstruction, attach_filter
from tests.conformance.namespace import fresh_network_namespace

pytestmark = pytest.mark.netns

TURNS = 200


async def test_what_came_before_the_filter_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(raw: socket.socket, program: Sequence[BpfInstruction]) -> None:
        if raw.family == socket.AF_INET:
            with socket.socket(socket.AF_INET, socket.SOCK_RAW, raw.proto) as sender:
                sender.sendto(bytes(40), ("127.0.0.1", 0))
        attach_filter(raw, program)

    monkeypatch.setattr(path_errors, "attach_filter", late)
    woken = []
    with fresh_network_namespace("192.0.2.1/24"):
        errors = PathErrors(0, lambda: woken.append(time.monotonic()), lambda _: None)
        errors.open()
        try:
            for _ in range(TURNS):
                await asyncio.sleep(0.001)
        finally:
            errors.close()

    assert len(woken) <= 4
