import asyncio
from dataclasses import replace

import pytest

from gateway.controller.facade import (
    Applied,
    ConnectionState,
    ControlError,
    ControlErrorReason,
    DatapathAvailability,
    OperationState,
    Target,
    WantedConnection,
)
from gateway.datapath.backend import (
    Acquire,
    BadSpi,
    DatapathError,
    ErrorReason,
    HardExpire,
    ItemResult,
    SasLost,
    SoftExpire,
)
from gateway.ike.events import ChildSaEstablished, ChildSaRekeyed, FailureReason, IkeSaEstablished
from gateway.ipsec.connection import Start
from gateway.ipsec.policy import Policy
from gateway.ipsec.sa import Direction, SaId, Spi
from gateway.ipsec.secret import Secret
from gateway.ipsec.selectors import TrafficSelector
from tests.fakes.virtual_loop import pass_time
from tests.unit.controller.gateways import PARIS, PARIS_NET, TOKYO, Gateway, Wire, can_talk, outbound_keys


async def restarted(gateway: Gateway, start: Start) -> None:
    """Give a gateway another start mode, by restarting it whole."""
    await gateway.controller.stop()
    await gateway.agent.close()
    gateway.start_mode = start
    await gateway.start()
    await pass_time(1)


async def test_up_brings_up_one_ike_sa_and_one_child_sa_that_carry_both_ways(
    paris: Gateway, tokyo: Gateway
) -> None:
    operation = await paris.up()

    assert operation.state is OperationState.SUCCEEDED
    assert can_talk(paris, tokyo)
    for gateway in (paris, tokyo):
        (status,) = gateway.controller.connections()
        assert status.state is ConnectionState.UP
        assert (len(status.ike_sas), len(status.child_sas)) == (1, 1)


async def test_up_is_done_at_once_when_it_is_up(paris: Gateway, tokyo: Gateway) -> None:
    await paris.up()

    begun = await paris.controller.initiate(Target(connection="paris-tokyo"))

    assert begun.state is OperationState.SUCCEEDED


async def test_the_policy_is_in_force_before_there_is_any_sa(paris: Gateway) -> None:
    await pass_time(1)

    (policy,) = paris.policies()

    assert (policy.name, policy.local_ts) == ("paris-tokyo/lan", PARIS_NET)
    assert not paris.backend.sad.sas


async def test_a_request_id_starts_one_operation_and_no_other(paris: Gateway, tokyo: Gateway) -> None:
    target = Target(connection="paris-tokyo")

    first = await paris.controller.initiate(target, request_id="r1")
    second = await paris.controller.initiate(target, request_id="r1")

    assert first.operation_id == second.operation_id
    with pytest.raises(ControlError) as refused:
        await paris.controller.terminate(target, request_id="r1")
    assert refused.value.reason is ControlErrorReason.REQUEST_ID_REUSED


async def test_a_request_that_comes_twice_while_the_datapath_is_away_starts_one_operation(
    paris: Gateway, tokyo: Gateway
) -> None:
    await pass_time(1.0)
    await paris.kill_agent()
    await pass_time(0.5)
    target = Target(connection="paris-tokyo")

    asked = [asyncio.create_task(paris.controller.initiate(target, request_id="r")) for _ in range(2)]
    await pass_time(0.1)
    await paris.start_agent()

    assert len({operation.operation_id for operation in await asyncio.gather(*asked)}) == 1


async def test_down_deletes_everything_at_both_ends_and_the_protection_stays(
    paris: Gateway, tokyo: Gateway
) -> None:
    await paris.up()

    begun = await paris.controller.terminate(Target(connection="paris-tokyo"))
    operation = await paris.controller.operation(begun.operation_id, wait_s=10)
    await pass_time(10)

    assert operation.state is OperationState.SUCCEEDED
    for gateway in (paris, tokyo):
        assert not gateway.controller.ike_sas()
        assert not gateway.backend.sad.sas
        assert len(gateway.policies()) == 1


