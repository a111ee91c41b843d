"""Packet marks as they are written."""

import pytest

from gateway.ipsec.errors import VocabularyError
from gateway.ipsec.mark import ALL_BITS, Mark


@pytest.mark.parametrize(
    ("text", "mark", "written"),
    [
        ("42", Mark(42), "0x2a"),
        ("0x2a", Mark(42), "0x2a"),
        ("0x2a/0xff", Mark(42, 255), "0x2a/0xff"),
        ("0/0xffffffff", Mark(0), "0x0"),
        ("1/0xffffffff", Mark(1, ALL_BITS), "0x1"),
    ],
    ids=["decimal", "hexadecimal", "with a mask", "of zero", "with the whole mask"],
)
def test_a_mark_is_a_number_with_or_without_a_mask(text: str, mark: Mark, written: str) -> None:
    assert Mark.parse(text) == mark
    assert str(mark) == written
    assert Mark.parse(written) == mark


@pytest.mark.parametrize(
    "text", ["", "x", "1/", "1/x", "-1", "0x100000000", "1/0x100000000", "3/1", "%unique"]
)
def test_what_is_no_mark_is_refused(text: str) -> None:
    with pytest.raises(VocabularyError, match="mark"):
        Mark.parse(text)
