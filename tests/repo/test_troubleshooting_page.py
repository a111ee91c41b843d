"""Every reason code and xfrm_stat counter is in docs/troubleshooting.md, with cause and remedy."""

import re
from pathlib import Path

from gateway.datapath.backend import ErrorReason
from gateway.datapath.xfrm.statistics import REASONS
from gateway.ipsec.placement import PlacementReason

PAGE = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text()


def test_every_placement_reason_has_cause_and_remedy() -> None:
    _, _, rest = PAGE.partition("## Where an SA is, and why not somewhere better")
    section = rest.partition("\n##")[0]

    rows = _rows(section)

    assert sorted(code for code, _, _ in rows) == sorted(reason.value for reason in PlacementReason)
    assert all(cause.strip() and remedy.strip() for _, cause, remedy in rows)


def test_every_refusal_of_the_datapath_has_cause_and_remedy() -> None:
    _, _, rest = PAGE.partition("### What the datapath refuses")

    rows = _rows(rest.partition("\n##")[0])

    assert [code for code, _, _ in rows] == [reason.value for reason in ErrorReason]
    assert all(cause.strip() and remedy.strip() for _, cause, remedy in rows)


def _rows(section: str) -> list[tuple[str, str, str]]:
    """Return code, cause and remedy of each row of a table."""
    return re.findall(r"^\| `([A-Z_]+)` \| ([^|]+) \| ([^|]+) \|$", section, re.M)


def test_every_counter_of_xfrm_stat_has_its_drop_reason_cause_and_remedy() -> None:
    _, _, section = PAGE.partition("## What the kernel drops")

    rows = re.findall(r"^\| `(Xfrm\w+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", section, re.M)

    elsewhere = {name for name, reason, *_ in rows if reason.startswith("(")}
    told = {name: reason.strip("`") for name, reason, *_ in rows if name not in elsewhere}
    assert sorted(name for name, *_ in rows) == sorted(REASONS)
    assert elsewhere == {name for name, reason in REASONS.items() if reason is None}
    assert told == {name: reason.value for name, reason in REASONS.items() if reason is not None}
    assert all(cause.strip() and remedy.strip() for _, _, cause, remedy in rows)
