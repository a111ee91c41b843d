"""A whole inspection of damaged captures ends in a report or a refusal, never in anything else."""

import json
import re
import struct

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.inspect.errors import InspectError
from gateway.inspect.keys import KeyTables, read_keys
from gateway.inspect.report import Inspection, summary_lines, totals_json
from tests.vectors.read import STRONGSWAN, VECTORS, WIRESHARK

CAPTURES = {path: path.read_bytes() for path in sorted(VECTORS.glob("**/*.pcap*")) if path.suffix != ".gz"}
KEYS = {path.parent: read_keys(path.parent) for path in CAPTURES}


def inspect(path, keys):
    inspection = Inspection(path, keys)
    entries = list(inspection.entries())
    assert all(entry.lines for entry in entries)
    assert summary_lines(inspection.totals)
    return inspection, json.dumps(totals_json(inspection.totals, [entry.json for entry in entries]))


@settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_captures_with_changed_bytes_end_in_a_report_or_a_refusal(tmp_path, data):
    path = data.draw(st.sampled_from(list(CAPTURES)))
    changed = bytearray(CAPTURES[path])
    for _ in range(data.draw(st.integers(1, 8))):
        position = data.draw(st.integers(0, len(changed) - 1))
        changed[position] = data.draw(st.integers(0, 255))
    (tmp_path / "changed").write_bytes(changed[: data.draw(st.integers(1, len(changed)))])

    try:
        inspect(tmp_path / "changed", KEYS[path.parent])
    except InspectError as error:
        assert str(tmp_path) in str(error)  # noqa: PT017 - a refusal is one of two right answers


def test_time_no_calendar_has_is_told_as_a_number(tmp_path):
    """64 bits of microseconds reach beyond the year 9999."""
    capture = WIRESHARK / "ikev2-decrypt-aes256cbc.pcapng"
    data = bytearray(capture.read_bytes())
    enhanced_packet = data.index(struct.pack("<II", 6, 332))
    data[enhanced_packet + 12 : enhanced_packet + 16] = b"\xff\xff\xff\xff"
    (tmp_path / "times.pcapng").write_bytes(data)

    _, report = inspect(tmp_path / "times.pcapng", KeyTables())

    times = [message["time"] for message in json.loads(report)["messages"]]
    assert re.fullmatch(r"\d{14}\.\d{6}s", times[0])
    assert all(time.endswith("Z") for time in times[1:])


def test_notes_are_counted_and_not_repeated():
    inspection, _ = inspect(STRONGSWAN / "ikev1-main-psk" / "capture.pcap", KeyTables())

    assert inspection.totals.notes == {
        "IKE: IKEv1, header only": 4,
        "IKE: IKEv1, header only, not decrypted": 11,
        "ESP: no key": 8,
    }
    assert "note: ESP: no key (8 x)" in summary_lines(inspection.totals)
