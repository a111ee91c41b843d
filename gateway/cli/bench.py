"""`ipsecgw bench`: parse, measure, print; each subject is a sub-command."""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from gateway.app.arguments import count, seconds
from gateway.bench.ike import run as ike
from gateway.bench.ike.suites import SUITES, find_suites


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands of `ipsecgw bench`."""
    subjects = parser.add_subparsers(title="subjects", metavar="SUBJECT", required=True)
    help_text = "the control plane: handshakes, memory, rekeys, floods; alone and beside charon"
    subject = subjects.add_parser("ike", help=help_text, description=help_text)
    _add_ike_arguments(subject)
    subject.set_defaults(measure=_measure_ike)


def run(options: argparse.Namespace) -> int:
    """Run one benchmark; return its exit status."""
    status: int = options.measure(options)
    return status


def _add_ike_arguments(parser: argparse.ArgumentParser) -> None:
    names = [suite.name for suite in SUITES]
    parser.add_argument(
        "--suite",
        action="append",
        choices=names,
        metavar="NAME",
        help=f"only this suite; repeatable (default: all of {', '.join(names)})",
    )
    for name, default, what in (
        ("--handshakes", 500, "handshakes per suite"),
        ("--held", 10_000, "SAs to hold with liveness checks"),
        ("--storm", 2_000, "SAs to rekey at once"),
        ("--flood", 20_000, "forged IKE_SA_INIT requests per second"),
    ):
        parser.add_argument(
            name, type=count, default=default, metavar="N", help=f"{what}; 0 leaves it out ({default})"
        )
    parser.add_argument(
        "--flood-seconds", type=seconds, default=20.0, metavar="S", help="how long the flood lasts (20)"
    )
    parser.add_argument(
        "--no-udp", action="store_true", help="only what runs in memory; everything else needs root"
    )
    parser.add_argument("--no-charon", action="store_true", help="do not measure strongSwan beside it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")


def _measure_ike(options: argparse.Namespace) -> int:
    console = Console()
    wanted = ike.Wanted(
        suites=find_suites(options.suite or ()),
        handshakes=options.handshakes,
        udp=not options.no_udp,
        beside_charon=not options.no_charon,
        held=options.held,
        storm=options.storm,
        flood_pps=options.flood,
        flood_s=options.flood_seconds,
    )
    results = ike.run(wanted, lambda line: print(f"measuring {line}", file=sys.stderr, flush=True))
    ike.show(results, console)
    if options.json is not None:
        options.json.write_text(results.to_json() + "\n")
        print(f"results in {options.json}", file=sys.stderr)
    return 0
