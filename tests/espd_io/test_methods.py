"""Every method alike: what goes in comes out, byte for byte, and nothing is lost without being counted."""

import signal
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.host.bpf.live import LiveFrames
from tests.espd_io.wire import (
    Cable,
    Kind,
    await_arrival,
    bench,
    cable,
    frame_of,
    kinds,
    number_of,
    packet_socket,
    receive,
    steered,
)

RECEIVING = (Kind.XDP_COPY, Kind.PACKET)
SENDING = (Kind.XDP_COPY, Kind.LIVE_FRAME, Kind.PACKET)
SIZES = (60, 61, 64, 128, 255, 256, 512, 1023, 1420, 1514, 2000, 2048, 3000, 3314)
BURSTS = (1, 7, 64, 256)
PACKETS = 512


@dataclass(frozen=True)
class Way:
    """How a frame comes in and how it leaves."""

    receive: Kind
    send: Kind

    def __str__(self) -> str:
        return f"{self.receive.name.lower()}-to-{self.send.name.lower()}"


WAYS = [Way(receive, send) for receive in RECEIVING for send in SENDING]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_frames_of_every_size_arrive_as_they_were_sent(
    way: Way, program: Path, lan: Cable, outer: Cable, live: LiveFrames
) -> None:
    sent = [frame_of(number, size) for number, size in enumerate(SIZES * 5)]
    with ExitStack() as stack:
        maps = stack.enter_context(steered(lan.near)).maps if way.receive is Kind.XDP_COPY else None
        sender = stack.enter_context(packet_socket(lan.far))
        witness = stack.enter_context(packet_socket(outer.far))
        arguments = (f"--from={lan.near}={kinds(way.receive)}", f"--to={outer.near}={kinds(way.send)}")
        steering = maps["gw_xsks"].fd if maps else -1
        running = stack.enter_context(bench(program, "forward", *arguments, steering=steering, live=live))
        for frame in sent:
            sender.send(frame)
        arrived = receive(witness, len(sent))
        totals = running.stop()

    assert arrived == sent
    assert (totals["received"], totals["refused"]) == (len(sent), 0)
    assert (totals["receive_lost"], totals["send_lost"], totals["frames_missing"]) == (0, 0, 0)


@pytest.mark.parametrize("burst", BURSTS)
@pytest.mark.parametrize("size", [60, 1420, 3314])
@pytest.mark.parametrize("method", SENDING, ids=lambda method: method.name.lower())
def test_bursts_leave_in_order_and_are_accounted_for(
    *, method: Kind, size: int, burst: int, program: Path, outer: Cable, live: LiveFrames
) -> None:
    """A queue may overflow when this machine is busy: what is missing then has been counted."""
    options = (
        f"--to={outer.near}={kinds(method)}",
        f"--bytes={size}",
        f"--burst={burst}",
        f"--packets={PACKETS}",
    )
    with packet_socket(outer.far) as witness:
        with bench(program, "send", *options, live=live) as running:
            totals = running.wait()
        lost = totals["send_lost"]
        arrived = receive(witness, PACKETS - lost)
        late = receive(witness, 1, timeout_s=0.05)

    numbers = [number_of(frame) for frame in arrived]
    assert numbers == sorted(set(numbers))
    assert len(numbers) + lost >= PACKETS
    assert len(numbers) + len(late) <= PACKETS
    assert {len(frame) for frame in arrived} == {size}
    assert totals["frames_missing"] == 0


@pytest.mark.parametrize("queue", [0, 1])
def test_each_queue_has_its_own_socket(queue: int, program: Path) -> None:
    """AF_XDP sends into the queue it is bound to, whose number is that of the receiver's."""
    with ExitStack() as stack:
        lan = stack.enter_context(cable("lan2", "lan3", queues=2))
        steering = stack.enter_context(steered(lan.near)).maps["gw_xsks"].fd
        receivers = [
            stack.enter_context(
                bench(
                    program,
                    "receive",
                    f"--from={lan.near}={kinds(Kind.XDP_COPY)}",
                    f"--queue={number}",
                    steering=steering,
                )
            )
            for number in range(2)
        ]
        options = (f"--to={lan.far}={kinds(Kind.XDP_COPY)}", f"--queue={queue}", f"--packets={PACKETS}")
        sender = stack.enter_context(bench(program, "send", *options))
        sent = sender.wait()["sent"]
        received = [receiver.stop() for receiver in receivers]

    counts = [totals["received"] + totals["receive_lost"] for totals in received]
    assert counts[queue] == sent
    assert counts[1 - queue] == 0


def test_a_queue_is_one_sockets_only(program: Path, outer: Cable) -> None:
    option = f"--to={outer.near}={kinds(Kind.XDP_COPY)}"

    with (
        bench(program, "send", option),
        pytest.raises(AssertionError, match="queue 0 is another AF_XDP socket's"),
    ):
        bench(program, "send", option).__enter__()


def test_what_overflows_the_receive_ring_is_counted(program: Path, lan: Cable) -> None:
    count = 5000
    with steered(lan.near) as loaded, packet_socket(lan.far) as sender:
        option = f"--from={lan.near}={kinds(Kind.XDP_COPY)}"
        with bench(program, "receive", option, steering=loaded.maps["gw_xsks"].fd) as running:
            running.process.send_signal(signal.SIGSTOP)
            for number in range(count):
                sender.send(frame_of(number, 60))
            await_arrival(lan.near, count)
            running.process.send_signal(signal.SIGCONT)
            totals = running.stop()

    assert totals["receive_lost"] > 0
    assert totals["received"] + totals["receive_lost"] == count


def test_what_does_not_fit_a_frame_is_counted(program: Path, lan: Cable) -> None:
    """Of 2048 bytes, 256 are in front of a packet and 64 behind it."""
    with steered(lan.near) as loaded, packet_socket(lan.far) as sender:
        options = (f"--from={lan.near}={kinds(Kind.XDP_COPY)}", "--frame-bytes=2048", "--packets=2")
        with bench(program, "receive", *options, steering=loaded.maps["gw_xsks"].fd) as running:
            for size in (1728, 1729, 1792, 1793, 3000, 60):
                sender.send(frame_of(0, size))
            totals = running.wait()

    assert (totals["received"], totals["receive_lost"]) == (2, 4)
