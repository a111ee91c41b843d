"""The XDP program that forwards to NICs with packet offload (`ebpf/xdp_forward.bpf.c`), and its maps.

One program, with one set of maps, on all interfaces. Nothing is pinned: the program goes with this process,
however it ends, and packets take the way through the stack. Not for deciding what is forwarded.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.datapath.xfrm.lan_hops import Hops
from gateway.host.bpf.abi import (
    DEVICES,
    INBOUND_SAS,
    LEASE,
    LOCALS,
    NEXT_HOPS4,
    NEXT_HOPS6,
    OFFLOADED_SAS,
    PORTS,
    Counter,
    Exit,
    InboundNicSa,
    Local,
    NextHop,
    OffloadedSa,
    Port,
    PortKey,
    Prefix4,
    Prefix6,
    View,
    Word,
    read_counters,
)
from gateway.host.bpf.attach import Attachment, attach_xdp
from gateway.host.bpf.compiled import read_program
from gateway.host.bpf.objects import LoadedObject, load_object
from gateway.host.bpf.spd import SpdMaps, compile_spd
from gateway.host.errors import HostError
from gateway.host.network import IpAddress
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.policy import Policy
from gateway.observe.logs import get_logger

_log = get_logger(__name__)

_PROGRAM: Final = "xdp_forward"
_ENTRY: Final = "gw_forward"
_ONLY: Final = Word(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """One interface that was looked at."""

    index: int
    attachment: Attachment | None
    words: str
    """How the program runs there, or why not."""


class XdpForwarder:
    """The program and the interfaces it is attached to. Its calls block for microseconds.

    Raises:
        HostError: This kernel cannot run it, or we may not load it.
    """

    def __init__(self) -> None:
        self._loaded: LoadedObject = load_object(read_program(_PROGRAM))
        self._spd = SpdMaps(self._loaded.maps)
        self._attached: dict[str, Attached] = {}
        # `Any`: the keys are of two types.
        self._hop_views: tuple[View[Any, NextHop], ...] = (
            NEXT_HOPS4.of(self._loaded.maps),
            NEXT_HOPS6.of(self._loaded.maps),
        )
        self._hops: Hops | None = {}
        """What the maps have; `None`: not known."""
        self._policies: tuple[object, ...] = ((), {}, {})
        """Those in force, and their numbers."""

    def close(self) -> None:
        """Detach the program everywhere."""
        for item in self._attached.values():
            if item.attachment is not None:
                item.attachment.link.close()
        self._attached.clear()
        self._loaded.close()

    # --- interfaces ---------------------------------------------------------------------------------

    @property
    def attached(self) -> Mapping[str, Attached]:
        """Return the interfaces by name, those too where the program could not be attached."""
        return self._attached

    def follow(self, interfaces: Mapping[str, int]) -> None:
        """Attach the program to these interfaces, by name and index, and to no others.

        What cannot be attached is told, and tried again when the interface has another index.
        """
        for name, item in tuple(self._attached.items()):
            if interfaces.get(name) != item.index:
                del self._attached[name]
                if item.attachment is not None:
                    item.attachment.link.close()
        for name, index in interfaces.items():
            if name not in self._attached:
                self._attached[name] = self._attach(name, index)
                _log.info("forward_interface", interface=name, state=self._attached[name].words)

    def _attach(self, name: str, index: int) -> Attached:
        try:
            attachment = attach_xdp(self._loaded.programs[_ENTRY], name)
        except HostError as error:
            return Attached(index=index, attachment=None, words=f"no XDP: {error}")
        words = f"XDP {attachment.mode.name.lower()}"
        if attachment.reason:
            words += f" ({attachment.reason})"
        return Attached(index=index, attachment=attachment, words=words)

    def set_ports(self, ports: Mapping[PortKey, Port], addresses: Iterable[IpAddress]) -> None:
        """Say what we are on which interface, and which addresses are of this machine.

        Raises:
            KernelRefusedError: They are more than the maps have room for.
        """
        view = PORTS.of(self._loaded.maps)
        view.delete_many([key for key, _ in view.items() if key not in ports])
        view.set_many(ports)
        locals_ = LOCALS.of(self._loaded.maps)
        wanted = {Local(address) for address in addresses}
        locals_.set_many(dict.fromkeys(wanted, Word(1)))
        locals_.delete_many([key for key, _ in locals_.items() if key not in wanted])

    # --- what is forwarded --------------------------------------------------------------------------

    def set_hops(self, hops: Hops) -> None:
        """Say where what NICs decrypt is sent.

        Raises:
            KernelRefusedError: They are more than the maps have room for.
        """
        self._use_devices(hops.values())
        before, self._hops = self._hops, None
        if before is None:
            before = {key: hop for view in self._hop_views for key, hop in view.items()}
        for kind, view in zip((Prefix4, Prefix6), self._hop_views, strict=True):
            ours = {key: hop for key, hop in hops.items() if isinstance(key, kind)}
            view.set_many({key: hop for key, hop in ours.items() if before.get(key) != hop})
            view.delete_many([key for key in before if isinstance(key, kind) and key not in ours])
        self._hops = hops

    def set_sas(self, sas: Mapping[int, OffloadedSa]) -> None:
        """Say which SAs NICs encrypt by, by their numbers; others stay until `keep_sas`.

        Raises:
            KernelRefusedError: They are more than the map has room for.
        """
        self._use_devices(sa.hop for sa in sas.values())
        OFFLOADED_SAS.of(self._loaded.maps).set_many({Word(number): sa for number, sa in sas.items()})

    def set_inbound_sas(self, sas: Mapping[int, InboundNicSa]) -> None:
        """Say so of those that NICs decrypt by.

        Raises:
            KernelRefusedError: They are more than the map has room for.
        """
        INBOUND_SAS.of(self._loaded.maps).set_many({Word(number): sa for number, sa in sas.items()})

    def _use_devices(self, hops: Iterable[NextHop]) -> None:
        devices = DEVICES.of(self._loaded.maps)
        for index in {hop.ifindex for hop in hops} - {0}:
            devices.set(Word(index), Word(index))

    def remove_sas(self, numbers: Iterable[int]) -> None:
        """Forward nothing by these SAs from the next packet on."""
        words = [Word(number) for number in numbers]
        OFFLOADED_SAS.of(self._loaded.maps).delete_many(words)
        INBOUND_SAS.of(self._loaded.maps).delete_many(words)

    def keep_sas(self, numbers: Collection[int]) -> None:
        """Forward by these SAs only."""
        for table in (OFFLOADED_SAS, INBOUND_SAS):
            view = table.of(self._loaded.maps)
            view.delete_many([key for key, _ in view.items() if key.value not in numbers])

    def set_policies(
        self, policies: Sequence[Policy], offloaded: Mapping[str, int], inbound: Mapping[str, int]
    ) -> None:
        """Publish the SPD, if it is another one.

        Args:
            policies: All of it.
            offloaded: By the name of a policy: the number of the SA for what goes out.
            inbound: The same for what comes in.

        Raises:
            SpdUnsupportedError: It does not fit; the SPD of before stays in force.
            KernelRefusedError: A map is full.
        """
        wanted = tuple(policies), offloaded, inbound
        if wanted != self._policies:
            self._spd.publish(compile_spd(policies, offloaded=offloaded, inbound=inbound))
            self._policies = wanted

    def lease_until(self, until_ns: int) -> None:
        """Forward until then (CLOCK_MONOTONIC), unless told otherwise; 0: nothing."""
        LEASE.of(self._loaded.maps).set(_ONLY, Word(until_ns))

    def counters(self) -> dict[DropReason | Exit, Counter]:
        """Return how often the program ended in which way, on all interfaces."""
        return read_counters(self._loaded.maps)
