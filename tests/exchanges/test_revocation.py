"""A certificate that is revoked while its IKE SA is up (RFC 5280 §5; RFC 7296 leaves it to policy)."""

import pytest

from gateway.ike.crypto.revocation import read_crl
from gateway.ike.events import FailureReason, IkeSaDeleted, TrustRequest
from tests.exchanges.signing import CA, certified, failure_of, gateway_of
from tests.fakes.pair import Asked, Host, Pair
from tests.fakes.pki import Issued, crl

ALICE = gateway_of("alice")
OTHER = gateway_of("other")


def up() -> Pair:
    """Return a pair that is up; Bob has an empty CRL."""
    pair = certified(alice=(ALICE,), crls=[crl(CA)])
    pair.establish()
    return pair


def revoke(pair: Pair, *revoked: Issued, ends: float = 30 * 86400.0) -> None:
    """Give Bob a new CRL, and have him judge again."""
    (connection,) = pair.bob._connections
    pair.bob.credentials.configure(connection, None, (read_crl(crl(CA, *revoked, ends=ends)),))
    for ike_sa in pair.bob.ike_sas:
        pair.bob.endpoint.review_trust(ike_sa.ike_sa_id, pair.now)
    pair.drain(pair.bob)


def asked(host: Host, pair: Pair) -> int:
    return sum(
        isinstance(e, Asked) and e.host == host.name and isinstance(e.request, TrustRequest) for e in pair.log
    )


def test_a_peer_that_is_revoked_is_cut_off_at_once_and_told() -> None:
    pair = up()
    mark = pair.mark

    revoke(pair, ALICE)

    assert pair.bob.ike_sas == ()
    assert pair.bob.sad.sas == {}
    failure = failure_of(pair.bob)
    assert failure.reason is FailureReason.AUTHENTICATION_FAILED
    assert "CERTIFICATE_REVOKED" in failure.detail
    pair.settle()
    # <-- INFORMATIONAL SK { D(IKE) }, which Alice answers; nobody waits for that.
    assert pair.story(since=mark) == ["<-- INFORMATIONAL SK {D(IKE)}", "INFORMATIONAL SK {} -->"]
    assert pair.alice.ike_sas == ()


def test_a_list_that_revokes_others_changes_nothing() -> None:
    pair = up()

    revoke(pair, OTHER)
    pair.settle()

    pair.check(children=1)
    assert asked(pair.bob, pair) == 2


def test_a_list_that_is_out_of_date_is_for_the_next_authentication_to_find() -> None:
    pair = up()

    revoke(pair, ends=-3600.0)
    pair.settle()

    pair.check(children=1)


def test_an_ike_sa_that_was_rekeyed_is_cut_off_too() -> None:
    pair = up()
    pair.bob.rekey_ike()
    pair.settle()
    pair.check(children=1)

    revoke(pair, ALICE)

    assert pair.bob.ike_sas == ()
    assert len(pair.bob.events(IkeSaDeleted)) == 1


def test_a_rekey_that_is_under_way_does_not_save_it() -> None:
    pair = up()
    pair.bob.answer(TrustRequest, after=5.0)
    revoke(pair, ALICE)
    pair.bob.rekey_ike()

    pair.run_for(30.0)

    assert pair.bob.ike_sas == ()
    assert pair.bob.sad.sas == {}


def test_who_proved_itself_without_certificates_is_not_asked_about() -> None:
    pair = Pair()
    pair.establish()

    pair.bob.endpoint.review_trust(pair.bob.ike_sa.ike_sa_id, pair.now)
    pair.drain(pair.bob)

    assert asked(pair.bob, pair) == 0
    pair.check(children=1)


@pytest.mark.parametrize("reason", ["DEADLINE", "NO_CREDENTIAL"])
def test_a_shell_that_cannot_tell_changes_nothing(reason: str) -> None:
    pair = up()
    if reason == "DEADLINE":
        pair.bob.answer(TrustRequest, never=True)
    else:
        pair.bob.answer(TrustRequest, refuse=reason)

    for ike_sa in pair.bob.ike_sas:
        pair.bob.endpoint.review_trust(ike_sa.ike_sa_id, pair.now)
    pair.drain(pair.bob)
    pair.run_for(20.0)

    pair.check(children=1)
