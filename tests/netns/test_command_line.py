"""The command line as a new user meets it: what listings tell, and what is said when something is missing."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import pytest

from gateway.api.address import UnixAddress
from gateway.api.control_client import ControlClient
from gateway.api.datapath_client import DatapathClient
from gateway.bench.process import GatewayProcess
from gateway.bench.topology import Namespace, SiteToSite, delete_namespace, make_namespace, site_to_site
from gateway.datapath.registry import default_mark
from tests.netns.site_gateways import paris_and_tokyo, wait_until

pytestmark = pytest.mark.netns

IPSECGW = (sys.executable, "-m", "gateway.cli.main")
NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
LISTS = ("connections", "ike-sas", "child-sas", "sas", "policies")


@dataclass(frozen=True, slots=True)
class Pair:
    sites: SiteToSite
    paris: GatewayProcess
    tokyo: GatewayProcess


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """Two gateways, their tunnel up, that all tests may look at and none may take down.

    Not below pytest's own directory, which every start of pytest closes to other users.
    """
    with (
        TemporaryDirectory(prefix="cl") as directory,
        site_to_site(f"cl{os.getpid()}") as sites,
        paris_and_tokyo(sites, Path(directory)) as (paris, tokyo),
    ):
        paris.ctl("up", "paris-tokyo")
        sites.a.host.run("ping", "-c3", "-i0.1", "-W5", sites.b.host_address)
        yield Pair(sites, paris, tokyo)
        for gateway in (paris, tokyo):
            assert "process_died" not in gateway.log()


@pytest.fixture
def alone() -> Iterator[Namespace]:
    """A namespace of its own, for gateways that are not to start."""
    namespace = make_namespace(f"ca{os.getpid()}")
    yield namespace
    delete_namespace(namespace)


def ended(done: "subprocess.CompletedProcess[str]") -> tuple[int, str]:
    """Return status and what was told; a traceback is never the right thing to tell."""
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr


# --- what there is --------------------------------------------------------------------------------


def test_listings_show_counters_mtu_placement_and_drops(pair: Pair) -> None:
    child_sas = pair.paris.ctl("list", "child-sas").stdout.splitlines()
    sas = pair.paris.ctl("list", "sas").stdout.splitlines()
    policies = pair.paris.ctl("list", "policies").stdout.splitlines()
    explained = pair.paris.ctl("explain", "paris-tokyo").stdout

    assert "  3/3  " in child_sas[1]
    assert "  252/252  " in child_sas[1]
    for head, value in (("MTU", "1446"), ("PLACEMENT", "software"), ("MODE", "tunnel")):
        assert child_sas[1][child_sas[0].index(head) :].startswith(value)
    for sa, mtu in zip(sas[1:], ("-", "1446"), strict=True):
        for head, value in (("PACKETS", "3"), ("BYTES", "252"), ("MTU", mtu), ("DROPS", "-")):
            assert sa[sas[0].index(head) :].startswith(value)
    assert "192.0.2.1 - 192.0.2.2" in policies[1]
    assert "effective MTU 1446" in explained
    assert "in and out are on software; it prefers nic_packet, nic_crypto, engine, kernel" in explained
    assert "in and out not on nic_packet, nic_crypto, kernel: NO_BACKEND: xfrm cannot run here" in explained


def test_no_command_and_no_log_line_ever_shows_a_key(pair: Pair) -> None:
    told = [pair.paris.log(), pair.paris.ctl("events", "--help").stdout]
    for words in (*(("list", what) for what in LISTS), ("status",), ("explain", "paris-tokyo")):
        told += [pair.paris.ctl(*words, *more).stdout for more in ((), ("--json",))]
    told.append(first_lines(pair.paris, "events", "--after", "0", "--json", count=4))

    keys = {
        word.strip('"').removeprefix("0x").lower()
        for table in pair.paris.key_log.iterdir()
        for line in table.read_text().splitlines()
        for word in line.split(",")
    }
    secrets = {key for key in keys if len(key) >= 40}  # SPIs and addresses are no secrets
    assert len(secrets) >= 4
    text = "\n".join(told).lower()
    assert [key for key in secrets if key in text] == []
    assert "correct horse" not in text


def test_clear_packets_from_outside_are_counted_by_reason(pair: Pair) -> None:
    # A stranger on the outer network, whom the mark saves from the guard of the gateway it sits on.
    outside = pair.sites.b.gateway
    outside.run("ip", "route", "add", pair.sites.a.inside, "via", pair.sites.a.outside)
    mark = str(default_mark())

    sent = outside.run(
        *("ping", "-c2", "-i0.1", "-W0.3", "-m", mark, "-I", "10.2.0.1", pair.sites.a.host_address),
        check=False,
    )

    assert "100% packet loss" in sent.stdout
    (dropped,) = (
        drop for drop in pair.paris.json("status")["datapath_drops"] if drop["reason"] == "clear_inbound"
    )
    assert dropped["packets"] == 2
    assert "clear_inbound 2" in pair.paris.ctl("status").stdout


def test_equal_configuration_applies_without_effect_and_dry_runs_only_tell(
    pair: Pair, tmp_path: Path
) -> None:
    changed = tmp_path / "changed.yaml"
    psk = pair.paris.directory / "test.psk"
    changed.write_text(
        pair.paris.config.replace("test.psk", str(psk)).replace("name: paris-tokyo", "name: other")
    )
    before = pair.paris.json("list", "child-sas")["child_sas"]

    equal = pair.paris.ctl("apply", str(pair.paris.config_path)).stdout
    dry = pair.paris.ctl("apply", "--dry-run", "--prune", str(changed), check=False)

    assert equal == "paris-tokyo: unchanged\n"
    assert "paris-tokyo: would be deleted" in dry.stdout
    assert pair.paris.json("list", "child-sas")["child_sas"] == before


# --- long-running commands ------------------------------------------------------------------------


def first_lines(gateway: GatewayProcess, *words: str, count: int) -> str:
    """Return the first lines of a command that would go on, cut off as `| head` does."""
    control = f"unix:{gateway.directory / 'run' / 'control.sock'}"
    process = subprocess.Popen(
        [*IPSECGW, *words, "--socket", control], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(count)]
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert told == ""
    assert process.returncode == 130
    return "".join(lines)


@pytest.mark.parametrize("words", [("events", "--after", "0"), ("status", "--watch")], ids=" ".join)
def test_ctrl_c_ends_a_watch_quietly(pair: Pair, words: tuple[str, ...]) -> None:
    assert first_lines(pair.paris, *words, count=1) != ""


def test_watchers_that_go_away_in_the_middle_leave_both_processes_alone(pair: Pair) -> None:
    run_dir = pair.paris.directory / "run"
    before = pair.paris.pid_of("controller"), pair.paris.pid_of("agent")

    async def watch_and_go() -> None:
        for _ in range(100):
            async with ControlClient(UnixAddress(run_dir / "control.sock")) as client:
                await client.events(after_sequence=0)  # The kept events are being sent when it goes.
        agents = [DatapathClient(UnixAddress(run_dir / "datapath.sock")) for _ in range(50)]
        watches = [agent.events() for agent in agents]
        for agent in agents:
            await agent.capabilities()  # Then the watch is in place.
        await asyncio.gather(*(agent.close() for agent in agents))
        for watch in watches:
            await watch.aclose()

    asyncio.run(watch_and_go())

    assert pair.paris.json("status")["datapath"]["name"] == "software"
    assert (pair.paris.pid_of("controller"), pair.paris.pid_of("agent")) == before


def test_a_reader_that_has_seen_enough_ends_a_watch_quietly(pair: Pair) -> None:
    control = f"unix:{pair.paris.directory / 'run' / 'control.sock'}"

    done = subprocess.run(
        [
            *("bash", "-o", "pipefail", "-c", '"$@" --watch --json | head -1', "-"),
            *(*IPSECGW, "status", "--socket", control),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_names_and_tables_print_in_a_locale_without_utf_8(pair: Pair, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("connections:\n- name: caf\N{LATIN SMALL LETTER E WITH ACUTE}\n")
    plain = {**os.environ, "LC_ALL": "POSIX", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    good = tmp_path / f"caf{chr(0xE9)}.yaml"
    good.write_text(pair.paris.config.replace("test.psk", str(pair.paris.directory / "test.psk")))

    refused, accepted = (
        subprocess.run(
            [*IPSECGW, "validate", str(path)],
            capture_output=True,
            text=True,
            env=plain,
            timeout=60,
            check=False,
        )
        for path in (file, good)
    )

    status, told = ended(refused)
    assert status == 1
    assert f"{file}:2:9: connections[0].name: " in told
    assert ended(accepted) == (0, "")
    assert accepted.stdout.endswith(".yaml: all right: paris-tokyo\n")


# --- what is not there ------------------------------------------------------------------------------


def test_a_second_run_is_refused_and_leaves_the_first_alone(pair: Pair) -> None:
    run_dir = pair.paris.directory / "run"
    agent, controller = pair.paris.pid_of("agent"), pair.paris.pid_of("controller")

    done = pair.sites.a.gateway.run(*IPSECGW, "run", "--run-dir", str(run_dir), check=False)
    status, told = ended(done)

    assert status == 1
    assert f"another `ipsecgw run` (process {pair.paris.pid}) uses {run_dir}: stop it" in told
    assert (pair.paris.pid_of("agent"), pair.paris.pid_of("controller")) == (agent, controller)
    assert len(pair.paris.json("list", "child-sas")["child_sas"]) == 1


def test_another_run_on_the_same_control_socket_leaves_it_where_it_is(pair: Pair, tmp_path: Path) -> None:
    run_dir = pair.paris.directory / "run"

    done = pair.sites.a.gateway.run(
        *(*IPSECGW, "run", "--run-dir", str(tmp_path), "--socket", f"unix:{run_dir}/control.sock"),
        *("--datapath", f"unix:{run_dir}/datapath.sock"),
        check=False,
    )
    status, told = ended(done)

    assert status == 1
    assert f"cannot listen at {run_dir}/control.sock: process {pair.paris.pid_of('controller')}" in told
    assert pair.paris.ctl("status", check=False).returncode == 0


@pytest.mark.parametrize(
    ("words", "others"),
    [
        (("status",), "or as its owner"),
        (("list", "sas"), "or join its group"),
        (("events",), "or as its owner"),
    ],
)
def test_without_permission_for_the_socket_it_says_so(
    pair: Pair, words: tuple[str, ...], others: str
) -> None:
    run_dir = pair.paris.directory / "run"
    for parent in takewhile(lambda parent: parent != Path(gettempdir()), run_dir.parents):
        parent.chmod(0o711)
    done = subprocess.run(
        [*NOBODY, *IPSECGW, *words, "--run-dir", str(run_dir)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    status, told = ended(done)

    assert status == 1
    assert f"no permission to use {run_dir}/" in told
    assert f"run as root, {others}" in told


def test_each_service_is_told_from_the_other(pair: Pair) -> None:
    run_dir = pair.paris.directory / "run"

    wrong_control = pair.paris.ctl("status", "--socket", f"unix:{run_dir}/datapath.sock", check=False)
    wrong_datapath = pair.paris.ctl("list", "sas", "--datapath", f"unix:{run_dir}/control.sock", check=False)

    assert ended(wrong_control)[0] == 1
    assert "is no controller" in wrong_control.stderr
    assert ended(wrong_datapath)[0] == 1
    assert "is no datapath agent" in wrong_datapath.stderr


def test_a_port_in_use_is_named_with_how_to_find_who_has_it(alone: Namespace, tmp_path: Path) -> None:
    holder = alone.popen(
        sys.executable,
        "-c",
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('0.0.0.0', 4500)); "
        "print('bound', flush=True); input()",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "bound\n"
    try:
        status, told = ended(alone.run(*IPSECGW, "run", "--run-dir", str(tmp_path / "run"), check=False))
    finally:
        holder.communicate("\n", timeout=60)

    assert status == 1
    assert "UDP port 4500 on 0.0.0.0 is in use by another process: find it with `ss -lunp" in told


@pytest.mark.parametrize("capability", ["net_admin", "net_raw"])
def test_a_missing_capability_is_named_with_how_to_get_it(
    alone: Namespace, tmp_path: Path, capability: str
) -> None:
    done = alone.run(
        *("setpriv", "--bounding-set", f"-{capability}", "--inh-caps", f"-{capability}"),
        *(*IPSECGW, "run", "--run-dir", str(tmp_path / "run")),
        check=False,
    )
    status, told = ended(done)

    assert status == 1
    assert f"needs CAP_{capability.upper()}: run it as root, or" in told


def test_a_controller_that_cannot_give_up_root_says_what_it_needs(alone: Namespace, tmp_path: Path) -> None:
    done = alone.run(
        *("setpriv", "--bounding-set", "-setuid", "--inh-caps", "-setuid"),
        *(*IPSECGW, "run", "--run-dir", str(tmp_path / "run")),
        check=False,
    )
    status, told = ended(done)

    assert status == 1
    assert "cannot become user" in told
    assert "run as root with CAP_SETUID and CAP_SETGID" in told


def test_a_missing_tun_device_is_told_with_what_to_load(alone: Namespace, tmp_path: Path) -> None:
    done = alone.run(
        *("unshare", "--mount", "sh", "-c"),
        'mount -t tmpfs none /dev && mknod /dev/null c 1 3 && mknod /dev/urandom c 1 9 && exec "$@"',
        *("-", *IPSECGW, "run", "--run-dir", str(tmp_path / "run")),
        check=False,
    )
    status, told = ended(done)

    assert status == 1
    assert "there is no /dev/net/tun: load the module with `modprobe tun`" in told


def test_a_run_dir_that_cannot_be_used_is_told_before_anything_starts(
    alone: Namespace, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    read_only = tmp_path / "read-only"
    read_only.mkdir()

    on_file = alone.run(*IPSECGW, "run", "--run-dir", str(file), check=False)
    on_read_only = alone.run(
        *(
            "unshare",
            "--mount",
            "sh",
            "-c",
            'mount -t tmpfs -o ro,mode=755 none "$0" && exec "$@"',
            str(read_only),
        ),
        *(*IPSECGW, "run", "--run-dir", str(read_only)),
        check=False,
    )

    assert ended(on_file) == (
        1,
        f"ipsecgw run: {file} is not a directory: remove it, or choose another place with --run-dir\n",
    )
    assert ended(on_read_only)[0] == 1
    assert on_read_only.stderr.startswith(f"ipsecgw run: cannot write into {read_only}: ")
    assert on_read_only.stderr.count("\n") == 1


def test_an_agent_that_is_not_there_is_told_and_waited_for(alone: Namespace, tmp_path: Path) -> None:
    absent, run_dir = tmp_path / "absent.sock", tmp_path / "run"
    process = alone.popen(
        *(*IPSECGW, "run", "--run-dir", str(run_dir), "--datapath", f"unix:{absent}", "--log-format", "json"),
        stderr=subprocess.PIPE,
    )
    control = ("--socket", f"unix:{run_dir}/control.sock")

    def told() -> dict[str, Any]:
        done = alone.run(*IPSECGW, "status", "--json", *control, check=False)
        answer: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {}
        return answer

    try:
        wait_until((run_dir / "control.sock").exists)
        wait_until(lambda: "datapath_problem" in told(), what=lambda: str(told()))
        status = told()
        shown = alone.run(*IPSECGW, "status", *control).stdout
    finally:
        process.send_signal(signal.SIGINT)
        _, log = process.communicate(timeout=60)

    assert status["datapath_problem"] == f"no datapath agent at unix:{absent}: start `ipsecgw agent`"
    assert status["datapath_problem"] in shown
    assert "ESP drops  not known" in shown
    assert process.returncode == 0
    assert "Traceback" not in log


def test_tcp_without_certificates_is_refused_with_what_to_do(tmp_path: Path) -> None:
    for words in (
        ("agent", "--listen", "127.0.0.1:4555"),
        ("status", "--socket", "127.0.0.1:4555"),
        ("list", "sas", "--datapath", "127.0.0.1:4555"),
    ):
        done = subprocess.run(
            [*IPSECGW, *words, "--run-dir", str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        status, told = ended(done)

        assert status == 1
        assert "needs mutual TLS: give a certificate, its key and the CA" in told
        assert "unix:PATH" in told
    # Nothing was begun: no protection of policies that nobody gave stays behind.
    assert not (tmp_path / "datapath.sock").exists()
    rules = subprocess.run(["ip", "rule"], capture_output=True, text=True, timeout=60, check=True).stdout
    assert "0x6970736" not in rules
