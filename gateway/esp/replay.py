"""The anti-replay window and extended sequence numbers (RFC 4303 §3.4.3 and Appendix A, RFC 6479).

The window is a ring of 64-bit blocks (RFC 6479 §3). Sliding it zeroes whole blocks and shifts no bits:

```
   block:      3          0          1          2        (ring of 4 blocks: window up to 192)
          |..........|x.xxx.xxx|xxxxx..x..|x.........|
                       ^ left edge           ^ highest, the right edge
```

One more block than the window needs is kept, so that the block being filled never holds old bits that still
count. A change must keep the two steps apart: `check` before authentication has no effect at all, `commit`
comes only after it.
"""

from typing import Final

from gateway.esp.errors import PacketDropped, UnsupportedSa
from gateway.ipsec.drop_reason import DropReason

_BLOCK_BITS: Final = 64
_SUBSPACE: Final = 1 << 32
MIN_WINDOW_PACKETS: Final = 64
MAX_WINDOW_PACKETS: Final = 4096


class ReplayWindow:
    """Which sequence numbers of one inbound SA were received; window size in packets, 0 for no check."""

    __slots__ = ("_blocks", "_esn", "_mask", "_size", "highest")

    def __init__(self, size: int, *, esn: bool) -> None:
        if size != 0 and not MIN_WINDOW_PACKETS <= size <= MAX_WINDOW_PACKETS:
            raise UnsupportedSa(
                "replay_window_packets", f"replay window is {size} packets, expected 0 or 64 to 4096"
            )
        if size == 0 and esn:
            raise UnsupportedSa("replay_window_packets", "ESN needs a replay window (RFC 4303 §2.2.1)")
        blocks = 1
        while blocks * _BLOCK_BITS < size + _BLOCK_BITS:
            blocks *= 2
        self._blocks = [0] * blocks
        self._mask = blocks - 1
        self._size = size
        self._esn = esn
        self.highest = 0
        """The highest authenticated sequence number; 0 before the first packet."""

    def check(self, sequence_low: int) -> int:
        """Return the full sequence number of a received packet that may be new.

        Args:
            sequence_low: The 32 bits of the packet.

        Raises:
            PacketDropped: REPLAY or REPLAY_WINDOW.
        """
        sequence = self._reconstruct(sequence_low) if self._esn else sequence_low
        if self._size == 0:
            return sequence
        if sequence <= 0 or self.highest - sequence >= self._size:
            # The first packet of an SA has the number 1 (RFC 4303 §3.3.3): 0 is left of every window.
            raise PacketDropped(
                DropReason.REPLAY_WINDOW,
                f"sequence number {sequence} is left of the window at {self.highest}",
            )
        if sequence <= self.highest and self._is_marked(sequence):
            raise PacketDropped(DropReason.REPLAY, f"sequence number {sequence} was seen before")
        return sequence

    def commit(self, sequence: int) -> bool:
        """Remember a sequence number that `check` returned and that is authenticated now.

        Returns:
            Whether it is the highest so far.
        """
        if sequence > self.highest:
            self._slide(sequence)
            is_highest = True
        else:
            is_highest = False
        self._blocks[(sequence // _BLOCK_BITS) & self._mask] |= 1 << (sequence % _BLOCK_BITS)
        return is_highest

    def _reconstruct(self, sequence_low: int) -> int:
        """Infer the high-order 32 bits (RFC 4303 Appendix A2.2); -1 and less lie before the first packet."""
        top_high, top_low = divmod(self.highest, _SUBSPACE)
        bottom_low = (top_low - self._size + 1) % _SUBSPACE
        if top_low >= self._size - 1:
            # Case A: the window lies within one subspace.
            high = top_high if sequence_low >= bottom_low else top_high + 1
        else:
            # Case B: the window spans two subspaces.
            high = top_high - 1 if sequence_low >= bottom_low else top_high
        if high >= _SUBSPACE:
            raise PacketDropped(DropReason.REPLAY_WINDOW, "sequence number is beyond 64 bits")
        return high * _SUBSPACE + sequence_low

    def _is_marked(self, sequence: int) -> bool:
        block = self._blocks[(sequence // _BLOCK_BITS) & self._mask]
        return bool(block >> (sequence % _BLOCK_BITS) & 1)

    def _slide(self, sequence: int) -> None:
        """Move the right edge: zero each block that is entered anew, at most the whole ring."""
        current = self.highest // _BLOCK_BITS
        entered = sequence // _BLOCK_BITS
        for block in range(max(current, entered - len(self._blocks)) + 1, entered + 1):
            self._blocks[block & self._mask] = 0
        self.highest = sequence
