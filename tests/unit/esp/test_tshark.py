"""tshark decrypts and verifies what we seal, given an `esp_sa` table: a third implementation (libgcrypt).

It covers what Wireshark 4.0 knows: AES-GCM with every ICV, AES-CBC, AES-CTR and NULL with HMAC, in tunnel and
transport mode, with and without UDP. Of AES-XCBC-96 and AES-CMAC-96 it is told the size, so that it decrypts
and does not verify; it has neither AES-CCM nor ChaCha20-Poly1305 nor AES-GMAC, and no keys for AH.
"""

import csv
import io
import shutil
import subprocess
from itertools import product
from pathlib import Path
from struct import pack

import pytest

from gateway.ipsec.algorithms import Encr, Integ
from gateway.ipsec.sa import Mode, Spi
from tests.unit.esp.samples import ENCAPSULATION, INNER, OUTER, SUITES, ip_packet, outbound

TSHARK = shutil.which("tshark")
CIPHER = {
    Encr.AES_GCM_16: "AES-GCM with 16 octet ICV [RFC4106]",
    Encr.AES_GCM_12: "AES-GCM with 12 octet ICV [RFC4106]",
    Encr.AES_GCM_8: "AES-GCM with 8 octet ICV [RFC4106]",
    Encr.AES_CBC: "AES-CBC [RFC3602]",
    Encr.AES_CTR: "AES-CTR [RFC3686]",
    Encr.NULL: "NULL",
}
MAC = {
    Integ.NONE: "NULL",
    Integ.HMAC_SHA1_96: "HMAC-SHA-1-96 [RFC2404]",
    Integ.HMAC_SHA2_256_128: "HMAC-SHA-256-128 [RFC4868]",
    Integ.HMAC_SHA2_384_192: "HMAC-SHA-384-192 [RFC4868]",
    Integ.HMAC_SHA2_512_256: "HMAC-SHA-512-256 [RFC4868]",
    Integ.AES_XCBC_96: "ANY 96 bit authentication [no checking]",
    Integ.AES_CMAC_96: "ANY 96 bit authentication [no checking]",
}
UNCHECKED = (Integ.AES_XCBC_96, Integ.AES_CMAC_96)
SHAPES = [
    *((Mode.TUNNEL, inner, outer, udp) for inner, outer, udp in product((4, 6), (4, 6), (False, True))),
    *((Mode.TRANSPORT, version, version, udp) for version, udp in product((4, 6), (False, True))),
]
PCAP_HEADER = pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
"""Of a capture whose packets begin with their IP header (LINKTYPE_RAW)."""
UDP_TO_PORT_7 = b"\x03\xe8\x00\x07\x00\x0c\x00\x00abcd"


def hexadecimal(key: bytes) -> str:
    return f"0x{key.hex()}" if key else ""


@pytest.mark.skipif(TSHARK is None, reason="tshark is not installed")
def test_tshark_decrypts_and_verifies_what_we_seal(tmp_path: Path) -> None:
    capture, table = PCAP_HEADER, io.StringIO()
    rows = csv.writer(table, quoting=csv.QUOTE_ALL, lineterminator="\n")
    expected = []
    suites = [suite for suite in SUITES if suite.encryption in CIPHER]
    for number, (suite, (mode, inner, outer, udp)) in enumerate(product(suites, SHAPES)):
        spi = Spi(0x10000 + number)
        addresses = INNER if mode is Mode.TUNNEL else OUTER
        packet = ip_packet(inner, UDP_TO_PORT_7, protocol=17, addresses=addresses)
        encapsulation = ENCAPSULATION if udp else None
        sender = outbound(suite, mode=mode, outer=outer, encapsulation=encapsulation, spi=spi)
        sealed = sender.seal(packet, 0.0)
        capture += pack("<IIII", number, 0, len(sealed), len(sealed)) + sealed
        rows.writerow(
            (
                f"IPv{outer}",
                *OUTER[outer],
                f"0x{spi:08x}",
                CIPHER[suite.encryption],
                hexadecimal(suite.encryption_key),
                MAC[suite.integrity],
                "" if suite.integrity in UNCHECKED else hexadecimal(suite.integrity_key),
            )
        )
        expected.append((f"0x{spi:08x}", "0" if suite.integrity in UNCHECKED else "1", "7"))
    (tmp_path / "esp.pcap").write_bytes(capture)
    (tmp_path / "esp_sa").write_text(table.getvalue())

    assert decrypted(tmp_path / "esp.pcap", tmp_path) == expected


def decrypted(capture: Path, profile: Path) -> list[tuple[str, str, str]]:
    """Return SPI, whether the ICV is good, and the inner UDP destination port of each packet."""
    fields = ("esp.spi", "esp.icv_good", "udp.dstport")
    assert TSHARK is not None
    options = ["-o", "esp.enable_encryption_decode:TRUE", "-o", "esp.enable_authentication_check:TRUE"]
    for field in fields:
        options += ["-e", field]
    done = subprocess.run(
        [TSHARK, "-r", str(capture), "-T", "fields", "-E", "occurrence=l", *options],
        env={"WIRESHARK_CONFIG_DIR": str(profile), "HOME": str(profile), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    return [(line[0], line[1], line[2]) for line in lines]
