"""Transform types and identifiers of IKEv2 with everything the code must know of each (RFC 7296 §3.3.2).

The numbers are IANA's ("Internet Key Exchange Version 2 (IKEv2) Parameters"). One table per transform
type follows the enums; nothing else in the gateway knows a key, salt, IV or ICV length. What this build
can run of it is the business of `implemented`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final


class ProtocolId(IntEnum):
    """Security protocol identifiers (RFC 7296 §3.3.1)."""

    IKE = 1
    AH = 2
    ESP = 3


class TransformType(IntEnum):
    """IKEv2 Transform Type Values (IANA; RFC 7296 §3.3.2, RFC 9370 §2)."""

    ENCR = 1
    PRF = 2
    INTEG = 3
    KE = 4
    SN = 5
    ADDKE1 = 6
    ADDKE2 = 7
    ADDKE3 = 8
    ADDKE4 = 9
    ADDKE5 = 10
    ADDKE6 = 11
    ADDKE7 = 12


ADDITIONAL_KE: Final = tuple(t for t in TransformType if t >= TransformType.ADDKE1)
"""The seven additional key exchanges of RFC 9370; their transform IDs are those of `Ke`."""


class Encr(IntEnum):
    """Encryption algorithm transform IDs."""

    DES_IV64 = 1
    DES = 2
    TRIPLE_DES = 3
    RC5 = 4
    IDEA = 5
    CAST = 6
    BLOWFISH = 7
    TRIPLE_IDEA = 8
    DES_IV32 = 9
    NULL = 11
    AES_CBC = 12
    AES_CTR = 13
    AES_CCM_8 = 14
    AES_CCM_12 = 15
    AES_CCM_16 = 16
    AES_GCM_8 = 18
    AES_GCM_12 = 19
    AES_GCM_16 = 20
    NULL_AUTH_AES_GMAC = 21
    CAMELLIA_CBC = 23
    CAMELLIA_CTR = 24
    CAMELLIA_CCM_8 = 25
    CAMELLIA_CCM_12 = 26
    CAMELLIA_CCM_16 = 27
    CHACHA20_POLY1305 = 28
    AES_CCM_8_IIV = 29
    AES_GCM_16_IIV = 30
    CHACHA20_POLY1305_IIV = 31


class Prf(IntEnum):
    """Pseudorandom function transform IDs."""

    HMAC_MD5 = 1
    HMAC_SHA1 = 2
    HMAC_TIGER = 3
    AES128_XCBC = 4
    HMAC_SHA2_256 = 5
    HMAC_SHA2_384 = 6
    HMAC_SHA2_512 = 7
    AES128_CMAC = 8


class Integ(IntEnum):
    """Integrity algorithm transform IDs."""

    NONE = 0
    HMAC_MD5_96 = 1
    HMAC_SHA1_96 = 2
    DES_MAC = 3
    KPDK_MD5 = 4
    AES_XCBC_96 = 5
    HMAC_MD5_128 = 6
    HMAC_SHA1_160 = 7
    AES_CMAC_96 = 8
    AES_128_GMAC = 9
    AES_192_GMAC = 10
    AES_256_GMAC = 11
    HMAC_SHA2_256_128 = 12
    HMAC_SHA2_384_192 = 13
    HMAC_SHA2_512_256 = 14


class Ke(IntEnum):
    """Key exchange method transform IDs."""

    NONE = 0
    MODP_768 = 1
    MODP_1024 = 2
    MODP_1536 = 5
    MODP_2048 = 14
    MODP_3072 = 15
    MODP_4096 = 16
    MODP_6144 = 17
    MODP_8192 = 18
    ECP_256 = 19
    ECP_384 = 20
    ECP_521 = 21
    MODP_1024_160 = 22
    MODP_2048_224 = 23
    MODP_2048_256 = 24
    ECP_192 = 25
    ECP_224 = 26
    BRAINPOOL_224 = 27
    BRAINPOOL_256 = 28
    BRAINPOOL_384 = 29
    BRAINPOOL_512 = 30
    CURVE25519 = 31
    CURVE448 = 32
    ML_KEM_512 = 35
    ML_KEM_768 = 36
    ML_KEM_1024 = 37


class Sn(IntEnum):
    """Sequence number properties (RFC 7296 §3.3.2: ESN)."""

    NO_ESN = 0
    ESN = 1


class Status(Enum):
    """What RFC 8247 (IKEv2) or RFC 8221 (ESP, AH) says of an algorithm, as updated by RFC 9395.

    `MUST-` and `SHOULD+` are filed under MUST and SHOULD.
    """

    MUST = "MUST"
    SHOULD = "SHOULD"
    MAY = "MAY"
    SHOULD_NOT = "SHOULD NOT"
    MUST_NOT = "MUST NOT"
    UNSPECIFIED = "unspecified"


@dataclass(frozen=True, slots=True, kw_only=True)
class EncrInfo:
    """One encryption algorithm."""

    id: Encr
    keyword: str = ""
    """Proposal word, `{}` standing for the key bits; empty if strongSwan has no word for it."""
    aliases: tuple[str, ...] = ()
    """Other words; one without `{}` means `default_key_bits`."""
    key_bits: tuple[int, ...]
    """Allowed key lengths, without salt."""
    default_key_bits: int
    key_length_attribute: bool
    """Whether the transform carries a Key Length attribute (RFC 7296 §3.3.5)."""
    salt_bytes: int = 0
    """Taken from KEYMAT after the key; the implicit part of the nonce."""
    iv_bytes: int
    """On the wire in every packet."""
    icv_bytes: int = 0
    """Of an AEAD; 0 where an integrity algorithm must come beside."""
    block_bytes: int = 1
    """Plaintext is padded to a multiple of this (ESP also to 4, RFC 4303 §2.4)."""
    aead: bool = False
    ike: Status = Status.UNSPECIFIED
    esp: Status = Status.UNSPECIFIED
    caution: str = ""
    """Why the operator must ask for it by name although no RFC forbids it."""
    rfc: str

    def key_bytes(self, key_bits: int | None = None) -> int:
        """Return the length of the key without salt; `key_bits` as the Key Length attribute has it."""
        return (self.default_key_bits if key_bits is None else key_bits) // 8

    def keymat_bytes(self, key_bits: int | None = None) -> int:
        """Return what is taken from KEYMAT or for SK_e: key, then salt (RFC 4106 §8.1, RFC 5282 §7.1)."""
        return self.key_bytes(key_bits) + self.salt_bytes

    def accepts(self, key_bits: int | None) -> bool:
        """Say whether a transform may carry this Key Length attribute (`None`: no attribute)."""
        if self.key_length_attribute:
            return key_bits in self.key_bits
        return key_bits is None


@dataclass(frozen=True, slots=True, kw_only=True)
class PrfInfo:
    """One pseudorandom function."""

    id: Prf
    keyword: str = ""
    aliases: tuple[str, ...] = ()
    key_bytes: int
    """Preferred key length: the length of SK_d, SK_pi and SK_pr (RFC 7296 §2.14)."""
    output_bytes: int
    fixed_key: bool = False
    """Key of exactly `key_bytes`: SKEYSEED then takes 64 bits of each nonce (RFC 7296 §2.14)."""
    hash_name: str = ""
    """Of an HMAC, by the name `hashlib` uses."""
    ike: Status = Status.UNSPECIFIED
    caution: str = ""
    rfc: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegInfo:
    """One integrity algorithm."""

    id: Integ
    keyword: str = ""
    aliases: tuple[str, ...] = ()
    key_bytes: int
    icv_bytes: int
    salt_bytes: int = 0
    """Of GMAC in AH only (RFC 4543 §5.4)."""
    hash_name: str = ""
    """Of an HMAC, by the name `hashlib` uses."""
    implied_prf: Prf | None = None
    """The PRF of an IKE proposal that names this word and no PRF."""
    ike: Status = Status.UNSPECIFIED
    esp: Status = Status.UNSPECIFIED
    caution: str = ""
    rfc: str

    @property
    def keymat_bytes(self) -> int:
        """Return what is taken from KEYMAT or for SK_a: key, then salt (RFC 4543 §5.4)."""
        return self.key_bytes + self.salt_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class KeInfo:
    """One key exchange method; a KEM's responder answers with a ciphertext, not with a public value."""

    id: Ke
    keyword: str = ""
    aliases: tuple[str, ...] = ()
    public_value_bytes: int
    """Key Exchange Data of the initiator."""
    response_bytes: int
    """Key Exchange Data of the responder."""
    secret_bytes: int
    """Length of the shared secret, leading zeros kept (RFC 7296 §2.14)."""
    ike: Status = Status.UNSPECIFIED
    caution: str = ""
    rfc: str


