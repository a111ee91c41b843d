"""Key derivation against NIST ACVP cases and against everything strongSwan derived in whole exchanges."""

import pytest

from gateway.ike.crypto.keymat import (
    derive_child_keymat,
    derive_ike_keys,
    derive_rekeyed_ike_keys,
    derive_updated_ike_keys,
)
from gateway.ike.crypto.prf import prf_function, prf_plus
from gateway.ike.crypto.suite import IkeSuite
from gateway.ike.errors import LocalError
from gateway.ipsec.algorithms import Encr, Integ, Ke, Prf, TransformType
from gateway.ipsec.proposal import Proposal, ProtocolId, Transform, parse_proposal
from gateway.ipsec.secret import Secret
from tests.vectors.read import STRONGSWAN, VECTORS, ike_table, kdf, strongswan_secrets


def acvp_cases():
    case = kdf("openssl_acvp_sha256.json")
    yield (
        Prf.HMAC_SHA2_256,
        {name: bytes.fromhex(value) for name, value in case.items() if name not in ("origin", "prf")},
    )
    lines = (VECTORS / "kdf" / "libreswan_acvp_ikev2.run.txt").read_text().splitlines()
    values = dict(
        line.split(" = ") for line in lines if " = " in line and not line.startswith(("[", "COUNT"))
    )
    names = {
        "Ni": "Ni",
        "Nr": "Nr",
        "g^ir": "gir",
        "g^ir (new)": "gir_new",
        "SPIi": "SPIi",
        "SPIr": "SPIr",
        "SKEYSEED": "SKEYSEED",
        "DKM": "DKM",
        "DKM(Child SA)": "DKM_child",
        "DKM(Child SA D-H)": "DKM_child_DH",
        "SKEYSEED(Rekey)": "SKEYSEED_rekey",
    }
    yield Prf.HMAC_SHA1, {names[name]: bytes.fromhex(value) for name, value in values.items()}


@pytest.mark.parametrize(("prf", "case"), list(acvp_cases()), ids=["openssl-sha256", "libreswan-sha1"])
class TestAcvp:
    """SK_d is the first part of DKM, as the ACVP cases have it."""

    def keys(self, prf, case):
        suite = IkeSuite(encr=Encr.AES_CBC, key_bits=128, integ=Integ.HMAC_SHA1_96, prf=prf)
        return derive_ike_keys(
            suite,
            shared_secret=Secret(case["gir"]),
            nonce_i=case["Ni"],
            nonce_r=case["Nr"],
            spi_i=case["SPIi"],
            spi_r=case["SPIr"],
        )

    def test_ike_keys_are_the_derived_keying_material_in_order(self, prf, case):
        keys = self.keys(prf, case)

        parts = (keys.sk_d, keys.sk_ai, keys.sk_ar, keys.sk_ei, keys.sk_er, keys.sk_pi, keys.sk_pr)
        joined = b"".join(part.reveal() for part in parts)

        assert case["DKM"].startswith(joined[: len(case["DKM"])])
        assert (
            prf_plus(
                prf_function(prf),
                case["SKEYSEED"],
                case["Ni"] + case["Nr"] + case["SPIi"] + case["SPIr"],
                len(joined),
            )
            == joined
        )

    @pytest.mark.parametrize("with_ke", [False, True])
    def test_child_keymat_is_split_in_order(self, prf, case, with_ke):
        child = derive_child_keymat(
            prf,
            self.keys(prf, case).sk_d,
            encr=Encr.AES_CBC,
            key_bits=128,
            integ=Integ.HMAC_SHA1_96,
            nonce_i=case["Ni"],
            nonce_r=case["Nr"],
            shared_secret=Secret(case["gir_new"]) if with_ke else None,
        )

        keymat = case["DKM_child_DH" if with_ke else "DKM_child"]
        assert child.encryption_i == Secret(keymat[:16])
        assert child.integrity_i == Secret(keymat[16:36])
        assert child.encryption_r == Secret(keymat[36:52])
        assert child.integrity_r == Secret(keymat[52:72])

    def test_rekeyed_ike_keys_come_from_the_old_sk_d(self, prf, case):
        suite = IkeSuite(encr=Encr.AES_GCM_16, key_bits=256, prf=prf)

        rekeyed = derive_rekeyed_ike_keys(
            suite,
            old_prf=prf,
            old_sk_d=self.keys(prf, case).sk_d,
            shared_secret=Secret(case["gir_new"]),
            nonce_i=case["Ni"],
            nonce_r=case["Nr"],
            spi_i=case["SPIi"],
            spi_r=case["SPIr"],
        )

        seed = case["Ni"] + case["Nr"] + case["SPIi"] + case["SPIr"]
        expected = prf_plus(prf_function(prf), case["SKEYSEED_rekey"], seed, len(rekeyed.sk_d))
        assert rekeyed.sk_d == Secret(expected)


