"""The page of algorithms is made from the tables of the code."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_of_algorithms_is_fresh() -> None:
    done = subprocess.run(
        [sys.executable, "docs/generate_algorithms.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
