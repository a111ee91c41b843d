"""Rekeying and deleting the IKE SA on both sides (RFC 7296 §1.3.2, §2.8.2, §2.25.2).

How to read a story: `tests/fakes/story.py`.
"""

from tests.fakes.story import tell, two_children


def other_ike_groups():
    """Bob wants another group than Alice at a rekey, and takes hers at the start."""
    alice, bob = "aes256gcm16-prfsha384-x25519-ecp256", "aes256gcm16-prfsha384-ecp256-x25519"
    return two_children(alice_ike=alice, bob_ike=bob)


def test_an_ike_sa_is_rekeyed():
    # §1.3.2, §2.18: the Child SAs move at once, the old IKE SA is deleted by whoever rekeyed.
    tell(
        """
        A: rekey I                   | I~ 1>        | I 1>
        a1 --> REKEY(IKE)            |              | I- Ia1 1>
        a1' <-- SA                   | I- Ia1 1>    |
        a2 --> D(IKE)                |              | Ia1 1>
        a2' <-- {}                   | Ia1 1>       |
        end                          |              |
        """
    )


def test_an_ike_sa_is_rekeyed_by_its_responder_who_is_the_initiator_of_the_next_one():
    tell(
        """
        B: rekey I                   | I 1>         | I~ 1>
        b1 <-- REKEY(IKE)            | I- Ib1 1>    |
        b1' --> SA                   |              | I- Ib1 1>
        b2 <-- D(IKE)                | Ib1 1>       |
        b2' --> {}                   |              | Ib1 1>
        end                          |              |
        """
    )


def test_the_request_of_an_ike_rekey_is_lost():
    tell(
        """
        A: rekey I                   | I~ 1>        | I 1>
        a1 lost                      |              |
        a1 resent                    |              |
        a1 --> REKEY(IKE)            |              | I- Ia1 1>
        a1' <-- SA                   | I- Ia1 1>    |
        a2 --> D(IKE)                |              | Ia1 1>
        a2' <-- {}                   | Ia1 1>       |
        end                          |              |
        """
    )


def test_the_response_of_an_ike_rekey_is_lost():
    tell(
        """
        A: rekey I                   | I~ 1>        | I 1>
        a1 --> REKEY(IKE)            |              | I- Ia1 1>
        a1' lost                     |              |
        a1 resent                    |              |
        a1 --> REKEY(IKE)            |              |
        a1' <-- SA                   | I- Ia1 1>    |
        a2 --> D(IKE)                |              | Ia1 1>
        a2' <-- {}                   | Ia1 1>       |
        end                          |              |
        """
    )


def test_the_delete_of_the_old_ike_sa_is_lost():
    tell(
        """
        A: rekey I                   | I~ 1>        | I 1>
        a1 --> REKEY(IKE)            |              | I- Ia1 1>
        a1' <-- SA                   | I- Ia1 1>    |
        a2 lost                      |              |
        a2 resent                    |              |
        a2 --> D(IKE)                |              | Ia1 1>
        a2' <-- {}                   | Ia1 1>       |
        end                          |              |
        """
    )


def test_the_response_to_the_delete_of_the_old_ike_sa_is_lost():
    # Bob has no such IKE SA any more, and still repeats his last response.
    tell(
        """
        A: rekey I                   | I~ 1>        | I 1>
        a1 --> REKEY(IKE)            |              | I- Ia1 1>
        a1' <-- SA                   | I- Ia1 1>    |
        a2 --> D(IKE)                |              | Ia1 1>
        a2' lost                     |              |
        a2 resent                    |              |
        a2 --> D(IKE)                |              |
        a2' <-- {}                   | Ia1 1>       |
        end                          |              |
        """
    )


def test_every_message_of_an_ike_rekey_arrives_twice():
    tell(
        """
        A: rekey I                   | I~ 1>        | I 1>
        a1 --> REKEY(IKE)            |              | I- Ia1 1>
        a1 --> again                 |              |
        a1' <-- SA                   | I- Ia1 1>    |
        a1' <-- again                |              |
        a2 --> D(IKE)                |              | Ia1 1>
        a2 --> again                 |              |
        a2' <-- {}                   | Ia1 1>       |
        a2' <-- again                |              |
        end                          |              |
        """
    )


