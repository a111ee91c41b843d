"""MACs and ciphers of ESP and AH against the vectors of their documents.

AES-XCBC: RFC 3566 section 4.6. AES-CMAC: RFC 4493 section 4, whose first 96 bits RFC 4494 takes. HMAC-SHA1:
RFC 2202 section 3. AES-CTR: RFC 3686 section 6. AES-GCM, AES-CCM, AES-GMAC, ChaCha20-Poly1305: Wycheproof,
where a case has the sizes that ESP has.
"""

import hmac
from struct import pack
from typing import Any

import pytest

from gateway.esp.errors import PacketDropped
from gateway.esp.integrity import MACS
from gateway.esp.transform import make_open, make_seal
from gateway.ipsec.algorithms import Encr, Integ
from gateway.ipsec.sa import Direction, SecurityAssociation, Spi
from gateway.ipsec.secret import Secret
from tests.unit.esp.samples import BY_NAME, CBC, association, make_entropy
from tests.unit.esp.written_out import gcm, xcbc
from tests.vectors.read import wycheproof

SEQUENTIAL_KEY = bytes(range(16))
XCBC = [
    (b"", "75f0251d528ac01c4573dfd584d79f29"),
    (bytes(range(3)), "5b376580ae2f19afe7219ceef172756f"),
    (bytes(range(16)), "d2a246fa349b68a79998a4394ff7a263"),
    (bytes(range(20)), "47f51b4564966215b8985c63055ed308"),
    (bytes(range(32)), "f54f0ec8d2b9f3d36807734bd5283fd4"),
    (bytes(range(34)), "becbb3bccdb518a30677d5481fb6b4d8"),
    (bytes(1000), "f0dafee895db30253761103b5d84528f"),
]
CMAC_KEY = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
CMAC_MESSAGE = bytes.fromhex(
    "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
    "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
)
CMAC = [
    (0, "bb1d6929e95937287fa37d129b756746"),
    (16, "070a16b46b4d4144f79bdd9dd04a287c"),
    (40, "dfa66747de9ae63030ca32611497c827"),
    (64, "51f0bebf7e3b9d92fc49741779363cfe"),
]


@pytest.mark.parametrize(("message", "mac"), XCBC, ids=lambda value: f"{len(value)}")
def test_aes_xcbc_is_that_of_rfc_3566(message: bytes, mac: str) -> None:
    assert MACS[Integ.AES_XCBC_96].make(SEQUENTIAL_KEY)(message).hex() == mac[:24]
    assert xcbc(SEQUENTIAL_KEY, message).hex() == mac  # the oracle of other tests


@pytest.mark.parametrize(("length", "mac"), CMAC)
def test_aes_cmac_is_that_of_rfc_4493(length: int, mac: str) -> None:
    compute = MACS[Integ.AES_CMAC_96].make(CMAC_KEY)

    assert compute(CMAC_MESSAGE[:length]).hex() == mac[:24]
    assert compute(CMAC_MESSAGE[:length]).hex() == mac[:24], "a MAC serves many packets"


def test_hmac_sha1_is_that_of_rfc_2202() -> None:
    assert MACS[Integ.HMAC_SHA1_96].make(b"\x0b" * 20)(b"Hi There").hex() == "b617318655057264e28bc0b6"
    assert MACS[Integ.HMAC_SHA1_96].make(b"\xaa" * 20)(b"\xdd" * 50).hex() == "125d7342b9ac11cd91a39af4"


@pytest.mark.parametrize(
    ("integ", "name"),
    [
        (Integ.HMAC_SHA1_96, "hmac_sha1"),
        (Integ.HMAC_SHA2_256_128, "hmac_sha256"),
        (Integ.HMAC_SHA2_384_192, "hmac_sha384"),
        (Integ.HMAC_SHA2_512_256, "hmac_sha512"),
        (Integ.AES_CMAC_96, "aes_cmac"),
    ],
)
def test_macs_agree_with_wycheproof(integ: Integ, name: str) -> None:
    suite = MACS[integ]
    judged = 0
    for group in wycheproof(name):
        for case in group["tests"] if group["keySize"] == suite.key_bytes * 8 else ():
            icv = suite.make(bytes.fromhex(case["key"]))(bytes.fromhex(case["msg"]))
            expected = bytes.fromhex(case["tag"])[: len(icv)]
            if len(expected) == len(icv) and case["result"] == "valid":
                judged += 1
                assert icv == expected, case["tcId"]
    assert judged > 20


# --- AES-CTR ----------------------------------------------------------------------------------------------

