"""Run the traffic generator with XDP programs that send and count, where they can be had here.

    python -m gateway.bench.path.launch PROGRAM LAN OUTER

It runs in the network namespace of the two interfaces, and ends with the generator. Without the programs the
generator uses packet sockets, and standard error says why: packets cost some ten times as much then.
"""

import signal
import subprocess
import sys
from contextlib import ExitStack
from typing import Final

from gateway.host.bpf.attach import attach_xdp
from gateway.host.bpf.compiled import read_program
from gateway.host.bpf.live import load_live_frames
from gateway.host.bpf.objects import load_object
from gateway.host.errors import HostError

_FRAMES: Final = 512
"""LIVE_BURST of hw/bench/traffic.h."""
_FRAME_BYTES: Final = 2048


def main() -> int:
    """Load, run, clean up; return the generator's exit status."""
    program, *devices = sys.argv[1:]
    with ExitStack() as stack:
        options: list[str] = []
        descriptors: list[int] = []
        for load in (_load_live_frames, _load_sink):
            with ExitStack() as attempt:
                try:
                    words, opened = load(attempt, devices)
                except HostError as error:
                    print(f"traffic generator: {error}", file=sys.stderr)
                    continue
                options += words
                descriptors += opened
                stack.push(attempt.pop_all())
        # Whoever ends us ends the generator too, and we clean up behind it. A handler, unlike being ignored,
        # is not inherited.
        signal.signal(signal.SIGTERM, lambda _signal, _frame: None)
        return subprocess.run([program, *options], pass_fds=descriptors, check=False).returncode


def _load_live_frames(stack: ExitStack, _devices: list[str]) -> tuple[list[str], list[int]]:
    live = stack.enter_context(load_live_frames(frames=_FRAMES, frame_bytes=_FRAME_BYTES))
    numbers = [live.program.fd, live.burst.fd, live.frames.fd]
    return ["--live", ",".join(map(str, numbers))], numbers


def _load_sink(stack: ExitStack, devices: list[str]) -> tuple[list[str], list[int]]:
    loaded = stack.enter_context(load_object(read_program("xdp_sink")))
    for device in devices:
        stack.enter_context(attach_xdp(loaded.programs["gw_sink"], device).link)
    numbers = [loaded.maps[name].fd for name in ("gw_sink_wanted", "gw_sink_counts")]
    return ["--sink", ",".join(map(str, numbers))], numbers


if __name__ == "__main__":
    sys.exit(main())