def test_both_rekey_the_ike_sa_at_once_and_the_nonce_of_the_request_of_alice_is_the_lowest():
    # §2.8.2: the other successor inherits the Child SAs; Alice deletes what she made, Bob the old one.
    tell(
        """
        lowest a1                    | I 1>           | I 1>
        A: rekey I                   | I~ 1>          |
        B: rekey I                   |                | I~ 1>
        a1 --> REKEY(IKE)            |                | I~ Ia1 1>
        b1 <-- REKEY(IKE)            | I~ Ib1 1>      |
        a1' <-- SA                   | I- Ib1 Ia1x 1> |
        b1' --> SA                   |                | I- Ia1 Ib1 1>
        a2 --> D(IKE)                |                | Ix Ib1 1>
        a2' <-- {}                   | I- Ib1 1>      |
        b2 <-- D(IKE)                | Ib1 1>         |
        b2' --> {}                   |                | Ib1 1>
        end                          |                |
        """
    )


def test_both_rekey_the_ike_sa_at_once_and_the_nonce_of_the_response_of_bob_is_the_lowest():
    tell(
        """
        lowest a1'                   | I 1>           | I 1>
        A: rekey I                   | I~ 1>          |
        B: rekey I                   |                | I~ 1>
        a1 --> REKEY(IKE)            |                | I~ Ia1 1>
        b1 <-- REKEY(IKE)            | I~ Ib1 1>      |
        a1' <-- SA                   | I- Ib1 Ia1x 1> |
        b1' --> SA                   |                | I- Ia1 Ib1 1>
        a2 --> D(IKE)                |                | Ix Ib1 1>
        a2' <-- {}                   | I- Ib1 1>      |
        b2 <-- D(IKE)                | Ib1 1>         |
        b2' --> {}                   |                | Ib1 1>
        end                          |                |
        """
    )


def test_both_rekey_the_ike_sa_at_once_and_the_nonce_of_the_request_of_bob_is_the_lowest():
    tell(
        """
        lowest b1                    | I 1>          | I 1>
        A: rekey I                   | I~ 1>         |
        B: rekey I                   |               | I~ 1>
        a1 --> REKEY(IKE)            |               | I~ Ia1 1>
        b1 <-- REKEY(IKE)            | I~ Ib1 1>     |
        a1' <-- SA                   | I- Ib1 Ia1 1> |
        b1' --> SA                   |               | I- Ia1 Ib1x 1>
        b2 <-- D(IKE)                | Ix Ia1 1>     |
        b2' --> {}                   |               | I- Ia1 1>
        a2 --> D(IKE)                |               | Ia1 1>
        a2' <-- {}                   | Ia1 1>        |
        end                          |               |
        """
    )


def test_both_rekey_the_ike_sa_at_once_and_the_nonce_of_the_response_of_alice_is_the_lowest():
    tell(
        """
        lowest b1'                   | I 1>          | I 1>
        A: rekey I                   | I~ 1>         |
        B: rekey I                   |               | I~ 1>
        a1 --> REKEY(IKE)            |               | I~ Ia1 1>
        b1 <-- REKEY(IKE)            | I~ Ib1 1>     |
        a1' <-- SA                   | I- Ib1 Ia1 1> |
        b1' --> SA                   |               | I- Ia1 Ib1x 1>
        b2 <-- D(IKE)                | Ix Ia1 1>     |
        b2' --> {}                   |               | I- Ia1 1>
        a2 --> D(IKE)                |               | Ia1 1>
        a2' <-- {}                   | Ia1 1>        |
        end                          |               |
        """
    )


def test_the_response_to_the_loser_of_two_ike_rekeys_is_delayed():
    # Bob keeps the old IKE SA until Alice shows that she has seen the nonces: or Ia1 would be left with him.
    tell(
        """
        lowest a1                    | I 1>           | I 1>
        A: rekey I                   | I~ 1>          |
        B: rekey I                   |                | I~ 1>
        a1 --> REKEY(IKE)            |                | I~ Ia1 1>
        b1 <-- REKEY(IKE)            | I~ Ib1 1>      |
        b1' --> SA                   |                | I- Ia1 Ib1 1>
        a1' <-- SA                   | I- Ib1 Ia1x 1> |
        a2 --> D(IKE)                |                | Ix Ib1 1>
        a2' <-- {}                   | I- Ib1 1>      |
        b2 <-- D(IKE)                | Ib1 1>         |
        b2' --> {}                   |                | Ib1 1>
        end                          |                |
        """
    )


