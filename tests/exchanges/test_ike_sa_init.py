"""IKE_SA_INIT (RFC 7296 §1.2, §2.5 to §2.7, §2.10, §2.23): two real endpoints on an in-memory link."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from gateway.ike.endpoint import EndpointOptions
from gateway.ike.events import DatagramDropped, FailureReason, IkeSaEstablished, IkeSaFailed
from gateway.ike.wire.message import encode_message, parse_message
from gateway.ike.wire.notify import NotifyType
from gateway.ike.wire.payloads import (
    KePayload,
    NoncePayload,
    NotifyPayload,
    PayloadType,
    SaPayload,
    UnknownPayload,
)
from gateway.ipsec.algorithms import Ke
from gateway.ipsec.drop_reason import DropReason
from tests.fakes.link import Nat
from tests.fakes.pair import ALICE, BOB, KEEPALIVE, Pair, Sent

COOKIES_ALWAYS = EndpointOptions(cookie_threshold=0)

IKE_AUTH = [
    "IKE_AUTH SK {IDi, IDr, AUTH, SAi2, TSi, TSr} -->",
    "<-- IKE_AUTH SK {IDr, AUTH, SAr2, TSi, TSr}",
]


def first_request(pair):
    """Alice's IKE_SA_INIT request, taken apart; it does not reach Bob."""
    pair.link.fate = lambda packet: ()
    pair.alice.initiate()
    message = parse_message(pair.sent(pair.alice)[0].data)
    pair.link.fate = lambda packet: (0.0,)
    return message


def changed(message, *payloads, drop=()):
    """The message with payloads added at the end, and without those of some kinds."""
    kept = [payload for payload in message.payloads if not isinstance(payload, tuple(drop))]
    return encode_message(message.header, [*kept, *payloads])


def answers(pair, forged):
    """What Bob answers to a forged datagram."""
    pair.bob.receive(forged)
    return [pair.tap.open(packet.data) for packet in pair.sent(pair.bob)]


def test_two_messages_agree_on_keys_and_two_more_on_identities():
    pair = Pair()

    # HDR, SAi1, KEi, Ni -->
    pair.alice.initiate()
    pair.settle()

    assert pair.story() == [
        "IKE_SA_INIT {SAi1, KEi, Ni} -->",
        "<-- IKE_SA_INIT {SAr1, KEr, Nr}",
        *IKE_AUTH,
    ]
    pair.check(children=1)


def test_message_ids_start_at_zero_and_flags_say_who_is_who():
    pair = Pair()

    pair.establish()

    headers = [opened.message.header for opened in pair.messages()]
    assert [header.message_id for header in headers] == [0, 0, 1, 1]
    assert [header.from_initiator for header in headers] == [True, False, True, False]
    assert [header.is_response for header in headers] == [False, True, False, True]
    assert headers[0].spi_r == bytes(8)
    assert {header.spi_i for header in headers} == {bytes.fromhex("0a00000000000001")}
    assert {header.spi_r for header in headers[1:]} == {bytes.fromhex("0b00000000000001")}


# --- proposals (§2.7) ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("alice", "bob", "agreed"),
    [
        ("aes256gcm16-prfsha384-x25519", "aes256gcm16-prfsha384-x25519", "aes256gcm16-prfsha384-x25519"),
        (
            "aes128gcm16-aes256gcm16-prfsha256-prfsha384-ecp256-x25519",
            "aes256gcm16-prfsha384-ecp256",
            "aes256gcm16-prfsha384-ecp256",
        ),
        (
            "aes256gcm16-prfsha384-x25519, aes256-sha256-x25519",
            "aes256-sha256-x25519",
            "aes256-sha256-x25519",
        ),
        ("aes128-sha384-ecp384", "aes128-sha384-ecp384", "aes128-sha384-ecp384"),
        ("aes256-sha512-modp2048", "aes256-sha512-modp2048", "aes256-sha512-modp2048"),
    ],
)
def test_both_sides_take_what_both_allow(alice, bob, agreed):
    pair = Pair(alice={"ike": alice}, bob={"ike": bob})

    pair.establish()

    assert str(pair.alice.ike_sa.proposal) == str(pair.bob.ike_sa.proposal) == agreed


