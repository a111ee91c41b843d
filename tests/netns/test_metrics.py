"""A real Prometheus scrapes a gateway, and its alert fires for a tunnel that is taken down."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from gateway.bench.process import GatewayProcess
from gateway.bench.topology import Namespace, SiteToSite, site_to_site
from tests.netns.site_gateways import can_ping, gateways, running, wait_until

pytestmark = pytest.mark.netns

ROOT = Path(__file__).parents[2]
RULES = ROOT / "docs" / "alerts" / "ipsecgw.rules.yml"
CACHE = Path(os.environ.get("IPSECGW_CACHE", Path.home() / ".cache" / "ipsecgw"))
PROGRAMS = CACHE / "peers" / "prometheus" / "usr" / "bin"
METRICS = "127.0.0.1:9464"
PROMETHEUS = "127.0.0.1:9090"


@pytest.fixture
def sites() -> Iterator[SiteToSite]:
    with site_to_site(f"pm{os.getpid()}") as made:
        yield made


@contextmanager
def prometheus(namespace: Namespace, directory: Path) -> Iterator[None]:
    """Run a Prometheus with our rules, but impatient, beside a gateway."""
    rules = yaml.safe_load(RULES.read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule.pop("for", None)
    (directory / "rules.yml").write_text(yaml.safe_dump(rules))
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yml"],
        "scrape_configs": [{"job_name": "ipsecgw", "static_configs": [{"targets": [METRICS]}]}],
    }
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
    with (directory / "prometheus.log").open("w") as log:
        process = namespace.popen(
            str(PROGRAMS / "prometheus"),
            f"--config.file={directory}/prometheus.yml",
            f"--storage.tsdb.path={directory}/data",
            f"--web.listen-address={PROMETHEUS}",
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


def ask(namespace: Namespace, path: str) -> Any:
    """Return what Prometheus answers; nothing while it starts."""
    done = namespace.run("curl", "-sS", "--max-time", "5", f"http://{PROMETHEUS}/api/v1/{path}", check=False)
    return json.loads(done.stdout)["data"] if done.returncode == 0 and done.stdout else None


def value(namespace: Namespace, query: str) -> float | None:
    """Return the value of a query with one answer."""
    answer = ask(namespace, f"query?query={quote(query)}")
    return float(answer["result"][0]["value"][1]) if answer and answer["result"] else None


def firing(namespace: Namespace) -> set[str]:
    """Return the names of the alerts that fire."""
    answer = ask(namespace, "alerts") or {"alerts": []}
    return {alert["labels"]["alertname"] for alert in answer["alerts"] if alert["state"] == "firing"}


def log(gateway: GatewayProcess, directory: Path) -> str:
    return gateway.log_tail() + (directory / "prometheus.log").read_text()[-2000:]


def test_promtool_takes_the_rules() -> None:
    done = subprocess.run(
        [PROGRAMS / "promtool", "check", "rules", RULES], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_an_alert_fires_for_a_tunnel_taken_down_and_ends_when_it_is_back(
    sites: SiteToSite, tmp_path: Path
) -> None:
    paris, tokyo = gateways(sites, tmp_path, options=("--metrics", METRICS))
    with running(paris, tokyo), prometheus(sites.a.gateway, tmp_path):
        paris.ctl("up", "paris-tokyo")
        assert can_ping(sites.a.host, sites.b.host_address, "-c3", "-W30")
        at = sites.a.gateway
        up = 'gw_child_up{connection="paris-tokyo", child="lan"}'
        wait_until(lambda: value(at, up) == 1, what=lambda: log(paris, tmp_path))
        assert firing(at) == set()
        packets = 'gw_child_packets_total{connection="paris-tokyo", direction="outbound"}'
        wait_until(lambda: value(at, packets) == 3, what=lambda: log(paris, tmp_path))

        tokyo.ctl("down", "paris-tokyo")

        wait_until(lambda: "IpsecChildDown" in firing(at), what=lambda: log(paris, tmp_path))
        assert value(at, up) == 0
        assert value(at, packets) == 3, "what an SA carried goes with it"

        paris.ctl("up", "paris-tokyo")

        wait_until(lambda: "IpsecChildDown" not in firing(at), what=lambda: log(paris, tmp_path))
        assert value(at, up) == 1
