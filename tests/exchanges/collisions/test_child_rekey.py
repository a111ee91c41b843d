"""Rekeying a Child SA, message by message (RFC 7296 §1.3.3, §2.8): losses, repetitions, the group refused.

How to read a story: `tests/fakes/story.py`.
"""

from tests.fakes.story import tell, two_children


def other_groups():
    """Bob takes another group than Alice tries first."""
    return two_children(alice_esp="aes256gcm16-x25519-ecp256", bob_esp="aes256gcm16-ecp256")


def test_a_child_sa_is_rekeyed_by_the_original_initiator():
    # §1.3.3, §2.8: the responder sends on the new one as soon as the old one is deleted, and no later.
    tell(
        """
        A: rekey 1                   | 1~>          | 1>
        a1 --> REKEY_SA(1)           |              | 1-> a1+
        a1' <-- SA                   | 1x a1>       |
        a2 --> D(1)                  |              | a1> (1)
        a2' <-- D(1)                 | a1> (1)      |
        end                          | a1>          | a1>
        """
    )


def test_a_child_sa_is_rekeyed_by_the_original_responder():
    tell(
        """
        B: rekey 1                   | 1>           | 1~>
        b1 <-- REKEY_SA(1)           | 1-> b1+      |
        b1' --> SA                   |              | 1x b1>
        b2 <-- D(1)                  | b1> (1)      |
        b2' --> D(1)                 |              | b1> (1)
        end                          | b1>          | b1>
        """
    )


def test_the_responder_sends_on_the_successor_when_it_sees_a_packet_there():
    tell(
        """
        A: rekey 1                   | 1~>          | 1>
        a1 --> REKEY_SA(1)           |              | 1-> a1+
        a1' <-- SA                   | 1x a1>       |
        A: packet                    |              | 1- a1>
        a2 --> D(1)                  |              | a1> (1)
        a2' <-- D(1)                 | a1> (1)      |
        end                          | a1>          | a1>
        """
    )


def test_the_responder_sends_on_the_successor_after_a_while_if_it_sees_nothing():
    tell(
        """
        A: rekey 1                   | 1~>          | 1>
        a1 --> REKEY_SA(1)           |              | 1-> a1+
        a1' <-- SA                   | 1x a1>       |
        a2 lost                      |              |
        wait 21                      |              | 1- a1>
        a2 --> D(1)                  |              | a1> (1)
        a2' <-- D(1)                 | a1> (1)      |
        end                          | a1>          | a1>
        """
    )


def test_the_request_of_a_rekey_is_lost():
    tell(
        """
        A: rekey 1                   | 1~>          | 1>
        a1 lost                      |              |
        a1 resent                    |              |
        a1 --> REKEY_SA(1)           |              | 1-> a1+
        a1' <-- SA                   | 1x a1>       |
        a2 --> D(1)                  |              | a1> (1)
        a2' <-- D(1)                 | a1> (1)      |
        end                          | a1>          | a1>
        """
    )


def test_the_response_of_a_rekey_is_lost():
    # §2.1: what is repeated is the response; nothing is made twice.
    tell(
        """
        A: rekey 1                   | 1~>          | 1>
        a1 --> REKEY_SA(1)           |              | 1-> a1+
        a1' lost                     |              |
        a1 resent                    |              |
        a1 --> REKEY_SA(1)           |              |
        a1' <-- SA                   | 1x a1>       |
        a2 --> D(1)                  |              | a1> (1)
        a2' <-- D(1)                 | a1> (1)      |
        end                          | a1>          | a1>
        """
    )


def test_the_delete_of_the_old_one_is_lost():
    tell(
        """
        A: rekey 1                   | 1~>          | 1>
        a1 --> REKEY_SA(1)           |              | 1-> a1+
        a1' <-- SA                   | 1x a1>       |
        a2 lost                      |              |
        a2 resent                    |              |
        a2 --> D(1)                  |              | a1> (1)
        a2' <-- D(1)                 | a1> (1)      |
        end                          | a1>          | a1>
        """
    )


