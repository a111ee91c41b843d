"""Authentication by signatures with Debian's strongSwan, in both roles: certificates, CRLs, raw public keys.

One gateway of ours, one charon and one pair of namespaces serve all cases; each case gives both sides their
configuration and credentials, brings the Child SA up from one of them, and pings through it.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from gateway.bench.topology import SiteToSite, site_to_site
from tests.fakes.pki import DAY, NOW, Issued, crl, crl_point, issue
from tests.interop.our_gateway import OurGateway
from tests.interop.peer import wait_until
from tests.interop.strongswan import Charon, missing

NOW_OFFSET = time.time() - NOW
"""`tests.fakes.pki` counts from a time of its own; charon lives by the real one."""

OURS = """\
connections:
- name: {name}
  allow_weak: [{allow_weak}]
  local:  {{address: {local}, id: "{our_id}", auth: {{{local_auth}}}}}
  remote: {{address: {remote}, id: "{their_id}", auth: {{{remote_auth}}}}}
  ike: {{proposals: [aes256gcm16-prfsha384-x25519]}}
  children:
  - name: net
    local_ts: [{local_ts}]
    remote_ts: [{remote_ts}]
    esp: {{proposals: [aes256gcm16-x25519]}}
"""

THEIRS = """\
connections {{ swan {{
  version = 2
  local_addrs = {remote}
  remote_addrs = {local}
  proposals = aes256gcm16-prfsha384-x25519
  send_cert = always
  local {{
    id = "{their_id}"
    {local_auth}
  }}
  remote {{
    id = "{our_id}"
    {remote_auth}
  }}
  children {{ net {{
    local_ts = {remote_ts}
    remote_ts = {local_ts}
    esp_proposals = aes256gcm16-x25519
  }} }}
}} }}
{secrets}
"""
PSK = "interop-psk-0123456789abcdef"
PSK_SECRET = f'secrets {{ ike-1 {{ secret = "{PSK}" }} }}'


def real(subject: str, issuer: Issued | None = None, **changes: Any) -> Issued:
    """Issue a certificate that is valid now, unless something else is said."""
    dates = {"starts": NOW_OFFSET - DAY, "ends": NOW_OFFSET + 30 * DAY}
    return issue(subject, issuer, **dates | changes)


CA = real("Interop CA")
OUR_SUB = real("Our sub CA", CA, is_ca=True, kind="p384")
THEIR_SUB = real("Their sub CA", CA, is_ca=True)
STRANGER_CA = real("Stranger CA")


def ours(issuer: Issued = CA, **changes: Any) -> Issued:
    return real("ours.test", issuer, **{"names": ["ours.test"]} | changes)


def theirs(issuer: Issued = CA, **changes: Any) -> Issued:
    return real("theirs.test", issuer, **{"names": ["theirs.test"]} | changes)


@dataclass(frozen=True, kw_only=True)
class Case:
    """What both sides have; the first certificate of a chain is the side's own."""

    ours: tuple[Issued, ...] = ()
    theirs: tuple[Issued, ...] = ()
    our_id: str = "ours.test"
    their_id: str = "theirs.test"
    local_auth: str = "certificate: {certs: [{file: our.pem}], key: {file: our.key}}"
    remote_auth: str = "certificate: {cas: [{file: ca.pem}]}"
    their_local: str = "auth = pubkey\n certs = own.pem"
    their_remote: str = "auth = pubkey"
    secrets: str = ""
    allow_weak: str = ""
    our_crls: tuple[bytes, ...] = ()
    their_crls: tuple[bytes, ...] = ()
    files: dict[str, bytes] = field(default_factory=dict)
    """More files of theirs, by their place below the swanctl directory."""


def certificates(kind: str, our_signatures: str = "", their_auth: str = "pubkey") -> Case:
    """Return a case where both have a certificate with this kind of key."""
    signatures = f", signatures: [{our_signatures}]" if our_signatures else ""
    return Case(
        ours=(ours(kind=kind),),
        theirs=(theirs(kind=kind),),
        local_auth=f"certificate: {{certs: [{{file: our.pem}}], key: {{file: our.key}}{signatures}}}",
        remote_auth=f"certificate: {{cas: [{{file: ca.pem}}]{signatures}}}",
        their_local=f"auth = {their_auth}\n certs = own.pem",
        their_remote=f"auth = {their_auth}",
    )


