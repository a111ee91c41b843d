"""The Internet checksum, whole and incremental (RFC 1071, RFC 1624)."""


def ones_sum(data: bytes) -> int:
    """Return the one's complement sum of the 16-bit words of `data`, folded to 16 bits.

    A number taken modulo 2^16 - 1 is the end-around-carry sum of its 16-bit digits (RFC 1071 §2 (B)), and
    one big modulo is far quicker here than a loop. Only the sum of all-zero data is 0: see `_fold`.
    """
    if len(data) & 1:
        data += b"\0"
    return _fold(int.from_bytes(data, "big"))


def _fold(total: int) -> int:
    """Fold carries; a non-zero multiple of 0xffff is the negative zero 0xffff, as adding would give it."""
    folded = total % 0xFFFF
    return folded if folded or not total else 0xFFFF


def internet_checksum(data: bytes, initial: int = 0) -> int:
    """Return the checksum to put into a header whose checksum field is zero in `data`.

    `initial` is added to the sum: that of a pseudo-header, or a precomputed part.
    """
    return 0xFFFF - _fold(ones_sum(data) + initial)


def finish_checksum(total: int) -> int:
    """Return the checksum of words that the caller added up without folding."""
    return 0xFFFF - _fold(total)


def update_checksum(checksum: int, old_word: int, new_word: int) -> int:
    """Return the checksum after one 16-bit word changed (RFC 1624 §3, equation 3)."""
    total = (0xFFFF - checksum) + (0xFFFF - old_word) + new_word
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total
