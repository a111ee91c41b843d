"""IKE fragmentation with Debian's strongSwan, in both roles (RFC 7383).

So many selectors are configured that IKE_AUTH does not fit a packet of the outside link, and the network
drops IP fragments, as many do. Without IKE fragmentation nothing comes up, which the last test shows.
"""

import json
import re
from pathlib import Path

import pytest

from gateway.bench.topology import Namespace
from gateway.ike.wire.header import ExchangeType
from gateway.ike.wire.message import EncryptedFragment, parse_message
from gateway.inspect.capture import read_capture
from gateway.inspect.packet import Finder, Kind
from tests.interop.conftest import Rig, Setup, StartRig

pytestmark = pytest.mark.interop

SUITES = {
    "gcm": ("aes256gcm16-prfsha384-x25519", "aes256gcm16-x25519"),
    "cbc": ("aes256-sha256-x25519", "aes256-sha256-x25519"),
}
OUTSIDE_MTU = 1280
NETWORKS = [f"10.2.{number}" for number in range(0, 160, 2)]
SELECTORS = ", ".join(f"{network}.0/24" for network in NETWORKS)
PATIENT = ", retransmit_timeout: 0.5s, retransmit_base: 1.2, retransmit_tries: 10"
THEIR_PATIENCE = "retransmit_timeout = 0.5\n  retransmit_base = 1.2\n  retransmit_tries = 10"

# Before the kernel would put IP fragments together.
DROP_IP_FRAGMENTS = """
table ip fragments {
  chain incoming {
    type filter hook prerouting priority -450
    ip frag-off & 0x3fff != 0 counter drop
  }
}
"""
# Of the large packets, which are IKE's, every third one, beginning with the second.
DROP_SOME = """
table ip loss {
  chain incoming {
    type filter hook prerouting priority -440
    udp dport { 500, 4500 } meta length > 600 numgen inc mod 3 == 1 counter drop
  }
}
"""


def setup(suite: str = "gcm", **changes: str) -> Setup:
    ike, esp = SUITES[suite]
    given = {"our_ike_options": PATIENT, "their_settings": THEIR_PATIENCE} | changes
    return Setup(ike=ike, esp=esp, our_remote_ts=SELECTORS, their_local_ts=SELECTORS, **given)


def prepare(rig: Rig, rules: str = "") -> tuple[Namespace, Namespace]:
    """Make the outside link narrow, and have both gateways' networks drop what the rules say."""
    gateways = rig.sites.a.gateway, rig.sites.b.gateway
    # kernel-libipsec wants an address of its own in each selector, as the source of its route.
    addresses = "".join(f"address add {network}.1/32 dev lo\n" for network in NETWORKS[1:])
    rig.sites.b.gateway.run("ip", "-batch", "-", stdin=addresses)
    for gateway in gateways:
        gateway.run("ip", "link", "set", "outside", "mtu", str(OUTSIDE_MTU))
        gateway.run("nft", "-f", "-", stdin=DROP_IP_FRAGMENTS + rules)
    return gateways


def dropped(gateways: tuple[Namespace, Namespace], table: str) -> int:
    """Return how many packets the rules of a table dropped on their way to both gateways."""
    count = 0
    for gateway in gateways:
        listed = json.loads(gateway.run("nft", "--json", "list", "table", "ip", table).stdout)
        expressions = [e for item in listed["nftables"] for e in item.get("rule", {}).get("expr", [])]
        count += sum(e["counter"]["packets"] for e in expressions if "counter" in e)
    return count


def bring_up(rig: Rig, initiator: str) -> None:
    if initiator == "ours":
        rig.ours.ctl("up", "swan")
    else:
        rig.theirs.initiate("net")


def ike_fragments(wire: Path, source: str) -> list[tuple[int, int, int]]:
    """Return (exchange, number, total) of every fragment that came from an address, in order."""
    finder = Finder()
    found = [finder.find(frame) for frame in read_capture(wire)]
    messages = [
        parse_message(item.data)
        for item in found
        if item is not None and item.kind is Kind.IKE and str(item.source) == source
    ]
    return [
        (message.header.exchange_type, message.protected.number, message.protected.total)
        for message in messages
        if isinstance(message.protected, EncryptedFragment)
    ]


