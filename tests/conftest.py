"""Shared by all tests: the record of what was skipped and why, from which `make test` prints its table."""

import gc
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.conformance.table import ConformanceTable
from tests.guest.pool import GUESTS
from tests.repo.time_table import Times

pytest_plugins = ("tests.guest.plugin",)

# No test fails because the machine is busy.
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("untimed")

SKIPS = Path(".pytest_cache/ipsecgw-skips")
TIMES = Path(".pytest_cache/ipsecgw-times")


def pytest_configure(config: pytest.Config) -> None:
    """Have no engine unless a test names one, and let SIGINT reach what tests start.

    A background shell has it ignored for its children.
    """
    workers = getattr(config.option, "numprocesses", None) or 1
    if not hasattr(config, "workerinput") and "GUEST_SHARE" not in os.environ:
        times = Times(TIMES, workers, lambda: config.stash.get(GUESTS, 1))
        config.pluginmanager.register(times, "ipsecgw-times")
        config.pluginmanager.register(ConformanceTable(), "ipsecgw-conformance")
    # What an agent uses does not depend on what was built here: tests that want the engine name it.
    os.environ.setdefault("IPSECGW_ESPD", "/nonexistent/espd")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        return
    SKIPS.parent.mkdir(exist_ok=True)
    with SKIPS.open("a") as table:
        for report in terminalreporter.stats.get("skipped", []):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            table.write(f"{report.nodeid}\t{reason.removeprefix('Skipped: ')}\n")


@pytest.fixture(scope="session", autouse=True)
def _no_mount_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Unmount what gateways that were killed had mounted in their run directories."""
    yield
    below = str(tmp_path_factory.getbasetemp())
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, directory, kind, *_ = line.split()
        if kind == "bpf" and directory.startswith(below):
            subprocess.run(["umount", "--lazy", directory], check=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs root when there is none, with that reason."""
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("netns") or item.get_closest_marker("interop"):
            item.add_marker(pytest.mark.skip(reason="needs root: makes network namespaces"))


def pytest_collection_finish() -> None:
    """Keep what was collected out of garbage collections: 400,000 objects that stay until the end."""
    gc.collect()
    gc.freeze()
