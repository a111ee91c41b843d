"""Exceptions to gRPC statuses with google.rpc details, and back; the only place where this is decided."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import grpc
import grpc.aio
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from gateway.api.call_limit import TooManyCallsError
from gateway.api.generator import GeneratorError
from gateway.api.roles import AccessError
from gateway.api.violations import InvalidArgument, Violation
from gateway.controller.facade import ControlError, ControlErrorReason
from gateway.datapath.backend import DatapathError, ErrorReason
from gateway.ike.errors import LocalError
from gateway.ipsec.errors import GatewayError, VocabularyError

DOMAIN: Final = "ipsec-gateway"
"""`ErrorInfo.domain` of every error of ours."""

STATUS_DETAILS_KEY: Final = "grpc-status-details-bin"

_CONTROL_CODES: Final[Mapping[ControlErrorReason, int]] = {
    ControlErrorReason.CONNECTION_NOT_FOUND: code_pb2.NOT_FOUND,
    ControlErrorReason.CHILD_NOT_FOUND: code_pb2.NOT_FOUND,
    ControlErrorReason.IKE_SA_NOT_FOUND: code_pb2.NOT_FOUND,
    ControlErrorReason.CHILD_SA_NOT_FOUND: code_pb2.NOT_FOUND,
    ControlErrorReason.OPERATION_NOT_FOUND: code_pb2.NOT_FOUND,
    ControlErrorReason.REQUEST_ID_REUSED: code_pb2.ALREADY_EXISTS,
    ControlErrorReason.NO_REMOTE_ADDRESS: code_pb2.FAILED_PRECONDITION,
    ControlErrorReason.NO_PSK: code_pb2.FAILED_PRECONDITION,
    ControlErrorReason.NO_CREDENTIAL: code_pb2.FAILED_PRECONDITION,
    ControlErrorReason.CONFLICT: code_pb2.FAILED_PRECONDITION,
    ControlErrorReason.DATAPATH_REFUSED: code_pb2.FAILED_PRECONDITION,
    ControlErrorReason.DATAPATH_UNAVAILABLE: code_pb2.UNAVAILABLE,
    ControlErrorReason.HISTORY_LOST: code_pb2.OUT_OF_RANGE,
    ControlErrorReason.SLOW_WATCHER: code_pb2.RESOURCE_EXHAUSTED,
    ControlErrorReason.SHUTTING_DOWN: code_pb2.UNAVAILABLE,
    ControlErrorReason.STALE_GENERATION: code_pb2.ABORTED,
    ControlErrorReason.ETAG_MISMATCH: code_pb2.ABORTED,
    ControlErrorReason.STATE_NOT_KEPT: code_pb2.UNAVAILABLE,
    ControlErrorReason.KEY_EXPORT_OFF: code_pb2.FAILED_PRECONDITION,
}

_DATAPATH_CODES: Final[Mapping[ErrorReason, int]] = {
    ErrorReason.SPI_IN_USE: code_pb2.ALREADY_EXISTS,
    ErrorReason.SPI_NOT_RESERVED: code_pb2.FAILED_PRECONDITION,
    ErrorReason.ALGORITHM_UNSUPPORTED: code_pb2.FAILED_PRECONDITION,
    ErrorReason.MODE_UNSUPPORTED: code_pb2.FAILED_PRECONDITION,
    ErrorReason.WINDOW_UNSUPPORTED: code_pb2.FAILED_PRECONDITION,
    ErrorReason.KEY_LENGTH: code_pb2.INVALID_ARGUMENT,
    ErrorReason.ADDRESS_FAMILY: code_pb2.FAILED_PRECONDITION,
    ErrorReason.TABLE_FULL: code_pb2.RESOURCE_EXHAUSTED,
    ErrorReason.POLICY_CONFLICT: code_pb2.FAILED_PRECONDITION,
    ErrorReason.PLACEMENT_UNAVAILABLE: code_pb2.FAILED_PRECONDITION,
    ErrorReason.NOT_FOUND: code_pb2.NOT_FOUND,
    ErrorReason.STALE_GENERATION: code_pb2.FAILED_PRECONDITION,
    ErrorReason.NOT_OWNER: code_pb2.PERMISSION_DENIED,
    ErrorReason.UNAVAILABLE: code_pb2.UNAVAILABLE,
    ErrorReason.SYSTEM: code_pb2.INTERNAL,
}

_RETRY_AFTER_S: Final = 1.0

MAX_DETAILS_BYTES: Final = 5000
"""Of field violations: they travel as metadata, of which clients take 8 KiB by default, in Base64."""


class ApiError(GatewayError):
    """A call to a service failed, as the client sees it.

    Attributes:
        code: The canonical code.
        reason: `ErrorInfo.reason`; empty if the service gave none.
        message: The service's words, without the violations.
        violations: What was wrong with the request.
        retry_after_s: When it makes sense to try again; `None` if the service did not say.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason: str = "",
        violations: tuple[Violation, ...] = (),
        retry_after_s: float | None = None,
    ) -> None:
        lines = [message, *(f"{violation.field}: {violation.description}" for violation in violations)]
        super().__init__("\n  ".join(lines))
        self.code = code
        self.reason = reason
        self.message = message
        self.violations = violations
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Answer:
    """What a failed call is answered with, and whether the failure is ours to look into."""

    status: status_pb2.Status
    is_bug: bool