async def test_down_of_one_child_leaves_the_ike_sa(paris: Gateway, tokyo: Gateway) -> None:
    await paris.up()

    begun = await paris.controller.terminate(Target(connection="paris-tokyo", child="lan"))
    operation = await paris.controller.operation(begun.operation_id, wait_s=10)
    await pass_time(10)

    assert operation.state is OperationState.SUCCEEDED
    for gateway in (paris, tokyo):
        assert len(gateway.controller.ike_sas()) == 1
        assert not gateway.backend.sad.sas


@pytest.mark.parametrize("kind", ["ike_sa_id", "child_sa_id"])
@pytest.mark.parametrize("verb", ["terminate", "rekey"])
async def test_an_sa_is_meant_by_its_number_alone(
    paris: Gateway, tokyo: Gateway, verb: str, kind: str
) -> None:
    await paris.up()
    (ike_sa,) = paris.controller.ike_sas()
    (child_sa,) = await paris.controller.child_sas()
    number = ike_sa.ike_sa_id if kind == "ike_sa_id" else child_sa.info.child_sa_id
    act = paris.controller.terminate if verb == "terminate" else paris.controller.rekey

    with pytest.raises(ControlError, match="999; it may have") as refused:
        await act(Target(**{kind: 999}))
    begun = await act(Target(**{kind: number}))
    operation = await paris.controller.operation(begun.operation_id, wait_s=10)

    assert refused.value.reason.value == kind.upper().replace("ID", "NOT_FOUND")
    assert operation.state is OperationState.SUCCEEDED


@pytest.mark.parametrize(
    "target", [Target(connection="paris-tokyo", child="lan"), Target(connection="paris-tokyo")]
)
async def test_a_rekey_replaces_one_sa_and_loses_nothing(
    paris: Gateway, tokyo: Gateway, target: Target
) -> None:
    await paris.up()

    begun = await paris.controller.rekey(target)
    operation = await paris.controller.operation(begun.operation_id, wait_s=10)
    await pass_time(10)

    assert operation.state is OperationState.SUCCEEDED
    assert can_talk(paris, tokyo)
    assert len(paris.backend.sad.sas) == 2
    assert len(paris.controller.ike_sas()) == 1


async def test_rekeying_what_is_down_says_so(paris: Gateway) -> None:
    with pytest.raises(ControlError, match="bring it up first"):
        await paris.controller.rekey(Target(connection="paris-tokyo"))
    with pytest.raises(ControlError, match="paris-tokyo/lan has no Child SA to rekey"):
        await paris.controller.rekey(Target(connection="paris-tokyo", child="lan"))
    with pytest.raises(ControlError) as refused:
        await paris.controller.rekey(Target(connection="nowhere"))
    assert refused.value.reason is ControlErrorReason.CONNECTION_NOT_FOUND


async def test_a_wrong_psk_fails_with_the_reason_and_explain_tells_what_to_do(
    wire: Wire, paris: Gateway
) -> None:
    tokyo = Gateway(wire, is_paris=False, psk=b"another key")
    await tokyo.start()

    operation = await paris.up()

    assert operation.state is OperationState.FAILED
    assert operation.failure is not None
    assert operation.failure.reason is FailureReason.AUTHENTICATION_FAILED
    facts = await paris.controller.explain("paris-tokyo")
    assert any("compare the pre-shared keys" in fact.advice for fact in facts)
    (status,) = paris.controller.connections()
    assert status.state is ConnectionState.FAILED
    assert not paris.backend.sad.sas
    await tokyo.controller.stop()
    await tokyo.agent.close()


async def test_a_silent_peer_fails_after_the_retransmissions(paris: Gateway) -> None:
    operation = await paris.up()

    assert operation.failure is not None
    assert operation.failure.reason is FailureReason.PEER_UNRESPONSIVE


async def test_a_datapath_that_refuses_the_sa_fails_the_operation_and_leaves_nothing(
    paris: Gateway, tokyo: Gateway
) -> None:
    await pass_time(1)
    paris.backend.refusals += [DatapathError(ErrorReason.TABLE_FULL, "the table is full")] * 2

    operation = await paris.up()
    await pass_time(30)

    assert operation.state is OperationState.FAILED
    assert operation.failure is not None
    assert operation.failure.reason is FailureReason.DATAPATH_REFUSED
    assert "the table is full" in operation.failure.detail
    assert not [sa for sa in tokyo.backend.sad.sas if tokyo.outbound() is not None]


