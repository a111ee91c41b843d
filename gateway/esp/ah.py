"""The Authentication Header: its layout, and its ICV (RFC 4302 §2, §3.3.3; AES-GMAC: RFC 4543 §4).

```
  0                   1                   2                   3
 | Next Header   |  Payload Len  |          RESERVED             | --- fixed part, 12 bytes
 |                 Security Parameters Index (SPI)               |
 |                    Sequence Number Field                      |
 |         [IV of AES-GMAC, 8 bytes]  ICV  [padding]             | --- ends on 4 bytes (IPv4) or 8 (IPv6)
```
Payload Len counts 32-bit words, less two. The ICV covers what `mutable` leaves of the headers before AH, AH
itself with its ICV field zero, and everything behind it; with ESN then the high half of the sequence number,
which is not sent (RFC 4302 §3.3.3.2.2).

AES-GMAC's IV is the sequence number: never twice under one key. RFC 4543 §4 puts it into the ICV field and
takes the authenticated data from RFC 4302, so that it is zero there like the rest of the field; it is part of
the nonce, and so authenticated all the same.
"""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.esp.errors import PacketDropped, UnsupportedSa
from gateway.esp.integrity import MACS, Mac, MacSuite
from gateway.esp.mutable import inbound_cover, outbound_cover
from gateway.ipsec.algorithms import Encr, Integ
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.sa import Direction, IpsecProtocol, SecurityAssociation

HEADER: Final = Struct("!BBHII")
"""Next header, payload length, reserved, SPI, and the low 32 bits of the sequence number."""
FIXED_BYTES: Final = HEADER.size
_WORD_BYTES: Final = 4
_ALIGNMENT_BYTES: Final = {4: 4, 6: 8}
"""Of the whole header, by IP version (RFC 4302 §2.2)."""
_MAX_ALIGNMENT_BYTES: Final = 8
_SEQUENCE_HIGH: Final = Struct("!I")
_IV: Final = Struct("!Q")
_GMAC_SALT_BYTES: Final = 4
_GMAC_TAG_BYTES: Final = 16


class _Authenticator(Protocol):
    """One integrity algorithm under one key; a field is IV and ICV as they stand in the header, unpadded."""

    def sign(self, sequence: int, data: bytes) -> bytes: ...

    def verifies(self, field: bytes, data: bytes) -> bool: ...


class _MacAuthenticator:
    """A MAC: the field is the ICV and nothing else."""

    __slots__ = ("_mac",)

    def __init__(self, mac: Mac) -> None:
        self._mac = mac

    def sign(self, sequence: int, data: bytes) -> bytes:  # noqa: ARG002  signature of _Authenticator
        return self._mac(data)

    def verifies(self, field: bytes, data: bytes) -> bool:
        return hmac.compare_digest(self._mac(data), field)


class _GmacAuthenticator:
    """AES-GMAC: the field is IV and tag (RFC 4543 §4)."""

    __slots__ = ("_gcm", "_salt")

    def __init__(self, material: bytes) -> None:
        self._gcm = AESGCM(material[:-_GMAC_SALT_BYTES])
        self._salt = material[-_GMAC_SALT_BYTES:]

    def sign(self, sequence: int, data: bytes) -> bytes:
        iv = _IV.pack(sequence)
        return iv + self._gcm.encrypt(self._salt + iv, b"", data)

    def verifies(self, field: bytes, data: bytes) -> bool:
        iv, tag = field[: _IV.size], field[_IV.size :]
        try:
            self._gcm.decrypt(self._salt + iv, tag, data)
        except InvalidTag:
            return False
        return True


@dataclass(frozen=True, slots=True)
class _Suite:
    make: Callable[[bytes], _Authenticator]
    key_bytes: int
    """With the salt."""
    field_bytes: int
    """IV and ICV."""


def _mac_suite(suite: MacSuite) -> _Suite:
    return _Suite(lambda key: _MacAuthenticator(suite.make(key)), suite.key_bytes, suite.icv_bytes)


def _gmac_suite(key_bytes: int) -> _Suite:
    return _Suite(_GmacAuthenticator, key_bytes + _GMAC_SALT_BYTES, _IV.size + _GMAC_TAG_BYTES)


_SUITES: Final = {
    **{integ: _mac_suite(suite) for integ, suite in MACS.items()},
    Integ.AES_128_GMAC: _gmac_suite(16),
    Integ.AES_192_GMAC: _gmac_suite(24),
    Integ.AES_256_GMAC: _gmac_suite(32),
}


def supported_integrity() -> tuple[Integ, ...]:
    """Return every integrity algorithm that AH has here."""
    return tuple(_SUITES)


def header_bytes(sa: SecurityAssociation) -> int:
    """Return the size of AH on packets of an SA: what it adds to them, besides an outer header.

    Raises:
        UnsupportedSa: No such algorithm here.
    """
    return _padded(FIXED_BYTES + _suite(sa).field_bytes, _ALIGNMENT_BYTES[sa.source.version])


def _padded(size: int, alignment: int) -> int:
    return size + -size % alignment


def _suite(sa: SecurityAssociation) -> _Suite:
    suite = _SUITES.get(sa.integrity)
    if suite is None:
        raise UnsupportedSa("integrity", f"integrity algorithm {sa.integrity!r} is not supported in AH")
    return suite


