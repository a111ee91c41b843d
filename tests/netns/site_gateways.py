"""Two gateways with one PSK between the two sites of a topology, for tests of the whole product."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.bench.process import GatewayProcess
from gateway.bench.topology import SiteToSite

CONFIG = """
connections:
- name: paris-tokyo
  local:  {{address: {local}, id: {local_id}, auth: {{psk: {{file: test.psk}}}}}}
  remote: {{address: {remote}, id: {remote_id}, auth: {{psk: {{file: test.psk}}}}}}
  ike: {{proposals: [aes256gcm16-prfsha384-x25519]}}
  children:
  - name: lan
    local_ts: [{local_net}]
    remote_ts: [{remote_net}]
    esp: {{proposals: [aes256gcm16-x25519]}}
    start: {start}
"""


def config(topology: SiteToSite, *, of_a: bool, start: str) -> str:
    """Return the configuration of one side."""
    here, there = (topology.a, topology.b) if of_a else (topology.b, topology.a)
    ids = ("gw-paris.example", "gw-tokyo.example")
    return CONFIG.format(
        local=here.outside,
        remote=there.outside,
        local_id=ids[not of_a],
        remote_id=ids[of_a],
        local_net=here.inside,
        remote_net=there.inside,
        start=start,
    )


@contextmanager
def paris_and_tokyo(
    topology: SiteToSite, directory: Path, *, start: str = "on_traffic"
) -> Iterator[tuple[GatewayProcess, GatewayProcess]]:
    """Run both gateways while the context lasts."""
    gateways = []
    for site, name in ((topology.a, "paris"), (topology.b, "tokyo")):
        home = directory / name
        home.mkdir()
        psk = home / "test.psk"
        psk.write_text("correct horse battery staple\n")
        psk.chmod(0o600)
        text = config(topology, of_a=site is topology.a, start=start)
        gateways.append(GatewayProcess(site.gateway, home, text))
    with gateways[0] as paris, gateways[1] as tokyo:
        yield paris, tokyo


def pid_of(gateway: GatewayProcess, process: str) -> int:
    """Return the PID of the `agent` or `controller` of a gateway."""
    return int((gateway.directory / "run" / f"{process}.pid").read_text())


class Pings:
    """Numbered echo requests from the host of site A to that of site B, in the background."""

    def __init__(self, topology: SiteToSite, count: int, interval_s: float) -> None:
        self._process = topology.a.host.popen(
            *("ping", "-c", str(count), "-i", str(interval_s), "-W", "1", topology.b.host_address),
            stdout=subprocess.PIPE,
        )
        self.count = count

    def missing(self) -> list[int]:
        """Wait for the end; return the numbers of those without an answer."""
        output = self._process.communicate(timeout=120)[0]
        answered = {int(number) for number in re.findall(r"icmp_seq=(\d+) ttl", output)}
        return [number for number in range(1, self.count + 1) if number not in answered]
