"""Tunnel interfaces: from records to messages, and from untrusted messages to records."""

from collections.abc import Callable, Iterable
from ipaddress import ip_interface, ip_network
from typing import TypeVar

from gateway.api.types.v1 import ipsec_pb2 as tpb
from gateway.api.violations import Violations, at
from gateway.ipsec.errors import VocabularyError
from gateway.ipsec.interface import TunnelInterface, id_of_name
from gateway.ipsec.sa import IpAddress

T = TypeVar("T")


def write_interface(interface: TunnelInterface | None) -> tpb.TunnelInterface | None:
    """Return an interface message."""
    if interface is None:
        return None
    return tpb.TunnelInterface(
        name=interface.name,
        id=interface.id,
        mtu=interface.mtu_bytes,
        addresses=[str(address) for address in interface.addresses],
        routes=[str(route) for route in interface.routes],
        vrf=interface.vrf,
    )


def read_interface(message: tpb.TunnelInterface, path: str, violations: Violations) -> TunnelInterface | None:
    """Return an interface; one without an id gets one that is made of its name."""
    before = len(violations)
    addresses = _each(message.addresses, ip_interface, path, "addresses", violations)
    routes = _each(message.routes, ip_network, path, "routes", violations)
    if len(violations) > before:
        return None
    try:
        return TunnelInterface(
            name=message.name,
            id=message.id or id_of_name(message.name),
            mtu_bytes=message.mtu,
            addresses=addresses,
            routes=routes,
            vrf=message.vrf,
        )
    except VocabularyError as error:
        violations.add(path, str(error))
        return None


def check_routes(
    interface: TunnelInterface, peers: Iterable[IpAddress], path: str, violations: Violations
) -> None:
    """Refuse routes that would lead ESP to the peer into its own tunnel; those of a VRF do not."""
    for number, route in enumerate(interface.routes):
        held = next((peer for peer in peers if peer.version == route.version and peer in route), None)
        if held is not None and not interface.vrf:
            violations.add(
                at(path, "routes", number),
                f"holds the peer's address {held}, so ESP would be led into its own tunnel: leave that out, "
                "or make the route yourself, beside a narrower one to the peer",
            )


def _each(
    texts: Iterable[str], parse: Callable[[str], T], path: str, name: str, violations: Violations
) -> tuple[T, ...]:
    found = []
    for number, text in enumerate(texts):
        try:
            found.append(parse(text))
        except ValueError as error:
            violations.add(at(path, name, number), str(error))
    return tuple(found)
