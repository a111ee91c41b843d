"""`ipsecgw import`: the configuration of strongSwan or libreswan as ours, and every line that is lost."""

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Final

from gateway.api.config_error import ConfigError
from gateway.api.config_file import parse_config
from gateway.config.foreign.draft import Imported
from gateway.config.foreign.output import SecretFiles, has_secrets, to_text, value_of, write_private
from gateway.config.foreign.read import Format, import_config
from gateway.host.network import Network

_STANDARD_OUTPUT: Final = "standard output"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `ipsecgw import`."""
    parser.add_argument(
        "path", type=Path, metavar="PATH", help="swanctl.conf, ipsec.conf, or the directory of one"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="write the configuration here, and each secret to a file beside it (default: standard output, "
        "with secrets as values)",
    )
    parser.add_argument("--force", action="store_true", help="replace files that are there already")
    parser.add_argument(
        "--format",
        choices=[written_in.value for written_in in Format],
        help="what PATH is written in (default: what it looks like)",
    )
    parser.add_argument(
        "--secrets", type=Path, metavar="PATH", help="ipsec.secrets (default: beside ipsec.conf)"
    )
    parser.add_argument(
        "--local",
        choices=("left", "right"),
        default="",
        help="which side of a conn is ours (default: the one with an address of this machine)",
    )


def run(options: argparse.Namespace) -> int:
    """Import and print; 1 where a connection was left out or the result would be refused."""
    imported = import_config(
        options.path,
        written_in=Format(options.format) if options.format else None,
        secrets_path=options.secrets,
        addresses=asyncio.run(_own_addresses()),
        local_side=options.local,
    )
    for note in imported.notes:
        print(note, file=sys.stderr)
    target: Path | None = options.output
    text = _write(imported, target, replace=options.force)
    refused = _refusal(text, target)
    if refused:
        print(f"ipsecgw validate would refuse the result:\n{refused}", file=sys.stderr)
    print(_summary(imported, target), file=sys.stderr)
    return 1 if imported.left_out or refused or not imported.connections else 0


async def _own_addresses() -> frozenset[str]:
    network = Network()
    try:
        return frozenset(str(local.address) for local in await network.addresses())
    finally:
        await network.close()


def _write(imported: Imported, target: Path | None, *, replace: bool) -> str:
    if target is None:
        text = to_text(imported, value_of)
        sys.stdout.write(text)
        return text
    files = SecretFiles(target.parent)
    text = to_text(imported, files.place)
    write_private({**files.contents(), target: text.encode()}, replace=replace)
    return text


def _refusal(text: str, target: Path | None) -> str:
    """Return what our own reader says against the result; empty where it loads."""
    if text.strip() == "connections: []":
        return ""
    try:
        parse_config(text, str(target or _STANDARD_OUTPUT), Path.cwd() if target is None else target.parent)
    except ConfigError as error:
        return str(error)
    return ""


def _summary(imported: Imported, target: Path | None) -> str:
    lines = f"connections carried to {target or _STANDARD_OUTPUT}: {len(imported.connections)}"
    if imported.left_out:
        lines += f"; left out: {', '.join(imported.left_out)}"
    if imported.notes:
        lines += f"; lines not carried as they stand, see above: {len(imported.notes)}"
    if target is None and has_secrets(list(imported.connections)):
        lines += "; the output holds secrets: keep it from others, or use -o FILE"
    return lines
