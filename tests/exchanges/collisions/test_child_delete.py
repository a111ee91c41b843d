"""Deleting Child SAs while they are rekeyed, deleted, lost or expired (RFC 7296 §1.4.1, §2.25.1).

How to read a story: `tests/fakes/story.py`.
"""

from tests.fakes.story import tell


def test_a_child_sa_is_deleted():
    # §1.4.1: each side names the SA it receives on.
    tell(
        """
        gap                          | 1>           | 1>
        A: delete 1                  | 1x           |
        a1 --> D(1)                  |              | none
        a1' <-- D(1)                 | none         |
        end                          |              |
        """
    )


def test_the_delete_is_lost():
    tell(
        """
        gap                          | 1>           | 1>
        A: delete 1                  | 1x           |
        a1 lost                      |              |
        a1 resent                    |              |
        a1 --> D(1)                  |              | none
        a1' <-- D(1)                 | none         |
        end                          |              |
        """
    )


def test_the_response_to_the_delete_is_lost():
    tell(
        """
        gap                          | 1>           | 1>
        A: delete 1                  | 1x           |
        a1 --> D(1)                  |              | none
        a1' lost                     |              |
        a1 resent                    |              |
        a1 --> D(1)                  |              |
        a1' <-- D(1)                 | none         |
        end                          |              |
        """
    )


def test_the_delete_arrives_twice():
    tell(
        """
        gap                          | 1>           | 1>
        A: delete 1                  | 1x           |
        a1 --> D(1)                  |              | none
        a1 --> again                 |              |
        a1' <-- D(1)                 | none         |
        a1' <-- again                |              |
        end                          |              |
        """
    )


def test_both_sides_delete_the_same_child_sa_at_once():
    # §2.25.1, §1.4.1: whoever is closing it replies without a Delete payload.
    tell(
        """
        gap                          | 1>           | 1>
        A: delete 1                  | 1x           |
        B: delete 1                  |              | 1x
        a1 --> D(1)                  |              |
        b1 <-- D(1)                  |              |
        a1' <-- {}                   | none         |
        b1' --> {}                   |              | none
        end                          |              |
        """
    )


def test_both_sides_delete_it_at_once_and_one_delete_is_delayed_past_the_other_exchange():
    tell(
        """
        gap                          | 1>           | 1>
        A: delete 1                  | 1x           |
        B: delete 1                  |              | 1x
        a1 --> D(1)                  |              |
        a1' <-- {}                   | none         |
        b1 <-- D(1)                  |              |
        b1' --> {}                   |              | none
        end                          |              |
        """
    )


def test_both_sides_delete_it_at_once_and_one_delete_is_lost():
    tell(
        """
        gap                          | 1>           | 1>
        A: delete 1                  | 1x           |
        B: delete 1                  |              | 1x
        a1 lost                      |              |
        b1 <-- D(1)                  |              |
        b1' --> {}                   |              | none
        a1 resent                    |              |
        a1 --> D(1)                  |              |
        a1' <-- {}                   | none         |
        end                          |              |
        """
    )


def test_a_delete_crosses_with_a_rekey_of_the_same_child_sa():
    # §2.25.1: Alice is closing it, so that Bob is told to wait; he answers her DELETE as usual.
    tell(
        """
        gap                          | 1>           | 1>
        A: delete 1                  | 1x           |
        B: rekey 1                   |              | 1~>
        a1 --> D(1)                  |              | none
        b1 <-- REKEY_SA(1)           |              |
        a1' <-- D(1)                 | none         |
        b1' --> TEMPORARY_FAILURE    |              |
        end                          |              |
        """
    )


def test_a_delete_crosses_with_a_rekey_and_overtakes_it():
    # The answer is there before the request: Alice has no such Child SA any more.
    tell(
        """
        gap                          | 1>           | 1>
        A: delete 1                  | 1x           |
        B: rekey 1                   |              | 1~>
        a1 --> D(1)                  |              | none
        a1' <-- D(1)                 | none         |
        b1 <-- REKEY_SA(1)           |              |
        b1' --> CHILD_SA_NOT_FOUND   |              |
        end                          |              |
        """
    )


