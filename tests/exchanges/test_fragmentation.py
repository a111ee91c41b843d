"""IKE fragmentation (RFC 7383): who fragments, what is lost or comes twice, and what a hostile peer sends.

The connections have so many selectors that IKE_AUTH and the rekeys of Child SAs do not fit the small packets
that are configured; nothing else about them is unusual.
"""

from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from gateway.ike.endpoint import EndpointOptions
from gateway.ike.events import ChildSaFailed, CredentialRequest, DatagramDropped, IkeSaFailed, SignRequest
from gateway.ike.timers import Timer
from gateway.ike.wire.header import ExchangeType, IkeHeader
from gateway.ike.wire.message import EncryptedFragment, parse_message
from gateway.ike.wire.notify import NotifyType
from gateway.ike.wire.protected import MAX_FRAGMENTS
from gateway.ipsec.connection import Child, Fragmentation
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.proposal import ProtocolId
from tests.exchanges.signing import SUB_CA, certified, gateway_of
from tests.fakes.link import delayed, doubled, lost
from tests.fakes.pair import BOB, ESP, Asked, Pair, proposals, selectors
from tests.fakes.tap import flip, with_message_id

OURS = [f"10.1.{number}.0/24" for number in range(0, 40, 2)]
THEIRS = [f"10.2.{number}.0/24" for number in range(0, 40, 2)]
IP_AND_UDP = 28


def wordy(local, remote):
    return Child(
        name="lan",
        local_ts=selectors(*local),
        remote_ts=selectors(*remote),
        proposals=proposals(ESP, ProtocolId.ESP),
    )


def fresh(size=400, *, alice=None, bob=None, both=None, **options):
    """Return a pair whose IKE_AUTH takes several fragments at `size` bytes an IP packet."""
    ike_options = {"fragment_packet_bytes": size} | (both or {})
    return Pair(
        alice={"children": [wordy(OURS, THEIRS)], "ike_options": ike_options | (alice or {})},
        bob={"children": [wordy(THEIRS, OURS)], "ike_options": ike_options | (bob or {})},
        **options,
    )


def established(size=400, **options):
    pair = fresh(size, **options)
    pair.establish()
    return pair


def core(host):
    """Return the one IKE SA of a core, to look at what it holds."""
    (ike_sa,) = host.endpoint._ike_sas.all()
    return ike_sa


def fragments_of(packets, exchange):
    """Return (number, total) of every fragment of an exchange among packets."""
    messages = [parse_message(packet.data) for packet in packets]
    return [
        (message.protected.number, message.protected.total)
        for message in messages
        if isinstance(message.protected, EncryptedFragment) and message.header.exchange_type == exchange
    ]


def drops(host, reason):
    return [event for event in host.events(DatagramDropped) if event.reason is reason]


# --- who fragments what ---------------------------------------------------------------------------


def test_ike_auth_is_fragmented_both_ways_once_both_said_that_they_can():
    # HDR, SAi1, KEi, Ni, N(IKEV2_FRAGMENTATION_SUPPORTED) -->
    # <-- HDR, SAr1, KEr, Nr, N(IKEV2_FRAGMENTATION_SUPPORTED)
    # HDR(IKE_AUTH, 1), SKF(1/N) {...} --> ... HDR(IKE_AUTH, 1), SKF(N/N) {...} -->
    pair = established()

    assert pair.story() == [
        "IKE_SA_INIT {SAi1, KEi, Ni} -->",
        "<-- IKE_SA_INIT {SAr1, KEr, Nr}",
        "IKE_AUTH SKF 1/3 -->",
        "IKE_AUTH SKF 2/3 -->",
        "IKE_AUTH SKF 3/3 -->",
        "<-- IKE_AUTH SKF 1/3",
        "<-- IKE_AUTH SKF 2/3",
        "<-- IKE_AUTH SKF 3/3",
    ]
    init = pair.messages()[:2]
    assert all(message.notify(NotifyType.IKEV2_FRAGMENTATION_SUPPORTED).data == b"" for message in init)


@pytest.mark.parametrize("size", [256, 400, 576, 1280])
def test_no_packet_is_larger_than_configured(size):
    pair = established(size)

    assert all(len(packet.data) + IP_AND_UDP <= size for packet in pair.sent()[2:])


