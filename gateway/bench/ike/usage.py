"""CPU time and memory of another process, from /proc."""

from dataclasses import dataclass
from pathlib import Path

from gateway.bench.cpu import process_cpu_s


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
    status = Path(f"/proc/{pid}/status").read_text()
    resident = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
    return Usage(cpu_s=process_cpu_s(pid), resident_bytes=int(resident) * 1024)