_AES_KEY_BITS: Final = (128, 192, 256)
_NO_SECRECY: Final = "it authenticates but does not encrypt"
_SMALL_BLOCK: Final = "its 64-bit blocks leak plaintext after some gigabytes"


def _keyed(
    id_: Encr,
    keyword: str,
    *aliases: str,
    rfc: str,
    iv: int = 8,
    salt: int = 0,
    icv: int = 0,
    block: int = 1,
    key_bits: tuple[int, ...] = _AES_KEY_BITS,
    ike: Status = Status.UNSPECIFIED,
    esp: Status = Status.UNSPECIFIED,
    caution: str = "",
) -> EncrInfo:
    """Return a cipher whose transform carries a Key Length attribute."""
    return EncrInfo(
        id=id_,
        keyword=keyword,
        aliases=aliases,
        key_bits=key_bits,
        default_key_bits=key_bits[0],
        key_length_attribute=True,
        salt_bytes=salt,
        iv_bytes=iv,
        icv_bytes=icv,
        block_bytes=block,
        aead=icv > 0,
        ike=ike,
        esp=esp,
        caution=caution,
        rfc=rfc,
    )


def _fixed(
    id_: Encr,
    keyword: str = "",
    *,
    rfc: str,
    bits: int,
    iv: int = 8,
    salt: int = 0,
    icv: int = 0,
    block: int = 8,
    ike: Status = Status.UNSPECIFIED,
    esp: Status = Status.UNSPECIFIED,
    caution: str = "",
) -> EncrInfo:
    """Return a cipher with one key length and no Key Length attribute."""
    return EncrInfo(
        id=id_,
        keyword=keyword,
        key_bits=(bits,),
        default_key_bits=bits,
        key_length_attribute=False,
        salt_bytes=salt,
        iv_bytes=iv,
        icv_bytes=icv,
        block_bytes=block,
        aead=icv > 0,
        ike=ike,
        esp=esp,
        caution=caution,
        rfc=rfc,
    )


