"""Certificates, keys and CRLs in the configuration file: what is read, and what is said of mistakes."""

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from gateway.api.config_error import ConfigError
from gateway.api.config_file import LoadedConfig, parse_config
from gateway.api.convert_connection import read_connections, write_connection
from gateway.ike.crypto.signature import key_hash
from gateway.ipsec.authentication import AuthMethod, Revocation, SignatureScheme
from gateway.ipsec.identity import parse_identity
from gateway.ipsec.secret import Secret
from tests.fakes.pki import DAY, NOW, crl, issue

CA = issue("CA")
SUB = issue("Sub", CA, is_ca=True)
GATEWAY = issue("gw", CA, names=["gw.example", "192.0.2.1"])
CHAINED = issue("gw", SUB, names=["gw.example"])
ELLIPTIC = issue("gw p384", CA, kind="p384", names=["gw.example"])
PEER = issue("peer", CA, kind="ed25519")

CONFIG = """\
connections:
- name: a
  local: {{id: "{id}", auth: {{{local}}}}}
  remote: {{address: 192.0.2.2, auth: {{{remote}}}}}
  children: [{{name: lan}}]
"""
LOCAL = "certificate: {certs: [{file: gw.pem}], key: {file: gw.key}}"
REMOTE = "certificate: {cas: [{file: ca.pem}]}"
WHERE_LOCAL = "connections[0].local.auth.certificate"
WHERE_REMOTE = "connections[0].remote.auth.certificate"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {
        "gw.pem": GATEWAY.pem,
        "gw.der": GATEWAY.der,
        "gw.key": GATEWAY.key_pem,
        "gw-key.der": GATEWAY.key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        "locked.key": GATEWAY.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"sesame"),
        ),
        "passphrase": b"sesame\n",
        "chain.pem": CHAINED.pem + SUB.pem + CA.pem,
        "chain.key": CHAINED.key_pem,
        "p384.pem": ELLIPTIC.pem,
        "p384.key": ELLIPTIC.key_pem,
        "ca.pem": CA.pem,
        "sub.pem": SUB.pem,
        "ca.crl": crl(CA),
        "peer.pub": PEER.public_pem,
        "peer.pem": PEER.pem,
        "peer-pub.der": PEER.public.der,
        "peer.der": PEER.der,
        "garbage": b"garbage",
        "empty": b"",
        "nothing.pem": b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
    }
    for name, contents in files.items():
        (tmp_path / name).write_bytes(contents)
        (tmp_path / name).chmod(0o600)
    return tmp_path


def text_of(local: str = LOCAL, remote: str = REMOTE, id: str = "gw.example") -> str:  # noqa: A002 - the key's name
    return CONFIG.format(local=local, remote=remote, id=id)


def load(folder: Path, **parts: str) -> LoadedConfig:
    return parse_config(text_of(**parts), "gw.yaml", folder)


def problems(folder: Path, *, at_time: float | None = None, **parts: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text_of(**parts), "gw.yaml", folder, at_time=at_time)
    return [str(problem).partition(": ")[2] for problem in caught.value.problems]


# --- what is good -------------------------------------------------------------------------------


def test_certificates_keys_and_authorities_reach_their_records(folder: Path) -> None:
    (wanted,) = load(
        folder,
        local="certificate: {certs: [{file: chain.pem}], key: {file: chain.key}, "
        "signatures: [ecdsa-sha384, ECDSA-SHA256]}",
        remote="certificate: {cas: [{file: ca.pem}], intermediates: [{file: sub.pem}], "
        "crls: [{file: ca.crl}], revocation: strict, signatures: [ed25519]}",
    ).connections

    ours, theirs = wanted.connection.local.auth, wanted.connection.remote.auth
    assert ours.method is theirs.method is AuthMethod.CERTIFICATE
    (own,) = ours.certificates
    # The self-signed root is not sent, but its hash is known: a peer may ask for it (RFC 7296 §3.7).
    assert own.chain == (CHAINED.der, SUB.der)
    assert own.authorities == (key_hash(SUB.public.der), key_hash(CA.public.der))
    assert ours.signatures == (SignatureScheme.ECDSA_SHA384, SignatureScheme.ECDSA_SHA256)
    assert [ca.certificate for ca in theirs.authorities] == [CA.der]
    assert theirs.intermediates == (SUB.der,)
    assert theirs.revocation is Revocation.STRICT
    assert theirs.signatures == (SignatureScheme.ED25519,)
    assert wanted.private_keys is not None
    assert [key.public for key in wanted.private_keys] == [CHAINED.public]
    assert wanted.crls is not None
    assert len(wanted.crls) == 1
    assert wanted.psk is None


