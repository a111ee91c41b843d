"""Collisions with a datapath that is slow or refuses: nothing is sent that the other side cannot receive.

How to read a story: `tests/fakes/story.py`.
"""

from tests.fakes.story import tell


def test_the_datapath_of_the_responder_refuses_the_inbound_sa_of_a_successor():
    # The rekey fails, the old one goes on, Alice asks again later.
    tell(
        """
        B: refuse inbound SYSTEM     | 1>           | 1>
        A: rekey 1                   | 1~>          |
        a1 --> REKEY_SA(1)           |              |
        a1' <-- TEMPORARY_FAILURE    | 1>           |
        wait 4                       | 1~>          |
        a2 --> REKEY_SA(1)           |              | 1-> a2+
        a2' <-- SA                   | 1x a2>       |
        a3 --> D(1)                  |              | a2> (1)
        a3' <-- D(1)                 | a2> (1)      |
        end                          | a2>          | a2>
        """
    )


def test_the_datapath_of_the_initiator_refuses_the_inbound_sa_of_its_successor():
    # Bob has installed what Alice refuses: she deletes it, and both go on with the old one.
    tell(
        """
        A: refuse inbound TABLE_FULL | 1>           | 1>
        A: rekey 1                   | 1~>          |
        a1 --> REKEY_SA(1)           |              | 1-> a1+
        a1' <-- SA                   | 1>           |
        a2 --> D(a1)                 |              | 1>
        a2' <-- D(a1)                |              |
        end                          | b1>          | b1>
        """
    )


def test_the_datapath_of_the_initiator_refuses_the_outbound_sa_of_its_successor():
    tell(
        """
        A: refuse outbound TABLE_FULL | 1>           | 1>
        A: rekey 1                    | 1~>          |
        a1 --> REKEY_SA(1)            |              | 1-> a1+
        a1' <-- SA                    | 1>           |
        a2 --> D(a1)                  |              | 1>
        a2' <-- D(a1)                 |              |
        end                           | b1>          | b1>
        """
    )


def test_the_datapath_of_the_responder_refuses_the_outbound_sa_of_a_successor_when_the_old_one_is_deleted():
    # There is nothing left to send with: both halves go, the operator is told.
    tell(
        """
        gap                           | 1>           | 1>
        B: refuse outbound TABLE_FULL |              |
        A: rekey 1                    | 1~>          |
        a1 --> REKEY_SA(1)            |              | 1-> a1+
        a1' <-- SA                    | 1x a1>       |
        a2 --> D(1)                   |              | a1x
        a2' <-- D(1)                  | a1> (1)      |
        b1 <-- D(a1)                  | (1)          |
        b1' --> D(a1)                 |              | none
        end                           | none         |
        """
    )


def test_the_datapath_of_the_responder_refuses_the_outbound_sa_of_a_successor_at_the_first_packet():
    # Alice is deleting the old one when Bob deletes the new: nothing is left, and the operator is told.
    tell(
        """
        gap                           | 1>           | 1>
        B: refuse outbound TABLE_FULL |              |
        A: rekey 1                    | 1~>          |
        a1 --> REKEY_SA(1)            |              | 1-> a1+
        a1' <-- SA                    | 1x a1>       |
        A: packet                     |              | 1-> a1x
        b1 <-- D(a1)                  | 1x           |
        a2 --> D(1)                   |              | a1x
        a2' <-- D(1)                  | (1)          |
        b1' --> D(a1)                 |              | none
        end                           | none         |
        """
    )


def test_the_datapath_of_the_responder_is_slow_and_the_request_is_repeated():
    # §2.1: a request that is being worked on is answered once.
    tell(
        """
        B: hold inbound              | 1>           | 1>
        A: rekey 1                   | 1~>          |
        a1 --> REKEY_SA(1)           |              | 1> ?+
        a1 resent                    |              |
        a1 --> REKEY_SA(1)           |              |
        B: let go                    |              | 1-> a1+
        a1' <-- SA                   | 1x a1>       |
        a2 --> D(1)                  |              | a1> (1)
        a2' <-- D(1)                 | a1> (1)      |
        end                          | a1>          | a1>
        """
    )


def test_the_datapath_of_the_initiator_is_slow_to_install_the_inbound_sa():
    # Nobody sends on the new one, nor deletes the old one, until it is there.
    tell(
        """
        A: hold inbound              | 1>           | 1>
        A: rekey 1                   | 1~>          |
        a1 --> REKEY_SA(1)           |              | 1-> a1+
        a1' <-- SA                   | 1~> a1+      |
        wait 3                       |              |
        A: let go                    | 1x a1>       |
        a2 --> D(1)                  |              | a1> (1)
        a2' <-- D(1)                 | a1> (1)      |
        end                          | a1>          | a1>
        """
    )


