"""libreswan's proposals: what its own `algparse` 4.10 says they mean, and what they are in our words.

`their_reading` is what `algparse -v2` of Debian's libreswan 4.10-2+deb12 prints, with PFS off for ESP and AH.
"""

import pytest

from gateway.config.foreign.proposals import libreswan
from gateway.ipsec.proposal import ProtocolId

IKE, ESP, AH = ProtocolId.IKE, ProtocolId.ESP, ProtocolId.AH
GROUPS = "modp2048-modp3072-modp4096-modp8192-ecp256-ecp384-ecp521-x25519"


@pytest.mark.parametrize(
    ("protocol", "text", "their_reading", "ours"),
    [
        (IKE, "aes_gcm256-sha2",
         "AES_GCM_16_256-HMAC_SHA2_256-MODP2048+MODP3072+MODP4096+MODP8192+DH19+DH20+DH21+DH31",
         [f"aes256gcm16-prfsha256-{GROUPS}"]),
        (IKE, "aes-sha1;modp2048", "AES_CBC-HMAC_SHA1-MODP2048", ["aes256-aes128-sha1-modp2048"]),
        (IKE, "aes_gcm+chacha20_poly1305;dh14+dh19",
         "AES_GCM_16+CHACHA20_POLY1305-HMAC_SHA2_512+HMAC_SHA2_256-MODP2048+DH19",
         ["aes256gcm16-aes128gcm16-chacha20poly1305-prfsha512-prfsha256-modp2048-ecp256"]),
        (IKE, "aes_gcm_c256-sha2_512-dh31", "AES_GCM_16_256-HMAC_SHA2_512-DH31",
         ["aes256gcm16-prfsha512-x25519"]),
        (IKE, "aes256",
         "AES_CBC_256-HMAC_SHA2_512+HMAC_SHA2_256-MODP2048+MODP3072+MODP4096+MODP8192+DH19+DH20+DH21+DH31",
         [f"aes256-sha512-sha256-{GROUPS}"]),
        (ESP, "aes_gcm256-null", "AES_GCM_16_256-NONE", ["aes256gcm16"]),
        (ESP, "aes256-sha2_512", "AES_CBC_256-HMAC_SHA2_512_256", ["aes256-sha512"]),
        (ESP, "aes128+aes256-sha2_512+sha2_256-dh14+dh19",
         "AES_CBC_128+AES_CBC_256-HMAC_SHA2_512_256+HMAC_SHA2_256_128", ["aes128-aes256-sha512-sha256"]),
        (ESP, "aes_ccm_a128", "AES_CCM_8_128-NONE", ["aes128ccm8"]),
        (ESP, "aes_gcm_16_256", "AES_GCM_16_256-NONE", ["aes256gcm16"]),
        (ESP, "aes_gcm-256-null", "AES_GCM_16_256-NONE", ["aes256gcm16"]),
        (ESP, "chacha20_poly1305", "CHACHA20_POLY1305-NONE", ["chacha20poly1305"]),
        (ESP, "aes_ctr-aes_xcbc", "AES_CTR-AES_XCBC_96", ["aes256ctr-aes128ctr-aesxcbc"]),
        (ESP, "aes128", "AES_CBC_128-HMAC_SHA2_512_256+HMAC_SHA2_256_128", ["aes128-sha512-sha256"]),
        (AH, "sha2_256+sha2_512-dh14", "HMAC_SHA2_256_128+HMAC_SHA2_512_256", ["sha256-sha512"]),
    ],
)  # fmt: skip
def test_what_proposals_mean(protocol: ProtocolId, text: str, their_reading: str, ours: list[str]) -> None:
    carried = libreswan(text, protocol)

    assert (carried.proposals, carried.problems) == (ours, [])


def test_pfs_takes_the_groups_of_the_ike_sa_where_the_proposal_has_none() -> None:
    carried = libreswan("aes_gcm256,aes256-sha2_256-dh14", ESP, pfs_groups=("ecp384",))

    assert carried.proposals == ["aes256gcm16-ecp384", "aes256-sha256-modp2048"]


@pytest.mark.parametrize("text", ["aes256gcm16-sha2_512", "serpent256-sha2_256", "aes256-sha2_256-dh22"])
def test_what_is_no_algorithm_is_told(text: str) -> None:
    carried = libreswan(text, ESP, pfs_groups=("ecp384",))

    assert carried.proposals == []
    assert len(carried.problems) == 1