KEYED = Case(
    ours=(ours(kind="p256"),),
    theirs=(theirs(kind="ed25519"),),
    local_auth="public_key: {key: {file: our.key}}",
    remote_auth="public_key: {keys: [{file: their.pub}]}",
    their_local="auth = pubkey\n pubkeys = own.pub",
    their_remote="auth = pubkey\n pubkeys = peer.pub",
    files={
        "pubkey/own.pub": theirs(kind="ed25519").public_pem,
        "pubkey/peer.pub": ours(kind="p256").public_pem,
    },
)
WITH_CRL = "certificate: {cas: [{file: ca.pem}], crls: [{file: ca.crl}], revocation: strict}"

GOOD = {
    "RSA certificates, RSASSA-PSS with SHA-256": certificates("rsa", "rsa-pss-sha256", "ike:rsa/pss-sha256"),
    "RSA certificates, RSASSA-PSS with SHA-512": certificates(
        "rsa3072", "rsa-pss-sha512", "ike:rsa/pss-sha512"
    ),
    "RSA certificates, PKCS #1 v1.5 with SHA-256": certificates("rsa", "rsa-pkcs1-sha256", "ike:rsa-sha256"),
    "RSA certificates, PKCS #1 v1.5 with SHA-384": certificates("rsa", "rsa-pkcs1-sha384", "ike:rsa-sha384"),
    "RSA certificates, nothing configured": certificates("rsa"),
    "ECDSA P-256 certificates": certificates("p256"),
    "ECDSA P-384 certificates": certificates("p384"),
    "ECDSA P-521 certificates": certificates("p521"),
    "Ed25519 certificates": certificates("ed25519"),
    "Ed448 certificates": certificates("ed448"),
    "an intermediate CA on each side": Case(
        ours=(ours(OUR_SUB), OUR_SUB), theirs=(theirs(THEIR_SUB), THEIR_SUB)
    ),
    "distinguished names as identities": Case(
        ours=(ours(),), theirs=(theirs(),), our_id="O=Test, CN=ours.test", their_id="O=Test, CN=theirs.test"
    ),
    "CRLs, revocation strict": Case(
        ours=(ours(extensions=[crl_point()]),),
        theirs=(theirs(extensions=[crl_point()]),),
        remote_auth=WITH_CRL,
        their_remote="auth = pubkey\n revocation = strict",
        our_crls=(crl(CA, starts=NOW_OFFSET - DAY, ends=NOW_OFFSET + DAY),),
        their_crls=(crl(CA, starts=NOW_OFFSET - DAY, ends=NOW_OFFSET + DAY),),
    ),
    "we a certificate, they a pre-shared key": Case(
        ours=(ours(),),
        remote_auth=f'psk: {{value: "{PSK}"}}',
        their_local="auth = psk",
        secrets=PSK_SECRET,
    ),
    "we a pre-shared key, they a certificate": Case(
        theirs=(theirs(),),
        local_auth=f'psk: {{value: "{PSK}"}}',
        their_remote="auth = psk",
        secrets=PSK_SECRET,
    ),
    "raw public keys": KEYED,
}


