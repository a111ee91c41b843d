"""pytest plugin: tests marked `guest` run in the guest's kernel and are reported as if they had run here.

Outside, the first such test boots guests for all that were selected: as many as `--guests` says of each
kernel that they name (`guest(kernel="stock")`: Debian's own, in QEMU). They share the tests: see `pool.py`.
Reports come in the order of the tests, whichever guest did which. In each guest a second pytest with this
same plugin runs what it is dealt, and writes a JSON line for each thing that happens. A test whose reports
never come, because its guest or the pytest there died or hung, fails with what is known of it.

What the marker of a test may say:

- `kernel="stock"`: see above.
- `timeout_s=...`: its guest is taken for dead after so much silence, instead of `SILENCE_S`.
- `together="rig"`: tests with the same value of this parameter share something that takes long to make, so
  that all of them are for one guest, and those with another value can be for another.
"""

import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

from tests.guest.machine import MEMORY_MIB, Bootable, Guest, GuestError, Kernel, reason_for_none
from tests.guest.pool import DEALT, EVENTS, GUESTS, POLL_S, SELECTED, Assigned, Pool, most_guests
from tests.guest.qemu import StockKernel

T = TypeVar("T")

UML: Final = "uml"
"""The kernel that `kernel/build` makes."""
STOCK: Final = "stock"
"""That of `kernel/fetch-stock`."""
SILENCE_S: Final = 300.0
"""A guest that is silent for so long is taken for dead, unless the test is `guest(timeout_s=...)`."""
CHUNK: Final = 8
"""So many tests of a file at the most are dealt at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """One kernel that guests can have."""

    kernel: Callable[[], Bootable]
    most: int
    """How many guests of it pay: one more is one more boot."""


_KINDS: Final = {
    UML: _Kind(kernel=Kernel.built, most=sys.maxsize),
    # It has two CPUs, boots for half a minute, and has few tests.
    STOCK: _Kind(kernel=StockKernel.fetched, most=1),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--guests",
        type=int,
        metavar="N",
        help="how many guests share the tests that are marked so; else one for each CPU that has the memory,"
        " and one for each process of xdist",
    )


def pytest_configure(config: pytest.Config) -> None:
    share = os.environ.get("GUEST_SHARE")
    plugin = OutsideGuest(config) if share is None else InGuest(config, Path(share))
    config.pluginmanager.register(plugin, "ipsecgw-guest")


def _said(item: pytest.Item, name: str, default: T) -> T:
    """Return what the marker of a test says of something."""
    marker = item.get_closest_marker("guest")
    found: T = default if marker is None else marker.kwargs.get(name, default)
    return found


def _is_for_guest(item: pytest.Item) -> bool:
    return item.get_closest_marker("guest") is not None


class InGuest:
    """Runs the tests that it is dealt, and writes down what happens."""

    def __init__(self, config: pytest.Config, share: Path) -> None:
        self._config = config
        self._share = share
        self._selected: set[str] = set(json.loads((share / SELECTED).read_text()))
        self._events = (share / EVENTS).open("w")
        self._questions = 0

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid in self._selected]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            raise session.Interrupted(f"{session.testsfailed} errors during collection")
        by_id = {item.nodeid: item for item in session.items}
        dealt: deque[pytest.Item] = deque()
        while True:
            if len(dealt) <= 1:
                # Before the last one: what is torn down after it depends on what comes then.
                dealt.extend(by_id[nodeid] for nodeid in self._ask())
            if dealt:
                item = dealt.popleft()
                nextitem = dealt[0] if dealt else None
                self._config.hook.pytest_runtest_protocol(item=item, nextitem=nextitem)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._write("started", nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._write("report", data)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._write("finished", nodeid)

    def _ask(self) -> list[str]:
        """Ask what to do next, and wait for the answer.

        An empty one tells to end what has been begun, and to ask again.
        """
        answer = self._share / DEALT.format(self._questions)
        if self._questions:
            self._write("asks", self._questions)
        self._questions += 1
        while not answer.exists():
            time.sleep(POLL_S)
        nodeids: list[str] = json.loads(answer.read_text())
        return nodeids

    def _write(self, what: str, data: object) -> None:
        self._events.write(json.dumps([what, data]) + "\n")
        self._events.flush()


class OutsideGuest:
    """Boots the guests when the first test needs them, and tells pytest what happens in them."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._pools: dict[str, Pool] = {}
        """By the name of the kernel."""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        reason = reason_for_none()
        if reason is None:
            return
        for item in items:
            if _is_for_guest(item):
                item.add_marker(pytest.mark.skip(reason=reason))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        if not _is_for_guest(item) or reason_for_none() is not None:
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in self._reports(item):
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def pytest_sessionfinish(self) -> None:
        for pool in self._pools.values():
            pool.close()

    def _reports(self, item: pytest.Item) -> Iterator[pytest.TestReport]:
        """Yield the reports of one test as they come."""
        failure = ""
        try:
            kernel = _said(item, "kernel", UML)
            if kernel not in self._pools:
                alike = [other for other in item.session.items if _is_for_guest(other)]
                alike = [other for other in alike if _said(other, "kernel", UML) == kernel]
                self._pools[kernel] = boot_for(alike, kernel, self._guests())
                self._config.stash[GUESTS] = max(pool.size for pool in self._pools.values())
            for data in self._pools[kernel].reports(item.nodeid):
                yield self._native(data)
        except GuestError as error:
            failure = str(error)
        if failure:
            yield pytest.TestReport(
                nodeid=item.nodeid,
                location=item.location,
                keywords={},
                outcome="failed",
                longrepr=failure,
                when="call",
            )

    def _guests(self) -> int:
        asked: int | None = self._config.getoption("guests")
        if asked is not None:
            return max(1, asked)
        return 1 if "PYTEST_XDIST_WORKER" in os.environ else most_guests(MEMORY_MIB)

    def _native(self, data: dict[str, Any]) -> pytest.TestReport:
        report = self._config.hook.pytest_report_from_serializable(config=self._config, data=data)
        # JSON has no tuples, and pytest tells a skip by one.
        if isinstance(report.longrepr, list):
            report.longrepr = tuple(report.longrepr)
        report.user_properties = [tuple(pair) for pair in report.user_properties]
        return report


