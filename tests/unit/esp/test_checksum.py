"""The Internet checksum against its textbook loop (RFC 1071 §4.1), the incremental one against the full."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.esp.checksum import internet_checksum, ones_sum, update_checksum


def textbook(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total = sum(data[at] << 8 | data[at + 1] for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@given(st.binary(max_size=100) | st.sampled_from([b"\xff\xff", b"\0\0", b"\xff" * 40, b"\x7f\xff\x80\0"]))
def test_checksum_is_the_textbook_one(data: bytes) -> None:
    assert internet_checksum(data) == textbook(data)


def test_example_of_rfc_1071() -> None:
    assert ones_sum(bytes.fromhex("0001f203f4f5f6f7")) == 0xDDF2


@given(st.binary(min_size=4, max_size=60).filter(any), st.integers(0, 0xFFFF))
def test_update_gives_what_a_full_computation_gives(data: bytes, new: int) -> None:
    changed = new.to_bytes(2) + data[2:]
    if not any(changed):
        return  # the sum of nothing but zeros: its checksum has two spellings

    updated = update_checksum(internet_checksum(data), int.from_bytes(data[:2]), new)

    assert updated == internet_checksum(changed)
