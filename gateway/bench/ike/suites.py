"""The suites that handshakes are measured with, and the connections of both ends."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Final

from gateway.bench.ike.pki import RESPONDER, Pki
from gateway.ipsec.authentication import PSK_AUTHENTICATION, Authentication
from gateway.ipsec.connection import Child, Connection, IkeOptions, Side
from gateway.ipsec.identity import Identity, IdType
from gateway.ipsec.proposal import ProtocolId, parse_proposal
from gateway.ipsec.sa import IpAddress
from gateway.ipsec.secret import Secret
from gateway.ipsec.selectors import TrafficSelector

PSK: Final = "a key for measurements, on no real wire"
CHILD: Final = "lan"
RESPONDER_LAN: Final = "10.2.0.0/16"
RESPONDER_GATEWAY: Final = "10.2.0.1"

INITIATORS_LAN: Final = "10.64.0.0/10"
"""All initiators say that they protect the same network: a datapath that installs routes, as charon's does,
then installs one for all of them, and that is not what is measured here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """One way to make an IKE SA and its first Child SA."""

    name: str
    """As it is chosen on the command line and named in results."""
    ike: str
    """Proposal string of the IKE SA."""
    esp: str = "aes256gcm16"
    """Proposal string of the Child SA."""
    keys: str = ""
    """Kind of both sides' keys (`pki.KINDS`) where they sign; else they have a pre-shared key."""


SUITES: Final = (
    Suite(name="psk-x25519", ike="aes256gcm16-prfsha256-x25519"),
    Suite(name="psk-ecp256", ike="aes256gcm16-prfsha256-ecp256"),
    Suite(name="psk-ecp384-cbc", ike="aes256-sha384-ecp384", esp="aes256-sha256"),
    Suite(name="psk-modp2048", ike="aes256gcm16-prfsha256-modp2048"),
    Suite(name="psk-modp3072", ike="aes256gcm16-prfsha256-modp3072"),
    Suite(name="ecdsa256-x25519", ike="aes256gcm16-prfsha256-x25519", keys="ecdsa256"),
    Suite(name="ed25519-x25519", ike="aes256gcm16-prfsha256-x25519", keys="ed25519"),
    Suite(name="rsa3072-x25519", ike="aes256gcm16-prfsha256-x25519", keys="rsa3072"),
)
DEFAULT_SUITE: Final = SUITES[0]


def find_suites(names: Sequence[str]) -> tuple[Suite, ...]:
    """Return the suites with these names, all of them for none.

    Raises:
        KeyError: There is no suite with a name.
    """
    by_name = {suite.name: suite for suite in SUITES}
    return tuple(by_name[name] for name in names) if names else SUITES


def new_psk() -> Secret:
    """Return the key of both ends; each use wipes its own copy."""
    return Secret(PSK.encode())


def initiator_name(number: int) -> str:
    """Return the connection name, and the identity, of one initiator."""
    return f"site{number:05d}.bench"


def initiators(
    suite: Suite,
    numbers: Iterable[int],
    *,
    local: IpAddress,
    remote: IpAddress,
    dpd_delay_s: float = 30.0,
    pki: Pki | None = None,
) -> list[Connection]:
    """Return one connection per initiator, all from one address to one responder."""
    return [
        Connection(
            name=name,
            local=Side(addresses=(local,), id=_fqdn(name), auth=_own(pki, name)),
            remote=Side(addresses=(remote,), id=_fqdn(RESPONDER), auth=_peer(pki)),
            ike=_ike_options(suite, dpd_delay_s),
            children=(_child(suite, local_ts=INITIATORS_LAN, remote_ts=RESPONDER_LAN),),
        )
        for name in map(initiator_name, numbers)
    ]


def responder(
    suite: Suite, *, local: IpAddress, dpd_delay_s: float = 30.0, pki: Pki | None = None
) -> Connection:
    """Return the one connection that takes every initiator."""
    return Connection(
        name="hub",
        local=Side(addresses=(local,), id=_fqdn(RESPONDER), auth=_own(pki, RESPONDER)),
        remote=Side(id=_fqdn("*.bench"), auth=_peer(pki)),
        ike=_ike_options(suite, dpd_delay_s),
        children=(_child(suite, local_ts=RESPONDER_LAN, remote_ts=INITIATORS_LAN),),
    )


def _own(pki: Pki | None, name: str) -> Authentication:
    return PSK_AUTHENTICATION if pki is None else pki.own(name)


def _peer(pki: Pki | None) -> Authentication:
    return PSK_AUTHENTICATION if pki is None else pki.peer()


def _ike_options(suite: Suite, dpd_delay_s: float) -> IkeOptions:
    return IkeOptions(proposals=(parse_proposal(suite.ike, ProtocolId.IKE),), dpd_delay_s=dpd_delay_s)


def _child(suite: Suite, *, local_ts: str, remote_ts: str) -> Child:
    return Child(
        name=CHILD,
        local_ts=(_network(local_ts),),
        remote_ts=(_network(remote_ts),),
        proposals=(parse_proposal(suite.esp, ProtocolId.ESP),),
    )


def _network(prefix: str) -> TrafficSelector:
    network = ip_network(prefix)
    return TrafficSelector(network[0], network[-1])


def _fqdn(name: str) -> Identity:
    return Identity(IdType.FQDN, name.encode())