def test_the_datapath_of_the_initiator_is_slow_to_install_the_outbound_sa():
    tell(
        """
        A: hold outbound             | 1>           | 1>
        A: rekey 1                   | 1~>          |
        a1 --> REKEY_SA(1)           |              | 1-> a1+
        a1' <-- SA                   | 1~> a1+      |
        wait 3                       |              |
        A: let go                    | 1x a1>       |
        a2 --> D(1)                  |              | a1> (1)
        a2' <-- D(1)                 | a1> (1)      |
        end                          | a1>          | a1>
        """
    )


def test_the_datapath_of_the_responder_is_slow_when_the_old_one_is_deleted():
    # The answer to the DELETE waits: the old outbound SA carries on till then.
    tell(
        """
        B: hold outbound             | 1>           | 1>
        A: rekey 1                   | 1~>          |
        a1 --> REKEY_SA(1)           |              | 1-> a1+
        a1' <-- SA                   | 1x a1>       |
        a2 --> D(1)                  |              |
        a2 resent                    |              |
        a2 --> D(1)                  |              |
        B: let go                    |              | a1> (1)
        a2' <-- D(1)                 | a1> (1)      |
        end                          | a1>          | a1>
        """
    )


def test_both_rekey_at_once_and_a_request_comes_while_the_other_datapath_still_installs():
    # Bob's own rekey is answered when he can answer: Alice is told to wait, and need not, for his is there.
    tell(
        """
        lowest a1                    | 1>           | 1>
        B: hold inbound              |              |
        A: rekey 1                   | 1~>          |
        B: rekey 1                   |              | 1~>
        a1 --> REKEY_SA(1)           |              | 1~> ?+
        b1 <-- REKEY_SA(1)           | 1~> b1+      |
        b1' --> SA                   |              | 1~> ?+ b1+
        B: let go                    |              | 1x b1>
        a1' <-- TEMPORARY_FAILURE    | 1-> b1+      |
        b2 <-- D(1)                  | b1> (1)      |
        b2' --> D(1)                 |              | b1> (1)
        end                          | b1>          | b1>
        """
    )


def test_both_rekey_at_once_and_the_peer_is_done_before_the_datapath_has_answered():
    # Alice's exchange is over when Bob's inbound SA for it is there: TEMPORARY_FAILURE.
    tell(
        """
        A: rekey 1                   | 1~>          | 1>
        B: rekey 1                   |              | 1~>
        A: hold inbound              |              |
        b1 <-- REKEY_SA(1)           | 1~> ?+       |
        a1 --> REKEY_SA(1)           |              | 1~> a1+
        a1' <-- SA                   | 1~> ?+ a1+   |
        A: let go                    | 1x a1>       |
        b1' --> TEMPORARY_FAILURE    |              | 1-> a1+
        a2 --> D(1)                  |              | a1> (1)
        a2' <-- D(1)                 | a1> (1)      |
        end                          | a1>          | a1>
        """
    )


def test_the_datapath_of_the_winner_refuses_its_own_successor():
    # Alice has deleted hers already when Bob deletes his: the old one goes on, and is rekeyed again.
    tell(
        """
        gap                          | 1>           | 1>
        lowest a1                    |              |
        A: rekey 1                   | 1~>          |
        B: rekey 1                   |              | 1~>
        a1 --> REKEY_SA(1)           |              | 1~> a1+
        b1 <-- REKEY_SA(1)           | 1~> b1+      |
        B: refuse inbound TABLE_FULL |              |
        b1' --> SA                   |              | 1> a1+
        a1' <-- SA                   | 1-> b1+      |
        a2 --> D(a1)                 |              | 1> (a1)
        b2 <-- D(b1)                 | 1>           |
        a2' <-- D(a1)                |              |
        b2' --> D(b1)                |              |
        end                          | a3>          | a3>
        """
    )


def test_the_old_one_is_deleted_while_the_successor_is_being_installed():
    tell(
        """
        gap                          | 1>           | 1>
        A: hold inbound              |              |
        A: rekey 1                   | 1~>          |
        a1 --> REKEY_SA(1)           |              | 1-> a1+
        a1' <-- SA                   | 1~> a1+      |
        B: expire 1                  |              | 1x a1+
        b1 <-- D(1)                  | a1+          |
        b1' --> D(1)                 |              | a1>
        A: let go                    | a1>          |
        end                          |              |
        """
    )


def test_the_successor_is_deleted_while_it_is_being_installed():
    tell(
        """
        gap                          | 1>           | 1>
        A: hold inbound              |              |
        A: rekey 1                   | 1~>          |
        a1 --> REKEY_SA(1)           |              | 1-> a1+
        a1' <-- SA                   | 1~> a1+      |
        B: expire a1                 |              | 1-> a1x
        b1 <-- D(a1)                 | 1~>          |
        b1' --> D(a1)                |              | 1>
        A: let go                    | 1>           |
        end                          | b2>          | b2>
        """
    )


