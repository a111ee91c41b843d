"""RFC 4106 §2: no two packets with one key and one IV."""

from dataclasses import replace

import pytest

from gateway.datapath import spent_keys
from gateway.datapath.backend import DatapathError, ErrorReason
from gateway.datapath.spent_keys import SpentKeys
from gateway.ipsec.sa import Direction, Spi
from gateway.ipsec.secret import Secret
from tests.fakes.records import make_sa

SA = make_sa(0x2001, direction=Direction.OUTBOUND)


@pytest.fixture
def keys() -> SpentKeys:
    return SpentKeys(bytes(32))


def test_key_tells_itself_whatever_else_its_sa_is(keys: SpentKeys) -> None:
    other = replace(SA, spi=Spi(0x2002), integrity_key=Secret(b"i" * 32))

    assert keys.fingerprint(SA) == keys.fingerprint(other)
    assert keys.fingerprint(SA) != keys.fingerprint(replace(SA, encryption_key=Secret(b"n" * 36)))


def test_key_of_ah_is_its_integrity_key(keys: SpentKeys) -> None:
    ah = replace(SA, encryption_key=Secret(b""), integrity_key=Secret(b"i" * 32))

    assert keys.fingerprint(ah) != keys.fingerprint(replace(ah, integrity_key=Secret(b"j" * 32)))


def test_fingerprints_of_another_process_say_nothing(keys: SpentKeys) -> None:
    assert keys.fingerprint(SA) != SpentKeys(b"another" * 4).fingerprint(SA)


def test_key_is_spent_while_its_sa_is_there_and_when_it_is_gone(keys: SpentKeys) -> None:
    keys.spend(b"one")
    with pytest.raises(DatapathError, match="repeat its IVs") as refused:
        keys.spend(b"one")
    keys.retire(b"one")
    with pytest.raises(DatapathError, match="repeat its IVs"):
        keys.spend(b"one")

    assert refused.value.reason is ErrorReason.SPI_IN_USE


def test_key_that_nothing_was_sent_with_is_free(keys: SpentKeys) -> None:
    keys.spend(b"one")
    keys.unspend(b"one")
    keys.spend(b"one")


def test_adopted_key_is_spent(keys: SpentKeys) -> None:
    keys.adopt(b"one")

    with pytest.raises(DatapathError, match="repeat its IVs"):
        keys.spend(b"one")


def test_of_many_that_are_gone_the_oldest_is_forgotten_but_none_that_is_there(
    keys: SpentKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spent_keys, "MAX_RETIRED", 2)
    keys.spend(b"there")
    for gone in (b"first", b"second", b"third"):
        keys.spend(gone)
        keys.retire(gone)

    keys.spend(b"first")
    for spent in (b"there", b"second", b"third"):
        with pytest.raises(DatapathError, match="repeat its IVs"):
            keys.spend(spent)
