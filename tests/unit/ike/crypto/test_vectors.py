"""Every algorithm that IKE has code for, against a second source; a new one without fails here.

The tables below name a source for each algorithm: Wycheproof, the vectors printed in RFCs and NIST
publications, or an implementation written down independently (CCM from RFC 3610, MODP with scapy's primes and
Python's arithmetic). The tests run over `IMPLEMENTED`, so that no cell can be left empty.
"""

from typing import NamedTuple

import pytest
from scapy.layers.tls.crypto import groups

from gateway.ike.crypto import kex
from gateway.ike.crypto.cipher import IntegrityFailed, build_cipher, build_coder
from gateway.ike.crypto.prf import prf_function
from gateway.ipsec.algorithms import ENCR, INTEG, KE, Encr, Integ, Ke, Prf, ProtocolId, TransformType
from gateway.ipsec.implemented import IMPLEMENTED
from gateway.ipsec.secret import Secret
from tests.unit.ike.crypto.written_out import ccm
from tests.vectors.read import kdf, wycheproof

IKE = IMPLEMENTED[ProtocolId.IKE]
text = bytes.fromhex
COUNT = bytes(range(256))


def in_order(ids):
    return sorted(ids)


def name_of(value):
    return getattr(value, "name", str(value))


# --- encryption ---------------------------------------------------------------------------------


class Sealed(NamedTuple):
    """Key and salt, IV, associated data, plaintext, ciphertext and tag."""

    key: bytes
    iv: bytes
    aad: bytes
    plain: bytes
    sealed: bytes


def valid_cases(file):
    for group in wycheproof(file):
        yield from (case for case in group["tests"] if case["result"] == "valid")


def gcm(encr, bits):
    """Wycheproof, the tag cut as NIST SP 800-38D §7.1 has it."""
    for case in valid_cases("aes_gcm"):
        key, nonce, aad, plain, ct, tag = (text(case[n]) for n in ("key", "iv", "aad", "msg", "ct", "tag"))
        if len(nonce) == 12 and len(key) * 8 == bits:
            yield Sealed(key + nonce[:4], nonce[4:], aad, plain, ct + tag[: ENCR[encr].icv_bytes])


