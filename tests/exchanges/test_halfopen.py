"""Half-open IKE SAs under a flood (RFC 7296 §2.6): memory is bounded, and who is real still gets through."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from gateway.ike.endpoint import EndpointOptions
from gateway.ike.events import DatagramDropped, IkeSaFailed
from gateway.ike.path import Path
from gateway.ike.wire.message import encode_message, parse_message
from gateway.ike.wire.notify import NotifyType
from gateway.ipsec.drop_reason import DropReason
from tests.fakes.link import Nat
from tests.fakes.pair import ALICE, ALICE_LAN, BOB, BOB_LAN, Pair

LIMITS = EndpointOptions(
    cookie_threshold=8,
    cookie_threshold_per_prefix=3,
    half_open_limit=16,
    half_open_per_prefix=4,
    half_open_timeout_s=30.0,
)


def flood_target():
    """A pair where Bob answers anybody, and a request to vary."""
    pair = Pair(bob={"remote_address": None}, bob_options=LIMITS)
    pair.link.fate = lambda packet: ()
    pair.alice.initiate()
    template = parse_message(pair.sent(pair.alice)[0].data)
    pair.link.fate = lambda packet: (0.0,)
    return pair, template


def request(template, number, *first):
    header = replace(template.header, spi_i=(0xF100_0000_0000_0000 + number).to_bytes(8))
    return encode_message(header, [*first, *template.payloads])


def attack(pair, template, number, *first):
    """One forged request from an address of its own; Bob's answer to it, if any."""
    source = ip_address("203.0.113.0") + number % 200
    before = len(pair.sent(pair.bob))
    pair.bob.receive(request(template, number, *first), Path(BOB, 500, source, 500))
    answers = pair.sent(pair.bob)[before:]
    return pair.tap.open(answers[0].data) if answers else None


def half_open(pair):
    return [sa for sa in pair.bob.ike_sas if sa.state == "half_open"]


def test_cookies_start_at_the_threshold():
    pair, template = flood_target()

    answers = [attack(pair, template, number) for number in range(12)]

    asked = [answer.notify(NotifyType.COOKIE) is not None for answer in answers]
    assert asked == [False] * 8 + [True] * 4
    assert len(half_open(pair)) == 8


def test_a_flood_makes_no_more_state_than_the_threshold():
    pair, template = flood_target()

    for number in range(2000):
        attack(pair, template, number)

    assert len(pair.bob.ike_sas) == 8


def test_a_flood_with_cookies_stops_at_the_limit():
    # An attacker that really has all these addresses.
    pair, template = flood_target()

    for number in range(200):
        answer = attack(pair, template, number)
        if answer is not None and (cookie := answer.notify(NotifyType.COOKIE)) is not None:
            attack(pair, template, number, cookie)

    assert len(half_open(pair)) == 16
    reasons = {event.reason for event in pair.bob.events(DatagramDropped)}
    assert DropReason.IKE_HALF_OPEN_LIMIT in reasons


def test_one_address_must_bring_cookies_before_the_others():
    pair, template = flood_target()
    path = Path(BOB, 500, ip_address("203.0.113.7"), 500)

    for number in range(50):
        pair.bob.receive(request(template, number), path)

    assert len(half_open(pair)) == 3
    assert attack(pair, template, 99).notify(NotifyType.COOKIE) is None


def test_one_address_cannot_use_up_the_table_with_cookies():
    pair, template = flood_target()
    path = Path(BOB, 500, ip_address("203.0.113.7"), 500)

    for number in range(50):
        before = len(pair.sent(pair.bob))
        pair.bob.receive(request(template, number), path)
        for answer in pair.sent(pair.bob)[before:]:
            cookie = pair.tap.open(answer.data).notify(NotifyType.COOKIE)
            if cookie is not None:
                pair.bob.receive(request(template, number, cookie), path)

    assert len(half_open(pair)) == 3 + 4


def test_one_ipv6_network_cannot_use_up_the_table_with_cookies():
    # RFC 7296 §2.6 counts addresses; a single IPv6 host has 2**64 of them, and receives at each.
    bob = ip_address("2001:db8:b::2")
    pair = Pair(
        bob={"local_address": None, "remote_address": None, "local_lan": BOB_LAN, "remote_lan": ALICE_LAN},
        bob_options=LIMITS,
    )
    pair.link.fate = lambda packet: ()
    pair.alice.initiate()
    template = parse_message(pair.sent(pair.alice)[0].data)

    for number in range(50):
        path = Path(bob, 500, ip_address("2001:db8:a:1::1") + number, 500)
        before = len(pair.sent(pair.bob))
        pair.bob.receive(request(template, number), path)
        for answer in pair.sent(pair.bob)[before:]:
            cookie = pair.tap.open(answer.data).notify(NotifyType.COOKIE)
            if cookie is not None:
                pair.bob.receive(request(template, number, cookie), path)

    assert len(half_open(pair)) == 3 + 4


def test_a_first_message_longer_than_any_honest_one_is_not_looked_at():
    pair, template = flood_target()
    sa, *others = template.payloads
    many = tuple(replace(sa.proposals[0], number=number % 256) for number in range(1, 300))
    endless = encode_message(template.header, [replace(sa, proposals=many), *others])

    pair.bob.receive(endless, Path(BOB, 500, ip_address("203.0.113.7"), 500))

    assert len(endless) > 8192
    assert pair.bob.ike_sas == ()
    assert pair.sent(pair.bob) == []
    assert [event.reason for event in pair.bob.events(DatagramDropped)] == [DropReason.IKE_MALFORMED]


