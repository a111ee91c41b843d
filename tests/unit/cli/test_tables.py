from gateway.api.control.v1 import control_pb2 as pb
from gateway.cli import tables
from gateway.datapath.backend import InstalledSa
from gateway.ipsec.placement import Engine
from tests.fakes.records import make_sa


def test_columns_line_up_and_nothing_is_said_as_a_sentence() -> None:
    assert tables.table(("a", "long head"), [("value", 1), ("x", 22)], empty="none") == [
        "A      LONG HEAD",
        "value  1",
        "x      22",
    ]
    assert tables.table(("a",), [], empty="nothing here") == ["nothing here"]


def test_a_failure_shows_what_both_sides_wanted() -> None:
    failure = pb.Failure(
        reason="no_proposal_chosen",
        detail="the peer takes none of our proposals",
        notify="NO_PROPOSAL_CHOSEN",
        offered="aes256gcm16-prfsha384-x25519",
        configured="aes128-sha256-modp2048",
    )

    assert tables.failure_lines(failure) == [
        "no_proposal_chosen: the peer takes none of our proposals",
        "notify: NO_PROPOSAL_CHOSEN",
        "offered: aes256gcm16-prfsha384-x25519",
        "configured: aes128-sha256-modp2048",
    ]


def test_a_listing_of_sas_shows_no_key() -> None:
    lines = tables.sas([InstalledSa(sa=make_sa(0x1001, key=b"A" * 36), placement=Engine.SOFTWARE)])

    assert "in:esp:192.0.2.1:00001001" in lines[1]
    assert "aes_gcm_16 256" in lines[1]
    assert "AAAA" not in "".join(lines)
    assert "4141" not in "".join(lines)


def test_an_event_is_one_line_with_its_number_and_kind() -> None:
    event = pb.Event(sequence=7)
    event.child_sa_failed.connection = "paris"
    event.child_sa_failed.failure.detail = "two words"

    line = tables.event(event)

    assert " 7 child_sa_failed " in line
    assert "connection=paris" in line
    assert 'failure.detail="two words"' in line


def test_advice_stands_below_its_fact() -> None:
    facts = [
        pb.Fact(topic="state", text="paris is down", advice="`ipsecgw up paris`"),
        pb.Fact(topic="peer", text="x"),
    ]

    assert tables.facts(facts) == [
        "state      paris is down",
        "           -> `ipsecgw up paris`",
        "peer       x",
    ]
