"""Route-based tunnels of other daemons: XFRM interfaces by their if_id, and VTI devices by their name."""

from collections.abc import Iterable
from ipaddress import ip_address, ip_interface, ip_network
from typing import Final

from gateway.config.foreign import carry
from gateway.config.foreign.draft import Plain, without_defaults
from gateway.config.foreign.statement import NO, YES, Setting, Statements
from gateway.ipsec.interface import check_link_name

_MAX_ID: Final = (1 << 32) - 1
_TRANSPORT: Final = "carries traffic of an interface in transport mode, which is not done here"


def by_if_id(said: Statements, around: Statements, child: dict[str, Plain]) -> dict[str, Plain] | None:
    """Return the interface of a child of swanctl.conf, by the if_id of the child or of its connection."""
    found = [_if_id(said, around, f"if_id_{way}") for way in ("in", "out")]
    numbers = {number for _, number in found}
    setting = next((setting for setting, _ in found if setting is not None), None)
    if setting is None or numbers == {0}:
        return None
    if len(numbers) != 1:
        said.leave_out(setting, "if_id_in and if_id_out differ, and here one interface carries both ways")
        return None
    if child.get("mode") == "transport":
        said.leave_out(setting, _TRANSPORT)
        return None
    (number,) = numbers
    name = f"ipsec{number}" if number < 10**10 else "ipsec0"
    said.lose(setting, f"is carried as interface {name}: say what yours is called, or remove it")
    return {"name": name, "id": number}


def _if_id(said: Statements, around: Statements, keyword: str) -> tuple[Setting | None, int]:
    setting = said.take(keyword) or around.take(keyword)
    if setting is None:
        return None, 0
    try:
        number = int(setting.value, 0)
        if not 0 <= number <= _MAX_ID:
            raise ValueError
    except ValueError:
        said.leave_out(setting, f"'{setting.value}' is no number of an interface that could be known here")
        return None, 0
    return setting, number


def by_interface(
    said: Statements, side: str, children: Iterable[dict[str, Plain]], peers: Iterable[str]
) -> dict[str, Plain] | None:
    """Return the interface of a conn of libreswan: `ipsec-interface`, or `vti-interface` with its mark.

    Args:
        said: The conn.
        side: Ours, as its keywords begin.
        children: All that it becomes; their remote selectors are led into the interface, as that daemon does.
        peers: Outer addresses of the other side.
    """
    number = carry.read(said, "ipsec-interface", _number, or_leave_out=True)
    if number is not None:
        addresses = carry.read(said, "interface-ip", _address)
        name, has_routes = f"ipsec{number}", True
    else:
        found = carry.read(said, "vti-interface", _link_name, or_leave_out=True)
        if found is None:
            return None
        name = found
        said.of_no_use(("mark", "mark-in", "mark-out"), "is of no use: an interface needs no mark here")
        said.of_no_use(("vti-shared",), "is of no use: children share an interface by naming it")
        addresses = carry.read(said, f"{side}vti", _address)
        has_routes = said.flag("vti-routing") is not False
    children = tuple(children)
    setting = said.take("ipsec-interface") or said.take("vti-interface")
    if setting is not None and any(child.get("mode") == "transport" for child in children):
        said.leave_out(setting, _TRANSPORT)
    routes = list(dict.fromkeys(route for child in children for route in child.get("remote_ts", ())))
    led, left = _split(routes if has_routes else [], list(peers))
    if left and setting is not None:
        text = f"no route to {', '.join(left)} is carried: make it yourself, beside one to the peer"
        said.lose(setting, text)
    return without_defaults(
        {
            "name": name,
            "id": number or None,
            "addresses": [] if addresses is None else [addresses],
            "routes": led,
        }
    )


def _split(routes: list[str], peers: list[str]) -> tuple[list[str], list[str]]:
    """Return what may be led into the interface, and what not: no prefix, or with the peer inside."""
    led: list[str] = []
    left: list[str] = []
    for route in routes:
        try:
            prefix = ip_network(route)
            holds = any(ip_address(peer) in prefix for peer in peers)
        except ValueError:
            left.append(route)
            continue
        (left if holds or not prefix.prefixlen else led).append(route)
    return led, left


def _number(text: str) -> int | None:
    if text.lower() in NO:
        return None
    if text.lower() in YES:
        return 1
    if not text.isdecimal() or int(text) > _MAX_ID:
        raise ValueError(f"'{text}' is neither yes, no, nor the number of an interface")
    return int(text)


def _address(text: str) -> str:
    return str(ip_interface(text))


def _link_name(text: str) -> str:
    check_link_name(text)
    return text