def test_with_the_non_esp_marker_packets_are_no_larger_either():
    """On port 4500 four octets of the packet are the marker (RFC 3948 §2.2)."""
    pair = fresh(400, both={"encapsulation": True})
    pair.establish()

    sent = pair.sent()[2:]
    assert all(packet.destination[1] == 4500 for packet in sent)
    assert max(len(packet.data) for packet in sent) in range(360, 400 - IP_AND_UDP - 4 + 1)


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_nobody_fragments_unless_both_can(who):
    """§2.3: support must be mutual."""
    pair = fresh(**{who: {"fragmentation": Fragmentation.NO}})

    pair.establish()

    assert [fragments_of(pair.sent(), exchange) for exchange in ExchangeType] == [[]] * len(ExchangeType)
    answer = pair.messages(pair.bob)[0]
    assert answer.notify(NotifyType.IKEV2_FRAGMENTATION_SUPPORTED) is None


def test_small_messages_stay_whole():
    pair = established()
    mark = pair.mark

    pair.alice.check_liveness()
    pair.settle()

    assert pair.story(since=mark) == ["INFORMATIONAL SK {} -->", "<-- INFORMATIONAL SK {}"]


def test_create_child_sa_is_fragmented_too():
    pair = established()
    mark = pair.mark

    pair.bob.rekey_child()
    pair.run_for(10.0)

    pair.check(children=1)
    sent = [packet for packet in pair.sent() if packet.number >= mark]
    assert fragments_of(sent, ExchangeType.CREATE_CHILD_SA) == [(1, 3), (2, 3), (3, 3)] * 2


def test_a_rekeyed_ike_sa_fragments_as_the_one_before():
    """§2.3: the capability is the IKE SA's, and CREATE_CHILD_SA does not negotiate it."""
    pair = established()
    pair.alice.rekey_ike()
    pair.run_for(5.0)
    mark = pair.mark

    pair.alice.rekey_child()
    pair.run_for(10.0)

    pair.check(children=1)
    sent = [packet for packet in pair.sent() if packet.number >= mark]
    assert len(fragments_of(sent, ExchangeType.CREATE_CHILD_SA)) == 6


@pytest.mark.parametrize(
    "ike",
    [
        "aes256gcm16-prfsha384-x25519",
        "aes128gcm8-prfsha256-x25519",
        "aes256ccm12-prfsha256-x25519",
        "chacha20poly1305-prfsha512-x25519",
        "aes256-sha256-x25519",
        "aes128-sha1-x25519",
        "aes128-sha512-x25519",
        "aes256ctr-sha384-x25519",
        "aes128-aesxcbc-x25519",
    ],
)
def test_every_kind_of_suite_carries_fragments(ike):
    pair = Pair(
        alice={"children": [wordy(OURS, THEIRS)]},
        bob={"children": [wordy(THEIRS, OURS)]},
        both={"ike": ike, "ike_options": {"fragment_packet_bytes": 400}},
    )

    pair.establish()

    assert len(fragments_of(pair.sent(), ExchangeType.IKE_AUTH)) >= 6
    assert all(len(packet.data) + IP_AND_UDP <= 400 for packet in pair.sent()[2:])


# --- loss, order, repetition (§2.6, §2.6.1) ---------------------------------------------------------

PATIENT = {"retransmit_timeout_s": 1.0, "retransmit_base": 1.3, "retransmit_tries": 10}
ACTS = {
    "IKE_AUTH": (lambda: fresh(both=PATIENT), lambda pair: pair.alice.initiate(), 2),
    "Child rekey": (lambda: established(both=PATIENT), lambda pair: pair.alice.rekey_child(), 0),
    "Child rekey by the responder": (
        lambda: established(both=PATIENT),
        lambda pair: pair.bob.rekey_child(),
        0,
    ),
}
FAULTS = {
    "lost": lost,
    "doubled at once": lambda number: doubled(0.0, number),
    "doubled much later": lambda number: doubled(5.0, number),
    "overtaken": lambda number: delayed(0.5, number),
    "later than the retransmission": lambda number: delayed(1.5, number),
}


