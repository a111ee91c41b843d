"""Both sides rekey the same Child SA (RFC 7296 §2.8.1): the lowest of four nonces decides.

How to read a story: `tests/fakes/story.py`.
"""

from tests.fakes.story import tell


def test_both_rekey_at_once_and_the_nonce_of_the_request_of_alice_is_the_lowest():
    # §2.8.1: Alice deletes what she made, Bob the old one.
    tell(
        """
        lowest a1                    | 1>           | 1>
        A: rekey 1                   | 1~>          |
        B: rekey 1                   |              | 1~>
        a1 --> REKEY_SA(1)           |              | 1~> a1+
        b1 <-- REKEY_SA(1)           | 1~> b1+      |
        a1' <-- SA                   | 1-> b1+      |
        b1' --> SA                   |              | 1x a1+ b1>
        a2 --> D(a1)                 |              | 1x b1> (a1)
        b2 <-- D(1)                  | b1> (1)      |
        a2' <-- D(a1)                |              |
        b2' --> D(1)                 |              | b1> (1) (a1)
        end                          | b1>          | b1>
        """
    )


def test_both_rekey_at_once_and_the_nonce_of_the_response_of_bob_is_the_lowest():
    tell(
        """
        lowest a1'                   | 1>           | 1>
        A: rekey 1                   | 1~>          |
        B: rekey 1                   |              | 1~>
        a1 --> REKEY_SA(1)           |              | 1~> a1+
        b1 <-- REKEY_SA(1)           | 1~> b1+      |
        a1' <-- SA                   | 1-> b1+      |
        b1' --> SA                   |              | 1x a1+ b1>
        a2 --> D(a1)                 |              | 1x b1> (a1)
        b2 <-- D(1)                  | b1> (1)      |
        a2' <-- D(a1)                |              |
        b2' --> D(1)                 |              | b1> (1) (a1)
        end                          | b1>          | b1>
        """
    )


def test_both_rekey_at_once_and_the_nonce_of_the_request_of_bob_is_the_lowest():
    tell(
        """
        lowest b1                    | 1>           | 1>
        A: rekey 1                   | 1~>          |
        B: rekey 1                   |              | 1~>
        a1 --> REKEY_SA(1)           |              | 1~> a1+
        b1 <-- REKEY_SA(1)           | 1~> b1+      |
        a1' <-- SA                   | 1x b1+ a1>   |
        b1' --> SA                   |              | 1-> a1+
        a2 --> D(1)                  |              | a1> (1)
        b2 <-- D(b1)                 | 1x a1> (b1)  |
        a2' <-- D(1)                 | a1> (1) (b1) |
        b2' --> D(b1)                |              |
        end                          | a1>          | a1>
        """
    )


def test_both_rekey_at_once_and_the_nonce_of_the_response_of_alice_is_the_lowest():
    tell(
        """
        lowest b1'                   | 1>           | 1>
        A: rekey 1                   | 1~>          |
        B: rekey 1                   |              | 1~>
        a1 --> REKEY_SA(1)           |              | 1~> a1+
        b1 <-- REKEY_SA(1)           | 1~> b1+      |
        a1' <-- SA                   | 1x b1+ a1>   |
        b1' --> SA                   |              | 1-> a1+
        a2 --> D(1)                  |              | a1> (1)
        b2 <-- D(b1)                 | 1x a1> (b1)  |
        a2' <-- D(1)                 | a1> (1) (b1) |
        b2' --> D(b1)                |              |
        end                          | a1>          | a1>
        """
    )


def test_the_response_to_the_loser_is_delayed_past_the_delete_of_the_old_one():
    # Bob has seen all four nonces and Alice only two: she learns from his DELETE that his successor stays.
    tell(
        """
        lowest a1                    | 1>           | 1>
        A: rekey 1                   | 1~>          |
        B: rekey 1                   |              | 1~>
        a1 --> REKEY_SA(1)           |              | 1~> a1+
        b1 <-- REKEY_SA(1)           | 1~> b1+      |
        b1' --> SA                   |              | 1x a1+ b1>
        b2 <-- D(1)                  | b1> (1)      |
        b2' --> D(1)                 |              | a1+ b1> (1)
        a1' <-- SA                   |              |
        a2 --> D(a1)                 |              | b1> (1) (a1)
        a2' <-- D(a1)                |              |
        end                          | b1>          | b1>
        """
    )


