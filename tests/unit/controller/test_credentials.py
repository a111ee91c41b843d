"""What the controller holds to sign and to judge with, and what "keep it" means in an apply."""

from dataclasses import replace

import pytest

from gateway.controller.credentials import Credentials
from gateway.controller.facade import Applied, ControlErrorReason, OperationState, WantedConnection
from gateway.ike.crypto.revocation import read_crl
from gateway.ike.crypto.signature import verify
from gateway.ike.events import (
    CredentialRequest,
    Refused,
    RequestId,
    Signed,
    SignRequest,
    Trusted,
    TrustRequest,
)
from gateway.ipsec.authentication import PSK_AUTHENTICATION, Authentication, PublicKey, SignatureScheme
from gateway.ipsec.connection import Child, Connection, Side
from gateway.ipsec.identity import parse_identity
from gateway.ipsec.secret import Secret
from tests.fakes.pki import DAY, NOW, Issued, crl, crl_point, issue, trusting, with_certificate, with_keys
from tests.fakes.virtual_loop import pass_time
from tests.unit.controller.gateways import Gateway, Wire

CA = issue("CA")
OURS = issue("ours", CA, names=["ours.example"])
THEIRS = issue("theirs", CA, names=["theirs.example"], extensions=[crl_point()])
THEIR_ID = parse_identity("theirs.example")


def connection(local: Authentication | None = None, remote: Authentication | None = None) -> Connection:
    return Connection(
        name="cert",
        local=Side(id=parse_identity("ours.example"), auth=local or with_certificate((OURS,))),
        remote=Side(id=THEIR_ID, auth=remote or trusting(CA)),
        children=(Child(name="lan", remote_ts=()),),
    )


def credentials(now: float = NOW, **sides: Authentication) -> Credentials:
    held = Credentials(lambda: now)
    held.configure(connection(**sides), (OURS.private,), (read_crl(crl(CA)),))
    return held


def sign_request(key: PublicKey) -> SignRequest:
    return SignRequest(
        request_id=RequestId(1),
        connection="cert",
        public_key=key,
        scheme=SignatureScheme.ECDSA_SHA256,
        octets=b"octets",
    )


def trust_request(*certificates: Issued, keys: tuple[PublicKey, ...] = ()) -> TrustRequest:
    return TrustRequest(
        request_id=RequestId(1),
        connection="cert",
        remote_id=THEIR_ID,
        certificates=tuple(one.der for one in certificates),
        public_keys=keys,
    )


def test_the_private_key_signs_what_it_is_asked_for() -> None:
    answer = credentials().sign(sign_request(OURS.public))

    assert isinstance(answer, Signed)
    verify(OURS.public, SignatureScheme.ECDSA_SHA256, answer.signature, b"octets")


def test_a_key_that_is_not_held_signs_nothing() -> None:
    answer = credentials().sign(sign_request(THEIRS.public))

    assert isinstance(answer, Refused)
    assert answer.reason == "NO_CREDENTIAL"
    assert "no private key is held for the ECDSA P-256 key SHA-256" in answer.detail


def test_our_own_certificate_must_be_in_time_to_sign_with() -> None:
    answer = credentials(NOW + 400 * DAY).sign(sign_request(OURS.public))

    assert isinstance(answer, Refused)
    assert answer.reason == "CERTIFICATE_EXPIRED"
    assert answer.detail.startswith("our own certificate O=Test, CN=ours (serial")


def test_a_good_certificate_is_trusted_and_an_outdated_crl_ends_that() -> None:
    assert credentials().trust(trust_request(THEIRS)) == Trusted((THEIRS.public,))

    answer = credentials(NOW + 31 * DAY).trust(trust_request(THEIRS))

    assert isinstance(answer, Refused)
    assert answer.reason == "CERTIFICATE_REVOCATION_UNKNOWN"


def test_known_keys_are_all_tried_where_the_peer_shows_none() -> None:
    remote = with_keys(THEIRS.public, OURS.public)

    assert credentials(remote=remote).trust(trust_request()) == Trusted((THEIRS.public, OURS.public))
    assert credentials(remote=remote).trust(trust_request(keys=(OURS.public,))) == Trusted((OURS.public,))


def test_a_connection_that_is_forgotten_signs_and_trusts_nothing() -> None:
    held = credentials()

    held.forget("cert")

    assert isinstance(held.sign(sign_request(OURS.public)), Refused)
    assert isinstance(held.trust(trust_request(THEIRS)), Refused)


def test_a_connection_that_has_certificates_now_forgets_its_pre_shared_key() -> None:
    held = Credentials(lambda: NOW)
    psk = Secret(b"secret")
    held.configure(connection(PSK_AUTHENTICATION, PSK_AUTHENTICATION), (), ())
    held.set_psk("cert", psk)

    held.configure(connection(), (OURS.private,), ())

    assert not held.has_psk("cert")
    assert len(psk) == 0
    identity = parse_identity("ours.example")
    request = CredentialRequest(
        request_id=RequestId(1), connection="cert", local_id=identity, remote_id=THEIR_ID
    )
    assert isinstance(held.find(request), Refused)


