"""What the NICs of this machine can do for IPsec now: probes, profiles and addresses put together."""

import asyncio
from collections.abc import Sequence

from gateway.agent.dispatcher import Nics
from gateway.datapath.ability import NicSurroundings, nic_abilities
from gateway.datapath.backend import Capabilities
from gateway.datapath.select import Link
from gateway.hardware.machine import probe_machine
from gateway.hardware.profiles import Profile
from gateway.host.network import Network


class NicSurvey:
    """Looks at the NICs.

    Args:
        profiles: What is known of drivers.
    """

    def __init__(self, profiles: Sequence[Profile]) -> None:
        self._profiles = profiles
        self._network = Network()

    async def look(self, capabilities: Capabilities) -> Nics:
        """Return what NICs can do under the backend that programs them; takes some 50 ms, in a thread.

        Raises:
            HostError: This machine refused to name its addresses.
        """
        machine = await asyncio.to_thread(probe_machine, self._profiles)
        around = NicSurroundings(
            release=machine.kernel.release, options=machine.kernel.options, profiles=self._profiles
        )
        drivers = {nic.name: nic.driver for nic in machine.nics}
        links = await self._network.links_by_address()
        return Nics(
            abilities=nic_abilities(capabilities, machine.nics, around),
            links={
                address: Link(name=link.name, driver=drivers.get(link.name, ""), is_up=link.is_up)
                for address, link in links.items()
            },
        )

    async def close(self) -> None:
        """Close what it asks with."""
        await self._network.close()
