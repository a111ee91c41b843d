"""Wanted against actual: which Child SAs should be up, and when the next attempt is due.

One entry per configured PROTECT child, or one for the IKE SA alone where a connection has none. The rules:

- `start`: wanted from the beginning, and again whenever it is lost, until the operator says `down`.
- `on_traffic`: wanted when a packet asks (an acquire); after a failure the next packet has to wait for
  the back-off like everybody else, and then one attempt serves them all.
- `none`: only when the operator asks, once.
- What is lost is brought up again, or waits for a packet, or is left alone, as `dpd_action` and
  `close_action` say (`Child.on_loss`).
- An attempt goes to one address of the peer after the other (`gateway.controller.whereabouts`); with the
  last one it has failed. It is repeated after 1, 2, 4, ... seconds up to a minute, with jitter, so that a
  thousand tunnels do not come back in step; their first attempts are spread for the same reason.
- An IKE SA that a newer one with the same peer supersedes goes (`gateway.controller.uniqueness`).
- No attempt is made while there is no datapath: nothing could be installed.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator
from dataclasses import dataclass

from gateway.controller.driver import Command
from gateway.controller.uniqueness import SETTLE_S, is_serving, superseded_ike_sas
from gateway.controller.whereabouts import NowhereToGo, Whereabouts
from gateway.ike.errors import LocalError
from gateway.ike.events import (
    ChildSaDeleted,
    ChildSaEstablished,
    ChildSaFailed,
    ChildSaInfo,
    Event,
    Failure,
    FailureReason,
    IkeSaDeleted,
    IkeSaEstablished,
    IkeSaFailed,
    IkeSaId,
    IkeSaInfo,
    ReauthenticationDue,
)
from gateway.ike.v2.change import Effect, change_of
from gateway.ipsec.connection import Child, Connection, LossAction, Start, Unique
from gateway.ipsec.policy import Action
from gateway.ipsec.sa import IpAddress
from gateway.observe.logs import get_logger

_log = get_logger(__name__)

ChildKey = tuple[str, str]
"""(connection, child)"""

#: How often two IKE SAs with one peer are looked at while both are there.
_LOOK_AGAIN_S = 2.0

#: Ends that the other side or the operator wanted: nothing is repeated because of them.
_WANTED_ENDS = frozenset({FailureReason.DELETED_BY_OPERATOR, FailureReason.REPLACED})


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryTiming:
    """The back-off between attempts, in seconds."""

    first_s: float = 1.0
    factor: float = 2.0
    cap_s: float = 60.0
    jitter: float = 0.25
    """Each wait is lengthened or shortened by a random part of this fraction."""
    next_address_s: float = 0.2
    """Wait at most this long before the next address of the peer is tried."""
    spread_each_s: float = 0.01
    """The first attempts of many are spread over this much each, in all at most `spread_cap_s`."""
    spread_cap_s: float = 10.0


@dataclass(slots=True)
class _Entry:
    """What is known about one wanted Child SA."""

    start: Start
    initiates: bool
    """Whether it is known where to initiate to."""
    wanted: bool = False
    """Whether a failure, or losing it, means trying again."""
    armed: bool = False
    """Whether a packet brings it up."""
    held_down: bool = False
    """The operator wanted it down: losing it again means nothing."""
    is_new: bool = True
    """It was not attempted yet."""
    attempting: bool = False
    failures: int = 0
    blocked_until: float = 0.0
    asked: bool = False
    """A packet, the operator or the start mode waits for the next attempt."""
    timer: asyncio.TimerHandle | None = None


def _wanted_children(connection: Connection) -> list[tuple[str, Start]]:
    """Return the children to protect, or "" for the IKE SA alone where there are none."""
    protected = [(c.name, c.start) for c in connection.children if c.action is Action.PROTECT]
    return protected or [("", Start.NONE)]


class Connections:
    """Brings Child SAs up, keeps up what should be up, and ends what is superseded.

    Args:
        command: Runs a command at the core and drains it (`Driver.command`).
        clock: Monotonic seconds, the core's.
        rng: For the jitter.
        whereabouts: Where the peers are.
        before_attempt: Is told of each connection that is about to be attempted.
        refused: Takes the failure of an attempt that the core would not even begin.
        touched: Told of each connection whose attempts begin or end.
        timing: The back-off.
    """

    def __init__(
        self,
        *,
        command: Command,
        clock: Callable[[], float],
        rng: random.Random,
        whereabouts: Whereabouts,
        before_attempt: Callable[[Connection], None],
        refused: Callable[[ChildSaFailed], None],
        touched: Callable[[str], None] = lambda _: None,
        timing: RetryTiming = RetryTiming(),
    ) -> None:
        self._command = command
        self._clock = clock
        self._rng = rng
        self._whereabouts = whereabouts
        self._before_attempt = before_attempt
        self._refused = refused
        self._touched = touched
        self._timing = timing
        self._connections: dict[str, Connection] = {}
        self._entries: dict[ChildKey, _Entry] = {}
        #: The keys of the entries, by connection.
        self._children: dict[str, list[ChildKey]] = {}
        self._running = False
        self._failures: dict[str, tuple[Failure, float]] = {}
        self._superseded_timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # --- configuration and commands -------------------------------------------------------------

    def update(self, changed: Iterable[Connection], removed: Iterable[str]) -> None:
        """Take new and changed connections and forget others; call it after the core's own `update`.

        A child that is brought up as before keeps its history; another one starts afresh.
        """
        for name in tuple(removed):
            self._forget_connection(name)
            self._failures.pop(name, None)
            del self._children[name], self._connections[name]
        for connection in changed:
            before = self._connections.get(connection.name)
            kept = {} if before is None else self._kept_entries(before, connection)
            self._forget_connection(connection.name, keep=kept)
            self._connections[connection.name] = connection
            for name, start in _wanted_children(connection):
                if name in kept:
                    continue
                entry = _Entry(start=start, initiates=connection.remote.is_known)
                entry.wanted = start is Start.START and entry.initiates
                entry.armed = start is Start.ON_TRAFFIC
                key = (connection.name, name)
                self._entries[key] = entry
                self._children[connection.name].append(key)
                entry.asked = entry.wanted

    def _kept_entries(self, before: Connection, connection: Connection) -> Collection[str]:
        change = change_of(before, connection)
        if change.ike is Effect.RESTART:
            return ()
        wanted = dict(_wanted_children(connection))
        return {
            name
            for name, start in _wanted_children(before)
            if wanted.get(name) is start and change.of_child(name) < Effect.RESTART
        }

    def _forget_connection(self, name: str, *, keep: Collection[str] = ()) -> None:
        kept = []
        for key in self._children.get(name, ()):
            if key[1] in keep:
                kept.append(key)
            else:
                self._cancel_timer(self._entries.pop(key))
        if not keep:
            self._whereabouts.forget(name)
        self._children[name] = kept

    def begin(self) -> None:
        """The datapath is ready: make the attempts that wait."""
        self._running = True
        self._begin(self._entries.items())

    def begin_for(self, connections: Iterable[str]) -> None:
        """Make the attempts that wait for these connections, while the datapath is ready."""
        self._begin([item for name in connections for item in self._entries_of(name)])

    def _begin(self, entries: Iterable[tuple[ChildKey, _Entry]]) -> None:
        due = [(k, e) for k, e in entries if e.asked or (e.wanted and not self.is_up(k))]
        new = sum(entry.is_new for _, entry in due)
        spread_s = min(self._timing.spread_cap_s, self._timing.spread_each_s * max(0, new - 1))
        for key, entry in due:
            if entry.is_new and spread_s > 0 and entry.timer is None:
                entry.blocked_until = self._clock() + self._rng.uniform(0.0, spread_s)
            self._ask(key, entry)

    def pause(self) -> None:
        """The datapath is gone: make no attempts until `begin`."""
        self._running = False

    def stop(self) -> None:
        """Make no attempt any more."""
        self.pause()
        for entry in self._entries.values():
            self._cancel_timer(entry)
        for task in self._tasks:
            task.cancel()
        if self._superseded_timer is not None:
            self._superseded_timer.cancel()
            self._superseded_timer = None

    def up(self, key: ChildKey) -> None:
        """The operator wants this child up, now: the back-off is forgotten."""
        entry = self._entries[key]
        entry.wanted = entry.start is Start.START
        entry.armed = entry.start is Start.ON_TRAFFIC
        entry.held_down = False
        entry.failures = 0
        entry.blocked_until = 0.0
        if not self.is_attempting(key[0]):
            self._whereabouts.forget(key[0])
        self._ask(key, entry)

    def down(self, key: ChildKey) -> None:
        """The operator wants this child down: it is not brought up again until asked for."""
        entry = self._entries.get(key)
        if entry is not None:
            entry.wanted = False
            entry.held_down = True
            entry.asked = False
            entry.attempting = False
            self._cancel_timer(entry)
            self._touched(key[0])

    def revive(self, key: ChildKey) -> None:
        """A Child SA was lost without anybody wanting it: bring it up again, whatever its start mode."""
        entry = self._entries.get(key)
        if entry is not None and entry.initiates:
            self._ask(key, entry)

    def acquire(self, key: ChildKey) -> None:
        """A packet needs this child."""
        entry = self._entries.get(key)
        if entry is None or not entry.armed:
            return
        if not entry.initiates:
            _log.debug("acquire_without_remote_address", connection=key[0], child=key[1])
            return
        if not entry.attempting and not self.is_up(key):
            self._ask(key, entry)

    def reauthenticate(
        self, ike_sa: IkeSaInfo, on_failure: Callable[[Failure], object] = lambda _: None
    ) -> None:
        """Begin to authenticate a peer anew, where it is now; tell `on_failure` if that cannot even begin."""
        self._spawn(self._reauthenticate(ike_sa, on_failure), f"reauthenticate-{ike_sa.ike_sa_id}")

    # --- getters --------------------------------------------------------------------------------

    def is_trying_on(self, connection: str) -> bool:
        """Say whether another address of the peer is tried after one that failed: nothing is final yet."""
        return self._whereabouts.has_more(connection) and any(
            entry.asked and not entry.attempting for _, entry in self._entries_of(connection)
        )

    def child(self, key: ChildKey) -> Child | None:
        """Return the configuration of one child."""
        connection = self._connections.get(key[0])
        if connection is None:
            return None
        return next((child for child in connection.children if child.name == key[1]), None)

    def _entries_of(self, connection: str) -> Iterator[tuple[ChildKey, _Entry]]:
        return ((key, self._entries[key]) for key in self._children.get(connection, ()))

    def wanted_up(self, connection: str) -> tuple[ChildKey, ...]:
        """Return the children of a connection that are to be up now, whether they are or not."""
        return tuple(key for key, entry in self._entries_of(connection) if entry.wanted)

    def is_attempting(self, connection: str) -> bool:
        """Say whether an attempt for any child of the connection is under way."""
        return any(entry.attempting for _, entry in self._entries_of(connection))

    def has_failed(self, connection: str) -> bool:
        """Say whether the last attempt for any child of the connection failed."""
        return any(entry.failures > 0 for _, entry in self._entries_of(connection))

    def next_attempt_in_s(self, connection: str) -> float | None:
        """Return in how many seconds the next attempt is due; None if none is planned."""
        due = [
            entry.timer.when() - asyncio.get_running_loop().time()
            for _, entry in self._entries_of(connection)
            if entry.timer is not None
        ]
        return max(0.0, min(due)) if due else None

    def resolved(self, name: str) -> tuple[IpAddress, ...]:
        """Return the addresses that a host name had last."""
        return self._whereabouts.resolved(name)

    def last_failure(self, connection: str) -> tuple[Failure, float] | None:
        """Return the last failure of a connection and when it was; success does not erase it."""
        return self._failures.get(connection)

    # --- events of the core -----------------------------------------------------------------------

    def on_event(self, event: Event) -> None:
        """Take note of what the core says; attempts follow from it."""
        match event:
            case ChildSaEstablished(child_sa=ChildSaInfo(cpu=int())) | ChildSaFailed(cpu=int()):
                # Beside the one for all, which alone is wanted here (RFC 9611); the core sees to them.
                pass
            case ChildSaEstablished(child_sa=child_sa):
                self._succeeded((child_sa.connection, child_sa.child))
            case IkeSaEstablished(ike_sa=ike_sa):
                if ike_sa.is_initiator:
                    self._whereabouts.forget(ike_sa.connection)
                self._succeeded((ike_sa.connection, ""))
                self._look_for_superseded(SETTLE_S)
            case ReauthenticationDue(ike_sa=ike_sa):
                self.reauthenticate(ike_sa)
            case ChildSaFailed(connection=connection, child=child, failure=failure, replaces=None):
                self._note_failure(connection, failure)
                self._failed((connection, child), failure)
            case ChildSaFailed(connection=connection, failure=failure):
                self._note_failure(connection, failure)
            case IkeSaFailed(ike_sa=ike_sa, failure=failure):
                self._note_failure(ike_sa.connection, failure)
                if ike_sa.is_initiator:
                    self._connection_failed(ike_sa.connection, failure)
            case IkeSaDeleted(ike_sa=ike_sa, failure=failure):
                if failure.reason not in _WANTED_ENDS:
                    self._note_failure(ike_sa.connection, failure)
                if not self._has_ike_sa(ike_sa.connection):
                    self._connection_failed(ike_sa.connection, failure)
            case ChildSaDeleted(child_sa=child_sa, failure=failure):
                self._ended(child_sa, failure)
            case _:
                pass

    def _succeeded(self, key: ChildKey) -> None:
        entry = self._entries.get(key)
        if entry is None:
            return
        entry.attempting = False
        entry.asked = False
        entry.failures = 0
        entry.blocked_until = 0.0
        self._cancel_timer(entry)

    def _failed(self, key: ChildKey, failure: Failure) -> None:
        entry = self._entries.get(key)
        if entry is None or not entry.attempting:
            return
        entry.attempting = False
        entry.failures += 1
        self._touched(key[0])
        entry.blocked_until = self._clock() + self._back_off(entry.failures)
        if entry.wanted and failure.reason is not FailureReason.DELETED_BY_OPERATOR:
            self._ask(key, entry)

    def _connection_failed(self, connection: str, failure: Failure) -> None:
        failed = [
            (key, entry)
            for key, entry in self._entries_of(connection)
            if entry.attempting and not self.is_up(key)
        ]
        if failed and self._running and self._whereabouts.has_more(connection):
            wait_s = self._rng.uniform(0.0, self._timing.next_address_s)
            for key, entry in failed:
                entry.attempting = False
                entry.blocked_until = self._clock() + wait_s
                self._ask(key, entry)
            return
        for key, _ in failed:
            self._failed(key, failure)

    def _ended(self, child_sa: ChildSaInfo, failure: Failure) -> None:
        key = (child_sa.connection, child_sa.child)
        entry, child = self._entries.get(key), self.child(key)
        if entry is None or child is None or entry.held_down:
            return
        if child_sa.cpu is not None or failure.reason in _WANTED_ENDS or self.is_up(key):
            return
        by_peer = failure.reason is FailureReason.DELETED_BY_PEER
        action = child.on_loss(by_peer=by_peer)
        entry.armed = action is LossAction.TRAP
        entry.wanted = action is LossAction.RESTART and entry.initiates
        if not entry.wanted:
            return
        if by_peer:
            # The peer had a reason; do not answer its delete with a new SA in the same instant.
            entry.blocked_until = self._clock() + self._back_off(1)
        self._ask(key, entry)

    def _note_failure(self, connection: str, failure: Failure) -> None:
        if connection in self._connections:
            self._failures[connection] = (failure, self._clock())

    # --- attempts ---------------------------------------------------------------------------------

    def _ask(self, key: ChildKey, entry: _Entry) -> None:
        """Have an attempt made, now or when the back-off is over."""
        entry.asked = True
        if entry.timer is not None:
            if entry.blocked_until > self._clock():
                return
            self._cancel_timer(entry)
        if not self._running or entry.attempting:
            return
        loop = asyncio.get_running_loop()
        wait = max(0.0, entry.blocked_until - self._clock())
        # Even without a wait not from here: we may be inside a handler of the event that caused it.
        entry.timer = loop.call_later(wait, self._attempt, key)

    def _attempt(self, key: ChildKey) -> None:
        entry = self._entries.get(key)
        if entry is None:
            return
        entry.timer = None
        if not self._running or not entry.asked or entry.attempting:
            return
        entry.asked = False
        entry.is_new = False
        if self.is_up(key):
            return
        entry.attempting = True
        self._touched(key[0])
        connection = self._connections[key[0]]
        if self._has_ike_sa(connection.name) or not self._whereabouts.needs_names(connection):
            self._begin_attempt(key, connection)
        else:
            self._spawn(self._resolve_and_attempt(key, connection), f"resolve-{connection.name}")

    async def _resolve_and_attempt(self, key: ChildKey, connection: Connection) -> None:
        try:
            await self._whereabouts.begin_round(connection)
        except NowhereToGo as error:
            self._refuse(key, FailureReason.NAME_NOT_RESOLVED, str(error))
            return
        entry = self._entries.get(key)
        if self._running and entry is not None and entry.attempting:
            self._begin_attempt(key, connection)
        elif entry is not None:
            entry.attempting = False

    def _begin_attempt(self, key: ChildKey, connection: Connection) -> None:
        self._before_attempt(connection)
        local = remote = None
        try:
            if not self._has_ike_sa(connection.name):
                way = self._whereabouts.next_way(connection)
                local, remote = way.local, way.remote
            self._command(
                lambda endpoint, now: endpoint.initiate(
                    key[0], key[1] or None, now, local=local, remote=remote
                )
            )
        except (LocalError, NowhereToGo) as error:
            self._refuse(key, FailureReason.INTERNAL, str(error))

    def _refuse(self, key: ChildKey, reason: FailureReason, detail: str) -> None:
        """Let an attempt fail that did not get as far as the core; it comes back through `on_event`."""
        failure = Failure(reason=reason, detail=detail)
        self._refused(ChildSaFailed(ike_sa_id=IkeSaId(0), connection=key[0], child=key[1], failure=failure))

    def _has_ike_sa(self, connection: str) -> bool:
        """Say whether the core has an IKE SA that a Child SA would be made in, or makes one."""
        return self._command(lambda endpoint, _now: endpoint.has_ike_sa(connection))

    async def _reauthenticate(self, ike_sa: IkeSaInfo, on_failure: Callable[[Failure], object]) -> None:
        connection = self._connections.get(ike_sa.connection)
        if connection is None:
            return
        try:
            way = await self._whereabouts.find_again(connection, ike_sa.path.remote)
            remote = ike_sa.path.remote if way is None else way.remote
            local = self._whereabouts.source_for(connection, remote)
            self._command(
                lambda endpoint, now: endpoint.reauthenticate(
                    ike_sa.ike_sa_id, now, local=local, remote=None if way is None else way.remote
                )
            )
        except (LocalError, NowhereToGo) as error:
            # The core says so again in a while, until the IKE SA ends.
            _log.warning("not_reauthenticated", connection=ike_sa.connection, error=str(error))
            on_failure(Failure(reason=FailureReason.INTERNAL, detail=str(error)))

    def _spawn(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _back_off(self, failures: int) -> float:
        timing = self._timing
        wait = min(timing.cap_s, timing.first_s * timing.factor ** min(failures - 1, 32))
        return wait * (1 + self._rng.uniform(-timing.jitter, timing.jitter))

    def is_up(self, key: ChildKey) -> bool:
        """Say whether a Child SA carries this child's traffic; of no child, whether there is an IKE SA."""
        return self._command(lambda endpoint, _now: endpoint.is_carried(*key))

    @staticmethod
    def _cancel_timer(entry: _Entry) -> None:
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None

    # --- IKE SAs of a peer's former life ----------------------------------------------------------

    def _look_for_superseded(self, delay_s: float) -> None:
        if self._superseded_timer is None:
            loop = asyncio.get_running_loop()
            self._superseded_timer = loop.call_later(delay_s, self._end_superseded)

    def _end_superseded(self) -> None:
        self._superseded_timer = None
        everything = self._command(lambda endpoint, _now: (endpoint.ike_sas(), endpoint.child_sas()))
        ike_sas, child_sas = everything
        ike_sas = tuple(sa for sa in ike_sas if self._may_be_one(sa.connection))
        superseded = superseded_ike_sas(ike_sas, child_sas, self._clock())
        for ike_sa_id in superseded:
            _log.info("ike_sa_superseded", ike_sa_id=ike_sa_id)
            self._end_ike_sa(ike_sa_id)
        left = [
            (sa.connection, sa.remote_id)
            for sa in ike_sas
            if is_serving(sa) and sa.ike_sa_id not in superseded
        ]
        if len(left) != len(set(left)):
            self._look_for_superseded(_LOOK_AGAIN_S)

    def _may_be_one(self, connection: str) -> bool:
        """Say whether the newest of several IKE SAs with one peer takes the place of the others."""
        configured = self._connections.get(connection)
        return configured is None or configured.ike.unique in (Unique.REPLACE, Unique.REJECT)

    def _end_ike_sa(self, ike_sa_id: IkeSaId) -> None:
        with contextlib.suppress(LocalError):
            self._command(lambda endpoint, now: endpoint.terminate_ike(ike_sa_id, now))
