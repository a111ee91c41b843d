"""The records and numbers of `hw/engine/include/gw_engine.h`, field by field.

`tests/engine` compares sizes and offsets with what the C compiler makes of them.
"""

import ctypes
from ctypes import c_uint8, c_uint16, c_uint32, c_uint64, c_void_p
from typing import Final

from gateway.ipsec.drop_reason import DropReason

HEADROOM: Final = 96
"""Bytes that a packet needs before it, and `TAILROOM` those behind it, beside TFC padding."""
TAILROOM: Final = 64
MAX_SELECTORS: Final = 64
MAX_WINDOW_BLOCKS: Final = 128
NEVER: Final = 2**64 - 1
"""No limit."""
NO_REF: Final = 0xFFFFFFFF
REF_INBOUND: Final = 0x80000000
SEED_BYTES: Final = 32
REASONS: Final = (None, *DropReason)
"""A reason's number is its place in the list (ebpf/include/gw_drop_reasons.h)."""


class Selector(ctypes.Structure):
    """`struct gw_selector`."""

    _fields_ = (
        ("start", c_uint8 * 16),
        ("end", c_uint8 * 16),
        ("start_port", c_uint16),
        ("end_port", c_uint16),
        ("family", c_uint8),
        ("protocol", c_uint8),
        ("reserved", c_uint16),
    )


class SaParams(ctypes.Structure):
    """`struct gw_sa_params`."""

    _fields_ = (
        ("spi", c_uint32),
        ("index", c_uint32),
        ("direction", c_uint8),
        ("protocol", c_uint8),
        ("mode", c_uint8),
        ("family", c_uint8),
        ("source", c_uint8 * 16),
        ("destination", c_uint8 * 16),
        ("udp_source_port", c_uint16),
        ("udp_destination_port", c_uint16),
        ("encryption", c_uint16),
        ("integrity", c_uint16),
        ("key_bits", c_uint16),
        ("encryption_key_bytes", c_uint16),
        ("integrity_key_bytes", c_uint16),
        ("replay_window", c_uint16),
        ("tfc_bytes", c_uint16),
        ("path_mtu", c_uint16),
        ("esn", c_uint8),
        ("copy_dscp", c_uint8),
        ("df", c_uint8),
        ("crypto", c_uint8),
        ("local_selectors", c_uint16),
        ("remote_selectors", c_uint16),
        ("encryption_key", c_uint8 * 40),
        ("integrity_key", c_uint8 * 64),
        ("soft_packets", c_uint64),
        ("hard_packets", c_uint64),
        ("soft_bytes", c_uint64),
        ("hard_bytes", c_uint64),
        ("next_sequence", c_uint64),
        ("sequence_limit", c_uint64),
        ("cookie", c_uint64),
        ("selectors", Selector * MAX_SELECTORS),
    )


class SaState(ctypes.Structure):
    """`struct gw_sa_state`."""

    _fields_ = (
        ("sequence", c_uint64),
        ("packets", c_uint64),
        ("bytes", c_uint64),
        ("window_packets", c_uint64),
        ("window", c_uint64 * MAX_WINDOW_BLOCKS),
        ("last_used_ns", c_uint64),
        ("drops", c_uint64 * len(REASONS)),
        ("told", c_uint64),
    )


class SaUsage(ctypes.Structure):
    """`struct gw_sa_usage`."""

    _fields_ = (
        ("sequence", c_uint64),
        ("packets", c_uint64),
        ("bytes", c_uint64),
        ("last_used_ns", c_uint64),
        ("drops", c_uint64 * len(REASONS)),
        ("effective_mtu", c_uint32),
        ("crypto", c_uint8),
        ("expired", c_uint8),
    )


class EventRecord(ctypes.Structure):
    """`struct gw_event`."""

    _fields_ = (
        ("cookie", c_uint64),
        ("ref", c_uint32),
        ("kinds", c_uint32),
        ("address", c_uint8 * 16),
        ("port", c_uint16),
        ("family", c_uint8),
        ("reserved", c_uint8 * 5),
    )


class PacketRecord(ctypes.Structure):
    """`struct gw_packet`."""

    _fields_ = (
        ("data", c_void_p),
        ("length", c_uint32),
        ("ref", c_uint32),
        ("sequence", c_uint64),
        ("headroom", c_uint16),
        ("tailroom", c_uint16),
        ("verdict", c_uint8),
        ("flags", c_uint8),
        ("reserved", c_uint16),
    )


class WorkerConfig(ctypes.Structure):
    """`struct gw_worker_config`."""

    _fields_ = (
        ("inbound_bits", c_uint32),
        ("outbound_sas", c_uint32),
        ("tunnels", c_uint32),
        ("crypto", c_uint32),
        ("seed", c_uint8 * SEED_BYTES),
        ("cold_packets", c_uint32),
    )


PACKET_DUMMY: Final = 1
"""A dummy packet (RFC 4303 §2.6), in `PacketRecord.flags`."""
