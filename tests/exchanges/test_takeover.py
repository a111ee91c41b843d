"""A new Child SA that takes over from another one which it does not rekey (RFC 7296 §2.8.3, §1.4.1).

Alice plays the kind of peer that is hardest to please: it deletes the old IKE SA as soon as the new one is
up, and receives nothing on the old Child SA from the moment that it has the answer.
"""

import pytest

from gateway.ike.endpoint import EndpointOptions
from gateway.ike.events import (
    ChildSaEstablished,
    ChildSaFailed,
    IkeSaDeleted,
    InstallRequest,
    RemoveSas,
)
from gateway.ike.wire.header import ExchangeType
from gateway.ike.wire.payloads import DeletePayload
from gateway.ipsec.proposal import ProtocolId
from gateway.ipsec.sa import Direction
from tests.fakes.link import untouched
from tests.fakes.pair import Answered, Asked, Pair, Sent, Told
from tests.fakes.tap import request_header

AT_ONCE = EndpointOptions(inbound_linger_s=0.0)


def hasty(**changes):
    """Return a pair that is up; Alice lets go of replaced inbound SAs at once."""
    pair = Pair(alice_options=AT_ONCE, **changes)
    pair.establish()
    return pair


def outbound(request):
    return request.sa.direction is Direction.OUTBOUND


def second_ike_sa(pair):
    """Have Alice bring up another IKE SA with the same Child; nothing that comes after it arrives.

    Returns:
        Bob's old one and new one.
    """
    last = pair.mark + 3
    pair.link.fate = lambda packet: (0.0,) if packet.number <= last else ()
    pair.alice.reauthenticate()
    pair.settle()
    pair.link.fate = untouched
    old, new = pair.bob.ike_sas
    return old, new


def child_of(host, ike_sa):
    (child_sa,) = (sa for sa in host.child_sas if sa.ike_sa_id == ike_sa.ike_sa_id)
    return child_sa


def entries(pair, host, kind):
    return [(place, e) for place, e in enumerate(pair.log) if isinstance(e, kind) and e.host == host.name]


def place_of_last_message(pair, host):
    return entries(pair, host, Sent)[-1][0]


# --- the peer deletes the old one at once ---------------------------------------------------------


def test_the_delete_of_the_old_ike_sa_is_answered_when_the_new_outbound_sa_is_installed():
    pair = hasty()
    pair.bob.answer(InstallRequest, after=0.5, where=outbound)

    pair.alice.reauthenticate()
    pair.run_for(12.0)

    # INFORMATIONAL SK { D(IKE) } -->    Bob's new outbound SA is still being installed.
    #                                <--  INFORMATIONAL SK { }, and only then
    answered = [place for place, e in entries(pair, pair.bob, Answered) if _is_outbound(e.request)]
    removed = [place for place, e in entries(pair, pair.bob, Told) if isinstance(e.event, RemoveSas)]
    assert answered[-1] < place_of_last_message(pair, pair.bob) < removed[0]
    assert pair.story()[-2:] == ["INFORMATIONAL SK {D(IKE)} -->", "<-- INFORMATIONAL SK {}"]
    pair.check(children=1)


def _is_outbound(request):
    return isinstance(request, InstallRequest) and outbound(request)


@pytest.mark.parametrize("slow_s", [0.0, 0.1, 1.0, 6.0])
def test_no_packet_is_lost_when_the_peer_lets_go_at_the_answer(slow_s):
    pair = hasty()
    flow = pair.start_flow(notes_traffic=False)
    pair.run_for(1.0)
    pair.bob.answer(InstallRequest, after=slow_s, where=outbound)

    pair.alice.reauthenticate()
    pair.run_for(15.0)

    assert flow.missing == []
    pair.flow = None
    pair.settle()
    pair.check(children=1)


def test_the_delete_does_not_wait_for_the_time_of_the_takeover():
    pair = hasty()

    pair.alice.reauthenticate()
    pair.run_until(lambda: pair.bob.events(IkeSaDeleted) != [])

    # Two round trips of the new IKE SA, half a one for the DELETE; nothing of `takeover_s`.
    assert pair.now - pair.bob.ike_sa.began_at < EndpointOptions().takeover_s


def test_a_delete_of_the_old_child_sa_alone_waits_as_well():
    pair = hasty()
    old, new = second_ike_sa(pair)
    assert child_of(pair.bob, new).state == "creating"
    pair.bob.answer(InstallRequest, after=0.5, where=outbound)
    answers = len(pair.sent(pair.bob))
    delete = DeletePayload(ProtocolId.ESP, (child_of(pair.bob, old).outbound.spi.to_bytes(4),))
    header = request_header(
        spi_i=old.spi_i, spi_r=old.spi_r, exchange=ExchangeType.INFORMATIONAL, message_id=2
    )

    # INFORMATIONAL SK { D(ESP) } -->    in place of the DELETE of the IKE SA that was lost
    pair.bob.receive(pair.tap.keys(old.spi_i, old.spi_r).seal(header, [delete]))

    assert len(pair.sent(pair.bob)) == answers
    pair.settle()
    assert str(pair.messages(pair.bob)[-1]) == "INFORMATIONAL SK {D(ESP)}"
    assert child_of(pair.bob, new).state == "installed"
    assert [sa.ike_sa_id for sa in pair.bob.child_sas] == [new.ike_sa_id]


