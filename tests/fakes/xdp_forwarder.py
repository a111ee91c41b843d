"""Stands in for `XdpForwarder` where no kernel runs the program: remembers what it was told."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from gateway.datapath.xfrm.lan_hops import Hops
from gateway.datapath.xfrm.xdp_forwarder import Attached
from gateway.host.bpf.abi import Counter, Exit, InboundNicSa, OffloadedSa, Port, PortKey
from gateway.host.network import IpAddress
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.policy import Policy


class FakeXdpForwarder:
    """The maps as dictionaries.

    Attributes:
        sas: By number.
        inbound_sas: By number.
        hops: By prefix.
        offloaded: By the name of a policy: the number of its SA.
        inbound: The same for what comes in.
        lease_ns: Until when (CLOCK_MONOTONIC).
    """

    def __init__(self) -> None:
        self.attached: dict[str, Attached] = {}
        self.ports: Mapping[PortKey, Port] = {}
        self.sas: dict[int, OffloadedSa] = {}
        self.inbound_sas: dict[int, InboundNicSa] = {}
        self.hops: Hops = {}
        self.policies: tuple[Policy, ...] = ()
        self.offloaded: Mapping[str, int] = {}
        self.inbound: Mapping[str, int] = {}
        self.lease_ns = 0

    def close(self) -> None:
        """Forward nothing any more."""
        self.sas.clear()
        self.inbound_sas.clear()

    def follow(self, interfaces: Mapping[str, int]) -> None:
        """Say that it is attached to each."""
        self.attached = {
            name: Attached(index=index, attachment=None, words="nowhere")
            for name, index in interfaces.items()
        }

    def set_ports(self, ports: Mapping[PortKey, Port], _addresses: Iterable[IpAddress]) -> None:
        self.ports = ports

    def set_sas(self, sas: Mapping[int, OffloadedSa]) -> None:
        self.sas.update(sas)

    def set_inbound_sas(self, sas: Mapping[int, InboundNicSa]) -> None:
        self.inbound_sas.update(sas)

    def set_hops(self, hops: Hops) -> None:
        self.hops = hops

    def remove_sas(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self.sas.pop(number, None)
            self.inbound_sas.pop(number, None)

    def keep_sas(self, numbers: Collection[int]) -> None:
        self.remove_sas([number for number in (*self.sas, *self.inbound_sas) if number not in numbers])

    def set_policies(
        self, policies: Sequence[Policy], offloaded: Mapping[str, int], inbound: Mapping[str, int]
    ) -> None:
        self.policies, self.offloaded, self.inbound = tuple(policies), offloaded, inbound

    def lease_until(self, until_ns: int) -> None:
        self.lease_ns = until_ns

    def counters(self) -> dict[DropReason | Exit, Counter]:
        return {}

    def forwarded_spis(self) -> list[int]:
        """Return the SPIs that policies lead to and that are there."""
        return sorted({self.sas[number].spi for number in self.offloaded.values() if number in self.sas})
