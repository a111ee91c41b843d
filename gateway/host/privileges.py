"""What this process may do, and how it gives up the rest.

The agent needs CAP_NET_ADMIN (TUN, routes, marks, nftables) and CAP_NET_RAW (raw ESP sockets), also after it
has become an unprivileged user; the controller needs nothing at all.
"""

import ctypes
import grp
import os
import pwd
import resource
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

from gateway.host.errors import HostError, MissingCapabilityError

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_KEEPCAPS: Final = 8
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_RAISE: Final = 2
_LINUX_CAPABILITY_VERSION_3: Final = 0x20080522
_DYNAMIC_IDS: Final = range(61184, 65520)

_libc: Final = ctypes.CDLL(None, use_errno=True)


class Capability(IntEnum):
    """The capabilities that we speak of (<linux/capability.h>)."""

    CAP_SETGID = 6
    CAP_SETPCAP = 8
    CAP_NET_BIND_SERVICE = 10
    CAP_NET_ADMIN = 12
    CAP_NET_RAW = 13
    CAP_IPC_LOCK = 14
    CAP_SYS_ADMIN = 21
    CAP_PERFMON = 38
    CAP_BPF = 39


AGENT_CAPABILITIES: Final = (Capability.CAP_NET_ADMIN, Capability.CAP_NET_RAW)
ESPD_CAPABILITIES: Final = (*AGENT_CAPABILITIES, Capability.CAP_IPC_LOCK, Capability.CAP_BPF)
"""Of espd, which the agent starts: memory that is never swapped, AF_XDP."""


def effective_capabilities() -> frozenset[Capability]:
    """Return the capabilities in force for this process, of those we know."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff":
            bits = int(value, 16)
            return frozenset(capability for capability in Capability if bits >> capability & 1)
    raise HostError("/proc/self/status has no CapEff line: is /proc mounted?")


def require_capabilities(needed: Iterable[Capability], purpose: str) -> None:
    """Check that this process has what `purpose` needs.

    Raises:
        MissingCapabilityError: It has not; the text says what to do.
    """
    present = effective_capabilities()
    missing = tuple(capability.name for capability in needed if capability not in present)
    if missing:
        raise MissingCapabilityError(missing, purpose)


@dataclass(frozen=True, slots=True)
class Account:
    """Whom a process becomes: numbers, and a name for people."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]


def find_account(user: str) -> Account:
    """Return a user of this machine, with its groups.

    Raises:
        HostError: No such user.
    """
    try:
        entry = pwd.getpwnam(user)
    except KeyError as error:
        raise HostError(
            f"there is no user {user!r}: create it (useradd --system {user}), or name another"
        ) from error
    return Account(user, entry.pw_uid, entry.pw_gid, tuple(os.getgrouplist(user, entry.pw_gid)))


def nameless_account(seed: str) -> Account:
    """Return a user and group that nobody else on this machine is, the same for the same `seed`.

    Numbers come from the range that systemd keeps for its DynamicUser= (61184 to 65519). Unlike `nobody`,
    which many daemons share, what belongs to this group is open to one gateway only.
    """
    start = zlib.crc32(seed.encode()) % len(_DYNAMIC_IDS)
    for step in range(len(_DYNAMIC_IDS)):
        number = _DYNAMIC_IDS[(start + step) % len(_DYNAMIC_IDS)]
        if not _is_taken(number):
            return Account(str(number), number, number, (number,))
    raise HostError("every dynamic user number is taken: create the user ipsecgw")


def _is_taken(number: int) -> bool:
    for look_up in (pwd.getpwuid, grp.getgrgid):
        try:
            look_up(number)
        except KeyError:
            continue
        return True
    return False


def drop_privileges(account: Account, keep: Iterable[Capability] = ()) -> None:
    """Become `account` for good, with its groups, and keep only the capabilities in `keep`.

    What is kept is also made ambient, so that programs we start (nft) have it. No thread may run yet that
    must change too: Linux keeps capabilities per thread.

    Raises:
        HostError: This process may not change.
    """
    kept = frozenset(keep)
    try:
        _prctl(_PR_SET_KEEPCAPS, 1)
        os.setgroups(account.groups)
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)
        _set_capabilities(kept)
        for capability in kept:
            _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability)
    except OSError as error:
        raise HostError(
            f"cannot become user {account.name}: {error.strerror}; run as root with CAP_SETUID and CAP_SETGID"
        ) from error


def keep_only_capabilities(kept: Iterable[Capability], groups: Iterable[int] = ()) -> None:
    """Give up every capability but `kept` for good, also for programs we start, and stay the same user.

    What this process has not is not asked for. No thread may run yet: Linux keeps capabilities per thread.

    Args:
        kept: What stays.
        groups: Supplementary groups from now on, if this process may choose: whom it can give files to.

    Raises:
        HostError: The kernel refused.
    """
    has = effective_capabilities()
    keep = frozenset(kept) & has
    try:
        if Capability.CAP_SETGID in has:
            os.setgroups(tuple(groups))
        if Capability.CAP_SETPCAP in has:
            # Root would get everything back by executing a program (capabilities(7)).
            for number in range(_last_capability() + 1):
                if number not in keep:
                    _prctl(_PR_CAPBSET_DROP, number)
        _set_capabilities(keep)
        for capability in keep:
            _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability)
    except OSError as error:
        raise HostError(f"cannot give up capabilities: {error.strerror}") from error


def _last_capability() -> int:
    return int(Path("/proc/sys/kernel/cap_last_cap").read_text())


def keep_memory_private() -> None:
    """Have no core file show our keys, and no other process of the same user read them from our memory.

    Not inherited by a program that is executed, and set anew by the kernel at a change of user: call it in
    each process, before it has a secret and after it dropped privileges.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_DUMPABLE, 0)


def forbid_new_privileges() -> None:
    """Make set-uid programs powerless for this process and its children (no_new_privs)."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def die_with_parent(signal_number: int, parent_pid: int) -> None:
    """Have the kernel send this process a signal when the thread that started it ends.

    Args:
        signal_number: Such as SIGTERM.
        parent_pid: Who the parent was when this process was started: it may be gone already.
    """
    _prctl(_PR_SET_PDEATHSIG, signal_number)
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal_number)


def _prctl(option: int, *arguments: int) -> None:
    padded = [ctypes.c_ulong(argument) for argument in (*arguments, 0, 0, 0, 0)[:4]]
    if _libc.prctl(option, *padded) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _set_capabilities(kept: frozenset[Capability]) -> None:
    """Make `kept` the permitted, effective and inheritable set (capset(2))."""
    low = sum(1 << capability for capability in kept if capability < 32)
    high = sum(1 << (capability - 32) for capability in kept if capability >= 32)
    header = struct.pack("=Ii", _LINUX_CAPABILITY_VERSION_3, 0)
    data = struct.pack("=6I", low, low, low, high, high, high)
    if _libc.capset(header, data) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
