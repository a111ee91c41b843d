"""Sequence-numbered UDP and bulk TCP, run inside a namespace as `python -m gateway.bench.traffic ...`.

    udp LOCAL PEER --rate PPS     says "ready", waits for a line, runs until SIGTERM or --seconds, then prints
                                  one JSON line: `FlowCount`
    tcp-serve LOCAL               one connection, then one JSON line {"bytes": n, "sha256": "..."}
    tcp-send PEER --bytes N       progress as JSON lines {"sent": n, "seconds": s}, the last one with sha256

Every UDP payload is a 64-bit sequence number and padding, so that losses and duplicates are counted.
"""

import argparse
import hashlib
import json
import selectors
import signal
import socket
import struct
import sys
import time
from dataclasses import asdict, dataclass

_SEQUENCE = struct.Struct("!Q")
_DRAIN_S = 1.0
"""With nothing arriving for so long, what is missing at the end of a flow is lost and not late."""
_MAX_DRAIN_S = 10.0
_MAX_BURST_S = 0.01
"""So much at once makes up for a delay: a longer burst would be lost on a path that has room for the rate."""
_CHUNK = 65536
_SO_MEMINFO = 55
"""The socket option, of Linux on all but a few machines; Python has no name for it."""
_DROPS = 8
"""SK_MEMINFO_DROPS, the place of the count there."""


@dataclass(slots=True)
class FlowCount:
    """What one end of a flow saw."""

    sent: int = 0
    seconds: float = 0.0
    """For how long this end was to send."""
    received: int = 0
    """Distinct sequence numbers."""
    duplicates: int = 0
    highest: int = 0
    """Highest sequence number received; numbers start at 1."""
    reordered: int = 0
    held_up_s: float = 0.0
    """For how long nothing could be sent, because the process had no CPU or its socket no room."""
    longest_gap_s: float = 0.0
    """The longest time in which nothing was sent."""
    send_errors: int = 0
    """How often the sender's socket or the network refused a packet for a moment; it is sent later."""
    longest_silence_s: float = 0.0
    """Between two packets that came one after the other, as this process saw them."""
    overrun: int = 0
    """Packets that came and that the receiver's socket dropped, mostly for want of room."""


def missing(sender: FlowCount, receiver: FlowCount) -> int:
    """Return how many of the sender's packets the receiver never saw."""
    return sender.sent - receiver.received


def run_flow(
    local: str, peer: str, *, port: int, rate_pps: int, payload_bytes: int, seconds: float
) -> FlowCount:
    """Send `rate_pps` packets a second to the peer and count what comes from it, until SIGTERM or `seconds`.

    A packet that cannot be sent for a moment (full queue) is tried again: only the path may lose packets.
    When this process is late the rate is lower for a time, and never higher.
    """
    family = socket.AF_INET6 if ":" in local else socket.AF_INET
    count, seen, stopping = FlowCount(), set[int](), False

    def stop(_signal: int, _frame: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    with socket.socket(family, socket.SOCK_DGRAM) as flow, selectors.DefaultSelector() as selector:
        flow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        flow.bind((local, port))
        flow.connect((peer, port))
        flow.setblocking(False)
        selector.register(flow, selectors.EVENT_READ)
        padding = bytes(max(0, payload_bytes - _SEQUENCE.size))
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()  # the other end is bound too: from here on, what is missing was lost
        began = start = latest = sent_at = time.monotonic()
        end = start + seconds
        while not stopping and (now := time.monotonic()) < end:
            due = int((now - start) * rate_pps) + 1
            late_s = (due - count.sent) / rate_pps - _MAX_BURST_S
            if late_s > 0:  # this process had no CPU: what it did not send then, it never does
                count.held_up_s += late_s
                start += late_s
                due = int((now - start) * rate_pps) + 1
            while count.sent < due:
                try:
                    flow.send(_SEQUENCE.pack(count.sent + 1) + padding)
                except OSError:
                    count.send_errors += 1
                    break
                count.sent += 1
                if now > sent_at:  # the first of this round
                    count.longest_gap_s, sent_at = max(count.longest_gap_s, now - sent_at), now
            wait = start + due / rate_pps - time.monotonic()
            if selector.select(max(0.0, wait)):
                latest = _receive(flow, count, seen, latest)
        stopped = time.monotonic()
        count.seconds = stopped - began
        count.longest_gap_s = max(count.longest_gap_s, stopped - sent_at)
        quiet, end = stopped + _DRAIN_S, stopped + _MAX_DRAIN_S
        while (left := min(quiet, end) - time.monotonic()) > 0:
            if selector.select(left):
                latest = _receive(flow, count, seen, latest)
                quiet = time.monotonic() + _DRAIN_S
        count.overrun = _dropped_by(flow)
    return count


def _dropped_by(flow: socket.socket) -> int:
    """Return how many packets a socket had no room for (sock_diag(7), SK_MEMINFO_DROPS)."""
    memory = flow.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 4 * (_DROPS + 1))
    drops: int = struct.unpack_from("=I", memory, 4 * _DROPS)[0]
    return drops


