"""Several requests to the kernel that belong together; each function runs whole in the netlink thread."""

import contextlib
import errno
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeVar

from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.errors import KernelRefusedError, XfrmError
from gateway.datapath.xfrm.installation import KernelName
from gateway.datapath.xfrm.netlink import Policy, Sa, XfrmListener, XfrmSocket
from gateway.datapath.xfrm.numbers import Group, Mode
from gateway.datapath.xfrm.spd import ANY_ADDRESS, Change, Key
from gateway.ipsec.sa import MAX_SPI, MIN_SPI, IpAddress, IpsecProtocol

T = TypeVar("T")

_SEQUENCE_MARGIN: Final = 1 << 12
"""Numbers that another CPU may have taken while the SA was being deleted."""


@dataclass(frozen=True, slots=True)
class Placed:
    """An SA as the kernel has it."""

    sa: Sa
    said: str
    """What the kernel said beside its success."""


def put_sa(xfrm: XfrmSocket, info: r.SaInfo, attributes: r.Attributes, *, replaces_larval: bool) -> Placed:
    """Put an SA into the kernel and read it back.

    Args:
        xfrm: To ask.
        info: The SA.
        attributes: Its attributes.
        replaces_larval: Its SPI came from ALLOCSPI, which left an SA without keys.

    Raises:
        XfrmError: The kernel refused.
    """
    try:
        xfrm.add_sa(info, attributes)
    except KernelRefusedError as error:
        if error.code != errno.EEXIST or not replaces_larval:
            raise
        xfrm.update_sa(info, attributes)
    said = xfrm.warning
    return Placed(xfrm.sa(info.id, r.Attributes(mark=attributes.mark)), said)


def delete_sas(xfrm: XfrmSocket, names: Iterable[KernelName]) -> None:
    """Delete SAs; one that is not there is no error."""
    for name in names:
        _tolerate(errno.ESRCH, partial(xfrm.delete_sa, attributes=name.attributes), name.id)


def read_sas(xfrm: XfrmSocket, names: Iterable[KernelName]) -> dict[r.SaId, Sa]:
    """Return SAs as the kernel has them; those that are not there are left out."""
    found = {}
    for name in names:
        with contextlib.suppress(KernelRefusedError):
            found[name.id] = xfrm.sa(name.id, name.attributes)
    return found


def read_policies(xfrm: XfrmSocket, keys: Iterable[Key]) -> dict[Key, Policy]:
    """Return policies as the kernel has them; those that are not there are left out."""
    found = {}
    for key in keys:
        name = r.PolicyId(direction=key.direction, selector=key.selector)
        with contextlib.suppress(KernelRefusedError):
            found[key] = xfrm.policy(name, r.Attributes(if_id=key.if_id or None))
    return found


def delete_policies(xfrm: XfrmSocket, keys: Iterable[Key]) -> None:
    """Delete policies; one that is not there is no error."""
    for key in keys:
        policy = r.PolicyId(direction=key.direction, selector=key.selector)
        attributes = r.Attributes(if_id=key.if_id or None, mark=key.mark)
        _tolerate(errno.ENOENT, partial(xfrm.delete_policy, attributes=attributes), policy)


def _tolerate(code: int, call: Callable[[T], None], name: T) -> None:
    """Call with the name of something; that it is not there is a success."""
    try:
        call(name)
    except KernelRefusedError as error:
        if error.code != code:
            raise


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a list of changes came."""

    done: tuple[Change, ...]
    error: XfrmError | None = None
    """Why no further."""


def change_policies(xfrm: XfrmSocket, changes: Sequence[Change]) -> Progress:
    """Make changes of policies in their order, up to the first that the kernel refuses."""
    for count, change in enumerate(changes):
        try:
            if change.policy is None:
                delete_policies(xfrm, (change.key,))
            else:
                info = r.PolicyInfo(
                    selector=change.key.selector,
                    direction=change.key.direction,
                    action=change.policy.action,
                    priority=change.policy.priority,
                )
                attributes = r.Attributes(
                    templates=change.policy.templates or None,
                    offload=change.policy.offload,
                    if_id=change.key.if_id or None,
                    mark=change.key.mark,
                )
                xfrm.update_policy(info, attributes)
        except XfrmError as error:
            return Progress(tuple(changes[:count]), error)
    return Progress(tuple(changes))


def move_sa(xfrm: XfrmSocket, old: r.SaId, info: r.SaInfo, attributes: r.Attributes) -> Sa:
    """Give an outbound SA another destination: the kernel cannot change it, so the SA is made anew.

    Its sequence numbers go on behind those that the old one had used when it was gone: the kernel tells them
    with its deletion. Between the two a packet that needs the SA is dropped.

    Raises:
        XfrmError: The kernel refused; the old SA may be gone then.
    """
    with XfrmListener([Group.SA]) as listener:
        xfrm.delete_sa(old, r.Attributes(mark=attributes.mark))
        last = _find_deleted(listener, old)
    if last is None:
        raise KernelRefusedError(
            errno.ENOENT, "XFRM_MSG_DELSA", text="it did not tell the last sequence number"
        )
    replay, replay_esn = _after(last)
    attributes = replace(attributes, replay=replay, replay_esn=replay_esn, usage=last.usage)
    xfrm.add_sa(info, attributes)
    return xfrm.sa(info.id, r.Attributes(mark=attributes.mark))


def _find_deleted(listener: XfrmListener, kernel_id: r.SaId) -> r.Attributes | None:
    while messages := listener.receive():
        for message in messages:
            if isinstance(message.body, r.SaId) and message.body == kernel_id:
                return message.attributes
    return None


def _after(last: r.Attributes) -> tuple[r.ReplayState | None, r.ReplayStateEsn | None]:
    """Return sequence numbers behind those of an SA that is gone."""
    if last.replay_esn is not None:
        sent = (last.replay_esn.outbound_high << 32 | last.replay_esn.outbound) + _SEQUENCE_MARGIN
        return None, replace(last.replay_esn, outbound=sent & 0xFFFFFFFF, outbound_high=sent >> 32)
    sent = (last.replay.outbound if last.replay is not None else 0) + _SEQUENCE_MARGIN
    return r.ReplayState(outbound=sent), None


def allocate_spis(xfrm: XfrmSocket, count: int, destination: IpAddress) -> tuple[int, ...]:
    """Reserve SPIs at the kernel for half a minute, by SAs without keys (ALLOCSPI).

    Raises:
        XfrmError: The kernel gives none.
    """
    wanted = r.SaInfo(
        id=r.SaId(destination=destination, spi=0, protocol=IpsecProtocol.ESP),
        source=ANY_ADDRESS[destination.version],
        mode=Mode.TUNNEL,
    )
    spis = r.SpiRange(sa=wanted, lowest=MIN_SPI, highest=MAX_SPI)
    return tuple(xfrm.allocate_spi(spis).body.id.spi for _ in range(count))