def _check_sa(sa: SecurityAssociation, direction: Direction) -> _Suite:
    if sa.direction is not direction:
        raise UnsupportedSa("direction", f"SA is {sa.direction.value}, expected {direction.value}")
    if sa.protocol is not IpsecProtocol.AH:
        raise UnsupportedSa("protocol", f"{sa.protocol.name} SA where one of AH is expected")
    if sa.encryption is not Encr.NULL or len(sa.encryption_key):
        raise UnsupportedSa("encryption", f"AH does not encrypt, and the SA has {sa.encryption.name}")
    if sa.encapsulation is not None:
        # The ICV covers the addresses, which a NAT changes (RFC 4302 §3.3.3, RFC 3948 §1).
        raise UnsupportedSa("encapsulation", "AH has no UDP encapsulation: it cannot cross a NAT, ESP can")
    suite = _suite(sa)
    if len(sa.integrity_key) != suite.key_bytes:
        raise UnsupportedSa(
            "integrity_key", f"integrity key is {len(sa.integrity_key)} bytes, expected {suite.key_bytes}"
        )
    return suite


class AhSeal:
    """Makes the headers of one outbound SA, and signs its packets."""

    __slots__ = ("_authenticator", "_empty_field", "_is_esn", "_payload_len", "_spi", "header_bytes")

    def __init__(self, sa: SecurityAssociation) -> None:
        """Choose the algorithm.

        Raises:
            UnsupportedSa: This core cannot carry the SA.
        """
        suite = _check_sa(sa, Direction.OUTBOUND)
        self._authenticator = suite.make(sa.integrity_key.reveal())
        self.header_bytes = header_bytes(sa)
        """Size of AH with ICV and padding."""
        self._empty_field = bytes(self.header_bytes - FIXED_BYTES)
        self._payload_len = self.header_bytes // _WORD_BYTES - 2
        self._spi = sa.spi
        self._is_esn = sa.esn

    def header(self, next_header: int, sequence: int) -> bytes:
        """Return AH with an ICV of zeros."""
        low = sequence & 0xFFFFFFFF
        return HEADER.pack(next_header, self._payload_len, 0, self._spi, low) + self._empty_field

    def sign(self, packet: bytes, at: int, sequence: int) -> bytes:
        """Return an IP packet with the ICV put in.

        Args:
            packet: As it goes out, but for the ICV.
            at: Where AH begins.
            sequence: Of this packet, 64 bits.

        Raises:
            PacketDropped: MALFORMED or UNSUPPORTED: options whose fate on the way cannot be told.
        """
        covered = outbound_cover(packet[:at]) + packet[at:]
        if self._is_esn:
            covered += _SEQUENCE_HIGH.pack(sequence >> 32)
        field = self._authenticator.sign(sequence, covered)
        start = at + FIXED_BYTES
        return packet[:start] + field + packet[start + len(field) :]


class AhOpen:
    """Takes the headers of one inbound SA apart, and verifies its packets."""

    __slots__ = ("_authenticator", "_empty_field", "_field_bytes", "_is_esn", "_sizes", "_spi")

    def __init__(self, sa: SecurityAssociation) -> None:
        """Choose the algorithm.

        Raises:
            UnsupportedSa: This core cannot carry the SA.
        """
        suite = _check_sa(sa, Direction.INBOUND)
        self._authenticator = suite.make(sa.integrity_key.reveal())
        self._field_bytes = suite.field_bytes
        self._empty_field = bytes(suite.field_bytes)
        least = FIXED_BYTES + suite.field_bytes
        # Linux aligns to 64 bits over IPv4 too, unless it is told `flag align4`, and RFC 4543 §4 has GMAC
        # without padding over IPv6. Padding is authenticated, whatever there is of it.
        self._sizes = frozenset(_padded(least, alignment) for alignment in _ALIGNMENT_BYTES.values())
        self._spi = sa.spi
        self._is_esn = sa.esn

    def parse(self, ah: bytes) -> tuple[int, int, int]:
        """Return next header, size of AH, and the 32 bits of the sequence number.

        Raises:
            PacketDropped: MALFORMED, or UNKNOWN_SPI.
        """
        if len(ah) < FIXED_BYTES:
            raise PacketDropped(DropReason.MALFORMED, f"{len(ah)} bytes, AH has {FIXED_BYTES} or more")
        next_header, payload_len, _, spi, sequence_low = HEADER.unpack_from(ah)
        size = (payload_len + 2) * _WORD_BYTES
        if size not in self._sizes or size > len(ah):
            raise PacketDropped(
                DropReason.MALFORMED, f"AH of {size} in {len(ah)} bytes, expected {sorted(self._sizes)}"
            )
        if spi != self._spi:
            raise PacketDropped(DropReason.UNKNOWN_SPI, f"SPI {spi:08x} on the SA {self._spi:08x}")
        return next_header, size, sequence_low

    def verify(self, header: bytes, ah: bytes, sequence: int) -> None:
        """Check the ICV.

        Args:
            header: IP header and extension headers before AH, as they arrived.
            ah: From AH to the end of the packet; `parse` took it.
            sequence: Reconstructed, 64 bits.

        Raises:
            PacketDropped: INTEGRITY; MALFORMED, UNSUPPORTED or FRAGMENT for the headers before AH.
        """
        end = FIXED_BYTES + self._field_bytes
        covered = inbound_cover(header) + ah[:FIXED_BYTES] + self._empty_field + ah[end:]
        if self._is_esn:
            covered += _SEQUENCE_HIGH.pack(sequence >> 32)
        if not self._authenticator.verifies(ah[FIXED_BYTES:end], covered):
            raise PacketDropped(DropReason.INTEGRITY, "the ICV does not verify")
