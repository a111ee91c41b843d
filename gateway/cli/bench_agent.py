"""`ipsecgw bench agent`: the traffic generator of `bench path` on a machine of its own, served over gRPC."""

import argparse
import asyncio
import sys

from gateway.api.listener import Listener
from gateway.api.roles import Role
from gateway.api.server import ApiServer
from gateway.app.arguments import service_address
from gateway.app.ready import stop_event
from gateway.app.tls_options import add_tls_arguments, tls_files
from gateway.bench.path.generator import LocalGenerator


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `ipsecgw bench agent`."""
    parser.add_argument(
        "--listen",
        type=service_address,
        required=True,
        metavar="ADDRESS",
        help="unix:PATH, or HOST:PORT, which needs the --tls options",
    )
    for side in ("lan", "outer"):
        parser.add_argument(
            f"--{side}",
            required=True,
            metavar="INTERFACE",
            help=f"our interface that is cabled to the gateway's --{side}; it needs no address",
        )
    add_tls_arguments(parser)


def serve(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT.

    Raises:
        GatewayError: An interface is not there, or the address cannot be listened at.
    """
    generator = LocalGenerator(lambda *argv: argv, lan=options.lan, outer=options.outer)
    generator.ports()
    asyncio.run(_serve(options, generator))
    return 0


async def _serve(options: argparse.Namespace, generator: LocalGenerator) -> None:
    stopping = stop_event()
    roles = frozenset({Role.BENCH})
    listener = Listener(address=options.listen, roles=roles, tls=tls_files(options))
    server = ApiServer([listener], generator=generator)
    await server.start()
    try:
        addresses = ", ".join(map(str, server.addresses))
        print(f"ready at {addresses}: {options.lan} and {options.outer}", file=sys.stderr, flush=True)
        await stopping.wait()
    finally:
        await server.stop()
        generator.close()