def test_the_answer_holds_one_proposal_with_one_transform_of_each_type():
    pair = Pair(both={"ike": "aes256gcm16-aes128gcm16-prfsha384-prfsha256-x25519-ecp256"})

    pair.establish()

    (answer,) = [payload for payload in pair.messages(pair.bob)[0].payloads if isinstance(payload, SaPayload)]
    (proposal,) = answer.proposals
    types = [transform.type for transform in proposal.transforms]
    assert len(types) == len(set(types))


def test_no_common_proposal_is_refused_and_both_sides_can_say_what_differed():
    pair = Pair(alice={"ike": "aes128gcm16-prfsha256-x25519"}, bob={"ike": "aes256gcm16-prfsha384-x25519"})

    pair.alice.initiate()
    pair.settle()

    assert pair.story() == [
        "IKE_SA_INIT {SAi1, KEi, Ni} -->",
        "<-- IKE_SA_INIT {N(NO_PROPOSAL_CHOSEN)}",
    ]
    pair.run_for(60.0)  # an unauthenticated refusal is not believed at once (§2.21.1)
    (ours,) = pair.alice.events(IkeSaFailed)
    assert ours.failure.reason is FailureReason.NO_PROPOSAL_CHOSEN
    assert ours.failure.notify == "NO_PROPOSAL_CHOSEN"
    assert ours.failure.offered == "aes128gcm16-prfsha256-x25519"
    # Bob keeps no state of it: he says so for every request that comes, as he must.
    theirs = pair.bob.events(IkeSaFailed)[0]
    assert theirs.failure.reason is FailureReason.NO_PROPOSAL_CHOSEN
    assert theirs.failure.offered == "aes128gcm16-prfsha256-x25519"
    assert theirs.failure.configured == "aes256gcm16-prfsha384-x25519"
    assert "aes128gcm16" in theirs.failure.detail
    assert "aes256gcm16" in theirs.failure.detail
    pair.check(ike_sas=0)


def test_a_stranger_is_dropped_without_an_answer():
    pair = Pair(bob={"remote_address": ip_address("203.0.113.7")})

    pair.alice.initiate()
    pair.settle()

    assert pair.bob.events(DatagramDropped)[0].reason is DropReason.IKE_UNKNOWN_PEER
    assert pair.bob.ike_sas == ()


# --- INVALID_KE_PAYLOAD (§1.2) ------------------------------------------------------------------


def test_a_wrong_guess_of_the_key_exchange_method_is_corrected():
    pair = Pair(
        alice={"ike": "aes256gcm16-prfsha384-x25519-ecp256"}, bob={"ike": "aes256gcm16-prfsha384-ecp256"}
    )

    pair.establish()

    assert pair.story() == [
        "IKE_SA_INIT {SAi1, KEi, Ni} -->",
        "<-- IKE_SA_INIT {N(INVALID_KE_PAYLOAD)}",
        "IKE_SA_INIT {SAi1, KEi, Ni} -->",
        "<-- IKE_SA_INIT {SAr1, KEr, Nr}",
        *IKE_AUTH,
    ]
    first, refusal, second = pair.messages()[:3]
    methods = [p.method for opened in (first, second) for p in opened.payloads if isinstance(p, KePayload)]
    assert methods == [Ke.CURVE25519, Ke.ECP_256]
    assert refusal.notify(NotifyType.INVALID_KE_PAYLOAD).data == Ke.ECP_256.to_bytes(2)
    assert second.message.header.message_id == 0
    # §2.7: the whole offer is repeated, so that nobody can talk the two into a weaker method.
    offers = [[p for p in opened.payloads if isinstance(p, SaPayload)] for opened in (first, second)]
    assert offers[0] == offers[1]
    assert str(pair.alice.ike_sa.proposal) == "aes256gcm16-prfsha384-ecp256"


