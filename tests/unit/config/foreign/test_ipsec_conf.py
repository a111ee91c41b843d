"""ipsec.conf and ipsec.secrets of both dialects: what comes out, and that our own reader takes it."""

from pathlib import Path
from typing import Any

import pytest

from gateway.api.config_file import parse_config
from gateway.config.foreign.draft import Imported
from gateway.config.foreign.output import to_text, value_of
from gateway.config.foreign.read import Format, import_config
from gateway.ipsec.secret import Secret
from tests.fakes.pki import issue

CA = issue("CA")
GATEWAY = issue("gw", CA, names=["gw.example"])

#: The example that everyone copies.
SERVER_A_TO_SERVER_B = """\
conn server-a-to-server-b
  left=192.168.1.10
  right=192.168.1.20
  authby=secret
  auto=start
  esp=aes256gcm16-sha2_512
  ike=aes256gcm16-sha2_512-modp2048
"""
SECRETS = '192.168.1.10 192.168.1.20 : PSK "your_secret_key"\n'

CONN = """\
conn net
  left=192.0.2.1
  leftid=@gw.example
  leftsubnet=10.1.0.0/16
  right=192.0.2.2
  rightid=@peer.example
  rightsubnet=10.2.0.0/16
  authby=secret
  auto=add
"""
PSK = '@gw.example @peer.example : PSK "told"\n'


def imported(
    folder: Path,
    conf: str,
    secrets: str = PSK,
    written_in: Format | None = Format.STRONGSWAN,
    ours: str = "192.0.2.1",
) -> Imported:
    """Import a text, and see that what comes out loads."""
    (folder / "ipsec.conf").write_text(conf)
    (folder / "ipsec.secrets").write_text(secrets)
    result = import_config(folder / "ipsec.conf", written_in=written_in, addresses={ours})
    if result.connections:
        parse_config(to_text(result, value_of), "out.yaml", folder)
    return result


def only(result: Imported) -> dict[str, Any]:
    assert not result.left_out, notes(result)
    (connection,) = result.connections
    return connection


def notes(result: Imported) -> list[str]:
    return [f"{note.place.line}: {note.keyword}: {note.text}" for note in result.notes]


@pytest.mark.parametrize(
    ("ours", "theirs"), [("192.168.1.10", "192.168.1.20"), ("192.168.1.20", "192.168.1.10")]
)
@pytest.mark.parametrize("mode", ["tunnel", "transport"])
def test_the_example_that_everyone_copies(tmp_path: Path, ours: str, theirs: str, mode: str) -> None:
    conf = SERVER_A_TO_SERVER_B + ("  type=transport\n" if mode == "transport" else "")

    connection = only(imported(tmp_path, conf, SECRETS, None, ours))

    key = {"psk": Secret(b"your_secret_key")}
    assert connection["local"] == {"address": ours, "auth": key}
    assert connection["remote"] == {"address": theirs, "id": theirs, "auth": key}
    assert connection["ike"] == {"proposals": ["aes256gcm16-prfsha512-modp2048"]}
    (child,) = connection["children"]
    assert child.pop("mode", "tunnel") == mode
    assert child == {"name": "server-a-to-server-b", "esp": {"proposals": ["aes256gcm16"]}, "start": "start"}


def test_the_machine_that_is_neither_side_is_left_and_that_is_told(tmp_path: Path) -> None:
    result = imported(tmp_path, CONN, ours="198.51.100.1")

    assert only(result)["local"]["address"] == "192.0.2.1"
    assert any("left is taken as local" in note for note in notes(result))


