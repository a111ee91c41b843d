"""Read a compiled BPF object into a spec: the maps and programs it wants, linked, for the kernel to number.

Deterministic, and no kernel is touched: the same bytes give the same spec. What is read: BTF-defined maps
(section `.maps`), constants and variables (`.rodata`, `.data`, `.bss`), and calls to subprograms and kernel
functions (kfuncs). What is refused, by name: CO-RE relocations, old-style `maps` sections, maps of maps, and
anything else that would need more than this.
"""

import dataclasses
import io
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum
from pathlib import Path
from typing import Final

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import Section, SymbolTableSection

from gateway.host.bpf.btf import Btf, BtfType, Kind, parse_btf
from gateway.host.bpf.errors import ObjectFormatError
from gateway.host.bpf.link import Code, Function, Linker, Target

_EM_BPF: Final = "EM_BPF"
_R_BPF_64_64: Final = 1
_R_BPF_64_32: Final = 10
_DATA_PREFIXES: Final = (".rodata", ".data", ".bss")
_BTF_EXT_CORE_AT: Final = 24
"""Where the header of `.BTF.ext` has the offset and length of the CO-RE relocations."""
BPF_F_RDONLY_PROG: Final = 1 << 7
"""Flag of a map that programs may only read."""


class MapType(IntEnum):
    """Types of maps that our programs may use (<linux/bpf.h>)."""

    HASH = 1
    ARRAY = 2
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    LRU_PERCPU_HASH = 10
    LPM_TRIE = 11
    DEVMAP = 14
    CPUMAP = 16
    XSKMAP = 17
    DEVMAP_HASH = 25
    RINGBUF = 27


class ProgramKind(Enum):
    """What a program is for, told by its section: program type, expected attach type, load flags."""

    XDP = (6, 37, 0)
    XDP_FRAGS = (6, 37, 1 << 5)
    XDP_CPUMAP = (6, 35, 0)
    XDP_DEVMAP = (6, 33, 0)
    TC = (3, 0, 0)
    RAW_TRACEPOINT = (17, 0, 0)

    @property
    def program_type(self) -> int:
        """Return BPF_PROG_TYPE_*."""
        return self.value[0]

    @property
    def attach_type(self) -> int:
        """Return BPF_XDP*, or 0."""
        return self.value[1]

    @property
    def load_flags(self) -> int:
        """Return BPF_F_XDP_HAS_FRAGS, or 0."""
        return self.value[2]