def test_a_method_that_was_never_offered_is_not_followed():
    pair = Pair()
    request = first_request(pair)
    refusal = encode_message(
        replace(request.header, flags=0x20),
        [NotifyPayload(NotifyType.INVALID_KE_PAYLOAD, Ke.MODP_768.to_bytes(2))],
    )

    pair.alice.receive(refusal)

    methods = {
        p.method for opened in pair.messages(pair.alice) for p in opened.payloads if isinstance(p, KePayload)
    }
    assert methods == {Ke.CURVE25519}
    pair.run_for(60.0)  # the retransmission still reaches Bob
    pair.check(children=1)


# --- cookies (§2.6) -----------------------------------------------------------------------------


def test_a_cookie_is_asked_for_and_repeated_in_front():
    pair = Pair(bob_options=COOKIES_ALWAYS)

    pair.establish()

    assert pair.story() == [
        "IKE_SA_INIT {SAi1, KEi, Ni} -->",
        "<-- IKE_SA_INIT {N(COOKIE)}",
        "IKE_SA_INIT {N(COOKIE), SAi1, KEi, Ni} -->",
        "<-- IKE_SA_INIT {SAr1, KEr, Nr}",
        *IKE_AUTH,
    ]
    first, asked, second = pair.messages()[:3]
    assert second.notify(NotifyType.COOKIE).data == asked.notify(NotifyType.COOKIE).data
    assert second.payloads[0] == asked.notify(NotifyType.COOKIE)
    # §2.6: everything else stays as it was.
    assert second.payloads[1:] == first.payloads
    assert second.message.header.spi_i == first.message.header.spi_i


def test_asking_for_a_cookie_keeps_no_state():
    pair = Pair(bob_options=COOKIES_ALWAYS)
    request = first_request(pair)

    pair.bob.receive(request.datagram)

    assert pair.bob.ike_sas == ()
    assert pair.bob.endpoint.next_deadline() is None


def test_a_cookie_for_another_nonce_is_not_accepted():
    pair = Pair(bob_options=COOKIES_ALWAYS)
    request = first_request(pair)
    (asked,) = answers(pair, request.datagram)
    cookie = asked.notify(NotifyType.COOKIE)
    other_nonce = [NoncePayload(b"n" * 32) if isinstance(p, NoncePayload) else p for p in request.payloads]

    answered = answers(pair, encode_message(request.header, [cookie, *other_nonce]))

    assert answered[-1].notify(NotifyType.COOKIE) is not None
    assert pair.bob.ike_sas == ()


def test_a_cookie_and_then_another_key_exchange_method():
    # §2.6.1: the initiator keeps the cookie in the request that corrects the KE payload.
    pair = Pair(
        alice={"ike": "aes256gcm16-prfsha384-x25519-ecp256"},
        bob={"ike": "aes256gcm16-prfsha384-ecp256"},
        bob_options=COOKIES_ALWAYS,
    )

    pair.establish()

    assert pair.story() == [
        "IKE_SA_INIT {SAi1, KEi, Ni} -->",
        "<-- IKE_SA_INIT {N(COOKIE)}",
        "IKE_SA_INIT {N(COOKIE), SAi1, KEi, Ni} -->",
        "<-- IKE_SA_INIT {N(INVALID_KE_PAYLOAD)}",
        "IKE_SA_INIT {N(COOKIE), SAi1, KEi, Ni} -->",
        "<-- IKE_SA_INIT {SAr1, KEr, Nr}",
        *IKE_AUTH,
    ]


def test_a_peer_that_asks_for_cookies_for_ever_is_given_up():
    pair = Pair(alice={"ike_options": {"retransmit_tries": 1}})
    request = first_request(pair)
    pair.link.fate = lambda packet: ()
    header = replace(request.header, flags=0x20)

    for number in range(100):
        cookie = NotifyPayload(NotifyType.COOKIE, number.to_bytes(8))
        pair.alice.receive(encode_message(header, [cookie]))

    assert len(pair.sent(pair.alice)) < 20
    pair.run_for(60.0)
    assert len(pair.alice.events(IkeSaFailed)) == 1
    assert pair.alice.ike_sas == ()