CTR = [
    (
        1,
        "ae6852f8121067cc4bf7a5765577f39e" + "00000030",
        "0000000000000000",
        b"Single block msg".hex(),
        "e4095d4fb7a7b3792d6175a3261311b8",
    ),
    (
        2,
        "7e24067817fae0d743d6ce1f32539163" + "006cb6db",
        "c0543b59da48d90b",
        bytes(range(32)).hex(),
        "5104a106168a72d9790d41ee8edad388eb2e1efc46da57c8fce630df9141be28",
    ),
    (
        4,
        "16af5b145fc9f579c175f93e3bfb0eed863d06ccfdb78515" + "00000048",
        "36733c147d6d93cb",
        b"Single block msg".hex(),
        "4b55384fe259c9c84e7935a003cbe928",
    ),
    (
        7,
        "776beff2851db06f4c8a0542c8696f6c6a81af1eec96b4d37fc1d689e6c1c104" + "00000060",
        "db5672c97aa8f0b2",
        b"Single block msg".hex(),
        "145ad01dbf824ec7560863dc71e3e0c0",
    ),
]


@pytest.mark.parametrize(("number", "key", "iv", "plaintext", "ciphertext"), CTR)
def test_aes_ctr_opens_the_vectors_of_rfc_3686(
    number: int, key: str, iv: str, plaintext: str, ciphertext: str
) -> None:
    suite = BY_NAME["aes128ctr-sha256"]
    material = bytes.fromhex(key)
    sa = association(
        Direction.INBOUND, suite, encryption_key=Secret(material), key_bits=(len(material) - 4) * 8
    )
    esp = pack("!LL", sa.spi, number) + bytes.fromhex(iv + ciphertext)
    esp += hmac.digest(suite.integrity_key, esp, "sha256")[:16]

    assert make_open(sa)(esp, number).hex() == plaintext


# --- AEADs ------------------------------------------------------------------------------------------------


def aead_association(encr: Encr, key: bytes, salt: bytes, head: bytes) -> SecurityAssociation:
    """Return an SA whose packets begin as the associated data of a vector does: SPI, sequence number."""
    return association(
        Direction.INBOUND,
        spi=Spi(int.from_bytes(head[:4])),
        esn=len(head) == 12,
        encryption=encr,
        encryption_key=Secret(key + salt),
        key_bits=len(key) * 8,
    )


def opens(encr: Encr, case: dict[str, Any]) -> bool:
    """Say whether a Wycheproof case, put into an ESP packet, opens to its plaintext."""
    nonce, head = bytes.fromhex(case["iv"]), bytes.fromhex(case["aad"])
    sa = aead_association(encr, bytes.fromhex(case["key"]), nonce[:-8], head)
    sequence = int.from_bytes(head[4:])
    esp = head[:4] + (sequence & 0xFFFFFFFF).to_bytes(4) + nonce[-8:]
    try:
        plaintext = make_open(sa)(esp + bytes.fromhex(case["ct"] + case["tag"]), sequence)
    except PacketDropped:
        return False
    assert plaintext.hex() == case["msg"]
    return True


@pytest.mark.parametrize(
    ("encr", "name", "iv_bits"),
    [
        (Encr.AES_GCM_16, "aes_gcm", 96),
        (Encr.AES_CCM_16, "aes_ccm", 88),
        (Encr.CHACHA20_POLY1305, "chacha20_poly1305", 96),
    ],
)
def test_aeads_agree_with_wycheproof(encr: Encr, name: str, iv_bits: int) -> None:
    judged = 0
    for group in wycheproof(name):
        if group["ivSize"] != iv_bits or group["tagSize"] != 128:
            continue
        for case in group["tests"]:
            # The associated data of ESP has 8 bytes, with ESN 12, and begins with a legal SPI.
            if len(case["aad"]) in (16, 24) and int(case["aad"][:8], 16) >= 256:
                judged += 1
                assert opens(encr, case) == (case["result"] == "valid"), case["tcId"]
    assert judged > 0


def test_written_out_gmac_agrees_with_wycheproof() -> None:
    # It is the oracle of AES-GMAC in AH, where no other implementation is at hand.
    for group in wycheproof("aes_gmac"):
        for case in group["tests"][:12] if group["ivSize"] == 96 else ():
            key, iv, message = (bytes.fromhex(case[name]) for name in ("key", "iv", "msg"))
            is_right = gcm(key, iv, b"", message)[1].hex() == case["tag"]
            assert is_right == (case["result"] == "valid"), case["tcId"]


# --- IVs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["aes256gcm16", "aes256ccm8", "chacha20poly1305", "aes128gmac", "aes256ctr-sha1"]
)
def test_iv_of_a_counter_mode_is_the_sequence_number(name: str) -> None:
    seal = make_seal(association(Direction.OUTBOUND, BY_NAME[name], esn=True), make_entropy())

    for sequence in (1, 2, (1 << 32) - 1, 1 << 32, (1 << 32) + 1):
        assert int.from_bytes(seal(sequence, bytes(16))[8:16]) == sequence


def test_iv_of_cbc_never_repeats_and_follows_the_entropy() -> None:
    seal = make_seal(association(Direction.OUTBOUND, CBC), make_entropy())

    ivs = {seal(sequence, bytes(16))[8:24] for sequence in range(1, 500)}

    assert len(ivs) == 499
    other = make_seal(association(Direction.OUTBOUND, CBC), make_entropy("another"))
    assert other(1, bytes(16))[8:24] not in ivs
