"""Every documented keyword changes what comes out, or its line is named: nothing vanishes."""

from pathlib import Path
from string import Template

import pytest

from gateway.config.foreign.draft import Imported
from gateway.config.foreign.output import to_text, value_of
from gateway.config.foreign.read import Format, import_config
from tests.fakes.pki import issue
from tests.unit.config.foreign import documented

CA = issue("CA")
GATEWAY = issue("gw", CA, names=["gw.example"])
PEER = issue("peer", CA, names=["peer.example"])

SWANCTL_PSK = """
connections { net {
  $connection
  local {
    id = gw.example
    auth = psk
    $local
  }
  remote {
    id = peer.example
    auth = psk
    $remote
  }
  children { lan {
    $child
  } }
} }
secrets {
  ike-1 {
    secret = told
  }
  $secrets
}
pools {
  $pools
}
authorities {
  $authorities
}
"""
SWANCTL_CERTIFICATES = SWANCTL_PSK.replace("auth = psk\n    $local", "certs = gw.pem\n    $local").replace(
    "auth = psk\n    $remote", "$remote"
)
#: Keywords of swanctl that mean something with certificates only.
NEED_CERTIFICATES = {
    ("remote", "revocation"),
    ("remote", "cacerts"),
    ("authorities", "a { cacert"),
    ("authorities", "a { file"),
    *(("secrets", f"{folder}-a {{ file") for folder in ("private", "rsa", "ecdsa", "pkcs8")),
}

CONF_PSK = """
config setup
  $setup
conn other
  left=192.0.2.1
  right=192.0.2.2
  leftid=@other.example
conn net
  left=192.0.2.1
  right=192.0.2.2
  authby=secret
  auto = add
  $conn
ca one
  $ca
"""
CONF_CERTIFICATES = CONF_PSK.replace("authby=secret", "leftcert=gw.pem")
CONF_NEEDS_CERTIFICATES = {("setup", "strictcrlpolicy"), ("ca", "cacert"), ("ca", "also"), ("ca", "auto")}
CONF_SECRETS = '192.0.2.1 192.0.2.2 : PSK "told"\n%any : PSK "other"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with credentials where both formats look for them."""
    for name, contents in {
        "x509/gw.pem": GATEWAY.pem,
        "x509ca/ca.pem": CA.pem,
        "private/gw.key": GATEWAY.key_pem,
        "ipsec.d/certs/gw.pem": GATEWAY.pem,
        "ipsec.d/cacerts/ca.pem": CA.pem,
        "ipsec.d/private/gw.key": GATEWAY.key_pem,
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents)
    return tmp_path


def filled(template: str, **lines: str) -> str:
    names = (
        "connection",
        "local",
        "remote",
        "child",
        "secrets",
        "pools",
        "authorities",
        "setup",
        "conn",
        "ca",
    )
    return Template(template).substitute({**dict.fromkeys(names, ""), **lines})


def outcome(imported: Imported) -> tuple[object, ...]:
    """Return all that comes out, secrets in plain sight: they are those of this test."""
    return to_text(imported, value_of), imported.left_out


def check(path: Path, bare: str, text: str, statement: str, *, written_in: Format) -> None:
    """Import with and without one line: the outcome differs, or that very line is named."""
    path.write_text(bare)
    before = import_config(path, written_in=written_in, addresses={"192.0.2.1"})
    path.write_text(text)
    after = import_config(path, written_in=written_in, addresses={"192.0.2.1"})

    where = next(i for i, line in enumerate(text.splitlines(), 1) if line.strip() == statement.strip())
    named = [note for note in after.notes if (note.place.file, note.place.line) == (str(path), where)]
    assert before.connections
    assert named or outcome(before) != outcome(after), f"{statement} vanished"
    assert not any("is it misspelt" in note.text for note in named)


def cases(sections: dict[str, documented.Keywords]) -> list[object]:
    return [
        pytest.param(section, keyword, value, id=f"{section}.{keyword}")
        for section, keywords in sections.items()
        for keyword, value in keywords.items()
    ]


@pytest.mark.parametrize(("section", "keyword", "value"), cases(documented.SWANCTL))
def test_every_keyword_of_swanctl_conf_is_carried_or_named(
    folder: Path, section: str, keyword: str, value: str
) -> None:
    template = SWANCTL_CERTIFICATES if (section, keyword) in NEED_CERTIFICATES else SWANCTL_PSK
    statement = f"{keyword} = {value}"
    if (section, keyword) in NEED_CERTIFICATES and section == "secrets":
        # The passphrase of a key shows in what comes out, so it gets one.
        statement = f"{keyword} = gw.key\nsecret = guess me }}"
    check(
        folder / "swanctl.conf",
        filled(template),
        filled(template, **{section: statement}),
        statement.splitlines()[0],
        written_in=Format.SWANCTL,
    )


@pytest.mark.parametrize(("section", "keyword", "value"), cases(documented.STRONGSWAN))
def test_every_keyword_of_strongswans_ipsec_conf_is_carried_or_named(
    folder: Path, section: str, keyword: str, value: str
) -> None:
    (folder / "ipsec.secrets").write_text(CONF_SECRETS + ": RSA gw.key\n")
    template = CONF_CERTIFICATES if (section, keyword) in CONF_NEEDS_CERTIFICATES else CONF_PSK
    statement = f"{keyword}={value}"
    bare, text = filled(template), filled(template, **{section: statement})
    check(folder / "ipsec.conf", bare, text, statement, written_in=Format.STRONGSWAN)


@pytest.mark.parametrize(("section", "keyword", "value"), cases(documented.LIBRESWAN))
def test_every_keyword_of_libreswans_ipsec_conf_is_carried_or_named(
    folder: Path, section: str, keyword: str, value: str
) -> None:
    (folder / "ipsec.secrets").write_text(CONF_SECRETS)
    (folder / "other.secrets").write_text('192.0.2.1 192.0.2.2 : PSK "from elsewhere"\n')
    statement = f"{keyword}={value}"
    template = CONF_PSK.replace("ca one\n  $ca\n", "")
    bare, text = filled(template), filled(template, **{section: statement})
    check(folder / "ipsec.conf", bare, text, statement, written_in=Format.LIBRESWAN)


@pytest.mark.parametrize(
    ("written_in", "entry", "value"),
    [
        pytest.param(written_in, entry, value, id=f"{written_in.value}: {entry}")
        for written_in, entries in (
            (Format.STRONGSWAN, documented.STRONGSWAN_SECRETS),
            (Format.LIBRESWAN, documented.LIBRESWAN_SECRETS),
        )
        for entry, value in entries.items()
    ],
)
def test_every_kind_of_secret_is_carried_or_named(
    folder: Path, written_in: Format, entry: str, value: str
) -> None:
    conf, secrets = folder / "ipsec.conf", folder / "ipsec.secrets"
    conf.write_text(filled(CONF_PSK.replace("ca one\n  $ca\n", "")))
    bare = '%any : PSK "told"\n'
    if entry in (": RSA", ": ECDSA") and written_in is Format.STRONGSWAN:
        conf.write_text(filled(CONF_CERTIFICATES))
    secrets.write_text(bare)
    before = import_config(conf, written_in=written_in, addresses={"192.0.2.1"})

    secrets.write_text(f"{bare}{entry} {value}\n")

    after = import_config(conf, written_in=written_in, addresses={"192.0.2.1"})
    named = [note for note in after.notes if (note.place.file, note.place.line) == (str(secrets), 2)]
    assert named or outcome(before) != outcome(after)
