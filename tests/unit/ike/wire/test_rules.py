"""The composition table of RFC 7296 Appendix C."""

import pytest

from gateway.ike.errors import InvalidSyntax, PeerError
from gateway.ike.wire.header import ExchangeType
from gateway.ike.wire.notify import NotifyType
from gateway.ike.wire.payloads import (
    AuthPayload,
    CertPayload,
    CertreqPayload,
    CpPayload,
    DeletePayload,
    EapPayload,
    IdiPayload,
    IdrPayload,
    KePayload,
    NoncePayload,
    NotifyPayload,
    SaPayload,
    TsiPayload,
    TsrPayload,
    UnknownPayload,
    VendorIdPayload,
)
from gateway.ike.wire.rules import Form, check_rules

SA = SaPayload(())
KE = KePayload(31, b"")
NONCE = NoncePayload(bytes(16))
IDI = IdiPayload(2, b"i")
IDR = IdrPayload(2, b"r")
AUTH = AuthPayload(2, b"")
TS = (TsiPayload(()), TsrPayload(()))
CERT = CertPayload(4, b"")
CERTREQ = CertreqPayload(4, b"")
CP = CpPayload(1)
EAP = EapPayload(b"\3\0\0\4")
DELETE = DeletePayload(3)
NOTIFY = NotifyPayload(NotifyType.COOKIE)
VENDOR = VendorIdPayload(b"")

INIT, AUTHX, CREATE, INFO, INTERMEDIATE, FOLLOWUP = (
    ExchangeType.IKE_SA_INIT,
    ExchangeType.IKE_AUTH,
    ExchangeType.CREATE_CHILD_SA,
    ExchangeType.INFORMATIONAL,
    ExchangeType.IKE_INTERMEDIATE,
    ExchangeType.IKE_FOLLOWUP_KE,
)
REQUEST, RESPONSE = False, True

FITTING = [
    (INIT, REQUEST, (SA, KE, NONCE), Form.INITIAL),
    (INIT, REQUEST, (NOTIFY, SA, KE, NONCE, NOTIFY, VENDOR), Form.INITIAL),
    (INIT, RESPONSE, (SA, KE, NONCE, CERTREQ, CERTREQ), Form.INITIAL),
    (INIT, RESPONSE, (NOTIFY,), Form.REFUSAL),
    (AUTHX, REQUEST, (IDI, AUTH, SA, *TS), Form.AUTH),
    (AUTHX, REQUEST, (IDI, CERT, CERT, NOTIFY, CERTREQ, IDR, AUTH, CP, SA, *TS, VENDOR), Form.AUTH),
    (AUTHX, REQUEST, (IDI, SA, *TS), Form.AUTH_EAP_START),
    (AUTHX, REQUEST, (EAP,), Form.AUTH_EAP),
    (AUTHX, REQUEST, (AUTH,), Form.AUTH_EAP_END),
    (AUTHX, REQUEST, (IDI, AUTH), Form.AUTH_WITHOUT_CHILD),
    (AUTHX, RESPONSE, (IDR, AUTH, SA, *TS), Form.AUTH),
    (AUTHX, RESPONSE, (IDR, CERT, AUTH, CP, SA, *TS), Form.AUTH),
    (AUTHX, RESPONSE, (IDR, AUTH, NOTIFY), Form.AUTH_WITHOUT_CHILD),
    (AUTHX, RESPONSE, (IDR, CERT, AUTH, EAP), Form.AUTH_EAP_START),
    (AUTHX, RESPONSE, (EAP,), Form.AUTH_EAP),
    (AUTHX, RESPONSE, (AUTH, SA, *TS), Form.AUTH_EAP_END),
    (AUTHX, RESPONSE, (AUTH, NOTIFY), Form.AUTH_WITHOUT_CHILD),
    (AUTHX, RESPONSE, (NOTIFY,), Form.REFUSAL),
    (CREATE, REQUEST, (SA, NONCE, *TS), Form.CHILD),
    (CREATE, REQUEST, (NOTIFY, SA, NONCE, KE, *TS), Form.CHILD),
    (CREATE, REQUEST, (SA, NONCE, KE), Form.IKE_REKEY),
    (CREATE, RESPONSE, (SA, NONCE, KE, *TS), Form.CHILD),
    (CREATE, RESPONSE, (SA, NONCE, KE), Form.IKE_REKEY),
    (CREATE, RESPONSE, (NOTIFY,), Form.REFUSAL),
    (INFO, REQUEST, (), Form.INFORMATIONAL),
    (INFO, REQUEST, (DELETE, DELETE, NOTIFY), Form.INFORMATIONAL),
    (INFO, RESPONSE, (), Form.INFORMATIONAL),
    (INFO, RESPONSE, (DELETE,), Form.INFORMATIONAL),
    (INTERMEDIATE, REQUEST, (KE,), Form.KEY_EXCHANGE),
    (INTERMEDIATE, RESPONSE, (KE,), Form.KEY_EXCHANGE),
    (FOLLOWUP, REQUEST, (KE, NOTIFY), Form.KEY_EXCHANGE),
    (FOLLOWUP, RESPONSE, (NOTIFY,), Form.REFUSAL),
]


