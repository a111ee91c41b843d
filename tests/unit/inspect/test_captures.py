"""`ipsecgw inspect` on every capture there is: counts, exit status, and tshark's opinion of them."""

import argparse
import json
import shutil
import subprocess
from functools import cache

import pytest

from gateway.cli import inspect
from tests.vectors.read import STRONGSWAN, VECTORS, WIRESHARK, ikev2_captures

CAPTURES = sorted(path for path in VECTORS.glob("**/*.pcap*"))
IDS = [str(path.relative_to(VECTORS)) for path in CAPTURES]

EXPECTED = {
    # capture: messages, protected, decrypted, verified; packets, decrypted, verified
    "eap-mschapv2": (14, 12, 12, 12, 4, 4, 4),
    "ikev1-main-psk": (15, 11, 0, 0, 8, 8, 8),
    "psk-cookie": (16, 4, 4, 4, 4, 4, 4),
    "psk-x25519-gcm256": (20, 18, 18, 18, 12, 12, 12),
    "psk-x25519-ke1mlkem768": (30, 28, 28, 28, 12, 12, 12),
    "psk-x25519-ppk": (18, 16, 16, 16, 12, 12, 12),
    "rsa2048-sig-frag": (14, 12, 12, 12, 4, 4, 4),
    "ikev2-decrypt-3des-sha1_160.pcap": (6, 4, 4, 4, 0, 0, 0),
    "ikev2-decrypt-aes128ccm12.pcap": (6, 4, 4, 4, 0, 0, 0),
    # Its table has AES-CCM written as AES-CTR "no checking": there is nothing to verify with.
    "ikev2-decrypt-aes128ccm12-2.pcap": (6, 4, 4, 0, 0, 0, 0),
    "ikev2-decrypt-aes192ctr.pcap": (6, 4, 4, 4, 0, 0, 0),
    "ikev2-decrypt-aes256cbc.pcapng": (4, 2, 2, 2, 0, 0, 0),
    "ikev2-decrypt-aes256ccm16.pcapng": (4, 2, 2, 2, 0, 0, 0),
    "ikev2-decrypt-aes256gcm16.pcap": (6, 4, 4, 4, 0, 0, 0),
    "ikev2-decrypt-aes256gcm8.pcap": (6, 4, 4, 4, 0, 0, 0),
    "esp-bug-12671.pcapng.gz": (0, 0, 0, 0, 6, 6, 6),
    "ikev1-bug-12610.pcapng.gz": (16, 12, 0, 0, 0, 0, 0),
    "ikev1-bug-12620.pcapng.gz": (10, 7, 0, 0, 0, 0, 0),
    "ikev1-certs.pcap": (10, 6, 0, 0, 0, 0, 0),
}


def run(capsys, *arguments):
    parser = argparse.ArgumentParser()
    inspect.add_arguments(parser)
    status = inspect.run(parser.parse_args([str(argument) for argument in arguments]))
    return status, capsys.readouterr()


def inspect_json(capsys, capture, keys=None):
    status, output = run(capsys, capture, "--json", *(() if keys is None else ("--keys", keys)))
    return status, json.loads(output.out)


def keys_of(capture):
    return capture.parent


def name_of(capture):
    return capture.parent.name if capture.parent.parent == STRONGSWAN else capture.name


@pytest.mark.parametrize("capture", CAPTURES, ids=IDS)
def test_every_capture_decodes_decrypts_and_verifies(capsys, capture):
    status, report = inspect_json(capsys, capture, keys_of(capture))

    ike, esp = report["ike"], report["esp"]
    assert (*ike.values(), *esp.values()) == EXPECTED[name_of(capture)]
    assert list(report) == ["ike", "esp", "problems", "messages"]
    assert list(ike) == ["messages", "protected", "decrypted", "verified"]
    assert list(esp) == ["packets", "decrypted", "verified"]
    assert report["problems"] == []
    assert status == 0
    assert len(report["messages"]) == ike["messages"] + esp["packets"]


def test_no_capture_is_without_an_expectation():
    assert {name_of(capture) for capture in CAPTURES} == set(EXPECTED)


@pytest.mark.parametrize("side", ["initiator", "responder"])
def test_key_tables_of_either_side_alone_suffice(capsys, side):
    folder = STRONGSWAN / "psk-x25519-gcm256"

    _, ike = inspect_json(capsys, folder / "capture.pcap", folder / f"{side}_ikev2_decryption_table")
    _, esp = inspect_json(capsys, folder / "capture.pcap", folder / f"{side}_esp_sa")

    assert (ike["ike"]["verified"], ike["esp"]["verified"]) == (18, 0)
    assert (esp["ike"]["verified"], esp["esp"]["verified"]) == (0, 12)


@pytest.mark.parametrize("capture", CAPTURES, ids=IDS)
def test_without_keys_nothing_fails_and_nothing_is_decrypted(capsys, capture):
    status, report = inspect_json(capsys, capture)

    assert status == 0
    assert report["ike"]["decrypted"] == report["esp"]["decrypted"] == 0
    assert report["problems"] == []


