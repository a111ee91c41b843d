"""Our gateway at one site or at both, with one connection between them, on a datapath of choice."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from gateway.api.control.v1 import control_pb2 as pb
from gateway.bench.topology import Namespace, SiteToSite
from tests.interop.conftest import OURS, PSK
from tests.interop.our_gateway import OurGateway, failure_of
from tests.interop.peer import wait_until

IKE: Final = "aes256gcm16-prfsha384-x25519"
ESP: Final = "aes256gcm16-x25519"
CONNECTION: Final = "swan"
CHILD: Final = "swan/net"

RATE_PPS: Final = 100
"""Packets a second each way: two Python processes share the one CPU of the guest with everything else."""
SOME_PACKETS: Final = 20
"""So many each way on one SA are traffic."""


_CONNECT: Final = """
import socket, sys
address, port, listens = sys.argv[1], 7777, sys.argv[2] == "listen"
if listens:
    server = socket.create_server((address, port))
    print("ready", flush=True)
    connection, _ = server.accept()
else:
    connection = socket.create_connection((address, port), 10)
with connection:
    print(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG), flush=True)
    connection.sendall(b"x")
    connection.recv(1)
"""


def tcp_segments(client: Namespace, server: Namespace, address: str) -> tuple[int, int]:
    """Return the largest segments in bytes with which client and server of a TCP connection begin."""
    listening = server.popen(sys.executable, "-c", _CONNECT, address, "listen", stdout=subprocess.PIPE)
    with listening:
        assert listening.stdout is not None
        assert listening.stdout.readline().strip() == "ready"
        ours = client.run(sys.executable, "-c", _CONNECT, address, "connect").stdout
        theirs = listening.stdout.readline()
    return int(ours), int(theirs)


@contextmanager
def our_gateway(
    sites: SiteToSite,
    directory: Path,
    datapath: str,
    *,
    at_a: bool,
    esp: str = ESP,
    child_options: str = "",
    selectors: tuple[str, str] | None = None,
    ipv6_outside: bool = False,
) -> Iterator[OurGateway]:
    """Run our gateway at site a or b; at a, traffic brings the connection up.

    `child_options` are more lines of the child's YAML, four spaces in; `selectors` replace the sites' own.
    """
    here, there = (sites.a, sites.b) if at_a else (sites.b, sites.a)
    local_ts, remote_ts = selectors or (here.inside, there.inside)
    config = OURS.format(
        local=f'"{here.outside_v6 if ipv6_outside else here.outside}"',
        remote=there.outside_v6 if ipv6_outside else there.outside,
        psk=PSK,
        ike=IKE,
        ike_options="",
        local_ts=local_ts,
        remote_ts=remote_ts,
        esp=esp,
    )
    if at_a:
        config += "    start: on_traffic\n"
    else:
        config = (
            config.replace("ours.test", "?").replace("theirs.test", "ours.test").replace("?", "theirs.test")
        )
    home = directory / ("ours" if at_a else "theirs")
    with OurGateway(here.gateway, home, ("--datapath", datapath)) as gateway:
        gateway.configure(config + child_options)
        yield gateway


def succeed(operation: pb.Operation) -> None:
    """Fail if an operation of our gateway did."""
    assert not failure_of(operation), failure_of(operation)


def wait_for_traffic(gateway: OurGateway) -> None:
    """Return when a gateway has one Child SA, and that has carried some more packets in both directions."""
    wait_until(lambda: len(gateway.child_sas()) == 1, "one Child SA", gateway.log)
    (before,) = gateway.child_sas()

    def has_carried() -> bool:
        (now,) = gateway.child_sas()
        halves = ((before.inbound, now.inbound), (before.outbound, now.outbound))
        return all(new.packets - old.packets >= SOME_PACKETS for old, new in halves)

    wait_until(has_carried, "traffic both ways", gateway.log)
