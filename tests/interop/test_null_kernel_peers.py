"""What every IKEv2 implementation can, with each peer on the null kernel and in both roles.

No packet moves; both ends install SAs, and their SPIs and keys are compared.
"""

import time
from pathlib import Path

import pytest

from gateway.bench.capture import capturing, count_packets
from tests.interop.conftest import StartPair
from tests.interop.libreswan import Pluto
from tests.interop.null_strongswan import NullCharon
from tests.interop.openiked import Iked
from tests.interop.our_gateway import failure_of
from tests.interop.page import Evidence
from tests.interop.peer import Peer, Wanted

pytestmark = pytest.mark.interop

each_peer = pytest.mark.parametrize("peer", [Pluto, Iked, NullCharon], ids=lambda peer: peer.name)
each_role = pytest.mark.parametrize("initiator", ["ours", "theirs"])


@pytest.mark.interop(feature="IKE SA and Child SA with a PSK")
@each_peer
@each_role
def test_both_ends_install_the_same_sas(start_pair: StartPair, peer: type[Peer], initiator: str) -> None:
    """RFC 7296 §1.2, §2.17."""
    with start_pair(peer, Wanted()) as pair:
        pair.bring_up(initiator)

        pair.check_keys()
        (ike_sa,) = pair.ours.ike_sas()
        assert ike_sa.is_initiator == (initiator == "ours")
        assert ike_sa.remote_id == "theirs.test"
        (child_sa,) = pair.ours.child_sas()
        assert list(child_sa.remote_ts) == [pair.sites.b.inside]


@pytest.mark.interop(feature="Child SA rekey")
@each_peer
@each_role
def test_a_child_sa_is_rekeyed(start_pair: StartPair, peer: type[Peer], initiator: str) -> None:
    """RFC 7296 §1.3.3, with a key exchange; the old Child SA is gone at both ends."""
    with start_pair(peer, Wanted()) as pair:
        pair.bring_up("ours")
        old, ike_spis = pair.spis(), pair.ike_spis()

        if initiator == "ours":
            assert not failure_of(pair.ours.rekey("net/net"))
        else:
            pair.theirs.rekey_child()

        pair.wait_until(lambda: pair.moved_from(old), "both ends have another Child SA")
        pair.check_keys()
        assert len(pair.theirs.present()) == 2
        assert pair.ike_spis() == ike_spis


@pytest.mark.interop(feature="IKE SA rekey")
@each_peer
@each_role
def test_an_ike_sa_is_rekeyed(start_pair: StartPair, peer: type[Peer], initiator: str) -> None:
    """RFC 7296 §1.3.2: the new IKE SA inherits the Child SAs, and works."""
    lifetime = ("ikelifetime 5",) if peer is Iked and initiator == "theirs" else ()
    with start_pair(peer, Wanted(their_options=lifetime)) as pair:
        pair.bring_up("ours")
        old, spis = pair.ike_spis(), pair.spis()

        if initiator == "ours":
            assert not failure_of(pair.ours.rekey("net"))
        else:
            pair.theirs.rekey_ike()

        pair.wait_until(lambda: pair.ike_spis().isdisjoint(old), "the IKE SA is another")
        pair.wait_until(lambda: len(pair.ike_spis()) == 1, "the old IKE SA is gone")
        assert pair.spis() == spis
        # The new IKE SA is good for exchanges of either side.
        assert not failure_of(pair.ours.rekey("net/net"))
        pair.wait_until(lambda: pair.moved_from(spis), "the Child SA is another")
        pair.check_keys()


@pytest.mark.interop(feature="Child SA deletion")
@each_peer
@each_role
def test_deleting_the_child_sa_leaves_the_ike_sa(
    start_pair: StartPair, peer: type[Peer], initiator: str
) -> None:
    """RFC 7296 §1.4.1."""
    with start_pair(peer, Wanted()) as pair:
        pair.bring_up("ours")

        if initiator == "ours":
            assert not failure_of(pair.ours.down("net/net"))
        else:
            pair.theirs.delete_child()

        pair.wait_until(lambda: not pair.ours.child_sas(), "our Child SA is gone")
        pair.wait_until(lambda: not pair.theirs.present(), "their Child SA is gone")
        assert len(pair.ours.ike_sas()) == 1


