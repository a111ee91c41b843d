"""How guests share tests: each guest is a directory here, and the test plays what runs in it."""

import json
from pathlib import Path
from typing import Any, cast

import pytest

from tests.guest.machine import Guest, GuestError
from tests.guest.pool import DEALT, EVENTS, Assigned, Pool


class PlayedGuest:
    """What a pool sees of a guest.

    Args:
        share: Its directory.
    """

    def __init__(self, share: Path) -> None:
        self.share = share
        self.ended: int | None = None
        self.died = False
        self.is_closed = False
        self._questions = 0

    def status(self) -> int | None:
        if self.died:
            raise GuestError("the guest died; the end of its console:\nKernel panic")
        return self.ended

    def output(self) -> bytes:
        return b"its output"

    def console_tail(self) -> str:
        return "its console"

    def close(self) -> None:
        self.is_closed = True

    # --- what runs in it ---

    def ask(self) -> None:
        """Ask what to do next."""
        self._questions += 1
        self.say("asks", self._questions)

    def answer(self) -> list[str] | None:
        """Return the answer to the latest question, or None."""
        file = self.share / DEALT.format(self._questions)
        return cast(list[str], json.loads(file.read_text())) if file.exists() else None

    def say(self, what: str, data: object) -> None:
        with (self.share / EVENTS).open("a") as events:
            events.write(json.dumps([what, data]) + "\n")

    def run(self, *nodeids: str) -> None:
        """Run tests, one report each."""
        for nodeid in nodeids:
            self.say("started", nodeid)
            self.say("report", {"of": nodeid})
            self.say("finished", nodeid)


class Rig:
    """A pool, and the guests that it has booted."""

    def __init__(self, directory: Path, *chunks: str, guests: int = 2, patience_s: float = 1000.0) -> None:
        self.guests: list[PlayedGuest] = []
        self._directory = directory
        dealt = [[Assigned(nodeid=nodeid, patience_s=patience_s) for nodeid in chunk] for chunk in chunks]
        self.pool = Pool(self._boot, dealt, guests)

    def _boot(self, files: dict[str, str]) -> Guest:
        share = self._directory / str(len(self.guests))
        share.mkdir()
        for name, content in files.items():
            (share / name).write_text(content)
        self.guests.append(PlayedGuest(share))
        return cast(Guest, self.guests[-1])

    def look(self) -> None:
        """Have the pool take in what is new."""
        self.pool._look()

    def reports(self, nodeid: str) -> list[dict[str, Any]]:
        return self.pool.reports(nodeid)


def test_each_guest_begins_with_a_chunk_and_no_guest_is_booted_for_nothing(tmp_path: Path) -> None:
    rig = Rig(tmp_path, "ab", "c", guests=5)

    assert [guest.answer() for guest in rig.guests] == [["a", "b"], ["c"]]
    assert rig.pool.size == 2


def test_who_asks_first_is_dealt_the_next_chunk(tmp_path: Path) -> None:
    rig = Rig(tmp_path, "ab", "cd", "e", "f")
    first, second = rig.guests

    second.ask()
    rig.look()
    first.ask()
    rig.look()

    assert second.answer() == ["e"]
    assert first.answer() == ["f"]


def test_reports_are_had_in_any_order(tmp_path: Path) -> None:
    rig = Rig(tmp_path, "ab", "c")
    first, second = rig.guests

    second.run("c")
    first.run("a", "b")

    assert [rig.reports(nodeid) for nodeid in "abc"] == [[{"of": "a"}], [{"of": "b"}], [{"of": "c"}]]


def test_who_has_one_test_left_is_told_that_nothing_follows_and_then_waits(tmp_path: Path) -> None:
    rig = Rig(tmp_path, "a", guests=1)
    (guest,) = rig.guests

    guest.ask()
    rig.look()
    told = guest.answer()
    guest.run("a")
    guest.ask()
    rig.look()

    assert told == []
    assert guest.answer() is None


def test_guest_that_dies_fails_its_test_and_leaves_the_others_to_the_others(tmp_path: Path) -> None:
    rig = Rig(tmp_path, "abc", "d")
    first, second = rig.guests
    second.run("d")
    second.ask()
    first.run("a")
    first.say("started", "b")
    first.died = True

    with pytest.raises(
        GuestError, match=r"while this test ran: the guest died.*\nKernel panic\n.*\nits output"
    ):
        rig.reports("b")

    assert rig.reports("a") == [{"of": "a"}]
    assert first.is_closed
    assert second.answer() == ["c"]
    second.run("c")
    assert rig.reports("c") == [{"of": "c"}]


def test_when_no_guest_is_left_what_had_not_run_fails_and_names_the_first_death(tmp_path: Path) -> None:
    rig = Rig(tmp_path, "ab", "c", "d")
    for guest, nodeid in zip(rig.guests, "ac", strict=True):
        guest.say("started", nodeid)
        guest.ended = 3

    failures = {}
    for nodeid in "abcd":
        with pytest.raises(GuestError) as failure:
            rig.reports(nodeid)
        failures[nodeid] = str(failure.value)

    for nodeid in "ac":
        assert "while this test ran: pytest in the guest ended with status 3" in failures[nodeid]
    for nodeid in "bd":
        assert failures[nodeid] == "the guest ended before this test could run, see a"


def test_what_was_written_before_the_end_counts(tmp_path: Path) -> None:
    rig = Rig(tmp_path, "ab", guests=1)
    (guest,) = rig.guests
    guest.run("a")
    guest.ended = 2

    assert rig.reports("a") == [{"of": "a"}]
    with pytest.raises(
        GuestError, match="before this test could run: pytest in the guest ended with status 2"
    ):
        rig.reports("b")


def test_silence_of_a_guest_that_owes_a_test_is_its_end(tmp_path: Path) -> None:
    rig = Rig(tmp_path, "a", guests=1, patience_s=0.0)

    with pytest.raises(GuestError, match=r"nothing was heard of the guest for 0 s; .*\nits console"):
        rig.reports("a")
    assert rig.guests[0].is_closed


def test_guest_that_owes_nothing_may_be_silent(tmp_path: Path) -> None:
    rig = Rig(tmp_path, "a", guests=1, patience_s=0.0)
    (guest,) = rig.guests
    guest.run("a")
    guest.ask()

    for _ in range(3):
        rig.look()

    assert not guest.is_closed


def test_line_that_is_not_whole_yet_is_read_later(tmp_path: Path) -> None:
    rig = Rig(tmp_path, "a", guests=1)
    (guest,) = rig.guests
    guest.run("a")
    events = guest.share / EVENTS
    whole = events.read_text()

    events.write_text(whole[:-5])
    rig.look()
    events.write_text(whole)

    assert rig.reports("a") == [{"of": "a"}]


def test_close_ends_every_guest(tmp_path: Path) -> None:
    rig = Rig(tmp_path, "a", "b")

    rig.pool.close()

    assert [guest.is_closed for guest in rig.guests] == [True, True]
