"""The plugin that runs tests in the guest, on tests of every fate. Each of these boots guests of its own."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.guest.machine import CACHE, reason_for_none
from tests.guest.plugin import CHUNK

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(reason_for_none() is not None, reason=str(reason_for_none())),
]

PROJECT = Path(__file__).parents[2]

HEADER = """
import asyncio, os, pytest
pytestmark = pytest.mark.guest
"""
EVERY_FATE = """
@pytest.fixture
def broken(): raise RuntimeError("setup broke")
@pytest.fixture
def breaks_later():
    yield
    raise RuntimeError("teardown broke")
@pytest.fixture(scope="session")
def boot(): return open("/proc/sys/kernel/random/boot_id").read()

def test_passes(boot): assert "ipsecgw" in os.uname().release
def test_fails():
    print("its own words")
    assert 1 + 1 == 3
def test_skips(): pytest.skip("for a reason")
@pytest.mark.xfail(reason="a known fault")
def test_is_expected_to_fail(): assert False
def test_breaks_before(broken): pass
def test_breaks_after(breaks_later): pass
@pytest.mark.parametrize("what", ["fd00::1", "two words", "a[b]::c"])
def test_has_odd_names(what): pass
async def test_is_asynchronous(): await asyncio.sleep(0)
"""
TOLD_APART = """
import pytest
@pytest.fixture(autouse=True)
def _tell(record_property): record_property("boot", open("/proc/sys/kernel/random/boot_id").read())
"""
NATIVE = """
def test_runs_here(): assert "ipsecgw" not in os.uname().release
"""


@pytest.fixture
def run(tmp_path: Path) -> "Run":
    return Run(tmp_path)


class Run:
    """Runs pytest on a file of tests, outside the project's own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.output = ""
        self.cases: dict[str, ElementTree.Element] = {}

    def __call__(self, tests: str, *options: str, environment: dict[str, str] | None = None) -> int:
        """Run, and return the exit status."""
        file = self._directory / "test_of_the_plugin.py"
        file.write_text(tests)
        junit = self._directory / "junit.xml"
        # Not the project's conftest, which would write to its table of skips.
        own = (
            "-p",
            "tests.guest.plugin",
            "-p",
            "no:cacheprovider",
            "--noconftest",
            "-c",
            f"{PROJECT}/pyproject.toml",
        )
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *own, f"--junitxml={junit}", *options, str(file)],
            cwd=PROJECT,
            env={"PATH": "/usr/bin:/bin", "IPSECGW_CACHE": str(CACHE), **(environment or {})},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        self.output = done.stdout
        if junit.exists():
            found = ElementTree.parse(junit).iter("testcase")
            self.cases = {str(case.get("name")): case for case in found}
        return done.returncode

    def fate(self, name: str) -> str:
        """Return what junit says of one test: what it is marked with, or that it passed."""
        (*marks,) = self.cases[name]
        return marks[0].tag if marks else "passed"

    def boot(self, name: str) -> str:
        """Return what tells the guest of one test from others, as `TOLD_APART` has it told."""
        (boot,) = self.cases[name].iter("property")
        return str(boot.get("value"))


def test_fates_in_the_guest_are_reported_as_native_ones(run: Run) -> None:
    status = run(HEADER + EVERY_FATE, "-rA")

    assert status == 1
    assert {name: run.fate(name) for name in run.cases} == {
        "test_passes": "passed",
        "test_fails": "failure",
        "test_skips": "skipped",
        "test_is_expected_to_fail": "skipped",
        "test_breaks_before": "error",
        "test_breaks_after": "error",
        "test_has_odd_names[fd00::1]": "passed",
        "test_has_odd_names[two words]": "passed",
        "test_has_odd_names[a[b]::c]": "passed",
        "test_is_asynchronous": "passed",
    }
    assert "assert (1 + 1) == 3" in run.output
    assert "its own words" in run.output
    assert "for a reason" in run.output
    assert "2 failed" not in run.output
    assert "1 failed" in run.output


def test_selection_and_first_failure_end_the_run(run: Run) -> None:
    status = run(HEADER + EVERY_FATE, "-x", "-k", "passes or fails or odd")

    assert status == 1
    assert list(run.cases) == ["test_passes", "test_fails"]


