"""The logging options that all processes share."""

import argparse
import faulthandler
import sys
from typing import Final

from gateway.api.config_error import ConfigError
from gateway.ipsec.errors import GatewayError
from gateway.observe.logs import LogFormat, configure

_STANDARD_ERROR: Final = 2


def add_log_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `--log-format` and `--log-level`."""
    parser.add_argument(
        "--log-format",
        choices=[item.value for item in LogFormat],
        default=LogFormat.HUMAN.value,
        help="how log lines on standard error look (default human)",
    )
    parser.add_argument(
        "--log-level",
        default="info",
        metavar="LEVEL",
        help="debug, info, warning or error; also `info,ike=debug`",
    )


def configure_logs(args: argparse.Namespace) -> None:
    """Set up logging as the arguments say; a crash leaves the stack of every thread behind the last line.

    Such a stack names files, lines and functions, and shows no values. There is no core dump, which would.

    Raises:
        VocabularyError: The level is unknown.
    """
    faulthandler.enable(_STANDARD_ERROR)
    configure(levels=args.log_level, format=LogFormat(args.log_format))


def log_arguments(args: argparse.Namespace) -> list[str]:
    """Return the arguments that give a child the same logs."""
    return ["--log-format", args.log_format, "--log-level", args.log_level]


def complain(program: str, error: GatewayError) -> None:
    """Tell whoever started this process what is wrong, whatever the log format."""
    # The problems of a file begin with their places, as editors understand them.
    sys.stderr.write(f"{error}\n" if isinstance(error, ConfigError) else f"{program}: {error}\n")
