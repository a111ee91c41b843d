from dataclasses import replace

import pytest

from gateway.api.control.v1 import control_pb2 as pb
from gateway.api.types.v1 import ipsec_pb2 as tpb
from gateway.api.types.v1 import status_pb2 as spb
from gateway.cli import tables
from gateway.datapath.backend import InstalledSa, SaCounters
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.placement import Engine, Placement, PlacementReason, PlacementRefusal
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
    sa = make_sa(0x1001, key=b"A" * 36)
    lines = tables.sas([InstalledSa(sa=sa, placement=Engine.SOFTWARE)], {})

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


def test_an_sa_shows_its_counters_and_its_drops_by_reason() -> None:
    sa = make_sa(0x1001)
    counters = SaCounters(
        sa_id=sa.sa_id,
        packets=3,
        bytes=252,
        sequence=7,
        drops={DropReason.REPLAY: 2},
        last_used_s_ago=61.5,
    )

    lines = tables.sas(
        [InstalledSa(sa=sa, placement=Engine.SOFTWARE, effective_mtu=1446)], {sa.sa_id: counters}
    )

    assert lines[0].split()[-7:] == ["MTU", "REQUESTED", "PLACEMENT", "WHY", "NOT", "BETTER", "DROPS"]
    assert lines[1].split()[-6:] == ["1446", "nic_packet", "software", "-", "replay", "2"]
    assert lines[1].split()[-10:-6] == ["3", "252", "7", "1m1s"]


def test_an_sa_shows_what_was_asked_for_and_the_codes_of_why_it_is_not_there() -> None:
    refusals = (
        PlacementRefusal(engine=Engine.NIC_PACKET, reason=PlacementReason.NO_DEVICE, text="none"),
        PlacementRefusal(engine=Engine.NIC_CRYPTO, reason=PlacementReason.NO_DEVICE, text="none"),
        PlacementRefusal(engine=Engine.ENGINE, reason=PlacementReason.NO_BACKEND, text="no espd"),
    )
    preferring = InstalledSa(sa=make_sa(0x1001), placement=Engine.KERNEL, refusals=refusals)
    requiring = InstalledSa(
        sa=replace(make_sa(0x1002), placement=Placement(require=Engine.KERNEL)), placement=Engine.KERNEL
    )

    head, first, second = tables.sas([preferring, requiring], {})

    at = head.index("REQUESTED")
    assert first[at:].split() == [
        *("nic_packet", "kernel", "nic_packet/nic_crypto:NO_DEVICE", "engine:NO_BACKEND", "-")
    ]
    assert second[at:].split() == ["kernel", "only", "kernel", "-", "-"]


def test_a_child_sa_shows_both_directions_its_mtu_and_when_it_is_rekeyed() -> None:
    child_sa = pb.ChildSa(child_sa_id=5, connection="paris", child="lan", state="installed")
    child_sa.mode = tpb.MODE_TUNNEL
    child_sa.udp_encapsulation = True
    child_sa.effective_mtu = 1438
    child_sa.rekey_time.FromSeconds(1000 + 3540)
    for half, packets in ((child_sa.inbound, 3), (child_sa.outbound, 4)):
        half.spi = "0000100" + str(packets)
        half.packets, half.bytes = packets, packets * 84
        half.placement = tpb.ENGINE_SOFTWARE
        half.requested.prefer.extend([tpb.ENGINE_KERNEL, tpb.ENGINE_SOFTWARE])
        half.refusals.add(engine=tpb.ENGINE_KERNEL, reason=tpb.PLACEMENT_REASON_ESN, text="no ESN")

    line = tables.child_sas([child_sa], 1000.0)[1]

    assert "tunnel in UDP  00001003  00001004  3/4" in line
    assert "252/336       1438  kernel     software   kernel:ESN      59m" in line

    child_sa.protocol, child_sa.udp_encapsulation = tpb.IPSEC_PROTOCOL_AH, False
    assert "tunnel AH  00001003" in tables.child_sas([child_sa], 1000.0)[1]


def routed_connection() -> pb.ConnectionEntry:
    """Return a connection of which one child is route-based and another is not."""
    entry = pb.ConnectionEntry()
    entry.connection.name = "paris"
    entry.connection.children.add(name="lan").interface.name = "ipsec7"
    entry.connection.children.add(name="voice").interface.name = "ipsec7"
    entry.connection.children.add(name="dmz")
    return entry


def test_what_has_a_tunnel_interface_shows_its_name() -> None:
    entry = routed_connection()
    child_sas = [
        pb.ChildSa(connection="paris", child="lan", interface_id=7),
        pb.ChildSa(connection="paris", child="dmz"),
        pb.ChildSa(connection="oslo", child="lan", interface_id=9),
    ]

    status = tables.status(pb.GetStatusResponse(), [entry], 0.0)[-2:]
    ike_lines = tables.ike_sas([pb.IkeSa(connection="paris"), pb.IkeSa()], 0.0, [entry])
    child_lines = tables.child_sas(child_sas, 0.0, [entry])

    for lines, names in (
        (status, ["ipsec7"]),
        (ike_lines, ["ipsec7", "-"]),
        # What the configuration does not tell any more is told by its number.
        (child_lines, ["ipsec7", "-", "#9"]),
    ):
        at = lines[0].index("INTERFACE")
        assert [line[at:].split()[0] for line in lines[1:]] == names


def test_where_nothing_has_a_tunnel_interface_there_is_no_column_for_it() -> None:
    entry = pb.ConnectionEntry()
    entry.connection.name = "paris"

    for lines in (
        tables.connections([entry]),
        tables.ike_sas([pb.IkeSa(connection="paris")], 0.0, [entry]),
        tables.child_sas([pb.ChildSa(connection="paris", child="lan")], 0.0),
    ):
        assert "INTERFACE" not in lines[0]
        assert len(lines) == 2


def test_the_status_names_what_was_dropped_by_ike_and_by_the_datapath() -> None:
    message = pb.GetStatusResponse(version="0.1.0", datapath_address="unix:/run/x")
    message.start_time.FromSeconds(1_000)
    message.ike_drops.add(reason=spb.DROP_REASON_IKE_COOKIE, packets=4)
    message.datapath_drops.add(reason=spb.DROP_REASON_CLEAR_INBOUND, packets=9)

    lines = tables.status(message, [], 1_000 + 7_380.0)

    assert lines[0] == "ipsecgw 0.1.0, up for 2h3m, since 1970-01-01T00:16:40Z"
    assert "IKE drops  ike_cookie 4" in lines
    assert "ESP drops  clear_inbound 9" in lines


@pytest.mark.parametrize(
    ("seconds", "text"), [(-3.0, "0s"), (0.4, "0s"), (59.9, "59s"), (3599, "59m59s"), (180_000, "2d2h")]
)
def test_a_time_span_is_read_at_a_glance(seconds: float, text: str) -> None:
    assert tables.duration(seconds) == text


def test_an_event_about_one_thing_does_not_repeat_its_name() -> None:
    event = pb.Event(sequence=3)
    event.ike_sa_established.ike_sa.connection = "paris"

    assert tables.event(event).endswith(" 3 ike_sa_established connection=paris")
