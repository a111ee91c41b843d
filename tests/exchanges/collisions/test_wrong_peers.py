"""Peers that delete, keep or refuse what they should not: what is left is the same on both sides.

How to read a story: `tests/fakes/story.py`. Here one of the cores is made to act against RFC 7296 §2.8.1.
"""

from tests.fakes.story import tell, two_children


def patient_bob():
    """Bob deletes nothing for others."""
    return two_children(bob_grace_s=1e6)


def test_the_peer_deletes_the_winner_and_keeps_its_own():
    # Bob takes his own successor for the winner. Alice sees him delete hers, and goes on with what he has.
    tell(
        """
        lowest b1                    | 1>           | 1>
        A: rekey 1                   | 1~>          |
        B: rekey 1                   |              | 1~>
        a1 --> REKEY_SA(1)           |              | 1~> a1+
        b1 <-- REKEY_SA(1)           | 1~> b1+      |
        B: believe won               |              |
        a1' <-- SA                   | 1x b1+ a1>   |
        b1' --> SA                   |              | 1x a1+ b1>
        a2 --> D(1)                  |              |
        b2 <-- D(1)                  |              |
        a2' <-- {}                   | b1+ a1> (1)  |
        b2' --> {}                   |              | a1+ b1> (1)
        B: delete a1                 |              | a1x b1> (1)
        b3 <-- D(a1)                 | b1> (1) (a1) |
        b3' --> D(a1)                |              | b1> (1) (a1)
        end                          | b1>          | b1>
        """
    )


def test_both_sides_delete_their_own_successor():
    # Bob takes his own for the loser, as Alice does, rightly: the old one goes on, and is rekeyed again.
    tell(
        """
        lowest a1                    | 1>           | 1>
        A: rekey 1                   | 1~>          |
        B: rekey 1                   |              | 1~>
        a1 --> REKEY_SA(1)           |              | 1~> a1+
        b1 <-- REKEY_SA(1)           | 1~> b1+      |
        B: believe lost              |              |
        a1' <-- SA                   | 1-> b1+      |
        b1' --> SA                   |              | 1-> a1+
        a2 --> D(a1)                 |              | 1>
        b2 <-- D(b1)                 | 1>           |
        a2' <-- D(a1)                |              |
        b2' --> D(b1)                |              |
        wait 10                      | 1~>          | 1~>
        rest                         | a3> (1) (b3) | a3> (1)
        end                          | a3>          | a3>
        """
    )


def test_both_sides_delete_their_own_successor_one_after_the_other():
    tell(
        """
        lowest a1                    | 1>           | 1>
        A: rekey 1                   | 1~>          |
        B: rekey 1                   |              | 1~>
        a1 --> REKEY_SA(1)           |              | 1~> a1+
        b1 <-- REKEY_SA(1)           | 1~> b1+      |
        B: believe lost              |              |
        a1' <-- SA                   | 1-> b1+      |
        a2 --> D(a1)                 |              | 1~> (a1)
        a2' <-- D(a1)                |              |
        b1' --> SA                   |              | 1x b1> (a1)
        b2 <-- D(1)                  | b1> (1)      |
        b2' --> D(1)                 |              | b1> (1) (a1)
        wait 10                      | b1>          | b1>
        rest                         |              |
        end                          |              |
        """
    )


def test_the_peer_keeps_both_successors():
    # Some never compare nonces: Bob deletes the old one and no other. Alice deletes Bob's after a while.
    tell(
        """
        lowest b1                    | 1>           | 1>
        A: rekey 1                   | 1~>          |
        B: rekey 1                   |              | 1~>
        a1 --> REKEY_SA(1)           |              | 1~> a1+
        b1 <-- REKEY_SA(1)           | 1~> b1+      |
        B: believe won               |              |
        a1' <-- SA                   | 1x b1+ a1>   |
        b1' --> SA                   |              | 1x a1+ b1>
        a2 --> D(1)                  |              |
        b2 <-- D(1)                  |              |
        a2' <-- {}                   | b1+ a1> (1)  |
        b2' --> {}                   |              | a1+ b1> (1)
        wait 31                      | b1x a1>      | a1+ b1>
        a3 --> D(b1)                 |              | a1> (b1)
        a3' <-- D(b1)                | a1> (b1)     |
        end                          | a1>          | a1>
        """,
        patient_bob(),
    )


def test_the_peer_deletes_both_successors():
    tell(
        """
        gap                          | 1>           | 1>
        lowest a1                    |              |
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
        B: delete b1                 |              | b1x (1) (a1)
        b3 <-- D(b1)                 | (1)          |
        b3' --> D(b1)                |              | (1) (a1)
        end                          | none         | none
        """
    )


def test_the_peer_deletes_an_spi_that_nobody_has():
    # §1.4.1: what is not there is answered without a Delete payload.
    tell(
        """
        B: say D(deadbeef)           | 1>           | 1>
        b1 <-- D(deadbeef)           |              |
        b1' --> {}                   |              |
        end                          |              |
        """
    )


def test_the_peer_deletes_an_spi_that_nobody_has_while_our_rekey_is_unanswered():
    # It may be the DELETE of what our request makes; here it is none.
    tell(
        """
        A: rekey 1                   | 1~>          | 1>
        B: say D(deadbeef)           |              |
        b1 <-- D(deadbeef)           |              |
        a1 --> REKEY_SA(1)           |              | 1-> a1+
        a1' <-- SA                   | 1x a1>       |
        b1' --> {}                   |              |
        a2 --> D(1)                  |              | a1> (1)
        a2' <-- D(1)                 | a1> (1)      |
        end                          | a1>          | a1>
        """
    )


