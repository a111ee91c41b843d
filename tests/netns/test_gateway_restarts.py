"""Each process of a gateway is killed under traffic: what flows on, what comes back, never an IV twice."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from scapy.layers.ipsec import ESP
from scapy.utils import PcapReader

from gateway.bench.capture import capturing, clear_packets
from gateway.bench.process import GatewayProcess
from gateway.bench.topology import SiteToSite, site_to_site
from tests.netns.site_gateways import Pings, paris_and_tokyo, pid_of

pytestmark = pytest.mark.netns

_GCM_IV_BYTES = 8


@contextmanager
def running(tmp_path: Path) -> Iterator[tuple[SiteToSite, GatewayProcess, GatewayProcess, Path]]:
    """Run both gateways with a tunnel that is up, and capture what is between them."""
    with site_to_site(f"gr{os.getpid()}") as sites, paris_and_tokyo(sites, tmp_path) as (paris, tokyo):
        outside = tmp_path / "outside.pcap"
        with capturing(sites.b.gateway, sites.b.outside_device, outside):
            paris.ctl("up", "paris-tokyo")
            yield sites, paris, tokyo, outside


def assert_nothing_in_clear_and_no_iv_twice(outside: Path) -> None:
    sent: Counter[tuple[int, bytes]] = Counter()
    with PcapReader(str(outside)) as packets:
        for packet in packets:
            if ESP in packet:
                sent[packet[ESP].spi, bytes(packet[ESP].data[:_GCM_IV_BYTES])] += 1
    assert len(sent) > 50
    assert [key for key, times in sent.items() if times > 1] == []
    assert clear_packets(outside) == 0


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def has_ended(pid: int) -> bool:
    """Say whether a process is gone, or only waits for somebody to read its exit status."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True
    return status.rpartition(")")[2].split()[0] == "Z"


def spis(gateway: GatewayProcess) -> set[str]:
    return {sa["outbound"]["spi"] for sa in gateway.json("list", "child-sas")["child_sas"]}


def test_a_killed_controller_is_replaced_without_a_lost_packet(tmp_path: Path) -> None:
    with running(tmp_path) as (sites, paris, _tokyo, outside):
        before, pings = spis(paris), Pings(sites, 200, 0.02)
        time.sleep(0.5)
        os.kill(pid_of(paris, "controller"), signal.SIGKILL)

        missing = pings.missing()

        assert missing == [], paris.log_tail()
        assert not spis(paris) & before
    assert_nothing_in_clear_and_no_iv_twice(outside)


def test_a_killed_agent_comes_back_with_new_keys_on_the_same_ike_sa(tmp_path: Path) -> None:
    with running(tmp_path) as (sites, paris, _tokyo, outside):
        (ike_sa,) = paris.json("list", "ike-sas")["ike_sas"]
        before, pings = spis(paris), Pings(sites, 250, 0.02)
        time.sleep(0.5)
        os.kill(pid_of(paris, "agent"), signal.SIGKILL)

        missing = pings.missing()

        assert missing, "a software datapath that is dead carries nothing"
        assert missing[-1] < 220, f"still missing at the end: {paris.log_tail()}"
        assert not spis(paris) & before
        (same,) = paris.json("list", "ike-sas")["ike_sas"]
        assert same["spi_i"] == ike_sa["spi_i"]
    assert_nothing_in_clear_and_no_iv_twice(outside)


def test_a_killed_supervisor_leaves_its_agent_to_the_next_one_without_a_lost_packet(tmp_path: Path) -> None:
    with running(tmp_path) as (sites, paris, tokyo, outside):
        agent, pings = pid_of(paris, "agent"), Pings(sites, 250, 0.02)
        time.sleep(0.5)
        os.kill(paris.pid, signal.SIGKILL)
        time.sleep(0.5)
        paris.start()

        missing = pings.missing()

        assert missing == [], paris.log_tail()
        assert pid_of(paris, "agent") == agent
        assert "agent_adopted" in paris.log()
        # What is left of the former life ends at the peer when the new IKE SA has stood for a while.
        wait_until(lambda: "ike_sa_superseded" in tokyo.log())
        paris.stop()
        assert has_ended(agent), "the adopted agent is ended with the gateway"
    assert_nothing_in_clear_and_no_iv_twice(outside)


def test_an_orderly_stop_deletes_the_sas_at_the_peer_and_keeps_the_protection(tmp_path: Path) -> None:
    with running(tmp_path) as (sites, paris, tokyo, outside):
        pings = Pings(sites, 60, 0.02)
        pings.missing()

        paris.stop()

        wait_until(lambda: not tokyo.json("list", "ike-sas")["ike_sas"])
        refused = sites.a.host.run("ping", "-c3", "-i0.2", "-W1", sites.b.host_address, check=False)
        assert refused.returncode != 0
        assert not (paris.directory / "run" / "control.sock").exists()
    assert_nothing_in_clear_and_no_iv_twice(outside)
