"""Maps in the kernel: made from a spec, adopted from a pin, read and written entry by entry or in batches.

Keys and values are octets here; `abi.py` gives them types.
"""

import errno
import os
import re
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from gateway.host.bpf.errors import AbiMismatchError, BpfError
from gateway.host.bpf.spec import BPF_F_RDONLY_PROG, MapSpec, MapType
from gateway.host.bpf.syscall import (
    NAME_BYTES,
    Buffer,
    Command,
    KernelObject,
    address,
    buffer,
    call,
    possible_cpus,
    require,
)

_PER_CPU: Final = frozenset((MapType.PERCPU_HASH, MapType.PERCPU_ARRAY, MapType.LRU_PERCPU_HASH))
_IN_BATCHES: Final = frozenset(
    (MapType.HASH, MapType.LRU_HASH, MapType.LPM_TRIE, MapType.ARRAY, MapType.PERCPU_ARRAY)
)
_BATCH: Final = 1024
"""Entries per call when a whole map is read."""
_READ_ONLY_FOR_PROGRAMS: Final = frozenset((MapType.DEVMAP, MapType.DEVMAP_HASH))
"""The kernel adds the flag to these (kernel/bpf/devmap.c)."""
_INFO_BYTES: Final = 128
_FLAGS_OF_DESCRIPTOR: Final = (1 << 3) | (1 << 4)
"""BPF_F_RDONLY and BPF_F_WRONLY."""


