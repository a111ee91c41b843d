"""What can go wrong between us and the kernel's XFRM."""

import errno
import os

from gateway.ipsec.errors import GatewayError


class XfrmError(GatewayError):
    """Root of this room's errors."""


class XfrmDecodeError(XfrmError):
    """Bytes are not the message or the attribute they claim to be; the text names it."""


class XfrmEncodeError(XfrmError, ValueError):
    """A record cannot be written as a message: a number does not fit, or addresses are of two families."""


class KernelRefusedError(XfrmError):
    """The kernel answered a request with an error.

    Attributes:
        code: A positive errno.
        request: Name of the request's message type, as `<linux/xfrm.h>` spells it.
        text: What the kernel said (extended acknowledgement), or "" if it said nothing.
        attribute: Name of the attribute the kernel points at, wrong or missing; `None` if it points at none.
        is_missing: The kernel wants `attribute` and the request has none.
    """

    def __init__(
        self,
        code: int,
        request: str,
        *,
        text: str = "",
        attribute: str | None = None,
        is_missing: bool = False,
    ) -> None:
        said = f": {text}" if text else ""
        where = f" ({'misses' if is_missing else 'at'} {attribute})" if attribute else ""
        name = errno.errorcode.get(code, str(code))
        super().__init__(
            f"the kernel refused {request} with {name}, {os.strerror(code).lower()}{said}{where}"
        )
        self.code = code
        self.request = request
        self.text = text
        self.attribute = attribute
        self.is_missing = is_missing


class EventsLostError(XfrmError):
    """The kernel dropped notifications that were not read fast enough: list the SAD and the SPD anew."""


class NoSocketError(XfrmError):
    """The kernel gives no socket of this family, or the socket failed; the text says what to do."""


class NoAnswerError(XfrmError):
    """The kernel did not answer a request in time.

    Attributes:
        request: Name of the request's message type.
    """

    def __init__(self, request: str, timeout_s: float) -> None:
        super().__init__(f"the kernel did not answer {request} within {timeout_s:g} s")
        self.request = request
