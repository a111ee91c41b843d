"""20,000 packets a second through the native engine, while what is around it is killed, replaced and rekeyed.

Both gateways have their interfaces for espd alone (XDP, AF_XDP, live frames). What arrived and found no room
in the socket of a generator was not lost on the way, and is told apart. Clear packets are what a gateway
drops as such; where espd itself is killed, the wire is captured too, at a bridge between the gateways.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from platform import machine
from typing import Any

import pytest

from gateway.bench.capture import capturing
from gateway.datapath.engine.xdp_steering import PINS_NAME
from gateway.host.bpf.pins import adopt_link
from gateway.host.bpf.programs import LinkInfo
from tests.engine.conftest import BUILD, make
from tests.netns.losses import accounted_udp
from tests.netns.site_gateways import spis, wait_until
from tests.netns.test_gateway_xdp import ESPD, SIDES, Running, running, settled
from tests.netns.wire import bridged_wire, check_wire, wire_of

pytestmark = [pytest.mark.netns, pytest.mark.slow]

EBPF = Path(__file__).parents[2] / "ebpf"
OBJECTS = [source.with_suffix(".o").name for source in sorted(EBPF.glob("*.bpf.c"))]
_RATE_PPS = 10_000
"""Each way."""
_A_MOMENT_S = 1.0
_LONG_S = 60.0
"""Nothing here may depend on how fast a machine is."""
_STEERED = ("outside", "inside")
_OTHER_INSTRUCTIONS = f"-target bpf -mcpu=v2 -O2 -g -Iinclude -isystem /usr/include/{machine()}-linux-gnu"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the espd that both gateways start: another build may take its place."""
    program = tmp_path_factory.mktemp("program") / "espd"
    program.symlink_to(make("espd", source=ESPD) / "espd")
    return program


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of XDP programs of both gateways: another build may take its place."""
    folder = tmp_path_factory.mktemp("objects") / "ebpf"
    folder.symlink_to(make(*OBJECTS, build=BUILD / "ebpf", source=EBPF))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, program: Path, objects: Path) -> Iterator[Running]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPSECGW_ESPD", str(program))
        patch.setenv("IPSECGW_EBPF", str(objects))
        with running(tmp_path_factory.mktemp("hitless"), *SIDES["two-sides"]) as run:
            wait_until(lambda: settled(run))
            yield run


def kill_agent(run: Running) -> None:
    lives = run.paris.log().count("sas_adopted")
    run.paris.kill("agent")
    wait_until(lambda: run.paris.log().count("sas_adopted") > lives, _LONG_S)


def kill_controller(run: Running) -> None:
    before = spis(run.paris)
    run.paris.kill("controller")
    wait_until(lambda: len(now := spis(run.paris)) == len(before) and not now & before, _LONG_S)


def rekey(run: Running) -> None:
    for _ in range(3):
        run.paris.ctl("rekey", "paris-tokyo/lan")


def assert_hitless(run: Running, event: Callable[[Running], None]) -> None:
    """Check that what happens costs no packet, doubles none and lets none pass in clear."""
    with accounted_udp(run.sites, run.paris, run.tokyo, rate_pps=_RATE_PPS) as account:
        time.sleep(_A_MOMENT_S)
        event(run)
        time.sleep(_A_MOMENT_S)

    flow = account.flow
    assert (flow.lost, flow.duplicates) == (0, 0), f"{account}\n{run.paris.log_tail()}"
    assert flow.sent > _RATE_PPS, account
    assert account.clear == 0, account


@pytest.mark.parametrize("event", [kill_agent, rekey, kill_controller], ids=lambda event: event.__name__)
def test_no_packet_is_lost_or_doubled_or_comes_in_clear(
    run: Running, event: Callable[[Running], None]
) -> None:
    assert_hitless(run, event)


def test_an_espd_of_another_build_takes_over_without_a_lost_packet(run: Running, program: Path) -> None:
    newer = make("espd", build=BUILD / "upgrade", source=ESPD, CFLAGS="-O1 -g") / "espd"

    def upgrade(run: Running) -> None:
        replace(program, newer)
        kill_agent(run)

    assert_hitless(run, upgrade)

    assert "espd_upgraded" in run.paris.log()


def test_programs_of_another_build_take_the_place_of_the_old_ones_without_a_lost_packet(
    run: Running, objects: Path
) -> None:
    """The agent has the kernel exchange the program of each link (BPF_LINK_UPDATE)."""
    newer = make(*OBJECTS, build=BUILD / "ebpf-upgrade", source=EBPF, CFLAGS=_OTHER_INSTRUCTIONS)
    assert all((newer / name).read_bytes() != (objects / name).read_bytes() for name in OBJECTS)
    before = links_of(run)

    def upgrade(run: Running) -> None:
        replace(objects, newer)
        kill_agent(run)

    assert_hitless(run, upgrade)

    after = links_of(run)
    assert {name: link.number for name, link in after.items()} == {
        name: link.number for name, link in before.items()
    }
    assert not {link.program for link in after.values()} & {link.program for link in before.values()}
    assert attached_to(run) == {name: link.program for name, link in after.items()}
    assert run.paris.log().count("xdp_program_replaced") >= len(_STEERED)


def replace(link: Path, target: Path) -> None:
    """Have a symbolic link lead elsewhere."""
    link.unlink()
    link.symlink_to(target)


def links_of(run: Running) -> dict[str, LinkInfo]:
    """Return the pinned links of Paris, by interface, as the kernel describes them."""
    found = {}
    for name in _STEERED:
        link = adopt_link(run.paris.directory / "run" / PINS_NAME / f"on-{name}" / "link")
        assert link is not None
        with link:
            found[name] = link.inspect()
    return found


def attached_to(run: Running) -> dict[str, int]:
    """Return which program runs on which interface of Paris, as rtnetlink tells it."""
    links = json.loads(run.sites.a.gateway.run("ip", "-j", "link").stdout)
    return {link["ifname"]: link["xdp"]["prog"]["id"] for link in links if link["ifname"] in _STEERED}


def told(run: Running, event: str) -> list[dict[str, Any]]:
    """Return what Paris has logged of an event."""
    return [json.loads(line) for line in run.paris.log().splitlines() if f'"{event}"' in line]


def test_a_killed_espd_comes_back_with_new_child_sas_and_says_what_that_cost(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPSECGW_ESPD", str(make("espd", source=ESPD) / "espd"))
        with running(tmp_path, *SIDES["two-sides"], prefix="gk", wire=bridged_wire) as run:
            wait_until(lambda: settled(run))
            before, espd = spis(run.paris), told(run, "espd_ready")[-1]["process"]
            with (
                capturing(wire_of(run.sites), "to-a", tmp_path / "wire.pcap") as capture,
                accounted_udp(run.sites, run.paris, run.tokyo, rate_pps=_RATE_PPS) as account,
            ):
                time.sleep(_A_MOMENT_S)
                os.kill(espd, signal.SIGKILL)
                wait_until(lambda: "traffic_resumed" in run.paris.log(), _LONG_S)
                time.sleep(_A_MOMENT_S)
            after = spis(run.paris)
            (cost,) = told(run, "traffic_resumed")

    flow = account.flow
    record_property("traffic_stood_s", round(flow.longest_silence_s, 3))
    record_property("traffic_stood_as_told_s", cost["seconds"])
    record_property("lost", flow.lost)
    record_property("lost_as_told", cost["dropped"])
    print(f"nothing came for {flow.longest_silence_s:.3f} s; {account}; told: {cost}")
    assert len(after) == len(before)
    assert not after & before
    assert cost["dropped"] > 0
    assert flow.lost > 0, "an espd that is dead carries nothing"
    assert flow.duplicates == 0, account
    # The last packets arrived.
    assert flow.b.highest >= flow.a.sent - flow.b.overrun, account
    assert flow.a.highest >= flow.b.sent - flow.a.overrun, account
    assert account.clear == 0, account
    check_wire(capture, least_esp=_RATE_PPS)
