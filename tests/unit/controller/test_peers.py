"""Where peers are, what follows their loss, and their being authenticated anew: whole controllers."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest

from gateway.controller.connections import Connections
from gateway.controller.facade import ConnectionState, OperationState, Target, WantedConnection
from gateway.controller.whereabouts import NowhereToGo, Whereabouts
from gateway.datapath.backend import Acquire, BadSpi
from gateway.ike.events import FailureReason, IkeSaEstablished
from gateway.ipsec.connection import Childless, Connection, LossAction, Side, Start, Unique
from gateway.ipsec.sa import IpAddress, Spi
from tests.fakes.virtual_loop import pass_time
from tests.unit.controller.gateways import PARIS, TOKYO, Gateway, Wire, can_talk

NOBODY, NOBODY_EITHER = IPv4Address("192.0.2.77"), IPv4Address("192.0.2.78")
Begin = Callable[..., Awaitable[Gateway]]


@pytest.fixture
async def begin() -> AsyncIterator[Begin]:
    """Start gateways of one wire, with changes to their connection; stop them at the end."""
    wire = Wire()
    started: list[Gateway] = []

    async def start(**changes: Any) -> Gateway:
        names = changes.pop("names", {})
        gateway = Gateway(wire, **changes)
        gateway.names = names
        started.append(gateway)
        await gateway.start()
        await pass_time(0.1)
        return gateway

    yield start
    for gateway in started:
        await gateway.controller.stop()
        await gateway.agent.close()


def established(gateway: Gateway) -> int:
    return sum(isinstance(e.event, IkeSaEstablished) for e in gateway.controller._history._events)


async def lose_peer(tokyo: Gateway) -> None:
    """Let the peer die without a word."""
    await tokyo.kill_controller()
    await tokyo.agent.close()


# --- several addresses ----------------------------------------------------------------------------


async def test_the_next_address_is_tried_at_once_when_one_fails(begin: Begin) -> None:
    paris = await begin(is_paris=True, remote={"addresses": (NOBODY, NOBODY_EITHER, TOKYO)})
    await begin(is_paris=False)

    operation = await paris.up()

    assert operation.state is OperationState.SUCCEEDED
    tried = list(dict.fromkeys(path.remote for path, _ in paris.wire.sent if path.local == PARIS))
    assert tried == [NOBODY, NOBODY_EITHER, TOKYO]
    assert paris.controller.ike_sas()[0].path.remote == TOKYO


async def test_only_the_end_of_a_round_is_a_failure(begin: Begin) -> None:
    paris = await begin(is_paris=True, remote={"addresses": (NOBODY, NOBODY_EITHER)}, start=Start.START)
    await pass_time(40)

    (status,) = paris.controller.connections()
    assert status.state is ConnectionState.CONNECTING
    await pass_time(20)

    assert {p.remote for p, _ in paris.wire.sent} == {NOBODY, NOBODY_EITHER}
    facts = await paris.controller.explain("paris-tokyo")
    assert paris.controller.connections()[0].last_failure is not None
    assert facts


async def test_after_a_success_the_first_address_is_the_first_again(begin: Begin) -> None:
    paris = await begin(is_paris=True, remote={"addresses": (NOBODY, TOKYO)})
    await begin(is_paris=False)
    await paris.up()
    await paris.controller.terminate(Target(connection="paris-tokyo"))
    await pass_time(10)
    del paris.wire.sent[:]

    operation = await paris.up()

    assert operation.state is OperationState.SUCCEEDED
    assert paris.wire.sent[0][0].remote == NOBODY


# --- names ------------------------------------------------------------------------------------------


async def test_a_name_is_resolved_and_its_addresses_tried_in_order(begin: Begin) -> None:
    names = {"gw-tokyo.example": [NOBODY, TOKYO]}
    paris = await begin(is_paris=True, remote={"addresses": (), "names": ("gw-tokyo.example",)}, names=names)
    await begin(is_paris=False)

    operation = await paris.up()

    assert operation.state is OperationState.SUCCEEDED
    assert paris.asked == ["gw-tokyo.example"]
    assert paris.controller.ike_sas()[0].path.remote == TOKYO
    facts = [fact.text for fact in await paris.controller.explain("paris-tokyo")]
    assert f"gw-tokyo.example is {NOBODY}, {TOKYO}" in facts


async def test_a_name_is_resolved_anew_in_each_round(begin: Begin) -> None:
    names = {"gw-tokyo.example": [NOBODY]}
    remote = {"addresses": (), "names": ("gw-tokyo.example",)}
    paris = await begin(is_paris=True, remote=remote, names=names, start=Start.START)
    await begin(is_paris=False)
    await pass_time(10)

    paris.names["gw-tokyo.example"] = [TOKYO]
    await pass_time(60)

    assert paris.controller.connections()[0].state is ConnectionState.UP
    assert len(paris.asked) == 2


async def test_a_name_that_leads_nowhere_fails_with_the_reason_and_is_tried_again(begin: Begin) -> None:
    remote = {"addresses": (), "names": ("gw-tokyo.example",)}
    paris = await begin(is_paris=True, remote=remote)
    await begin(is_paris=False)

    operation = await paris.up()

    assert operation.failure is not None
    assert operation.failure.reason is FailureReason.NAME_NOT_RESOLVED
    assert "gw-tokyo.example" in operation.failure.detail
    facts = await paris.controller.explain("paris-tokyo")
    assert any("resolve names" in fact.advice for fact in facts)
    paris.names["gw-tokyo.example"] = [TOKYO]
    assert (await paris.up()).state is OperationState.SUCCEEDED


async def test_with_a_name_we_respond_to_a_peer_from_anywhere_whose_identity_fits(begin: Begin) -> None:
    remote = {"addresses": (), "names": ("gw-tokyo.example",)}
    paris = await begin(is_paris=True, remote=remote)
    tokyo = await begin(is_paris=False)

    operation = await tokyo.up()

    assert operation.state is OperationState.SUCCEEDED
    assert paris.asked == []


# --- from where -------------------------------------------------------------------------------------

TWO = (IPv4Address("192.0.2.1"), IPv4Address("192.0.2.9"), IPv6Address("2001:db8::1"))


def whereabouts(kernel: IpAddress | None) -> Whereabouts:
    return Whereabouts(lambda remote: kernel)


def local_side(*addresses: IpAddress) -> Connection:
    return Connection(name="c", local=Side(addresses=addresses), remote=Side(addresses=(TOKYO,)))


@pytest.mark.parametrize(
    ("configured", "kernel", "remote", "expected"),
    [
        ((), TWO[1], TOKYO, TWO[1]),
        ((), None, TOKYO, None),
        (TWO, TWO[1], TOKYO, TWO[1]),
        (TWO, NOBODY, TOKYO, TWO[0]),
        (TWO, None, TOKYO, TWO[0]),
        (TWO, None, IPv6Address("2001:db8::2"), TWO[2]),
        (TWO[:2], None, IPv6Address("2001:db8::2"), None),
    ],
)
def test_of_our_addresses_the_kernels_choice_is_used_where_it_is_configured(
    configured: tuple[IpAddress, ...], kernel: IpAddress | None, remote: IpAddress, expected: IpAddress | None
) -> None:
    assert whereabouts(kernel).source_for(local_side(*configured), remote) == expected


def test_without_a_route_there_is_nowhere_to_go() -> None:
    with pytest.raises(NowhereToGo, match=r"no route to 192\.0\.2\.2"):
        whereabouts(None).next_way(local_side())


async def test_a_policy_follows_an_address_of_ours_that_changed(begin: Begin) -> None:
    # Host to host: the local selector is whatever address the kernel chooses.
    paris = await begin(is_paris=True, child={"local_ts": (), "remote_ts": ()})
    before = paris.policies()[0].local_ts

    connection = replace(paris.connection(), local=Side(id=paris.connection().local.id))
    addresses = [PARIS]
    paris.controller._protection._source_address = lambda remote: addresses[0]
    paris.controller._connections._whereabouts._source_address = lambda remote: addresses[0]
    await paris.controller.apply([WantedConnection(connection=connection)])
    addresses[0] = NOBODY
    await paris.controller.initiate(Target(connection="paris-tokyo"))
    await pass_time(1)

    (policy,) = paris.policies()
    assert before[0].start == PARIS
    assert policy.local_ts[0].start == NOBODY
    assert paris.wire.sent[-1][0].local == NOBODY


# --- losing a Child SA ------------------------------------------------------------------------------

LOSSES = [
    (Start.NONE, None, "nothing"),
    (Start.NONE, LossAction.RESTART, "restart"),
    (Start.NONE, LossAction.TRAP, "trap"),
    (Start.START, None, "restart"),
    (Start.START, LossAction.CLEAR, "nothing"),
    (Start.START, LossAction.TRAP, "trap"),
    (Start.ON_TRAFFIC, None, "trap"),
    (Start.ON_TRAFFIC, LossAction.CLEAR, "nothing"),
    (Start.ON_TRAFFIC, LossAction.RESTART, "restart"),
]


async def what_happens(paris: Gateway) -> str:
    """Say what brings the Child SA up again."""
    await pass_time(30)
    if paris.outbound() is not None:
        return "restart"
    paris.backend.emit(
        Acquire(
            policy="paris-tokyo/lan",
            source=IPv4Address("10.1.0.1"),
            destination=IPv4Address("10.2.0.1"),
            protocol=17,
        )
    )
    await pass_time(30)
    return "nothing" if paris.outbound() is None else "trap"


@pytest.mark.parametrize(("start", "action", "expected"), LOSSES)
async def test_what_the_peer_deletes_follows_close_action(
    begin: Begin, start: Start, action: LossAction | None, expected: str
) -> None:
    paris = await begin(is_paris=True, start=start, child={"close_action": action})
    tokyo = await begin(is_paris=False)
    await paris.up()
    await pass_time(15)

    await tokyo.controller.terminate(Target(connection="paris-tokyo", child="lan"))

    assert await what_happens(paris) == expected


@pytest.mark.parametrize(("start", "action", "expected"), LOSSES)
async def test_a_dead_peer_follows_dpd_action(
    begin: Begin, start: Start, action: LossAction | None, expected: str
) -> None:
    paris = await begin(is_paris=True, start=start, child={"dpd_action": action})
    tokyo = await begin(is_paris=False)
    await paris.up()
    await lose_peer(tokyo)
    while paris.outbound() is not None:
        await pass_time(1)
    tokyo.lives += 1
    await tokyo.start()

    happened = await what_happens(paris) if expected != "restart" else "restart"
    await pass_time(120)

    assert happened == expected
    assert (paris.outbound() is not None) is (expected != "nothing")


async def test_what_the_operator_took_down_is_not_brought_up_by_its_loss(begin: Begin) -> None:
    paris = await begin(is_paris=True, start=Start.START)
    tokyo = await begin(is_paris=False)
    await pass_time(5)
    await paris.controller.terminate(Target(connection="paris-tokyo"))
    await pass_time(5)
    await tokyo.up()

    await tokyo.controller.terminate(Target(connection="paris-tokyo"))
    await pass_time(60)

    assert paris.outbound() is None


# --- childless --------------------------------------------------------------------------------------


async def test_a_connection_without_children_is_an_ike_sa_alone(begin: Begin) -> None:
    force = {"childless": Childless.FORCE}
    paris = await begin(is_paris=True, children=(), ike=force)
    await begin(is_paris=False, children=(), ike=force)

    operation = await paris.up()

    assert operation.state is OperationState.SUCCEEDED
    (status,) = paris.controller.connections()
    assert (status.state, len(status.ike_sas), status.child_sas) == (ConnectionState.UP, 1, ())
    again = await paris.controller.initiate(Target(connection="paris-tokyo"))
    assert again.state is OperationState.SUCCEEDED
    await paris.controller.terminate(Target(connection="paris-tokyo"))
    await pass_time(5)
    assert not paris.controller.ike_sas()


# --- authenticating anew ------------------------------------------------------------------------------


async def test_the_operator_has_a_peer_authenticated_anew(begin: Begin) -> None:
    paris = await begin(is_paris=True)
    tokyo = await begin(is_paris=False)
    await paris.up()
    old = paris.controller.ike_sas()[0]

    begun = await paris.controller.rekey(Target(connection="paris-tokyo"), reauthenticate=True)
    operation = await paris.controller.operation(begun.operation_id, wait_s=60)
    await pass_time(10)

    assert operation.state is OperationState.SUCCEEDED
    (new,) = paris.controller.ike_sas()
    assert new.spi_i != old.spi_i
    assert can_talk(paris, tokyo)
    assert len(paris.backend.sad.sas) == len(tokyo.backend.sad.sas) == 2


async def test_a_credential_that_changed_is_asked_for_by_reauthentication_and_not_before(
    begin: Begin,
) -> None:
    paris = await begin(is_paris=True)
    tokyo = await begin(is_paris=False)
    await paris.up()
    tokyo.controller._credentials._psks["paris-tokyo"] = paris.controller._credentials._psks[
        "paris-tokyo"
    ].__class__(b"another key")

    await paris.controller.rekey(Target(connection="paris-tokyo"))
    await pass_time(5)
    assert can_talk(paris, tokyo)
    begun = await paris.controller.rekey(Target(connection="paris-tokyo"), reauthenticate=True)
    operation = await paris.controller.operation(begun.operation_id, wait_s=60)

    assert operation.failure is not None
    assert operation.failure.reason is FailureReason.AUTHENTICATION_FAILED
    assert can_talk(paris, tokyo)


async def test_in_time_it_happens_by_itself_where_the_name_leads_now(begin: Begin) -> None:
    remote = {"addresses": (), "names": ("gw-tokyo.example",)}
    ike = {"reauth_s": 600.0, "over_s": 100.0}
    names = {"gw-tokyo.example": [TOKYO]}
    paris = await begin(is_paris=True, remote=remote, ike=ike, names=names)
    tokyo = await begin(is_paris=False, ike=ike)
    await paris.up()
    facts = [fact.text for fact in await paris.controller.explain("paris-tokyo")]
    assert any("to be authenticated anew in 5" in fact for fact in facts)

    await pass_time(650)

    assert established(paris) == 2
    assert paris.asked == ["gw-tokyo.example", "gw-tokyo.example"]
    assert can_talk(paris, tokyo)
    assert len(paris.controller.ike_sas()) == len(tokyo.controller.ike_sas()) == 1


# --- the rest -----------------------------------------------------------------------------------------


async def test_the_first_attempts_of_many_are_spread() -> None:
    loop = asyncio.get_running_loop()
    attempts: list[float] = []

    def command(act: Callable[[Any, float], Any], /) -> Any:
        return act(_NothingIsUp(attempts, loop.time), loop.time())

    connections = Connections(
        command=command,
        clock=loop.time,
        rng=random.Random(7),
        whereabouts=Whereabouts(lambda remote: PARIS),
        before_attempt=lambda connection: None,
        refused=lambda event: None,
    )
    one = Gateway(Wire(), is_paris=True, start=Start.START).connection()
    began = loop.time()
    connections.update([replace(one, name=f"c{number}") for number in range(400)], ())
    connections.begin()
    await pass_time(10)

    assert len(attempts) == 400
    after = sorted(moment - began for moment in attempts)
    assert 3.0 < after[-1] <= 4.0
    assert after[200] > 1.0
    connections.stop()


class _NothingIsUp:
    """A core in which attempts begin and never come to anything."""

    def __init__(self, attempts: list[float], clock: Callable[[], float]) -> None:
        self._attempts, self._clock = attempts, clock

    def is_carried(self, connection: str, child: str) -> bool:
        return False

    def has_ike_sa(self, connection: str) -> bool:
        return False

    def initiate(self, *args: object, **kwargs: object) -> None:
        self._attempts.append(self._clock())


async def test_esp_with_an_unknown_spi_is_reported_to_its_peer(begin: Begin) -> None:
    paris = await begin(is_paris=True)
    await begin(is_paris=False)
    await paris.up()
    await pass_time(1)
    del paris.wire.sent[:]

    paris.backend.emit(BadSpi(spi=Spi(0xDEAD0001), source=TOKYO, destination=PARIS))
    paris.backend.emit(BadSpi(spi=Spi(0xDEAD0002), source=NOBODY, destination=PARIS))
    await pass_time(1)

    assert [path.remote for path, _ in paris.wire.sent if path.local == PARIS] == [TOKYO]


@pytest.mark.parametrize(("unique", "left"), [(Unique.REPLACE, 1), (Unique.ALLOW, 2), (Unique.NEVER, 2)])
async def test_only_where_the_operator_wants_it_the_newest_ike_sa_takes_the_place_of_the_others(
    begin: Begin, unique: Unique, left: int
) -> None:
    paris = await begin(is_paris=True, ike={"unique": unique, "dpd_delay_s": 0.0})
    tokyo = await begin(is_paris=False)
    await tokyo.up()
    await tokyo.kill_controller()
    # It adopts its SAs, so that it says no INITIAL_CONTACT.
    await tokyo.start_controller()
    await pass_time(60)

    assert len([sa for sa in paris.controller.ike_sas() if sa.state == "established"]) == left