def test_the_response_to_the_loser_is_delayed_past_a_delete_that_shows_the_nonces_decided_for_the_other():
    tell(
        """
        lowest b1                    | 1>           | 1>
        A: rekey 1                   | 1~>          |
        B: rekey 1                   |              | 1~>
        a1 --> REKEY_SA(1)           |              | 1~> a1+
        b1 <-- REKEY_SA(1)           | 1~> b1+      |
        a1' <-- SA                   | 1x b1+ a1>   |
        a2 --> D(1)                  |              | a1> (1)
        a2' <-- D(1)                 | b1+ a1> (1)  |
        b1' --> SA                   |              |
        b2 <-- D(b1)                 | a1> (1) (b1) |
        b2' --> D(b1)                |              |
        end                          | a1>          | a1>
        """
    )


def test_the_response_to_the_winner_is_delayed_past_the_delete_of_the_redundant_one():
    tell(
        """
        lowest a1                    | 1>           | 1>
        A: rekey 1                   | 1~>          |
        B: rekey 1                   |              | 1~>
        a1 --> REKEY_SA(1)           |              | 1~> a1+
        b1 <-- REKEY_SA(1)           | 1~> b1+      |
        a1' <-- SA                   | 1-> b1+      |
        a2 --> D(a1)                 |              | 1~> (a1)
        a2' <-- D(a1)                |              |
        b1' --> SA                   |              | 1x b1> (a1)
        b2 <-- D(1)                  | b1> (1)      |
        b2' --> D(1)                 |              | b1> (1) (a1)
        end                          | b1>          | b1>
        """
    )


def test_the_response_to_the_winner_is_delayed_past_the_delete_of_the_redundant_one_by_bob():
    tell(
        """
        lowest b1                    | 1>           | 1>
        A: rekey 1                   | 1~>          |
        B: rekey 1                   |              | 1~>
        a1 --> REKEY_SA(1)           |              | 1~> a1+
        b1 <-- REKEY_SA(1)           | 1~> b1+      |
        b1' --> SA                   |              | 1-> a1+
        b2 <-- D(b1)                 | 1~> (b1)     |
        b2' --> D(b1)                |              |
        a1' <-- SA                   | 1x a1> (b1)  |
        a2 --> D(1)                  |              | a1> (1)
        a2' <-- D(1)                 | a1> (1) (b1) |
        end                          | a1>          | a1>
        """
    )


def test_the_request_of_the_loser_is_delayed_past_the_delete_of_the_old_one():
    # §2.8.1, the second ladder: Bob never knew; Alice ignores the error, for she knows.
    tell(
        """
        lowest a1                    | 1>           | 1>
        A: rekey 1                   | 1~>          |
        B: rekey 1                   |              | 1~>
        b1 <-- REKEY_SA(1)           | 1~> b1+      |
        b1' --> SA                   |              | 1x b1>
        b2 <-- D(1)                  | b1> (1)      |
        b2' --> D(1)                 |              | b1> (1)
        a1 --> REKEY_SA(1)           |              |
        a1' <-- CHILD_SA_NOT_FOUND   |              |
        end                          | b1>          | b1>
        """
    )


def test_the_request_that_would_have_won_is_delayed_past_the_delete_of_the_old_one():
    # Without its answer there are no four nonces: what the peer made stays.
    tell(
        """
        lowest b1                    | 1>           | 1>
        A: rekey 1                   | 1~>          |
        B: rekey 1                   |              | 1~>
        b1 <-- REKEY_SA(1)           | 1~> b1+      |
        b1' --> SA                   |              | 1x b1>
        b2 <-- D(1)                  | b1> (1)      |
        b2' --> D(1)                 |              | b1> (1)
        a1 --> REKEY_SA(1)           |              |
        a1' <-- CHILD_SA_NOT_FOUND   |              |
        end                          | b1>          | b1>
        """
    )


def test_the_request_is_delayed_until_the_peer_is_closing_the_old_one():
    # §2.25.1: TEMPORARY_FAILURE, which Alice need not obey, for Bob's successor is there.
    tell(
        """
        A: rekey 1                   | 1~>          | 1>
        B: rekey 1                   |              | 1~>
        b1 <-- REKEY_SA(1)           | 1~> b1+      |
        b1' --> SA                   |              | 1x b1>
        a1 --> REKEY_SA(1)           |              |
        a1' <-- TEMPORARY_FAILURE    | 1-> b1+      |
        b2 <-- D(1)                  | b1> (1)      |
        b2' --> D(1)                 |              | b1> (1)
        end                          | b1>          | b1>
        """
    )