_M, _S, _MAY, _SN, _MN = Status.MUST, Status.SHOULD, Status.MAY, Status.SHOULD_NOT, Status.MUST_NOT

ENCR: Final[Mapping[Encr, EncrInfo]] = {
    info.id: info
    for info in (
        _fixed(Encr.DES_IV64, bits=64, iv=8, ike=_MN, esp=_MN, rfc="RFC 1827"),
        _fixed(Encr.DES, "des", bits=64, ike=_MN, esp=_MN, rfc="RFC 2405"),
        # RFC 8247 §2.1 still files 3DES under MAY for IKE; RFC 8221 §5 under SHOULD NOT for ESP.
        _fixed(Encr.TRIPLE_DES, "3des", bits=192, ike=_MAY, esp=_SN, caution=_SMALL_BLOCK, rfc="RFC 2451"),
        _keyed(Encr.RC5, "", key_bits=(128,), block=8, ike=_MN, esp=_MN, rfc="RFC 2451"),
        _fixed(Encr.IDEA, bits=128, ike=_MN, esp=_MN, rfc="RFC 2451"),
        _keyed(Encr.CAST, "cast{}", key_bits=(128,), block=8, ike=_MN, esp=_MN, rfc="RFC 2451"),
        _keyed(Encr.BLOWFISH, "blowfish{}", "blowfish", block=8, ike=_MN, esp=_MN, rfc="RFC 2451"),
        _fixed(Encr.TRIPLE_IDEA, bits=384, ike=_MN, esp=_MN, rfc="RFC 2451"),
        _fixed(Encr.DES_IV32, bits=64, iv=4, ike=_MN, esp=_MN, rfc="RFC 1827"),
        _fixed(
            Encr.NULL, "null", bits=0, iv=0, block=1, ike=_MN, esp=_M, caution=_NO_SECRECY, rfc="RFC 2410"
        ),
        _keyed(Encr.AES_CBC, "aes{}", "aes", iv=16, block=16, ike=_M, esp=_M, rfc="RFC 3602"),
        _keyed(Encr.AES_CTR, "aes{}ctr", salt=4, rfc="RFC 3686, RFC 5930"),
        _keyed(
            Encr.AES_CCM_8, "aes{}ccm8", "aes{}ccm64", salt=3, icv=8, ike=_S, esp=_S, rfc="RFC 4309, RFC 5282"
        ),
        _keyed(Encr.AES_CCM_12, "aes{}ccm12", "aes{}ccm96", salt=3, icv=12, rfc="RFC 4309, RFC 5282"),
        _keyed(
            Encr.AES_CCM_16, "aes{}ccm16", "aes{}ccm128", "aes{}ccm", salt=3, icv=16, rfc="RFC 4309, RFC 5282"
        ),
        _keyed(Encr.AES_GCM_8, "aes{}gcm8", "aes{}gcm64", salt=4, icv=8, rfc="RFC 4106, RFC 5282"),
        _keyed(Encr.AES_GCM_12, "aes{}gcm12", "aes{}gcm96", salt=4, icv=12, rfc="RFC 4106, RFC 5282"),
        _keyed(
            Encr.AES_GCM_16,
            "aes{}gcm16",
            "aes{}gcm128",
            "aes{}gcm",
            salt=4,
            icv=16,
            ike=_S,
            esp=_M,
            rfc="RFC 4106, RFC 5282",
        ),
        _keyed(
            Encr.NULL_AUTH_AES_GMAC, "aes{}gmac", salt=4, icv=16, ike=_MN, caution=_NO_SECRECY, rfc="RFC 4543"
        ),
        _keyed(Encr.CAMELLIA_CBC, "camellia{}", "camellia", iv=16, block=16, rfc="RFC 5529"),
        _keyed(Encr.CAMELLIA_CTR, "camellia{}ctr", salt=4, rfc="RFC 5529"),
        _keyed(Encr.CAMELLIA_CCM_8, "camellia{}ccm8", "camellia{}ccm64", salt=3, icv=8, rfc="RFC 5529"),
        _keyed(Encr.CAMELLIA_CCM_12, "camellia{}ccm12", "camellia{}ccm96", salt=3, icv=12, rfc="RFC 5529"),
        _keyed(Encr.CAMELLIA_CCM_16, "camellia{}ccm16", "camellia{}ccm128", salt=3, icv=16, rfc="RFC 5529"),
        _fixed(
            Encr.CHACHA20_POLY1305,
            "chacha20poly1305",
            bits=256,
            salt=4,
            icv=16,
            block=1,
            ike=_S,
            esp=_S,
            rfc="RFC 7634",
        ),
        # The implicit-IV variants are for ESP only (RFC 8750 §5).
        _keyed(Encr.AES_CCM_8_IIV, "", iv=0, salt=3, icv=8, ike=_MN, rfc="RFC 8750"),
        _keyed(Encr.AES_GCM_16_IIV, "", iv=0, salt=4, icv=16, ike=_MN, rfc="RFC 8750"),
        _fixed(Encr.CHACHA20_POLY1305_IIV, bits=256, iv=0, salt=4, icv=16, block=1, ike=_MN, rfc="RFC 8750"),
    )
}
"""Encryption algorithms. Statuses: RFC 8247 §2.1, RFC 8221 §5, RFC 9395 §4."""


