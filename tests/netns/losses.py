"""Whose loss it was: what generators, links and gateways say of the packets that did not arrive.

And whether the traffic was what it claims to be: a machine with too little CPU lowers the rate in silence.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gateway.bench.cpu import CpuUse, cpu_between, read_cpu
from gateway.bench.flows import TwoWayFlow, two_way_udp
from gateway.bench.process import GatewayProcess
from gateway.bench.topology import SiteToSite, pids_inside
from gateway.ipsec.drop_reason import DropReason

LEAST_SHARE: Final = 0.9
"""Of the packets that were to be sent in a flow so many must have been: the rate was held."""
LONGEST_GAP_S: Final = 0.1
"""In a steady flow each end sends more often."""
OTHERS_SHARE: Final = 0.1
"""Of the time of all CPUs: with less for other programs a machine is not busy with them."""


@dataclass(slots=True)
class Account:
    """Of one flow; complete when its context has ended. As text it says whose losses there were."""

    wanted_pps: int
    """Packets a second, both ways."""
    flow: TwoWayFlow = field(default_factory=TwoWayFlow)
    links: Counter[str] = field(default_factory=Counter)
    """Packets that devices could not send, by namespace and name."""
    gateways: Counter[str] = field(default_factory=Counter)
    """Drops of the gateways' datapaths, by gateway and reason."""
    waited: Counter[str] = field(default_factory=Counter)
    """Milliseconds for which engines were ready to run and had no CPU, by namespace."""
    cpu: CpuUse | None = None
    """Other programs' use of this machine meanwhile; known at the end."""

    @property
    def is_steady(self) -> bool:
        """Whether the rate was held, on average and without a long pause."""
        flow = self.flow
        return flow.rate_pps >= LEAST_SHARE * self.wanted_pps and flow.longest_gap_s <= LONGEST_GAP_S

    @property
    def is_for_want_of_cpu(self) -> bool:
        """Whether every loss was a full ring of an engine, on a machine that had much else to do.

        An engine that gets no CPU for as long as its rings have room is no fault of its own.
        """
        assert self.cpu is not None, "the flow has not ended"
        full = sum(
            count for name, count in self.gateways.items() if name.endswith(DropReason.NO_ENGINE.value)
        )
        others = self.cpu.others_s / (os.cpu_count() or 1) / self.flow.a.seconds
        return 0 < self.flow.lost <= full and others > OTHERS_SHARE

    @property
    def rate(self) -> str:
        """The rate in words, and what else this machine had to do."""
        flow, cpu = self.flow, self.cpu
        assert cpu is not None, "the flow has not ended"
        loads = " ".join(f"{load:.1f}" for load in os.getloadavg())
        return (
            f"{flow.rate_pps:.0f} (of {self.wanted_pps}) packets a second for {flow.a.seconds:.1f} s, longest"
            f" pause {flow.longest_gap_s:.3f} s; of {os.cpu_count()} CPUs (load averages {loads}) other "
            f"programs had {cpu.others_s:.1f} s, and the host of this machine {cpu.stolen_s:.1f} s"
        )

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
            f"{flow.a.held_up_s:.3f} s and {flow.b.held_up_s:.3f} s; {self.rate}"
        )


@contextmanager
def accounted_udp(sites: SiteToSite, *gateways: GatewayProcess, rate_pps: int) -> Iterator[Account]:
    """Send numbered UDP from host to host, `rate_pps` each way, while the context lasts."""
    account, a, b = Account(2 * rate_pps), sites.a, sites.b
    links, drops = _links(sites), _drops(gateways)
    # The engines' parents are gone when their agents are.
    ours = {"ours": [os.getpid(), *pids_inside(a.gateway), *pids_inside(b.gateway)]}
    with two_way_udp(a.host, a.host_address, b.host, b.host_address, rate_pps=rate_pps) as account.flow:
        waited, cpu = _waited(sites), read_cpu(ours)
        yield account
        account.waited, account.cpu = _waited(sites) - waited, cpu_between(cpu, read_cpu(ours))
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
