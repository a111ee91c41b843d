"""The documentation is a site without a warning and without other machines; its generated pages are fresh."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOADED = re.compile(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"([^\"]+)\"")


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_reference_pages_are_fresh() -> None:
    done = run("docs/generate_reference.py", "--check")

    assert done.returncode == 0, done.stderr


def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    done = run("-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site"))

    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    pages = list((tmp_path / "site").glob("*.html"))
    assert len(pages) > 15
    for page in pages:
        loaded = LOADED.findall(page.read_text())
        assert loaded
        assert [where for where in loaded if "//" in where] == [], page.name
