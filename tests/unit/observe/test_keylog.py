"""The key tables, judged by tshark itself: it accepts every row and decrypts others' captures with them."""

import csv
import logging
import os
import shutil
import stat
import subprocess
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from gateway.ike.events import IkeSaId, IkeSaInfo, IkeSaKeys, IkeSaKeysDerived
from gateway.ike.path import Path as IkePath
from gateway.ipsec.algorithms import ENCR, INTEG, Encr, Integ
from gateway.ipsec.proposal import ProtocolId, Transform, TransformType, parse_proposal
from gateway.ipsec.sa import Direction, IpsecProtocol, SecurityAssociation, Spi
from gateway.ipsec.secret import Secret
from gateway.observe import keylog
from gateway.observe.keylog import (
    ESP_TABLE,
    IKEV2_TABLE,
    KeyLog,
    KeyLogError,
    format_esp_sa,
    format_ike_sa,
)

VECTORS = Path(__file__).parents[2] / "vectors"
STRONGSWAN = VECTORS / "strongswan-6.0.6"
WIRESHARK = VECTORS / "wireshark"

needs_tshark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")


def tshark(config: Path, capture: Path, *options: str) -> tuple[list[str], str]:
    """Return the lines and the complaints of tshark with the key tables in `config`."""
    environment = {**os.environ, "HOME": str(config), "WIRESHARK_CONFIG_DIR": str(config)}
    run = subprocess.run(
        ["tshark", "-r", str(capture), "-o", "esp.enable_encryption_decode:TRUE",
         "-o", "esp.enable_authentication_check:TRUE", *options],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    complaints = [line for line in run.stderr.splitlines() if "Running as user" not in line]
    return run.stdout.splitlines(), "\n".join(complaints)


def rows(table: Path) -> list[list[str]]:
    return [row for row in csv.reader(table.read_text().splitlines()) if row and not row[0].startswith("#")]


def keys(words: str, sk_ei: bytes, sk_er: bytes, sk_ai: bytes = b"", sk_ar: bytes = b"") -> IkeSaKeys:
    return IkeSaKeys(
        proposal=parse_proposal(words, ProtocolId.IKE, implemented_only=False),
        sk_ei=Secret(sk_ei),
        sk_er=Secret(sk_er),
        sk_ai=Secret(sk_ai),
        sk_ar=Secret(sk_ar),
    )


def derived(spi_i: bytes, spi_r: bytes, ike_keys: IkeSaKeys) -> IkeSaKeysDerived:
    path = IkePath(ip_address("192.0.2.1"), 500, ip_address("192.0.2.2"), 500)
    info = IkeSaInfo(
        ike_sa_id=IkeSaId(1), connection="paris", spi_i=spi_i, spi_r=spi_r, is_initiator=True,
        state="connecting", path=path, local_id=None, remote_id=None, proposal=ike_keys.proposal,
        nat_local=False, nat_remote=False, began_at=0.0, established_at=None, rekey_at=None,
        expires_at=None,
    )  # fmt: skip
    return IkeSaKeysDerived(ike_sa=info, keys=ike_keys)


GCM_SA = SecurityAssociation(
    spi=Spi(0x5E13F05),
    direction=Direction.OUTBOUND,
    source=ip_address("192.0.2.1"),
    destination=ip_address("192.0.2.2"),
    encryption=Encr.AES_GCM_16,
    encryption_key=Secret(bytes(range(36))),
    key_bits=256,
    local_ts=(),
    remote_ts=(),
)


# --- rows ---------------------------------------------------------------------------------------


def test_ike_row_of_an_aead_has_key_and_salt_and_no_integrity_key():
    row = format_ike_sa(
        b"\x01" * 8, b"\x02" * 8, keys("aes128gcm16-prfsha256-x25519", b"\x03" * 20, b"\x04" * 20)
    )

    assert row == (
        f"{'01' * 8},{'02' * 8},{'03' * 20},{'04' * 20},"
        '"AES-GCM-128 with 16 octet ICV [RFC5282]",,,"NONE [RFC4306]"'
    )


def test_ike_row_of_a_cipher_has_its_integrity_keys():
    ike_keys = keys("aes256-sha512-x25519", b"\x03" * 32, b"\x04" * 32, b"\x05" * 64, b"\x06" * 64)

    row = format_ike_sa(b"\x01" * 8, b"\x02" * 8, ike_keys)

    assert row.endswith(f'"AES-CBC-256 [RFC3602]",{"05" * 64},{"06" * 64},"HMAC_SHA2_512_256 [RFC4868]"')


def test_esp_row_of_an_aead():
    assert format_esp_sa(GCM_SA) == (
        '"IPv4","192.0.2.1","192.0.2.2","0x05e13f05","AES-GCM with 16 octet ICV [RFC4106]",'
        f'"0x{bytes(range(36)).hex()}","NULL","0x"'
    )


def test_esp_row_of_a_cipher_over_ipv6():
    sa = replace(
        GCM_SA,
        source=ip_address("2001:db8::1"),
        destination=ip_address("2001:db8::2"),
        encryption=Encr.AES_CBC,
        encryption_key=Secret(b"\x01" * 16),
        key_bits=128,
        integrity=Integ.HMAC_SHA2_256_128,
        integrity_key=Secret(b"\x02" * 32),
    )

    assert format_esp_sa(sa) == (
        '"IPv6","2001:db8::1","2001:db8::2","0x05e13f05","AES-CBC [RFC3602]",'
        f'"0x{"01" * 16}","HMAC-SHA-256-128 [RFC4868]","0x{"02" * 32}"'
    )


def test_what_wireshark_has_no_name_for_is_said():
    with pytest.raises(KeyLogError, match="ENCR_CHACHA20_POLY1305"):
        format_ike_sa(bytes(8), bytes(8), keys("chacha20poly1305-prfsha256-x25519", bytes(36), bytes(36)))
    with pytest.raises(KeyLogError, match="AUTH_AES_XCBC_96"):
        format_esp_sa(replace(GCM_SA, encryption=Encr.AES_CBC, integrity=Integ.AES_XCBC_96))
    with pytest.raises(KeyLogError, match="no AH"):
        format_esp_sa(replace(GCM_SA, protocol=IpsecProtocol.AH))


# --- tshark accepts every name ------------------------------------------------------------------


def every_ike_row() -> list[str]:
    lines = []
    for encr, bits in keylog._IKE_ENCR:
        info = ENCR[encr]
        size = info.keymat_bytes(bits)
        for integ in [Integ.NONE] if info.aead else keylog._IKE_INTEG:
            transform = Transform(TransformType.ENCR, encr, bits if info.key_length_attribute else None)
            proposal = replace(
                parse_proposal("aes256-sha256-x25519", ProtocolId.IKE),
                transforms=(transform, Transform(TransformType.INTEG, integ)),
            )
            key = Secret(bytes(INTEG[integ].key_bytes))
            ike_keys = IkeSaKeys(
                proposal=proposal, sk_ei=Secret(bytes(size)), sk_er=Secret(bytes(size)), sk_ai=key, sk_ar=key
            )
            lines.append(format_ike_sa(len(lines).to_bytes(8), bytes(8), ike_keys))
    return lines


def every_esp_row() -> list[str]:
    lines = []
    for encr in keylog._ESP_ENCR:
        for integ in [Integ.NONE] if ENCR[encr].aead else keylog._ESP_INTEG:
            sa = replace(
                GCM_SA,
                spi=Spi(256 + len(lines)),
                encryption=encr,
                encryption_key=Secret(bytes(ENCR[encr].keymat_bytes())),
                integrity=integ,
                integrity_key=Secret(bytes(INTEG[integ].key_bytes)),
            )
            lines.append(format_esp_sa(sa))
    return lines


@needs_tshark
@pytest.mark.parametrize(("table", "lines"), [(IKEV2_TABLE, every_ike_row()), (ESP_TABLE, every_esp_row())])
def test_tshark_accepts_every_row_we_can_write(tmp_path, table, lines):
    (tmp_path / table).write_text("\n".join(lines) + "\n")

    _, complaints = tshark(tmp_path, WIRESHARK / "ikev2-decrypt-aes256gcm16.pcap", "-c", "1")

    assert len(lines) > 10
    assert complaints == ""


@needs_tshark
@pytest.mark.parametrize(("table", "lines"), [(IKEV2_TABLE, every_ike_row()), (ESP_TABLE, every_esp_row())])
def test_tshark_would_complain_of_a_wrong_name(tmp_path, table, lines):
    (tmp_path / table).write_text(lines[-1].replace("[RFC", "[RFX") + "\n")

    _, complaints = tshark(tmp_path, WIRESHARK / "ikev2-decrypt-aes256gcm16.pcap", "-c", "1")

    assert table in complaints


# --- tshark decrypts with our tables ------------------------------------------------------------


@needs_tshark
def test_tshark_decrypts_a_strongswan_capture_with_our_gcm_tables(tmp_path):
    source = STRONGSWAN / "psk-x25519-gcm256"
    key_log = KeyLog(tmp_path)
    for row in rows(source / "initiator_ikev2_decryption_table"):
        spi_i, spi_r, sk_ei, sk_er = map(bytes.fromhex, row[:4])
        key_log.ike_sa(derived(spi_i, spi_r, keys("aes256gcm16-prfsha384-x25519", sk_ei, sk_er)))
    for row in rows(source / "initiator_esp_sa"):
        key = Secret(bytes.fromhex(row[5].removeprefix("0x")))
        key_log.sa(
            replace(
                GCM_SA,
                source=ip_address(row[1]),
                destination=ip_address(row[2]),
                spi=Spi(int(row[3], 16)),
                encryption_key=key,
            )
        )
    bare = tmp_path / "without_keys"
    bare.mkdir()

    identities, complaints = tshark(
        tmp_path, source / "capture.pcap", "-T", "fields", "-e", "isakmp.id.data.fqdn"
    )
    pings, _ = tshark(tmp_path, source / "capture.pcap", "-Y", "esp && icmp.type")
    esp, _ = tshark(tmp_path, source / "capture.pcap", "-Y", "esp")

    assert complaints == ""
    assert any("l.example" in line for line in identities)
    assert len(pings) == len(esp) > 0
    assert tshark(bare, source / "capture.pcap", "-Y", "isakmp.id.data.fqdn || icmp.type")[0] == []


@needs_tshark
def test_tshark_decrypts_and_verifies_a_capture_with_our_cbc_table(tmp_path):
    (row,) = [r for r in rows(WIRESHARK / "ikev2_decryption_table.tmpl") if r[0] == "191ccd371a7a1f7b"]
    spi_i, spi_r, sk_ei, sk_er, sk_ai, sk_ar = (bytes.fromhex(row[i]) for i in (0, 1, 2, 3, 5, 6))
    words = {32: "aes256-sha256-x25519", 48: "aes256-sha384-x25519", 64: "aes256-sha512-x25519"}[len(sk_ai)]

    KeyLog(tmp_path).ike_sa(derived(spi_i, spi_r, keys(words, sk_ei, sk_er, sk_ai, sk_ar)))

    verified, complaints = tshark(tmp_path, WIRESHARK / "ikev2-decrypt-aes256cbc.pcapng", "-V")
    text = "\n".join(verified)
    assert complaints == ""
    assert "Decrypted Data" in text
    assert "[correct]" in text
    assert "[incorrect" not in text


# --- files --------------------------------------------------------------------------------------


def test_files_are_for_their_owner_only_and_appended_to(tmp_path):
    directory = tmp_path / "new" / "keys"
    old = os.umask(0)
    try:
        KeyLog(directory).sa(GCM_SA)
        (directory / ESP_TABLE).chmod(0o644)
        KeyLog(directory).sa(replace(GCM_SA, spi=Spi(0x1000)))
    finally:
        os.umask(old)

    assert len(rows(directory / ESP_TABLE)) == 2
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for table in (ESP_TABLE, IKEV2_TABLE):
        assert stat.S_IMODE((directory / table).stat().st_mode) == 0o600


def test_key_log_announces_itself_once_at_warning_and_logs_no_key(tmp_path, caplog):
    with caplog.at_level(logging.DEBUG, logger="gateway"):
        key_log = KeyLog(tmp_path)
        key_log.sa(GCM_SA)
        key_log.sa(GCM_SA)

    (record,) = caplog.records
    assert (record.levelno, record.gw_event) == (logging.WARNING, "key_log_open")
    assert record.gw_fields["directory"] == str(tmp_path)


def test_sa_without_a_row_is_reported_and_nothing_else_happens(tmp_path, caplog):
    key_log = KeyLog(tmp_path)
    caplog.clear()

    key_log.sa(replace(GCM_SA, encryption=Encr.CHACHA20_POLY1305))
    key_log.ike_sa(
        derived(bytes(8), bytes(8), keys("chacha20poly1305-prfsha256-x25519", bytes(36), bytes(36)))
    )

    assert [r.gw_event for r in caplog.records] == ["key_log_failed"] * 2
    assert (tmp_path / ESP_TABLE).read_text() == (tmp_path / IKEV2_TABLE).read_text() == ""


def test_symbolic_link_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    directory = tmp_path / "keys"
    directory.mkdir()
    (directory / ESP_TABLE).symlink_to(victim)

    with pytest.raises(KeyLogError, match="cannot write key tables"):
        KeyLog(directory)

    assert victim.read_text() == "untouched"


def test_what_somebody_prepared_to_read_the_keys_from_is_refused(tmp_path):
    (tmp_path / "mine").write_text("")
    for number, plant in enumerate(
        (
            lambda path: os.link(tmp_path / "mine", path),
            lambda path: os.mkfifo(path),
            lambda path: path.mkdir(),
        )
    ):
        directory = tmp_path / str(number)
        directory.mkdir()
        plant(directory / keylog.ESP_TABLE)

        with pytest.raises(KeyLogError):
            KeyLog(directory)


def test_directory_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(KeyLogError, match="name a directory that this process may write"):
        KeyLog(tmp_path / "file" / "keys")
