"""What a device cannot carry is noticed, named, and carried by the next method."""

import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.host.bpf.live import LiveFrames, load_live_frames
from tests.espd_io.wire import (
    FRAME_BYTES,
    FRAMES,
    Bench,
    Cable,
    Kind,
    bench,
    cable,
    give_napi,
    ip,
    kinds,
    number_of,
    packet_socket,
    poll_in_a_thread,
    receive,
)

LIVE_THEN_COPY = kinds(Kind.LIVE_FRAME, Kind.XDP_COPY)


@contextmanager
def sending(program: Path, device: str, methods: str, *more: str, live: LiveFrames | None) -> Iterator[Bench]:
    with bench(program, "send", f"--to={device}={methods}", *more, live=live) as running:
        yield running


def test_zero_copy_is_refused_where_the_driver_has_none(program: Path, outer: Cable) -> None:
    methods = kinds(Kind.XDP_ZERO_COPY, Kind.XDP_COPY)

    with sending(program, outer.near, methods, "--packets=64", live=None) as running:
        totals = running.wait()

    assert running.ready["sends"] == "AF_XDP copy"
    assert running.ready["sends_why"].startswith("AF_XDP zero-copy: the driver has no zero-copy")
    assert totals["send_lost"] == 0


def test_a_peer_without_napi_takes_no_live_frames(program: Path, outer: Cable, live: LiveFrames) -> None:
    give_napi(outer.far, on=False)
    with packet_socket(outer.far) as witness:
        with sending(program, outer.near, LIVE_THEN_COPY, "--packets=64", live=live) as running:
            running.wait()
        arrived = receive(witness, 64)

    assert running.ready["sends"] == "AF_XDP copy"
    assert "the other end of a veth does not poll" in running.ready["sends_why"]
    assert [number_of(frame) for frame in arrived] == list(range(64))


def test_a_peer_that_stops_polling_ends_live_frames(program: Path, outer: Cable, live: LiveFrames) -> None:
    with sending(program, outer.near, LIVE_THEN_COPY, live=live) as running:
        give_napi(outer.far, on=False)
        event = running.next_event()
        with packet_socket(outer.far) as witness:
            arrived = receive(witness, 64)
        totals = running.stop()

    assert (running.ready["sends"], event["given_up"], event["next"]) == (
        "live frames",
        "live frames",
        "AF_XDP copy",
    )
    assert "the other end of a veth does not poll" in event["why"]
    assert totals["send_lost"] > 0
    assert len(arrived) == 64


def test_a_driver_that_cannot_send_redirected_frames_is_named(
    program: Path, outer: Cable, live: LiveFrames
) -> None:
    ip("link", "add", "bridge0", "type", "bridge")
    try:
        outer.set("master", "bridge0")
        ip("link", "set", "bridge0", "up")
        methods = kinds(Kind.LIVE_FRAME, Kind.PACKET)
        with sending(program, "bridge0", methods, "--packets=8", live=live) as running:
            running.wait()
    finally:
        ip("link", "delete", "bridge0")

    assert running.ready["sends"] == "AF_PACKET"
    assert "the driver cannot send redirected frames (no ndo_xdp_xmit)" in running.ready["sends_why"]


def test_frames_over_a_page_are_refused_by_name(program: Path, live: LiveFrames) -> None:
    with (
        cable("big0", "big1", mtu=9000) as big,
        sending(program, big.near, LIVE_THEN_COPY, "--packets=8", live=live) as running,
    ):
        running.wait()

    assert running.ready["sends"] == "AF_XDP copy"
    assert "frames of this device have up to 9022 bytes" in running.ready["sends_why"]


def test_a_frame_longer_than_a_page_takes_ends_live_frames(
    program: Path, outer: Cable, live: LiveFrames
) -> None:
    """The device was said to have short ones only."""
    with sending(program, outer.near, LIVE_THEN_COPY, "--bytes=3500", live=live) as running:
        event = running.next_event()
        totals = running.stop()

    assert event["given_up"] == "live frames"
    assert "packets were longer than the" in event["why"]
    assert totals["send_lost"] > 0


