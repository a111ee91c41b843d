"""The software datapath as an unprivileged user with two capabilities, and what it says without them."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from gateway.bench.topology import Namespace, delete_namespace, make_namespace
from tests.netns.site_gateways import wait_until

pytestmark = pytest.mark.netns

_PROTECT = """
import asyncio, os, sys
from pathlib import Path
from gateway.datapath.software.backend import SoftwareBackend
from gateway.host.privileges import AGENT_CAPABILITIES, drop_privileges, find_account, forbid_new_privileges
from gateway.ipsec.policy import Action, Policy
from gateway.ipsec.selectors import TrafficSelector

drop_privileges(find_account("nobody"), AGENT_CAPABILITIES if sys.argv[1] == "keep" else ())
forbid_new_privileges()

async def main():
    backend = SoftwareBackend()
    await backend.start()
    (result,) = await backend.apply_policies([Policy(
        name="p",
        action=Action.PROTECT,
        local_ts=(TrafficSelector.parse("10.1.0.0/16"),),
        remote_ts=(TrafficSelector.parse("10.2.0.0/16"),),
    )])
    assert result.ok, result
    await backend.close()

asyncio.run(main())
print("uid", os.getuid())
try:
    Path("/etc/shadow").read_text()
except PermissionError:
    print("no more root")
"""

_ORPHAN = """
import os, signal, subprocess, sys, time
code = (
    "import os, signal, sys, time\\n"
    "from gateway.host.privileges import die_with_parent\\n"
    "die_with_parent(signal.SIGTERM, int(sys.argv[1]))\\n"
    "print(os.getpid(), flush=True)\\n"
    "time.sleep(600)\\n"
)
child = subprocess.Popen([sys.executable, "-c", code, str(os.getpid())], stdout=subprocess.PIPE, text=True)
print(child.stdout.readline(), end="", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    made = make_namespace(f"swp{os.getpid()}")
    yield made
    delete_namespace(made)


def test_unprivileged_user_with_two_capabilities_can_protect(namespace: Namespace) -> None:
    done = namespace.run(sys.executable, "-c", _PROTECT, "keep")

    assert done.stdout.splitlines() == ["uid 65534", "no more root"]
    assert "lookup 4500" in namespace.run("ip", "rule").stdout
    assert "drop" in namespace.run("nft", "list", "table", "inet", "ipsecgw_0").stdout


def test_without_capabilities_it_says_what_to_do(namespace: Namespace) -> None:
    done = namespace.run(sys.executable, "-c", _PROTECT, "nothing", check=False)

    assert done.returncode != 0
    assert "the software datapath needs CAP_NET_ADMIN and CAP_NET_RAW: run it as root" in done.stderr


def test_child_ends_with_its_parent() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _ORPHAN], capture_output=True, text=True, check=False, timeout=60
    )

    child = int(done.stdout)
    assert done.returncode == -signal.SIGKILL
    wait_until(lambda: not _is_running(child))


def _is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
