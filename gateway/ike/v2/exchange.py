"""What an exchange is to the code that runs it: a generator of steps, read from top to bottom like the RFC.

An exchange, in either role, yields a *step* whenever it needs the world outside: an SPI, an installed SA,
a key, the peer's response. `runner.py` does the step and resumes the generator with the answer; nothing
blocks, and an exchange that is held costs a suspended frame. Errors come in as exceptions at the `yield`:

- `Denied`: the shell refused, or did not answer before the deadline.
- `IkeSaGone`: the IKE SA ended under the exchange; say what failed and return.

A responder yields `SendResponse` exactly once. What it does after that no longer holds the peer up.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from gateway.ike.errors import IkeError, PeerError
from gateway.ike.events import (
    ChildSaId,
    CredentialFound,
    Failure,
    FailureReason,
    Installed,
    Refused,
    Result,
    Signed,
    SpiAllocated,
    Trusted,
)
from gateway.ike.path import Path
from gateway.ike.v2.child_sa import ChildSa
from gateway.ike.wire.header import ExchangeType
from gateway.ike.wire.notify import NotifyType
from gateway.ike.wire.payloads import Payload
from gateway.ipsec.authentication import PublicKey, SignatureScheme
from gateway.ipsec.identity import Identity
from gateway.ipsec.sa import SaId, SecurityAssociation, Spi
from gateway.ipsec.secret import Secret

# --- what arrives -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A message with its payloads in the open: authenticated, unless it is one of IKE_SA_INIT."""

    exchange_type: int
    message_id: int
    payloads: tuple[Payload, ...]
    path: Path
    datagram: bytes
    """Exactly the bytes that came; those of IKE_SA_INIT are signed (RFC 7296 §2.15).

    Of a fragmented message, its first fragment.
    """