@pytest.mark.interop(feature="IKE fragmentation (RFC 7383)", peer="strongSwan")
@pytest.mark.parametrize("initiator", ["ours", "theirs"])
@pytest.mark.parametrize("suite", SUITES)
def test_a_large_ike_auth_passes_a_network_that_drops_ip_fragments(
    start_rig: StartRig, suite: str, initiator: str
) -> None:
    with start_rig(setup(suite)) as rig:
        gateways = prepare(rig)

        bring_up(rig, initiator)

        rig.ping(count=1)
        (child_sa,) = rig.child_sas()
        assert len(child_sa["remote_ts"]) == 80
        assert dropped(gateways, "fragments") == 0
        assert "splitting IKE message" in rig.theirs.log()
        # Its threads take fragments in any order.
        assert re.search(r"received fragment #[12] of 2, waiting", rig.theirs.log())
        sides = rig.sites.a.outside, rig.sites.b.outside
    for side in sides:
        sent = [(n, total) for exchange, n, total in ike_fragments(rig.wire, side) if exchange == 35]
        assert sent == [(1, 2), (2, 2)]


@pytest.mark.parametrize("initiator", ["ours", "theirs"])
def test_each_side_divides_as_small_as_it_is_told_and_takes_what_the_other_does(
    start_rig: StartRig, initiator: str
) -> None:
    smaller = setup(
        our_ike_options=PATIENT + ", fragment_size: 400",
        their_settings=THEIR_PATIENCE + "\n  fragment_size = 300",
    )
    with start_rig(smaller) as rig:
        prepare(rig)

        bring_up(rig, initiator)

        rig.ping(count=1)
        ours, theirs = rig.sites.a.outside, rig.sites.b.outside
    assert max(total for _, _, total in ike_fragments(rig.wire, ours)) in (5, 6)
    assert max(total for _, _, total in ike_fragments(rig.wire, theirs)) >= 6


@pytest.mark.parametrize("initiator", ["ours", "theirs"])
def test_lost_fragments_are_made_good_by_retransmission(start_rig: StartRig, initiator: str) -> None:
    """§2.6.1: all fragments of a request come again; its first one has the response sent again."""
    small = setup(
        our_ike_options=PATIENT + ", fragment_size: 700",
        their_settings=THEIR_PATIENCE + "\n  fragment_size = 700",
    )
    with start_rig(small) as rig:
        gateways = prepare(rig, DROP_SOME)

        bring_up(rig, initiator)

        rig.ping(count=1)
        assert dropped(gateways, "loss") > 0
        assert len(rig.child_sas()) == 1
        assert rig.theirs.sas().count("INSTALLED") == 1


@pytest.mark.interop(feature="IKE fragmentation of rekeys", peer="strongSwan")
@pytest.mark.parametrize("by", ["ours", "theirs"])
def test_rekeys_are_fragmented_as_well(start_rig: StartRig, by: str) -> None:
    """CREATE_CHILD_SA of a Child SA with as many selectors; the new IKE SA still fragments."""
    with start_rig(setup()) as rig:
        gateways = prepare(rig)
        bring_up(rig, "ours")
        before = {str(sa["spi_i"]) for sa in rig.ike_sas()}

        if by == "ours":
            rig.ours.ctl("rekey", "swan")
            rig.ours.ctl("rekey", "swan/net")
        else:
            rig.theirs.swanctl("--rekey", "--ike", "swan")
            rig.theirs.swanctl("--rekey", "--child", "net")

        rig.ping()
        assert before.isdisjoint({str(sa["spi_i"]) for sa in rig.ike_sas()})
        assert dropped(gateways, "fragments") == 0
        sides = rig.sites.a.outside, rig.sites.b.outside
    for side in sides:
        exchanges = {exchange for exchange, _, _ in ike_fragments(rig.wire, side)}
        assert exchanges == {ExchangeType.IKE_AUTH, ExchangeType.CREATE_CHILD_SA}


@pytest.mark.parametrize("who", ["ours", "theirs"])
def test_without_ike_fragmentation_the_same_network_lets_nothing_through(
    start_rig: StartRig, who: str
) -> None:
    impatient = ", retransmit_timeout: 0.3s, retransmit_base: 1, retransmit_tries: 2"
    refusing = setup(
        our_ike_options=impatient + (", fragmentation: no" if who == "ours" else ""),
        their_ike_options="fragmentation = no" if who == "theirs" else "",
    )
    with start_rig(refusing) as rig:
        gateways = prepare(rig)

        done = rig.ours.ctl("up", "swan", check=False)

        assert done.returncode == 1
        assert dropped(gateways, "fragments") > 0
    assert ike_fragments(rig.wire, rig.sites.a.outside) == []
