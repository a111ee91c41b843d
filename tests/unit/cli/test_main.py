import os
import pwd
from pathlib import Path

import pytest

from gateway.api.address import AddressError, UnixAddress
from gateway.app.places import (
    PlaceError,
    controller_account,
    find_places,
    make_directory,
    ports_socket,
)
from gateway.cli.main import build_parser, main
from gateway.host.errors import HostError
from gateway.host.privileges import Account, nameless_account

COMMANDS = (
    ["run"],
    ["agent"],
    ["apply", "FILE"],
    ["validate", "FILE"],
    ["up", "NAME"],
    ["down", "NAME"],
    ["rekey", "NAME"],
    *(["list", what] for what in ("connections", "ike-sas", "child-sas", "sas", "policies")),
    ["status"],
    ["events"],
    ["explain", "NAME"],
    ["inspect", "CAPTURE"],
    ["demo"],
    ["version"],
)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_parses_and_knows_what_to_do(words: list[str]) -> None:
    args = build_parser(words[0]).parse_args(words)

    assert callable(args.act)


@pytest.mark.parametrize(
    "words", [[], ["frobnicate"], ["up"], ["list", "everything"], ["agent", "--backend", "magic"]]
)
def test_a_wrong_command_line_ends_with_2_and_says_what_is_expected(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)

    assert ended.value.code == 2
    assert "usage: ipsecgw" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "1e999", "soon"])
@pytest.mark.parametrize(
    "words", [["run", "--grace"], ["agent", "--grace"], ["up", "x", "--timeout"], ["demo", "--seconds"]]
)
def test_no_time_but_a_number_of_seconds_is_taken(
    words: list[str], seconds: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*words[:-1], f"{words[-1]}={seconds}"])

    assert ended.value.code == 2
    assert (
        f"argument {words[-1]}: '{seconds}' is not a number of seconds, 0 or more" in capsys.readouterr().err
    )


@pytest.mark.parametrize("number", ["-1", "1.5", "9223372036854775808", "9" * 5000, "one", "\u0661"])
@pytest.mark.parametrize("words", [["events", "--after"], ["agent", "--group-id"], ["demo", "--megabytes"]])
def test_nothing_is_counted_but_in_whole_numbers(
    words: list[str], number: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*words[:-1], f"{words[-1]}={number}"])

    assert ended.value.code == 2
    assert f"'{number}' is not a whole number, 0 or more" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["status"], "start `ipsecgw run`"),
        (["up", "paris"], "start `ipsecgw run`"),
        (["list", "sas"], "start `ipsecgw agent`"),
    ],
)
def test_an_absent_service_is_named_with_what_to_do(
    words: list[str], advice: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main([*words, "--run-dir", str(tmp_path)])

    told = capsys.readouterr().err
    assert status == 1
    assert str(tmp_path) in told
    assert advice in told


def test_a_bad_configuration_is_told_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("connections:\n- name: paris\n  colour: blue\n")

    status = main(["validate", str(file)])

    assert status == 1
    # Every line begins with its place: an editor jumps there.
    lines = capsys.readouterr().err.splitlines()
    assert f"{file}:3:3: connections[0].colour: unknown key" in "\n".join(lines)
    assert len(lines) > 1
    assert all(line.startswith(f"{file}:") for line in lines)


def test_a_key_that_others_can_read_is_warned_of_with_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, file = tmp_path / "paris.psk", tmp_path / "gw.yaml"
    key.write_text("a key\n")
    key.chmod(0o644)
    file.write_text(
        "connections:\n- name: paris\n  remote: {address: 192.0.2.2, auth: {psk: {file: paris.psk}}}\n"
        "  children: [{name: lan}]\n"
    )

    status = main(["validate", str(file)])

    printed = capsys.readouterr()
    assert status == 0
    assert printed.out == f"{file}: all right: paris\n"
    (line,) = printed.err.splitlines()
    assert "WARNING" in line
    assert f'secret_file_readable path={key} by=everybody hint="chmod 600 {key}"' in line
    assert "a key" not in printed.err


def test_run_tells_every_mistake_before_it_starts_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("connections:\n- nam: paris\n  colour: blue\n")

    status = main(["run", "--config", str(file), "--run-dir", str(tmp_path / "run")])

    told = capsys.readouterr().err
    assert status == 1
    assert f"{file}:2:3: connections[0].nam: unknown key; did you mean name?\n" in told
    assert "colour" in told
    assert not (tmp_path / "run").exists()


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    with pytest.raises(SystemExit) as ended:
        main(["--version"])

    assert ended.value.code == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("ipsecgw ")
    assert second == first


# --- where the sockets are ------------------------------------------------------------------------


def test_sockets_are_as_named_else_below_the_run_dir_else_by_the_environment() -> None:
    environment = {"IPSECGW_CONTROL": "unix:/env/c.sock", "IPSECGW_DATAPATH": "unix:/env/d.sock"}

    by_default = find_places({})
    by_environment = find_places(environment)
    below = find_places(environment, run_dir=Path("/some/run"))
    named = find_places(environment, run_dir=Path("/some/run"), control="unix:/named/c.sock")

    assert str(by_default.control) == "unix:/run/ipsecgw/control.sock"
    assert str(by_environment.datapath) == "unix:/env/d.sock"
    assert (str(below.control), str(below.datapath)) == (
        "unix:/some/run/control.sock",
        "unix:/some/run/datapath.sock",
    )
    assert str(named.control) == "unix:/named/c.sock"
    with pytest.raises(AddressError):
        find_places({}, datapath="nonsense")


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777])
def test_a_directory_that_others_may_write_to_holds_no_sockets(tmp_path: Path, mode: int) -> None:
    # Somebody else's "agent" there would be given the keys of every SA.
    place = tmp_path / "run"
    place.mkdir()
    place.chmod(mode)

    with pytest.raises(PlaceError, match=rf"others may write to .*{mode:o}.*--run-dir"):
        make_directory(place)


def test_a_directory_of_another_user_holds_no_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "run"
    make_directory(place)
    make_directory(place)
    owner = place.stat().st_uid
    stat = Path.stat

    def of_somebody_else(path: Path) -> os.stat_result:
        there = list(stat(path))
        there[4] = owner + 1
        return os.stat_result(there)

    monkeypatch.setattr(Path, "stat", of_somebody_else)
    with pytest.raises(PlaceError, match=f"owner {owner + 1}"):
        make_directory(place)


def test_the_ports_are_handed_out_beside_the_datapath_socket() -> None:
    assert ports_socket(UnixAddress(Path("/run/ipsecgw/datapath.sock"))) == Path(
        "/run/ipsecgw/datapath.sock.ports"
    )


def test_a_user_that_does_not_exist_is_told_with_what_to_do() -> None:
    with pytest.raises(HostError, match="useradd"):
        controller_account("no-such-user-here", UnixAddress(Path("/run/ipsecgw/datapath.sock")))


def test_without_a_user_of_its_own_every_gateway_gets_numbers_that_nobody_has() -> None:
    here, there = (controller_account_of(f"/run/{name}/datapath.sock") for name in ("here", "there"))

    assert here == controller_account_of("/run/here/datapath.sock")
    assert here.uid != there.uid
    for account in (here, there):
        assert account.groups == (account.gid,)
        with pytest.raises(KeyError):
            pwd.getpwuid(account.uid)


def controller_account_of(path: str) -> Account:
    return nameless_account(f"unix:{path}")
