"""Any datagram ends in a drop with a reason or a protocol answer: never in an exception, never in a leak.

Three kinds: bytes of any sort; messages of real exchanges, damaged; and authentic messages whose inside is
damaged, made with the keys of the pair. The normal run is short and always the same; `FUZZ_EXAMPLES=20000`
makes it long and random.
"""

import os
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.ike.path import Path
from gateway.ike.wire.header import ExchangeType, HeaderFlag, IkeHeader
from gateway.ike.wire.message import encode_payloads, first_type
from gateway.ike.wire.notify import NotifyType
from gateway.ike.wire.payloads import DeletePayload, NotifyPayload
from tests.fakes.pair import ALICE, BOB, Arrived, Pair

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
fuzz = settings(
    max_examples=EXAMPLES or 25,
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

MAX_ANSWERS = 4
"""One datagram never makes more than these: an endpoint is no amplifier."""


# --- what there is to damage --------------------------------------------------------------------


@cache
def recorded():
    """Every message of every exchange."""
    pair = Pair(both={"esp": "aes256gcm16-x25519"})
    pair.establish()
    pair.alice.rekey_child()
    pair.settle()
    pair.run_for(10.0)
    pair.bob.rekey_ike()
    pair.settle()
    pair.alice.check_liveness()
    pair.settle()
    pair.alice.delete_child()
    pair.settle()
    pair.alice.initiate()
    pair.settle()
    pair.alice.delete_ike()
    pair.settle()
    return pair.messages()


def datagrams():
    return st.sampled_from([opened.message.datagram for opened in recorded()])


def established():
    pair = Pair(both={"esp": "aes256gcm16-x25519"})
    pair.establish()
    return pair


def connecting():
    """Alice has sent her first message, Bob knows nothing."""
    pair = Pair()
    pair.link.fate = lambda packet: ()
    pair.alice.initiate()
    return pair


def authenticating():
    """Bob has answered IKE_SA_INIT; Alice's IKE_AUTH request was lost."""
    pair = Pair()
    pair.link.fate = lambda packet: () if packet.number == 2 else (0.0,)
    pair.alice.initiate()
    pair.settle()
    return pair


def waiting(act):
    """Both sides have sent a request that was lost."""

    def start():
        pair = established()
        pair.link.fate = lambda packet: () if packet.number in (4, 5) else (0.0,)
        act(pair.alice)
        act(pair.bob)
        return pair

    return start


STARTS = {
    "connecting": connecting,
    "authenticating": authenticating,
    "established": established,
    "rekeying the Child SA": waiting(lambda host: host.rekey_child()),
    "rekeying the IKE SA": waiting(lambda host: host.rekey_ike()),
    "deleting the Child SA": waiting(lambda host: host.delete_child()),
    "checking": waiting(lambda host: host.check_liveness()),
}


@st.composite
def damaged(draw, original):
    """`original` with up to four octets changed, cut off, put in, or a length field telling lies."""
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        if not data:
            break
        place = draw(st.integers(0, len(data) - 1))
        match draw(st.sampled_from(["change", "cut", "insert", "repeat", "length"])):
            case "change":
                data[place] = draw(st.integers(0, 255))
            case "cut":
                del data[place:]
            case "insert":
                data[place:place] = draw(st.binary(min_size=1, max_size=8))
            case "repeat":
                data[place:place] = data[place : place + 32]
            case "length":
                data[place : place + 2] = draw(st.sampled_from([b"\x00\x00", b"\x00\x03", b"\xff\xff"]))
    return bytes(data)


# --- what must hold afterwards ------------------------------------------------------------------


def assert_sane(pair, host, sent_before):
    """Check what one datagram may have caused, then let every timer run out."""
    assert len(pair.sent(host)) - sent_before <= MAX_ANSWERS
    assert len(host.ike_sas) <= 3
    assert len(host.child_sas) <= 3
    pair.run_for(120.0)
    wanted = {sa_id for sa in host.child_sas for sa_id in (sa.inbound.sa_id, sa.outbound.sa_id)}
    assert set(host.sad.sas) == wanted
    assert len(host.ike_sas) <= 2
    assert all(sa.state in {"established", "rekeying"} for sa in host.ike_sas)


def deliver(pair, host, datagram):
    before = len(pair.sent(host))
    pair.tap.is_strict = False
    host.receive(datagram)
    assert_sane(pair, host, before)


# --- tests --------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("side", ["alice", "bob"])
@fuzz
@given(data=st.data())
def test_any_bytes(start, side, data):
    pair = STARTS[start]()
    head = data.draw(st.one_of(st.just(b""), datagrams().map(lambda datagram: datagram[:28])))

    deliver(pair, getattr(pair, side), head + data.draw(st.binary(max_size=400)))


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("side", ["alice", "bob"])
@fuzz
@given(data=st.data())
def test_damaged_messages_of_real_exchanges(start, side, data):
    pair = STARTS[start]()
    deliver(pair, getattr(pair, side), data.draw(damaged(data.draw(datagrams()))))


AUTHENTIC = [start for start in STARTS if start != "connecting"]


@pytest.mark.parametrize("start", AUTHENTIC)
@pytest.mark.parametrize("side", ["alice", "bob"])
@fuzz
@given(data=st.data())
def test_authentic_messages_with_a_damaged_inside(start, side, data):
    pair = STARTS[start]()
    host = getattr(pair, side)
    header = data.draw(headers(pair, host))
    same_kind = [
        opened.payloads
        for opened in recorded()
        if opened.message.header.exchange_type == header.exchange_type
        and opened.message.header.is_response is header.is_response
    ]
    payloads = data.draw(st.sampled_from(same_kind or [opened.payloads for opened in recorded()]))
    octets, first = encode_payloads(payloads), first_type(payloads)
    if data.draw(st.booleans()):
        octets = data.draw(damaged(octets)) if octets else data.draw(st.binary(max_size=64))
    if data.draw(st.integers(0, 7)) == 0:
        first = data.draw(st.integers(0, 255))

    deliver(pair, host, seal(pair, header, first, octets))


@pytest.mark.parametrize("start", AUTHENTIC)
@pytest.mark.parametrize("side", ["alice", "bob"])
@fuzz
@given(data=st.data())
def test_authentic_messages_with_odd_payloads(start, side, data):
    pair = STARTS[start]()
    host = getattr(pair, side)
    known = [sa.outbound.spi.to_bytes(4) for sa in host.child_sas]
    spis = st.sampled_from([*known, *known, b"\x00\x00\x00\x00", b"\xff\xff\xff\xff"])
    notifies = st.builds(
        NotifyPayload,
        st.one_of(st.sampled_from(list(NotifyType)), st.integers(0, 65535)),
        st.binary(max_size=24),
        st.sampled_from([0, 3]),
        spis,
    )
    deletes = st.builds(DeletePayload, st.just(3), st.lists(spis, max_size=5).map(tuple))
    others = st.sampled_from([payload for opened in recorded() for payload in opened.payloads])
    inside = data.draw(st.lists(st.one_of(notifies, deletes, others), max_size=8))

    header = data.draw(headers(pair, host))
    deliver(pair, host, seal(pair, header, first_type(inside), encode_payloads(inside)))


@st.composite
def headers(draw, pair, host):
    """The header of a message to `host`: mostly what it waits for, a request or a response."""
    sa = pair.alice.ike_sas[0]
    peer = pair.peer_of(host)
    arrived = [pair.tap.open(e.packet.data).message.header for e in pair.log if is_arrival(e, host)]
    served = [header.message_id for header in arrived if header.is_request]
    answered = [header.message_id for header in arrived if header.is_response]
    open_requests = [
        opened.message.header
        for opened in pair.messages(host)
        if opened.message.header.is_request and opened.message.header.message_id not in answered
    ]
    is_response = bool(open_requests) and draw(st.booleans())
    message_id = open_requests[0].message_id if is_response else max(served, default=-1) + 1
    if is_response:
        exchange = open_requests[0].exchange_type
    elif sa.state == "authenticating":
        exchange = ExchangeType.IKE_AUTH
    else:
        exchange = draw(st.sampled_from([ExchangeType.CREATE_CHILD_SA, ExchangeType.INFORMATIONAL]))
    if draw(st.integers(0, 15)) == 0:
        exchange = draw(st.integers(30, 50))
    if draw(st.integers(0, 15)) == 0:
        message_id = draw(st.sampled_from([0, 1, 2, 3, 0xFFFFFFFF]))
    flags = HeaderFlag.INITIATOR if peer is pair.alice else HeaderFlag(0)
    return IkeHeader(
        spi_i=sa.spi_i,
        spi_r=sa.spi_r,
        exchange_type=exchange,
        flags=int(flags | (HeaderFlag.RESPONSE if is_response else 0)),
        message_id=message_id,
    )


def is_arrival(entry, host):
    return isinstance(entry, Arrived) and entry.host == host.name


def seal(pair, header, first, octets):
    return pair.tap.keys(header.spi_i, header.spi_r).seal_octets(header, first, octets)


def test_most_authentic_messages_are_not_dropped():
    # Or the two tests above would test nothing.
    for start in AUTHENTIC:
        for side in ("alice", "bob"):
            pair = STARTS[start]()
            host = getattr(pair, side)
            if start == "authenticating" and host is pair.alice:
                continue
            peer = pair.peer_of(host)
            header = IkeHeader(
                spi_i=pair.alice.ike_sas[0].spi_i,
                spi_r=pair.alice.ike_sas[0].spi_r,
                exchange_type=35 if start == "authenticating" else 37,
                flags=8 if peer is pair.alice else 0,
                message_id=0 if host is pair.alice else (1 if start == "authenticating" else 2),
            )
            before = len(pair.sent(host))

            host.receive(seal(pair, header, 0, b""))

            assert len(pair.sent(host)) > before, (start, side)


@fuzz
@given(datagrams=st.lists(st.binary(min_size=28, max_size=120), min_size=1, max_size=20))
def test_a_burst_of_rubbish_from_everywhere_keeps_nothing(datagrams):
    pair = Pair()
    for number, datagram in enumerate(datagrams):
        path = Path(BOB, 500, ALICE + number, 500)
        pair.bob.receive(datagram, path)

    assert len(pair.bob.ike_sas) <= len(datagrams)
    assert len(pair.sent(pair.bob)) <= len(datagrams)
    pair.run_for(60.0)
    assert pair.bob.ike_sas == ()
    assert pair.bob.endpoint.next_deadline() is None
