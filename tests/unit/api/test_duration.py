import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.duration import MAX_S, DurationError, format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0.0),
        ("1ms", 0.001),
        ("500ms", 0.5),
        ("1.25s", 1.25),
        ("30s", 30.0),
        ("24m", 1440.0),
        ("1h", 3600.0),
        ("1h30m", 5400.0),
        ("1d2h3m4.5s", 93784.5),
        ("3650d", MAX_S),
    ],
)
def test_durations_are_read_and_written(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)
    assert format_duration(seconds) == text


def test_other_spellings_are_read_too() -> None:
    assert parse_duration("90s") == 90.0
    assert parse_duration("60m") == 3600.0
    assert parse_duration("0.5h") == 1800.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("90", "'90' has no unit; write 90s, 90m or 90h"),
        ("", "'' is not a duration, as 90s, 15m, 1h or 1h30m"),
        ("4 h", "'4 h' is not a duration, as 90s, 15m, 1h or 1h30m"),
        ("-5s", "'-5s' is not a duration, as 90s, 15m, 1h or 1h30m"),
        ("1w", "'1w' is not a duration, as 90s, 15m, 1h or 1h30m"),
        ("1h30", "'1h30' is not a duration, as 90s, 15m, 1h or 1h30m"),
        ("3651d", "'3651d' is longer than ten years"),
        ("0.1ms", "'0.1ms' is shorter than 1ms"),
    ],
)
def test_what_is_no_duration_is_refused(text: str, message: str) -> None:
    with pytest.raises(DurationError) as caught:
        parse_duration(text)

    assert str(caught.value) == message


@given(st.integers(min_value=0, max_value=int(MAX_S) * 1000))
def test_what_is_written_is_read_back(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds / 1000)) == pytest.approx(milliseconds / 1000)
