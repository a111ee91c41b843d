"""Child SAs are made, rekeyed and deleted while their IKE SA is rekeyed or deleted (RFC 7296 §2.25).

How to read a story: `tests/fakes/story.py`.
"""

from tests.fakes.story import tell


def test_a_child_rekey_crosses_with_an_ike_rekey():
    # §2.25: both are told to wait, and try again at different times.
    tell(
        """
        A: rekey I                   | I~ 1>        | I 1>
        B: rekey 1                   |              | I 1~>
        a1 --> REKEY(IKE)            |              |
        b1 <-- REKEY_SA(1)           |              |
        a1' <-- TEMPORARY_FAILURE    | I 1>         |
        b1' --> TEMPORARY_FAILURE    |              | I 1>
        end                          | Ia2 b2>      | Ia2 b2>
        """
    )


def test_a_child_rekey_comes_while_the_ike_sa_is_being_rekeyed():
    # §2.25.2: TEMPORARY_FAILURE; the rekey happens later, in the new IKE SA.
    tell(
        """
        A: rekey I                   | I~ 1>        | I 1>
        B: rekey 1                   |              | I 1~>
        b1 <-- REKEY_SA(1)           |              |
        b1' --> TEMPORARY_FAILURE    |              | I 1>
        a1 --> REKEY(IKE)            |              | I- Ia1 1>
        a1' <-- SA                   | I- Ia1 1>    |
        a2 --> D(IKE)                |              | Ia1 1>
        a2' <-- {}                   | Ia1 1>       |
        end                          | Ia1 b2>      | Ia1 b2>
        """
    )


def test_an_ike_rekey_comes_while_a_child_sa_is_being_rekeyed():
    # §2.25.1, the last rule.
    tell(
        """
        A: rekey I                   | I~ 1>        | I 1>
        B: rekey 1                   |              | I 1~>
        a1 --> REKEY(IKE)            |              |
        a1' <-- TEMPORARY_FAILURE    | I 1>         |
        b1 <-- REKEY_SA(1)           | I 1-> b1+    |
        b1' --> SA                   |              | I 1x b1>
        b2 <-- D(1)                  | I b1> (1)    |
        b2' --> D(1)                 |              | I b1> (1)
        end                          | Ia2 b1>      | Ia2 b1>
        """
    )


def test_a_request_for_a_new_child_sa_comes_while_the_ike_sa_is_being_rekeyed():
    tell(
        """
        A: rekey I                   | I~ 1>        | I 1>
        B: new dmz                   |              |
        b1 <-- NEW                   |              |
        b1' --> TEMPORARY_FAILURE    |              |
        a1 --> REKEY(IKE)            |              | I- Ia1 1>
        a1' <-- SA                   | I- Ia1 1>    |
        a2 --> D(IKE)                |              | Ia1 1>
        a2' <-- {}                   | Ia1 1>       |
        end                          | Ia1 1> b2>   | Ia1 1> b2>
        """
    )


def test_an_ike_rekey_comes_while_a_child_sa_is_being_created():
    tell(
        """
        A: rekey I                   | I~ 1>        | I 1>
        B: new dmz                   |              |
        a1 --> REKEY(IKE)            |              |
        a1' <-- TEMPORARY_FAILURE    | I 1>         |
        b1 <-- NEW                   | I 1> b1>     |
        b1' --> SA                   |              | I 1> b1>
        end                          | Ia2 1> b1>   | Ia2 1> b1>
        """
    )


def test_a_delete_of_a_child_sa_comes_while_the_ike_sa_is_being_rekeyed():
    # §2.25.2: as usual, with a Delete payload; Bob is closing a Child SA, so that Alice is told to wait.
    tell(
        """
        gap                          | I 1>         | I 1>
        A: rekey I                   | I~ 1>        |
        B: delete 1                  |              | I 1x
        b1 <-- D(1)                  | I~           |
        a1 --> REKEY(IKE)            |              |
        b1' --> D(1)                 |              | I
        a1' <-- TEMPORARY_FAILURE    | I            |
        end                          | Ia2          | Ia2
        """
    )


def test_a_delete_of_a_child_sa_is_answered_before_the_ike_rekey_comes():
    tell(
        """
        gap                          | I 1>         | I 1>
        A: rekey I                   | I~ 1>        |
        B: delete 1                  |              | I 1x
        b1 <-- D(1)                  | I~           |
        b1' --> D(1)                 |              | I
        a1 --> REKEY(IKE)            |              | I- Ia1
        a1' <-- SA                   | I- Ia1       |
        a2 --> D(IKE)                |              | Ia1
        a2' <-- {}                   | Ia1          |
        end                          |              |
        """
    )


