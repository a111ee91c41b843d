"""Every reason code is in docs/troubleshooting.md with cause and remedy, and the page has no other."""

import re
from pathlib import Path

from gateway.ipsec.placement import PlacementReason

PAGE = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text()


def test_every_placement_reason_has_cause_and_remedy() -> None:
    _, _, rest = PAGE.partition("## Where an SA is, and why not somewhere better")
    section = rest.partition("\n## ")[0]

    rows = re.findall(r"^\| `([A-Z_]+)` \| ([^|]+) \| ([^|]+) \|$", section, re.M)

    assert sorted(code for code, _, _ in rows) == sorted(reason.value for reason in PlacementReason)
    assert all(cause.strip() and remedy.strip() for _, cause, remedy in rows)
