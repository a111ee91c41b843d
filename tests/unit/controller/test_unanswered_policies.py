"""A datapath that does not answer what it is told of policies, though it is there and its events come."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest

from gateway.controller.applying import NOT_PROTECTED_YET, Kept, StoreError
from gateway.controller.controller import Controller
from gateway.controller.facade import (
    Applied,
    ApplyResult,
    Condition,
    ConditionStatus,
    ConditionType,
    ControlError,
    ControlErrorReason,
    Target,
    WantedConnection,
)
from gateway.ipsec.connection import Connection, Start
from gateway.ipsec.proposal import ProtocolId, parse_proposal
from gateway.ipsec.secret import Secret
from tests.fakes.virtual_loop import pass_time
from tests.unit.controller.gateways import PSK, Gateway, Wire

CALLS = ("apply_policies", "remove_policies")


@pytest.fixture
async def empty_paris(wire: Wire) -> AsyncIterator[Gateway]:
    """A gateway without connections."""
    gateway = Gateway(wire, is_paris=True)
    await gateway.start_agent()
    gateway.controller = gateway.new_controller()
    await gateway.controller.start()
    assert await gateway.controller.is_protecting()
    yield gateway
    await gateway.controller.stop()
    await gateway.agent.close()


async def apply(gateway: Gateway, connection: Connection) -> ApplyResult:
    item = WantedConnection(connection=connection, psk=Secret(PSK))
    (result,) = await gateway.controller.apply([item])
    return result


def protected(controller: Controller) -> Condition:
    (status,) = controller.connections()
    return next(item for item in status.conditions if item.type is ConditionType.PROTECTED)


def child_that_starts(gateway: Gateway) -> Connection:
    connection = gateway.connection()
    return replace(connection, children=(replace(connection.children[0], start=Start.START),))


async def test_policy_is_put_in_force_later_and_there_is_no_sa_before(
    empty_paris: Gateway, tokyo: Gateway, wire: Wire
) -> None:
    paris = empty_paris
    paris.unanswered = CALLS

    result = await apply(paris, child_that_starts(paris))

    assert (result.applied, result.warnings) == (Applied.CREATED, (NOT_PROTECTED_YET,))
    assert protected(paris.controller).status is ConditionStatus.UNKNOWN
    assert "did not answer in time" in protected(paris.controller).message
    assert paris.controller.connections()[0].observed_generation == 0
    # As long as it lasts, nothing is sent and nobody gets through.
    await pass_time(60)
    await tokyo.controller.initiate(Target(connection="paris-tokyo"))
    await pass_time(5)
    assert paris.policies() == []
    assert paris.backend.sad.sas == {}
    assert not [path for path, _ in wire.sent if path.local == paris.address]

    paris.unanswered = ()
    await pass_time(30)

    assert [policy.name for policy in paris.policies()] == ["paris-tokyo/lan"]
    assert protected(paris.controller).status is ConditionStatus.TRUE
    assert paris.controller.connections()[0].observed_generation == 1
    assert paris.outbound() is not None


async def test_policy_that_could_not_be_withdrawn_is_withdrawn_later(paris: Gateway, tokyo: Gateway) -> None:
    await paris.up()
    paris.unanswered = CALLS

    (result,) = await paris.controller.delete(["paris-tokyo"])
    assert result.applied is Applied.DELETED
    assert len(paris.policies()) == 1
    paris.unanswered = ()
    await pass_time(5)

    assert paris.policies() == []


async def test_sas_that_carry_traffic_stay_while_policies_are_made_up_for(
    paris: Gateway, tokyo: Gateway
) -> None:
    await paris.up()
    sas = dict(paris.backend.sad.sas)
    paris.unanswered = CALLS

    connection = paris.connection()
    changed = replace(connection, children=(replace(connection.children[0], priority=7),))
    await apply(paris, changed)
    paris.unanswered = ()
    await pass_time(5)

    assert [policy.priority for policy in paris.policies()] == [7]
    assert paris.backend.sad.sas == sas
    assert protected(paris.controller).status is ConditionStatus.TRUE


async def test_rekey_that_a_change_needs_is_made_up_for(paris: Gateway, tokyo: Gateway) -> None:
    await paris.up()
    (before,) = paris.controller.connections()[0].child_sas
    paris.unanswered = CALLS

    connection = paris.connection()
    words = ("aes128gcm16-x25519", "aes256gcm16-x25519")
    proposals = tuple(parse_proposal(word, ProtocolId.ESP) for word in words)
    child = replace(connection.children[0], proposals=proposals, priority=7)
    result = await apply(paris, replace(connection, children=(child,)))
    assert result.impact.child_sa_rekeys == 1
    paris.unanswered = ()
    await pass_time(20)

    (after,) = paris.controller.connections()[0].child_sas
    assert after != before


async def test_new_policy_of_what_cannot_be_kept_is_gone_in_the_end(empty_paris: Gateway) -> None:
    paris = empty_paris

    class FullDisk:
        """A `DesiredStore` that keeps nothing; from then on policies are not answered."""

        async def save(self, changed: Sequence[Kept], removed: Sequence[str], generation: int) -> None:
            paris.unanswered = CALLS
            raise StoreError("the disk is full")

    paris.controller._applying._store = FullDisk()

    with pytest.raises(ControlError) as refused:
        await apply(paris, paris.connection())
    assert refused.value.reason is ControlErrorReason.STATE_NOT_KEPT
    assert len(paris.policies()) == 1
    paris.unanswered = ()
    await pass_time(5)

    assert paris.policies() == []
    assert paris.controller.connections() == ()
