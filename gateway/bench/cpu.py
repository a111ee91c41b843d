"""CPU time, from /proc: of all CPUs of this machine, of one process, and of everybody who has no part in it.

Packets are carried by whoever happens to run: an interrupt, a kernel thread, the sender itself, whose system
call goes through the gateway and out of it again on veth. So what a packet costs is what all CPUs were busy
with, less what other programs did meanwhile.
"""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_PF_KTHREAD: Final = 0x0020_0000
"""Flag of a kernel thread in /proc/PID/stat (<linux/sched.h>)."""
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


def process_cpu_s(pid: int) -> float:
    """Return the CPU time of a process's living threads: in nanoseconds, or in ticks without schedstat.

    Raises:
        FileNotFoundError: It is gone.
    """
    base = _PROC / str(pid)
    try:
        tasks = [int((task / "schedstat").read_text().split()[0]) for task in (base / "task").iterdir()]
    except FileNotFoundError:
        return _stat_cpu_s(_stat_fields(pid))
    return sum(tasks) / 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuReading:
    """What was used until now."""

    busy_s: float
    """All CPUs together: user, system, interrupts. Resolution is that of the kernel's tick."""
    stolen_s: float
    """What the host of a virtual machine took away."""
    groups_s: dict[str, float]
    """Of processes that were asked for, by the name of their group, children included."""
    others_s: dict[int, float]
    """Of every other process that is no kernel thread, by its PID."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuUse:
    """What was used between two readings."""

    busy_s: float
    """Of all CPUs, less that of processes which have no part in it."""
    others_s: float
    """Of those."""
    stolen_s: float
    groups_s: dict[str, float]


def read_cpu(groups: Mapping[str, Iterable[int]]) -> CpuReading:
    """Read everything now.

    Args:
        groups: PIDs by a name; processes they start count with them.
    """
    first = (_PROC / "stat").read_text().partition("\n")[0].split()
    user, nice, system, _idle, _iowait, irq, softirq, stolen = (int(word) for word in first[1:9])
    processes = dict(_processes())
    group_of = {pid: name for name, pids in groups.items() for pid in pids}
    groups_s = dict.fromkeys(groups, 0.0)
    others_s = {}
    for pid, fields in processes.items():
        if int(fields[6]) & _PF_KTHREAD:
            continue
        name = _group_of(pid, processes, group_of)
        if name is None:
            others_s[pid] = _stat_cpu_s(fields)
            continue
        with suppress(FileNotFoundError, ProcessLookupError):
            groups_s[name] += process_cpu_s(pid)
    return CpuReading(
        busy_s=(user + nice + system + irq + softirq) / _TICKS_PER_S,
        stolen_s=stolen / _TICKS_PER_S,
        groups_s=groups_s,
        others_s=others_s,
    )


def cpu_between(before: CpuReading, after: CpuReading) -> CpuUse:
    """Return what was used between two readings; of a process that ended meanwhile it is nobody's."""
    others_s = sum(max(0.0, used_s - before.others_s.get(pid, 0.0)) for pid, used_s in after.others_s.items())
    groups_s = {name: used - before.groups_s[name] for name, used in after.groups_s.items()}
    return CpuUse(
        # Ticks are coarse: what was asked for is known better, and no less than that was used.
        busy_s=max(sum(groups_s.values()), after.busy_s - before.busy_s - others_s),
        others_s=others_s,
        stolen_s=after.stolen_s - before.stolen_s,
        groups_s=groups_s,
    )


def _processes() -> Iterable[tuple[int, list[str]]]:
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            with suppress(FileNotFoundError, ProcessLookupError):
                yield int(entry.name), _stat_fields(int(entry.name))


def _stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat behind the name of the command, the state first."""
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


def _stat_cpu_s(fields: list[str]) -> float:
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def _group_of(pid: int, processes: dict[int, list[str]], group_of: dict[int, str]) -> str | None:
    while pid in processes:
        if pid in group_of:
            return group_of[pid]
        pid = int(processes[pid][1])
    return None