@pytest.mark.parametrize(
    ("lines", "ike", "child"),
    [
        ("ikelifetime=3h\n  reauth=no", {"rekey": "10260s", "over_time": "540s", "jitter": 0.0526}, {}),
        ("ikelifetime=3h\n  reauth=yes",
         {"rekey": "0s", "reauth": "10260s", "over_time": "540s", "jitter": 0.0526}, {}),
        ("lifetime=1h", {}, {"rekey": "3060s", "over_fraction": 0.1765, "jitter": 0.1765}),
        ("keylife=1h\n  rekeymargin=6m\n  rekeyfuzz=0%",
         {"rekey": "10440s", "over_time": "360s", "jitter": 0.0},
         {"rekey": "3240s", "over_fraction": 0.1111, "jitter": 0.0}),
        ("dpdaction=restart\n  dpddelay=10s", {"dpd_delay": "10s"}, {"dpd_action": "restart"}),
        ("dpdaction=none", {"dpd_delay": "0s"}, {}),
        ("esp=aes256-sha256-modp2048!", {}, {"esp": {"proposals": ["aes256-sha256-modp2048"]}}),
        ("ah=sha256!", {}, {"ah": {"proposals": ["sha256"]}}),
        ("auto=route", {}, {"start": "on_traffic"}),
        ("replay_window=-1", {}, {}),
        ("forceencaps=yes", {"encapsulation": True}, {}),
    ],
)  # fmt: skip
def test_options_of_strongswan(
    tmp_path: Path, lines: str, ike: dict[str, Any], child: dict[str, Any]
) -> None:
    conf = CONN.replace("  auto=add\n", "") if "auto=" in lines else CONN

    result = imported(tmp_path, f"{conf}  {lines}\n")

    connection = only(result)
    shape = dict(connection["children"][0])
    assert connection.get("ike", {}) == ike
    assert [shape.pop(key) for key in ("name", "local_ts", "remote_ts")] == [
        "net",
        ["10.1.0.0/16"],
        ["10.2.0.0/16"],
    ]
    assert shape == child
    assert notes(result) == []


@pytest.mark.parametrize(
    ("lines", "ike", "child"),
    [
        ("ike=aes_gcm256-sha2_512;dh19", {"proposals": ["aes256gcm16-prfsha512-ecp256"]}, {}),
        ("ike=aes_gcm256-sha2_512;dh19\n  esp=aes_gcm256",
         {"proposals": ["aes256gcm16-prfsha512-ecp256"]},
         {"esp": {"proposals": ["aes256gcm16-ecp256"]}}),
        ("esp=aes_gcm256-null\n  pfs=no", {}, {"esp": {"proposals": ["aes256gcm16"]}}),
        ("esp=aes256-sha2_512+sha1-dh14\n  esn=either",
         {}, {"esp": {"proposals": ["aes256-sha512-sha1-modp2048-esn-noesn"]}}),
        ("salifetime=1h\n  rekeymargin=10m\n  rekeyfuzz=0%",
         {"rekey": "28200s", "over_time": "600s", "jitter": 0.0},
         {"rekey": "3000s", "over_fraction": 0.2, "jitter": 0.0}),
        ("ipsec-max-bytes=11GiB", {}, {"rekey_bytes": 10 * 2**30}),
        ("dpddelay=10\n  dpdaction=hold", {"dpd_delay": "10s"}, {"dpd_action": "trap"}),
        ("retransmit-interval=500\n  retransmit-timeout=60s",
         {"retransmit_timeout": "0.5s", "retransmit_base": 2.0, "retransmit_tries": 6}, {}),
        ("nic-offload=no", {}, {"placement": {"prefer": ["engine", "kernel", "software"]}}),
        ("nopmtudisc=yes", {}, {"copy_df": False}),
        ("encapsulation=yes", {"encapsulation": True}, {}),
        ("priority=200", {}, {"priority": 200}),
    ],
)  # fmt: skip
def test_options_of_libreswan(tmp_path: Path, lines: str, ike: dict[str, Any], child: dict[str, Any]) -> None:
    result = imported(tmp_path, f"{CONN}  {lines}\n", written_in=Format.LIBRESWAN)

    connection = only(result)
    shape = dict(connection["children"][0])
    assert connection.get("ike", {}) == ike
    assert [shape.pop(key) for key in ("name", "local_ts", "remote_ts")] == [
        "net",
        ["10.1.0.0/16"],
        ["10.2.0.0/16"],
    ]
    assert shape == child
    assert notes(result) == []


