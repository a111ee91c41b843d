"""The page docs/interop.md: feature x peer x role, written and checked by the run of the interop tests.

A test says what it shows with `@pytest.mark.interop(feature=..., peer=..., role=...)`. `peer` and `role`
may come from its parameters `peer` and `initiator` (`by`, `hidden`) instead. `role` is who starts the
exchange in question: `ours`, `theirs`, or `both`. A test that finds that the peer cannot do something says
so with `Evidence.peer_cannot`, which wants the peer's own log line.

Every run compares the cells that it filled with the page and fails where they differ; a page with cells
that no test fills any more fails when all interop tests were collected. `--write-interop docs/interop.md`
writes the page; cells of tests that this run left out keep what they had.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

PAGE: Final = Path(__file__).parents[2] / "docs" / "interop.md"
PEERS: Final = ("strongSwan", "libreswan", "OpenIKED")
_ROLE_NAMES: Final = ("initiator", "by", "hidden")
ROLES: Final = {"ours": "we start", "theirs": "they start"}

_HEAD = """\
# Interoperability

What was shown against other implementations, by the tests in `tests/interop` that `make test` and
`make test-all` run. The run itself writes this page (`pytest tests/interop --write-interop docs/interop.md`),
and fails when the page says something else than what happened.

The peers are Debian's packages, unmodified. strongSwan carries traffic with its user-space ESP (libipsec)
where that can; otherwise, as libreswan and OpenIKED always, it runs on a null kernel
(`tests/interop/null_kernel.c`) that takes SAs and moves no packet, and both ends' SPIs and keys are compared.
"We start" and "they start" tell who begins the exchange that the row is about.

- `yes`: shown in this role.
- `no (n)`: the peer cannot; its own log line, which the test asserts, is below.
- empty: there is no test for it.
"""

Cell = tuple[str, str, str]
"""Feature, peer and role."""


@dataclass(slots=True)
class Evidence:
    """What a test found out beside passing, for the page."""

    properties: list[tuple[str, object]]

    def peer_is(self, version: str) -> None:
        """Note a peer's name and version, as it tells them."""
        self.properties.append(("interop_version", version))

    def peer_cannot(self, log: str, pattern: str) -> None:
        """Note that the peer cannot, which its log must say; SPIs and times do not come to the page.

        Raises:
            AssertionError: Nothing in the log matches the regular expression.
        """
        said = re.search(pattern, log)
        assert said, f"the peer's log does not say {pattern!r}:\n{log[-8000:]}"
        self.properties.append(("interop_cannot", re.sub(r"0x[0-9a-f]+|\d{6,}", "...", said.group())))


@dataclass(slots=True, eq=False)
class InteropPage:
    """Gathers the outcomes of one run."""

    write: Path | None
    versions: dict[str, str] = field(default_factory=dict)
    cells: dict[Cell, str] = field(default_factory=dict)
    collected: set[Cell] = field(default_factory=set)
    selected: set[Cell] = field(default_factory=set)
    failed: bool = False
    all_collected: bool = False
    problems: list[str] = field(default_factory=list)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Learn which cells there are before any test is left out."""
        for item in items:
            self.collected.update(cells_of(item))
        files = {path.name for path in Path(__file__).parent.glob("test_*.py")}
        self.all_collected = files <= {item.path.name for item in items if item.path.parent.name == "interop"}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Learn which tests are left."""
        for item in session.items:
            self.selected.update(cells_of(item))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
        """Fill the cells of a test that passed."""
        report: pytest.TestReport = yield
        cells = list(cells_of(item))
        if cells and report.failed:
            self.failed = True
        if cells and report.when == "call" and report.passed:
            properties = dict(item.user_properties)
            if version := properties.get("interop_version"):
                self.versions[str(version).split()[0]] = str(version)
            for cell in cells:
                self._fill(cell, str(properties.get("interop_cannot", "")))
        return report  # type: ignore[return-value]

    def _fill(self, cell: Cell, cannot: str) -> None:
        known = self.cells.setdefault(cell, cannot)
        if known != cannot:
            self.problems.append(f"{cell}: one test says yes, another: {known or cannot}")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the page, or compare it with what happened."""
        if not self.cells or session.config.option.collectonly:
            return
        old_versions, old_cells = read(PAGE.read_text() if PAGE.exists() else "")
        if self.write:
            if self.failed:
                self.problems.append(f"{self.write} is not written: there were failures")
            else:
                kept = {cell: old for cell, old in old_cells.items() if self._may_keep(cell)}
                self.write.write_text(render({**old_versions, **self.versions}, {**kept, **self.cells}))
        elif not self.failed:
            self.problems += self._differences(old_versions, old_cells)
        if self.problems and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _may_keep(self, cell: Cell) -> bool:
        return cell in self.collected or not self.all_collected

    def _differences(self, old_versions: dict[str, str], old_cells: dict[Cell, str]) -> list[str]:
        found = [
            f"{peer} is {version}, the page says {old_versions.get(peer, 'nothing')}"
            for peer, version in self.versions.items()
            if old_versions.get(peer) != version
        ]
        for cell, cannot in sorted(self.cells.items()):
            said = old_cells.get(cell)
            if said != cannot:
                found.append(
                    f"{', '.join(cell)}: {cannot or 'yes'}; the page says {said if said else 'nothing'}"
                )
        if self.all_collected:
            found += [
                f"{', '.join(cell)}: no test shows it" for cell in sorted(old_cells.keys() - self.collected)
            ]
        return found

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what is wrong with the page, and how it is renewed."""
        if not self.problems:
            return
        terminalreporter.section(f"{PAGE.name} is stale", red=True)
        for problem in self.problems:
            terminalreporter.write_line(problem)
        terminalreporter.write_line("renew it: pytest tests/interop --write-interop docs/interop.md")


