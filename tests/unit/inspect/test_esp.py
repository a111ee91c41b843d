"""ESP packets that scapy's IPsec layer made, opened with key table rows; and what fails, and how."""

from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.ipsec import ESP, SecurityAssociation
from scapy.packet import Raw

from gateway.ike.crypto.cipher import build_cipher
from gateway.inspect.esp import EspInspector, describe_ah
from gateway.inspect.keys import read_keys
from gateway.inspect.packet import Found, Kind
from gateway.ipsec.algorithms import Encr
from gateway.ipsec.secret import Secret

INNER = IP(src="10.1.0.1", dst="10.2.0.1") / ICMP(id=7, seq=9) / Raw(b"x" * 56)
OUTER = {4: IP(src="192.0.2.1", dst="192.0.2.2"), 6: IPv6(src="2001:db8::1", dst="2001:db8::2")}
SPI = 0x01020304
K16, K20, K24, K32, K36 = (bytes(range(1, size + 1)) for size in (16, 20, 24, 32, 36))
SUITES = [
    ("AES-GCM", K20, "NULL", b"", "AES-GCM with 16 octet ICV [RFC4106]", "NULL"),
    ("AES-GCM", K36, "NULL", b"", "AES-GCM [RFC4106]", "ANY 128 bit authentication [no checking]"),
    ("AES-GCM", K36, "NULL", b"", "AES-GCM [RFC4106]", "NULL"),
    ("AES-CCM", K16 + b"sal", "NULL", b"", "AES-CCM with 16 octet ICV", "NULL"),
    ("CHACHA20-POLY1305", K36, "NULL", b"", "ChaCha20 with Poly1305 [RFC7634]", "NULL"),
    ("AES-CBC", K16, "HMAC-SHA1-96", K20, "AES-CBC [RFC3602]", "HMAC-SHA-1-96 [RFC2404]"),
    ("AES-CBC", K32, "SHA2-256-128", K32, "AES-CBC [RFC3602]", "HMAC-SHA-256-128 [RFC4868]"),
    ("AES-CBC", K24, "SHA2-384-192", K32 + K16, "AES-CBC [RFC3602]", "HMAC-SHA-384-192 [RFC4868]"),
    ("AES-CBC", K16, "SHA2-512-256", K32 + K32, "AES-CBC [RFC3602]", "HMAC-SHA-512-256 [RFC4868]"),
    ("AES-CTR", K20, "AES-CMAC-96", K16, "AES-CTR [RFC3686]", "AES-CMAC-96"),
    ("AES-CTR", K20, "HMAC-MD5-96", K16, "AES-CTR [RFC3686]", "HMAC-MD5-96 [RFC2403]"),
    ("3DES", K24, "HMAC-SHA1-96", K20, "TripleDES-CBC [RFC2451]", "HMAC-SHA-1-96 [RFC2404]"),
    ("NULL", b"", "SHA2-256-128", K32, "NULL", "HMAC-SHA-256-128 [RFC4868]"),
]
IDS = [f"{suite[0]}-{len(suite[1])}-{suite[5]}" for suite in SUITES]


def keys_of(tmp_path, encryption, key, authentication, auth_key, *, version=4, more="", destination="*"):
    path = tmp_path / "esp_sa"
    path.write_text(
        f'"IPv{version}","*","{destination}","0x{SPI:08x}","{encryption}","0x{key.hex()}",'
        f'"{authentication}","0x{auth_key.hex()}"{more}\n'
    )
    return EspInspector(read_keys(path).esp)


def sealed(suite, inner=INNER, *, version=4, tunnel=True, esn=False, sequence=5):
    sa = SecurityAssociation(
        ESP,
        spi=SPI,
        crypt_algo=suite[0],
        crypt_key=suite[1],
        auth_algo=suite[2],
        auth_key=suite[3] or None,
        tunnel_header=OUTER[version] if tunnel else None,
        esn_en=esn,
        esn=0,
    )
    packet = sa.encrypt(inner, seq_num=sequence)
    return bytes(packet[ESP]) if packet.haslayer(ESP) else bytes(packet.payload)