@pytest.mark.parametrize("index", range(6))
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ACTS)
def test_one_fragment_mishandled_changes_nothing_in_the_end(name, fault, index):
    start, act, first = ACTS[name]
    undisturbed, pair = start(), start()
    act(undisturbed)
    undisturbed.run_for(30.0)
    pair.link.fate = FAULTS[fault](pair.mark + first + index)

    act(pair)
    pair.run_for(30.0)

    pair.check(children=1)
    for host, same in zip(pair.hosts, undisturbed.hosts, strict=True):
        assert Counter(c.verb for c in host.sad.history) == Counter(c.verb for c in same.sad.history)
        assert not host.events(IkeSaFailed, ChildSaFailed)
    assert all(core(host).fragments.is_empty for host in pair.hosts)


@pytest.mark.parametrize("name", ACTS)
def test_fragments_in_reverse_come_together(name):
    start, act, _ = ACTS[name]
    pair = start()
    pair.link.fate = lambda packet: (0.4 - 0.01 * (packet.number % 20),)

    act(pair)
    pair.run_for(10.0)

    pair.check(children=1)


@pytest.mark.parametrize("seed", range(6))
def test_heavy_loss_of_fragments_only_takes_longer(seed):
    pair = fresh(both=PATIENT | {"retransmit_tries": 40})
    dice = Random(seed)
    pair.link.fate = lambda packet: () if dice.random() < 0.4 else (dice.random() * 0.1,)

    pair.alice.initiate()
    pair.run_for(25.0)
    pair.link.fate = lambda packet: (0.0,)
    pair.run_for(25.0)

    pair.check(children=1)


def test_a_retransmission_is_all_fragments_byte_for_byte():
    pair = fresh(both=PATIENT)
    # One fragment of the request is lost: the others come again with it.
    pair.link.fate = lost(3)

    pair.alice.initiate()
    pair.settle()
    pair.run_for(3.0)

    sent = [packet.data for packet in pair.sent(pair.alice) if packet.number >= 2]
    assert sent[:3] == sent[3:]
    assert fragments_of(pair.sent(pair.bob), ExchangeType.IKE_AUTH) == [(1, 3), (2, 3), (3, 3)]
    pair.check(children=1)


def test_only_the_first_fragment_of_an_answered_request_is_answered_again():
    """§2.6.1: one retransmission of N fragments is answered once, not N times."""
    pair = established()
    request = [packet.data for packet in pair.sent(pair.alice)[1:]]
    response = [packet.data for packet in pair.sent(pair.bob)[1:]]
    before = len(pair.sent(pair.bob))

    for datagram in request[1:]:
        pair.bob.receive(datagram)
    assert len(pair.sent(pair.bob)) == before

    pair.bob.receive(request[0])
    assert [packet.data for packet in pair.sent(pair.bob)[before:]] == response


def test_a_forged_first_fragment_is_not_answered():
    pair = established()
    request = pair.sent(pair.alice)[1].data
    before = len(pair.sent(pair.bob))

    pair.bob.receive(flip(request, len(request) - 1))

    assert len(pair.sent(pair.bob)) == before
    assert len(drops(pair.bob, DropReason.IKE_INTEGRITY)) == 1


def test_fragments_of_a_request_that_is_being_worked_on_are_absorbed():
    pair = fresh()
    pair.bob.answer(CredentialRequest, after=3.0)
    pair.link.fate = doubled(0.0, 2, 3, 4)

    pair.alice.initiate()
    pair.settle()

    # Twice from the network, and twice retransmitted: answered when the credential is there, once.
    assert len(fragments_of(pair.sent(pair.alice), ExchangeType.IKE_AUTH)) == 9
    assert fragments_of(pair.sent(pair.bob), ExchangeType.IKE_AUTH) == [(1, 3), (2, 3), (3, 3)]
    pair.check(children=1)


# --- hostile fragments ------------------------------------------------------------------------------


