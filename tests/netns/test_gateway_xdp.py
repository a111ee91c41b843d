"""Two gateways whose packets XDP brings to the native engine on both sides, past the kernel's stack.

A kernel counts what it received as IP (/proc/net/snmp): what comes by AF_XDP and leaves by AF_XDP or as live
frames is not among it.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.bench.flows import two_way_udp
from gateway.bench.process import GatewayProcess
from gateway.bench.topology import Namespace, Site, SiteToSite, site_to_site
from gateway.host.privileges import Capability
from tests.engine.conftest import make
from tests.netns.site_gateways import LAN, Wish, paris_and_tokyo, route_in_clear, wait_for_ping, wait_until

pytestmark = pytest.mark.netns

ESPD = Path(__file__).parents[2] / "hw" / "espd"
_LAN6 = (
    "{name: lan6, local_ts: [$local_net_v6], remote_ts: [$remote_net_v6], "
    "esp: {proposals: [aes256gcm16-x25519]}, start: $start}"
)
_WISH = Wish(children=(LAN, _LAN6))
SIDES = {
    "two-sides": ("--engine-interface", "outside", "--engine-inner-interface", "inside"),
    "one-arm": tuple(
        word
        for option in ("--engine-interface", "--engine-inner-interface")
        for name in ("outside", "inside")
        for word in (option, name)
    ),
}
_PACKETS_PER_S = 1000
_A_MOMENT_S = 1.0

Wire = Callable[[SiteToSite], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Running:
    """Two gateways with a tunnel between them, in which the engine has both interfaces."""

    sites: SiteToSite
    paris: GatewayProcess
    tokyo: GatewayProcess

    def placement(self) -> str:
        """Return how the packets of Paris come and go."""
        (reason,) = {
            sa["placement_reason"] for sa in json.loads(self.paris.ctl("list", "sas", "--json").stdout)["sas"]
        }
        return str(reason)


def make_fit_for_xdp(site: Site) -> None:
    """Have links be as XDP needs them."""
    # A veth takes redirected frames only while it polls; and a NIC would finish the host's checksums.
    for device in ("outside", "inside"):
        site.gateway.run("ethtool", "-K", device, "gro", "on")
    site.host.run("ethtool", "-K", "lan", "gro", "on", "tx", "off")


@contextmanager
def running(
    directory: Path, *options: str, prefix: str = "gx", wire: Wire = nullcontext
) -> Iterator[Running]:
    """Run two gateways while the context lasts, with something of the wire's own between them."""
    with site_to_site(f"{prefix}{os.getpid()}") as sites, wire(sites):
        route_in_clear(sites)
        for site in (sites.a, sites.b):
            make_fit_for_xdp(site)
        words = ("--datapath", "engine", "--teardown", *options)
        with paris_and_tokyo(sites, directory, _WISH, words) as (paris, tokyo):
            for child in ("lan", "lan6"):
                paris.ctl("up", f"paris-tokyo/{child}")
            for here, there in ((sites.a, sites.b), (sites.b, sites.a)):
                wait_for_ping(here.host, there.host_address)
                wait_for_ping(here.host, there.host_address_v6)
            yield Running(sites, paris, tokyo)


@pytest.fixture(scope="module", params=SIDES)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPSECGW_ESPD", str(make("espd", source=ESPD) / "espd"))
        with running(tmp_path_factory.mktemp("pair"), *SIDES[request.param]) as made:
            # Until both know the neighbours behind each other, the kernel helps to find them.
            wait_until(lambda: settled(made))
            yield made


def received_by_kernel(namespace: Namespace) -> int:
    """Return how many IP packets the kernel of a namespace has received, of both versions."""
    four = namespace.run("cat", "/proc/net/snmp").stdout.splitlines()
    names, values = (line.split() for line in four if line.startswith("Ip:"))
    six = dict(line.split() for line in namespace.run("cat", "/proc/net/snmp6").stdout.splitlines())
    return int(values[names.index("InReceives")]) + int(six["Ip6InReceives"])


