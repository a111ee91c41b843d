"""Guests that share the tests of a run: each is dealt some, and asks for more before it has done them.

Every guest runs one pytest, which reads what it is dealt from files of its share and writes there what
happens, a JSON line for each thing. Here these lines are read, in the process that wants the reports.

What a change must keep:

- A guest knows what it runs next before it ends a test: fixtures of a module stay up only for a test that
  needs them.
- The test that a guest ran when it died or fell silent fails with what is known of it. What it was dealt and
  had not begun is done by the others, and fails only when no guest is left.
- A guest is waited for only while it owes a test: that test's patience counts.
"""

import json
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from tests.guest.machine import Guest, GuestError

GUESTS: Final = pytest.StashKey[int]()
"""How many guests share the tests of this process; not there before the first was booted."""
POLL_S: Final = 0.02
SELECTED: Final = "selected-tests"
EVENTS: Final = "events"
DEALT: Final = "dealt-{}"
"""The answer to the question of that number: the identifiers of tests, in order."""
OUTPUT_TAIL_BYTES: Final = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class Assigned:
    """One test that is to run in a guest."""

    nodeid: str
    patience_s: float
    """How long the guest may be silent while it runs."""


@dataclass(slots=True)
class _Member:
    """One guest, what it owes, and what has been heard of it."""

    guest: Guest
    owes: deque[Assigned] = field(default_factory=deque)
    running: str | None = None
    question: int | None = None
    """The number of its question that waits for an answer."""
    heard_at: float = field(default_factory=time.monotonic)
    pending: list[dict[str, Any]] = field(default_factory=list)
    """Reports of the test that runs."""
    position: int = 0
    """In the file of its events, in bytes."""

    def events(self) -> list[tuple[str, Any]]:
        """Return the whole lines that are new."""
        file = self.guest.share / EVENTS
        if not file.exists():
            return []
        with file.open("rb") as stream:
            stream.seek(self.position)
            new = stream.read()
        whole = new[: new.rfind(b"\n") + 1]
        self.position += len(whole)
        return [tuple(json.loads(line)) for line in whole.splitlines()]

    def deal(self, tests: Sequence[Assigned]) -> None:
        """Answer its question."""
        assert self.question is not None
        self.owes.extend(tests)
        answer = self.guest.share / DEALT.format(self.question)
        written = answer.with_suffix(".part")
        written.write_text(json.dumps([test.nodeid for test in tests]))
        # Whole or not there.
        written.replace(answer)
        self.question, self.heard_at = None, time.monotonic()


class Pool:
    """Some guests of one kernel, and the tests that they share.

    Args:
        boot: Boots one guest that runs pytest, with files for its share.
        chunks: What is dealt at once: tests that stay together, in order.
        guests: How many there may be; no more are booted than there are chunks.
    """

    def __init__(
        self, boot: Callable[[dict[str, str]], Guest], chunks: Sequence[Sequence[Assigned]], guests: int
    ) -> None:
        self._chunks = deque(chunks)
        self._finished: dict[str, list[dict[str, Any]]] = {}
        self._failures: dict[str, str] = {}
        self._first_death: str | None = None
        """The test whose failure has all that is known of the end of a guest."""
        self._members: list[_Member] = []
        selected = json.dumps([test.nodeid for chunk in chunks for test in chunk])
        for _ in range(min(guests, len(chunks))):
            self._members.append(_Member(boot({SELECTED: selected})))
        self.size: Final = len(self._members)
        """How many guests were booted."""
        for member in self._members:
            # The first question, which it will find answered.
            member.question = 0
            member.deal(self._chunks.popleft())

    def close(self) -> None:
        """End the guests."""
        while self._members:
            self._members.pop().guest.close()

    def reports(self, nodeid: str) -> list[dict[str, Any]]:
        """Wait for the end of one test, and return its reports.

        Raises:
            GuestError: It will never end.
        """
        while nodeid not in self._finished:
            if nodeid in self._failures:
                raise GuestError(self._failures.pop(nodeid))
            if not self._members:
                raise GuestError(f"the guest ended before this test could run, see {self._first_death}")
            if not self._look():
                time.sleep(POLL_S)
        return self._finished.pop(nodeid)

    def _look(self) -> bool:
        """Take in what is new of every guest, and deal; return whether there was anything."""
        news = False
        for member in tuple(self._members):
            end = self._end_of(member)
            # What was written before the end is read after it was seen.
            events = member.events()
            for what, data in events:
                self._take(member, what, data)
            if events:
                member.heard_at, news = time.monotonic(), True
            elif end:
                self._bury(member, end)
                news = True
        for member in self._members:
            self._answer(member)
        return news

    @staticmethod
    def _end_of(member: _Member) -> str:
        """Return why nothing more will be heard of a guest, or the empty string."""
        try:
            status = member.guest.status()
        except GuestError as error:
            return str(error)
        if status is not None:
            return f"pytest in the guest ended with status {status}"
        if member.owes and time.monotonic() - member.heard_at > member.owes[0].patience_s:
            silence = f"nothing was heard of the guest for {member.owes[0].patience_s:g} s"
            return f"{silence}; the end of its console:\n{member.guest.console_tail()}"
        return ""

    def _take(self, member: _Member, what: str, data: Any) -> None:
        """Take in one event."""
        match what:
            case "asks":
                member.question = data
            case "started":
                member.running, member.pending = data, []
            case "report":
                member.pending.append(data)
            case "finished":
                self._finished[data] = member.pending
                member.running = None
                assert member.owes.popleft().nodeid == data, f"{data} was not the next"

    def _answer(self, member: _Member) -> None:
        """Answer the question of a guest; one that has nothing left to do is kept waiting for something."""
        if member.question is None:
            return
        if self._chunks:
            member.deal(self._chunks.popleft())
        elif member.owes:
            member.deal(())

    def _bury(self, member: _Member, end: str) -> None:
        """Note which test a guest that ended has failed, and give the others to those that are left."""
        failed = member.owes.popleft() if member.owes else None
        if failed is not None:
            state = "while this test ran" if failed.nodeid == member.running else "before this test could run"
            output = member.guest.output()[-OUTPUT_TAIL_BYTES:].decode(errors="replace").strip()
            self._failures[failed.nodeid] = (
                f"{state}: {end}\nwhat pytest wrote in the guest:\n{output or '(nothing)'}"
            )
            self._first_death = self._first_death or failed.nodeid
        if member.owes:
            self._chunks.appendleft(tuple(member.owes))
        self._members.remove(member)
        member.guest.close()


def most_guests(memory_mib: int) -> int:
    """Return how many guests this machine can run at once: one for each CPU, if their memory is there."""
    with open("/proc/meminfo") as meminfo:
        (available_kib,) = (int(line.split()[1]) for line in meminfo if line.startswith("MemAvailable:"))
    return max(1, min(len(os.sched_getaffinity(0)), available_kib // 1024 // memory_mib))
