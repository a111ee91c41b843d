"""SAs and policies for the suite."""

from dataclasses import replace
from ipaddress import ip_address
from itertools import count
from typing import Any

from gateway.ipsec.algorithms import Encr
from gateway.ipsec.policy import Action, Policy
from gateway.ipsec.sa import Direction, SecurityAssociation, Spi
from gateway.ipsec.secret import Secret
from gateway.ipsec.selectors import TrafficSelector

LOCAL = (TrafficSelector.parse("10.1.0.0/16"),)
REMOTE = (TrafficSelector.parse("10.2.0.0/16"),)
OURS, PEER = ip_address("192.0.2.1"), ip_address("192.0.2.2")

_keys = count(1)


def outbound(spi: int = 0x2001, **changes: Any) -> SecurityAssociation:
    """Return an outbound SA with a key that no other has."""
    return replace(_sa(spi, Direction.OUTBOUND, OURS, PEER), **changes)


def inbound(spi: int = 0x1001, **changes: Any) -> SecurityAssociation:
    return replace(_sa(spi, Direction.INBOUND, PEER, OURS), **changes)


def _sa(spi: int, direction: Direction, source: Any, destination: Any) -> SecurityAssociation:
    return SecurityAssociation(
        spi=Spi(spi),
        direction=direction,
        source=source,
        destination=destination,
        encryption=Encr.AES_GCM_16,
        encryption_key=Secret(next(_keys).to_bytes(36, "big")),
        key_bits=256,
        local_ts=LOCAL,
        remote_ts=REMOTE,
        connection="paris",
        child="lan",
        child_sa_id=1,
    )


def policy(name: str = "paris/lan", **changes: Any) -> Policy:
    """Return a PROTECT policy."""
    made = Policy(
        name=name, action=Action.PROTECT, local_ts=LOCAL, remote_ts=REMOTE, connection="paris", child="lan"
    )
    return replace(made, **changes)
