"""The subset of AIP-160: what fits, and what is refused with the place and what would be right."""

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.api.control.v1 import connection_pb2 as cpb
from gateway.api.control.v1 import control_pb2 as pb
from gateway.api.filter import MAX_LENGTH, parse_filter
from gateway.api.violations import InvalidArgument

ENTRY = pb.ConnectionEntry(
    connection=cpb.Connection(
        name="paris-tokyo",
        local=cpb.Side(address="192.0.2.1", auth=cpb.Authentication(psk=cpb.PreSharedKey(is_set=True))),
        ike=cpb.Ike(proposals=["aes256gcm16-x25519", "aes128-sha256"], rekey=Duration(seconds=3600)),
        children=[
            cpb.Child(name="lan", priority=5, start=cpb.START_START),
            cpb.Child(name="dmz", priority=7, copy_df=True),
        ],
    ),
    status=pb.ConnectionStatus(
        state=pb.CONNECTION_STATE_UP,
        ike_sa_ids=[7],
        last_failure_time=Timestamp(seconds=1_800_000_000),
    ),
    generation=3,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("connection.name = paris-tokyo", True),
        ('connection.name = "paris-tokyo"', True),
        ("connection.name = 'rome'", False),
        ("connection.name != rome", True),
        ("connection.name = paris*", True),
        ("connection.name = *tokyo", True),
        ("connection.name = *s-t*", True),
        ('connection.name = "paris*"', False),
        ("connection.name : tok", True),
        ("connection.name > a connection.name < q", True),
        ("status.state = up", True),
        ("status.state != UP", False),
        ("NOT status.state = failed", True),
        ("- status.state = failed", True),
        ("status.state = failed OR generation >= 3", True),
        ("status.state = up AND generation > 3", False),
        ("status.state = up generation > 3", False),
        ("(status.state = failed OR status.state = up) AND generation = 3", True),
        ("connection.children.name = dmz", True),
        ("connection.children.name : am", False),
        ("connection.children.priority > 6", True),
        ("connection.children.priority > 7", False),
        ("connection.children.name != lan", False),
        ("connection.children.start = start", True),
        ("connection.children.copy_df = true", True),
        ("connection.children.copy_df:*", True),
        ("connection.ike.proposals : aes128-sha256", True),
        ("connection.ike.rekey <= 1h", True),
        ("connection.ike.rekey < 59m", False),
        ("connection.ike.dpd_delay = 30s", False),
        ("connection.ike.dpd_delay:*", False),
        ("connection.remote:*", False),
        ("connection.local.auth.psk.is_set = true", True),
        ("status.ike_sa_ids = 7", True),
        ("status.ike_sa_ids:*", True),
        ("status.child_sa_ids:*", False),
        ('status.last_failure_time < "2027-01-15T08:00:01Z"', True),
    ],
)
def test_a_filter_tells_what_fits(text: str, expected: bool) -> None:
    matches = parse_filter(text, pb.ConnectionEntry.DESCRIPTOR)

    assert (matches is None or matches(ENTRY)) is expected


@pytest.mark.parametrize(
    ("text", "character", "says"),
    [
        ("paris", 1, "stands alone; compare a field with a value"),
        ("name = paris", 1, "there is no field name; there are connection, etag, generation, status"),
        ("connection.name.first = a", 1, "connection.name has no fields"),
        ("connection = a", 1, "connection has fields; name one of them"),
        ("connection.name =", 18, "a value is missing"),
        ("connection.name = a OR", 23, "the filter ends where a field is wanted"),
        ("(connection.name = a", 21, "a closing parenthesis is missing"),
        ("connection.name = a)", 20, "')' is left over"),
        ("regex(connection.name, 'a')", 1, "is called like a function; there are none"),
        ("generation = many", 14, "'many' is no number"),
        ("status.state = asleep", 16, "'asleep' is none of down, connecting, up, failed"),
        ("status.state < up", 14, "has no order"),
        ("connection.children.copy_df = 1", 31, "is neither true nor false"),
        ("connection.ike.rekey = 90", 24, "has no unit"),
        ("status.last_failure_time = yesterday", 28, "is no time"),
        ("connection.name = a*b", 17, "at the begin or end of a text only"),
        ("connection.name = a OR connection.name = b AND generation = 1", 44, "put parentheses"),
        ("connection.name = 'a", 18, "has no place in a filter"),
        ("connection.name = a, generation = 1", 20, "',' stands where a field is wanted"),
        ("NOT " * 25 + "generation = 1", 81, "nested more than 20 deep"),
        ("x" * (MAX_LENGTH + 1), 1, "at most 2048 are allowed"),
    ],
)
def test_what_is_no_filter_is_refused_with_its_place(text: str, character: int, says: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_filter(text, pb.ConnectionEntry.DESCRIPTOR)

    (violation,) = caught.value.violations
    assert violation.field == "filter"
    assert says in violation.description
    assert f"(at character {character})" in violation.description


@settings(max_examples=300)
@given(
    st.text(alphabet="abn .()=<>!:*'\"\\-ANDORT19", max_size=60)
    | st.lists(st.sampled_from(["generation", "connection.name", *"=:()*1,", "NOT", "AND", "OR", "'a'"])).map(
        " ".join
    )
)
def test_any_text_is_a_filter_or_refused(text: str) -> None:
    try:
        matches = parse_filter(text, pb.ConnectionEntry.DESCRIPTOR)
    except InvalidArgument:
        return
    if matches is not None:
        assert matches(ENTRY) in (True, False)
