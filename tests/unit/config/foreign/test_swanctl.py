"""swanctl.conf as a whole: what comes out, and that our own reader takes it."""

from pathlib import Path
from typing import Any

import pytest

from gateway.api.config_file import parse_config
from gateway.config.foreign.draft import Imported
from gateway.config.foreign.output import SecretFiles, to_text, write_private
from gateway.config.foreign.read import import_config
from gateway.ipsec.secret import Secret
from tests.fakes.pki import crl, issue

CA = issue("CA")
GATEWAY = issue("gw", CA, names=["gw.example"])
OTHER = issue("other", CA, kind="p384")
PEER = issue("peer", CA, kind="ed25519", names=["peer.example"])

PSK = """
connections {
  net {
    local_addrs = 192.0.2.1
    remote_addrs = 192.0.2.2
    %s
    local {
      auth = psk
      id = gw.example
    }
    remote {
      auth = psk
      id = peer.example
    }
    children {
      lan {
        local_ts = 10.1.0.0/16
        remote_ts = 10.2.0.0/16
        %s
      }
    }
  }
}
secrets {
  ike-net {
    id-1 = gw.example
    id-2 = peer.example
    secret = "correct horse"
  }
}
"""


def imported(folder: Path, text: str) -> Imported:
    """Import a text, and see that what comes out loads."""
    (folder / "swanctl.conf").write_text(text)
    result = import_config(folder / "swanctl.conf")
    if result.connections:
        files = SecretFiles(folder / "out")
        (folder / "out").mkdir(exist_ok=True)
        written = to_text(result, files.place)
        write_private(files.contents(), replace=True)
        parse_config(written, "out.yaml", folder / "out")
    return result


def only(result: Imported) -> dict[str, Any]:
    assert not result.left_out, [str(note) for note in result.notes]
    (connection,) = result.connections
    return connection


def notes(result: Imported) -> list[str]:
    return [f"{note.place.line}: {note.keyword}: {note.text}" for note in result.notes]


def test_a_site_to_site_connection_is_carried_whole(tmp_path: Path) -> None:
    result = imported(tmp_path, PSK % ("proposals = aes256gcm16-prfsha384-x25519", "start_action = trap"))

    connection = only(result)
    assert connection["local"] == {
        "address": "192.0.2.1",
        "id": "gw.example",
        "auth": {"psk": Secret(b"correct horse")},
    }
    assert connection["remote"]["auth"] == {"psk": Secret(b"correct horse")}
    assert connection["ike"] == {"proposals": ["aes256gcm16-prfsha384-x25519"]}
    assert connection["children"] == [
        {"name": "lan", "local_ts": ["10.1.0.0/16"], "remote_ts": ["10.2.0.0/16"], "start": "on_traffic"}
    ]
    assert notes(result) == []


@pytest.mark.parametrize(
    ("lines", "options"),
    [
        (
            "rekey_time = 2h\n over_time = 10m\n rand_time = 12m",
            {"rekey": "7200s", "over_time": "600s", "jitter": 0.1},
        ),
        ("reauth_time = 1d", {"rekey": "0s", "reauth": "86400s"}),
        ("dpd_delay = 0", {"dpd_delay": "0s"}),
        ("unique = no", {"unique": "allow"}),
        ("unique = keep", {"unique": "reject"}),
        ("encap = yes", {"encapsulation": True}),
        ("encap = no", {}),
        ("mobike = no", {}),
        ("proposals = default", {}),
        ("childless = force", {"childless": "force"}),
    ],
)
def test_options_of_the_ike_sa(tmp_path: Path, lines: str, options: dict[str, Any]) -> None:
    result = imported(tmp_path, PSK % (lines, ""))

    assert only(result).get("ike", {}) == options
    assert notes(result) == []


