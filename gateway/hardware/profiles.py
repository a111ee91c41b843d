"""What is known about the drivers that offload IPsec: read `hw/profiles`, one TOML file per driver.

The records below are the schema: a file with a key too many or too few, or with a value of another type, is
refused.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final

from gateway.ipsec.errors import GatewayError

#: Values that a list may have; a list that is not named here is free text.
_WORDS: Final = {
    "modes": ("tunnel", "transport"),
    "protocols": ("esp", "ah"),
    "directions": ("inbound", "outbound"),
    "encapsulation": ("udp",),
    "encapsulation_modes": ("tunnel", "transport"),
}
_KERNEL = re.compile(r"[0-9]+\.[0-9]+")
_NEWER = re.compile(r"(tunnel|transport|udp|esn) [0-9]+\.[0-9]+")


class ProfileError(GatewayError):
    """A file of `hw/profiles` is not a profile; the text says where and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """One algorithm that a device takes."""

    name: str
    """As NETLINK_XFRM names it."""
    key_bits: tuple[int, ...]
    """Without the salt; empty: an algorithm without a key of its own."""
    icv_bits: tuple[int, ...]
    """Empty: no ICV (encryption alone)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offload:
    """One kind of offload (`crypto` or `packet`) that a driver has."""

    kernel: str
    """The first mainline release with it, as `6.2`."""
    directions: tuple[str, ...]
    modes: tuple[str, ...]
    protocols: tuple[str, ...]
    algorithms: tuple[Algorithm, ...]
    esn: bool
    replay_windows: tuple[int, ...]
    """In packets: those that the device checks itself. Empty: the kernel checks, any window will do."""
    encapsulation: tuple[str, ...]
    """Empty: no ESP in UDP or TCP."""
    encapsulation_modes: tuple[str, ...]
    """In which of the modes there is encapsulation."""
    selector_protocols: tuple[int, ...]
    """IP protocols that the SA's selector may name, beside any; empty: every one."""
    newer: tuple[str, ...]
    """What came later than `kernel`, with its first release: `tunnel 6.4`."""
    max_sas: int
    """Of both directions, or of each if the notes say so; 0: not known, the firmware decides."""
    limits: tuple[str, ...]
    """Whatever else it refuses or does badly, a sentence each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the facts are from."""

    what: str
    where: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One driver."""

    driver: str
    """As `ethtool -i` names it."""
    names: tuple[str, ...]
    """Other names of it."""
    devices: str
    """Which hardware, in words."""
    kconfig: tuple[str, ...]
    """Build options without which the kernel's driver does not offload, without `CONFIG_`."""
    firmware: str
    """What the firmware or its settings must be; empty: nothing."""
    enable: tuple[str, ...]
    """Steps for an operator, in order; NIC stands for the interface."""
    verify: tuple[str, ...]
    """How to see that it is on."""
    unsure: tuple[str, ...]
    """What could not be confirmed."""
    sources: tuple[Source, ...]
    crypto: Offload | None
    packet: Offload | None


def load_profiles(folder: Traversable | None = None) -> tuple[Profile, ...]:
    """Return every profile of a folder, or of this installation, ordered by driver.

    Raises:
        ProfileError: A file is not a profile.
    """
    place = folder or _installed()
    names = sorted(entry.name for entry in place.iterdir() if entry.name.endswith(".toml"))
    return tuple(parse_profile((place / name).read_text("utf-8"), name) for name in names)


def _installed() -> Traversable:
    """Return the folder with the profiles: beside this file in a wheel, in `hw` in a checkout."""
    packaged = files("gateway.hardware") / "profile_data"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "hw" / "profiles"


def find_profile(profiles: Sequence[Profile], driver: str) -> Profile | None:
    """Return the profile of a driver, by any of its names."""
    return next((profile for profile in profiles if driver in (profile.driver, *profile.names)), None)


def parse_profile(text: str, name: str) -> Profile:
    """Return the profile in a TOML text; `name` is of its file, for messages.

    Raises:
        ProfileError: It is not TOML, or not a profile.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"{name}: {error}") from error
    for kind in ("crypto", "packet"):
        content[kind] = _offload(content[kind], f"{name}: {kind}") if kind in content else None
    content["sources"] = tuple(
        _record(Source, entry, f"{name}: sources") for entry in _list(content, "sources", dict, name)
    )
    profile: Profile = _record(Profile, content, name)
    if profile.crypto is None and profile.packet is None:
        raise ProfileError(f"{name}: neither crypto nor packet: this driver offloads nothing")
    if not profile.sources:
        raise ProfileError(f"{name}: names no source")
    return profile


def _offload(content: object, place: str) -> Offload:
    if not isinstance(content, dict):
        raise ProfileError(f"{place}: expected a table")
    algorithms = tuple(
        _record(Algorithm, entry, f"{place}.algorithms")
        for entry in _list(content, "algorithms", dict, place)
    )
    offload: Offload = _record(Offload, {**content, "algorithms": algorithms}, place)
    if not _KERNEL.fullmatch(offload.kernel):
        raise ProfileError(f"{place}.kernel: expected a release as 6.2, not {offload.kernel!r}")
    for key, words in _WORDS.items():
        strange = [word for word in getattr(offload, key) if word not in words]
        if strange:
            raise ProfileError(f"{place}.{key}: expected {', '.join(words)}, not {', '.join(strange)}")
    for entry in offload.newer:
        if not _NEWER.fullmatch(entry):
            raise ProfileError(f"{place}.newer: expected a mode, udp or esn with a release, not {entry!r}")
    return offload


def _list(content: Mapping[str, Any], key: str, of: type, place: str) -> list[Any]:
    value = content.get(key)
    if not isinstance(value, list) or not all(type(item) is of for item in value):
        raise ProfileError(f"{place}: {key}: expected a list of {of.__name__}")
    return value


#: What TOML has for each annotation of the records above; whatever else was made a record before.
_LISTS: Final = {tuple[str, ...]: str, tuple[int, ...]: int}
_SCALARS: Final = (str, int, bool)


def _record(record: Any, content: Mapping[str, Any], place: str) -> Any:
    """Return a record of that class, after a look at every key and its type."""
    known = {field.name: field.type for field in fields(record)}
    strange = content.keys() - known.keys()
    missing = known.keys() - content.keys()
    if strange or missing:
        words = [f"unknown key {key}" for key in sorted(strange)]
        words += [f"missing key {key}" for key in sorted(missing)]
        raise ProfileError(f"{place}: {', '.join(words)}")
    values = {}
    for key, kind in known.items():
        value = content[key]
        if kind in _LISTS:
            value = tuple(_list(content, key, _LISTS[kind], place))  # type: ignore[index]  # it is a key of it
        elif kind in _SCALARS and type(value) is not kind:
            raise ProfileError(f"{place}: {key}: expected {getattr(kind, '__name__', kind)}, not {value!r}")
        values[key] = value
    return record(**values)
