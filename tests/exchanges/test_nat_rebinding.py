"""A NAT that forgets its mappings (RFC 7296 §2.23): the new path is followed only after authentication."""

from ipaddress import ip_address

from gateway.ike.events import PathChanged
from gateway.ike.path import Path
from tests.fakes.link import Nat
from tests.fakes.pair import ALICE, Pair
from tests.fakes.tap import flip

NAT = ip_address("203.0.113.9")


def behind_nat():
    pair = Pair(bob={"remote_address": None})
    nat = Nat(inside=ALICE, outside=NAT)
    pair.link.nats = [nat]
    pair.establish()
    return pair, nat


def test_an_authentic_request_from_another_port_moves_the_path():
    pair, nat = behind_nat()
    old = pair.bob.ike_sa.path

    nat.rebind()
    pair.alice.check_liveness()
    pair.settle()

    new = pair.bob.ike_sa.path
    assert new.remote_port != old.remote_port
    (changed,) = pair.bob.events(PathChanged)
    assert (changed.old, changed.new) == (old, new)
    # The answer took the new way, or it would not have arrived.
    assert pair.sent(pair.bob)[-1].destination == (NAT, new.remote_port)
    mark = pair.mark
    pair.bob.check_liveness()
    pair.settle()
    assert len(pair.story(since=mark)) == 2


def test_a_forged_request_from_elsewhere_moves_nothing():
    pair, _ = behind_nat()
    old = pair.bob.ike_sa.path
    pair.link.fate = lambda packet: ()
    pair.alice.check_liveness()
    genuine = pair.sent(pair.alice)[-1].data

    stranger = Path(old.local, 4500, ip_address("203.0.113.66"), 6666)
    pair.bob.receive(flip(genuine, len(genuine) - 1), stranger)

    assert pair.bob.ike_sa.path == old
    assert pair.bob.events(PathChanged) == []


def test_a_repeated_old_request_from_elsewhere_moves_nothing():
    # A replay is authentic, but not new: anybody on the way can send it.
    pair, _ = behind_nat()
    old = pair.bob.ike_sa.path
    recorded = pair.sent(pair.alice)[-1].data
    mark = len(pair.sent(pair.bob))

    stranger = Path(old.local, 4500, ip_address("203.0.113.66"), 6666)
    pair.bob.receive(recorded, stranger)
    pair.alice.check_liveness()
    pair.settle()

    assert pair.bob.ike_sa.path == old
    assert pair.bob.events(PathChanged) == []
    assert len(pair.sent(pair.bob)) > mark


def test_the_side_behind_the_nat_does_not_follow():
    # §2.23: "a host behind a NAT SHOULD NOT do this type of dynamic address update".
    pair, _ = behind_nat()
    old = pair.alice.ike_sa.path
    pair.link.fate = lambda packet: () if packet.source[0] == pair.bob.address else (0.0,)
    pair.bob.check_liveness()
    genuine = pair.sent(pair.bob)[-1].data
    pair.link.fate = lambda packet: (0.0,)

    pair.alice.receive(genuine, Path(ALICE, 4500, ip_address("203.0.113.66"), 6666))
    pair.settle()

    assert pair.alice.ike_sa.path == old


def test_what_the_datapath_saw_moves_the_ike_path_too():
    pair, _ = behind_nat()
    child_sa = pair.bob.child_sa

    pair.bob.endpoint.mapping_changed(child_sa.child_sa_id, NAT, 50123, pair.now)
    pair.drain(pair.bob)

    assert (pair.bob.ike_sa.path.remote, pair.bob.ike_sa.path.remote_port) == (NAT, 50123)
    assert len(pair.bob.events(PathChanged)) == 1
