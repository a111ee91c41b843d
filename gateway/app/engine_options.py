"""The options of the native engine, for `ipsecgw agent` and for `ipsecgw run`, which starts an agent."""

import argparse
import os

from gateway.app.arguments import count
from gateway.datapath.registry import ENGINE_IKE_PER_S, ENGINE_IO


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument(
        "--engine-interface",
        action="append",
        default=[],
        metavar="NAME",
        help="give the native engine an interface to the peers: an XDP program brings it the packets of its "
        "SAs, and it sends there by the fastest method that works (default: all packets by the kernel; "
        "repeatable)",
    )
    parser.add_argument(
        "--engine-inner-interface",
        action="append",
        default=[],
        metavar="NAME",
        help="the same for an interface to the networks that are protected: the program brings it what the "
        "SPD wants protected (repeatable; an interface that is both is named twice)",
    )
    parser.add_argument(
        "--engine-ike-rate",
        type=count,
        default=ENGINE_IKE_PER_S,
        metavar="N",
        help="first messages of IKE SAs that may come in there in a second from one /24, or /56 of IPv6; "
        f"twice as many at once, others are dropped (default {ENGINE_IKE_PER_S}; 0: any number)",
    )
    parser.add_argument(
        "--engine-io",
        choices=ENGINE_IO,
        default=ENGINE_IO[0],
        help="by what the native engine sends on its interfaces (default: the fastest that works)",
    )
    parser.add_argument(
        "--engine-cpu",
        action="append",
        type=_cpu,
        default=[],
        metavar="N",
        help="a worker of the native engine on this CPU alone; repeatable, for several receive queues "
        "(default: one worker, on any)",
    )
    parser.add_argument(
        "--engine-busy-poll",
        action="store_true",
        help="workers of the native engine never sleep: the latency of waking up is saved, and each worker "
        "takes a CPU whatever comes (default: a worker sleeps while there are no packets)",
    )


def _cpu(text: str) -> int:
    number, cpus = count(text), os.cpu_count() or 1
    if number >= cpus:
        raise argparse.ArgumentTypeError(f"there is no CPU {number} here, but 0 to {cpus - 1}")
    return number


def has_interfaces(args: argparse.Namespace) -> bool:
    """Say whether the engine is to have interfaces for itself."""
    return bool(args.engine_interface or args.engine_inner_interface)


def engine_arguments(args: argparse.Namespace) -> tuple[str, ...]:
    """Return them as words for the agent."""
    return (
        *(word for name in args.engine_interface for word in ("--engine-interface", name)),
        *(word for name in args.engine_inner_interface for word in ("--engine-inner-interface", name)),
        *("--engine-ike-rate", str(args.engine_ike_rate)),
        *("--engine-io", args.engine_io),
        *(word for cpu in args.engine_cpu for word in ("--engine-cpu", str(cpu))),
        *(("--engine-busy-poll",) if args.engine_busy_poll else ()),
    )