@pytest.mark.parametrize("capture", CAPTURES, ids=IDS)
def test_human_output_names_every_message_and_ends_with_the_summary(capsys, capture):
    status, output = run(capsys, capture, "--keys", keys_of(capture))

    expected = EXPECTED[name_of(capture)]
    heads = [line for line in output.out.splitlines() if line.startswith("#")]
    assert len(heads) == expected[0] + expected[4]
    assert f"IKE: {expected[0]} messages, {expected[1]} protected, {expected[2]} decrypted" in output.out
    assert f"ESP: {expected[4]} packets, {expected[5]} decrypted, {expected[6]} verified" in output.out
    assert status == 0


def test_human_output_has_the_values_of_a_whole_exchange(capsys):
    folder = STRONGSWAN / "psk-x25519-ke1mlkem768"

    _, output = run(capsys, folder / "capture.pcap", "--keys", folder)

    for text in (
        "IKEv2 IKE_SA_INIT request [INITIATOR] ID 0, 248 bytes",
        "SPIi dace50811701254a SPIr 0ea4b909f48e5605",
        "proposal 1: IKE aes256gcm16-prfsha384-x25519-ke1_mlkem768",
        "ENCR=AES_GCM_16/256, PRF=HMAC_SHA2_384, KE=CURVE25519, ADDKE1=ML_KEM_768",
        "KE: method CURVE25519, bytes 32",
        "N(SIGNATURE_HASH_ALGORITHMS): data SHA2_256, SHA2_384, SHA2_512, IDENTITY",
        "IKEv2 IKE_INTERMEDIATE request [INITIATOR] ID 1",
        "SKF fragment 2 of 2: decrypted, verified",
        "KE: method ML_KEM_768, bytes 1184",
        "IDi: id_type ID_FQDN, id l.example",
        "AUTH: method SHARED_KEY_MIC",
        "proposal 1: ESP SPI 6e5572f6 aes256gcm16",
        "10.1.0.0/24",
        "N(REKEY_SA): protocol ESP, spi 6e5572f6",
        "IKEv2 IKE_FOLLOWUP_KE response [RESPONSE]",
        "D: protocol ESP",
        "ESP SPI 30e9f8b2 seq 1, 120 bytes: decrypted, verified",
        "10.1.0.1 > 10.2.0.1 ICMP echo request id 1512 seq 1, 84 bytes, padding 2",
    ):
        assert text in output.out, text


def test_certificates_eap_and_identities_are_told(capsys):
    folder = STRONGSWAN / "eap-mschapv2"

    _, output = run(capsys, folder / "capture.pcap", "--keys", folder)

    assert "subject CN=r.example,O=a1 test, issuer CN=ecdsa CA,O=a1 test" in output.out
    assert "EAP: code Response, identifier 0, bytes 10, method Identity, data alice" in output.out
    assert "EAP: code Success" in output.out


# --- what fails, and how --------------------------------------------------------------------------


def test_exit_status_1_when_an_ike_key_does_not_fit(capsys, tmp_path):
    folder = STRONGSWAN / "psk-cookie"
    table = (folder / "initiator_ikev2_decryption_table").read_text()
    fields = table.split(",")
    fields[2] = fields[2][::-1]
    (tmp_path / "ikev2_decryption_table").write_text(",".join(fields))

    status, report = inspect_json(capsys, folder / "capture.pcap", tmp_path)

    assert status == 1
    assert (report["ike"]["decrypted"], len(report["problems"])) == (2, 2)
    assert report["problems"][0].startswith("frame 13: IKE does not open with the key for its SPIs")


def test_exit_status_1_when_an_esp_packet_was_changed(capsys, tmp_path):
    folder = STRONGSWAN / "psk-cookie"
    data = bytearray((folder / "capture.pcap").read_bytes())
    position = data.index(bytes.fromhex("a852b53a00000001")) + 30
    data[position] ^= 1
    (tmp_path / "changed.pcap").write_bytes(data)

    status, report = inspect_json(capsys, tmp_path / "changed.pcap", folder)

    assert status == 1
    assert (report["esp"]["packets"], report["esp"]["verified"]) == (4, 3)
    assert report["problems"] == [
        "frame 15: ESP does not open with the key for SPI a852b53a: the integrity check value is wrong"
    ]
    assert [m["problem"] for m in report["messages"] if "problem" in m]


def test_capture_cut_in_the_middle_is_told_and_what_came_before_counts(capsys, tmp_path):
    folder = STRONGSWAN / "psk-cookie"
    (tmp_path / "cut.pcap").write_bytes((folder / "capture.pcap").read_bytes()[:-5])

    status, report = inspect_json(capsys, tmp_path / "cut.pcap", folder)

    assert status == 0
    assert report["ike"]["verified"] == 3
    assert "ends in the middle" in report["problems"][0]


