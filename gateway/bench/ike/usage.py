"""CPU time and memory of another process, from /proc."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used so far."""

    cpu_s: float
    """CPU time of all threads that are alive, to the nanosecond (schedstat)."""
    resident_bytes: int


def usage_of(pid: int) -> Usage:
    """Read what a process has used.

    Raises:
        FileNotFoundError: It is gone.
    """
    base = Path(f"/proc/{pid}")
    nanoseconds = sum(int((task / "schedstat").read_text().split()[0]) for task in (base / "task").iterdir())
    resident = next(
        line.split()[1] for line in (base / "status").read_text().splitlines() if line.startswith("VmRSS:")
    )
    return Usage(cpu_s=nanoseconds / 1e9, resident_bytes=int(resident) * 1024)
