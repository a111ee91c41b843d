"""The TUN devices of route-based tunnels in espd: one for each interface id, with SAs and entries of its own.

They are persistent, as those of the software datapath are: while there is no espd they drop what is routed
there. An id has one number among the devices of espd as long as anything is about it, in the journal too: the
next agent asks for the same, and nothing is opened anew. Numbers are given from the last one down, since the
interfaces that espd has for itself are numbered from the first one up.
"""

from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Final, NamedTuple

from gateway.datapath.backend import DatapathError, ErrorReason
from gateway.datapath.engine import protocol as p
from gateway.datapath.engine.core import EngineError
from gateway.datapath.engine.devices import Devices
from gateway.datapath.journal import Journal, Json
from gateway.datapath.tunnels import TunnelKind, Tunnels
from gateway.host.errors import HostError
from gateway.host.links import TUN
from gateway.host.network import Network
from gateway.ipsec.interface import TunnelInterface
from gateway.observe.logs import get_logger

_log = get_logger(__name__)

_INTERFACE: Final = "interface"


class _Opened(NamedTuple):
    """The device of one interface, as espd has it open."""

    interface: TunnelInterface
    link: int
    """Its index; 0: espd has it not."""
    is_routed: bool


class Interfaces:
    """The devices of one backend.

    Args:
        devices: Of espd; borrowed.
        network: Borrowed.
        journal: Borrowed; read already when `adopt_numbers` is called.
        tag: Of the agent.
        first_number: Devices below it are taken.
        is_routed: Whether espd has interfaces and the routes to them, and may send there what SAs bring.
    """

    def __init__(
        self,
        devices: Devices,
        network: Network,
        journal: Journal,
        tag: str,
        *,
        first_number: int,
        is_routed: bool,
    ) -> None:
        kind = TunnelKind(kind=TUN, make=self._open, leave=self._close, let_go=self._close)
        self.tunnels = Tunnels(network, kind, tag)
        self._devices = devices
        self._journal = journal
        self._first_number = first_number
        self._is_routed = is_routed
        self._numbers: dict[int, int] = {}
        """Of devices, by the id of an interface."""
        self._opened: dict[str, _Opened] = {}

    # --- numbers ------------------------------------------------------------------------------------

    def adopt_numbers(self) -> None:
        """Number devices as the last agent did."""
        self._numbers = {
            number: device
            for number, device in self._journal.parsed(_INTERFACE, _parse_number)
            if device >= self._first_number
        }

    def number_of(self, interface_id: int) -> int:
        """Return the device of an id, whether it is open or not; 0 for no id.

        Raises:
            DatapathError: TABLE_FULL: espd has no more.
        """
        if not interface_id:
            return 0
        if interface_id not in self._numbers:
            taken = {*self._numbers.values()}
            free = (n for n in range(p.MAX_DEVICES, self._first_number - 1, -1) if n not in taken)
            number = next(free, 0)
            if not number:
                raise DatapathError(
                    ErrorReason.TABLE_FULL, f"espd has room for {len(taken)} tunnel interfaces, no more"
                )
            self._numbers[interface_id] = number
            self._journal.note(_INTERFACE, str(interface_id), {"id": interface_id, "number": number})
        return self._numbers[interface_id]

    @property
    def numbers(self) -> Collection[int]:
        """Return the numbers of the devices that an id has."""
        return self._numbers.values()

    @property
    def links(self) -> Mapping[int, int]:
        """Return the devices that routes may lead to, by the index of their link."""
        return {
            known.link: self._numbers[known.interface.id]
            for known in self._opened.values()
            if known.is_routed
        }

    async def keep_only(self, interface_ids: Collection[int]) -> None:
        """Forget the numbers of ids that no SPD entry and no SA is about."""
        for interface_id in self._numbers.keys() - set(interface_ids):
            if not any(known.interface.id == interface_id for known in self._opened.values()):
                await self._close_device(self._numbers.pop(interface_id))
                self._journal.forget(_INTERFACE, str(interface_id))

    # --- devices ------------------------------------------------------------------------------------

    async def open_again(self) -> None:
        """Give a new espd the devices that the former one had; what fails is tried at the next change."""
        for name, known in tuple(self._opened.items()):
            try:
                await self._open(known.interface)
            except HostError as error:
                self._opened[name] = _Opened(known.interface, 0, is_routed=False)
                _log.warning("tunnel_interface_not_kept", interface=name, reason=str(error))

    async def follow(self) -> None:
        """Make again what was removed or taken down, and open what espd did not."""
        await self.tunnels.follow()
        for known in tuple(self._opened.values()):
            if not known.link:
                with suppress(HostError):
                    await self._open(known.interface)

    async def _open(self, interface: TunnelInterface) -> None:
        """Have espd open the device of an interface; one that it has open in the same way stays as it is."""
        known = self._opened.get(interface.name)
        if known is not None and known.interface.id != interface.id:
            await self._close(interface.name)
        is_routed = self._is_routed and not interface.vrf
        try:
            number = self.number_of(interface.id)
            link = await self._devices.open_tunnel(number, interface.name, is_routed=is_routed)
            if known is not None and known.link not in (0, link):  # another one has that name now
                await self._devices.close(number)
                link = await self._devices.open_tunnel(number, interface.name, is_routed=is_routed)
        except (EngineError, DatapathError) as error:
            raise HostError(str(error)) from error
        self._opened[interface.name] = _Opened(interface, link, is_routed)

    async def _close(self, name: str) -> None:
        """Have espd close a device, which stays."""
        known = self._opened.pop(name, None)
        if known is not None:
            await self._close_device(self._numbers[known.interface.id])

    async def _close_device(self, number: int) -> None:
        try:
            await self._devices.close(number)
        except EngineError as error:
            _log.warning("tunnel_device_not_closed", device=number, reason=str(error))


def _parse_number(value: Json) -> tuple[int, int]:
    return int(value["id"]), int(value["number"])
