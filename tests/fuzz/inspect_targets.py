"""Fuzz targets of `ipsecgw inspect`: captures, key tables, secrets, and what is verified with them."""

import contextlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from gateway.ike.errors import PeerError
from gateway.ike.wire.header import ExchangeType, HeaderFlag, IkeHeader
from gateway.ike.wire.message import encode_message, encode_payloads, first_type, parse_payloads
from gateway.inspect.describe import describe_payload
from gateway.inspect.errors import InspectError
from gateway.inspect.ike import IkeInspector
from gateway.inspect.keys import KeyTables, read_keys
from gateway.inspect.ledger import Verdict
from gateway.inspect.report import Inspection, summary_lines, totals_json
from gateway.inspect.secrets import read_secrets
from gateway.inspect.verification import Verifier
from tests.fuzz.target import Target, choice, written
from tests.vectors.read import STRONGSWAN, VECTORS, WIRESHARK, ike_datagrams

# --- captures and key tables --------------------------------------------------------------------

CAPTURE = STRONGSWAN / "psk-cookie"


@cache
def some_keys():
    return read_keys(CAPTURE)


def inspect_all(inspection):
    """Read a capture to its end and make both reports of it."""
    entries = []
    with contextlib.suppress(InspectError):
        for entry in inspection.entries():
            assert entry.lines
            assert entry.json
            entries.append(entry.json)
    assert totals_json(inspection.totals, entries)["messages"] == entries
    assert summary_lines(inspection.totals)


def run_capture(data):
    keys = some_keys() if len(data) % 2 else KeyTables()
    secrets = read_secrets(CAPTURE / "secrets.json") if len(data) & 2 else ()
    inspect_all(Inspection(written("capture", data), keys, secrets))


def captures():
    for path in sorted(VECTORS.glob("**/*.pcap*")):
        data = path.read_bytes()
        yield data[:3000] if path.suffix != ".gz" else data
    whole = (CAPTURE / "capture.pcap").read_bytes()
    yield from (whole[: 4096 - cut] for cut in range(4))


def run_key_table(data):
    name = choice(len(data), ("ikev2_decryption_table", "esp_sa", "table"))
    with contextlib.suppress(InspectError):
        read_keys(written(name, data))


def key_tables():
    for pattern in ("*/*_table", "*/*_esp_sa"):
        yield from (path.read_bytes() for path in sorted(STRONGSWAN.glob(pattern)))
    yield from (path.read_bytes()[:4000] for path in sorted(WIRESHARK.glob("*.tmpl")))


# --- secrets ------------------------------------------------------------------------------------


def run_secrets(data):
    """Any file of secrets for a real capture: refused as a whole, or every entry has a verdict."""
    with contextlib.suppress(InspectError):
        secrets = read_secrets(written("secrets.json", data))
        inspection = Inspection(CAPTURE / "capture.pcap", KeyTables(), secrets)
        inspect_all(inspection)
        assert inspection.totals.checked


def secret_files():
    """What each capture's secrets have that is read, in few bytes; of both ends, and of one."""
    for path in sorted(STRONGSWAN.glob("*/secrets.json")):
        logs = {
            name: [
                {key: entry[key] for key in ("group", "label", "hex")}
                for entry in entries
                if not entry["label"].startswith("natd")
            ]
            for name, entries in json.loads(path.read_text()).items()
        }
        yield json.dumps(logs, separators=(",", ":")).encode()
        yield json.dumps({"one": logs["initiator"][:12]}, separators=(",", ":")).encode()


# --- the verifier under a peer that has the keys -------------------------------------------------


@dataclass(frozen=True)
class Exchanged:
    """A capture: its secrets, and its messages as the verifier saw them."""

    secrets: Path
    messages: tuple[tuple[IkeHeader, bytes], ...]
    """Header, and the payload chain with its first type before it."""


class Recording(Verifier):
    """A verifier that remembers what it was given."""

    def __init__(self, logs):
        super().__init__(logs, KeyTables())
        self.taken = []

    def take(self, header, payloads, datagram):
        inside = bytes([first_type(payloads)]) + encode_payloads(payloads)
        self.taken.append((header, inside))
        super().take(header, payloads, datagram)


