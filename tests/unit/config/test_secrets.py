"""Secret references, with real files."""

import logging
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.secrets import (
    MAX_SECRET_BYTES,
    SecretError,
    SecretReference,
    SecretSource,
    parse_secret_reference,
    read_public_file,
    resolve_key,
    resolve_secret,
)
from gateway.ipsec.secret import Secret


def resolve(base: Path, environment: dict[str, str] | None = None, /, **mapping: str) -> bytes:
    return resolve_secret(parse_secret_reference(mapping), base=base, environment=environment or {}).reveal()


def write(path: Path, contents: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(contents)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("hunter2", b"hunter2"),
        ("0x00ffA1", b"\x00\xff\xa1"),
        ("0X00 ff", b"\x00\xff"),
        ("0saGVsbG8=", b"hello"),
        ("0SaGVsbG8=", b"hello"),
        ("00x1", b"00x1"),
        (" spaced ", b" spaced "),
        ("clé", "clé".encode()),
    ],
)
def test_value_forms(tmp_path, text, key):
    assert resolve(tmp_path, value=text) == key
    assert resolve(tmp_path, {"PSK": text}, env="PSK") == key
    write(tmp_path / "psk", text.encode() + b"\n")
    assert resolve(tmp_path, file="psk") == key


@pytest.mark.parametrize(
    ("contents", "key"),
    [
        (b"key\n", b"key"),
        (b"key\r\n", b"key"),
        (b"key\n\n", b"key\n"),
        (b"key", b"key"),
        (b"\xff\xfe\x00", b"\xff\xfe\x00"),
        (b"0x0102\n", b"\x01\x02"),
    ],
)
def test_file_loses_one_line_end_and_nothing_else(tmp_path, contents, key):
    write(tmp_path / "psk", contents)

    assert resolve(tmp_path, file="psk") == key
    assert resolve(Path("/"), file=str(tmp_path / "psk")) == key


def test_systemd_credential_is_read_from_its_directory(tmp_path):
    write(tmp_path / "paris.psk", b"hunter2\n", mode=0o440)

    assert resolve(Path("/"), {"CREDENTIALS_DIRECTORY": str(tmp_path)}, credential="paris.psk") == b"hunter2"


REFUSED = [
    ({"env": "PSK"}, "environment variable PSK is not set; set it"),
    ({"file": "missing"}, "does not exist; write the key there"),
    ({"file": "."}, "cannot be read"),
    ({"file": "a\0b"}, "not a path"),
    ({"file": "empty"}, "empty"),
    ({"file": "huge"}, f"over {MAX_SECRET_BYTES} bytes"),
    ({"value": "0x123"}, "even number of hex digits"),
    ({"value": "0xsecret-stuff"}, "even number of hex digits"),
    ({"value": "0s!!!!secret-stuff"}, "base64"),
    ({"value": "0x"}, "empty"),
    ({"credential": "paris"}, "LoadCredential=paris:PATH"),
    ({"credential": "../paris"}, "not the name of a systemd credential"),
    ({"credential": ".."}, "not the name of a systemd credential"),
]


@pytest.mark.parametrize(("mapping", "hint"), REFUSED, ids=[str(r[0]) for r in REFUSED])
def test_what_cannot_be_had_is_told_with_what_to_do_and_without_the_secret(tmp_path, mapping, hint):
    write(tmp_path / "empty", b"\n")
    write(tmp_path / "huge", b"x" * (MAX_SECRET_BYTES + 1))

    with pytest.raises(SecretError, match=hint) as caught:
        resolve(tmp_path, **mapping)

    assert "secret-stuff" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_credential_the_unit_does_not_have(tmp_path):
    with pytest.raises(SecretError, match="no credential 'tokyo'"):
        resolve(tmp_path, {"CREDENTIALS_DIRECTORY": str(tmp_path)}, credential="tokyo")


