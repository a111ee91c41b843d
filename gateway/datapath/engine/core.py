"""The ESP core library of `hw/engine`, loaded into this process: for tests and benchmarks.

The gateway itself never calls it: packets are the business of `espd`, which has the same library inside.
"""

import ctypes
import os
import sys
from collections.abc import Iterable, Sequence
from ctypes import c_uint8, c_uint16, c_uint32, c_uint64, c_void_p
from enum import IntEnum, IntFlag
from pathlib import Path
from typing import Final, NamedTuple

from gateway.datapath.engine.records import (
    HEADROOM,
    MAX_SELECTORS,
    NEVER,
    NO_REF,
    PACKET_DUMMY,
    REASONS,
    EventRecord,
    PacketRecord,
    SaParams,
    SaState,
    SaUsage,
    Selector,
    WorkerConfig,
)
from gateway.ipsec.algorithms import Encr, Integ
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.errors import GatewayError
from gateway.ipsec.sa import Direction, IpAddress, IpsecProtocol, Mode, SecurityAssociation
from gateway.ipsec.selectors import TrafficSelector

_DF_COPY, _DF_CLEAR = 0, 2
"""Of `enum gw_df`."""


class Crypto(IntEnum):
    """Who computes: `enum gw_crypto`."""

    AUTO = 0
    IPSECMB = 1
    OPENSSL = 2


class EngineError(GatewayError):
    """The library refused something, or is not there."""


class Refusal(IntEnum):
    """Why the library refused: `enum gw_error`."""

    MEMORY = -1
    INVALID = -2
    UNSUPPORTED = -3
    KEY = -4
    TAKEN = -5
    NO_SA = -6
    CRYPTO = -7


class Refused(EngineError):
    """The library returned an error."""

    def __init__(self, reason: Refusal, what: str) -> None:
        super().__init__(f"the engine refused to {what}: {reason.name.lower()}")
        self.reason = reason


class EventKind(IntFlag):
    """What happened to an SA: `enum gw_event_kind`."""

    SOFT_PACKETS = 1
    HARD_PACKETS = 2
    SOFT_BYTES = 4
    HARD_BYTES = 8
    SOFT_SEQUENCE = 16
    HARD_SEQUENCE = 32
    RESERVE = 64
    NAT_MOVED = 128


# --- results --------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """What became of one packet."""

    packet: bytes
    """As it left, if it was carried."""
    drop: DropReason | None
    ref: int
    """The SA."""
    sequence: int
    """The full sequence number, or 0."""


class Usage(NamedTuple):
    """Counters of one SA."""

    sequence: int
    packets: int
    bytes: int
    """Inner bytes."""
    drops: dict[DropReason, int]
    effective_mtu: int
    crypto: Crypto
    is_expired: bool


class Event(NamedTuple):
    """What happened to one SA since the last call."""

    cookie: int
    ref: int
    kinds: EventKind
    address: bytes
    """Of the peer, packed."""
    port: int


# --- the library ----------------------------------------------------------------------------------

INSTALLED: Final = Path(sys.prefix) / "engine" / "libgw_engine.so"
"""In the Debian package, whose Python environment is a directory of its own."""


def library_path() -> Path:
    """Return where the Debian package or `make engine` puts the library; `IPSECGW_ENGINE` names another."""
    named = os.environ.get("IPSECGW_ENGINE")
    if named:
        return Path(named)
    if INSTALLED.exists():
        return INSTALLED
    cache = os.environ.get("IPSECGW_CACHE") or Path.home() / ".cache" / "ipsecgw"
    return Path(cache) / "engine" / "libgw_engine.so"


