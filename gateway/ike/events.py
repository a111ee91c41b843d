"""What the core hands out: requests it waits for, and events it merely tells (frozen records).

A **request** holds its exchange until `Endpoint.resolve(request_id, result, now)` or its deadline; the
datagram that depends on it appears only then, and a refusal becomes the right notify. An **event** is
history: nobody answers it.
"""

from dataclasses import dataclass
from enum import Enum
from typing import NewType

from gateway.ike.path import Path
from gateway.ipsec.authentication import PublicKey, SignatureScheme
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.identity import Identity
from gateway.ipsec.proposal import Proposal
from gateway.ipsec.sa import SaId, SecurityAssociation, Spi
from gateway.ipsec.secret import Secret
from gateway.ipsec.selectors import TrafficSelector

RequestId = NewType("RequestId", int)
IkeSaId = NewType("IkeSaId", int)
"""Local, never reused number of an IKE SA; an IKE rekey makes a new one."""
ChildSaId = NewType("ChildSaId", int)
"""Local, never reused number of a Child SA (both directions); a rekey makes a new one."""


# --- requests -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SpiRequest:
    """An inbound ESP SPI is wanted for a Child SA. Result: `SpiAllocated` or `Refused`."""

    request_id: RequestId
    connection: str
    child: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallRequest:
    """One direction of a Child SA is to be installed. Result: `Installed` or `Refused`.

    Order (RFC 7296 §2.8, docs/architecture): the responder's answer waits for its inbound SA; at a
    rekey the outbound SA is asked for when the peer surely has its inbound one, and the DELETE of the
    old pair follows only after that.
    """

    request_id: RequestId
    sa: SecurityAssociation
    replaces: SaId | None = None
    """The SA of the same direction that this one takes over from, at a rekey."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialRequest:
    """The pre-shared key of two identities is wanted. Result: `CredentialFound` or `Refused`."""

    request_id: RequestId
    connection: str
    local_id: Identity
    remote_id: Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class SignRequest:
    """A signature by a private key of ours is wanted. Result: `Signed` or `Refused`."""

    request_id: RequestId
    connection: str
    public_key: PublicKey
    """Whose private half is to sign; one of the connection's local side."""
    scheme: SignatureScheme
    octets: bytes
    """What is signed, before any hash."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustRequest:
    """Is a peer that signs who it says it is, and by which key? Result: `Trusted` or `Refused`.

    Asked before the signature is verified: the shell has the clock, the certification authorities and the
    CRLs, and may have to ask somebody. What it answers says nothing yet about who holds the private key.
    """

    request_id: RequestId
    connection: str
    remote_id: Identity
    certificates: tuple[bytes, ...]
    """X.509 in DER as the peer sent them: its own first (RFC 7296 §3.6), then what may lead up from it."""
    public_keys: tuple[PublicKey, ...]
    """Raw public keys as the peer sent them (RFC 7670)."""


Request = SpiRequest | InstallRequest | CredentialRequest | SignRequest | TrustRequest


@dataclass(frozen=True, slots=True)
class SpiAllocated:
    """The SPI is reserved at the datapath for this Child SA."""

    spi: Spi


@dataclass(frozen=True, slots=True)
class Installed:
    """The datapath carries the SA now."""


@dataclass(frozen=True, slots=True)
class CredentialFound:
    """The pre-shared key."""

    psk: Secret


@dataclass(frozen=True, slots=True)
class Refused:
    """The request was refused; `reason` is a stable code, `detail` a sentence for the operator."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Signed:
    """The signature: PKCS #1 octets, an ECDSA-Sig-Value, or EdDSA octets."""

    signature: bytes


@dataclass(frozen=True, slots=True)
class Trusted:
    """The identity may prove itself by any of these keys."""

    public_keys: tuple[PublicKey, ...]


Result = SpiAllocated | Installed | CredentialFound | Signed | Trusted | Refused


# --- events -------------------------------------------------------------------------------------


