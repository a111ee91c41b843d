"""`ipsecgw demo`: it passes, its folder is what it says, tshark reads it, and nothing else is left behind."""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

import pytest

from tests.engine.conftest import make
from tests.netns.site_gateways import wait_until

ESPD = Path(__file__).parents[2] / "hw" / "espd"
pytestmark = pytest.mark.netns

DEMO = (sys.executable, "-m", "gateway.cli.main", "demo", "--seconds", "3", "--megabytes", "4", "--output")
needs_tshark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a demo that ran to its end."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    environment = {**os.environ, "IPSECGW_ESPD": str(make("espd", source=ESPD) / "espd")}
    done = subprocess.run(
        [*DEMO, str(folder)], capture_output=True, text=True, timeout=180, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the demo passed" in done.stdout
    return folder


def test_the_summary_says_that_nothing_was_lost(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())

    assert summary["passed"] is True
    assert len(summary["checks"]) >= 7
    assert all(check["holds"] for check in summary["checks"])
    assert summary["udp"]["sent"] > 5000
    assert (summary["udp"]["missing"], summary["udp"]["duplicates"]) == (0, 0)
    assert summary["tcp_mbit_per_s"] > 0


def test_the_summary_says_who_carried_the_packets_and_how(finished: Path) -> None:
    carried_by = json.loads((finished / "summary.json").read_text())["carried_by"]

    assert carried_by["engine"] == "engine"
    assert "raw sockets" in carried_by["reason"]


@pytest.mark.slow  # a second demo, of which the software datapath's own tests show most
def test_without_engine_and_xdp_it_passes_and_says_what_is_missing(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("bare")
    nothing = folder / "nothing"
    nothing.mkdir()
    environment = {
        **os.environ,
        "IPSECGW_ESPD": str(nothing / "espd"),
        "IPSECGW_ENGINE": str(nothing / "libgw_engine.so"),
        "IPSECGW_EBPF": str(nothing),
    }

    done = subprocess.run(
        [*DEMO, str(folder / "out")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=environment,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    said = " ".join(done.stdout.split())
    assert "it is carried by: software" in said
    assert "it would be faster with the native engine: no program" in said
    assert f"it would be faster with XDP: {nothing}, which IPSECGW_EBPF names, has no program" in said


def test_the_ladder_is_a_picture_of_every_exchange(finished: Path) -> None:
    root = ET.parse(finished / "ladder.svg").getroot()

    text = " ".join(root.itertext())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    for word in (
        "IKE_SA_INIT",
        "IKE_AUTH",
        "CREATE_CHILD_SA",
        "INFORMATIONAL",
        "REKEY_SA",
        "AUTHENTICATION_FAILED",
    ):
        assert word in text


def test_keys_are_for_their_owner_only(finished: Path) -> None:
    tables = [*finished.rglob("esp_sa"), *finished.rglob("ikev2_decryption_table")]
    secrets = [*tables, *finished.glob("*/*.psk"), *finished.glob("*/gateway.yaml")]

    assert len(secrets) == (2 + 4) + 4 + 2
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}


@needs_tshark
def test_tshark_decrypts_every_ike_message_and_finds_every_icv_good(finished: Path) -> None:
    messages = _fields(finished, "isakmp", "isakmp.exchangetype", "isakmp.enc.decrypted")
    protected = [decrypted for exchange, decrypted in messages if exchange != "34"]  # all but IKE_SA_INIT
    whole = _tshark(finished, "-Y", "isakmp", "-V")

    assert len(protected) >= 2 + 4 + 4 + 2, "IKE_AUTH, two rekeys with their deletes, and a refused IKE_AUTH"
    assert all(protected)
    verdicts = Counter(re.findall(r"Integrity Checksum Data: .*\[(\w+)\]", whole))
    assert verdicts == {"correct": len(protected)}
    assert "REKEY_SA" in whole
    assert "AUTHENTICATION_FAILED" in whole


@needs_tshark
def test_tshark_decrypts_every_esp_packet_and_finds_every_icv_good(finished: Path) -> None:
    packets = Counter(_fields(finished, "esp", "esp.icv_good", "esp.icv_bad", "esp.protocol"))

    assert packets.total() > 5000
    assert packets == {("1", "0", "0x04"): packets.total()}, "every one verified, and IPv4 is in it"


def _tshark(folder: Path, *options: str) -> str:
    """Run tshark over the capture of a demo with its key tables and preferences as they are."""
    done = subprocess.run(
        ["tshark", "-r", str(folder / "wire.pcap"), *options],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
        env={**os.environ, "HOME": str(folder), "WIRESHARK_CONFIG_DIR": str(folder / "keys")},
    )
    return done.stdout


def _fields(folder: Path, display_filter: str, *names: str) -> list[tuple[str, ...]]:
    columns = [word for name in names for word in ("-e", name)]
    lines = _tshark(folder, "-Y", display_filter, "-T", "fields", *columns).splitlines()
    return [tuple(line.split("\t")) for line in lines]


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_an_interrupted_demo_leaves_nothing_behind(
    tmp_path_factory: pytest.TempPathFactory, number: signal.Signals
) -> None:
    place = tmp_path_factory.mktemp("demo")  # short: the path of a Unix socket has 107 bytes
    folder, home = place / "out", place / "tmp"
    home.mkdir()
    demo = subprocess.Popen(
        [*DEMO, str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(home)},
    )
    prefix = f"gwdemo{demo.pid}-"
    # In the middle: both gateways serve, and packets flow.
    wait_until(lambda: "child_sa_established" in _log(folder, "tokyo"), 120)
    processes = _processes_of(demo.pid)
    assert len(processes) >= 6, "two supervisors, agents and controllers"

    demo.send_signal(number)
    _, errors = demo.communicate(timeout=120)

    assert demo.returncode == 130, errors
    assert "interrupted" in errors
    assert [name for name in os.listdir("/run/netns") if name.startswith(prefix)] == []
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes))
    assert list(home.iterdir()) == []
    assert not list(folder.rglob("*.sock*"))


def _log(folder: Path, gateway: str) -> str:
    log = folder / gateway / "gateway.log"
    return log.read_text() if log.exists() else ""


def _processes_of(parent: int) -> set[int]:
    """Return the descendants of a process."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: set[int] = set()
    waiting = [parent]
    while waiting:
        for child in children.get(waiting.pop(), []):
            found.add(child)
            waiting.append(child)
    return found
