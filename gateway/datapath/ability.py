"""What one engine can do on this machine, as far as it is known before an SA is given to it. Pure.

Of a backend's own engine that is what its `Capabilities` say. Of a NIC it is what the profile of its driver
(`hw/profiles`), its features and the kernel say, within what the backend that programs it can do.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from gateway.datapath.backend import Capabilities
from gateway.datapath.kernel_names import ENCRYPTION, INTEGRITY
from gateway.hardware.advice import is_older
from gateway.hardware.facts import Answer, Fact, NicFacts, find_fact
from gateway.hardware.profiles import Offload, Profile, find_profile
from gateway.ipsec.algorithms import Encr, Integ
from gateway.ipsec.placement import Engine, PlacementReason
from gateway.ipsec.sa import Direction, IpsecProtocol, Mode

NIC_ENGINES: Final = (Engine.NIC_PACKET, Engine.NIC_CRYPTO)

_FEATURE: Final = "esp-hw-offload"
_WORDS: Final = {Engine.NIC_PACKET: "packet offload", Engine.NIC_CRYPTO: "crypto offload"}
_PLACES: Final = {
    Engine.ENGINE: "the native engine",
    Engine.KERNEL: "the kernel",
    Engine.XDP: "the XDP datapath",
    Engine.SOFTWARE: "the software datapath",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """Why an engine carries no SA at all here."""

    reason: PlacementReason
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ability:
    """What one engine, on one device if it is a NIC's, can do."""

    engine: Engine
    place: str
    """For sentences: `the kernel`, `eth0 (mlx5_core)`."""
    device: str = ""
    """The interface; empty unless it is a NIC's."""
    closed: Closed | None = None
    encryption: frozenset[tuple[Encr, int]] = frozenset()
    """(algorithm, key bits) pairs."""
    integrity: frozenset[Integ] = frozenset()
    protocols: frozenset[IpsecProtocol] = frozenset(IpsecProtocol)
    directions: frozenset[Direction] = frozenset(Direction)
    modes: frozenset[Mode] = frozenset(Mode)
    esn: bool = True
    max_replay_window_packets: int = 4096
    replay_windows: frozenset[int] = frozenset()
    """The sizes that an inbound SA may have, in packets; empty: any up to the largest."""
    udp_modes: frozenset[Mode] = frozenset(Mode)
    """Modes in which ESP may be in UDP."""
    selector_protocols: frozenset[int] = frozenset()
    """IP protocols that selectors may name, beside any; empty: every one."""
    newer: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """What this kernel is too old for (`tunnel`, `udp`...), and the first release that has it."""
    max_sas: int | None = None
    """Of both directions; `None`: not known, or no limit."""


def backend_abilities(capabilities: Capabilities) -> tuple[Ability, ...]:
    """Return what a backend's own engines can do; those of NICs are `nic_abilities`."""
    return tuple(
        _within(capabilities, engine, _PLACES[engine])
        for engine in capabilities.engines
        if engine not in NIC_ENGINES
    )


