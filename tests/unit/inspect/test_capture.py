"""pcap and pcapng in every byte order and time unit, gzipped or not, damaged in every way."""

import contextlib
import gzip
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.inspect.capture import CaptureCut, Frame, read_capture
from gateway.inspect.errors import InspectError
from tests.vectors.read import VECTORS

FRAMES = [(1_700_000_000_123_456_000, b"first frame"), (1_700_000_001_000_000_000, b"x" * 61)]
CAPTURES = sorted(path for path in VECTORS.glob("**/*.pcap*"))


def pcap(order="<", magic=0xA1B2C3D4, link_type=1, frames=FRAMES):
    tick = 1 if magic == 0xA1B23C4D else 1000
    data = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, link_type)
    for time_ns, octets in frames:
        seconds, rest = divmod(time_ns, 10**9)
        data += struct.pack(order + "IIII", seconds, rest // tick, len(octets), len(octets)) + octets
    return data


def block(order, kind, body):
    body += bytes(-len(body) % 4)
    size = len(body) + 12
    return struct.pack(order + "II", kind, size) + body + struct.pack(order + "I", size)


def section(order):
    return block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))


def interface(order, link_type=1, options=b""):
    return block(order, 1, struct.pack(order + "HHI", link_type, 0, 0) + options)


def option(order, code, value):
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def enhanced(order, ticks, octets, interface_id=0, original=None):
    head = struct.pack(
        order + "IIIII", interface_id, ticks >> 32, ticks & 0xFFFFFFFF, len(octets), original or len(octets)
    )
    return block(order, 6, head + octets)


