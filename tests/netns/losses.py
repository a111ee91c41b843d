"""Whose loss it was: what generators, links and gateways say of the packets that did not arrive."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from gateway.bench.flows import TwoWayFlow, two_way_udp
from gateway.bench.process import GatewayProcess
from gateway.bench.topology import SiteToSite, pids_inside


@dataclass(slots=True)
class Account:
    """Of one flow; complete when its context has ended. As text it says whose losses there were."""

    flow: TwoWayFlow = field(default_factory=TwoWayFlow)
    links: Counter[str] = field(default_factory=Counter)
    """Packets that devices could not send, by namespace and name."""
    gateways: Counter[str] = field(default_factory=Counter)
    """Drops of the gateways' datapaths, by gateway and reason."""
    waited: Counter[str] = field(default_factory=Counter)
    """Milliseconds for which engines were ready to run and had no CPU, by namespace."""

    @property
    def clear(self) -> int:
        """Packets in clear that a gateway dropped because their policy is to protect them."""
        return sum(count for name, count in self.gateways.items() if name.lower().endswith("clear_inbound"))

    def __str__(self) -> str:
        flow = self.flow
        return (
            f"of {flow.sent} packets {flow.lost} were lost on the way and {flow.duplicates} came twice "
            f"(links dropped {_words(self.links)}; gateways {_words(self.gateways)}; "
            f"milliseconds that their engines waited for a CPU: {_words(self.waited)}); "
            f"the generators were too slow for {flow.overrun} that arrived, and could not send for "
            f"{flow.a.held_up_s:.3f} s and {flow.b.held_up_s:.3f} s"
        )


@contextmanager
def accounted_udp(sites: SiteToSite, *gateways: GatewayProcess, rate_pps: int) -> Iterator[Account]:
    """Send numbered UDP from host to host, `rate_pps` each way, while the context lasts."""
    account, a, b = Account(), sites.a, sites.b
    links, drops = _links(sites), _drops(gateways)
    with two_way_udp(a.host, a.host_address, b.host, b.host_address, rate_pps=rate_pps) as account.flow:
        waited = _waited(sites)
        yield account
        account.waited = _waited(sites) - waited
    account.links, account.gateways = _links(sites) - links, _drops(gateways) - drops


def _links(sites: SiteToSite) -> Counter[str]:
    found = Counter[str]()
    for site in (sites.a, sites.b):
        for namespace in (site.host, site.gateway):
            for link in json.loads(namespace.run("ip", "-s", "-j", "link").stdout):
                found[f"{namespace.name}:{link['ifname']}"] = link["stats64"]["tx"]["dropped"]
    return found


def _drops(gateways: tuple[GatewayProcess, ...]) -> Counter[str]:
    return Counter(
        {
            f"{gateway.directory.name}:{drop['reason']}": int(drop["packets"])
            for gateway in gateways
            for drop in gateway.json("status")["datapath_drops"]
        }
    )


def _waited(sites: SiteToSite) -> Counter[str]:
    """Return how long the threads of each espd have waited for a CPU (proc(5), schedstat)."""
    found = Counter[str]()
    for namespace in (sites.a.gateway, sites.b.gateway):
        for pid in pids_inside(namespace):
            with suppress(OSError):  # it has ended
                if Path(f"/proc/{pid}/comm").read_text() == "espd\n":
                    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
                    found[namespace.name] += sum(int(each.split()[1]) for each in stats) // 1_000_000
    return found


def _words(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common()) or "none"
