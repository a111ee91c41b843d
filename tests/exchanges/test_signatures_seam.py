"""Signatures and the judgement on certificates come from the shell: late, refused, or never.

A private key may live in an HSM and a revocation service far away. As with every request of the core, the
peer sees an orderly exchange: its retransmissions meanwhile change nothing, and a refusal becomes the right
notify.
"""

from typing import Any

import pytest

from gateway.ike.endpoint import EndpointOptions
from gateway.ike.events import (
    DatagramDropped,
    FailureReason,
    IkeSaEstablished,
    IkeSaFailed,
    Signed,
    SignRequest,
    Trusted,
    TrustRequest,
)
from gateway.ipsec.drop_reason import DropReason
from tests.exchanges.signing import CA, WHOLE, certified, failure_of, gateway_of
from tests.fakes.pair import Answered, Arrived, Asked, Host, Pair, Sent
from tests.fakes.pki import trusting, with_certificate

QUICK_DEADLINE = EndpointOptions(request_deadline_s=8.0)
PATIENT = WHOLE | {"retransmit_timeout_s": 1.0, "retransmit_base": 1.5, "retransmit_tries": 8}
KINDS: dict[str, type[Any]] = {"signature": SignRequest, "trust": TrustRequest}
CASES = [(kind, role) for kind in KINDS for role in ("initiator", "responder")]


def new_pair() -> Pair:
    alice, bob = gateway_of("alice"), gateway_of("bob")
    pair = Pair(
        alice={"local_auth": with_certificate((alice,)), "remote_auth": trusting(CA)},
        bob={"local_auth": with_certificate((bob,)), "remote_auth": trusting(CA)},
        both={"ike_options": PATIENT},
        alice_options=QUICK_DEADLINE,
        bob_options=QUICK_DEADLINE,
    )
    pair.alice.hold(alice.private)
    pair.bob.hold(bob.private)
    return pair


def host_of(pair: Pair, role: str) -> Host:
    return pair.alice if role == "initiator" else pair.bob


def asked(pair: Pair, host: Host, kind: type[Any]) -> list[Any]:
    return [
        entry.request
        for entry in pair.log
        if isinstance(entry, Asked) and entry.host == host.name and isinstance(entry.request, kind)
    ]


@pytest.mark.parametrize(("kind", "role"), CASES)
@pytest.mark.parametrize("after", [0.001, 2.0, 6.0])
def test_a_late_answer_only_takes_longer(kind: str, role: str, after: float) -> None:
    pair = new_pair()
    host = host_of(pair, role)
    host.answer(KINDS[kind], after=after)

    pair.alice.initiate()
    pair.run_for(60.0)

    pair.check(children=1)
    assert len(asked(pair, host, KINDS[kind])) == 1
    assert pair.alice.events(IkeSaFailed) + pair.bob.events(IkeSaFailed) == []


@pytest.mark.parametrize("kind", KINDS)
def test_retransmissions_meanwhile_are_absorbed(kind: str) -> None:
    pair = new_pair()
    pair.bob.answer(KINDS[kind], after=6.0)

    pair.alice.initiate()
    pair.run_for(12.0)

    arrived = [e for e in pair.log if isinstance(e, Arrived) and e.host == "bob" and e.packet.number >= 2]
    responses = [e for e in pair.log if isinstance(e, Sent) and e.host == "bob" and e.packet.number >= 2]
    again = [e for e in arrived if e.packet.data == arrived[0].packet.data]
    assert len(again) > 2
    (answered,) = [
        e.now
        for e in pair.log
        if isinstance(e, Answered) and e.host == "bob" and isinstance(e.result, Signed | Trusted)
        if isinstance(e.request, KINDS[kind])
    ]
    # One response, and not before the answer.
    assert len({e.packet.data for e in responses}) == 1
    assert responses[0].now >= answered
    pair.check(children=1)


@pytest.mark.parametrize(("kind", "role"), CASES)
@pytest.mark.parametrize("how", [{"refuse": "HSM_LOCKED"}, {"never": True}], ids=["refused", "never"])
def test_a_refusal_ends_the_ike_sa_at_both_ends(kind: str, role: str, how: dict[str, Any]) -> None:
    pair = new_pair()
    host = host_of(pair, role)
    host.answer(KINDS[kind], **how)

    pair.alice.initiate()
    pair.run_for(120.0)

    pair.check(children=0, ike_sas=0)
    failure = failure_of(host)
    missing = FailureReason.NO_CREDENTIAL if kind == "signature" else FailureReason.AUTHENTICATION_FAILED
    assert failure.reason is missing
    assert ("DEADLINE" if "never" in how else "HSM_LOCKED") in failure.detail
    assert not host.events(IkeSaEstablished)
    if (kind, role) != ("signature", "initiator"):
        assert failure_of(pair.peer_of(host)).reason is FailureReason.AUTHENTICATION_FAILED


def test_the_responder_signs_only_for_a_peer_that_proved_itself() -> None:
    pair = certified(alice=[gateway_of("mallory")])

    pair.alice.initiate()
    pair.settle()

    assert asked(pair, pair.bob, TrustRequest)
    assert not asked(pair, pair.bob, SignRequest)


def test_what_is_signed_is_what_the_rfc_says() -> None:
    # RFC 7296 §2.15: RealMessage1 | NonceRData | prf(SK_pi, IDi').
    pair = certified()

    pair.establish()

    (request,) = asked(pair, pair.alice, SignRequest)
    first = pair.sent(pair.alice)[0].data
    assert request.octets.startswith(first)
    # Nonces have 32 octets here, PRF_HMAC_SHA2_384 gives 48.
    assert len(request.octets) == len(first) + 32 + 48


def test_an_answer_after_the_deadline_is_ignored() -> None:
    pair = new_pair()
    pair.bob.answer(TrustRequest, after=20.0)

    pair.alice.initiate()
    pair.run_for(120.0)

    pair.check(children=0, ike_sas=0)
    assert not pair.bob.events(IkeSaEstablished)


@pytest.mark.parametrize("role", ["initiator", "responder"])
def test_the_ike_sa_may_end_while_the_shell_still_thinks(role: str) -> None:
    pair = new_pair()
    host = host_of(pair, role)
    host.answer(TrustRequest, after=5.0)
    pair.alice.initiate()
    pair.run_for(1.0)

    host.endpoint.configure([], pair.now)
    pair.drain(host)
    pair.run_for(120.0)

    assert host.ike_sas == ()
    assert not host.events(IkeSaEstablished)


def test_strangers_cannot_have_a_certificate_judged_without_a_key_exchange() -> None:
    pair = certified()
    pair.alice.initiate()
    pair.settle()
    request = pair.sent(pair.alice)[-1].data
    mark = len(asked(pair, pair.bob, TrustRequest))

    pair.bob.receive(request[:-1] + bytes((request[-1] ^ 1,)))

    assert len(asked(pair, pair.bob, TrustRequest)) == mark
    (dropped,) = pair.bob.events(DatagramDropped)[-1:]
    assert dropped.reason is not DropReason.IKE_UNKNOWN_SPI
