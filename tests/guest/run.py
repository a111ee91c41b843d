"""Run a command in the guest: `python -m tests.guest.run [--timeout SECONDS] [-e NAME]... -- COMMAND...`.

Output is relayed as it comes, and the exit status is the command's; 124 after the timeout, 125 if the guest
died. Only what the command leaves in `$GUEST_SHARE/keep` outlives it, in the directory that `--keep` names.
"""

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

from tests.guest.machine import Guest, GuestError, Kernel
from tests.guest.qemu import StockKernel

POLL_S = 0.05


def main() -> int:
    arguments = _parser().parse_args()
    environment = {name: os.environ[name] for name in arguments.environment if name in os.environ}
    try:
        kernel = StockKernel.fetched() if arguments.stock else Kernel.built()
        with Guest(kernel, arguments.command, environment=environment) as guest:
            try:
                return _relay(guest, timeout_s=arguments.timeout)
            finally:
                if arguments.keep is not None and (guest.share / "keep").is_dir():
                    shutil.copytree(guest.share / "keep", arguments.keep, dirs_exist_ok=True)
    except GuestError as error:
        print(error, file=sys.stderr)
        return 125


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m tests.guest.run", description="Run a command in the guest.")
    add = parser.add_argument
    add("--timeout", type=float, default=300.0, metavar="SECONDS")
    add("-e", dest="environment", action="append", default=[], metavar="NAME", help="pass a variable on")
    add("--stock", action="store_true", help="boot Debian's own kernel in QEMU")
    add("--keep", type=Path, metavar="DIRECTORY", help="where to copy $GUEST_SHARE/keep to")
    add("command", nargs="+")
    return parser


def _relay(guest: Guest, *, timeout_s: float) -> int:
    """Copy the output until the command ends; return its status."""
    deadline = time.monotonic() + timeout_s
    written = 0
    status = None
    while status is None:
        if time.monotonic() > deadline:
            print(
                f"no end after {timeout_s:g} s; its console:\n{guest.console_tail()}",
                file=sys.stderr,
            )
            return 124
        time.sleep(POLL_S)
        status = guest.status()
        new = guest.output(written)
        written += len(new)
        sys.stdout.buffer.write(new)
        sys.stdout.buffer.flush()
    return status


if __name__ == "__main__":
    sys.exit(main())
