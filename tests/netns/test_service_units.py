"""The systemd units: what they say is valid, and their commands do their work with only those rights."""

import configparser
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from gateway.bench.topology import Namespace, site_to_site
from tests.netns.site_gateways import can_ping, config, gateways

UNITS = Path(__file__).parents[2] / "packaging" / "systemd"
AGENT, CONTROLLER = "ipsecgw-agent.service", "ipsecgw.service"
KEEP_STATE = UNITS / "ipsecgw.service.d" / "keep-state.conf"
ROOT_MODULE = (sys.executable, "-m", "gateway.cli.main")


def unit(name: str, drop_in: Path | None = None) -> configparser.SectionProxy:
    """Return what a unit says of its service; a drop-in takes a command back with an empty one first."""
    parser = configparser.ConfigParser(interpolation=None, strict=False, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's names have capitals
    parser.read([UNITS / name, *([] if drop_in is None else [drop_in])])
    return parser["Service"]


def verify(name: str, directory: Path, *files: Path) -> tuple[int, str]:
    """Return what systemd thinks of a unit, beside its command, which only a package installs."""
    for path in files:
        copy = directory / path.relative_to(UNITS)
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(path.read_text().replace("/usr/bin/ipsecgw", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", directory / name],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("name", [AGENT, CONTROLLER])
def test_systemd_finds_nothing_wrong(name: str, tmp_path: Path) -> None:
    assert verify(name, tmp_path, *UNITS.glob("*.service")) == (0, "")


def test_systemd_finds_nothing_wrong_with_the_state_kept(tmp_path: Path) -> None:
    units = [*UNITS.glob("*.service"), KEEP_STATE]

    assert verify(CONTROLLER, tmp_path, *units) == (0, "")
    # It is read, or nothing would be said of a mistake in it.
    spoilt = tmp_path / KEEP_STATE.relative_to(UNITS)
    spoilt.write_text(spoilt.read_text().replace("StateDirectory=", "StateDirectori="))
    assert "StateDirectori" in verify(CONTROLLER, tmp_path)[1]


def restart_signal(name: str) -> signal.Signals:
    """Return how a restart ends a service."""
    return signal.Signals[unit(name).get("RestartKillSignal", "SIGTERM")]


@dataclass(slots=True)
class Service:
    """A unit's command, run as systemd would: its capabilities, its environment, and nothing more."""

    process: "subprocess.Popen[bytes]"
    states: socket.socket

    def next_state(self) -> str:
        return self.states.recv(4096).decode()

    def capabilities(self) -> set[str]:
        """Return the effective ones, by name."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        effective = re.search(r"^CapEff:\s*(\w+)", status, re.M)
        assert effective is not None
        done = subprocess.run(
            ["capsh", f"--decode={effective[1]}"], capture_output=True, text=True, check=True
        )
        return {name for name in done.stdout.strip().partition("=")[2].split(",") if name}

    def user_ids(self) -> set[int]:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"^Uid:\s*(.+)", status, re.M)
        assert found is not None
        return {int(number) for number in found[1].split()}


@contextmanager
def run_unit(
    name: str,
    namespace: Namespace,
    directory: Path,
    options: str,
    *,
    config_path: Path | None = None,
    state: Path | None = None,
) -> Iterator[Service]:
    """Run a unit, and stop it at the end unless it was killed as a restart does.

    Args:
        name: The unit.
        namespace: Where.
        directory: For its log.
        options: What `/etc/default/ipsecgw` says.
        config_path: Stands in for gateway.yaml.
        state: Its state directory: with the drop-in that keeps the state.
    """
    said = unit(name, None if state is None else KEEP_STATE)
    words = shlex.split(said["ExecStart"])
    assert words[0] == "/usr/bin/ipsecgw"
    command = [*ROOT_MODULE]
    for word in words[1:]:
        if word == "${STATE_DIRECTORY}":
            command.append(str(state))
        elif word.startswith("$"):
            command += shlex.split(options)
        elif word == "/etc/ipsecgw/gateway.yaml":
            command.append(str(config_path))
        else:
            command.append(word)
    bounding = ",".join(
        f"+{word.removeprefix('CAP_').lower()}" for word in said["CapabilityBoundingSet"].split()
    )
    assert said["NoNewPrivileges"] == "yes"
    with (
        TemporaryDirectory(prefix="ipsecgw-notify-") as place,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as states,
        (directory / f"{name}.log").open("w") as log,
    ):
        # Everybody may reach it, as /run/systemd/notify.
        Path(place).chmod(0o755)
        notify = Path(place) / "notify"
        states.bind(str(notify))
        notify.chmod(0o777)
        states.settimeout(60)
        process = namespace.popen(
            *(
                "setpriv",
                "--no-new-privs",
                f"--bounding-set=-all,{bounding}",
                "--inh-caps=-all",
                "--",
                *command,
            ),
            stdout=log,
            stderr=log,
            env={**os.environ, "NOTIFY_SOCKET": str(notify), "WATCHDOG_USEC": "400000"},
        )
        try:
            yield Service(process, states)
        finally:
            process.terminate()
            assert process.wait(60) in (0, -restart_signal(name)), (directory / f"{name}.log").read_text()


@pytest.mark.netns
def test_the_units_carry_traffic_with_no_right_but_theirs_and_a_restart_loses_none(tmp_path: Path) -> None:
    with site_to_site(f"su{os.getpid()}") as sites:
        home = tmp_path / "unit"
        home.mkdir()
        psk = home / "test.psk"
        psk.write_text("correct horse battery staple\n")
        psk.chmod(0o600)
        config_path = home / "gateway.yaml"
        config_path.write_text(config(sites, of_a=True))
        options = f"--run-dir {home}/run"
        _, tokyo = gateways(sites, tmp_path)
        with run_unit(AGENT, sites.a.gateway, tmp_path, options) as agent:
            assert agent.next_state() == "READY=1"
            with (
                tokyo,
                run_unit(CONTROLLER, sites.a.gateway, tmp_path, options, config_path=config_path) as before,
            ):
                assert before.next_state() == "READY=1"
                assert can_ping(sites.a.host, sites.b.host_address, "-c3", "-W5")
                pings = sites.a.host.popen(
                    *("ping", "-i0.05", "-c100", "-W5", sites.b.host_address), stdout=subprocess.PIPE
                )
                before.process.send_signal(restart_signal(CONTROLLER))
                assert before.process.wait(60) == -signal.Signals[unit(CONTROLLER)["SuccessExitStatus"]]
                with run_unit(
                    CONTROLLER, sites.a.gateway, tmp_path, options, config_path=config_path
                ) as controller:
                    assert controller.next_state() == "READY=1"
                    replies, _ = pings.communicate(timeout=60)
                    assert "100 packets transmitted, 100 received" in replies

                    assert agent.capabilities() == {"cap_net_admin", "cap_net_raw", "cap_net_bind_service"}
                    assert controller.capabilities() == set()
                    assert 0 not in controller.user_ids()
                    # Both go on telling that they live.
                    for service in (agent, controller):
                        assert {service.next_state() for _ in range(3)} == {"WATCHDOG=1"}

                    controller.process.terminate()
                    while (state := controller.next_state()) != "STOPPING=1":
                        assert state == "WATCHDOG=1"


@pytest.mark.netns
def test_what_is_applied_outlives_the_unit_that_keeps_its_state(tmp_path: Path) -> None:
    with site_to_site(f"sk{os.getpid()}") as sites:
        config_path = tmp_path / "gateway.yaml"
        (tmp_path / "test.psk").write_text("correct horse battery staple\n")
        config_path.write_text(config(sites, of_a=True))
        options = f"--run-dir {tmp_path}/run"
        state = tmp_path / "state"
        said = unit(CONTROLLER, KEEP_STATE)
        # As systemd makes it.
        assert said["StateDirectory"] == "ipsecgw"
        state.mkdir(mode=int(said["StateDirectoryMode"], 8))

        def ipsecgw(*words: str) -> str:
            command = (*ROOT_MODULE, *words, "--socket", f"unix:{tmp_path}/run/control.sock")
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout

        with run_unit(AGENT, sites.a.gateway, tmp_path, options) as agent:
            assert agent.next_state() == "READY=1"
            with run_unit(CONTROLLER, sites.a.gateway, tmp_path, options, state=state) as first:
                assert first.next_state() == "READY=1"
                assert "paris-tokyo" not in ipsecgw("list", "connections")
                ipsecgw("apply", str(config_path))
                first.process.kill()
                first.process.wait(60)
            for _ in range(2):
                # What it finds belongs to whom the one before became: it has no right to read that.
                with run_unit(CONTROLLER, sites.a.gateway, tmp_path, options, state=state) as later:
                    assert later.next_state() == "READY=1"
                    assert "paris-tokyo" in ipsecgw("list", "connections")
                    assert f"desired    state:{state}" in ipsecgw("status")
                    assert 0 not in later.user_ids()
                    owners = {path.stat().st_uid for path in (state, *state.iterdir())}
                    assert owners == later.user_ids()


def test_a_child_of_ipsecgw_run_leaves_the_service_manager_to_its_parent(tmp_path: Path) -> None:
    """Or its READY=1 would come before that of the whole."""
    code = (
        "from gateway.app.ready import environment_of_child; "
        "words = ('NOTIFY', 'WATCHDOG', 'READY'); "
        "print(sorted(name for name in environment_of_child(9) if any(word in name for word in words)))"
    )

    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},
    )

    assert done.stdout.strip() == "['IPSECGW_READY_FD']"


def test_a_service_manager_that_is_gone_ends_nothing() -> None:
    code = "from gateway.app.ready import notify; notify('READY=1')"

    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "NOTIFY_SOCKET": "/nowhere/notify"},
    )

    assert done.returncode == 0
    assert "service_manager_not_told" in done.stderr