@pytest.mark.parametrize(
    ("lines", "options"),
    [
        ("rekey_time = 50m\n life_time = 1h", {"rekey": "3000s", "over_fraction": 0.2, "jitter": 0.2}),
        ("rekey_time = 50m\n rand_time = 0", {"rekey": "3000s", "jitter": 0.0}),
        ("life_time = 66m", {"rekey": "3600s", "over_fraction": 0.1, "jitter": 0.1}),
        ("rekey_time = 0", {"rekey": "0s"}),
        ("rekey_bytes = 1000000", {"rekey_bytes": 1000000}),
        ("mode = transport\n remote_ts =\n local_ts =", {"mode": "transport"}),
        ("hw_offload = packet", {"placement": {"require": "nic_packet"}}),
        ("hw_offload = no", {"placement": {"prefer": ["engine", "kernel", "software"]}}),
        ("start_action = trap|start\n close_action = start", {"start": "start", "close_action": "restart"}),
        ("dpd_action = trap", {"dpd_action": "trap"}),
        ("ah_proposals = sha256-x25519", {"ah": {"proposals": ["sha256-x25519"]}}),
        ("esp_proposals = aes128-sha256-esn", {"esp": {"proposals": ["aes128-sha256-esn"]}}),
        ("copy_dscp = no\n copy_df = no", {"copy_dscp": False, "copy_df": False}),
        ("priority = 0", {}),
        ("mark_in = 0x10/0xff\n mark_in_sa = yes", {"mark_in": "0x10/0xff", "mark_in_sa": True}),
        ("mark_out = 42\n mark_in = 42", {"mark_out": "0x2a", "mark_in": "0x2a"}),
        ("set_mark_in = 1\n set_mark_out = 2/0xf", {"set_mark_in": "0x1", "set_mark_out": "0x2/0xf"}),
        ("mark_out = 0/0x00000000", {}),
        ("mark_in = 5/0xf\n set_mark_in = %same/0xff", {"mark_in": "0x5/0xf", "set_mark_in": "0x5/0xff"}),
        ("per_cpu_sas = yes", {"per_cpu_sas": "auto"}),
        ("per_cpu_sas = no", {}),
        ("mode = drop", {"action": "discard"}),
    ],
)  # fmt: skip
def test_options_of_a_child(tmp_path: Path, lines: str, options: dict[str, Any]) -> None:
    text = PSK % ("", "")
    child = f"shape {{ local_ts = 10.3.0.0/16\n remote_ts = 10.4.0.0/16\n {lines}\n }}"
    result = imported(tmp_path, text.replace("children {", f"children {{\n{child}"))

    shape = dict(only(result)["children"][0])
    assert shape.pop("name") == "shape"
    if "transport" not in lines:
        assert (shape.pop("local_ts"), shape.pop("remote_ts")) == (["10.3.0.0/16"], ["10.4.0.0/16"])
    assert shape == options
    assert notes(result) == []


@pytest.mark.parametrize(
    ("listed", "selectors"),
    [
        ("10.1.0.0/16, 10.3.0.0/16", ["10.1.0.0/16", "10.3.0.0/16"]),
        ("10.1.0.0/16[tcp/https]", ["10.1.0.0/16[tcp/443]"]),
        ("10.1.0.5-10.1.0.9", ["10.1.0.5-10.1.0.9"]),
        ("10.1.0.0/16[17]", ["10.1.0.0/16[udp]"]),
        ("dynamic[udp/4789]", ["192.0.2.1/32[udp/4789]"]),
        ("dynamic, 10.1.0.0/16", ["192.0.2.1/32", "10.1.0.0/16"]),
    ],
)
def test_traffic_selectors(tmp_path: Path, listed: str, selectors: list[str]) -> None:
    result = imported(tmp_path, (PSK % ("", "")).replace("local_ts = 10.1.0.0/16", f"local_ts = {listed}"))

    assert only(result)["children"][0]["local_ts"] == selectors


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("version = 1", "is IKEv1"),
        ("vips = 0.0.0.0", "virtual address"),
        ("ppk_required = yes", "postquantum"),
        ("local_port = 4500", "port 500"),
        ("proposals = aes256-whirlpool", "none of its proposals"),
        ("remote_addrs = 10.0.0.0/8", "with %any authentication alone decides"),
    ],
)
def test_what_would_be_less_strict_leaves_the_connection_out(tmp_path: Path, line: str, reason: str) -> None:
    result = imported(tmp_path, PSK % (line, ""))

    assert result.connections == ()
    assert result.left_out == ("net",)
    assert any(note.startswith("6: ") and reason in note for note in notes(result)), notes(result)


def test_a_child_that_cannot_be_carried_leaves_the_others(tmp_path: Path) -> None:
    text = (PSK % ("", "")).replace("children {", "children {\n beet {\n mode = beet\n }")

    result = imported(tmp_path, text)

    assert result.left_out == ("net/beet",)
    assert [child["name"] for child in result.connections[0]["children"]] == ["lan"]


@pytest.mark.parametrize(
    ("connection", "child"),
    [
        ("", "if_id_in = 0x2a\n        if_id_out = 42"),
        ("if_id_in = 42\n    if_id_out = 42", ""),
        ("if_id_in = 7\n    if_id_out = 7", "if_id_in = 42\n        if_id_out = 42"),
    ],
)
def test_an_if_id_is_carried_as_an_interface_whose_name_is_told(
    tmp_path: Path, connection: str, child: str
) -> None:
    result = imported(tmp_path, PSK % (connection, child))

    assert only(result)["children"][0]["interface"] == {"name": "ipsec42", "id": 42}
    assert any("say what yours is called" in note for note in notes(result))


