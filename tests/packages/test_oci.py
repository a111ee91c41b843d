"""The recipe of the OCI image, followed on a clean Debian: what it starts carries traffic.

No container engine is needed: the test takes the steps of the recipe itself, in a root of its own.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.bench.topology import site_to_site
from tests.netns.site_gateways import PSK, can_ping, config, gateways, wait_until
from tests.packages.clean_debian import REPOSITORY, CleanDebian, build, clean_debian

pytestmark = [pytest.mark.netns, pytest.mark.slow]

RECIPE = REPOSITORY / "packaging" / "oci" / "Containerfile"
OPERATIONS = (REPOSITORY / "docs" / "operations.md").read_text()


def steps() -> list[tuple[str, str]]:
    """Return the instructions of the recipe and what stands behind them, which is one line each."""
    lines = [line for line in RECIPE.read_text().splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def allowed() -> str:
    """Return the capabilities that the documentation gives a container, as setpriv takes them."""
    names = re.findall(r"--cap-add=(\w+)", OPERATIONS)
    assert names
    return ",".join(f"+{name.lower()}" for name in names)


def follow(image: CleanDebian, context: Path) -> dict[str, list[str]]:
    """Build: take the steps; return what the image would start."""
    started = {}
    for word, rest in steps():
        if word == "COPY":
            source, target = rest.split()
            for path in context.glob(source):
                shutil.copy(path, image.root / target.lstrip("/"))
        elif word == "RUN":
            # Its packages come by the network of this machine, not of the namespace.
            script = f"mount -t tmpfs none {image.root}/run && exec chroot {image.root} sh -ec '{rest}'"
            done = subprocess.run(
                ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
                capture_output=True,
                text=True,
                check=False,
                timeout=300,
            )
            assert done.returncode == 0, done.stderr
        elif word in ("ENTRYPOINT", "CMD"):
            started[word] = json.loads(rest)
        else:
            assert word in ("ARG", "FROM", "VOLUME", "HEALTHCHECK", "STOPSIGNAL"), word
    return started


def test_a_container_carries_traffic_with_no_right_but_those_the_documentation_names(tmp_path: Path) -> None:
    context = tmp_path / "dist"
    build(context)
    with site_to_site(f"oc{os.getpid()}") as sites:
        image = clean_debian(tmp_path / "root", sites.a.gateway)
        use_our_packages(image)
        started = follow(image, context)
        etc = image.root / "etc" / "ipsecgw"
        (etc / "test.psk").write_text(f"{PSK}\n")
        (etc / "test.psk").chmod(0o600)
        (etc / "gateway.yaml").write_text(config(sites, of_a=True))
        _, tokyo = gateways(sites, tmp_path)
        confined = ("setpriv", f"--bounding-set=-all,{allowed()}", "--no-new-privs", "--")
        with image.running(*confined, *started["ENTRYPOINT"], *started["CMD"]), tokyo:
            wait_until(lambda: can_ping(sites.a.host, sites.b.host_address), what=image.log)
            healthy = json.loads(dict(steps())["HEALTHCHECK"].partition("CMD ")[2])
            assert "paris-tokyo" in image.run(*healthy).stdout


def use_our_packages(image: CleanDebian) -> None:
    """Give the root this machine's sources of packages, and its way to them."""
    for name in ("etc/apt", "etc/resolv.conf", "etc/hosts"):
        source, target = Path("/") / name, image.root / name
        if source.is_dir():
            shutil.rmtree(target)
            shutil.copytree(source, target, symlinks=True)
        elif source.exists():
            target.unlink(missing_ok=True)
            shutil.copy(source, target)
