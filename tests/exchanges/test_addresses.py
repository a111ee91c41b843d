"""IPv6 outside and inside, mixed families, and a NAT that changes its address too."""

from ipaddress import ip_address

import pytest

from gateway.ike.events import PathChanged
from gateway.ike.path import Path
from gateway.ike.wire.payloads import TsiPayload
from gateway.ipsec.identity import IdType
from tests.fakes.link import Nat
from tests.fakes.pair import ALICE, BOB, Pair, selectors

ALICE6, BOB6 = ip_address("2001:db8:1::1"), ip_address("2001:db8:2::2")


def over(local, remote, **changes):
    """A pair whose outer addresses are these."""
    pair = Pair(
        alice={"local_address": local, "remote_address": remote} | changes,
        bob={"local_address": remote, "remote_address": local} | changes,
    )
    pair.alice.address, pair.bob.address = local, remote
    return pair


@pytest.mark.parametrize(("local", "remote"), [(ALICE, BOB), (ALICE6, BOB6)])
@pytest.mark.parametrize(
    ("local_lan", "remote_lan"),
    [("10.1.0.0/16", "10.2.0.0/16"), ("2001:db8:a::/48", "2001:db8:b::/48")],
)
def test_all_four_combinations_of_families(local, remote, local_lan, remote_lan):
    pair = Pair(
        alice={
            "local_address": local,
            "remote_address": remote,
            "local_lan": local_lan,
            "remote_lan": remote_lan,
        },
        bob={
            "local_address": remote,
            "remote_address": local,
            "local_lan": remote_lan,
            "remote_lan": local_lan,
        },
    )
    pair.alice.address, pair.bob.address = local, remote

    pair.establish()

    assert pair.alice.child_sa.local_ts == selectors(local_lan)
    assert pair.alice.child_sa.outbound.destination == remote


def test_an_ipv6_address_is_an_identity_of_its_own_type():
    pair = over(ALICE6, BOB6, local_id=None, remote_id=None)

    pair.establish()

    assert pair.bob.ike_sa.remote_id.type is IdType.IPV6_ADDR
    assert pair.bob.ike_sa.remote_id.data == ALICE6.packed


def test_host_to_host_over_ipv6():
    pair = over(ALICE6, BOB6, local_lan="", remote_lan="")

    pair.establish()

    (tsi,) = [payload for payload in pair.messages()[2].payloads if isinstance(payload, TsiPayload)]
    assert tsi.selectors == selectors(f"{ALICE6}/128")


@pytest.mark.parametrize("act", ["rekey_child", "delete_child", "delete_ike"])
@pytest.mark.parametrize("who", ["alice", "bob"])
def test_after_a_nat_got_another_address_no_sa_is_left_behind(act, who):
    # What the datapath holds keeps the name it was installed with; that name is what must be removed.
    pair = Pair(bob={"remote_address": None})
    nat = Nat(inside=ALICE, outside=ip_address("203.0.113.9"))
    pair.link.nats = [nat]
    pair.establish()
    old = set(pair.bob.sad.sas)

    nat.outside = ip_address("203.0.113.10")
    nat.rebind()
    pair.alice.check_liveness()
    pair.settle()
    assert len(pair.bob.events(PathChanged)) == 1
    getattr(getattr(pair, who), act)()
    pair.run_for(30.0)

    assert not old & set(pair.bob.sad.sas)
    assert len(pair.bob.sad.sas) == 2 * len(pair.bob.child_sas)
    assert len(pair.bob.child_sas) == len(pair.alice.child_sas) == (1 if act == "rekey_child" else 0)


def test_a_rekey_after_a_nat_got_another_address_uses_the_new_one():
    pair = Pair(bob={"remote_address": None})
    nat = Nat(inside=ALICE, outside=ip_address("203.0.113.9"))
    pair.link.nats = [nat]
    pair.establish()

    nat.outside = ip_address("203.0.113.10")
    nat.rebind()
    pair.alice.check_liveness()
    pair.settle()
    pair.alice.rekey_child()
    pair.run_for(30.0)

    outbound = pair.bob.child_sa.outbound
    assert outbound.destination == nat.outside
    assert outbound.encapsulation.destination_port == pair.bob.ike_sa.path.remote_port
    assert pair.bob.ike_sa.path.remote == nat.outside
    pair.check(children=1)


# --- only what IKE_SA_INIT proved ---------------------------------------------------------------

FORGED = ip_address("203.0.113.80")


def with_a_forged_ike_auth(pair):
    """Let Alice, whose key Bob has, send IKE_AUTH with the address of somebody else as its source."""
    lost = pair.link.fate
    pair.link.fate = lambda packet: () if packet.number == 2 else (0.0,)
    pair.alice.initiate()
    pair.settle()
    pair.link.fate = lost
    auth = pair.sent(pair.alice)[1].data
    port = pair.sent(pair.alice)[1].source[1]
    pair.bob.receive(auth, Path(BOB, port, FORGED, port))
    pair.settle()


def test_a_peer_gets_no_policy_for_an_address_it_only_pretends_to_send_from():
    # Dynamic selectors and a peer with any address: who holds a key could otherwise have the packets to any
    # host sent into its Child SA.
    pair = Pair(bob={"remote_address": None, "local_lan": "", "remote_lan": ""}, alice={"remote_lan": ""})
    with_a_forged_ike_auth(pair)

    assert pair.bob.ike_sa.path.remote == ALICE
    for child_sa in pair.bob.child_sas:
        assert not any(ts.contains(FORGED) for ts in child_sa.remote_ts)


def test_nor_if_it_lets_us_find_a_nat():
    pair = Pair(
        bob={"remote_address": None, "local_lan": "", "remote_lan": ""},
        alice={"local_lan": "", "remote_lan": "", "ike_options": {"encapsulation": True}},
    )
    with_a_forged_ike_auth(pair)

    assert pair.bob.ike_sa.nat_remote
    (child_sa,) = pair.bob.child_sas
    assert child_sa.remote_ts == selectors(f"{ALICE}/32")


def test_after_an_ike_rekey_it_is_still_the_address_of_ike_sa_init():
    pair = Pair(
        bob={"remote_address": None, "local_lan": "", "remote_lan": ""},
        alice={"local_lan": "", "remote_lan": "", "ike_options": {"encapsulation": True}},
    )
    pair.establish()
    pair.alice.rekey_ike()
    pair.settle()
    pair.alice.check_liveness()
    request = pair.sent(pair.alice)[-1]
    pair.bob.receive(request.data, Path(BOB, 4500, FORGED, 4500))
    assert pair.bob.ike_sa.path.remote == FORGED
    pair.settle()

    pair.alice.rekey_child()
    pair.run_for(20.0)

    assert pair.bob.child_sa.remote_ts == selectors(f"{ALICE}/32")
