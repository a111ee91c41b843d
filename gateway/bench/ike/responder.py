"""A process that answers handshakes over UDP with our transport, driver and core, and an instant datapath.

    python -m gateway.bench.ike.responder ADDRESS --suite NAME

prints `ready`, then answers until it is ended.
"""

import argparse
import asyncio
import sys
from ipaddress import ip_address
from pathlib import Path

from gateway.bench.ike.pki import Pki
from gateway.bench.ike.station import Station
from gateway.bench.ike.suites import DEFAULT_SUITE, Suite, find_suites, responder
from gateway.controller.collector import collect_less_often
from gateway.ipsec.sa import IpAddress


async def _serve(address: IpAddress, suite: Suite, pki: Pki | None) -> None:
    station = Station(address, [responder(suite, local=address, dpd_delay_s=0.0, pki=pki)], pki)
    print("ready", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        station.close()


def main() -> int:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(description="Answer IKEv2 handshakes for a measurement.")
    parser.add_argument("address", type=ip_address)
    parser.add_argument("--suite", default=DEFAULT_SUITE.name)
    parser.add_argument("--pki", type=Path, help="directory of keys and certificates")
    options = parser.parse_args()
    # As the controller of the product does.
    collect_less_often()
    pki = None if options.pki is None else Pki(options.pki)
    asyncio.run(_serve(options.address, find_suites([options.suite])[0], pki))
    return 0


if __name__ == "__main__":
    sys.exit(main())
