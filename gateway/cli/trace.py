"""`ipsecgw trace drops`: which packets are dropped right now, by the kernel and by the gateway, and why."""

import argparse
import asyncio
import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from gateway.api.control_client import ControlClient
from gateway.api.plain import to_plain
from gateway.app.access import usable_control
from gateway.app.arguments import count, seconds
from gateway.app.places import find_places
from gateway.app.tls_options import add_tls_arguments, tls_files
from gateway.cli import tables
from gateway.host.drop_trace import Drop, find_setting, trace
from gateway.ipsec.errors import GatewayError

_PROTOCOLS: Final = {0x0800: "IPv4", 0x0806: "ARP", 0x86DD: "IPv6"}
_PATIENCE_S: Final = 2.0
"""For the gateway's own counters: the kernel's drops are shown all the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Packets that were dropped, as a line."""

    packets: int
    reason: str
    where: str
    """A function of the kernel, or which part of the gateway."""
    interface: str
    protocol: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `ipsecgw trace`."""
    kinds = parser.add_subparsers(title="what", metavar="WHAT", required=True)
    text = "packets that the kernel and the gateway drop, by reason (root; Debian's python3-bpfcc)"
    command = kinds.add_parser("drops", help=text, description=f"{text[0].upper()}{text[1:]}.")
    command.add_argument(
        "--interval", type=seconds, default=1.0, metavar="S", help="how often to print (default 1)"
    )
    command.add_argument(
        "--count", type=count, default=0, metavar="N", help="end after so many times (default: go on)"
    )
    command.add_argument(
        "--all-namespaces", action="store_true", help="also of interfaces in other network namespaces"
    )
    command.add_argument("--json", action="store_true", help="print JSON lines")
    command.add_argument("--socket", metavar="ADDRESS", help="the controller (default: $IPSECGW_CONTROL)")
    command.add_argument(
        "--run-dir", type=Path, metavar="DIR", help="where the sockets are (default /run/ipsecgw)"
    )
    add_tls_arguments(command)


def run(args: argparse.Namespace) -> int:
    """Print what is dropped until interrupted."""
    setting = find_setting()
    own_namespace = Path("/proc/self/ns/net").stat().st_ino
    before = _own_drops(args)
    if before is None:
        print("the gateway's own drops are shown when its controller answers", file=sys.stderr)
    with trace(setting, args.interval) as batches:
        print("counting", file=sys.stderr, flush=True)
        for number, drops in enumerate(batches, 1):
            now = _own_drops(args)
            rows = [*kernel_rows(drops, own_namespace, everywhere=args.all_namespaces)]
            if before is not None and now is not None:
                rows += own_rows(before, now)
            before = before if now is None else now
            _print(rows, as_json=args.json)
            if number == args.count:
                break
    return 0


def kernel_rows(drops: Iterable[Drop], namespace: int, *, everywhere: bool = False) -> Iterable[Row]:
    """Yield a row for each drop of our network namespace, and of none that is known.

    Args:
        drops: What the kernel dropped.
        namespace: The inode of ours.
        everywhere: Also of other namespaces.
    """
    for drop in drops:
        # What processes of one host say to each other by Unix sockets are no packets of a network.
        is_packet = not drop.location.startswith("unix_")
        if is_packet and (everywhere or drop.netns in (0, namespace)):
            yield Row(
                packets=drop.packets,
                reason=drop.reason,
                where=drop.location or "-",
                interface=_interface(drop, is_here=namespace == drop.netns),
                protocol=_PROTOCOLS.get(drop.protocol, f"{drop.protocol:#06x}" if drop.protocol else "-"),
            )


def _interface(drop: Drop, *, is_here: bool) -> str:
    if not drop.ifindex:
        return "-"
    if is_here:
        with contextlib.suppress(OSError):
            return socket.if_indextoname(drop.ifindex)
    return f"#{drop.ifindex} of namespace {drop.netns}" if drop.netns else f"#{drop.ifindex}"


Counters = Mapping[tuple[str, str], int]
"""Packets by part of the gateway and reason, since it was started."""


def own_rows(before: Counters, now: Counters) -> Sequence[Row]:
    """Return what the gateway itself dropped meanwhile; one that was started again counts from 0."""
    rows = []
    for (where, reason), packets in now.items():
        more = packets - before.get((where, reason), 0)
        if more:
            more = more if more > 0 else packets
            rows.append(Row(packets=more, reason=reason, where=where, interface="-", protocol="-"))
    return rows


def _own_drops(args: argparse.Namespace) -> Counters | None:
    """Return the gateway's counters; `None` where it does not tell."""
    places = find_places(os.environ, run_dir=args.run_dir, control=args.socket, datapath=None)

    async def ask() -> Counters:
        address = usable_control(places.control)
        async with ControlClient(address, deadline_s=_PATIENCE_S, tls=tls_files(args)) as client:
            status = await client.status()
        return {
            (where, str(to_plain(drop)["reason"])): drop.packets
            for where, drops in (("controller", status.ike_drops), ("datapath", status.datapath_drops))
            for drop in drops
        }

    try:
        return asyncio.run(ask())
    except GatewayError:
        return None


def _print(rows: Sequence[Row], *, as_json: bool) -> None:
    at = time.time()
    if as_json:
        for row in rows:
            print(json.dumps({"time": round(at, 3), **asdict(row)}))
    elif rows:
        print(time.strftime("%H:%M:%S", time.localtime(at)))
        head = ("packets", "reason", "where", "interface", "protocol")
        for line in tables.table(head, (tuple(asdict(row).values()) for row in rows), empty=""):
            print(f"  {line}")
    sys.stdout.flush()
