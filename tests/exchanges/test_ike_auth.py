"""IKE_AUTH (RFC 7296 §1.2, §2.9, §2.15, §2.21.2, §2.4): identities, keys, and the first Child SA."""

from dataclasses import replace

import pytest

from gateway.ike.endpoint import EndpointOptions
from gateway.ike.events import (
    ChildSaEstablished,
    ChildSaFailed,
    DatagramDropped,
    FailureReason,
    IkeSaDeleted,
    IkeSaEstablished,
    IkeSaFailed,
)
from gateway.ike.path import Path
from gateway.ike.v2 import child_negotiation
from gateway.ike.wire.header import ExchangeType
from gateway.ike.wire.message import encode_message, parse_message
from gateway.ike.wire.notify import NotifyType
from gateway.ike.wire.payloads import AuthPayload, TsiPayload, TsrPayload, UnknownPayload, VendorIdPayload
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.sa import Mode
from tests.fakes.link import delayed, lost
from tests.fakes.pair import ALICE, BOB, Pair, alice_connection, bob_connection, child, selectors
from tests.fakes.tap import flip, request_header

IKE_SA_INIT = ["IKE_SA_INIT {SAi1, KEi, Ni} -->", "<-- IKE_SA_INIT {SAr1, KEr, Nr}"]


def test_the_right_key_establishes_both_sas():
    pair = Pair()

    # HDR, SK {IDi, [IDr,] AUTH, SAi2, TSi, TSr} -->
    pair.alice.initiate()
    pair.settle()

    for host, peer in ((pair.alice, "bob.example"), (pair.bob, "alice.example")):
        (established,) = host.events(IkeSaEstablished)
        assert established.ike_sa.remote_id.data == peer.encode()
        (child_sa,) = host.events(ChildSaEstablished)
        assert (child_sa.child_sa.connection, child_sa.child_sa.child) == ("site", "lan")
    pair.check(children=1)


@pytest.mark.parametrize(
    "esp",
    ["aes128gcm16", "aes256gcm16", "aes128-sha256", "aes256-sha384", "aes256-sha512", "aes256gcm16-esn"],
)
def test_every_esp_suite_gives_both_sides_the_same_keys(esp):
    pair = Pair(both={"esp": esp})

    pair.establish()

    assert str(pair.alice.child_sa.proposal) == esp


def test_key_exchange_methods_are_not_offered_for_the_first_child_sa():
    # §1.2: IKE_AUTH has no KE payload; its Child SA takes SK_d as it is.
    pair = Pair(both={"esp": "aes256gcm16-x25519"})

    pair.establish()

    assert str(pair.alice.child_sa.proposal) == "aes256gcm16"


# --- authentication (§2.15) ---------------------------------------------------------------------


def test_a_wrong_key_is_refused_and_nothing_stays():
    pair = Pair()
    pair.alice.psk = b"a key only Alice knows"

    pair.alice.initiate()
    pair.settle()

    assert pair.story() == [
        *IKE_SA_INIT,
        "IKE_AUTH SK {IDi, IDr, AUTH, SAi2, TSi, TSr} -->",
        "<-- IKE_AUTH SK {N(AUTHENTICATION_FAILED)}",
    ]
    (ours,) = pair.alice.events(IkeSaFailed)
    assert ours.failure.reason is FailureReason.AUTHENTICATION_FAILED
    assert ours.failure.notify == "AUTHENTICATION_FAILED"
    (theirs,) = pair.bob.events(IkeSaFailed)
    assert theirs.failure.reason is FailureReason.AUTHENTICATION_FAILED
    assert "alice.example" in theirs.failure.detail
    for text in (ours.failure.detail, theirs.failure.detail):
        assert "only Alice" not in text
    pair.run_for(60.0)
    pair.check(children=0, ike_sas=0)
    assert not pair.alice.events(IkeSaEstablished) + pair.bob.events(IkeSaEstablished)