@dataclass(slots=True)
class Both:
    """Our gateway and charon, for one case after the other."""

    sites: SiteToSite
    ours: OurGateway
    charon: Charon
    folder: Path
    log_start: int = 0
    cases: int = 0
    """So many were configured. Each is a connection of its own: what strangers cause is told rarely."""

    @property
    def name(self) -> str:
        """The name of our connection."""
        return f"case{self.cases}"

    def configure(self, case: Case) -> None:
        """Give both sides what a case says."""
        self.log_start = len(self.charon.log())
        self.cases += 1
        a, b = self.sites.a, self.sites.b
        names = {
            "local": a.outside,
            "remote": b.outside,
            "local_ts": a.inside,
            "remote_ts": b.inside,
            "our_id": case.our_id,
            "their_id": case.their_id,
        }
        self._configure_charon(case, names)
        here = self.ours.process.directory
        files = {"ca.pem": CA.pem, "our.pem": b"".join(one.pem for one in case.ours)}
        if case.ours:
            files["our.key"] = case.ours[0].key_pem
        if case.theirs:
            files["their.pub"] = case.theirs[0].public_pem
        files |= {"ca.crl": case.our_crls[0]} if case.our_crls else {}
        for name, contents in files.items():
            (here / name).write_bytes(contents)
            (here / name).chmod(0o600)
        self.ours.configure(
            OURS.format(
                **names,
                name=self.name,
                allow_weak=case.allow_weak,
                local_auth=case.local_auth,
                remote_auth=case.remote_auth,
            )
        )

    def _configure_charon(self, case: Case, names: dict[str, str]) -> None:
        swanctl = self.charon.state / "swanctl"
        for folder in ("x509", "x509ca", "x509crl", "private", "pubkey"):
            (swanctl / folder).mkdir(exist_ok=True)
            for old in (swanctl / folder).iterdir():
                old.unlink()
        files = {"x509ca/ca.pem": CA.pem, **case.files}
        for i, one in enumerate(case.theirs):
            files["x509/own.pem" if i == 0 else f"x509ca/sub{i}.pem"] = one.pem
        if case.theirs:
            files["private/own.key"] = case.theirs[0].key_pem
        files |= {f"x509crl/{i}.crl": der for i, der in enumerate(case.their_crls)}
        for name, contents in files.items():
            (swanctl / name).write_bytes(contents)
        text = THEIRS.format(
            **names, local_auth=case.their_local, remote_auth=case.their_remote, secrets=case.secrets
        )
        (swanctl / "swanctl.conf").write_text(text)
        self.charon.swanctl("--load-all", "--clear", "--noprompt")

    def forget(self) -> None:
        """End the SAs of a case."""
        self.ours.configure("connections: []\n")
        deadline = time.monotonic() + 60.0
        while self.ours.ike_sas() or "swan:" in self.charon.sas():
            assert time.monotonic() < deadline, f"SAs stay: {self.charon.sas()}"
            time.sleep(0.05)

    def bring_up(self, initiator: str) -> str:
        """Bring the Child SA up from one side; return why it did not come, or nothing."""
        if initiator == "ours":
            operation = self.ours.up(f"{self.name}/net")
            return "" if not operation.failure.detail else operation.failure.detail
        text = self.charon.initiate("net", check=False)
        return "" if "initiate completed successfully" in text else text

    def log(self) -> str:
        """Return what charon logged since the case began."""
        return self.charon.log()[self.log_start :]

    def ping(self) -> None:
        """Ping from each host to the other."""
        a, b = self.sites.a, self.sites.b
        # One at a time: of several, ping gives up the last one after twice the round trip of the others.
        for here, there in ((a, b), (b, a), (a, b), (b, a)):
            done = here.host.run("ping", "-c", "1", "-W", "5", there.host_address, check=False)
            assert " 0% packet loss" in done.stdout, f"{done.stdout}\n{self.log()}\n{self.ours.log()}"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """Both gateways, without any connection."""
    problem = missing()
    assert not problem, f"strongSwan cannot run here: {problem} (make deps-test installs it)"
    folder = tmp_path_factory.mktemp("certificates")
    with site_to_site(f"sc{os.getpid()}") as sites:
        charon = Charon(sites.b.gateway, folder / "theirs", "")
        with OurGateway(sites.a.gateway, folder / "ours") as our_gateway, charon:
            yield Both(sites, our_gateway, charon, folder)


def named(cases: dict[str, Case]) -> list[Any]:
    """Return each case with its name as the feature it shows."""
    return [
        pytest.param(
            case,
            id=feature,
            marks=pytest.mark.interop(feature=f"Authentication: {feature}", peer="strongSwan"),
        )
        for feature, case in cases.items()
    ]


@pytest.mark.parametrize("initiator", ["ours", "theirs"])
@pytest.mark.parametrize("case", named(GOOD))
def test_both_sides_believe_each_other(both: Both, case: Case, initiator: str) -> None:
    both.configure(case)

    problem = both.bring_up(initiator)

    assert not problem, f"{problem}\n{both.log()}\n{both.ours.log()}"
    both.ping()
    both.forget()


# --- what must not come up ----------------------------------------------------------------------

REVOKED_OURS, REVOKED_THEIRS = ours(extensions=[crl_point()]), theirs(extensions=[crl_point()])
DATES = {"starts": NOW_OFFSET - DAY, "ends": NOW_OFFSET + DAY}

