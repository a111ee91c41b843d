"""What a `conn` of ipsec.conf(5) means in both dialects: which side is ours, its times, its start."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from gateway.config.foreign import carry
from gateway.config.foreign.authentication import Store
from gateway.config.foreign.draft import Plain
from gateway.config.foreign.lifetimes import Limits, child_lifetimes, duration, make_limits
from gateway.config.foreign.psk import Secrets
from gateway.config.foreign.statement import Notes, Place, Rules, Setting, Statements
from gateway.config.foreign.values import count, seconds

LOCAL: Final = "local"
REMOTE: Final = "remote"

_SIDES: Final = ("left", "right")


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What every conn of one import needs."""

    notes: Notes
    secrets: Secrets
    store: Store
    setup: Mapping[str, Setting]
    """`config setup`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conn:
    """One conn, carried."""

    name: str
    place: Place
    here: dict[str, Plain]
    there: dict[str, Plain]
    ike: dict[str, Plain]
    children: list[dict[str, Plain]]
    weak: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Lifetimes that a dialect has where a conn says nothing, in seconds."""

    ike_s: float
    child_s: float
    margin_s: float = 540.0


def rules_of(conn: Rules, local: Rules, remote: Rules) -> Rules:
    """Return the rules of a conn whose sides are named `local` and `remote`."""
    sides = {f"{LOCAL}{name}": rule for name, rule in local.items()}
    return {**conn, **sides, **{f"{REMOTE}{name}": rule for name, rule in remote.items()}}


def oriented(
    settings: Mapping[str, Setting], addresses: Collection[str], wanted: str
) -> tuple[dict[str, Setting], str]:
    """Return settings with `left` and `right` renamed to `local` and `remote`, and why so.

    Args:
        settings: Of the conn.
        addresses: This machine's.
        wanted: `left` or `right` where the operator said which is local, else empty.
    """
    ours, why = (wanted, "") if wanted else _our_side(settings, addresses)
    names = {ours: LOCAL, _SIDES[ours == "left"]: REMOTE}
    renamed = {}
    for keyword, setting in settings.items():
        side = next((side for side in _SIDES if keyword.startswith(side)), "")
        renamed[names[side] + keyword.removeprefix(side) if side else keyword] = setting
    return renamed, why


def _our_side(settings: Mapping[str, Setting], addresses: Collection[str]) -> tuple[str, str]:
    said = {side: settings[side].value.lower() if side in settings else "%any" for side in _SIDES}
    for side in _SIDES:
        items = {item.strip().removeprefix("%") for item in said[side].split(",")}
        if items & {address.lower() for address in addresses} or said[side] == "%defaultroute":
            return side, ""
    return "left", "neither left nor right is an address of this machine: left is taken as local (--local)"


def start(said: Statements, meanings: Mapping[str, str | None]) -> str | None:
    """Return when a conn is brought up."""
    setting = said.take("auto")
    if setting is None:
        return None
    if setting.value.lower() not in meanings:
        said.lose(setting, f"'{setting.value}' is unknown; one of {', '.join(meanings)} is expected")
    return meanings.get(setting.value.lower())


# --- lifetimes ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """The lifetimes of a conn in our words."""

    ike: dict[str, Plain]
    child: dict[str, Plain]


def lifetimes(said: Statements, times: Times) -> Lifetimes:
    """Return when IKE SA and Child SA are renewed: so much before the end, and a random part earlier."""
    if (rekey := said.take("rekey")) and said.flag("rekey") is False:
        said.lose(rekey, "an end without rekeying is not there: SAs are rekeyed shortly before")
    fuzz_setting = said.take("rekeyfuzz")
    fuzz = 1.0 if fuzz_setting is None else carry.read(said, "rekeyfuzz", _percent)
    margin = carry.read(said, "margintime", seconds)
    ike_s, child_s = carry.read(said, "ikelifetime", seconds), carry.read(said, "lifetime", seconds)
    says_margin = margin is not None or fuzz_setting is not None
    margin_s = times.margin_s if margin is None else margin
    fuzz = 1.0 if fuzz is None else fuzz
    words = ("margintime", "rekeyfuzz", "ikelifetime", "lifetime")
    setting = next((found for word in words if (found := said.take(word))), None)
    ike: dict[str, Plain] = {}
    if ike_s is not None or says_margin:
        ike = _ike_times(said, setting, times.ike_s if ike_s is None else ike_s, margin_s, fuzz)
    time = Limits()
    if child_s is not None or says_margin:
        time = _earlier(said, setting, times.child_s if child_s is None else child_s, margin_s, fuzz)
    size, packets = (_volume(said, unit, fuzz) for unit in ("bytes", "packets"))
    return Lifetimes(ike=ike, child=child_lifetimes(time, size, packets, said))


def _percent(text: str) -> float:
    found = re.fullmatch(r"([0-9]+)\s*%?", text)
    if found is None:
        raise ValueError(f"'{text}' is no percentage")
    return int(found[1]) / 100


def _ike_times(
    said: Statements, setting: Setting | None, life_s: float, margin_s: float, fuzz: float
) -> dict[str, Plain]:
    limits = _earlier(said, setting, life_s, margin_s, fuzz)
    if limits.soft is None:
        return {}
    return {"rekey": duration(limits.soft), "over_time": duration(margin_s), "jitter": limits.jitter}


def _earlier(said: Statements, setting: Setting | None, life: float, margin: float, fuzz: float) -> Limits:
    """Return the limits of something that is renewed `margin`, and a random part of that, before its end."""
    soft = life - margin
    if soft <= 0 or margin * (1 + fuzz) > life:
        if setting is not None:
            said.lose(setting, "the margin leaves nothing of the lifetime; our default is used")
        return Limits()
    return make_limits(soft, life, margin * fuzz, setting)


def _volume(said: Statements, unit: str, fuzz: float) -> Limits:
    setting = said.take(f"life{unit}")
    life, margin = carry.read(said, f"life{unit}", count), carry.read(said, f"margin{unit}", count)
    if life is None:
        if margin is not None and (given := said.take(f"margin{unit}")):
            said.lose(given, f"is for life{unit}, which is not given")
        return Limits()
    if not margin:
        return Limits(soft=life)
    return _earlier(said, setting, life, margin, fuzz)


def reauthenticated(ike: dict[str, Plain], times: Times) -> dict[str, Plain]:
    """Return IKE options that authenticate anew at the time at which they would have rekeyed."""
    return {**ike, "reauth": ike.get("rekey", duration(times.ike_s - times.margin_s)), "rekey": "0s"}