def test_the_response_to_the_loser_of_two_ike_rekeys_is_lost():
    tell(
        """
        lowest a1                    | I 1>           | I 1>
        A: rekey I                   | I~ 1>          |
        B: rekey I                   |                | I~ 1>
        a1 --> REKEY(IKE)            |                | I~ Ia1 1>
        b1 <-- REKEY(IKE)            | I~ Ib1 1>      |
        b1' --> SA                   |                | I- Ia1 Ib1 1>
        a1' lost                     |                |
        a1 resent                    |                |
        a1 --> REKEY(IKE)            |                |
        a1' <-- SA                   | I- Ib1 Ia1x 1> |
        a2 --> D(IKE)                |                | Ix Ib1 1>
        a2' <-- {}                   | I- Ib1 1>      |
        b2 <-- D(IKE)                | Ib1 1>         |
        b2' --> {}                   |                | Ib1 1>
        end                          |                |
        """
    )


def test_the_delete_of_the_redundant_ike_sa_is_lost():
    tell(
        """
        lowest a1                    | I 1>           | I 1>
        A: rekey I                   | I~ 1>          |
        B: rekey I                   |                | I~ 1>
        a1 --> REKEY(IKE)            |                | I~ Ia1 1>
        b1 <-- REKEY(IKE)            | I~ Ib1 1>      |
        b1' --> SA                   |                | I- Ia1 Ib1 1>
        a1' <-- SA                   | I- Ib1 Ia1x 1> |
        a2 lost                      |                |
        a2 resent                    |                |
        a2 --> D(IKE)                |                | Ix Ib1 1>
        a2' <-- {}                   | I- Ib1 1>      |
        b2 <-- D(IKE)                | Ib1 1>         |
        b2' --> {}                   |                | Ib1 1>
        end                          |                |
        """
    )


def test_the_response_to_the_winner_of_two_ike_rekeys_is_delayed_past_the_delete_of_the_redundant_one():
    tell(
        """
        lowest a1                    | I 1>           | I 1>
        A: rekey I                   | I~ 1>          |
        B: rekey I                   |                | I~ 1>
        a1 --> REKEY(IKE)            |                | I~ Ia1 1>
        b1 <-- REKEY(IKE)            | I~ Ib1 1>      |
        a1' <-- SA                   | I- Ib1 Ia1x 1> |
        a2 --> D(IKE)                |                | I~ 1>
        a2' <-- {}                   | I- Ib1 1>      |
        b1' --> SA                   |                | I- Ib1 1>
        b2 <-- D(IKE)                | Ib1 1>         |
        b2' --> {}                   |                | Ib1 1>
        end                          |                |
        """
    )


def test_an_ike_rekey_that_only_one_side_notices_is_forgotten():
    # §2.8.2: Alice was done before Bob's request came. It gets TEMPORARY_FAILURE.
    tell(
        """
        A: rekey I                   | I~ 1>        | I 1>
        B: rekey I                   |              | I~ 1>
        a1 --> REKEY(IKE)            |              | I~ Ia1 1>
        a1' <-- SA                   | I- Ia1 1>    |
        b1 <-- REKEY(IKE)            |              |
        b1' --> TEMPORARY_FAILURE    |              | I- Ia1 1>
        a2 --> D(IKE)                |              | Ia1 1>
        a2' <-- {}                   | Ia1 1>       |
        end                          |              |
        """
    )


def test_an_ike_rekey_that_only_one_side_notices_is_forgotten_at_the_delete():
    # §2.8.2, the ladder: the request of Bob is under way still when the old IKE SA goes.
    tell(
        """
        A: rekey I                   | I~ 1>        | I 1>
        B: rekey I                   |              | I~ 1>
        a1 --> REKEY(IKE)            |              | I~ Ia1 1>
        a1' <-- SA                   | I- Ia1 1>    |
        b1 lost                      |              |
        a2 --> D(IKE)                |              | Ia1 1>
        a2' <-- {}                   | Ia1 1>       |
        end                          |              |
        """
    )


def test_an_ike_rekey_that_only_one_side_notices_is_refused_too_late_to_be_heard():
    tell(
        """
        A: rekey I                   | I~ 1>        | I 1>
        B: rekey I                   |              | I~ 1>
        a1 --> REKEY(IKE)            |              | I~ Ia1 1>
        a1' <-- SA                   | I- Ia1 1>    |
        b1 <-- REKEY(IKE)            |              |
        a2 --> D(IKE)                |              | Ia1 1>
        a2' <-- {}                   | Ia1 1>       |
        b1' lost                     |              |
        end                          |              |
        """
    )


