"""Pins: names in a bpffs of our own that keep maps, programs and links alive without a process.

A bpffs of our own, because `ip netns exec` hides /sys/fs/bpf, because others would see ours there, and
because it may not be mounted at all.
"""

import ctypes
import errno
import os
import struct
from pathlib import Path
from typing import Final

from gateway.host.bpf.errors import BpfError, KernelRefusedError
from gateway.host.bpf.programs import Link, Program
from gateway.host.bpf.spec import ProgramKind
from gateway.host.bpf.syscall import Command, KernelObject, address, buffer, call, require

_BPF_FS_MAGIC: Final = 0xCAFE4A11
_MS_NOSUID_NODEV_NOEXEC: Final = 2 | 4 | 8
_MNT_DETACH: Final = 2
_STATFS_BYTES: Final = 256
_KERNELS_OWN: Final = ("maps.debug", "progs.debug")
"""What kernels with CONFIG_BPF_PRELOAD put into a new one."""

_libc: Final = ctypes.CDLL(None, use_errno=True)


def mount_bpffs(directory: Path) -> None:
    """Mount a bpffs that only root may enter, unless one is there already: pins of a former life are kept.

    Raises:
        BpfError: The kernel refused: it needs CAP_SYS_ADMIN.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if is_bpffs(directory):
        return
    if _libc.mount(b"bpf", os.fsencode(directory), b"bpf", _MS_NOSUID_NODEV_NOEXEC, b"mode=0700") != 0:
        code = ctypes.get_errno()
        hint = "; it needs CAP_SYS_ADMIN: run the agent as root" if code == errno.EPERM else ""
        raise BpfError(f"cannot mount a bpffs on {directory}: {os.strerror(code)}{hint}")


def unmount_bpffs(directory: Path) -> None:
    """Unmount our bpffs: what was pinned there only, ends.

    Raises:
        BpfError: It is not mounted, or the kernel refused.
    """
    if not is_bpffs(directory):
        raise BpfError(f"no bpffs is mounted on {directory}")
    if _libc.umount2(os.fsencode(directory), _MNT_DETACH) != 0:
        raise BpfError(f"cannot unmount {directory}: {os.strerror(ctypes.get_errno())}")


def unmount_unused(directory: Path) -> None:
    """Unmount our bpffs if it is mounted and nothing is pinned there.

    Raises:
        BpfError: The kernel refused.
    """
    if not is_bpffs(directory):
        return
    pinned = {path for path in directory.rglob("*") if path.is_file()}
    if not pinned - {directory / name for name in _KERNELS_OWN}:
        unmount_bpffs(directory)


def is_bpffs(directory: Path) -> bool:
    """Return whether a directory lies in a bpffs."""
    status = buffer(_STATFS_BYTES)
    if _libc.statfs(os.fsencode(directory), status) != 0:
        return False
    magic: int = struct.unpack_from("=q", status)[0]
    return magic == _BPF_FS_MAGIC


def pin(item: KernelObject, path: Path) -> None:
    """Give an object a name in a bpffs.

    Raises:
        KernelRefusedError: The name is taken (EEXIST), or the directory is in no bpffs.
    """
    name = buffer(os.fsencode(path) + b"\0")
    attributes = buffer(struct.pack("=QII", address(name), item.fd, 0))
    require(call(Command.OBJ_PIN, attributes), f"pin {item.name} as {path}")


def adopt_link(path: Path) -> Link | None:
    """Return a pinned link, or `None` where there is none.

    Raises:
        KernelRefusedError: We may not open it.
    """
    fd = _open(path)
    return None if fd is None else Link(fd, f"link {path.name}")


def adopt_program(path: Path, kind: ProgramKind) -> Program | None:
    """Return a pinned program, or `None` where there is none.

    Raises:
        KernelRefusedError: We may not open it.
    """
    fd = _open(path)
    return None if fd is None else Program(fd, path.name, kind)


def _open(path: Path) -> int | None:
    name = buffer(os.fsencode(path) + b"\0")
    result = call(Command.OBJ_GET, buffer(struct.pack("=QII", address(name), 0, 0)))
    if result == -errno.ENOENT:
        return None
    if result < 0:
        raise KernelRefusedError(f"open {path}", -result)
    return result
