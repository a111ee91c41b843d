"""`ipsecgw import`: what goes to which stream and file, and the exit status."""

import stat
from pathlib import Path

import pytest

from gateway.api.config_file import load_config
from gateway.cli import import_config
from gateway.cli.main import main
from tests.unit.config.foreign.test_ipsec_conf import SECRETS, SERVER_A_TO_SERVER_B


@pytest.fixture(autouse=True)
def at_server_a(monkeypatch: pytest.MonkeyPatch) -> None:
    async def addresses() -> frozenset[str]:
        return frozenset({"192.168.1.10"})

    monkeypatch.setattr(import_config, "_own_addresses", addresses)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "ipsec.conf").write_text(SERVER_A_TO_SERVER_B)
    (folder / "ipsec.secrets").write_text(SECRETS)
    return folder


def test_standard_output_has_a_configuration_that_loads(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", str(source)]) == 0

    told = capsys.readouterr()
    (tmp_path / "ours.yaml").write_text(told.out)
    assert load_config(tmp_path / "ours.yaml").connections[0].psk.reveal() == b"your_secret_key"
    assert f"{source}/ipsec.conf:6: esp: is carried alone" in told.err
    assert "the output holds secrets" in told.err


def test_a_file_has_its_secrets_beside_it_for_root_alone(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "ours.yaml"

    assert main(["import", str(source / "ipsec.conf"), "-o", str(target)]) == 0

    key = tmp_path / "server-a-to-server-b.psk"
    told = capsys.readouterr()
    assert told.out == ""
    assert "your_secret_key" not in target.read_text() + told.err
    assert [stat.S_IMODE(path.stat().st_mode) for path in (target, key)] == [0o600, 0o600]
    assert load_config(target).connections[0].psk.reveal() == b"your_secret_key"


def test_files_that_are_there_stay_unless_forced(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "ours.yaml"
    target.write_text("mine")

    assert main(["import", str(source), "-o", str(target)]) == 1
    assert target.read_text() == "mine"
    assert "--force" in capsys.readouterr().err
    assert not (tmp_path / "server-a-to-server-b.psk").exists()

    assert main(["import", str(source), "-o", str(target), "--force"]) == 0
    assert "server-a-to-server-b" in target.read_text()


def test_the_side_can_be_said(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", str(source), "--local", "right"]) == 0

    assert "local:\n    address: 192.168.1.20" in capsys.readouterr().out


def test_a_connection_that_is_left_out_shows_in_the_exit_status(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "ipsec.conf").write_text(SERVER_A_TO_SERVER_B + "  keyexchange=ikev1\n")

    assert main(["import", str(source)]) == 1

    told = capsys.readouterr()
    assert told.out == "connections: []\n"
    assert "left out: server-a-to-server-b" in told.err


@pytest.mark.parametrize(
    ("name", "contents", "what"),
    [
        ("x.conf", "hello\n", "looks like neither"),
        ("swanctl.conf", "connections {\n", "is not closed"),
        ("none.conf", None, "cannot be read"),
    ],
)
def test_what_is_no_configuration_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, contents: str | None, what: str
) -> None:
    if contents is not None:
        (tmp_path / name).write_text(contents)

    assert main(["import", str(tmp_path / name)]) == 1

    assert what in capsys.readouterr().err


def test_what_our_reader_would_refuse_is_told(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "ipsec.conf").write_text(SERVER_A_TO_SERVER_B + "  type=transport\n  leftsubnet=10.1.0.0/16\n")

    assert main(["import", str(source)]) == 1

    assert "validate would refuse the result" in capsys.readouterr().err