def test_a_child_sa_expires_while_its_successor_is_being_installed():
    tell(
        """
        gap                          | 1>           | 1>
        A: hold inbound              |              |
        A: rekey 1                   | 1~>          |
        a1 --> REKEY_SA(1)           |              | 1-> a1+
        a1' <-- SA                   | 1~> a1+      |
        A: expire 1                  | 1~ a1+       |
        A: let go                    | 1x a1>       |
        a2 --> D(1)                  |              | a1> (1)
        a2' <-- D(1)                 | a1>          |
        end                          |              | a1>
        """
    )


def test_the_ike_sa_is_rekeyed_by_the_peer_while_the_outbound_sa_of_a_new_child_sa_is_being_installed():
    # That belongs to the Child SA, not to the IKE SA which negotiated it.
    tell(
        """
        B: hold outbound             | I 1>          | I 1>
        A: new dmz                   |               |
        a1 --> NEW                   |               | I 1> a1+
        a1' <-- SA                   | I 1> a1>      |
        A: rekey I                   | I~ 1> a1>     |
        a2 --> REKEY(IKE)            |               | I- Ia2 1> a1+
        a2' <-- SA                   | I- Ia2 1> a1> |
        a3 --> D(IKE)                |               | Ia2 1> a1+
        a3' <-- {}                   | Ia2 1> a1>    |
        B: let go                    |               | Ia2 1> a1>
        end                          |               |
        """
    )


def test_the_ike_sa_is_rekeyed_while_the_outbound_sa_of_a_new_child_sa_is_being_installed():
    tell(
        """
        B: hold outbound             | I 1>          | I 1>
        A: new dmz                   |               |
        a1 --> NEW                   |               | I 1> a1+
        a1' <-- SA                   | I 1> a1>      |
        B: rekey I                   |               | I~ 1> a1+
        b1 <-- REKEY(IKE)            | I- Ib1 1> a1> |
        b1' --> SA                   |               | I- Ib1 1> a1+
        b2 <-- D(IKE)                | Ib1 1> a1>    |
        b2' --> {}                   |               | Ib1 1> a1+
        B: let go                    |               | Ib1 1> a1>
        end                          |               |
        """
    )


def test_a_packet_and_then_the_delete_of_the_old_one_come_while_the_outbound_sa_is_being_installed():
    tell(
        """
        B: hold outbound             | 1>           | 1>
        A: rekey 1                   | 1~>          |
        a1 --> REKEY_SA(1)           |              | 1-> a1+
        a1' <-- SA                   | 1x a1>       |
        A: packet                    |              |
        a2 --> D(1)                  |              |
        B: let go                    |              | a1> (1)
        a2' <-- D(1)                 | a1> (1)      |
        end                          | a1>          | a1>
        """
    )


def test_the_ike_sa_is_deleted_while_a_successor_is_being_installed():
    tell(
        """
        gap                          | I 1>         | I 1>
        A: hold inbound              |              |
        A: rekey 1                   | I 1~>        |
        a1 --> REKEY_SA(1)           |              | I 1-> a1+
        a1' <-- SA                   | I 1~> a1+    |
        B: delete I                  |              | Ix 1- a1+
        b1 <-- D(IKE)                | none         |
        b1' --> {}                   |              | none
        A: let go                    |              |
        end                          |              |
        """
    )


def test_no_spi_is_to_be_had_for_a_rekey():
    # Alice never asks: Bob knows nothing of it, the old one goes on.
    tell(
        """
        A: refuse spi UNAVAILABLE    | 1>           | 1>
        A: rekey 1                   |              |
        wait 12                      | 1~>          |
        a1 --> REKEY_SA(1)           |              | 1-> a1+
        a1' <-- SA                   | 1x a1>       |
        a2 --> D(1)                  |              | a1> (1)
        a2' <-- D(1)                 | a1> (1)      |
        end                          | a1>          | a1>
        """
    )


def test_the_responder_has_no_spi_for_a_rekey():
    tell(
        """
        B: refuse spi TABLE_FULL     | 1>           | 1>
        A: rekey 1                   | 1~>          |
        a1 --> REKEY_SA(1)           |              |
        a1' <-- NO_ADDITIONAL_SAS    | 1>           |
        wait 12                      | 1~>          |
        a2 --> REKEY_SA(1)           |              | 1-> a2+
        a2' <-- SA                   | 1x a2>       |
        a3 --> D(1)                  |              | a2> (1)
        a3' <-- D(1)                 | a2> (1)      |
        end                          | a2>          | a2>
        """
    )
