"""What `inspect --secrets` verifies in captures of strongSwan 6.0.6, with what both daemons logged."""

import json
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli.main import main
from gateway.ike.errors import PeerError
from gateway.ike.wire.header import ExchangeType
from gateway.ike.wire.message import encode_payloads, first_type, parse_payloads
from gateway.ike.wire.payloads import CertPayload, SaPayload
from gateway.ike.wire.sa_payload import WireTransform
from gateway.inspect.describe import describe_payload
from gateway.inspect.errors import InspectError
from gateway.inspect.ike import IkeInspector
from gateway.inspect.keys import KeyTables, read_keys
from gateway.inspect.ledger import Verdict
from gateway.inspect.report import Inspection, summary_lines
from gateway.inspect.secrets import read_secrets
from gateway.inspect.verification import Verifier
from tests.vectors.read import STRONGSWAN, ike_datagrams

IKE_SA = ["SKEYSEED", "SK_d", "SK_ei", "SK_er", "SK_pi", "SK_pr"]
KEYMAT = ["KEYMAT encryption, initiator to responder", "KEYMAT encryption, responder to initiator"]


def auth(method):
    return [
        name
        for role in ("initiator", "responder")
        for name in (f"signed octets of the {role}", f"AUTH of the {role} ({method})")
    ]


PSK, SIGNATURE = auth("SHARED_KEY_MIC"), auth("DIGITAL_SIGNATURE")
#: What is verified, in order.
VERIFIED = {
    # IKE_SA_INIT, IKE_AUTH; Child rekey with PFS, IKE rekey, Child rekey of the new IKE SA.
    "psk-x25519-gcm256": [*IKE_SA, *PSK, *KEYMAT, *KEYMAT, *IKE_SA, *KEYMAT],
    "psk-cookie": [*IKE_SA, *PSK, *KEYMAT],
    "rsa2048-sig-frag": [*IKE_SA, *SIGNATURE, *KEYMAT, *IKE_SA],
    # The responder signs first (ECDSA), then both prove that they know the MSK.
    "eap-mschapv2": [*IKE_SA, *SIGNATURE[2:], *PSK, *KEYMAT],
    # IKE_INTERMEDIATE makes the keys anew; both rekeys have a second key exchange.
    "psk-x25519-ke1mlkem768": [*IKE_SA, *IKE_SA, *KEYMAT, *KEYMAT, *IKE_SA, *KEYMAT],
    "psk-x25519-ppk": IKE_SA,
    "ikev1-main-psk": [],
}
NOT_VERIFIED = {
    # An IKE SA of another initiator that never got its cookie right: there is nothing of it in the logs.
    "psk-cookie": {"the secrets hold no key exchange with these nonces"},
    "psk-x25519-ke1mlkem768": {"AUTH after IKE_INTERMEDIATE is not supported yet (RFC 9242)"},
    "psk-x25519-ppk": {"PPK is not supported yet (RFC 8784)", "its exchange could not be read"},
    "ikev1-main-psk": {"IKEv1 is not supported"},
}


def inspect(name, secrets=None, keys=None):
    """Return the totals of a capture with these secrets, by default its own."""
    path = STRONGSWAN / name / "secrets.json" if secrets is None else secrets
    inspection = Inspection(STRONGSWAN / name / "capture.pcap", keys or KeyTables(), read_secrets(path))
    list(inspection.entries())
    return inspection.totals


def values(totals, verdict):
    return [one.value for one in totals.checked if one.verdict is verdict]


def changed(
    tmp_path, name, *, keep=lambda entry: True, change=lambda entry: entry, logs=("initiator", "responder")
):
    """Write the secrets of a capture with some entries left out or changed."""
    content = json.loads((STRONGSWAN / name / "secrets.json").read_text())
    for log in logs:
        content[log] = [change(dict(entry)) for entry in content[log] if keep(entry)]
    path = tmp_path / "secrets.json"
    path.write_text(json.dumps(content))
    return path


