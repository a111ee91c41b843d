"""One SA as the kernel's, and the kernel's as ours: what NEWSA says, and what reading it back tells."""

import math
from dataclasses import dataclass
from typing import Final

from gateway.datapath.backend import SaCounters
from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.algorithms import kernel_algorithms, suite_of
from gateway.datapath.xfrm.numbers import (
    EncapsulationType,
    OffloadFlag,
    SaDirection,
    SaExtraFlag,
    SaFlag,
)
from gateway.datapath.xfrm.selectors import covering_cell
from gateway.datapath.xfrm.spd import KERNEL_MODE, kernel_mark
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.lifetime import SEQUENCE_SOFT_FRACTION
from gateway.ipsec.mark import Mark
from gateway.ipsec.sa import (
    Direction,
    IpAddress,
    IpsecProtocol,
    Mode,
    SaId,
    SecurityAssociation,
    UdpEncapsulation,
)

_SEQUENCES: Final = 1 << 32
SEQUENCE_SOFT_PACKETS: Final = int(SEQUENCE_SOFT_FRACTION * _SEQUENCES)
"""Without ESN an outbound SA is rekeyed after so many: each packet takes one number."""
_MAPPING_THRESHOLD_S: Final = 5
"""The kernel tells a peer's new address at most so often, unless the port changes (Linux 5.17)."""
_MAX_PLAIN_WINDOW: Final = 32
"""Larger windows need XFRMA_REPLAY_ESN_VAL, with or without ESN."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placing:
    """How an SA is put into the kernel, beside what it is."""

    reqid: int
    tag: int
    """In its selector, to tell ours from others'."""
    knows_direction: bool
    """Whether the kernel has XFRMA_SA_DIR (Linux 6.10)."""
    offload: r.Offload | None = None
    knows_cpu: bool = False
    """Whether the kernel has XFRMA_SA_PCPU (Linux 6.13)."""
    mark: int = 0
    """Of what SAs of a virtual interface send: routes into that interface are not for it."""
    answers: int = 0
    """The sequence number of the ACQUIRE that the SA answers; 0: of none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Whereabouts:
    """Where the packets of an SA go and come from now: the peer may have moved since it was installed."""

    source: IpAddress
    destination: IpAddress
    encapsulation: UdpEncapsulation | None

    def id_of(self, sa: SecurityAssociation) -> r.SaId:
        """Return the kernel's name of the SA."""
        return r.SaId(destination=self.destination, spi=sa.spi, protocol=sa.protocol)


def whereabouts_of(sa: SecurityAssociation) -> Whereabouts:
    """Return where an SA is when it is new."""
    return Whereabouts(source=sa.source, destination=sa.destination, encapsulation=sa.encapsulation)


# --- to the kernel --------------------------------------------------------------------------------


def kernel_sa(sa: SecurityAssociation, placing: Placing, at: Whereabouts) -> tuple[r.SaInfo, r.Attributes]:
    """Return what NEWSA says of an SA whose suite was checked."""
    is_inbound = sa.direction is Direction.INBOUND
    selector, flags = _selector_and_flags(sa, placing.tag)
    window = sa.replay_window_packets if is_inbound else 0
    needs_esn_attribute = sa.esn or window > _MAX_PLAIN_WINDOW
    direction = SaDirection.IN if is_inbound else SaDirection.OUT
    algorithms = kernel_algorithms(suite_of(sa), sa.encryption_key, sa.integrity_key)
    extra = SaExtraFlag(0) if is_inbound or sa.copy_dscp else SaExtraFlag.DONT_ENCAP_DSCP
    set_mark = _set_mark(sa, placing)
    pads = sa.tfc_padding_bytes and not is_inbound and sa.mode is Mode.TUNNEL
    info = r.SaInfo(
        id=at.id_of(sa),
        source=at.source,
        mode=KERNEL_MODE[sa.mode],
        reqid=placing.reqid,
        selector=selector,
        limits=kernel_limits(sa),
        replay_window=0 if needs_esn_attribute else window,
        flags=flags,
        sequence=placing.answers,
    )
    return info, r.Attributes(
        encryption=algorithms.encryption,
        integrity=algorithms.integrity,
        aead=algorithms.aead,
        encapsulation=kernel_encapsulation(at.encapsulation),
        replay_esn=_empty_window(window, placing) if needs_esn_attribute else None,
        extra_flags=extra or None,
        tfc_padding_bytes=sa.tfc_padding_bytes if pads else None,
        mapping_threshold_s=_MAPPING_THRESHOLD_S if is_inbound and at.encapsulation else None,
        direction=direction if placing.knows_direction else None,
        offload=placing.offload,
        if_id=sa.interface_id or None,
        cpu=_cpu(sa, placing),
        mark=kernel_mark(sa.mark),
        set_mark=None if set_mark is None else set_mark.value,
        set_mark_mask=None if set_mark is None else set_mark.mask,
    )


def _cpu(sa: SecurityAssociation, placing: Placing) -> int | None:
    """Return the CPU whose packets alone take an SA.

    Whatever CPU an inbound packet is on, its SPI says which SA it is for; and a NIC that looks up policies
    itself has no CPUs.
    """
    is_of_nic = placing.offload is not None and OffloadFlag.PACKET in placing.offload.flags
    if sa.direction is Direction.INBOUND or is_of_nic or not placing.knows_cpu:
        return None
    return sa.cpu


def _set_mark(sa: SecurityAssociation, placing: Placing) -> Mark | None:
    """Return the mark that an SA gives to packets: the operator's, or ours for traffic of an interface."""
    if sa.set_mark is not None:
        return sa.set_mark
    needs_ours = sa.interface_id and sa.direction is Direction.OUTBOUND and placing.mark
    return Mark(placing.mark) if needs_ours else None