def test_a_delete_crosses_with_a_rekey_that_overtakes_it():
    tell(
        """
        gap                          | 1>           | 1>
        A: delete 1                  | 1x           |
        B: rekey 1                   |              | 1~>
        b1 <-- REKEY_SA(1)           |              |
        b1' --> TEMPORARY_FAILURE    |              | 1>
        a1 --> D(1)                  |              | none
        a1' <-- D(1)                 | none         |
        end                          |              |
        """
    )


def test_a_delete_that_crosses_with_a_rekey_is_lost():
    tell(
        """
        gap                          | 1>           | 1>
        A: delete 1                  | 1x           |
        B: rekey 1                   |              | 1~>
        a1 lost                      |              |
        b1 <-- REKEY_SA(1)           |              |
        b1' --> TEMPORARY_FAILURE    |              | 1>
        a1 resent                    |              |
        a1 --> D(1)                  |              | none
        a1' <-- D(1)                 | none         |
        end                          |              |
        """
    )


def test_the_response_to_a_delete_that_crosses_with_a_rekey_is_lost():
    tell(
        """
        gap                          | 1>           | 1>
        A: delete 1                  | 1x           |
        B: rekey 1                   |              | 1~>
        a1 --> D(1)                  |              | none
        a1' lost                     |              |
        b1 <-- REKEY_SA(1)           |              |
        b1' --> TEMPORARY_FAILURE    |              |
        a1 resent                    |              |
        a1 --> D(1)                  |              |
        a1' <-- D(1)                 | none         |
        end                          |              |
        """
    )


def test_a_rekey_that_crosses_with_a_delete_is_lost():
    tell(
        """
        gap                          | 1>           | 1>
        A: delete 1                  | 1x           |
        B: rekey 1                   |              | 1~>
        b1 lost                      |              |
        a1 --> D(1)                  |              | none
        a1' <-- D(1)                 | none         |
        b1 resent                    |              |
        b1 <-- REKEY_SA(1)           |              |
        b1' --> CHILD_SA_NOT_FOUND   |              |
        end                          |              |
        """
    )


def test_the_response_to_a_rekey_that_crosses_with_a_delete_is_lost():
    tell(
        """
        gap                          | 1>           | 1>
        A: delete 1                  | 1x           |
        B: rekey 1                   |              | 1~>
        b1 <-- REKEY_SA(1)           |              |
        b1' lost                     |              |
        a1 --> D(1)                  |              | none
        a1' <-- D(1)                 | none         |
        b1 resent                    |              |
        b1 <-- REKEY_SA(1)           |              |
        b1' --> TEMPORARY_FAILURE    |              |
        end                          |              |
        """
    )


def test_a_child_sa_is_terminated_while_its_rekey_is_unanswered():
    # The operator means the Child SA, whatever it is called when the turn of the DELETE comes.
    tell(
        """
        gap                          | 1>           | 1>
        A: rekey 1                   | 1~>          |
        A: delete 1                  |              |
        a1 --> REKEY_SA(1)           |              | 1-> a1+
        a1' <-- SA                   | 1x a1>       |
        a2 --> D(1)                  |              | a1> (1)
        a2' <-- D(1)                 | a1x (1)      |
        a3 --> D(a1)                 |              | (1)
        a3' <-- D(a1)                | (1)          |
        end                          | none         | none
        """
    )


def test_a_child_sa_is_terminated_by_the_responder_while_its_successor_is_being_made():
    tell(
        """
        gap                          | 1>           | 1>
        A: rekey 1                   | 1~>          |
        a1 --> REKEY_SA(1)           |              | 1-> a1+
        B: delete 1                  |              | 1x a1+
        b1 <-- D(1)                  | none         |
        a1' <-- SA                   | a1>          |
        b1' --> D(1)                 |              | a1x (1)
        b2 <-- D(a1)                 | none         |
        b2' --> D(a1)                |              | (1)
        end                          |              | none
        """
    )