def test_what_is_protected_never_meets_the_kernel(run: Running) -> None:
    sites = run.sites
    both = (sites.a.gateway, sites.b.gateway)
    for ends in (
        (sites.a.host_address, sites.b.host_address),
        (sites.a.host_address_v6, sites.b.host_address_v6),
    ):
        before = [received_by_kernel(gateway) for gateway in both]
        with two_way_udp(sites.a.host, ends[0], sites.b.host, ends[1], rate_pps=_PACKETS_PER_S) as flow:
            time.sleep(_A_MOMENT_S)
        met = [received_by_kernel(gateway) - was for gateway, was in zip(both, before, strict=True)]

        assert (flow.missing, flow.duplicates) == (0, 0), run.paris.log_tail()
        assert flow.sent > _PACKETS_PER_S / 2
        assert max(met) < flow.sent / 20, f"of {flow.sent} packets the kernels saw {met}"
    said = run.placement()
    assert "inside in by AF_XDP" in said
    assert "outside in by AF_XDP" in said


@pytest.mark.parametrize("run", ["two-sides"], indirect=True)
def test_a_killed_agent_leaves_programs_and_sockets_to_the_next_one_without_a_lost_packet(
    run: Running,
) -> None:
    both = (run.sites.a.gateway, run.sites.b.gateway)
    ends = (run.sites.a.host_address, run.sites.b.host_address)
    before = [received_by_kernel(gateway) for gateway in both]
    with two_way_udp(run.sites.a.host, ends[0], run.sites.b.host, ends[1], rate_pps=_PACKETS_PER_S) as flow:
        time.sleep(_A_MOMENT_S)
        run.paris.kill("agent")
        wait_until(lambda: "sas_adopted" in run.paris.log())
        time.sleep(_A_MOMENT_S)
    met = [received_by_kernel(gateway) - was for gateway, was in zip(both, before, strict=True)]

    assert (flow.missing, flow.duplicates) == (0, 0), run.paris.log_tail()
    assert flow.sent > _PACKETS_PER_S
    assert max(met) < flow.sent / 20, f"of {flow.sent} packets the kernels saw {met}"
    assert "programs_not_pinned" not in run.paris.log()


def settled(run: Running) -> bool:
    """Say whether a ping from host to host no longer comes to the kernels between them."""
    both = (run.sites.a.gateway, run.sites.b.gateway)
    before = [received_by_kernel(gateway) for gateway in both]
    wait_for_ping(run.sites.a.host, run.sites.b.host_address)
    wait_for_ping(run.sites.a.host, run.sites.b.host_address_v6)
    return [received_by_kernel(gateway) for gateway in both] == before


@pytest.mark.parametrize("run", ["two-sides"], indirect=True)
def test_the_agent_may_load_programs_and_espd_only_use_them(run: Running) -> None:
    agent = run.paris.pid_of("agent")
    kept = {Capability.CAP_NET_ADMIN, Capability.CAP_NET_RAW, Capability.CAP_IPC_LOCK, Capability.CAP_BPF}

    (espd,) = (
        pid
        for pid in _processes(run.sites.a.gateway)
        if Path(f"/proc/{pid}/comm").read_text().strip() == "espd"
    )

    held = kept | {Capability.CAP_NET_BIND_SERVICE, Capability.CAP_PERFMON}
    # Who started it could not let it change the bounding set, and it runs nothing.
    assert _capabilities(espd) == {"CapPrm": kept, "CapEff": kept, "CapBnd": held}
    assert _capabilities(agent) == {"CapPrm": held, "CapEff": held, "CapBnd": held}


def _processes(namespace: Namespace) -> list[int]:
    told = subprocess.run(["ip", "netns", "pids", namespace.name], check=True, capture_output=True, text=True)
    return [int(pid) for pid in told.stdout.split()]


def _capabilities(pid: int) -> dict[str, set[Capability]]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    masks = {name: int(value, 16) for name, value in (line.split(":") for line in lines if line[:3] == "Cap")}
    return {
        name: {capability for capability in Capability if masks[name] >> capability & 1}
        for name in ("CapPrm", "CapEff", "CapBnd")
    }
