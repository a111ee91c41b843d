"""`ipsecgw bench path`: its options, and what they ask for."""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from gateway.api.generator_client import RemoteGenerator
from gateway.app.arguments import count, seconds, service_address
from gateway.app.tls_options import add_tls_arguments, tls_files
from gateway.bench.path.bed import Bed, Cables, named_bed, remote_bed, veth_bed
from gateway.bench.path.gateway import MAX_SAS
from gateway.bench.path.plan import (
    CABLE,
    FORWARDING,
    IMIX,
    IO,
    MAX_BYTES,
    MIN_BYTES,
    PEERS,
    PLACEMENTS,
    RAW,
    SIZES,
    Direction,
    Wanted,
)
from gateway.bench.path.run import run
from gateway.bench.path.tables import report
from gateway.bench.topology import TopologyError, require_root
from gateway.cli.bench_output import deliver
from gateway.cli.bench_rig import add_rig_arguments, check_rig
from gateway.ipsec.placement import DEFAULT_PREFERENCE

_ALL: Final = "all"
_DEFAULT_PLACEMENTS: Final = (FORWARDING, RAW, *(engine.value for engine in DEFAULT_PREFERENCE))
_DEFAULT_KEY_BITS: Final = 256
_MAX_FLOWS: Final = 1 << 16
_GATEWAY: Final = ("lan", "outer")
_GENERATOR: Final = ("generator_lan", "generator_outer")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `ipsecgw bench path`."""
    parser.add_argument(
        "--placement",
        action="append",
        choices=PLACEMENTS,
        metavar="ENGINE",
        help=f"measure SAs on this engine, or {FORWARDING} or {RAW} without any, or {CABLE}, the generator "
        f"without a gateway: one of {', '.join(PLACEMENTS)}; repeatable (default: all but xdp and {CABLE})",
    )
    parser.add_argument(
        "--io",
        action="append",
        choices=IO,
        metavar="METHOD",
        help=f"how the native engine, and {RAW}, send: one of {', '.join(IO)}; they receive by AF_XDP, or by "
        "TUN; repeatable (all)",
    )
    parser.add_argument(
        "--workers",
        action="append",
        type=_workers,
        metavar="N",
        help="of the native engine, with a receive queue for each on veth; repeatable (1)",
    )
    parser.add_argument(
        "--peer",
        action="append",
        choices=(*PEERS, _ALL),
        metavar="NAME",
        help=f"measure another program beside, with the same packets: {', '.join(PEERS)}, or {_ALL}; "
        "repeatable (none)",
    )
    parser.add_argument(
        "--size",
        action="append",
        type=_size,
        metavar="BYTES",
        help=f"of inner packets, or {IMIX}: 64, 512 and 1420 as 7:4:1; repeatable "
        f"(default: {', '.join(SIZES)})",
    )
    parser.add_argument(
        "--sas",
        action="append",
        type=_sas,
        metavar="N",
        help=f"pairs of SAs that flows are spread over, at most {MAX_SAS}; repeatable (1)",
    )
    parser.add_argument(
        "--flows",
        action="append",
        type=_flows,
        metavar="N",
        help="with addresses and ports of their own; repeatable (1)",
    )
    parser.add_argument(
        "--direction",
        action="append",
        choices=[direction.value for direction in Direction],
        help="out: plaintext in, ESP out; in: the other way; repeatable (both)",
    )
    parser.add_argument(
        "--rounds", type=_at_least_one, default=3, metavar="N", help="each measures everything once (3)"
    )
    parser.add_argument(
        "--seconds", type=seconds, default=2.0, metavar="S", help="of sending for each figure (2)"
    )
    add_rig_arguments(parser)
    parser.add_argument(
        "--key-bits",
        type=count,
        choices=(128, 256),
        metavar="BITS",
        help="of AES-GCM: 128 or 256 (256)",
    )
    for name, whose in (
        ("lan", "the gateway's interface to the LAN"),
        ("outer", "the gateway's outer interface, whose NIC may offload"),
        ("generator-lan", "the interface that is cabled to --lan"),
        ("generator-outer", "the interface that is cabled to --outer"),
    ):
        parser.add_argument(
            f"--{name}",
            metavar="INTERFACE",
            help=f"{whose}; moved into a namespace meanwhile, it loses its addresses (default: veth devices)",
        )
    parser.add_argument(
        "--generator",
        type=service_address,
        metavar="ADDRESS",
        help="unix:PATH or HOST:PORT of an `ipsecgw bench agent` that is cabled to --lan and --outer",
    )
    add_tls_arguments(parser)


def measure(options: argparse.Namespace) -> int:
    """Measure what was asked for, or look at a rig; return 1 where nothing could be measured, or is missing.

    Raises:
        GatewayError: Not root, or the generator is missing, or an interface, or the NIC of a rig.
    """
    if options.rig is not None:
        rig, holds = check_rig(options.rig, lan=options.lan, outer=options.outer, may_change=options.prepare)
        if not options.prepare:
            return 0 if holds else 1
        options.placement = options.placement or rig.placements
        options.key_bits = options.key_bits or rig.key_bits
    peers = PEERS if _ALL in (options.peer or ()) else tuple(options.peer or ())
    placements = tuple(options.placement or _DEFAULT_PLACEMENTS)
    wanted = Wanted(
        placements=tuple(dict.fromkeys((*placements, *peers))),
        io=tuple(dict.fromkeys(options.io or IO)),
        workers=tuple(dict.fromkeys(options.workers or (1,))),
        sizes=tuple(dict.fromkeys(options.size or SIZES)),
        sas=tuple(dict.fromkeys(options.sas or (1,))),
        flows=tuple(dict.fromkeys(options.flows or (1,))),
        directions=tuple(Direction(way) for way in dict.fromkeys(options.direction or ()))
        or tuple(Direction),
        rounds=options.rounds,
        seconds=max(0.1, options.seconds),
        key_bits=options.key_bits or _DEFAULT_KEY_BITS,
    )
    require_root()
    with _bed(options) as bed:
        results = run(bed, wanted, lambda line: print(line, file=sys.stderr, flush=True))
    status = deliver(options, report(results))
    return status if results.rows else 1


@contextmanager
def _bed(options: argparse.Namespace) -> Iterator[Bed]:
    needed = _GATEWAY if options.generator is not None else _GATEWAY + _GENERATOR
    names = {name: getattr(options, name) for name in _GATEWAY + _GENERATOR}
    prefix = f"ipsecgw-path{os.getpid()}"
    if options.generator is None and not any(names.values()):
        with veth_bed(prefix, max(options.workers or (1,))) as bed:
            yield bed
        return
    missing = [f"--{name.replace('_', '-')}" for name in needed if not names[name]]
    if missing:
        raise TopologyError(f"on real interfaces all of them must be named: {', '.join(missing)} missing")
    if options.generator is None:
        near = Cables(lan=names["generator_lan"], outer=names["generator_outer"])
        with named_bed(prefix, names["lan"], names["outer"], near) as bed:
            yield bed
        return
    with (
        RemoteGenerator(options.generator, tls_files(options)) as generator,
        remote_bed(prefix, names["lan"], names["outer"], generator) as bed,
    ):
        yield bed


def _size(text: str) -> str:
    if text == IMIX or (text.isascii() and text.isdecimal() and MIN_BYTES <= int(text) <= MAX_BYTES):
        return text
    raise argparse.ArgumentTypeError(f"'{text}' is neither {IMIX} nor {MIN_BYTES} to {MAX_BYTES} bytes")


def _at_least_one(text: str) -> int:
    return _between(text, 1 << 31)


def _workers(text: str) -> int:
    return _between(text, os.cpu_count() or 1)


def _sas(text: str) -> int:
    return _between(text, MAX_SAS)


def _flows(text: str) -> int:
    return _between(text, _MAX_FLOWS)


def _between(text: str, most: int) -> int:
    number = count(text)
    if not 1 <= number <= most:
        raise argparse.ArgumentTypeError(f"'{text}' is not from 1 to {most}")
    return number
