"""Which interface has an address of ours: asked for each SA that a NIC could carry, so it is remembered."""

from collections.abc import Mapping

from gateway.datapath.xfrm.placing import Device
from gateway.host.network import LinkState, Network
from gateway.ipsec.sa import IpAddress


class Devices:
    """The interfaces by our addresses, as they were when somebody last asked for one that was not known.

    An answer that is out of date does no harm: where an SA really is, is read back.

    Args:
        network: Borrowed.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._links: Mapping[IpAddress, LinkState] = {}

    async def of(self, address: IpAddress) -> Device | None:
        """Return the interface that has an address, if one has it.

        Raises:
            HostError: This machine does not tell.
        """
        if address not in self._links:
            self._links = await self._network.links_by_address()
        link = self._links.get(address)
        return None if link is None else Device(link.name, link.index)

    def distrust(self) -> None:
        """Ask again next time: links or addresses changed."""
        self._links = {}
