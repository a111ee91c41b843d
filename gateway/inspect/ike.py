"""IKE messages of a capture: decoded, and with keys opened, fragments put together."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from gateway.ike.crypto.cipher import IntegrityFailed
from gateway.ike.errors import PeerError
from gateway.ike.wire.header import MAJOR_VERSION, ExchangeType, HeaderFlag, IkeHeader, parse_header
from gateway.ike.wire.message import EncryptedFragment, EncryptedPayload, Message, parse_message
from gateway.ike.wire.payloads import Payload
from gateway.ike.wire.protected import Plaintext, strip_padding
from gateway.ike.wire.reassembly import Reassembly
from gateway.inspect.describe import Description, describe_payload, enum_name
from gateway.inspect.keys import IkeKey
from gateway.inspect.opening import Opened, Opener
from gateway.inspect.verification import Verifier

MAX_REASSEMBLIES: Final = 1024
"""Messages whose fragments are awaited; the oldest is forgotten first."""

_V1_EXCHANGES: Final = {
    1: "Base",
    2: "Identity Protection (Main Mode)",
    3: "Authentication Only",
    4: "Aggressive",
    5: "Informational",
    6: "Transaction (Config Mode)",
    32: "Quick Mode",
    33: "New Group Mode",
}
_V1_ENCRYPTED: Final = 0x01


@dataclass(slots=True, kw_only=True)
class IkeFindings:
    """What was learnt of one message."""

    header: IkeHeader | None = None
    exchange: str = ""
    flags: list[str] = field(default_factory=list)
    payloads: list[Description] = field(default_factory=list)
    """Outside the Encrypted payload."""
    inner: list[Description] = field(default_factory=list)
    """Inside; of a fragmented message with the fragment that completes it."""
    fragment: tuple[int, int] | None = None
    """Number and total."""
    is_protected: bool = False
    is_decrypted: bool = False
    is_verified: bool = False
    has_failed: bool = False
    """There was a key, and the message did not open with it or makes no sense inside."""
    note: str = ""
    """What is worth knowing and no failure: no key, IKEv1, ..."""
    problem: str = ""
    """Why the message is malformed, or did not open with a key that should have."""


class IkeInspector:
    """Reads the IKE messages of one capture in order."""

    def __init__(self, keys: Sequence[IkeKey], verifier: Verifier | None = None) -> None:
        """Take what is known.

        Args:
            keys: Of IKE SAs.
            verifier: Follows the exchanges and finds keys on its own.
        """
        self._verifier = verifier
        self._keys: dict[tuple[bytes, bytes], list[IkeKey]] = {}
        self._add_keys(keys)
        self._reassemblies: OrderedDict[tuple[bytes, bytes, int, int], Reassembly] = OrderedDict()

    def inspect(self, datagram: bytes) -> IkeFindings:
        """Decode one message, and open it if there is a key for its SPIs."""
        findings = IkeFindings()
        try:
            header = parse_header(datagram)
            findings.header = header
            if header.major_version == MAJOR_VERSION:
                self._inspect_v2(datagram, findings)
            else:
                _inspect_other_version(header, findings)
        except PeerError as error:
            findings.problem = str(error)
        return findings

    def _inspect_v2(self, datagram: bytes, findings: IkeFindings) -> None:
        header = parse_header(datagram)
        findings.exchange = enum_name(ExchangeType, header.exchange_type)
        findings.flags = [
            flag.name or ""
            for flag in (HeaderFlag.INITIATOR, HeaderFlag.VERSION, HeaderFlag.RESPONSE)
            if header.flags & flag
        ]
        message = parse_message(datagram)
        findings.payloads = [describe_payload(payload) for payload in message.payloads]
        protected = message.protected
        if protected is None:
            self._verify(message, message.payloads)
            return
        findings.is_protected = True
        if isinstance(protected, EncryptedFragment):
            findings.fragment = (protected.number, protected.total)
        opened = self._open(message, protected, findings)
        if opened is None:
            return
        try:
            payloads = self._payloads(header, protected, opened)
        except PeerError:
            findings.has_failed = True
            # Without an ICV, nonsense is the only sign of a wrong key.
            findings.is_decrypted = opened.is_verified
            raise
        findings.inner = [describe_payload(payload) for payload in payloads]
        self._verify(message, payloads)

    def _verify(self, message: Message, payloads: tuple[Payload, ...]) -> None:
        """Let the verifier have a message, and take the keys that it finds."""
        if self._verifier is not None:
            self._verifier.take(message.header, payloads, message.datagram)
            self._add_keys(self._verifier.drain_ike_keys())

    def _add_keys(self, keys: Sequence[IkeKey]) -> None:
        for key in keys:
            self._keys.setdefault((key.spi_i, key.spi_r), []).append(key)

    def _open(
        self, message: Message, protected: EncryptedPayload | EncryptedFragment, findings: IkeFindings
    ) -> Opened | None:
        header = message.header
        keys = self._keys.get((header.spi_i, header.spi_r), [])
        if not keys:
            findings.note = "no key for these SPIs"
            return None
        # IKE_INTERMEDIATE changes the keys and not the SPIs (RFC 9370 §2.2.2): several rows may fit.
        for key in keys:
            opener = key.from_initiator if header.from_initiator else key.from_responder
            opened = _try(opener, message, protected, findings)
            if opened is not None:
                findings.is_decrypted = True
                findings.is_verified = opened.is_verified
                findings.problem = ""
                return opened
        findings.has_failed = True
        return None

    def _payloads(
        self, header: IkeHeader, protected: EncryptedPayload | EncryptedFragment, opened: Opened
    ) -> tuple[Payload, ...]:
        plaintext = Plaintext(protected.first_payload, strip_padding(opened.padded))
        if isinstance(protected, EncryptedPayload):
            return plaintext.payloads()
        key = (header.spi_i, header.spi_r, header.message_id, header.flags)
        reassembly = self._reassemblies.setdefault(key, Reassembly())
        while len(self._reassemblies) > MAX_REASSEMBLIES:
            self._reassemblies.popitem(last=False)
        whole = reassembly.add(protected, plaintext)
        return () if whole is None else whole.payloads()


def _try(
    opener: Opener,
    message: Message,
    protected: EncryptedPayload | EncryptedFragment,
    findings: IkeFindings,
) -> Opened | None:
    try:
        return opener.open(message.datagram[: protected.associated_bytes], protected.body)
    except IntegrityFailed as error:
        findings.problem = f"does not open with the key for its SPIs: {error}"
        return None


def _inspect_other_version(header: IkeHeader, findings: IkeFindings) -> None:
    if header.major_version != 1:
        findings.note = f"IKE version {header.major_version}.{header.minor_version}, not decoded"
        return
    findings.exchange = _V1_EXCHANGES.get(header.exchange_type, str(header.exchange_type))
    findings.is_protected = bool(header.flags & _V1_ENCRYPTED)
    findings.flags = ["ENCRYPTION"] if findings.is_protected else []
    findings.note = "IKEv1, header only" + (", not decrypted" if findings.is_protected else "")