@pytest.mark.parametrize(("exchange", "is_response", "payloads", "form"), FITTING)
def test_message_of_appendix_c_fits_and_is_told_what_it_is(exchange, is_response, payloads, form):
    assert check_rules(payloads, exchange, is_response=is_response) is form


@pytest.mark.parametrize(("exchange", "is_response", "payloads", "form"), FITTING)
def test_a_payload_twice_that_may_occur_once_is_invalid_syntax(exchange, is_response, payloads, form):
    for payload in payloads:
        if isinstance(payload, SaPayload | KePayload | NoncePayload | TsiPayload | AuthPayload | EapPayload):
            with pytest.raises(InvalidSyntax, match="fits no form"):
                check_rules((*payloads, payload), exchange, is_response=is_response)


@pytest.mark.parametrize(
    ("exchange", "is_response", "payloads"),
    [
        (INIT, REQUEST, ()),
        (INIT, REQUEST, (NOTIFY,)),
        (INIT, REQUEST, (SA, NONCE)),
        (INIT, REQUEST, (SA, KE, NONCE, IDI)),
        (INIT, RESPONSE, ()),
        (AUTHX, REQUEST, ()),
        (AUTHX, REQUEST, (NOTIFY,)),
        (AUTHX, REQUEST, (AUTH, SA, *TS)),
        (AUTHX, REQUEST, (IDI, AUTH, SA, TS[0])),
        (AUTHX, REQUEST, (IDI,)),
        (AUTHX, RESPONSE, ()),
        (AUTHX, RESPONSE, (IDR, SA, *TS)),
        (AUTHX, RESPONSE, (AUTH,)),
        (CREATE, REQUEST, ()),
        (CREATE, REQUEST, (NOTIFY,)),
        (CREATE, REQUEST, (SA, NONCE)),
        (CREATE, REQUEST, (SA, KE, *TS)),
        (CREATE, RESPONSE, ()),
        (INFO, REQUEST, (SA,)),
        (FOLLOWUP, REQUEST, (KE,)),
    ],
)
def test_message_of_no_form_is_invalid_syntax(exchange, is_response, payloads):
    with pytest.raises(InvalidSyntax) as caught:
        check_rules(payloads, exchange, is_response=is_response)

    assert caught.value.notify == NotifyType.INVALID_SYNTAX
    assert exchange.name in str(caught.value)


def test_critical_unknown_payload_is_refused_with_its_type_as_data():
    with pytest.raises(PeerError) as caught:
        check_rules((SA, KE, NONCE, UnknownPayload(200, True, b"")), INIT, is_response=False)

    assert caught.value.notify == NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD
    assert caught.value.data == bytes([200])


def test_unknown_payload_that_is_not_critical_is_skipped():
    payloads = (UnknownPayload(200, False, b""), SA, KE, NONCE)

    assert check_rules(payloads, INIT, is_response=False) is Form.INITIAL


@pytest.mark.parametrize("exchange", [0, 38, 39, 240])
def test_exchange_we_do_not_speak_is_invalid_syntax(exchange):
    with pytest.raises(InvalidSyntax, match="not one we speak"):
        check_rules((NOTIFY,), exchange, is_response=True)
