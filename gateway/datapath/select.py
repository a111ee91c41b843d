"""Choose where an SA lands, and say why not somewhere better: one pure function over what is known before.

Every reason is one row of `CHECKS`. What only an attempt can tell, a driver's refusal, comes back as
`refused`, and the choice is made again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from gateway.datapath.ability import NIC_ENGINES, Ability, Closed
from gateway.ipsec.algorithms import Encr, Integ
from gateway.ipsec.placement import Engine, PlacementReason, PlacementRefusal
from gateway.ipsec.sa import Direction, IpAddress, IpsecProtocol, SecurityAssociation


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """The interface that has one of our addresses."""

    name: str
    driver: str = ""
    is_up: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What this machine has to carry SAs with, at one moment."""

    abilities: tuple[Ability, ...]
    absent: Mapping[Engine, Closed] = field(default_factory=lambda: MappingProxyType({}))
    """Why engines without an ability are not here, where that is known."""
    links: Mapping[IpAddress, Link] = field(default_factory=lambda: MappingProxyType({}))
    """By our address."""
    used: Mapping[tuple[Engine, str], int] = field(default_factory=lambda: MappingProxyType({}))
    """SAs that are there already, by engine and device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Where an SA goes."""

    ability: Ability | None
    """`None`: nothing that the wish allows can carry it."""
    refusals: tuple[PlacementRefusal, ...]
    """Why none of the engines that were preferred to it, the best first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that an engine may not be able to do."""

    reason: PlacementReason
    is_met: Callable[[SecurityAssociation, Ability], bool]
    text: Callable[[SecurityAssociation, Ability], str]
    """What to say if it is not met, behind the name of the place."""


def choose(
    sa: SecurityAssociation,
    here: Surroundings,
    refused: Mapping[Engine, PlacementRefusal] = MappingProxyType({}),
    barred: Mapping[Engine, PlacementRefusal] = MappingProxyType({}),
) -> Choice:
    """Return the first engine of the SA's wish that can carry it.

    Args:
        sa: With its wish, `placement`.
        here: What there is.
        refused: Engines that said no to this SA already.
        barred: Engines that must not carry it for what it has to be together with, even if they can.
    """
    refusals: list[PlacementRefusal] = []
    for engine in sa.placement.wanted:
        found = refused.get(engine) or _judge(sa, engine, here)
        if isinstance(found, Ability) and engine in barred:
            found = barred[engine]
        if isinstance(found, Ability):
            return Choice(ability=found, refusals=tuple(refusals))
        refusals.append(found)
    return Choice(ability=None, refusals=tuple(refusals))


def _judge(sa: SecurityAssociation, engine: Engine, here: Surroundings) -> Ability | PlacementRefusal:
    """Return the ability of an engine that can carry the SA, or why it cannot."""
    abilities = [ability for ability in here.abilities if ability.engine is engine]
    if engine in here.absent or (not abilities and engine not in NIC_ENGINES):
        return _refusal(engine, here.absent.get(engine) or _NO_BACKEND)
    link = here.links.get(our_address(sa))
    if engine in NIC_ENGINES:
        abilities = [ability for ability in abilities if link is not None and ability.device == link.name]
    if not abilities:
        return _refusal(engine, Closed(reason=PlacementReason.NO_DEVICE, text=_no_device(sa, link)))
    ability = abilities[0]
    closed = ability.closed or _is_down(ability, link) or _is_full(ability, here) or _first_unmet(sa, ability)
    return ability if closed is None else _refusal(engine, closed)


_NO_BACKEND: Final = Closed(reason=PlacementReason.NO_BACKEND, text="the agent has no backend that drives it")


def _refusal(engine: Engine, closed: Closed) -> PlacementRefusal:
    return PlacementRefusal(engine=engine, reason=closed.reason, text=closed.text)


def our_address(sa: SecurityAssociation) -> IpAddress:
    """Return which of an SA's outer addresses is ours."""
    return sa.destination if sa.direction is Direction.INBOUND else sa.source


def _no_device(sa: SecurityAssociation, link: Link | None) -> str:
    if link is None:
        return f"no interface has {our_address(sa)}"
    driver = f"its driver {link.driver} is not known to" if link.driver else "it has no driver that could"
    return f"{link.name}, which has {our_address(sa)}, does not offload ESP: {driver}"


def _is_down(ability: Ability, link: Link | None) -> Closed | None:
    if link is None or link.is_up or not ability.device:
        return None
    return Closed(reason=PlacementReason.NO_DEVICE, text=f"{link.name} is down")


