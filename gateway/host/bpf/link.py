"""Join a BPF function with the subprograms it calls, as the kernel wants a program: one run of instructions.

An instruction has 8 octets: opcode, registers (source in the high half), a 16-bit offset, a 32-bit immediate
(Documentation/bpf/standardization/instruction-set.rst of Linux). A 64-bit load takes two.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from gateway.host.bpf.errors import ObjectFormatError

INSTRUCTION: Final = struct.Struct("<BBhi")
_CALL: Final = 0x85
_LOAD_64: Final = 0x18
_SOURCE_SUBPROGRAM: Final = 1
"""Source register of a call to a subprogram (BPF_PSEUDO_CALL)."""


class Target(Enum):
    """What an instruction refers to; the value is the source register that tells the kernel so."""

    MAP = 1
    """A map: BPF_PSEUDO_MAP_FD."""
    MAP_VALUE = 2
    """A place in the only value of an array: BPF_PSEUDO_MAP_VALUE."""
    KERNEL_FUNCTION = "kfunc"
    """BPF_PSEUDO_KFUNC_CALL."""
    FUNCTION = "function"
    """A subprogram: resolved here, never left to the kernel."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One place that waits for a number from the kernel."""

    instruction: int
    """Its index."""
    target: Target
    name: str
    """Of the map or the kernel function."""
    offset: int = 0
    """In the map's value: bytes."""


@dataclass(frozen=True, slots=True)
class Code:
    """A linked program."""

    instructions: bytes
    references: tuple[Reference, ...]

    def resolved(self, maps: Mapping[str, int], kernel_functions: Mapping[str, int]) -> bytes:
        """Return the instructions with the kernel's numbers: descriptors of maps, type ids of functions."""
        code = bytearray(self.instructions)
        for reference in self.references:
            at = reference.instruction * INSTRUCTION.size
            opcode, registers, offset, _ = INSTRUCTION.unpack_from(code, at)
            if reference.target is Target.KERNEL_FUNCTION:
                number = kernel_functions[reference.name]
                INSTRUCTION.pack_into(code, at, opcode, 2 << 4, 0, number)
                continue
            registers = registers & 0xF | reference.target.value << 4
            INSTRUCTION.pack_into(code, at, opcode, registers, offset, maps[reference.name])
            INSTRUCTION.pack_into(code, at + INSTRUCTION.size, 0, 0, 0, reference.offset)
        return bytes(code)


@dataclass(frozen=True, slots=True)
class Function:
    """One function of an object."""

    name: str
    section: int
    start: int
    """Where it begins in its section: bytes."""
    code: bytes


class Linker:
    """All functions of an object, and what their instructions refer to.

    Args:
        functions: By section and start.
        relocations: By section and offset: the target; the name of a map or kernel function, or the section
            of a function; the offset in it.
    """

    def __init__(
        self,
        functions: Mapping[tuple[int, int], Function],
        relocations: Mapping[tuple[int, int], tuple[Target, str, int]],
    ) -> None:
        self._functions = functions
        self._relocations = relocations

    def link(self, entry: Function) -> Code:
        """Return `entry` with every subprogram that it reaches behind it.

        Raises:
            ObjectFormatError: A call leads nowhere.
        """
        order = [entry]
        places = {(entry.section, entry.start): 0}
        calls: list[tuple[int, tuple[int, int]]] = []
        references: list[Reference] = []
        length = 0
        for function in order:  # grows while it is walked
            places[function.section, function.start] = length
            for index, callee, reference in self._walk(function):
                if reference is not None:
                    references.append(
                        Reference(length + index, reference.target, reference.name, reference.offset)
                    )
                if callee is not None:
                    calls.append((length + index, callee))
                    if callee not in places:
                        if callee not in self._functions:
                            raise ObjectFormatError(f"a call in {function.name!r} leads to no function")
                        places[callee] = -1
                        order.append(self._functions[callee])
            length += len(function.code) // INSTRUCTION.size
        code = bytearray(b"".join(function.code for function in order))
        for at, callee in calls:
            INSTRUCTION.pack_into(
                code, at * INSTRUCTION.size, _CALL, _SOURCE_SUBPROGRAM << 4, 0, places[callee] - at - 1
            )
        return Code(bytes(code), tuple(references))

    def _walk(self, function: Function) -> list[tuple[int, tuple[int, int] | None, Reference | None]]:
        """Return the index of each instruction that refers to something, and the callee or the reference."""
        found: list[tuple[int, tuple[int, int] | None, Reference | None]] = []
        index, count = 0, len(function.code) // INSTRUCTION.size
        while index < count:
            opcode, registers, _, immediate = INSTRUCTION.unpack_from(function.code, index * INSTRUCTION.size)
            at = function.start + index * INSTRUCTION.size
            target, name, value = self._relocations.get((function.section, at), (None, "", 0))
            if target is Target.FUNCTION:
                # The immediate is -1 for a symbol; for a section it counts its instructions, less one.
                found.append((index, (int(name), value + (immediate + 1) * INSTRUCTION.size), None))
            elif target is not None:
                offset = value + immediate if target is Target.MAP_VALUE else 0
                found.append((index, None, Reference(index, target, name, offset)))
            elif opcode == _CALL and registers >> 4 == _SOURCE_SUBPROGRAM:
                found.append((index, (function.section, at + (immediate + 1) * INSTRUCTION.size), None))
            index += 2 if opcode == _LOAD_64 else 1
        return found