def flipped(entry):
    """Return an entry with one bit of its value changed."""
    value = bytearray.fromhex(entry["hex"])
    value[len(value) // 2] ^= 1
    return entry | {"hex": value.hex()}


# --- right secrets ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VERIFIED)
def test_everything_that_can_be_is_verified(name):
    totals = inspect(name)

    assert values(totals, Verdict.OK) == VERIFIED[name]
    assert values(totals, Verdict.DIFFERS) == []
    assert not totals.has_failed
    reasons = {one.detail for one in totals.checked if one.verdict is Verdict.NOT_VERIFIED}
    assert reasons == NOT_VERIFIED.get(name, set())


@pytest.mark.parametrize("name", sorted(VERIFIED.keys() - {"psk-x25519-ppk", "ikev1-main-psk"}))
def test_the_derived_keys_open_every_message_and_packet_without_a_key_table(name):
    totals = inspect(name)

    assert totals.ike.protected == totals.ike.verified > 0
    assert totals.esp.packets == totals.esp.verified > 0


def test_what_a_ppk_does_not_change_is_opened_all_the_same():
    """RFC 8784 §3: SK_e and SK_a are not mixed with the PPK, so that its IKE SA can be read, and no other."""
    totals = inspect("psk-x25519-ppk")

    assert totals.ike.verified == 10
    assert totals.esp.verified == 0


@pytest.mark.parametrize("log", ["initiator", "responder"])
def test_the_log_of_one_end_is_enough(tmp_path, log):
    content = json.loads((STRONGSWAN / "psk-x25519-gcm256" / "secrets.json").read_text())
    path = tmp_path / "one.json"
    path.write_text(json.dumps({log: content[log]}))

    assert values(inspect("psk-x25519-gcm256", path), Verdict.OK) == VERIFIED["psk-x25519-gcm256"]


@pytest.mark.parametrize("name", ["psk-x25519-gcm256", "eap-mschapv2", "psk-x25519-ke1mlkem768"])
def test_inputs_alone_open_everything_and_verify_auth(tmp_path, name):
    """Without anything to compare with, AUTH and the ICVs on the wire are proof of the keys."""
    inputs = {"key exchange secret", "additional key exchange secret", "secret"}
    path = changed(tmp_path, name, keep=lambda entry: entry["label"] in inputs)

    totals = inspect(name, path)

    assert totals.ike.protected == totals.ike.verified
    assert totals.esp.packets == totals.esp.verified
    assert not totals.has_failed
    auths = [value for value in VERIFIED[name] if value.startswith("AUTH")]
    assert values(totals, Verdict.OK) == auths


def test_key_tables_are_compared_with_what_is_derived():
    folder = STRONGSWAN / "psk-x25519-gcm256"

    totals = inspect(folder.name, keys=read_keys(folder))

    assert values(totals, Verdict.OK).count("SK_ei, SK_er in the key table") == 2
    in_table = [value for value in values(totals, Verdict.OK) if value.endswith("in the key table")]
    assert len(in_table) == 2 + 6
    assert not totals.has_failed


# --- wrong secrets ----------------------------------------------------------------------------------

LABELS = [
    ("IKE", "key exchange secret"),
    ("IKE", "nonces"),
    ("IKE", "SKEYSEED"),
    *[("IKE", f"Sk_{which} secret") for which in ("d", "ei", "er", "pi", "pr")],
    ("IKE", "secret"),
    ("IKE", "octets = message + nonce + prf(Sk_px, IDx') + IntAuth"),
    ("IKE", "AUTH = prf(prf(secret, keypad), octets)"),
    ("CHD", "key exchange secret"),
    ("CHD", "encryption initiator key"),
    ("CHD", "encryption responder key"),
]


@pytest.mark.parametrize(("group", "label"), LABELS)
def test_one_wrong_bit_in_any_secret_is_found(tmp_path, group, label):
    def change(entry):
        return flipped(entry) if (entry["group"], entry["label"]) == (group, label) else entry

    path = changed(tmp_path, "psk-x25519-gcm256", change=change)
    totals = inspect("psk-x25519-gcm256", path)

    assert totals.has_failed
    assert values(totals, Verdict.DIFFERS)


def test_a_log_that_differs_from_the_other_is_named(tmp_path):
    def change(entry):
        return flipped(entry) if entry["label"] == "Sk_d secret" else entry

    path = changed(tmp_path, "psk-cookie", change=change, logs=("responder",))
    wrong = [one for one in inspect("psk-cookie", path).checked if one.verdict is Verdict.DIFFERS]

    assert [(one.value, one.detail) for one in wrong] == [("SK_d", "from what responder logged")]


def test_secrets_of_another_capture_fit_nothing():
    totals = inspect("psk-x25519-gcm256", STRONGSWAN / "psk-cookie" / "secrets.json")

    assert totals.has_failed
    assert values(totals, Verdict.OK) == []
    assert {one.detail for one in totals.checked if one.verdict is Verdict.DIFFERS} == {
        "fits no exchange of the capture"
    }


@pytest.mark.parametrize(
    ("table", "column"), [("initiator_esp_sa", 5), ("initiator_ikev2_decryption_table", 2)]
)
def test_a_wrong_key_table_is_found(tmp_path, table, column):
    folder = STRONGSWAN / "psk-x25519-gcm256"
    fields = (folder / table).read_text().splitlines()[0].split(",")
    # The last digits: those of the salt.
    key = fields[column].rstrip('"')
    fields[column] = fields[column].replace(key, key[:-1] + ("0" if key[-1] != "0" else "1"))
    (tmp_path / table).write_text(",".join(fields) + "\n")

    totals = inspect(folder.name, keys=read_keys(tmp_path / table))

    assert [value for value in values(totals, Verdict.DIFFERS) if value.endswith("in the key table")]


# --- the command ------------------------------------------------------------------------------------


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        raise SystemExit(main(["inspect", *map(str, arguments)]))
    captured = capsys.readouterr()
    return ended.value.code, captured.out, captured.err


def test_the_table_says_for_each_value_whether_it_is_right(capsys):
    folder = STRONGSWAN / "psk-cookie"

    status, out, _ = run(capsys, folder / "capture.pcap", "--secrets", folder / "secrets.json")

    assert status == 0
    assert "secrets: 12 values verified, 0 differ, 1 not verified" in out
    assert "  SKEYSEED                                   OK\n" in out
    assert "IKE SA 50cec67eec8e7c0c_e1db97089038a102\n" in out


def test_json_counts_and_lists_them(capsys):
    folder = STRONGSWAN / "rsa2048-sig-frag"

    status, out, _ = run(capsys, folder / "capture.pcap", "--secrets", folder / "secrets.json", "--json")

    report = json.loads(out)["secrets"]
    assert status == 0
    assert (report["verified"], report["failed"], report["not_verified"]) == (18, 0, 0)
    assert {
        "of": "IKE SA 9c937c46a165d2b1_be263bf33eece00a",
        "value": "AUTH of the responder (DIGITAL_SIGNATURE)",
        "result": "OK",
        "detail": "",
    } in report["values"]


def test_without_secrets_the_report_is_silent_about_them(capsys):
    status, out, _ = run(capsys, STRONGSWAN / "psk-cookie" / "capture.pcap", "--json")

    assert status == 0
    assert "secrets" not in json.loads(out)


def test_wrong_secrets_end_with_status_1_and_unusable_ones_with_2(capsys, tmp_path):
    capture = STRONGSWAN / "psk-x25519-gcm256" / "capture.pcap"
    other = STRONGSWAN / "psk-cookie" / "secrets.json"

    assert run(capsys, capture, "--secrets", other)[0] == 1
    status, _, err = run(capsys, capture, "--secrets", tmp_path / "absent.json")
    assert status == 2
    assert "absent.json" in err


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_no_key_is_ever_printed(capsys, form):
    folder = STRONGSWAN / "psk-x25519-gcm256"
    content = json.loads((folder / "secrets.json").read_text())
    # AUTH itself is on the wire.
    keys = {
        entry["hex"]
        for log in content.values()
        for entry in log
        if entry["hex"]
        and not entry["label"].startswith("AUTH")
        and any(word in entry["label"].lower() for word in ("secret", "key", "seed"))
    }

    _, out, err = run(capsys, folder / "capture.pcap", "--secrets", folder / "secrets.json", *form)

    assert len(keys) > 15
    assert not [key for key in keys if key in out + err]


def test_a_capture_that_is_cut_short_does_not_make_its_secrets_wrong(tmp_path):
    folder = STRONGSWAN / "psk-x25519-gcm256"
    whole = (folder / "capture.pcap").read_bytes()
    (tmp_path / "cut.pcap").write_bytes(whole[: len(whole) // 2])

    inspection = Inspection(tmp_path / "cut.pcap", KeyTables(), read_secrets(folder / "secrets.json"))
    list(inspection.entries())

    assert not inspection.totals.has_failed
    assert inspection.totals.count(Verdict.OK) >= len(IKE_SA) + len(PSK)
    assert any("its exchange could not be read" in line for line in summary_lines(inspection.totals))


# --- the file ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "not a JSON file"),
        ("[" * 100_000, "not a JSON file"),
        ("\udcff", "not a JSON file"),
        ("[]", "not a JSON object of lists"),
        ('{"a": {}}', "a: not a list of entries"),
        ('{"a": ["c0ffee"]}', r"a\[0\]: an entry has a label and a value"),
        ('{"a": [{"label": "secret"}]}', r"a\[0\]: an entry has a label and a value"),
        ('{"a": [{"label": "secret", "hex": 7}]}', r"a\[0\]: an entry has a label and a value"),
        (
            '{"a": [{"label": "x", "hex": ""}, {"label": "secret", "hex": "c0ffe"}]}',
            r"a\[1\]: the value is not",
        ),
        ('{"a": []}', "no entry has the label of a secret"),
        ('{"a": [{"label": "SKEYSEED", "hex": "c0ffee"}]}', "no entry has the label of a secret"),
    ],
)
def test_a_file_of_another_form_is_refused_without_quoting_it(tmp_path, text, problem):
    path = tmp_path / "secrets.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))

    with pytest.raises(InspectError, match=problem) as refused:
        read_secrets(path)

    assert "c0ff" not in str(refused.value)


# --- hostile captures -------------------------------------------------------------------------------


def without_certificate_version(payloads):
    """Return payloads whose certificates are of version 103, which the library has an exception for."""
    version = bytes.fromhex("a003020102")
    return tuple(
        CertPayload(p.encoding, p.data.replace(version, version[:-1] + b"f", 1))
        if isinstance(p, CertPayload)
        else p
        for p in payloads
    )


def test_a_certificate_that_cannot_be_read_leaves_auth_unverified_and_is_shown_as_bytes():
    name = "rsa2048-sig-frag"
    verifier = Verifier(read_secrets(STRONGSWAN / name / "secrets.json"), KeyTables())

    for header, payloads, datagram in exchanges(name):
        changed = without_certificate_version(payloads)
        verifier.take(header, changed, datagram)
        shown = [describe_payload(payload) for payload in changed if isinstance(payload, CertPayload)]
        assert all("data" in one for one in shown)

    wrong = [one for one in verifier.finish(is_cut=False) if one.verdict is not Verdict.OK]
    assert [(one.value, one.detail) for one in wrong] == [
        (value, "no certificate that can be read is in the capture") for value in SIGNATURE if "AUTH" in value
    ]


@pytest.mark.parametrize(("transform_type", "number"), [(1, 1024), (1, 65535), (3, 1024)])
def test_a_child_sa_with_algorithms_that_nobody_knows_is_not_verified(transform_type, number):
    name = "psk-cookie"
    verifier = Verifier(read_secrets(STRONGSWAN / name / "secrets.json"), KeyTables())

    for header, payloads, datagram in exchanges(name):
        verifier.take(header, with_transform(header, payloads, transform_type, number), datagram)

    (wrong,) = [one for one in verifier.finish(is_cut=False) if "algorithms" in one.detail]
    assert wrong.verdict is Verdict.NOT_VERIFIED


def with_transform(header, payloads, transform_type, number):
    """Return payloads with one more kind of transform in SAr2, or another number in it."""
    if header.exchange_type != ExchangeType.IKE_AUTH or header.is_request:
        return payloads
    changed = []
    for payload in payloads:
        if isinstance(payload, SaPayload):
            (proposal,) = payload.proposals
            others = tuple(t for t in proposal.transforms if t.type != transform_type)
            wanted = WireTransform(transform_type, number)
            payload = SaPayload((replace(proposal, transforms=(wanted, *others)),))
        changed.append(payload)
    return tuple(changed)


@cache
def exchanges(name):
    """Return (header, payloads, datagram) of every message of a capture, in the open."""
    taken = []

    class Recorder(Verifier):
        def take(self, header, payloads, datagram):
            taken.append((header, payloads, datagram))
            super().take(header, payloads, datagram)

    logs = read_secrets(STRONGSWAN / name / "secrets.json")
    inspector = IkeInspector([], Recorder(logs, KeyTables()))
    for datagram in ike_datagrams(STRONGSWAN / name / "capture.pcap"):
        inspector.inspect(datagram)
    return tuple(taken)


@pytest.mark.parametrize("name", ["psk-x25519-gcm256", "rsa2048-sig-frag", "psk-x25519-ke1mlkem768"])
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 3000), st.integers(0, 255)), min_size=1, max_size=20
    )
)
def test_authentic_nonsense_is_noted_and_never_raises(name, changes):
    """Whoever makes a capture may have the keys: nothing in an exchange is taken for granted."""
    verifier = Verifier(read_secrets(STRONGSWAN / name / "secrets.json"), KeyTables())

    for number, (header, payloads, datagram) in enumerate(exchanges(name)):
        octets = bytearray(encode_payloads(payloads))
        for message, position, value in changes:
            if message == number and octets:
                octets[position % len(octets)] = value
        try:
            changed = parse_payloads(first_type(payloads), bytes(octets))
        except PeerError:
            continue
        verifier.take(header, changed, datagram)

    assert verifier.finish(is_cut=False)