def test_the_response_to_the_delete_of_the_old_one_is_lost():
    tell(
        """
        A: rekey 1                   | 1~>          | 1>
        a1 --> REKEY_SA(1)           |              | 1-> a1+
        a1' <-- SA                   | 1x a1>       |
        a2 --> D(1)                  |              | a1> (1)
        a2' lost                     |              |
        a2 resent                    |              |
        a2 --> D(1)                  |              |
        a2' <-- D(1)                 | a1> (1)      |
        end                          | a1>          | a1>
        """
    )


def test_every_message_of_a_rekey_arrives_twice():
    tell(
        """
        A: rekey 1                   | 1~>          | 1>
        a1 --> REKEY_SA(1)           |              | 1-> a1+
        a1 --> again                 |              |
        a1' <-- SA                   | 1x a1>       |
        a1' <-- again                |              |
        a2 --> D(1)                  |              | a1> (1)
        a2 --> again                 |              |
        a2' <-- D(1)                 | a1> (1)      |
        a2' <-- again                |              |
        a1 --> again                 |              |
        end                          | a1>          | a1>
        """
    )


def test_the_request_of_a_rekey_arrives_once_more_when_the_old_one_is_gone():
    tell(
        """
        A: rekey 1                   | 1~>          | 1>
        a1 --> REKEY_SA(1)           |              | 1-> a1+
        a1' <-- SA                   | 1x a1>       |
        a2 --> D(1)                  |              | a1> (1)
        a2' <-- D(1)                 | a1> (1)      |
        a1 --> again                 |              |
        end                          | a1>          | a1>
        """
    )


def test_two_rekeys_follow_each_other():
    tell(
        """
        A: rekey 1                   | 1~>          | 1>
        a1 --> REKEY_SA(1)           |              | 1-> a1+
        a1' <-- SA                   | 1x a1>       |
        a2 --> D(1)                  |              | a1> (1)
        a2' <-- D(1)                 | a1> (1)      |
        B: rekey a1                  |              | a1~> (1)
        b1 <-- REKEY_SA(a1)          | a1-> b1+ (1) |
        b1' --> SA                   |              | a1x b1> (1)
        b2 <-- D(a1)                 | b1> (1) (a1) |
        b2' --> D(a1)                |              | b1> (1) (a1)
        end                          | b1>          | b1>
        """
    )


def test_a_successor_is_rekeyed_by_its_responder_while_the_delete_of_the_old_one_is_on_its_way():
    # Bob may, as soon as he sends on it.
    tell(
        """
        A: rekey 1                   | 1~>          | 1>
        a1 --> REKEY_SA(1)           |              | 1-> a1+
        a1' <-- SA                   | 1x a1>       |
        A: packet                    |              | 1- a1>
        B: rekey a1                  |              | 1- a1~>
        b1 <-- REKEY_SA(a1)          | 1x a1-> b1+  |
        a2 --> D(1)                  |              | a1~> (1)
        a2' <-- D(1)                 | a1-> b1+ (1) |
        b1' --> SA                   |              | a1x b1> (1)
        b2 <-- D(a1)                 | b1> (1) (a1) |
        b2' --> D(a1)                |              | b1> (1) (a1)
        end                          | b1>          | b1>
        """
    )


def test_a_child_rekey_whose_group_is_refused_is_asked_for_again_with_the_group_of_the_peer():
    # §1.3: INVALID_KE_PAYLOAD names the group; the second request is the rekey.
    tell(
        """
        A: rekey 1                   | 1~>          | 1>
        a1 --> REKEY_SA(1)           |              |
        a1' <-- INVALID_KE_PAYLOAD   |              |
        a2 --> REKEY_SA(1)           |              | 1-> a2+
        a2' <-- SA                   | 1x a2>       |
        a3 --> D(1)                  |              | a2> (1)
        a3' <-- D(1)                 | a2> (1)      |
        end                          | a2>          | a2>
        """,
        other_groups(),
    )