# --- NAT (§2.23) --------------------------------------------------------------------------------


NAT = ip_address("203.0.113.9")


def behind_nat(**changes):
    """Alice behind a NAT; Bob answers anybody."""
    pair = Pair(bob={"remote_address": None}, **changes)
    pair.link.nats = [Nat(inside=ALICE, outside=NAT)]
    return pair


def test_without_a_nat_everything_stays_on_port_500():
    pair = Pair()

    pair.establish()

    assert {packet.source[1] for packet in pair.sent()} == {500}
    assert pair.alice.child_sa.inbound.encapsulation is None


def test_behind_a_nat_ike_auth_goes_to_port_4500_and_esp_into_udp():
    pair = behind_nat()

    pair.establish()

    ports = [packet.destination[1] for packet in pair.sent(pair.alice)]
    assert ports == [500, 4500]
    assert (pair.alice.ike_sa.nat_local, pair.alice.ike_sa.nat_remote) == (True, False)
    assert (pair.bob.ike_sa.nat_local, pair.bob.ike_sa.nat_remote) == (False, True)
    assert (pair.bob.ike_sa.path.remote, pair.bob.ike_sa.path.local_port) == (NAT, 4500)
    outbound = pair.bob.child_sa.outbound
    assert outbound.destination == NAT
    assert outbound.encapsulation.source_port == 4500
    assert outbound.encapsulation.destination_port == pair.bob.ike_sa.path.remote_port
    assert pair.alice.child_sa.outbound.encapsulation.destination_port == 4500


def test_only_the_side_behind_the_nat_keeps_the_mapping_alive():
    pair = behind_nat()
    pair.establish()

    pair.run_for(65.0)

    assert keepalives(pair) == [("alice", (BOB, 4500))] * 3


def keepalives(pair):
    return [
        (entry.host, entry.packet.destination)
        for entry in pair.log
        if isinstance(entry, Sent) and entry.packet.data == KEEPALIVE
    ]


def test_a_successor_of_the_ike_sa_keeps_the_mapping_alive_too():
    pair = behind_nat()
    pair.establish()

    pair.alice.rekey_ike()
    pair.settle()
    pair.run_for(65.0)
    pair.alice.rekey_child()
    pair.run_for(10.0)

    assert keepalives(pair) == [("alice", (BOB, 4500))] * 3
    assert pair.alice.child_sa.outbound.encapsulation is not None
    pair.check(children=1)


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_forced_encapsulation_looks_like_a_nat_to_the_peer(who):
    pair = Pair(**{who: {"ike_options": {"encapsulation": True}}})

    pair.establish()

    assert [packet.destination[1] for packet in pair.sent(pair.alice)] == [500, 4500]
    assert pair.bob.ike_sa.path.local_port == pair.bob.ike_sa.path.remote_port == 4500
    assert pair.alice.child_sa.outbound.encapsulation is not None
    assert pair.bob.child_sa.outbound.encapsulation is not None


# --- what Bob makes of odd requests -------------------------------------------------------------


def test_an_unknown_critical_payload_is_refused_by_its_number():
    # §2.5: UNSUPPORTED_CRITICAL_PAYLOAD, one octet of data: the payload type.
    pair = Pair()
    request = first_request(pair)

    (answer,) = answers(pair, changed(request, UnknownPayload(type=200, critical=True, body=b"?")))

    assert answer.notify(NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD).data == bytes((200,))
    assert pair.bob.ike_sas == ()


def test_an_unknown_payload_that_is_not_critical_is_skipped():
    pair = Pair()
    request = first_request(pair)

    (answer,) = answers(pair, changed(request, UnknownPayload(type=200, critical=False, body=b"?")))

    assert str(answer) == "IKE_SA_INIT {SAr1, KEr, Nr}"


