"""The replay tables of tests/vectors/replay, shared with the C engine, and the window's properties."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.esp.errors import PacketDropped, UnsupportedSa
from gateway.esp.replay import ReplayWindow
from gateway.ipsec.drop_reason import DropReason

VECTORS = Path(__file__).parents[2] / "vectors" / "replay"
CASES = [
    pytest.param(case, id=f"{path.stem}: {case['name']}")
    for path in sorted(VECTORS.glob("*.json"))
    for case in json.loads(path.read_text())["cases"]
]


def receive(window: ReplayWindow, sequence_low: int) -> list[Any]:
    try:
        sequence = window.check(sequence_low)
    except PacketDropped as dropped:
        return [sequence_low, dropped.reason.value]
    window.commit(sequence)
    return [sequence_low, "accept", sequence]


def test_tables_are_there() -> None:
    assert len(CASES) >= 27


@pytest.mark.parametrize("case", CASES)
def test_window_follows_the_table(case: dict[str, Any]) -> None:
    window = ReplayWindow(case["window"], esn=case["esn"])

    assert [receive(window, step[0]) for step in case["steps"]] == case["steps"]


class PlainWindow:
    """The same rules with a set and 64-bit numbers throughout: RFC 4303 §3.4.3 without any cleverness."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.seen: set[int] = set()
        self.highest = 0

    def receive(self, sequence: int) -> str:
        if sequence == 0 or sequence <= self.highest - self.size:
            return "replay_window"
        if sequence in self.seen:
            return "replay"
        self.seen.add(sequence)
        self.highest = max(self.highest, sequence)
        return "accept"


SIZES = st.integers(64, 4096)


@given(SIZES, st.lists(st.integers(-5000, 5000), max_size=200))
def test_window_agrees_with_a_plain_set(size: int, steps: list[int]) -> None:
    window, plain = ReplayWindow(size, esn=False), PlainWindow(size)
    for step in steps:
        sequence = max(plain.highest + step, 0)

        assert receive(window, sequence)[1] == plain.receive(sequence)


@given(SIZES, st.integers(1, 1 << 40), st.lists(st.integers(-4095, 1 << 31), max_size=100))
def test_esn_is_reconstructed_wherever_the_window_is(size: int, start: int, steps: list[int]) -> None:
    window, plain = ReplayWindow(size, esn=True), PlainWindow(size)
    # Walk to the start in strides that the 32 bits can still tell apart.
    for sequence in [*range(1, start, 1 << 31), start]:
        window.commit(sequence)
        plain.receive(sequence)
    for step in steps:
        sequence = max(plain.highest + max(step, 1 - size), 1)

        verdict = plain.receive(sequence)

        expected = [sequence & 0xFFFFFFFF, verdict] + ([sequence] if verdict == "accept" else [])
        assert receive(window, sequence & 0xFFFFFFFF) == expected


@given(st.booleans(), SIZES, st.lists(st.integers(0, 300), max_size=50), st.integers(0, 0xFFFFFFFF))
def test_check_alone_changes_nothing(esn: bool, size: int, before: list[int], probe: int) -> None:
    window, untouched = ReplayWindow(size, esn=esn), ReplayWindow(size, esn=esn)
    for sequence in before:
        receive(window, sequence)
        receive(untouched, sequence)

    for _ in range(3):
        try:
            window.check(probe)
        except PacketDropped:
            continue

    assert window.highest == untouched.highest
    assert [receive(window, n) for n in range(300)] == [receive(untouched, n) for n in range(300)]


def test_commit_tells_whether_the_number_is_the_highest() -> None:
    window = ReplayWindow(64, esn=False)

    assert window.commit(5)
    assert not window.commit(4)
    assert window.commit(6)


def test_esn_ends_at_64_bits() -> None:
    window = ReplayWindow(64, esn=True)
    window.commit((1 << 64) - 1)

    with pytest.raises(PacketDropped) as dropped:
        window.check(0)

    assert dropped.value.reason is DropReason.REPLAY_WINDOW


def test_window_of_zero_accepts_everything() -> None:
    window = ReplayWindow(0, esn=False)

    assert [receive(window, n)[1] for n in (5, 5, 1, 0)] == ["accept"] * 4
    assert window.highest == 5


@pytest.mark.parametrize(("size", "esn"), [(1, False), (63, False), (4097, True), (-1, False), (0, True)])
def test_impossible_windows_are_refused(size: int, esn: bool) -> None:
    with pytest.raises(UnsupportedSa) as refused:
        ReplayWindow(size, esn=esn)

    assert refused.value.field == "replay_window_packets"
