"""`ipsecgw hw` asks an agent that runs how its packets come and go."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from gateway.api.address import UnixAddress
from gateway.api.server import ApiServer, Listener
from gateway.bench.api.still_datapath import StillDatapath
from gateway.cli.hw_agent import ask_agent
from gateway.datapath.backend import Capabilities
from gateway.hardware.facts import Answer

LINES = ("tunnel device in by TUN and out by TUN", "outside in by AF_XDP copy and out by live frames (why)")


class Engine(StillDatapath):
    """A datapath that carries packets so."""

    def __init__(self, lines: tuple[str, ...]) -> None:
        super().__init__()
        self._lines = lines

    async def capabilities(self) -> Capabilities:
        return replace(await super().capabilities(), name="engine+xfrm", io_methods=self._lines)


@contextmanager
def agent(path: Path, lines: tuple[str, ...]) -> Iterator[UnixAddress]:
    """Serve such a datapath in a thread, as `ipsecgw hw` runs an event loop of its own."""
    address = UnixAddress(path / "datapath.sock")
    is_up, ends = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        server = ApiServer([Listener(address=address)], datapath=Engine(lines))
        await server.start()
        is_up.set()
        await ends.wait()
        await server.stop()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert is_up.wait(30)
        yield address
    finally:
        loop.call_soon_threadsafe(ends.set)
        thread.join(30)
        loop.close()


def test_each_device_of_the_engine_is_told_with_its_methods(tmp_path: Path) -> None:
    with agent(tmp_path, LINES) as address:
        facts = ask_agent(address)

    assert [(fact.answer, fact.value) for fact in facts] == [(Answer.YES, line) for line in LINES]
    assert {fact.evidence for fact in facts} == {f"the agent at {address}"}


def test_an_agent_without_the_engine_says_who_carries_them(tmp_path: Path) -> None:
    with agent(tmp_path, ()) as address:
        (fact,) = ask_agent(address)

    assert fact.answer is Answer.NO
    assert "runs engine+xfrm: the kernel or a NIC carries them" in fact.evidence


def test_without_an_agent_nothing_is_claimed(tmp_path: Path) -> None:
    (fact,) = ask_agent(UnixAddress(tmp_path / "datapath.sock"))

    assert fact.answer is Answer.UNKNOWN
    assert "no agent at" in fact.evidence


def test_an_agent_that_does_not_answer_is_said_so(tmp_path: Path) -> None:
    left_over = tmp_path / "datapath.sock"
    left_over.touch()

    (fact,) = ask_agent(UnixAddress(left_over))

    assert fact.answer is Answer.UNKNOWN
    assert str(left_over) in fact.evidence
