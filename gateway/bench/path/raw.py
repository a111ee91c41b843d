"""Raw forwarding, to compare with: `hw/espd/bench/io_bench.c` in espd's place, which only moves frames.

    python -m gateway.bench.path.raw PROGRAM FROM TO IO

runs it in the namespace of both interfaces, steered by the program that the engine's inner interfaces have,
and ends with its own standard input. It goes one way: a queue has room for one AF_XDP socket.
"""

import json
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from gateway.bench.path.bed import LOCAL_NETWORK, REMOTE_NETWORK, Bed, gateway_cpus, pinned
from gateway.bench.path.gateway import NotPlaced
from gateway.bench.path.plan import Direction
from gateway.datapath.engine.core import library_path
from gateway.datapath.engine.options import EngineOptions
from gateway.datapath.engine.protocol import IoKind
from gateway.datapath.engine.xdp_steering import Side, SteeredInterface, XdpSteering
from gateway.host.bpf.attach import InterfaceTakenError
from gateway.host.bpf.live import load_live_frames
from gateway.host.errors import HostError
from gateway.ipsec.policy import Action, Policy
from gateway.ipsec.selectors import TrafficSelector

_KINDS: Final = {"live": IoKind.LIVE_FRAME, "af_xdp": IoKind.XDP_COPY, "af_packet": IoKind.PACKET}
_ENGINE: Final = EngineOptions()
"""Whose memory and batches it has."""
_START_S: Final = 30.0
_STOP_S: Final = 10.0
_FREE_S: Final = 5.0


def program_path() -> Path:
    """Return where `make engine` puts the program: beside the library."""
    return library_path().with_name("io_bench")


class RawForwarding:
    """The program on a bed; it runs from the first `turn` on.

    Args:
        bed: Borrowed.
        io: One of `RAW_IO`.
        directory: For what it says.
    """

    def __init__(self, bed: Bed, io: str, directory: Path) -> None:
        self._bed = bed
        self._method = io
        self._directory = directory
        self._direction: Direction | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.io = ""
        """By which methods, as it said itself."""

    @property
    def pids(self) -> tuple[int, ...]:
        """Its process, while there is one."""
        return () if self._process is None else (self._process.pid,)

    def __enter__(self) -> Self:
        self.turn(Direction.OUT)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def turn(self, direction: Direction) -> None:
        """Forward this way from now on.

        Raises:
            NotPlaced: It cannot; the text says why.
        """
        if direction is self._direction:
            return
        self.close()
        program = program_path()
        if not program.exists():
            raise NotPlaced(f"there is no {program}: `make engine` builds it")
        ends = (self._bed.lan.name, self._bed.outer.name)
        source, target = ends if direction is Direction.OUT else reversed(ends)
        words = (sys.executable, "-m", "gateway.bench.path.raw", str(program), source, target, self._method)
        self._directory.mkdir(parents=True, exist_ok=True)
        said = self._directory / "raw.out"
        with said.open("wb") as output:
            self._process = subprocess.Popen(
                pinned(self._bed.gateway.command, gateway_cpus(1)[0])(*words),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
            )
        self.io = self._wait(self._process, said)
        self._direction = direction

    def _wait(self, process: "subprocess.Popen[bytes]", said: Path) -> str:
        """Wait until it is ready; return how it says that packets come and go."""
        deadline = time.monotonic() + _START_S
        while (text := said.read_text()) == "" or not text.endswith("\n"):
            if process.poll() is not None or time.monotonic() > deadline:
                break
            time.sleep(0.02)
        told = text.strip().splitlines() or ["io_bench said nothing"]
        if '"receives"' not in told[-1]:
            self.close()
            raise NotPlaced(told[-1])
        ready = json.loads(told[-1])
        return f"in by {ready['receives']} and out by {ready['sends']}"

    def close(self) -> None:
        """End it."""
        process, self._process, self._direction = self._process, None, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main() -> int:
    """Load, run, clean up; return the program's exit status."""
    program, source, target, io = sys.argv[1:]
    with ExitStack() as stack:
        try:
            words, descriptors = _load(stack, source, io)
        except HostError as error:
            print(error)
            return 1
        ends = f"--from={source}={int(IoKind.XDP_COPY)}", f"--to={target}={int(_KINDS[io])}"
        command = (
            *(program, "forward", *ends),
            *(f"--frames={_ENGINE.frames}", f"--frame-bytes={_ENGINE.frame_bytes}"),
            *(f"--burst={_ENGINE.batch_high}", *words),
        )
        return subprocess.run(command, pass_fds=descriptors, check=False).returncode


def _load(stack: ExitStack, source: str, io: str) -> tuple[list[str], list[int]]:
    """Steer what is sent through the gateway to us; return options of the program, and what it inherits."""
    steering = XdpSteering(None)
    stack.callback(steering.remove)
    steering.open()
    steering.set_policies(_both_ways())
    sockets = _attach(steering, source).sockets_fd
    words, descriptors = [f"--steering={sockets}"], [sockets]
    if io == "live":
        frames, frame_bytes = _ENGINE.frames, _ENGINE.frame_bytes
        live = stack.enter_context(load_live_frames(frames=frames, frame_bytes=frame_bytes))
        names = {"live-program": live.program, "live-burst": live.burst, "pool-map": live.frames}
        words += [f"--{name}={item.fd}" for name, item in names.items()]
        descriptors += [item.fd for item in names.values()]
    return words, descriptors


def _attach(steering: XdpSteering, interface: str) -> SteeredInterface:
    """Attach the program; one of the set-up before may be there for a moment yet.

    Raises:
        HostError: It stays, or the kernel refuses.
    """
    deadline = time.monotonic() + _FREE_S
    while True:
        try:
            return steering.attach(interface, Side.INNER)
        except InterfaceTakenError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _both_ways() -> list[Policy]:
    here, there = (TrafficSelector.parse(str(network)) for network in (LOCAL_NETWORK, REMOTE_NETWORK))
    return [
        Policy(name=name, action=Action.PROTECT, local_ts=(local,), remote_ts=(remote,))
        for name, local, remote in (("out", here, there), ("in", there, here))
    ]


if __name__ == "__main__":
    sys.exit(main())