@pytest.mark.parametrize(
    ("child", "reason"),
    [
        ("if_id_out = 42", "if_id_in and if_id_out differ"),
        ("if_id_in = 1\n        if_id_out = 2", "if_id_in and if_id_out differ"),
        ("if_id_in = %unique\n        if_id_out = %unique", "is no number"),
        ("if_id_in = 7\n        if_id_out = 7\n        mode = transport", "in transport mode"),
    ],
)
def test_an_if_id_that_is_no_interface_leaves_the_child_out(tmp_path: Path, child: str, reason: str) -> None:
    result = imported(tmp_path, PSK % ("", child))

    assert result.connections == ()
    assert any(reason in note for note in notes(result)), notes(result)


def test_an_if_id_of_zero_is_none(tmp_path: Path) -> None:
    result = imported(tmp_path, PSK % ("if_id_in = 0", "if_id_out = 0"))

    assert "interface" not in only(result)["children"][0]


def test_weak_algorithms_are_allowed_by_name_and_told(tmp_path: Path) -> None:
    result = imported(tmp_path, PSK % ("proposals = 3des-sha1-modp1024, aes256-sha256-x25519", ""))

    connection = only(result)
    assert connection["ike"]["proposals"] == ["3des-sha1-modp1024", "aes256-sha256-x25519"]
    assert connection["allow_weak"] == ["3des", "modp1024"]
    assert any("replace it soon" in note for note in notes(result))


def test_a_word_that_we_lack_is_taken_out_of_its_proposal(tmp_path: Path) -> None:
    result = imported(tmp_path, PSK % ("proposals = aes256-twofish256-sha256-x25519", ""))

    assert only(result)["ike"]["proposals"] == ["aes256-sha256-x25519"]
    assert any("twofish256" in note for note in notes(result))


def test_a_proposal_does_not_lose_its_additional_key_exchange(tmp_path: Path) -> None:
    words = "aes256-sha256-x25519-ke1_hqc128, aes128-sha256-x25519"

    result = imported(tmp_path, PSK % (f"proposals = {words}", ""))

    assert only(result)["ike"]["proposals"] == ["aes128-sha256-x25519"]
    assert any("ke1_hqc128" in note for note in notes(result))


@pytest.fixture
def with_certificates(tmp_path: Path) -> Path:
    for name, contents in {
        "x509/gw.pem": GATEWAY.pem,
        "x509/peer.pem": PEER.pem,
        "x509ca/ca.pem": CA.pem,
        "x509crl/ca.crl": crl(CA),
        "private/other.key": OTHER.key_pem,
        "private/gw.key": GATEWAY.key_pem,
        "pubkey/gw.pub": GATEWAY.public_pem,
        "pubkey/peer.pub": PEER.public_pem,
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(contents)
    return tmp_path


CERTIFICATES = """
connections { net {
  local {
    certs = gw.pem
    id = gw.example
    %s
  }
  remote {
    id = *.example
    %s
  }
  children { lan { } }
} }
"""


def test_certificates_find_their_key_authorities_and_crls(with_certificates: Path) -> None:
    result = imported(with_certificates, CERTIFICATES % ("", ""))

    connection = only(result)
    folder = with_certificates
    assert connection["local"]["auth"] == {
        "certificate": {
            "certs": [{"file": f"{folder}/x509/gw.pem"}],
            "key": {"file": f"{folder}/private/gw.key"},
        }
    }
    assert connection["remote"]["auth"] == {
        "certificate": {
            "cas": [{"file": f"{folder}/x509ca/ca.pem"}],
            "crls": [{"file": f"{folder}/x509crl/ca.crl"}],
            "revocation": "relaxed",
        }
    }


@pytest.mark.parametrize(
    ("ours", "theirs", "signatures"),
    [
        ("auth = ike:ecdsa-sha384-sha256", "", ["ecdsa-sha384", "ecdsa-sha256"]),
        ("auth = rsa/pss-sha256", "", ["rsa-pss-sha256"]),
    ],
)
def test_signature_schemes(with_certificates: Path, ours: str, theirs: str, signatures: list[str]) -> None:
    result = imported(with_certificates, CERTIFICATES % (ours, theirs))

    assert only(result)["local"]["auth"]["certificate"]["signatures"] == signatures


def test_the_certificate_of_a_peer_is_its_key(with_certificates: Path) -> None:
    result = imported(with_certificates, CERTIFICATES % ("", "certs = peer.pem"))

    file = {"file": f"{with_certificates}/x509/peer.pem"}
    assert only(result)["remote"]["auth"] == {"public_key": {"keys": [file]}}


def test_raw_public_keys(with_certificates: Path) -> None:
    text = CERTIFICATES.replace("certs = gw.pem", "pubkeys = gw.pub") % ("", "pubkeys = peer.pub")

    connection = only(imported(with_certificates, text))

    assert connection["local"]["auth"] == {
        "public_key": {"key": {"file": f"{with_certificates}/private/gw.key"}}
    }
    assert connection["remote"]["auth"] == {
        "public_key": {"keys": [{"file": f"{with_certificates}/pubkey/peer.pub"}]}
    }


@pytest.mark.parametrize(
    ("ours", "theirs", "reason"),
    [
        ("auth = eap-tls", "", "EAP is not spoken"),
        ("", "auth = ecdsa-384", "384 bits cannot be demanded"),
        ("", "groups = staff", "membership in a group"),
        ("", "ca_id = O=Test", "authority by its name"),
        ("", "}\n remote-2 {\n auth = psk", "several rounds"),
        ("certs = peer.pem", "", "no private key fits"),
    ],
)
def test_authentication_that_cannot_be_kept_leaves_the_connection_out(
    with_certificates: Path, ours: str, theirs: str, reason: str
) -> None:
    result = imported(with_certificates, CERTIFICATES % (ours, theirs))

    assert result.left_out == ("net",)
    assert any(reason in note for note in notes(result)), notes(result)


def test_an_encrypted_key_has_its_passphrase(with_certificates: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    locked = GATEWAY.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"sesame"),
    )
    (with_certificates / "private/gw.key").write_bytes(locked)
    text = CERTIFICATES % ("", "") + "secrets {\n private-gw {\n file = gw.key\n secret = sesame\n }\n}\n"

    connection = only(imported(with_certificates, text))

    assert connection["local"]["auth"]["certificate"]["key"] == {
        "file": f"{with_certificates}/private/gw.key",
        "passphrase": Secret(b"sesame"),
    }


