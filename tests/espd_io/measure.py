"""Print what each I/O method costs, without ESP: CPU time a packet, by io_bench on veth pairs.

Run as root: `python -m tests.espd_io.measure`. No test: what it prints depends on the machine. Runs of all
methods take turns, so that what disturbs the machine disturbs every one; CPU time, because others use it too.

A veth moves a frame to its other end in the sender's context: sending includes receiving there, and the
rows `receive` and `forward` have that part in the generator's time, which stands beside it.
"""

import statistics
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from gateway.host.bpf.live import load_live_frames
from tests.conformance.namespace import fresh_network_namespace
from tests.engine.conftest import make
from tests.espd.conftest import ESPD
from tests.espd_io.wire import FRAME_BYTES, FRAMES, Kind, bench, cable, kinds, steered

ROUNDS = 5
SIZES = (64, 512, 1420)
BURSTS = (16, 64, 256, 1024)
PACKETS = 400_000
SENDING = (Kind.XDP_COPY, Kind.LIVE_FRAME, Kind.PACKET)


@dataclass(kw_only=True)
class Cost:
    """Of one packet, in nanoseconds of CPU time, in each round."""

    own: list[float] = field(default_factory=list)
    with_generator: list[float] = field(default_factory=list)
    lost: list[float] = field(default_factory=list)
    """Parts of the packets of a round."""

    def __str__(self) -> str:
        both = f"  {spread(self.with_generator)} with the generator" if self.with_generator else ""
        return f"{spread(self.own)}{both}  lost {100 * statistics.median(self.lost):.1f} %"


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):6.0f} ns ({min(values):.0f} to {max(values):.0f})"


class Laboratory:
    """Two cables in a namespace; what reaches the end of `out` is dropped there, in the driver."""

    def __init__(self, stack: ExitStack, program: Path) -> None:
        self._program = program
        self._lan = stack.enter_context(cable("lan0", "lan1"))
        self._out = stack.enter_context(cable("out0", "out1"))
        self._steering = stack.enter_context(steered("lan0")).maps["gw_xsks"].fd
        stack.enter_context(steered("out1", "drop_all"))
        self._live, self._generator_live = (
            stack.enter_context(load_live_frames(frames=FRAMES, frame_bytes=FRAME_BYTES)) for _ in range(2)
        )

    def send(self, method: Kind, size: int, burst: int) -> tuple[float, float]:
        """Return what sending one packet costs, and which part is lost."""
        options = (
            f"--to=out0={kinds(method)}",
            f"--bytes={size}",
            f"--burst={burst}",
            f"--packets={PACKETS}",
        )
        with bench(self._program, "send", *options, live=self._live) as sender:
            totals = sender.wait()
        return totals["cpu_ns"] / totals["sent"], totals["send_lost"] / totals["sent"]

    def through(self, mode: str, method: Kind | None, size: int) -> tuple[float, float, float]:
        """Return what receiving or forwarding costs, the same with the generator, and which part is lost."""
        options = [f"--from=lan0={kinds(Kind.XDP_COPY)}", "--burst=256"]
        if method is not None:
            options.append(f"--to=out0={kinds(method)}")
        live = None if method is None else self._live
        with bench(self._program, mode, *options, steering=self._steering, live=live) as receiver:
            generated = self._generate(size)
            totals = receiver.stop()
        moved = totals["received"] - totals["refused"]
        return (
            totals["cpu_ns"] / moved,
            (totals["cpu_ns"] + generated["cpu_ns"]) / moved,
            1 - moved / generated["sent"],
        )

    def _generate(self, size: int) -> dict[str, int]:
        options = (
            f"--to=lan1={kinds(Kind.LIVE_FRAME)}",
            f"--bytes={size}",
            "--burst=256",
            f"--packets={PACKETS}",
        )
        with bench(self._program, "send", *options, live=self._generator_live) as generator:
            return generator.wait()


@contextmanager
def laboratory() -> Iterator[Laboratory]:
    program = make("io_bench", source=ESPD) / "io_bench"
    with fresh_network_namespace(), ExitStack() as stack:
        yield Laboratory(stack, program)


def measure_sending(laboratory: Laboratory) -> None:
    costs = {(method, size, burst): Cost() for method in SENDING for size in SIZES for burst in BURSTS}
    for _ in range(ROUNDS):
        for (method, size, burst), cost in costs.items():
            own, lost = laboratory.send(method, size, burst)
            cost.own.append(own)
            cost.lost.append(lost)
    for (method, size, burst), cost in costs.items():
        print(f"send     {method.name.lower():12} {size:5} B  burst {burst:4}  {cost}", flush=True)


def measure_way(laboratory: Laboratory, mode: str, methods: tuple[Kind | None, ...]) -> None:
    costs = {(method, size): Cost() for method in methods for size in SIZES}
    for _ in range(ROUNDS):
        for (method, size), cost in costs.items():
            own, with_generator, lost = laboratory.through(mode, method, size)
            cost.own.append(own)
            cost.with_generator.append(with_generator)
            cost.lost.append(lost)
    for (method, size), cost in costs.items():
        name = "" if method is None else method.name.lower()
        print(f"{mode:8} {name:12} {size:5} B             {cost}", flush=True)


def main() -> None:
    with laboratory() as made:
        measure_sending(made)
        measure_way(made, "receive", (None,))
        measure_way(made, "forward", SENDING)


if __name__ == "__main__":
    main()
