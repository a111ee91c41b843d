"""Structured logs: both formats, levels by subsystem, nothing secret."""

import io
import json
import logging
from ipaddress import ip_address

import pytest

from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.errors import VocabularyError
from gateway.ipsec.identity import parse_identity
from gateway.ipsec.sa import Direction
from gateway.ipsec.secret import Secret
from gateway.observe.logs import LogFormat, configure, get_logger, parse_levels, render


@pytest.fixture(autouse=True)
def restored_logging():
    """Put the process-wide set-up back: other tests log too."""
    loggers = [logging.getLogger(), logging.getLogger("gateway")]
    before = [(logger, logger.level, logger.handlers[:]) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers
    for name in ("ike", "api"):
        logging.getLogger(f"gateway.{name}").setLevel(logging.NOTSET)


def human_line(stream: io.StringIO) -> str:
    """Return the one line that was written, less its time."""
    (line,) = stream.getvalue().splitlines()
    time, rest = line.split(" ", 1)
    assert time.endswith("Z")
    return rest


def json_line(stream: io.StringIO) -> dict[str, object]:
    (line,) = stream.getvalue().splitlines()
    return json.loads(line)


def test_human_line_has_level_subsystem_event_and_fields():
    configure(stream=(stream := io.StringIO()))

    get_logger("gateway.controller.report").info(
        "child_sa_established", connection="paris", spi_in="c0ffee00", peer=ip_address("192.0.2.2")
    )

    assert human_line(stream) == (
        "INFO    controller child_sa_established connection=paris spi_in=c0ffee00 peer=192.0.2.2"
    )


def test_json_line_is_one_object():
    configure(format=LogFormat.JSON, stream=(stream := io.StringIO()))

    get_logger("ike").warning("ike_sa_failed", connection="paris", tries=3, nat=True, offered=None)

    line = json_line(stream)
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "warning",
        "subsystem": "ike",
        "event": "ike_sa_failed",
        "connection": "paris",
        "tries": 3,
        "nat": True,
        "offered": None,
    }


def test_bound_fields_are_on_every_line_and_later_ones_win():
    configure(format=LogFormat.JSON, stream=(stream := io.StringIO()))
    log = get_logger("ike", connection="paris").bind(peer="192.0.2.2", ike_spi_i=b"\x01" * 8)

    log.info("a", peer="192.0.2.3")

    line = json_line(stream)
    assert (line["connection"], line["peer"], line["ike_spi_i"]) == ("paris", "192.0.2.3", "01" * 8)


def test_field_cannot_replace_the_facts_of_the_line():
    configure(format=LogFormat.JSON, stream=(stream := io.StringIO()))

    get_logger("ike").info("real", event="forged", level="debug")

    line = json_line(stream)
    assert (line["event"], line["level"]) == ("real", "info")
    assert (line["event_"], line["level_"]) == ("forged", "debug")


@pytest.mark.parametrize("format_", LogFormat)
def test_values_cannot_break_the_line(format_):
    configure(format=format_, stream=(stream := io.StringIO()))

    get_logger("ike").info("a", detail='x" y=1\n2026-01-01 ERROR ike forged\x1b[31m', other="\u202e")

    text = stream.getvalue()
    assert text.count("\n") == 1
    assert "\x1b" not in text
    if format_ is LogFormat.JSON:
        assert json.loads(text)["detail"].endswith("forged\x1b[31m")
    else:
        assert r'detail="x\" y=1\n2026' in text
        assert "\u202e" not in text


@pytest.mark.parametrize("format_", LogFormat)
def test_secrets_are_never_written(format_):
    configure(format=format_, stream=(stream := io.StringIO()))

    get_logger("ike").info("a", psk=Secret(b"hunter2"), keys=[Secret(b"hunter2")], raw=b"hunter2hunter2")

    text = stream.getvalue()
    assert "hunter2" not in text
    assert b"hunter2".hex() not in text
    assert "Secret(7 bytes)" in text
    assert "<14 bytes>" in text


@pytest.mark.parametrize(
    ("value", "rendered"),
    [
        (Direction.INBOUND, "inbound"),
        (DropReason.REPLAY, "replay"),
        (parse_identity("gw.example"), "gw.example"),
        ((1, ip_address("::1")), [1, "::1"]),
        (b"\x00" * 8, "00" * 8),
        (1.5, 1.5),
    ],
)
def test_values(value, rendered):
    assert render(value) == rendered


def test_levels_are_per_subsystem():
    configure(levels="warning,ike=debug", stream=(stream := io.StringIO()))

    get_logger("gateway.ike.endpoint").debug("shown")
    get_logger("api").info("hidden")
    get_logger("api").warning("shown_too")

    assert [line.split()[3] for line in stream.getvalue().splitlines()] == ["shown", "shown_too"]


def test_second_set_up_replaces_the_first():
    first, second = io.StringIO(), io.StringIO()
    configure(levels="info,ike=debug", stream=first)

    configure(levels="info", stream=second)
    get_logger("ike").debug("hidden")
    get_logger("ike").info("shown")

    assert first.getvalue() == ""
    assert human_line(second).split()[2] == "shown"


def test_other_libraries_are_heard_from_warning_up():
    configure(format=LogFormat.JSON, stream=(stream := io.StringIO()))

    logging.getLogger("asyncio").info("hidden")
    logging.getLogger("asyncio").warning("task %s was never awaited", "x")

    line = json_line(stream)
    assert (line["subsystem"], line["event"]) == ("asyncio", "message")
    assert line["text"] == "task x was never awaited"


@pytest.mark.parametrize("format_", LogFormat)
def test_error_carries_the_traceback(format_):
    configure(format=format_, stream=(stream := io.StringIO()))

    try:
        raise RuntimeError("boom")
    except RuntimeError as error:
        get_logger("ike").error("task_died", exception=error, task="pump")

    text = stream.getvalue()
    assert "RuntimeError: boom" in text
    assert ("\nTraceback" in text) is (format_ is LogFormat.HUMAN)


@pytest.mark.parametrize(
    ("text", "default", "subsystems"),
    [
        ("info", "info", {}),
        ("ike=debug", "info", {"ike": "debug"}),
        (" Warning , ike = DEBUG,api=error", "warning", {"ike": "debug", "api": "error"}),
    ],
)
def test_levels_text(text, default, subsystems):
    assert parse_levels(text) == (default, subsystems)


@pytest.mark.parametrize(("text", "column"), [("loud", 0), ("info,ike=loud", 5), ("", 0)])
def test_unknown_level_is_refused_with_its_place(text, column):
    with pytest.raises(VocabularyError, match="one of debug, info, warning, error") as caught:
        parse_levels(text)

    assert caught.value.column == column
