"""`ipsecgw bench`: parse, measure, print; each subject is a sub-command."""

import argparse
import sys
from collections.abc import Sequence

from gateway.app.arguments import count, seconds
from gateway.bench.engine import run as engine
from gateway.bench.engine import tables as engine_tables
from gateway.bench.engine.plan import (
    REFERENCE_SUITE,
    SA_COUNTS,
    SIZES,
    BenchSuite,
    crypto_measures,
    engine_measures,
)
from gateway.bench.engine.plan import SUITES as ENGINE_SUITES
from gateway.bench.ike import run as ike
from gateway.bench.ike.suites import SUITES, find_suites
from gateway.bench.steering import run as steering
from gateway.bench.steering import tables as steering_tables
from gateway.bench.tcp import run as tcp
from gateway.bench.tcp import tables as tcp_tables
from gateway.bench.tcp.pair import WAYS
from gateway.bench.topology import require_root
from gateway.cli import bench_agent, bench_api, bench_installs, bench_path
from gateway.cli.bench_output import add_output_arguments, check_output, deliver
from gateway.datapath.engine.core import Crypto, EngineLibrary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands of `ipsecgw bench`."""
    subjects = parser.add_subparsers(title="subjects", metavar="SUBJECT", required=True)
    help_text = "the control plane: handshakes, memory, rekeys, floods; alone and beside charon"
    subject = subjects.add_parser("ike", help=help_text, description=help_text)
    _add_ike_arguments(subject)
    subject.set_defaults(measure=_measure_ike)
    help_text = "the control API: applying, listing, single calls and watchers; beside charon's vici"
    subject = subjects.add_parser("api", help=help_text, description=help_text)
    bench_api.add_arguments(subject)
    subject.set_defaults(measure=bench_api.measure)
    help_text = "the datapath API: SAs installed, listed and removed in batches, wherever they are"
    subject = subjects.add_parser("installs", help=help_text, description=help_text)
    bench_installs.add_arguments(subject)
    subject.set_defaults(measure=bench_installs.measure)
    help_text = "the crypto libraries of the native engine, each suite and packet size"
    subject = subjects.add_parser("crypto", help=help_text, description=help_text)
    _add_engine_arguments(subject, suites_repeat=True)
    subject.set_defaults(measure=_measure_crypto)
    help_text = "the native engine in memory: ESP through 1, 1,000 and 10,000 SAs, beside crypto alone"
    subject = subjects.add_parser("engine", help=help_text, description=help_text)
    _add_engine_arguments(subject, suites_repeat=False)
    subject.set_defaults(measure=_measure_engine)
    help_text = "the XDP programs: nanoseconds to decide where a packet goes, with up to 20,000 tunnels"
    subject = subjects.add_parser("steering", help=help_text, description=help_text)
    _add_steering_arguments(subject)
    subject.set_defaults(measure=_measure_steering)
    help_text = "packets through a gateway: rate, loss, latency and CPU time, wherever its SAs are"
    subject = subjects.add_parser("path", help=help_text, description=help_text)
    bench_path.add_arguments(subject)
    subject.set_defaults(measure=bench_path.measure)
    help_text = (
        "one TCP stream between two hosts, each behind a gateway, all on this machine; sent and received by "
        "a program of our own, not by iperf3"
    )
    subject = subjects.add_parser("tcp", help=help_text, description=help_text)
    _add_tcp_arguments(subject)
    subject.set_defaults(measure=_measure_tcp)
    for subject in subjects.choices.values():
        add_output_arguments(subject)
    help_text = (
        "the traffic generator of `bench path` on a machine of its own, for clients with the role bench"
    )
    subject = subjects.add_parser("agent", help=help_text, description=help_text)
    bench_agent.add_arguments(subject)
    subject.set_defaults(measure=bench_agent.serve)


def run(options: argparse.Namespace) -> int:
    """Run one benchmark; return its exit status."""
    check_output(options)
    status: int = options.measure(options)
    return status


def _say(line: str) -> None:
    """Tell on standard error what is being measured."""
    print(f"measuring {line}", file=sys.stderr, flush=True)


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


def _measure_ike(options: argparse.Namespace) -> int:
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
    results = ike.run(wanted, _say)
    return deliver(options, ike.report(results))


def _add_counts(parser: argparse.ArgumentParser, *counts: tuple[str, int, str]) -> None:
    """Declare numbers: the name of each, its default, and what it counts."""
    for name, value, what in counts:
        parser.add_argument(name, type=count, default=value, metavar="N", help=f"{what} ({value})")


def _add_engine_arguments(parser: argparse.ArgumentParser, *, suites_repeat: bool) -> None:
    names = [suite.name for suite in ENGINE_SUITES]
    default = "all" if suites_repeat else REFERENCE_SUITE.name
    parser.add_argument(
        "--suite",
        action="append",
        choices=names,
        metavar="NAME",
        help=f"{'only this suite; repeatable' if suites_repeat else 'this suite'} (default: {default}), "
        f"one of {', '.join(names)}",
    )
    parser.add_argument(
        "--library",
        choices=[crypto.name.lower() for crypto in Crypto if crypto is not Crypto.AUTO],
        help="only this crypto library (default: each that build and CPU have; for engine, the better one)",
    )
    _add_counts(
        parser,
        ("--rounds", 15, "rounds, each of which measures everything once"),
        ("--packets", 20_480, "packets per measure and round"),
        ("--burst", 64, "packets per call, at most 64"),
    )
    parser.add_argument("--cpu", type=count, metavar="N", help="pin the measurement to this CPU")


def _add_steering_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tunnels",
        action="append",
        type=count,
        metavar="N",
        help=f"only with so many; repeatable (default: {', '.join(map(str, steering.TUNNEL_COUNTS))})",
    )
    _add_counts(
        parser,
        ("--rounds", 7, "rounds, each of which measures everything once"),
        ("--packets", 1_000_000, "packets per case and round"),
    )


def _measure_steering(options: argparse.Namespace) -> int:
    effort = steering.Effort(rounds=options.rounds, packets=options.packets)
    results = steering.run(options.tunnels or steering.TUNNEL_COUNTS, effort, _say)
    return deliver(options, steering_tables.report(results))


def _add_tcp_arguments(parser: argparse.ArgumentParser) -> None:
    names = [way.name for way in WAYS]
    parser.add_argument(
        "--way",
        action="append",
        choices=names,
        metavar="WAY",
        help=f"how the gateways carry it: one of {'; '.join(names)}; repeatable (default: all)",
    )
    parser.add_argument(
        "--rounds", type=count, default=5, metavar="N", help="each measures every way once (5)"
    )
    parser.add_argument("--seconds", type=seconds, default=4.0, metavar="S", help="of sending for each (4)")


def _measure_tcp(options: argparse.Namespace) -> int:
    require_root()
    results = tcp.run(
        [way for way in WAYS if not options.way or way.name in options.way],
        rounds=max(1, options.rounds),
        seconds=options.seconds,
        say=_say,
    )
    return deliver(options, tcp_tables.report(results))


def _measure_crypto(options: argparse.Namespace) -> int:
    library = EngineLibrary()
    suites = _engine_suites(options, ENGINE_SUITES)
    measures = [
        measure
        for measure in crypto_measures(suites, _engine_libraries(options, library), SIZES)
        if library.has_suite(
            measure.suite.encryption, measure.suite.integrity, measure.suite.key_bits, measure.crypto
        )
    ]
    results = engine.run(measures, _effort(options), _say)
    return deliver(options, engine_tables.crypto_report(results))


def _measure_engine(options: argparse.Namespace) -> int:
    library = EngineLibrary()
    suite = _engine_suites(options, (REFERENCE_SUITE,))[-1]
    crypto = _engine_libraries(options, library)[0]
    results = engine.run(engine_measures(suite, crypto, SIZES, SA_COUNTS), _effort(options), _say)
    return deliver(options, engine_tables.engine_report(results))


def _engine_suites(options: argparse.Namespace, default: Sequence[BenchSuite]) -> list[BenchSuite]:
    if not options.suite:
        return list(default)
    return [suite for suite in ENGINE_SUITES if suite.name in options.suite]


def _engine_libraries(options: argparse.Namespace, library: EngineLibrary) -> list[Crypto]:
    """Return the crypto libraries to measure, the one that SAs get first."""
    wanted = [Crypto[options.library.upper()]] if options.library else [Crypto.IPSECMB, Crypto.OPENSSL]
    return [crypto for crypto in wanted if library.crypto_name(crypto)]


def _effort(options: argparse.Namespace) -> engine.Effort:
    return engine.Effort(rounds=options.rounds, packets=options.packets, burst=options.burst, cpu=options.cpu)
