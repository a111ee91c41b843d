"""The driving surface of the IKEv2 core: owns all IKE SAs and finds the one a datagram belongs to.

Four kinds of method and no fifth: getters; inputs (`receive`, `tick`, `resolve`, `note_traffic`, ...);
commands (`initiate`, `rekey_*`, `terminate_*`); drains (`datagrams`, `events`, `requests`,
`next_deadline`). After any input or command the caller drains everything. `now` is in seconds of a
monotonic clock and never goes back.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace

from gateway.ike.errors import InvalidSyntax, LocalError, PeerError
from gateway.ike.events import (
    ChildSaId,
    ChildSaInfo,
    Event,
    Failure,
    FailureReason,
    IkeSaId,
    IkeSaInfo,
    IkeSaKeys,
    Request,
    RequestId,
    Result,
)
from gateway.ike.path import IKE_PORT, Path
from gateway.ike.timers import Timer
from gateway.ike.v2.change import Change, Effect, change_of
from gateway.ike.v2.child_sa import ChildSa
from gateway.ike.v2.context import Context
from gateway.ike.v2.doorkeeper import MAX_FIRST_BYTES, Doorkeeper
from gateway.ike.v2.exchange import Plan, PlanKind
from gateway.ike.v2.hints import Hints
from gateway.ike.v2.ike_sa import IkeSa
from gateway.ike.v2.ike_sa_table import IkeSaTable
from gateway.ike.v2.nat import KEEPALIVE
from gateway.ike.v2.options import EndpointOptions
from gateway.ike.v2.proof import review
from gateway.ike.v2.reauthentication import new_path
from gateway.ike.v2.runner import Runner
from gateway.ike.v2.scheduler import Scheduler
from gateway.ike.v2.states import AUTHENTICATED_STATES, CARRYING_STATES, SERVING_STATES, IkeSaState
from gateway.ike.v2.uniqueness import Why
from gateway.ike.wire.first_request import is_first_request
from gateway.ike.wire.header import MAJOR_VERSION, IkeHeader, parse_header
from gateway.ike.wire.message import parse_message
from gateway.ipsec.connection import Child, Connection
from gateway.ipsec.policy import Action
from gateway.ipsec.sa import IpAddress, Spi

__all__ = ["Endpoint", "EndpointOptions"]

DEFAULT_OPTIONS = EndpointOptions()


class Endpoint:
    """One IKEv2 endpoint: any number of connections, in both roles."""

    __slots__ = ("_connections", "_context", "_door", "_hints", "_ike_sas", "_runner", "_scheduler")

    def __init__(
        self,
        *,
        entropy: Callable[[int], bytes],
        connections: Iterable[Connection] = (),
        options: EndpointOptions = DEFAULT_OPTIONS,
    ) -> None:
        self._context = Context(entropy, options)
        self._ike_sas = IkeSaTable(self._context)
        self._runner = Runner(self._context, self._ike_sas)
        self._hints = Hints(self._context, self._ike_sas, self._runner)
        self._scheduler = Scheduler(self._context, self._ike_sas, self._runner, self._hints)
        self._door = Doorkeeper(self._context, self._ike_sas, self._runner)
        self._connections: dict[str, Connection] = {c.name: c for c in connections}
        self._door.update(self._connections.values(), ())

    # --- commands ---------------------------------------------------------------------------------

    def configure(self, connections: Iterable[Connection], now: float) -> None:
        """Make `connections` the whole configuration; see `update` for what becomes of SAs."""
        wanted = {c.name: c for c in connections}
        changed = [c for c in wanted.values() if self._connections.get(c.name) != c]
        self.update(changed, self._connections.keys() - wanted.keys(), now)

    def update(self, changed: Iterable[Connection], removed: Iterable[str], now: float) -> None:
        """Add or replace connections, and forget others; the rest of the configuration stays.

        `change_of` says what becomes of SAs. Those that end are deleted with the peer. An IKE SA that stays
        has the new configuration from now on; one that is not authenticated yet ends. Rekeying what only
        a rekey makes as configured, and bringing up what is new, is the caller's decision.
        """
        self._context.now = now
        old = self._connections
        # What is unchanged stays the very object that its IKE SAs refer to.
        wanted = {c.name: c for c in changed if old.get(c.name) != c}
        gone = [name for name in removed if name in old]
        changes = {name: change_of(old[name], new) for name, new in wanted.items() if name in old}
        changes |= {name: change_of(old[name], None) for name in gone}
        self._door.update(wanted.values(), [old[name] for name in changes])
        for name in gone:
            del old[name]
        old |= wanted
        for ike_sa in self._ike_sas.half_open():
            ike_sa.candidates = tuple(c for c in ike_sa.candidates if c.name not in changes)
            if not ike_sa.candidates:
                self._terminate(ike_sa, _CHANGED)
        for name, change in changes.items():
            for ike_sa in self._ike_sas.of_connection(name):
                if ike_sa.state is not IkeSaState.HALF_OPEN:
                    self._follow(ike_sa, change, wanted.get(name))

    def initiate(
        self,
        connection: str,
        child: str | None,
        now: float,
        *,
        local: IpAddress | None = None,
        remote: IpAddress | None = None,
    ) -> IkeSaId:
        """Bring up an IKE SA for `connection`, and `child` with it; return the IKE SA that does it.

        Idempotent: an IKE SA of the connection that is up or coming up is used, and a Child SA that is
        up or coming up is left alone. `child=None` brings up the IKE SA alone (RFC 6023), or where the peer
        cannot do that, or `childless` forbids it, with the first configured Child.

        Args:
            connection: Name of a configured connection.
            child: Name of one of its children, or None.
            now: The time.
            local: Our address, where the connection leaves it to the kernel, or has several.
            remote: The peer's address, where it has several, or names.

        Raises:
            LocalError: No such connection or child, or no address to send to.
        """
        self._context.now = now
        configured = self._connection(connection)
        wanted = None if child is None else _find_child(configured, child)
        ike_sa = self._find_usable(configured)
        if ike_sa is not None:
            if wanted is not None and not self._brings_up(ike_sa, wanted):
                _wake(ike_sa, wanted)
                self._runner.ask(ike_sa, Plan(kind=PlanKind.NEW_CHILD, child=wanted.name))
            return ike_sa.id
        ike_sa = IkeSa(
            self._context,
            connection=configured,
            is_initiator=True,
            spi_i=self._context.new_ike_spi(),
            path=_initial_path(configured, local, remote),
        )
        self._ike_sas.add(ike_sa)
        self._runner.bring_up(ike_sa, wanted)
        return ike_sa.id

    def use_cpus(self, cpus: int) -> None:
        """Say how many CPUs can have an outbound SA each for the same traffic, 0 for none (RFC 9611)."""
        self._context.cpus = cpus

    def reauthenticate(
        self,
        ike_sa_id: IkeSaId,
        now: float,
        *,
        local: IpAddress | None = None,
        remote: IpAddress | None = None,
    ) -> IkeSaId:
        """Replace an IKE SA by one that is authenticated anew (RFC 7296 §2.8.3); return the new one.

        Make before break: the old one is deleted when the new one carries its Child SAs. Idempotent while
        that is under way. Rekeys do without the peer's credential; this does not.

        Args:
            ike_sa_id: The old one.
            now: The time.
            local: Our address, None: as before.
            remote: Where the peer is, None: as before.

        Raises:
            LocalError: It is gone or not established, or the peer cannot be reached from here.
        """
        self._context.now = now
        old = self._ike_sa(ike_sa_id)
        if old.state not in SERVING_STATES:
            raise LocalError(f"IKE SA {ike_sa_id} is {old.state.value}")
        uniqueness = self._runner.uniqueness
        under_way = uniqueness.winner_of(old)
        if under_way is not None:
            return under_way.id
        ike_sa = IkeSa(
            self._context,
            connection=old.connection,
            is_initiator=True,
            spi_i=self._context.new_ike_spi(),
            path=new_path(old, local, remote),
        )
        self._ike_sas.add(ike_sa)
        uniqueness.supersede(ike_sa, old, Why.REAUTHENTICATED)
        first = next((c for c in old.connection.children if old.find_carrying(c.name) is not None), None)
        self._runner.bring_up(ike_sa, first)
        return ike_sa.id

    def rekey_ike(self, ike_sa_id: IkeSaId, now: float) -> None:
        """Replace an IKE SA by a new one (RFC 7296 §1.3.2)."""
        self._context.now = now
        self._runner.ask(self._ike_sa(ike_sa_id), Plan(kind=PlanKind.REKEY_IKE))

    def rekey_child(self, child_sa_id: ChildSaId, now: float) -> None:
        """Replace a Child SA by a new one (RFC 7296 §1.3.3); a no-op while that is under way."""
        self._context.now = now
        self._scheduler.rekey_child(*self._child_sa(child_sa_id))

    def terminate_ike(self, ike_sa_id: IkeSaId, now: float) -> None:
        """Delete an IKE SA and its Child SAs with the peer; events follow when it is done."""
        self._context.now = now
        self._terminate(self._ike_sa(ike_sa_id), "the operator terminated it")

    def terminate_child(self, child_sa_id: ChildSaId, now: float) -> None:
        """Delete a Child SA with the peer; `ChildSaDeleted` follows when it is done."""
        self._context.now = now
        self._terminate_child(*self._child_sa(child_sa_id), "the operator terminated it")

    def review_trust(self, ike_sa_id: IkeSaId, now: float) -> None:
        """Have the certificates judged again that the peer proved itself with.

        An IKE SA whose peer's are revoked by now ends at once, with its Child SAs; the peer is told.
        """
        self._context.now = now
        ike_sa = self._ike_sa(ike_sa_id)
        if ike_sa.remote_certificates and ike_sa.state in AUTHENTICATED_STATES:
            self._runner.start_chore(ike_sa, review(ike_sa))

    def check_liveness(self, ike_sa_id: IkeSaId, now: float) -> None:
        """Ask the peer for a sign of life now (an empty INFORMATIONAL request, RFC 7296 §2.4)."""
        self._context.now = now
        self._runner.ask(self._ike_sa(ike_sa_id), Plan(kind=PlanKind.LIVENESS))

    # --- inputs -----------------------------------------------------------------------------------

    def receive(self, datagram: bytes, path: Path, now: float) -> None:
        """Take one IKE datagram (without the non-ESP marker); never raises for what a stranger sends."""
        self._context.now = now
        if datagram == KEEPALIVE:
            return
        if is_first_request(datagram):
            self._door.receive_first(datagram, path)
            return
        header = None
        try:
            header = parse_header(datagram)
            ike_sa = self._find_addressee(header)
            if ike_sa is None and header.major_version == MAJOR_VERSION:
                self._door.receive_stray(header, len(datagram), path)
                return
            if header.length > MAX_FIRST_BYTES and (ike_sa is None or ike_sa.keys is None):
                raise InvalidSyntax(f"{header.length} bytes before there are any keys")
            message = parse_message(datagram, header)
        except PeerError as error:
            self._door.receive_unreadable(header, path, error)
            return
        if ike_sa is not None:
            self._scheduler.receive(ike_sa, message, path)

    def tick(self, now: float) -> None:
        """Do whatever is due at `now`; call it at `next_deadline()` at the latest."""
        self._context.now = now
        while (key := self._context.timers.pop_due(now)) is not None:
            self._scheduler.on_timer(key)

    def resolve(self, request_id: RequestId, result: Result, now: float) -> None:
        """Answer a request of `requests()`; one that was given up meanwhile is ignored.

        What comes too late is not lost: an SPI or SA that arrives after its exchange ended is given
        back with `RemoveSas` where there is something to remove.

        Raises:
            LocalError: The result does not fit the request.
        """
        self._context.now = now
        self._runner.resolve(request_id, result)

    def note_traffic(self, child_sa_id: ChildSaId, now: float) -> None:
        """Say that an authenticated packet arrived on the inbound SA: the peer lives, and uses this SA."""
        self._context.now = now
        found = self._ike_sas.find_child(child_sa_id)
        if found is not None:
            self._scheduler.note_traffic(*found)

    def soft_expire(self, spi: Spi, now: float) -> None:
        """Say that the SA with this SPI, inbound or outbound, reached a soft limit at the datapath."""
        self._context.now = now
        child_sa_id = self.find_child_sa(spi)
        found = None if child_sa_id is None else self._ike_sas.find_child(child_sa_id)
        if found is not None:
            self._scheduler.rekey_child(*found)

    def expire_child(self, child_sa_id: ChildSaId, now: float) -> None:
        """Say that a Child SA reached a hard limit or was lost: it is deleted with the peer."""
        self._context.now = now
        found = self._ike_sas.find_child(child_sa_id)
        if found is not None:
            self._scheduler.expire_child(*found, "the datapath")

    def unknown_spi(self, spi: Spi, source: IpAddress, now: float) -> None:
        """Say that ESP with an unknown SPI came from `source`, who is told if it is a peer of ours."""
        self._context.now = now
        self._hints.report_invalid_spi(spi, source)

    def mapping_changed(self, child_sa_id: ChildSaId, remote: IpAddress, port: int, now: float) -> None:
        """Say that authenticated ESP of this Child SA came from another address or port (NAT rebinding)."""
        self._context.now = now
        found = self._ike_sas.find_child(child_sa_id)
        if found is not None and found[0].nat.remote and not found[0].nat.local:
            ike_sa = found[0]
            ike_sa.follow_path(replace(ike_sa.path, remote=remote, remote_port=port))

    # --- drains -----------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """Return when `tick` must be called next; None: not before another input or command."""
        return self._context.timers.next_deadline()

    def datagrams(self) -> list[tuple[Path, bytes]]:
        """Return the datagrams to send, in order, and forget them.

        A NAT keepalive is among them as the one octet 0xFF: it goes out without a non-ESP marker.
        """
        return self._context.drain_datagrams()

    def requests(self) -> list[Request]:
        """Return the requests that are new since the last call."""
        return self._context.drain_requests()

    def events(self) -> list[Event]:
        """Return the events since the last call, in order."""
        return self._context.drain_events()

    # --- getters ----------------------------------------------------------------------------------

    def ike_sas(self) -> tuple[IkeSaInfo, ...]:
        """Return every IKE SA, oldest first."""
        return tuple(ike_sa.info() for ike_sa in self._ike_sas.all())

    def child_sas(self) -> tuple[ChildSaInfo, ...]:
        """Return every Child SA, oldest first."""
        children = (c for ike_sa in self._ike_sas.all() for c in ike_sa.children.values())
        return tuple(c.info() for c in sorted(children, key=lambda c: c.child_sa_id))

    def ike_sa(self, ike_sa_id: IkeSaId) -> IkeSaInfo | None:
        """Return one IKE SA; None when it is gone."""
        found = self._ike_sas.find(ike_sa_id)
        return None if found is None else found.info()

    def ike_keys(self, ike_sa_id: IkeSaId) -> IkeSaKeys | None:
        """Return copies of the keys of one IKE SA, for key tables only; None when there are none."""
        found = self._ike_sas.find(ike_sa_id)
        return None if found is None else found.protection_keys()

    def child_sa(self, child_sa_id: ChildSaId) -> ChildSaInfo | None:
        """Return one Child SA; None when it is gone."""
        found = self._ike_sas.find_child(child_sa_id)
        return None if found is None else found[1].info()

    def sas_of(self, connection: str) -> tuple[tuple[IkeSaInfo, ...], tuple[ChildSaInfo, ...]]:
        """Return the IKE SAs of one connection, and their Child SAs, oldest first."""
        ike_sas = sorted(self._ike_sas.of_connection(connection), key=lambda sa: sa.id)
        if not ike_sas:
            return (), ()
        children = sorted(
            (c for ike_sa in ike_sas for c in ike_sa.children.values()), key=lambda c: c.child_sa_id
        )
        return tuple(sa.info() for sa in ike_sas), tuple(c.info() for c in children)

    def has_ike_sa(self, connection: str) -> bool:
        """Say whether `initiate` would use an IKE SA that is up or coming up, instead of making one."""
        configured = self._connections.get(connection)
        return configured is not None and self._find_usable(configured) is not None

    def is_carried(self, connection: str, child: str) -> bool:
        """Say whether a Child SA carries this child's traffic; of child "", whether an IKE SA serves.

        One that is for a single CPU does not.
        """
        lasting = [
            sa
            for sa in self._ike_sas.of_connection(connection)
            if not sa.is_doomed and sa.state is not IkeSaState.DELETING
        ]
        if not child:
            return any(sa.state in SERVING_STATES for sa in lasting)
        return any(
            c.parameters.child.name == child and c.cpu is None and c.state in CARRYING_STATES
            for sa in lasting
            for c in sa.children.values()
        )

    def find_child_sa(self, spi: Spi) -> ChildSaId | None:
        """Return the Child SA that has this SPI, inbound or outbound; inbound wins."""
        outbound: ChildSaId | None = None
        for ike_sa in self._ike_sas.all():
            for child_sa in ike_sa.children.values():
                if child_sa.spi_in == spi:
                    return child_sa.child_sa_id
                if child_sa.spi_out == spi:
                    outbound = child_sa.child_sa_id
        return outbound

    # --- inside -----------------------------------------------------------------------------------

    def _connection(self, name: str) -> Connection:
        connection = self._connections.get(name)
        if connection is None:
            raise LocalError(f"there is no connection {name!r}")
        return connection

    def _ike_sa(self, ike_sa_id: IkeSaId) -> IkeSa:
        ike_sa = self._ike_sas.find(ike_sa_id)
        if ike_sa is None:
            raise LocalError(f"there is no IKE SA {ike_sa_id}")
        return ike_sa

    def _child_sa(self, child_sa_id: ChildSaId) -> tuple[IkeSa, ChildSa]:
        found = self._ike_sas.find_child(child_sa_id)
        if found is None:
            raise LocalError(f"there is no Child SA {child_sa_id}")
        return found

    def _find_usable(self, connection: Connection) -> IkeSa | None:
        """Return an IKE SA of the connection that is up, else one of ours that is coming up."""
        usable = [
            ike_sa
            for ike_sa in self._ike_sas.of_connection(connection.name)
            if ike_sa.connection is connection
            and not ike_sa.is_doomed
            # Of two successors of a rekey the one that goes is never told.
            and (ike_sa.is_told or not ike_sa.is_successor)
            and (ike_sa.state in SERVING_STATES or (ike_sa.is_initiator and ike_sa.state in _COMING_UP))
        ]
        is_going = self._runner.uniqueness.is_under_way
        return min(usable, key=lambda sa: (is_going(sa), sa.state not in SERVING_STATES), default=None)

    def _brings_up(self, ike_sa: IkeSa, child: Child) -> bool:
        """Tell whether a Child SA is up, coming up, or waits for its turn."""
        if ike_sa.find_carrying(child.name) is not None:
            return True
        current = None if ike_sa.initiating is None else ike_sa.initiating.plan
        plans = [*ike_sa.plans, *([] if current is None else [current])]
        return any(plan.child == child.name and plan.cpu is None for plan in plans)

    def _follow(self, ike_sa: IkeSa, change: Change, new: Connection | None) -> None:
        """Let an IKE SA have its changed configuration, or end with the old one."""
        if new is None or change.ike is Effect.RESTART or ike_sa.state not in AUTHENTICATED_STATES:
            self._terminate(ike_sa, _CHANGED)
            return
        ike_sa.connection = new
        ike_sa.candidates = (new,)
        for child_sa in tuple(ike_sa.children.values()):
            if change.of_child(child_sa.parameters.child.name) >= Effect.RESTART:
                self._terminate_child(ike_sa, child_sa, _CHANGED)

    def _terminate_child(self, ike_sa: IkeSa, child_sa: ChildSa, detail: str) -> None:
        failure = Failure(reason=FailureReason.DELETED_BY_OPERATOR, detail=detail)
        plan = Plan(kind=PlanKind.DELETE_CHILD, child_sa_id=child_sa.child_sa_id, failure=failure)
        self._runner.ask(ike_sa, plan)

    def _terminate(self, ike_sa: IkeSa, detail: str) -> None:
        failure = Failure(reason=FailureReason.DELETED_BY_OPERATOR, detail=detail)
        if ike_sa.state in AUTHENTICATED_STATES:
            self._runner.ask(ike_sa, Plan(kind=PlanKind.DELETE_IKE, failure=failure), first=True)
        else:
            self._runner.end(ike_sa, failure)

    # --- datagrams --------------------------------------------------------------------------------

    def _find_addressee(self, header: IkeHeader) -> IkeSa | None:
        """Return the IKE SA of a message: ours is the SPI that the sender did not choose."""
        if header.from_initiator:
            ike_sa = self._ike_sas.find_by_spi(header.spi_r)
            return ike_sa if ike_sa is not None and ike_sa.spi_i == header.spi_i else None
        ike_sa = self._ike_sas.find_by_spi(header.spi_i)
        if ike_sa is None or (ike_sa.state is not IkeSaState.CONNECTING and ike_sa.spi_r != header.spi_r):
            return None
        return ike_sa


def _wake(ike_sa: IkeSa, child: Child) -> None:
    """Forget that a Child SA was to be tried later: it is asked for now."""
    for subject, plan in list(ike_sa.delayed.items()):
        if plan.child == child.name:
            del ike_sa.delayed[subject]
            ike_sa.cancel_timer(Timer.PAUSE, subject)


_CHANGED = "its connection was changed or removed"
_COMING_UP = frozenset({IkeSaState.CONNECTING, IkeSaState.AUTHENTICATING})


def _find_child(connection: Connection, name: str) -> Child:
    """Return a configured Child by its name."""
    protected = (child for child in connection.children if child.action is Action.PROTECT)
    found = next((child for child in protected if child.name == name), None)
    if found is None:
        raise LocalError(f"connection {connection.name!r} has not a protected Child {name!r}")
    return found


def _initial_path(connection: Connection, local: IpAddress | None, remote: IpAddress | None) -> Path:
    """Return where the first message goes; a pair of addresses of one family is looked for.

    Raises:
        LocalError: There is none.
    """
    locals_ = (local,) if local is not None else connection.local.addresses
    remotes = (remote,) if remote is not None else connection.remote.addresses
    for ours in locals_:
        for theirs in remotes:
            if ours.version == theirs.version:
                return Path(ours, IKE_PORT, theirs, IKE_PORT)
    raise LocalError(
        f"connection {connection.name!r} has no address to send to, or none of the family of our own"
    )
