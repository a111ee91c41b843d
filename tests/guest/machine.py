"""The guest: a kernel of its own on this machine's files; User-Mode Linux, which boots in half a second.

`qemu.py` has another kind.

What runs in it sees every file of the host, may write any of them, and changes none: its root is an overlay
that goes with it. One directory, the share, is the host's own.
"""

import os
import platform
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Protocol, Self

HERE: Final = Path(__file__).parent
CACHE: Final = Path(os.environ.get("IPSECGW_CACHE", Path.home() / ".cache" / "ipsecgw"))
MEMORY_MIB: Final = 1024
CONSOLE_TAIL_BYTES: Final = 3000
SYSTEM_PATHS: Final = "/usr/local/sbin:/usr/sbin:/sbin"


class GuestError(Exception):
    """The guest cannot run here, or ended without an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A kernel that `kernel/build` made."""

    image: Path
    xstate: Path
    """The library that the kernel needs on CPUs with AMX."""

    @classmethod
    def built(cls, cache: Path = CACHE) -> Self:
        """Return the newest that was built.

        Raises:
            GuestError: There is none.
        """
        folder = cache / "guest" / "current"
        if not (folder / "linux").exists():
            raise GuestError(f"there is no guest kernel in {folder}: `make deps-guest` builds it")
        folder = folder.resolve()
        return cls(image=folder / "linux", xstate=folder / "xstate.so")

    def command(self, share: Path) -> list[str]:
        """Return what boots it, with a directory of the host's for both."""
        return [
            str(self.image),
            f"mem={MEMORY_MIB}M",
            f"uml_dir={share}",
            "umid=uml",
            "rootfstype=hostfs",
            "rootflags=/",
            "ro",
            "quiet",
            "con=null",
            "con0=fd:0,fd:1",
            f"init={HERE / 'init'}",
            f"GUEST_SHARE={share}",
        ]

    def environment(self) -> dict[str, str]:
        """Return what it needs in the environment."""
        has_amx = "amx_tile" in Path("/proc/cpuinfo").read_text()
        return {"LD_PRELOAD": str(self.xstate)} if has_amx else {}


class Bootable(Protocol):
    """A kernel, and how it is booted."""

    def command(self, share: Path) -> list[str]:
        """Return what boots it, with a directory of the host's for both."""

    def environment(self) -> dict[str, str]:
        """Return what it needs in the environment."""


def reason_for_none() -> str | None:
    """Return why no guest can run on this kind of machine, or None."""
    if platform.machine() != "x86_64":
        return f"User-Mode Linux runs on x86_64, not on {platform.machine()}"
    return None


class Guest:
    """One boot that runs one command."""

    def __init__(
        self,
        kernel: Bootable,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] = MappingProxyType({}),
        files: Mapping[str, str] = MappingProxyType({}),
        directory: Path | None = None,
    ) -> None:
        """Boot.

        Args:
            kernel: What to boot.
            command: What to run.
            environment: What it gets beside PATH and GUEST_SHARE.
            files: What it finds in the share, contents by name.
            directory: Where to run it, unless where this process is.
        """
        self._directory = tempfile.TemporaryDirectory(prefix="ipsecgw-guest-")
        self.share = Path(self._directory.name)
        for name, content in files.items():
            (self.share / name).write_text(content)
        path = f"{os.environ['PATH']}:{SYSTEM_PATHS}"
        exports = {"PATH": path, "GUEST_SHARE": str(self.share), **environment}
        lines = [f"export {name}={shlex.quote(value)}" for name, value in exports.items()]
        lines += [f"cd {shlex.quote(str(directory or Path.cwd()))}", f"exec {shlex.join(command)}"]
        (self.share / "command").write_text("\n".join(lines) + "\n")
        with (self.share / "console").open("wb") as console:
            self._process = subprocess.Popen(
                kernel.command(self.share),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                env=os.environ | kernel.environment(),
                start_new_session=True,
            )
        # Ends the guest when this process ends in whatever way, and its end of the pipe with it.
        self._guard = subprocess.Popen(
            ["sh", "-c", 'cat; kill -s KILL -- "-$1"', "guard", str(self._process.pid)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the guest, whatever it does, and remove the share."""
        self._guard.kill()
        self._guard.communicate()
        with suppress(ProcessLookupError):
            # Every process of the guest is one of the host's, in this group.
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._directory.cleanup()

    def status(self) -> int | None:
        """Return the exit status of the command, or None while it runs.

        Raises:
            GuestError: The guest died before it ended.
        """
        ended = self._process.poll() is not None
        file = self.share / "status"
        text = file.read_text() if file.exists() else ""
        if text.endswith("\n"):
            return int(text)
        if ended:
            raise GuestError(f"the guest died; the end of its console:\n{self.console_tail()}")
        return None

    def output(self, offset: int = 0) -> bytes:
        """Return what the command has written, both streams, from an offset on."""
        file = self.share / "output"
        if not file.exists():
            return b""
        with file.open("rb") as stream:
            stream.seek(offset)
            return stream.read()

    def console_tail(self) -> str:
        """Return the last words of the kernel."""
        text = (self.share / "console").read_bytes()[-CONSOLE_TAIL_BYTES:].decode(errors="replace")
        return text.replace("\r", "").strip() or "(nothing)"