def _is_full(ability: Ability, here: Surroundings) -> Closed | None:
    used = here.used.get((ability.engine, ability.device), 0)
    if ability.max_sas is None or used < ability.max_sas:
        return None
    return Closed(
        reason=PlacementReason.SA_TABLE_FULL,
        text=f"{ability.place} holds {ability.max_sas} SAs and has {used}",
    )


def _first_unmet(sa: SecurityAssociation, ability: Ability) -> Closed | None:
    for check in CHECKS:
        if not check.is_met(sa, ability):
            return Closed(reason=check.reason, text=f"{ability.place} {check.text(sa, ability)}")
    return None


# --- what may be wrong ------------------------------------------------------------------------------

#: Algorithms that differ in nothing but the length of the ICV.
_ICV_FAMILIES: Final[tuple[frozenset[Encr], ...]] = (
    frozenset({Encr.AES_GCM_8, Encr.AES_GCM_12, Encr.AES_GCM_16}),
    frozenset({Encr.AES_CCM_8, Encr.AES_CCM_12, Encr.AES_CCM_16}),
)
_INTEGRITY_FAMILIES: Final[tuple[frozenset[Integ], ...]] = (
    frozenset({Integ.HMAC_MD5_96, Integ.HMAC_MD5_128}),
    frozenset({Integ.HMAC_SHA1_96, Integ.HMAC_SHA1_160}),
)


def _encryption_family(encryption: Encr) -> frozenset[Encr]:
    return next((family for family in _ICV_FAMILIES if encryption in family), frozenset({encryption}))


def _integrity_family(integrity: Integ) -> frozenset[Integ]:
    return next((family for family in _INTEGRITY_FAMILIES if integrity in family), frozenset({integrity}))


def _encrypts(sa: SecurityAssociation) -> bool:
    return sa.protocol is IpsecProtocol.ESP


def _knows_encryption(sa: SecurityAssociation, ability: Ability) -> bool:
    family = _encryption_family(sa.encryption)
    return not _encrypts(sa) or any(encryption in family for encryption, _ in ability.encryption)


def _takes_key(sa: SecurityAssociation, ability: Ability) -> bool:
    family = _encryption_family(sa.encryption)
    return not _encrypts(sa) or any(
        encryption in family and bits == sa.key_bits for encryption, bits in ability.encryption
    )


def _knows_integrity(sa: SecurityAssociation, ability: Ability) -> bool:
    return sa.integrity is Integ.NONE or bool(_integrity_family(sa.integrity) & ability.integrity)


def _needs(sa: SecurityAssociation) -> tuple[str, ...]:
    """Return what of a profile's `newer` this SA uses."""
    return (
        sa.mode.value,
        *(("udp",) if sa.encapsulation is not None else ()),
        *(("esn",) if sa.esn else ()),
        *(("prefixes",) if not all(selector.is_host for selector in (*sa.local_ts, *sa.remote_ts)) else ()),
    )


def _window_fits(sa: SecurityAssociation, ability: Ability) -> bool:
    if sa.direction is not Direction.INBOUND:
        return True
    window = sa.replay_window_packets
    return window <= ability.max_replay_window_packets and (
        not ability.replay_windows or window in ability.replay_windows
    )


def _windows(ability: Ability) -> str:
    if ability.replay_windows:
        return " or ".join(str(window) for window in sorted(ability.replay_windows))
    return f"at most {ability.max_replay_window_packets}"


def _strange_protocols(sa: SecurityAssociation, ability: Ability) -> list[int]:
    """Return the protocols of the selectors that the engine does not take."""
    if not ability.selector_protocols:
        return []
    named = {selector.protocol for selector in (*sa.local_ts, *sa.remote_ts)} - {0}
    return sorted(named - ability.selector_protocols)


def _key_lengths(sa: SecurityAssociation, ability: Ability) -> str:
    family = _encryption_family(sa.encryption)
    lengths = {bits for encryption, bits in ability.encryption if encryption in family}
    return " or ".join(str(bits) for bits in sorted(lengths))


_WITHOUT_INTERFACES: Final = frozenset({Engine.XDP})
_WITH_MARKS: Final = frozenset({Engine.KERNEL, Engine.NIC_CRYPTO})
"""A NIC that looks up policies itself sees no marks."""


def _has_marks(sa: SecurityAssociation) -> bool:
    return sa.mark is not None or sa.set_mark is not None


