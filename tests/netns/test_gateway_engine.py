"""Two gateways whose packets the native engine carries: under traffic, over rekeys, and whoever is killed.

Both have routes by which the traffic could leave in clear; both ends of the link between them are captured.
"""

import json
import os
import signal
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.bench.flows import TwoWayFlow, two_way_udp
from gateway.bench.process import is_running
from gateway.bench.topology import SiteToSite, site_to_site
from tests.engine.conftest import BUILD, make
from tests.netns.command import Gateway
from tests.netns.site_gateways import (
    Wish,
    bring_up,
    paris_and_tokyo,
    route_in_clear,
    settle,
    spis,
    wait_for_ping,
    wait_until,
)
from tests.netns.wire import nothing_in_clear_and_no_iv_twice

pytestmark = pytest.mark.netns

ESPD = Path(__file__).parents[2] / "hw" / "espd"
_A_MOMENT_S = 0.7
_IMPATIENT = Wish(ike="retransmit_timeout: 0.5s, retransmit_tries: 3")


@dataclass(frozen=True, slots=True)
class Running:
    """Two gateways with a tunnel between them."""

    sites: SiteToSite
    paris: Gateway
    tokyo: Gateway

    def begin(self) -> None:
        """Forget what was logged before a test."""
        self.paris.begin_log()
        self.tokyo.begin_log()

    def traffic(self, while_it_flows: Callable[[], object]) -> TwoWayFlow:
        """Do something under numbered traffic, which flows a moment longer before and after."""
        with two_way_udp(
            self.sites.a.host, self.sites.a.host_address, self.sites.b.host, self.sites.b.host_address
        ) as flow:
            time.sleep(_A_MOMENT_S)
            while_it_flows()
            time.sleep(_A_MOMENT_S)
        return flow

    def espd(self) -> int:
        """Return the process that carries the packets of Paris."""
        (pid,) = (
            int(folder.name)
            for folder in Path("/proc").iterdir()
            if folder.name.isdigit() and self._is_espd(folder)
        )
        return pid

    def _is_espd(self, folder: Path) -> bool:
        """Say whether a process is espd, in the run directory of Paris."""
        try:
            is_espd = (folder / "comm").read_text() == "espd\n"
            return is_espd and (folder / "cwd").readlink() == self.paris.directory / "run"
        except OSError:
            return False


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the espd that both gateways start: another build may take its place."""
    program = tmp_path_factory.mktemp("program") / "espd"
    program.symlink_to(make("espd", source=ESPD) / "espd")
    return program


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory, program: Path) -> Iterator[Running]:
    """Two gateways that every test leaves with a tunnel between them."""
    with pytest.MonkeyPatch.context() as patch, site_to_site(f"ge{os.getpid()}") as sites:
        patch.setenv("IPSECGW_ESPD", str(program))
        route_in_clear(sites)
        options = ("--datapath", "engine", "--teardown")
        with paris_and_tokyo(sites, tmp_path_factory.mktemp("pair"), _IMPATIENT, options) as (paris, tokyo):
            yield Running(sites, paris, tokyo)


@pytest.fixture
def run(lasting: Running, tmp_path: Path) -> Iterator[Running]:
    lasting.begin()
    with nothing_in_clear_and_no_iv_twice(lasting.sites, tmp_path, least_esp=1000):
        bring_up(lasting.paris, "paris-tokyo")
        wait_for_ping(lasting.sites.a.host, lasting.sites.b.host_address)
        wait_for_ping(lasting.sites.b.host, lasting.sites.a.host_address)
        settle(lasting.paris, lasting.tokyo)
        yield lasting


def test_rekeys_lose_no_packet_and_the_engine_says_how_it_carries_them(run: Running) -> None:
    before = spis(run.paris)

    def rekey() -> None:
        for _ in range(3):
            run.paris.ctl("rekey", "paris-tokyo/lan")
            time.sleep(0.5)

    flow = run.traffic(rekey)

    assert (flow.missing, flow.duplicates) == (0, 0), run.paris.log_tail()
    assert not spis(run.paris) & before
    control = run.paris.directory / "run" / "espd.sock"
    assert stat.S_IMODE(control.stat().st_mode) == 0o600
    sas = json.loads(run.paris.ctl("list", "sas", "--json").stdout)["sas"]
    assert {sa["placement"] for sa in sas} == {"engine"}
    assert all("outside in by raw sockets" in sa["placement_reason"] for sa in sas)


def test_a_killed_agent_is_replaced_without_a_lost_packet_on_the_same_sas(run: Running) -> None:
    before, espd = spis(run.paris), run.espd()

    def kill() -> None:
        agent = run.paris.pid_of("agent")
        run.paris.kill("agent")
        wait_until(lambda: run.paris.pid_of("agent") != agent)
        wait_until(lambda: "sas_adopted" in run.paris.log())

    flow = run.traffic(kill)

    assert (flow.missing, flow.duplicates) == (0, 0), run.paris.log_tail()
    assert run.espd() == espd
    settle(run.paris, run.tokyo)
    assert spis(run.paris) == before


def test_an_espd_of_another_build_takes_over_without_a_lost_packet_when_the_agent_comes_back(
    run: Running, program: Path
) -> None:
    before, espd = spis(run.paris), run.espd()
    # What tells a build is its code: the same source with other optimizations is another one.
    newer = make("espd", build=BUILD / "upgrade", source=ESPD, CFLAGS="-O1 -g") / "espd"

    def upgrade() -> None:
        program.unlink()
        program.symlink_to(newer)
        run.paris.kill("agent")
        wait_until(lambda: "sas_adopted" in run.paris.log())

    flow = run.traffic(upgrade)

    assert "espd_upgraded" in run.paris.log()
    assert (flow.missing, flow.duplicates) == (0, 0), run.paris.log_tail()
    assert run.espd() != espd
    assert not is_running(espd)
    settle(run.paris, run.tokyo)
    assert spis(run.paris) == before


def test_a_killed_espd_is_replaced_and_its_keys_never_send_again(run: Running) -> None:
    before, espd = spis(run.paris), run.espd()

    def kill() -> None:
        os.kill(espd, signal.SIGKILL)
        wait_until(lambda: spis(run.paris) and not spis(run.paris) & before)
        wait_for_ping(run.sites.a.host, run.sites.b.host_address)

    flow = run.traffic(kill)

    assert flow.missing > 0, "an espd that is dead carries nothing"
    assert flow.b.highest == flow.a.sent
    assert flow.a.highest == flow.b.sent
    assert run.espd() != espd
    settle(run.paris, run.tokyo)
