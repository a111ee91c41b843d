"""Reading the vectors: one function per set."""

import csv
import json
from functools import cache
from pathlib import Path
from typing import Any

from gateway.inspect.capture import read_capture
from gateway.inspect.packet import Finder, Kind

VECTORS = Path(__file__).parent
STRONGSWAN = VECTORS / "strongswan-6.0.6"
WIRESHARK = VECTORS / "wireshark"


@cache
def _wycheproof(name: str) -> dict[str, Any]:
    return json.loads((VECTORS / "wycheproof" / f"{name}.json").read_text())


def wycheproof(name: str) -> list[dict[str, Any]]:
    """Return the test groups of one Wycheproof file."""
    return _wycheproof(name)["testGroups"]


def wycheproof_size(name: str) -> int:
    """Return how many cases the file itself says it has."""
    return _wycheproof(name)["numberOfTests"]


def kdf(name: str) -> Any:
    """Return one file of key derivation vectors."""
    return json.loads((VECTORS / "kdf" / name).read_text())


@cache
def ike_datagrams(capture: Path) -> tuple[bytes, ...]:
    """Return the IKE messages of a capture, without the non-ESP marker."""
    finder = Finder()
    found = [finder.find(frame) for frame in read_capture(capture)]
    return tuple(item.data for item in found if item is not None and item.kind is Kind.IKE)


def ikev2_captures() -> list[Path]:
    """Return every capture that holds IKEv2."""
    captures = [*STRONGSWAN.glob("*/capture.pcap"), *WIRESHARK.glob("ikev2-*")]
    return sorted(path for path in captures if "ikev1" not in str(path))


def strongswan_secrets(name: str, side: str = "initiator") -> list[tuple[str, str, bytes]]:
    """Return (group, label, bytes) in the order one side logged them."""
    items = json.loads((STRONGSWAN / name / "secrets.json").read_text())[side]
    return [(item["group"], item["label"], bytes.fromhex(item["hex"])) for item in items]


def ike_table(path: Path) -> list[list[str]]:
    """Return the rows of an ikev2_decryption_table."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return list(csv.reader(lines))
