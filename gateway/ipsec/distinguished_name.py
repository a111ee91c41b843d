"""Distinguished names: text to DER, DER to text, and comparison (RFC 4514, RFC 5280 §4.1.2.4, §7.1).

Only what identities need: the RDNs keep the order in which they are written (as strongSwan and OpenSSL
print them, not reversed as in RFC 4514), and a value is one of the string types of X.520.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from gateway.ipsec.errors import VocabularyError

_SEQUENCE: Final = 0x30
_SET: Final = 0x31
_OID: Final = 0x06
_UTF8: Final = 0x0C
_PRINTABLE: Final = 0x13
_T61: Final = 0x14
_IA5: Final = 0x16
_UNIVERSAL: Final = 0x1C
_BMP: Final = 0x1E

_CODECS: Final = {
    _UTF8: "utf-8",
    _PRINTABLE: "ascii",
    _T61: "latin-1",
    _IA5: "ascii",
    _UNIVERSAL: "utf-32-be",
    _BMP: "utf-16-be",
}
_PRINTABLE_TEXT: Final = re.compile(r"[A-Za-z0-9 '()+,\-./:=?]*")

_OIDS: Final = {
    "CN": "2.5.4.3",
    "SN": "2.5.4.4",
    "serialNumber": "2.5.4.5",
    "C": "2.5.4.6",
    "L": "2.5.4.7",
    "ST": "2.5.4.8",
    "STREET": "2.5.4.9",
    "O": "2.5.4.10",
    "OU": "2.5.4.11",
    "T": "2.5.4.12",
    "D": "2.5.4.13",
    "postalCode": "2.5.4.17",
    "N": "2.5.4.41",
    "G": "2.5.4.42",
    "I": "2.5.4.43",
    "dnQualifier": "2.5.4.46",
    "E": "1.2.840.113549.1.9.1",
    "unstructuredName": "1.2.840.113549.1.9.2",
    "unstructuredAddress": "1.2.840.113549.1.9.8",
    "UID": "0.9.2342.19200300.100.1.1",
    "DC": "0.9.2342.19200300.100.1.25",
}
_ALIASES: Final = {
    "s": "ST",
    "surname": "SN",
    "givenname": "G",
    "initials": "I",
    "title": "T",
    "description": "D",
    "name": "N",
    "email": "E",
    "emailaddress": "E",
    "userid": "UID",
    "street": "STREET",
}
_NAME_OF: Final = {oid: name for name, oid in _OIDS.items()}
_LOOKUP: Final = {**{n.lower(): o for n, o in _OIDS.items()}, **{a: _OIDS[n] for a, n in _ALIASES.items()}}
_IA5_ONLY: Final = frozenset({_OIDS["E"], _OIDS["DC"]})


@dataclass(frozen=True, slots=True)
class Attribute:
    """One type and value: the OID, the ASN.1 tag of the string, and its contents."""

    oid: str
    tag: int
    value: bytes

    def text(self) -> str:
        """Return the value as text.

        Raises:
            ValueError: It is not a string, or not a valid one.
        """
        if self.tag not in _CODECS:
            raise ValueError("not a string type")
        return self.value.decode(_CODECS[self.tag])


Rdn = tuple[Attribute, ...]
"""One relative distinguished name: mostly one attribute, several when joined by `+`."""


# --- text to DER --------------------------------------------------------------------------------


def encode(text: str) -> bytes:
    """Return the DER of a DN such as `C=FR, O=Example, CN=gw` or `/C=FR/O=Example/CN=gw`.

    A comma, plus sign, quote or backslash inside a value is written with a backslash before it, or the
    value in quotes; `#` and hex digits give a value in DER (RFC 4514 §2.4).

    Raises:
        VocabularyError: The text is no DN; `column` is the offset of the part that is wrong.
    """
    separator = "/" if text.startswith("/") else ","
    start = 1 if separator == "/" else 0
    rdns = b""
    for column, part in _split(text, separator, start):
        attributes = sorted(_encode_attribute(a, at) for at, a in _split(part, "+", 0, base=column))
        rdns += _tlv(_SET, b"".join(attributes))
    return _tlv(_SEQUENCE, rdns)


def _split(text: str, separator: str, start: int, *, base: int = 0) -> Iterator[tuple[int, str]]:
    """Yield the parts between separators that are neither escaped nor quoted, with their columns."""
    quoted = escaped = False
    begin = start
    for i in range(start, len(text)):
        char = text[i]
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == '"':
            quoted = not quoted
        elif char == separator and not quoted:
            yield base + begin, text[begin:i]
            begin = i + 1
    if quoted:
        raise VocabularyError("a quote in the DN is not closed", column=base + begin)
    yield base + begin, text[begin:]


def _encode_attribute(text: str, column: int) -> bytes:
    name, equals, value = text.partition("=")
    name = name.strip()
    if not equals:
        raise VocabularyError(f"{text.strip()!r} in the DN is not of the form TYPE=value", column=column)
    oid = _LOOKUP.get(name.lower()) or (name if re.fullmatch(r"[0-2](\.(0|[1-9][0-9]*))+", name) else None)
    if oid is None:
        raise VocabularyError(
            f"{name!r} is not an attribute type of DNs; known are {', '.join(_OIDS)}, or an OID in digits",
            column=column,
        )
    return _tlv(_SEQUENCE, _tlv(_OID, _encode_oid(oid)) + _encode_value(oid, value.strip(), column))


def _encode_value(oid: str, value: str, column: int) -> bytes:
    if re.fullmatch("#([0-9A-Fa-f]{2})+", value):
        return bytes.fromhex(value[1:])
    if len(value) >= 2 and value[0] == value[-1] == '"':
        value = value[1:-1]
    text = _unescape(value, column)
    if oid in _IA5_ONLY and text.isascii():
        return _tlv(_IA5, text.encode())
    if _PRINTABLE_TEXT.fullmatch(text):
        return _tlv(_PRINTABLE, text.encode())
    return _tlv(_UTF8, text.encode())


def _unescape(text: str, column: int) -> str:
    def replace(match: re.Match[str]) -> str:
        pairs, single = match[1], match[2]
        if pairs:
            try:
                return bytes.fromhex(pairs.replace("\\", "")).decode()
            except ValueError:
                raise VocabularyError(f"{pairs} in the DN is not UTF-8", column=column) from None
        return single

    if re.search(r"(?<!\\)(?:\\\\)*\\$", text):
        raise VocabularyError("a backslash at the end of a DN value escapes nothing", column=column)
    return re.sub(r"((?:\\[0-9A-Fa-f]{2})+)|\\(.)", replace, text, flags=re.DOTALL)


def _encode_oid(oid: str) -> bytes:
    first, second, *rest = (int(arc) for arc in oid.split("."))
    return b"".join(_encode_arc(arc) for arc in (first * 40 + second, *rest))


def _encode_arc(arc: int) -> bytes:
    digits = [arc & 0x7F]
    while arc := arc >> 7:
        digits.append(arc & 0x7F | 0x80)
    return bytes(reversed(digits))


def _tlv(tag: int, contents: bytes) -> bytes:
    size = len(contents)
    if size < 0x80:
        return bytes((tag, size)) + contents
    octets = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((tag, 0x80 | len(octets))) + octets + contents


# --- DER to text --------------------------------------------------------------------------------


def decode(der: bytes) -> tuple[Rdn, ...]:
    """Return the RDNs of a DN.

    Raises:
        ValueError: The bytes are not the DER of a DN.
    """
    tag, name, end = _read(der, 0)
    if tag != _SEQUENCE or end != len(der):
        raise ValueError("a DN is one SEQUENCE")
    rdns = []
    for rdn_tag, rdn in _elements(name):
        if rdn_tag != _SET:
            raise ValueError("an RDN is a SET")
        attributes = tuple(_decode_attribute(t, body) for t, body in _elements(rdn))
        if not attributes:
            raise ValueError("an RDN is not empty")
        rdns.append(attributes)
    return tuple(rdns)


def decode_text(der: bytes) -> str:
    """Return a DN as text, in the form `encode` reads.

    Raises:
        ValueError: The bytes are not the DER of a DN.
    """
    return ", ".join("+".join(map(_format_attribute, rdn)) for rdn in decode(der))


def _decode_attribute(tag: int, contents: bytes) -> Attribute:
    elements = list(_elements(contents))
    if tag != _SEQUENCE or len(elements) != 2 or elements[0][0] != _OID:
        raise ValueError("an attribute is a SEQUENCE of OID and value")
    return Attribute(_decode_oid(elements[0][1]), *elements[1])


def _elements(contents: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset < len(contents):
        tag, body, offset = _read(contents, offset)
        yield tag, body


def _read(data: bytes, offset: int) -> tuple[int, bytes, int]:
    """Return tag, contents and the offset behind one element."""
    header = data[offset : offset + 2]
    if len(header) < 2:
        raise ValueError("truncated")
    tag, size = header
    offset += 2
    if size >= 0x80:
        count = size & 0x7F
        octets = data[offset : offset + count]
        if not 1 <= count <= 4 or len(octets) < count:
            raise ValueError("bad length")
        size = int.from_bytes(octets)
        offset += count
    contents = data[offset : offset + size]
    if len(contents) < size:
        raise ValueError("truncated")
    return tag, contents, offset + size


def _decode_oid(data: bytes) -> str:
    arcs, arc = [], 0
    for octet in data:
        arc = arc << 7 | octet & 0x7F
        if not octet & 0x80:
            arcs.append(arc)
            arc = 0
    if not arcs or data[-1] & 0x80:
        raise ValueError("bad OID")
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))


def _format_attribute(attribute: Attribute) -> str:
    name = _NAME_OF.get(attribute.oid, attribute.oid)
    try:
        text = attribute.text()
    except ValueError:
        return f"{name}=#{_tlv(attribute.tag, attribute.value).hex()}"
    escaped = re.sub(r'([,+"\\/=#;<>])', r"\\\1", text)
    if text != text.strip() or not text.isprintable():
        escaped = "".join(f"\\{octet:02x}" for octet in text.encode())
    return f"{name}={escaped}"


# --- comparison ---------------------------------------------------------------------------------


def match(pattern: bytes, name: bytes) -> int | None:
    """Compare two DNs RDN by RDN; a value `*` in `pattern` takes any.

    Strings compare without case and with runs of spaces as one, whatever their ASN.1 type (RFC 5280 §7.1).

    Returns:
        The number of wildcards that were needed, or `None` if they differ or one is not a DN.
    """
    try:
        wanted, given = decode(pattern), decode(name)
    except ValueError:
        return None
    if len(wanted) != len(given):
        return None
    wildcards = 0
    for wanted_set, given_set in zip(wanted, given, strict=True):
        # DER sorts a SET by its encoding, which depends on the string types.
        wanted_rdn, given_rdn = sorted(wanted_set, key=_by_oid), sorted(given_set, key=_by_oid)
        if [a.oid for a in wanted_rdn] != [a.oid for a in given_rdn]:
            return None
        for wanted_attribute, given_attribute in zip(wanted_rdn, given_rdn, strict=True):
            if wanted_attribute.value == b"*":
                wildcards += 1
            elif _comparable(wanted_attribute) != _comparable(given_attribute):
                return None
    return wildcards


def equal(name: bytes, other: bytes) -> bool:
    """Say whether two DNs are the same name, as `match` compares them but with no wildcard in either."""
    try:
        return _comparable_name(name) == _comparable_name(other)
    except ValueError:
        return False


def is_below(name: bytes, base: bytes) -> bool:
    """Say whether a DN begins with all RDNs of another (RFC 5280 §4.2.1.10, directoryName)."""
    try:
        wanted, given = _comparable_name(base), _comparable_name(name)
    except ValueError:
        return False
    return given[: len(wanted)] == wanted


def _comparable_name(name: bytes) -> list[list[tuple[str, tuple[int, bytes] | str]]]:
    """Return a DN in a form that is equal for equal names.

    Raises:
        ValueError: The bytes are not the DER of a DN.
    """
    return [sorted(((a.oid, _comparable(a)) for a in rdn), key=repr) for rdn in decode(name)]


def _by_oid(attribute: Attribute) -> str:
    return attribute.oid


def _comparable(attribute: Attribute) -> tuple[int, bytes] | str:
    try:
        return " ".join(attribute.text().casefold().split())
    except ValueError:
        return attribute.tag, attribute.value