def _prf(
    id_: Prf,
    keyword: str,
    size: int,
    hash_name: str = "",
    *,
    fixed_key: bool = False,
    ike: Status = Status.UNSPECIFIED,
    rfc: str,
) -> PrfInfo:
    """Return a PRF whose key is as long as its output, as all of them are."""
    return PrfInfo(
        id=id_,
        keyword=keyword,
        key_bytes=size,
        output_bytes=size,
        fixed_key=fixed_key,
        hash_name=hash_name,
        ike=ike,
        rfc=rfc,
    )


PRF: Final[Mapping[Prf, PrfInfo]] = {
    info.id: info
    for info in (
        _prf(Prf.HMAC_MD5, "prfmd5", 16, "md5", ike=_MN, rfc="RFC 2104"),
        _prf(Prf.HMAC_SHA1, "prfsha1", 20, "sha1", ike=_M, rfc="RFC 2104"),
        _prf(Prf.HMAC_TIGER, "", 24, ike=_MN, rfc="RFC 2104"),
        _prf(Prf.AES128_XCBC, "prfaesxcbc", 16, fixed_key=True, ike=_S, rfc="RFC 4434"),
        _prf(Prf.HMAC_SHA2_256, "prfsha256", 32, "sha256", ike=_M, rfc="RFC 4868"),
        _prf(Prf.HMAC_SHA2_384, "prfsha384", 48, "sha384", rfc="RFC 4868"),
        _prf(Prf.HMAC_SHA2_512, "prfsha512", 64, "sha512", ike=_S, rfc="RFC 4868"),
        _prf(Prf.AES128_CMAC, "prfaescmac", 16, fixed_key=True, rfc="RFC 4615"),
    )
}
"""Pseudorandom functions. Statuses: RFC 8247 §2.2, RFC 9395 §4."""