def cells_of(item: pytest.Item) -> Iterator[Cell]:
    """Return the cells that a test fills when it passes."""
    marker = next((one for one in item.iter_markers("interop") if "feature" in one.kwargs), None)
    if marker is None:
        return
    callspec = getattr(item, "callspec", None)
    parameters = callspec.params if callspec else {}
    peer = marker.kwargs.get("peer") or getattr(parameters.get("peer"), "name", "")
    role = marker.kwargs.get("role") or next(parameters[name] for name in _ROLE_NAMES if name in parameters)
    feature = str(marker.kwargs["feature"]).format_map(parameters)
    assert peer in PEERS, f"{item.nodeid}: no peer {peer!r}"
    assert role in {*ROLES, "both"}, f"{item.nodeid}: no role {role!r}"
    for one in ROLES if role == "both" else (role,):
        yield feature, peer, one


def render(versions: dict[str, str], cells: dict[Cell, str]) -> str:
    """Return the page."""
    notes: list[str] = []
    columns = [(peer, role) for peer in PEERS for role in ROLES]
    titles = [f"{versions.get(peer, peer)}: {ROLES[role]}" for peer, role in columns]
    lines = [_HEAD, f"| feature | {' | '.join(titles)} |", "|---" * (len(columns) + 1) + "|"]
    for feature in sorted({feature for feature, _, _ in cells}):
        row = [_text(cells.get((feature, *column)), column[0], notes) for column in columns]
        lines.append(f"| {feature} | {' | '.join(row)} |")
    if notes:
        lines += ["", "What a peer says where it cannot:", ""]
        lines += [f"{number}. {note}" for number, note in enumerate(notes, 1)]
    return "\n".join(lines) + "\n"


def _text(cannot: str | None, peer: str, notes: list[str]) -> str:
    if cannot is None:
        return ""
    if not cannot:
        return "yes"
    note = f"{peer}: `{cannot}`"
    if note not in notes:
        notes.append(note)
    return f"no ({notes.index(note) + 1})"


def read(page: str) -> tuple[dict[str, str], dict[Cell, str]]:
    """Return versions and cells of a page that `render` wrote."""
    notes = dict(re.findall(r"^(\d+)\. \S+: `(.*)`$", page, re.MULTILINE))
    rows = [line.strip("|").split(" | ") for line in page.splitlines() if line.startswith("|")]
    if len(rows) < 2:
        return {}, {}
    titles = [title.strip().rsplit(": ", 1)[0] for title in rows[0][1:]]
    versions = {title.split()[0]: title for title in titles}
    columns = [(peer, role) for peer in PEERS for role in ROLES]
    cells: dict[Cell, str] = {}
    for row in (
        line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| feature ")
    ):
        feature, *texts = (text.strip() for text in row.strip("|").split("|"))
        for column, text in zip(columns, texts, strict=True):
            if text:
                cells[feature, *column] = notes[text[4:-1]] if text.startswith("no (") else ""
    return versions, cells