def counter_with_cbc_mac(encr, bits):
    for size in (0, 1, 15, 16, 17, 48, 200):
        key, nonce, aad = COUNT[: bits // 8], COUNT[100:111], COUNT[size : size + size % 40]
        sealed = ccm(key, nonce, aad, COUNT[:size], ENCR[encr].icv_bytes)
        yield Sealed(key + nonce[:3], nonce[3:], aad, COUNT[:size], sealed)


def chacha(encr, bits):
    for case in valid_cases("chacha20_poly1305"):
        key, nonce, aad, plain, ct, tag = (text(case[n]) for n in ("key", "iv", "aad", "msg", "ct", "tag"))
        yield Sealed(key + nonce[:4], nonce[4:], aad, plain, ct + tag)


SP_800_38A_PLAIN = text(
    "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
    "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
)
CBC = {  # NIST SP 800-38A F.2.1, F.2.3, F.2.5; and RFC 3602 §4, case 1
    128: [
        ("2b7e151628aed2a6abf7158809cf4f3c", "000102030405060708090a0b0c0d0e0f", SP_800_38A_PLAIN,
         "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2"
         "73bed6b8e3c1743b7116e69e222295163ff1caa1681fac09120eca307586e1a7"),
        ("06a9214036b8a15b512e03d534120006", "3dafba429d9eb430b422da802c9fac41", b"Single block msg",
         "e353779c1079aeb82708942dbe77181a"),
    ],
    192: [
        ("8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b", "000102030405060708090a0b0c0d0e0f",
         SP_800_38A_PLAIN,
         "4f021db243bc633d7178183a9fa071e8b4d9ada9ad7dedf4e5e738763f69145a"
         "571b242012fb7ae07fa9baac3df102e008b0e27988598881d920a9e64f5615cd"),
    ],
    256: [
        ("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
         "000102030405060708090a0b0c0d0e0f", SP_800_38A_PLAIN,
         "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d"
         "39f23369a9d9bacfa530e26304231461b2eb05e2c39be9fcda6c19078c6a9d1b"),
    ],
}  # fmt: skip
CTR = {  # RFC 3686 §6, all nine: key with nonce, IV, plaintext, ciphertext
    128: [
        ("ae6852f8121067cc4bf7a5765577f39e00000030", "0000000000000000", b"Single block msg",
         "e4095d4fb7a7b3792d6175a3261311b8"),
        ("7e24067817fae0d743d6ce1f32539163006cb6db", "c0543b59da48d90b", COUNT[:32],
         "5104a106168a72d9790d41ee8edad388eb2e1efc46da57c8fce630df9141be28"),
        ("7691be035e5020a8ac6e618529f9a0dc00e0017b", "27777f3f4a1786f0", COUNT[:36],
         "c1cf48a89f2ffdd9cf4652e9efdb72d74540a42bde6d7836d59a5ceaaef3105325b2072f"),
    ],
    192: [
        ("16af5b145fc9f579c175f93e3bfb0eed863d06ccfdb7851500000048", "36733c147d6d93cb",
         b"Single block msg", "4b55384fe259c9c84e7935a003cbe928"),
        ("7c5cb2401b3dc33c19e7340819e0f69c678c3db8e6f6a91a0096b03b", "020c6eadc2cb500d", COUNT[:32],
         "453243fc609b23327edfaafa7131cd9f8490701c5ad4a79cfc1fe0ff42f4fb00"),
        ("02bf391ee8ecb159b959617b0965279bf59b60a786d3e0fe0007bdfd", "5cbd60278dcc0912", COUNT[:36],
         "96893fc55e5c722f540b7dd1ddf7e758d288bc95c69165884536c811662f2188abee0935"),
    ],
    256: [
        ("776beff2851db06f4c8a0542c8696f6c6a81af1eec96b4d37fc1d689e6c1c10400000060", "db5672c97aa8f0b2",
         b"Single block msg", "145ad01dbf824ec7560863dc71e3e0c0"),
        ("f6d66d6bd52d59bb0796365879eff886c66dd51a5b6a99744b50590c87a2388400faac24", "c1585ef15a43d875",
         COUNT[:32], "f05e231b3894612c49ee000b804eb2a9b8306b508f839d6a5530831d9344af1c"),
        ("ff7a617ce69148e4f1726e2f43581de2aa62d9f805532edff1eed687fb54153d001cc5b7", "51a51d70a1c11148",
         COUNT[:36], "eb6c52821d0bbbf7ce7594462aca4faab407df866569fd07f48cc0b583d6071f1ec0e6b8"),
    ],
}  # fmt: skip
# RFC 3713 Appendix A: one block of CBC with a zero IV is the cipher itself.
CAMELLIA_BLOCK = text("0123456789abcdeffedcba9876543210")
CAMELLIA = {
    128: [(CAMELLIA_BLOCK.hex(), "00" * 16, CAMELLIA_BLOCK, "67673138549669730857065648eabe43")],
    192: [
        (CAMELLIA_BLOCK.hex() + "0011223344556677", "00" * 16, CAMELLIA_BLOCK,
         "b4993401b3e996f84ee5cee7d79b09b9"),
    ],
    256: [
        (CAMELLIA_BLOCK.hex() + "00112233445566778899aabbccddeeff", "00" * 16, CAMELLIA_BLOCK,
         "9acc237dff16d76c20ef7c919e3a7509"),
    ],
}  # fmt: skip
# NIST SP 800-67 Appendix B.1, three blocks of ECB; one block of CBC with a zero IV is the cipher itself.
TRIPLE_DES_KEY = "0123456789abcdef23456789abcdef01456789abcdef0123"
TRIPLE_DES = {
    192: [
        (TRIPLE_DES_KEY, "00" * 8, b"The qufc", "a826fd8ce53b855f"),
        (TRIPLE_DES_KEY, "00" * 8, b"k brown ", "cce21c8112256fe6"),
        (TRIPLE_DES_KEY, "00" * 8, b"fox jump", "68d5c05dd9b6b900"),
    ]
}


def printed(table):
    def cases(encr, bits):
        for key, iv, plain, ciphertext in table[bits]:
            yield Sealed(text(key), text(iv), b"", plain, text(ciphertext))

    return cases


ENCRYPTION = {
    **dict.fromkeys([Encr.AES_GCM_8, Encr.AES_GCM_12, Encr.AES_GCM_16], gcm),
    **dict.fromkeys([Encr.AES_CCM_8, Encr.AES_CCM_12, Encr.AES_CCM_16], counter_with_cbc_mac),
    Encr.CHACHA20_POLY1305: chacha,
    Encr.AES_CBC: printed(CBC),
    Encr.AES_CTR: printed(CTR),
    Encr.CAMELLIA_CBC: printed(CAMELLIA),
    Encr.TRIPLE_DES: printed(TRIPLE_DES),
}


@pytest.mark.parametrize(
    ("encr", "bits"),
    [(Encr(e), bits) for e in in_order(IKE[TransformType.ENCR]) for bits in ENCR[Encr(e)].key_bits],
    ids=name_of,
)
def test_encryption_meets_its_second_source(encr, bits):
    cases = list(ENCRYPTION[encr](encr, bits))

    assert cases
    for case in cases:
        if ENCR[encr].aead:
            cipher = build_cipher(encr, Secret(case.key))
            assert cipher.seal(case.iv, case.aad, case.plain) == case.sealed
            assert cipher.open(case.iv, case.aad, case.sealed) == case.plain
            with pytest.raises(IntegrityFailed):
                cipher.open(case.iv, case.aad, case.sealed[:-1] + bytes([case.sealed[-1] ^ 1]))
        else:
            coder = build_coder(encr, Secret(case.key))
            assert coder.encrypt(case.iv, case.plain) == case.sealed
            assert coder.decrypt(case.iv, case.sealed) == case.plain


def test_the_written_out_ccm_meets_wycheproof():
    checked = set()
    for group in wycheproof("aes_ccm"):
        for case in group["tests"]:
            key, nonce, aad, plain, ct, tag = (
                text(case[n]) for n in ("key", "iv", "aad", "msg", "ct", "tag")
            )
            if case["result"] == "valid" and len(aad) < 0xFF00:
                assert ccm(key, nonce, aad, plain, len(tag)) == ct + tag, case["tcId"]
                checked.add((len(key), len(nonce), len(tag)))
    for key in (16, 24, 32):
        assert {nonce for k, nonce, _ in checked if k == key} == set(range(7, 14))
        assert {tag for k, _, tag in checked if k == key} >= {8, 12, 16}


# --- integrity ----------------------------------------------------------------------------------

CMAC_KEY = "2b7e151628aed2a6abf7158809cf4f3c"
INTEGRITY = {  # key, data, ICV
    # RFC 2202 §2 and §3, cases 1 and 5, cut to 96 bits (RFC 2403 §2, RFC 2404 §2)
    Integ.HMAC_MD5_96: [
        ("0b" * 16, b"Hi There", "9294727a3638bb1c13f48ef8"),
        ("0c" * 16, b"Test With Truncation", "56461ef2342edc00f9bab995"),
    ],
    Integ.HMAC_SHA1_96: [
        ("0b" * 20, b"Hi There", "b617318655057264e28bc0b6"),
        ("0c" * 20, b"Test With Truncation", "4c1a03424b55e07fe7f27be1"),
    ],
    # RFC 3566 §4.6
    Integ.AES_XCBC_96: [
        (COUNT[:16].hex(), b"", "75f0251d528ac01c4573dfd5"),
        (COUNT[:16].hex(), COUNT[:3], "5b376580ae2f19afe7219cee"),
        (COUNT[:16].hex(), COUNT[:16], "d2a246fa349b68a79998a439"),
        (COUNT[:16].hex(), COUNT[:20], "47f51b4564966215b8985c63"),
        (COUNT[:16].hex(), COUNT[:32], "f54f0ec8d2b9f3d36807734b"),
        (COUNT[:16].hex(), COUNT[:34], "becbb3bccdb518a30677d548"),
        (COUNT[:16].hex(), bytes(1000), "f0dafee895db30253761103b"),
    ],
    # RFC 4494 §2
    Integ.AES_CMAC_96: [
        (CMAC_KEY, b"", "bb1d6929e95937287fa37d12"),
        (CMAC_KEY, SP_800_38A_PLAIN[:16], "070a16b46b4d4144f79bdd9d"),
        (CMAC_KEY, SP_800_38A_PLAIN[:40], "dfa66747de9ae63030ca3261"),
        (CMAC_KEY, SP_800_38A_PLAIN, "51f0bebf7e3b9d92fc497417"),
    ],
    # RFC 4868 §2.7.2
    Integ.HMAC_SHA2_256_128: [
        ("0b" * 32, b"Hi There", "198a607eb44bfbc69903a0f1cf2bbdc5"),
        (b"JefeJefeJefeJefeJefeJefeJefeJefe".hex(), b"what do ya want for nothing?",
         "167f928588c5cc2eef8e3093caa0e87c"),
    ],
    Integ.HMAC_SHA2_384_192: [
        ("0b" * 48, b"Hi There", "b6a8d5636f5c6a7224f9977dcf7ee6c7fb6d0c48cbdee973"),
        ((b"Jefe" * 12).hex(), b"what do ya want for nothing?",
         "2c7353974f1842fd66d53c452ca42122b28c0b594cfb184d"),
    ],
    Integ.HMAC_SHA2_512_256: [
        ("0b" * 64, b"Hi There", "637edc6e01dce7e6742a99451aae82df23da3e92439e590e43e761b33e910fb8"),
        ((b"Jefe" * 16).hex(), b"what do ya want for nothing?",
         "cb370917ae8a7ce28cfd1d8f4705d6141c173b2a9362c15df235dfb251b15454"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    "integ", [Integ(i) for i in in_order(IKE[TransformType.INTEG]) if i != Integ.NONE], ids=name_of
)
def test_integrity_algorithm_meets_its_second_source(integ):
    cases = INTEGRITY[integ]

    assert cases
    for key, data, icv in cases:
        assert len(text(icv)) == INTEG[integ].icv_bytes
        cipher = build_cipher(Encr.NULL, Secret(b""), integ, Secret(text(key)))
        assert cipher.seal(b"", b"", data) == data + text(icv)
        assert cipher.open(b"", b"", data + text(icv)) == data


# --- PRFs ---------------------------------------------------------------------------------------

CAVP = {Prf.HMAC_SHA2_256, Prf.HMAC_SHA2_384, Prf.HMAC_SHA2_512}
"""NIST CAVP has the IKEv2 KDF of these; `test_prf` runs prf+ too."""
PRFS = {  # key, data, output
    # RFC 2202 §2 and §3, case 2
    Prf.HMAC_MD5: [(b"Jefe".hex(), b"what do ya want for nothing?", "750c783e6ab0b503eaa86e310a5db738")],
    Prf.HMAC_SHA1: [
        (b"Jefe".hex(), b"what do ya want for nothing?", "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
    ],
    # RFC 4434 §2.1: keys of 16, 10 and 18 bytes
    Prf.AES128_XCBC: [
        ("000102030405060708090a0b0c0d0e0f", COUNT[:20], "47f51b4564966215b8985c63055ed308"),
        ("00010203040506070809", COUNT[:20], "0fa087af7d866e7653434e602fdde835"),
        ("000102030405060708090a0b0c0d0e0fedcb", COUNT[:20], "8cd3c93ae598a9803006ffb67c40e9e4"),
    ],
    # RFC 4615 §4: keys of 18, 16 and 10 bytes
    Prf.AES128_CMAC: [
        ("000102030405060708090a0b0c0d0e0fedcb", COUNT[:20], "84a348a4a45d235babfffc0d2b4da09a"),
        ("000102030405060708090a0b0c0d0e0f", COUNT[:20], "980ae87b5f4c9c5214f5b6a8455e4c2d"),
        ("00010203040506070809", COUNT[:20], "290d9e112edb09ee141fcf64c0b72f3d"),
    ],
    **{
        prf: [
            (vector["salt"], text(vector["key"]), vector["out"])
            for vector in kdf("strongswan_cavp_kdf.json")["vectors"]
            if vector["prf"] == f"PRF_{prf.name}" and not vector["op"].startswith("prf+")
        ]
        for prf in CAVP
    },
}  # fmt: skip


@pytest.mark.parametrize("prf", [Prf(p) for p in in_order(IKE[TransformType.PRF])], ids=name_of)
def test_prf_meets_its_second_source(prf):
    cases = PRFS[prf]

    assert cases
    for key, data, out in cases:
        assert prf_function(prf)(text(key), data).hex() == out


# --- key exchange -------------------------------------------------------------------------------


class Agreement(NamedTuple):
    """What the entropy source gives, our public value, the peer's, the shared secret."""

    drawn: bytes
    public: bytes
    peer: bytes
    secret: bytes


def both(drawn_of, one, other, secret):
    """Two sides of a printed example: private and public value of each."""
    (a, public_a), (b, public_b) = ((drawn_of(private), text(public)) for private, public in (one, other))
    return [
        Agreement(a, public_a, public_b, text(secret)),
        Agreement(b, public_b, public_a, text(secret)),
    ]


def drawn_scalar(private):
    """What must be drawn so that drawn % (n - 1) + 1 is this private value."""
    size = len(private) // 2
    return (int(private, 16) - 1).to_bytes(size + kex._MARGIN_BYTES, "big")


def modp(method):
    """With scapy's primes and Python's arithmetic."""
    size = KE[method].public_value_bytes
    prime = getattr(groups, f"modp{size * 8}").m
    for seed in (b"\xff", b"\xa5\x5a", b"\x80\x01\x02"):
        drawn = (seed * 80)[: kex.modp.EXPONENT_BYTES[method]]
        x = int.from_bytes(drawn, "big")  # the top bit is set, as it always is
        peer = pow(2, int.from_bytes(COUNT[1:40], "big"), prime)
        numbers = (pow(2, x, prime), peer, pow(peer, x, prime))
        yield Agreement(drawn, *(number.to_bytes(size, "big") for number in numbers))


PRINTED = {
    # RFC 7748 §6.1, §6.2
    Ke.CURVE25519: both(
        text,
        ("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
         "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"),
        ("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
         "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"),
        "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742",
    ),
    Ke.CURVE448: both(
        text,
        ("9a8f4925d1519f5775cf46b04b5800d4ee9ee8bae8bc5565d498c28dd9c9baf574a9419744897391006382a6f127ab1d"
         "9ac2d8c0a598726b",
         "9b08f7cc31b7e3e67d22d5aea121074a273bd2b83de09c63faa73d2c22c5d9bbc836647241d953d40c5b12da88120d53"
         "177f80e532c41fa0"),
        ("1c306a7ac2a0e2e0990b294470cba339e6453772b075811d8fad0d1d6927c120bb5ee8972b0d3e21374c9c921b09d1b0"
         "366f10b65173992d",
         "3eb7a829b0cd20f5bcfc0b599b6feccf6da4627107bdb0d4f345b43027d8b972fc3e34fb4232a13ca706dcb57aec3dae"
         "07bdc1c67bf33609"),
        "07fff4181ac6cc95ec1c16a94a0f74d12da232ce40a77552281d282bb60c0b56fd2464c335543936521c24403085d59a"
        "449a5037514a879d",
    ),
    # RFC 5903 §8.1 to §8.3
    Ke.ECP_256: both(
        drawn_scalar,
        ("c88f01f510d9ac3f70a292daa2316de544e9aab8afe84049c62a9c57862d1433",
         "dad0b65394221cf9b051e1feca5787d098dfe637fc90b9ef945d0c3772581180"
         "5271a0461cdb8252d61f1c456fa3e59ab1f45b33accf5f58389e0577b8990bb3"),
        ("c6ef9c5d78ae012a011164acb397ce2088685d8f06bf9be0b283ab46476bee53",
         "d12dfb5289c8d4f81208b70270398c342296970a0bccb74c736fc7554494bf63"
         "56fbf3ca366cc23e8157854c13c58d6aac23f046ada30f8353e74f33039872ab"),
        "d6840f6b42f6edafd13116e0e12565202fef8e9ece7dce03812464d04b9442de",
    ),
    Ke.ECP_384: both(
        drawn_scalar,
        ("099f3c7034d4a2c699884d73a375a67f7624ef7c6b3c0f160647b67414dce655e35b538041e649ee3faef896783ab194",
         "667842d7d180ac2cde6f74f37551f55755c7645c20ef73e31634fe72b4c55ee6de3ac808acb4bdb4c88732aee95f41aa"
         "9482ed1fc0eeb9cafc4984625ccfc23f65032149e0e144ada024181535a0f38eeb9fcff3c2c947dae69b4c634573a81c"),
        ("41cb0779b4bdb85d47846725fbec3c9430fab46cc8dc5060855cc9bda0aa2942e0308312916b8ed2960e4bd55a7448fc",
         "e558dbef53eecde3d3fccfc1aea08a89a987475d12fd950d83cfa41732bc509d0d1ac43a0336def96fda41d0774a3571"
         "dcfbec7aacf3196472169e838430367f66eebe3c6e70c416dd5f0c68759dd1fff83fa40142209dff5eaad96db9e6386c"),
        "11187331c279962d93d604243fd592cb9d0a926f422e47187521287e7156c5c4d603135569b9e9d09cf5d4a270f59746",
    ),
    Ke.ECP_521: both(
        drawn_scalar,
        ("0037ade9319a89f4dabdb3ef411aaccca5123c61acab57b5393dce47608172a095aa85a30fe1c2952c6771d937ba9777"
         "f5957b2639bab072462f68c27a57382d4a52",
         "0015417e84dbf28c0ad3c278713349dc7df153c897a1891bd98bab4357c9ecbee1e3bf42e00b8e380aeae57c2d107564"
         "941885942af5a7f4601723c4195d176ced3e"
         "017cae20b6641d2eeb695786d8c946146239d099e18e1d5a514c739d7cb4a10ad8a788015ac405d7799dc75e7b7d5b6c"
         "f2261a6a7f1507438bf01beb6ca3926f9582"),
        ("0145ba99a847af43793fdd0e872e7cdfa16be30fdc780f97bccc3f078380201e9c677d600b343757a3bdbf2a3163e4c2"
         "f869cca7458aa4a4effc311f5cb151685eb9",
         "00d0b3975ac4b799f5bea16d5e13e9af971d5e9b984c9f39728b5e5739735a219b97c356436adc6e95bb0352f6be64a6"
         "c2912d4ef2d0433ced2b6171640012d9460f"
         "015c68226383956e3bd066e797b623c27ce0eac2f551a10c2c724d9852077b87220b6536c5c408a1d2aebb8e86d678ae"
         "49cb57091f4732296579ab44fcd17f0fc56a"),
        "01144c7d79ae6956bc8edb8e7c787c4521cb086fa64407f97894e5e6b2d79b04d1427e73ca4baa240a34786859810c06"
        "b3c715a3a8cc3151f2bee417996d19f3ddea",
    ),
    # RFC 7027 §A.1 to §A.3
    Ke.BRAINPOOL_256: both(
        drawn_scalar,
        ("81db1ee100150ff2ea338d708271be38300cb54241d79950f77b063039804f1d",
         "44106e913f92bc02a1705d9953a8414db95e1aaa49e81d9e85f929a8e3100be5"
         "8ab4846f11caccb73ce49cbdd120f5a900a69fd32c272223f789ef10eb089bdc"),
        ("55e40bc41e37e3e2ad25c3c6654511ffa8474a91a0032087593852d3e7d76bd3",
         "8d2d688c6cf93e1160ad04cc4429117dc2c41825e1e9fca0addd34e6f1b39f7b"
         "990c57520812be512641e47034832106bc7d3e8dd0e4c7f1136d7006547cec6a"),
        "89afc39d41d3b327814b80940b042590f96556ec91e6ae7939bce31f3a18bf2b",
    ),
    Ke.BRAINPOOL_384: both(
        drawn_scalar,
        ("1e20f5e048a5886f1f157c74e91bde2b98c8b52d58e5003d57053fc4b0bd65d6f15eb5d1ee1610df870795143627d042",
         "68b665dd91c195800650cdd363c625f4e742e8134667b767b1b476793588f885ab698c852d4a6e77a252d6380fcaf068"
         "55bc91a39c9ec01dee36017b7d673a931236d2f1f5c83942d049e3fa20607493e0d038ff2fd30c2ab67d15c85f7faa59"),
        ("032640bc6003c59260f7250c3db58ce647f98e1260acce4acda3dd869f74e01f8ba5e0324309db6a9831497abac96670",
         "4d44326f269a597a5b58bba565da5556ed7fd9a8a9eb76c25f46db69d19dc8ce6ad18e404b15738b2086df37e71d1eb4"
         "62d692136de56cbe93bf5fa3188ef58bc8a3a0ec6c1e151a21038a42e9185329b5b275903d192f8d4e1f32fe9cc78c48"),
        "0bd9d3a7ea0b3d519d09d8e48d0785fb744a6b355e6304bc51c229fbbce239bbadf6403715c35d4fb2a5444f575d4f42",
    ),
    Ke.BRAINPOOL_512: both(
        drawn_scalar,
        ("16302ff0dbbb5a8d733dab7141c1b45acbc8715939677f6a56850a38bd87bd59b09e80279609ff333eb9d4c061231fb2"
         "6f92eeb04982a5f1d1764cad57665422",
         "0a420517e406aac0acdce90fcd71487718d3b953efd7fbec5f7f27e28c6149999397e91e029e06457db2d3e640668b39"
         "2c2a7e737a7f0bf04436d11640fd09fd"
         "72e6882e8db28aad36237cd25d580db23783961c8dc52dfa2ec138ad472a0fcef3887cf62b623b2a87de5c588301ea3e"
         "5fc269b373b60724f5e82a6ad147fde7"),
        ("230e18e1bcc88a362fa54e4ea3902009292f7f8033624fd471b5d8ace49d12cfabbc19963dab8e2f1eba00bffb29e4d7"
         "2d13f2224562f405cb80503666b25429",
         "9d45f66de5d67e2e6db6e93a59ce0bb48106097ff78a081de781cdb31fce8ccbaaea8dd4320c4119f1e9cd437a2eab37"
         "31fa9668ab268d871deda55a5473199f"
         "2fdc313095bcdd5fb3a91636f07a959c8e86b5636a1e930e8396049cb481961d365cc11453a06c719835475b12cb52fc"
         "3c383bce35e27ef194512b71876285fa"),
        "a7927098655f1f9976fa50a9d566865dc530331846381c87256baf3226244b76d36403c024d7bbf0aa0803eaff405d3d"
        "24f11a9b5c0bef679fe1454b21c4cd1f",
    ),
}  # fmt: skip


@pytest.mark.parametrize("method", [Ke(k) for k in in_order(IKE[TransformType.KE])], ids=name_of)
def test_key_exchange_meets_its_second_source(method):
    cases = PRINTED[method] if method in PRINTED else list(modp(method))

    assert cases
    for case in cases:
        ours = kex.generate(method, lambda size, drawn=case.drawn: drawn[:size].rjust(size, b"\0"))
        assert ours.public == case.public
        assert ours.compute(case.peer) == Secret(case.secret)
