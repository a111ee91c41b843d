"""Which payloads a message may hold, and how often, per exchange and direction (RFC 7296 App. C).

A message fits when it fits one of the forms of its exchange and direction. Notifies, vendor IDs and
unknown payloads that are not critical may stand anywhere (App. C: `[V+]`, `[N+]`; §2.5) and are not
counted. Values inside payloads are the exchanges' business.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from gateway.ike.errors import InvalidSyntax, PeerError
from gateway.ike.wire.header import ExchangeType
from gateway.ike.wire.notify import NotifyType
from gateway.ike.wire.payloads import Payload, PayloadType, UnknownPayload

_MANY: Final = 65535


class Form(Enum):
    """What a message is about, as far as its payloads tell."""

    INITIAL = "IKE_SA_INIT"
    REFUSAL = "notifies only"
    """No payload but notifies: an error, a COOKIE, INVALID_KE_PAYLOAD, ..."""
    AUTH = "IKE_AUTH"
    AUTH_EAP_START = "IKE_AUTH asking for EAP"
    AUTH_EAP = "IKE_AUTH within EAP"
    AUTH_EAP_END = "IKE_AUTH after EAP"
    AUTH_WITHOUT_CHILD = "IKE_AUTH without a Child SA"
    """The responder is authenticated, its Child SA refused by a notify (§1.2); or RFC 6023."""
    CHILD = "Child SA"
    IKE_REKEY = "IKE SA rekey"
    INFORMATIONAL = "INFORMATIONAL"
    KEY_EXCHANGE = "one key exchange"
    """IKE_INTERMEDIATE and IKE_FOLLOWUP_KE (RFC 9242, RFC 9370)."""


@dataclass(frozen=True, slots=True)
class _Shape:
    form: Form
    counts: Mapping[int, tuple[int, int]]
    """Payload type to the least and most there may be; types not named may not occur."""
    notify: bool = False
    """Whether at least one notify is needed."""


_P = PayloadType
_Counts = dict[int, tuple[int, int]]
_ONE: Final = (1, 1)
_OPTIONAL: Final = (0, 1)
_ANY: Final = (0, _MANY)
_REFUSAL: Final = _Shape(Form.REFUSAL, {}, notify=True)
_CHILD_COUNTS: Final[_Counts] = {
    _P.SA: _ONE,
    _P.NONCE: _ONE,
    _P.KE: _OPTIONAL,
    _P.TSI: _ONE,
    _P.TSR: _ONE,
    _P.CP: _OPTIONAL,
}
_IKE_REKEY_COUNTS: Final[_Counts] = {_P.SA: _ONE, _P.NONCE: _ONE, _P.KE: _ONE}
_EAP: Final = _Shape(Form.AUTH_EAP, {_P.EAP: _ONE})
_ASK_COUNTS: Final[_Counts] = {
    _P.IDI: _ONE,
    _P.CERT: _ANY,
    _P.CERTREQ: _ANY,
    _P.IDR: _OPTIONAL,
    _P.CP: _OPTIONAL,
    _P.SA: _ONE,
    _P.TSI: _ONE,
    _P.TSR: _ONE,
}
_GIVE_COUNTS: Final[_Counts] = {_P.CP: _OPTIONAL, _P.SA: _ONE, _P.TSI: _ONE, _P.TSR: _ONE}

_REQUESTS: Final[Mapping[int, tuple[_Shape, ...]]] = {
    # HDR, SAi1, KEi, Ni, [N+]
    ExchangeType.IKE_SA_INIT: (_Shape(Form.INITIAL, {_P.SA: _ONE, _P.KE: _ONE, _P.NONCE: _ONE}),),
    ExchangeType.IKE_AUTH: (
        # HDR, SK {IDi, [CERT+], [N(INITIAL_CONTACT)], [CERTREQ+], [IDr], AUTH, [CP], SAi2, TSi, TSr}
        _Shape(Form.AUTH, {**_ASK_COUNTS, _P.AUTH: _ONE}),
        # The same without AUTH: the initiator wants EAP (App. C.3).
        _Shape(Form.AUTH_EAP_START, _ASK_COUNTS),
        _EAP,
        # HDR, SK {AUTH}
        _Shape(Form.AUTH_EAP_END, {_P.AUTH: _ONE}),
        # RFC 6023 §3: no Child SA is asked for.
        _Shape(
            Form.AUTH_WITHOUT_CHILD,
            {
                _P.IDI: _ONE,
                _P.CERT: _ANY,
                _P.CERTREQ: _ANY,
                _P.IDR: _OPTIONAL,
                _P.AUTH: _ONE,
                _P.CP: _OPTIONAL,
            },
        ),
    ),
    ExchangeType.CREATE_CHILD_SA: (
        # HDR, SK {[N(REKEY_SA)], [CP], SA, Ni, [KEi], TSi, TSr}
        _Shape(Form.CHILD, _CHILD_COUNTS),
        # HDR, SK {SA, Ni, KEi}
        _Shape(Form.IKE_REKEY, _IKE_REKEY_COUNTS),
    ),
    # HDR, SK {[N+], [D+], [CP]}
    ExchangeType.INFORMATIONAL: (_Shape(Form.INFORMATIONAL, {_P.DELETE: _ANY, _P.CP: _OPTIONAL}),),
    ExchangeType.IKE_INTERMEDIATE: (_Shape(Form.KEY_EXCHANGE, {_P.KE: _OPTIONAL}),),
    ExchangeType.IKE_FOLLOWUP_KE: (_Shape(Form.KEY_EXCHANGE, {_P.KE: _ONE}, notify=True),),
}

_RESPONSES: Final[Mapping[int, tuple[_Shape, ...]]] = {
    ExchangeType.IKE_SA_INIT: (
        # HDR, SAr1, KEr, Nr, [CERTREQ+]
        _Shape(Form.INITIAL, {_P.SA: _ONE, _P.KE: _ONE, _P.NONCE: _ONE, _P.CERTREQ: _ANY}),
        _REFUSAL,
    ),
    ExchangeType.IKE_AUTH: (
        # HDR, SK {IDr, [CERT+], AUTH, [CP], SAr2, TSi, TSr}
        _Shape(Form.AUTH, {_P.IDR: _ONE, _P.CERT: _ANY, _P.AUTH: _ONE, **_GIVE_COUNTS}),
        # HDR, SK {IDr, [CERT+], AUTH, N(error)}, and RFC 6023
        _Shape(Form.AUTH_WITHOUT_CHILD, {_P.IDR: _ONE, _P.CERT: _ANY, _P.AUTH: _ONE, _P.CP: _OPTIONAL}),
        # HDR, SK {IDr, [CERT+], AUTH, EAP}; AUTH is absent where EAP alone authenticates (RFC 5998)
        _Shape(Form.AUTH_EAP_START, {_P.IDR: _ONE, _P.CERT: _ANY, _P.AUTH: _OPTIONAL, _P.EAP: _ONE}),
        _EAP,
        # HDR, SK {AUTH, [CP], SAr2, TSi, TSr}
        _Shape(Form.AUTH_EAP_END, {_P.AUTH: _ONE, **_GIVE_COUNTS}),
        # The last of EAP with the Child SA refused.
        _Shape(Form.AUTH_WITHOUT_CHILD, {_P.AUTH: _ONE, _P.CP: _OPTIONAL}, notify=True),
        _REFUSAL,
    ),
    ExchangeType.CREATE_CHILD_SA: (
        _Shape(Form.CHILD, _CHILD_COUNTS),
        _Shape(Form.IKE_REKEY, _IKE_REKEY_COUNTS),
        _REFUSAL,
    ),
    ExchangeType.INFORMATIONAL: (_Shape(Form.INFORMATIONAL, {_P.DELETE: _ANY, _P.CP: _OPTIONAL}),),
    ExchangeType.IKE_INTERMEDIATE: (_Shape(Form.KEY_EXCHANGE, {_P.KE: _OPTIONAL}), _REFUSAL),
    ExchangeType.IKE_FOLLOWUP_KE: (_Shape(Form.KEY_EXCHANGE, {_P.KE: _ONE}), _REFUSAL),
}


def check_rules(payloads: Sequence[Payload], exchange_type: int, *, is_response: bool) -> Form:
    """Check that these payloads may stand together in this message, and say what it is.

    Of a protected message these are the payloads inside SK.

    Raises:
        PeerError: UNSUPPORTED_CRITICAL_PAYLOAD, with the type as data (§2.5), or INVALID_SYNTAX.
    """
    counts: dict[int, int] = {}
    notified = False
    for payload in payloads:
        kind = payload.type
        if kind == PayloadType.NOTIFY:
            notified = True
        elif isinstance(payload, UnknownPayload):
            if payload.critical:
                raise PeerError(
                    f"critical payload of unknown type {kind}",
                    NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD,
                    kind.to_bytes(1, "big"),
                )
        elif kind != PayloadType.VENDOR_ID:
            counts[kind] = counts.get(kind, 0) + 1
    shapes = (_RESPONSES if is_response else _REQUESTS).get(exchange_type)
    if shapes is None:
        raise InvalidSyntax(f"exchange type {exchange_type} is not one we speak")
    for shape in shapes:
        if _fits(shape, counts, notified=notified):
            return shape.form
    raise InvalidSyntax(
        f"{ExchangeType(exchange_type).name} {'response' if is_response else 'request'} holds "
        f"{_describe(counts)}, which fits no form of RFC 7296 Appendix C"
    )


def _fits(shape: _Shape, counts: Mapping[int, int], *, notified: bool) -> bool:
    if shape.notify and not notified:
        return False
    if not counts.keys() <= shape.counts.keys():
        return False
    return all(least <= counts.get(kind, 0) <= most for kind, (least, most) in shape.counts.items())


def _describe(counts: Mapping[int, int]) -> str:
    words = [f"{count} x {PayloadType(kind).name}" for kind, count in sorted(counts.items())]
    return ", ".join(words) or "no payload that counts"