def test_the_initiator_checks_the_responder_too_and_says_so():
    # §2.21.2: the responder already believes; an INFORMATIONAL exchange tells it.
    pair = Pair()
    pair.link.fate = lambda packet: () if packet.number == 3 else (0.0,)
    pair.alice.initiate()
    pair.settle()
    response = pair.tap.open(pair.sent(pair.bob)[-1].data)
    header = response.message.header
    payloads = [
        replace(payload, data=flip(payload.data, 0)) if isinstance(payload, AuthPayload) else payload
        for payload in response.payloads
    ]
    mark = pair.mark

    pair.alice.receive(pair.tap.keys(header.spi_i, header.spi_r).seal(header, payloads))
    pair.settle()

    assert pair.story(since=mark) == [
        "INFORMATIONAL SK {N(AUTHENTICATION_FAILED)} -->",
        "<-- INFORMATIONAL SK {}",
    ]
    (ours,) = pair.alice.events(IkeSaFailed)
    assert ours.failure.reason is FailureReason.AUTHENTICATION_FAILED
    (theirs,) = pair.bob.events(IkeSaDeleted)
    assert theirs.failure.reason is FailureReason.AUTHENTICATION_FAILED
    assert not pair.alice.events(IkeSaEstablished)
    pair.run_for(60.0)
    pair.check(children=0, ike_sas=0)


def test_auth_covers_the_whole_first_message():
    # Somebody in between adds a payload that means nothing: SKEYSEED is the same, the signed octets are not.
    pair = Pair()
    pair.link.fate = lambda packet: () if packet.number == 0 else (0.0,)
    pair.alice.initiate()
    request = parse_message(pair.sent(pair.alice)[0].data)

    pair.bob.receive(encode_message(request.header, [*request.payloads, VendorIdPayload(b"x")]))
    pair.settle()

    assert pair.story()[-1] == "<-- IKE_AUTH SK {N(AUTHENTICATION_FAILED)}"
    pair.run_for(60.0)
    pair.check(children=0, ike_sas=0)


# --- identities choose the connection (RFC 4301 §4.4.3) -----------------------------------------


def test_identities_select_the_connection():
    bob = [
        bob_connection(name="for-carol", remote_id="carol", remote_address=None, local_lan="10.3.0.0/16"),
        bob_connection(name="for-alice", remote_id="alice", remote_address=None),
    ]
    pair = Pair(bob=bob)

    pair.establish()

    assert pair.bob.ike_sa.connection == "for-alice"
    assert pair.bob.child_sa.connection == "for-alice"


def test_the_identity_the_initiator_asks_for_selects_the_connection():
    bob = [
        bob_connection(name="as-bert", local_id="bert", local_lan="10.3.0.0/16"),
        bob_connection(name="as-bob", local_id="bob"),
    ]
    pair = Pair(bob=bob)

    pair.establish()

    assert pair.bob.ike_sa.connection == "as-bob"


def test_an_unknown_identity_is_not_authenticated():
    pair = Pair(alice={"local_id": "mallory"})

    pair.alice.initiate()
    pair.settle()

    assert pair.story()[-1] == "<-- IKE_AUTH SK {N(AUTHENTICATION_FAILED)}"
    (theirs,) = pair.bob.events(IkeSaFailed)
    assert "mallory.example" in theirs.failure.detail
    pair.run_for(60.0)
    pair.check(children=0, ike_sas=0)


def test_a_responder_with_another_identity_is_not_believed():
    pair = Pair(bob={"local_id": "robert"})

    pair.alice.initiate()
    pair.settle()
    pair.run_for(60.0)

    (ours,) = pair.alice.events(IkeSaFailed)
    assert ours.failure.reason is FailureReason.AUTHENTICATION_FAILED
    assert not pair.alice.events(IkeSaEstablished)
    pair.check(children=0, ike_sas=0)


