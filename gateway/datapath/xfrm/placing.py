"""Put an SA where it is wanted: into the kernel, or into a NIC by the kernel, and look where it really is.

Linux takes an SA with a request for crypto offload also where the driver does not do it, and says nothing. So
each SA is read back, and an outbound one is tried first under a reqid that no policy leads to: once it is
installed a packet may use it, and then it must not be made anew elsewhere (RFC 4106 §2).
"""

import errno
from dataclasses import dataclass, replace
from typing import Final

from gateway.datapath.backend import DatapathError, ErrorReason
from gateway.datapath.select import our_address
from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.errors import KernelRefusedError, XfrmError
from gateway.datapath.xfrm.installation import KernelName
from gateway.datapath.xfrm.kernel import Placed, delete_sas, put_sa
from gateway.datapath.xfrm.netlink import Sa, XfrmSocket
from gateway.datapath.xfrm.numbers import OffloadFlag
from gateway.datapath.xfrm.probe import explain_refusal
from gateway.ipsec.placement import Engine, PlacementReason
from gateway.ipsec.sa import Direction, SecurityAssociation

ENGINES: Final = (Engine.NIC_PACKET, Engine.NIC_CRYPTO, Engine.KERNEL)
"""What the kernel can be asked for."""
UNUSED_REQID: Final = 0x696FFFFF
"""Of SAs on trial."""

_OFFLOAD_FLAGS: Final = {Engine.NIC_PACKET: OffloadFlag.PACKET, Engine.NIC_CRYPTO: OffloadFlag(0)}
_REFUSED_WORDS: Final = {Engine.NIC_PACKET: "packet offload", Engine.NIC_CRYPTO: "crypto offload"}


@dataclass(frozen=True, slots=True)
class Device:
    """The interface that has one of our addresses."""

    name: str
    index: int


def offload_of(sa: SecurityAssociation, engine: Engine, device: Device | None) -> r.Offload | None:
    """Return the request for an engine; `None` for the kernel's own.

    Raises:
        DatapathError: PLACEMENT_UNAVAILABLE: there is no device to offload to.
    """
    if engine is Engine.KERNEL:
        return None
    if device is None:
        raise _unavailable(
            PlacementReason.NO_DEVICE, f"no interface has {our_address(sa)}, so none can offload its SAs"
        )
    flags = _OFFLOAD_FLAGS[engine]
    if sa.direction is Direction.INBOUND:
        flags |= OffloadFlag.INBOUND
    if sa.source.version == 6:
        flags |= OffloadFlag.IPV6
    return r.Offload(link=device.index, flags=flags)


def engine_of(offload: r.Offload | None) -> Engine:
    """Return where an SA is that was read back with this."""
    if offload is None:
        return Engine.KERNEL
    return Engine.NIC_PACKET if offload.flags & OffloadFlag.PACKET else Engine.NIC_CRYPTO


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One SA on its way into the kernel."""

    sa: SecurityAssociation
    engine: Engine
    device: Device | None
    info: r.SaInfo
    attributes: r.Attributes
    replaces_larval: bool


def place(xfrm: XfrmSocket, request: Request) -> Sa:
    """Put an SA into the kernel and return it as it is there; in the netlink thread.

    Raises:
        DatapathError: It is not where it was wanted, and was never used.
    """
    if request.engine is Engine.KERNEL:
        return _put(xfrm, request).sa
    if request.sa.direction is Direction.OUTBOUND:
        trial = replace(request, info=replace(request.info, reqid=UNUSED_REQID))
        _check_offloaded(xfrm, trial, _put(xfrm, trial))
        delete_sas(xfrm, [KernelName(trial.info.id, trial.attributes.mark)])
        # Between trial and installation another SA may take the last place: then it is told where it is.
        return _put(xfrm, replace(request, replaces_larval=False)).sa
    placed = _put(xfrm, request)
    _check_offloaded(xfrm, request, placed)
    return placed.sa


def _put(xfrm: XfrmSocket, request: Request) -> Placed:
    try:
        return put_sa(xfrm, request.info, request.attributes, replaces_larval=request.replaces_larval)
    except KernelRefusedError as error:
        raise _refused(error, request) from error
    except XfrmError as error:
        raise DatapathError(ErrorReason.SYSTEM, str(error)) from error


def _check_offloaded(xfrm: XfrmSocket, request: Request, placed: Placed) -> None:
    """Remove an SA that is not where it was wanted.

    Raises:
        DatapathError: It was not.
    """
    found = engine_of(placed.sa.attributes.offload)
    if found is request.engine:
        return
    said = f": {placed.said}" if placed.said else ""
    delete_sas(xfrm, [KernelName(request.info.id, request.attributes.mark)])
    assert request.device is not None
    raise _unavailable(
        PlacementReason.KERNEL_IGNORED_OFFLOAD,
        f"the kernel took the SA without {_REFUSED_WORDS[request.engine]} to {request.device.name}{said}",
    )


def _refused(error: KernelRefusedError, request: Request) -> DatapathError:
    """Return the kernel's refusal of an SA in our words."""
    sa = request.sa
    if error.code == errno.EEXIST:
        return DatapathError(
            ErrorReason.SPI_IN_USE, f"the kernel has another SA with SPI {sa.spi:08x} to {sa.destination}"
        )
    if request.device is not None:
        words = f"{request.device.name} refused {_REFUSED_WORDS[request.engine]}: {error.text or error}"
        return _unavailable(PlacementReason.DRIVER_REFUSED, words)
    reason = ErrorReason.TABLE_FULL if error.code in (errno.ENOMEM, errno.ENOBUFS) else ErrorReason.SYSTEM
    return DatapathError(reason, explain_refusal(error, sa.protocol, sa.source.version))


def policy_refused(error: DatapathError, device: Device) -> DatapathError:
    """Return the refusal of an SA whose policies the device did not take."""
    return _unavailable(
        PlacementReason.DRIVER_REFUSED, f"{device.name} refused the policies of packet offload: {error}"
    )


def _unavailable(why: PlacementReason, text: str) -> DatapathError:
    return DatapathError(ErrorReason.PLACEMENT_UNAVAILABLE, text, why=why)
