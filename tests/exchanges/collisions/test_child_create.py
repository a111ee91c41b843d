"""Creating Child SAs while others are made, rekeyed or deleted (RFC 7296 §1.3.1, §2.25).

How to read a story: `tests/fakes/story.py`.
"""

from tests.fakes.story import tell


def test_both_sides_create_the_same_child_sa_at_once_and_the_nonce_of_the_request_of_alice_is_the_lowest():
    # As with two successors: the one made with the lowest nonce is deleted by its maker, when both are there.
    tell(
        """
        lowest a1                    | 1>           | 1>
        A: new dmz                   |              |
        B: new dmz                   |              |
        a1 --> NEW                   |              | 1> a1>
        b1 <-- NEW                   | 1> b1>       |
        a1' <-- SA                   | 1> b1> a1x   |
        b1' --> SA                   |              | 1> a1 b1>
        a2 --> D(a1)                 |              | 1> b1> (a1)
        a2' <-- D(a1)                | 1> b1> (a1)  |
        end                          | 1> b1>       | 1> b1>
        """
    )


def test_both_sides_create_the_same_child_sa_at_once_and_the_nonce_of_the_response_of_bob_is_the_lowest():
    tell(
        """
        lowest a1'                   | 1>           | 1>
        A: new dmz                   |              |
        B: new dmz                   |              |
        a1 --> NEW                   |              | 1> a1>
        b1 <-- NEW                   | 1> b1>       |
        a1' <-- SA                   | 1> b1> a1x   |
        b1' --> SA                   |              | 1> a1 b1>
        a2 --> D(a1)                 |              | 1> b1> (a1)
        a2' <-- D(a1)                | 1> b1> (a1)  |
        end                          | 1> b1>       | 1> b1>
        """
    )


def test_both_sides_create_the_same_child_sa_at_once_and_the_nonce_of_the_request_of_bob_is_the_lowest():
    tell(
        """
        lowest b1                    | 1>           | 1>
        A: new dmz                   |              |
        B: new dmz                   |              |
        a1 --> NEW                   |              | 1> a1>
        b1 <-- NEW                   | 1> b1>       |
        a1' <-- SA                   | 1> b1 a1>    |
        b1' --> SA                   |              | 1> a1> b1x
        b2 <-- D(b1)                 | 1> a1> (b1)  |
        b2' --> D(b1)                |              | 1> a1> (b1)
        end                          | 1> a1>       | 1> a1>
        """
    )


def test_both_sides_create_the_same_child_sa_at_once_and_the_nonce_of_the_response_of_alice_is_the_lowest():
    tell(
        """
        lowest b1'                   | 1>           | 1>
        A: new dmz                   |              |
        B: new dmz                   |              |
        a1 --> NEW                   |              | 1> a1>
        b1 <-- NEW                   | 1> b1>       |
        a1' <-- SA                   | 1> b1 a1>    |
        b1' --> SA                   |              | 1> a1> b1x
        b2 <-- D(b1)                 | 1> a1> (b1)  |
        b2' --> D(b1)                |              | 1> a1> (b1)
        end                          | 1> a1>       | 1> a1>
        """
    )


def test_both_sides_create_the_same_child_sa_and_one_request_comes_when_the_other_exchange_is_done():
    tell(
        """
        lowest a1                    | 1>           | 1>
        A: new dmz                   |              |
        B: new dmz                   |              |
        b1 <-- NEW                   | 1> b1>       |
        b1' --> SA                   |              | 1> b1>
        a1 --> NEW                   |              | 1> b1> a1+
        a1' <-- SA                   | 1> b1> a1x   |
        a2 --> D(a1)                 |              | 1> b1> (a1)
        a2' <-- D(a1)                | 1> b1> (a1)  |
        end                          | 1> b1>       | 1> b1>
        """
    )


def test_a_new_child_sa_is_deleted_before_its_maker_has_heard_of_it():
    # The response is repeated when the DELETE has come: Alice does not install what is gone.
    tell(
        """
        A: new dmz                   | 1>           | 1>
        a1 --> NEW                   |              | 1> a1>
        B: delete a1                 |              | 1> a1x
        b1 <-- D(a1)                 |              |
        b1' --> {}                   |              | 1>
        a1' <-- SA                   |              |
        end                          |              |
        """
    )


def test_a_new_child_sa_is_deleted_while_the_response_is_on_its_way():
    tell(
        """
        A: new dmz                   | 1>           | 1>
        a1 --> NEW                   |              | 1> a1>
        B: delete a1                 |              | 1> a1x
        a1' <-- SA                   | 1> a1>       |
        b1 <-- D(a1)                 | 1>           |
        b1' --> D(a1)                |              | 1>
        end                          |              |
        """
    )


def test_a_new_child_sa_is_rekeyed_before_its_maker_has_heard_of_it():
    # TEMPORARY_FAILURE and not CHILD_SA_NOT_FOUND: it may be what Alice asked for.
    tell(
        """
        A: new dmz                   | 1>           | 1>
        a1 --> NEW                   |              | 1> a1>
        B: rekey a1                  |              | 1> a1~>
        b1 <-- REKEY_SA(a1)          |              |
        b1' --> TEMPORARY_FAILURE    |              | 1> a1>
        a1' <-- SA                   | 1> a1>       |
        end                          | 1> b2>       | 1> b2>
        """
    )


def test_the_request_for_a_new_child_sa_crosses_with_the_rekey_of_another():
    tell(
        """
        A: new dmz                   | 1>           | 1>
        B: rekey 1                   |              | 1~>
        a1 --> NEW                   |              | 1~> a1>
        b1 <-- REKEY_SA(1)           | 1-> b1+      |
        a1' <-- SA                   | 1-> b1+ a1>  |
        b1' --> SA                   |              | 1x a1> b1>
        b2 <-- D(1)                  | b1> a1> (1)  |
        b2' --> D(1)                 |              | a1> b1> (1)
        end                          | b1> a1>      | a1> b1>
        """
    )


def test_the_request_for_a_new_child_sa_crosses_with_the_delete_of_another():
    tell(
        """
        gap                          | 1>           | 1>
        A: new dmz                   |              |
        B: delete 1                  |              | 1x
        a1 --> NEW                   |              | 1x a1>
        b1 <-- D(1)                  | none         |
        a1' <-- SA                   | a1>          |
        b1' --> D(1)                 |              | a1>
        end                          |              |
        """
    )


def test_the_request_for_a_new_child_sa_is_repeated_and_makes_one_only():
    tell(
        """
        A: new dmz                   | 1>           | 1>
        a1 --> NEW                   |              | 1> a1>
        a1' lost                     |              |
        a1 resent                    |              |
        a1 --> NEW                   |              |
        a1 --> again                 |              |
        a1' <-- SA                   | 1> a1>       |
        end                          |              |
        """
    )
