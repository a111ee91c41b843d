"""strongSwan running a file as it was, and our gateway running what `ipsecgw import` made of it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.bench.capture import capturing, count_packets
from gateway.bench.topology import SiteToSite, site_to_site
from tests.interop.null_kernel import NullKernel
from tests.interop.peer import wait_until
from tests.interop.strongswan_starter import Starter
from tests.netns.command import Gateway
from tests.netns.site_gateways import can_ping, listed
from tests.netns.test_imported_example import IN_CLEAR, SERVER_A, SERVER_B, import_in
from tests.unit.config.foreign.test_ipsec_conf import SECRETS, SERVER_A_TO_SERVER_B

pytestmark = pytest.mark.interop


@pytest.fixture
def sites() -> Iterator[SiteToSite]:
    """The two servers at the addresses of the example."""
    with site_to_site(f"is{os.getpid()}") as made:
        for site, address in ((made.a, SERVER_A), (made.b, SERVER_B)):
            site.gateway.run("ip", "address", "add", f"{address}/24", "dev", site.outside_device)
        yield made


def written(folder: Path, conf: str) -> Path:
    """Return a directory with the configuration as its operator has it."""
    folder.mkdir()
    (folder / "ipsec.conf").write_text(conf)
    (folder / "ipsec.secrets").write_text(SECRETS)
    return folder


def test_the_example_comes_up_with_strongswan_running_the_original_file(
    sites: SiteToSite, tmp_path: Path
) -> None:
    source = written(tmp_path / "etc", SERVER_A_TO_SERVER_B)
    ours = Gateway(sites.a.gateway, tmp_path / "ours", import_in(sites.a.gateway, source))
    theirs = Starter(sites.b.gateway, tmp_path / "theirs", SERVER_A_TO_SERVER_B, SECRETS)
    wire = tmp_path / "wire.pcap"
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


def test_with_type_transport_both_agree_on_transport_mode(sites: SiteToSite, tmp_path: Path) -> None:
    conf = SERVER_A_TO_SERVER_B + "  type=transport\n"
    source = written(tmp_path / "etc", conf)
    ours = Gateway(sites.a.gateway, tmp_path / "ours", import_in(sites.a.gateway, source))
    kernel = NullKernel(tmp_path / "theirs")
    theirs = Starter(sites.b.gateway, tmp_path / "theirs", conf, SECRETS, kernel)
    with theirs, ours:

        def log() -> str:
            return f"{ours.log_tail()}\n{theirs.log()}"

        def spis() -> set[int]:
            halves = [sa[half]["spi"] for sa in listed(ours, "child-sas") for half in ("inbound", "outbound")]
            return {int(spi, 16) for spi in halves}

        wait_until(lambda: len(spis()) >= 2 and spis() <= kernel.present(), "the same SAs", log, 40.0)
        assert {sa["mode"] for sa in listed(ours, "child-sas")} == {"transport"}
        assert {sa.mode for spi, sa in kernel.installed().items() if spi in spis()} == {"transport"}
