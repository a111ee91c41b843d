"""How other implementations behave where exchanges collide, as their issue trackers tell: we cope.

How to read a story: `tests/fakes/story.py`. What is told of a peer was seen in the field; one core
plays it here.
"""

from tests.fakes.story import tell, two_children


def patient_bob():
    """Bob deletes nothing for others."""
    return two_children(bob_grace_s=1e6)


def test_strongswan_deletes_the_old_ike_sa_without_waiting_for_the_loser():
    # The winner deletes at once (strongSwan 5.9, 6.0). Alice's response is lost with the old IKE SA; what Bob
    # keeps for it, he deletes when she never does, and she knows nothing of it.
    tell(
        """
        lowest a1                    | I 1>         | I 1>
        A: rekey I                   | I~ 1>        |
        B: rekey I                   |              | I~ 1>
        a1 --> REKEY(IKE)            |              | I~ Ia1 1>
        b1 <-- REKEY(IKE)            | I~ Ib1 1>    |
        b1' --> SA                   |              | I- Ia1 Ib1 1>
        B: delete I                  |              | Ix Ia1 Ib1 1>
        b2 <-- D(IKE)                | Ib1 1>       |
        b2' --> {}                   |              | Ia1 Ib1 1>
        a1' lost                     |              |
        wait 31                      |              | Ia1x Ib1 1>
        b3 <-- D(IKE)                |              |
        b3' --> INVALID_IKE_SPI      |              |
        b3 resent                    |              |
        wait 80                      |              | Ib1 1>
        end                          |              |
        """
    )


def test_a_peer_refuses_our_half_of_two_rekeys_for_good_and_deletes_the_old_one():
    # Seen with Cisco ASA, whose selectors are narrower than what strongSwan asks for (strongSwan issue 2477).
    tell(
        """
        lowest a1                       | 1>           | 1>
        A: rekey 1                      | 1~>          |
        B: rekey 1                      |              | 1~>
        b1 <-- REKEY_SA(1)              | 1~> b1+      |
        a1 --> REKEY_SA(1)              |              | 1~> a1+
        B: forget a1                    |              | 1~>
        a1' <-- instead TS_UNACCEPTABLE | 1-> b1+      |
        b1' --> SA                      |              | 1x b1>
        b2 <-- D(1)                     | b1> (1)      |
        b2' --> D(1)                    |              | b1> (1)
        end                             | b1>          | b1>
        """
    )


def test_a_peer_answers_our_half_of_two_rekeys_with_temporary_failure_and_deletes_the_old_one():
    # The response was lost at first (strongSwan issue 1896): the successor of the peer has to be sent on.
    tell(
        """
        A: rekey 1                   | 1~>          | 1>
        B: rekey 1                   |              | 1~>
        b1 <-- REKEY_SA(1)           | 1~> b1+      |
        b1' --> SA                   |              | 1x b1>
        a1 --> REKEY_SA(1)           |              |
        a1' lost                     |              |
        b2 <-- D(1)                  | b1> (1)      |
        b2' --> D(1)                 |              | b1> (1)
        a1 resent                    |              |
        a1 --> REKEY_SA(1)           |              |
        a1' <-- TEMPORARY_FAILURE    |              |
        end                          | b1>          | b1>
        """
    )


def test_a_responder_deletes_the_old_one_before_its_response_comes():
    # Seen with Palo Alto firewalls, half a millisecond apart (strongSwan issue 1458).
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


def test_a_peer_rekeys_the_same_child_sa_twice_before_it_deletes_it():
    # strongSwan issue 2945: the second request makes nothing.
    tell(
        """
        B: rekey 1                   | 1>           | 1~>
        b1 <-- REKEY_SA(1)           | 1-> b1+      |
        b1' --> SA                   |              | 1x b1>
        b2 <-- instead b1            |              |
        b2' --> TEMPORARY_FAILURE    |              |
        """
    )


def test_a_peer_compares_no_nonces_and_keeps_both_successors():
    # Each side deletes the old one, and sends on its own. The one too many is deleted for it after a while.
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
        B: packet                    |              |
        A: packet                    |              |
        wait 31                      | b1x a1>      | a1+ b1>
        a3 --> D(b1)                 |              | a1> (b1)
        a3' <-- D(b1)                | a1> (b1)     |
        end                          | a1>          | a1>
        """,
        patient_bob(),
    )
