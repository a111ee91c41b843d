"""SAs, packets and suites that the tests of the ESP core share."""

import hashlib
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from gateway.esp.inbound import InboundSa, OuterHeader
from gateway.esp.outbound import OutboundSa
from gateway.esp.transport import with_payload
from gateway.esp.tunnel import make_bare_header
from gateway.ipsec.algorithms import Encr, Integ
from gateway.ipsec.sa import Direction, Mode, SecurityAssociation, Spi, UdpEncapsulation
from gateway.ipsec.secret import Secret
from gateway.ipsec.selectors import TrafficSelector

SPI = Spi(0x1000ABCD)
OUTER = {4: ("192.0.2.1", "192.0.2.2"), 6: ("2001:db8:ffff::1", "2001:db8:ffff::2")}
INNER = {4: ("10.1.0.1", "10.2.0.1"), 6: ("2001:db8:1::1", "2001:db8:2::1")}
ENCAPSULATION = UdpEncapsulation(source_port=4500, destination_port=4500)


@dataclass(frozen=True)
class Suite:
    """One suite as IKE would negotiate it."""

    name: str
    encryption: Encr
    key_bits: int
    salt_bytes: int = 0
    integrity: Integ = Integ.NONE
    integrity_bytes: int = 0

    @property
    def encryption_key(self) -> bytes:
        return material(f"{self.name} encryption", self.key_bits // 8 + self.salt_bytes)

    @property
    def integrity_key(self) -> bytes:
        return material(f"{self.name} integrity", self.integrity_bytes)

    def __str__(self) -> str:
        return self.name


def material(label: str, count: int) -> bytes:
    """Return reproducible bytes: another label, other bytes."""
    return hashlib.shake_128(label.encode()).digest(count)


_MACS = {
    "sha1": (Integ.HMAC_SHA1_96, 20),
    "sha256": (Integ.HMAC_SHA2_256_128, 32),
    "sha384": (Integ.HMAC_SHA2_384_192, 48),
    "sha512": (Integ.HMAC_SHA2_512_256, 64),
    "aesxcbc": (Integ.AES_XCBC_96, 16),
    "aescmac": (Integ.AES_CMAC_96, 16),
}
SUITES = (
    *(Suite(f"aes{bits}gcm16", Encr.AES_GCM_16, bits, 4) for bits in (128, 192, 256)),
    *(Suite(f"aes{bits}gcm12", Encr.AES_GCM_12, bits, 4) for bits in (128, 192, 256)),
    *(Suite(f"aes{bits}gcm8", Encr.AES_GCM_8, bits, 4) for bits in (128, 192, 256)),
    *(Suite(f"aes{bits}ccm16", Encr.AES_CCM_16, bits, 3) for bits in (128, 192, 256)),
    *(Suite(f"aes{bits}ccm12", Encr.AES_CCM_12, bits, 3) for bits in (128, 192, 256)),
    *(Suite(f"aes{bits}ccm8", Encr.AES_CCM_8, bits, 3) for bits in (128, 192, 256)),
    *(Suite(f"aes{bits}gmac", Encr.NULL_AUTH_AES_GMAC, bits, 4) for bits in (128, 192, 256)),
    Suite("chacha20poly1305", Encr.CHACHA20_POLY1305, 256, 4),
    *(
        Suite(f"aes{bits}-{mac}", Encr.AES_CBC, bits, 0, *_MACS[mac])
        for bits in (128, 192, 256)
        for mac in _MACS
    ),
    *(
        Suite(f"aes{bits}ctr-{mac}", Encr.AES_CTR, bits, 4, *_MACS[mac])
        for bits in (128, 192, 256)
        for mac in _MACS
    ),
    *(Suite(f"null-{mac}", Encr.NULL, 0, 0, *_MACS[mac]) for mac in _MACS),
)
BY_NAME = {suite.name: suite for suite in SUITES}
GCM = BY_NAME["aes256gcm16"]
CBC = BY_NAME["aes256-sha256"]


def make_entropy(seed: str = "entropy") -> Any:
    """Return an endless, reproducible source of bytes."""
    count = 0

    def entropy(size: int) -> bytes:
        nonlocal count
        count += 1
        return material(f"{seed} {count}", size)

    return entropy


def selectors(*texts: str) -> tuple[TrafficSelector, ...]:
    return tuple(TrafficSelector.parse(text) for text in texts)


ANY = selectors("0.0.0.0/0", "::/0")


def association(
    direction: Direction,
    suite: Suite = GCM,
    *,
    mode: Mode = Mode.TUNNEL,
    outer: int = 4,
    **changes: Any,
) -> SecurityAssociation:
    source, destination = OUTER[outer]
    fields: dict[str, Any] = {
        "spi": SPI,
        "direction": direction,
        "mode": mode,
        "source": ip_address(source),
        "destination": ip_address(destination),
        "encryption": suite.encryption,
        "encryption_key": Secret(suite.encryption_key),
        "key_bits": suite.key_bits,
        "integrity": suite.integrity,
        "integrity_key": Secret(suite.integrity_key),
        "local_ts": ANY,
        "remote_ts": ANY,
    }
    return SecurityAssociation(**(fields | changes))


def outbound(suite: Suite = GCM, *, next_sequence: int = 1, df: Any = None, **changes: Any) -> OutboundSa:
    sa = association(Direction.OUTBOUND, suite, **changes)
    return OutboundSa(sa, entropy=make_entropy(), next_sequence=next_sequence, df=df)


def inbound(suite: Suite = GCM, **changes: Any) -> InboundSa:
    return InboundSa(association(Direction.INBOUND, suite, **changes))


def ip_packet(
    version: int = 4,
    payload: bytes = b"",
    *,
    protocol: int = 253,
    tos: int = 0,
    ttl: int = 64,
    addresses: dict[int, tuple[str, str]] | None = None,
) -> bytes:
    """Return an IP packet; protocol 253 is for experiments (RFC 3692)."""
    source, destination = (addresses or INNER)[version]
    header = make_bare_header(ip_address(source).packed, ip_address(destination).packed, tos, ttl)
    return with_payload(header, protocol, payload)


def outer_header(version: int = 4, **changes: Any) -> OuterHeader:
    source, destination = OUTER[version]
    return OuterHeader(ip_address(source).packed, ip_address(destination).packed)._replace(**changes)


def esp_of(packet: bytes) -> bytes:
    """Return the ESP packet inside an outer packet without UDP."""
    return packet[20:] if packet[0] >> 4 == 4 else packet[40:]
