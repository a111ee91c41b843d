"""`ipsecgw trace drops` on this kernel: refused where something is missing; and real drops are seen."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from gateway.bench.topology import Namespace, site_to_site
from gateway.host import drop_trace
from gateway.host.errors import HostError
from tests.netns.site_gateways import gateways, wait_until

pytestmark = pytest.mark.netns

MOUNT = "mount -t tracefs tracefs /sys/kernel/tracing && "
TRACE = (sys.executable, "-m", "gateway.cli.main", "trace", "drops")
CLOSED_PORT = 9


def command(*options: str, before: str = MOUNT) -> list[str]:
    """Return the command, with mounts of its own that `before` makes."""
    words = " ".join([*TRACE, *options])
    return ["unshare", "--mount", "sh", "-c", f"{before}exec {words}"]


def skip_where_it_cannot_run() -> None:
    done = subprocess.run(command("--count", "1"), capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        pytest.skip(done.stderr.strip().splitlines()[0])


def test_without_tracefs_it_says_so_and_how_to_have_it() -> None:
    hide = "mount -t tmpfs none /sys/kernel/tracing && mount -t tmpfs none /sys/kernel/debug && "

    done = subprocess.run(command(before=hide), capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 1
    assert done.stderr == (
        "ipsecgw trace: tracefs is not mounted: mount -t tracefs tracefs /sys/kernel/tracing\n"
    )


def test_without_kernel_headers_it_says_what_to_install() -> None:
    hide = f"{MOUNT}mkdir -p /lib/modules && mount -t tmpfs none /lib/modules && "
    expected = "apt install linux-headers-"
    try:
        drop_trace._find_python((sys.executable, drop_trace.SYSTEM_PYTHON))
    except HostError as error:
        expected = str(error)  # It is told first.

    done = subprocess.run(command(before=hide), capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 1
    assert expected in done.stderr


@contextmanager
def tracing(namespace: Namespace, *options: str) -> Iterator["subprocess.Popen[str]"]:
    process = namespace.popen(
        *command("--json", "--interval", "0.5", *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if line == "counting\n":
                break
        else:
            pytest.fail("it ended")
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_real_drops_of_the_kernel_and_of_the_gateway_are_told_side_by_side(tmp_path: Path) -> None:
    skip_where_it_cannot_run()
    with site_to_site(f"td{os.getpid()}") as sites:
        paris, _ = gateways(sites, tmp_path)
        with paris, tracing(sites.a.gateway, "--run-dir", str(paris.directory / "run")) as process:
            # To a port where nobody listens; and IKE that is none.
            sites.b.gateway.run(
                *("bash", "-c", f"echo x > /dev/udp/{sites.a.outside}/{CLOSED_PORT}"),
            )
            sites.b.gateway.run("bash", "-c", f"head -c 40 /dev/zero > /dev/udp/{sites.a.outside}/500")
            seen: list[dict[str, object]] = []
            assert process.stdout is not None
            reading = Thread(target=lambda: seen.extend(map(json.loads, process.stdout)), daemon=True)
            reading.start()

            def told() -> tuple[list[dict[str, object]], list[dict[str, object]]]:
                device = sites.a.outside_device
                closed = [r for r in seen if (r["reason"], r["interface"]) == ("NO_SOCKET", device)]
                return closed, [r for r in seen if r["where"] == "controller"]

            wait_until(lambda: all(told()), what=lambda: str(seen))
            (kernel, *_), (own, *_) = told()
            assert str(kernel["where"]).startswith("__udp4_lib_rcv")
            assert kernel["protocol"] == "IPv4"
            assert str(own["reason"]).startswith("ike_")