async def test_start_mode_start_comes_up_by_itself_and_again_when_the_peer_was_away(wire: Wire) -> None:
    paris = Gateway(wire, is_paris=True, start=Start.START)
    await paris.start()
    await pass_time(100)
    tokyo = Gateway(wire, is_paris=False)
    await tokyo.start()
    await pass_time(120)

    assert can_talk(paris, tokyo)
    await paris.controller.stop()
    await tokyo.controller.stop()


async def test_both_ends_starting_at_once_converge_to_one_ike_sa_and_one_child_sa(wire: Wire) -> None:
    both = [Gateway(wire, is_paris=is_paris, start=Start.START) for is_paris in (True, False)]
    for gateway in both:
        await gateway.start()
    await pass_time(60)

    assert can_talk(*both)
    for gateway in both:
        assert len(gateway.controller.ike_sas()) == 1
        assert len(await gateway.controller.child_sas()) == 1
        assert len(gateway.backend.sad.sas) == 2
    for gateway in both:
        await gateway.controller.stop()


async def test_a_child_that_should_be_up_comes_back_after_the_peer_deleted_it(
    wire: Wire, tokyo: Gateway
) -> None:
    paris = Gateway(wire, is_paris=True, start=Start.START)
    await paris.start()
    await pass_time(2)

    await tokyo.controller.terminate(Target(connection="paris-tokyo"))
    await pass_time(0.5)
    away = can_talk(paris, tokyo)
    await pass_time(5)

    assert not away
    assert can_talk(paris, tokyo)
    await paris.controller.stop()


async def test_a_child_the_operator_took_down_stays_down(wire: Wire, tokyo: Gateway) -> None:
    paris = Gateway(wire, is_paris=True, start=Start.START)
    await paris.start()
    await pass_time(2)

    await paris.controller.terminate(Target(connection="paris-tokyo"))
    await pass_time(600)

    assert not paris.controller.ike_sas()
    await paris.controller.stop()


async def test_the_first_packet_brings_up_what_starts_on_traffic(paris: Gateway, tokyo: Gateway) -> None:
    await restarted(paris, Start.ON_TRAFFIC)

    acquire(paris)
    await pass_time(1)

    assert can_talk(paris, tokyo)
    assert paris.policies()[0].acquire


async def test_packets_do_not_hammer_a_peer_that_refuses(wire: Wire) -> None:
    tokyo = Gateway(wire, is_paris=False, psk=b"another key")
    await tokyo.start()
    paris = Gateway(wire, is_paris=True, start=Start.ON_TRAFFIC)
    await paris.start()
    await pass_time(1)

    for _ in range(600):
        acquire(paris)
        await pass_time(0.1)

    exchanges = [data for path, data in wire.sent if path.remote == tokyo.address]
    assert 4 < len(exchanges) < 30  # 1, 2, 4, 8, 16, 32 s: six or so attempts of a few messages
    await paris.controller.stop()
    await tokyo.controller.stop()


def acquire(gateway: Gateway) -> None:
    """Let a packet ask for its SA."""
    (policy,) = gateway.policies()
    (here,), (there,) = policy.local_ts, policy.remote_ts
    gateway.backend.emit(
        Acquire(policy="paris-tokyo/lan", source=here.start, destination=there.start, protocol=1)
    )


# --- restarts -----------------------------------------------------------------------------------


async def test_an_agent_that_was_killed_gets_its_policies_back_and_new_keys_never_the_old_ones(
    paris: Gateway, tokyo: Gateway
) -> None:
    await paris.up()
    old_keys = outbound_keys(paris)
    (ike_sa,) = paris.controller.ike_sas()

    await paris.kill_agent()
    await pass_time(0.2)
    await paris.start_agent()
    await pass_time(10)

    assert [policy.name for policy in paris.policies()] == ["paris-tokyo/lan"]
    assert can_talk(paris, tokyo)
    new_keys = outbound_keys(paris)
    assert new_keys
    assert not {key for _spi, key in new_keys} & {key for _spi, key in old_keys}
    assert [sa.spi_i for sa in paris.controller.ike_sas()] == [ike_sa.spi_i]  # the IKE SA lived on
    assert len(tokyo.backend.sad.sas) == 2