@pytest.mark.parametrize("frame_bytes", [8192, 16384])
def test_frames_of_several_pages_are_not_for_af_xdp(frame_bytes: int, program: Path, outer: Cable) -> None:
    methods = kinds(Kind.XDP_COPY, Kind.PACKET)
    with sending(
        program, outer.near, methods, f"--frame-bytes={frame_bytes}", "--packets=8", live=None
    ) as running:
        running.wait()

    assert running.ready["sends"] == "AF_PACKET"
    assert f"frames of {frame_bytes} bytes are larger than a page" in running.ready["sends_why"]


@pytest.mark.parametrize("method", [Kind.XDP_COPY, Kind.LIVE_FRAME], ids=lambda method: method.name.lower())
def test_a_device_that_goes_down_and_up_again_keeps_its_method(
    method: Kind, program: Path, outer: Cable, live: LiveFrames
) -> None:
    methods = kinds(method, Kind.PACKET)
    with sending(program, outer.near, methods, live=live) as running:
        outer.set("down")
        event = running.next_event()
        outer.set("up")
        with packet_socket(outer.far) as witness:
            arrived = receive(witness, 64)
        totals = running.stop()

    assert event == {"down": "out0 is down", "method": running.ready["sends"]}
    assert len(arrived) == 64
    assert running.events == [event]
    assert totals["frames_missing"] == 0


@pytest.mark.parametrize("end", ["near", "far"])
def test_a_device_that_is_down_is_not_opened(end: str, program: Path, outer: Cable) -> None:
    outer.set("down", end=getattr(outer, end))

    carrier = ": it has no carrier" if end == "far" else ""

    with pytest.raises(AssertionError, match="out0 is down" + carrier):
        sending(program, outer.near, kinds(Kind.XDP_COPY, Kind.PACKET), live=None).__enter__()


def test_without_a_program_there_are_no_live_frames(program: Path, outer: Cable) -> None:
    with sending(program, outer.near, LIVE_THEN_COPY, "--packets=8", live=None) as running:
        running.wait()

    assert running.ready["sends"] == "AF_XDP copy"
    assert "the agent gave no program for them" in running.ready["sends_why"]


def test_losses_that_no_tracepoint_tells_are_not_risked(program: Path, outer: Cable) -> None:
    with load_live_frames(frames=FRAMES, frame_bytes=FRAME_BYTES) as blind:
        for link in blind.links[1:]:
            link.close()
        seeing_nothing = dataclasses.replace(blind, links=blind.links[:1])
        with sending(program, outer.near, LIVE_THEN_COPY, "--packets=8", live=seeing_nothing) as running:
            running.wait()

    assert running.ready["sends"] == "AF_XDP copy"
    assert "no tracepoint tells what becomes of them" in running.ready["sends_why"]


def test_without_steering_nothing_is_received(program: Path, lan: Cable) -> None:
    with pytest.raises(AssertionError, match="no XDP program is attached that would give us its packets"):
        bench(program, "receive", f"--from={lan.near}={kinds(Kind.XDP_COPY)}").__enter__()


@pytest.mark.parametrize("method", [Kind.XDP_COPY, Kind.LIVE_FRAME], ids=lambda method: method.name.lower())
def test_what_overflows_the_queue_of_a_device_is_counted(
    method: Kind, program: Path, outer: Cable, live: LiveFrames
) -> None:
    """The queue is a veth's; who empties it gets no time while a sender of a higher rank has the CPU."""
    cpu = max(os.sched_getaffinity(0))
    poll_in_a_thread(outer.far, cpu)
    with packet_socket(outer.far) as witness:
        options = (f"--to={outer.near}={kinds(method)}", "--burst=256", "--packets=20000")
        with bench(program, "send", *options, live=live, alone_on=cpu) as running:
            totals = running.wait()
        arrived = receive(witness, totals["sent"] - totals["send_lost"] - 1)

    assert len(arrived) + totals["send_lost"] + 1 == totals["sent"]
    if method is Kind.LIVE_FRAME:
        assert totals["send_lost"] > 0
