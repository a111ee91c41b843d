"""ESP and AH packets of a capture: decoded, and with keys opened (RFC 4303, RFC 4302)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.ike.crypto.cipher import IntegrityFailed
from gateway.inspect.describe import describe_inner, protocol_name
from gateway.inspect.keys import EspKey
from gateway.inspect.opening import Opened, Opener
from gateway.inspect.packet import Found, IpAddress

MAX_FLOWS: Final = 65536
"""SPIs with addresses whose rows are remembered."""
_HEADER_BYTES: Final = 8


@dataclass(slots=True, kw_only=True)
class EspFindings:
    """What was learnt of one packet."""

    spi: int = 0
    sequence: int = 0
    """The 32 bits that are sent."""
    is_esn: bool = False
    """Verified with extended sequence numbers, the high half 0."""
    next_header: int | None = None
    inner: str = ""
    pad_bytes: int = 0
    is_decrypted: bool = False
    is_verified: bool = False
    has_failed: bool = False
    """There was a key, and the packet did not open with it or makes no sense inside."""
    note: str = ""
    problem: str = ""


class EspInspector:
    """Reads the ESP packets of one capture."""

    def __init__(self, keys: Sequence[EspKey]) -> None:
        self._keys = keys
        self._known: dict[tuple[IpAddress, IpAddress, int], tuple[list[EspKey], bool]] = {}

    def inspect(self, found: Found) -> EspFindings:
        """Decode one packet, and open it if there is a key for it."""
        findings = EspFindings()
        if len(found.data) < _HEADER_BYTES:
            findings.problem = f"{len(found.data)} bytes are less than an ESP header"
            return findings
        findings.spi = int.from_bytes(found.data[:4], "big")
        findings.sequence = int.from_bytes(found.data[4:8], "big")
        flow = (found.source, found.destination, findings.spi)
        if flow not in self._known:
            if len(self._known) == MAX_FLOWS:
                self._known.clear()
            self._known[flow] = self._candidates(found, findings.spi)
        keys, is_sure = self._known[flow]
        if not keys:
            findings.note = "no key for this SPI and these addresses" if self._keys else "no key"
            return findings
        for key in keys:
            if _open(key, found.data, findings):
                return findings
        findings.has_failed = is_sure
        if not is_sure:
            # The SPI alone is no proof that the key is this packet's.
            findings.note = "no key for these addresses; one for this SPI does not fit"
            findings.problem = ""
        return findings

    def _candidates(self, found: Found, spi: int) -> tuple[list[EspKey], bool]:
        """Return the rows to try, and whether they surely mean this packet."""
        keys = [key for key in self._keys if key.matches(found.source, found.destination, spi)]
        if keys:
            return keys, True
        # Behind a NAT the table has other addresses than the capture: the SPI may do.
        return [key for key in self._keys if key.is_exact_spi and key.matches_spi(spi)], False


def _open(key: EspKey, packet: bytes, findings: EspFindings) -> bool:
    """Try one row; without ESN first, unless the table says there is ESN."""
    error: IntegrityFailed | None = None
    for esn in (True,) if key.esn else (False,) if key.esn is False else (False, True):
        try:
            opened = _open_once(key.opener, packet, esn=esn)
        except IntegrityFailed as failed:
            error = error or failed
            continue
        findings.is_esn = esn
        findings.is_verified = opened.is_verified
        findings.problem = ""
        _read_trailer(opened.padded, findings)
        return True
    findings.problem = f"does not open with the key for SPI {findings.spi:08x}: {error}"
    return False


def _open_once(opener: Opener, packet: bytes, *, esn: bool) -> Opened:
    """Open with one row.

    An AEAD has the whole 64-bit number in its associated data (RFC 4106 §5); a MAC takes the high half
    last (RFC 4303 §2.2.1).
    """
    spi, sequence, body = packet[:4], packet[4:8], packet[8:]
    high = bytes(4)
    iv = high + sequence if opener.implicit_iv else b""
    if opener.aead is not None:
        return opener.open(spi + high + sequence if esn else spi + sequence, body, iv=iv)
    return opener.open(spi + sequence, body, implicit=high if esn else b"", iv=iv)


def _read_trailer(padded: bytes, findings: EspFindings) -> None:
    """Payload | padding | Pad Length | Next Header (RFC 4303 §2)."""
    if len(padded) < 2 or padded[-2] > len(padded) - 2:
        findings.problem = "the ESP trailer is impossible: Pad Length is more than there is"
        findings.has_failed = True
        findings.is_decrypted = findings.is_verified
        return
    findings.pad_bytes = padded[-2]
    findings.next_header = padded[-1]
    data = padded[: len(padded) - 2 - padded[-2]]
    padding = padded[len(data) : -2]
    if padding != bytes(range(1, len(padding) + 1)):
        if not findings.is_verified:
            # Without an ICV, nonsense is the only sign of a wrong key.
            findings.problem = "decrypts to nonsense: the padding is not 1, 2, 3, ..."
            findings.has_failed = True
            return
        findings.note = "padding is not 1, 2, 3, ... (RFC 4303 §2.4)"
    findings.is_decrypted = True
    findings.inner = describe_inner(padded[-1], data)


def describe_ah(found: Found) -> str:
    """Return a line about an AH packet: header only, ICVs of AH are not checked."""
    data = found.data
    if len(data) < 12:
        return f"AH, {len(data)} bytes, too short"
    spi, sequence = int.from_bytes(data[4:8], "big"), int.from_bytes(data[8:12], "big")
    upper = describe_inner(data[0], data[(data[1] + 2) * 4 :])
    return f"AH SPI {spi:08x} seq {sequence} {protocol_name(data[0])}: {upper} (ICV not checked)"