async def test_after_an_agent_restart_policies_come_first(paris: Gateway, tokyo: Gateway) -> None:
    await paris.up()
    await paris.kill_agent()
    await paris.start_agent()
    order: list[str] = []
    backend = paris.backend
    for name in ("apply_policies", "install_sas"):
        real = getattr(backend, name)

        async def noted(*args: object, name: str = name, real: object = real) -> object:
            order.append(name)
            return await real(*args)  # type: ignore[operator]

        setattr(backend, name, noted)

    await pass_time(5)

    assert order[0] == "apply_policies"
    assert "install_sas" in order


async def test_an_outbound_sa_is_not_offered_twice_to_a_datapath_that_did_not_answer(
    paris: Gateway, tokyo: Gateway
) -> None:
    await pass_time(1)
    seen: list[SaId] = []
    real = paris.agent.install_sas

    async def swallow(sas: list[object], generation: int = 0) -> object:
        outbound = [sa for sa in sas if sa.direction is Direction.OUTBOUND]  # type: ignore[attr-defined]
        if outbound:
            seen.extend(sa.sa_id for sa in outbound)  # type: ignore[attr-defined]
            raise DatapathError(ErrorReason.UNAVAILABLE, "connection reset")
        return await real(sas, generation)  # type: ignore[arg-type]

    paris.agent.install_sas = swallow  # type: ignore[assignment,method-assign]

    operation = await paris.up()
    await pass_time(30)

    assert operation.state is OperationState.FAILED
    assert len(seen) == len(set(seen))


async def test_sas_that_vanish_silently_are_found_by_the_audit_and_renewed(
    paris: Gateway, tokyo: Gateway
) -> None:
    await paris.up()
    old = outbound_keys(paris)
    lost = tuple(paris.backend.sad.sas)
    for sa_id in lost:
        paris.backend.sad.remove(sa_id)
    paris.agent._sad.drop_sas(lost)

    await pass_time(40)

    assert can_talk(paris, tokyo)
    assert len(outbound_keys(paris)) == len(old) + 1


async def test_sas_the_datapath_reports_lost_are_renewed_at_once(paris: Gateway, tokyo: Gateway) -> None:
    await paris.up()
    lost = tuple(paris.backend.sad.sas)
    for sa_id in lost:
        paris.backend.sad.remove(sa_id)

    paris.backend.emit(SasLost(sa_ids=lost, reason="device reset"))
    await pass_time(1)

    assert can_talk(paris, tokyo)


async def test_a_new_controller_adopts_and_replaces_without_a_gap(paris: Gateway, tokyo: Gateway) -> None:
    await paris.up()
    before = set(paris.backend.sad.sas)
    gaps: list[float] = []
    await paris.kill_controller()
    watching = asyncio.create_task(note_gaps(paris, tokyo, gaps))
    await pass_time(5)

    await paris.start_controller()
    await pass_time(30)

    watching.cancel()
    assert gaps == []
    assert can_talk(paris, tokyo)
    assert len(paris.backend.sad.sas) == 2
    assert not before & set(paris.backend.sad.sas)
    # The peer gave up its half of the IKE SA of the former life, when the new one had stood for a while.
    await pass_time(60)
    assert len(tokyo.controller.ike_sas()) == 1
    assert len(tokyo.backend.sad.sas) == 2
    assert gaps == []


async def note_gaps(one: Gateway, other: Gateway, gaps: list[float]) -> None:
    while True:
        if not can_talk(one, other):
            gaps.append(asyncio.get_running_loop().time())
        await pass_time(0.001)


async def test_a_new_controller_that_cannot_reach_the_peer_gives_adopted_sas_up_in_the_end(
    paris: Gateway, tokyo: Gateway, wire: Wire
) -> None:
    await paris.up()
    await paris.kill_controller()
    wire.cut = True
    await paris.start_controller()

    await pass_time(60)
    kept = len(paris.backend.sad.sas)
    await pass_time(60)

    assert kept == 2
    assert not paris.backend.sad.sas
    assert len(paris.policies()) == 1


