"""A wire tap that has the keys: shows every IKE message as the RFC writes it, and forges authentic ones.

```
IKE_AUTH SK {IDi, AUTH, SAi2, TSi, TSr} -->
                                        <-- IKE_AUTH SK {IDr, AUTH, SAr2, TSi, TSr}
```

Opening and sealing is done here on its own, with the cipher but without `gateway.ike.wire.protected`, so that
a mistake there cannot hide itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.ike.crypto.cipher import Cipher, build_cipher
from gateway.ike.events import IkeSaKeys
from gateway.ike.wire.header import HEADER_BYTES, ExchangeType, HeaderFlag, IkeHeader
from gateway.ike.wire.message import (
    EncryptedFragment,
    Message,
    encode_encrypted_head,
    encode_payloads,
    first_type,
    parse_message,
    parse_payloads,
)
from gateway.ike.wire.notify import NotifyType, notify_name
from gateway.ike.wire.payloads import (
    AuthPayload,
    CertPayload,
    CertreqPayload,
    DeletePayload,
    IdiPayload,
    IdrPayload,
    KePayload,
    NoncePayload,
    NotifyPayload,
    Payload,
    SaPayload,
    TsiPayload,
    TsrPayload,
    VendorIdPayload,
)
from gateway.ipsec.proposal import ProtocolId

SILENT_NOTIFIES = frozenset(
    {
        NotifyType.NAT_DETECTION_SOURCE_IP,
        NotifyType.NAT_DETECTION_DESTINATION_IP,
        NotifyType.INITIAL_CONTACT,
        NotifyType.ESP_TFC_PADDING_NOT_SUPPORTED,
        NotifyType.NON_FIRST_FRAGMENTS_ALSO,
        NotifyType.IKEV2_FRAGMENTATION_SUPPORTED,
        NotifyType.CHILDLESS_IKEV2_SUPPORTED,
        NotifyType.SIGNATURE_HASH_ALGORITHMS,
        NotifyType.SUPPORTED_AUTH_METHODS,
    }
)
"""Status notifies that are in nearly every exchange and say nothing in a story."""


@dataclass(frozen=True, slots=True)
class Opened:
    """One IKE message, decrypted."""

    message: Message
    payloads: tuple[Payload, ...]
    """Of the message, or of its SK payload; none of a fragment."""

    @property
    def is_protected(self) -> bool:
        return self.message.protected is not None

    def notify(self, notify_type: NotifyType) -> NotifyPayload | None:
        """Return the first notify of this type."""
        return next(
            (p for p in self.payloads if isinstance(p, NotifyPayload) and p.notify_type == notify_type), None
        )

    def __str__(self) -> str:
        """Return the message as the RFC writes it, without arrow."""
        header, protected = self.message.header, self.message.protected
        if isinstance(protected, EncryptedFragment):
            exchange = ExchangeType(header.exchange_type).name
            return f"{exchange} SKF {protected.number}/{protected.total}"
        names = [
            name for payload in self.payloads if (name := _name(payload, header)) and not _is_silent(payload)
        ]
        exchange = ExchangeType(header.exchange_type).name
        return f"{exchange} {'SK ' if self.is_protected else ''}{{{', '.join(names)}}}"


class Keys:
    """The two ciphers of one IKE SA."""

    def __init__(self, keys: IkeSaKeys) -> None:
        proposal = keys.proposal
        self.secrets = (keys.sk_ei, keys.sk_er, keys.sk_ai, keys.sk_ar)
        self._from_initiator = build_cipher(proposal.encr, keys.sk_ei, proposal.integ, keys.sk_ai)
        self._from_responder = build_cipher(proposal.encr, keys.sk_er, proposal.integ, keys.sk_ar)

    def open(self, message: Message) -> tuple[Payload, ...]:
        """Verify and decrypt an SK payload; of a fragment, only verify it."""
        octets = self.open_octets(message)
        assert message.protected is not None
        if isinstance(message.protected, EncryptedFragment):
            return ()
        return parse_payloads(message.protected.first_payload, octets)

    def open_octets(self, message: Message) -> bytes:
        """Verify and decrypt what is in SK or in one SKF, padding removed."""
        protected = message.protected
        assert protected is not None
        cipher = self._cipher(message.header)
        iv, sealed = protected.body[: cipher.iv_bytes], protected.body[cipher.iv_bytes :]
        plaintext = cipher.open(iv, message.datagram[: protected.associated_bytes], sealed)
        return plaintext[: -1 - plaintext[-1]]

    def seal(self, header: IkeHeader, payloads: Sequence[Payload]) -> bytes:
        """Return an authentic message with these payloads."""
        return self.seal_octets(header, first_type(payloads), encode_payloads(payloads))

    def seal_octets(
        self, header: IkeHeader, first_payload: int, octets: bytes, fragment: tuple[int, int] | None = None
    ) -> bytes:
        """Return an authentic message with this inside, whatever it is; or one fragment, number and total."""
        cipher = self._cipher(header)
        padding = -(len(octets) + 1) % cipher.block_bytes
        plaintext = octets + bytes(padding) + bytes((padding,))
        # Never used by a core: those count from 0 or draw from their entropy.
        iv = b"\xf0" * cipher.iv_bytes
        size = cipher.iv_bytes + len(plaintext) + cipher.icv_bytes
        head = encode_encrypted_head(header, first_payload=first_payload, body_bytes=size, fragment=fragment)
        return head + iv + cipher.seal(iv, head, plaintext)

    def _cipher(self, header: IkeHeader) -> Cipher:
        return self._from_initiator if header.from_initiator else self._from_responder


class Tap:
    """Knows the keys of every IKE SA that told them, and reads along."""

    def __init__(self) -> None:
        self._keys: dict[tuple[bytes, bytes], Keys] = {}
        self.is_strict = True
        """Whether both sides must have the same keys; not so where a test forges one side's messages."""

    def learn(self, spi_i: bytes, spi_r: bytes, keys: IkeSaKeys) -> None:
        """Take the keys of an IKE SA; what the second side tells must be what the first did."""
        new = Keys(keys)
        known = self._keys.setdefault((spi_i, spi_r), new)
        same = known.secrets == new.secrets
        assert same or not self.is_strict, f"both sides derive other keys for {spi_i.hex()}_{spi_r.hex()}"

    def keys(self, spi_i: bytes, spi_r: bytes) -> Keys:
        """Return the keys of an IKE SA."""
        return self._keys[spi_i, spi_r]

    def open(self, datagram: bytes) -> Opened:
        """Take a datagram apart, decrypted where it is protected."""
        message = parse_message(datagram)
        if message.protected is None:
            return Opened(message, message.payloads)
        header = message.header
        return Opened(message, self._keys[header.spi_i, header.spi_r].open(message))