@dataclass(frozen=True, slots=True)
class KernelName:
    """What the kernel finds an SA by."""

    id: r.SaId
    mark: r.Mark | None = None

    @property
    def attributes(self) -> r.Attributes:
        """Return the attributes of a request about it."""
        return r.Attributes(mark=self.mark)


def kernel_name(kernel_id: r.SaId, sa: SecurityAssociation) -> KernelName:
    """Return what the kernel finds one of ours by."""
    return KernelName(kernel_id, kernel_mark(sa.mark))


def _selector_and_flags(sa: SecurityAssociation, tag: int) -> tuple[r.Selector, SaFlag]:
    flags = SaFlag.ESN if sa.esn else SaFlag(0)
    if sa.direction is Direction.OUTBOUND and sa.mode is Mode.TUNNEL and not sa.copy_df:
        flags |= SaFlag.NOPMTUDISC
    if sa.protocol is IpsecProtocol.AH and sa.source.version == 4:
        # As RFC 4302 §3.3.3.2.1 says; without it Linux aligns AH to 64 bits also over IPv4.
        flags |= SaFlag.ALIGN4
    cell = covering_cell(sa.local_ts, sa.remote_ts)
    if cell is None:
        # Of both families: the policies alone say what it may carry.
        return r.Selector(user=tag), flags | SaFlag.AF_UNSPEC
    if sa.direction is Direction.INBOUND:
        return cell.inbound(tag), flags
    return cell.outbound(tag), flags


def _empty_window(window: int, placing: Placing) -> r.ReplayStateEsn:
    if window == 0 and not placing.knows_direction:
        # An outbound SA with ESN has no window, but kernels that know no direction want one.
        window = _MAX_PLAIN_WINDOW
    return r.ReplayStateEsn(window_packets=window)


def kernel_encapsulation(encapsulation: UdpEncapsulation | None) -> r.Encapsulation | None:
    """Return the ports of ESP in UDP as the kernel wants them."""
    if encapsulation is None:
        return None
    return r.Encapsulation(
        type=EncapsulationType.ESP_IN_UDP,
        source_port=encapsulation.source_port,
        destination_port=encapsulation.destination_port,
    )


def kernel_limits(sa: SecurityAssociation) -> r.LifetimeLimits:
    """Return the limits of an SA.

    The kernel counts whole seconds: soft limits are rounded down, hard ones up, and a second is between them.
    """
    soft, hard = sa.lifetime.soft, sa.lifetime.hard
    soft_packets = soft.packets
    if sa.direction is Direction.OUTBOUND and not sa.esn:
        soft_packets = min(soft.packets or SEQUENCE_SOFT_PACKETS, SEQUENCE_SOFT_PACKETS)
    soft_s = 0 if soft.seconds is None else max(1, int(soft.seconds))
    hard_s = 0 if hard.seconds is None else max(1, soft_s + 1, math.ceil(hard.seconds))
    return r.LifetimeLimits(
        soft_bytes=soft.bytes,
        hard_bytes=hard.bytes,
        soft_packets=soft_packets,
        hard_packets=hard.packets,
        soft_add_s=soft_s,
        hard_add_s=hard_s,
    )


# --- from the kernel ------------------------------------------------------------------------------


def sequence_number(attributes: r.Attributes, direction: Direction) -> int:
    """Return the last number that was sent, or the highest that was accepted."""
    is_inbound = direction is Direction.INBOUND
    if attributes.replay_esn is not None:
        esn = attributes.replay_esn
        low, high = (esn.inbound, esn.inbound_high) if is_inbound else (esn.outbound, esn.outbound_high)
        return high << 32 | low
    if attributes.replay is not None:
        return attributes.replay.inbound if is_inbound else attributes.replay.outbound
    return 0


def counters_of(
    sa_id: SaId, direction: Direction, info: r.SaInfo, attributes: r.Attributes, now_s: float
) -> SaCounters:
    """Return the counters of an SA.

    Args:
        sa_id: Our name of it.
        direction: Of the SA.
        info: As the kernel lists it.
        attributes: The same.
        now_s: Seconds since 1970.
    """
    statistics = info.statistics
    drops = {
        DropReason.REPLAY: statistics.replay,
        DropReason.REPLAY_WINDOW: statistics.replay_window,
        DropReason.INTEGRITY: statistics.integrity_failed,
    }
    # `last_used_s` is of the last packet, but offloading drivers do not tell it; the first one they do.
    used_s = attributes.last_used_s or info.usage.use_time_s
    return SaCounters(
        sa_id=sa_id,
        packets=info.usage.packets,
        bytes=info.usage.bytes,
        sequence=sequence_number(attributes, direction),
        drops={reason: count for reason, count in drops.items() if count},
        last_used_s_ago=max(0.0, now_s - used_s) if used_s else None,
    )


def reached_limit(sa: SecurityAssociation, usage: r.LifetimeUsage, *, is_hard: bool) -> str:
    """Return which limit an EXPIRE is about: `seconds`, `bytes`, `packets` or `sequence`."""
    limit = sa.lifetime.hard if is_hard else sa.lifetime.soft
    if limit.bytes is not None and usage.bytes >= limit.bytes:
        return "bytes"
    if limit.packets is not None and usage.packets >= limit.packets:
        return "packets"
    counts_numbers = sa.direction is Direction.OUTBOUND and not sa.esn and not is_hard
    return "sequence" if counts_numbers and usage.packets >= SEQUENCE_SOFT_PACKETS else "seconds"
