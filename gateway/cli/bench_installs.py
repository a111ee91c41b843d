"""`ipsecgw bench installs`: parse, measure, print."""

import argparse
import sys

from gateway.app.arguments import count
from gateway.bench.installs import run as installs
from gateway.bench.installs import tables
from gateway.bench.topology import require_root
from gateway.cli.bench_output import deliver
from gateway.ipsec.placement import Engine

_PLACEMENTS = {engine.value: engine for engine in (Engine.ENGINE, Engine.SOFTWARE, Engine.KERNEL)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--placement",
        action="append",
        choices=list(_PLACEMENTS),
        help="only this engine; repeatable (default: all of them that this machine has)",
    )
    for name, default, what in (
        ("--sas", 10_000, f"SAs, half of them in each direction, at most {installs.MOST}"),
        ("--batch", 250, "in one call"),
        ("--in-flight", 2, "calls at once, the next made while the agent works"),
        ("--rounds", 3, "rounds, each with a new agent"),
    ):
        parser.add_argument(name, type=count, default=default, metavar="N", help=f"{what} ({default})")


def measure(options: argparse.Namespace) -> int:
    """Run it; return the exit status."""
    require_root()
    wanted = installs.Wanted(
        placements=tuple(_PLACEMENTS[name] for name in options.placement or _PLACEMENTS),
        sas=max(2, min(options.sas, installs.MOST)),
        batch=max(1, options.batch),
        in_flight=max(1, options.in_flight),
        rounds=max(1, options.rounds),
    )
    results = installs.run(wanted, lambda line: print(f"measuring {line}", file=sys.stderr, flush=True))
    return deliver(options, tables.report(results))
