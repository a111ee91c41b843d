"""Which SPIs are given out, and for how long they are kept."""

import itertools
from collections.abc import Callable

from gateway.datapath.xfrm.sad import RESERVATION_S, Sad
from gateway.ipsec.sa import Spi


def counting() -> Callable[[int], bytes]:
    """Return a source of octets that count up, so that SPIs are known."""
    numbers = itertools.count(0x1000)
    return lambda size: next(numbers).to_bytes(size, "big")


def test_reserved_spi_is_nobody_elses_until_its_time_is_over() -> None:
    sad = Sad(counting())

    spi = sad.reserve(0.0)

    assert not sad.note_reserved(spi, RESERVATION_S - 1)
    assert sad.is_reserved(spi)
    assert sad.note_reserved(spi, RESERVATION_S)


def test_spi_that_is_reserved_again_is_kept_as_long_as_a_new_one() -> None:
    sad = Sad(counting())
    first = sad.reserve(0.0)
    second = sad.reserve(100.0)
    assert sad.note_reserved(first, RESERVATION_S)

    assert not sad.note_reserved(first, RESERVATION_S + 100.0)

    assert sad.is_reserved(first)
    assert not sad.is_reserved(second)


def test_reservations_that_are_over_are_forgotten() -> None:
    sad = Sad(counting())
    given = [sad.reserve(0.0) for _ in range(5000)]

    sad.reserve(RESERVATION_S)

    assert not any(sad.is_reserved(Spi(spi)) for spi in given)