def test_a_liveness_check_crosses_with_an_ike_rekey():
    tell(
        """
        A: rekey I                   | I~ 1>        | I 1>
        B: check I                   |              |
        a1 --> REKEY(IKE)            |              | I- Ia1 1>
        b1 <-- {}                    |              |
        a1' <-- SA                   | I- Ia1 1>    |
        b1' --> {}                   |              |
        a2 --> D(IKE)                |              | Ia1 1>
        a2' <-- {}                   | Ia1 1>       |
        end                          |              |
        """
    )


def test_a_liveness_check_is_answered_in_an_ike_sa_that_was_rekeyed():
    tell(
        """
        A: rekey I                   | I~ 1>        | I 1>
        B: check I                   |              |
        a1 --> REKEY(IKE)            |              | I- Ia1 1>
        a1' <-- SA                   | I- Ia1 1>    |
        b1 <-- {}                    |              |
        b1' --> {}                   |              |
        a2 --> D(IKE)                |              | Ia1 1>
        a2' <-- {}                   | Ia1 1>       |
        end                          |              |
        """
    )


def test_a_child_rekey_crosses_with_the_delete_of_the_ike_sa():
    # §2.25.2: Alice is closing the IKE SA; both end with nothing.
    tell(
        """
        gap                          | I 1>         | I 1>
        A: delete I                  | Ix 1         |
        B: rekey 1                   |              | I 1~>
        b1 <-- REKEY_SA(1)           |              |
        b1' --> TEMPORARY_FAILURE    |              | I 1>
        a1 --> D(IKE)                |              | none
        a1' <-- {}                   | none         |
        end                          |              |
        """
    )


def test_a_child_rekey_is_still_unanswered_when_the_ike_sa_is_deleted():
    tell(
        """
        gap                          | I 1>         | I 1>
        A: delete I                  | Ix 1         |
        B: rekey 1                   |              | I 1~>
        a1 --> D(IKE)                |              | none
        a1' <-- {}                   | none         |
        b1 <-- REKEY_SA(1)           |              |
        b1' --> INVALID_IKE_SPI      |              |
        end                          |              |
        """
    )


def test_a_request_for_a_new_child_sa_crosses_with_the_delete_of_the_ike_sa():
    tell(
        """
        gap                          | I 1>         | I 1>
        A: delete I                  | Ix 1         |
        B: new dmz                   |              |
        b1 <-- NEW                   |              |
        b1' --> TEMPORARY_FAILURE    |              |
        a1 --> D(IKE)                |              | none
        a1' <-- {}                   | none         |
        end                          |              |
        """
    )


def test_a_delete_of_a_child_sa_crosses_with_the_delete_of_the_ike_sa():
    tell(
        """
        gap                          | I 1>         | I 1>
        A: delete I                  | Ix 1         |
        B: delete 1                  |              | I 1x
        b1 <-- D(1)                  | Ix           |
        a1 --> D(IKE)                |              | none
        b1' lost                     |              |
        a1' <-- {}                   | none         |
        end                          |              |
        """
    )


def test_a_child_rekey_that_is_planned_during_an_ike_rekey_happens_in_the_new_ike_sa():
    tell(
        """
        A: rekey I                   | I~ 1>        | I 1>
        A: rekey 1                   |              |
        a1 --> REKEY(IKE)            |              | I- Ia1 1>
        a1' <-- SA                   | I- Ia1 1>    |
        a2 --> D(IKE)                |              | Ia1 1>
        a2' <-- {}                   | Ia1 1~>      |
        a3 --> REKEY_SA(1)           |              | Ia1 1-> a3+
        a3' <-- SA                   | Ia1 1x a3>   |
        a4 --> D(1)                  |              | Ia1 a3> (1)
        a4' <-- D(1)                 | Ia1 a3> (1)  |
        end                          | Ia1 a3>      | Ia1 a3>
        """
    )


def test_the_responder_of_an_ike_rekey_uses_the_new_ike_sa_before_the_initiator_knows_of_it():
    # Alice drops what comes in an IKE SA that she does not know; Bob repeats it.
    tell(
        """
        A: rekey I                   | I~ 1>        | I 1>
        a1 --> REKEY(IKE)            |              | I- Ia1 1>
        B: check Ia1                 |              |
        b1 <-- {}                    |              |
        a1' <-- SA                   | I- Ia1 1>    |
        b1 resent                    |              |
        b1 <-- {}                    |              |
        b1' --> {}                   |              |
        a2 --> D(IKE)                |              | Ia1 1>
        a2' <-- {}                   | Ia1 1>       |
        end                          |              |
        """
    )


def test_a_child_rekey_that_follows_an_ike_rekey_at_once_waits_for_nothing_but_its_turn():
    tell(
        """
        A: rekey I                   | I~ 1>          | I 1>
        a1 --> REKEY(IKE)            |                | I- Ia1 1>
        a1' <-- SA                   | I- Ia1 1>      |
        B: rekey 1                   |                | I- Ia1 1~>
        b1 <-- REKEY_SA(1)           | I- Ia1 1-> b1+ |
        b1' --> SA                   |                | I- Ia1 1x b1>
        a2 --> D(IKE)                |                | Ia1 1x b1>
        a2' <-- {}                   | Ia1 1-> b1+    |
        b2 <-- D(1)                  | Ia1 b1> (1)    |
        b2' --> D(1)                 |                | Ia1 b1> (1)
        end                          | Ia1 b1>        | Ia1 b1>
        """
    )


