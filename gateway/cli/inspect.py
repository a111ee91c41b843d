"""`ipsecgw inspect`: decode, and with keys decrypt and verify, the IKE and ESP of a capture."""

import argparse
import json
import os
import sys
from pathlib import Path

from gateway.inspect.errors import InspectError
from gateway.inspect.keys import KeyTables, read_keys
from gateway.inspect.report import Inspection, summary_lines, totals_json
from gateway.inspect.secrets import read_secrets

HELP = "decode, and with keys decrypt and verify, IKE and ESP in a pcap"
OK, FAILED, UNUSABLE = 0, 1, 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the subcommand."""
    parser.add_argument("capture", metavar="CAPTURE", type=Path, help="pcap or pcapng file, also gzipped")
    parser.add_argument(
        "--keys",
        metavar="PATH",
        type=Path,
        help="a Wireshark key table (ikev2_decryption_table, esp_sa), or a directory with files whose "
        "names end so",
    )
    parser.add_argument(
        "--secrets",
        metavar="PATH",
        type=Path,
        help="a JSON file with the secrets of the exchanges: SKEYSEED, SK_*, AUTH and KEYMAT are verified",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Inspect; return 0, 1 if something with a key did not decrypt or verify, 2 if an input is unusable."""
    try:
        keys = KeyTables() if args.keys is None else read_keys(args.keys)
        secrets = () if args.secrets is None else read_secrets(args.secrets)
        inspection = Inspection(args.capture, keys, secrets)
        if args.json:
            messages = [entry.json for entry in inspection.entries()]
            print(json.dumps(totals_json(inspection.totals, messages), indent=2))
        else:
            _print_lines(inspection)
    except InspectError as error:
        print(f"ipsecgw inspect: {error}", file=sys.stderr)
        return UNUSABLE
    except BrokenPipeError:
        # Whoever reads the output has seen enough (`| head`); nothing more may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FAILED if inspection.totals.has_failed else OK


def _print_lines(inspection: Inspection) -> None:
    for entry in inspection.entries():
        print("\n".join(entry.lines))
        print()
    print("\n".join(summary_lines(inspection.totals)))