def found(data, *, version=4):
    source, destination = ("192.0.2.1", "192.0.2.2") if version == 4 else ("2001:db8::1", "2001:db8::2")
    return Found(
        kind=Kind.ESP,
        frame=1,
        time_ns=0,
        source=ip_address(source),
        destination=ip_address(destination),
        data=data,
    )


@pytest.mark.parametrize("suite", SUITES, ids=IDS)
@pytest.mark.parametrize("version", [4, 6])
def test_every_suite_scapy_has_opens_and_is_verified(tmp_path, suite, version):
    inspector = keys_of(tmp_path, suite[4], suite[1], suite[5], suite[3], version=version)

    findings = inspector.inspect(found(sealed(suite, version=version), version=version))

    assert findings.problem == ""
    assert (findings.is_decrypted, findings.is_verified, findings.has_failed) == (True, True, False)
    assert (findings.spi, findings.sequence, findings.next_header) == (SPI, 5, 4)
    assert findings.inner == "10.1.0.1 > 10.2.0.1 ICMP echo request id 7 seq 9, 84 bytes"


@pytest.mark.parametrize("suite", SUITES, ids=IDS)
def test_wrong_key_is_a_failure_and_nothing_is_shown(tmp_path, suite):
    wrong = bytes(reversed(suite[1])) if suite[1] else b""
    inspector = keys_of(tmp_path, suite[4], wrong, suite[5], bytes(reversed(suite[3])))

    findings = inspector.inspect(found(sealed(suite)))

    assert (findings.is_decrypted, findings.is_verified, findings.has_failed) == (False, False, True)
    assert findings.inner == ""
    assert "01020304" in findings.problem


@pytest.mark.parametrize("suite", [SUITES[0], SUITES[6]], ids=["aead", "mac"])
@pytest.mark.parametrize("more", ["", ',"64-bit"'])
def test_extended_sequence_numbers_are_tried_with_high_half_zero(tmp_path, suite, more):
    inspector = keys_of(tmp_path, suite[4], suite[1], suite[5], suite[3], more=more)

    findings = inspector.inspect(found(sealed(suite, esn=True)))

    assert findings.problem == ""
    assert findings.is_verified
    assert findings.is_esn


def test_row_that_says_32_bit_does_not_try_extended_sequence_numbers(tmp_path):
    suite = SUITES[0]
    inspector = keys_of(tmp_path, suite[4], suite[1], suite[5], suite[3], more=',"32-bit"')

    assert inspector.inspect(found(sealed(suite, esn=True))).has_failed


@pytest.mark.parametrize(
    ("name", "encr", "key"),
    [
        ("AES-GCM with IIV and 16 octet ICV [RFC4106 & RFC8750]", Encr.AES_GCM_16, K36),
        ("ChaCha20 with Poly1305 and IIV [RFC7634 & RFC8750]", Encr.CHACHA20_POLY1305, K36),
    ],
)
def test_implicit_iv_is_the_sequence_number(tmp_path, name, encr, key):
    """RFC 8750 §4: the 8-byte IV is the sequence number, extended to 64 bits by zeros."""
    head = SPI.to_bytes(4, "big") + (9).to_bytes(4, "big")
    plaintext = b"payload" + b"\1\2\3" + b"\3\x3b"
    packet = head + build_cipher(encr, Secret(key)).seal((9).to_bytes(8, "big"), head, plaintext)

    findings = keys_of(tmp_path, name, key, "NULL", b"").inspect(found(packet))

    assert findings.is_verified
    assert findings.inner == "dummy packet, 7 bytes"


def test_no_checking_decrypts_without_verifying_and_notices_nonsense(tmp_path):
    suite = SUITES[6]
    no_checking = "ANY 128 bit authentication [no checking]"

    right = keys_of(tmp_path, suite[4], suite[1], no_checking, b"").inspect(found(sealed(suite)))
    wrong = keys_of(tmp_path, suite[4], suite[1][::-1], no_checking, b"").inspect(found(sealed(suite)))

    assert (right.is_decrypted, right.is_verified, right.has_failed) == (True, False, False)
    assert right.inner.startswith("10.1.0.1 > 10.2.0.1 ICMP")
    assert (wrong.is_decrypted, wrong.has_failed) == (False, True)