def test_an_ike_rekey_crosses_with_the_delete_of_the_ike_sa():
    # §2.25.2: Alice forgets her rekey; Bob, who is closing, tells her to wait.
    tell(
        """
        gap                          | I 1>         | I 1>
        A: rekey I                   | I~ 1>        |
        B: delete I                  |              | Ix 1
        a1 --> REKEY(IKE)            |              |
        a1' <-- TEMPORARY_FAILURE    | I 1>         |
        b1 <-- D(IKE)                | none         |
        b1' --> {}                   |              | none
        end                          |              |
        """
    )


def test_an_ike_rekey_crosses_with_a_delete_that_overtakes_it():
    tell(
        """
        gap                          | I 1>         | I 1>
        A: rekey I                   | I~ 1>        |
        B: delete I                  |              | Ix 1
        b1 <-- D(IKE)                | none         |
        b1' --> {}                   |              | none
        a1 --> REKEY(IKE)            |              |
        end                          |              |
        """
    )


def test_the_ike_sa_is_deleted_by_a_peer_that_has_just_answered_its_rekey():
    # Bob wants to delete what he knows as the IKE SA: he does, in the successor.
    tell(
        """
        gap                          | I 1>         | I 1>
        A: rekey I                   | I~ 1>        |
        a1 --> REKEY(IKE)            |              | I- Ia1 1>
        B: delete Ia1                |              | I- Ia1x 1
        a1' <-- SA                   | I- Ia1 1>    |
        a2 --> D(IKE)                |              | Ia1x 1
        a2' <-- {}                   | Ia1 1>       |
        b1 lost                      |              |
        b1 resent                    |              |
        b1 <-- D(IKE)                | none         |
        b1' --> {}                   |              | none
        end                          |              |
        """
    )


def test_both_sides_delete_the_ike_sa_at_once():
    # §2.25.2: both reply as usual and forget their own.
    tell(
        """
        gap                          | I 1>         | I 1>
        A: delete I                  | Ix 1         |
        B: delete I                  |              | Ix 1
        a1 --> D(IKE)                |              | none
        b1 <-- D(IKE)                | none         |
        a1' <-- {}                   |              |
        b1' --> {}                   |              |
        end                          |              |
        """
    )


def test_both_sides_delete_the_ike_sa_at_once_and_one_delete_is_lost():
    tell(
        """
        gap                          | I 1>         | I 1>
        A: delete I                  | Ix 1         |
        B: delete I                  |              | Ix 1
        a1 lost                      |              |
        b1 <-- D(IKE)                | none         |
        b1' --> {}                   |              | none
        end                          |              |
        """
    )


def test_the_delete_of_the_ike_sa_is_lost():
    tell(
        """
        gap                          | I 1>         | I 1>
        A: delete I                  | Ix 1         |
        a1 lost                      |              |
        a1 resent                    |              |
        a1 --> D(IKE)                |              | none
        a1' <-- {}                   | none         |
        end                          |              |
        """
    )


def test_the_response_to_the_delete_of_the_ike_sa_is_lost():
    tell(
        """
        gap                          | I 1>         | I 1>
        A: delete I                  | Ix 1         |
        a1 --> D(IKE)                |              | none
        a1' lost                     |              |
        a1 resent                    |              |
        a1 --> D(IKE)                |              |
        a1' <-- {}                   | none         |
        end                          |              |
        """
    )


def test_the_delete_of_the_ike_sa_arrives_twice():
    tell(
        """
        gap                          | I 1>         | I 1>
        A: delete I                  | Ix 1         |
        a1 --> D(IKE)                |              | none
        a1 --> again                 |              |
        a1' <-- {}                   | none         |
        a1' <-- again                |              |
        end                          |              |
        """
    )


def test_a_hard_limit_ends_an_ike_sa():
    # It is said once, without waiting for an answer.
    tell(
        """
        gap                          | I 1>         | I 1>
        A: expire I                  | none         |
        a1 --> D(IKE)                |              | none
        a1' <-- {}                   |              |
        end                          |              |
        """
    )