async def test_sas_of_connections_nobody_wants_any_more_are_removed_at_once(
    paris: Gateway, tokyo: Gateway
) -> None:
    await paris.up()
    await paris.kill_controller()
    paris.controller = paris.new_controller()

    await paris.controller.start([])
    await pass_time(2)

    assert not paris.backend.sad.sas
    assert not paris.policies()


async def test_an_orderly_stop_deletes_the_sas_and_keeps_the_protection(
    paris: Gateway, tokyo: Gateway
) -> None:
    await paris.up()

    await paris.controller.stop()
    await pass_time(10)

    assert not paris.backend.sad.sas
    assert len(paris.policies()) == 1
    assert not tokyo.backend.sad.sas


# --- events of the datapath ---------------------------------------------------------------------


async def test_a_soft_limit_at_the_datapath_rekeys(paris: Gateway, tokyo: Gateway) -> None:
    await paris.up()
    old = paris.outbound()
    sa = paris.backend.sad.outbound("paris-tokyo", "lan")
    assert sa is not None

    paris.backend.emit(SoftExpire(sa_id=sa.sa_id, spi=sa.spi, limit="bytes"))
    await pass_time(1)

    assert can_talk(paris, tokyo)
    assert paris.outbound() != old


async def test_a_soft_limit_concerns_the_sa_it_names_not_another_one_with_its_spi(
    paris: Gateway, tokyo: Gateway
) -> None:
    # A peer chooses the SPI of what we send it; another peer must not be able to take its rekeys away.
    await paris.up()
    old = paris.outbound()
    sa = paris.backend.sad.outbound("paris-tokyo", "lan")
    assert sa is not None
    elsewhere = SaId(f"{sa.sa_id}-of-another-peer")

    paris.backend.emit(SoftExpire(sa_id=elsewhere, spi=sa.spi, limit="bytes"))
    await pass_time(1)
    assert paris.outbound() == old

    paris.backend.emit(SoftExpire(sa_id=sa.sa_id, spi=Spi(0x0BAD_5EED), limit="bytes"))
    await pass_time(1)
    assert paris.outbound() != old


async def test_unknown_spis_of_strangers_do_not_push_other_events_out_of_the_history(
    paris: Gateway, tokyo: Gateway
) -> None:
    for number in range(100):
        paris.backend.emit(BadSpi(spi=Spi(0x1000 + number), source=TOKYO, destination=PARIS))
    await paris.up()

    stream = paris.controller.watch(0)
    kept = [await anext(stream) for _ in range(8)]
    assert any(isinstance(item.event, IkeSaEstablished) for item in kept)
    assert sum(isinstance(item.event, BadSpi) for item in kept) <= 1
    await stream.aclose()  # type: ignore[attr-defined]


async def test_a_hard_limit_at_the_datapath_ends_the_child_sa_at_both_ends(
    paris: Gateway, tokyo: Gateway
) -> None:
    await paris.up()
    sa = paris.backend.sad.outbound("paris-tokyo", "lan")
    assert sa is not None

    paris.backend.emit(HardExpire(sa_id=sa.sa_id, spi=sa.spi, limit="packets"))
    await pass_time(10)

    assert not paris.backend.sad.sas
    assert not tokyo.backend.sad.sas


# --- configuration ------------------------------------------------------------------------------


async def test_applying_the_same_again_leaves_everything_alone(paris: Gateway, tokyo: Gateway) -> None:
    await paris.up()
    before = dict(paris.backend.sad.sas)

    (result,) = await paris.controller.apply(
        [WantedConnection(connection=paris.connection(), psk=Secret(paris.psk))]
    )
    await pass_time(5)

    assert result.applied is Applied.UNCHANGED
    assert paris.backend.sad.sas == before


