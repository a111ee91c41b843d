"""Command line options of the kernel's datapath, which `ipsecgw run` gives on to its agent."""

import argparse

from gateway.host.errors import HostError


def add_xfrm_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument(
        "--spread-esp",
        choices=("off", "auto"),
        default="off",
        help="auto: where an interface has fewer receive queues than there are CPUs, an XDP program spreads "
        "what comes in for the kernel's SAs over all of them (default off)",
    )
    parser.add_argument(
        "--forward-interface",
        action="append",
        default=[],
        metavar="NAME",
        help="an interface to the protected networks from which an XDP program forwards straight to NICs "
        "that encrypt whole packets (placement nic_packet), past the kernel's routing and firewall; "
        "name the NIC too if its driver sends for XDP only then; repeatable",
    )
    parser.add_argument(
        "--forward-inbound",
        action="append",
        default=[],
        metavar="NIC",
        help="a NIC with packet offload of which you know that it, or what is cabled before it, lets through "
        "nothing in clear that a policy protects: XDP forwards what comes in there to the interfaces of "
        "--forward-interface, and does not look at whether it was encrypted; repeatable",
    )


def check_forwarding(args: argparse.Namespace) -> None:
    """Check that what comes in has somewhere to go.

    Raises:
        HostError: No interface to the protected networks is named.
    """
    if args.forward_inbound and not set(args.forward_interface) - set(args.forward_inbound):
        wanted = "--forward-inbound forwards to the interfaces of --forward-interface"
        raise HostError(f"{wanted}: name those to the protected networks, too")


def loads_programs(args: argparse.Namespace) -> bool:
    """Return whether these options need XDP programs."""
    return args.spread_esp == "auto" or bool(args.forward_interface)


def xfrm_arguments(args: argparse.Namespace) -> tuple[str, ...]:
    """Return the words that say the same to the agent."""
    interfaces = (word for name in args.forward_interface for word in ("--forward-interface", name))
    nics = (word for name in args.forward_inbound for word in ("--forward-inbound", name))
    return ("--spread-esp", args.spread_esp, *interfaces, *nics)