def test_without_an_identity_the_address_is_one():
    pair = Pair(
        alice={"local_id": None, "remote_id": None},
        bob={"local_id": None, "remote_id": None},
    )

    pair.establish()

    assert pair.alice.ike_sa.local_id.data == ALICE.packed
    assert pair.alice.ike_sa.remote_id.data == BOB.packed


# --- narrowing (§2.9) ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("alice", "bob", "agreed"),
    [
        ("10.2.0.0/16", "10.2.5.0/24", "10.2.5.0/24"),
        ("10.2.5.0/24", "10.2.0.0/16", "10.2.5.0/24"),
        ("0.0.0.0/0", "10.2.0.0/16", "10.2.0.0/16"),
        ("10.2.0.0/16", "10.2.0.0/16", "10.2.0.0/16"),
    ],
)
def test_the_responder_narrows_to_what_both_allow(alice, bob, agreed):
    pair = Pair(alice={"remote_lan": alice}, bob={"local_lan": bob})

    pair.establish()

    assert pair.alice.child_sa.remote_ts == pair.bob.child_sa.local_ts == selectors(agreed)


def test_several_selectors_are_narrowed_one_by_one():
    wide = child("lan", local="10.1.0.0/16", remote="10.2.0.0/16")
    several = replace(wide, remote_ts=selectors("10.2.1.0/24", "10.2.2.0/24", "10.9.0.0/16"))
    pair = Pair(alice={"children": [several]})

    pair.establish()

    assert pair.alice.child_sa.remote_ts == selectors("10.2.1.0/24", "10.2.2.0/24")


def test_an_initiator_does_not_accept_more_than_it_offered():
    # §2.9: the responder may only narrow.
    pair = Pair()
    pair.link.fate = lambda packet: () if packet.number == 3 else (0.0,)
    pair.alice.initiate()
    pair.settle()
    response = pair.tap.open(pair.sent(pair.bob)[-1].data)
    header = response.message.header
    wide = [
        TsrPayload(selectors("0.0.0.0/0")) if isinstance(payload, TsrPayload) else payload
        for payload in response.payloads
    ]

    pair.alice.receive(pair.tap.keys(header.spi_i, header.spi_r).seal(header, wide))
    pair.settle()

    assert pair.alice.child_sas == ()
    assert len(pair.alice.events(ChildSaFailed)) == 1
    assert not pair.alice.sad.sas


def test_selectors_without_overlap_leave_the_ike_sa_alone():
    # §2.9, §1.2: SK {IDr, AUTH, N(TS_UNACCEPTABLE)}
    pair = Pair(bob={"local_lan": "10.9.0.0/16"})

    pair.alice.initiate()
    pair.settle()

    assert pair.story()[-1] == "<-- IKE_AUTH SK {IDr, AUTH, N(TS_UNACCEPTABLE)}"
    pair.check(children=0, ike_sas=1)
    (ours,) = pair.alice.events(ChildSaFailed)
    assert ours.failure.reason is FailureReason.TS_UNACCEPTABLE
    assert ours.failure.notify == "TS_UNACCEPTABLE"
    (theirs,) = pair.bob.events(ChildSaFailed)
    assert theirs.failure.reason is FailureReason.TS_UNACCEPTABLE
    assert "10.2.0.0/16" in theirs.failure.offered
    assert "10.9.0.0/16" in theirs.failure.configured


def test_no_common_esp_proposal_leaves_the_ike_sa_alone():
    pair = Pair(alice={"esp": "aes128gcm16"}, bob={"esp": "aes256-sha256"})

    pair.alice.initiate()
    pair.settle()

    assert pair.story()[-1] == "<-- IKE_AUTH SK {IDr, AUTH, N(NO_PROPOSAL_CHOSEN)}"
    pair.check(children=0, ike_sas=1)
    (ours,) = pair.alice.events(ChildSaFailed)
    assert ours.failure.reason is FailureReason.NO_PROPOSAL_CHOSEN
    assert ours.failure.offered == "aes128gcm16"
    (theirs,) = pair.bob.events(ChildSaFailed)
    assert (theirs.failure.offered, theirs.failure.configured) == ("aes128gcm16", "aes256-sha256")


