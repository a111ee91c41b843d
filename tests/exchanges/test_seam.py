"""The asynchronous seam: requests to the shell delayed, refused or never answered, in every exchange.

Whatever the shell does, the peer sees an orderly exchange: the response comes after the answer and not
before, a retransmitted request meanwhile changes nothing, and a refusal becomes the right notify.
"""

import pytest

from gateway.ike.endpoint import EndpointOptions
from gateway.ike.events import (
    ChildSaDeleted,
    ChildSaEstablished,
    ChildSaFailed,
    CredentialRequest,
    DatagramDropped,
    FailureReason,
    IkeSaFailed,
    InstallRequest,
    RemoveSas,
    SpiRequest,
)
from gateway.ipsec.sa import Direction
from tests.fakes.pair import Answered, Arrived, Asked, Pair, Sent, Told, child

INBOUND = "inbound"
OUTBOUND = "outbound"

#: What may be asked for: name, class of the request, which ones.
KINDS = {
    "SPI": (SpiRequest, lambda request: True),
    "install inbound": (InstallRequest, lambda request: request.sa.direction is Direction.INBOUND),
    "install outbound": (InstallRequest, lambda request: request.sa.direction is Direction.OUTBOUND),
    "credential": (CredentialRequest, lambda request: True),
}

QUICK_DEADLINE = EndpointOptions(request_deadline_s=8.0)
PATIENT = {"retransmit_timeout_s": 1.0, "retransmit_base": 1.5, "retransmit_tries": 8}


def new_pair():
    return Pair(
        both={"ike_options": PATIENT},
        alice={
            "children": [
                child("lan", local="10.1.0.0/16", remote="10.2.0.0/16"),
                child("dmz", local="10.11.0.0/16", remote="10.12.0.0/16"),
            ]
        },
        bob={
            "children": [
                child("lan", local="10.2.0.0/16", remote="10.1.0.0/16"),
                child("dmz", local="10.12.0.0/16", remote="10.11.0.0/16"),
            ]
        },
        alice_options=QUICK_DEADLINE,
        bob_options=QUICK_DEADLINE,
    )


def established():
    pair = new_pair()
    pair.alice.initiate("lan")
    pair.settle()
    return pair


#: name: (how the pair starts, what Alice does, Child SAs before, Child SAs after success)
EXCHANGES = {
    "IKE_AUTH": (new_pair, lambda pair: pair.alice.initiate("lan"), 0, 1),
    "new Child SA": (established, lambda pair: pair.alice.initiate("dmz"), 1, 2),
    "Child rekey": (established, lambda pair: pair.alice.rekey_child(), 1, 1),
}

CASES = [
    pytest.param(exchange, kind, role, id=f"{exchange}, {kind} at the {role}")
    for exchange in EXCHANGES
    for kind in KINDS
    for role in ("initiator", "responder")
    if kind != "credential" or exchange == "IKE_AUTH"
]


def host_of(pair, role):
    return pair.alice if role == "initiator" else pair.bob


def requests(pair, host, kind, since=0):
    """How many requests of a kind a core emitted."""
    cls, where = KINDS[kind]
    return [
        entry.request
        for entry in pair.log[since:]
        if isinstance(entry, Asked)
        and entry.host == host.name
        and isinstance(entry.request, cls)
        and where(entry.request)
    ]


def undisturbed_requests(exchange, kind, role):
    start, act, _, _ = EXCHANGES[exchange]
    pair = start()
    since = len(pair.log)
    act(pair)
    pair.run_for(60.0)
    return len(requests(pair, host_of(pair, role), kind, since))


def ends_the_ike_sa(exchange, kind, role):
    """Without a key nobody is authenticated; without an SPI there is nothing to ask for in IKE_AUTH."""
    return kind == "credential" or (exchange, kind, role) == ("IKE_AUTH", "SPI", "initiator")


def is_too_late_for_the_old(exchange, kind, role):
    """The responder of a rekey learns of the refusal when the initiator has deleted the old Child SA."""
    return (exchange, kind, role) == ("Child rekey", "install outbound", "responder")


# --- delayed ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("exchange", "kind", "role"), CASES)
@pytest.mark.parametrize("after", [0.001, 2.0, 6.0])
def test_a_late_answer_only_takes_longer(exchange, kind, role, after):
    start, act, _, children = EXCHANGES[exchange]
    pair = start()
    host = host_of(pair, role)
    cls, where = KINDS[kind]
    host.answer(cls, where=where, after=after)
    since = len(pair.log)

    act(pair)
    pair.run_for(60.0)

    pair.check(children=children)
    asked = requests(pair, host, kind, since)
    assert len(asked) == undisturbed_requests(exchange, kind, role) > 0
    assert pair.alice.events(ChildSaFailed, IkeSaFailed, ChildSaDeleted) == []
    assert pair.bob.events(ChildSaFailed, IkeSaFailed, ChildSaDeleted) == []


