"""The reader never leaves its bounds, and nothing is packed that does not fit."""

import struct

import pytest

from gateway.ike.errors import InvalidSyntax, LocalError
from gateway.ike.wire.buffer import Reader, pack
from gateway.ike.wire.notify import NotifyType


def test_reader_returns_numbers_in_network_order():
    reader = Reader(b"\x01\x02\x03\x04\x05\x06\x07rest", "test")

    assert (reader.u8(), reader.u16(), reader.u32()) == (1, 0x0203, 0x04050607)
    assert reader.position == 7
    assert reader.rest() == b"rest"
    reader.finish()


@pytest.mark.parametrize("read", [Reader.u8, Reader.u16, Reader.u32])
def test_number_beyond_the_end_is_invalid_syntax(read):
    with pytest.raises(InvalidSyntax, match=r"test: \d bytes wanted, 0 left") as caught:
        read(Reader(b"", "test"))

    assert caught.value.notify == NotifyType.INVALID_SYNTAX


@pytest.mark.parametrize("size", [-1, 5])
def test_take_and_sub_stay_inside(size):
    for read in (Reader.take, lambda reader, n: reader.sub(n, "inner")):
        with pytest.raises(InvalidSyntax):
            read(Reader(b"four", "test"), size)


def test_sub_reader_ends_where_its_bytes_end_although_there_are_more():
    reader = Reader(b"abcdef", "test")

    inner = reader.sub(3, "inner")

    assert inner.take(3) == b"abc"
    with pytest.raises(InvalidSyntax, match="inner"):
        inner.u8()
    assert reader.rest() == b"def"


def test_bytes_left_over_are_invalid_syntax():
    with pytest.raises(InvalidSyntax, match="2 bytes too many"):
        Reader(b"ab", "test").finish()


@pytest.mark.parametrize("value", [-1, 256])
def test_value_that_does_not_fit_is_our_mistake(value):
    with pytest.raises(LocalError, match="do not fit"):
        pack(struct.Struct("!B"), value)