def test_authorities_add_their_certificate_and_crl_files(with_certificates: Path) -> None:
    (with_certificates / "sub.pem").write_bytes(issue("Sub", CA, is_ca=True).pem)
    (with_certificates / "sub.crl").write_bytes(crl(CA))
    text = CERTIFICATES % ("", "") + (
        f"authorities {{ sub {{\n file = {with_certificates}/sub.pem\n"
        f" crl_uris = file://{with_certificates}/sub.crl, http://crl.example/sub.crl\n }} }}\n"
    )

    result = imported(with_certificates, text)

    believed = only(result)["remote"]["auth"]["certificate"]
    assert {"file": f"{with_certificates}/sub.pem"} in believed["cas"]
    assert {"file": f"{with_certificates}/sub.crl"} in believed["crls"]
    assert any("nothing is fetched" in note for note in notes(result))


def test_a_shunt_without_a_peer_goes_to_the_first_connection(tmp_path: Path) -> None:
    shunt = "connections { ssh { children { pass {\n mode = pass\n local_ts = 10.1.0.1/32[tcp/22]\n"
    result = imported(
        tmp_path, PSK % ("", "") + shunt + "remote_ts = 0.0.0.0/0\n start_action = trap\n } } } }\n"
    )

    assert [child["name"] for child in only(result)["children"]] == ["lan", "ssh-pass"]
    assert only(result)["children"][1]["action"] == "bypass"


def test_two_connections_of_the_same_identities_do_not_end_each_other(tmp_path: Path) -> None:
    text = PSK % ("", "") + (PSK % ("", "")).split("secrets")[0].replace("net {", "net2 {", 1)

    result = imported(tmp_path, text)

    assert [connection["ike"]["unique"] for connection in result.connections] == ["never", "never"]


def test_the_most_specific_secret_is_taken(tmp_path: Path) -> None:
    more = """secrets {
      ike-any { secret = anybody
      }
      ike-one { id = peer.example
        secret = one
      }
    }
    """
    assert only(imported(tmp_path, PSK % ("", "") + more))["local"]["auth"]["psk"] == Secret(b"correct horse")


def test_secrets_that_fit_equally_well_leave_the_connection_out(tmp_path: Path) -> None:
    more = "secrets {\n ike-x {\n id-1 = gw.example\n id-2 = peer.example\n secret = other\n }\n}\n"

    result = imported(tmp_path, PSK % ("", "") + more)

    assert result.left_out == ("net",)
    assert any("equally well" in note for note in notes(result))
    assert not any("correct horse" in note for note in notes(result))


def test_a_secret_for_a_peer_whose_identity_is_not_configured(tmp_path: Path) -> None:
    text = (PSK % ("", "")).replace("      auth = psk\n      id = peer.example\n", "      auth = psk\n")

    connection = only(imported(tmp_path, text))

    assert "id" not in connection["remote"]
    assert connection["remote"]["auth"] == {"psk": Secret(b"correct horse")}


def test_what_is_no_certificate_beside_the_authorities_is_passed_over(with_certificates: Path) -> None:
    (with_certificates / "x509ca" / "README").write_text("put authorities here")

    believed = only(imported(with_certificates, CERTIFICATES % ("", "")))["remote"]["auth"]["certificate"]

    assert believed["cas"] == [{"file": f"{with_certificates}/x509ca/ca.pem"}]