def test_only_marked_tests_go_into_the_guest(run: Run) -> None:
    marked = "@pytest.mark.guest\ndef test_runs_there(): assert 'ipsecgw' in os.uname().release\n"

    status = run("import os, pytest\n" + NATIVE + marked)

    assert status == 0
    assert list(run.cases) == ["test_runs_here", "test_runs_there"]


def test_guest_that_dies_fails_the_test_that_killed_it_and_those_behind(run: Run) -> None:
    killer = "def test_kills(): open('/proc/sysrq-trigger', 'w').write('c')\n"

    status = run(HEADER + "def test_before(): pass\n" + killer + "def test_behind(): pass\n")

    assert status == 1
    assert [run.fate(name) for name in ("test_before", "test_kills", "test_behind")] == [
        "passed",
        "failure",
        "failure",
    ]
    assert "while this test ran: the guest died" in run.output
    assert "Kernel panic" in run.output
    assert "the guest ended before this test could run" in run.output


def test_process_that_dies_in_the_guest_fails_its_test(run: Run) -> None:
    status = run(HEADER + "def test_leaves(): os._exit(3)\ndef test_behind(): pass\n")

    assert status == 1
    assert "pytest in the guest ended with status 3" in run.output
    assert {run.fate(name) for name in run.cases} == {"failure"}


def test_two_guests_share_the_tests_whose_order_stays(run: Run) -> None:
    names = [f"test_of[{number}]" for number in range(2 * CHUNK)]
    tests = f'@pytest.mark.parametrize("number", range({len(names)}))\ndef test_of(number): pass\n'

    status = run(HEADER + TOLD_APART + tests, "--guests", "2")

    assert status == 0
    assert list(run.cases) == names
    first, second = ({run.boot(name) for name in part} for part in (names[:CHUNK], names[CHUNK:]))
    assert (len(first), len(second), len(first | second)) == (1, 1, 2)


def test_what_takes_long_to_make_is_made_in_one_guest(run: Run) -> None:
    marked = """
pytestmark = pytest.mark.guest(together="rig")
@pytest.fixture(scope="module", params=["a", "b"])
def rig(request): return request.param
"""
    tests = f'@pytest.mark.parametrize("number", range({2 * CHUNK}))\ndef test_of(rig, number): pass\n'

    status = run(HEADER + TOLD_APART + marked + tests, "--guests", "2")

    assert status == 0
    boots = {rig: {run.boot(f"test_of[{rig}-{number}]") for number in range(2 * CHUNK)} for rig in "ab"}
    assert [len(boots[rig]) for rig in "ab"] == [1, 1]
    assert boots["a"] != boots["b"]


def test_guest_that_dies_fails_one_test_when_there_is_another_guest(run: Run) -> None:
    killer = "def test_kills(): open('/proc/sysrq-trigger', 'w').write('c')\n"
    others = f'@pytest.mark.parametrize("number", range({CHUNK}))\ndef test_of(number): pass\n'

    status = run(HEADER + killer + others, "--guests", "2")

    assert status == 1
    assert "while this test ran: the guest died" in run.output
    assert "Kernel panic" in run.output
    fates = {name: run.fate(name) for name in run.cases}
    assert fates == {"test_kills": "failure"} | {f"test_of[{number}]": "passed" for number in range(CHUNK)}


def test_interrupt_ends_every_guest(run: Run, tmp_path: Path) -> None:
    tests = f"""
@pytest.mark.parametrize("number", range({2 * CHUNK}))
def test_of(number): __import__("time").sleep(1000)
"""
    interrupter = f"""
import threading, time, pathlib, subprocess, signal
def interrupt():
    while len(list(pathlib.Path({str(tmp_path)!r}).glob("ipsecgw-guest-*/events"))) < 2: time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGINT)
if "GUEST_SHARE" not in os.environ: threading.Thread(target=interrupt).start()
"""

    status = run(HEADER + tests + interrupter, "--guests", "2", environment={"TMPDIR": str(tmp_path)})

    assert status == pytest.ExitCode.INTERRUPTED
    assert list(tmp_path.glob("ipsecgw-guest-*")) == []


def test_without_a_kernel_every_test_fails_and_says_what_to_do(run: Run, tmp_path: Path) -> None:
    status = run(HEADER + "def test_cannot(): pass\n", environment={"IPSECGW_CACHE": str(tmp_path)})

    assert status == 1
    assert run.fate("test_cannot") == "failure"
    assert "make deps-guest" in run.output
