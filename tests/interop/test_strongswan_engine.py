"""Our native engine and Debian's strongSwan (kernel-libipsec): ESP in UDP, which is what libipsec does."""

from collections import Counter
from pathlib import Path

import pytest

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


def setup(esp: str) -> Setup:
    """Our gateway on the engine, which ends with it."""
    espd = make("espd", source=ESPD) / "espd"
    return Setup(
        esp=esp,
        our_options=("--datapath", "engine", "--teardown"),
        environment={"IPSECGW_ESPD": str(espd)},
    )


def our_sas(rig: Rig) -> list[dict[str, object]]:
    """Return the SAs of our datapath as the API gives them."""
    return list(rig.ours.json("list", "sas")["sas"])


@pytest.mark.interop(feature="Tunnel mode with traffic, by the native engine", peer="strongSwan")
@pytest.mark.parametrize("initiator", ["ours", "theirs"])
@pytest.mark.parametrize("esp", SUITES.values(), ids=SUITES)
def test_a_tunnel_comes_up_and_carries_pings_both_ways(start_rig: StartRig, esp: str, initiator: str) -> None:
    with start_rig(setup(esp)) as rig:
        bring_up(rig, initiator)
        # A responder's outbound SA follows its answer, and the engine holds no packet until it is there.
        wait_until(lambda: len(our_sas(rig)) == 2, "both SAs are there", rig)

        rig.ping()

        assert {sa["placement"] for sa in our_sas(rig)} == {"engine"}


@pytest.mark.interop(feature="Rekeys without loss under counted UDP, by the native engine", peer="strongSwan")
@pytest.mark.parametrize("by", ["ours", "theirs"])
def test_a_rekey_under_load_loses_nothing(start_rig: StartRig, by: str) -> None:
    """1,000 numbered packets a second each way, counted on the wire too: we lose, repeat and show none."""
    with start_rig(setup(SUITES["gcm"])) as rig:
        bring_up(rig, "ours")
        rig.ping(count=1)
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
