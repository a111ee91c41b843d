"""One `ipsecgw run` in a namespace, driven by its own command line: for the demo, benchmarks and tests."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.bench.topology import Namespace
from gateway.ipsec.errors import GatewayError

_STOP_S = 15.0


def is_running(pid: int) -> bool:
    """Say whether a process is there and not only waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class GatewayProcessError(GatewayError):
    """A gateway did not start, or a command against it failed."""


@dataclass(slots=True)
class GatewayProcess:
    """One gateway: a supervisor with a controller and an agent, all its files below one directory.

    `with GatewayProcess(...)` starts it, waits until both services answer, and ends it.
    """

    namespace: Namespace
    directory: Path
    config: str
    """The text of its YAML configuration."""
    options: tuple[str, ...] = ()
    """More options of `ipsecgw run`."""
    environment: Mapping[str, str] = field(default_factory=dict)
    _process: "subprocess.Popen[str] | None" = field(default=None, repr=False)
    _log_start: int = field(default=0, repr=False)
    """Where the log of the latest start begins."""

    def __enter__(self) -> "GatewayProcess":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The supervisor's PID; its children are the agent and the controller."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def config_path(self) -> Path:
        """The YAML file this gateway was started with."""
        return self.directory / "gateway.yaml"

    @property
    def log_path(self) -> Path:
        """Standard error of all three processes."""
        return self.directory / "gateway.log"

    @property
    def key_log(self) -> Path:
        """Where its Wireshark key tables are."""
        return self.directory / "keys"

    def start(self, timeout_s: float = 30.0) -> None:
        """Start the gateway and wait until it answers; see `wait_until_it_answers`."""
        self.launch()
        self.wait_until_it_answers(timeout_s)

    def launch(self) -> None:
        """Start the gateway."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.config_path.write_text(self.config)
        self.config_path.chmod(0o600)
        command = (
            *(sys.executable, "-m", "gateway.cli.main", "run", "--config", str(self.config_path)),
            *("--run-dir", str(self.directory / "run"), "--key-log", str(self.key_log)),
            *("--log-format", "json", *self.options),
        )
        self._log_start = len(self.log())
        with self.log_path.open("a") as log:
            self._process = self.namespace.popen(
                *command,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )

    def wait_until_it_answers(self, timeout_s: float = 30.0) -> None:
        """Wait until the controller answers.

        Raises:
            GatewayProcessError: It ended or did not answer in time; the text has the end of its log.
        """
        assert self._process is not None, "not started"
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise GatewayProcessError(f"the gateway ended while starting:\n{self.log_tail()}")
            # The command takes longer to start than the gateway, so it is not what to ask again and again.
            is_ready = "gateway_ready" in self.log()[self._log_start :]
            if is_ready and self.ctl("status", "--json", check=False).returncode == 0:
                return
            time.sleep(0.05)
        self.stop()
        raise GatewayProcessError(f"the gateway does not answer after {timeout_s} s:\n{self.log_tail()}")

    def stop(self) -> None:
        """End it in order: SAs are deleted with the peer."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(_STOP_S)
        self._process = None

    def pid_of(self, role: str) -> int:
        """Return the PID of its `supervisor`, `agent` or `controller`."""
        if role == "supervisor":
            return self.pid
        return int((self.directory / "run" / f"{role}.pid").read_text())

    def kill(self, *roles: str) -> None:
        """Kill some of its processes with SIGKILL, in this order; return when they are gone."""
        pids = [self.pid_of(role) for role in roles]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # a controller dies with its supervisor
                os.kill(pid, signal.SIGKILL)
        if "supervisor" in roles:
            assert self._process is not None
            self._process.wait(_STOP_S)
            self._process = None
        deadline = time.monotonic() + _STOP_S
        while any(is_running(pid) for pid in pids):
            if time.monotonic() > deadline:
                raise GatewayProcessError(f"{', '.join(roles)} did not end: {pids}")
            time.sleep(0.01)

    def ctl(
        self, *arguments: str, check: bool = True, timeout_s: float = 60.0
    ) -> "subprocess.CompletedProcess[str]":
        """Run one `ipsecgw` command against this gateway.

        Raises:
            GatewayProcessError: It failed and `check` is set.
        """
        done = self._command(arguments, timeout_s)
        if check and done.returncode != 0:
            raise GatewayProcessError(
                f"ipsecgw {' '.join(arguments)} ended with {done.returncode}: {done.stdout}{done.stderr}\n"
                f"{self.log_tail()}"
            )
        return done

    def _command(self, arguments: Sequence[str], timeout_s: float) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "gateway.cli.main", *arguments],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env={**os.environ, **self._services()},
        )

    def _services(self) -> dict[str, str]:
        """Return the environment that leads commands to this gateway."""
        run = self.directory / "run"
        return {
            "IPSECGW_CONTROL": f"unix:{run}/control.sock",
            "IPSECGW_DATAPATH": f"unix:{run}/datapath.sock",
        }

    def json(self, *arguments: str) -> Any:  # Any: the shape is the message's, known to the caller
        """Run a listing command with `--json` and return what it printed."""
        return json.loads(self.ctl(*arguments, "--json").stdout)

    def log(self) -> str:
        """Return the log so far."""
        return self.log_path.read_text() if self.log_path.exists() else ""

    def log_tail(self, lines: int = 30) -> str:
        """Return the end of the log."""
        return "\n".join(self.log().splitlines()[-lines:])