def _within(capabilities: Capabilities, engine: Engine, place: str, device: str = "") -> Ability:
    """Return what the backend can do, as the ability of one of its engines."""
    return Ability(
        engine=engine,
        place=place,
        device=device,
        encryption=frozenset(capabilities.encryption),
        integrity=frozenset(capabilities.integrity),
        protocols=frozenset(capabilities.protocols),
        modes=frozenset(capabilities.modes),
        esn=capabilities.esn,
        max_replay_window_packets=capabilities.max_replay_window_packets,
        udp_modes=frozenset(capabilities.modes if capabilities.udp_encapsulation else ()),
        max_sas=None if device else capabilities.max_sas,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NicSurroundings:
    """What is known around the NICs: the kernel, and its drivers' profiles."""

    release: str
    """Of the kernel: `6.12.1-amd64`."""
    options: tuple[Fact, ...]
    """The build options that the profiles ask for: `CONFIG_MLX5_EN_IPSEC`."""
    profiles: Sequence[Profile]


def nic_abilities(
    capabilities: Capabilities, nics: Iterable[NicFacts], around: NicSurroundings
) -> tuple[Ability, ...]:
    """Return what each NIC can do for each kind of offload that a backend can ask of it.

    A NIC that neither offers the feature nor has a driver with a profile has no ability at all. One that
    offers it under a driver without a profile gets everything: the driver will say what it does not take.
    """
    kinds = [engine for engine in NIC_ENGINES if engine in capabilities.engines]
    found = []
    for nic in nics:
        feature = find_fact(nic.facts, _FEATURE)
        profile = find_profile(around.profiles, nic.driver)
        if profile is None and feature.answer is not Answer.YES:
            continue
        for engine in kinds:
            whole = _within(capabilities, engine, f"{nic.name} ({nic.driver or 'no driver'})", nic.name)
            found.append(_narrowed(whole, profile, feature, around))
    return tuple(found)


def _narrowed(ability: Ability, profile: Profile | None, feature: Fact, around: NicSurroundings) -> Ability:
    """Return an ability within what the driver, its switch and the kernel allow."""
    if profile is None:
        return ability
    offload = profile.packet if ability.engine is Engine.NIC_PACKET else profile.crypto
    if offload is None:
        other = _WORDS[Engine.NIC_CRYPTO if ability.engine is Engine.NIC_PACKET else Engine.NIC_PACKET]
        closed: Closed | None = Closed(
            reason=PlacementReason.NO_DEVICE,
            text=f"{ability.place} has no {_WORDS[ability.engine]}, only {other}",
        )
        return replace(ability, closed=closed)
    closed = _closed(ability, profile, offload, feature, around)
    return replace(
        ability,
        closed=closed,
        encryption=ability.encryption & _encryption(offload),
        integrity=ability.integrity & _integrity(offload),
        protocols=ability.protocols & {IpsecProtocol[word.upper()] for word in offload.protocols},
        directions=frozenset(Direction(word) for word in offload.directions),
        modes=ability.modes & {Mode(word) for word in offload.modes},
        esn=ability.esn and offload.esn,
        replay_windows=frozenset(offload.replay_windows),
        udp_modes=ability.udp_modes & {Mode(word) for word in offload.encapsulation_modes},
        selector_protocols=frozenset(offload.selector_protocols),
        newer=MappingProxyType(
            {
                what: release
                for what, release in (entry.split() for entry in offload.newer)
                if is_older(around.release, release)
            }
        ),
        max_sas=offload.max_sas or None,
    )


def _closed(
    ability: Ability, profile: Profile, offload: Offload, feature: Fact, around: NicSurroundings
) -> Closed | None:
    """Return why a driver that could offload does not here: the first reason that holds."""
    words = _WORDS[ability.engine]
    lacking = [
        f"CONFIG_{option}"
        for option in profile.kconfig
        if find_fact(around.options, f"CONFIG_{option}").answer is Answer.NO
    ]
    if is_older(around.release, offload.kernel):
        return Closed(
            reason=PlacementReason.KERNEL_TOO_OLD,
            text=f"{words} of {profile.driver} came with Linux {offload.kernel}, this is {around.release}",
        )
    if lacking:
        return Closed(
            reason=PlacementReason.FEATURE_OFF,
            text=f"the kernel is built without {', '.join(lacking)}, which {profile.driver} offloads with",
        )
    if feature.answer is Answer.NO and feature.value == "off":
        return Closed(reason=PlacementReason.FEATURE_OFF, text=f"{_FEATURE} of {ability.device} is off")
    if feature.answer is Answer.NO:
        return Closed(
            reason=PlacementReason.NO_DEVICE,
            text=f"{ability.place} does not offer {_FEATURE}, though other devices of its driver do",
        )
    return None


def _encryption(offload: Offload) -> frozenset[tuple[Encr, int]]:
    pairs = set()
    for algorithm in offload.algorithms:
        by_icv = ENCRYPTION.get(algorithm.name, {})
        for encryption in (by_icv.get(bits) for bits in algorithm.icv_bits or (0,)):
            if encryption is not None:
                pairs |= {(encryption, bits) for bits in algorithm.key_bits or (0,)}
    return frozenset(pairs)


def _integrity(offload: Offload) -> frozenset[Integ]:
    found = (
        INTEGRITY.get(algorithm.name, {}).get(bits)
        for algorithm in offload.algorithms
        for bits in algorithm.icv_bits
    )
    return frozenset(integrity for integrity in found if integrity is not None)
