"""What a benchmark found, ready to be shown: on a terminal, and as one HTML file that needs nothing else.

The tables of both are the same ones. Charts are bars with the quartiles of their rounds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from rich.console import Console
from rich.table import Table

_STYLE: Final = """\
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 72em; padding: 0 1em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.1em; margin: 2em 0 0.5em; }
table { border-collapse: collapse; font-size: 0.9em; } .wide { overflow-x: auto; }
th, td { padding: 0.2em 0.8em; border-bottom: 1px solid #d8dee4; text-align: left; white-space: nowrap; }
.right { text-align: right; font-variant-numeric: tabular-nums; }
.warning { background: #fff1c2; border: 2px solid #c08000; padding: 0.6em 1em; font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1em; } dd { margin: 0; }
svg text { font: 13px system-ui, sans-serif; } .bar { fill: #3b76c4; } .whisker { stroke: #1b1f24; }
"""
_LABEL_WIDTH: Final = 330
_BAR_WIDTH: Final = 480
_BAR_HEIGHT: Final = 22


@dataclass(frozen=True, slots=True)
class Bar:
    """One figure of a chart."""

    label: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars with one unit."""

    title: str
    unit: str
    bars: Sequence[Bar]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One run of one benchmark."""

    subject: str
    """As on the command line: `ike`, `path`."""
    facts: dict[str, str]
    """What the figures depend on; empty ones are not shown."""
    tables: Sequence[Table]
    charts: Sequence[Chart] = ()
    notes: Sequence[str] = ()
    """What else is to be known, before the tables."""
    left_out: Sequence[str] = ()
    """What could not be measured, with its reason."""
    warning: str = ""
    """Why none of it is a speed."""
    json: str

    def show(self, console: Console) -> None:
        """Print it."""
        console.print(", ".join(f"{key} {value}" for key, value in self.facts.items() if value), markup=False)
        for note in self.notes:
            console.print(note, markup=False)
        if self.warning:
            console.print(f"not a speed: {self.warning}", style="bold", markup=False)
        for table in self.tables:
            if table.row_count:
                console.print(table)
        for line in self.left_out:
            console.print(f"left out: {line}", markup=False)

    def to_html(self) -> str:
        """Return it as a page."""
        title = f"ipsecgw bench {self.subject}"
        parts = [
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
            f"<style>\n{_STYLE}</style></head><body>\n<h1>{escape(title)}</h1>",
        ]
        if self.warning:
            parts.append(f'<p class="warning">not a speed: {escape(self.warning)}</p>')
        facts = "".join(
            f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in self.facts.items() if value
        )
        parts.append(f"<dl>{facts}</dl>")
        parts += [f"<p>{escape(note)}</p>" for note in self.notes]
        parts += [_chart(chart) for chart in self.charts if chart.bars]
        parts += [_table(table) for table in self.tables if table.row_count]
        if self.left_out:
            items = "".join(f"<li>{escape(line)}</li>" for line in self.left_out)
            parts.append(f"<h2>Left out</h2><ul>{items}</ul>")
        return "\n".join([*parts, "</body></html>", ""])


def _table(table: Table) -> str:
    columns = [(str(column.header), column.justify, list(column.cells)) for column in table.columns]
    head = "".join(f"<th{_align(justify)}>{escape(name)}</th>" for name, justify, _ in columns)
    rows = "\n".join(
        "<tr>"
        + "".join(f"<td{_align(justify)}>{escape(str(cells[index]))}</td>" for _, justify, cells in columns)
        + "</tr>"
        for index in range(table.row_count)
    )
    caption = f"<p>{escape(str(table.caption))}</p>" if table.caption else ""
    return (
        f'<h2>{escape(str(table.title or ""))}</h2><div class="wide"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{rows}</tbody></table></div>{caption}"
    )


def _align(justify: str) -> str:
    return ' class="right"' if justify == "right" else ""


def _chart(chart: Chart) -> str:
    largest = max(bar.high for bar in chart.bars) or 1.0
    height = _BAR_HEIGHT * len(chart.bars) + 8
    width = _LABEL_WIDTH + _BAR_WIDTH + 160
    rows = "\n".join(
        _bar(bar, largest, _BAR_HEIGHT * index, chart.unit) for index, bar in enumerate(chart.bars)
    )
    return (
        f"<h2>{escape(chart.title)}</h2>\n"
        f'<svg role="img" width="{width}" height="{height}" viewBox="0 0 {width} {height}">\n{rows}\n</svg>'
    )


def _bar(bar: Bar, largest: float, y: int, unit: str) -> str:
    def x(value: float) -> float:
        return _LABEL_WIDTH + value / largest * _BAR_WIDTH

    middle = y + _BAR_HEIGHT / 2
    return (
        f'<text text-anchor="end" x="{_LABEL_WIDTH - 8}" y="{middle + 4}">{escape(bar.label)}</text>'
        f'<rect class="bar" x="{_LABEL_WIDTH}" y="{y + 3}" width="{x(bar.value) - _LABEL_WIDTH:.1f}" '
        f'height="{_BAR_HEIGHT - 6}"/>'
        f'<line class="whisker" x1="{x(bar.low):.1f}" x2="{x(bar.high):.1f}" y1="{middle}" y2="{middle}"/>'
        f'<text x="{x(bar.high) + 8:.1f}" y="{middle + 4}">{bar.value:,.4g} {escape(unit)}</text>'
    )