async def test_a_connection_that_is_refused_in_part_keeps_the_protection_it_had(
    paris: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    (before,) = paris.policies()
    connection = paris.connection()
    (lan,) = connection.children
    moved = replace(lan, remote_ts=(TrafficSelector.parse("10.77.0.0/16"),))
    dmz = replace(lan, name="dmz", remote_ts=(TrafficSelector.parse("10.88.0.0/16"),))
    apply = paris.backend.sad.apply_policy

    def refuse_dmz(policy: Policy, generation: int) -> ItemResult:
        if policy.child == "dmz":
            return ItemResult(name=policy.name, error=DatapathError(ErrorReason.ADDRESS_FAMILY, "no"))
        return apply(policy, generation)

    monkeypatch.setattr(paris.backend.sad, "apply_policy", refuse_dmz)
    (result,) = await paris.controller.apply(
        [WantedConnection(connection=replace(connection, children=(moved, dmz)), psk=Secret(b"x"))]
    )

    assert result.error is not None
    assert result.error.reason is ControlErrorReason.DATAPATH_REFUSED
    # The configuration is as it was, and so must be what is protected.
    assert paris.policies() == [before]
    assert (await paris.controller.status()).warnings == ()


async def test_a_connection_without_a_key_is_refused_and_validation_changes_nothing(paris: Gateway) -> None:
    stranger = WantedConnection(connection=Gateway(Wire(), is_paris=True).connection())
    renamed = WantedConnection(connection=replace(stranger.connection, name="other"))

    (kept,) = await paris.controller.apply([stranger], validate_only=True)
    (refused,) = await paris.controller.apply([renamed])

    assert kept.applied is Applied.UNCHANGED
    assert refused.error is not None
    assert refused.error.reason is ControlErrorReason.NO_PSK
    assert [status.connection.name for status in paris.controller.connections()] == ["paris-tokyo"]


async def test_two_connections_that_protect_the_same_packets_conflict(paris: Gateway) -> None:
    twin = WantedConnection(connection=replace(paris.connection(), name="zwilling"), psk=Secret(b"x"))

    (result,) = await paris.controller.apply([twin])

    assert result.error is not None
    assert result.error.reason is ControlErrorReason.CONFLICT
    assert "paris-tokyo/lan" in str(result.error)


async def test_deleting_a_connection_ends_its_sas_and_its_protection(paris: Gateway, tokyo: Gateway) -> None:
    await paris.up()

    results = await paris.controller.delete(["paris-tokyo", "never-was"])
    await pass_time(10)

    assert [result.applied for result in results] == [Applied.DELETED, Applied.UNCHANGED]
    assert paris.controller.connections() == ()
    assert not paris.policies()
    assert not paris.backend.sad.sas
    assert not tokyo.backend.sad.sas


async def test_prune_deletes_what_is_not_named(paris: Gateway) -> None:
    results = await paris.controller.apply([], prune=True)

    assert [(result.name, result.applied) for result in results] == [("paris-tokyo", Applied.DELETED)]


# --- watching -----------------------------------------------------------------------------------


async def test_a_watcher_sees_what_happens_in_order_without_gaps(paris: Gateway, tokyo: Gateway) -> None:
    stream = paris.controller.watch()
    await paris.up()
    await paris.controller.rekey(Target(connection="paris-tokyo", child="lan"))
    await pass_time(1)
    await paris.kill_agent()
    await pass_time(1)

    seen = []
    while True:
        try:
            async with asyncio.timeout(0.1):
                seen.append(await anext(stream))
        except TimeoutError:
            break

    kinds = [type(event.event) for event in seen]
    for earlier, later in (
        (IkeSaEstablished, ChildSaEstablished),
        (ChildSaEstablished, ChildSaRekeyed),
        (ChildSaRekeyed, DatapathAvailability),
    ):
        assert kinds.index(earlier) < len(kinds) - 1 - kinds[::-1].index(later)
    assert [event.sequence for event in seen] == list(range(seen[0].sequence, seen[0].sequence + len(seen)))
    await paris.start_agent()


async def test_status_says_what_is_wrong_with_the_datapath(paris: Gateway) -> None:
    await pass_time(1)
    good = await paris.controller.status()
    await paris.kill_agent()
    await pass_time(1)
    bad = await paris.controller.status()
    await paris.start_agent()

    assert good.datapath is not None
    assert bad.datapath is None
    assert bad.datapath_problem
