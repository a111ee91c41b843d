"""`ipsecgw demo`: parse, run `gateway.bench.demo`, say what went wrong."""

import argparse
import sys
import tempfile
from pathlib import Path

from gateway.app.arguments import count, seconds
from gateway.bench.demo import run_demo
from gateway.ipsec.errors import GatewayError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `ipsecgw demo`."""
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="folder for the results (default: a new one)"
    )
    parser.add_argument(
        "--seconds",
        type=seconds,
        default=9.0,
        metavar="S",
        help="how long the numbered UDP flows last (default 9)",
    )
    parser.add_argument(
        "--megabytes",
        type=count,
        default=32,
        metavar="N",
        help="MiB of the TCP transfer (default 32)",
    )


def run(options: argparse.Namespace) -> int:
    """Run the demo; 0 when every check held, 1 when one did not or it could not run, 130 when interrupted."""
    directory = options.output or Path(tempfile.mkdtemp(prefix="ipsecgw-demo-"))
    try:
        return run_demo(directory, seconds=options.seconds, transfer_bytes=options.megabytes << 20)
    except KeyboardInterrupt:
        print("interrupted: everything was ended and the namespaces are gone", file=sys.stderr)
        return 130
    except GatewayError as error:
        print(f"ipsecgw demo: {error}", file=sys.stderr)
        return 1
