"""The Debian package on a clean Debian: installed, brought to a tunnel, removed."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.bench.topology import Namespace, site_to_site
from tests.netns.site_gateways import PSK, can_ping, config, gateways, wait_until

pytestmark = [pytest.mark.netns, pytest.mark.slow]

REPOSITORY = Path(__file__).parents[2]
CACHE = Path(os.environ.get("IPSECGW_CACHE", Path.home() / ".cache" / "ipsecgw"))


def build(directory: Path) -> Path:
    """Return the package that `make deb` builds."""
    done = subprocess.run(
        [REPOSITORY / "packaging" / "build-deb", directory],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env={**os.environ, "SOURCE_DATE_EPOCH": "1750000000"},
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.split()[-1])


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("deb"))


@dataclass(frozen=True, slots=True)
class CleanDebian:
    """A Debian that has never seen us, below a directory, in the network of a namespace."""

    root: Path
    network: Namespace

    def command(self, *argv: str) -> list[str]:
        """Return a command line that runs `argv` there; its mounts end with it."""
        mounts = " && ".join(f"mount --rbind /{name} {self.root}/{name}" for name in ("proc", "sys", "dev"))
        script = f'{mounts} && exec chroot {self.root} env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"'
        private = ("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh")
        return self.network.command(*private, *argv)

    def run(self, *argv: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(self.command(*argv), capture_output=True, text=True, check=False, timeout=120)
        assert not check or done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
        return done

    @contextmanager
    def running(self, *argv: str) -> Iterator["subprocess.Popen[bytes]"]:
        with (self.root / "log").open("a") as log:
            process = subprocess.Popen(self.command(*argv), stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)

    def log(self) -> str:
        return (self.root / "log").read_text()[-4000:]


def clean_debian(directory: Path, network: Namespace) -> CleanDebian:
    done = subprocess.run(
        [REPOSITORY / ".ci" / "clean-root", CACHE / "roots"],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    subprocess.run(["cp", "-a", done.stdout.strip(), directory], check=True)
    return CleanDebian(directory, network)


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
        etc = paris.root / "etc" / "ipsecgw"
        (etc / "test.psk").write_text(f"{PSK}\n")
        (etc / "test.psk").chmod(0o600)
        (etc / "gateway.yaml").write_text(config(sites, of_a=True))
        _, tokyo = gateways(sites, tmp_path)
        options = ("--config", "/etc/ipsecgw/gateway.yaml")
        with (
            paris.running("ipsecgw", "agent"),
            paris.running("ipsecgw", "controller", *options) as controller,
            tokyo,
        ):
            wait_until(lambda: can_ping(sites.a.host, sites.b.host_address), what=paris.log)
            assert "paris-tokyo" in paris.run("ipsecgw", "status").stdout
            user_ids = Path(f"/proc/{controller.pid}/status").read_text().partition("Uid:")[2].split()[:4]
            assert set(user_ids) == {paris.run("id", "-u", "ipsecgw").stdout.strip()}

        paris.run("dpkg", "--purge", "ipsecgw")

        left = set(paris.run("find", "/etc", "/usr", "/lib/", "-xdev").stdout.splitlines()) - before
        # The account stays, as Debian's policy has it, with the copies its tools make; so do our own files.
        ours = {"/etc/ipsecgw", "/etc/ipsecgw/test.psk"}
        assert {name for name in left if not name.rstrip("-").endswith(("passwd", "shadow", "group"))} <= ours


def test_the_same_source_gives_the_same_package(package: Path, tmp_path: Path) -> None:
    assert build(tmp_path).read_bytes() == package.read_bytes()