def test_the_request_is_delayed_until_the_peer_is_closing_the_old_one_and_so_is_its_answer():
    tell(
        """
        A: rekey 1                   | 1~>          | 1>
        B: rekey 1                   |              | 1~>
        b1 <-- REKEY_SA(1)           | 1~> b1+      |
        b1' --> SA                   |              | 1x b1>
        a1 --> REKEY_SA(1)           |              |
        b2 <-- D(1)                  | b1> (1)      |
        b2' --> D(1)                 |              | b1> (1)
        a1' <-- TEMPORARY_FAILURE    |              |
        end                          | b1>          | b1>
        """
    )


def test_the_request_of_bob_is_delayed_until_alice_is_closing_the_old_one():
    tell(
        """
        A: rekey 1                   | 1~>          | 1>
        B: rekey 1                   |              | 1~>
        a1 --> REKEY_SA(1)           |              | 1~> a1+
        a1' <-- SA                   | 1x a1>       |
        b1 <-- REKEY_SA(1)           |              |
        b1' --> TEMPORARY_FAILURE    |              | 1-> a1+
        a2 --> D(1)                  |              | a1> (1)
        a2' <-- D(1)                 | a1> (1)      |
        end                          | a1>          | a1>
        """
    )


def test_the_request_of_bob_is_lost_and_comes_again_when_the_old_one_is_gone():
    tell(
        """
        A: rekey 1                   | 1~>          | 1>
        B: rekey 1                   |              | 1~>
        b1 lost                      |              |
        a1 --> REKEY_SA(1)           |              | 1~> a1+
        a1' <-- SA                   | 1x a1>       |
        a2 --> D(1)                  |              | a1> (1)
        a2' <-- D(1)                 | a1> (1)      |
        b1 resent                    |              |
        b1 <-- REKEY_SA(1)           |              |
        b1' --> CHILD_SA_NOT_FOUND   |              |
        end                          | a1>          | a1>
        """
    )


def test_the_request_of_the_loser_is_lost_and_comes_again_in_time():
    tell(
        """
        lowest a1                    | 1>           | 1>
        A: rekey 1                   | 1~>          |
        a1 lost                      |              |
        B: rekey 1                   |              | 1~>
        b1 <-- REKEY_SA(1)           | 1~> b1+      |
        a1 resent                    |              |
        a1 --> REKEY_SA(1)           |              | 1~> a1+
        a1' <-- SA                   | 1-> b1+      |
        b1' --> SA                   |              | 1x a1+ b1>
        a2 --> D(a1)                 |              | 1x b1> (a1)
        b2 <-- D(1)                  | b1> (1)      |
        a2' <-- D(a1)                |              |
        b2' --> D(1)                 |              | b1> (1) (a1)
        end                          | b1>          | b1>
        """
    )


def test_both_responses_are_lost():
    tell(
        """
        lowest b1'                   | 1>           | 1>
        A: rekey 1                   | 1~>          |
        B: rekey 1                   |              | 1~>
        a1 --> REKEY_SA(1)           |              | 1~> a1+
        b1 <-- REKEY_SA(1)           | 1~> b1+      |
        a1' lost                     |              |
        b1' lost                     |              |
        a1 resent                    |              |
        a1 --> REKEY_SA(1)           |              |
        a1' <-- SA                   | 1x b1+ a1>   |
        b1 <-- REKEY_SA(1)           |              |
        b1' --> SA                   |              | 1-> a1+
        a2 --> D(1)                  |              | a1> (1)
        a2' <-- D(1)                 | b1+ a1> (1)  |
        b2 <-- D(b1)                 | a1> (1) (b1) |
        b2' --> D(b1)                |              |
        end                          | a1>          | a1>
        """
    )


def test_the_delete_of_the_redundant_one_is_lost():
    tell(
        """
        lowest a1                    | 1>           | 1>
        A: rekey 1                   | 1~>          |
        B: rekey 1                   |              | 1~>
        a1 --> REKEY_SA(1)           |              | 1~> a1+
        b1 <-- REKEY_SA(1)           | 1~> b1+      |
        a1' <-- SA                   | 1-> b1+      |
        b1' --> SA                   |              | 1x a1+ b1>
        a2 lost                      |              |
        b2 <-- D(1)                  | b1> (1)      |
        b2' --> D(1)                 |              | a1+ b1> (1)
        a2 resent                    |              |
        a2 --> D(a1)                 |              | b1> (1) (a1)
        a2' <-- D(a1)                |              |
        end                          | b1>          | b1>
        """
    )