def test_libreswan_has_a_child_sa_for_every_pair_of_subnets(tmp_path: Path) -> None:
    conf = CONN.replace("leftsubnet=10.1.0.0/16", "leftsubnets={10.1.0.0/16 10.3.0.0/16}")

    children = only(imported(tmp_path, conf, written_in=Format.LIBRESWAN))["children"]

    assert [(child["name"], child["local_ts"]) for child in children] == [
        ("net-1", ["10.1.0.0/16"]),
        ("net-2", ["10.3.0.0/16"]),
    ]


def test_libreswan_has_none_between_ipv4_and_ipv6(tmp_path: Path) -> None:
    conf = CONN.replace("leftsubnet=10.1.0.0/16", "leftsubnets=10.1.0.0/16,fd00:1::/64")

    children = only(imported(tmp_path, conf, written_in=Format.LIBRESWAN))["children"]

    assert [child["local_ts"] for child in children] == [["10.1.0.0/16"]]


@pytest.mark.parametrize("written_in", [Format.STRONGSWAN, Format.LIBRESWAN], ids=lambda one: one.value)
def test_ah_beside_esp_is_told(tmp_path: Path, written_in: Format) -> None:
    result = imported(tmp_path, CONN + "  ah=sha256\n  esp=aes256-sha256\n", written_in=written_in)

    (child,) = only(result)["children"]
    assert "esp" not in child
    assert "ah" in child
    assert any(note.startswith("11: esp: stands beside AH") for note in notes(result))


def test_conns_of_one_ike_sa_become_children_of_one_connection(tmp_path: Path) -> None:
    conf = CONN + "conn dmz\n  also=net\n  rightsubnet=10.4.0.0/16\n"

    result = imported(tmp_path, conf)

    children = only(result)["children"]
    assert [(child["name"], child["remote_ts"]) for child in children] == [
        ("net", ["10.2.0.0/16"]),
        ("dmz", ["10.4.0.0/16"]),
    ]
    assert any("shares the IKE SA of net" in note for note in notes(result))


def test_alsoflip_exchanges_left_and_right(tmp_path: Path) -> None:
    conf = (
        CONN.replace("conn net", "conn base").replace("  auto=add\n", "")
        + "conn net\n  alsoflip=base\n  auto=add\n"
    )

    connection = only(imported(tmp_path, conf, written_in=Format.LIBRESWAN))

    assert connection["local"]["id"] == "gw.example"
    assert connection["children"][0]["local_ts"] == ["10.1.0.0/16"]


def test_defaults_and_templates(tmp_path: Path) -> None:
    conf = (
        "conn %default\n  authby=secret\n  leftsubnet=10.9.0.0/16\n\nconn base\n  right=192.0.2.2\n"
        "  rightid=@peer.example\nconn net\n  also=base\n  left=192.0.2.1\n  leftid=@gw.example\n"
        "  leftsubnet=10.1.0.0/16\n  auto=add\n"
    )

    result = imported(tmp_path, conf)

    assert only(result)["children"][0]["local_ts"] == ["10.1.0.0/16"]
    assert notes(result) == []


def test_a_conn_that_is_not_loaded_there_is_not_loaded_here(tmp_path: Path) -> None:
    result = imported(tmp_path, CONN.replace("auto=add", "auto=ignore"))

    assert (result.connections, result.left_out) == ((), ("net",))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("keyexchange=ikev1", "ikev1 is not spoken"),
        ("rightsourceip=10.3.0.0/24", "virtual addresses"),
        ("rightauth=eap-mschapv2", "EAP is not spoken"),
        ("rightauth2=psk", "one round"),
        ("rightgroups=staff", "membership"),
        ("mark=42", "would take other traffic too"),
        ("installpolicy=no", "always installed"),
        ("type=transport_proxy", "transport_proxy"),
    ],
)
def test_what_would_be_less_strict_leaves_the_conn_out(tmp_path: Path, line: str, reason: str) -> None:
    result = imported(tmp_path, f"{CONN}  {line}\n")

    assert (result.connections, result.left_out) == ((), ("net",))
    assert any(note.startswith("10: ") and reason in note for note in notes(result)), notes(result)


