"""Every ESP suite of the packet core, read back with rows of a key table named as in Wireshark."""

import pytest

from gateway.inspect.algorithms import parse_encryption
from gateway.ipsec.algorithms import Encr, Integ
from gateway.ipsec.sa import Direction, Mode
from gateway.observe.keylog import KeyLogError, format_esp_sa
from tests.unit.esp.samples import SUITES, Suite, association, esp_of, ip_packet, outbound
from tests.unit.inspect.test_esp import SPI, found, keys_of

ENCRYPTION = {
    Encr.AES_GCM_16: "AES-GCM with 16 octet ICV [RFC4106]",
    Encr.AES_GCM_12: "AES-GCM with 12 octet ICV [RFC4106]",
    Encr.AES_GCM_8: "AES-GCM with 8 octet ICV [RFC4106]",
    Encr.AES_CCM_16: "AES-CCM with 16 octet ICV [RFC4309]",
    Encr.AES_CCM_12: "AES-CCM with 12 octet ICV [RFC4309]",
    Encr.AES_CCM_8: "AES-CCM with 8 octet ICV [RFC4309]",
    Encr.CHACHA20_POLY1305: "ChaCha20 with Poly1305 [RFC7634]",
    Encr.NULL_AUTH_AES_GMAC: "NULL-AUTH-AES-GMAC [RFC4543]",
    Encr.AES_CBC: "AES-CBC [RFC3602]",
    Encr.AES_CTR: "AES-CTR [RFC3686]",
    Encr.NULL: "NULL",
}
AUTHENTICATION = {
    Integ.NONE: "NULL",
    Integ.HMAC_SHA1_96: "HMAC-SHA-1-96 [RFC2404]",
    Integ.HMAC_SHA2_256_128: "HMAC-SHA-256-128 [RFC4868]",
    Integ.HMAC_SHA2_384_192: "HMAC-SHA-384-192 [RFC4868]",
    Integ.HMAC_SHA2_512_256: "HMAC-SHA-512-256 [RFC4868]",
    Integ.AES_XCBC_96: "AES-XCBC-MAC-96 [RFC3566]",
    Integ.AES_CMAC_96: "AES-CMAC-96 [RFC4494]",
}
#: What Wireshark 4.0 has no name for: in a table of ours it would refuse the whole file.
NAMELESS_ENCRYPTION = (
    *(Encr.AES_CCM_8, Encr.AES_CCM_12, Encr.AES_CCM_16),
    *(Encr.CHACHA20_POLY1305, Encr.NULL_AUTH_AES_GMAC),
)
NAMELESS_AUTHENTICATION = (Integ.AES_XCBC_96, Integ.AES_CMAC_96)


@pytest.mark.parametrize("suite", SUITES, ids=str)
@pytest.mark.parametrize("esn", [False, True])
@pytest.mark.parametrize("mode", list(Mode))
def test_every_suite_of_the_packet_core_is_decrypted_and_verified(
    tmp_path, suite: Suite, mode: Mode, *, esn: bool
):
    addresses = {4: ("192.0.2.1", "192.0.2.2")}
    packet = ip_packet(4, bytes(24), protocol=253, addresses=addresses if mode is Mode.TRANSPORT else None)
    sealed = outbound(suite, mode=mode, esn=esn, spi=SPI).seal(packet, 0.0)
    inspector = keys_of(
        tmp_path,
        ENCRYPTION[suite.encryption],
        suite.encryption_key,
        AUTHENTICATION[suite.integrity],
        suite.integrity_key,
        more=',"64-bit"' if esn else "",
    )

    findings = inspector.inspect(found(esp_of(sealed)))

    assert findings.problem == ""
    assert (findings.is_decrypted, findings.is_verified, findings.has_failed) == (True, True, False)
    assert (findings.next_header, findings.is_esn) == (4 if mode is Mode.TUNNEL else 253, esn)


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_key_log_has_the_row_of_every_suite_that_wireshark_can_read(suite: Suite):
    sa = association(Direction.OUTBOUND, suite)

    if suite.encryption in NAMELESS_ENCRYPTION or suite.integrity in NAMELESS_AUTHENTICATION:
        with pytest.raises(KeyLogError, match="no name for"):
            format_esp_sa(sa)
    else:
        row = format_esp_sa(sa)
        assert f'"{ENCRYPTION[suite.encryption]}"' in row
        assert f'"{AUTHENTICATION[suite.integrity]}"' in row


def test_names_of_suites_are_those_of_the_tables():
    assert all(parse_encryption(name).encr is encr for encr, name in ENCRYPTION.items())
