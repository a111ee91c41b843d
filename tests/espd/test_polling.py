"""What a worker does while there is nothing to do: it sleeps, or it polls on, as it was told."""

import time
from pathlib import Path

import pytest

from tests.espd.client import PATIENCE_S
from tests.espd.machine import (
    INNER,
    PORT,
    Machine,
    inbound,
    load_pair,
    open_outer,
    open_raw,
    open_tun,
    opener,
    outbound,
)

pytestmark = pytest.mark.netns

LOOKS = 50


def worker_states(process: int) -> str:
    """Return what the kernel says of the worker, looking again and again: R runs or could, S sleeps."""
    (task,) = (
        task for task in Path(f"/proc/{process}/task").iterdir() if (task / "comm").read_text() == "espd-0\n"
    )
    states = ""
    for _ in range(LOOKS):
        states += (task / "stat").read_text().rpartition(") ")[2][0]
        time.sleep(0.002)
    return states


@pytest.mark.parametrize("busy_poll", [0, 1])
def test_a_worker_without_packets_sleeps_unless_it_is_to_poll(machine: Machine, busy_poll: int) -> None:
    client = machine.client
    client.hello()
    client.configure(busy_poll=busy_poll)
    open_tun(client)
    open_raw(client)
    load_pair(client, outbound(), inbound())
    program = machine.program()

    if busy_poll:
        assert worker_states(machine.process.pid) == "R" * LOOKS
    else:
        deadline = time.monotonic() + PATIENCE_S
        while "S" not in worker_states(machine.process.pid):
            assert time.monotonic() < deadline, "the worker never sleeps"

    program.sendto(b"and it works", (INNER[4][1], PORT))
    assert open_outer(opener(outbound()), machine.peer.take(50)).endswith(b"and it works")