# --- transport mode (§1.3.1) --------------------------------------------------------------------


def dynamic(mode, name="host"):
    return child(name, local="", remote="", mode=mode)


def test_transport_mode_is_asked_for_and_agreed():
    pair = Pair(both={"children": [dynamic(Mode.TRANSPORT)]})

    pair.alice.initiate("host")
    pair.settle()

    request, response = pair.messages()[2:4]
    assert request.notify(NotifyType.USE_TRANSPORT_MODE) is not None
    assert response.notify(NotifyType.USE_TRANSPORT_MODE) is not None
    pair.check(children=1)
    sa = pair.alice.child_sa
    assert (sa.inbound.mode, sa.outbound.mode) == (Mode.TRANSPORT, Mode.TRANSPORT)
    assert sa.local_ts == selectors(f"{ALICE}/32")
    assert sa.remote_ts == selectors(f"{BOB}/32")


@pytest.mark.parametrize("is_asked_for", [False, True])
def test_transport_mode_is_for_the_two_hosts_alone(monkeypatch, is_asked_for):
    # RFC 4301 §4.1: a gateway that speaks for others uses tunnel mode, whatever somebody asks for.
    may_be = child_negotiation.may_be_transport

    def asks(ike_sa, *selectors_of_both):
        return (is_asked_for and ike_sa.is_initiator) or may_be(ike_sa, *selectors_of_both)

    monkeypatch.setattr(child_negotiation, "may_be_transport", asks)
    pair = Pair(both={"child_options": {"mode": Mode.TRANSPORT}})

    pair.alice.initiate()
    pair.settle()

    assert (pair.messages()[2].notify(NotifyType.USE_TRANSPORT_MODE) is not None) is is_asked_for
    assert pair.messages()[3].notify(NotifyType.USE_TRANSPORT_MODE) is None
    assert pair.alice.child_sa.outbound.mode is Mode.TUNNEL
    assert pair.bob.child_sa.outbound.mode is Mode.TUNNEL


@pytest.mark.parametrize("is_asked_for", [False, True])
def test_transport_mode_does_not_go_through_a_nat(monkeypatch, is_asked_for):
    # §2.23.1 would have to rewrite selectors and checksums; a tunnel between the hosts does without.
    may_be = child_negotiation.may_be_transport

    def asks(ike_sa, *selectors_of_both):
        return (is_asked_for and ike_sa.is_initiator) or may_be(ike_sa, *selectors_of_both)

    monkeypatch.setattr(child_negotiation, "may_be_transport", asks)
    pair = Pair(
        alice={"children": [dynamic(Mode.TRANSPORT)], "ike_options": {"encapsulation": True}},
        bob={"children": [dynamic(Mode.TRANSPORT)]},
    )

    pair.alice.initiate("host")
    pair.settle()

    assert (pair.messages()[2].notify(NotifyType.USE_TRANSPORT_MODE) is not None) is is_asked_for
    assert pair.messages()[3].notify(NotifyType.USE_TRANSPORT_MODE) is None
    assert pair.alice.child_sa.outbound.mode is Mode.TUNNEL
    pair.check(children=1)


def test_transport_mode_is_not_used_unless_the_initiator_asks_for_it():
    pair = Pair(
        alice={"children": [dynamic(Mode.TUNNEL)]},
        bob={"children": [dynamic(Mode.TRANSPORT)]},
    )

    pair.alice.initiate("host")
    pair.settle()

    assert pair.bob.child_sa.outbound.mode is Mode.TUNNEL
    pair.check(children=1)


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_transport_mode_survives_a_rekey(who):
    pair = Pair(both={"children": [dynamic(Mode.TRANSPORT)]})
    pair.alice.initiate("host")
    pair.settle()
    already = len(pair.messages())

    # HDR, SK {N(REKEY_SA), N(USE_TRANSPORT_MODE), SA, Ni, TSi, TSr} -->
    getattr(pair, who).rekey_child()
    pair.run_for(10.0)

    for opened in pair.messages()[already : already + 2]:
        assert opened.notify(NotifyType.USE_TRANSPORT_MODE) is not None
    assert pair.alice.child_sa.outbound.mode is Mode.TRANSPORT
    pair.check(children=1)


