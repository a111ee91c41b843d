"""The commands of the declarative API, as processes, against a controller in this one."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from gateway.api.address import UnixAddress
from gateway.api.control_client import ControlClient
from gateway.api.roles import Role, role_needed
from gateway.ipsec.secret import Secret
from tests.api.fake_controller import FakeController
from tests.api.test_control_service import connection

CONFIG = """
connections:
- name: {name}
  local: {{auth: {{psk: {{value: "{psk}"}}}}}}
  remote: {{address: 192.0.2.2}}
  children: [{{name: lan, local_ts: [10.1.0.0/16], remote_ts: [10.2.0.0/16]}}]
"""


async def ipsecgw(address: UnixAddress, *words: str) -> tuple[int, str, str]:
    command = (sys.executable, "-m", "gateway.cli.main", *words, "--socket", str(address))
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.yaml"
    write(path, psk="one")
    return path


def write(path: Path, *, psk: str) -> None:
    path.write_text(CONFIG.format(name="paris", psk=psk))


async def test_apply_tells_what_would_happen_to_sas_and_what_differs(
    control_address: UnixAddress, controller: FakeController, config: Path
) -> None:
    assert await ipsecgw(control_address, "apply", str(config)) == (0, "paris: created\n", "")
    write(config, psk="two")

    told = await ipsecgw(control_address, "apply", str(config), "--validate-only", "--diff")
    held = controller.wanted["paris"].psk
    done = await ipsecgw(control_address, "apply", str(config), "--generation", "4")
    late = await ipsecgw(control_address, "apply", str(config), "--generation", "3")

    assert told == (0, "paris: would be updated (Child SA rekeys 1)\n  credentials\n", "")
    assert held == Secret(b"one")
    assert done == (0, "paris: updated (Child SA rekeys 1)\n", "")
    assert late[0] == 1
    assert "generation 3 is older than 4" in late[2]


async def test_lists_are_filtered(control_address: UnixAddress, control: ControlClient) -> None:
    await control.apply([connection("paris"), connection("rome")])

    code, out, _ = await ipsecgw(
        control_address, "list", "connections", "--filter", "connection.name = r*", "--json"
    )
    nonsense = await ipsecgw(control_address, "list", "ike-sas", "--filter", "nonsense")

    assert code == 0
    assert [entry["connection"]["name"] for entry in json.loads(out)["connections"]] == ["rome"]
    assert nonsense[0] == 1
    assert "compare a field with a value" in nonsense[2]


@pytest.mark.parametrize("form", ["text", "json"])
async def test_watch_prints_what_there_is_and_what_changes(
    control_address: UnixAddress, control: ControlClient, form: str
) -> None:
    await control.apply([connection("paris"), connection("rome")])
    words = ("watch", "--filter", "connection.name = p*", *(["--json"] if form == "json" else []))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.cli.main", *words, "--socket", str(control_address)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None

    first = await asyncio.wait_for(process.stdout.readline(), 60)
    await control.delete(["paris"])
    second = await asyncio.wait_for(process.stdout.readline(), 60)
    process.terminate()
    await process.wait()

    if form == "json":
        assert json.loads(first)["upserted"]["connection"]["name"] == "paris"
        assert json.loads(second) == {"removed": "paris"}
    else:
        assert first == b"paris: failed, no_proposal_chosen, Child SAs 2, generation 1\n"
        assert second == b"paris: removed\n"


async def test_keys_are_exported_for_administrators_with_a_line_in_the_audit_log(
    control_address: UnixAddress,
    control: ControlClient,
    tmp_path: Path,
    audit_lines: list[dict[str, object]],
) -> None:
    await control.apply([connection("paris")])
    audit_lines.clear()

    code, out, err = await ipsecgw(control_address, "export-keys", "paris", str(tmp_path / "keys"))

    assert code == 0
    assert "1 rows added" in out
    assert "left out: AH" in err
    assert _read(tmp_path / "keys") == {"ikev2_decryption_table": "ike row\n", "esp_sa": "esp row\n"}
    (line,) = audit_lines
    assert (line["method"], line["what"], line["outcome"]) == ("ExportKeys", ["paris"], "OK")
    assert role_needed("/gateway.api.control.v1.ControlService/ExportKeys") is Role.ADMIN


def _read(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir() if path.stat().st_mode & 0o077 == 0}