# --- apply --------------------------------------------------------------------------------------


@pytest.fixture
async def gateway() -> Gateway:
    gateway = Gateway(Wire(), is_paris=True)
    await gateway.start()
    return gateway


def wanted(*, revoked: tuple[Issued, ...] = (), **changes: object) -> WantedConnection:
    given = {"private_keys": (OURS.private,), "crls": (read_crl(crl(CA, *revoked)),)} | changes
    return WantedConnection(connection=connection(), **given)  # type: ignore[arg-type]


async def test_keys_and_crls_are_kept_where_that_is_said(gateway: Gateway) -> None:
    (created,) = await gateway.controller.apply([wanted()])
    (kept,) = await gateway.controller.apply([wanted(private_keys=None, crls=None)])

    assert created.applied is Applied.CREATED
    assert kept.applied is Applied.UNCHANGED
    (status,) = [s for s in gateway.controller.connections() if s.connection.name == "cert"]
    assert status.crls_are_set
    assert not status.psk_is_set


@pytest.mark.parametrize("what", ["private_keys", "crls"])
async def test_what_is_not_held_cannot_be_kept(gateway: Gateway, what: str) -> None:
    (refused,) = await gateway.controller.apply([wanted(**{what: None})])

    assert refused.error is not None
    assert refused.error.reason is ControlErrorReason.NO_CREDENTIAL


async def test_new_crls_are_an_update_that_leaves_the_connection_what_it_is(gateway: Gateway) -> None:
    await gateway.controller.apply([wanted()])
    (before,) = [s for s in gateway.controller.connections() if s.connection.name == "cert"]

    (updated,) = await gateway.controller.apply([wanted(revoked=(THEIRS,))])

    assert updated.applied is Applied.UPDATED
    (after,) = [s for s in gateway.controller.connections() if s.connection.name == "cert"]
    # Equal, so that the core keeps its IKE SAs; the next authentication meets the new list.
    assert after.connection == before.connection
    answer = gateway.controller._credentials.trust(trust_request(THEIRS))
    assert isinstance(answer, Refused)


async def test_a_kept_key_must_be_that_of_the_certificate(gateway: Gateway) -> None:
    await gateway.controller.apply([wanted()])
    other = connection(with_certificate((issue("next", CA, names=["ours.example"]),)))

    (refused,) = await gateway.controller.apply(
        [WantedConnection(connection=other, private_keys=None, crls=None)]
    )

    assert refused.error is not None
    assert refused.error.reason is ControlErrorReason.NO_CREDENTIAL


# --- a certificate is revoked while its IKE SA is up -------------------------------------------------


def long_issued(who: str, issuer: Issued) -> Issued:
    """Return a certificate of before the time that the gateways of these tests live in."""
    return issue(f"gw-{who}", issuer, names=[f"gw-{who}.example"], starts=-3650 * DAY)


def with_certificates(gateway: Gateway, own: Issued, authority: Issued, *revoked: Issued) -> WantedConnection:
    usual = gateway.connection()
    return WantedConnection(
        connection=replace(
            usual,
            local=replace(usual.local, auth=with_certificate((own,))),
            remote=replace(usual.remote, auth=trusting(authority)),
        ),
        private_keys=(own.private,),
        crls=(read_crl(crl(authority, *revoked, starts=-3650 * DAY)),),
    )


async def test_a_new_list_cuts_off_the_peer_that_it_revokes_and_no_other() -> None:
    authority = issue("Old CA", starts=-3650 * DAY)
    certificates = {who: long_issued(who, authority) for who in ("paris", "tokyo")}
    wire = Wire()
    paris, tokyo = Gateway(wire, is_paris=True), Gateway(wire, is_paris=False)
    for who, gateway in (("paris", paris), ("tokyo", tokyo)):
        await gateway.start()
        await gateway.controller.apply([with_certificates(gateway, certificates[who], authority)])
    up = await paris.up()
    assert up.state is OperationState.SUCCEEDED, up

    def give(*revoked: Issued) -> WantedConnection:
        return with_certificates(paris, certificates["paris"], authority, *revoked)

    await paris.controller.apply([give(OURS)])
    await pass_time(1)
    kept = paris.controller.ike_sas()
    await paris.controller.apply([give(OURS, certificates["tokyo"])])
    await pass_time(1)

    assert [sa.remote_certificates for sa in kept] == [(certificates["tokyo"].der,)]
    assert paris.controller.ike_sas() == tokyo.controller.ike_sas() == ()
    assert not paris.backend.sad.sas
    (status,) = paris.controller.connections()
    assert status.last_failure is not None
    assert "CERTIFICATE_REVOKED" in status.last_failure.detail
    for gateway in (paris, tokyo):
        await gateway.controller.stop()
        await gateway.agent.close()
