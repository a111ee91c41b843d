"""Who may do what: capabilities, users, modes of files and sockets, and no secret to be read anywhere."""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.bench.process import GatewayProcess
from gateway.bench.topology import site_to_site
from tests.netns.site_gateways import PSK, paris_and_tokyo, wait_for_ping

pytestmark = pytest.mark.netns

_CAP_NET_BIND_SERVICE, _CAP_NET_ADMIN, _CAP_NET_RAW = 10, 12, 13
_OF_THE_AGENT = 1 << _CAP_NET_BIND_SERVICE | 1 << _CAP_NET_ADMIN | 1 << _CAP_NET_RAW


@dataclass(frozen=True)
class Seen:
    """What a look at a gateway with a tunnel showed; the processes are gone since."""

    statuses: dict[str, list[dict[str, str]]]
    """/proc/PID/status of every thread, by process."""
    command_lines: str
    modes: dict[str, int]
    owners: dict[str, tuple[int, int]]
    logs: str
    keys: tuple[str, ...]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    directory = tmp_path_factory.mktemp("privileges")
    with site_to_site(f"gp{os.getpid()}") as sites, paris_and_tokyo(sites, directory) as (paris, tokyo):
        wait_for_ping(sites.a.host, sites.b.host_address)
        paris.ctl("rekey", "paris-tokyo/lan")
        processes = {role: paris.pid_of(role) for role in ("supervisor", "agent", "controller")}
        statuses = {role: _threads(pid) for role, pid in processes.items()}
        command_lines = "".join(Path(f"/proc/{pid}/cmdline").read_text() for pid in processes.values())
        files = {path.name: path.stat() for path in (paris.directory / "run").iterdir()}
        files |= {path.name: path.stat() for path in (*paris.key_log.iterdir(), paris.key_log)}
        printed = "".join(
            paris.ctl(*words, check=False).stdout
            for words in (
                ("list", "sas", "--json"),
                ("list", "connections", "--json"),
                ("explain", "paris-tokyo"),
            )
        )
        yield Seen(
            statuses=statuses,
            command_lines=command_lines,
            modes={name: stat.S_IMODE(found.st_mode) for name, found in files.items()},
            owners={name: (found.st_uid, found.st_gid) for name, found in files.items()},
            logs=paris.log() + tokyo.log() + printed,
            keys=_keys_of(paris),
        )


def _threads(pid: int) -> list[dict[str, str]]:
    return [
        dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)
        for task in Path(f"/proc/{pid}/task").iterdir()
    ]


def _keys_of(gateway: GatewayProcess) -> tuple[str, ...]:
    """Return every key in the Wireshark tables of a gateway, as hexadecimal digits."""
    text = "".join(path.read_text() for path in gateway.key_log.iterdir())
    return tuple(set(re.findall(r"[0-9a-f]{64,}", text)))


def test_the_controller_is_another_user_without_capabilities(seen: Seen) -> None:
    for thread in seen.statuses["controller"]:
        assert "0" not in thread["Uid"].split()
        assert "0" not in thread["Gid"].split()
        for capabilities in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert int(thread[capabilities], 16) == 0
        assert thread["NoNewPrivs"] == "1"


def test_the_agent_has_three_capabilities_and_what_it_starts_gets_no_more(seen: Seen) -> None:
    for thread in seen.statuses["agent"]:
        for capabilities in ("CapPrm", "CapEff", "CapBnd"):
            assert int(thread[capabilities], 16) == _OF_THE_AGENT, thread["Name"]
        assert thread["NoNewPrivs"] == "1"


def test_sockets_are_open_to_the_controller_only_and_key_tables_to_root_only(seen: Seen) -> None:
    uid, gid = (int(seen.statuses["controller"][0][name].split()[0]) for name in ("Uid", "Gid"))

    assert seen.modes["control.sock"] == 0o600
    assert seen.modes["datapath.sock"] == seen.modes["datapath.sock.ports"] == 0o660
    assert seen.owners["datapath.sock"] == seen.owners["datapath.sock.ports"] == (0, gid)
    assert seen.modes["keys"] == 0o700
    assert seen.modes["esp_sa"] == seen.modes["ikev2_decryption_table"] == 0o600
    assert seen.owners["control.sock"][0] in (0, uid)


def test_no_secret_is_in_a_log_an_answer_or_a_command_line(seen: Seen) -> None:
    assert len(seen.keys) >= 4, "two directions, two generations: there is something to look for"
    assert "child_sa_rekeyed" in seen.logs
    for secret in (PSK, PSK.encode().hex(), *seen.keys):
        assert secret not in seen.logs
        assert secret not in seen.command_lines
        assert secret[:32] not in seen.logs