def flip(datagram: bytes, position: int) -> bytes:
    """Return the datagram with the lowest bit of one octet changed."""
    return datagram[:position] + bytes((datagram[position] ^ 1,)) + datagram[position + 1 :]


def with_message_id(datagram: bytes, message_id: int) -> bytes:
    """Return the datagram with another Message ID, not made authentic again."""
    return datagram[: HEADER_BYTES - 8] + message_id.to_bytes(4) + datagram[HEADER_BYTES - 4 :]


def request_header(*, spi_i: bytes, spi_r: bytes, exchange: ExchangeType, message_id: int) -> IkeHeader:
    """Return the header of a request by the original initiator."""
    return IkeHeader(
        spi_i=spi_i,
        spi_r=spi_r,
        exchange_type=exchange,
        flags=int(HeaderFlag.INITIATOR),
        message_id=message_id,
    )


def _is_silent(payload: Payload) -> bool:
    if isinstance(payload, NotifyPayload):
        return payload.notify_type in SILENT_NOTIFIES
    return isinstance(payload, VendorIdPayload)


def _name(payload: Payload, header: IkeHeader) -> str:
    """Return the RFC's abbreviation (RFC 7296 §1.2, §1.3)."""
    side = "r" if header.is_response else "i"
    match payload:
        case SaPayload():
            number = {ExchangeType.IKE_SA_INIT: "1", ExchangeType.IKE_AUTH: "2"}.get(header.exchange_type)
            return f"SA{side}{number}" if number else "SA"
        case KePayload():
            return f"KE{side}"
        case NoncePayload():
            return f"N{side}"
        case IdiPayload():
            return "IDi"
        case CertPayload():
            return "CERT"
        case CertreqPayload():
            return "CERTREQ"
        case IdrPayload():
            return "IDr"
        case AuthPayload():
            return "AUTH"
        case TsiPayload():
            return "TSi"
        case TsrPayload():
            return "TSr"
        case DeletePayload():
            return f"D({ProtocolId(payload.protocol).name})"
        case NotifyPayload():
            return f"N({notify_name(payload.notify_type)})"
        case _:
            return type(payload).__name__.removesuffix("Payload")