@pytest.mark.parametrize(
    ("lines", "interface"),
    [
        ("ipsec-interface=no", None),
        ("ipsec-interface=yes", {"name": "ipsec1", "id": 1, "routes": ["10.2.0.0/16"]}),
        (
            "ipsec-interface=7\n  interface-ip=10.9.0.1/24",
            {"name": "ipsec7", "id": 7, "addresses": ["10.9.0.1/24"], "routes": ["10.2.0.0/16"]},
        ),
        (
            "vti-interface=vti1\n  mark=5/0xffffffff\n  leftvti=10.9.0.1/24",
            {"name": "vti1", "addresses": ["10.9.0.1/24"], "routes": ["10.2.0.0/16"]},
        ),
        ("vti-interface=vti1\n  mark=5/0xffffffff\n  vti-routing=no", {"name": "vti1"}),
        (
            "ipsec-interface=1\n  rightsubnets=10.2.0.0/16,10.3.0.0/16",
            {"name": "ipsec1", "id": 1, "routes": ["10.2.0.0/16", "10.3.0.0/16"]},
        ),
    ],
)
def test_interfaces_of_libreswan_are_carried_with_the_routes_it_makes(
    tmp_path: Path, lines: str, interface: dict[str, Any] | None
) -> None:
    connection = only(imported(tmp_path, f"{CONN}  {lines}\n", written_in=Format.LIBRESWAN))

    assert [child.get("interface") for child in connection["children"]] == [interface] * len(
        connection["children"]
    )


def test_route_that_would_hold_the_peer_is_not_carried_and_that_is_told(tmp_path: Path) -> None:
    lines = "  ipsec-interface=yes\n  rightsubnet=0.0.0.0/0\n"

    result = imported(tmp_path, CONN + lines, written_in=Format.LIBRESWAN)

    (child,) = only(result)["children"]
    assert child["interface"] == {"name": "ipsec1", "id": 1}
    assert any("no route to 0.0.0.0/0 is carried" in note for note in notes(result))


@pytest.mark.parametrize(
    "line",
    [
        "ikev2=no",
        "authby=rsasig",
        "ipsec-interface=one",
        "ipsec-interface=yes\n  type=transport",
        "vti-interface=a/b",
        "mark=5/0xffffffff",
        "right=%group",
        "leftid=bare.example",
    ],
)
def test_what_libreswan_has_and_we_have_not_leaves_the_conn_out(tmp_path: Path, line: str) -> None:
    result = imported(tmp_path, f"{CONN}  {line}\n", written_in=Format.LIBRESWAN)

    assert (result.connections, result.left_out) == ((), ("net",))


@pytest.mark.parametrize(
    ("conf", "written_in"),
    [
        (SERVER_A_TO_SERVER_B, Format.STRONGSWAN),
        (CONN + "  dpdaction=restart\n  closeaction=restart\n", Format.STRONGSWAN),
        (CONN + "  ikev2=insist\n", Format.LIBRESWAN),
        (CONN + "  esp=aes_gcm256\n", Format.LIBRESWAN),
        ("config setup\n  protostack=xfrm\n" + CONN, Format.LIBRESWAN),
        ("config setup\n  charondebug=ike 2\n" + CONN, Format.STRONGSWAN),
    ],
)
def test_the_dialect_is_told_by_its_words(tmp_path: Path, conf: str, written_in: Format) -> None:
    told = imported(tmp_path, conf, PSK + SECRETS, written_in)

    assert imported(tmp_path, conf, PSK + SECRETS, None) == told


def test_a_peer_without_rightid_must_be_its_address(tmp_path: Path) -> None:
    conf = CONN.replace("  rightid=@peer.example\n", "")

    assert only(imported(tmp_path, conf, ': PSK "x"\n'))["remote"]["id"] == "192.0.2.2"


