"""Wireshark's key tables: every spelling, both ends of an exchange, and every mistake with its place."""

from ipaddress import ip_address

import pytest

from gateway.inspect.algorithms import Encryption, parse_authentication, parse_encryption
from gateway.inspect.errors import InspectError
from gateway.inspect.keys import KeyTableError, read_keys
from gateway.ipsec.algorithms import INTEG, Encr
from gateway.observe import keylog
from tests.vectors.read import STRONGSWAN, WIRESHARK

IKE_ROW = '0011223344556677,8899aabbccddeeff,{key},{key},"{encr}",{auth},{auth},"{integ}"'
ESP_ROW = '"IPv4","192.0.2.1","192.0.2.2","0x01020304","{encr}","0x{key}","{auth}","{auth_key}"'


def write(tmp_path, text, name="esp_sa"):
    path = tmp_path / name
    path.write_text(text)
    return path


def esp_row(source="192.0.2.1", destination="192.0.2.2", spi="0x01020304", version="IPv4", more=""):
    key = "00" * 20
    return f'"{version}","{source}","{destination}","{spi}","AES-GCM [RFC4106]","0x{key}","NULL",""{more}'


IKE_NAMES = {
    "3DES [RFC2451]": (Encr.TRIPLE_DES, 24),
    "AES-CBC-128 [RFC3602]": (Encr.AES_CBC, 16),
    "AES-CBC-192 [RFC3602]": (Encr.AES_CBC, 24),
    "AES-CBC-256 [RFC3602]": (Encr.AES_CBC, 32),
    "AES-CTR-128 [RFC5930]": (Encr.AES_CTR, 20),
    "AES-CTR-192 [RFC5930]": (Encr.AES_CTR, 28),
    "AES-CTR-256 [RFC5930]": (Encr.AES_CTR, 36),
    "NULL [RFC2410]": (Encr.NULL, 0),
    **{
        f"AES-{mode}-{bits} with {icv} octet ICV [RFC5282]": (
            Encr[f"AES_{mode}_{icv}"],
            bits // 8 + (4 if mode == "GCM" else 3),
        )
        for mode in ("GCM", "CCM")
        for bits in (128, 192, 256)
        for icv in (8, 12, 16)
    },
}
IKE_INTEGRITY = {
    "NONE [RFC4306]": 0,
    "HMAC_MD5_96 [RFC2403]": 12,
    "HMAC_SHA1_96 [RFC2404]": 12,
    "HMAC_MD5_128 [RFC4595]": 16,
    "HMAC_SHA1_160 [RFC4595]": 20,
    "HMAC_SHA2_256_96 [draft-ietf-ipsec-ciph-sha-256-00]": 12,
    "HMAC_SHA2_256_128 [RFC4868]": 16,
    "HMAC_SHA2_384_192 [RFC4868]": 24,
    "HMAC_SHA2_512_256 [RFC4868]": 32,
    **{
        f"ANY {bits}-bits of Authentication [No Checking]": bits // 8 for bits in (64, 96, 128, 160, 192, 256)
    },
}
ESP_NAMES = {
    "NULL": (Encr.NULL, 0),
    "TripleDES-CBC [RFC2451]": (Encr.TRIPLE_DES, 24),
    "AES-CBC [RFC3602]": (Encr.AES_CBC, 32),
    "AES-CTR [RFC3686]": (Encr.AES_CTR, 20),
    "DES-CBC [RFC2405]": (Encr.DES, 8),
    "CAST5-CBC [RFC2144]": (Encr.CAST, 16),
    "BLOWFISH-CBC [RFC2451]": (Encr.BLOWFISH, 16),
    "AES-GCM [RFC4106]": (Encr.AES_GCM_16, 36),
    "AES-GCM with 8 octet ICV [RFC4106]": (Encr.AES_GCM_8, 20),
    "AES-GCM with 12 octet ICV [RFC4106]": (Encr.AES_GCM_12, 28),
    "AES-GCM with 16 octet ICV [RFC4106]": (Encr.AES_GCM_16, 36),
    "AES-GCM with IIV and 16 octet ICV [RFC4106 & RFC8750]": (Encr.AES_GCM_16, 36),
    "ChaCha20 with Poly1305 [RFC7634]": (Encr.CHACHA20_POLY1305, 36),
    "ChaCha20 with Poly1305 and IIV [RFC7634 & RFC8750]": (Encr.CHACHA20_POLY1305, 36),
}
ESP_INTEGRITY = {
    "NULL": 0,
    "HMAC-SHA-1-96 [RFC2404]": 12,
    "HMAC-SHA-256-96 [draft-ietf-ipsec-ciph-sha-256-00]": 12,
    "HMAC-SHA-256-128 [RFC4868]": 16,
    "HMAC-SHA-384-192 [RFC4868]": 24,
    "HMAC-SHA-512-256 [RFC4868]": 32,
    "HMAC-MD5-96 [RFC2403]": 12,
    "MAC-RIPEMD-160-96 [RFC2857]": 12,
    **{f"ANY {bits} bit authentication [no checking]": bits // 8 for bits in (64, 96, 128, 192, 256)},
}


@pytest.mark.parametrize(("name", "expected"), (IKE_NAMES | ESP_NAMES).items())
def test_encryption_name_of_wireshark_is_understood(name, expected):
    assert parse_encryption(name).encr is expected[0]


@pytest.mark.parametrize(("name", "icv_bytes"), (IKE_INTEGRITY | ESP_INTEGRITY).items())
def test_integrity_name_of_wireshark_is_understood(name, icv_bytes):
    authentication = parse_authentication(name)

    assert authentication.icv_bytes == icv_bytes
    assert authentication.is_any == name.startswith("ANY")
    if authentication.icv is not None:
        assert len(authentication.icv(b"key", b"data")) == icv_bytes


@pytest.mark.parametrize("name", ["", "ROT13", "AES", "AES-CBC with 16 octet ICV", "AES-GCM-512"])
def test_encryption_name_nobody_has_is_not_understood(name):
    assert parse_encryption(name) is None


@pytest.mark.parametrize(("name", "expected"), IKE_NAMES.items())
def test_ike_row_of_every_encryption(tmp_path, name, expected):
    row = IKE_ROW.format(key="01" * expected[1], encr=name, auth="", integ="NONE [RFC4306]")
    if expected[0] is Encr.TRIPLE_DES:
        row = row.replace("01" * 24, bytes(range(24)).hex())

    (key,) = read_keys(write(tmp_path, row, "ikev2_decryption_table")).ike

    assert (key.spi_i.hex(), key.spi_r.hex()) == ("0011223344556677", "8899aabbccddeeff")
    assert key.from_initiator.iv_bytes in (0, 8, 16)


@pytest.mark.parametrize(("name", "expected"), ESP_NAMES.items())
def test_esp_row_of_every_encryption(tmp_path, name, expected):
    key = bytes(range(1, expected[1] + 1)).hex()
    row = ESP_ROW.format(encr=name, key=key, auth="NULL", auth_key="0x")

    (found,) = read_keys(write(tmp_path, row)).esp

    assert found.opener.implicit_iv == ("IIV" in name)


@pytest.mark.parametrize(("bits", "icv_bytes"), [(64, 8), (96, 12), (128, 16)])
def test_gcm_without_icv_length_takes_it_from_the_authentication_column(tmp_path, bits, icv_bytes):
    row = ESP_ROW.format(
        encr="AES-GCM [RFC4106]",
        key="00" * 20,
        auth=f"ANY {bits} bit authentication [no checking]",
        auth_key="0x",
    )

    (key,) = read_keys(write(tmp_path, row)).esp

    assert key.opener.icv_bytes == icv_bytes
    assert key.opener.aead is not None


@pytest.mark.parametrize(
    ("row", "source", "fits"),
    [
        (esp_row(source="*"), "198.51.100.9", True),
        (esp_row(source="192.0.2.0/24"), "192.0.2.77", True),
        (esp_row(source="192.0.2.0/24"), "192.0.3.77", False),
        (esp_row(source="192.0.2.*"), "192.0.2.77", True),
        (esp_row(source="192.0.*.*"), "192.0.3.77", True),
        (esp_row(source="192.0.2.*"), "192.0.3.77", False),
        (esp_row(source="*.*.*.*"), "8.8.8.8", True),
        (esp_row(), "192.0.2.1", True),
        (esp_row(), "192.0.2.3", False),
        (esp_row(source="*"), "2001:db8::1", False),
    ],
)
def test_ipv4_source_patterns(tmp_path, row, source, fits):
    (key,) = read_keys(write(tmp_path, row)).esp

    destination = ip_address("192.0.2.2" if "." in source else "2001:db8::2")
    assert key.matches(ip_address(source), destination, 0x01020304) == fits


@pytest.mark.parametrize(
    ("pattern", "address", "fits"),
    [
        ("2001:db8::1", "2001:db8::1", True),
        ("2001:db8::/32", "2001:db8:7::1", True),
        ("2001:db8:0:0:0:0:0:*", "2001:db8::1234", True),
        ("2001:db8:0:0:0:0:*:1", "2001:db8::abcd:1", True),
        ("2001:0db8:0:0:0:0:0:000*", "2001:db8::5", True),
        ("2001:db8:0:0:0:0:0:000*", "2001:db8::15", False),
        ("*", "fe80::1", True),
    ],
)
def test_ipv6_patterns(tmp_path, pattern, address, fits):
    row = esp_row(source=pattern, destination="*", version="IPv6")

    (key,) = read_keys(write(tmp_path, row)).esp

    assert key.matches(ip_address(address), ip_address("fe80::2"), 0x01020304) == fits


@pytest.mark.parametrize(
    ("pattern", "spi", "fits"),
    [
        ("*", 0xDEADBEEF, True),
        ("0x*", 0x00000005, True),
        ("0x*", 0x00000015, False),
        ("0xdead*eef", 0xDEADBEEF, True),
        ("0xDEADBEEF", 0xDEADBEEF, True),
        ("0x00000100", 0x100, True),
        ("0x100", 0x100, True),
        ("0xdead****", 0xDEADBEEF, True),
        ("0xdead****", 0xDEAEBEEF, False),
        ("deadbeef", 0xDEADBEEF, True),
    ],
)
def test_spi_patterns(tmp_path, pattern, spi, fits):
    (key,) = read_keys(write(tmp_path, esp_row(spi=pattern))).esp

    assert key.matches(ip_address("192.0.2.1"), ip_address("192.0.2.2"), spi) == fits


@pytest.mark.parametrize(
    ("more", "esn"), [("", None), (',"32-bit"', False), (',"64-bit"', True), (',""', False)]
)
def test_ninth_column_tells_extended_sequence_numbers(tmp_path, more, esn):
    assert read_keys(write(tmp_path, esp_row(more=more))).esp[0].esn is esn


def test_key_without_0x_is_its_characters(tmp_path):
    row = ESP_ROW.format(
        encr="AES-CBC [RFC3602]", key="", auth="HMAC-SHA-1-96 [RFC2404]", auth_key="0x" + "00" * 20
    ).replace('"0x"', '"sixteen letters!"')

    (key,) = read_keys(write(tmp_path, row)).esp

    assert key.opener.block_bytes == 16


def test_comments_and_empty_lines_are_passed_over(tmp_path):
    assert len(read_keys(write(tmp_path, f"# Wireshark wrote this\n\n  # and this\n{esp_row()}\n")).esp) == 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a,b,c", "3 fields, a row of esp_sa has 8 or 9"),
        (esp_row(version="IPv5"), "protocol is 'IPv5', it is IPv4 or IPv6"),
        (esp_row(source="nowhere"), "source is 'nowhere', neither an address nor a pattern"),
        (esp_row(destination="192.0.*"), "an IPv4 pattern has 4 groups"),
        (esp_row(destination="2001:*", version="IPv6"), "an IPv6 pattern has 8 groups"),
        (esp_row(spi="0xzz"), "SPI is '0xzz'"),
        (esp_row(spi="0x123456789"), "SPI is '0x123456789'"),
        (esp_row(more=',"48-bit"'), "sequence number length is '48-bit'"),
        (ESP_ROW.format(encr="ROT13", key="", auth="NULL", auth_key=""), "'ROT13' is not one Wireshark has"),
        (ESP_ROW.format(encr="NULL", key="", auth="CRC", auth_key=""), "'CRC' is not one Wireshark has"),
        (ESP_ROW.format(encr="NULL", key="0", auth="NULL", auth_key=""), "even number of hex digits"),
        (ESP_ROW.format(encr="AES-CBC [RFC3602]", key="00" * 15, auth="NULL", auth_key=""), "120 bits"),
        (
            ESP_ROW.format(
                encr="AES-GCM [RFC4106]",
                key="00" * 20,
                auth="ANY 192 bit authentication [no checking]",
                auth_key="",
            ),
            "no ICV of 192 bits",
        ),
        ('"IPv4","unclosed', "unexpected end of data"),
    ],
)
def test_bad_esp_row_is_refused_with_file_and_line(tmp_path, row, reason):
    path = write(tmp_path, f"# fine\n{esp_row()}\n{row}\n")

    with pytest.raises(KeyTableError) as caught:
        read_keys(path)

    assert str(caught.value).startswith(f"{path}:3: ")
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("0011223344556677,8899aabbccddeeff", "2 fields, a row of ikev2_decryption_table has 8"),
        (IKE_ROW.format(key="", encr="NULL", auth="", integ="NONE").replace("0011", "00"), "16 hex digits"),
        (IKE_ROW.format(key="", encr="NULL", auth="", integ="NONE").replace("0011", "xy11"), "SPIi is not"),
        (
            IKE_ROW.format(key="00" * 32, encr="AES-GCM-256 with 16 octet ICV", auth="", integ="NONE"),
            "the encryption key is 32 bytes, 36 are wanted (4 of them salt)",
        ),
    ],
)
def test_bad_ike_row_is_refused_with_file_and_line(tmp_path, row, reason):
    path = write(tmp_path, row, "my_ikev2_decryption_table")

    with pytest.raises(KeyTableError) as caught:
        read_keys(path)

    assert str(caught.value).startswith(f"{path}:1: ")
    assert reason in str(caught.value)


