"""`--datapath auto`, the default: the native engine where it can run, and what is said where it cannot."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.bench.process import GatewayProcess, is_running
from gateway.bench.topology import SiteToSite, site_to_site
from gateway.host.bpf.pins import is_bpffs
from tests.engine.conftest import BUILD, make
from tests.netns.site_gateways import (
    AgentProcess,
    can_ping,
    gateways,
    route_in_clear,
    running,
    wait_for_ping,
)

pytestmark = pytest.mark.netns

REPOSITORY = Path(__file__).parents[2]
ESPD = REPOSITORY / "hw" / "espd"
_AGENT = {"net_bind_service": 10, "net_admin": 12, "net_raw": 13}
_ESPD_TOO = {"ipc_lock": 14, "bpf": 39}


@pytest.fixture(scope="module")
def espd() -> str:
    return str(make("espd", source=ESPD) / "espd")


@contextmanager
def carrying(
    directory: Path, paris_has: Mapping[str, str], tokyo_has: Mapping[str, str], *options: str
) -> Iterator[tuple[SiteToSite, GatewayProcess, GatewayProcess]]:
    """Run two gateways with a tunnel between them, each with its environment; `options` are of Paris."""
    with site_to_site(f"ga{os.getpid()}") as sites:
        route_in_clear(sites)
        paris, tokyo = gateways(sites, directory)
        paris.environment, tokyo.environment = paris_has, tokyo_has
        paris.options = options
        with running(paris, tokyo):
            wait_for_ping(sites.a.host, sites.b.host_address)
            yield sites, paris, tokyo


def carriers(gateway: GatewayProcess) -> tuple[set[str], str]:
    """Return who carries the SAs of a gateway, and why."""
    sas = gateway.json("list", "sas")["sas"]
    return {sa["placement"] for sa in sas}, "\n".join(sa["placement_reason"] for sa in sas)


def capabilities_of(process: int) -> int:
    found = re.search(r"^CapPrm:\s*(\w+)", Path(f"/proc/{process}/status").read_text(), re.M)
    assert found is not None
    return int(found[1], 16)


def mask(*kinds: dict[str, int]) -> int:
    return sum(1 << number for kind in kinds for number in kind.values())


def espd_of(gateway: GatewayProcess) -> int | None:
    """Return the espd that works in the run directory of a gateway."""
    for folder in Path("/proc").iterdir():
        try:
            if (folder / "comm").read_text() == "espd\n" and (folder / "cwd").samefile(
                gateway.directory / "run"
            ):
                return int(folder.name)
        except OSError:
            continue
    return None


def test_the_engine_carries_where_it_can_and_elsewhere_others_do_and_say_what_is_missing(
    espd: str, tmp_path: Path
) -> None:
    absent = {"IPSECGW_ESPD": "/nonexistent/espd"}
    with carrying(tmp_path, {"IPSECGW_ESPD": espd}, absent) as (sites, paris, tokyo):
        placed, why = carriers(paris)
        process = espd_of(paris)
        assert placed == {"engine"}
        assert "raw sockets" in why
        assert process is not None
        assert capabilities_of(paris.pid_of("agent")) == mask(_AGENT, _ESPD_TOO)
        assert capabilities_of(process) & ~mask(_AGENT, _ESPD_TOO) == 0

        placed, why = carriers(tokyo)
        assert not placed & {"engine"}
        assert "engine: NO_BACKEND: engine cannot run here: there is no program /nonexistent/espd" in why
        assert "`make engine` builds it" in why
        assert capabilities_of(tokyo.pid_of("agent")) == mask(_AGENT)

        paris.stop()

        assert not is_running(process)
        assert not is_bpffs(paris.directory / "run" / "bpf")
        assert not can_ping(sites.a.host, sites.b.host_address), "the protection stays"


def without_clang(folder: Path) -> dict[str, str]:
    """Return an environment without a compiler, for a checkout in which nothing was compiled before."""
    checkout, programs = folder / "checkout", folder / "bin"
    (checkout / "ebpf").mkdir(parents=True)
    programs.mkdir()
    for shared in ("gateway", "hw"):
        (checkout / shared).symlink_to(REPOSITORY / shared)
    for source in (REPOSITORY / "ebpf").iterdir():
        if source.name != "build":
            (checkout / "ebpf" / source.name).symlink_to(source)
    for place in os.environ["PATH"].split(":"):
        for program in Path(place).glob("*"):
            if "clang" not in program.name and not (programs / program.name).is_symlink():
                (programs / program.name).symlink_to(program)
    return {"PATH": str(programs), "PYTHONPATH": str(checkout)}


def test_without_clang_the_kernel_has_the_interface_and_without_ipsec_mb_openssl_ciphers(
    espd: str, tmp_path: Path
) -> None:
    no_clang = {"IPSECGW_ESPD": espd, **without_clang(tmp_path)}
    plain = make("espd", build=BUILD / "no-ipsecmb", source=ESPD, IPSECMB="no") / "espd"

    with carrying(tmp_path, no_clang, {"IPSECGW_ESPD": str(plain)}, "--engine-interface", "outside") as (
        _,
        paris,
        tokyo,
    ):
        placed, why = carriers(paris)
        assert placed == {"engine"}
        assert "raw sockets" in why
        assert "clang cannot be found: install clang" in paris.log()

        assert carriers(tokyo)[0] == {"engine"}
        assert '"crypto": "OpenSSL' in tokyo.log()


def test_without_a_capability_of_the_engine_others_carry_and_say_so(espd: str, tmp_path: Path) -> None:
    with site_to_site(f"gb{os.getpid()}") as sites, pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPSECGW_ESPD", espd)
        agent = AgentProcess(sites.a.gateway, tmp_path / "agent", "setpriv", "--bounding-set=-ipc_lock")
        with agent:
            (absent,) = (line for line in agent.log().splitlines() if '"backend": "engine"' in line)

        assert "backend_absent" in absent
        assert "CAP_IPC_LOCK" in absent