def test_dynamic_selectors_are_the_addresses_of_the_ike_sa_in_tunnel_mode_too():
    pair = Pair(both={"children": [dynamic(Mode.TUNNEL)]})

    pair.alice.initiate("host")
    pair.settle()

    (tsi,) = [payload for payload in pair.messages()[2].payloads if isinstance(payload, TsiPayload)]
    assert tsi.selectors == selectors(f"{ALICE}/32")
    assert pair.alice.child_sa.inbound.mode is Mode.TUNNEL
    pair.check(children=1)


def test_a_responder_that_declines_transport_mode_gives_a_tunnel_between_the_same_hosts():
    # §1.3.1: without USE_TRANSPORT_MODE in the response the Child SA is in tunnel mode.
    pair = Pair(
        alice={"children": [dynamic(Mode.TRANSPORT)]},
        bob={"children": [dynamic(Mode.TUNNEL)]},
    )

    pair.alice.initiate("host")
    pair.settle()

    assert pair.messages()[2].notify(NotifyType.USE_TRANSPORT_MODE) is not None
    assert pair.messages()[3].notify(NotifyType.USE_TRANSPORT_MODE) is None
    assert pair.alice.child_sa.outbound.mode is Mode.TUNNEL
    pair.check(children=1)


# --- INITIAL_CONTACT (§2.4) ---------------------------------------------------------------------


def test_a_second_ike_sa_to_the_same_peer_is_no_first_contact():
    # Bob's IKE SA is up by the time that Alice's, which she began before, comes to IKE_AUTH.
    pair = Pair()
    pair.link.fate = delayed(0.5, 0)

    pair.alice.initiate()
    pair.bob.initiate()
    pair.run_for(1.0)

    by_initiator = {
        opened.message.header.spi_i: opened.notify(NotifyType.INITIAL_CONTACT) is not None
        for opened in pair.messages()
        if opened.message.header.exchange_type == ExchangeType.IKE_AUTH and opened.message.header.is_request
    }
    assert list(by_initiator.values()) == [True, False]
    pair.run_for(60.0)
    pair.check(children=1)


def test_a_side_that_adopts_its_sas_does_not_let_a_first_contact_end_them():
    pair = Pair(bob_options=EndpointOptions(accept_initial_contact=False))
    pair.establish()
    old = pair.bob.ike_sa

    pair.alice.restart()
    pair.alice.initiate()
    pair.settle()

    assert old.ike_sa_id in {sa.ike_sa_id for sa in pair.bob.ike_sas}
    assert pair.bob.events(IkeSaDeleted) == []


def test_the_first_contact_says_so_and_a_crashed_peer_leaves_nothing_behind():
    pair = Pair()
    pair.establish()
    assert pair.messages()[2].notify(NotifyType.INITIAL_CONTACT) is not None
    old = pair.bob.ike_sa

    pair.alice.restart()
    pair.alice.initiate()
    pair.settle()

    (deleted,) = pair.bob.events(IkeSaDeleted)
    assert deleted.ike_sa.ike_sa_id == old.ike_sa_id
    pair.check(children=1, ike_sas=1)


def test_a_peer_that_adopts_its_sas_does_not_say_initial_contact():
    pair = Pair(alice_options=EndpointOptions(send_initial_contact=False))

    pair.establish()
    old = pair.bob.ike_sa
    pair.alice.restart()
    pair.alice.initiate()
    pair.settle()

    assert pair.messages()[2].notify(NotifyType.INITIAL_CONTACT) is None
    assert old.ike_sa_id in {sa.ike_sa_id for sa in pair.bob.ike_sas}
    assert pair.bob.events(IkeSaDeleted) == []


