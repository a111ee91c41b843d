"""Certificates and IKE fragmentation with libreswan and OpenIKED, in both roles."""

import time
from pathlib import Path

import pytest

from gateway.bench.capture import capturing, count_packets
from tests.fakes.pki import DAY, NOW, Issued, issue
from tests.interop.conftest import StartPair
from tests.interop.libreswan import Pluto
from tests.interop.openiked import Iked
from tests.interop.our_gateway import failure_of
from tests.interop.peer import Credentials, Peer, Wanted

each_peer = pytest.mark.parametrize("peer", [Pluto, Iked], ids=lambda peer: peer.name)
each_role = pytest.mark.parametrize("initiator", ["ours", "theirs"])

KINDS = {
    "RSA certificates": "rsa",
    "ECDSA P-256 certificates": "p256",
    "ECDSA P-384 certificates": "p384",
    "ECDSA P-521 certificates": "p521",
}
_SLOW = ("ECDSA P-384 certificates", "ECDSA P-521 certificates")
# The first payload of the IKE message after a UDP header is an Encrypted Fragment (RFC 7383 §2.5).
_FRAGMENT = "udp port 500 and udp[24] = 53"


def real(subject: str, issuer: Issued | None = None, *, kind: str) -> Issued:
    """Issue a certificate that is valid now."""
    offset = time.time() - NOW
    names = [subject] if issuer else []
    return issue(subject, issuer, kind=kind, names=names, starts=offset - DAY, ends=offset + 30 * DAY)


def credentials(kind: str, their_ca: Issued | None = None) -> Credentials:
    """Return both sides' certificates with this kind of key."""
    ca = real("Interop CA", kind=kind)
    return Credentials(
        ca=ca, ours=real("ours.test", ca, kind=kind), theirs=real("theirs.test", their_ca or ca, kind=kind)
    )


@pytest.mark.interop(feature="Authentication: {feature}")
@pytest.mark.parametrize(
    "feature", [pytest.param(one, marks=pytest.mark.slow if one in _SLOW else ()) for one in KINDS]
)
@each_peer
@each_role
def test_both_sides_have_certificates(
    start_pair: StartPair, peer: type[Peer], initiator: str, feature: str
) -> None:
    """RFC 7296 §2.15, RFC 7427."""
    with start_pair(peer, Wanted(credentials=credentials(KINDS[feature]))) as pair:
        pair.bring_up(initiator)

        pair.check_keys()
        assert pair.ours.ike_sas()[0].remote_id == "theirs.test"


@pytest.mark.interop(feature="A certificate of another authority is refused", peer="libreswan", role="ours")
def test_a_certificate_of_another_authority_is_refused(start_pair: StartPair) -> None:
    """RFC 4945 §5.1: we say which certificate it was and that nobody we trust issued it.

    Without OpenIKED: asked for our authority, it does not always show a certificate of another one.
    """
    stranger = real("Stranger CA", kind="p256")
    with start_pair(Pluto, Wanted(credentials=credentials("p256", stranger))) as pair:
        failure = failure_of(pair.ours.up("net"))

        assert "AUTHENTICATION_FAILED" in failure, f"{failure}\n{pair.log()}"
        assert "theirs.test" in failure
        assert not pair.ours.child_sas()


@pytest.mark.interop(feature="IKE fragmentation (RFC 7383)")
@each_peer
@each_role
def test_large_messages_are_fragmented_both_ways(
    start_pair: StartPair, peer: type[Peer], initiator: str, tmp_path: Path
) -> None:
    """IKE_AUTH with RSA-3072 certificates does not fit the packets that either side sends."""
    setup = ("set fragmentation",) if peer is Iked else ()
    wire = tmp_path / "wire.pcap"
    wanted = Wanted(credentials=credentials("rsa3072"), our_ike_options=", fragment_size: 700")
    with start_pair(peer, wanted, setup=setup) as pair:
        with capturing(pair.sites.b.gateway, pair.sites.b.outside_device, wire):
            pair.bring_up(initiator)

        pair.check_keys()
        for site in (pair.sites.a, pair.sites.b):
            assert count_packets(wire, f"src host {site.outside} and {_FRAGMENT}") >= 2