@pytest.mark.parametrize(
    ("capture", "keys", "reason"),
    [
        ("missing.pcap", None, "missing.pcap: No such file or directory"),
        ("text.pcap", None, "text.pcap: not a pcap or pcapng file"),
        ("good.pcap", "missing", "missing: No such file or directory"),
        ("good.pcap", "empty", "no file here has a name that ends in"),
        ("good.pcap", "bad_esp_sa", "bad_esp_sa:2: 3 fields, a row of esp_sa has 8 or 9"),
        ("strange.pcap", None, "link type 147 is not one we can read"),
    ],
)
def test_exit_status_2_when_an_input_is_unusable(capsys, tmp_path, capture, keys, reason):
    good = (STRONGSWAN / "psk-cookie" / "capture.pcap").read_bytes()
    (tmp_path / "good.pcap").write_bytes(good)
    (tmp_path / "strange.pcap").write_bytes(good[:20] + b"\x93\0\0\0" + good[24:])
    (tmp_path / "text.pcap").write_text("not a capture")
    (tmp_path / "bad_esp_sa").write_text("# comment\na,b,c\n")
    (tmp_path / "empty").mkdir()

    arguments = [tmp_path / capture, *(() if keys is None else ("--keys", tmp_path / keys))]
    status, output = run(capsys, *arguments)

    assert status == 2
    assert reason in output.err
    assert output.err.startswith("ipsecgw inspect: ")


# --- tshark as the judge --------------------------------------------------------------------------

needs_tshark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")


IKE_FIELDS = ("isakmp.ispi", "isakmp.rspi", "isakmp.exchangetype", "isakmp.messageid", "isakmp.typepayload")
ESP_FIELDS = ("esp.spi", "esp.sequence")


@cache
def tshark(capture):
    """What tshark says of a capture: of each frame with IKE or ESP its number and fields; it starts once."""
    fields = ("frame.number", "frame.protocols", *IKE_FIELDS, *ESP_FIELDS)
    columns = [argument for field in fields for argument in ("-e", field)]
    result = subprocess.run(
        ["tshark", "-r", str(capture), "-Y", "isakmp || esp", "-T", "fields", *columns],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return [dict(zip(fields, line.split("\t"), strict=True)) for line in result.stdout.splitlines()]


def tshark_of(capture, protocol, fields):
    """The numbers and fields of the frames with one protocol."""
    return [
        (row["frame.number"], *(row[field] for field in fields))
        for row in tshark(capture)
        if protocol in row["frame.protocols"].split(":")
    ]


@needs_tshark
@pytest.mark.parametrize("capture", CAPTURES, ids=IDS)
def test_tshark_finds_the_same_messages_and_packets(capsys, capture):
    _, report = inspect_json(capsys, capture)
    ike = [m for m in report["messages"] if m["protocol"] == "ike"]
    esp = [m for m in report["messages"] if m["protocol"] == "esp"]

    theirs = tshark_of(capture, "isakmp", IKE_FIELDS[:4])
    numbers = {"IKE_SA_INIT": 34, "IKE_AUTH": 35, "CREATE_CHILD_SA": 36, "INFORMATIONAL": 37}
    numbers |= {"IKE_INTERMEDIATE": 43, "IKE_FOLLOWUP_KE": 44}
    assert len(theirs) == len(ike)
    for message, (frame, spi_i, spi_r, exchange, message_id) in zip(ike, theirs, strict=True):
        assert (str(message["frame"]), message["spi_i"], message["spi_r"]) == (frame, spi_i, spi_r)
        assert message["message_id"] == int(message_id, 16)
        if message["version"] == "2.0":
            assert numbers[message["exchange"]] == int(exchange)

    packets = tshark_of(capture, "esp", ESP_FIELDS)
    assert [(str(m["frame"]), int(m["spi"], 16), m["sequence"]) for m in esp] == [
        (frame, int(spi, 16), int(sequence)) for frame, spi, sequence in packets
    ]


PAYLOAD_NUMBERS = {"SA": 33, "KE": 34, "IDi": 35, "IDr": 36, "CERT": 37, "CERTREQ": 38, "AUTH": 39}
PAYLOAD_NUMBERS |= {"Nonce": 40, "N": 41, "D": 42, "V": 43, "TSi": 44, "TSr": 45, "CP": 47, "EAP": 48}


@needs_tshark
@pytest.mark.parametrize("capture", ikev2_captures(), ids=lambda path: name_of(path))
def test_tshark_sees_the_same_payloads_outside_encryption(capsys, capture):
    _, report = inspect_json(capsys, capture)

    theirs = dict(tshark_of(capture, "isakmp", ["isakmp.typepayload"]))

    for message in report["messages"]:
        if message["protocol"] != "ike" or message["protected"]:
            continue
        listed = [int(number) for number in theirs[str(message["frame"])].split(",")]
        # tshark lists the substructures (2 proposals, 3 transforms) in the same field.
        assert [PAYLOAD_NUMBERS[p["type"]] for p in message["payloads"]] == [n for n in listed if n > 3]


def test_the_folder_of_wireshark_is_the_one_tested():
    assert len(list(WIRESHARK.glob("ikev2-*"))) == 8
