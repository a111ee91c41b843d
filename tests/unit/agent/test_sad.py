from dataclasses import replace

import pytest

from gateway.agent.sad import RETIRED_KEYS, Sad
from gateway.datapath.backend import DatapathError, ErrorReason, InstalledSa, ItemResult
from gateway.ipsec.placement import Engine, Placement
from gateway.ipsec.policy import Action, Policy
from gateway.ipsec.sa import Direction
from gateway.ipsec.secret import Secret
from tests.fakes.records import make_sa


@pytest.fixture
def sad() -> Sad:
    return Sad(b"process key")


def add(sad: Sad, sa: object, generation: int = 1) -> None:
    sad.add_sa(sa, generation, ItemResult(name="", placement=Engine.SOFTWARE))  # type: ignore[arg-type]


def test_an_sa_that_is_there_with_equal_contents_may_be_installed_again(sad: Sad) -> None:
    add(sad, make_sa(0x1001))

    sad.check_sa(make_sa(0x1001), 1)


def test_the_same_spi_with_other_contents_is_a_conflict(sad: Sad) -> None:
    add(sad, make_sa(0x1001))

    with pytest.raises(DatapathError) as refused:
        sad.check_sa(make_sa(0x1001, key=b"other" * 8), 1)

    assert refused.value.reason is ErrorReason.SPI_IN_USE


def test_an_outbound_sa_that_was_removed_never_comes_back_with_its_key(sad: Sad) -> None:
    sa = make_sa(0x2001, direction=Direction.OUTBOUND)
    add(sad, sa)
    sad.drop_sas([sa.sa_id])

    with pytest.raises(DatapathError, match="IV"):
        sad.check_sa(sa, 1)


def test_an_outbound_sa_with_the_same_spi_and_a_new_key_is_welcome(sad: Sad) -> None:
    sa = make_sa(0x2001, direction=Direction.OUTBOUND)
    add(sad, sa)
    sad.drop_sas([sa.sa_id])

    sad.check_sa(replace(sa, encryption_key=Secret(b"n" * 36)), 1)


def test_an_inbound_sa_may_come_back_because_it_sends_nothing(sad: Sad) -> None:
    sa = make_sa(0x1001)
    add(sad, sa)
    sad.drop_sas([sa.sa_id])

    sad.check_sa(sa, 1)


def test_dropping_tells_what_was_there(sad: Sad) -> None:
    sa, other = make_sa(0x1001), make_sa(0x1002)
    add(sad, sa)

    assert sad.drop_sas([other.sa_id, sa.sa_id]) == (sa.sa_id,)


def test_what_is_older_than_the_floor_is_refused_and_zero_does_not_count(sad: Sad) -> None:
    sad.raise_floor(7)

    with pytest.raises(DatapathError) as refused:
        sad.check_sa(make_sa(0x1001), 6)
    sad.check_sa(make_sa(0x1001), 7)
    sad.check_sa(make_sa(0x1001), 0)

    assert refused.value.reason is ErrorReason.STALE_GENERATION
    with pytest.raises(DatapathError):
        sad.raise_floor(6)


def test_an_sa_that_is_installed_again_gets_the_newer_generation(sad: Sad) -> None:
    sa = make_sa(0x1001)
    add(sad, sa, 1)
    add(sad, sa, 5)
    add(sad, sa, 3)

    (held,) = sad.sas()
    assert held.generation == 5


def test_policies_are_listed_in_the_order_of_search(sad: Sad) -> None:
    for name, priority in (("b", 10), ("a", 10), ("z", 1)):
        sad.add_policy(Policy(name=name, action=Action.DISCARD, local_ts=(), remote_ts=(), priority=priority))

    assert [policy.name for policy in sad.policies()] == ["z", "a", "b"]


def test_spent_keys_are_forgotten_oldest_first_and_their_number_is_bounded(sad: Sad) -> None:
    first = make_sa(0x2001, direction=Direction.OUTBOUND)
    last = make_sa(0x2001 + RETIRED_KEYS, direction=Direction.OUTBOUND)
    for number in range(RETIRED_KEYS + 1):
        sa = replace(first, spi=first.spi + number)  # type: ignore[arg-type]
        add(sad, sa)
        sad.drop_sas([sa.sa_id])

    sad.check_sa(first, 1)
    with pytest.raises(DatapathError):
        sad.check_sa(last, 1)


def test_another_wish_for_an_sa_that_is_there_is_no_conflict_and_moves_nothing(sad: Sad) -> None:
    sa = make_sa(0x1001)
    add(sad, sa)

    sad.check_sa(replace(sa, placement=Placement(require=Engine.NIC_PACKET)), 1)


def test_an_adopted_sa_is_as_good_as_one_of_our_own(sad: Sad) -> None:
    sa = make_sa(0x2001, direction=Direction.OUTBOUND)

    sad.adopt(InstalledSa(sa=sa, placement=Engine.KERNEL))
    sad.check_sa(sa, 1)
    sad.drop_sas([sa.sa_id])

    with pytest.raises(DatapathError, match="repeat an IV"):
        sad.check_sa(sa, 1)


def test_a_retired_key_never_sends_again_though_it_was_never_recorded(sad: Sad) -> None:
    sa = make_sa(0x2001, direction=Direction.OUTBOUND)

    sad.retire(sa)

    with pytest.raises(DatapathError, match="repeat an IV"):
        sad.check_sa(sa, 1)
