"""The kernel's names of the algorithms of ESP and AH, as NETLINK_XFRM and hw/profiles spell them."""

from typing import Final

from gateway.ipsec.algorithms import Encr, Integ

ENCRYPTION: Final[dict[str, dict[int, Encr]]] = {
    "rfc4106(gcm(aes))": {64: Encr.AES_GCM_8, 96: Encr.AES_GCM_12, 128: Encr.AES_GCM_16},
    "rfc4309(ccm(aes))": {64: Encr.AES_CCM_8, 96: Encr.AES_CCM_12, 128: Encr.AES_CCM_16},
    "rfc4543(gcm(aes))": {128: Encr.NULL_AUTH_AES_GMAC},
    "rfc7539esp(chacha20,poly1305)": {128: Encr.CHACHA20_POLY1305},
    "cbc(aes)": {0: Encr.AES_CBC},
    "cbc(des3_ede)": {0: Encr.TRIPLE_DES},
    "rfc3686(ctr(aes))": {0: Encr.AES_CTR},
    "ecb(cipher_null)": {0: Encr.NULL},
}
"""By name, then by the bits of the ICV; 0 where an integrity algorithm comes beside."""

INTEGRITY: Final[dict[str, dict[int, Integ]]] = {
    "hmac(md5)": {96: Integ.HMAC_MD5_96, 128: Integ.HMAC_MD5_128},
    "hmac(sha1)": {96: Integ.HMAC_SHA1_96, 160: Integ.HMAC_SHA1_160},
    "hmac(sha256)": {128: Integ.HMAC_SHA2_256_128},
    "hmac(sha384)": {192: Integ.HMAC_SHA2_384_192},
    "hmac(sha512)": {256: Integ.HMAC_SHA2_512_256},
    "xcbc(aes)": {96: Integ.AES_XCBC_96},
    "cmac(aes)": {96: Integ.AES_CMAC_96},
}
"""By name, then by the bits of the ICV."""
