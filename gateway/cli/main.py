"""The `ipsecgw` command: parse arguments, call one function, print.

Exit status: 0 done, 1 it failed or the input was bad, 2 the command line was.
"""

import argparse
import importlib
import io
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version

from gateway.api.config_error import ConfigError
from gateway.cli import control
from gateway.ipsec.errors import GatewayError
from gateway.observe.logs import configure

#: The processes of a gateway; what they are made of takes longer to load than most commands to run.
_PROCESSES = (
    ("run", "gateway.app.run", "run a gateway: its own datapath agent, and a controller that speaks IKEv2"),
    ("agent", "gateway.app.agent", "run a datapath agent alone"),
    ("controller", "gateway.app.controller", "run a controller alone, with an agent that runs already"),
)

#: Sub-commands whose code is loaded only when they are used: decoding and the demo need a lot of it.
_LATER = (
    ("import", "gateway.cli.import_config", "rewrite strongSwan's or libreswan's configuration as ours"),
    ("inspect", "gateway.cli.inspect", "decode, and with keys decrypt and verify, IKE and ESP in a pcap"),
    ("demo", "gateway.cli.demo", "two gateways in network namespaces, a real tunnel, real traffic"),
    ("bench", "gateway.cli.bench", "measure the control plane, the native engine, packets through a gateway"),
    ("hw", "gateway.cli.hw", "what this machine can offload, with evidence and advice"),
    ("doctor", "gateway.cli.doctor", "what is wrong with this machine, with evidence and the fix"),
    ("trace", "gateway.cli.trace", "what the kernel and the gateway drop right now, and why"),
    ("completion", "gateway.cli.completion", "print the script that lets bash and zsh complete this command"),
)


def build_parser(used: str | None = "") -> argparse.ArgumentParser:
    """Return the parser of the whole command.

    Args:
        used: The command whose arguments are loaded in full, where loading takes long; None: all.
    """
    parser = argparse.ArgumentParser(prog="ipsecgw", description="An IPsec gateway: IKEv2 and its datapath.")
    parser.add_argument("--version", action="version", version=f"ipsecgw {version('ipsec-gateway')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_later(commands, _PROCESSES, used)
    control.add_commands(commands)
    _add_later(commands, _LATER, used)
    command = commands.add_parser("version", help="print the version")
    command.set_defaults(act=_print_version)
    return parser


def _add_later(commands: control.Commands, entries: Iterable[tuple[str, str, str]], used: str | None) -> None:
    for name, module, help_text in entries:
        command = commands.add_parser(name, help=help_text, description=help_text)
        if used in (None, name):
            loaded = importlib.import_module(module)
            loaded.add_arguments(command)
            command.set_defaults(act=loaded.run)


def _print_version(_args: argparse.Namespace) -> int:
    print(f"ipsecgw {version('ipsec-gateway')}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name or a frame that this terminal cannot show is no reason to stop.
            stream.reconfigure(errors="replace")
    words = list(sys.argv[1:] if argv is None else argv)
    used = next((word for word in words if not word.startswith("-")), "")
    args = build_parser(used).parse_args(words)
    act: Callable[[argparse.Namespace], int] = args.act
    configure(levels="warning")  # As a file is read; `run` and `agent` have options of their own for it.
    try:
        return act(args)
    except ConfigError as error:
        # One line for each problem, each beginning with its place, as editors understand it.
        print(error, file=sys.stderr)
        return 1
    except GatewayError as error:
        print(f"ipsecgw {used}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever reads the output has seen enough; nothing more may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
