"""An agent of a benchmark: a process in a network namespace, of which nothing is left at the end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from gateway.bench.topology import Namespace
from gateway.host.bpf.pins import is_bpffs, unmount_bpffs
from gateway.ipsec.errors import GatewayError

LOG_NAME: Final = "agent.log"
_SOCKET_NAME: Final = "datapath.sock"
_START_S: Final = 60.0
_STOP_S: Final = 15.0


class NoAgentError(GatewayError):
    """It does not start; the text is the last that it said."""


def socket_path(directory: Path) -> Path:
    """Return where an agent listens that runs in a directory."""
    return directory / _SOCKET_NAME


@contextmanager
def running_agent(
    namespace: Namespace, directory: Path, backend: str, options: Sequence[str] = ()
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run an agent until it listens, and end it; its protection, processes and mounts end with it.

    Args:
        namespace: Where it runs.
        directory: For its sockets and its log; made if there is none.
        backend: As in `ipsecgw agent --backend`.
        options: More of its options.

    Raises:
        NoAgentError: It ended, or did not listen in time.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / LOG_NAME).open("wb") as log:
        process = subprocess.Popen(
            namespace.command(
                *(sys.executable, "-m", "gateway.app.agent", "--backend", backend, "--teardown"),
                *("--run-dir", str(directory), "--listen", f"unix:{socket_path(directory)}"),
                *("--group-id", "0", *options),
            ),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait_until_ready(process, directory)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        # An agent that has dropped CAP_SYS_ADMIN cannot take its mount away.
        if is_bpffs(directory / "bpf"):
            unmount_bpffs(directory / "bpf")


def _wait_until_ready(process: "subprocess.Popen[bytes]", directory: Path) -> None:
    deadline = time.monotonic() + _START_S
    while not socket_path(directory).exists():
        if process.poll() is not None or time.monotonic() > deadline:
            lines = (directory / LOG_NAME).read_text(errors="replace").splitlines()
            raise NoAgentError((lines or ["the agent said nothing"])[-1].removeprefix("ipsecgw agent: "))
        time.sleep(0.05)