@pytest.mark.interop(feature="IKE SA deletion")
@each_peer
@each_role
def test_deleting_the_ike_sa_ends_everything_at_both_ends(
    start_pair: StartPair, peer: type[Peer], initiator: str
) -> None:
    """RFC 7296 §1.4.1."""
    with start_pair(peer, Wanted()) as pair:
        pair.bring_up("ours")

        if initiator == "ours":
            assert not failure_of(pair.ours.down("net"))
        else:
            pair.theirs.delete_ike()

        pair.wait_until(lambda: not pair.ours.ike_sas() and not pair.ours.child_sas(), "our SAs are gone")
        pair.wait_until(lambda: not pair.theirs.present(), "their Child SA is gone")


@pytest.mark.interop(feature="Transport mode")
@each_peer
@each_role
def test_transport_mode_is_agreed_on(start_pair: StartPair, peer: type[Peer], initiator: str) -> None:
    """RFC 7296 §1.3.1: N(USE_TRANSPORT_MODE), between the two outer addresses."""
    with start_pair(peer, Wanted(mode="transport")) as pair:
        pair.bring_up(initiator)

        pair.check_keys()
        assert {sa.mode for sa in pair.theirs.installed().values()} == {"transport"}


@pytest.mark.interop(feature="IPv6 outside")
@each_peer
@each_role
def test_the_outer_addresses_are_ipv6(start_pair: StartPair, peer: type[Peer], initiator: str) -> None:
    """Everything over UDP on IPv6, with IPv4 inside."""
    with start_pair(peer, Wanted(version=6)) as pair:
        pair.bring_up(initiator)

        pair.check_keys()
        assert pair.ours.ike_sas()[0].remote.address == pair.sites.b.outside_v6


@pytest.mark.interop(feature="INVALID_KE_PAYLOAD and another try")
@each_peer
@each_role
def test_the_first_guess_of_a_group_is_corrected(
    start_pair: StartPair, peer: type[Peer], initiator: str
) -> None:
    """RFC 7296 §1.2: the initiator's first guess is ECP-384, the responder takes X25519 only.

    OpenIKED 7.2 then answers IKE_AUTH, once in a while, with TS payloads that hold no selector (RFC 7296
    §3.13 wants one at least), which we refuse; so it gets other tries.
    """
    both = ("aes256gcm16-prfsha384-ecp384", "aes256gcm16-prfsha384-x25519")
    one = both[1:]
    wanted = Wanted(ike=both, their_ike=one) if initiator == "ours" else Wanted(ike=one, their_ike=both)
    with start_pair(peer, wanted) as pair:
        for _ in range(5 if peer is Iked and initiator == "ours" else 0):
            failure = failure_of(pair.ours.up("net"))
            if not failure:
                break
            assert "a TS payload holds no traffic selector" in failure
        pair.bring_up(initiator)

        assert pair.ours.ike_sas()[0].proposal.endswith("x25519")
        says = {"libreswan": "INVALID_KE_PAYLOAD", "OpenIKED": "INVALID_KE_PAYLOAD", "strongSwan": "INVAL_KE"}
        assert says[peer.name] in pair.theirs.log()


_NO_PROPOSAL = {
    ("libreswan", "ours"): "no local proposal matches remote proposals",
    ("libreswan", "theirs"): "NO_PROPOSAL_CHOSEN",
    ("OpenIKED", "ours"): "NO_PROPOSAL_CHOSEN",
    ("OpenIKED", "theirs"): "NO_PROPOSAL_CHOSEN",
    ("strongSwan", "ours"): "received proposals unacceptable",
    ("strongSwan", "theirs"): "received NO_PROPOSAL_CHOSEN notify error",
}


@pytest.mark.interop(feature="No common proposal: both say so")
@each_peer
@each_role
def test_without_a_common_proposal_both_ends_say_so(
    start_pair: StartPair, peer: type[Peer], initiator: str
) -> None:
    """RFC 7296 §2.7: NO_PROPOSAL_CHOSEN."""
    wanted = Wanted(ike=("aes256gcm16-prfsha384-x25519",), their_ike=("aes128-sha256-prfsha256-modp2048",))
    with start_pair(peer, wanted) as pair:
        if initiator == "ours":
            assert "NO_PROPOSAL_CHOSEN" in failure_of(pair.ours.up("net"))
        else:
            pair.theirs.initiate()
            pair.wait_until(lambda: "NO_PROPOSAL_CHOSEN" in pair.ours.explain("net"), "we say so")
            assert "aes128-sha256-modp2048" in pair.ours.explain("net")

        pair.wait_until(lambda: _NO_PROPOSAL[peer.name, initiator] in pair.theirs.log(), "their log says so")
        assert not pair.ours.ike_sas()