def test_no_message_about_a_key_table_quotes_a_key(tmp_path):
    secret = "c0ffee" * 7
    row = ESP_ROW.format(encr="AES-CBC [RFC3602]", key=secret, auth="NULL", auth_key="")

    with pytest.raises(KeyTableError) as caught:
        read_keys(write(tmp_path, row))

    assert "c0ffee" not in str(caught.value)


def test_directory_gives_the_tables_of_both_ends_and_each_key_once():
    tables = read_keys(STRONGSWAN / "psk-x25519-gcm256")

    assert len(tables.ike) == 2
    assert len(tables.esp) == 6


def test_directory_without_tables_and_missing_path_are_refused(tmp_path):
    (tmp_path / "unrelated").write_text("x")

    with pytest.raises(InspectError, match="ends in ikev2_decryption_table or esp_sa"):
        read_keys(tmp_path)
    with pytest.raises(InspectError, match="No such file"):
        read_keys(tmp_path / "missing")


def test_binary_file_is_refused(tmp_path):
    path = tmp_path / "esp_sa"
    path.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(KeyTableError, match="not a text file"):
        read_keys(path)


def test_lone_file_of_another_name_is_told_by_its_content(tmp_path):
    ike = IKE_ROW.format(key="", encr="NULL", auth="", integ="NONE")

    assert len(read_keys(write(tmp_path, ike, "keys.txt")).ike) == 1
    assert len(read_keys(write(tmp_path, esp_row(), "keys.txt")).esp) == 1


def test_tables_of_wireshark_s_own_test_suite_are_read():
    assert len(read_keys(WIRESHARK / "ikev2_decryption_table.tmpl").ike) == 9
    assert len(read_keys(WIRESHARK / "esp_sa.tmpl").esp) == 2
    assert len(read_keys(WIRESHARK).ike) == 9


def test_algorithm_without_code_spoils_its_own_row_only(tmp_path):
    twofish = ESP_ROW.format(encr="TWOFISH-CBC", key="00" * 16, auth="NULL", auth_key="")

    tables = read_keys(write(tmp_path, f"{twofish}\n{esp_row()}\n"))

    assert [bool(key.opener.refusal) for key in tables.esp] == [True, False]


def test_every_name_our_own_key_log_writes_is_understood():
    for (encr, bits), name in keylog._IKE_ENCR.items():
        assert parse_encryption(name) == Encryption(encr=encr, key_bits=bits if "-" in name else None)
    for encr, name in keylog._ESP_ENCR.items():
        assert parse_encryption(name).encr is encr
    for table in (keylog._IKE_INTEG, keylog._ESP_INTEG):
        for integ, name in table.items():
            assert parse_authentication(name).icv_bytes == INTEG[integ].icv_bytes
