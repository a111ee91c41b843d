"""The examples for cloud VPN gateways, over the kernel's ESP, against strongSwan set up as clouds publish.

Both tunnels are up at once, each with its interface. What a routing daemon does is done here by hand: routes
of two metrics, and the better one withdrawn when its tunnel fails.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest
import yaml

from gateway.bench.topology import SiteToSite, site_to_site
from tests.interop.our_gateway import OurGateway
from tests.interop.peer import wait_until
from tests.interop.strongswan import Charon
from tests.netns.site_gateways import wait_for_ping
from tests.netns.wire import nothing_in_clear_and_no_iv_twice

pytestmark = pytest.mark.guest

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
ENDPOINTS = {1: "203.0.113.10", 2: "203.0.113.20"}
KEYS = {1: "a_key_of_at_least_twenty_letters", 2: "another_key_for_the_second_tunnel"}

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
      if_id_in = {number}
      if_id_out = {number}
    }} }}
  }}
"""
SECRET = """
  ike-{number} {{
    id = {address}
    secret = "{key}"
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
        """Return both endpoints as strongSwan is told."""
        endpoints = "".join(
            ENDPOINT.format(
                number=number,
                address=address,
                ike=self.ike,
                esp=self.esp,
                ike_s=self.ike_s,
                child_s=self.child_s,
            )
            for number, address in ENDPOINTS.items()
        )
        secrets = "".join(
            SECRET.format(number=number, address=address, key=KEYS[number])
            for number, address in ENDPOINTS.items()
        )
        return f"connections {{ {endpoints} }}\nsecrets {{ {secrets} }}\n"


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


def insides(example: str) -> dict[int, tuple[str, IPv4Interface]]:
    """Return the interface of each tunnel and its inside address."""
    shown = [connection["children"][0]["interface"] for connection in yaml.safe_load(example)["connections"]]
    return {
        number: (interface["name"], IPv4Interface(interface["addresses"][0]))
        for number, interface in enumerate(shown, 1)
    }


def other_end(inside: IPv4Interface) -> IPv4Address:
    """Return the other of the two addresses of a /30."""
    (other,) = set(inside.network.hosts()) - {inside.ip}
    return other


@contextmanager
def both_ends(cloud: Cloud, example: str, directory: Path) -> Iterator[tuple[SiteToSite, OurGateway, Charon]]:
    """Run our gateway with the example as it stands, and the cloud's two endpoints."""
    with site_to_site("guest") as sites, ExitStack() as stack:
        stack.enter_context(nothing_in_clear_and_no_iv_twice(sites, directory, least_esp=4, only_sent=True))
        ip = sites.b.gateway.run
        for address in ENDPOINTS.values():
            ip("ip", "address", "add", f"{address}/32", "dev", sites.b.outside_device)
        sites.a.gateway.run("ip", "route", "add", "203.0.113.0/24", "via", sites.b.outside)
        for number, (_, inside) in insides(example).items():
            ip("ip", "link", "add", f"cloud{number}", "type", "xfrm", "if_id", str(number))
            ip("ip", "address", "add", f"{other_end(inside)}/30", "dev", f"cloud{number}")
            ip("ip", "link", "set", f"cloud{number}", "up")
            ip("ip", "route", "add", sites.a.inside, "dev", f"cloud{number}", "metric", str(number))
        theirs = stack.enter_context(
            Charon(sites.b.gateway, directory / "theirs", cloud.swanctl(), backend="")
        )
        home = directory / "ours"
        ours = stack.enter_context(OurGateway(sites.a.gateway, home, ("--datapath", "xfrm")))
        for number, key in KEYS.items():
            path = home / f"{cloud.name}-{number}.psk"
            path.write_text(key)
            path.chmod(0o600)
        ours.configure(example)
        yield sites, ours, theirs


@pytest.mark.parametrize(
    "cloud",
    [
        pytest.param(cloud, id=cloud.name, marks=() if cloud.name == "aws" else pytest.mark.slow)
        for cloud in CLOUDS
    ],
)
def test_both_tunnels_of_an_example_are_up_and_routes_choose(tmp_path: Path, cloud: Cloud) -> None:
    example = (EXAMPLES / f"{cloud.name}.yaml").read_text()
    with both_ends(cloud, example, tmp_path) as (sites, ours, theirs):
        a, b = sites.a, sites.b

        def log() -> str:
            return f"{ours.log()[-4000:]}\n--- theirs\n{theirs.log()[-6000:]}"

        wait_until(lambda: len(ours.child_sas()) == len(ENDPOINTS), "both tunnels", log, 60.0)
        for _, inside in insides(example).values():
            wait_for_ping(a.gateway, str(other_end(inside)))

        def sent() -> dict[str, int]:
            return {sa.connection: sa.outbound.packets for sa in ours.child_sas()}

        for number, (name, _) in insides(example).items():
            a.gateway.run("ip", "route", "add", b.inside, "dev", name, "metric", str(number))
        before = sent()
        wait_for_ping(a.host, b.host_address)
        wait_until(lambda: sent()[f"{cloud.name}-1"] > before[f"{cloud.name}-1"], "sent by tunnel 1", log)
        assert sent()[f"{cloud.name}-2"] == before[f"{cloud.name}-2"]

        b.gateway.run("ip", "address", "delete", f"{ENDPOINTS[1]}/32", "dev", b.outside_device)
        for gateway, prefix, device in ((a, b.inside, insides(example)[1][0]), (b, a.inside, "cloud1")):
            gateway.gateway.run("ip", "route", "delete", prefix, "dev", device)
        wait_for_ping(a.host, b.host_address)
        wait_until(lambda: sent()[f"{cloud.name}-2"] > before[f"{cloud.name}-2"], "sent by tunnel 2", log)
