"""Load a whole object: its maps, made or adopted, and its programs with them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.host.bpf.errors import AbiMismatchError
from gateway.host.bpf.maps import Map, adopt_map, create_map
from gateway.host.bpf.pins import pin
from gateway.host.bpf.programs import Program, find_kernel_functions, load_program
from gateway.host.bpf.spec import ObjectSpec
from gateway.host.errors import HostError


@dataclass(frozen=True, slots=True)
class LoadedObject:
    """An object in the kernel; what is neither pinned nor attached ends when it is closed."""

    maps: Mapping[str, Map]
    programs: Mapping[str, Program]

    def close(self) -> None:
        """Close every file descriptor, those of shared maps too."""
        for item in (*self.programs.values(), *self.maps.values()):
            item.close()

    def __enter__(self) -> "LoadedObject":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def load_object(
    spec: ObjectSpec, *, shared: Mapping[str, Map] | None = None, pinned_in: Path | None = None
) -> LoadedObject:
    """Make the maps of a spec and load its programs; on failure nothing stays.

    Args:
        spec: What to load.
        shared: Maps of other objects that take the place of those of the same name. They stay the caller's:
            the object gets file descriptors of its own. Constants and variables are never shared.
        pinned_in: A directory of a bpffs. Maps that are pinned there are adopted, others made and pinned.
            Constants and variables are of one version of a program, and never pinned.

    Raises:
        AbiMismatchError: A shared or pinned map looks otherwise.
        KernelRefusedError: The kernel refused a map or a program.
        MissingCapabilityError: We may not load programs.
    """
    maps: dict[str, Map] = {}
    programs: dict[str, Program] = {}
    try:
        for name, wanted in spec.maps.items():
            other = (shared or {}).get(name)
            if other is not None and wanted.contents is None:
                _require_alike(other, spec, name)
                maps[name] = other.duplicate()
            elif pinned_in is None or wanted.contents is not None:
                maps[name] = create_map(wanted)
            elif (pinned_in / name).exists():
                maps[name] = adopt_map(pinned_in / name, wanted)
            else:
                maps[name] = create_map(wanted)
                pin(maps[name], pinned_in / name)
        descriptors = {name: item.fd for name, item in maps.items()}
        for name, program in spec.programs.items():
            programs[name] = load_program(program, descriptors, spec.licence, find_kernel_functions(program))
    except HostError:
        LoadedObject(maps, programs).close()
        raise
    return LoadedObject(maps, programs)


def _require_alike(other: Map, spec: ObjectSpec, name: str) -> None:
    wanted, found = spec.maps[name], other.spec
    sizes = (wanted.map_type, wanted.key_bytes, wanted.value_bytes)
    if sizes != (found.map_type, found.key_bytes, found.value_bytes):
        raise AbiMismatchError(
            f"map {name} is shared with type, key, value "
            f"{tuple(map(int, (found.map_type, found.key_bytes, found.value_bytes)))}, "
            f"this object wants {tuple(map(int, sizes))}"
        )
