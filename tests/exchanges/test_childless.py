"""IKE SAs without a Child SA (RFC 6023)."""

import pytest

from gateway.ike.events import ChildSaEstablished, ChildSaFailed, FailureReason, IkeSaEstablished, IkeSaFailed
from gateway.ike.wire.notify import NotifyType
from gateway.ike.wire.payloads import KePayload
from gateway.ipsec.connection import Childless
from tests.fakes.pair import Pair

INIT = ["IKE_SA_INIT {SAi1, KEi, Ni} -->", "<-- IKE_SA_INIT {SAr1, KEr, Nr}"]
CHILDLESS_AUTH = ["IKE_AUTH SK {IDi, IDr, AUTH} -->", "<-- IKE_AUTH SK {IDr, AUTH}"]


def pair_with(alice, bob, **both):
    return Pair(
        alice={"ike_options": {"childless": alice}},
        bob={"ike_options": {"childless": bob}},
        both=both,
    )


@pytest.mark.parametrize(
    ("wish", "is_said"), [(Childless.ALLOW, True), (Childless.FORCE, True), (Childless.NEVER, False)]
)
def test_the_responder_says_whether_it_can_do_without(wish, is_said):
    # §3: the initiator says nothing.
    pair = pair_with(Childless.ALLOW, wish)

    pair.alice.initiate()
    pair.settle()

    request, response = pair.messages()[:2]
    assert request.notify(NotifyType.CHILDLESS_IKEV2_SUPPORTED) is None
    assert (response.notify(NotifyType.CHILDLESS_IKEV2_SUPPORTED) is not None) is is_said


def test_without_a_child_to_start_the_ike_sa_comes_up_alone():
    # HDR, SK {IDi, [IDr], AUTH} -->
    #                             <-- HDR, SK {IDr, AUTH}
    pair = pair_with(Childless.ALLOW, Childless.ALLOW)

    pair.alice.initiate(None)
    pair.settle()

    assert pair.story() == [*INIT, *CHILDLESS_AUTH]
    pair.check(children=0)


def test_a_child_sa_comes_later_by_create_child_sa():
    pair = pair_with(Childless.ALLOW, Childless.ALLOW)
    pair.alice.initiate(None)
    pair.settle()

    pair.alice.initiate("lan")
    pair.settle()

    assert len(pair.story()) == 6
    pair.check(children=1)


def test_so_may_the_responder_bring_it_up():
    pair = pair_with(Childless.ALLOW, Childless.ALLOW)
    pair.alice.initiate(None)
    pair.settle()

    pair.bob.initiate("lan")
    pair.settle()

    pair.check(children=1)
    assert len(pair.bob.ike_sas) == 1


def test_forced_the_first_child_sa_has_a_key_exchange_of_its_own():
    pair = pair_with(Childless.FORCE, Childless.ALLOW, esp="aes256gcm16-x25519")

    pair.alice.initiate("lan")
    pair.settle()

    assert pair.story()[2:4] == CHILDLESS_AUTH
    assert any(isinstance(payload, KePayload) for payload in pair.messages()[4].payloads)
    pair.check(children=1)
    # One IKE SA, one Child SA, each told once.
    assert len(pair.alice.events(IkeSaEstablished)) == len(pair.alice.events(ChildSaEstablished)) == 1


def test_forced_a_peer_that_cannot_is_refused_with_the_reason():
    pair = pair_with(Childless.FORCE, Childless.NEVER)

    pair.alice.initiate("lan")
    pair.run_for(40.0)

    (failed,) = pair.alice.events(IkeSaFailed)
    assert "CHILDLESS_IKEV2_SUPPORTED" in failed.failure.detail
    assert pair.alice.ike_sas == pair.bob.ike_sas == ()


@pytest.mark.parametrize("alice", [Childless.ALLOW, Childless.NEVER])
def test_where_the_peer_cannot_the_first_configured_child_comes_with_the_ike_sa(alice):
    pair = pair_with(alice, Childless.NEVER if alice is Childless.ALLOW else Childless.ALLOW)

    pair.alice.initiate(None)
    pair.settle()

    pair.check(children=1)


def test_with_no_child_at_all_a_peer_that_cannot_is_no_use():
    pair = Pair(alice={"children": []}, bob={"ike_options": {"childless": Childless.NEVER}})

    pair.alice.initiate(None)
    pair.run_for(40.0)

    (failed,) = pair.alice.events(IkeSaFailed)
    assert "no Child to start" in failed.failure.detail


def test_with_no_child_at_all_there_can_be_an_ike_sa():
    pair = Pair(both={"children": []})

    pair.alice.initiate(None)
    pair.settle()

    pair.check(children=0)


def test_never_as_responder_a_childless_ike_auth_is_refused():
    # Alice has seen a notify that Bob did not say.
    pair = pair_with(Childless.ALLOW, Childless.NEVER)
    pair.alice.initiate(None)
    pair.run_until(lambda: pair.alice.ike_sas[0].state == "authenticating" or len(pair.messages()) == 2)
    (ike_sa,) = pair.alice.endpoint._ike_sas.all()
    ike_sa.can_be_childless = True
    pair.run_for(40.0)

    assert pair.story()[3] == "<-- IKE_AUTH SK {N(INVALID_SYNTAX)}" or pair.alice.child_sas
    assert not [sa for sa in pair.bob.ike_sas if not pair.bob.child_sas]


def test_forced_as_responder_the_child_sa_of_ike_auth_is_refused_and_the_ike_sa_stays():
    # RFC 7296 §1.2: "... {IDr, AUTH, N(error)}: the IKE SA is created".
    pair = pair_with(Childless.ALLOW, Childless.FORCE)

    pair.alice.initiate("lan")
    pair.settle()

    assert pair.story()[3] == "<-- IKE_AUTH SK {IDr, AUTH, N(NO_ADDITIONAL_SAS)}"
    (failed,) = pair.alice.events(ChildSaFailed)
    assert failed.failure.reason is FailureReason.PEER_NOTIFY
    pair.check(children=0)
    pair.alice.initiate("lan")
    pair.settle()
    pair.check(children=1)


def test_a_childless_ike_sa_is_rekeyed_and_deleted_like_any_other():
    pair = pair_with(Childless.ALLOW, Childless.ALLOW)
    pair.alice.initiate(None)
    pair.settle()

    pair.alice.rekey_ike()
    pair.settle()
    pair.check(children=0)
    pair.bob.delete_ike()
    pair.settle()

    pair.check(children=0, ike_sas=0)
