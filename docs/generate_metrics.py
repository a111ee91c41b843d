"""Write docs/metrics.md: everything that `ipsecgw run --metrics` exposes.

Usage: python docs/generate_metrics.py [--check]
"""

import sys
from pathlib import Path

from gateway.controller.facade import ClockReading, GatewayStatus
from gateway.controller.tally import LATENCY_BOUNDS_S, Tally
from gateway.web.metrics import Reading, families

PAGE = Path(__file__).with_name("metrics.md")
HEAD = """<!-- Written by docs/generate_metrics.py from gateway/web/metrics.py: do not edit. -->
# Metrics

`ipsecgw run --metrics 127.0.0.1:9464` serves them at `http://127.0.0.1:9464/metrics`, as OpenMetrics where
the reader asks for it and in the older text format otherwise. An address that others reach is served by HTTPS
only, with the files of `--tls-certificate`, `--tls-key` and `--tls-ca`; the reader then needs a certificate
of that CA.

Metrics are made from the desired state: a connection that is configured and down is a visible 0, and one that
is deleted is gone. Labels take their values from the configuration and from fixed lists, never from what a
peer sends; what strangers cause is counted under an empty connection name. Counters start at 0 with the
controller; those of packets and bytes go on over rekeys and miss nothing, but for SAs that are lost with
their datapath.

[alerts/ipsecgw.rules.yml](alerts/ipsecgw.rules.yml) has alert rules for Prometheus. A scrape job:

```yaml
scrape_configs:
- job_name: ipsecgw
  static_configs:
  - targets: ["127.0.0.1:9464"]
rule_files: [ipsecgw.rules.yml]
```

| metric | type | labels | what it says |
|---|---|---|---|
"""


def page() -> str:
    """Return the page."""
    nothing = Reading(
        clock=ClockReading(monotonic=0.0, wall=0.0),
        status=GatewayStatus(version="", started_at=0.0, datapath_address="", datapath=None),
        connections=(),
        child_sas=(),
        tally=Tally(),
    )
    rows = []
    for family in families(nothing):
        # The library has no other way to ask a family without samples for its labels.
        labels = ", ".join(f"`{label}`" for label in family._labelnames or ())  # noqa: SLF001
        name = f"`{family.name}{SUFFIX.get(family.type, '')}`"
        rows.append(f"| {name} | {family.type} | {labels or '-'} | {family.documentation} |\n")
    bounds = ", ".join(f"{bound:g}" for bound in LATENCY_BOUNDS_S)
    return f"{HEAD}{''.join(rows)}\nBuckets of `gw_ike_handshake_seconds`: {bounds} s.\n"


SUFFIX = {"counter": "_total", "info": "_info"}


def main() -> int:
    """Write the page, or say whether it is fresh."""
    if "--check" in sys.argv[1:]:
        fresh = PAGE.exists() and PAGE.read_text() == page()
        if not fresh:
            print("docs/metrics.md is stale: run python docs/generate_metrics.py", file=sys.stderr)
        return int(not fresh)
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