def test_the_request_after_invalid_ke_payload_is_lost():
    tell(
        """
        A: rekey 1                   | 1~>          | 1>
        a1 --> REKEY_SA(1)           |              |
        a1' <-- INVALID_KE_PAYLOAD   |              |
        a2 lost                      |              |
        a2 resent                    |              |
        a2 --> REKEY_SA(1)           |              | 1-> a2+
        a2' <-- SA                   | 1x a2>       |
        a3 --> D(1)                  |              | a2> (1)
        a3' <-- D(1)                 | a2> (1)      |
        end                          | a2>          | a2>
        """,
        other_groups(),
    )


def test_invalid_ke_payload_is_lost():
    tell(
        """
        A: rekey 1                   | 1~>          | 1>
        a1 --> REKEY_SA(1)           |              |
        a1' lost                     |              |
        a1 resent                    |              |
        a1 --> REKEY_SA(1)           |              |
        a1' <-- INVALID_KE_PAYLOAD   |              |
        a2 --> REKEY_SA(1)           |              | 1-> a2+
        a2' <-- SA                   | 1x a2>       |
        a3 --> D(1)                  |              | a2> (1)
        a3' <-- D(1)                 | a2> (1)      |
        end                          | a2>          | a2>
        """,
        other_groups(),
    )


def test_invalid_ke_payload_arrives_twice():
    tell(
        """
        A: rekey 1                   | 1~>          | 1>
        a1 --> REKEY_SA(1)           |              |
        a1' <-- INVALID_KE_PAYLOAD   |              |
        a1' <-- again                |              |
        a2 --> REKEY_SA(1)           |              | 1-> a2+
        a2' <-- SA                   | 1x a2>       |
        a3 --> D(1)                  |              | a2> (1)
        a3' <-- D(1)                 | a2> (1)      |
        end                          | a2>          | a2>
        """,
        other_groups(),
    )


def test_both_rekey_at_once_and_the_group_of_one_is_refused():
    # Bob's request has a group that Alice takes; he is done when she asks again.
    tell(
        """
        A: rekey 1                   | 1~>          | 1>
        B: rekey 1                   |              | 1~>
        a1 --> REKEY_SA(1)           |              |
        b1 <-- REKEY_SA(1)           | 1~> b1+      |
        a1' <-- INVALID_KE_PAYLOAD   |              |
        b1' --> SA                   |              | 1x b1>
        a2 --> REKEY_SA(1)           |              |
        b2 <-- D(1)                  | b1> (1)      |
        a2' <-- TEMPORARY_FAILURE    |              |
        b2' --> D(1)                 |              | b1> (1)
        end                          | b1>          | b1>
        """,
        other_groups(),
    )


def test_both_rekey_at_once_and_the_second_request_of_one_comes_in_time():
    # The nonce of the refused request does not count: the four are those of a2 and b1.
    tell(
        """
        A: rekey 1                   | 1~>          | 1>
        B: rekey 1                   |              | 1~>
        a1 --> REKEY_SA(1)           |              |
        a1' <-- INVALID_KE_PAYLOAD   |              |
        b1 <-- REKEY_SA(1)           | 1~> b1+      |
        a2 --> REKEY_SA(1)           |              | 1~> a2+
        a2' <-- SA                   | 1x b1+ a2>   |
        b1' --> SA                   |              | 1-> a2+
        a3 --> D(1)                  |              | a2> (1)
        b2 <-- D(b1)                 | 1x a2> (b1)  |
        a3' <-- D(1)                 | a2> (1) (b1) |
        b2' --> D(b1)                |              |
        end                          | a2>          | a2>
        """,
        other_groups(),
    )


def test_a_group_is_refused_and_the_child_sa_is_deleted_meanwhile():
    tell(
        """
        gap                          | 1>           | 1>
        A: rekey 1                   | 1~>          |
        a1 --> REKEY_SA(1)           |              |
        B: delete 1                  |              | 1x
        b1 <-- D(1)                  | none         |
        a1' <-- INVALID_KE_PAYLOAD   |              |
        b1' --> D(1)                 |              | none
        end                          |              |
        """,
        other_groups(),
    )
