"""What libreswan has and OpenIKED has not: cookies on demand, ESN, forced UDP encapsulation."""

from pathlib import Path

import pytest

from gateway.bench.capture import capturing, count_packets
from tests.interop.conftest import StartPair
from tests.interop.libreswan import Pluto
from tests.interop.peer import Wanted
from tests.interop.test_strongswan import open_half

# The exchange type, and as first payload a Notify, of an IKE header after a UDP header (RFC 7296 §3.1).
_IKE_SA_INIT = "udp port 500 and udp[26] = 34"
_NOTIFY_FIRST = "udp[24] = 41"

each_role = pytest.mark.parametrize("initiator", ["ours", "theirs"])


@pytest.mark.interop(feature="Cookies", peer="libreswan", role="ours")
def test_their_cookie_request_is_answered(start_pair: StartPair, tmp_path: Path) -> None:
    """RFC 7296 §2.6: N(COOKIE) comes back first in the repeated IKE_SA_INIT request."""
    wire = tmp_path / "wire.pcap"
    with start_pair(Pluto, Wanted(), setup=("ddos-mode=busy",)) as pair:
        with capturing(pair.sites.b.gateway, pair.sites.b.outside_device, wire):
            pair.bring_up("ours")

        pair.check_keys()
        ours, theirs = pair.sites.a.outside, pair.sites.b.outside
        assert count_packets(wire, f"src host {ours} and {_IKE_SA_INIT}") == 2
        assert count_packets(wire, f"src host {ours} and {_IKE_SA_INIT} and {_NOTIFY_FIRST}") == 1
        assert count_packets(wire, f"src host {theirs} and {_IKE_SA_INIT} and {_NOTIFY_FIRST}") == 1


@pytest.mark.interop(feature="Cookies", peer="libreswan", role="theirs")
def test_our_cookie_request_is_answered(start_pair: StartPair) -> None:
    """RFC 7296 §2.6: with many half-open IKE SAs from their address we want a cookie."""
    with start_pair(Pluto, Wanted()) as pair:
        there, here = pair.sites.b, pair.sites.a
        open_half(there.gateway, there.outside, here.outside, first=1, count=12)

        pair.bring_up("theirs")

        pair.check_keys()
        assert "COOKIE" in pair.theirs.log()


@pytest.mark.interop(feature="ESN", peer="libreswan")
@each_role
def test_extended_sequence_numbers_are_agreed_on(start_pair: StartPair, initiator: str) -> None:
    """RFC 4304, RFC 7296 §3.3.2: transform type 5."""
    wanted = Wanted(esp=("aes256gcm16-x25519-esn",), their_options=("esn=yes", "replay-window=128"))
    with start_pair(Pluto, wanted) as pair:
        pair.bring_up(initiator)

        pair.check_keys()
        assert {sa.esn for sa in pair.theirs.installed().values()} == {True}
        assert "esn" in pair.ours.child_sas()[0].proposal


@pytest.mark.interop(feature="UDP encapsulation without a NAT", peer="libreswan")
@each_role
def test_udp_encapsulation_is_forced(start_pair: StartPair, initiator: str) -> None:
    """RFC 7296 §2.23: whoever wants encapsulation pretends to be behind a NAT."""
    with start_pair(Pluto, Wanted(our_ike_options=", encapsulation: true")) as pair:
        pair.bring_up(initiator)

        pair.check_keys()
        assert {sa.encapsulation for sa in pair.theirs.installed().values()} == {(4500, 4500)}