def test_a_child_sa_is_terminated_while_two_rekeys_of_it_cross():
    tell(
        """
        gap                          | 1>           | 1>
        lowest a1                    |              |
        A: rekey 1                   | 1~>          |
        B: rekey 1                   |              | 1~>
        A: delete 1                  |              |
        a1 --> REKEY_SA(1)           |              | 1~> a1+
        b1 <-- REKEY_SA(1)           | 1~> b1+      |
        a1' <-- SA                   | 1-> b1+      |
        b1' --> SA                   |              | 1x a1+ b1>
        a2 --> D(a1)                 |              | 1x b1> (a1)
        b2 <-- D(1)                  | b1> (1)      |
        a2' <-- D(a1)                | b1x (1)      |
        b2' --> D(1)                 |              | b1> (1) (a1)
        a3 --> D(b1)                 |              | (1) (a1)
        a3' <-- D(b1)                | (1)          |
        end                          | none         | none
        """
    )


def test_the_successor_is_deleted_by_its_maker_before_the_responder_sends_on_it():
    # Only a1 was told to go, and the old one with it: nothing is left.
    tell(
        """
        gap                          | 1>           | 1>
        A: rekey 1                   | 1~>          |
        a1 --> REKEY_SA(1)           |              | 1-> a1+
        a1' <-- SA                   | 1x a1>       |
        A: delete a1                 |              |
        a2 --> D(1)                  |              | a1> (1)
        a2' <-- D(1)                 | a1x (1)      |
        a3 --> D(a1)                 |              | (1)
        a3' <-- D(a1)                | (1)          |
        end                          | none         | none
        """
    )


def test_the_successor_is_deleted_by_its_responder_while_the_delete_of_the_old_one_is_on_its_way():
    tell(
        """
        gap                          | 1>           | 1>
        A: rekey 1                   | 1~>          |
        a1 --> REKEY_SA(1)           |              | 1-> a1+
        a1' <-- SA                   | 1x a1>       |
        B: delete a1                 |              | 1-> a1x
        b1 <-- D(a1)                 | 1x           |
        a2 --> D(1)                  |              | a1x
        a2' <-- D(1)                 | (1)          |
        b1' --> D(a1)                |              | none
        end                          | none         |
        """
    )


def test_the_successor_is_deleted_by_its_responder_before_its_maker_has_heard_of_it():
    tell(
        """
        gap                          | 1>           | 1>
        A: rekey 1                   | 1~>          |
        a1 --> REKEY_SA(1)           |              | 1-> a1+
        B: delete a1                 |              | 1-> a1x
        b1 <-- D(a1)                 |              |
        b1' --> {}                   |              | 1x
        a1' <-- SA                   | 1>           |
        b2 <-- D(1)                  | none         |
        b2' --> D(1)                 |              | none
        end                          |              |
        """
    )


def test_the_successor_is_given_up_by_its_responder_before_its_maker_has_heard_of_it():
    # The response comes after the DELETE of what it tells: the old one, which nobody deleted, goes on.
    tell(
        """
        A: rekey 1                   | 1~>          | 1>
        a1 --> REKEY_SA(1)           |              | 1-> a1+
        B: expire a1                 |              | 1-> a1x
        b1 <-- D(a1)                 |              |
        b1' --> {}                   |              | 1>
        a1' <-- SA                   | 1>           |
        end                          | b2>          | b2>
        """
    )


def test_a_child_sa_that_was_lost_at_the_responder_is_rekeyed():
    # §2.25.1: CHILD_SA_NOT_FOUND; what Alice has is a hole, so that she makes a new one.
    tell(
        """
        gap                          | 1>           | 1>
        B: forget 1                  |              | none
        A: rekey 1                   | 1~>          |
        a1 --> REKEY_SA(1)           |              |
        a1' <-- CHILD_SA_NOT_FOUND   | none         |
        a2 --> NEW                   |              | a2>
        a2' <-- SA                   | a2>          |
        end                          |              |
        """
    )


def test_a_child_sa_that_was_lost_at_the_responder_is_rekeyed_and_the_error_is_lost():
    tell(
        """
        gap                          | 1>           | 1>
        B: forget 1                  |              | none
        A: rekey 1                   | 1~>          |
        a1 --> REKEY_SA(1)           |              |
        a1' lost                     |              |
        a1 resent                    |              |
        a1 --> REKEY_SA(1)           |              |
        a1' <-- CHILD_SA_NOT_FOUND   | none         |
        a2 --> NEW                   |              | a2>
        a2' <-- SA                   | a2>          |
        end                          |              |
        """
    )


