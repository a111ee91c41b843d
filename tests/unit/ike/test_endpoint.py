"""The driving surface, from one side: commands, drains, and what the shell may get wrong."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from gateway.ike.endpoint import Endpoint, EndpointOptions
from gateway.ike.errors import LocalError
from gateway.ike.events import (
    DatagramDropped,
    FailureReason,
    IkeSaFailed,
    IkeSaId,
    Installed,
    InstallRequest,
    RequestId,
    SpiAllocated,
    SpiRequest,
)
from gateway.ike.path import Path
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.policy import Action
from gateway.ipsec.sa import Spi
from tests.fakes.entropy import Entropy
from tests.fakes.pair import ALICE, BOB, Pair, alice_connection, child

PATH = Path(ALICE, 500, BOB, 500)


def endpoint(*connections, **options):
    return Endpoint(
        entropy=Entropy(1),
        connections=connections or (alice_connection(),),
        options=EndpointOptions(**options),
    )


def test_initiating_twice_is_one_ike_sa_and_one_datagram():
    core = endpoint()

    first = core.initiate("site", "lan", 0.0)
    second = core.initiate("site", "lan", 0.1)

    assert first == second
    assert len(core.datagrams()) == 1
    assert [sa.state for sa in core.ike_sas()] == ["connecting"]


def test_drains_are_empty_the_second_time():
    core = endpoint()
    core.initiate("site", None, 0.0)

    assert core.datagrams() != []
    assert core.datagrams() == []
    assert core.events() == []
    assert core.requests() == []


@pytest.mark.parametrize(
    ("connection", "name", "text"),
    [
        ("nowhere", None, "there is no connection 'nowhere'"),
        ("site", "attic", "connection 'site' has not a protected Child 'attic'"),
    ],
)
def test_what_is_not_configured_cannot_be_initiated(connection, name, text):
    with pytest.raises(LocalError, match=text):
        endpoint().initiate(connection, name, 0.0)


def test_a_bypass_entry_is_not_negotiated():
    bypass = child("clear", local="10.9.0.0/16", remote="10.8.0.0/16", action=Action.BYPASS)
    core = endpoint(alice_connection(children=[bypass]))

    with pytest.raises(LocalError, match="has not a protected Child 'clear'"):
        core.initiate("site", "clear", 0.0)


def test_a_peer_without_address_is_waited_for():
    with pytest.raises(LocalError, match="no address to send to"):
        endpoint(alice_connection(remote_address=None)).initiate("site", None, 0.0)


def test_the_local_address_may_come_from_the_shell():
    core = endpoint(alice_connection(local_address=None))
    with pytest.raises(LocalError, match="no address to send to"):
        core.initiate("site", None, 0.0)

    core.initiate("site", None, 0.0, local=ip_address("192.0.2.77"))

    ((path, _),) = core.datagrams()
    assert path.local == ip_address("192.0.2.77")


@pytest.mark.parametrize(
    "command",
    [
        lambda core: core.rekey_ike(IkeSaId(99), 0.0),
        lambda core: core.terminate_ike(IkeSaId(99), 0.0),
        lambda core: core.check_liveness(IkeSaId(99), 0.0),
        lambda core: core.rekey_child(99, 0.0),
        lambda core: core.terminate_child(99, 0.0),
    ],
)
def test_a_command_for_what_is_gone_is_a_local_error(command):
    with pytest.raises(LocalError, match="there is no"):
        command(endpoint())


def test_what_the_datapath_says_of_an_sa_that_is_gone_is_ignored():
    core = endpoint()

    core.note_traffic(99, 0.0)
    core.soft_expire(Spi(0x1234), 0.0)
    core.expire_child(99, 0.0)
    core.mapping_changed(99, BOB, 4500, 0.0)
    core.resolve(RequestId(99), Installed(), 0.0)

    assert core.events() == []


def test_a_result_of_the_wrong_kind_is_a_local_error_and_the_request_still_waits():
    pair = Pair()
    pair.alice.answer(SpiRequest, never=True)
    pair.alice.initiate()
    pair.run_for(1.0)
    core = pair.alice.endpoint
    (request,) = [
        entry.request for entry in pair.log if isinstance(getattr(entry, "request", None), SpiRequest)
    ]

    with pytest.raises(LocalError, match="is not answered by Installed"):
        core.resolve(request.request_id, Installed(), pair.clock.now)
    core.resolve(request.request_id, SpiAllocated(Spi(0x5000)), pair.clock.now)

    assert len(core.datagrams()) == 1


def test_terminating_before_the_peer_answered_ends_at_once():
    core = endpoint()
    ike_sa = core.initiate("site", None, 0.0)
    core.datagrams()

    core.terminate_ike(ike_sa, 1.0)

    (failed,) = core.events()
    assert isinstance(failed, IkeSaFailed)
    assert failed.failure.reason is FailureReason.DELETED_BY_OPERATOR
    assert core.ike_sas() == ()
    assert core.next_deadline() is None
    assert core.datagrams() == []


def test_configuring_the_same_again_touches_nothing_and_keeps_commands_idempotent():
    pair = Pair()
    pair.establish()
    before = pair.mark

    pair.alice.endpoint.configure([alice_connection()], pair.clock.now)
    pair.drain(pair.alice)
    pair.settle()
    pair.alice.initiate()
    pair.settle()

    assert pair.mark == before
    pair.check(children=1)


def test_a_connection_that_changed_is_terminated_and_one_that_is_gone_too():
    pair = Pair()
    pair.establish()

    changed = replace(alice_connection(), ike=replace(alice_connection().ike, encapsulation=True))
    pair.alice.endpoint.configure([changed], pair.clock.now)
    pair.drain(pair.alice)
    pair.settle()
    pair.check(children=0, ike_sas=0)
    pair.alice.initiate()
    pair.settle()
    pair.check(children=1)
    pair.alice.endpoint.configure([], pair.clock.now)
    pair.drain(pair.alice)
    pair.settle()

    pair.check(children=0, ike_sas=0)


def test_find_child_sa_knows_both_spis():
    pair = Pair()
    pair.establish()
    sa = pair.alice.child_sa

    assert pair.alice.endpoint.find_child_sa(sa.inbound.spi) == sa.child_sa_id
    assert pair.alice.endpoint.find_child_sa(sa.outbound.spi) == sa.child_sa_id
    assert pair.alice.endpoint.find_child_sa(Spi(0xFFFFFFF0)) is None


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        (b"", DropReason.IKE_MALFORMED),
        (bytes(27), DropReason.IKE_MALFORMED),
        (bytes(28), DropReason.IKE_VERSION),
        (bytes(17) + b"\x20" + bytes(10), DropReason.IKE_MALFORMED),
        (bytes(17) + b"\x20\x25\x08" + bytes(4) + (28).to_bytes(4), DropReason.IKE_UNKNOWN_SPI),
    ],
)
def test_what_is_nobodys_message_is_dropped_with_the_reason(datagram, reason):
    core = endpoint()

    core.receive(datagram, PATH, 0.0)

    (dropped,) = core.events()
    assert isinstance(dropped, DatagramDropped)
    assert (dropped.reason, dropped.path) == (reason, PATH)


def test_a_nat_keepalive_is_not_worth_a_word():
    core = endpoint()

    core.receive(b"\xff", PATH, 0.0)

    assert core.events() == []


def test_an_installation_that_comes_after_the_end_is_taken_back():
    pair = Pair()
    pair.alice.answer(InstallRequest, after=3.0)
    pair.alice.initiate()
    pair.run_for(1.0)

    pair.alice.endpoint.terminate_ike(pair.alice.ike_sa.ike_sa_id, pair.clock.now)
    pair.drain(pair.alice)
    pair.run_for(30.0)

    assert not pair.alice.sad.sas
