"""The examples for cloud VPN gateways, against strongSwan with the parameters that the clouds publish."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.bench.capture import capturing, clear_packets
from gateway.bench.process import GatewayProcess
from gateway.bench.topology import site_to_site
from tests.interop.peer import wait_until
from tests.interop.strongswan import Charon
from tests.netns.site_gateways import listed

pytestmark = pytest.mark.interop

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
KEY = "a_key_of_at_least_twenty_letters"
TUNNELS = ("203.0.113.10", "203.0.113.20")

#: One endpoint of a cloud; it takes what its other customers have, so its selectors are 0.0.0.0/0.
ENDPOINT = """
  tunnel-{number} {{
    version = 2
    local_addrs = {address}
    remote_addrs = 192.0.2.1
    proposals = {ike}
    rekey_time = {ike_s}s
    dpd_delay = 10s
    local {{
      auth = psk
      id = {address}
    }}
    remote {{
      auth = psk
      id = 192.0.2.1
    }}
    children {{ any {{
      local_ts = 0.0.0.0/0
      remote_ts = 0.0.0.0/0
      esp_proposals = {esp}
      rekey_time = {child_s}s
    }} }}
  }}
"""


@dataclass(frozen=True, slots=True)
class Cloud:
    """What a cloud publishes of its gateways: docs/cloud-peers.md names the sources."""

    name: str
    ike: str
    esp: str
    ike_s: int
    child_s: int

    def swanctl(self) -> str:
        endpoints = "".join(
            ENDPOINT.format(
                number=number,
                address=address,
                ike=self.ike,
                esp=self.esp,
                ike_s=self.ike_s,
                child_s=self.child_s,
            )
            for number, address in enumerate(TUNNELS, 1)
        )
        return f'connections {{ {endpoints} }}\nsecrets {{ ike-1 {{\n secret = "{KEY}"\n }} }}\n'


CLOUDS = (
    Cloud(
        "aws",
        "aes128-aes256-sha1-sha256-sha384-sha512-modp2048-ecp256-ecp384,"
        "aes128gcm16-aes256gcm16-prfsha1-prfsha256-prfsha384-prfsha512-modp2048-ecp256-ecp384",
        "aes128-aes256-sha1-sha256-modp2048-ecp256-ecp384,aes128gcm16-aes256gcm16-modp2048-ecp256-ecp384",
        28800,
        3600,
    ),
    Cloud("azure", "aes256gcm16-prfsha384-ecp384", "aes256gcm16-ecp384", 28800, 27000),
    Cloud("google-cloud", "aes256gcm16-prfsha512-modp4096", "aes256gcm16-modp4096", 36000, 10800),
)


@pytest.mark.parametrize(
    "cloud",
    [
        pytest.param(cloud, id=cloud.name, marks=() if cloud.name == "aws" else pytest.mark.slow)
        for cloud in CLOUDS
    ],
)
def test_an_example_comes_up_with_each_of_the_two_tunnels(tmp_path: Path, cloud: Cloud) -> None:
    ours_in = tmp_path / "ours"
    ours_in.mkdir()
    (ours_in / f"{cloud.name}.psk").write_text(KEY)
    (ours_in / f"{cloud.name}.psk").chmod(0o600)
    example = (EXAMPLES / f"{cloud.name}.yaml").read_text()
    # The shipped file waits longer before it gives up on a tunnel.
    example = example.replace(
        "dpd_delay: 10s", "dpd_delay: 1s\n    retransmit_tries: 2\n    retransmit_timeout: 500ms"
    )
    wire = tmp_path / "wire.pcap"
    with site_to_site(f"cl{os.getpid()}") as sites:
        outside = ("dev", sites.b.outside_device)
        for address in TUNNELS:
            sites.b.gateway.run("ip", "address", "add", f"{address}/32", *outside)
        sites.a.gateway.run("ip", "route", "add", "203.0.113.0/24", "via", sites.b.outside)
        ours = GatewayProcess(sites.a.gateway, ours_in, example)
        theirs = Charon(sites.b.gateway, tmp_path / "theirs", cloud.swanctl())

        def log() -> str:
            return f"{ours.log_tail()}\n{theirs.log()}"

        def peer() -> list[str]:
            return [sa["remote"]["address"] for sa in listed(ours, "ike-sas") if sa["state"] == "established"]

        def can_ping() -> bool:
            done = sites.a.host.run("ping", "-c1", "-W1", sites.b.host_address, check=False)
            return done.returncode == 0

        with capturing(sites.b.gateway, sites.b.outside_device, wire), theirs, ours:
            wait_until(lambda: peer() == [TUNNELS[0]], "tunnel 1", log, 30.0)
            wait_until(can_ping, "an answer through tunnel 1", log, 30.0)

            sites.b.gateway.run("ip", "address", "delete", f"{TUNNELS[0]}/32", *outside)

            wait_until(lambda: peer() == [TUNNELS[1]], "tunnel 2", log, 60.0)
            wait_until(can_ping, "an answer through tunnel 2", log, 30.0)
    assert clear_packets(wire) == 0
