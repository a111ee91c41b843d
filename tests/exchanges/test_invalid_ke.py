"""INVALID_KE_PAYLOAD (RFC 7296 §1.2, §1.3): another method is tried once; nobody is sent round in circles."""

from dataclasses import replace

import pytest

from gateway.ike.events import ChildSaFailed, IkeSaFailed
from gateway.ike.wire.header import HeaderFlag
from gateway.ike.wire.message import encode_message
from gateway.ike.wire.notify import NotifyType
from gateway.ike.wire.payloads import KePayload, NotifyPayload
from gateway.ipsec.algorithms import Ke
from tests.fakes.pair import Pair

OTHER = {Ke.CURVE25519: Ke.ECP_256, Ke.ECP_256: Ke.CURVE25519}


def new_pair():
    return Pair(both={"ike": "aes256gcm16-prfsha384-x25519-ecp256", "esp": "aes256gcm16-x25519-ecp256"})


def established():
    pair = new_pair()
    pair.establish()
    return pair


EXCHANGES = {
    "IKE_SA_INIT": (new_pair, lambda pair: pair.alice.initiate()),
    "Child rekey": (established, lambda pair: pair.alice.rekey_child()),
    "IKE rekey": (established, lambda pair: pair.alice.rekey_ike()),
}


def refuse(pair, request, method):
    """A response to Alice's request that wants this method."""
    header = replace(request.message.header, flags=int(HeaderFlag.RESPONSE))
    payloads = [NotifyPayload(NotifyType.INVALID_KE_PAYLOAD, method.to_bytes(2))]
    if not request.is_protected:
        return encode_message(header, payloads)
    return pair.tap.keys(header.spi_i, header.spi_r).seal(header, payloads)


def method_of(opened):
    return next((Ke(p.method) for p in opened.payloads if isinstance(p, KePayload)), None)


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_peer_that_always_wants_the_other_method_gets_each_once(exchange):
    start, act = EXCHANGES[exchange]
    pair = start()
    pair.link.fate = lambda packet: ()
    already = len(pair.messages(pair.alice))

    act(pair)
    for _ in range(6):
        last = pair.messages(pair.alice)[-1]
        pair.alice.receive(refuse(pair, last, OTHER[method_of(last)]))
    tried = [method_of(opened) for opened in pair.messages(pair.alice)[already:]]
    pair.run_for(5.0)

    assert tried == [Ke.CURVE25519, Ke.ECP_256]
    assert exchange == "IKE rekey" or len(pair.alice.events(ChildSaFailed, IkeSaFailed)) == 1
    assert {sa.state for sa in pair.alice.ike_sas} == (
        set() if exchange == "IKE_SA_INIT" else {"established"}
    )
