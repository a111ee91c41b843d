"""The page of metrics is fresh, and the alert rules use names that exist."""

import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
RULES = ROOT / "docs" / "alerts" / "ipsecgw.rules.yml"


def test_the_page_of_metrics_is_fresh() -> None:
    done = subprocess.run(
        [sys.executable, "docs/generate_metrics.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr


def test_alert_rules_ask_for_metrics_and_labels_that_are_exposed() -> None:
    rows = re.findall(r"^\| `(gw_\w+)` \| (\w+) \| (.+?) \|", (ROOT / "docs/metrics.md").read_text(), re.M)
    exposed = {name: set(re.findall(r"`(\w+)`", labels)) for name, _, labels in rows}
    exposed |= {f"{name}_bucket": {*exposed[name], "le"} for name, kind, _ in rows if kind == "histogram"}
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]

    for rule in rules:
        for name, inside in re.findall(r"\b(gw_\w+)(?:\{([^}]*)\})?", rule["expr"]):
            assert name in exposed, f"{rule['alert']} asks for {name}"
            asked = set(re.findall(r'(\w+)\s*[!=]~?\s*"', inside))
            assert asked <= exposed[name], f"{rule['alert']} asks {name} for {asked - exposed[name]}"
        used = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
        grouped = re.findall(r"by \(([^)]*)\)", rule["expr"])
        known = set(re.findall(r"\w+", grouped[0])) if grouped else {"instance", "connection", "child"}
        assert used <= known, f"{rule['alert']} names {used - known}, which its expression does not keep"
        assert rule["annotations"].keys() == {"summary", "action"}

    assert len(rules) > 5
