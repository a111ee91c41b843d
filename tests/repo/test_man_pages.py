"""The man pages are made from the parsers, all of them, and groff finds nothing wrong with them."""

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli.commands import Command, describe
from gateway.cli.main import build_parser

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "man").glob("*.8"))


@pytest.fixture(scope="module")
def program() -> Command:
    return describe(build_parser(None))


def test_the_man_pages_are_fresh() -> None:
    done = subprocess.run(
        [sys.executable, "docs/generate_man_pages.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr


def test_every_option_of_every_command_is_in_a_page(program: Command) -> None:
    for command in program.commands:
        shown = rendered(ROOT / "docs" / "man" / f"ipsecgw-{command.words[1]}.8")
        for below in command.walk():
            for argument in below.arguments:
                for flag in argument.flags:
                    assert flag in shown, (below.words, flag)


def test_every_argument_says_what_it_is_for(program: Command) -> None:
    silent = [
        (" ".join(command.words), argument.flags or argument.value)
        for command in program.walk()
        for argument in command.arguments
        if not argument.help and argument.flags
    ]

    assert silent == []


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_groff_has_no_warning(page: Path) -> None:
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z", str(page)], capture_output=True, text=True, check=True
    )

    assert done.stderr == ""


def rendered(page: Path) -> str:
    """Return what man(1) would show, without hyphenation and overstriking."""
    done = subprocess.run(
        ["groff", "-man", "-Tascii", "-P-c", "-P-b", "-P-u", "-rLL=200n", str(page)],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout
