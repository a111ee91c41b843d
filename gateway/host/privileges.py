"""What this process may do, and how it gives up the rest.

The agent needs CAP_NET_ADMIN (TUN, routes, marks, nftables) and CAP_NET_RAW (raw ESP sockets), also after it
has become an unprivileged user; the controller needs nothing at all.
"""

import ctypes
import os
import pwd
import struct
from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path
from typing import Final

from gateway.host.errors import HostError, MissingCapabilityError

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_KEEPCAPS: Final = 8
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_RAISE: Final = 2
_LINUX_CAPABILITY_VERSION_3: Final = 0x20080522
_CLOSE_RANGE_CLOEXEC: Final = 4
_FIRST_OWN_DESCRIPTOR: Final = 3

_libc: Final = ctypes.CDLL(None, use_errno=True)


class Capability(IntEnum):
    """The capabilities that we speak of (<linux/capability.h>)."""

    CAP_NET_BIND_SERVICE = 10
    CAP_NET_ADMIN = 12
    CAP_NET_RAW = 13
    CAP_IPC_LOCK = 14
    CAP_SYS_ADMIN = 21
    CAP_PERFMON = 38
    CAP_BPF = 39


AGENT_CAPABILITIES: Final = (Capability.CAP_NET_ADMIN, Capability.CAP_NET_RAW)


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


def drop_privileges(user: str, keep: Iterable[Capability] = ()) -> None:
    """Become `user` for good, with its groups, and keep only the capabilities in `keep`.

    What is kept is also made ambient, so that programs we start (nft) have it. No thread may run yet that
    must change too: Linux keeps capabilities per thread.

    Raises:
        HostError: No such user, or this process may not change.
    """
    try:
        account = pwd.getpwnam(user)
    except KeyError as error:
        raise HostError(f"there is no user {user!r}: create it, or name another") from error
    kept = frozenset(keep)
    try:
        _prctl(_PR_SET_KEEPCAPS, 1)
        os.setgroups(os.getgrouplist(user, account.pw_gid))
        os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
        os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
        _set_capabilities(kept)
        for capability in kept:
            _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability)
    except OSError as error:
        raise HostError(f"cannot become user {user!r}: {error.strerror}") from error


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


def close_descriptors_on_exec() -> None:
    """Mark every descriptor but the standard three close-on-exec, whoever opened it.

    Raises:
        HostError: The kernel refused; it is older than 5.11.
    """
    close_range = 436  # the same number on every architecture
    result = _libc.syscall(
        close_range, _FIRST_OWN_DESCRIPTOR, ctypes.c_uint(0xFFFFFFFF), _CLOSE_RANGE_CLOEXEC
    )
    if result != 0:
        raise HostError(f"cannot mark descriptors close-on-exec: {os.strerror(ctypes.get_errno())}")


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
