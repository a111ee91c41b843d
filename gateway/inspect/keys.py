"""Reading Wireshark's key tables: `ikev2_decryption_table` and `esp_sa`.

Both are lines of comma-separated fields, quoted or not, `#` starting a comment:

```
SPIi,SPIr,SK_ei,SK_er,"encryption",SK_ai,SK_ar,"integrity"                            (hex without 0x)
"IPv4","source","destination","0xSPI","encryption","0xkey","authentication","0xkey"[,"32-bit"|"64-bit"]
```
Addresses and SPIs of `esp_sa` may hold `*`; its keys are hex after `0x`, else the characters themselves.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from pathlib import Path
from typing import Final

from gateway.inspect.algorithms import Authentication, Encryption, parse_authentication, parse_encryption
from gateway.inspect.errors import InspectError
from gateway.inspect.opening import CannotOpen, Opener, build_opener
from gateway.ipsec.secret import Secret

IKE_TABLE: Final = "ikev2_decryption_table"
ESP_TABLE: Final = "esp_sa"
MAX_TABLE_BYTES: Final = 64 * 1024 * 1024
_IKE_FIELDS: Final = 8
_ESP_FIELDS: Final = (8, 9)

IpAddress = IPv4Address | IPv6Address


class KeyTableError(InspectError):
    """A line of a key table cannot be understood; the text begins with `file:line:`."""


@dataclass(frozen=True, slots=True)
class IkeKey:
    """One row of an `ikev2_decryption_table`: both directions of an IKE SA."""

    spi_i: bytes
    spi_r: bytes
    from_initiator: Opener
    from_responder: Opener


@dataclass(frozen=True, slots=True)
class AddressPattern:
    """An address column: an address, a network, or something with `*`."""

    network: IPv4Network | IPv6Network | None = None
    pattern: re.Pattern[str] | None = None

    def matches(self, address: IpAddress) -> bool:
        """Say whether an address is meant."""
        if self.network is not None:
            return address.version == self.network.version and address in self.network
        if self.pattern is None:
            return True
        text = str(address) if address.version == 4 else address.exploded
        return self.pattern.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class EspKey:
    """One row of an `esp_sa` table: one direction of one SA."""

    version: int
    """4, 6, or 0 for any."""
    source: AddressPattern
    destination: AddressPattern
    spi: re.Pattern[str]
    """Against eight lower-case hex digits."""
    is_exact_spi: bool
    esn: bool | None
    """None: the table does not say."""
    opener: Opener

    def matches(self, source: IpAddress, destination: IpAddress, spi: int) -> bool:
        """Say whether a packet is of this SA."""
        return (
            self.matches_spi(spi)
            and self.version in (0, source.version)
            and self.source.matches(source)
            and self.destination.matches(destination)
        )

    def matches_spi(self, spi: int) -> bool:
        """Say whether the SPI fits, whatever the addresses."""
        return self.spi.fullmatch(f"{spi:08x}") is not None


@dataclass(slots=True)
class KeyTables:
    """All rows of all tables that were given."""

    ike: list[IkeKey] = field(default_factory=list)
    esp: list[EspKey] = field(default_factory=list)


def read_keys(path: Path) -> KeyTables:
    """Read a key table, or all key tables of a directory.

    Raises:
        InspectError: The path is not there, or holds no key table.
        KeyTableError: A line cannot be understood.
    """
    tables = KeyTables()
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file() and _named_kind(file))
        if not files:
            raise InspectError(f"{path}: no file here has a name that ends in {IKE_TABLE} or {ESP_TABLE}")
    else:
        files = [path]
    seen: set[tuple[str, ...]] = set()
    for file in files:
        for place, row in _read_rows(file):
            # Both ends of one exchange write the same keys: once is enough.
            if tuple(row) not in seen:
                seen.add(tuple(row))
                _add_row(tables, place, row, _table_kind(file, row))
    return tables


def _table_kind(file: Path, row: Sequence[str]) -> str:
    """Tell the tables apart by name, a lone file of another name by what is in it."""
    named = _named_kind(file)
    if named:
        return named
    return IKE_TABLE if re.fullmatch(r"(0x)?[0-9a-fA-F]{16}", row[0]) else ESP_TABLE


def _named_kind(file: Path) -> str:
    """Return which table a file's name says it is; empty if it says neither."""
    # Wireshark's own test suite keeps its tables as templates.
    name = file.name.removesuffix(".tmpl")
    return next((kind for kind in (IKE_TABLE, ESP_TABLE) if name.endswith(kind)), "")


def _read_rows(file: Path) -> Iterator[tuple[str, list[str]]]:
    try:
        if file.stat().st_size > MAX_TABLE_BYTES:
            raise InspectError(f"{file}: a key table of more than {MAX_TABLE_BYTES} bytes")
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise KeyTableError(f"{file}: not a text file") from None
    except OSError as error:
        raise InspectError(f"{file}: {error.strerror or error}") from None
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            place = f"{file}:{number}"
            try:
                row = next(csv.reader([line], skipinitialspace=True, strict=True))
            except csv.Error as error:
                raise KeyTableError(f"{place}: {error}") from None
            yield place, [item.strip() for item in row]