def test_packet_without_a_key_is_no_failure(tmp_path):
    inspector = keys_of(tmp_path, *row(SUITES[0]))
    stranger = b"\xaa\xaa\xaa\xaa" + bytes(60)

    findings = inspector.inspect(found(stranger))

    assert not findings.has_failed
    assert findings.note == "no key for this SPI and these addresses"
    assert EspInspector([]).inspect(found(stranger)).note == "no key"


def row(suite):
    return suite[4], suite[1], suite[5], suite[3]


def test_behind_a_nat_the_spi_alone_finds_the_key(tmp_path):
    inspector = keys_of(tmp_path, *row(SUITES[0]), destination="198.51.100.7")

    findings = inspector.inspect(found(sealed(SUITES[0])))

    assert findings.is_verified


def test_key_of_the_same_spi_between_other_addresses_that_does_not_fit_is_no_failure(tmp_path):
    inspector = keys_of(tmp_path, SUITES[0][4], K20[::-1], "NULL", b"", destination="198.51.100.7")

    findings = inspector.inspect(found(sealed(SUITES[0])))

    assert (findings.has_failed, findings.problem) == (False, "")
    assert "does not fit" in findings.note


def test_two_rows_of_one_spi_are_both_tried(tmp_path):
    path = tmp_path / "esp_sa"
    line = '"IPv4","*","*","0x01020304","AES-GCM [RFC4106]","0x{}","NULL",""\n'
    path.write_text(line.format(K20[::-1].hex()) + line.format(K20.hex()))

    assert EspInspector(read_keys(path).esp).inspect(found(sealed(SUITES[0]))).is_verified


@pytest.mark.parametrize("size", range(0, 60, 3))
def test_every_truncation_is_a_problem_and_never_an_exception(tmp_path, size):
    inspector = keys_of(tmp_path, *row(SUITES[6]))

    findings = inspector.inspect(found(sealed(SUITES[6])[:size]))

    assert findings.problem
    assert findings.has_failed == (size >= 8)


@pytest.mark.parametrize(
    ("inner", "tunnel", "text"),
    [
        (
            IP(src="10.1.0.1", dst="10.2.0.1") / TCP(sport=1234, dport=80, flags="S"),
            True,
            "10.1.0.1 > 10.2.0.1 TCP 1234 > 80 [SYN], 40 bytes",
        ),
        (
            IPv6(src="fd00::1", dst="fd00::2") / UDP(sport=5, dport=6),
            True,
            "fd00::1 > fd00::2 UDP 5 > 6, 48 bytes",
        ),
        (
            IPv6(src="fd00::1", dst="fd00::2") / ICMPv6EchoRequest(id=1, seq=2),
            True,
            "fd00::1 > fd00::2 ICMPv6 echo request id 1 seq 2, 48 bytes",
        ),
        (IP(src="192.0.2.1", dst="192.0.2.2") / UDP(sport=5, dport=6), False, "UDP 5 > 6, 8 bytes"),
        (
            IP(src="10.1.0.1", dst="10.2.0.1", frag=100, proto=17) / Raw(b"rest"),
            True,
            "10.1.0.1 > 10.2.0.1 UDP fragment at 800, 24 bytes",
        ),
        (
            IP(src="10.1.0.1", dst="10.2.0.1") / ICMP(type=3, code=4) / Raw(b"quoted"),
            True,
            "10.1.0.1 > 10.2.0.1 ICMP destination unreachable, 34 bytes",
        ),
        (IP(src="10.1.0.1", dst="10.2.0.1", proto=89), True, "10.1.0.1 > 10.2.0.1 OSPF, 20 bytes"),
    ],
)
def test_inner_packet_is_told_in_a_line(tmp_path, inner, tunnel, text):
    inspector = keys_of(tmp_path, *row(SUITES[0]))

    assert inspector.inspect(found(sealed(SUITES[0], inner, tunnel=tunnel))).inner == text


def test_ah_is_told_in_a_line():
    ah = bytes.fromhex("04040000 00000100 00000007") + bytes(12) + bytes(INNER)

    inner = "10.1.0.1 > 10.2.0.1 ICMP echo request id 7 seq 9, 84 bytes"
    assert describe_ah(found(ah)) == f"AH SPI 00000100 seq 7 IPv4: {inner} (ICV not checked)"
    assert describe_ah(found(b"short")) == "AH, 5 bytes, too short"