class FailureReason(Enum):
    """Why something did not come up or was lost; the value is the stable name in API and logs."""

    NO_PROPOSAL_CHOSEN = "no_proposal_chosen"
    AUTHENTICATION_FAILED = "authentication_failed"
    TS_UNACCEPTABLE = "ts_unacceptable"
    INVALID_KE_PAYLOAD = "invalid_ke_payload"
    NO_CREDENTIAL = "no_credential"
    PEER_UNRESPONSIVE = "peer_unresponsive"
    PEER_NOTIFY = "peer_notify"
    INVALID_SYNTAX = "invalid_syntax"
    UNSUPPORTED_CRITICAL_PAYLOAD = "unsupported_critical_payload"
    NO_CONNECTION = "no_connection"
    NAME_NOT_RESOLVED = "name_not_resolved"
    DATAPATH_REFUSED = "datapath_refused"
    TIMEOUT = "timeout"
    LIFETIME_EXPIRED = "lifetime_expired"
    REPLACED = "replaced"
    DELETED_BY_PEER = "deleted_by_peer"
    DELETED_BY_OPERATOR = "deleted_by_operator"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One failure, told so that an operator need not look at the other end."""

    reason: FailureReason
    detail: str
    """A sentence: what was expected, what came, what differed."""
    notify: str = ""
    """The peer's notify by its IANA name, where one was received (or the one we sent)."""
    offered: str = ""
    """What the initiator offered, in proposal or selector strings, where that is the matter."""
    configured: str = ""
    """What the refusing side would have taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IkeSaKeys:
    """The protection keys of an IKE SA, for the Wireshark key table (opt-in) only."""

    proposal: Proposal
    sk_ei: Secret
    sk_er: Secret
    sk_ai: Secret
    sk_ar: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class IkeSaInfo:
    """What there is to know about one IKE SA."""

    ike_sa_id: IkeSaId
    connection: str
    spi_i: bytes
    spi_r: bytes
    is_initiator: bool
    state: str
    path: Path
    local_id: Identity | None
    remote_id: Identity | None
    proposal: Proposal | None
    nat_local: bool
    """A NAT hides us (RFC 7296 §2.23)."""
    nat_remote: bool
    began_at: float
    """When we sent or received its first message."""
    established_at: float | None
    rekey_at: float | None
    expires_at: float | None
    reauth_at: float | None = None
    """When both sides authenticate anew, as far as we begin it."""
    is_replaced: bool = False
    """A successor has its Child SAs (`IkeSaRekeyed`); nothing is told of its own end."""
    remote_certificates: tuple[bytes, ...] = ()
    """DER of the certificates that the peer proved itself with, if it did so with any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSaInfo:
    """What there is to know about one Child SA."""

    child_sa_id: ChildSaId
    ike_sa_id: IkeSaId
    connection: str
    child: str
    state: str
    inbound: SecurityAssociation | None
    outbound: SecurityAssociation | None
    proposal: Proposal
    local_ts: tuple[TrafficSelector, ...]
    remote_ts: tuple[TrafficSelector, ...]
    established_at: float | None
    rekey_at: float | None
    expires_at: float | None
    cpu: int | None = None
    """The CPU that it is for, beside the Child SA for all (RFC 9611); `None`: for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IkeSaEstablished:
    """Both sides are authenticated."""

    ike_sa: IkeSaInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class IkeSaKeysDerived:
    """SK_* exist (before authentication): for a key log only, if `EndpointOptions.tells_ike_keys`."""

    ike_sa: IkeSaInfo
    keys: IkeSaKeys


@dataclass(frozen=True, slots=True, kw_only=True)
class IkeSaRekeyed:
    """`new` took over all Child SAs of `old`."""

    old: IkeSaInfo
    new: IkeSaInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class IkeSaFailed:
    """An IKE SA did not come up."""

    ike_sa: IkeSaInfo
    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class IkeSaDeleted:
    """An established IKE SA ended; its Child SAs were told before, each with `ChildSaDeleted`."""

    ike_sa: IkeSaInfo
    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSaEstablished:
    """Both directions are installed."""

    child_sa: ChildSaInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSaRekeyed:
    """`new` carries the traffic; `old` is on its way out (its removal comes as `RemoveSas`)."""

    old: ChildSaInfo
    new: ChildSaInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSaFailed:
    """A Child SA did not come up (or a rekey failed: then `replaces` lives on until its hard lifetime)."""

    ike_sa_id: IkeSaId
    connection: str
    child: str
    failure: Failure
    replaces: ChildSaId | None = None
    cpu: int | None = None
    """Of one that was for a CPU: the Child SA for all goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSaDeleted:
    """A Child SA ended, other than by being rekeyed."""

    child_sa: ChildSaInfo
    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveSas:
    """The shell must take these SAs out of the datapath now; the core has already waited as needed."""

    sa_ids: tuple[SaId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PathChanged:
    """The peer's address or port changed, authenticated (NAT rebinding, RFC 7296 §2.23)."""

    ike_sa: IkeSaInfo
    old: Path
    new: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ReauthenticationDue:
    """It is time to authenticate an IKE SA anew: the shell knows where the peer is and begins."""

    ike_sa: IkeSaInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class DatagramDropped:
    """A datagram was dropped; counted by the shell, never logged above DEBUG (strangers can cause it)."""

    reason: DropReason
    path: Path
    detail: str


Event = (
    IkeSaEstablished
    | IkeSaKeysDerived
    | IkeSaRekeyed
    | IkeSaFailed
    | IkeSaDeleted
    | ChildSaEstablished
    | ChildSaRekeyed
    | ChildSaFailed
    | ChildSaDeleted
    | RemoveSas
    | PathChanged
    | ReauthenticationDue
    | DatagramDropped
)