def boot_for(items: Sequence[pytest.Item], kernel: str, guests: int) -> Pool:
    """Boot guests with this kernel, no more than so many, for some tests.

    Raises:
        GuestError: There is no such kernel here.
    """
    config = items[0].config
    files = list(dict.fromkeys(str(item.path) for item in items))
    pytest_options = ["-q", "-p", __name__, "-p", "no:cacheprovider", "--rootdir", str(config.rootpath)]
    if config.inipath is not None:
        pytest_options += ["-c", str(config.inipath)]
    kind = _KINDS[kernel]

    def boot(shared: dict[str, str]) -> Guest:
        return Guest(
            kind.kernel(),
            [sys.executable, "-m", "pytest", *pytest_options, *files],
            files=shared,
            directory=config.rootpath,
        )

    return Pool(boot, chunks_of(items), min(guests, kind.most))


def chunks_of(items: Sequence[pytest.Item]) -> list[list[Assigned]]:
    """Cut tests into what is dealt at once, in their order."""
    chunks: list[list[Assigned]] = []
    for (_, shared), alike in groupby(items, lambda item: (item.path, _shared_by(item))):
        tests = [
            Assigned(nodeid=item.nodeid, patience_s=_said(item, "timeout_s", SILENCE_S)) for item in alike
        ]
        size = CHUNK if shared is None else len(tests)
        chunks += [tests[start : start + size] for start in range(0, len(tests), size)]
    return chunks


def _shared_by(item: pytest.Item) -> str | None:
    """Return the value of the parameter whose tests stay together, or None."""
    values: dict[str, object] = item.callspec.params if hasattr(item, "callspec") else {}
    name = _said(item, "together", "")
    return str(values[name]) if name in values else None