@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize("kind", ["SPI", "install inbound"])
def test_the_response_leaves_only_after_the_responders_inbound_sa_is_installed(exchange, kind):
    start, act, _, _ = EXCHANGES[exchange]
    pair = start()
    cls, where = KINDS[kind]
    pair.bob.answer(cls, where=where, after=4.0)
    since = len(pair.log)

    act(pair)
    pair.run_for(60.0)

    bob = [entry for entry in pair.log[since:] if entry.host == "bob"]
    answered = next(
        index
        for index, entry in enumerate(bob)
        if isinstance(entry, Answered)
        and isinstance(entry.request, InstallRequest)
        and entry.request.sa.direction is Direction.INBOUND
    )
    responses = [
        index
        for index, entry in enumerate(bob)
        if isinstance(entry, Sent) and pair.tap.open(entry.packet.data).message.header.exchange_type != 34
    ]
    assert responses[0] > answered
    # Alice repeated herself in the meantime, and nobody took that for another request.
    repeated = [entry for entry in bob[:answered] if isinstance(entry, Arrived)]
    assert len(repeated) >= 3
    assert pair.bob.events(DatagramDropped) == []
    pair.check()


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_no_established_event_before_both_directions_are_installed(exchange):
    start, act, _, _ = EXCHANGES[exchange]
    pair = start()
    for host in pair.hosts:
        host.answer(InstallRequest, after=0.7)
    since = len(pair.log)

    act(pair)
    pair.run_for(60.0)

    for host in pair.hosts:
        installed = set()
        for entry in pair.log[since:]:
            if entry.host != host.name:
                continue
            if isinstance(entry, Answered) and isinstance(entry.request, InstallRequest):
                installed.add(entry.request.sa.sa_id)
            if isinstance(entry, Told) and isinstance(entry.event, ChildSaEstablished):
                made = entry.event.child_sa
                assert {made.inbound.sa_id, made.outbound.sa_id} <= installed
    pair.check()


def test_a_message_of_the_next_exchange_waits_for_the_shell_too():
    # Alice's IKE_AUTH is answered late; a command given meanwhile waits for its turn.
    pair = new_pair()
    pair.bob.answer(InstallRequest, after=3.0)

    pair.alice.initiate("lan")
    pair.run_for(1.0)
    pair.alice.initiate("dmz")
    pair.run_for(60.0)

    pair.check(children=2)


# --- refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("exchange", "kind", "role"), CASES)
def test_a_refusal_leaves_no_half_made_sa(exchange, kind, role):
    start, act, before, _ = EXCHANGES[exchange]
    pair = start()
    host = host_of(pair, role)
    cls, where = KINDS[kind]
    host.answer(cls, where=where, refuse="TABLE_FULL")
    old = {sa.child_sa_id for sa in host.child_sas}

    act(pair)
    pair.settle()
    pair.run_for(5.0)

    if ends_the_ike_sa(exchange, kind, role):
        pair.run_for(60.0)
        pair.check(children=0, ike_sas=0)
        (failed,) = host.events(IkeSaFailed)
        expected = FailureReason.NO_CREDENTIAL if kind == "credential" else FailureReason.DATAPATH_REFUSED
        assert failed.failure.reason is expected
        return
    if is_too_late_for_the_old(exchange, kind, role):
        before = 0
    else:
        assert {sa.child_sa_id for sa in host.child_sas} == old
    failures = host.events(ChildSaFailed)
    assert failures
    assert failures[0].failure.reason is FailureReason.DATAPATH_REFUSED
    assert "TABLE_FULL" in failures[0].failure.detail
    pair.check(children=before)


@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize("kind", ["SPI", "install inbound"])
def test_the_responders_refusal_becomes_a_notify(exchange, kind):
    start, act, _, _ = EXCHANGES[exchange]
    pair = start()
    cls, where = KINDS[kind]
    pair.bob.answer(cls, where=where, refuse="TABLE_FULL")
    mark = pair.mark

    act(pair)
    pair.settle()

    answers = [line for line in pair.story(since=mark) if line.startswith("<-- ")]
    refusal = [line for line in answers if "NO_ADDITIONAL_SAS" in line or "TEMPORARY_FAILURE" in line]
    assert len(refusal) == 1
    (failed,) = pair.alice.events(ChildSaFailed)[:1]
    assert failed.failure.notify in {"NO_ADDITIONAL_SAS", "TEMPORARY_FAILURE"}