def _integ(
    id_: Integ,
    keyword: str,
    *aliases: str,
    key: int,
    icv: int,
    salt: int = 0,
    hash_name: str = "",
    prf: Prf | None = None,
    ike: Status = Status.UNSPECIFIED,
    esp: Status = Status.UNSPECIFIED,
    rfc: str,
) -> IntegInfo:
    """Return an integrity algorithm."""
    return IntegInfo(
        id=id_,
        keyword=keyword,
        aliases=aliases,
        key_bytes=key,
        icv_bytes=icv,
        salt_bytes=salt,
        hash_name=hash_name,
        implied_prf=prf,
        ike=ike,
        esp=esp,
        rfc=rfc,
    )


INTEG: Final[Mapping[Integ, IntegInfo]] = {
    info.id: info
    for info in (
        _integ(Integ.NONE, "", key=0, icv=0, ike=_M, esp=_M, rfc="RFC 7296 §3.3.3"),
        _integ(
            Integ.HMAC_MD5_96,
            "md5",
            key=16,
            icv=12,
            hash_name="md5",
            prf=Prf.HMAC_MD5,
            ike=_MN,
            esp=_MN,
            rfc="RFC 2403",
        ),
        _integ(
            Integ.HMAC_SHA1_96,
            "sha1",
            "sha",
            key=20,
            icv=12,
            hash_name="sha1",
            prf=Prf.HMAC_SHA1,
            ike=_M,
            esp=_M,
            rfc="RFC 2404",
        ),
        _integ(Integ.DES_MAC, "", key=8, icv=8, ike=_MN, esp=_MN, rfc="RFC 7296"),
        _integ(Integ.KPDK_MD5, "", key=16, icv=16, ike=_MN, esp=_MN, rfc="RFC 1826"),
        _integ(
            Integ.AES_XCBC_96, "aesxcbc", key=16, icv=12, prf=Prf.AES128_XCBC, ike=_S, esp=_S, rfc="RFC 3566"
        ),
        # The two long variants exist for Fibre Channel only (RFC 4595).
        _integ(
            Integ.HMAC_MD5_128,
            "md5_128",
            key=16,
            icv=16,
            hash_name="md5",
            prf=Prf.HMAC_MD5,
            ike=_MN,
            esp=_MN,
            rfc="RFC 4595",
        ),
        _integ(
            Integ.HMAC_SHA1_160,
            "sha1_160",
            key=20,
            icv=20,
            hash_name="sha1",
            prf=Prf.HMAC_SHA1,
            ike=_MN,
            esp=_MN,
            rfc="RFC 4595",
        ),
        _integ(Integ.AES_CMAC_96, "aescmac", key=16, icv=12, prf=Prf.AES128_CMAC, rfc="RFC 4494"),
        # GMAC as an integrity algorithm is for AH; the words aes{}gmac mean it there (RFC 4543 §5).
        _integ(Integ.AES_128_GMAC, "aes128gmac", key=16, icv=16, salt=4, esp=_MAY, rfc="RFC 4543"),
        _integ(Integ.AES_192_GMAC, "aes192gmac", key=24, icv=16, salt=4, rfc="RFC 4543"),
        _integ(Integ.AES_256_GMAC, "aes256gmac", key=32, icv=16, salt=4, esp=_MAY, rfc="RFC 4543"),
        _integ(
            Integ.HMAC_SHA2_256_128,
            "sha256",
            "sha2_256",
            key=32,
            icv=16,
            hash_name="sha256",
            prf=Prf.HMAC_SHA2_256,
            ike=_M,
            esp=_M,
            rfc="RFC 4868",
        ),
        _integ(
            Integ.HMAC_SHA2_384_192,
            "sha384",
            "sha2_384",
            key=48,
            icv=24,
            hash_name="sha384",
            prf=Prf.HMAC_SHA2_384,
            rfc="RFC 4868",
        ),
        _integ(
            Integ.HMAC_SHA2_512_256,
            "sha512",
            "sha2_512",
            key=64,
            icv=32,
            hash_name="sha512",
            prf=Prf.HMAC_SHA2_512,
            ike=_S,
            esp=_S,
            rfc="RFC 4868",
        ),
    )
}
"""Integrity algorithms. Statuses: RFC 8247 §2.3, RFC 8221 §6, RFC 9395 §4."""


