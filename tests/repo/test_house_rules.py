"""The repository checks itself: what no linter knows."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GENERATED = re.compile(r"_pb2(_grpc)?\.pyi?$")


def tracked(*patterns: str) -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / line for line in listing.stdout.splitlines() if (ROOT / line).is_file()]


def product_sources() -> list[Path]:
    return [path for path in tracked("gateway/**/*.py") if not GENERATED.search(path.name)]


def test_no_module_has_a_name_that_says_nothing() -> None:
    empty_names = {"utils", "util", "common", "helpers", "helper", "misc", "base", "manager"}

    offenders = [str(path) for path in product_sources() if path.stem in empty_names]

    assert offenders == []


def test_source_files_stay_small_enough_to_hold_in_the_head() -> None:
    limit_lines = 800

    offenders = {
        str(path.relative_to(ROOT)): lines
        for path in product_sources()
        if (lines := path.read_text().count("\n")) > limit_lines
    }

    assert offenders == {}


def test_no_todo_is_left_in_the_code() -> None:
    marker = re.compile(r"\b(TODO|FIXME|XXX)\b")

    offenders = [str(path) for path in product_sources() if marker.search(path.read_text())]

    assert offenders == []


def test_every_log_line_is_an_event_with_fields() -> None:
    """Only `gateway.observe` knows Python's `logging`: lines made elsewhere would not be structured."""
    using = [
        path.name
        for path in product_sources()
        if re.search(r"^(import|from) logging\b", path.read_text(), re.MULTILINE)
        and path.parent.name != "observe"
    ]

    assert using == []


def test_the_lock_file_pins_every_dependency_by_hash_and_names_no_host() -> None:
    lock = (ROOT / "requirements.lock").read_text()

    pins = re.findall(r"^[a-z0-9-]+==[^ ]+ \\$", lock, re.MULTILINE)

    assert len(pins) > 20
    assert "://" not in lock
    assert "index-url" not in lock


def test_the_package_named_bcc_on_the_index_is_not_a_dependency() -> None:
    """On the index, `bcc` is an unrelated library; the real one is Debian's python3-bpfcc."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    declared = [*project["dependencies"], *project["optional-dependencies"]["dev"]]

    assert len(declared) > 10
    assert not [requirement for requirement in declared if re.match(r"bcc\b", requirement)]


@pytest.mark.parametrize("folder", ["ebpf", "hw", "proto"])
def test_folders_of_other_languages_are_never_importable(folder: str) -> None:
    assert not list((ROOT / folder).rglob("__init__.py"))


def test_no_test_sleeps_among_the_unit_and_exchange_tests() -> None:
    sleeping = re.compile(r"\b(time|asyncio)\.sleep\((?!0\))")

    offenders = [
        str(path.relative_to(ROOT))
        for path in tracked("tests/unit/**/*.py", "tests/exchanges/*.py")
        if sleeping.search(path.read_text())
    ]

    assert offenders == []


def test_the_rfc_coverage_page_is_fresh() -> None:
    done = subprocess.run(
        [sys.executable, "docs/generate_rfc_coverage.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
