"""Build a datapath by name: the only file that names every backend."""

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from gateway.datapath.backend import DEFAULT_MARK, DatapathError, ErrorReason, StartedDatapath
from gateway.host.sockets import NAT_T_PORT
from gateway.ipsec.placement import Engine

ENGINE_IO: Final = ("auto", "af_xdp", "live", "af_packet")
"""By what the native engine may send on interfaces of its own; `auto`: whatever works best."""

ENGINE_IKE_PER_S: Final = 100
"""First messages of IKE SAs in a second from one /24 or /56, on interfaces of the native engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendOptions:
    """What any backend may be told. Two agents in one network namespace need other names and numbers."""

    tunnel_device: str = "ipsecgw0"
    tag: str = "0"
    mark: int = DEFAULT_MARK
    """SO_MARK of our own packets."""
    esp_sockets: Sequence[socket.socket] = ()
    """The ESP members of the UDP 4500 groups."""
    udp_ports: tuple[int, ...] = (500, NAT_T_PORT)
    state_dir: Path | None = None
    """Where a backend whose SAs outlive it may note what it must know of them; `None`: it adopts nothing."""
    spreads_esp: bool = False
    """Whether the kernel's ESP is spread over the CPUs by an XDP program, where that helps."""
    forward_interfaces: tuple[str, ...] = ()
    """Those from which XDP forwards to NICs with packet offload."""
    forward_inbound: tuple[str, ...] = ()
    """NICs from which XDP forwards to those, because they let nothing in in clear."""
    engine_interfaces: tuple[str, ...] = ()
    """Those to the peers that the native engine has for itself, by XDP."""
    engine_inner_interfaces: tuple[str, ...] = ()
    """The same to the networks that are protected."""
    engine_ike_per_s: int = ENGINE_IKE_PER_S
    """So many first messages of IKE SAs may come in there in a second from one /24 or /56; 0: any number."""
    engine_io: str = ENGINE_IO[0]
    """By what it sends there."""
    engine_cpus: tuple[int, ...] = ()
    """A worker of the native engine for each, pinned to it; none: one worker on any CPU."""
    engine_busy_poll: bool = False
    """Whether they never sleep."""
    is_alone: bool = True
    """Whether no other backend runs here that ESP packets may be for."""


def default_mark() -> int:
    """Return the mark of our own packets, for who opens sockets beside a backend."""
    return DEFAULT_MARK


def _make_software(options: BackendOptions) -> StartedDatapath:
    from gateway.datapath.software.backend import SoftwareBackend  # noqa: PLC0415 - loaded when it is used
    from gateway.datapath.software.options import (  # noqa: PLC0415 - as above
        DEFAULT_PROTECTION,
        SoftwareOptions,
    )

    return SoftwareBackend(
        SoftwareOptions(
            protection=replace(
                DEFAULT_PROTECTION,
                tunnel_device=options.tunnel_device,
                tag=options.tag,
                mark=options.mark,
                udp_ports=options.udp_ports,
            ),
            is_alone=options.is_alone,
        ),
        options.esp_sockets,
    )


def _make_xfrm(options: BackendOptions) -> StartedDatapath:
    from gateway.datapath.xfrm.backend import XfrmBackend  # noqa: PLC0415 - as above
    from gateway.datapath.xfrm.options import XfrmOptions  # noqa: PLC0415 - as above

    journal = None if options.state_dir is None else options.state_dir / "xfrm.journal"
    xfrm_options = XfrmOptions(
        tag=options.tag,
        mark=options.mark,
        journal=journal,
        spreads_esp=options.spreads_esp,
        forward_interfaces=options.forward_interfaces,
        forward_inbound=options.forward_inbound,
    )
    return XfrmBackend(xfrm_options, options.esp_sockets)


def _make_engine(options: BackendOptions) -> StartedDatapath:
    from gateway.datapath.engine.backend import EngineBackend  # noqa: PLC0415 - as above
    from gateway.datapath.engine.options import (  # noqa: PLC0415 - as above
        DEFAULT_PROTECTION,
        EngineOptions,
    )

    protection = replace(
        DEFAULT_PROTECTION,
        tunnel_device=f"{options.tunnel_device}e",
        tag=f"{options.tag}_engine",
        mark=options.mark,
        udp_ports=options.udp_ports,
    )
    engine_options = EngineOptions(
        state_dir=options.state_dir,
        protection=protection,
        is_alone=options.is_alone,
        interfaces=options.engine_interfaces,
        inner_interfaces=options.engine_inner_interfaces,
        ike_per_s=options.engine_ike_per_s,
        sending=options.engine_io,
        cpus=options.engine_cpus or (None,),
        busy_poll=options.engine_busy_poll,
    )
    return EngineBackend(engine_options, options.esp_sockets)


_BACKENDS: Final[dict[str, Callable[[BackendOptions], StartedDatapath]]] = {
    "software": _make_software,
    "xfrm": _make_xfrm,
    "engine": _make_engine,
}

ENGINES: Final[dict[str, tuple[Engine, ...]]] = {
    "xfrm": (Engine.NIC_PACKET, Engine.NIC_CRYPTO, Engine.KERNEL),
    "engine": (Engine.ENGINE,),
    "software": (Engine.SOFTWARE,),
}
"""What each backend drives where it can run."""

AUTO: Final = "auto"
AUTOMATIC: Final = ("xfrm", "engine", "software")
"""The backends that `auto` starts, in this order."""


def backend_names() -> tuple[str, ...]:
    """Return the names of the backends, behind `auto`, which stands for those of `AUTOMATIC` that can run."""
    return (AUTO, *ENGINES)


def make_backend(name: str, options: BackendOptions | None = None) -> StartedDatapath:
    """Return a backend that is not started yet.

    Raises:
        DatapathError: There is none of that name.
    """
    make = _BACKENDS.get(name)
    if make is None:
        raise DatapathError(
            ErrorReason.NOT_FOUND,
            f"there is no datapath backend {name!r}: one of {', '.join(_BACKENDS)}",
        )
    return make(options or BackendOptions())
