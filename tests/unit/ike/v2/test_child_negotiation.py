"""What an initiator makes of an answer to its offer (RFC 7296 §2.7, §2.9)."""

import pytest

from gateway.ike.errors import InvalidSyntax
from gateway.ike.events import FailureReason
from gateway.ike.v2.child_negotiation import Offer, check_answer, child_proposals, encode_spi, parse_spi
from gateway.ike.v2.exchange import ChildRefusedByPeer, ChildRejected
from gateway.ike.wire.notify import NotifyType
from gateway.ike.wire.payloads import NotifyPayload, SaPayload, TsiPayload, TsrPayload
from gateway.ike.wire.sa_payload import wire_proposal
from gateway.ipsec.algorithms import TransformType
from gateway.ipsec.connection import Child
from gateway.ipsec.proposal import ProtocolId, parse_proposal
from gateway.ipsec.sa import Mode, Spi
from tests.fakes.pair import selectors

SPI = encode_spi(Spi(0xB0000001))


def esp(text):
    return parse_proposal(text, ProtocolId.ESP)


def offer(mode=Mode.TUNNEL):
    return Offer(
        child=Child(name="lan"),
        proposals=(esp("aes256gcm16-aes128gcm16"), esp("aes256-sha256")),
        spi_in=Spi(0xA0000001),
        local_ts=selectors("10.1.0.0/16"),
        remote_ts=selectors("10.2.0.0/16"),
        mode=mode,
    )


def answer(proposal="aes128gcm16", *, spi=SPI, tsi="10.1.0.0/16", tsr="10.2.0.0/16", number=1, extra=()):
    sa = SaPayload((wire_proposal(esp(proposal), number, spi),))
    return (*extra, sa, TsiPayload(selectors(tsi)), TsrPayload(selectors(tsr)))


def test_a_choice_among_our_proposals_and_a_part_of_our_selectors_is_an_agreement():
    agreed = check_answer(offer(), answer(tsi="10.1.7.0/24", tsr="10.2.0.1/32"), with_ke=False)

    assert str(agreed.proposal) == "aes128gcm16"
    assert agreed.spi_out == 0xB0000001
    assert agreed.local_ts == selectors("10.1.7.0/24")
    assert agreed.remote_ts == selectors("10.2.0.1/32")
    assert agreed.mode is Mode.TUNNEL


@pytest.mark.parametrize(
    "chosen", ["aes192gcm16", "aes256-sha384", "aes256gcm16-aes128gcm16", "aes256gcm16-esn"]
)
def test_what_was_not_offered_cannot_be_chosen(chosen):
    with pytest.raises(ChildRejected) as caught:
        check_answer(offer(), answer(chosen), with_ke=False)

    assert caught.value.failure.reason is FailureReason.NO_PROPOSAL_CHOSEN
    assert caught.value.failure.configured in (chosen, "")


def test_two_proposals_are_no_choice():
    both = SaPayload(tuple(wire_proposal(esp("aes256gcm16"), n, SPI) for n in (1, 2)))
    payloads = (both, *answer()[1:])

    with pytest.raises(ChildRejected):
        check_answer(offer(), payloads, with_ke=False)


@pytest.mark.parametrize(
    ("tsi", "tsr"),
    [("10.0.0.0/8", "10.2.0.0/16"), ("10.1.0.0/16", "0.0.0.0/0"), ("10.2.0.0/16", "10.1.0.0/16")],
)
def test_selectors_wider_than_ours_are_refused(tsi, tsr):
    with pytest.raises(ChildRejected) as caught:
        check_answer(offer(), answer(tsi=tsi, tsr=tsr), with_ke=False)

    failure = caught.value.failure
    assert failure.reason is FailureReason.TS_UNACCEPTABLE
    assert failure.offered == "10.1.0.0/16 === 10.2.0.0/16"
    assert failure.configured == f"{tsi} === {tsr}"


def test_transport_mode_that_nobody_asked_for_is_refused():
    asked = NotifyPayload(NotifyType.USE_TRANSPORT_MODE)

    with pytest.raises(ChildRejected, match="transport mode, which we did not ask for"):
        check_answer(offer(), answer(extra=(asked,)), with_ke=False)
    agreed = check_answer(offer(Mode.TRANSPORT), answer(extra=(asked,)), with_ke=False)

    assert agreed.mode is Mode.TRANSPORT


@pytest.mark.parametrize(
    ("notify", "reason"),
    [
        (NotifyType.NO_PROPOSAL_CHOSEN, FailureReason.NO_PROPOSAL_CHOSEN),
        (NotifyType.TS_UNACCEPTABLE, FailureReason.TS_UNACCEPTABLE),
        (NotifyType.NO_ADDITIONAL_SAS, FailureReason.PEER_NOTIFY),
        (8192, FailureReason.PEER_NOTIFY),
    ],
)
def test_a_refusal_says_what_we_offered(notify, reason):
    with pytest.raises(ChildRefusedByPeer) as caught:
        check_answer(offer(), (NotifyPayload(notify),), with_ke=False)

    failure = caught.value.failure
    assert failure.reason is reason
    assert failure.offered in ("aes256gcm16-aes128gcm16, aes256-sha256", "10.1.0.0/16 === 10.2.0.0/16")
    assert failure.offered in failure.detail


def test_an_answer_without_anything_is_no_answer():
    with pytest.raises(ChildRefusedByPeer, match="neither a Child SA nor an error"):
        check_answer(offer(), (), with_ke=False)


@pytest.mark.parametrize("spi", [b"", bytes(4), bytes.fromhex("000000ff"), bytes(8)])
def test_a_reserved_or_misshapen_spi_is_a_syntax_error(spi):
    with pytest.raises(InvalidSyntax, match="an ESP or AH SPI has 4 bytes and is 256 or more"):
        parse_spi(spi)


def test_in_ike_auth_nothing_is_said_of_key_exchange():
    child = Child(name="lan", proposals=(esp("aes256gcm16-x25519"), esp("aes256gcm16")))

    offered = child_proposals(child, with_ke=False)

    assert [str(proposal) for proposal in offered] == ["aes256gcm16"]
    assert not any(proposal.of_type(TransformType.KE) for proposal in offered)
    assert len(child_proposals(child, with_ke=True)) == 2
