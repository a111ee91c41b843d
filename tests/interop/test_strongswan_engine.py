"""Our native engine and Debian's strongSwan (kernel-libipsec): ESP in UDP, which is what libipsec does.

By raw sockets, and with the outside for itself: then the wire has more from us than our kernel has sent.
"""

from collections import Counter
from pathlib import Path

import pytest

from gateway.bench.flows import tcp_transfer
from gateway.bench.topology import Site
from gateway.inspect.packet import Kind
from tests.engine.conftest import make
from tests.interop.conftest import Rig, Setup, StartRig
from tests.interop.counted import counted_udp
from tests.interop.test_strongswan import bring_up, wait_until
from tests.netns.wire import packets_of

pytestmark = pytest.mark.interop

ESPD = Path(__file__).parents[2] / "hw" / "espd"
SUITES = {
    "gcm": "aes256gcm16-x25519",
    "cbc-sha2": "aes256-sha256-x25519",
    "chacha": "chacha20poly1305-x25519",
}


METHODS = {
    "raw-sockets": ((), "outside in by raw sockets and out by raw sockets"),
    "live-frames": (
        ("--engine-interface", "outside", "--engine-io", "live"),
        "outside in by AF_XDP copy and out by live frames",
    ),
    "af-xdp": (
        ("--engine-interface", "outside", "--engine-io", "af_xdp"),
        "outside in by AF_XDP copy and out by AF_XDP copy",
    ),
}
"""By name: the options of our agent, and how its SAs then say that packets come and go."""
RAW, LIVE, AF_XDP = METHODS
TRANSFERS_BYTES = (1 << 25, 1 << 27, 1 << 29)
"""The next one where the one before was over before the rekey."""


def setup(esp: str, method: str = RAW) -> Setup:
    """Our gateway on the engine, which ends with it."""
    espd = make("espd", source=ESPD) / "espd"
    return Setup(
        esp=esp,
        our_options=("--datapath", "engine", "--teardown", *METHODS[method][0]),
        environment={"IPSECGW_ESPD": str(espd)},
        takes_redirected_frames=True,
    )


def our_sas(rig: Rig) -> list[dict[str, object]]:
    """Return the SAs of our datapath as the API gives them."""
    return list(rig.ours.json("list", "sas")["sas"])


def sent_by_kernel(rig: Rig) -> int:
    """Return how many IPv4 packets the kernel of our gateway has sent itself: IKE, and ESP by raw sockets."""
    lines = rig.sites.a.gateway.run("cat", "/proc/net/snmp").stdout.splitlines()
    names, values = (line.split() for line in lines if line.startswith("Ip:"))
    return int(values[names.index("OutRequests")])


def sent_by_ours(rig: Rig, kind: Kind) -> int:
    """Return how many packets of IKE or ESP the wire had from us; the rig must have ended."""
    return sum(str(packet.source) == rig.sites.a.outside for packet in packets_of(rig.wire, kind))


def check_method(rig: Rig, method: str) -> None:
    """Check that our SAs say that packets come and go by a method."""
    _, words = METHODS[method]
    sas = our_sas(rig)
    assert {sa["placement"] for sa in sas} == {"engine"}
    assert all(words in str(sa["placement_reason"]) for sa in sas), sas


def transfer_across_a_rekey(rig: Rig, sender: Site, receiver: Site, total_bytes: int) -> bool:
    """Send bytes by TCP, rekey meanwhile, and return whether the new Child SA carried some of them."""
    rekeys: list[int] = []

    def rekey_once(sent: int, _seconds: float) -> None:
        if not rekeys:
            rekeys.append(sent)
            rig.ours.ctl("rekey", "swan/net")

    (before,) = rig.child_sas()
    transfer = tcp_transfer(sender.host, receiver.host, receiver.host_address, total_bytes, rekey_once)

    assert transfer.intact, rig.ours.log_tail()
    assert transfer.bytes == total_bytes
    (after,) = rig.child_sas()
    assert after["child_sa_id"] != before["child_sa_id"]
    return min(int(after[way]["packets"]) for way in ("inbound", "outbound")) > 100  # type: ignore[index]


