"""Options of the controller: `ipsecgw controller` has them, and `ipsecgw run` for the one that it starts."""

import argparse
import socket
from pathlib import Path

from gateway.app.access import add_access_arguments
from gateway.app.arguments import tcp_address
from gateway.app.log_options import add_log_arguments
from gateway.app.tls_options import add_tls_arguments


def add_controller_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of a controller, whoever starts it."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--config", type=Path, metavar="FILE", help="YAML file with connections: what is so after each start"
    )
    source.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        help="keep what is applied with the control API there, secrets included, and begin with it",
    )
    parser.add_argument(
        "--node",
        default=socket.gethostname(),
        metavar="NAME",
        help="this gateway's name (default: the host's)",
    )
    parser.add_argument(
        "--socket", metavar="ADDRESS", help="control API: unix:PATH or HOST:PORT (default: below --run-dir)"
    )
    parser.add_argument(
        "--run-dir", type=Path, metavar="DIR", help="where the sockets are (default /run/ipsecgw)"
    )
    parser.add_argument(
        "--user",
        metavar="NAME",
        help="whom the controller becomes (default: ipsecgw if it exists, else a number of its own)",
    )
    parser.add_argument(
        "--key-log", type=Path, metavar="DIR", help="write Wireshark key tables there: for debugging only"
    )
    parser.add_argument(
        "--allow-key-export",
        action="store_true",
        help="let administrators have the keys of SAs (`ipsecgw export-keys`): for debugging only",
    )
    parser.add_argument(
        "--metrics",
        type=tcp_address,
        metavar="HOST:PORT",
        help="serve metrics for Prometheus there, as 127.0.0.1:9464; an address that others reach needs TLS",
    )
    add_access_arguments(parser)
    add_tls_arguments(parser)
    add_log_arguments(parser)
