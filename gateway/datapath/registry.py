"""Build a datapath by name: the only file that names every backend."""

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.datapath.backend import DatapathError, ErrorReason, StartedDatapath
from gateway.host.sockets import NAT_T_PORT


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendOptions:
    """What any backend may be told. Two agents in one network namespace need other names and numbers."""

    tunnel_device: str = "ipsecgw0"
    tag: str = "0"
    mark: int | None = None
    """SO_MARK of our own packets; `None` for the backend's default, `default_mark`."""
    esp_sockets: Sequence[socket.socket] = ()
    """The ESP members of the UDP 4500 groups."""
    udp_ports: tuple[int, ...] = (500, NAT_T_PORT)


def default_mark() -> int:
    """Return the mark of our own packets, for who opens sockets beside a backend."""
    from gateway.datapath.software.options import DEFAULT_MARK  # noqa: PLC0415 - a backend is loaded when it is used

    return DEFAULT_MARK


def _make_software(options: BackendOptions) -> StartedDatapath:
    from gateway.datapath.software.backend import SoftwareBackend  # noqa: PLC0415 - as above
    from gateway.datapath.software.options import DEFAULT_MARK, SoftwareOptions  # noqa: PLC0415 - as above

    return SoftwareBackend(
        SoftwareOptions(
            tunnel_device=options.tunnel_device,
            tag=options.tag,
            mark=DEFAULT_MARK if options.mark is None else options.mark,
            udp_ports=options.udp_ports,
        ),
        options.esp_sockets,
    )


_BACKENDS: Final[dict[str, Callable[[BackendOptions], StartedDatapath]]] = {"software": _make_software}

AUTO: Final = "auto"


def backend_names() -> tuple[str, ...]:
    """Return the names that `make_backend` knows."""
    return (AUTO, *_BACKENDS)


def make_backend(name: str, options: BackendOptions | None = None) -> StartedDatapath:
    """Return a backend that is not started yet; `auto` is the best one this version has.

    Raises:
        DatapathError: There is none of that name.
    """
    make = _BACKENDS.get("software" if name == AUTO else name)
    if make is None:
        raise DatapathError(
            ErrorReason.NOT_FOUND,
            f"there is no datapath backend {name!r}: one of {', '.join(backend_names())}",
        )
    return make(options or BackendOptions())