class Forger:
    """Alice, having agreed on keys with Bob, and then sending what she likes instead of IKE_AUTH.

    Whoever did the key exchange can do that: Bob does not know yet who she is.
    """

    def __init__(self, pair):
        self.pair = pair
        pair.link.fate = lambda packet: (0.0,) if packet.number < 2 else ()
        pair.alice.initiate()
        pair.settle()
        self.honest = [packet.data for packet in pair.sent(pair.alice)[1:]]
        ike_sa = core(pair.bob)
        self.keys = pair.tap.keys(ike_sa.spi_i, ike_sa.spi_r)
        self.header = IkeHeader.build(
            spi_i=ike_sa.spi_i,
            spi_r=ike_sa.spi_r,
            exchange_type=ExchangeType.IKE_AUTH,
            is_initiator=True,
            is_response=False,
            message_id=1,
        )

    def send(self, number, total, octets=b"x", *, first_payload=0, **header):
        """Send Bob an authentic fragment."""
        changed = replace(self.header, **header)
        self.pair.bob.receive(self.keys.seal_octets(changed, first_payload, octets, (number, total)))

    def send_honest(self, *numbers):
        """Send Bob fragments of the real IKE_AUTH request; all of them without `numbers`."""
        for number in numbers or range(1, len(self.honest) + 1):
            self.pair.bob.receive(self.honest[number - 1])

    def is_answered(self):
        return bool(fragments_of(self.pair.sent(self.pair.bob), ExchangeType.IKE_AUTH))

    def held_bytes(self):
        request = core(self.pair.bob).fragments._request
        return 0 if request is None else request.reassembly.held_bytes


@pytest.fixture
def forger():
    return Forger(fresh())


def test_a_fragment_with_a_wrong_icv_leaves_no_trace(forger):
    for position in (30, 35, 40, len(forger.honest[0]) - 1):
        forger.pair.bob.receive(flip(forger.honest[0], position))

    assert core(forger.pair.bob).fragments.is_empty
    assert core(forger.pair.bob).timer_deadline(Timer.REASSEMBLY) is None
    forger.send_honest()
    assert forger.is_answered()


def test_a_repeated_number_with_other_octets_does_not_replace_what_is_here(forger):
    forger.send_honest(1)
    forger.send(1, 3, b"overlapping")
    forger.send_honest(2, 3)

    assert forger.is_answered()
    assert len(drops(forger.pair.bob, DropReason.IKE_MESSAGE_ID)) == 1


def test_a_larger_total_starts_over_and_a_smaller_one_is_dropped(forger):
    forger.send(1, 2, b"old")
    forger.send_honest(1)
    forger.send(2, 2, b"old")
    forger.send_honest(2, 3)

    assert forger.is_answered()
    assert len(drops(forger.pair.bob, DropReason.IKE_MESSAGE_ID)) == 1


@pytest.mark.parametrize(("number", "total"), [(0, 3), (4, 3), (0, 0), (1, 0), (65535, 1)])
def test_impossible_numbers_are_malformed(forger, number, total):
    forger.send(number, total)

    assert len(drops(forger.pair.bob, DropReason.IKE_MALFORMED)) == 1
    assert core(forger.pair.bob).fragments.is_empty
    forger.send_honest()
    assert forger.is_answered()


@pytest.mark.parametrize("total", [MAX_FRAGMENTS + 1, 65535])
def test_more_fragments_than_anybody_needs_are_not_kept(forger, total):
    forger.send_honest(1)
    forger.send(1, total)
    forger.send(total, total)
    forger.send_honest(2, 3)

    assert forger.is_answered()


def test_what_is_held_for_a_stranger_is_bounded(forger):
    """Before IKE_AUTH anybody may be there: half-open IKE SAs times this is what floods can take."""
    limit = EndpointOptions().half_open_message_bytes
    piece = bytes(1000)

    for number in range(1, MAX_FRAGMENTS + 1):
        forger.send(number, MAX_FRAGMENTS, piece)
        assert forger.held_bytes() <= limit

    assert len(drops(forger.pair.bob, DropReason.IKE_UNEXPECTED)) == MAX_FRAGMENTS * 1000 // (limit + 1000)
    assert not forger.is_answered()


def test_what_is_held_for_a_peer_is_bounded():
    pair = established()
    (info,) = pair.alice.ike_sas
    keys = pair.tap.keys(info.spi_i, info.spi_r)
    header = IkeHeader.build(
        spi_i=info.spi_i,
        spi_r=info.spi_r,
        exchange_type=ExchangeType.INFORMATIONAL,
        is_initiator=True,
        is_response=False,
        message_id=2,
    )

    for number in range(1, MAX_FRAGMENTS + 1):
        pair.bob.receive(keys.seal_octets(header, 0, bytes(2000), (number, MAX_FRAGMENTS)))
        held = core(pair.bob).fragments._request
        assert held is None or held.reassembly.held_bytes <= 65535

    assert len(drops(pair.bob, DropReason.IKE_UNEXPECTED)) == 1
    pair.check(children=1)


