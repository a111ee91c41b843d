from dataclasses import replace

import pytest

from gateway.agent.sad import Sad
from gateway.datapath.backend import DatapathError, ErrorReason, InstalledSa, ItemResult
from gateway.ipsec.placement import Engine, Placement
from gateway.ipsec.policy import Action, Policy
from gateway.ipsec.sa import Direction, Spi
from gateway.ipsec.secret import Secret
from tests.fakes.records import make_sa


@pytest.fixture
def sad() -> Sad:
    return Sad(b"process key")


def add(sad: Sad, sa: object, generation: int = 1) -> None:
    sad.add_sa(sa, generation, ItemResult(name="", placement=Engine.SOFTWARE))  # type: ignore[arg-type]


def test_an_sa_that_is_there_with_equal_contents_may_be_installed_again(sad: Sad) -> None:
    add(sad, make_sa(0x1001))

    sad.admit(make_sa(0x1001), 1)


def test_the_same_spi_with_other_contents_is_a_conflict(sad: Sad) -> None:
    add(sad, make_sa(0x1001))

    with pytest.raises(DatapathError) as refused:
        sad.admit(make_sa(0x1001, key=b"other" * 8), 1)

    assert refused.value.reason is ErrorReason.SPI_IN_USE


def test_an_outbound_sa_that_was_removed_never_comes_back_with_its_key(sad: Sad) -> None:
    sa = make_sa(0x2001, direction=Direction.OUTBOUND)
    add(sad, sa)
    sad.drop_sas([sa.sa_id])

    with pytest.raises(DatapathError, match="repeat its IVs"):
        sad.admit(sa, 1)


def test_an_outbound_sa_with_the_same_spi_and_a_new_key_is_welcome(sad: Sad) -> None:
    sa = make_sa(0x2001, direction=Direction.OUTBOUND)
    add(sad, sa)
    sad.drop_sas([sa.sa_id])

    sad.admit(replace(sa, encryption_key=Secret(b"n" * 36)), 1)


def test_an_inbound_sa_may_come_back_because_it_sends_nothing(sad: Sad) -> None:
    sa = make_sa(0x1001)
    add(sad, sa)
    sad.drop_sas([sa.sa_id])

    sad.admit(sa, 1)


def test_dropping_tells_what_was_there(sad: Sad) -> None:
    sa, other = make_sa(0x1001), make_sa(0x1002)
    add(sad, sa)

    assert sad.drop_sas([other.sa_id, sa.sa_id]) == (sa.sa_id,)


def test_what_is_older_than_the_floor_is_refused_and_zero_does_not_count(sad: Sad) -> None:
    sad.raise_floor(7)

    with pytest.raises(DatapathError) as refused:
        sad.admit(make_sa(0x1001), 6)
    sad.admit(make_sa(0x1001), 7)
    sad.admit(make_sa(0x1001), 0)

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


def test_two_outbound_sas_never_send_with_one_key_wherever_they_are(sad: Sad) -> None:
    sa = make_sa(0x2001, direction=Direction.OUTBOUND)
    sad.admit(sa, 1)

    with pytest.raises(DatapathError, match="repeat its IVs"):
        sad.admit(replace(sa, spi=Spi(0x2002), placement=Placement(require=Engine.KERNEL)), 1)


def test_another_wish_for_an_sa_that_is_there_is_no_conflict_and_moves_nothing(sad: Sad) -> None:
    sa = make_sa(0x1001)
    add(sad, sa)

    sad.admit(replace(sa, placement=Placement(require=Engine.NIC_PACKET)), 1)


def test_an_adopted_sa_is_as_good_as_one_of_our_own(sad: Sad) -> None:
    sa = make_sa(0x2001, direction=Direction.OUTBOUND)

    sad.adopt(InstalledSa(sa=sa, placement=Engine.KERNEL))
    sad.admit(sa, 1)
    sad.drop_sas([sa.sa_id])

    with pytest.raises(DatapathError, match="repeat its IVs"):
        sad.admit(sa, 1)


def test_the_key_of_an_sa_that_could_not_be_installed_is_free_unless_it_may_have_sent(sad: Sad) -> None:
    sa = make_sa(0x2001, direction=Direction.OUTBOUND)

    sad.admit(sa, 1)
    sad.give_up(sa, is_spent=False)
    sad.admit(sa, 1)
    sad.give_up(sa, is_spent=True)

    with pytest.raises(DatapathError, match="repeat its IVs"):
        sad.admit(sa, 1)


def test_an_sa_that_is_there_keeps_its_key_though_installing_it_again_failed(sad: Sad) -> None:
    sa = make_sa(0x2001, direction=Direction.OUTBOUND)
    sad.admit(sa, 1)
    add(sad, sa)

    sad.give_up(sa, is_spent=False)
    sad.drop_sas([sa.sa_id])

    with pytest.raises(DatapathError, match="repeat its IVs"):
        sad.admit(sa, 1)
