"""Numbers and addresses on the command line, refused where nobody can have meant them."""

import argparse
import math

from gateway.api.address import Address, AddressError, TcpAddress, parse_address


def seconds(text: str) -> float:
    """Return a time span in seconds.

    Raises:
        argparse.ArgumentTypeError: It is no number, negative or endless.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds, 0 or more")
    return value


def count(text: str) -> int:
    """Return how many, or a number that the kernel or the gateway counts with.

    Raises:
        argparse.ArgumentTypeError: It is no whole number from 0 to 2^63 - 1.
    """
    if not (text.isascii() and text.isdecimal()) or len(text) > 19 or int(text) >= 1 << 63:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number, 0 or more")
    return int(text)


def service_address(text: str) -> Address:
    """Return where a service listens.

    Raises:
        argparse.ArgumentTypeError: It is neither `unix:PATH` nor `HOST:PORT`.
    """
    try:
        return parse_address(text)
    except AddressError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def tcp_address(text: str) -> TcpAddress:
    """Return a host and a port.

    Raises:
        argparse.ArgumentTypeError: It is not `HOST:PORT`.
    """
    address = service_address(text)
    if not isinstance(address, TcpAddress):
        raise argparse.ArgumentTypeError(f"'{text}' is a Unix socket: write HOST:PORT")
    return address