_SECTIONS: Final = {
    "xdp": ProgramKind.XDP,
    "xdp.frags": ProgramKind.XDP_FRAGS,
    "xdp/cpumap": ProgramKind.XDP_CPUMAP,
    "xdp/devmap": ProgramKind.XDP_DEVMAP,
    "tc": ProgramKind.TC,
    "raw_tp": ProgramKind.RAW_TRACEPOINT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MapSpec:
    """One map as the object wants it."""

    name: str
    map_type: MapType
    key_bytes: int
    value_bytes: int
    max_entries: int
    flags: int = 0
    key_type: int = 0
    """BTF type id, 0 where the map has sizes only."""
    value_type: int = 0
    """BTF type id, 0 where the map has sizes only."""
    contents: bytes | None = None
    """Of a section of constants or variables: the value of the only entry."""

    @property
    def is_constant(self) -> bool:
        """Whether it is frozen once it has its contents."""
        return self.contents is not None and bool(self.flags & BPF_F_RDONLY_PROG)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramSpec:
    """One program with its subprograms, but for the numbers that only the kernel gives."""

    name: str
    kind: ProgramKind
    code: Code


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectSpec:
    """One compiled object."""

    maps: Mapping[str, MapSpec]
    programs: Mapping[str, ProgramSpec]
    licence: str
    btf: Btf
    variables: Mapping[str, tuple[str, int, int]]
    """Each constant or variable: its section, its offset and its size in bytes."""

    def with_constants(self, values: Mapping[str, bytes]) -> "ObjectSpec":
        """Return the spec with other values of constants: how a program is configured before it is loaded.

        Raises:
            ObjectFormatError: There is no such constant, or it has another size.
        """
        maps = dict(self.maps)
        for name, value in values.items():
            section, offset, size = self.variables.get(name, ("", 0, 0))
            if section not in maps or not maps[section].is_constant:
                raise ObjectFormatError(f"the object has no constant {name!r}")
            if size != len(value):
                raise ObjectFormatError(f"the constant {name!r} has {size} bytes, not {len(value)}")
            old = maps[section].contents or b""
            contents = old[:offset] + value + old[offset + size :]
            maps[section] = dataclasses.replace(maps[section], contents=contents)
        return dataclasses.replace(self, maps=maps)

    def with_entries(self, entries: Mapping[str, int]) -> "ObjectSpec":
        """Return the spec with other sizes of maps, in entries.

        Raises:
            ObjectFormatError: There is no such map.
        """
        maps = dict(self.maps)
        for name, count in entries.items():
            if name not in maps:
                raise ObjectFormatError(f"the object has no map {name!r}")
            maps[name] = dataclasses.replace(maps[name], max_entries=count)
        return dataclasses.replace(self, maps=maps)


def read_object(path: Path) -> ObjectSpec:
    """Read a compiled object from a file.

    Raises:
        ObjectFormatError: It is none, or wants what we do not do.
        OSError: The file cannot be read.
    """
    return parse_object(path.read_bytes())


def parse_object(content: bytes) -> ObjectSpec:
    """Parse a compiled object.

    Raises:
        ObjectFormatError: It is none, or wants what we do not do.
    """
    try:
        elf = ELFFile(io.BytesIO(content))
        return _ObjectReader(elf).read()
    except (ELFError, struct.error, UnicodeDecodeError) as error:
        raise ObjectFormatError(f"the BPF object is malformed: {error}") from error


class _ObjectReader:
    """The sections and symbols of one object while it is read."""

    def __init__(self, elf: ELFFile) -> None:
        if elf["e_machine"] != _EM_BPF or not elf.little_endian or elf.elfclass != 64:
            raise ObjectFormatError(f"want a 64-bit little-endian BPF object, got {elf['e_machine']}")
        self._sections: list[Section] = list(elf.iter_sections())
        table = elf.get_section_by_name(".symtab")
        if not isinstance(table, SymbolTableSection):
            raise ObjectFormatError("the BPF object has no symbol table")
        self._symbols = list(table.iter_symbols())

    def read(self) -> ObjectSpec:
        """Return the spec."""
        self._refuse_what_we_do_not_do()
        btf = parse_btf(self._content(".BTF"))
        maps = {item.name: item for item in (*self._btf_maps(btf), *self._data_maps())}
        programs = {item.name: item for item in self._programs()}
        for program in programs.values():
            for reference in program.code.references:
                if reference.target is not Target.KERNEL_FUNCTION and reference.name not in maps:
                    raise ObjectFormatError(
                        f"program {program.name!r} refers to unknown map {reference.name!r}"
                    )
        return ObjectSpec(
            maps=maps,
            programs=programs,
            licence=self._content("license").rstrip(b"\0").decode(),
            btf=btf,
            variables=self._variables(),
        )

    def _content(self, name: str) -> bytes:
        for section in self._sections:
            if section.name == name:
                return bytes(section.data())
        raise ObjectFormatError(f"the BPF object has no section {name!r}: was it compiled with -g?")

    def _refuse_what_we_do_not_do(self) -> None:
        names = {section.name for section in self._sections}
        if "maps" in names:
            raise ObjectFormatError("the object defines maps in the old section `maps`: define them with BTF")
        if ".BTF.ext" in names:
            extension = self._content(".BTF.ext")
            header_bytes = struct.unpack_from("<I", extension, 4)[0]
            if header_bytes >= _BTF_EXT_CORE_AT + 8:
                length = struct.unpack_from("<I", extension, _BTF_EXT_CORE_AT + 4)[0]
                if length:
                    raise ObjectFormatError(
                        f"the object has {length} bytes of CO-RE relocations: this loader does none, "
                        "so do not use preserve_access_index or vmlinux.h"
                    )

    # --- maps ----------------------------------------------------------------------------------

    def _btf_maps(self, btf: Btf) -> list[MapSpec]:
        section = btf.find(Kind.DATASEC, ".maps")
        if section is None:
            return []
        variables = [btf.types[item.type_id] for item in btf.types[section].members]
        return [_btf_map(btf, variable) for variable in variables]

    def _data_maps(self) -> list[MapSpec]:
        found = []
        for section in self._sections:
            if not section.name.startswith(_DATA_PREFIXES) or not section.data_size:
                continue
            is_empty = section["sh_type"] == "SHT_NOBITS"
            contents = bytes(section.data_size) if is_empty else bytes(section.data())
            found.append(
                MapSpec(
                    name=section.name,
                    map_type=MapType.ARRAY,
                    key_bytes=4,
                    value_bytes=len(contents),
                    max_entries=1,
                    flags=BPF_F_RDONLY_PROG if section.name.startswith(".rodata") else 0,
                    contents=contents,
                )
            )
        return found

    def _variables(self) -> dict[str, tuple[str, int, int]]:
        found = {}
        for symbol in self._symbols:
            index = symbol["st_shndx"]
            if symbol["st_info"]["type"] != "STT_OBJECT" or not isinstance(index, int):
                continue
            section = self._sections[index].name
            if section.startswith(_DATA_PREFIXES):
                found[symbol.name] = (section, symbol["st_value"], symbol["st_size"])
        return found

    # --- programs ------------------------------------------------------------------------------

    def _programs(self) -> list[ProgramSpec]:
        functions = {}
        entries = []
        for symbol in self._symbols:
            index = symbol["st_shndx"]
            if symbol["st_info"]["type"] != "STT_FUNC" or not isinstance(index, int):
                continue
            start, size = symbol["st_value"], symbol["st_size"]
            code = bytes(self._sections[index].data()[start : start + size])
            function = Function(symbol.name, index, start, code)
            functions[index, start] = function
            section = self._sections[index].name
            if section != ".text" and symbol["st_info"]["bind"] == "STB_GLOBAL":
                if section not in _SECTIONS:
                    raise ObjectFormatError(
                        f"section {section!r} of program {symbol.name!r} is none of {', '.join(_SECTIONS)}"
                    )
                entries.append((function, _SECTIONS[section]))
        linker = Linker(functions, self._relocations())
        return [
            ProgramSpec(name=function.name, kind=kind, code=linker.link(function))
            for function, kind in entries
        ]

    def _relocations(self) -> dict[tuple[int, int], tuple[Target, str, int]]:
        """Return what each place of the code refers to: the target, its name, and an offset."""
        found = {}
        for section in self._sections:
            if not isinstance(section, RelocationSection):
                continue
            patched = section["sh_info"]
            if not self._sections[patched]["sh_flags"] & 0x4:  # SHF_EXECINSTR: debug sections are not loaded
                continue
            for entry in section.iter_relocations():
                kind, symbol = entry["r_info_type"], self._symbols[entry["r_info_sym"]]
                found[patched, entry["r_offset"]] = self._target(kind, symbol.name, symbol.entry)
        return found

    def _target(self, kind: int, name: str, symbol: Mapping[str, object]) -> tuple[Target, str, int]:
        index, value = symbol["st_shndx"], symbol["st_value"]
        assert isinstance(value, int)
        if not isinstance(index, int):
            if kind != _R_BPF_64_32:
                raise ObjectFormatError(
                    f"external symbol {name!r} is neither a function nor a map of the object"
                )
            return Target.KERNEL_FUNCTION, name, 0
        section = self._sections[index]
        if kind == _R_BPF_64_32:
            return Target.FUNCTION, str(index), value
        if kind == _R_BPF_64_64 and section.name == ".maps":
            return Target.MAP, name, 0
        if kind == _R_BPF_64_64 and section.name.startswith(_DATA_PREFIXES):
            return Target.MAP_VALUE, section.name, value
        raise ObjectFormatError(f"relocation of type {kind} to {name or section.name!r} is not supported")


def _btf_map(btf: Btf, variable: BtfType) -> MapSpec:
    """Read `struct { __uint(type, ...); __type(key, ...); ... } name SEC(".maps")`."""
    definition = btf.resolve(variable.size_or_type)
    numbers: dict[str, int] = {}
    types: dict[str, int] = {}
    for member in definition.members:
        pointed = btf.pointed_at(member.type_id)
        if member.name in ("type", "max_entries", "map_flags", "key_size", "value_size"):
            numbers[member.name] = btf.resolve(pointed).length
        elif member.name in ("key", "value"):
            types[member.name] = pointed
        else:
            raise ObjectFormatError(f"map {variable.name!r} has the attribute {member.name!r}: not supported")
    try:
        map_type = MapType(numbers.get("type", 0))
    except ValueError as error:
        raise ObjectFormatError(f"map {variable.name!r} has a type we do not know: {error}") from error
    if map_type is MapType.RINGBUF:
        # The kernel wants no sizes here; a type of the value tells what the records are.
        return MapSpec(
            name=variable.name,
            map_type=map_type,
            key_bytes=0,
            value_bytes=0,
            max_entries=numbers.get("max_entries", 0),
            flags=numbers.get("map_flags", 0),
            value_type=types.get("value", 0),
        )
    return MapSpec(
        name=variable.name,
        map_type=map_type,
        key_bytes=btf.size_of(types["key"]) if "key" in types else numbers.get("key_size", 0),
        value_bytes=btf.size_of(types["value"]) if "value" in types else numbers.get("value_size", 0),
        max_entries=numbers.get("max_entries", 0),
        flags=numbers.get("map_flags", 0),
        key_type=types.get("key", 0),
        value_type=types.get("value", 0),
    )