@pytest.mark.parametrize("written_in", [Format.STRONGSWAN, Format.LIBRESWAN], ids=lambda one: one.value)
def test_a_peer_that_cannot_be_named_leaves_the_conn_out(tmp_path: Path, written_in: Format) -> None:
    conf = CONN.replace("  rightid=@peer.example\n", "").replace("right=192.0.2.2", "right=caf\udce9")
    (tmp_path / "ipsec.conf").write_bytes(conf.encode("utf-8", "surrogateescape"))

    result = import_config(tmp_path / "ipsec.conf", written_in=written_in, addresses={"192.0.2.1"})

    assert result.left_out == ("net",)
    assert any("not UTF-8" in note for note in notes(result))


def test_the_certificate_of_a_conn_finds_its_key(tmp_path: Path) -> None:
    for name, contents in {
        "certs/gw.pem": GATEWAY.pem,
        "cacerts/ca.pem": CA.pem,
        "private/gw.key": GATEWAY.key_pem,
    }.items():
        path = tmp_path / "ipsec.d" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents)
    conf = "config setup\n  strictcrlpolicy=ifuri\n" + CONN.replace("authby=secret", "leftcert=gw.pem")

    connection = only(imported(tmp_path, conf, ": RSA gw.key\n"))

    key = {"file": f"{tmp_path}/ipsec.d/private/gw.key"}
    assert connection["local"]["auth"]["certificate"]["key"] == key
    assert connection["remote"]["auth"]["certificate"]["revocation"] == "ifuri"


@pytest.mark.parametrize(
    ("entry", "key"),
    [
        ('@gw.example @peer.example : PSK "one # two"', b"one # two"),
        ("@gw.example @peer.example : PSK 'single'", b"single"),
        ("@gw.example @peer.example : PSK 0xAB_cd # comment", b"0xABcd"),
        ("@gw.example @peer.example : PSK 0sAQID", b"0sAQID"),
        ('@gw.example @peer.example : PSK "0xab"', b"0x30786162"),
        ("@gw.example @peer.example : PSK 0tplain", b"plain"),
        ("@gw.example\n   @peer.example :\n   PSK over-lines", b"over-lines"),
        ('@peer.example : PSK "one"', b"one"),
        (': PSK "all"\n@gw.example @peer.example : PSK "ours"\n@gw.example : PSK "one"', b"ours"),
        ('%any @peer.example : PSK "any"', b"any"),
    ],
)
def test_which_secret_a_conn_has(tmp_path: Path, entry: str, key: bytes) -> None:
    assert only(imported(tmp_path, CONN, entry + "\n"))["local"]["auth"] == {"psk": Secret(key)}


@pytest.mark.parametrize("line", ["hunter2", '"', "'hunter2", "a b c", ": hunter2"])
def test_a_line_that_is_no_entry_is_told_without_what_it_says(tmp_path: Path, line: str) -> None:
    result = imported(tmp_path, CONN, f"{line}\n{PSK}")

    only(result)
    (told,) = notes(result)
    assert told.startswith("1: entry: has no")
    assert "hunter2" not in told.lower()


def test_a_conn_without_a_secret_is_left_out(tmp_path: Path) -> None:
    result = imported(tmp_path, CONN, '@else.example : PSK "other"\n')

    assert result.left_out == ("net",)
    assert any("no pre-shared key is for gw.example and peer.example" in note for note in notes(result))


def test_comments_and_strings(tmp_path: Path) -> None:
    conf = (
        CONN.replace("leftid=@gw.example", 'leftid="@gw.example"   # quoted') + "# conn no\n  #auto=start\n"
    )

    assert only(imported(tmp_path, conf))["local"]["id"] == "gw.example"


def test_exceptions_without_a_peer(tmp_path: Path) -> None:
    conf = (
        CONN
        + "conn ssh\n  leftsubnet=0.0.0.0/0[tcp/22]\n  rightsubnet=10.2.0.0/16\n  type=pass\n  auto=route\n"
    )

    children = only(imported(tmp_path, conf))["children"]

    assert children[1] == {
        "name": "ssh",
        "action": "bypass",
        "local_ts": ["0.0.0.0/0[tcp/22]"],
        "remote_ts": ["10.2.0.0/16"],
    }
