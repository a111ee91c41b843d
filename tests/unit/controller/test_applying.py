"""What applying does to SAs that carry traffic: nothing, a rekey or a restart, as it said beforehand."""

from dataclasses import replace

import pytest

from gateway.controller.facade import (
    Applied,
    ApplyResult,
    ConditionStatus,
    ConditionType,
    ConnectionState,
    ControlError,
    Impact,
    WantedConnection,
)
from gateway.ipsec.connection import Connection, Start
from gateway.ipsec.proposal import ProtocolId, parse_proposal
from gateway.ipsec.secret import Secret
from tests.fakes.virtual_loop import pass_time
from tests.unit.controller.gateways import PSK, Gateway, Wire


@pytest.fixture
async def connected(paris: Gateway, tokyo: Gateway) -> Gateway:
    await paris.up()
    return paris


async def _apply(gateway: Gateway, connection: Connection, *, validate_only: bool = False) -> ApplyResult:
    item = WantedConnection(connection=connection, psk=Secret(PSK))
    (result,) = await gateway.controller.apply([item], validate_only=validate_only)
    return result


def _changed(gateway: Gateway, ike: dict[str, object] | None = None, **child: object) -> Connection:
    connection = gateway.connection()
    return replace(
        connection,
        ike=replace(connection.ike, **ike or {}),
        children=(replace(connection.children[0], **child),),
    )


def _numbers(gateway: Gateway) -> tuple[list[int], list[int]]:
    status = gateway.controller.connections()[0]
    return list(status.ike_sas), list(status.child_sas)


async def test_where_nothing_changed_nothing_happens_at_all(connected: Gateway, wire: Wire) -> None:
    packets, history = len(wire.sent), connected.controller.ledger().last
    before = _numbers(connected)

    result = await _apply(connected, connected.connection())

    assert (result.applied, result.impact) == (Applied.UNCHANGED, Impact())
    assert _numbers(connected) == before
    await pass_time(1.0)
    assert len(wire.sent) == packets
    assert connected.controller.ledger().last == history


@pytest.mark.parametrize(
    ("ike", "child", "field"),
    [
        ({"dpd_delay_s": 5.0}, {}, "ike.dpd_delay_s"),
        ({}, {"priority": 7}, "children[lan].priority"),
        ({}, {"start": Start.START}, "children[lan].start"),
    ],
    ids=["timer", "priority", "start"],
)
async def test_what_needs_no_negotiation_touches_no_sa(
    connected: Gateway,
    wire: Wire,
    ike: dict[str, object],
    child: dict[str, object],
    field: str,
) -> None:
    packets, before = len(wire.sent), _numbers(connected)

    result = await _apply(connected, _changed(connected, ike, **child))
    await pass_time(1.0)

    assert (result.applied, result.changed_fields, result.impact) == (Applied.UPDATED, (field,), Impact())
    assert _numbers(connected) == before
    assert len(wire.sent) == packets


async def test_a_proposal_of_a_child_costs_one_rekey_and_says_so_beforehand(connected: Gateway) -> None:
    words = ("aes128gcm16-x25519", "aes256gcm16-x25519")
    new = _changed(connected, proposals=tuple(parse_proposal(word, ProtocolId.ESP) for word in words))
    (ike_sas, child_sas) = _numbers(connected)

    told = await _apply(connected, new, validate_only=True)
    await pass_time(1.0)
    assert _numbers(connected) == (ike_sas, child_sas)
    done = await _apply(connected, new)
    await pass_time(20.0)

    assert told.impact == done.impact == Impact(child_sa_rekeys=1)
    assert (told.etag, told.generation) != (done.etag, done.generation)
    now = _numbers(connected)
    assert now[0] == ike_sas
    assert len(now[1]) == 1
    assert now[1] != child_sas


