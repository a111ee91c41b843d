"""The site-to-site example that everyone copies: imported on each side, it comes up by itself."""

import os
import sys
from pathlib import Path

import pytest

from gateway.bench.capture import capturing, count_packets
from gateway.bench.topology import Namespace, site_to_site
from tests.netns.command import Gateway
from tests.netns.site_gateways import listed, running, settle, wait_for_ping
from tests.unit.config.foreign.test_ipsec_conf import SECRETS, SERVER_A_TO_SERVER_B

pytestmark = pytest.mark.netns

SERVER_A, SERVER_B = "192.168.1.10", "192.168.1.20"
#: What is between the two and neither IKE nor ESP.
IN_CLEAR = (
    f"ip and host {SERVER_A} and host {SERVER_B} and not (ip proto 50 or udp port 500 or udp port 4500)"
)


def import_in(namespace: Namespace, folder: Path) -> str:
    """Return what `ipsecgw import` makes of a directory on the machine that a namespace is."""
    done = namespace.run(sys.executable, "-m", "gateway.cli.main", "import", str(folder))
    assert "left is taken as local" not in done.stderr
    return done.stdout


@pytest.mark.parametrize("mode", ["tunnel", "transport"])
def test_it_comes_up_between_two_of_ours_started_at_once(tmp_path: Path, mode: str) -> None:
    source = tmp_path / "etc"
    source.mkdir()
    (source / "ipsec.conf").write_text(
        SERVER_A_TO_SERVER_B + ("  type=transport\n" if mode == "transport" else "")
    )
    (source / "ipsec.secrets").write_text(SECRETS)
    with site_to_site(f"im{os.getpid()}") as sites:
        servers = ((sites.a, SERVER_A, "a"), (sites.b, SERVER_B, "b"))
        for site, address, _ in servers:
            site.gateway.run("ip", "address", "add", f"{address}/24", "dev", site.outside_device)
        gateways = [
            Gateway(site.gateway, tmp_path / name, import_in(site.gateway, source))
            for site, _, name in servers
        ]
        wire = tmp_path / "wire.pcap"
        with capturing(sites.b.gateway, sites.b.outside_device, wire), running(*gateways):
            settle(*gateways)
            wait_for_ping(sites.a.gateway, SERVER_B)
            wait_for_ping(sites.b.gateway, SERVER_A)
            assert [sa["mode"] for sa in listed(gateways[0], "child-sas")] == [mode]
            assert [sa["proposal"] for sa in listed(gateways[0], "ike-sas")] == [
                "aes256gcm16-prfsha512-modp2048"
            ]
    assert count_packets(wire, IN_CLEAR) == 0
    assert count_packets(wire, f"ip proto 50 and host {SERVER_A}") >= 4
