"""pytest plugin: tests marked `guest` run in the guest's kernel and are reported as if they had run here.

Outside, the first such test boots one guest for all that were selected, one for each kernel that they name
(`guest(kernel="stock")`: Debian's own, in QEMU). In it, a second pytest with this
same plugin runs just those, in the same order, and writes a JSON line for each thing that happens, which is
read at once. A test whose reports never come, because the guest or its pytest died or hung, fails with what
is known of it.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

from tests.guest.machine import Bootable, Guest, GuestError, Kernel, reason_for_none
from tests.guest.qemu import StockKernel

T = TypeVar("T")

UML: Final = "uml"
"""The kernel that `kernel/build` makes."""
STOCK: Final = "stock"
"""That of `kernel/fetch-stock`."""
_KERNELS: Final[dict[str, Callable[[], Bootable]]] = {UML: Kernel.built, STOCK: StockKernel.fetched}
SELECTED: Final = "selected-tests"
EVENTS: Final = "events"
POLL_S: Final = 0.02
SILENCE_S: Final = 120.0
"""A guest that is silent for so long is taken for dead, unless the test is `guest(timeout_s=...)`."""
OUTPUT_TAIL_BYTES: Final = 4000


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
    """Runs the selected tests, and writes down what happens."""

    def __init__(self, config: pytest.Config, share: Path) -> None:
        self._config = config
        self._selected: list[str] = json.loads((share / SELECTED).read_text())
        self._events = (share / EVENTS).open("w")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        by_id = {item.nodeid: item for item in items}
        items[:] = [by_id[nodeid] for nodeid in self._selected if nodeid in by_id]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._write("started", nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._write("report", data)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._write("finished", nodeid)

    def _write(self, what: str, data: object) -> None:
        self._events.write(json.dumps([what, data]) + "\n")
        self._events.flush()


class OutsideGuest:
    """Boots the guest when the first test needs it, and tells pytest what happens in it."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._runs: dict[str, GuestRun] = {}
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
        for run in self._runs.values():
            run.close()

    def _reports(self, item: pytest.Item) -> Iterator[pytest.TestReport]:
        """Yield the reports of one test as they come."""
        failure = ""
        try:
            kernel = _said(item, "kernel", UML)
            if kernel not in self._runs:
                alike = [other for other in item.session.items if _is_for_guest(other)]
                alike = [other for other in alike if _said(other, "kernel", UML) == kernel]
                self._runs[kernel] = GuestRun(alike, kernel)
            for data in self._runs[kernel].reports(item.nodeid, _said(item, "timeout_s", SILENCE_S)):
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

    def _native(self, data: dict[str, Any]) -> pytest.TestReport:
        report = self._config.hook.pytest_report_from_serializable(config=self._config, data=data)
        # JSON has no tuples, and pytest tells a skip by one.
        if isinstance(report.longrepr, list):
            report.longrepr = tuple(report.longrepr)
        report.user_properties = [tuple(pair) for pair in report.user_properties]
        return report


class GuestRun:
    """One boot for all the tests of this run, and what has been heard of it."""

    def __init__(self, items: Sequence[pytest.Item], kernel: str = UML) -> None:
        self._finished: dict[str, list[dict[str, Any]]] = {}
        self._pending: list[dict[str, Any]] = []
        self._running: str | None = None
        self._explained_at: str | None = None
        """The test whose failure has all that is known of the end."""
        self._position = 0
        self._end: str | None = None
        """Why nothing more will be heard."""
        config = items[0].config
        files = list(dict.fromkeys(str(item.path) for item in items))
        pytest_options = ["-q", "-p", __name__, "-p", "no:cacheprovider", "--rootdir", str(config.rootpath)]
        if config.inipath is not None:
            pytest_options += ["-c", str(config.inipath)]
        self._guest = Guest(
            _KERNELS[kernel](),
            [sys.executable, "-m", "pytest", *pytest_options, *files],
            environment={"PYTHONDONTWRITEBYTECODE": "1"},
            files={SELECTED: json.dumps([item.nodeid for item in items])},
            directory=config.rootpath,
        )

    def close(self) -> None:
        """End the guest."""
        self._guest.close()

    def reports(self, nodeid: str, patience_s: float) -> list[dict[str, Any]]:
        """Wait for the end of one test, and return its reports.

        Raises:
            GuestError: It will never end.
        """
        heard_at = time.monotonic()
        while nodeid not in self._finished:
            if self._end is not None:
                raise GuestError(self._explain(nodeid))
            status = None
            try:
                status = self._guest.status()
            except GuestError as error:
                self._end = str(error)
            # What was written before the end is read after it was seen.
            if self._read():
                heard_at = time.monotonic()
            elif status is not None:
                self._end = f"pytest in the guest ended with status {status}"
            elif self._end is None and time.monotonic() - heard_at > patience_s:
                self._end = f"nothing was heard of the guest for {patience_s:g} s"
                self._end += f"; the end of its console:\n{self._guest.console_tail()}"
            else:
                time.sleep(POLL_S)
        return self._finished.pop(nodeid)

    def _read(self) -> bool:
        """Take in the whole lines that are new; return whether there were any."""
        file = self._guest.share / EVENTS
        if not file.exists():
            return False
        with file.open("rb") as stream:
            stream.seek(self._position)
            new = stream.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._position += len(whole)
        for line in whole.splitlines():
            what, data = json.loads(line)
            if what == "started":
                self._running, self._pending = data, []
            elif what == "report":
                self._pending.append(data)
            else:
                self._finished[data] = self._pending
                self._running = None
        return bool(whole)

    def _explain(self, nodeid: str) -> str:
        state = "while this test ran" if nodeid == self._running else "before this test could run"
        if self._explained_at is not None:
            return f"the guest ended before this test could run, see {self._explained_at}"
        self._explained_at = nodeid
        output = self._guest.output()[-OUTPUT_TAIL_BYTES:].decode(errors="replace").strip()
        return f"{state}: {self._end}\nwhat pytest wrote in the guest:\n{output or '(nothing)'}"
