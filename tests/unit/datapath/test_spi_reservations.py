"""Which SPIs are given out, and for how long they are kept."""

import itertools
from collections.abc import Callable

import pytest

from gateway.datapath.backend import DatapathError, ErrorReason
from gateway.datapath.spi_reservations import RESERVATION_S, SpiReservations
from gateway.ipsec.sa import Spi


def counting(first: int = 0x1000) -> Callable[[int], bytes]:
    """Return a source of octets that count up, so that SPIs are known."""
    numbers = itertools.count(first)
    return lambda size: next(numbers).to_bytes(size, "big")


def nothing(spi: Spi) -> bool:
    """Say that no SA is there."""
    return False


def test_spis_are_distinct_and_none_is_what_iana_reserves() -> None:
    reservations = SpiReservations(counting(first=0xFE), nothing)

    assert reservations.draw(3, 0.0) == (0x100, 0x101, 0x102)  # RFC 4303 §2.1


def test_spi_of_an_sa_that_is_there_is_not_given_out() -> None:
    reservations = SpiReservations(counting(), {0x1000, 0x1002}.__contains__)

    assert reservations.draw(2, 0.0) == (0x1001, 0x1003)


def test_reserved_spi_is_nobody_elses_until_its_time_is_over() -> None:
    reservations = SpiReservations(counting(), nothing)

    (spi,) = reservations.draw(1, 0.0)

    assert not reservations.note(spi, RESERVATION_S - 1)
    assert reservations.has(spi)
    assert reservations.note(spi, RESERVATION_S)


def test_spi_that_is_reserved_again_is_kept_as_long_as_a_new_one() -> None:
    reservations = SpiReservations(counting(), nothing)
    (first,) = reservations.draw(1, 0.0)
    (second,) = reservations.draw(1, 100.0)
    assert reservations.note(first, RESERVATION_S)

    assert not reservations.note(first, RESERVATION_S + 100.0)

    assert reservations.has(first)
    assert not reservations.has(second)


def test_reservations_that_are_over_are_forgotten() -> None:
    reservations = SpiReservations(counting(), nothing)
    given = reservations.draw(5000, 0.0)

    reservations.draw(1, RESERVATION_S)

    assert not any(reservations.has(spi) for spi in given)


def test_spi_whose_sa_is_there_is_reserved_no_longer() -> None:
    reservations = SpiReservations(counting(), nothing)
    (spi,) = reservations.draw(1, 0.0)

    reservations.use(spi)

    assert not reservations.has(spi)


def test_two_spis_with_one_place_in_the_table_are_not_given_out() -> None:
    numbers = iter((0x1001, 0x2001, 0x1002))
    reservations = SpiReservations(lambda size: next(numbers).to_bytes(size, "big"), nothing, table_bits=8)

    assert reservations.draw(2, 0.0) == (0x1001, 0x1002)
    assert not reservations.has(0x2001)
    reservations.use(Spi(0x2001))
    assert reservations.has(0x1001)


def test_full_table_is_told() -> None:
    reservations = SpiReservations(counting(), nothing, table_bits=4)
    reservations.draw(16, 0.0)

    with pytest.raises(DatapathError, match="16 places") as refused:
        reservations.draw(1, 1.0)

    assert refused.value.reason is ErrorReason.TABLE_FULL
