"""20,000 packets a second through the native engine, while what is around it is killed, upgraded and rekeyed.

Both gateways have their interfaces for espd alone (XDP, AF_XDP, live frames). The generators count what their
own sockets had no room for as missing too, so that zero means zero. Clear packets are what the XDP program of
the other gateway drops as such.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.bench.flows import two_way_udp
from tests.engine.conftest import BUILD, make
from tests.netns.site_gateways import spis, wait_until
from tests.netns.test_gateway_xdp import ESPD, SIDES, Running, running, settled

pytestmark = [pytest.mark.netns, pytest.mark.slow]

_RATE_PPS = 10_000
"""Each way."""
_A_MOMENT_S = 1.0


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the espd that both gateways start: another build may take its place."""
    program = tmp_path_factory.mktemp("program") / "espd"
    program.symlink_to(make("espd", source=ESPD) / "espd")
    return program


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, program: Path) -> Iterator[Running]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPSECGW_ESPD", str(program))
        with running(tmp_path_factory.mktemp("hitless"), *SIDES["two-sides"]) as run:
            wait_until(lambda: settled(run))
            yield run


def kill_agent(run: Running, program: Path) -> None:
    lives = run.paris.log().count("sas_adopted")
    run.paris.kill("agent")
    wait_until(lambda: run.paris.log().count("sas_adopted") > lives, 60.0)


def kill_controller(run: Running, program: Path) -> None:
    before = spis(run.paris)
    run.paris.kill("controller")
    wait_until(lambda: len(now := spis(run.paris)) == len(before) and not now & before, 60.0)


def upgrade_espd(run: Running, program: Path) -> None:
    newer = make("espd", build=BUILD / "upgrade", source=ESPD, CFLAGS="-O1 -g") / "espd"
    program.unlink()
    program.symlink_to(newer)
    kill_agent(run, program)
    assert "espd_upgraded" in run.paris.log()


def rekey(run: Running, program: Path) -> None:
    for _ in range(3):
        run.paris.ctl("rekey", "paris-tokyo/lan")


@pytest.mark.parametrize(
    "event", [kill_agent, upgrade_espd, rekey, kill_controller], ids=lambda event: event.__name__
)
def test_no_packet_is_lost_or_doubled_or_comes_in_clear(
    run: Running, program: Path, event: Callable[[Running, Path], None]
) -> None:
    a, b = run.sites.a, run.sites.b

    with two_way_udp(a.host, a.host_address, b.host, b.host_address, rate_pps=_RATE_PPS) as flow:
        time.sleep(_A_MOMENT_S)
        event(run, program)
        time.sleep(_A_MOMENT_S)

    assert (flow.missing, flow.duplicates) == (0, 0), run.paris.log_tail()
    assert flow.sent > 2 * _RATE_PPS, "it was steady"
    for gateway in (run.paris, run.tokyo):
        assert "clear_inbound" not in str(gateway.json("status")["datapath_drops"])