async def test_an_ike_proposal_rekeys_the_ike_sa_and_leaves_its_children(connected: Gateway) -> None:
    words = ("aes256gcm16-prfsha512-x25519", "aes256gcm16-prfsha384-x25519")
    proposals = tuple(parse_proposal(word, ProtocolId.IKE) for word in words)
    before = _numbers(connected)

    result = await _apply(connected, _changed(connected, {"proposals": proposals}))
    await pass_time(40.0)

    assert result.impact == Impact(ike_sa_rekeys=1)
    now = _numbers(connected)
    assert now[0] != before[0]
    assert now[1] == before[1]


async def test_other_selectors_restart_the_child_alone(connected: Gateway, tokyo: Gateway) -> None:
    narrower = connected.connection().children[0].local_ts
    narrower = (replace(narrower[0], end=narrower[0].start + 255),)
    before = _numbers(connected)

    result = await _apply(connected, _changed(connected, local_ts=narrower))
    await pass_time(5.0)

    assert result.impact == Impact(child_sa_restarts=1)
    now = _numbers(connected)
    assert now[0] == before[0]
    assert len(now[1]) == 1
    assert now[1] != before[1]


async def test_what_only_a_new_ike_sa_settles_restarts_it_and_it_comes_up_again(connected: Gateway) -> None:
    before = _numbers(connected)

    result = await _apply(connected, _changed(connected, {"encapsulation": True}))
    await pass_time(5.0)

    assert result.impact == Impact(ike_sa_restarts=1, child_sa_restarts=1)
    now = _numbers(connected)
    assert [len(sas) for sas in now] == [1, 1]
    assert now[0] != before[0]


async def test_deleting_says_what_ends(connected: Gateway) -> None:
    (told,) = await connected.controller.delete(["paris-tokyo"], validate_only=True)
    assert connected.controller.names() == ("paris-tokyo",)
    (done,) = await connected.controller.delete(["paris-tokyo"])

    assert told.impact == done.impact == Impact(ike_sa_ends=1, child_sa_ends=1)


async def test_an_update_has_another_etag_and_generation(connected: Gateway) -> None:
    before = connected.controller.connections()[0]

    await _apply(connected, _changed(connected, priority=7))

    after = connected.controller.connections()[0]
    assert (before.generation, after.generation, after.observed_generation) == (1, 2, 2)
    assert before.etag != after.etag
    with pytest.raises(ControlError, match="was changed by somebody else"):
        await connected.controller.delete(["paris-tokyo"], etags={"paris-tokyo": before.etag})


async def test_conditions_tell_what_is_so_and_since_when(paris: Gateway, tokyo: Gateway) -> None:
    await pass_time(1.0)
    down = {item.type: item for item in paris.controller.connections()[0].conditions}
    await pass_time(100.0)
    await paris.up()
    connected = {item.type: item for item in paris.controller.connections()[0].conditions}

    assert down[ConditionType.PROTECTED].status is ConditionStatus.TRUE
    assert down[ConditionType.ESTABLISHED].status is ConditionStatus.FALSE
    assert connected[ConditionType.ESTABLISHED].status is ConditionStatus.TRUE
    assert connected[ConditionType.ESTABLISHED].changed_at >= down[ConditionType.PROTECTED].changed_at + 99
    assert connected[ConditionType.PROTECTED].changed_at == down[ConditionType.PROTECTED].changed_at


async def test_a_datapath_that_is_away_leaves_the_protection_unknown(paris: Gateway) -> None:
    await pass_time(1.0)
    await paris.kill_agent()
    await pass_time(0.2)

    conditions = {item.type: item for item in paris.controller.connections()[0].conditions}

    assert conditions[ConditionType.PROTECTED].status is ConditionStatus.UNKNOWN
    assert conditions[ConditionType.PROTECTED].reason == "datapath_unavailable"


async def test_every_step_of_a_connection_moves_its_revision(paris: Gateway, tokyo: Gateway) -> None:
    ledger = paris.controller.ledger()
    seen = [ledger.revision_of("paris-tokyo")]
    await paris.up()
    seen.append(ledger.revision_of("paris-tokyo"))
    assert paris.controller.connections()[0].state is ConnectionState.UP
    await paris.controller.delete(["paris-tokyo"])

    assert seen[0] < seen[1] < ledger.last
    assert ledger.since(seen[1]).removed == ("paris-tokyo",)
