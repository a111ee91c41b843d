"""Cookies (RFC 7296 §2.6): made and checked without memory, secret rotated by the clock."""

from ipaddress import ip_address
from itertools import count

import pytest

from gateway.ike.v2.cookie import SECRET_BYTES, CookieSecrets

NONCE = bytes(range(32))
SPI_I = bytes.fromhex("0000000000000a01")
PEER = ip_address("192.0.2.1")


class Counted:
    """Entropy whose n-th draw is n repeated, and which remembers how often it was asked."""

    def __init__(self) -> None:
        self.draws = 0

    def __call__(self, size: int) -> bytes:
        self.draws += 1
        return bytes((self.draws,)) * size


def make(secrets, *, now, nonce_i=NONCE, source=PEER, spi_i=SPI_I):
    return secrets.make(nonce_i=nonce_i, source=source, spi_i=spi_i, now=now)


def is_valid(secrets, cookie, *, now, nonce_i=NONCE, source=PEER, spi_i=SPI_I):
    return secrets.is_valid(cookie, nonce_i=nonce_i, source=source, spi_i=spi_i, now=now)


def test_a_cookie_is_accepted_for_what_it_was_made_for():
    secrets = CookieSecrets(Counted())

    cookie = make(secrets, now=0.0)

    assert is_valid(secrets, cookie, now=1.0)
    assert 1 <= len(cookie) <= 64  # RFC 7296 §2.6


@pytest.mark.parametrize(
    "other",
    [
        {"nonce_i": NONCE[:-1] + b"\xff"},
        {"nonce_i": NONCE + b"\x00"},
        {"source": ip_address("192.0.2.2")},
        {"source": ip_address("::ffff:192.0.2.1")},
        {"spi_i": bytes.fromhex("0000000000000a02")},
    ],
)
def test_a_cookie_is_refused_for_anything_else(other):
    secrets = CookieSecrets(Counted())

    cookie = make(secrets, now=0.0)

    assert not is_valid(secrets, cookie, now=0.0, **other)


def test_moving_bytes_between_nonce_and_address_makes_another_cookie():
    secrets = CookieSecrets(Counted())
    v6 = ip_address("2001:db8::c000:201")

    cookie = make(secrets, now=0.0, nonce_i=NONCE, source=v6)

    shifted = NONCE + v6.packed[:12]
    assert not is_valid(secrets, cookie, now=0.0, nonce_i=shifted, source=ip_address(v6.packed[12:]))


@pytest.mark.parametrize("cookie", [b"", b"\x00", b"\x00" * 33, b"\xff" * 33, b"\x00" * 64])
def test_a_made_up_cookie_is_refused(cookie):
    assert not is_valid(CookieSecrets(Counted()), cookie, now=0.0)


@pytest.mark.parametrize("position", range(33))
def test_every_octet_counts(position):
    secrets = CookieSecrets(Counted())
    cookie = bytearray(make(secrets, now=0.0))

    cookie[position] ^= 1

    assert not is_valid(secrets, bytes(cookie), now=0.0)


def test_a_truncated_or_longer_cookie_is_refused():
    secrets = CookieSecrets(Counted())
    cookie = make(secrets, now=0.0)

    assert not is_valid(secrets, cookie[:-1], now=0.0)
    assert not is_valid(secrets, cookie + b"\x00", now=0.0)


@pytest.mark.parametrize(
    ("age", "accepted"),
    [(0.0, True), (59.9, True), (60.0, True), (119.9, True), (120.0, False), (1e6, False)],
)
def test_the_previous_secret_is_still_accepted_for_one_period(age, accepted):
    secrets = CookieSecrets(Counted(), rotation_s=60.0)
    cookie = make(secrets, now=0.0)

    assert is_valid(secrets, cookie, now=age) is accepted


def test_the_one_before_the_previous_secret_is_forgotten_under_steady_use():
    secrets = CookieSecrets(Counted(), rotation_s=60.0)
    first = make(secrets, now=0.0)
    make(secrets, now=60.0)
    make(secrets, now=120.0)

    assert not is_valid(secrets, first, now=120.0)


def test_a_secret_is_drawn_once_per_period_and_not_per_cookie():
    entropy = Counted()
    secrets = CookieSecrets(entropy, rotation_s=60.0)

    for now in range(60):
        make(secrets, now=float(now))

    assert entropy.draws == 1


def test_versions_wrap_without_confusing_secrets():
    numbers = count()
    secrets = CookieSecrets(lambda size: next(numbers).to_bytes(size), rotation_s=1.0)
    first = make(secrets, now=0.0)
    for now in range(1, 257):
        last = make(secrets, now=float(now))

    assert last[:1] == first[:1]
    assert not is_valid(secrets, first, now=256.0)
    assert is_valid(secrets, last, now=256.0)


def test_the_secret_has_the_length_of_its_mac():
    sizes = []
    make(CookieSecrets(lambda size: sizes.append(size) or bytes(size)), now=0.0)

    assert sizes == [SECRET_BYTES]