# --- steps --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedSpi:
    """An inbound SPI for a Child SA. Answer: `SpiAllocated`."""

    connection: str
    child: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedInstall:
    """One direction of a Child SA at the datapath. Answer: `Installed`."""

    sa: SecurityAssociation
    replaces: SaId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedCredential:
    """The pre-shared key of two identities. Answer: `CredentialFound`."""

    connection: str
    local_id: Identity
    remote_id: Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedSignature:
    """A signature by a private key of ours. Answer: `Signed`."""

    connection: str
    public_key: PublicKey
    scheme: SignatureScheme
    octets: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedTrust:
    """The keys by which the peer may prove an identity. Answer: `Trusted`."""

    connection: str
    remote_id: Identity
    certificates: tuple[bytes, ...]
    public_keys: tuple[PublicKey, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SendRequest:
    """Our request goes out (initiator). Answer: the response."""

    exchange_type: ExchangeType
    payloads: Sequence[Payload]
    is_restart: bool = False
    """Repeat Message ID 0 with other contents (IKE_SA_INIT with a cookie or another KE, RFC 7296 §2.6)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitResponse:
    """The last response will not do: wait for another. Answer: that, or None after `grace_s`."""

    grace_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SendResponse:
    """Our response goes out (responder). Answer: None, at once."""

    payloads: Sequence[Payload]


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitTakeover:
    """A new Child SA's outbound SA is to be installed as responder. Answer: None, when the time has come.

    At once, unless another Child SA carries its traffic and the peer may not receive on the new one yet.
    """

    child_sa: ChildSa


@dataclass(frozen=True, slots=True, kw_only=True)
class LetTakeOver:
    """Child SAs are to go: others that are about to carry their traffic come first. Answer: None, then."""

    child_sas: tuple[ChildSa, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopt:
    """The IKE SA's `newborn`, made by an IKE rekey, is to be registered. Answer: None, at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckUnique:
    """The peer is authenticated: may it have another IKE SA? Answer: None, or `Denied`, at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Established:
    """Both sides are authenticated: tell it, see to other IKE SAs with this peer. Answer: None, at once."""


Step = (
    NeedSpi
    | NeedInstall
    | NeedCredential
    | NeedSignature
    | NeedTrust
    | SendRequest
    | AwaitResponse
    | SendResponse
    | CheckUnique
    | Established
    | AwaitTakeover
    | LetTakeOver
    | Adopt
)
Answer = Result | Received | None

T = TypeVar("T")
Steps = Generator[Step, Answer, T]


# --- what comes in as an exception --------------------------------------------------------------


class Denied(IkeError):
    """The shell refused a request or did not answer it in time.

    Attributes:
        reason: Stable code of the refusal, `DEADLINE` when nobody answered.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason

    def failure(self) -> Failure:
        """Return what the operator is told when the datapath was the one to refuse."""
        reason = FailureReason.TIMEOUT if self.reason == "DEADLINE" else FailureReason.DATAPATH_REFUSED
        return Failure(reason=reason, detail=f"{self.reason}: {self}")


class IkeSaGone(IkeError):
    """The IKE SA ended, or (raised by an exchange itself) has to end.

    Attributes:
        failure: Why.
        is_told: Whether the peer is to be told by a DELETE, if that can be sent at once.
    """

    def __init__(self, failure: Failure, *, is_told: bool = False) -> None:
        super().__init__(failure.detail)
        self.failure = failure
        self.is_told = is_told


class ChildRejected(PeerError):
    """A Child SA is refused, by us or by the peer, while the IKE SA is fine.

    Attributes:
        failure: What the operator is told.
        child: Name of the configured Child, as far as it is known.
    """

    def __init__(
        self, failure: Failure, notify: NotifyType | None = None, data: bytes = b"", child: str = ""
    ) -> None:
        super().__init__(failure.detail, notify, data)
        self.failure = failure
        self.child = child


class ChildRefusedByPeer(ChildRejected):
    """The peer's answer holds no Child SA; there is nothing to delete."""


def refusal_notify(denied: Denied, *, in_auth: bool) -> NotifyType:
    """Return what a peer is told when our datapath refused an SPI or an SA.

    What cannot work with these algorithms is NO_PROPOSAL_CHOSEN; a full table, or no engine that our side's
    placement allows, NO_ADDITIONAL_SAS (RFC 7296 §1.3); anything else may work later, TEMPORARY_FAILURE
    (§2.25). That one belongs to CREATE_CHILD_SA only, so that in IKE_AUTH it is NO_ADDITIONAL_SAS as well.
    """
    if denied.reason in ("ALGORITHM_UNSUPPORTED", "MODE_UNSUPPORTED", "KEY_LENGTH"):
        return NotifyType.NO_PROPOSAL_CHOSEN
    if in_auth or denied.reason in ("TABLE_FULL", "PLACEMENT_UNAVAILABLE"):
        return NotifyType.NO_ADDITIONAL_SAS
    return NotifyType.TEMPORARY_FAILURE


# --- the steps as expressions -------------------------------------------------------------------


def allocate_spi(connection: str, child: str) -> Steps[Spi]:
    """Return an inbound SPI reserved at the datapath.

    Raises:
        Denied: There is none.
    """
    answer = yield NeedSpi(connection=connection, child=child)
    assert isinstance(answer, SpiAllocated)
    return answer.spi


def install(sa: SecurityAssociation, replaces: SaId | None = None) -> Steps[None]:
    """Have one direction of a Child SA carried by the datapath.

    Raises:
        Denied: It does not.
    """
    answer = yield NeedInstall(sa=sa, replaces=replaces)
    assert isinstance(answer, Installed)


def find_psk(connection: str, local_id: Identity, remote_id: Identity) -> Steps[Secret]:
    """Return the pre-shared key of two identities.

    Raises:
        Denied: There is none.
    """
    answer = yield NeedCredential(connection=connection, local_id=local_id, remote_id=remote_id)
    assert isinstance(answer, CredentialFound)
    return answer.psk


def sign(connection: str, public_key: PublicKey, scheme: SignatureScheme, octets: bytes) -> Steps[bytes]:
    """Return a signature by the private half of one of our keys.

    Raises:
        Denied: There is none.
    """
    answer = yield NeedSignature(connection=connection, public_key=public_key, scheme=scheme, octets=octets)
    assert isinstance(answer, Signed)
    return answer.signature


def trust(
    connection: str, remote_id: Identity, certificates: tuple[bytes, ...], public_keys: tuple[PublicKey, ...]
) -> Steps[tuple[PublicKey, ...]]:
    """Return the keys by which the peer may prove that it is `remote_id`.

    Raises:
        Denied: It may not, by what it sent.
    """
    answer = yield NeedTrust(
        connection=connection, remote_id=remote_id, certificates=certificates, public_keys=public_keys
    )
    assert isinstance(answer, Trusted)
    return answer.public_keys


def request(exchange_type: ExchangeType, payloads: Sequence[Payload]) -> Steps[Received]:
    """Send a protected request and return the authenticated response."""
    answer = yield SendRequest(exchange_type=exchange_type, payloads=payloads)
    assert isinstance(answer, Received)
    return answer


def expected_result(step: Step) -> type[Result] | None:
    """Return the class of result that `Endpoint.resolve` must bring for this step, if it is a request."""
    return _RESULTS.get(type(step))


_RESULTS: Mapping[type[Step], type[Result]] = {
    NeedSpi: SpiAllocated,
    NeedInstall: Installed,
    NeedCredential: CredentialFound,
    NeedSignature: Signed,
    NeedTrust: Trusted,
}


def as_exception(result: Refused) -> Denied:
    """Return a refusal as the exception an exchange sees."""
    return Denied(result.reason, result.detail)


# --- what waits for its turn --------------------------------------------------------------------


class PlanKind(Enum):
    """What an IKE SA can be asked to do once it may send a request; the value is for logs."""

    IKE_SA_INIT = "IKE_SA_INIT and IKE_AUTH"
    NEW_CHILD = "new Child SA"
    REKEY_CHILD = "rekey Child SA"
    REKEY_IKE = "rekey IKE SA"
    DELETE_CHILD = "delete Child SA"
    DELETE_IKE = "delete IKE SA"
    LIVENESS = "liveness check"
    INVALID_SPI = "report of an unknown SPI"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One thing to do when the request window is free (window size 1, RFC 7296 §2.3)."""

    kind: PlanKind
    child: str = ""
    """Name of the configured Child, for `NEW_CHILD`."""
    cpu: int | None = None
    """The CPU that the new Child SA is for, beside the one for all (RFC 9611)."""
    child_sa_id: ChildSaId | None = None
    """The Child SA it is about."""
    failure: Failure | None = None
    """Why something is deleted."""
    spi: Spi | None = None
    """What the peer sends ESP with and we do not know, for `INVALID_SPI`."""
    attempt: int = 0
    """How many times it was tried before."""