class EngineLibrary:
    """The library, loaded."""

    def __init__(self, path: Path | None = None) -> None:
        """Load it.

        Raises:
            EngineError: It is not there, or not loadable.
        """
        self.path = path or library_path()
        try:
            self.c = ctypes.CDLL(str(self.path))
        except OSError as error:
            raise EngineError(f"cannot load {self.path}: {error}; `make engine` builds it") from error
        self.c.gw_worker_new.restype = c_void_p
        self.c.gw_seal_burst.restype = ctypes.c_size_t
        self.c.gw_open_burst.restype = ctypes.c_size_t
        self.c.gw_worker_drain_events.restype = ctypes.c_size_t
        self.c.gw_fragment.restype = ctypes.c_size_t
        self.c.gw_tunnel_sa.restype = c_uint32
        self.c.gw_drop_name.restype = ctypes.c_char_p
        self.c.gw_crypto_name.restype = ctypes.c_char_p

    def crypto_name(self, crypto: Crypto) -> str:
        """Return name and version of a crypto library; empty where build or CPU lack it."""
        name: bytes = self.c.gw_crypto_name(int(crypto))
        return name.decode()

    def drop_names(self) -> list[str]:
        """Return the names of all drop reasons, by number."""
        return [self.c.gw_drop_name(number).decode() for number in range(len(REASONS))]

    def choose_crypto(self, sa: SecurityAssociation, wanted: Crypto = Crypto.AUTO) -> Crypto | None:
        """Return who would compute an SA's suite; `None`: nobody."""
        chosen: int = self.c.gw_suite_crypto(
            int(sa.protocol), int(sa.encryption), int(sa.integrity), sa.key_bits, int(wanted)
        )
        return Crypto(chosen) if chosen > 0 else None

    def has_suite(self, encryption: Encr, integrity: Integ, key_bits: int, crypto: Crypto) -> bool:
        """Return whether a crypto library has a suite of ESP."""
        chosen: int = self.c.gw_suite_crypto(
            int(IpsecProtocol.ESP), int(encryption), int(integrity), key_bits, int(crypto)
        )
        return chosen > 0

    def fragment(self, packet: bytes, mtu: int) -> list[bytes]:
        """Return an IPv4 packet in pieces of at most `mtu` bytes; none where it must not be cut."""
        pieces = []
        offset = ctypes.c_size_t(0)
        out = ctypes.create_string_buffer(max(len(packet), 1))
        while True:
            size = self.c.gw_fragment(
                packet,
                ctypes.c_size_t(len(packet)),
                ctypes.c_size_t(mtu),
                ctypes.byref(offset),
                out,
                len(out),
            )
            if size:
                pieces.append(out.raw[:size])
            if not size or not offset.value:
                return pieces