def test_nobody_locks_a_peer_out_by_forging_its_address():
    pair, template = flood_target()
    forged = Path(BOB, 500, ALICE, 500)
    for number in range(500):
        pair.bob.receive(request(template, number), forged)

    pair.run_for(2.0)  # Alice's own request is repeated, while the forged ones still hold their places

    assert [sa.state for sa in pair.alice.ike_sas] == ["established"]


def test_the_same_request_repeated_is_one_half_open_ike_sa_and_one_answer():
    pair, template = flood_target()
    path = Path(BOB, 500, ip_address("203.0.113.7"), 500)

    for _ in range(50):
        pair.bob.receive(request(template, 1), path)

    assert len(half_open(pair)) == 1
    assert len({packet.data for packet in pair.sent(pair.bob)}) == 1


def test_half_open_ike_sas_are_forgotten():
    pair, template = flood_target()
    for number in range(8):
        attack(pair, template, number)

    pair.run_for(31.0)

    assert half_open(pair) == []
    assert pair.bob.events(IkeSaFailed) == [] or len(pair.bob.events(IkeSaFailed)) == 8
    assert attack(pair, template, 99).notify(NotifyType.COOKIE) is None


@pytest.mark.parametrize("intensity", [8, 500])
def test_a_legitimate_peer_gets_through_the_flood(intensity):
    pair, template = flood_target()
    for number in range(intensity):
        attack(pair, template, number)

    pair.run_for(120.0)  # Alice's first request is repeated meanwhile
    pair.alice.initiate()
    pair.settle()

    established = [sa for sa in pair.bob.ike_sas if sa.state == "established"]
    assert len(established) == 1
    assert pair.alice.ike_sa.spi_i == established[0].spi_i


def test_a_legitimate_peer_gets_through_while_the_flood_goes_on():
    pair, template = flood_target()
    for number in range(300):
        attack(pair, template, number)
        if number % 3 == 0:
            pair.run_for(0.1)

    assert [sa.state for sa in pair.alice.ike_sas] == ["established"]


def test_a_site_behind_one_address_of_a_nat_gets_in_although_an_attacker_is_behind_it_too():
    # The attacker receives at the same address, so it has cookies as well; its half-open IKE SAs are old
    # ones by the time Alice's comes, and make room for it.
    pair, template = flood_target()
    outside = ip_address("203.0.113.7")
    pair.link.nats = [Nat(inside=ALICE, outside=outside)]
    path = Path(BOB, 500, outside, 500)
    for number in range(200):
        before = len(pair.sent(pair.bob))
        pair.bob.receive(request(template, number), path)
        for answer in pair.sent(pair.bob)[before:]:
            cookie = pair.tap.open(answer.data).notify(NotifyType.COOKIE)
            if cookie is not None:
                pair.bob.receive(request(template, number, cookie), path)

    pair.run_for(3.0)  # Alice's request is repeated meanwhile

    assert [sa.state for sa in pair.alice.ike_sas] == ["established"]


def test_what_is_told_of_those_that_made_room_is_no_event_per_datagram():
    pair, template = flood_target()
    for number in range(200):
        answer = attack(pair, template, number)
        if answer is not None and (cookie := answer.notify(NotifyType.COOKIE)) is not None:
            attack(pair, template, number, cookie)

    dropped = [event.reason for event in pair.bob.events(DatagramDropped)]
    assert dropped.count(DropReason.IKE_HALF_OPEN_LIMIT) > 100
    assert pair.bob.events(IkeSaFailed) == []


def test_a_request_whose_first_cookie_is_stale_is_asked_for_another():
    # RFC 7296 §2.6: a cookie that is no good counts as none.
    pair, template = flood_target()
    for number in range(8):
        attack(pair, template, number)
    stale = attack(pair, template, 100).notify(NotifyType.COOKIE)
    pair.clock.jump_to(pair.now + 200.0)
    for number in range(8, 16):
        attack(pair, template, number)

    fresh = attack(pair, template, 100, stale).notify(NotifyType.COOKIE)

    assert fresh.data != stale.data
    assert len(half_open(pair)) == 8
    assert str(attack(pair, template, 100, fresh)) == "IKE_SA_INIT {SAr1, KEr, Nr}"


def test_a_flood_of_what_is_refused_needs_cookies_as_well():
    # No proposal in common: nothing is half-open afterwards, but each such request is parsed and compared.
    pair = Pair(bob={"remote_address": None, "ike": "aes256-sha256-modp2048"}, bob_options=LIMITS)
    pair.link.fate = lambda packet: ()
    pair.alice.initiate()
    template = parse_message(pair.sent(pair.alice)[0].data)

    answers = [attack(pair, template, number) for number in range(300)]

    asked = [answer.notify(NotifyType.COOKIE) is not None for answer in answers]
    assert asked == [False] * 100 + [True] * 200
    assert answers[0].notify(NotifyType.NO_PROPOSAL_CHOSEN) is not None
    pair.clock.jump_to(pair.now + 1.0)
    assert attack(pair, template, 300).notify(NotifyType.COOKIE) is None


def test_who_brings_a_cookie_is_refused_with_the_reason_during_that_flood_too():
    pair = Pair(bob={"remote_address": None, "ike": "aes256-sha256-modp2048"}, bob_options=LIMITS)
    pair.link.fate = lambda packet: ()
    pair.alice.initiate()
    template = parse_message(pair.sent(pair.alice)[0].data)
    for number in range(200):
        attack(pair, template, number)

    cookie = attack(pair, template, 777).notify(NotifyType.COOKIE)
    answer = attack(pair, template, 777, cookie)

    assert answer.notify(NotifyType.NO_PROPOSAL_CHOSEN) is not None