def test_a_hard_limit_ends_an_ike_sa_while_its_rekey_is_unanswered():
    # Nothing can be said: the window is taken. Bob finds out when he asks next.
    tell(
        """
        gap                          | I 1>         | I 1>
        A: rekey I                   | I~ 1>        |
        a1 --> REKEY(IKE)            |              | I- Ia1 1>
        A: expire I                  | none         |
        a1' <-- SA                   |              |
        B: check Ia1                 |              |
        b1 <-- {}                    |              |
        b1' --> INVALID_IKE_SPI      |              |
        wait 31                      |              | Ix Ia1 1>
        b2 <-- D(IKE)                |              |
        b2' lost                     |              |
        wait 80                      |              | none
        end                          |              |
        """
    )


def test_a_hard_limit_ends_an_ike_sa_while_a_child_rekey_is_unanswered():
    tell(
        """
        gap                          | I 1>         | I 1>
        A: rekey 1                   | I 1~>        |
        a1 lost                      |              |
        A: expire I                  | none         |
        B: check I                   |              |
        b1 <-- {}                    |              |
        b1' --> INVALID_IKE_SPI      |              |
        wait 80                      |              | none
        end                          |              |
        """
    )


def test_a_hard_limit_ends_an_ike_sa_that_both_sides_rekey():
    # The successor that Bob made has taken nothing over at Alice's: it ends too, and she says so.
    tell(
        """
        gap                          | I 1>         | I 1>
        A: rekey I                   | I~ 1>        |
        B: rekey I                   |              | I~ 1>
        a1 lost                      |              |
        b1 <-- REKEY(IKE)            | I~ Ib1 1>    |
        b1' --> SA                   |              | I- Ib1 1>
        A: expire I                  | none         |
        a2 --> D(IKE)                |              | I-
        a2' <-- {}                   |              |
        b2 <-- D(IKE)                |              |
        wait 80                      |              | none
        end                          |              |
        """
    )


def test_an_ike_rekey_whose_group_is_refused_is_asked_for_again_with_the_group_of_the_peer():
    tell(
        """
        B: rekey I                   | I 1>         | I~ 1>
        b1 <-- REKEY(IKE)            |              |
        b1' --> INVALID_KE_PAYLOAD   |              |
        b2 <-- REKEY(IKE)            | I- Ib2 1>    |
        b2' --> SA                   |              | I- Ib2 1>
        b3 <-- D(IKE)                | Ib2 1>       |
        b3' --> {}                   |              | Ib2 1>
        end                          |              |
        """,
        other_ike_groups(),
    )


def test_both_rekey_the_ike_sa_at_once_and_the_group_of_one_is_refused():
    # Alice's successor is there when Bob asks again: §2.25.2, she is closing the IKE SA.
    tell(
        """
        A: rekey I                   | I~ 1>        | I 1>
        B: rekey I                   |              | I~ 1>
        a1 --> REKEY(IKE)            |              | I~ Ia1 1>
        b1 <-- REKEY(IKE)            |              |
        a1' <-- SA                   | I- Ia1 1>    |
        b1' --> INVALID_KE_PAYLOAD   |              |
        b2 <-- REKEY(IKE)            |              |
        b2' --> TEMPORARY_FAILURE    |              | I- Ia1 1>
        a2 --> D(IKE)                |              | Ia1 1>
        a2' <-- {}                   | Ia1 1>       |
        end                          |              |
        """,
        other_ike_groups(),
    )


def test_both_rekey_the_ike_sa_at_once_and_the_group_of_one_is_refused_in_time():
    # Bob asks again before Alice has his response: there are four nonces.
    tell(
        """
        lowest a1                    | I 1>           | I 1>
        A: rekey I                   | I~ 1>          |
        B: rekey I                   |                | I~ 1>
        b1 <-- REKEY(IKE)            |                |
        b1' --> INVALID_KE_PAYLOAD   |                |
        b2 <-- REKEY(IKE)            | I~ Ib2 1>      |
        a1 --> REKEY(IKE)            |                | I~ Ia1 1>
        a1' <-- SA                   | I- Ib2 Ia1x 1> |
        b2' --> SA                   |                | I- Ia1 Ib2 1>
        a2 --> D(IKE)                |                | Ix Ib2 1>
        a2' <-- {}                   | I- Ib2 1>      |
        b3 <-- D(IKE)                | Ib2 1>         |
        b3' --> {}                   |                | Ib2 1>
        end                          |                |
        """,
        other_ike_groups(),
    )