CHECKS: Final[tuple[Check, ...]] = (
    Check(
        reason=PlacementReason.ALG_UNSUPPORTED,
        is_met=lambda sa, ability: sa.protocol in ability.protocols,
        text=lambda sa, _: f"does not do {sa.protocol.name}",
    ),
    Check(
        reason=PlacementReason.ALG_UNSUPPORTED,
        is_met=_knows_encryption,
        text=lambda sa, _: f"does not do {sa.encryption.name}",
    ),
    Check(
        reason=PlacementReason.KEYLEN,
        is_met=_takes_key,
        text=lambda sa, ability: (
            f"does {sa.encryption.name} with keys of {_key_lengths(sa, ability)} bits, not {sa.key_bits}"
        ),
    ),
    Check(
        reason=PlacementReason.ICV,
        is_met=lambda sa, ability: not _encrypts(sa) or (sa.encryption, sa.key_bits) in ability.encryption,
        text=lambda sa, _: f"does not do the ICV length of {sa.encryption.name}",
    ),
    Check(
        reason=PlacementReason.ALG_UNSUPPORTED,
        is_met=_knows_integrity,
        text=lambda sa, _: f"does not do {sa.integrity.name}",
    ),
    Check(
        reason=PlacementReason.ICV,
        is_met=lambda sa, ability: sa.integrity is Integ.NONE or sa.integrity in ability.integrity,
        text=lambda sa, _: f"does not do the ICV length of {sa.integrity.name}",
    ),
    Check(
        reason=PlacementReason.DIRECTION,
        is_met=lambda sa, ability: sa.direction in ability.directions,
        text=lambda sa, _: f"takes no {sa.direction.value} SAs",
    ),
    Check(
        reason=PlacementReason.KERNEL_TOO_OLD,
        is_met=lambda sa, ability: not any(what in ability.newer for what in _needs(sa)),
        text=lambda sa, ability: (
            "needs a newer kernel: "
            + ", ".join(
                f"{what} from Linux {ability.newer[what]}" for what in _needs(sa) if what in ability.newer
            )
        ),
    ),
    Check(
        reason=PlacementReason.MODE,
        is_met=lambda sa, ability: sa.mode in ability.modes,
        text=lambda sa, _: f"does not do {sa.mode.value} mode",
    ),
    Check(
        reason=PlacementReason.ESN,
        is_met=lambda sa, ability: ability.esn or not sa.esn,
        text=lambda _sa, _: "does not do extended sequence numbers",
    ),
    Check(
        reason=PlacementReason.REPLAY_WINDOW,
        is_met=_window_fits,
        text=lambda sa, ability: (
            f"does anti-replay windows of {_windows(ability)} packets, not {sa.replay_window_packets}"
        ),
    ),
    Check(
        reason=PlacementReason.ENCAP,
        is_met=lambda sa, ability: sa.encapsulation is None or sa.mode in ability.udp_modes,
        text=lambda sa, _: f"does not do ESP in UDP in {sa.mode.value} mode",
    ),
    Check(
        reason=PlacementReason.SELECTOR,
        is_met=lambda sa, ability: not _strange_protocols(sa, ability),
        text=lambda sa, ability: (
            "does not do selectors of IP protocol " + ", ".join(map(str, _strange_protocols(sa, ability)))
        ),
    ),
    Check(
        reason=PlacementReason.SELECTOR,
        is_met=lambda sa, ability: not sa.interface_id or ability.engine not in _WITHOUT_INTERFACES,
        text=lambda _sa, _: "has no tunnel interfaces",
    ),
    Check(
        reason=PlacementReason.SELECTOR,
        is_met=lambda sa, ability: not _has_marks(sa) or ability.engine in _WITH_MARKS,
        text=lambda _sa, _: "does not know marks of packets",
    ),
)
"""In the order in which they are told: the first that is not met is the reason."""


def first_engines(
    wanted: Sequence[Engine],
    here: Surroundings,
    *,
    has_interface: bool = False,
    has_marks: bool = False,
) -> tuple[Engine, ...]:
    """Return the engines of a wish that are here and open, for what has no SA yet to judge by.

    Args:
        wanted: The wish.
        here: What there is.
        has_interface: Whether it is about the traffic of a tunnel interface.
        has_marks: Whether it is about packets with a mark.
    """
    return tuple(
        engine
        for engine in wanted
        if not (has_interface and engine in _WITHOUT_INTERFACES)
        and not (has_marks and engine not in _WITH_MARKS)
        and any(ability.engine is engine and ability.closed is None for ability in here.abilities)
    )