def test_the_delete_of_the_old_one_is_lost_when_there_is_a_redundant_one():
    tell(
        """
        lowest a1                    | 1>           | 1>
        A: rekey 1                   | 1~>          |
        B: rekey 1                   |              | 1~>
        a1 --> REKEY_SA(1)           |              | 1~> a1+
        b1 <-- REKEY_SA(1)           | 1~> b1+      |
        a1' <-- SA                   | 1-> b1+      |
        b1' --> SA                   |              | 1x a1+ b1>
        b2 lost                      |              |
        a2 --> D(a1)                 |              | 1x b1> (a1)
        a2' <-- D(a1)                |              |
        b2 resent                    |              |
        b2 <-- D(1)                  | b1> (1)      |
        b2' --> D(1)                 |              | b1> (1) (a1)
        end                          | b1>          | b1>
        """
    )


def test_the_responses_to_both_deletes_are_lost():
    tell(
        """
        lowest a1'                   | 1>           | 1>
        A: rekey 1                   | 1~>          |
        B: rekey 1                   |              | 1~>
        a1 --> REKEY_SA(1)           |              | 1~> a1+
        b1 <-- REKEY_SA(1)           | 1~> b1+      |
        a1' <-- SA                   | 1-> b1+      |
        b1' --> SA                   |              | 1x a1+ b1>
        a2 --> D(a1)                 |              | 1x b1> (a1)
        a2' lost                     |              |
        b2 <-- D(1)                  | b1> (1)      |
        b2' lost                     |              |
        a2 resent                    |              |
        a2 --> D(a1)                 |              |
        a2' <-- D(a1)                |              |
        b2 <-- D(1)                  |              |
        b2' --> D(1)                 |              | b1> (1) (a1)
        end                          | b1>          | b1>
        """
    )


def test_every_message_of_two_rekeys_at_once_arrives_twice():
    tell(
        """
        lowest b1                    | 1>           | 1>
        A: rekey 1                   | 1~>          |
        B: rekey 1                   |              | 1~>
        a1 --> REKEY_SA(1)           |              | 1~> a1+
        a1 --> again                 |              |
        b1 <-- REKEY_SA(1)           | 1~> b1+      |
        b1 <-- again                 |              |
        a1' <-- SA                   | 1x b1+ a1>   |
        b1' --> SA                   |              | 1-> a1+
        a1' <-- again                |              |
        b1' --> again                |              |
        a2 --> D(1)                  |              | a1> (1)
        a2 --> again                 |              |
        b2 <-- D(b1)                 | 1x a1> (b1)  |
        b2 <-- again                 |              |
        a2' <-- D(1)                 | a1> (1) (b1) |
        b2' --> D(b1)                |              |
        end                          | a1>          | a1>
        """
    )


def test_the_second_request_comes_when_the_first_was_already_answered():
    # Bob has agreed to Alice's successor: he does not rekey what is on its way out.
    tell(
        """
        A: rekey 1                   | 1~>          | 1>
        a1 --> REKEY_SA(1)           |              | 1-> a1+
        B: rekey 1                   |              |
        a1' <-- SA                   | 1x a1>       |
        a2 --> D(1)                  |              | a1> (1)
        a2' <-- D(1)                 | a1> (1)      |
        end                          | a1>          | a1>
        """
    )


def test_the_loser_sends_on_the_winner_when_it_sees_a_packet_there():
    tell(
        """
        lowest a1                    | 1>           | 1>
        A: rekey 1                   | 1~>          |
        B: rekey 1                   |              | 1~>
        a1 --> REKEY_SA(1)           |              | 1~> a1+
        b1 <-- REKEY_SA(1)           | 1~> b1+      |
        b1' --> SA                   |              | 1x a1+ b1>
        a1' <-- SA                   | 1-> b1+      |
        B: packet                    | 1- b1>       |
        a2 --> D(a1)                 |              | 1x b1> (a1)
        b2 <-- D(1)                  | b1> (1)      |
        a2' <-- D(a1)                |              |
        b2' --> D(1)                 |              | b1> (1) (a1)
        end                          | b1>          | b1>
        """
    )


def test_a_packet_on_one_successor_while_the_other_is_unanswered_changes_nothing():
    # Alice cannot know yet which one stays: she goes on sending on the old one.
    tell(
        """
        lowest b1                    | 1>           | 1>
        A: rekey 1                   | 1~>          |
        B: rekey 1                   |              | 1~>
        a1 --> REKEY_SA(1)           |              | 1~> a1+
        b1 <-- REKEY_SA(1)           | 1~> b1+      |
        a1' <-- SA                   | 1x b1+ a1>   |
        A: packet                    |              |
        b1' --> SA                   |              | 1-> a1+
        a2 --> D(1)                  |              | a1> (1)
        b2 <-- D(b1)                 | 1x a1> (b1)  |
        a2' <-- D(1)                 | a1> (1) (b1) |
        b2' --> D(b1)                |              |
        end                          | a1>          | a1>
        """
    )