@pytest.mark.parametrize(
    "key",
    [
        *("{file: gw.key}", "{file: gw-key.der}", "{env: GW_KEY}"),
        "{file: locked.key, passphrase: {file: passphrase}}",
        "{file: locked.key, passphrase: {value: sesame}}",
    ],
)
def test_a_private_key_comes_from_every_source(
    folder: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GW_KEY", GATEWAY.key_pem.decode())

    (wanted,) = load(folder, local=f"certificate: {{certs: [{{file: gw.der}}], key: {key}}}").connections

    assert wanted.private_keys is not None
    assert wanted.private_keys[0].public == GATEWAY.public


def test_pem_may_stand_in_the_file_itself(folder: Path) -> None:
    def block(pem: bytes) -> str:
        return "|\n" + "".join(f"              {line}\n" for line in pem.decode().splitlines())

    text = (
        "connections:\n- name: a\n  local:\n    id: gw.example\n    auth:\n      certificate:\n"
        f"        certs:\n        - value: {block(GATEWAY.pem)}"
        f"        key:\n          value: {block(GATEWAY.key_pem)}"
        "  remote: {auth: {certificate: {cas: [{file: ca.pem}]}}}\n  children: [{name: lan}]\n"
    )

    (wanted,) = parse_config(text, "gw.yaml", folder).connections

    assert wanted.connection.local.auth.certificates[0].chain == (GATEWAY.der,)


def test_several_certificates_have_several_keys(folder: Path) -> None:
    local = (
        "certificate: {certs: [{file: gw.pem}, {file: p384.pem}], keys: [{file: p384.key}, {file: gw.key}]}"
    )
    (wanted,) = load(folder, local=local).connections

    keys = {own.public_key for own in wanted.connection.local.auth.certificates}
    assert keys == {GATEWAY.public, ELLIPTIC.public}
    assert wanted.private_keys is not None
    assert {key.public for key in wanted.private_keys} == keys


def test_authorities_without_an_identity_of_the_peer_are_warned_about(folder: Path) -> None:
    def warnings(identity: str) -> tuple[str, ...]:
        text = text_of().replace("address: 192.0.2.2", f"address: 192.0.2.2{identity}")
        return parse_config(text, "gw.yaml", folder).warnings

    (warning,) = warnings("")
    assert "whoever has a certificate of remote's cas is the peer" in warning
    assert warnings(', id: "%any"') == warnings(", id: peer.example") == ()


@pytest.mark.parametrize("shown", ["peer.pub", "peer.pem", "peer-pub.der", "peer.der"])
def test_raw_public_keys_are_read_from_keys_and_from_certificates(folder: Path, shown: str) -> None:
    (wanted,) = load(
        folder,
        local="public_key: {key: {file: gw.key}}",
        remote=f"public_key: {{keys: [{{file: {shown}}}]}}",
    ).connections

    assert wanted.connection.local.auth.public_keys == (GATEWAY.public,)
    assert wanted.connection.remote.auth.public_keys == (PEER.public,)


def test_each_side_may_have_its_own_method(folder: Path) -> None:
    (wanted,) = load(folder, remote="psk: {value: secret}").connections

    assert wanted.connection.local.auth.method is AuthMethod.CERTIFICATE
    assert wanted.connection.remote.auth.method is AuthMethod.PSK
    assert wanted.psk == Secret(b"secret")


def test_without_an_identity_we_are_the_subject_of_our_certificate(folder: Path) -> None:
    text = text_of().replace('id: "gw.example", ', "")

    (wanted,) = parse_config(text, "gw.yaml", folder).connections

    assert str(wanted.connection.local.id) == "O=Test, CN=gw"


def test_no_contents_of_a_key_leave_this_process_but_as_a_value(folder: Path) -> None:
    loaded = load(
        folder,
        local="certificate: {certs: [{file: gw.pem}], key: {file: locked.key, "
        "passphrase: {file: passphrase}}}",
    )

    key = loaded.message.connections[0].local.auth.certificate.key

    assert key.WhichOneof("source") == key.passphrase.WhichOneof("source") == "value"
    assert "sesame" not in repr(loaded.connections)


@pytest.mark.parametrize("name", ["gw", "chain"])
def test_what_is_answered_has_no_secret_and_can_be_applied_again(folder: Path, name: str) -> None:
    local = f"certificate: {{certs: [{{file: {name}.pem}}], key: {{file: {name}.key}}}}"
    remote = "certificate: {cas: [{file: sub.pem}], crls: [{file: ca.crl}], revocation: relaxed}"
    (first,) = load(folder, local=local, remote=remote).connections

    answer = write_connection(first.connection, psk_is_set=False, crls_are_set=True)
    (again,) = read_connections([answer])

    assert answer.local.auth.certificate.key.is_set
    assert not answer.local.auth.certificate.key.WhichOneof("source")
    assert b"PRIVATE" not in answer.SerializeToString()
    assert again.connection == first.connection
    assert again.private_keys is None
    assert again.crls is None


def test_raw_public_keys_are_answered_and_can_be_applied_again(folder: Path) -> None:
    (first,) = load(
        folder, local="public_key: {key: {file: gw.key}}", remote="public_key: {keys: [{file: peer.pub}]}"
    ).connections

    (again,) = read_connections([write_connection(first.connection, psk_is_set=False)])

    assert again.connection == first.connection
    assert again.private_keys is None


# --- what is wrong ------------------------------------------------------------------------------


def local_with(
    certs: str = "[{file: gw.pem}]", key: str = "key: {file: gw.key}", more: str = ""
) -> dict[str, str]:
    return {"local": f"certificate: {{certs: {certs}, {key}{more}}}"}


def remote_with(what: str) -> dict[str, str]:
    return {"remote": f"certificate: {{{what}}}"}


#: What is written, and the problems: where, and how the text begins.
WRONG: dict[str, tuple[dict[str, str], list[tuple[str, str]]]] = {
    "a file that is not there": (
        local_with("[{file: nowhere.pem}]"),
        [(f"{WHERE_LOCAL}.certs[0].file", "the file HERE/nowhere.pem does not exist")],
    ),
    "a key file that is not there": (
        local_with(key="key: {file: nowhere.key}"),
        [(f"{WHERE_LOCAL}.key.file", "the secret file HERE/nowhere.key does not exist")],
    ),
    "an empty file": (
        local_with("[{file: empty}]"),
        [(f"{WHERE_LOCAL}.certs[0].file", "the file HERE/empty is empty")],
    ),
    "an empty key file": (
        local_with(key="key: {file: empty}"),
        [(f"{WHERE_LOCAL}.key.file", "the secret of")],
    ),
    "no certificate": (
        local_with("[{file: garbage}]"),
        [(f"{WHERE_LOCAL}.certs[0]", "is no certificate in PEM or DER")],
    ),
    "an empty certificate": (
        local_with("[{file: nothing.pem}]"),
        [(f"{WHERE_LOCAL}.certs[0]", "is no certificate in PEM or DER")],
    ),
    "a key as certificate": (
        local_with("[{file: gw.key}]"),
        [(f"{WHERE_LOCAL}.certs[0]", "is a private key; a certificate is expected here")],
    ),
    "a certificate as key": (
        local_with(key="key: {file: gw.pem}"),
        [(f"{WHERE_LOCAL}.key", "is a certificate; the private key is expected here")],
    ),
    "no key": (
        local_with(key="key: {file: garbage}"),
        [(f"{WHERE_LOCAL}.key", "is no private key in PEM or DER")],
    ),
    "another key": (
        local_with(key="key: {file: p384.key}"),
        [(f"{WHERE_LOCAL}.key", "the private key does not fit the certificate O=Test, CN=gw (serial")],
    ),
    "a key that is locked": (
        local_with(key="key: {file: locked.key}"),
        [(f"{WHERE_LOCAL}.key", "is encrypted; give its passphrase: {file: PATH} too")],
    ),
    "a wrong passphrase": (
        local_with(key="key: {file: locked.key, passphrase: {value: simsalabim}}"),
        [(f"{WHERE_LOCAL}.key", "cannot be read: is the passphrase right?")],
    ),
    "a passphrase that is not there": (
        local_with(key="key: {file: locked.key, passphrase: {env: GW_NO_SUCH_VARIABLE}}"),
        [
            (f"{WHERE_LOCAL}.key.passphrase.env", "the environment variable GW_NO_SUCH_VARIABLE is not set"),
        ],
    ),
    "nothing for us": (
        {"local": "certificate: {}"},
        [
            (f"{WHERE_LOCAL}.certs", "is required: our certificate"),
            (f"{WHERE_LOCAL}.key", "is required: the private key"),
        ],
    ),
    "nobody trusted": (
        remote_with(""),
        [(f"{WHERE_REMOTE}.cas", "is required: certificates of authorities")],
    ),
    "an end entity as authority": (
        remote_with("cas: [{file: gw.pem}]"),
        [(f"{WHERE_REMOTE}.cas[0]", "certificate O=Test, CN=gw (serial")],
    ),
    "no CRL": (
        remote_with("cas: [{file: ca.pem}], crls: [{file: ca.pem}]"),
        [(f"{WHERE_REMOTE}.crls[0]", "holds no CRL")],
    ),
    "no such policy": (
        remote_with("cas: [{file: ca.pem}], revocation: never"),
        [(f"{WHERE_REMOTE}.revocation", "'never' is unknown; expected one of strict, ifuri, relaxed")],
    ),
    "no such scheme": (
        local_with(more=", signatures: [rsa-pss]"),
        [(f"{WHERE_LOCAL}.signatures[0]", "'rsa-pss' is no signature scheme; known are rsa-pss-sha256,")],
    ),
    "a weak scheme": (
        local_with(more=", signatures: [rsa-pkcs1-sha1]"),
        [(f"{WHERE_LOCAL}.signatures[0]", "rsa-pkcs1-sha1 is weak (RFC 8247 §3.2: MUST NOT)")],
    ),
    "our identity in no certificate": (
        {"id": "other.example"},
        [
            (
                "connections[0].local.id",
                "other.example is not confirmed by our certificate O=Test, CN=gw (serial",
            ),
        ],
    ),
    "things of the other side": (
        {
            "local": f"{LOCAL[:-1]}, cas: [{{file: ca.pem}}], revocation: strict}}",
            "remote": f"{REMOTE[:-1]}, certs: [{{file: gw.pem}}], key: {{file: gw.key}}}}",
        },
        [
            (f"{WHERE_LOCAL}.cas", "is for the remote side; move it there"),
            (f"{WHERE_LOCAL}.revocation", "is for the remote side; move it there"),
            (f"{WHERE_REMOTE}.certs", "is for the local side; move it there"),
            (f"{WHERE_REMOTE}.key", "is for the local side; move it there"),
        ],
    ),
    "two ways to give keys": (
        local_with(more=", keys: [{file: gw.key}]"),
        [(f"{WHERE_LOCAL}.keys", "is given beside key; give one of them")],
    ),
    "a private key as the peer's public one": (
        {"remote": "public_key: {keys: [{file: gw.key}]}"},
        [("connections[0].remote.auth.public_key.keys[0]", "is a private key; the peer's public key")],
    ),
    "no public key": (
        {"remote": "public_key: {keys: [{file: garbage}]}"},
        [
            (
                "connections[0].remote.auth.public_key.keys[0]",
                "is neither a public key nor a certificate, in PEM or DER",
            )
        ],
    ),
    "no public keys at all": (
        {"remote": "public_key: {}"},
        [("connections[0].remote.auth.public_key.keys", "is required: the peer's public keys")],
    ),
    "a method that is not there": (
        {"local": "rsa: {}"},
        [
            ("connections[0].local.auth.rsa", "unknown key; expected one of psk, certificate, public_key"),
        ],
    ),
    "two methods": (
        {"local": "psk: {value: a}, certificate: {}"},
        [("connections[0].local.auth.certificate", "is given beside psk")],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_told_at_its_place(folder: Path, case: str) -> None:
    parts, expected = WRONG[case]

    found = problems(folder, **parts)

    shown = [text.replace(str(folder), "HERE") for text in found]
    assert len(shown) == len(expected), shown
    for text, (path, beginning) in zip(sorted(shown), sorted(expected), strict=True):
        assert text.startswith(f"{path}: {beginning}"), text


def test_mistakes_have_line_and_column(folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(folder, **local_with(key="key: {file: p384.key}"))

    (problem,) = caught.value.problems
    line = text_of(**local_with(key="key: {file: p384.key}")).splitlines()[problem.line - 1]
    assert (problem.line, line[problem.column - 1 :][:1]) == (3, "{")
    assert line[: problem.column - 1].endswith("key: ")


def test_a_method_on_one_side_alone_wants_one_on_the_other(folder: Path) -> None:
    text = text_of().replace(f", auth: {{{REMOTE}}}", "")

    with pytest.raises(ConfigError) as caught:
        parse_config(text, "gw.yaml", folder)

    assert "connections[0].remote.auth: is required beside certificate of the local side" in str(caught.value)


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (
            lambda: {"gw.pem": issue("gw", CA, names=["gw.example"], ends=-DAY / 2).pem},
            f"{WHERE_LOCAL}.certs[0]",
        ),
        (lambda: {"ca.pem": issue("CA", ends=-DAY / 2).pem}, f"{WHERE_REMOTE}.cas"),
        (
            lambda: {"gw.pem": issue("gw", CA, names=["gw.example"], starts=DAY).pem},
            f"{WHERE_LOCAL}.certs[0]",
        ),
    ],
    ids=["expired", "expired authority", "not yet valid"],
)
def test_dates_are_judged_where_somebody_reads_the_answer(
    folder: Path, make: Callable[[], dict[str, bytes]], where: str
) -> None:
    for name, contents in make().items():
        (folder / name).write_bytes(contents)

    (found,) = problems(folder, at_time=NOW)

    assert found.startswith(f"{where}: certificate O=Test, CN=")
    assert "it is 2030-01-01" in found
    # A gateway starts all the same: its other connections are to be protected, whatever became of one.
    assert load(folder).connections


@pytest.mark.parametrize("source", ["file", "env", "credential"])
def test_the_controller_reads_no_file_that_a_client_names(folder: Path, source: str) -> None:
    message = load(folder).message.connections[0]
    setattr(message.local.auth.certificate.key, source, "/etc/shadow")

    with pytest.raises(ValueError, match="is for the client to read"):
        read_connections([message])


def test_a_certificate_for_two_identities_is_checked_for_ours(folder: Path) -> None:
    (wanted,) = load(folder, id="192.0.2.1").connections

    assert wanted.connection.local.id == parse_identity("192.0.2.1")