class Worker:
    """One worker of the library: SAs, and bursts of packets through them."""

    def __init__(
        self,
        library: EngineLibrary,
        *,
        seed: bytes,
        inbound_bits: int = 8,
        outbound_sas: int = 256,
        tunnels: int = 4,
        crypto: Crypto = Crypto.AUTO,
    ) -> None:
        """Make it.

        Args:
            library: Where it is from.
            seed: 32 unpredictable bytes, for this worker alone.
            inbound_bits: The inbound table has two to this power places.
            outbound_sas: Places of the outbound table.
            tunnels: How many tunnels.
            crypto: Who computes, where an SA does not say.

        Raises:
            Refused: MEMORY, INVALID or CRYPTO.
        """
        self._c = library.c
        config = WorkerConfig(inbound_bits, outbound_sas, tunnels, int(crypto))
        config.seed[:] = seed
        error = ctypes.c_int(0)
        self._worker = c_void_p(self._c.gw_worker_new(ctypes.byref(config), ctypes.byref(error)))
        ctypes.memset(ctypes.byref(config), 0, ctypes.sizeof(config))
        _check(error.value, "make a worker")

    def close(self) -> None:
        """Wipe and free everything."""
        self._c.gw_worker_free(self._worker)
        self._worker = c_void_p(None)

    # --- SAs

    def add(
        self,
        sa: SecurityAssociation,
        *,
        index: int = 0,
        next_sequence: int = 1,
        sequence_limit: int = NEVER,
        path_mtu: int = 0,
        crypto: Crypto = Crypto.AUTO,
        cookie: int = 0,
        state: SaState | None = None,
    ) -> int:
        """Install one direction of an SA and return its reference; arguments as in `gw_sa_params`.

        Raises:
            Refused: The SA cannot be carried, or its place is taken.
        """
        params = make_params(sa)
        params.index = index
        params.next_sequence = next_sequence
        params.sequence_limit = sequence_limit
        params.path_mtu = path_mtu
        params.crypto = int(crypto)
        params.cookie = cookie
        ref = c_uint32(0)
        error = self._c.gw_sa_add(
            self._worker, ctypes.byref(params), ctypes.byref(state) if state else None, ctypes.byref(ref)
        )
        ctypes.memset(ctypes.byref(params), 0, ctypes.sizeof(params))
        _check(error, "add an SA")
        return ref.value

    def remove(self, ref: int) -> None:
        """Take an SA out."""
        _check(self._c.gw_sa_remove(self._worker, c_uint32(ref)), "remove an SA")

    def release(self, ref: int) -> SaState:
        """Take an SA out and return how far it got."""
        state = SaState()
        _check(self._c.gw_sa_release(self._worker, c_uint32(ref), ctypes.byref(state)), "release an SA")
        return state

    def reserve(self, ref: int, sequence_limit: int) -> None:
        """Let an outbound SA use the numbers below `sequence_limit`."""
        error = self._c.gw_sa_reserve(self._worker, c_uint32(ref), c_uint64(sequence_limit))
        _check(error, "reserve sequence numbers")

    def move(self, ref: int, destination: IpAddress, port: int) -> None:
        """Send to another address and port."""
        address = (c_uint8 * 16)(*destination.packed)
        error = self._c.gw_sa_move(self._worker, c_uint32(ref), address, c_uint16(port))
        _check(error, "move an SA")

    def set_path_mtu(self, ref: int, path_mtu: int) -> None:
        """Limit the size of outer packets; 0 lifts the limit."""
        error = self._c.gw_sa_set_path_mtu(self._worker, c_uint32(ref), c_uint16(path_mtu))
        _check(error, "set a path MTU")

    def usage(self, ref: int) -> Usage:
        """Return the counters of an SA."""
        usage = SaUsage()
        _check(self._c.gw_sa_read(self._worker, c_uint32(ref), ctypes.byref(usage)), "read an SA")
        return Usage(
            usage.sequence,
            usage.packets,
            usage.bytes,
            drops_of(usage.drops),
            usage.effective_mtu,
            Crypto(usage.crypto),
            bool(usage.expired),
        )

    def drops(self) -> dict[DropReason, int]:
        """Return what was dropped, packets of no SA included."""
        counts = (c_uint64 * len(REASONS))()
        self._c.gw_worker_drops(self._worker, counts)
        return drops_of(counts)

    def drain_events(self, limit: int = 64) -> list[Event]:
        """Return what happened since the last call."""
        records = (EventRecord * limit)()
        count = self._c.gw_worker_drain_events(self._worker, records, ctypes.c_size_t(limit))
        return [
            Event(
                record.cookie,
                record.ref,
                EventKind(record.kinds),
                bytes(record.address)[: 4 if record.family == 4 else 16],
                record.port,
            )
            for record in records[:count]
        ]

    # --- tunnels

    def set_tunnel(self, tunnel: int, refs: Sequence[int]) -> None:
        """Name the outbound SAs of a tunnel."""
        array = (c_uint32 * max(len(refs), 1))(*refs)
        error = self._c.gw_tunnel_set(self._worker, c_uint32(tunnel), array, ctypes.c_size_t(len(refs)))
        _check(error, "set a tunnel")

    def tunnel_sa(self, tunnel: int, flow_hash: int) -> int:
        """Return the SA that carries a flow; `NO_REF`: none."""
        ref: int = self._c.gw_tunnel_sa(self._worker, c_uint32(tunnel), c_uint32(flow_hash))
        return ref

    # --- packets

    def seal(
        self,
        packets: Iterable[tuple[int, bytes]],
        *,
        now_ns: int = 0,
        dummy: bool = False,
        tailroom: int = 4096,
    ) -> list[Outcome]:
        """Protect one burst of (SA, packet) and return what became of each."""
        return self._burst(self._c.gw_seal_burst, packets, now_ns, PACKET_DUMMY if dummy else 0, tailroom)

    def open(self, packets: Iterable[bytes], *, now_ns: int = 0, tailroom: int = 64) -> list[Outcome]:
        """Open one burst of packets and return what became of each."""
        return self._burst(
            self._c.gw_open_burst, ((NO_REF, packet) for packet in packets), now_ns, 0, tailroom
        )

    def _burst(
        self,
        run: "ctypes._NamedFuncPointer",
        packets: Iterable[tuple[int, bytes]],
        now_ns: int,
        flags: int,
        tailroom: int,
    ) -> list[Outcome]:
        items = list(packets)
        # Exact sizes, each in memory of its own, so that a byte too far is one that a sanitizer sees.
        buffers = [ctypes.create_string_buffer(HEADROOM + len(packet) + tailroom) for _, packet in items]
        records = (PacketRecord * len(items))()
        for (ref, packet), buffer, record in zip(items, buffers, records, strict=True):
            record.data = ctypes.addressof(buffer) + HEADROOM
            ctypes.memmove(record.data, packet, len(packet))
            record.length = len(packet)
            record.ref = ref
            record.headroom = HEADROOM
            record.tailroom = tailroom
            record.flags = flags
        run(self._worker, records, ctypes.c_size_t(len(items)), c_uint64(now_ns))
        return [_outcome(record) for record in records]