@pytest.fixture
def nobody():
    """Run as another user where we are root, whom no file mode stops."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


def test_file_that_we_must_not_read_is_told_with_our_uid(nobody):
    with tempfile.TemporaryDirectory() as directory:
        write(Path(directory) / "psk", b"hunter2", mode=0)

        with pytest.raises(SecretError, match=f"cannot be read by uid {os.geteuid()}"):
            resolve(Path(directory), file="psk")


@pytest.mark.parametrize(
    ("mapping", "hint"),
    [
        ({}, "exactly one of file, value, env, credential; this one has nothing"),
        ({"file": "a", "env": "B"}, "this one has env, file"),
        ({"fiel": "a"}, "'fiel' is not a source of secrets"),
        ({"file": ""}, "the file of a secret is empty"),
    ],
)
def test_bad_references(mapping, hint):
    with pytest.raises(SecretError, match=hint):
        parse_secret_reference(mapping)


@pytest.mark.parametrize(("mode", "who"), [(0o640, "its group"), (0o604, "everybody"), (0o644, "everybody")])
def test_file_that_others_can_read_is_used_with_a_warning(tmp_path, caplog, mode, who):
    path = write(tmp_path / "psk", b"hunter2", mode)

    with caplog.at_level(logging.WARNING, logger="gateway.config"):
        assert resolve(tmp_path, file="psk") == b"hunter2"

    (record,) = caplog.records
    assert record.gw_event == "secret_file_readable"
    assert (record.gw_fields["by"], record.gw_fields["path"]) == (who, str(path))


def test_file_that_others_can_read_is_refused_where_asked(tmp_path):
    write(tmp_path / "psk", b"hunter2", 0o640)

    with pytest.raises(SecretError, match="chmod 600"):
        resolve_secret(parse_secret_reference({"file": "psk"}), base=tmp_path, allow_readable_by_others=False)


def test_private_file_gives_no_warning(tmp_path, caplog):
    write(tmp_path / "psk", b"hunter2")

    assert resolve(tmp_path, file="psk") == b"hunter2"
    assert caplog.records == []


def test_reference_shows_its_place_and_never_a_value():
    assert str(parse_secret_reference({"file": "paris.psk"})) == "{file: paris.psk}"
    reference = parse_secret_reference({"value": "hunter2"})

    assert "hunter2" not in f"{reference} {reference!r}"
    assert reference == SecretReference(SecretSource.VALUE, Secret(b"hunter2"))


@given(st.binary(min_size=1, max_size=200))
def test_hex_form_carries_any_bytes(key):
    assert resolve(Path("/"), value="0x" + key.hex()) == key


# --- private keys and what is public ------------------------------------------------------------


def test_a_key_file_is_taken_byte_for_byte_even_where_its_der_looks_like_hexadecimal(tmp_path: Path) -> None:
    # A SEQUENCE of 120 octets begins with `0x`, one of 115 with `0s`; the last octet may be a line end.
    for contents in (b"0x" + bytes(119) + b"\n", b"0s" + bytes(115), b"-----BEGIN PRIVATE KEY-----\n"):
        write(tmp_path / "key", contents)
        reference = parse_secret_reference({"file": "key"})

        assert resolve_key(reference, base=tmp_path, environment={}) == Secret(contents)


def test_a_key_in_a_value_or_variable_may_be_encoded(tmp_path: Path) -> None:
    for mapping in ({"value": "0x3000"}, {"env": "KEY"}):
        reference = parse_secret_reference(mapping)

        assert resolve_key(reference, base=tmp_path, environment={"KEY": "0sMAA="}) == Secret(b"\x30\x00")


def test_a_key_file_may_be_longer_than_a_pre_shared_key_and_not_without_end(tmp_path: Path) -> None:
    reference = parse_secret_reference({"file": "key"})
    write(tmp_path / "key", bytes(MAX_SECRET_BYTES + 1))
    assert len(resolve_key(reference, base=tmp_path, environment={})) == MAX_SECRET_BYTES + 1

    write(tmp_path / "key", bytes(100_000))

    with pytest.raises(SecretError, match="is it the right place"):
        resolve_key(reference, base=tmp_path, environment={})


@pytest.mark.parametrize(
    ("name", "text"), [("nowhere", "does not exist"), ("empty", "is empty"), (".", "cannot be read by uid")]
)
def test_a_public_file_that_cannot_be_had_is_named(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "empty").touch()

    with pytest.raises(SecretError, match=text):
        read_public_file(name, base=tmp_path)