def test_a_placement_that_is_not_to_be_had_is_final_for_the_peer():
    pair = established()
    pair.bob.answer(InstallRequest, refuse="PLACEMENT_UNAVAILABLE")

    pair.alice.initiate("dmz")
    pair.run_for(60.0)

    # Not TEMPORARY_FAILURE (RFC 7296 §2.25), which would have the peer try again and again.
    assert pair.story().count("<-- CREATE_CHILD_SA SK {N(NO_ADDITIONAL_SAS)}") == 1
    (failed,) = pair.alice.events(ChildSaFailed)
    assert failed.failure.notify == "NO_ADDITIONAL_SAS"


def test_after_a_refusal_the_next_attempt_succeeds():
    pair = established()
    pair.bob.answer(InstallRequest, refuse="SYSTEM", times=1)

    pair.alice.initiate("dmz")
    pair.settle()
    pair.check(children=1)
    pair.alice.initiate("dmz")
    pair.run_for(10.0)

    pair.check(children=2)


def test_a_missing_key_is_an_authentication_failure_for_the_peer():
    pair = new_pair()
    pair.bob.psk = None

    pair.alice.initiate()
    pair.settle()

    assert pair.story()[-1] == "<-- IKE_AUTH SK {N(AUTHENTICATION_FAILED)}"
    (ours,) = pair.alice.events(IkeSaFailed)
    assert ours.failure.reason is FailureReason.AUTHENTICATION_FAILED
    (theirs,) = pair.bob.events(IkeSaFailed)
    assert theirs.failure.reason is FailureReason.NO_CREDENTIAL
    pair.run_for(60.0)
    pair.check(children=0, ike_sas=0)


# --- never answered -----------------------------------------------------------------------------


@pytest.mark.parametrize(("exchange", "kind", "role"), CASES)
def test_silence_of_the_shell_ends_like_a_refusal_at_the_deadline(exchange, kind, role):
    start, act, before, _ = EXCHANGES[exchange]
    pair = start()
    host = host_of(pair, role)
    cls, where = KINDS[kind]
    host.answer(cls, where=where, never=True, times=1)

    act(pair)
    pair.run_until(lambda: bool(host.events(ChildSaFailed, IkeSaFailed)), limit_s=20.0)
    host.answer(cls, where=where, refuse="TABLE_FULL")
    pair.run_for(6.0)  # what was replaced lingers for 5

    (failed, *_) = host.events(ChildSaFailed, IkeSaFailed)
    if ends_the_ike_sa(exchange, kind, role):
        assert isinstance(failed, IkeSaFailed)
        pair.run_for(60.0)
        pair.check(children=0, ike_sas=0)
        return
    assert failed.failure.reason is FailureReason.TIMEOUT
    pair.check(children=0 if is_too_late_for_the_old(exchange, kind, role) else before)


@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize("kind", ["SPI", "install inbound", "install outbound"])
@pytest.mark.parametrize("role", ["initiator", "responder"])
def test_an_answer_after_the_deadline_is_given_back(exchange, kind, role):
    start, act, before, _ = EXCHANGES[exchange]
    pair = start()
    host = host_of(pair, role)
    cls, where = KINDS[kind]
    host.answer(cls, where=where, after=12.0, times=1)
    since = len(pair.log)

    act(pair)
    pair.run_until(lambda: bool(host.events(ChildSaFailed, IkeSaFailed)), limit_s=11.0)
    host.answer(cls, where=where, refuse="TABLE_FULL")
    pair.run_for(45.0)

    if ends_the_ike_sa(exchange, kind, role):
        pair.check(children=0, ike_sas=0)
        return
    pair.check(children=0 if is_too_late_for_the_old(exchange, kind, role) else before)
    if kind != "SPI":
        late = [
            entry.request.sa.sa_id
            for entry in pair.log[since:]
            if isinstance(entry, Answered)
            and entry.host == host.name
            and entry.now > pair.now - 46.0
            and isinstance(entry.request, InstallRequest)
        ]
        removed = {sa_id for event in host.events(RemoveSas) for sa_id in event.sa_ids}
        assert set(late) & removed


def test_an_ike_sa_that_ends_while_the_shell_thinks_leaves_nothing_behind():
    pair = established()
    pair.bob.answer(InstallRequest, after=3.0)

    pair.alice.initiate("dmz")
    pair.run_for(0.1)
    pair.alice.restart()
    pair.alice.initiate("lan")
    pair.run_for(60.0)

    pair.check(ike_sas=1)
