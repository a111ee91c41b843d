"""Our gateway and Debian's strongSwan, in both roles: RFC 7296 with somebody who has never met us."""

import time
from collections.abc import Callable

import pytest

from gateway.bench.topology import Namespace
from gateway.ike.wire.header import ExchangeType, IkeHeader
from gateway.ike.wire.message import encode_message
from gateway.ike.wire.payloads import KePayload, NoncePayload, SaPayload
from gateway.ike.wire.sa_payload import wire_proposals
from gateway.ipsec.proposal import ProtocolId, parse_proposal
from tests.interop.conftest import Rig, Setup, StartRig
from tests.interop.counted import counted_udp

pytestmark = pytest.mark.interop

GCM = Setup()
CBC = Setup(ike="aes256-sha256-modp2048", esp="aes256-sha256-modp2048")
P384 = Setup(ike="aes128-sha384-prfsha512-ecp384", esp="aes128-sha512-ecp384")


def bring_up(rig: Rig, initiator: str) -> None:
    if initiator == "ours":
        rig.ours.ctl("up", "swan")
    else:
        rig.theirs.initiate("net")


def wait_until(condition: Callable[[], bool], what: str, rig: Rig, timeout_s: float = 40.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not after {timeout_s} s\n{rig.ours.log_tail()}"
        time.sleep(0.1)


@pytest.mark.interop(feature="Tunnel mode with traffic", peer="strongSwan")
@pytest.mark.parametrize("initiator", ["ours", "theirs"])
@pytest.mark.parametrize("setup", [GCM, CBC, P384], ids=["gcm", "cbc-sha2", "ecp384"])
def test_a_tunnel_comes_up_and_carries_pings_both_ways(
    start_rig: StartRig, setup: Setup, initiator: str
) -> None:
    with start_rig(setup) as rig:
        bring_up(rig, initiator)

        rig.ping()

        assert len(rig.child_sas()) == 1
        assert rig.theirs.sas().count("INSTALLED") == 1


@pytest.mark.interop(feature="Rekeys without loss under counted UDP", peer="strongSwan")
@pytest.mark.parametrize("by", ["ours", "theirs"])
@pytest.mark.parametrize("what", ["child", "ike"])
def test_a_rekey_under_load_loses_nothing(start_rig: StartRig, by: str, what: str) -> None:
    """1,000 numbered packets a second each way; missing, duplicate and clear ones are counted: 0."""
    commands = {
        ("ours", "child"): lambda rig: rig.ours.ctl("rekey", "swan/net"),
        ("ours", "ike"): lambda rig: rig.ours.ctl("rekey", "swan"),
        ("theirs", "child"): lambda rig: rig.theirs.swanctl("--rekey", "--child", "net"),
        ("theirs", "ike"): lambda rig: rig.theirs.swanctl("--rekey", "--ike", "swan"),
    }
    with start_rig(GCM) as rig:
        bring_up(rig, "ours")
        rig.ping(count=1)
        before = (
            {str(sa["child_sa_id"]) for sa in rig.child_sas()},
            {str(sa["spi_i"]) for sa in rig.ike_sas()},
        )

        with counted_udp(rig) as counted:
            commands[by, what](rig)

        after = {str(sa["child_sa_id"]) for sa in rig.child_sas()}, {str(sa["spi_i"]) for sa in rig.ike_sas()}
        changed = 0 if what == "child" else 1
        assert before[changed].isdisjoint(after[changed])
        assert counted.flow.sent > 8000
        assert (counted.lost, counted.flow.duplicates) == (0, 0), f"{counted}\n{rig.ours.log_tail()}"


@pytest.mark.interop(feature="Reauthentication without loss under counted UDP", peer="strongSwan")
@pytest.mark.parametrize("by", ["ours", "theirs"])
def test_a_reauthentication_under_load_loses_nothing(start_rig: StartRig, by: str) -> None:
    """RFC 7296 §2.8.3, make before break: 1,000 packets a second each way; missing and duplicates are 0."""
    with start_rig(Setup(their_settings="make_before_break = yes")) as rig:
        bring_up(rig, by)
        rig.ping(count=1)
        (before,) = rig.ike_sas()
        (child_before,) = rig.child_sas()

        with counted_udp(rig) as counted:
            if by == "ours":
                rig.ours.ctl("rekey", "--reauth", "swan")
            else:
                rig.theirs.swanctl("--rekey", "--ike", "swan", "--reauth")

        (after,) = rig.ike_sas()
        (child_after,) = rig.child_sas()
        assert before["spi_i"] != after["spi_i"]
        assert child_before["child_sa_id"] != child_after["child_sa_id"]
        assert counted.flow.sent > 8000
        assert (counted.lost, counted.flow.duplicates) == (0, 0), f"{counted}\n{rig.ours.log_tail()}"


@pytest.mark.interop(feature="IKE SA deletion", peer="strongSwan")
@pytest.mark.parametrize("by", ["ours", "theirs"])
def test_deleting_the_ike_sa_ends_everything_at_both_ends(start_rig: StartRig, by: str) -> None:
    """RFC 7296 §1.4.1: deleting an IKE SA implicitly deletes its Child SAs."""
    with start_rig(GCM) as rig:
        bring_up(rig, "ours")

        if by == "ours":
            rig.ours.ctl("down", "swan")
        else:
            rig.theirs.swanctl("--terminate", "--ike", "swan")

        wait_until(lambda: not rig.ike_sas() and not rig.child_sas(), "our SAs are gone", rig)
        wait_until(lambda: "swan:" not in rig.theirs.sas(), "their SAs are gone", rig)


@pytest.mark.interop(feature="Child SA deletion", peer="strongSwan")
@pytest.mark.parametrize("by", ["ours", "theirs"])
def test_deleting_the_child_sa_leaves_the_ike_sa(start_rig: StartRig, by: str) -> None:
    """RFC 7296 §1.4.1."""
    with start_rig(GCM) as rig:
        bring_up(rig, "ours")

        if by == "ours":
            rig.ours.ctl("down", "swan/net")
        else:
            rig.theirs.swanctl("--terminate", "--child", "net")

        wait_until(lambda: not rig.child_sas(), "our Child SA is gone", rig)
        wait_until(lambda: "INSTALLED" not in rig.theirs.sas(), "their Child SA is gone", rig)
        assert len(rig.ike_sas()) == 1


@pytest.mark.interop(feature="Liveness check (DPD)", peer="strongSwan", role="both")
def test_liveness_checks_go_both_ways_and_a_dead_peer_is_noticed(start_rig: StartRig) -> None:
    """RFC 7296 §2.4."""
    setup = Setup(
        our_ike_options=", dpd_delay: 1s, retransmit_timeout: 0.5s, retransmit_tries: 2",
        their_ike_options="dpd_delay = 1s",
    )
    with start_rig(setup) as rig:
        bring_up(rig, "theirs")
        for said in ("sending DPD request", "parsed INFORMATIONAL response"):
            wait_until(lambda said=said: said in rig.theirs.log(), said, rig)
        assert len(rig.ike_sas()) == 1

        rig.theirs.kill()

        wait_until(lambda: not rig.ike_sas(), "the dead peer's IKE SA is gone", rig)
        assert "peer_unresponsive" in rig.ours.log()


@pytest.mark.interop(feature="NAT traversal, the initiator is hidden", peer="strongSwan")
@pytest.mark.parametrize("hidden", ["ours", "theirs"])
@pytest.mark.parametrize("setup", [GCM, CBC], ids=["gcm", "cbc-sha2"])
def test_a_nat_between_moves_everything_to_port_4500(start_rig: StartRig, setup: Setup, hidden: str) -> None:
    """RFC 7296 §2.23, RFC 3948: whoever is behind the NAT initiates."""
    behind_nat = Setup(ike=setup.ike, esp=setup.esp, nat=True, they_are_site_a=hidden == "theirs")
    with start_rig(behind_nat) as rig:
        bring_up(rig, hidden)

        rig.ping()

        says = {"ours": "remote host is behind NAT", "theirs": "local host is behind NAT"}
        assert says[hidden] in rig.theirs.log()
        (ike_sa,) = rig.ike_sas()
        assert ike_sa["nat_local" if hidden == "ours" else "nat_remote"] is True


@pytest.mark.interop(feature="Cookies", peer="strongSwan", role="ours")
def test_their_cookie_request_is_answered(start_rig: StartRig) -> None:
    """RFC 7296 §2.6: N(COOKIE) comes back first in the repeated IKE_SA_INIT request."""
    setup = Setup(their_settings="cookie_threshold = 1\n  cookie_threshold_ip = 1\n  dos_protection = yes")
    with start_rig(setup) as rig:
        # Half-open IKE SAs at their side: spoofed IKE_SA_INIT requests of another source address.
        rig.sites.a.gateway.run("ip", "address", "add", "192.0.2.77/24", "dev", rig.sites.a.outside_device)
        open_half(rig.sites.a.gateway, "192.0.2.77", rig.sites.b.outside, first=1, count=4)

        bring_up(rig, "ours")

        rig.ping(count=1)
        assert "N(COOKIE)" in rig.theirs.log()


def open_half(namespace: Namespace, source: str, target: str, *, first: int, count: int) -> None:
    """Leave `count` half-open IKE SAs at `target`, by IKE_SA_INIT requests that nobody follows up."""
    script = (
        "import socket,sys;"
        "s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);s.bind((sys.argv[1],0));"
        "[s.sendto(bytes.fromhex(line),(sys.argv[2],500)) for line in sys.stdin.read().split()]"
    )
    requests = "\n".join(ike_sa_init_request(number).hex() for number in range(first, first + count))
    namespace.run("python3", "-c", script, source, target, stdin=requests)
    time.sleep(0.5)


def ike_sa_init_request(number: int) -> bytes:
    """Return an IKE_SA_INIT request with AES-GCM-256, PRF-SHA384 and X25519."""
    header = IkeHeader.build(
        spi_i=number.to_bytes(8, "big"),
        spi_r=bytes(8),
        exchange_type=ExchangeType.IKE_SA_INIT,
        is_initiator=True,
        is_response=False,
        message_id=0,
    )
    proposal = parse_proposal("aes256gcm16-prfsha384-x25519", ProtocolId.IKE)
    payloads = [
        SaPayload(wire_proposals([proposal])),
        KePayload(31, bytes([9]) + bytes(31)),
        NoncePayload(number.to_bytes(4, "big") * 8),
    ]
    return encode_message(header, payloads)


@pytest.mark.interop(feature="INVALID_KE_PAYLOAD and another try", peer="strongSwan", role="ours")
def test_invalid_ke_from_them_makes_us_try_their_group(start_rig: StartRig) -> None:
    """RFC 7296 §1.2: our first guess is ECP-384, they only take X25519."""
    setup = Setup(ike="aes256gcm16-prfsha384-ecp384-x25519", theirs_ike="aes256gcm16-prfsha384-x25519")
    with start_rig(setup) as rig:
        bring_up(rig, "ours")

        rig.ping(count=1)
        assert "INVAL_KE" in rig.theirs.log()


@pytest.mark.interop(feature="INVALID_KE_PAYLOAD and another try", peer="strongSwan", role="theirs")
def test_invalid_ke_from_us_makes_them_try_our_group(start_rig: StartRig) -> None:
    """RFC 7296 §1.2: their first guess is ECP-384, we only take X25519."""
    setup = Setup(ike="aes256gcm16-prfsha384-x25519", theirs_ike="aes256gcm16-prfsha384-ecp384-x25519")
    with start_rig(setup) as rig:
        bring_up(rig, "theirs")

        rig.ping(count=1)
        assert "INVAL_KE" in rig.theirs.log()


@pytest.mark.interop(feature="Narrowing of selectors", peer="strongSwan")
@pytest.mark.parametrize("initiator", ["ours", "theirs"])
def test_selectors_are_narrowed_to_what_both_allow(start_rig: StartRig, initiator: str) -> None:
    """RFC 7296 §2.9: we ask for 10.0.0.0/8 at their end, they have 10.2.0.0/16."""
    with start_rig(Setup(our_remote_ts="10.0.0.0/8", our_options=())) as rig:
        bring_up(rig, initiator)

        rig.ping(count=1)
        (child_sa,) = rig.child_sas()
        assert child_sa["remote_ts"] == ["10.2.0.0/16"]
        assert child_sa["local_ts"] == ["10.1.0.0/16"]


@pytest.mark.interop(feature="Wrong PSK: both say so", peer="strongSwan")
@pytest.mark.parametrize("initiator", ["ours", "theirs"])
def test_a_wrong_psk_is_refused_and_both_log_and_api_say_so(start_rig: StartRig, initiator: str) -> None:
    """RFC 7296 §2.21.2: AUTHENTICATION_FAILED."""
    with start_rig(Setup(their_psk="another-psk-0123456789")) as rig:
        if initiator == "ours":
            done = rig.ours.ctl("up", "swan", check=False)
            assert done.returncode == 1
            assert "AUTHENTICATION_FAILED" in done.stderr
        else:
            assert "AUTH_FAILED" in rig.theirs.initiate("net", check=False)

        wait_until(lambda: "authentication_failed" in rig.ours.log(), "our log says so", rig)
        assert "AUTHENTICATION_FAILED" in rig.ours.ctl("explain", "swan").stdout
        assert not rig.child_sas()


@pytest.mark.interop(feature="No common proposal: both say so", peer="strongSwan")
@pytest.mark.parametrize("initiator", ["ours", "theirs"])
def test_without_a_common_proposal_log_and_api_say_what_differed(start_rig: StartRig, initiator: str) -> None:
    """RFC 7296 §2.7: NO_PROPOSAL_CHOSEN; the responder tells its operator both sides' proposals."""
    setup = Setup(ike="aes256gcm16-prfsha384-x25519", theirs_ike="aes128-sha256-modp2048")
    with start_rig(setup) as rig:
        if initiator == "ours":
            done = rig.ours.ctl("up", "swan", check=False)
            assert done.returncode == 1
            assert "NO_PROPOSAL_CHOSEN" in done.stderr
            assert "aes256gcm16-prfsha384-x25519" in done.stderr
        else:
            assert "NO_PROP" in rig.theirs.initiate("net", check=False)
            wait_until(lambda: "no_proposal_chosen" in rig.ours.log(), "our log says so", rig)
            explained = rig.ours.ctl("explain", "swan").stdout
            for text in (rig.ours.log(), explained):
                assert "aes128-sha256-modp2048" in text
                assert "aes256gcm16-prfsha384-x25519" in text


@pytest.mark.interop(feature="Cookies", peer="strongSwan", role="theirs")
def test_our_cookie_request_is_answered(start_rig: StartRig) -> None:
    """RFC 7296 §2.6: with many half-open IKE SAs we want a cookie before we compute anything."""
    with start_rig(GCM) as rig:
        # Half-open IKE SAs at our side, in the peer's own name: any port of its address will do.
        open_half(rig.sites.b.gateway, rig.sites.b.outside, rig.sites.a.outside, first=1, count=12)

        rig.theirs.initiate("net")

        rig.ping(count=1)
        assert "received COOKIE notify" in rig.theirs.log()