@pytest.mark.parametrize("message_id", [0, 2, 3, 0xFFFFFFFF])
def test_only_the_message_that_is_awaited_is_kept(forger, message_id):
    forger.send(1, 3, message_id=message_id)

    assert core(forger.pair.bob).fragments.is_empty


def test_the_message_id_of_a_fragment_is_authenticated(forger):
    pair = forger.pair
    forger.send_honest()
    before = len(pair.sent(pair.bob))

    pair.bob.receive(with_message_id(forger.honest[0], 2))

    assert core(pair.bob).fragments.is_empty
    assert len(pair.sent(pair.bob)) == before


@pytest.mark.parametrize("exchange", [ExchangeType.CREATE_CHILD_SA, ExchangeType.INFORMATIONAL, 99])
def test_fragments_of_an_exchange_that_is_not_legal_now_are_not_kept(forger, exchange):
    forger.send(1, 3, exchange_type=exchange)

    assert core(forger.pair.bob).fragments.is_empty
    assert len(drops(forger.pair.bob, DropReason.IKE_UNEXPECTED)) == 1


def test_fragments_of_two_exchanges_never_mix():
    pair = established()
    (info,) = pair.alice.ike_sas
    keys = pair.tap.keys(info.spi_i, info.spi_r)
    header = IkeHeader.build(
        spi_i=info.spi_i,
        spi_r=info.spi_r,
        exchange_type=ExchangeType.INFORMATIONAL,
        is_initiator=True,
        is_response=False,
        message_id=2,
    )
    other = replace(header, exchange_type=ExchangeType.CREATE_CHILD_SA)
    before = len(pair.sent(pair.bob))

    pair.bob.receive(keys.seal_octets(header, 0, b"", (1, 2)))
    pair.bob.receive(keys.seal_octets(other, 0, b"", (2, 2)))
    assert len(pair.sent(pair.bob)) == before

    # HDR(INFORMATIONAL, 2), SKF(2/2) {} --> : an empty message is whole now.
    pair.bob.receive(keys.seal_octets(header, 0, b"", (2, 2)))
    assert len(pair.sent(pair.bob)) == before + 1


def test_a_whole_message_takes_the_place_of_its_fragments():
    """A peer may try without fragments first, or last: what is whole is believed, the rest forgotten."""
    pair = established()
    (info,) = pair.alice.ike_sas
    keys = pair.tap.keys(info.spi_i, info.spi_r)
    header = IkeHeader.build(
        spi_i=info.spi_i,
        spi_r=info.spi_r,
        exchange_type=ExchangeType.INFORMATIONAL,
        is_initiator=True,
        is_response=False,
        message_id=2,
    )
    fragment = keys.seal_octets(header, 41, b"", (1, 2))
    before = len(pair.sent(pair.bob))

    pair.bob.receive(fragment)
    pair.bob.receive(keys.seal(header, ()))

    assert core(pair.bob).fragments.is_empty
    assert core(pair.bob).timer_deadline(Timer.REASSEMBLY) is None
    assert len(pair.sent(pair.bob)) == before + 1
    # The rest of the fragments comes late: the second is of an answered request and no first fragment.
    pair.bob.receive(keys.seal_octets(header, 0, b"", (2, 2)))
    assert len(pair.sent(pair.bob)) == before + 1


def test_nonsense_put_together_is_invalid_syntax(forger):
    """The whole message is authentic and malformed, like one that came whole (RFC 7296 §2.21.2)."""
    forger.send(1, 2, b"\x00\x00", first_payload=35)
    forger.send(2, 2, b"\x01\x02")

    (answer,) = forger.pair.messages(forger.pair.bob)[1:]
    assert answer.notify(NotifyType.INVALID_SYNTAX) is not None
    assert not forger.pair.bob.ike_sas


