"""Where results of a benchmark go: a table always; JSON, a page, a comparison where they are wanted."""

import argparse
import sys
from pathlib import Path
from typing import Final

from rich.console import Console

from gateway.bench.compare import CompareError, compare
from gateway.bench.report import Report

_TABLE_COLUMNS: Final = 200
"""What the widest table takes."""


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where results go."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")
    parser.add_argument(
        "--html",
        type=Path,
        metavar="FILE",
        help="write them there as one page with charts that needs nothing else",
    )
    parser.add_argument(
        "--compare", type=Path, metavar="FILE", help="print them beside those of an earlier --json FILE"
    )


def check_output(options: argparse.Namespace) -> None:
    """Look whether there is something to compare with, before anything is measured.

    Raises:
        CompareError: The file cannot be read.
    """
    if getattr(options, "compare", None) is not None:
        _read(options.compare)


def deliver(options: argparse.Namespace, report: Report) -> int:
    """Print a report and write the files that were asked for; return the exit status.

    Raises:
        CompareError: There is nothing to compare; the files are written before.
    """
    console = wide_console()
    report.show(console)
    for path, text in ((options.json, report.json + "\n"), (options.html, report.to_html())):
        if path is not None:
            path.write_text(text, encoding="utf-8")
            print(f"results in {path}", file=sys.stderr)
    if options.compare is not None:
        table, differences = compare(report.subject, _read(options.compare), report.json)
        for line in differences:
            console.print(f"not the same machine or version: {line}", markup=False)
        console.print(table)
    return 0


def wide_console() -> Console:
    """Return where tables go; into a file or pipe they are as wide as they are, not 80 columns."""
    console = Console()
    return console if console.is_terminal else Console(width=_TABLE_COLUMNS)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CompareError(f"{path} cannot be read: {error}") from error
