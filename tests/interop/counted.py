"""Numbered packets between the hosts of a rig: what IPsec lost of them, and what nobody read in time."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from gateway.bench.flows import TwoWayFlow, two_way_udp
from gateway.bench.topology import Namespace, SiteToSite
from tests.interop.conftest import Rig

_SOCKETS = ("udp", "udp6", "raw", "raw6")


@dataclass(slots=True)
class Counted:
    """One flow; complete when its context has ended."""

    flow: TwoWayFlow = field(default_factory=TwoWayFlow)
    overflowed: int = 0
    """Packets that sockets and devices dropped for want of room, because nobody read them in time."""

    @property
    def lost(self) -> int:
        """Packets that are missing and did not overflow."""
        return max(0, self.flow.missing - self.overflowed)


@contextmanager
def counted_udp(rig: Rig, device: str = "ipsecgw0") -> Iterator[Counted]:
    """Send 1,000 numbered packets a second each way, for as long as the context lasts and a little more.

    The tunnel devices keep some seconds of them; where a busy machine has no time for a process still, its
    sockets say what overflowed: libipsec reads a UDP socket that has room for a quarter of a second.
    """
    for gateway, tunnel in ((rig.sites.a.gateway, device), (rig.sites.b.gateway, "ipsec0")):
        gateway.run("ip", "link", "set", tunnel, "txqueuelen", "5000")
    a, b = rig.sites.a, rig.sites.b
    counted, before = Counted(), overflowed(rig.sites)
    with two_way_udp(a.host, a.host_address, b.host, b.host_address) as counted.flow:
        time.sleep(1.5)
        yield counted
        time.sleep(4.0)
        counted.overflowed = overflowed(rig.sites) - before


def overflowed(sites: SiteToSite) -> int:
    """Return how many packets the sockets that are open, and the devices, have dropped for want of room."""
    return sum(
        _of_sockets(namespace) + _of_devices(namespace)
        for site in (sites.a, sites.b)
        for namespace in (site.host, site.gateway)
    )


def _of_sockets(namespace: Namespace) -> int:
    """Return the sum of the last column of the kernel's tables of sockets, `drops`."""
    tables = namespace.run("cat", *(f"/proc/net/{name}" for name in _SOCKETS)).stdout.splitlines()
    last = (line.split()[-1] for line in tables)
    return sum(int(word) for word in last if word != "drops")


def _of_devices(namespace: Namespace) -> int:
    links = json.loads(namespace.run("ip", "-s", "-j", "link").stdout)
    return sum(int(link["stats64"]["tx"]["dropped"]) for link in links)