def _modp(
    id_: Ke, bits: int, *, keyword: str = "", ike: Status = Status.UNSPECIFIED, caution: str = "", rfc: str
) -> KeInfo:
    """Return a MODP group: everything is as long as its prime."""
    return KeInfo(
        id=id_,
        keyword=keyword or f"modp{bits}",
        public_value_bytes=bits // 8,
        response_bytes=bits // 8,
        secret_bytes=bits // 8,
        ike=ike,
        caution=caution,
        rfc=rfc,
    )


def _ecp(
    id_: Ke, keyword: str, bits: int, *, ike: Status = Status.UNSPECIFIED, caution: str = "", rfc: str
) -> KeInfo:
    """Return an elliptic curve group: both coordinates are sent, x is the secret (RFC 5903 §7)."""
    size = (bits + 7) // 8
    return KeInfo(
        id=id_,
        keyword=keyword,
        public_value_bytes=2 * size,
        response_bytes=2 * size,
        secret_bytes=size,
        ike=ike,
        caution=caution,
        rfc=rfc,
    )


def _kem(id_: Ke, keyword: str, encapsulation_key: int, ciphertext: int) -> KeInfo:
    """Return an ML-KEM parameter set (FIPS 203 §8, table 3)."""
    return KeInfo(
        id=id_,
        keyword=keyword,
        public_value_bytes=encapsulation_key,
        response_bytes=ciphertext,
        secret_bytes=32,
        rfc="FIPS 203, RFC 9370",
    )


def _montgomery(id_: Ke, keyword: str, alias: str, size: int) -> KeInfo:
    """Return an RFC 7748 curve: public value and secret are one coordinate each."""
    return KeInfo(
        id=id_,
        keyword=keyword,
        aliases=(alias,),
        public_value_bytes=size,
        response_bytes=size,
        secret_bytes=size,
        rfc="RFC 8031",
    )


KE: Final[Mapping[Ke, KeInfo]] = {
    info.id: info
    for info in (
        KeInfo(
            id=Ke.NONE,
            keyword="none",
            aliases=("modpnone",),
            public_value_bytes=0,
            response_bytes=0,
            secret_bytes=0,
            rfc="RFC 7296 §3.3.2",
        ),
        _modp(Ke.MODP_768, 768, ike=_MN, rfc="RFC 7296 App. B"),
        _modp(Ke.MODP_1024, 1024, ike=_SN, rfc="RFC 7296 App. B"),
        _modp(Ke.MODP_1536, 1536, ike=_SN, rfc="RFC 3526"),
        _modp(Ke.MODP_2048, 2048, ike=_M, rfc="RFC 3526"),
        _modp(Ke.MODP_3072, 3072, rfc="RFC 3526"),
        _modp(Ke.MODP_4096, 4096, rfc="RFC 3526"),
        _modp(Ke.MODP_6144, 6144, rfc="RFC 3526"),
        _modp(Ke.MODP_8192, 8192, rfc="RFC 3526"),
        _ecp(Ke.ECP_256, "ecp256", 256, ike=_S, rfc="RFC 5903"),
        _ecp(Ke.ECP_384, "ecp384", 384, rfc="RFC 5903"),
        _ecp(Ke.ECP_521, "ecp521", 521, rfc="RFC 5903"),
        _modp(Ke.MODP_1024_160, 1024, keyword="modp1024s160", ike=_MN, rfc="RFC 5114"),
        _modp(Ke.MODP_2048_224, 2048, keyword="modp2048s224", ike=_SN, rfc="RFC 5114"),
        _modp(Ke.MODP_2048_256, 2048, keyword="modp2048s256", ike=_SN, rfc="RFC 5114"),
        _ecp(Ke.ECP_192, "ecp192", 192, caution="it has 96 bits of strength", rfc="RFC 5114"),
        _ecp(Ke.ECP_224, "ecp224", 224, rfc="RFC 5114"),
        _ecp(Ke.BRAINPOOL_224, "ecp224bp", 224, rfc="RFC 6954"),
        _ecp(Ke.BRAINPOOL_256, "ecp256bp", 256, rfc="RFC 6954"),
        _ecp(Ke.BRAINPOOL_384, "ecp384bp", 384, rfc="RFC 6954"),
        _ecp(Ke.BRAINPOOL_512, "ecp512bp", 512, rfc="RFC 6954"),
        _montgomery(Ke.CURVE25519, "x25519", "curve25519", 32),
        _montgomery(Ke.CURVE448, "x448", "curve448", 56),
        _kem(Ke.ML_KEM_512, "mlkem512", 800, 768),
        _kem(Ke.ML_KEM_768, "mlkem768", 1184, 1088),
        _kem(Ke.ML_KEM_1024, "mlkem1024", 1568, 1568),
    )
}
"""Key exchange methods. Statuses: RFC 8247 §2.4, RFC 9395 §4."""