class Map(KernelObject):
    """One map.

    Attributes:
        spec: What it looks like.
        value_bytes: Of one entry for this process: of a per-CPU map the values of all CPUs, each padded to 8.
    """

    __slots__ = ("spec", "value_bytes")

    def __init__(self, fd: int, spec: MapSpec) -> None:
        super().__init__(fd, f"map {spec.name}")
        self.spec = spec
        self.value_bytes = spec.value_bytes
        if spec.map_type in _PER_CPU:
            self.value_bytes = (spec.value_bytes + 7) // 8 * 8 * possible_cpus()

    def duplicate(self) -> "Map":
        """Return the same map with a file descriptor of its own."""
        return Map(os.dup(self.fd), self.spec)

    def lookup(self, key: bytes) -> bytes | None:
        """Return the value of an entry, or `None` where there is none."""
        value = buffer(self.value_bytes)
        result = self._element(Command.MAP_LOOKUP_ELEM, key, value)
        return value.raw if _is_there(result, f"read {self.name}") else None

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Set an entry.

        Args:
            key: Which.
            value: Its value, of every CPU in a per-CPU map.
            flags: BPF_NOEXIST (1), BPF_EXIST (2) or neither.

        Raises:
            KernelRefusedError: It is full, or the flags forbid it.
        """
        if len(value) != self.value_bytes:
            raise BpfError(f"a value of {self.name} has {self.value_bytes} bytes, not {len(value)}")
        require(self._element(Command.MAP_UPDATE_ELEM, key, buffer(value), flags), f"write {self.name}")

    def delete(self, key: bytes) -> bool:
        """Remove an entry; return whether it was there."""
        return _is_there(self._element(Command.MAP_DELETE_ELEM, key), f"delete an entry of {self.name}")

    def keys(self) -> Iterator[bytes]:
        """Yield the keys, in the kernel's order; what changes meanwhile may be missed or come twice."""
        key: bytes | None = None
        while True:
            following = buffer(self.spec.key_bytes)
            first = key is None
            current = buffer(key or bytes(self.spec.key_bytes))
            attributes = buffer(
                struct.pack("=IxxxxQQQ", self.fd, 0 if first else address(current), address(following), 0)
            )
            result = call(Command.MAP_GET_NEXT_KEY, attributes)
            if not _is_there(result, f"list {self.name}"):
                return
            key = following.raw
            yield key

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield keys and values: in batches where the kernel has them for this type, else one by one."""
        if self.spec.map_type in _IN_BATCHES:
            yield from self._batches()
            return
        for key in self.keys():
            value = self.lookup(key)
            if value is not None:
                yield key, value

    def _batches(self) -> Iterator[tuple[bytes, bytes]]:
        # The cursor of a hash is 4 octets, that of other types a key.
        cursor_bytes = max(4, self.spec.key_bytes)
        resume = buffer(cursor_bytes)
        keys = buffer(_BATCH * self.spec.key_bytes)
        values = buffer(_BATCH * self.value_bytes)
        is_first = True
        while True:
            following = buffer(cursor_bytes)
            attributes = self._batch_attributes(
                0 if is_first else address(resume), address(following), address(keys), address(values), _BATCH
            )
            result = call(Command.MAP_LOOKUP_BATCH, attributes)
            is_last = result == -errno.ENOENT
            if not is_last:
                require(result, f"read {self.name}")
            (count,) = struct.unpack_from("=I", attributes.raw, 32)
            yield from zip(
                split(keys.raw, self.spec.key_bytes, count),
                split(values.raw, self.value_bytes, count),
                strict=True,
            )
            if is_last:
                return
            is_first, resume = False, following

    def update_batch(self, entries: Iterable[tuple[bytes, bytes]]) -> int:
        """Set many entries in one call and return how many.

        Raises:
            KernelRefusedError: The map is full, or its type has no batches; some entries may have been set.
        """
        pairs = list(entries)
        keys = buffer(b"".join(key for key, _ in pairs))
        values = buffer(b"".join(value for _, value in pairs))
        attributes = self._batch_attributes(0, 0, address(keys), address(values), len(pairs))
        if pairs:
            require(call(Command.MAP_UPDATE_BATCH, attributes), f"write {len(pairs)} entries of {self.name}")
        return len(pairs)

    def delete_batch(self, keys: Iterable[bytes]) -> int:
        """Remove many entries in one call and return how many were asked for; a missing one ends it.

        Raises:
            KernelRefusedError: One was missing, or the type has no batches.
        """
        wanted = list(keys)
        memory = buffer(b"".join(wanted))
        attributes = self._batch_attributes(0, 0, address(memory), 0, len(wanted))
        if wanted:
            require(call(Command.MAP_DELETE_BATCH, attributes), f"delete {len(wanted)} from {self.name}")
        return len(wanted)

    def freeze(self) -> None:
        """Forbid user space to write from now on."""
        require(call(Command.MAP_FREEZE, buffer(struct.pack("=I", self.fd))), f"freeze {self.name}")

    def _batch_attributes(self, start: int, end: int, keys: int, values: int, count: int) -> Buffer:
        return buffer(struct.pack("=QQQQIIQQ", start, end, keys, values, count, self.fd, 0, 0))

    def _element(self, command: Command, key: bytes, value: Buffer | None = None, flags: int = 0) -> int:
        """Make a call about one entry: its value goes to or comes from `value`."""
        if len(key) != self.spec.key_bytes:
            raise BpfError(f"a key of {self.name} has {self.spec.key_bytes} bytes, not {len(key)}")
        memory = buffer(key)
        value_at = 0 if value is None else address(value)
        return call(command, buffer(struct.pack("=IxxxxQQQ", self.fd, address(memory), value_at, flags)))


def create_map(spec: MapSpec) -> Map:
    """Make a map in the kernel, with its contents, frozen if they are constants.

    A map of CPUs without a size gets as many entries as there can be CPUs: the kernel takes no more.

    Raises:
        KernelRefusedError: The kernel has no such type, or no memory, or we lack CAP_BPF.
    """
    attributes = struct.pack(
        "=IIIIIII16s",
        spec.map_type,
        spec.key_bytes,
        spec.value_bytes,
        _entries(spec),
        spec.flags,
        0,
        0,
        kernel_name(spec.name),
    )
    made = Map(require(call(Command.MAP_CREATE, buffer(attributes)), f"make map {spec.name}"), spec)
    if spec.contents is not None:
        made.update(bytes(4), spec.contents)
        if spec.is_constant:
            made.freeze()
    return made


def adopt_map(path: Path, spec: MapSpec) -> Map:
    """Return a pinned map, which must look as `spec` says.

    Raises:
        KernelRefusedError: There is no such pin (ENOENT), or we may not open it.
        AbiMismatchError: It looks otherwise: an older version made it.
    """
    name = buffer(os.fsencode(path) + b"\0")
    fd = require(call(Command.OBJ_GET, buffer(struct.pack("=QII", address(name), 0, 0))), f"open {path}")
    adopted = Map(fd, spec)
    try:
        found = _describe(adopted)
    except BpfError:
        adopted.close()
        raise
    flags = spec.flags | (BPF_F_RDONLY_PROG if spec.map_type in _READ_ONLY_FOR_PROGRAMS else 0)
    wanted = (spec.map_type, spec.key_bytes, spec.value_bytes, _entries(spec), flags)
    if found != wanted:
        adopted.close()
        raise AbiMismatchError(
            f"the pinned map {path} has type, key, value, entries, flags {found}, "
            f"we want {tuple(map(int, wanted))}"
        )
    return adopted


def _entries(spec: MapSpec) -> int:
    return spec.max_entries or (possible_cpus() if spec.map_type is MapType.CPUMAP else 0)


def _describe(opened: Map) -> tuple[int, int, int, int, int]:
    """Ask the kernel for a map's type, key size, value size, entries and flags (`struct bpf_map_info`)."""
    info = buffer(_INFO_BYTES)
    attributes = buffer(struct.pack("=IIQ", opened.fd, _INFO_BYTES, address(info)))
    require(call(Command.OBJ_GET_INFO_BY_FD, attributes), f"inspect {opened.name}")
    map_type, _id, key, value, entries, flags = struct.unpack_from("=6I", info)
    return map_type, key, value, entries, flags & ~_FLAGS_OF_DESCRIPTOR


def kernel_name(name: str) -> bytes:
    """Return a name as the kernel takes it: letters, digits, dots and underscores, cut to its length."""
    return re.sub(r"[^A-Za-z0-9_.]", "_", name).encode()[:NAME_BYTES]


def split(memory: bytes, size: int, count: int) -> Iterator[bytes]:
    """Yield the first `count` items of `size` bytes."""
    return (memory[at : at + size] for at in range(0, size * count, size))


def _is_there(result: int, what: str) -> bool:
    """Return whether a call found its entry.

    Raises:
        KernelRefusedError: It failed for another reason.
    """
    if result == -errno.ENOENT:
        return False
    require(result, what)
    return True