def answer_of(error: Exception) -> Answer:
    """Return the status for an exception; one that nobody foresaw says nothing of its text."""
    match error:
        case InvalidArgument():
            return Answer(_invalid(error), is_bug=False)
        case AccessError():
            status = _status(code_pb2.PERMISSION_DENIED, str(error), "ROLE_REQUIRED")
            return Answer(status, is_bug=False)
        case TooManyCallsError():
            delay = error_details_pb2.RetryInfo(retry_delay=_duration(error.retry_after_s))
            status = _status(code_pb2.RESOURCE_EXHAUSTED, str(error), "TOO_MANY_CALLS", delay)
            return Answer(status, is_bug=False)
        case VocabularyError():
            return Answer(_status(code_pb2.INVALID_ARGUMENT, str(error), "INVALID_ARGUMENT"), is_bug=False)
        case ControlError():
            return Answer(_refusal(_CONTROL_CODES[error.reason], error.reason.value, error), is_bug=False)
        case DatapathError():
            return Answer(_refusal(_DATAPATH_CODES[error.reason], error.reason.value, error), is_bug=False)
        case GeneratorError():
            return Answer(_refusal(code_pb2.FAILED_PRECONDITION, "GENERATOR_REFUSED", error), is_bug=False)
        case LocalError():
            return Answer(_refusal(code_pb2.FAILED_PRECONDITION, "CONFLICT", error), is_bug=False)
        case _:
            text = f"internal error ({type(error).__name__}): the gateway's log has the details"
            return Answer(_status(code_pb2.INTERNAL, text, "INTERNAL"), is_bug=True)


def _status(code: int, message: str, reason: str, *details: Message) -> status_pb2.Status:
    info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN)
    packed = []
    for detail in (info, *details):
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    return status_pb2.Status(code=code, message=message, details=packed)


def _invalid(error: InvalidArgument) -> status_pb2.Status:
    count = len(error.violations)
    message = "1 field of the request is wrong" if count == 1 else f"{count} fields of the request are wrong"
    details = error_details_pb2.BadRequest()
    for violation in error.violations:
        if details.ByteSize() + len(violation.field) + len(violation.description) > MAX_DETAILS_BYTES:
            more = count - len(details.field_violations)
            details.field_violations.add(description=f"and {more} more, which did not fit into this answer")
            break
        details.field_violations.add(field=violation.field, description=violation.description)
    return _status(code_pb2.INVALID_ARGUMENT, message, "INVALID_ARGUMENT", details)


def _refusal(code: int, reason: str, error: GatewayError) -> status_pb2.Status:
    message = str(error)
    details: list[Message] = []
    if code == code_pb2.FAILED_PRECONDITION:
        violation = error_details_pb2.PreconditionFailure.Violation(type=reason, description=message)
        details.append(error_details_pb2.PreconditionFailure(violations=[violation]))
    if code == code_pb2.UNAVAILABLE:
        details.append(error_details_pb2.RetryInfo(retry_delay=_duration(_RETRY_AFTER_S)))
    return _status(code, message, reason, *details)


def _duration(seconds: float) -> duration_pb2.Duration:
    return duration_pb2.Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))


def api_error(error: grpc.aio.AioRpcError) -> ApiError:
    """Return what a failed call means, with the details the service sent."""
    reason = ""
    violations: tuple[Violation, ...] = ()
    retry_after_s = None
    # AioRpcError has the code(), details() and trailing_metadata() that rpc_status reads.
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    for detail in status.details if status is not None else ():
        info, bad_request, retry = (
            error_details_pb2.ErrorInfo(),
            error_details_pb2.BadRequest(),
            error_details_pb2.RetryInfo(),
        )
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(bad_request):
            violations = tuple(
                Violation(violation.field, violation.description)
                for violation in bad_request.field_violations
            )
        elif detail.Unpack(retry):
            retry_after_s = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    return ApiError(
        error.code(),
        error.details() or error.code().name,
        reason=reason,
        violations=violations,
        retry_after_s=retry_after_s,
    )
