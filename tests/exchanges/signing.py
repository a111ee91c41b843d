"""Pairs of gateways that sign: what the tests of certificates and raw public keys begin with."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from gateway.ike.crypto.revocation import read_crl
from gateway.ike.events import IkeSaDeleted, IkeSaFailed
from gateway.ike.wire.payloads import Payload
from gateway.ipsec.connection import Fragmentation
from tests.fakes.pair import Host, Pair
from tests.fakes.pki import Issued, issue, trusting, with_certificate
from tests.fakes.tap import Opened

CA = issue("CA")
SUB_CA = issue("Sub CA", CA, kind="p384", is_ca=True)
OTHER_CA = issue("Other CA")

#: Whole messages, so that a test can look into each.
WHOLE = {"fragmentation": Fragmentation.NO}


def gateway_of(who: str, issuer: Issued = CA, kind: str = "p256", **changes: Any) -> Issued:
    """Return a gateway's certificate, for the identity `who.example`."""
    return issue(who, issuer, kind=kind, **{"names": [f"{who}.example"]} | changes)


def certified(
    *,
    alice: Sequence[Issued] = (),
    bob: Sequence[Issued] = (),
    alice_trusts: Any = None,
    bob_trusts: Any = None,
    alice_signs: dict[str, Any] | None = None,
    bob_signs: dict[str, Any] | None = None,
    crls: Iterable[bytes] = (),
    both: dict[str, Any] | None = None,
) -> Pair:
    """Return Alice and Bob with a chain each, of one authority that both trust unless told otherwise."""
    alice, bob = alice or (gateway_of("alice"),), bob or (gateway_of("bob"),)
    pair = Pair(
        alice={
            "local_auth": with_certificate(alice, above=(CA,), **alice_signs or {}),
            "remote_auth": alice_trusts or trusting(CA),
        },
        bob={
            "local_auth": with_certificate(bob, above=(CA,), **bob_signs or {}),
            "remote_auth": bob_trusts or trusting(CA),
        },
        both={"ike_options": WHOLE} | (both or {}),
    )
    lists = [read_crl(der) for der in crls]
    pair.alice.hold(alice[0].private, crls=lists)
    pair.bob.hold(bob[0].private, crls=lists)
    return pair


def last(pair: Pair, host: Host) -> Opened:
    """Return the last message of a side, opened."""
    return pair.tap.open(pair.sent(host)[-1].data)


def alter_request(pair: Pair, change: Callable[[list[Payload]], list[Payload]]) -> None:
    """Have Alice begin, and her IKE_AUTH request arrive with other payloads, authentic all the same."""
    pair.link.fate = lambda packet: () if packet.number == 2 else (0.0,)
    pair.alice.initiate()
    pair.settle()
    request = last(pair, pair.alice)
    pair.bob.receive(_sealed(pair, request, change))
    pair.settle()


def alter_response(pair: Pair, change: Callable[[list[Payload]], list[Payload]]) -> None:
    """Have Alice begin, and Bob's IKE_AUTH response arrive with other payloads."""
    pair.link.fate = lambda packet: () if packet.number == 3 else (0.0,)
    pair.alice.initiate()
    pair.settle()
    response = last(pair, pair.bob)
    pair.alice.receive(_sealed(pair, response, change))
    pair.settle()


def _sealed(pair: Pair, opened: Opened, change: Callable[[list[Payload]], list[Payload]]) -> bytes:
    header = opened.message.header
    return pair.tap.keys(header.spi_i, header.spi_r).seal(header, change(list(opened.payloads)))


def failure_of(host: Host) -> Any:
    """Return why the only IKE SA of a side failed or ended."""
    (event,) = host.events(IkeSaFailed, IkeSaDeleted)
    return event.failure
