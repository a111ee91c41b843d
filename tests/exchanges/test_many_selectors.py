"""Many Child SAs in one IKE SA, many selectors in one Child SA: ports, ICMP (RFC 7296 §2.9, §3.13)."""

from ipaddress import ip_network

import pytest

from gateway.ike.events import ChildSaEstablished, ChildSaFailed, FailureReason
from gateway.ipsec.connection import Child
from gateway.ipsec.proposal import ProtocolId
from gateway.ipsec.selectors import MAX_SELECTORS, TrafficSelector
from tests.fakes.pair import Pair, child, proposals


def networks(first: str, count: int) -> tuple[TrafficSelector, ...]:
    """Return that many networks, none of them next to another."""
    start = ip_network(first)
    step = 2 * start.num_addresses
    return tuple(
        TrafficSelector(start[0] + step * number, start[-1] + step * number) for number in range(count)
    )


def ts(*texts: str) -> tuple[TrafficSelector, ...]:
    return tuple(TrafficSelector.parse(text) for text in texts)


def pair_for(ours, theirs, *, bobs_ours=None, bobs_theirs=None) -> Pair:
    def one(local, remote):
        return Child(
            name="lan", local_ts=local, remote_ts=remote, proposals=proposals("aes256gcm16", ProtocolId.ESP)
        )

    return Pair(
        alice={"children": [one(ours, theirs)]},
        bob={"children": [one(bobs_ours or theirs, bobs_theirs or ours)]},
    )


def test_as_many_selectors_as_fit_into_a_ts_payload():
    # §3.13: the number of selectors is one octet.
    ours, theirs = networks("10.0.0.0/24", MAX_SELECTORS), networks("10.128.0.0/24", MAX_SELECTORS)
    pair = pair_for(ours, theirs)

    pair.establish()

    for host, local, remote in ((pair.alice, ours, theirs), (pair.bob, theirs, ours)):
        assert (host.child_sa.local_ts, host.child_sa.remote_ts) == (local, remote)
    pair.alice.rekey_child()
    pair.run_for(20.0)
    pair.check(children=1)
    assert pair.alice.child_sa.remote_ts == theirs


def test_as_many_ipv6_selectors():
    # Some 20 KB: more than is put together for a peer that is not authenticated yet, so not in IKE_AUTH.
    ours, theirs = networks("2001:db8::/64", MAX_SELECTORS), networks("2001:db8:1::/64", MAX_SELECTORS)
    pair = pair_for(ours, theirs)
    pair.alice.initiate(None)
    pair.settle()

    pair.alice.initiate("lan")
    pair.settle()

    pair.check(children=1)
    assert pair.bob.child_sa.remote_ts == ours


def test_narrowing_over_many_keeps_what_both_allow_in_the_order_of_the_offer():
    ours = networks("10.0.0.0/24", 200)
    allowed = (*ours[150:], *networks("172.16.0.0/24", 50), *ours[:50])
    pair = pair_for(ours, ts("10.200.0.0/16"), bobs_theirs=allowed)

    pair.establish()

    assert pair.alice.child_sa.local_ts == (*ours[:50], *ours[150:])


@pytest.mark.parametrize(
    ("alice", "bob", "agreed"),
    [
        (ts("10.1.0.0/16[tcp/443]"), ts("10.1.0.0/16[tcp/443]"), ts("10.1.0.0/16[tcp/443]")),
        (ts("10.1.0.0/16[tcp/400-500]"), ts("10.1.0.0/16[tcp/443-9999]"), ts("10.1.0.0/16[tcp/443-500]")),
        (ts("10.1.0.0/16"), ts("10.1.2.0/24[udp/53]"), ts("10.1.2.0/24[udp/53]")),
        (ts("10.1.0.0/16[icmp/8]"), ts("10.1.0.0/16[icmp]"), ts("10.1.0.0/16[icmp/8]")),
        (ts("10.1.0.0/16[icmp/3]"), ts("10.1.0.0/16[icmp/3(4)]"), ts("10.1.0.0/16[icmp/3(4)]")),
        (
            ts("10.1.0.0/16[tcp/80]", "10.1.0.0/16[udp/53]"),
            ts("10.1.0.0/16[udp]", "10.1.0.0/16[tcp]"),
            ts("10.1.0.0/16[tcp/80]", "10.1.0.0/16[udp/53]"),
        ),
        (ts("10.1.0.0/16[tcp/opaque]"), ts("10.1.0.0/16[tcp]"), ts("10.1.0.0/16[tcp/opaque]")),
        (ts("10.1.0.5-10.1.0.9[sctp]"), ts("10.1.0.7-10.1.0.20"), ts("10.1.0.7-10.1.0.9[sctp]")),
    ],
)
def test_protocols_ports_and_icmp_types_are_narrowed(alice, bob, agreed):
    pair = pair_for(alice, ts("10.2.0.0/16"), bobs_theirs=bob)

    pair.establish()

    assert pair.alice.child_sa.local_ts == agreed
    assert pair.bob.child_sa.remote_ts == agreed


@pytest.mark.parametrize(
    ("alice", "bob"),
    [
        ("10.1.0.0/16[tcp/80]", "10.1.0.0/16[tcp/443]"),
        ("10.1.0.0/16[tcp]", "10.1.0.0/16[udp]"),
        ("10.1.0.0/16[icmp/8]", "10.1.0.0/16[icmp/0]"),
        # OPAQUE is for packets without visible ports; a port is none of these (RFC 4301 §4.4.1.1).
        ("10.1.0.0/16[tcp/opaque]", "10.1.0.0/16[tcp/80]"),
    ],
)
def test_what_has_nothing_in_common_is_ts_unacceptable(alice, bob):
    pair = pair_for(ts(alice), ts("10.2.0.0/16"), bobs_theirs=ts(bob))

    pair.alice.initiate()
    pair.settle()

    (failed,) = pair.alice.events(ChildSaFailed)
    assert failed.failure.reason is FailureReason.TS_UNACCEPTABLE
    pair.check(children=0)


def test_several_child_sas_of_one_connection_each_with_its_own_keys():
    def children(ours, theirs):
        return [
            child("web", local=f"10.{ours}.0.0/24", remote=f"10.{theirs}.0.0/24"),
            child("db", local=f"10.{ours}.1.0/24", remote=f"10.{theirs}.1.0/24"),
            child("voice", local=f"10.{ours}.2.0/24", remote=f"10.{theirs}.2.0/24"),
        ]

    pair = Pair(alice={"children": children(1, 2)}, bob={"children": children(2, 1)})
    pair.alice.initiate("web")
    pair.alice.initiate("db")
    pair.settle()
    pair.bob.initiate("voice")
    pair.settle()

    pair.check(children=3)
    assert {e.child_sa.child for e in pair.bob.events(ChildSaEstablished)} == {"web", "db", "voice"}
    keys = {sa.inbound.encryption_key.reveal() for sa in pair.alice.child_sas}
    assert len(keys) == 3
    pair.bob.delete_child(pair.bob.child_sas[1].child_sa_id)
    pair.settle()
    pair.check(children=2)
    pair.alice.rekey_ike()
    pair.run_for(40.0)
    pair.check(children=2)