def test_the_delete_of_a_child_sa_is_lost_and_the_ike_rekey_waits_for_it():
    tell(
        """
        gap                          | I 1>         | I 1>
        B: delete 1                  |              | I 1x
        b1 lost                      |              |
        A: rekey I                   | I~ 1>        |
        a1 --> REKEY(IKE)            |              |
        a1' <-- TEMPORARY_FAILURE    | I 1>         |
        b1 resent                    |              |
        b1 <-- D(1)                  | I            |
        b1' --> D(1)                 |              | I
        wait 4                       | I~           |
        a2 --> REKEY(IKE)            |              | I- Ia2
        a2' <-- SA                   | I- Ia2       |
        a3 --> D(IKE)                |              | Ia2
        a3' <-- {}                   | Ia2          |
        end                          |              |
        """
    )


def test_a_child_sa_is_rekeyed_while_both_sides_rekey_the_ike_sa():
    tell(
        """
        lowest a1                    | I 1>                | I 1>
        A: rekey I                   | I~ 1>               |
        B: rekey I                   |                     | I~ 1>
        a1 --> REKEY(IKE)            |                     | I~ Ia1 1>
        b1 <-- REKEY(IKE)            | I~ Ib1 1>           |
        B: rekey 1                   |                     |
        a1' <-- SA                   | I- Ib1 Ia1x 1>      |
        b1' --> SA                   |                     | I- Ia1 Ib1 1~>
        a2 --> D(IKE)                |                     | Ix Ib1 1~>
        b2 <-- REKEY_SA(1)           | I- Ib1 Ia1x 1-> b2+ |
        b2' --> SA                   |                     | Ix Ib1 1x b2>
        b3 <-- D(IKE)                | Ib1 Ia1x 1-> b2+    |
        a2' <-- {}                   | Ib1 1-> b2+         |
        b3' --> {}                   |                     | Ib1 1x b2>
        b4 <-- D(1)                  | Ib1 b2> (1)         |
        b4' --> D(1)                 |                     | Ib1 b2> (1)
        end                          | Ib1 b2>             | Ib1 b2>
        """
    )


def test_a_child_sa_is_asked_for_while_the_redundant_of_two_ike_sas_is_still_there():
    # Bob asks in the one that stays; Alice, who has made it for him, learns from that which one it is.
    tell(
        """
        lowest a1                    | I 1>               | I 1>
        A: rekey I                   | I~ 1>              |
        B: rekey I                   |                    | I~ 1>
        b1 <-- REKEY(IKE)            | I~ Ib1 1>          |
        a1 --> REKEY(IKE)            |                    | I~ Ia1 1>
        b1' --> SA                   |                    | I- Ia1 Ib1 1>
        B: new dmz                   |                    |
        b2 <-- NEW                   | I- Ib1 1> b2>      |
        b2' --> SA                   |                    | I- Ia1 Ib1 1> b2>
        a1' <-- SA                   | I- Ib1 Ia1x 1> b2> |
        a2 --> D(IKE)                |                    | Ix Ib1 1> b2>
        a2' <-- {}                   | I- Ib1 1> b2>      |
        b3 <-- D(IKE)                | Ib1 1> b2>         |
        b3' --> {}                   |                    | Ib1 1> b2>
        end                          |                    |
        """
    )


def test_a_child_sa_is_asked_for_in_an_ike_sa_whose_maker_has_not_heard_of_it():
    # Bob has lost: the one that stays is Alice's, and she does not know yet. Bob repeats what she drops.
    tell(
        """
        lowest b1                    | I 1>              | I 1>
        A: rekey I                   | I~ 1>             |
        B: rekey I                   |                   | I~ 1>
        b1 <-- REKEY(IKE)            | I~ Ib1 1>         |
        a1 --> REKEY(IKE)            |                   | I~ Ia1 1>
        b1' --> SA                   |                   | I- Ia1 Ib1x 1>
        B: new dmz                   |                   |
        b3 <-- NEW                   |                   |
        b3' lost                     |                   |
        a1' <-- SA                   | I- Ib1 Ia1 1>     |
        b3 resent                    |                   |
        b3 <-- NEW                   | I- Ib1 Ia1 1> b3> |
        b3' --> SA                   |                   | I- Ia1 Ib1x 1> b3>
        b2 <-- D(IKE)                | Ix Ia1 1> b3>     |
        b2' --> {}                   |                   | I- Ia1 1> b3>
        a2 --> D(IKE)                |                   | Ia1 1> b3>
        a2' <-- {}                   | Ia1 1> b3>        |
        end                          |                   |
        """
    )