#: What is wrong with theirs, and what our operator is told.
WE_REFUSE = {
    "an expired certificate": (
        Case(ours=(ours(),), theirs=(theirs(starts=NOW_OFFSET - 2 * DAY, ends=NOW_OFFSET - DAY),)),
        "CERTIFICATE_EXPIRED",
    ),
    "a revoked certificate": (
        Case(
            ours=(ours(),),
            theirs=(REVOKED_THEIRS,),
            remote_auth=WITH_CRL,
            our_crls=(crl(CA, REVOKED_THEIRS, **DATES),),
        ),
        "CERTIFICATE_REVOKED",
    ),
    "a certificate of another authority": (
        Case(ours=(ours(),), theirs=(theirs(STRANGER_CA),)),
        "CERTIFICATE_NO_TRUSTED_ISSUER",
    ),
    "an identity that the certificate does not confirm": (
        # charon says then that it is the subject of its certificate, which is not who we want.
        Case(ours=(ours(),), theirs=(theirs(names=["somebody.test"]),)),
        "O=Test, CN=theirs.test",
    ),
    "a certificate with another purpose": (
        Case(ours=(ours(),), theirs=(theirs(purposes=["1.3.6.1.5.5.7.3.3"]),)),
        "CERTIFICATE_EXTENDED_KEY_USAGE",
    ),
    "an unknown public key": (
        replace(KEYED, remote_auth="public_key: {keys: [{file: ca.pem}]}"),
        "does not verify",
    ),
}


@pytest.mark.parametrize("initiator", ["ours", "theirs"])
@pytest.mark.parametrize("what", WE_REFUSE)
def test_we_refuse_what_must_be_refused_and_say_why(both: Both, what: str, initiator: str) -> None:
    case, code = WE_REFUSE[what]
    both.configure(case)

    problem = both.bring_up(initiator)

    assert problem
    assert code in both.ours.log()
    assert not [sa for sa in both.ours.ike_sas() if sa.established_at.seconds]
    both.forget()


THEY_REFUSE = {
    "a revoked certificate of ours": (
        Case(
            ours=(REVOKED_OURS,),
            theirs=(theirs(),),
            their_remote="auth = pubkey\n revocation = strict",
            their_crls=(crl(CA, REVOKED_OURS, **DATES),),
        ),
        "certificate was revoked",
    ),
    "a certificate of ours from another authority": (
        Case(ours=(ours(STRANGER_CA),), theirs=(theirs(),)),
        "no trusted",
    ),
}


@pytest.mark.parametrize("initiator", ["ours", "theirs"])
@pytest.mark.parametrize("what", THEY_REFUSE)
def test_what_they_refuse_ends_at_both_ends(both: Both, what: str, initiator: str) -> None:
    case, line = THEY_REFUSE[what]
    both.configure(case)

    problem = both.bring_up(initiator)

    assert problem
    assert line in both.log()
    # Where they start, we believed them already, and they take the IKE SA back (RFC 7296 §2.21.2).
    wait_until(lambda: not both.ours.ike_sas(), "our IKE SA is gone", both.ours.log)
    assert "AUTHENTICATION_FAILED" in both.ours.log()
    both.forget()


# --- without RFC 7427 ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def old_charon(both: Both) -> Iterator[Both]:
    """Both gateways, with a charon that does not speak RFC 7427."""
    both.charon.stop()
    charon = Charon(both.sites.b.gateway, both.folder / "old", "", settings="signature_authentication = no")
    with charon:
        yield Both(both.sites, both.ours, charon, both.folder, cases=1000)


OLD = {
    "ECDSA P-256 without RFC 7427 (method 9)": certificates("p256"),
    "ECDSA P-384 without RFC 7427 (method 10)": certificates("p384"),
    "ECDSA P-521 without RFC 7427 (method 11)": certificates("p521"),
    "RSA with SHA-1 where it is allowed by name (method 1)": replace(
        certificates("rsa", "rsa-pkcs1-sha1"), allow_weak="rsa-pkcs1-sha1"
    ),
}


@pytest.mark.parametrize("initiator", ["ours", "theirs"])
@pytest.mark.parametrize("case", named(OLD))
def test_the_older_methods_do_too(old_charon: Both, case: Case, initiator: str) -> None:
    old_charon.configure(case)

    problem = old_charon.bring_up(initiator)

    assert not problem, f"{problem}\n{old_charon.log()}\n{old_charon.ours.log()}"
    assert "sending supported signature hash algorithms" not in old_charon.log()
    old_charon.ping()
    old_charon.forget()