@pytest.mark.interop(feature="Tunnel mode with traffic, by the native engine", peer="strongSwan")
@pytest.mark.parametrize("initiator", ["ours", "theirs"])
@pytest.mark.parametrize("esp", SUITES.values(), ids=SUITES)
def test_a_tunnel_comes_up_and_carries_pings_both_ways(start_rig: StartRig, esp: str, initiator: str) -> None:
    with start_rig(setup(esp)) as rig:
        bring_up(rig, initiator)
        # A responder's outbound SA follows its answer, and the engine holds no packet until it is there.
        wait_until(lambda: len(our_sas(rig)) == 2, "both SAs are there", rig)

        rig.ping()

        check_method(rig, RAW)


@pytest.mark.interop(feature="Rekeys without loss under counted UDP, by the native engine", peer="strongSwan")
@pytest.mark.parametrize(("by", "method"), [("ours", RAW), ("theirs", RAW), ("theirs", LIVE)])
def test_a_rekey_under_load_loses_nothing(start_rig: StartRig, by: str, method: str) -> None:
    """1,000 numbered packets a second each way, counted on the wire too: we lose, repeat and show none."""
    with start_rig(setup(SUITES["gcm"], method)) as rig:
        bring_up(rig, "ours")
        rig.ping(count=1)
        check_method(rig, method)
        before = {str(sa["child_sa_id"]) for sa in rig.child_sas()}

        with counted_udp(rig, "ipsecgw0e") as counted:
            if by == "ours":
                rig.ours.ctl("rekey", "swan/net")
            else:
                rig.theirs.swanctl("--rekey", "--child", "net")

        after = {str(sa["child_sa_id"]) for sa in rig.child_sas()}
        assert before.isdisjoint(after)

    seen = Counter(str(packet.source) for packet in packets_of(rig.wire, Kind.ESP))
    flow = counted.flow
    assert flow.sent > 8000
    assert (counted.lost, flow.duplicates) == (0, 0), f"{counted}\n{rig.ours.log_tail()}"
    # Beside the flow there was an echo request and a reply.
    assert flow.a.received >= seen[rig.sites.b.outside] - 2, f"we lost some behind it\n{rig.ours.log_tail()}"
    assert (flow.a.highest, flow.b.highest) == (flow.b.sent, flow.a.sent)


@pytest.mark.interop(
    feature="TCP across a rekey, content compared, by the native engine ({method})",
    peer="strongSwan",
    role="ours",
)
@pytest.mark.parametrize(
    ("method", "from_us"),
    [
        *(pytest.param(name, True, id=f"{name}-from us") for name in METHODS),
        pytest.param(RAW, False, id=f"{RAW}-to us"),
        pytest.param(LIVE, False, id=f"{LIVE}-to us"),
        # It receives as by live frames.
        pytest.param(AF_XDP, False, id=f"{AF_XDP}-to us", marks=pytest.mark.slow),
    ],
)
def test_tcp_arrives_whole_across_a_rekey(start_rig: StartRig, method: str, *, from_us: bool) -> None:
    with start_rig(setup(SUITES["gcm"], method)) as rig:
        bring_up(rig, "ours")
        rig.ping()
        check_method(rig, method)
        ends = (rig.sites.a, rig.sites.b) if from_us else (rig.sites.b, rig.sites.a)
        before = sent_by_kernel(rig)

        assert any(transfer_across_a_rekey(rig, *ends, size) for size in TRANSFERS_BYTES)

        by_kernel = sent_by_kernel(rig) - before
        check_method(rig, method)

    assert sent_by_ours(rig, Kind.ESP) > 100
    assert method == RAW or by_kernel <= sent_by_ours(rig, Kind.IKE), "the kernel sent what was sealed"