_WRONG_PSK = {
    ("libreswan", "ours"): "authentication failed",
    ("libreswan", "theirs"): "AUTHENTICATION_FAILED",
    ("OpenIKED", "ours"): "authentication failed",
    ("OpenIKED", "theirs"): "AUTHENTICATION_FAILED",
    ("strongSwan", "ours"): "tried 1 shared key for 'theirs.test' - 'ours.test', but MAC mismatched",
    ("strongSwan", "theirs"): "received AUTHENTICATION_FAILED notify error",
}


@pytest.mark.interop(feature="Wrong PSK: both say so")
@each_peer
@each_role
def test_a_wrong_psk_is_refused_and_both_ends_say_so(
    start_pair: StartPair, peer: type[Peer], initiator: str
) -> None:
    """RFC 7296 §2.21.2: AUTHENTICATION_FAILED."""
    with start_pair(peer, Wanted(their_psk="another-psk-0123456789")) as pair:
        if initiator == "ours":
            assert "AUTHENTICATION_FAILED" in failure_of(pair.ours.up("net"))
        else:
            pair.theirs.initiate()
            pair.wait_until(lambda: "AUTHENTICATION_FAILED" in pair.ours.explain("net"), "we say so")

        pair.wait_until(lambda: _WRONG_PSK[peer.name, initiator] in pair.theirs.log(), "their log says so")
        assert not pair.ours.child_sas()
        assert not pair.theirs.present()


# The exchange type and the response flag of an IKE header after a UDP header (RFC 7296 §3.1).
_INFORMATIONAL = "udp port 500 and udp[26] = 37"
_RESPONSE = "udp[27] & 0x20 != 0"


@pytest.mark.interop(feature="Liveness check (DPD)")
@each_peer
@each_role
def test_liveness_checks_are_answered(
    start_pair: StartPair, peer: type[Peer], initiator: str, tmp_path: Path, evidence: Evidence
) -> None:
    """RFC 7296 §2.4: an empty INFORMATIONAL exchange.

    OpenIKED 7.2 checks when it sent and received nothing, but on Linux it never learns when an SA was used.
    """
    wanted = Wanted(dpd_s=1) if initiator == "theirs" else Wanted(our_ike_options=", dpd_delay: 1s")
    wire = tmp_path / "wire.pcap"
    with start_pair(peer, wanted) as pair:
        pair.bring_up("ours")
        ike_spis = pair.ike_spis()
        if isinstance(pair.theirs, Iked):
            pair.theirs.send_traffic()

        here, there = pair.sites.a.outside, pair.sites.b.outside
        sender, answerer = (here, there) if initiator == "ours" else (there, here)

        def requests() -> int:
            return count_packets(wire, f"src host {sender} and {_INFORMATIONAL} and not {_RESPONSE}")

        def responses() -> int:
            return count_packets(wire, f"src host {answerer} and {_INFORMATIONAL} and {_RESPONSE}")

        never = isinstance(pair.theirs, Iked) and initiator == "theirs"
        with capturing(pair.sites.b.gateway, pair.sites.b.outside_device, wire):
            if never:
                time.sleep(2.5)
            else:
                pair.wait_until(lambda: responses() >= 1, "a liveness check is answered")

        if never:
            evidence.peer_cannot(
                pair.theirs.log(), r"outgoing CHILD SA spi \w+ last used \d{10} second\(s\) ago"
            )
            return
        # The last one may have been on its way when the capture ended.
        assert requests() - responses() in (0, 1)
        assert pair.ike_spis() == ike_spis


@pytest.mark.interop(feature="A dead peer is noticed", role="ours")
@each_peer
def test_a_peer_that_is_gone_is_noticed(start_pair: StartPair, peer: type[Peer]) -> None:
    """RFC 7296 §2.4."""
    with start_pair(peer, Wanted(our_ike_options=", dpd_delay: 1s")) as pair:
        pair.bring_up("ours")

        pair.theirs.kill()

        pair.wait_until(lambda: not pair.ours.ike_sas(), "the dead peer's IKE SA is gone")
        assert "peer_unresponsive" in pair.ours.log()
