"""Fragments of one message: in any order, repeated, divided anew, contradictory, too many (RFC 7383 §2.6)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ike.errors import InvalidSyntax
from gateway.ike.wire.message import EncryptedFragment
from gateway.ike.wire.protected import MAX_FRAGMENTS, Plaintext
from gateway.ike.wire.reassembly import MAX_REASSEMBLED_BYTES, Reassembly


def part(number, total, data=b"x", first_payload=0):
    fragment = EncryptedFragment(offset=28, first_payload=first_payload, number=number, total=total, body=b"")
    return fragment, Plaintext(first_payload, data)


def test_fragments_are_joined_by_number_with_the_first_payload_of_fragment_one():
    reassembly = Reassembly()

    assert reassembly.add(*part(3, 3, b"c", 99)) is None
    assert reassembly.add(*part(1, 3, b"a", 41)) is None
    assert reassembly.add(*part(2, 3, b"b", 98)) == Plaintext(41, b"abc")


def test_a_number_that_is_here_already_changes_nothing_whatever_it_holds():
    """§2.6: same Message ID, Fragment Number and Total Fragments is a replay, also with other bytes."""
    reassembly = Reassembly()

    assert reassembly.add(*part(1, 2, b"a", 41)) is None
    assert not reassembly.is_wanted(part(1, 2)[0])
    assert reassembly.add(*part(1, 2, b"other", 42)) is None
    assert reassembly.add(*part(2, 2, b"b")) == Plaintext(41, b"ab")
    assert reassembly.add(*part(2, 2, b"b")) is None


def test_a_larger_total_starts_over_and_a_smaller_one_is_of_no_use():
    """A sender that got no answer may divide smaller (§2.5.2)."""
    reassembly = Reassembly()

    assert reassembly.add(*part(1, 2, b"old", 41)) is None
    assert reassembly.add(*part(1, 3, b"a", 41)) is None
    assert not reassembly.is_wanted(part(2, 2)[0])
    assert reassembly.add(*part(2, 2, b"old")) is None
    assert reassembly.add(*part(2, 3, b"b")) is None
    assert reassembly.add(*part(3, 3, b"c")) == Plaintext(41, b"abc")


def test_starting_over_gives_back_what_was_held():
    reassembly = Reassembly(max_bytes=10)

    reassembly.add(*part(1, 2, bytes(9)))
    reassembly.add(*part(1, 3, bytes(4)))

    assert reassembly.held_bytes == 4


@pytest.mark.parametrize("total", [MAX_FRAGMENTS + 1, 65535])
def test_more_fragments_than_we_hold_are_of_no_use(total):
    reassembly = Reassembly()
    reassembly.add(*part(1, 2, b"a", 41))

    assert not reassembly.is_wanted(part(1, total)[0])
    assert reassembly.add(*part(1, total)) is None
    # What was here before still completes.
    assert reassembly.add(*part(2, 2, b"b")) == Plaintext(41, b"ab")


def test_more_bytes_than_we_hold_drop_the_whole_message():
    reassembly = Reassembly()
    reassembly.add(*part(1, 3, bytes(40000)))

    with pytest.raises(InvalidSyntax, match="longer than 65535"):
        reassembly.add(*part(2, 3, bytes(40000)))

    assert reassembly.held_bytes == 0
    assert reassembly.add(*part(3, 3)) is None


def test_the_longest_message_fits_exactly():
    reassembly = Reassembly()
    reassembly.add(*part(1, 2, bytes(MAX_REASSEMBLED_BYTES - 1), 41))

    assert len(reassembly.add(*part(2, 2, b"x")).data) == MAX_REASSEMBLED_BYTES


def test_a_message_of_one_fragment_is_whole_at_once():
    assert Reassembly().add(*part(1, 1, b"a", 41)) == Plaintext(41, b"a")


def test_a_message_of_as_many_fragments_as_we_hold_comes_together():
    reassembly = Reassembly()

    results = [reassembly.add(*part(n, MAX_FRAGMENTS, bytes((n,)))) for n in range(MAX_FRAGMENTS, 0, -1)]

    assert results[:-1] == [None] * (MAX_FRAGMENTS - 1)
    assert results[-1].data == bytes(range(1, MAX_FRAGMENTS + 1))


@given(data=st.binary(min_size=1, max_size=200), rounds=st.data())
def test_any_order_and_any_repetitions_give_the_message_exactly_once(data, rounds):
    total = rounds.draw(st.integers(1, min(len(data), 12)))
    size = -(-len(data) // total)
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    numbers = rounds.draw(st.permutations(range(1, len(pieces) + 1)))
    repeated = rounds.draw(st.lists(st.sampled_from(numbers), max_size=10))
    reassembly = Reassembly()

    # Repetitions of what is here come between; one of the last would start the message anew.
    results = []
    for number in numbers:
        results.append(reassembly.add(*part(number, len(pieces), pieces[number - 1], 41 * (number == 1))))
        if number != numbers[-1]:
            seen = numbers[: numbers.index(number) + 1]
            for again in repeated:
                if again in seen:
                    assert reassembly.add(*part(again, len(pieces), b"not the same", 7)) is None

    assert results == [None] * (len(pieces) - 1) + [Plaintext(41, data)]


@given(
    st.lists(
        st.tuples(st.integers(1, 70), st.integers(1, 70), st.binary(max_size=40)).filter(
            lambda given: given[0] <= given[1]
        ),
        max_size=80,
    )
)
def test_whatever_arrives_memory_stays_within_the_bound(arrivals):
    reassembly = Reassembly(max_bytes=100)

    for number, total, data in arrivals:
        try:
            whole = reassembly.add(*part(number, total, data))
        except InvalidSyntax:
            assert reassembly.held_bytes == 0
            continue
        assert reassembly.held_bytes == sum(len(held) for held in reassembly._parts.values()) <= 100
        assert whole is None or len(whole.data) <= 100