def _receive(flow: socket.socket, count: FlowCount, seen: set[int], before: float) -> float:
    """Take what has come; return when, in place of when something had come before."""
    now = time.monotonic()
    if seen:
        count.longest_silence_s = max(count.longest_silence_s, now - before)
    while True:
        try:
            payload = flow.recv(65536)
        except OSError:  # nothing more, or an ICMP error of the path: the count will tell
            return now
        (sequence,) = _SEQUENCE.unpack_from(payload)
        if sequence in seen:
            count.duplicates += 1
            continue
        seen.add(sequence)
        count.received += 1
        count.reordered += sequence < count.highest
        count.highest = max(count.highest, sequence)


def serve_tcp(local: str, port: int) -> None:
    """Take one connection, read it to the end and print how many bytes came and their digest."""
    family = socket.AF_INET6 if ":" in local else socket.AF_INET
    digest, total = hashlib.sha256(), 0
    with socket.create_server((local, port), family=family) as server:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        connection, _ = server.accept()
        with connection:
            while chunk := connection.recv(_CHUNK):
                digest.update(chunk)
                total += len(chunk)
            print(json.dumps({"bytes": total, "sha256": digest.hexdigest()}), flush=True)


def send_tcp(peer: str, port: int, total_bytes: int) -> None:
    """Send `total_bytes` of a fixed pattern and print progress a few times a second."""
    digest, sent = hashlib.sha256(), 0
    pattern = bytes(range(256)) * (_CHUNK // 256)
    with socket.create_connection((peer, port), timeout=20.0) as connection:
        start = reported = time.monotonic()
        while sent < total_bytes:
            chunk = pattern[: min(_CHUNK, total_bytes - sent)]
            connection.sendall(chunk)
            digest.update(chunk)
            sent += len(chunk)
            if (now := time.monotonic()) - reported > 0.2:
                reported = now
                print(json.dumps({"sent": sent, "seconds": now - start}), flush=True)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)  # the server closes when it has everything: only then is the time over
        seconds = time.monotonic() - start
    print(json.dumps({"sent": sent, "seconds": seconds, "sha256": digest.hexdigest()}), flush=True)


def main() -> None:
    """Parse the command line of the module's docstring and run one end."""
    parser = argparse.ArgumentParser(prog="python -m gateway.bench.traffic")
    commands = parser.add_subparsers(dest="command", required=True)
    udp = commands.add_parser("udp")
    udp.add_argument("local")
    udp.add_argument("peer")
    udp.add_argument("--rate", type=int, default=1000)
    udp.add_argument("--payload", type=int, default=200)
    udp.add_argument("--seconds", type=float, default=600.0)
    serve = commands.add_parser("tcp-serve")
    serve.add_argument("local")
    send = commands.add_parser("tcp-send")
    send.add_argument("peer")
    send.add_argument("--bytes", type=int, default=16 << 20)
    for command in (udp, serve, send):
        command.add_argument("--port", type=int, default=7000)
    options = parser.parse_args()
    # A terminal's Ctrl-C reaches us beside those who started us; what to say about it is theirs.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if options.command == "udp":
        count = run_flow(
            options.local,
            options.peer,
            port=options.port,
            rate_pps=options.rate,
            payload_bytes=options.payload,
            seconds=options.seconds,
        )
        print(json.dumps(asdict(count)), flush=True)
    elif options.command == "tcp-serve":
        serve_tcp(options.local, options.port)
    else:
        send_tcp(options.peer, options.port, options.bytes)


if __name__ == "__main__":
    main()
