"""The Debian package on a clean Debian: installed, brought to a tunnel, removed."""

import contextlib
import os
from pathlib import Path

import pytest

from gateway.bench.topology import site_to_site
from tests.netns.site_gateways import PSK, can_ping, config, gateways, wait_until
from tests.packages.clean_debian import build, clean_debian

pytestmark = [pytest.mark.netns, pytest.mark.slow]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("deb"))


def test_installed_on_a_clean_debian_it_brings_up_a_tunnel_and_can_be_removed(
    package: Path, tmp_path: Path
) -> None:
    with site_to_site(f"db{os.getpid()}") as sites:
        paris = clean_debian(tmp_path / "root", sites.a.gateway)
        (paris.root / "package.deb").write_bytes(package.read_bytes())
        before = set(paris.run("find", "/etc", "/usr", "/lib/", "-xdev").stdout.splitlines())

        paris.run("dpkg", "-i", "/package.deb")

        assert paris.run("dpkg", "-V", "ipsecgw").stdout == ""
        assert "ipsecgw" in paris.run("id", "ipsecgw").stdout
        assert paris.run("ipsecgw", "validate", "/etc/ipsecgw/gateway.yaml").returncode == 0
        assert "/usr/lib/ipsecgw/engine/libgw_engine.so" in paris.run("ipsecgw", "hw").stdout
        etc = paris.root / "etc" / "ipsecgw"
        (etc / "test.psk").write_text(f"{PSK}\n")
        (etc / "test.psk").chmod(0o600)
        (etc / "gateway.yaml").write_text(config(sites, of_a=True))
        _, tokyo = gateways(sites, tmp_path)
        options = ("--config", "/etc/ipsecgw/gateway.yaml")
        with paris.running("ipsecgw", "agent"), contextlib.ExitStack() as stack:
            # The units have this order.
            wait_until((paris.root / "run" / "ipsecgw" / "datapath.sock").exists, what=paris.log)
            controller = stack.enter_context(paris.running("ipsecgw", "controller", *options))
            stack.enter_context(tokyo)
            wait_until(lambda: can_ping(sites.a.host, sites.b.host_address), what=paris.log)
            assert "paris-tokyo" in paris.run("ipsecgw", "status").stdout
            user_ids = Path(f"/proc/{controller.pid}/status").read_text().partition("Uid:")[2].split()[:4]
            assert set(user_ids) == {paris.run("id", "-u", "ipsecgw").stdout.strip()}

        # What keeps the state is at hand, and a state does not outlive the package.
        assert "StateDirectory=ipsecgw" in paris.run("cat", "/usr/share/ipsecgw/keep-state.conf").stdout
        paris.run("mkdir", "-m", "700", "/var/lib/ipsecgw")

        paris.run("dpkg", "--purge", "ipsecgw")

        assert not (paris.root / "var" / "lib" / "ipsecgw").exists()
        left = set(paris.run("find", "/etc", "/usr", "/lib/", "-xdev").stdout.splitlines()) - before
        # The account stays, as Debian's policy has it, with the copies its tools make; so do our own files.
        ours = {"/etc/ipsecgw", "/etc/ipsecgw/test.psk"}
        assert {name for name in left if not name.rstrip("-").endswith(("passwd", "shadow", "group"))} <= ours


def test_the_same_source_gives_the_same_package(package: Path, tmp_path: Path) -> None:
    assert build(tmp_path).read_bytes() == package.read_bytes()
