"""The XDP program in front of espd: on which interfaces it runs, and what it knows of SAs, SPD and addresses.

Each interface has a program of its own, `ebpf/xdp_inbound.bpf.c` on the outer side, `xdp_outbound.bpf.c` on
the inner one and `xdp_one_arm.bpf.c` on one that is both, with its own map of AF_XDP sockets, since a socket
takes frames of its own queue only; all other maps are shared. With a folder everything is pinned there, goes
on without us, and is adopted by the next agent, whose programs then take the place of the old ones between
two packets; without one it ends with us.

Not for deciding: callers say which interfaces, SAs and policies there are.
"""

import struct
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from gateway.host.bpf.abi import LOCALS, SAS, Counter, Exit, InboundSa, Local, Spi, Word, read_counters
from gateway.host.bpf.attach import XdpMode, attach_xdp, interface_index, why_not_in_driver
from gateway.host.bpf.compiled import read_program
from gateway.host.bpf.errors import AbiMismatchError, BpfError, KernelRefusedError
from gateway.host.bpf.maps import Map, adopt_map, create_map
from gateway.host.bpf.objects import LoadedObject, load_object
from gateway.host.bpf.pins import adopt_link, is_bpffs, mount_bpffs, pin, unmount_bpffs
from gateway.host.bpf.programs import Link, Program
from gateway.host.bpf.spd import SpdMaps, compile_spd
from gateway.host.bpf.spec import MapSpec, ObjectSpec
from gateway.host.network import IpAddress
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.policy import Policy
from gateway.observe.logs import get_logger

_log = get_logger(__name__)

PINS_NAME: Final = "bpf"
"""Of the folder in an agent's run directory where a bpffs is, if anybody could mount one."""
_SOCKETS: Final = "gw_xsks"
_SHARED: Final = "shared"
_LINK: Final = "link"
_ON: Final = "on-"


class Side(Enum):
    """Where an interface leads to."""

    OUTER = "outer"
    """To the peers: packets for our SAs come in there."""
    INNER = "inner"
    """To the networks that are protected: what the SPD wants protected comes in there."""
    BOTH = "both"
    """To both, as the only interface of a one-armed gateway does."""


_OBJECTS: Final = {Side.OUTER: "xdp_inbound", Side.INNER: "xdp_outbound", Side.BOTH: "xdp_one_arm"}
_PROGRAMS: Final = {Side.OUTER: "gw_inbound", Side.INNER: "gw_outbound", Side.BOTH: "gw_one_arm"}
_IKE_BURST_S: Final = 2
"""So many seconds' worth of first IKE messages may come at once."""
_SECOND_NS: Final = 1_000_000_000
_IKE_INTERVAL: Final = "gw_ike_interval_ns"
_IKE_TOLERANCE: Final = "gw_ike_tolerance_ns"
_EVENT_INTERVAL: Final = "gw_event_interval_ns"


@dataclass(frozen=True, slots=True, kw_only=True)
class SteeredInterface:
    """An interface whose packets for our SAs come to espd's sockets."""

    name: str
    side: Side
    ifindex: int
    loaded: LoadedObject
    link: Link
    reason: str
    """Why the program does not run in the driver; empty where it does."""

    @property
    def sockets_fd(self) -> int:
        """Return the map that espd puts its sockets into, by queue; it stays ours."""
        return self.loaded.maps[_SOCKETS].fd

    def close(self) -> None:
        """Close what we have of it; what is pinned goes on."""
        self.link.close()
        self.loaded.close()