def test_the_peer_deletes_the_same_child_sa_twice():
    tell(
        """
        gap                          | 1>           | 1>
        B: delete 1                  |              | 1x
        b1 <-- D(1)                  | none         |
        b1' --> D(1)                 |              | none
        B: say D(1)                  |              |
        b2 <-- D(1)                  |              |
        b2' --> {}                   |              |
        end                          |              |
        """
    )


def test_the_peer_deletes_several_at_once_and_one_that_nobody_has():
    tell(
        """
        gap                          | 1>           | 1>
        A: new dmz                   |              |
        a1 --> NEW                   |              | 1> a1>
        a1' <-- SA                   | 1> a1>       |
        B: say D(1, deadbeef, a1)    |              |
        b1 <-- D(1, deadbeef, a1)    | none         |
        b1' --> D(1, a1)             |              |
        B: forget 1                  |              | a1>
        B: forget a1                 |              | none
        end                          |              |
        """
    )


def test_the_peer_answers_our_delete_without_its_own_half():
    # §1.4.1 wants the other half named; whether it is or not, the Child SA is gone.
    tell(
        """
        gap                          | 1>           | 1>
        A: delete 1                  | 1x           |
        a1 --> D(1)                  |              | none
        a1' <-- instead {}           | none         |
        end                          |              |
        """
    )


def test_the_peer_answers_the_delete_of_the_old_one_without_its_own_half():
    tell(
        """
        A: rekey 1                   | 1~>          | 1>
        a1 --> REKEY_SA(1)           |              | 1-> a1+
        a1' <-- SA                   | 1x a1>       |
        a2 --> D(1)                  |              | a1> (1)
        a2' <-- instead {}           | a1> (1)      |
        end                          | a1>          | a1>
        """
    )


def test_the_peer_answers_our_delete_with_an_error():
    tell(
        """
        gap                                | 1>           | 1>
        A: delete 1                        | 1x           |
        a1 --> D(1)                        |              | none
        a1' <-- instead CHILD_SA_NOT_FOUND | none         |
        end                                |              |
        """
    )


def test_the_peer_answers_the_delete_of_the_old_one_with_temporary_failure():
    tell(
        """
        A: rekey 1                        | 1~>          | 1>
        a1 --> REKEY_SA(1)                |              | 1-> a1+
        a1' <-- SA                        | 1x a1>       |
        a2 --> D(1)                       |              | a1> (1)
        a2' <-- instead TEMPORARY_FAILURE | a1> (1)      |
        end                               | a1>          | a1>
        """
    )


def test_the_responder_of_a_rekey_deletes_the_old_one_before_its_initiator_does():
    # Some do so as soon as they see the new one in use.
    tell(
        """
        A: rekey 1                   | 1~>          | 1>
        a1 --> REKEY_SA(1)           |              | 1-> a1+
        a1' <-- SA                   | 1x a1>       |
        A: packet                    |              | 1- a1>
        B: say D(1)                  |              |
        b1 <-- D(1)                  |              |
        a2 --> D(1)                  |              | a1> (1)
        b1' --> {}                   |              |
        a2' <-- D(1)                 | a1> (1)      |
        end                          | a1>          | a1>
        """
    )


def test_the_peer_answers_a_simultaneous_rekey_with_child_sa_not_found():
    # Alice knows that Bob's successor is there, and uses it.
    tell(
        """
        lowest a1                          | 1>           | 1>
        A: rekey 1                         | 1~>          |
        B: rekey 1                         |              | 1~>
        b1 <-- REKEY_SA(1)                 | 1~> b1+      |
        a1 --> REKEY_SA(1)                 |              | 1~> a1+
        a1' <-- instead CHILD_SA_NOT_FOUND | 1-> b1+      |
        b1' --> SA                         |              | 1x a1+ b1>
        b2 <-- D(1)                        | b1> (1)      |
        b2' --> D(1)                       |              | a1+ b1> (1)
        wait 30                            | b1>          | a1x b1>
        b3 <-- D(a1)                       |              |
        b3' --> {}                         |              | b1> (a1)
        end                                |              | b1>
        """
    )


def test_the_peer_refuses_one_of_two_rekeys_at_once_of_the_ike_sa():
    tell(
        """
        lowest a1                         | I 1>         | I 1>
        A: rekey I                        | I~ 1>        |
        B: rekey I                        |              | I~ 1>
        b1 <-- REKEY(IKE)                 | I~ Ib1 1>    |
        a1 --> REKEY(IKE)                 |              | I~ Ia1 1>
        a1' <-- instead NO_ADDITIONAL_SAS | I- Ib1 1>    |
        b1' --> SA                        |              | I- Ia1 Ib1 1>
        wait 30                           | Ix Ib1 1>    | I- Ia1x Ib1 1>
        rest                              | Ib1 1>       | Ia1x Ib1 1>
        end                               |              | Ib1 1>
        """
    )


def test_a_rekey_of_ours_is_refused_by_a_peer_that_has_it_made():
    # Bob's answer becomes an error: he holds a successor that Alice does not know, until he deletes it.
    tell(
        """
        A: rekey 1                         | 1~>          | 1>
        a1 --> REKEY_SA(1)                 |              | 1-> a1+
        a1' <-- instead NO_PROPOSAL_CHOSEN | 1>           |
        B: expire a1                       |              | 1-> a1x
        b1 <-- D(a1)                       |              |
        b1' --> {}                         |              | 1>
        end                                | b2>          | b2>
        """
    )
