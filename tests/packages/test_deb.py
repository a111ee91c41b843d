"""The Debian package on a clean Debian: installed, brought to a tunnel by the quick start, removed."""

import contextlib
import os
import re
from pathlib import Path

import pytest

from gateway.bench.topology import site_to_site
from tests.netns.site_gateways import can_ping, gateways, wait_until
from tests.packages.clean_debian import REPOSITORY, build, clean_debian

pytestmark = [pytest.mark.netns, pytest.mark.slow]

PAGE = REPOSITORY / "docs" / "index.md"
SERVICES = "systemctl enable --now ipsecgw-agent ipsecgw"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("deb"))


def quick_start() -> tuple[str, str, list[str], list[str]]:
    """Return the key, the configuration, and the commands before and after the services are started."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (configuration,) = (text for kind, text in blocks if kind == "yaml")
    _install, key, start, look = (text for kind, text in blocks if not kind)
    # Only comments have two spaces before them.
    lines = [re.split(r"  +#", line)[0].strip() for line in (start + "\0" + look).splitlines()]
    commands = [line.lstrip("\0") for line in lines]
    at = next(i for i, line in enumerate(commands) if line.startswith(SERVICES))
    return key, configuration, commands[:at], commands[at + 1 :]


def test_installed_on_a_clean_debian_it_brings_up_a_tunnel_and_can_be_removed(
    package: Path, tmp_path: Path
) -> None:
    key, configuration, before_start, after_start = quick_start()
    # The page's machines are those of the topology.
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
        paris.run("sh", "-c", key)
        (etc / "gateway.yaml").write_text(configuration)
        assert before_start
        for command in before_start:
            paris.run("sh", "-c", command)
        _, tokyo = gateways(sites, tmp_path)
        (tmp_path / "tokyo" / "test.psk").write_bytes((etc / "paris-tokyo.psk").read_bytes())
        options = ("--config", "/etc/ipsecgw/gateway.yaml")
        with paris.running("ipsecgw", "agent"), contextlib.ExitStack() as stack:
            # The units have this order; here is no systemd.
            wait_until((paris.root / "run" / "ipsecgw" / "datapath.sock").exists, what=paris.log)
            controller = stack.enter_context(paris.running("ipsecgw", "controller", *options))
            stack.enter_context(tokyo)
            wait_until((paris.root / "run" / "ipsecgw" / "control.sock").exists, what=paris.log)
            said = {command: paris.run("sh", "-c", command).stdout for command in after_start}
            assert said["ipsecgw up paris-tokyo"] == "paris-tokyo is up\n"
            assert "paris-tokyo/lan" in said["ipsecgw list child-sas"]
            assert "paris-tokyo is up" in said["ipsecgw explain paris-tokyo"]
            wait_until(lambda: can_ping(sites.a.host, sites.b.host_address), what=paris.log)
            assert re.search(r"^paris-tokyo +up ", said["ipsecgw status"], re.MULTILINE)
            user_ids = Path(f"/proc/{controller.pid}/status").read_text().partition("Uid:")[2].split()[:4]
            assert set(user_ids) == {paris.run("id", "-u", "ipsecgw").stdout.strip()}

        # What keeps the state is at hand, and a state does not outlive the package.
        assert "StateDirectory=ipsecgw" in paris.run("cat", "/usr/share/ipsecgw/keep-state.conf").stdout
        paris.run("mkdir", "-m", "700", "/var/lib/ipsecgw")

        paris.run("dpkg", "--purge", "ipsecgw")

        assert not (paris.root / "var" / "lib" / "ipsecgw").exists()
        left = set(paris.run("find", "/etc", "/usr", "/lib/", "-xdev").stdout.splitlines()) - before
        # The account stays, as Debian's policy has it, with the copies its tools make; so do our own files.
        ours = {"/etc/ipsecgw", "/etc/ipsecgw/paris-tokyo.psk"}
        assert {name for name in left if not name.rstrip("-").endswith(("passwd", "shadow", "group"))} <= ours


def test_the_same_source_gives_the_same_package(package: Path, tmp_path: Path) -> None:
    assert build(tmp_path).read_bytes() == package.read_bytes()