class XdpSteering:
    """The XDP programs of one agent.

    Calls block for microseconds, `attach` and `set_policies` for milliseconds.

    Args:
        folder: Where a bpffs of ours is or will be; `None`: nothing outlives us.
        ike_per_s: So many first messages of IKE SAs may come in a second from one /24 or /56; 0: any number.
    """

    def __init__(self, folder: Path | None, ike_per_s: int = 0) -> None:
        self._folder = folder
        self._specs = {side: _with_guard(read_program(name), ike_per_s) for side, name in _OBJECTS.items()}
        self._shared: dict[str, Map] = {}
        self._spd: SpdMaps | None = None
        self._policies: tuple[Policy, ...] | None = None
        """Those in force; `None`: those of a former life, if any."""
        self._interfaces: dict[str, SteeredInterface] = {}

    # --- life ---------------------------------------------------------------------------------------

    def open(self) -> None:
        """Make or adopt the maps that all interfaces share.

        Maps of another version are left behind with the programs that use them: those are replaced next.

        Raises:
            BpfError: The kernel refused.
            MissingCapabilityError: We may not.
        """
        if self._folder is not None:
            mount_bpffs(self._folder)
            (self._folder / _SHARED).mkdir(exist_ok=True)
        # Those of the others are among them.
        for name, wanted in self._specs[Side.BOTH].maps.items():
            if wanted.contents is None and name != _SOCKETS:
                self._shared[name] = self._open_map(name, wanted)
        self._spd, self._policies = SpdMaps(self._shared), None

    def _open_map(self, name: str, wanted: MapSpec) -> Map:
        if self._folder is None:
            return create_map(wanted)
        path = self._folder / _SHARED / name
        if path.exists():
            try:
                return adopt_map(path, wanted)
            except AbiMismatchError:
                path.unlink()
        made = create_map(wanted)
        pin(made, path)
        return made

    def close(self) -> None:
        """Close everything; what is pinned goes on without us."""
        for interface in self._interfaces.values():
            interface.close()
        for shared in self._shared.values():
            shared.close()
        self._interfaces.clear()
        self._shared.clear()

    def remove(self) -> None:
        """End all of it: every program is detached, and nothing is left but perhaps an empty mount."""
        for name in self._pinned_interfaces():
            self.detach(name)
        self.close()
        if self._folder is None or not is_bpffs(self._folder):
            return
        for pinned in (self._folder / _SHARED).glob("*"):
            pinned.unlink()
        with suppress(BpfError):  # without CAP_SYS_ADMIN an empty one stays, for the next agent
            unmount_bpffs(self._folder)

    # --- interfaces ---------------------------------------------------------------------------------

    def attach(self, name: str, side: Side = Side.OUTER) -> SteeredInterface:
        """Run a program on an interface of this network namespace, or go on with what runs there.

        Raises:
            InterfaceTakenError: Another XDP program is there.
            BpfError: There is no such interface, or the kernel refused.
        """
        known, ifindex = self._interfaces.get(name), interface_index(name)
        if known is not None and known.ifindex == ifindex:
            return known
        if known is not None:
            known.close()
        folder = self._folder_of(name)
        if folder is not None:
            folder.mkdir(exist_ok=True)
        loaded = load_object(self._specs[side], shared=self._shared, pinned_in=folder)
        try:
            link, reason = self._link(name, loaded.programs[_PROGRAMS[side]], folder)
        except BaseException:
            loaded.close()
            raise
        self._interfaces[name] = SteeredInterface(
            name=name, side=side, ifindex=ifindex, loaded=loaded, link=link, reason=reason
        )
        return self._interfaces[name]

    def _link(self, name: str, program: Program, folder: Path | None) -> tuple[Link, str]:
        adopted = None if folder is None else adopt_link(folder / _LINK)
        if adopted is not None:
            try:
                _replace(adopted, program, name)
                return adopted, why_not_in_driver(name)
            except KernelRefusedError:  # of an interface that is gone; this one has the name only
                adopted.close()
                assert folder is not None
                (folder / _LINK).unlink()
        attached = attach_xdp(program, name)
        if folder is not None:
            pin(attached.link, folder / _LINK)
        return attached.link, "" if attached.mode is XdpMode.DRIVER else attached.reason

    def detach(self, name: str) -> None:
        """Run no program of ours on an interface any more; harmless where none runs."""
        known = self._interfaces.pop(name, None)
        if known is not None:
            _end(known.link)
            known.close()
        folder = self._folder_of(name)
        if folder is None or not folder.is_dir():
            return
        pinned_link = adopt_link(folder / _LINK)
        if pinned_link is not None:
            _end(pinned_link)
            pinned_link.close()
        for pinned in folder.iterdir():
            pinned.unlink()
        folder.rmdir()

    def keep_only(self, names: Collection[str]) -> None:
        """Detach what a former life attached to other interfaces."""
        for name in self._pinned_interfaces():
            if name not in names:
                self.detach(name)

    def _pinned_interfaces(self) -> list[str]:
        if self._folder is None or not is_bpffs(self._folder):
            return sorted(self._interfaces)
        folders = self._folder.glob(f"{_ON}*")
        return sorted(path.name.removeprefix(_ON).replace(":", ".") for path in folders)

    def _folder_of(self, name: str) -> Path | None:
        # A bpffs has no names with dots, interfaces none with colons.
        return None if self._folder is None else self._folder / f"{_ON}{name.replace('.', ':')}"

    # --- what the program knows ---------------------------------------------------------------------

    def set_addresses(self, addresses: Iterable[IpAddress]) -> None:
        """Say which addresses are of this machine: peers send there.

        Raises:
            KernelRefusedError: They are more than the map has room for.
        """
        view = LOCALS.of(self._shared)
        wanted = {Local(address) for address in addresses}
        view.delete_many({key for key, _ in view.items()} - wanted)
        view.set_many(dict.fromkeys(wanted, Word(1)))

    def set_sas(self, sas: Mapping[Spi, InboundSa]) -> None:
        """Say which inbound SAs there are, and that there are no others.

        Raises:
            KernelRefusedError: They are more than the map has room for.
        """
        view = SAS.of(self._shared)
        view.delete_many([spi for spi, _ in view.items() if spi not in sas])
        view.set_many(sas)

    def add_sa(self, spi: Spi, sa: InboundSa) -> None:
        """Steer the packets of an inbound SA.

        Raises:
            KernelRefusedError: There are too many.
        """
        SAS.of(self._shared).set(spi, sa)

    def remove_sa(self, spi: Spi) -> None:
        """Steer the packets of an SA no more; harmless where there is none."""
        SAS.of(self._shared).delete(spi)

    def set_policies(self, policies: Iterable[Policy]) -> str:
        """Have packets asked for in an SPD, all of it from one moment on (RFC 4301 §5.1 and §5.2).

        Entries of tunnel interfaces are none of ours: routes decide what they match.

        Returns:
            Why the SPD cannot be looked at in XDP, where it cannot: then every packet in clear goes to the
            stack, whose routes lead to the engine, and whose guard drops. Empty otherwise, and where it was
            said before.

        Raises:
            KernelRefusedError: Not even an empty SPD finds room: the one of before stays in force.
        """
        assert self._spd is not None, "not open"
        wanted = tuple(policy for policy in policies if not policy.interface_id)
        if wanted == self._policies:
            return ""
        said = ""
        try:
            self._spd.publish(compile_spd(wanted))
        except BpfError as error:
            self._spd.publish(compile_spd(()))
            said = str(error)
        self._policies = wanted
        return said

    def counters(self) -> dict[DropReason | Exit, Counter]:
        """Return how often programs ended in which way, on all interfaces."""
        return read_counters(self._shared)


def _with_guard(spec: ObjectSpec, ike_per_s: int) -> ObjectSpec:
    """Set a program's limit of first IKE messages; samples of unknown SPIs come from espd, by the stack."""
    if _IKE_INTERVAL not in spec.variables:
        return spec
    interval_ns = _SECOND_NS // ike_per_s if ike_per_s else 0
    values = {_IKE_INTERVAL: interval_ns, _IKE_TOLERANCE: _IKE_BURST_S * _SECOND_NS, _EVENT_INTERVAL: 0}
    return spec.with_constants({name: struct.pack("=Q", value) for name, value in values.items()})


def _replace(link: Link, program: Program, interface: str) -> None:
    """Have our program take the place of that of a former life."""
    former = link.inspect()
    link.replace(program)
    now = link.inspect()
    _log.info(
        "xdp_program_replaced",
        interface=interface,
        link=now.number,
        program=now.program,
        formerly=former.program,
    )


def _end(link: Link) -> None:
    """Detach a program now: a link that nobody has any more is done away with some time later."""
    with suppress(KernelRefusedError):  # it is detached already, or its interface is gone
        link.detach()
