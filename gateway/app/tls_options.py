"""The options for mutual TLS, which every TCP listener and connection needs."""

import argparse
from pathlib import Path

from gateway.api.address import TlsFiles
from gateway.app.places import PlaceError

_NAMES = ("tls_certificate", "tls_key", "tls_ca")


def add_tls_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `--tls-certificate`, `--tls-key` and `--tls-ca`."""
    parser.add_argument("--tls-certificate", type=Path, metavar="PEM", help="for TCP: our certificate")
    parser.add_argument("--tls-key", type=Path, metavar="PEM", help="for TCP: its private key")
    parser.add_argument("--tls-ca", type=Path, metavar="PEM", help="for TCP: the CA of the other end")


def tls_files(args: argparse.Namespace) -> TlsFiles | None:
    """Return the files that were named; None if there are none.

    Raises:
        PlaceError: Only some of them were named.
    """
    given = [getattr(args, name) for name in _NAMES]
    if not any(given):
        return None
    if not all(given):
        raise PlaceError("mutual TLS needs all of --tls-certificate, --tls-key and --tls-ca")
    certificate, key, ca = given
    return TlsFiles(certificate=certificate, key=key, ca=ca)


def tls_arguments(args: argparse.Namespace) -> list[str]:
    """Return the arguments that give a child the same files."""
    return [
        word
        for name in _NAMES
        if getattr(args, name)
        for word in (f"--{name.replace('_', '-')}", str(getattr(args, name).absolute()))
    ]