# --- what arrives altered -----------------------------------------------------------------------


@pytest.mark.parametrize("number", [2, 3])
def test_a_message_changed_on_the_way_is_dropped_and_the_original_still_counts(number):
    pair = Pair()
    pair.link.fate = lambda packet: () if packet.number == number else (0.0,)
    pair.alice.initiate()
    pair.settle()
    packet = pair.sent()[number]
    receiver = pair.bob if number == 2 else pair.alice

    receiver.receive(flip(packet.data, len(packet.data) - 1))

    assert receiver.events(DatagramDropped)[-1].reason is DropReason.IKE_INTEGRITY
    receiver.receive(packet.data)
    pair.settle()
    pair.check(children=1)


def test_two_connections_to_the_same_peer_are_two_ike_sas():
    alice = [
        alice_connection(name="one", local_id="alice-one"),
        alice_connection(name="two", local_id="alice-two", local_lan="10.3.0.0/16"),
    ]
    bob = [
        bob_connection(name="one", remote_id="alice-one"),
        bob_connection(name="two", remote_id="alice-two", remote_lan="10.3.0.0/16"),
    ]
    pair = Pair(alice=alice, bob=bob)

    pair.alice.initiate(connection="one")
    pair.alice.initiate(connection="two")
    pair.settle()

    assert {sa.connection for sa in pair.bob.ike_sas} == {"one", "two"}
    pair.check(children=2, ike_sas=2)


def test_nobody_makes_a_gateway_authenticate_itself_to_itself():
    # Alice knows no identity of the peer, so that her own would do: whoever holds the right key. An attacker
    # between the two sends her all that she says, as if Bob had said it.
    pair = Pair(alice={"remote_id": None})
    pair.link.fate = lambda packet: ()
    pair.alice.initiate()

    for _ in range(3):
        for packet in pair.sent(pair.alice):
            pair.alice.receive(packet.data, Path(ALICE, 500, BOB, 500))

    assert [sa.state for sa in pair.alice.ike_sas] == ["connecting"]
    assert DropReason.IKE_UNEXPECTED in {event.reason for event in pair.alice.events(DatagramDropped)}


def test_an_unknown_critical_payload_in_ike_auth_is_refused_and_ends_the_ike_sa():
    # §2.5, §2.21.2: an error in IKE_AUTH other than of the Child SA leaves no IKE SA.
    pair = Pair()
    pair.link.fate = lost(2)
    pair.alice.initiate()
    pair.run_for(0.1)
    (sa,) = pair.alice.ike_sas
    header = request_header(spi_i=sa.spi_i, spi_r=sa.spi_r, exchange=ExchangeType.IKE_AUTH, message_id=1)
    odd = pair.tap.keys(sa.spi_i, sa.spi_r).seal(header, [UnknownPayload(type=222, critical=True, body=b"?")])

    pair.bob.receive(odd)
    pair.settle()

    assert pair.story()[-1] == "<-- IKE_AUTH SK {N(UNSUPPORTED_CRITICAL_PAYLOAD)}"
    for host in pair.hosts:
        (failed,) = host.events(IkeSaFailed)
        assert failed.failure.reason is FailureReason.UNSUPPORTED_CRITICAL_PAYLOAD
    pair.check(children=0, ike_sas=0)


def test_a_rekey_is_narrowed_like_the_first():
    # §2.9.2: the initiator offers what it wants again, and both allow the same part again.
    pair = Pair(bob={"local_lan": "10.2.7.0/24"})
    pair.establish()
    narrowed = pair.alice.child_sa.remote_ts
    assert narrowed == selectors("10.2.7.0/24")

    pair.alice.rekey_child()
    pair.run_for(10.0)

    assert pair.alice.child_sa.remote_ts == narrowed
    pair.check(children=1)
