"""What is known about the drivers that offload IPsec: read `hw/profiles`, one TOML file per driver.

The records below are the schema: a file with a key too many or too few, or with a value of another type, is
refused.
"""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from gateway.hardware.toml_records import read_list, read_record
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
_NEWER = re.compile(r"(tunnel|transport|udp|esn|prefixes) [0-9]+\.[0-9]+")


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
    """What came later than `kernel`, with its first release: `tunnel 6.4`.
    `prefixes`: selectors of more than one address."""
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
        read_record(Source, entry, f"{name}: sources", ProfileError)
        for entry in read_list(content, "sources", dict, name, ProfileError)
    )
    profile: Profile = read_record(Profile, content, name, ProfileError)
    if profile.crypto is None and profile.packet is None:
        raise ProfileError(f"{name}: neither crypto nor packet: this driver offloads nothing")
    if not profile.sources:
        raise ProfileError(f"{name}: names no source")
    return profile


def _offload(content: object, place: str) -> Offload:
    if not isinstance(content, dict):
        raise ProfileError(f"{place}: expected a table")
    algorithms = tuple(
        read_record(Algorithm, entry, f"{place}.algorithms", ProfileError)
        for entry in read_list(content, "algorithms", dict, place, ProfileError)
    )
    offload: Offload = read_record(Offload, {**content, "algorithms": algorithms}, place, ProfileError)
    if not _KERNEL.fullmatch(offload.kernel):
        raise ProfileError(f"{place}.kernel: expected a release as 6.2, not {offload.kernel!r}")
    for key, words in _WORDS.items():
        strange = [word for word in getattr(offload, key) if word not in words]
        if strange:
            raise ProfileError(f"{place}.{key}: expected {', '.join(words)}, not {', '.join(strange)}")
    for entry in offload.newer:
        if not _NEWER.fullmatch(entry):
            raise ProfileError(
                f"{place}.newer: expected a mode, udp, esn or prefixes with a release, not {entry!r}"
            )
    return offload
