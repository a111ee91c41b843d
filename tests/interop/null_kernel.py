"""The null kernel of `null_kernel.c` for peers under test: built on demand; what a peer installed into it."""

import hashlib
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.interop.packages import cache

_SOURCE = Path(__file__).parent / "null_kernel.c"
_FLAGS = ("-std=gnu11", "-O2", "-fPIC", "-shared", "-Wall", "-Wextra", "-Wno-maybe-uninitialized")


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledSa:
    """One direction of a Child SA, as an IKE daemon gave it to its kernel."""

    spi: int
    protocol: int
    """50 for ESP, 51 for AH."""
    source: str
    destination: str
    keys: tuple[str, str]
    """Encryption key (of an AEAD: with its salt) and integrity key, in hexadecimal; empty where none is."""
    mode: str
    esn: bool
    encapsulation: tuple[int, int] | None
    """UDP ports, source and destination."""


@dataclass(frozen=True, slots=True)
class NullKernel:
    """The null kernel of one daemon: what to put into its environment, and its log."""

    state: Path

    @property
    def log(self) -> Path:
        """One JSON line for every SA and policy."""
        return self.state / "null-kernel.log"

    def environment(self) -> dict[str, str]:
        """Return the environment variables of a daemon that shall live on this kernel."""
        return {
            "LD_PRELOAD": str(library()),
            "NULL_KERNEL_LOG": str(self.log),
            "NULL_KERNEL_CONTROL": str(self.state / "null-kernel.sock"),
        }

    def entries(self) -> Iterator[dict[str, object]]:
        """Return everything that the daemon installed and removed, in order."""
        if self.log.exists():
            yield from (json.loads(line) for line in self.log.read_text().splitlines())

    def installed(self) -> dict[int, InstalledSa]:
        """Return every SA that was ever installed, by SPI, as it was last."""
        sas = (_read(entry) for entry in self.entries() if entry["op"] == "install")
        return {sa.spi: sa for sa in sas}

    def present(self) -> set[int]:
        """Return the SPIs of the SAs that are installed now."""
        present: set[int] = set()
        for entry in self.entries():
            if entry["op"] == "install":
                present.add(int(str(entry["spi"]), 16))
            elif entry["op"] == "remove":
                present.discard(int(str(entry["spi"]), 16))
        return present

    def say(self, what: Literal["soft", "hard", "used"], spi: int) -> None:
        """Tell the daemon that a lifetime of an SA is over, or that it is in use (PF_KEY only)."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as control:
            control.connect(str(self.state / "null-kernel.sock"))
            control.send(f"{what} {spi:08x}".encode())


def _read(entry: dict[str, object]) -> InstalledSa:
    keys = (str(dict(entry.get(kind, {})).get("key", "")) for kind in ("encryption", "integrity"))  # type: ignore[call-overload]
    ports = entry.get("encapsulation")
    return InstalledSa(
        spi=int(str(entry["spi"]), 16),
        protocol=int(str(entry["protocol"])),
        source=str(entry["source"]),
        destination=str(entry["destination"]),
        keys=(next(keys), next(keys)),
        mode=str(entry["mode"]),
        esn=bool(entry["esn"]),
        encapsulation=tuple(ports) if isinstance(ports, list) else None,  # type: ignore[arg-type]
    )


def library() -> Path:
    """Return the shared library, compiled once for every version of its source."""
    version = hashlib.sha256(_SOURCE.read_bytes() + repr(_FLAGS).encode()).hexdigest()[:16]
    path = cache() / "null-kernel" / f"{version}.so"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(f".{os.getpid()}")
        done = subprocess.run(
            ["gcc", *_FLAGS, "-o", str(new), str(_SOURCE), "-ldl", "-lpthread"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{_SOURCE.name} does not compile:\n{done.stderr}"
        new.rename(path)
    return path