@cache
def exchanged():
    found = []
    for path in sorted(STRONGSWAN.glob("*/secrets.json")):
        recording = Recording(read_secrets(path))
        inspector = IkeInspector((), recording)
        for datagram in ike_datagrams(path.parent / "capture.pcap"):
            inspector.inspect(datagram)
        if recording.taken:
            found.append(Exchanged(path, tuple(recording.taken)))
    return tuple(found)


EXCHANGES = (
    ExchangeType.IKE_SA_INIT,
    ExchangeType.IKE_AUTH,
    ExchangeType.CREATE_CHILD_SA,
    ExchangeType.INFORMATIONAL,
    ExchangeType.IKE_INTERMEDIATE,
    ExchangeType.IKE_FOLLOWUP_KE,
)
RESPONSE, FROM_INITIATOR, SECOND = 0x08, 0x10, 0x80
SPI_BYTES = 2 * 16


def verified(data):
    """Return what a verifier says of a whole story of authentic messages, whatever they say.

    ```
     input:  capture | SPIs of two IKE SAs | { flags | Message ID | size, 2 bytes | message } ...
     message:  first payload | octets
     flags:  second IKE SA | 0 | 0 | from the original initiator | response | exchange, 3 bits
    ```
    """
    story = choice(data[0], exchanged())
    verifier = Verifier(read_secrets(story.secrets), KeyTables())
    at = 1 + SPI_BYTES
    while at + 4 < len(data):
        header = header_of(data[1:at], data[at], data[at + 1])
        size = int.from_bytes(data[at + 2 : at + 4])
        inside = data[at + 4 : at + 4 + size]
        at += 4 + size
        with contextlib.suppress(PeerError):
            payloads = parse_payloads(inside[0] if inside else 0, inside[1:])
            assert all(describe_payload(payload) for payload in payloads)
            verifier.take(header, payloads, encode_message(header, payloads))
    assert all(len(key.spi_i) == len(key.spi_r) == 8 for key in verifier.drain_ike_keys())
    return verifier.finish(is_cut=False)


def run_verification(data):
    """Every value has a verdict, and whatever is not right has its reason."""
    if len(data) <= SPI_BYTES:
        return
    for one in verified(data):
        assert one.subject
        assert one.value
        assert one.detail or one.verdict is Verdict.OK or one.value.endswith("in the key table")


def header_of(spis, flags, message_id):
    exchange = choice(flags & 7, EXCHANGES)
    at = 16 if flags & SECOND else 0
    bits = (HeaderFlag.RESPONSE if flags & RESPONSE else 0) | (
        HeaderFlag.INITIATOR if flags & FROM_INITIATOR else 0
    )
    is_first = exchange is ExchangeType.IKE_SA_INIT and not flags & RESPONSE
    return IkeHeader(
        spi_i=spis[at : at + 8],
        spi_r=bytes(8) if is_first else spis[at + 8 : at + 16],
        exchange_type=exchange,
        flags=int(bits),
        message_id=message_id,
    )


def stories():
    """Each captured story whole, and without the exchanges behind the first two, or in front of the last."""
    for number, story in enumerate(exchanged()):
        spis = dict.fromkeys(h.spi_i + h.spi_r for h, _ in story.messages if any(h.spi_r))
        table = b"".join(spis)[:SPI_BYTES].ljust(SPI_BYTES, b"\x00")
        parts = [encoded(header, inside, table) for header, inside in story.messages]
        head = bytes([number]) + table
        yield head + b"".join(parts)
        yield head + b"".join(parts[:4])
        yield head + b"".join(parts[:2] + parts[-2:])


def encoded(header, inside, table):
    flags = EXCHANGES.index(header.exchange_type) | (0 if header.is_request else RESPONSE)
    flags |= FROM_INITIATOR if header.from_initiator else 0
    flags |= 0 if header.spi_i == table[:8] else SECOND
    return bytes([flags, header.message_id]) + len(inside).to_bytes(2) + inside


INSPECT_TARGETS = (
    Target("capture", captures, run_capture),
    Target("key_table", key_tables, run_key_table),
    Target("secrets", secret_files, run_secrets, 32768),
    Target("verification", stories, run_verification, 16384),
)
