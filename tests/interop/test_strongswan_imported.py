"""strongSwan running a file as it was, and our gateway running what `ipsecgw import` made of it."""

import os
from pathlib import Path

import pytest

from gateway.bench.capture import capturing, count_packets
from gateway.bench.process import GatewayProcess
from gateway.bench.topology import site_to_site
from tests.interop.peer import wait_until
from tests.interop.strongswan_starter import Starter
from tests.netns.site_gateways import can_ping, listed
from tests.netns.test_imported_example import EXAMPLE, IN_CLEAR, SECRETS, SERVER_A, SERVER_B, import_in

pytestmark = pytest.mark.interop


def test_the_example_comes_up_with_strongswan_running_the_original_file(tmp_path: Path) -> None:
    source = tmp_path / "etc"
    source.mkdir()
    (source / "ipsec.conf").write_text(EXAMPLE)
    (source / "ipsec.secrets").write_text(SECRETS)
    wire = tmp_path / "wire.pcap"
    with site_to_site(f"is{os.getpid()}") as sites:
        for site, address in ((sites.a, SERVER_A), (sites.b, SERVER_B)):
            site.gateway.run("ip", "address", "add", f"{address}/24", "dev", site.outside_device)
        ours = GatewayProcess(sites.a.gateway, tmp_path / "ours", import_in(sites.a.gateway, source))
        theirs = Starter(sites.b.gateway, tmp_path / "theirs", EXAMPLE, SECRETS)
        with capturing(sites.b.gateway, sites.b.outside_device, wire), theirs, ours:

            def log() -> str:
                return f"{ours.log_tail()}\n{theirs.log()}"

            wait_until(lambda: listed(ours, "child-sas") != [], "a Child SA", log, 30.0)
            wait_until(lambda: can_ping(sites.a.gateway, SERVER_B), "an answer from strongSwan", log, 30.0)
            wait_until(lambda: can_ping(sites.b.gateway, SERVER_A), "an answer from us", log, 30.0)
            proposals = {sa["proposal"] for sa in listed(ours, "ike-sas")}
    assert proposals == {"aes256gcm16-prfsha512-modp2048"}
    # It begins before we listen: then our kernel says that the port is unreachable.
    assert count_packets(wire, f"{IN_CLEAR} and not icmp[icmptype] = icmp-unreach") == 0