SCENARIOS = {
    "psk-x25519-gcm256": "aes256gcm16-prfsha256-x25519",
    "psk-cookie": "aes256gcm16-prfsha256-x25519",
    "psk-x25519-ppk": "aes256gcm16-prfsha256-x25519",
    "psk-x25519-ke1mlkem768": "aes256gcm16-prfsha384-x25519",
    "rsa2048-sig-frag": "aes256gcm16-prfsha256-x25519",
    "eap-mschapv2": "aes256gcm16-prfsha256-x25519",
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_key_of_a_whole_strongswan_exchange_is_derived(name):
    """Walk the log: secrets, nonces and seeds go in, and every key it names must come out."""
    suite = IkeSuite.of(parse_proposal(SCENARIOS[name], ProtocolId.IKE))
    spis = iter([(bytes.fromhex(row[0]), bytes.fromhex(row[1])) for row in ike_table(table_of(name))])
    shared, additional, nonces, sk_d, keys, child, seen = b"", b"", b"", None, None, None, []
    for group, label, value in strongswan_secrets(name):
        if label == "key exchange secret":
            shared = value
        elif label == "additional key exchange secret":
            additional = value
        elif label == "nonces":
            previous, nonces = nonces, value
            keys = ike_keys(
                suite, (shared, additional), nonces, sk_d, next(spis), is_update=previous == nonces
            )
        elif group == "IKE" and label in IKE_LABELS and keys is not None:
            assert getattr(keys, IKE_LABELS[label]) == Secret(value), label
            seen.append(label)
            if label == "Sk_d secret":
                sk_d = Secret(value)
        elif label.startswith("derive keys using PPK"):
            keys = None  # RFC 8784 mixes the PPK in: what follows is taken from the log.
        elif label == "Sk_d secret":
            sk_d = Secret(value)
        elif group == "CHD" and label == "seed":
            child = child_keys(suite, sk_d, value)
        elif group == "CHD" and label in CHILD_LABELS:
            assert getattr(child, CHILD_LABELS[label]) == Secret(value), label
            seen.append(label)
    assert len(seen) >= 7


IKE_LABELS = {
    "Sk_d secret": "sk_d",
    "Sk_ei secret": "sk_ei",
    "Sk_er secret": "sk_er",
    "Sk_pi secret": "sk_pi",
    "Sk_pr secret": "sk_pr",
}
CHILD_LABELS = {
    "encryption initiator key": "encryption_i",
    "encryption responder key": "encryption_r",
}


def table_of(name):
    return STRONGSWAN / name / "initiator_ikev2_decryption_table"


def ike_keys(suite, secrets, nonces, old_sk_d, spis, *, is_update):
    shared, additional = secrets
    given = {
        "shared_secret": Secret(shared),
        "nonce_i": nonces[:32],
        "nonce_r": nonces[32:],
        "spi_i": spis[0],
        "spi_r": spis[1],
    }
    if old_sk_d is None:
        return derive_ike_keys(suite, **given)
    if is_update:
        return derive_updated_ike_keys(suite, sk_d=old_sk_d, **given)
    return derive_rekeyed_ike_keys(
        suite,
        old_prf=suite.prf,
        old_sk_d=old_sk_d,
        additional=(Secret(additional),) if additional else (),
        **given,
    )


def child_keys(suite, sk_d, seed):
    """The seed is [g^ir (new)] | Ni | Nr | [SK(1)]; every secret and nonce here has 32 bytes."""
    parts = [seed[start : start + 32] for start in range(0, len(seed), 32)]
    shared = Secret(parts.pop(0)) if len(parts) > 2 else None
    return derive_child_keymat(
        suite.prf,
        sk_d,
        encr=Encr.AES_GCM_16,
        key_bits=256,
        nonce_i=parts[0],
        nonce_r=parts[1],
        shared_secret=shared,
        additional=[Secret(part) for part in parts[2:]],
    )


def test_prf_of_fixed_key_length_takes_half_its_key_from_each_nonce():
    suite = IkeSuite(encr=Encr.AES_CBC, key_bits=128, integ=Integ.AES_XCBC_96, prf=Prf.AES128_XCBC)
    nonce_i, nonce_r, spi_i, spi_r = b"i" * 32, b"r" * 32, b"I" * 8, b"R" * 8

    keys = derive_ike_keys(
        suite,
        shared_secret=Secret(b"secret"),
        nonce_i=nonce_i,
        nonce_r=nonce_r,
        spi_i=spi_i,
        spi_r=spi_r,
    )

    prf = prf_function(Prf.AES128_XCBC)
    skeyseed = prf(b"i" * 8 + b"r" * 8, b"secret")
    assert keys.sk_d == Secret(prf_plus(prf, skeyseed, nonce_i + nonce_r + spi_i + spi_r, 16))


def test_aead_keys_hold_key_and_salt_and_no_integrity_key():
    suite = IkeSuite.of(parse_proposal("aes256gcm16-prfsha384-x25519", ProtocolId.IKE))

    keys = derive_ike_keys(
        suite,
        shared_secret=Secret(b"s" * 32),
        nonce_i=b"i" * 32,
        nonce_r=b"r" * 32,
        spi_i=bytes(8),
        spi_r=bytes(8),
    )

    assert (len(keys.sk_ei), len(keys.sk_ai), len(keys.sk_d)) == (36, 0, 48)
    assert keys.sk_ei != keys.sk_er
    keys.wipe()
    assert len(keys.sk_ei) == 0


def test_suite_names_what_was_chosen():
    suite = IkeSuite.of(parse_proposal("aes192-sha2_512-modp4096", ProtocolId.IKE))

    assert suite == IkeSuite(
        encr=Encr.AES_CBC,
        key_bits=192,
        integ=Integ.HMAC_SHA2_512_256,
        prf=Prf.HMAC_SHA2_512,
        ke=Ke.MODP_4096,
    )


def test_suite_of_an_offer_or_of_an_incomplete_proposal_is_refused():
    offer = parse_proposal("aes128-aes256-sha256-x25519", ProtocolId.IKE)

    with pytest.raises(LocalError, match="one transform of each type"):
        IkeSuite.of(offer)
    with pytest.raises(LocalError, match="lacks"):
        IkeSuite.of(Proposal(ProtocolId.IKE, offer.transforms[:1]))


@pytest.mark.parametrize(
    "encr", [Encr.NULL, Encr.NULL_AUTH_AES_GMAC, Encr.AES_GCM_16_IIV, Encr.BLOWFISH, 1026]
)
def test_suite_that_does_not_encrypt_or_has_no_code_is_refused(encr):
    """RFC 7296 §3.14, RFC 8247 §2.1: whoever made the proposal, IKE does not run on it."""
    chosen = parse_proposal("aes128-sha256-x25519", ProtocolId.IKE)
    wrong = Transform(TransformType.ENCR, encr, 128)

    with pytest.raises(LocalError, match="is not implemented for IKE"):
        IkeSuite.of(Proposal(ProtocolId.IKE, (wrong, *chosen.transforms[1:])))


def test_suite_of_a_key_length_the_algorithm_does_not_have_is_refused():
    chosen = parse_proposal("aes128-sha256-x25519", ProtocolId.IKE)

    for key_bits in (None, 64):
        encr = Transform(TransformType.ENCR, Encr.AES_CBC, key_bits)
        with pytest.raises(LocalError, match=f"no key of {key_bits} bits"):
            IkeSuite.of(Proposal(ProtocolId.IKE, (encr, *chosen.transforms[1:])))
