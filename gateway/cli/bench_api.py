"""`ipsecgw bench api`: parse, measure, print."""

import argparse
import sys

from gateway.app.arguments import count
from gateway.bench.api import connections
from gateway.bench.api import run as api
from gateway.cli.bench_output import deliver


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    for name, default, what in (
        ("--connections", 10_000, f"connections to apply, at most {connections.MOST}"),
        ("--rounds", 3, "rounds, each with a new controller"),
        ("--watchers", 1_000, "watchers of a busy controller; 0 leaves them out"),
    ):
        parser.add_argument(name, type=count, default=default, metavar="N", help=f"{what} ({default})")
    parser.add_argument("--no-charon", action="store_true", help="do not measure strongSwan's vici beside it")


def measure(options: argparse.Namespace) -> int:
    """Run it; return the exit status."""
    wanted = api.Wanted(
        connections=max(1, min(options.connections, connections.MOST)),
        rounds=max(1, options.rounds),
        watchers=options.watchers,
        beside_charon=not options.no_charon,
    )
    results = api.run(wanted, lambda line: print(f"measuring {line}", file=sys.stderr, flush=True))
    return deliver(options, api.report(results))