def test_a_new_outbound_sa_that_is_refused_does_not_hold_up_the_delete():
    pair = hasty()
    pair.bob.answer(InstallRequest, after=1.0, refuse="SYSTEM", where=outbound, times=1)

    pair.alice.reauthenticate()
    pair.run_for(5.0)

    assert len(pair.bob.events(IkeSaDeleted)) == 1
    assert len(pair.bob.events(ChildSaFailed)) == 1
    pair.run_for(60.0)
    pair.check(children=0)


def test_a_datapath_that_never_answers_holds_the_delete_up_until_the_deadline():
    pair = hasty(both={"ike_options": {"retransmit_tries": 8}})
    pair.bob.answer(InstallRequest, never=True, where=outbound)
    began = pair.now

    pair.alice.reauthenticate()
    pair.run_until(lambda: pair.bob.events(IkeSaDeleted) != [])

    assert pair.now - began == pytest.approx(EndpointOptions().request_deadline_s, abs=1.0)


def test_a_new_ike_sa_that_ends_meanwhile_does_not_hold_up_the_delete():
    pair = hasty()
    pair.bob.answer(InstallRequest, never=True, where=outbound)
    pair.alice.reauthenticate()
    pair.settle()
    new = pair.bob.ike_sas[-1]
    began = pair.now

    pair.bob.endpoint.terminate_ike(new.ike_sa_id, pair.now)
    pair.drain(pair.bob)
    pair.run_until(lambda: len(pair.bob.events(IkeSaDeleted)) == 2)

    assert pair.now - began < 1.0


# --- the peer keeps the old one -------------------------------------------------------------------


def test_the_responder_sends_on_the_old_one_for_a_moment():
    pair = hasty()
    before = pair.bob.sad.outbound("site", "lan")

    _, new = second_ike_sa(pair)

    assert pair.bob.sad.outbound("site", "lan") == before
    pair.run_for(EndpointOptions().takeover_s)
    assert pair.bob.sad.outbound("site", "lan") == child_of(pair.bob, new).outbound
    assert len(pair.bob.events(ChildSaEstablished)) == 2


def test_traffic_on_the_new_one_ends_the_wait():
    pair = hasty()
    _, new = second_ike_sa(pair)
    waiting = child_of(pair.bob, new)

    pair.bob.endpoint.note_traffic(waiting.child_sa_id, pair.now)
    pair.drain(pair.bob)

    assert pair.bob.sad.outbound("site", "lan") == waiting.outbound


def test_the_initiator_does_not_wait():
    # Whoever answered has its inbound SA: that is the rule for an answer to leave.
    pair = hasty()

    second_ike_sa(pair)

    newest = max(pair.alice.child_sas, key=lambda sa: sa.child_sa_id)
    assert pair.alice.sad.outbound("site", "lan") == newest.outbound


def test_what_waits_is_not_installed_when_its_ike_sa_ends_first():
    pair = hasty()
    before = pair.bob.sad.outbound("site", "lan")
    _, new = second_ike_sa(pair)

    pair.bob.endpoint.terminate_ike(new.ike_sa_id, pair.now)
    pair.drain(pair.bob)
    pair.run_for(EndpointOptions().takeover_s + 0.1)

    asked = [e.request.sa for _, e in entries(pair, pair.bob, Asked) if _is_outbound(e.request)]
    assert [sa.spi for sa in asked] == [before.spi]


def test_the_first_child_sa_waits_for_nothing():
    pair = Pair()

    pair.alice.initiate()
    pair.settle()

    pair.check(children=1)


# --- we delete the old one ------------------------------------------------------------------------


def test_what_is_in_flight_on_the_old_one_still_arrives():
    # The other way round: Bob is as hasty as Alice was, and she takes her time to let go.
    pair = Pair(bob_options=AT_ONCE)
    pair.establish()
    (old,) = pair.alice.child_sas

    pair.alice.reauthenticate()
    pair.run_until(lambda: pair.alice.events(IkeSaDeleted) != [])

    assert pair.alice.sad.inbound(old.inbound.spi) is not None
    pair.run_for(EndpointOptions().inbound_linger_s + 0.1)
    assert pair.alice.sad.inbound(old.inbound.spi) is None
    pair.check(children=1)