def test_fragments_that_do_not_become_whole_are_forgotten(forger):
    timeout_s = EndpointOptions().reassembly_timeout_s
    pair = Forger(fresh(bob_options=EndpointOptions(half_open_timeout_s=100.0))).pair
    bob = core(pair.bob)
    first = pair.sent(pair.alice)[1].data

    pair.bob.receive(first)
    pair.run_for(timeout_s - 0.5)
    assert not bob.fragments.is_empty

    pair.run_for(1.0)
    assert bob.fragments.is_empty


def test_an_ike_sa_that_ends_takes_its_fragments_along(forger):
    bob = core(forger.pair.bob)
    forger.send_honest(1, 2)

    forger.pair.run_for(EndpointOptions().half_open_timeout_s + 1.0)

    assert not forger.pair.bob.ike_sas
    assert bob.fragments.is_empty


def test_without_agreement_fragments_are_dropped():
    forger = Forger(fresh(bob={"fragmentation": Fragmentation.NO}))

    forger.send(1, 2)

    assert core(forger.pair.bob).fragments.is_empty
    assert len(drops(forger.pair.bob, DropReason.IKE_UNEXPECTED)) == 1


def test_fragments_before_there_are_keys_are_dropped():
    pair = fresh()
    pair.link.fate = lambda packet: ()
    pair.alice.initiate()
    alice = core(pair.alice)
    header = IkeHeader.build(
        spi_i=alice.spi_i,
        spi_r=b"\x01" * 8,
        exchange_type=ExchangeType.IKE_SA_INIT,
        is_initiator=False,
        is_response=True,
        message_id=0,
    )
    other = Forger(fresh())

    # HDR(IKE_SA_INIT), SKF(1/2) { nobody can read this }
    pair.alice.receive(other.keys.seal_octets(header, 0, b"x", (1, 2)))

    assert alice.fragments.is_empty
    assert len(drops(pair.alice, DropReason.IKE_UNEXPECTED)) == 1


# --- smaller fragments for a path that loses large ones (§2.5.2) -------------------------------------

MANY = [f"10.1.{number}.0/24" for number in range(0, 120, 2)]
MANY_THEIRS = [f"10.2.{number}.0/24" for number in range(0, 120, 2)]


def narrow(size, path_bytes, *, alice=None, both=None):
    """Return a pair that takes an IKE_AUTH of 2 kB over a path that loses packets above `path_bytes`."""
    ike_options = {"fragment_packet_bytes": size} | (both or {})
    pair = Pair(
        alice={"children": [wordy(MANY, MANY_THEIRS)], "ike_options": ike_options | (alice or {})},
        bob={"children": [wordy(MANY_THEIRS, MANY)], "ike_options": ike_options},
    )
    pair.link.fate = lambda packet: () if len(packet.data) + IP_AND_UDP > path_bytes else (0.0,)
    return pair


def test_a_request_that_goes_unanswered_is_divided_smaller():
    pair = narrow(1280, path_bytes=600)

    pair.alice.initiate()
    pair.run_for(20.0)

    pair.check(children=1)
    totals = [
        total for number, total in fragments_of(pair.sent(pair.alice), ExchangeType.IKE_AUTH) if number == 1
    ]
    # Three times as 2 fragments of 1280 bytes, then as 5 of 576.
    assert totals == [2, 2, 2, 5]
    assert core(pair.alice).max_packet_bytes == 576
    # The answer is no larger, or it would be lost as well.
    assert fragments_of(pair.sent(pair.bob), ExchangeType.IKE_AUTH)[0] == (1, 5)


def test_smaller_fragments_do_not_mix_with_larger_ones_that_arrived():
    """The last fragment of the larger division is short and arrives; the next division starts over (§2.6)."""
    pair = narrow(1280, path_bytes=1100)

    pair.alice.initiate()
    pair.run_for(20.0)

    pair.check(children=1)
    assert fragments_of(pair.link.lost, ExchangeType.IKE_AUTH) == [(1, 2)] * 3


def test_large_packets_fall_back_step_by_step():
    pair = narrow(9000, path_bytes=600)

    pair.alice.initiate()
    pair.run_for(30.0)

    pair.check(children=1)
    requests = [parse_message(packet.data).protected for packet in pair.sent(pair.alice)[1:]]
    totals = [
        getattr(protected, "total", "whole") for protected in requests if getattr(protected, "number", 1) == 1
    ]
    assert totals == ["whole"] * 3 + [2] * 3 + [5]