def test_a_higher_major_version_is_told_ours():
    # §2.5: an unprotected answer of version 2 with INVALID_MAJOR_VERSION, and no state.
    pair = Pair()
    request = first_request(pair)
    forged = request.datagram[:17] + b"\x30" + request.datagram[18:]

    (answer,) = answers(pair, forged)

    assert answer.notify(NotifyType.INVALID_MAJOR_VERSION) is not None
    assert answer.message.header.major_version == 2
    assert pair.bob.ike_sas == ()
    assert pair.bob.events(DatagramDropped)[0].reason is DropReason.IKE_VERSION


def test_a_higher_minor_version_is_ignored():
    pair = Pair()
    request = first_request(pair)
    forged = request.datagram[:17] + b"\x21" + request.datagram[18:]

    (answer,) = answers(pair, forged)

    assert str(answer) == "IKE_SA_INIT {SAr1, KEr, Nr}"


@pytest.mark.parametrize("size", [16, 32, 256])
def test_nonces_may_have_16_to_256_octets(size):
    pair = Pair(both={"ike": "aes128gcm16-prfsha256-x25519"}, alice_options=EndpointOptions(nonce_bytes=size))

    pair.establish()

    (nonce,) = [p for p in pair.messages()[0].payloads if isinstance(p, NoncePayload)]
    assert len(nonce.data) == size


@pytest.mark.parametrize("size", [0, 1, 15, 257])
def test_other_nonces_are_not_answered_with_keys(size):
    # §3.9
    pair = Pair()
    request = first_request(pair)

    nonce = UnknownPayload(type=PayloadType.NONCE, critical=False, body=bytes(size))
    answered = answers(pair, changed(request, nonce, drop=[NoncePayload]))

    assert [str(answer) for answer in answered] in ([], ["IKE_SA_INIT {N(INVALID_SYNTAX)}"])
    assert pair.bob.ike_sas == ()


@pytest.mark.parametrize("missing", [SaPayload, KePayload, NoncePayload])
def test_a_request_that_lacks_a_payload_makes_no_state(missing):
    pair = Pair()
    request = first_request(pair)

    answered = answers(pair, changed(request, drop=[missing]))

    assert [str(answer) for answer in answered] in ([], ["IKE_SA_INIT {N(INVALID_SYNTAX)}"])
    assert pair.bob.ike_sas == ()


def test_a_public_value_of_the_wrong_length_makes_no_keys():
    pair = Pair()
    request = first_request(pair)
    short = KePayload(Ke.CURVE25519, bytes(31))
    forged = encode_message(
        request.header, [short if isinstance(p, KePayload) else p for p in request.payloads]
    )

    answered = answers(pair, forged)

    assert [str(answer) for answer in answered] in ([], ["IKE_SA_INIT {N(INVALID_SYNTAX)}"])
    assert pair.bob.ike_sas == ()


def test_an_all_zero_shared_secret_makes_no_keys():
    # RFC 8031 §5, RFC 7748 §6.1: a public value of small order gives zeros.
    pair = Pair()
    request = first_request(pair)
    zero = KePayload(Ke.CURVE25519, bytes(32))
    forged = encode_message(
        request.header, [zero if isinstance(p, KePayload) else p for p in request.payloads]
    )

    answered = answers(pair, forged)

    assert [str(answer) for answer in answered] in ([], ["IKE_SA_INIT {N(INVALID_SYNTAX)}"])
    assert pair.bob.ike_sas == ()


def test_an_unauthenticated_refusal_does_not_stop_an_exchange_that_would_succeed():
    # §2.21.1: anybody can send it.
    pair = Pair()
    request = first_request(pair)
    forged = encode_message(
        replace(request.header, flags=0x20), [NotifyPayload(NotifyType.NO_PROPOSAL_CHOSEN)]
    )

    pair.alice.receive(forged)
    pair.run_for(60.0)

    assert len(pair.alice.events(IkeSaEstablished)) == 1
    pair.check(children=1)