def pcapng(order="<", frames=FRAMES):
    return section(order) + interface(order) + b"".join(enhanced(order, t // 1000, o) for t, o in frames)


def read(tmp_path, data):
    path = tmp_path / "capture"
    path.write_bytes(data)
    return list(read_capture(path))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("magic", [0xA1B2C3D4, 0xA1B23C4D], ids=["micro", "nano"])
def test_pcap_of_either_byte_order_and_time_unit(tmp_path, order, magic):
    frames = read(tmp_path, pcap(order, magic))

    assert [(frame.time_ns, frame.data) for frame in frames] == FRAMES
    assert [frame.number for frame in frames] == [1, 2]
    assert {frame.link_type for frame in frames} == {1}


@pytest.mark.parametrize("order", "<>")
def test_pcapng_of_either_byte_order(tmp_path, order):
    frames = read(tmp_path, pcapng(order))

    assert [(frame.time_ns, frame.data) for frame in frames] == FRAMES


@pytest.mark.parametrize("data", [pcap(), pcapng()], ids=["pcap", "pcapng"])
def test_gzipped_capture(tmp_path, data):
    assert [frame.data for frame in read(tmp_path, gzip.compress(data))] == [o for _, o in FRAMES]


def test_pcapng_time_resolution_and_offset_of_its_interface(tmp_path):
    options = option("<", 9, b"\x09") + option("<", 14, struct.pack("<q", 100)) + option("<", 0, b"")
    binary = option("<", 9, b"\x8a")
    data = section("<") + interface("<", options=options) + interface("<", link_type=101, options=binary)
    data += enhanced("<", 5_000_000_007, b"nano") + enhanced("<", 1024 * 3 + 512, b"binary", interface_id=1)

    frames = read(tmp_path, data)

    assert [frame.time_ns for frame in frames] == [105_000_000_007, 3_500_000_000]
    assert [frame.link_type for frame in frames] == [1, 101]


def test_pcapng_of_two_sections_and_unknown_and_simple_and_old_blocks(tmp_path):
    simple = block(">", 3, struct.pack(">I", 6) + b"simple")
    old = block(">", 2, struct.pack(">HHIIII", 0, 0, 0, 7_000_000, 3, 3) + b"old")
    strange = block(">", 0x0BAD, b"who knows")
    data = pcapng("<") + section(">") + interface(">", link_type=113) + strange + simple + old

    frames = read(tmp_path, data)

    assert [frame.data for frame in frames] == [o for _, o in FRAMES] + [b"simple", b"old"]
    assert [frame.number for frame in frames] == [1, 2, 3, 4]
    assert frames[2].link_type == 113
    assert frames[3].time_ns == 7_000_000_000


def test_frame_that_the_snap_length_cut_says_so(tmp_path):
    data = section("<") + interface("<") + enhanced("<", 0, b"head", original=100)

    assert read(tmp_path, data) == [Frame(number=1, time_ns=0, link_type=1, data=b"head", is_cut=True)]


@pytest.mark.parametrize("data", [pcap(), pcapng()], ids=["pcap", "pcapng"])
def test_every_truncation_gives_the_frames_before_it_and_then_says_so(tmp_path, data):
    path = tmp_path / "capture"
    for size in range(len(data)):
        path.write_bytes(data[:size])
        frames = []
        # A cut between two records is no error: nothing says how many there should be.
        with contextlib.suppress(InspectError):
            for frame in read_capture(path):
                frames += [frame.data]
        assert frames == [o for _, o in FRAMES][: len(frames)]
    assert len(frames) == 1
    with pytest.raises(CaptureCut, match="ends in the middle"):
        list(read_capture(path))


def test_truncated_gzip_says_so(tmp_path):
    with pytest.raises(CaptureCut, match="gzip"):
        read(tmp_path, gzip.compress(pcap())[:-10])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "begins with nothing"),
        (b"#!/bin/sh\n", "not a pcap or pcapng file"),
        (gzip.compress(b"text", mtime=0), "not a pcap or pcapng file"),
        (b"\x1f\x8bnonsense", "capture: "),
        (section("<")[:8] + b"\0\0\0\0" + section("<")[12:], "byte-order magic"),
        (section("<") + struct.pack("<II", 6, 8), "claims 8 bytes"),
        (section("<") + struct.pack("<II", 6, 33), "claims 33 bytes"),
        (section("<") + interface("<")[:-4] + b"\1\0\0\0", "two lengths"),
        (section("<") + enhanced("<", 0, b"x"), "not described"),
        (section("<") + interface("<") + block("<", 6, b"short"), "too short"),
        (section("<") + block("<", 1, b"\0\0\0\0"), "too short"),
        (
            section("<") + interface("<") + block("<", 6, struct.pack("<IIIII", 0, 0, 0, 99, 99) + b"few"),
            "claims 99 bytes",
        ),
        (pcap()[:24] + struct.pack("<IIII", 0, 0, 0x7FFFFFFF, 0), "claims 2147483647 bytes"),
        (section("<") + struct.pack("<II", 6, 0x7FFFFFFC), "claims"),
    ],
)
def test_damaged_file_is_refused_with_the_reason(tmp_path, data, reason):
    with pytest.raises(InspectError, match=reason):
        read(tmp_path, data)


def test_file_that_is_not_there_or_not_a_file_is_refused(tmp_path):
    with pytest.raises(InspectError, match="No such file"):
        list(read_capture(tmp_path / "missing.pcap"))
    with pytest.raises(InspectError, match="directory"):
        list(read_capture(tmp_path))


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: str(path.relative_to(VECTORS)))
def test_captures_other_programs_wrote_have_ip_frames_with_times(path):
    frames = list(read_capture(path))

    assert frames
    assert all(frame.time_ns > 10**18 and not frame.is_cut for frame in frames)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([pcap()[:24], pcap(">")[:24], section("<"), section(">") + interface(">")]), st.binary()
)
def test_any_bytes_after_a_valid_head_are_frames_or_a_refusal(tmp_path_factory, head, data):
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(head + data)
    try:
        for frame in read_capture(path):
            assert isinstance(frame.data, bytes)
    except InspectError:
        pass