def test_what_comes_later_stays_small():
    pair = narrow(1280, path_bytes=600)
    pair.alice.initiate()
    pair.run_for(20.0)
    mark = pair.mark

    pair.alice.rekey_child()
    pair.run_for(10.0)

    pair.check(children=1)
    assert all(len(packet.data) + IP_AND_UDP <= 576 for packet in pair.sent() if packet.number >= mark)


def shy_bob(path_bytes):
    """Return a pair whose small requests arrive and whose large answers do not: Bob's chain is long."""
    chain = (gateway_of("bob", SUB_CA, kind="rsa"), SUB_CA)
    pair = certified(bob=chain, both={"ike_options": {"fragment_packet_bytes": 1280}})
    too_large = path_bytes - IP_AND_UDP
    pair.link.fate = lambda packet: (
        () if packet.source[0] == BOB and packet.number > 1 and len(packet.data) > too_large else (0.0,)
    )
    return pair


def test_an_answer_that_does_not_arrive_is_divided_smaller():
    """The request fits, so that only its repetition tells; the answer is the one that was given (§2.1)."""
    pair = shy_bob(path_bytes=600)

    pair.alice.initiate()
    pair.run_for(20.0)

    pair.check(children=1)
    totals = [
        total for number, total in fragments_of(pair.sent(pair.bob), ExchangeType.IKE_AUTH) if number == 1
    ]
    assert totals[:3] == [totals[0]] * 3
    assert totals[3:] == [totals[3]]
    assert totals[3] > totals[0]
    assert core(pair.bob).max_packet_bytes == 576
    signed = [
        e for e in pair.log if isinstance(e, Asked) and e.host == "bob" and isinstance(e.request, SignRequest)
    ]
    assert len(signed) == 1


def test_a_divided_answer_is_repeated_as_it_was_divided():
    pair = shy_bob(path_bytes=100)

    pair.alice.initiate()
    pair.run_for(60.0)

    sent = [packet.data for packet in pair.sent(pair.bob)]
    answers = [data for data in sent if parse_message(data).header.exchange_type == ExchangeType.IKE_AUTH]
    fragments = list(dict.fromkeys(fragments_of(pair.sent(pair.bob), ExchangeType.IKE_AUTH)))
    # Two divisions, each made once: the first is sent three times, the second as often as it is asked for.
    assert len(set(answers)) == len(fragments)
    times = {data: answers.count(data) for data in answers}
    by_total = {total: set() for _, total in fragments}
    for data, often in times.items():
        by_total[parse_message(data).protected.total].add(often)
    (first, second) = by_total.values()
    assert first == {3}
    assert len(second) == 1
    assert min(second) >= 3


def test_a_dead_peer_is_noticed_all_the_same():
    pair = narrow(1280, path_bytes=600, both={"retransmit_tries": 4})
    pair.link.fate = lambda packet: (0.0,) if packet.number < 2 else ()

    pair.alice.initiate()
    pair.run_for(60.0)

    (failed,) = pair.alice.events(IkeSaFailed)
    assert failed.failure.reason.value == "peer_unresponsive"
    totals = Counter(
        total for number, total in fragments_of(pair.sent(pair.alice), ExchangeType.IKE_AUTH) if number == 1
    )
    assert totals == {2: 3, 5: 5}


def test_nothing_is_divided_that_would_not_become_more_fragments():
    """As many fragments as before would be taken for those that are there already (§2.6)."""
    pair = narrow(600, path_bytes=590)

    pair.alice.initiate()
    pair.run_for(4.0)
    pair.link.fate = lambda packet: (0.0,)
    pair.run_for(20.0)

    pair.check(children=1)
    assert {total for _, total in fragments_of(pair.sent(pair.alice), ExchangeType.IKE_AUTH)} == {5}


def test_a_message_that_fits_is_never_divided():
    pair = established(1280)
    pair.link.fate = lambda packet: ()
    mark = pair.mark

    pair.alice.check_liveness()
    pair.run_for(15.0)

    sent = [packet for packet in pair.sent() if packet.number >= mark]
    assert len(sent) > 3
    assert len({packet.data for packet in sent}) == 1