def _add_row(tables: KeyTables, place: str, row: Sequence[str], kind: str) -> None:
    try:
        if kind == IKE_TABLE:
            tables.ike.append(_parse_ike_row(row))
        else:
            tables.esp.append(_parse_esp_row(row))
    except (ValueError, CannotOpen) as error:
        raise KeyTableError(f"{place}: {error}") from None


# --- rows. A ValueError says what is wrong; the place is put before it above. Keys are never quoted.


def _parse_ike_row(row: Sequence[str]) -> IkeKey:
    if len(row) != _IKE_FIELDS:
        raise ValueError(f"{len(row)} fields, a row of {IKE_TABLE} has {_IKE_FIELDS}")
    spi_i, spi_r = _parse_hex(row[0], "SPIi"), _parse_hex(row[1], "SPIr")
    if len(spi_i) != 8 or len(spi_r) != 8:
        raise ValueError("an IKE SPI has 16 hex digits")
    encryption, integrity = _parse_encryption(row[4]), _parse_authentication(row[7])

    def opener(key: str, integrity_key: str, role: str) -> Opener:
        return build_opener(
            encryption,
            Secret(_parse_hex(key, f"SK_e{role}")),
            integrity,
            Secret(_parse_hex(integrity_key, f"SK_a{role}")),
        )

    return IkeKey(spi_i, spi_r, opener(row[2], row[5], "i"), opener(row[3], row[6], "r"))


def _parse_esp_row(row: Sequence[str]) -> EspKey:
    if len(row) not in _ESP_FIELDS:
        raise ValueError(f"{len(row)} fields, a row of {ESP_TABLE} has {_ESP_FIELDS[0]} or {_ESP_FIELDS[1]}")
    versions = {"ipv4": 4, "ipv6": 6, "any": 0, "*": 0}
    version = versions.get(row[0].lower())
    if version is None:
        raise ValueError(f"protocol is {row[0]!r}, it is IPv4 or IPv6")
    return EspKey(
        version=version,
        source=_parse_address(row[1], "source"),
        destination=_parse_address(row[2], "destination"),
        spi=_parse_spi(row[3]),
        is_exact_spi="*" not in row[3],
        esn=_parse_sequence_bits(row[8]) if len(row) == _ESP_FIELDS[1] else None,
        opener=build_opener(
            _parse_encryption(row[4]),
            Secret(_parse_key(row[5], "encryption key")),
            _parse_authentication(row[6]),
            Secret(_parse_key(row[7], "authentication key")),
        ),
    )


def _parse_encryption(name: str) -> Encryption:
    encryption = parse_encryption(name)
    if encryption is None:
        raise ValueError(f"encryption algorithm {name!r} is not one Wireshark has")
    return encryption


def _parse_authentication(name: str) -> Authentication:
    authentication = parse_authentication(name)
    if authentication is None:
        raise ValueError(f"integrity algorithm {name!r} is not one Wireshark has")
    return authentication


def _parse_hex(text: str, what: str) -> bytes:
    digits = text[2:] if text[:2] in ("0x", "0X") else text
    try:
        return bytes.fromhex(digits)
    except ValueError:
        raise ValueError(f"{what} is not an even number of hex digits") from None


def _parse_key(text: str, what: str) -> bytes:
    """Hex after 0x, else the characters themselves, as Wireshark has it."""
    return _parse_hex(text, what) if text[:2] in ("0x", "0X") else text.encode()


def _parse_spi(text: str) -> re.Pattern[str]:
    digits = text.lower().removeprefix("0x")
    if text.strip() == "*":
        return re.compile(r"[0-9a-f]{8}")
    if not re.fullmatch(r"[0-9a-f*]{1,8}", digits):
        raise ValueError(f"SPI is {text!r}, it is up to 8 hex digits or * after 0x")
    # In Wireshark one * stands for one digit.
    return re.compile(digits.rjust(8, "0").replace("*", "[0-9a-f]"))


def _parse_address(text: str, what: str) -> AddressPattern:
    if text in ("*", ""):
        return AddressPattern()
    if "*" not in text:
        try:
            return AddressPattern(network=ip_network(text, strict=False))
        except ValueError:
            raise ValueError(f"{what} is {text!r}, neither an address nor a pattern with *") from None
    if ":" in text:
        groups = text.lower().split(":")
        if len(groups) != 8 or not all(re.fullmatch(r"[0-9a-f*]{1,4}", group) for group in groups):
            raise ValueError(f"{what} is {text!r}: an IPv6 pattern has 8 groups of hex digits and *")
        return AddressPattern(pattern=re.compile(":".join(_group_pattern(group) for group in groups)))
    if not re.fullmatch(r"[0-9*]{1,3}(\.[0-9*]{1,3}){3}", text):
        raise ValueError(f"{what} is {text!r}: an IPv4 pattern has 4 groups of digits and *")
    return AddressPattern(pattern=re.compile(text.replace(".", r"\.").replace("*", "[0-9]{1,3}")))


def _group_pattern(group: str) -> str:
    if group == "*":
        return "[0-9a-f]{4}"
    return group.rjust(4, "0").replace("*", "[0-9a-f]")


def _parse_sequence_bits(text: str) -> bool:
    if text.startswith("64"):
        return True
    if text.startswith("32") or not text:
        return False
    raise ValueError(f"sequence number length is {text!r}, it is 32-bit or 64-bit")
