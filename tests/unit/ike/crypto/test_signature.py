"""Signatures against Wycheproof, RFC 7427's own encodings, OpenSSL's command line, and our own strictness."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.ike.crypto.signature import (
    DigitalSignature,
    KeyProblem,
    PrivateKey,
    SignatureProblem,
    encode_digital_signature,
    from_raw_ecdsa,
    key_hash,
    parse_digital_signature,
    public_key_of,
    read_public_key,
    read_rsa_public_key,
    to_raw_ecdsa,
    verify,
)
from gateway.ipsec.authentication import FACTS, KeyKind, SignatureScheme
from gateway.ipsec.secret import Secret
from tests.fakes.pki import GOOD_KINDS, key_of
from tests.vectors.read import wycheproof

#: RFC 7427 Appendix A, byte for byte as printed there; EdDSA: RFC 8420 Appendix A.
PRINTED = {
    "A.1.1": ("rsa-pkcs1-sha1", "300d06092a864886f70d0101050500"),
    "A.1.2": ("rsa-pkcs1-sha256", "300d06092a864886f70d01010b0500"),
    "A.1.3": ("rsa-pkcs1-sha384", "300d06092a864886f70d01010c0500"),
    "A.1.4": ("rsa-pkcs1-sha512", "300d06092a864886f70d01010d0500"),
    "A.3.2": ("ecdsa-sha256", "300a06082a8648ce3d040302"),
    "A.3.3": ("ecdsa-sha384", "300a06082a8648ce3d040303"),
    "A.3.4": ("ecdsa-sha512", "300a06082a8648ce3d040304"),
    "A.4.3": (
        "rsa-pss-sha256",
        "304106092a864886f70d01010a3034a00f300d06096086480165030402010500"
        "a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120",
    ),
    "RFC 8420 Ed25519": ("ed25519", "300506032b6570"),
    "RFC 8420 Ed448": ("ed448", "300506032b6571"),
}
#: RFC 7427 Appendix A too, but not to be spoken (RFC 8247 §3.2): DSA, ECDSA with SHA-1, PSS with defaults.
NOT_SPOKEN = {
    "A.2.1 DSA with SHA-1": "300906072a8648ce380403",
    "A.2.2 DSA with SHA-256": "300b0609608648016503040302",
    "A.3.1 ECDSA with SHA-1": "300906072a8648ce3d0401",
    "A.4.1 PSS with empty parameters": "300d06092a864886f70d01010a3000",
    "A.4.2 PSS with default parameters": (
        "303e06092a864886f70d01010a3031a00b300906052b0e03021a0500"
        "a118301606092a864886f70d010108300906052b0e03021a0500a203020114"
    ),
    "MD5 with RSA": "300d06092a864886f70d0101040500",
    "ECDSA with NULL parameters": "300c06082a8648ce3d0403020500",
    "Ed25519 with NULL parameters": "300706032b65700500",
    "RSA with a length in two octets": "30810d06092a864886f70d01010b0500",
    "PSS with a salt of 20 octets": (
        "304106092a864886f70d01010a3034a00f300d06096086480165030402010500"
        "a11c301a06092a864886f70d010108300d06096086480165030402010500a203020114"
    ),
    "PSS with two hashes": (
        "304106092a864886f70d01010a3034a00f300d06096086480165030402010500"
        "a11c301a06092a864886f70d010108300d06096086480165030402020500a203020120"
    ),
}

FILES = {
    "ecdsa_secp256r1_sha256": SignatureScheme.ECDSA_SHA256,
    "ecdsa_secp384r1_sha384": SignatureScheme.ECDSA_SHA384,
    "ecdsa_secp521r1_sha512": SignatureScheme.ECDSA_SHA512,
    "ed25519": SignatureScheme.ED25519,
    "ed448": SignatureScheme.ED448,
    "rsa_pss_2048_sha256_mgf1_32": SignatureScheme.RSA_PSS_SHA256,
    "rsa_pss_3072_sha256_mgf1_32": SignatureScheme.RSA_PSS_SHA256,
    "rsa_pss_4096_sha512_mgf1_64": SignatureScheme.RSA_PSS_SHA512,
    "rsa_signature_2048_sha256": SignatureScheme.RSA_PKCS1_SHA256,
}


def is_good(key: Any, scheme: SignatureScheme, test: dict[str, Any]) -> bool:
    try:
        verify(key, scheme, bytes.fromhex(test["sig"]), bytes.fromhex(test["msg"]))
    except SignatureProblem:
        return False
    return True


@pytest.mark.parametrize("name", FILES)
def test_every_wycheproof_signature_is_judged_right(name: str) -> None:
    wrong, seen = [], 0
    for group in wycheproof(name):
        key = read_public_key(bytes.fromhex(group["publicKeyDer"]))
        for test in group["tests"]:
            seen += 1
            expected = {"valid": (True,), "invalid": (False,), "acceptable": (True, False)}[test["result"]]
            if is_good(key, FILES[name], test) not in expected:
                wrong.append((test["tcId"], test["comment"]))

    assert wrong == []
    assert seen > 80


# --- AlgorithmIdentifiers (RFC 7427 §3, Appendix A) ---------------------------------------------


@pytest.mark.parametrize("where", PRINTED)
def test_what_the_rfc_prints_is_what_we_send_and_read(where: str) -> None:
    keyword, identifier = PRINTED[where]
    scheme, der = SignatureScheme(keyword), bytes.fromhex(identifier)

    assert encode_digital_signature(DigitalSignature(scheme, b"sig")) == bytes((len(der),)) + der + b"sig"
    assert parse_digital_signature(bytes((len(der),)) + der + b"sig") == DigitalSignature(scheme, b"sig")


@pytest.mark.parametrize("what", NOT_SPOKEN)
def test_other_identifiers_are_refused(what: str) -> None:
    der = bytes.fromhex(NOT_SPOKEN[what])

    with pytest.raises(SignatureProblem, match="none that is spoken here"):
        parse_digital_signature(bytes((len(der),)) + der + b"sig")


@pytest.mark.parametrize("keyword", ["rsa-pkcs1-sha256", "rsa-pkcs1-sha384", "rsa-pkcs1-sha512"])
def test_rsa_parameters_may_be_absent(keyword: str) -> None:
    # RFC 4055 §5: implementations MUST accept the parameters being absent as well as present.
    sent = encode_digital_signature(DigitalSignature(SignatureScheme(keyword), b"sig"))
    oid = sent[3:14]
    absent = b"\x30" + bytes((len(oid),)) + oid

    assert parse_digital_signature(bytes((len(absent),)) + absent + b"sig").scheme.value == keyword


def test_every_truncation_and_every_changed_bit_is_refused_or_means_another_scheme() -> None:
    data = encode_digital_signature(DigitalSignature(SignatureScheme.RSA_PSS_SHA256, b""))

    for size in range(len(data) + 1):
        with pytest.raises(SignatureProblem):
            parse_digital_signature(data[:size])
    for position in range(len(data) * 8):
        changed = bytearray(data + b"sig")
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises(SignatureProblem):
            parse_digital_signature(bytes(changed))


# --- OpenSSL as the other side ------------------------------------------------------------------

OPENSSL = {
    "rsa-pss-sha256": ["-sha256", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:32"],
    "rsa-pss-sha384": ["-sha384", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:48"],
    "rsa-pss-sha512": ["-sha512", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:64"],
    "rsa-pkcs1-sha1": ["-sha1"],
    "rsa-pkcs1-sha256": ["-sha256"],
    "rsa-pkcs1-sha384": ["-sha384"],
    "rsa-pkcs1-sha512": ["-sha512"],
    "ecdsa-sha256": ["-sha256"],
    "ecdsa-sha384": ["-sha384"],
    "ecdsa-sha512": ["-sha512"],
}


def openssl(*arguments: str, cwd: Path) -> None:
    subprocess.run(["openssl", *arguments], cwd=cwd, check=True, capture_output=True)


@pytest.mark.parametrize("keyword", OPENSSL)
def test_openssl_verifies_what_we_sign_and_the_other_way_round(tmp_path: Path, keyword: str) -> None:
    scheme = SignatureScheme(keyword)
    key = PrivateKey.load(Secret(pem_of(key_of("rsa" if keyword.startswith("rsa") else "p384", "openssl"))))
    (tmp_path / "key.pem").write_bytes(
        pem_of(key_of("rsa" if keyword.startswith("rsa") else "p384", "openssl"))
    )
    (tmp_path / "octets").write_bytes(b"signed octets")
    (tmp_path / "ours").write_bytes(key.sign(scheme, b"signed octets"))
    options = OPENSSL[keyword]

    openssl("dgst", *options, "-prverify", "key.pem", "-signature", "ours", "octets", cwd=tmp_path)
    openssl("dgst", *options, "-sign", "key.pem", "-out", "theirs", "octets", cwd=tmp_path)

    verify(key.public, scheme, (tmp_path / "theirs").read_bytes(), b"signed octets")
    with pytest.raises(SignatureProblem):
        verify(key.public, scheme, (tmp_path / "theirs").read_bytes(), b"other octets")


def pem_of(key: Any, encryption: serialization.KeySerializationEncryption | None = None) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        encryption or serialization.NoEncryption(),
    )


@pytest.mark.parametrize("kind", GOOD_KINDS)
@pytest.mark.parametrize("scheme", SignatureScheme)
def test_a_key_signs_by_its_own_schemes_only(kind: str, scheme: SignatureScheme) -> None:
    key = PrivateKey.load(Secret(pem_of(key_of(kind, "own"))))

    if key.public.kind in FACTS[scheme].kinds:
        verify(key.public, scheme, key.sign(scheme, b"octets"), b"octets")
    else:
        with pytest.raises(KeyProblem, match="is not for"):
            key.sign(scheme, b"octets")
        with pytest.raises(SignatureProblem, match=f"the signature is {scheme.value}, the key is"):
            verify(key.public, scheme, b"signature", b"octets")


# --- r and s (RFC 4754 §7) ----------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "octets"), [("p256", 64), ("p384", 96), ("p521", 132)])
def test_r_and_s_have_the_length_of_the_curve_and_come_back(kind: str, octets: int) -> None:
    key = PrivateKey.load(Secret(pem_of(key_of(kind, "raw"))))
    for number in range(20):
        signature = key.sign(SignatureScheme.ECDSA_SHA256, bytes((number,)))

        raw = to_raw_ecdsa(signature, key.public.kind)

        assert len(raw) == octets
        assert from_raw_ecdsa(raw, key.public.kind) == signature


def test_the_example_of_rfc_4754_verifies() -> None:
    # RFC 4754 §8.1: the key, r and s, over the message "abc".
    x = 0x2442A5CC0ECD015FA3CA31DC8E2BBC70BF42D60CBCA20085E0822CB04235E970
    y = 0x6FC98BD7E50211A4A27102FA3549DF79EBCB4BF246B80945CDDFE7D509BBFD7D
    r = "CB28E0999B9C7715FD0A80D8E47A77079716CBBF917DD72E97566EA1C066957C"
    s = "86FA3BB4E26CAD5BF90B7F81899256CE7594BB1EA0C89212748BFF3B3D5B0315"
    key = public_key_of(ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key())

    signature = from_raw_ecdsa(bytes.fromhex(r + s), KeyKind.P256)

    verify(key, SignatureScheme.ECDSA_SHA256, signature, b"abc")


@pytest.mark.parametrize("size", [0, 63, 65, 96])
def test_r_and_s_of_another_length_are_refused(size: int) -> None:
    with pytest.raises(SignatureProblem, match="wants 64"):
        from_raw_ecdsa(bytes(size), KeyKind.P256)


# --- keys ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "text"), [("rsa1024", "1024 bits; 2048 to 8192"), ("k256", "on the curve secp256k1")]
)
def test_weak_and_odd_keys_are_refused(kind: str, text: str) -> None:
    with pytest.raises(KeyProblem, match=text):
        PrivateKey.load(Secret(pem_of(key_of(kind, "weak"))))


@pytest.mark.parametrize("data", [b"", b"\x30", b"garbage", bytes(5000), b"\x30\x82\xff\xff" + bytes(100)])
def test_what_is_no_public_key_is_refused(data: bytes) -> None:
    with pytest.raises(KeyProblem):
        read_public_key(data)
    with pytest.raises(KeyProblem):
        read_rsa_public_key(data)


def test_an_obsolete_raw_rsa_key_is_the_same_key() -> None:
    # CERT encoding 11: PKCS #1 RSAPublicKey (RFC 4306 §3.6).
    key = key_of("rsa", "raw").public_key()
    pkcs1 = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)

    assert read_rsa_public_key(pkcs1) == public_key_of(key)


@pytest.mark.parametrize(
    "format_", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL]
)
@pytest.mark.parametrize("encoding", [serialization.Encoding.PEM, serialization.Encoding.DER])
@pytest.mark.parametrize("kind", ["rsa", "p256"])
def test_private_keys_are_read_in_every_usual_form(kind: str, encoding: Any, format_: Any) -> None:
    key = key_of(kind, "forms")
    data = key.private_bytes(encoding, format_, serialization.NoEncryption())

    assert PrivateKey.load(Secret(data)).public == public_key_of(key.public_key())


def test_an_encrypted_key_wants_its_passphrase() -> None:
    data = Secret(pem_of(key_of("p256", "locked"), serialization.BestAvailableEncryption(b"sesame")))

    assert PrivateKey.load(data, Secret(b"sesame")).public.kind is KeyKind.P256
    with pytest.raises(KeyProblem, match="is encrypted; give its passphrase"):
        PrivateKey.load(data)
    with pytest.raises(KeyProblem, match="is the passphrase right"):
        PrivateKey.load(data, Secret(b"simsalabim"))


def test_a_passphrase_for_a_key_that_is_not_encrypted_is_a_mistake() -> None:
    with pytest.raises(KeyProblem, match="leave its passphrase out"):
        PrivateKey.load(Secret(pem_of(key_of("p256", "open"))), Secret(b"sesame"))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "no private key in PEM or DER"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "is a certificate"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "no private key in PEM or DER"),
        (b"\x00" * 32, "no private key in PEM or DER"),
    ],
)
def test_what_is_no_private_key_is_refused_without_telling_it(data: bytes, text: str) -> None:
    with pytest.raises(KeyProblem, match=text) as refused:
        PrivateKey.load(Secret(data))

    assert "AAAA" not in str(refused.value)


def test_a_private_key_never_prints() -> None:
    key = PrivateKey.load(Secret(pem_of(key_of("ed25519", "shy"))))

    assert repr(key) == str(key) == f"{key}" == "PrivateKey(Ed25519)"
    with pytest.raises(TypeError):
        key.__reduce__()


def test_the_key_hash_is_the_sha1_of_the_whole_subject_public_key_info(tmp_path: Path) -> None:
    # RFC 7296 §3.7; OpenSSL as the other implementation.
    public = PrivateKey.load(Secret(pem_of(key_of("p256", "hash")))).public
    (tmp_path / "key.der").write_bytes(public.der)

    printed = subprocess.run(
        ["openssl", "dgst", "-sha1", "-binary", "key.der"], cwd=tmp_path, capture_output=True, check=True
    )

    assert key_hash(public.der) == printed.stdout
