"""One setting at a time: read, told where it is wrong, and returned as our configuration has it."""

from collections.abc import Callable
from typing import Final, TypeVar

from gateway.config.foreign.draft import Plain, without_defaults
from gateway.config.foreign.proposals import Carried
from gateway.config.foreign.psk import Secrets
from gateway.config.foreign.statement import Setting, Statements
from gateway.config.foreign.values import (
    ANY_ADDRESSES,
    addresses,
    is_address,
    replay_window,
    selector,
    upper,
)

T = TypeVar("T")

OFFLOAD: Final[dict[str, dict[str, Plain]]] = {
    "no": {"prefer": ["engine", "kernel", "software"]},
    "yes": {"require": "nic_crypto"},
    "crypto": {"require": "nic_crypto"},
    "packet": {"require": "nic_packet"},
    "auto": {},
}
"""What strongSwan's `hw_offload` and libreswan's `nic-offload` ask for; `auto` is our default."""


def read(
    said: Statements, keyword: str, reader: Callable[[str], T], *, or_leave_out: bool = False
) -> T | None:
    """Return what `reader` makes of a setting; None where it is absent, or wrong and told.

    Args:
        said: The section.
        keyword: The setting.
        reader: Raises `ValueError` with what is wrong.
        or_leave_out: Without a right value all that the line belongs to is left out.
    """
    setting = said.take(keyword)
    if setting is None:
        return None
    try:
        return reader(setting.value)
    except ValueError as error:
        (said.leave_out if or_leave_out else said.lose)(setting, str(error))
        return None


def items(said: Statements, keyword: str) -> list[str]:
    """Return a list separated by commas."""
    setting = said.take(keyword)
    return [] if setting is None else list(setting.items)


def placement(said: Statements, keyword: str) -> dict[str, Plain] | None:
    """Return where the SAs shall live."""
    setting = said.take(keyword)
    if setting is None:
        return None
    wanted = OFFLOAD.get(setting.value.lower())
    if wanted is None:
        said.lose(setting, f"'{setting.value}' is unknown; one of {', '.join(OFFLOAD)} is expected")
    return wanted


def window(said: Statements, keyword: str) -> int | None:
    """Return the anti-replay window in packets."""
    setting = said.take(keyword)
    if setting is None or setting.value == "-1":
        return None
    try:
        packets, remark = replay_window(setting.value)
    except ValueError as error:
        said.lose(setting, str(error))
        return None
    if remark:
        said.lose(setting, remark)
    return packets


def taken_proposals(said: Statements, setting: Setting, carried: Carried, weak: list[str]) -> list[str]:
    """Return carried proposals and add their weak words; without any the owner is left out."""
    for problem in carried.problems:
        said.lose(setting, problem)
    if carried.problems and not carried.proposals:
        said.leave_out(setting, "none of its proposals can be carried")
    weak += [word for word in carried.allow_weak if word not in weak]
    return carried.proposals


def one_protocol(said: Statements, *, esp: str, ah: str) -> None:
    """Note proposals of ESP that stand beside those of AH: a Child SA here has one of the two."""
    if said.take(ah):
        said.of_no_use((esp,), "stands beside AH, which is carried alone: the peer must want AH too")


def outer_addresses(said: Statements, keyword: str, *, is_local: bool) -> list[str]:
    """Return the outer addresses of one side; none: any."""
    setting = said.take(keyword)
    if setting is None:
        return []
    found = addresses(setting.items)
    places = list(found.places)
    names = [place for place in places if not is_address(place)]
    if is_local and names:
        said.lose(setting, f"{', '.join(names)}: our own address is one, or whatever the kernel chooses")
        places = [place for place in places if is_address(place)]
    ranges = ", ".join(found.ranges)
    if ranges and not places:
        said.leave_out(setting, f"{ranges}: cannot be demanded; with %any authentication alone decides")
    elif ranges:
        said.lose(setting, f"{ranges}: peers are taken from the other addresses alone")
    return places


def side(places: list[str], identity: str | None, auth: dict[str, Plain] | None) -> dict[str, Plain]:
    """Return one end of a connection."""
    where: dict[str, Plain] = {"address": places[0]} if len(places) == 1 else {"addresses": places}
    return without_defaults({**where, "id": identity, "auth": auth})


def names_of(end: dict[str, Plain]) -> list[str]:
    """Return what one end may call itself: its identity, or its addresses and what nobody knows yet."""
    if end.get("id"):
        return [str(end["id"])]
    places = end.get("addresses") or [place for place in (end.get("address"),) if place]
    return [*map(str, places), "%any"]


def give_psk(said: Statements, secrets: Secrets, here: dict[str, Plain], there: dict[str, Plain]) -> None:
    """Give the ends that prove themselves by a pre-shared key theirs; without one all is left out."""
    wanting = [end for end in (here, there) if "auth" not in end]
    if not wanting:
        return
    ours, theirs = names_of(here), names_of(there)
    try:
        found = (secrets.psk(local, remote) for local in ours for remote in theirs)
        key = next((one for one in found if one is not None), None)
    except ValueError as error:
        said.leave_out_whole("secrets", str(error))
        return
    if key is None:
        said.leave_out_whole("secrets", f"no pre-shared key is for {ours[0]} and {theirs[0]}")
    for end in wanting:
        end["auth"] = {"psk": key}


def selectors(said: Statements, setting: Setting, listed: list[str], places: list[str]) -> list[str]:
    """Return traffic selectors; one without an address is of the outer address, which must be known then."""
    if [item for item in listed if item.removeprefix("%") != "dynamic"] == []:
        return []
    found = []
    for item in listed:
        address, _, rest = item.partition("[")
        if address.removeprefix("%") in ("dynamic", ""):
            if len(places) != 1 or not is_address(places[0]):
                said.leave_out(setting, f"{item}: which address that is, the IKE SA alone tells")
                continue
            address = places[0]
        try:
            found.append(selector(address, upper(rest.rstrip("] "))))
        except ValueError as error:
            said.leave_out(setting, str(error))
    return found


def is_any(text: str) -> bool:
    """Say whether a text is a word for any address or identity."""
    return text.lower() in ANY_ADDRESSES
