"""Drive `hw/bench/traffic.c`: the traffic generator, as a process on this machine."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from gateway.api.generator import GeneratorError, Load, Port, Traffic, Tunnel
from gateway.datapath.engine.core import library_path

_ANSWER_S: Final = 60.0
"""How long an answer may take beside the time that packets are sent."""
_STOP_S: Final = 10.0
"""How long it may take to take XDP programs and devices away again."""
_SIDES: Final = ("lan", "outer")


def program_path() -> Path:
    """Return where `make engine` puts the program: beside the library."""
    return library_path().with_name("traffic")


class LocalGenerator:
    """The program, started anew for each set-up.

    Args:
        command: Turns a command line into one that runs where the interfaces are.
        lan: Our interface on the plaintext side.
        outer: Our interface on the side of ESP.
    """

    def __init__(self, command: Callable[..., Sequence[str]], *, lan: str, outer: str) -> None:
        self._command = command
        self._devices = (lan, outer)
        self._gateway_macs = ("", "")
        self._process: subprocess.Popen[bytes] | None = None
        self._heard = b""

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return None if self._process is None else self._process.pid

    def ports(self) -> tuple[Port, Port]:
        """Return our interfaces: LAN and outer.

        Raises:
            GeneratorError: One of them is not there.
        """
        lan, outer = (self._port(device) for device in self._devices)
        return lan, outer

    def aim(self, *, gateway_lan: str, gateway_outer: str) -> None:
        """See `Generator.aim`."""
        self._gateway_macs = (gateway_lan, gateway_outer)

    def configure(self, tunnel: Tunnel | None) -> None:
        """See `Generator.configure`."""
        self.close()
        program = program_path()
        if not program.exists():
            raise GeneratorError(f"there is no {program}: `make engine` builds it")
        # Unbuffered: what is left in a buffer would not be seen by select.
        launch = (sys.executable, "-m", "gateway.bench.path.launch", str(program), *self._devices)
        self._process = subprocess.Popen(
            self._command(*launch),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        for side, device, mac in zip(_SIDES, self._devices, self._gateway_macs, strict=True):
            self._ask(f"{side} {device} {mac}")
        if tunnel is None:
            return
        self._ask(f"tunnel {tunnel.gateway} {tunnel.peer} {tunnel.key_bits}")
        for sas in tunnel.sas:
            keys = sas.outbound_key.reveal().hex(), sas.inbound_key.reveal().hex()
            self._ask(f"sa {sas.outbound_spi:#x} {keys[0]} {sas.inbound_spi:#x} {keys[1]}")

    def run(self, load: Load, on_window: Callable[[bool], None]) -> Traffic:
        """See `Generator.run`."""
        self._say(
            f"run {'out' if load.is_out else 'in'} {'esp' if load.is_esp else 'plain'} "
            f"{load.packets_per_s:.3f} {load.seconds:.3f} {load.flows} {load.sample} "
            + ",".join(map(str, load.sizes_bytes))
        )
        for is_open in (True, False):
            answer = self._hear(load.seconds + _ANSWER_S)
            if answer != {"window": "open" if is_open else "closed"}:
                raise GeneratorError(f"the traffic generator answers out of turn: {answer}")
            on_window(is_open)
        return Traffic(**self._hear(_ANSWER_S))

    def close(self) -> None:
        """End the program; a `run` in another thread fails then."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        process.stdin.close()
        process.stdout.close()
        self._heard = b""

    def _port(self, device: str) -> Port:
        command = self._command("ip", "-json", "link", "show", "dev", device)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise GeneratorError(f"no interface {device}: {done.stderr.strip()}")
        (link,) = json.loads(done.stdout)
        return Port(device, str(link["address"]))

    def _ask(self, line: str) -> None:
        self._say(line)
        answer = self._hear(_ANSWER_S)
        if answer:
            raise GeneratorError(f"the traffic generator answers out of turn: {answer}")

    def _say(self, line: str) -> None:
        process = self._process
        if process is None or process.stdin is None:
            raise GeneratorError("the traffic generator is not configured")
        try:
            process.stdin.write(f"{line}\n".encode())
        except BrokenPipeError as error:
            raise GeneratorError(f"the traffic generator ended with {process.wait()}") from error

    def _hear(self, timeout_s: float) -> dict[str, Any]:  # Any: the shape depends on the line
        process = self._process
        assert process is not None
        assert process.stdout is not None
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._heard:
            left_s = max(0.0, deadline - time.monotonic())
            if not select.select([process.stdout], [], [], left_s)[0]:
                raise GeneratorError(f"the traffic generator does not answer within {timeout_s:.0f} s")
            part = process.stdout.read(65536)
            if not part:
                raise GeneratorError(f"the traffic generator ended with {process.wait()}")
            self._heard += part
        line, _, self._heard = self._heard.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise GeneratorError(f"the traffic generator: {answer['error']}")
        return answer