SN_KEYWORDS: Final[Mapping[Sn, str]] = {Sn.NO_ESN: "noesn", Sn.ESN: "esn"}

PRIVATE_KEYWORDS: Final[frozenset[str]] = frozenset(
    {
        *("sha256_96", "sha2_256_96", "camelliaxcbc", "prfcamelliaxcbc", "chacha20poly1305compat"),
        *("serpent", "serpent128", "serpent192", "serpent256"),
        *("twofish", "twofish128", "twofish192", "twofish256"),
        *("modpnull", "newhope128", "ntru112", "ntru128", "ntru192", "ntru256"),
    }
)
"""Words strongSwan knows that stand for private-use numbers or behaviour outside the RFCs.

They are recognised so that the error can say why they are refused. `sha256_96` truncates to 96 bits as a
pre-RFC 4868 draft did; `chacha20poly1305compat` sends a Key Length attribute that RFC 7634 §4 forbids.
"""

_NAMES: Final[Mapping[TransformType, tuple[type[IntEnum], str]]] = {
    TransformType.ENCR: (Encr, "ENCR_"),
    TransformType.PRF: (Prf, "PRF_"),
    TransformType.INTEG: (Integ, "AUTH_"),
    TransformType.SN: (Sn, "SN_"),
}


def iana_name(type_: TransformType, id_: int) -> str:
    """Return the algorithm's name in the style of RFC 7296 §3.3.2: `ENCR_AES_GCM_16`, `PRF_HMAC_SHA2_256`.

    A number without an entry here becomes `ENCR_UNKNOWN_1026`.
    """
    enum, prefix = _NAMES.get(type_, (Ke, "KE_"))
    try:
        name = enum(id_).name
    except ValueError:
        return f"{prefix}UNKNOWN_{id_}"
    return name if enum in (Ke, Sn) else f"{prefix}{name}"


def algorithm_status(type_: TransformType, id_: int, *, ike: bool) -> tuple[Status, str]:
    """Return what the RFCs say of an algorithm in IKE (or in ESP and AH), and our own caution or `""`.

    Key exchange methods have one status, that of RFC 8247, wherever they are used.
    """
    if type_ is TransformType.ENCR and id_ in ENCR:
        encr = ENCR[Encr(id_)]
        return (encr.ike if ike else encr.esp), encr.caution
    if type_ is TransformType.PRF and id_ in PRF:
        prf = PRF[Prf(id_)]
        return prf.ike, prf.caution
    if type_ is TransformType.INTEG and id_ in INTEG:
        integ = INTEG[Integ(id_)]
        return (integ.ike if ike else integ.esp), integ.caution
    if (type_ is TransformType.KE or type_ in ADDITIONAL_KE) and id_ in KE:
        ke = KE[Ke(id_)]
        return ke.ike, ke.caution
    return Status.UNSPECIFIED, ""
