"""Start the traffic generators of `gateway.bench.traffic` in namespaces and read their counts."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from gateway.bench.topology import Namespace, TopologyError
from gateway.bench.traffic import FlowCount, missing


@dataclass(slots=True)
class TwoWayFlow:
    """Sequence-numbered UDP in both directions; the counts are there when the context has ended."""

    a: FlowCount = field(default_factory=FlowCount)
    b: FlowCount = field(default_factory=FlowCount)

    @property
    def missing(self) -> int:
        """Packets that were sent and never arrived, both directions."""
        return missing(self.a, self.b) + missing(self.b, self.a)

    @property
    def overrun(self) -> int:
        """Packets among the missing that arrived, and that the receivers were too slow for."""
        return self.a.overrun + self.b.overrun

    @property
    def lost(self) -> int:
        """Packets that were lost on the way."""
        return self.missing - self.overrun

    @property
    def longest_silence_s(self) -> float:
        """For how long nothing came, at the end that waited longer."""
        return max(self.a.longest_silence_s, self.b.longest_silence_s)

    @property
    def received(self) -> int:
        """Packets that arrived, both directions, each counted once."""
        return self.a.received + self.b.received

    @property
    def rate_pps(self) -> float:
        """Packets that were really sent in a second, both directions; 0 while it is not known."""
        return sum(end.sent / end.seconds for end in (self.a, self.b) if end.seconds)

    @property
    def longest_gap_s(self) -> float:
        """For how long nothing was sent, at the end that paused longer."""
        return max(self.a.longest_gap_s, self.b.longest_gap_s)

    @property
    def duplicates(self) -> int:
        """Packets that arrived more than once, both directions."""
        return self.a.duplicates + self.b.duplicates

    @property
    def sent(self) -> int:
        """Packets sent, both directions."""
        return self.a.sent + self.b.sent


@contextmanager
def two_way_udp(
    a: Namespace, a_address: str, b: Namespace, b_address: str, *, rate_pps: int = 1000
) -> Iterator[TwoWayFlow]:
    """Send numbered UDP both ways while the context lasts; on its end, fill in what both ends counted."""
    flow = TwoWayFlow()
    ends = [
        namespace.popen(
            *(sys.executable, "-m", "gateway.bench.traffic", "udp", local, peer, "--rate", str(rate_pps)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for namespace, local, peer in ((a, a_address, b_address), (b, b_address, a_address))
    ]
    try:
        for end in ends:
            assert end.stdout is not None
            if end.stdout.readline() != "ready\n":
                raise TopologyError("a traffic generator did not start")
        for end in ends:
            assert end.stdin is not None
            end.stdin.write("go\n")
            end.stdin.flush()
        yield flow
    finally:
        for end in ends:
            end.send_signal(signal.SIGTERM)
        outputs = [end.communicate(timeout=30)[0] for end in ends]
    flow.a, flow.b = (FlowCount(**json.loads(output)) for output in outputs)


@dataclass(frozen=True, slots=True)
class Transfer:
    """A finished TCP transfer."""

    bytes: int
    seconds: float
    intact: bool
    """Whether both ends have the same digest."""

    @property
    def mbit_per_s(self) -> float:
        """Goodput in Mb/s."""
        return self.bytes * 8 / self.seconds / 1e6 if self.seconds else 0.0


def tcp_transfer(
    sender: Namespace,
    receiver: Namespace,
    address: str,
    total_bytes: int,
    progress: Callable[[int, float], None] = lambda _sent, _seconds: None,
) -> Transfer:
    """Send bytes from one namespace to another; `progress(sent, seconds)` is called a few times a second.

    Raises:
        TopologyError: The transfer broke off.
    """
    module = (sys.executable, "-m", "gateway.bench.traffic")
    server = receiver.popen(*module, "tcp-serve", address, stdout=subprocess.PIPE)
    assert server.stdout is not None
    client: subprocess.Popen[str] | None = None
    try:
        if server.stdout.readline() != "ready\n":
            raise TopologyError("the TCP receiver did not start")
        client = sender.popen(
            *module, "tcp-send", address, "--bytes", str(total_bytes), stdout=subprocess.PIPE
        )
        assert client.stdout is not None
        last: dict[str, float | str] = {}
        for line in client.stdout:
            last = json.loads(line)
            progress(int(last["sent"]), float(last["seconds"]))
        if client.wait(10) != 0 or "sha256" not in last:
            raise TopologyError("the TCP transfer broke off")
        received = json.loads(server.communicate(timeout=30)[0])
    finally:
        for process in (server, client):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
    return Transfer(
        bytes=received["bytes"],
        seconds=float(last["seconds"]),
        intact=received["sha256"] == last["sha256"] and received["bytes"] == total_bytes,
    )