def test_a_child_sa_that_was_lost_at_the_responder_is_deleted():
    # §2.25.1: a reply without a Delete payload; that is as good.
    tell(
        """
        gap                          | 1>           | 1>
        B: forget 1                  |              | none
        A: delete 1                  | 1x           |
        a1 --> D(1)                  |              |
        a1' <-- {}                   | none         |
        end                          |              |
        """
    )


def test_the_successor_was_lost_at_the_responder_before_the_old_one_is_deleted():
    tell(
        """
        gap                          | 1>           | 1>
        A: rekey 1                   | 1~>          |
        a1 --> REKEY_SA(1)           |              | 1-> a1+
        a1' <-- SA                   | 1x a1>       |
        B: forget a1                 |              | 1->
        a2 --> D(1)                  |              | none
        a2' <-- D(1)                 | a1> (1)      |
        A: rekey a1                  | a1~> (1)     |
        a3 --> REKEY_SA(a1)          |              |
        a3' <-- CHILD_SA_NOT_FOUND   | (1)          |
        a4 --> NEW                   |              | a4>
        a4' <-- SA                   | a4> (1)      |
        end                          | a4>          |
        """
    )


def test_a_hard_limit_ends_a_child_sa_while_its_rekey_is_unanswered():
    # It must not be used any more, whatever the answer; the successor comes all the same.
    tell(
        """
        gap                          | 1>           | 1>
        A: rekey 1                   | 1~>          |
        A: expire 1                  | 1~           |
        a1 --> REKEY_SA(1)           |              | 1-> a1+
        a1' <-- SA                   | 1x a1>       |
        a2 --> D(1)                  |              | a1> (1)
        a2' <-- D(1)                 | a1>          |
        end                          |              | a1>
        """
    )


def test_a_hard_limit_ends_a_child_sa_at_the_responder_while_its_successor_is_being_made():
    tell(
        """
        gap                          | 1>           | 1>
        A: rekey 1                   | 1~>          |
        a1 --> REKEY_SA(1)           |              | 1-> a1+
        B: expire 1                  |              | 1x a1+
        b1 <-- D(1)                  | none         |
        a1' <-- SA                   | a1>          |
        b1' --> D(1)                 |              | a1>
        end                          |              |
        """
    )


def test_a_hard_limit_ends_a_child_sa_on_both_sides_while_their_rekeys_cross():
    tell(
        """
        gap                          | 1>           | 1>
        lowest a1                    |              |
        A: rekey 1                   | 1~>          |
        B: rekey 1                   |              | 1~>
        A: expire 1                  | 1~           |
        B: expire 1                  |              | 1~
        a1 --> REKEY_SA(1)           |              | 1~ a1+
        b1 <-- REKEY_SA(1)           | 1~ b1+       |
        a1' <-- SA                   | 1- b1+       |
        b1' --> SA                   |              | 1x a1+ b1>
        a2 --> D(a1)                 |              | 1x b1> (a1)
        b2 <-- D(1)                  | b1>          |
        a2' <-- D(a1)                |              |
        b2' --> D(1)                 |              | b1> (a1)
        end                          |              | b1>
        """
    )


def test_a_hard_limit_ends_a_child_sa_while_the_delete_of_it_by_the_peer_is_on_its_way():
    tell(
        """
        gap                          | 1>           | 1>
        B: delete 1                  |              | 1x
        A: expire 1                  | 1x           |
        b1 <-- D(1)                  |              |
        a1 --> D(1)                  |              |
        b1' --> {}                   |              | none
        a1' <-- {}                   | none         |
        end                          |              |
        """
    )


def test_a_child_sa_expires_while_the_rekey_of_it_was_refused_for_now():
    tell(
        """
        gap                          | 1>           | 1>
        B: delete 1                  |              | 1x
        A: rekey 1                   | 1~>          |
        a1 --> REKEY_SA(1)           |              |
        a1' <-- TEMPORARY_FAILURE    | 1>           |
        A: expire 1                  | 1x           |
        b1 <-- D(1)                  |              |
        b1' --> {}                   |              | none
        a2 --> D(1)                  |              |
        a2' <-- {}                   | none         |
        end                          |              |
        """
    )