def _outcome(record: PacketRecord) -> Outcome:
    drop = REASONS[record.verdict]
    packet = b"" if drop else ctypes.string_at(record.data, record.length)
    return Outcome(packet, drop, record.ref, record.sequence)


def _check(error: int, what: str) -> None:
    if error:
        raise Refused(Refusal(error), what)


def drops_of(counts: "ctypes.Array[c_uint64]") -> dict[DropReason, int]:
    """Return counts by their reasons."""
    return {reason: count for reason, count in zip(REASONS, counts, strict=True) if reason and count}


# --- from the vocabulary --------------------------------------------------------------------------


def make_params(sa: SecurityAssociation) -> SaParams:
    """Return an SA as the library wants it. It holds the keys: wipe it after use.

    Raises:
        Refused: UNSUPPORTED: more selectors, or longer keys, than it has room for.
    """
    params = SaParams()
    if len(sa.local_ts) + len(sa.remote_ts) > MAX_SELECTORS:
        raise Refused(Refusal.UNSUPPORTED, f"take more than {MAX_SELECTORS} selectors")
    params.spi = sa.spi
    params.direction = 0 if sa.direction is Direction.INBOUND else 1
    params.protocol = int(sa.protocol)
    params.mode = 0 if sa.mode is Mode.TUNNEL else 1
    params.family = sa.source.version
    put_bytes(params.source, sa.source.packed)
    put_bytes(params.destination, sa.destination.packed)
    if sa.encapsulation:
        params.udp_source_port = sa.encapsulation.source_port
        params.udp_destination_port = sa.encapsulation.destination_port
    params.encryption = int(sa.encryption)
    params.integrity = int(sa.integrity)
    params.key_bits = sa.key_bits
    params.encryption_key_bytes = put_bytes(params.encryption_key, sa.encryption_key.reveal())
    params.integrity_key_bytes = put_bytes(params.integrity_key, sa.integrity_key.reveal())
    params.replay_window = sa.replay_window_packets
    params.tfc_bytes = sa.tfc_padding_bytes
    params.esn = sa.esn
    params.copy_dscp = sa.copy_dscp
    params.df = _DF_COPY if sa.copy_df else _DF_CLEAR
    params.local_selectors = len(sa.local_ts)
    params.remote_selectors = len(sa.remote_ts)
    params.soft_packets = _limit(sa.lifetime.soft.packets)
    params.hard_packets = _limit(sa.lifetime.hard.packets)
    params.soft_bytes = _limit(sa.lifetime.soft.bytes)
    params.hard_bytes = _limit(sa.lifetime.hard.bytes)
    for place, selector in zip(params.selectors, (*sa.local_ts, *sa.remote_ts), strict=False):
        put_selector(place, selector)
    return params


def put_bytes(array: "ctypes.Array[c_uint8]", data: bytes) -> int:
    """Write bytes into the beginning of a field, and return how many.

    Raises:
        Refused: UNSUPPORTED: there is not so much room.
    """
    if len(data) > len(array):
        raise Refused(Refusal.UNSUPPORTED, f"take {len(data)} bytes where there is room for {len(array)}")
    ctypes.memmove(array, data, len(data))
    return len(data)


def put_selector(place: Selector, selector: TrafficSelector) -> None:
    """Write a traffic selector into its record."""
    put_bytes(place.start, selector.start.packed)
    put_bytes(place.end, selector.end.packed)
    place.start_port, place.end_port = selector.start_port, selector.end_port
    place.family, place.protocol = selector.start.version, selector.protocol


def _limit(value: int | None) -> int:
    return NEVER if value is None else value
