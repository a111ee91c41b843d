"""One IKE SA: its identity, keys, windows, timers and Child SAs; what exchanges act upon.

It says and believes nothing by itself: exchanges do (`ike_auth.py`, `rekey_child_sa.py`, ...), one step at
a time, run by `runner.py`. Rules a change must keep:

- Nothing in a datagram changes anything here before it was authenticated (IKE_SA_INIT apart).
- A state changes by the table of `states.py` only.
- The IKE SA owns its Child SAs; an IKE rekey hands them to the successor.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from gateway.ike.crypto.keymat import IkeKeys
from gateway.ike.crypto.prf import PrfFunction, prf_function
from gateway.ike.crypto.suite import IkeSuite
from gateway.ike.events import (
    ChildSaDeleted,
    ChildSaEstablished,
    ChildSaFailed,
    ChildSaId,
    ChildSaRekeyed,
    Failure,
    FailureReason,
    IkeSaId,
    IkeSaInfo,
    IkeSaKeys,
    IkeSaKeysDerived,
    PathChanged,
    RequestId,
)
from gateway.ike.path import Path
from gateway.ike.timers import Timer, TimerKey
from gateway.ike.v2.child_sa import ChildSa
from gateway.ike.v2.context import Context
from gateway.ike.v2.exchange import Plan, PlanKind, Received, Step, Steps
from gateway.ike.v2.fragmentation import FragmentQueue, max_message_bytes
from gateway.ike.v2.nat import NatStatus
from gateway.ike.v2.states import (
    CARRYING_STATES,
    ChildSaState,
    ChildSaTrigger,
    IkeSaState,
    IkeSaTrigger,
    next_ike_state,
)
from gateway.ike.v2.window import Backoff, Datagrams, RequestWindow, ResponseWindow
from gateway.ike.wire.header import NO_SPI, ExchangeType, IkeHeader
from gateway.ike.wire.payloads import Payload
from gateway.ike.wire.protected import SkProtection
from gateway.ipsec.connection import Child, Connection
from gateway.ipsec.identity import Identity
from gateway.ipsec.proposal import Proposal, ProtocolId, default_proposals
from gateway.ipsec.secret import Secret


@dataclass(frozen=True, slots=True)
class Rival:
    """The outcome of the peer's half of a simultaneous rekey (RFC 7296 §2.8.1, §2.8.2)."""

    successor: int
    """`ChildSaId` or `IkeSaId` of what the peer's exchange made."""
    nonces: tuple[bytes, bytes]
    """Ni and Nr of that exchange."""


class TaskRole(Enum):
    """Which slot of its IKE SA a running exchange has."""

    INITIATOR = "initiator"
    """It has the request window; at most one."""
    RESPONDER = "responder"
    """It owes the peer a response; at most one."""
    CHORE = "chore"
    """It holds nobody up."""


class Task:
    """One running exchange: its generator, and what it waits for."""

    __slots__ = ("grace", "ike_sa", "pending", "plan", "received", "request_id", "role", "steps", "task_id")

    def __init__(
        self, task_id: int, ike_sa: "IkeSa", role: TaskRole, steps: Steps[None], plan: Plan | None = None
    ) -> None:
        self.task_id = task_id
        self.ike_sa = ike_sa
        self.role = role
        self.steps = steps
        self.plan = plan
        self.pending: Step | None = None
        """The step that is not answered yet."""
        self.request_id: RequestId | None = None
        """The request to the shell that this step is."""
        self.received: Received | None = None
        """The request it answers, for a responder."""
        self.grace = False
        """Whether `AwaitResponse` may end without one."""


class IkeSa:
    """One IKE SA, in either role."""

    __slots__ = (
        "authentic_until",
        "background",
        "began_at",
        "can_be_childless",
        "candidates",
        "children",
        "connection",
        "context",
        "delayed",
        "early_deletes",
        "established_at",
        "expires_at",
        "fragments",
        "had_initial_contact",
        "id",
        "init_path",
        "init_request",
        "init_response",
        "initiating",
        "is_initiator",
        "is_successor",
        "is_told",
        "keys",
        "last_heard_at",
        "last_request",
        "last_response",
        "local_id",
        "max_packet_bytes",
        "nat",
        "newborn",
        "nonce_i",
        "nonce_r",
        "path",
        "peer_hashes",
        "peer_wishes",
        "plans",
        "predecessor",
        "prf",
        "proposal",
        "protection",
        "reauth_at",
        "rekey_at",
        "rekey_attempts",
        "remote_certificates",
        "remote_id",
        "requests",
        "responding",
        "responses",
        "rival",
        "rival_sa",
        "rivals",
        "settled",
        "spi_i",
        "spi_r",
        "state",
        "successor",
        "suspicion",
    )

    def __init__(
        self,
        context: Context,
        *,
        connection: Connection,
        is_initiator: bool,
        spi_i: bytes,
        spi_r: bytes = NO_SPI,
        path: Path,
    ) -> None:
        self.context = context
        self.id: IkeSaId = context.new_ike_sa_id()
        self.connection = connection
        self.candidates: tuple[Connection, ...] = (connection,)
        """Responder before IKE_AUTH: the connections that fit the addresses and the IKE proposal."""
        self.is_initiator = is_initiator
        self.spi_i = spi_i
        self.spi_r = spi_r
        self.path = path
        self.init_path = path
        """The path of IKE_SA_INIT, also of an IKE SA that a rekey made: both ends have been seen there."""
        self.state = IkeSaState.CONNECTING if is_initiator else IkeSaState.HALF_OPEN
        self.nat = NatStatus()
        self.nonce_i = b""
        self.nonce_r = b""
        self.init_request = b""
        self.init_response = b""
        self.proposal: Proposal | None = None
        self.prf: PrfFunction | None = None
        self.keys: IkeKeys | None = None
        self.protection: SkProtection | None = None
        self.local_id: Identity | None = None
        self.remote_id: Identity | None = None
        self.remote_certificates: tuple[bytes, ...] = ()
        """DER of the certificates that the peer proved itself with, if it did so with any."""
        self.peer_hashes: tuple[int, ...] | None = None
        """The hashes that the peer verifies signatures with (RFC 7427 §4); None: it did not say."""
        self.peer_wishes: tuple[Payload, ...] = ()
        """The CERTREQ payloads of the IKE_SA_INIT response, for an initiator."""
        self.last_request = b""
        """The datagram of the peer's last request; of a fragmented one, of its first fragment."""
        self.last_response: Sequence[Payload] = ()
        """What our last response said, where it could be divided into smaller fragments."""
        self.max_packet_bytes: int | None = None
        """Largest IP packet our messages fill before they are fragmented; None: that was not agreed on."""
        self.fragments = FragmentQueue()
        self.had_initial_contact = False
        """The peer said INITIAL_CONTACT."""
        self.requests = RequestWindow(Backoff.of(connection.ike))
        self.responses = ResponseWindow()
        self.children: dict[ChildSaId, ChildSa] = {}
        self.plans: list[Plan] = []
        self.delayed: dict[int, Plan] = {}
        """Plans that wait for `Timer.PAUSE`, by its subject."""
        self.rivals: dict[ChildSaId, Rival] = {}
        """Simultaneous Child rekeys: what the peer made of a Child SA that we are rekeying too."""
        self.rival: Rival | None = None
        """The same for this IKE SA."""
        self.rekey_attempts: dict[int, int] = {}
        """How often in a row a rekey failed: by `ChildSaId`, and by 0 for the IKE SA."""
        self.rival_sa: IkeSa | None = None
        self.predecessor: IkeSa | None = None
        """The IKE SA whose rekey by the peer made this one, while our own rekey of it is unanswered."""
        self.early_deletes: set[tuple[int, bytes]] = set()
        """Protocol and SPI of what a DELETE named and we do not know yet: our outstanding request makes it,
        perhaps."""
        self.settled: set[ChildSaId] = set()
        """Child SAs whose rekey by us was answered: no request of the peer's can collide with it any more."""
        self.newborn: IkeSa | None = None
        """What a rekey has just made, for the runner to register."""
        self.successor: IkeSa | None = None
        self.is_successor = False
        """An IKE rekey made it."""
        self.is_told = False
        """An event said that it is established."""
        self.initiating: Task | None = None
        self.responding: Task | None = None
        self.background: list[Task] = []
        self.suspicion: Failure | None = None
        """What an unauthenticated error notify said: told if nothing better comes."""
        self.began_at = context.now
        self.last_heard_at = context.now
        self.established_at: float | None = None
        self.rekey_at: float | None = None
        self.expires_at: float | None = None
        self.reauth_at: float | None = None
        """When we authenticate anew; rekeys do not change it (RFC 7296 §2.8.3)."""
        self.authentic_until: float | None = None
        """When it ends if nobody did."""
        self.can_be_childless = False
        """The peer said CHILDLESS_IKEV2_SUPPORTED (RFC 6023)."""

    # --- getters ----------------------------------------------------------------------------------

    @property
    def local_spi(self) -> bytes:
        """Return the SPI we chose: unique among our IKE SAs."""
        return self.spi_i if self.is_initiator else self.spi_r

    @property
    def offered_proposals(self) -> tuple[Proposal, ...]:
        """Return the IKE proposals of the connection."""
        return self.connection.ike.proposals or default_proposals(ProtocolId.IKE)

    @property
    def is_doomed(self) -> bool:
        """Return whether it will be deleted as soon as its turn comes."""
        return any(plan.kind is PlanKind.DELETE_IKE for plan in self.plans)

    @property
    def has_child_work(self) -> bool:
        """Return whether we are making, rekeying or closing a Child SA (RFC 7296 §2.25.2)."""
        plan = None if self.initiating is None else self.initiating.plan
        return plan is not None and plan.kind in _CHILD_PLANS

    def heir(self) -> "IkeSa":
        """Return the IKE SA that has the Child SAs now: this one, or what rekeys made of it."""
        ike_sa = self
        while ike_sa.successor is not None:
            ike_sa = ike_sa.successor
        return ike_sa

    def info(self) -> IkeSaInfo:
        """Return what there is to know about it."""
        return IkeSaInfo(
            ike_sa_id=self.id,
            connection=self.connection.name,
            spi_i=self.spi_i,
            spi_r=self.spi_r,
            is_initiator=self.is_initiator,
            state=self.state.value,
            path=self.path,
            local_id=self.local_id,
            remote_id=self.remote_id,
            proposal=self.proposal,
            nat_local=self.nat.local,
            nat_remote=self.nat.remote,
            began_at=self.began_at,
            established_at=self.established_at,
            rekey_at=self.rekey_at,
            expires_at=self.expires_at,
            reauth_at=self.reauth_at,
            is_replaced=self.successor is not None,
            remote_certificates=self.remote_certificates,
        )

    def find_outbound(self, spi: bytes, protocol: int | None = None) -> ChildSa | None:
        """Return the Child SA that sends with `spi`: the one a peer's DELETE or REKEY_SA names.

        Args:
            spi: 4 bytes, or nothing is found.
            protocol: ESP or AH: one SPI may be in use for each. None: either, where the peer does not say.
        """
        number = int.from_bytes(spi, "big")
        for child_sa in self.children.values():
            if child_sa.spi_out == number and protocol in (None, child_sa.protocol):
                return child_sa if len(spi) == 4 else None
        return None

    def find_twin(self, child_sa: ChildSa) -> ChildSa | None:
        """Return another Child SA here that carries the same traffic."""
        for other in self.children.values():
            if other is not child_sa and other.state in CARRYING_STATES and child_sa.is_carried_by(other):
                return other
        return None

    def find_carrying(self, child: str, cpu: int | None = None) -> ChildSa | None:
        """Return the Child SA that carries this Child's traffic, for all CPUs or for one, or is about to."""
        for child_sa in self.children.values():
            if (child_sa.parameters.child.name, child_sa.cpu) == (child, cpu) and (
                child_sa.state in CARRYING_STATES or child_sa.state is ChildSaState.CREATING
            ):
                return child_sa
        return None

    def configured(self, child_sa: ChildSa) -> Child:
        """Return what a Child SA's successor is made for: its Child as it is configured now, or as it was."""
        made_for = child_sa.parameters.child
        return next((child for child in self.connection.children if child.name == made_for.name), made_for)

    # --- state and timers -------------------------------------------------------------------------

    def follow(self, trigger: IkeSaTrigger) -> None:
        """Change the state by the table.

        Raises:
            LocalError: The table has no such transition.
        """
        self.state = next_ike_state(self.state, trigger)

    def set_timer(self, timer: Timer, deadline: float, subject: int = 0) -> None:
        """Start or move a timer of this IKE SA."""
        self.context.timers.set(TimerKey(self.id, timer, subject), deadline)

    def cancel_timer(self, timer: Timer, subject: int = 0) -> None:
        """Stop a timer of this IKE SA."""
        self.context.timers.cancel(TimerKey(self.id, timer, subject))

    def timer_deadline(self, timer: Timer, subject: int = 0) -> float | None:
        """Return when a timer of this IKE SA is due; None if it does not run."""
        return self.context.timers.deadline(TimerKey(self.id, timer, subject))

    def heard(self) -> None:
        """Note a sign of life of the authenticated peer (RFC 7296 §2.4)."""
        self.last_heard_at = self.context.now

    def establish(self, trigger: IkeSaTrigger = IkeSaTrigger.AUTHENTICATED) -> None:
        """Note that both sides are authenticated (or that a rekey made this one): start its lifetime."""
        now, options = self.context.now, self.connection.ike
        self.follow(trigger)
        self.established_at = now
        self.heard()
        self.context.half_open.discard(self.id)
        self.cancel_timer(Timer.HALF_OPEN)
        if options.rekey_s > 0:
            self.rekey_at = now + options.rekey_s * (1.0 - options.jitter * self.context.draw())
            self.expires_at = now + options.rekey_s + options.over_s
            self.set_timer(Timer.IKE_REKEY, self.rekey_at)
            self.set_timer(Timer.IKE_EXPIRE, self.expires_at)
        if options.dpd_delay_s > 0:
            self.set_timer(Timer.LIVENESS, now + options.dpd_delay_s)
        if self.nat.must_keep_alive and self.context.options.keepalive_s > 0:
            self.set_timer(Timer.KEEPALIVE, now + self.context.options.keepalive_s)

    def limit_authentication(self, reauth_at: float | None, authentic_until: float | None) -> None:
        """Note when we authenticate anew, and when it ends if nobody did (RFC 7296 §2.8.3, RFC 4478)."""
        self.reauth_at, self.authentic_until = reauth_at, authentic_until
        for timer, deadline in ((Timer.IKE_REAUTH, reauth_at), (Timer.IKE_UNAUTHENTIC, authentic_until)):
            if deadline is not None:
                self.set_timer(timer, deadline)

    # --- keys and messages ------------------------------------------------------------------------

    def adopt_keys(self, proposal: Proposal, keys: IkeKeys) -> None:
        """Take the keys of IKE_SA_INIT or of a rekey, and tell them where there is a key log."""
        suite = IkeSuite.of(proposal)
        self.proposal = proposal
        self.prf = prf_function(suite.prf)
        self.keys = keys
        self.protection = SkProtection(
            suite, keys, is_initiator=self.is_initiator, entropy=self.context.entropy
        )
        if self.context.options.tells_ike_keys:
            told = self.protection_keys()
            assert told is not None
            self.context.emit(IkeSaKeysDerived(ike_sa=self.info(), keys=told))

    def protection_keys(self) -> IkeSaKeys | None:
        """Return copies of SK_e and SK_a, for key tables only; `None` while there are none."""
        if self.proposal is None or self.keys is None:
            return None
        keys = self.keys
        return IkeSaKeys(
            proposal=self.proposal,
            sk_ei=Secret(keys.sk_ei.reveal()),
            sk_er=Secret(keys.sk_er.reveal()),
            sk_ai=Secret(keys.sk_ai.reveal()),
            sk_ar=Secret(keys.sk_ar.reveal()),
        )

    def header(self, exchange_type: ExchangeType, message_id: int, *, is_response: bool) -> IkeHeader:
        """Return the header of a message of ours."""
        return IkeHeader.build(
            spi_i=self.spi_i,
            spi_r=self.spi_r,
            exchange_type=exchange_type,
            is_initiator=self.is_initiator,
            is_response=is_response,
            message_id=message_id,
        )

    def seal(self, header: IkeHeader, payloads: Sequence[Payload], path: Path | None = None) -> Datagrams:
        """Return a protected message, in fragments where it is too large and both can (RFC 7383)."""
        assert self.protection is not None
        if self.max_packet_bytes is None:
            return (self.protection.seal(header, payloads),)
        max_bytes = max_message_bytes(path or self.path, self.max_packet_bytes)
        return self.protection.seal_fragments(header, payloads, max_bytes)

    def arm_retransmission(self) -> None:
        """Set the timer to what the request window waits for."""
        deadline = self.requests.next_deadline
        if deadline is None:
            self.cancel_timer(Timer.RETRANSMIT)
        else:
            self.set_timer(Timer.RETRANSMIT, deadline)

    def send(self, datagrams: Datagrams, path: Path | None = None) -> None:
        """Send datagrams on `path`, or where the peer is."""
        for datagram in datagrams:
            self.context.send(path or self.path, datagram)

    # --- plans ------------------------------------------------------------------------------------

    def plan(self, plan: Plan, *, first: bool = False) -> None:
        """Queue something to do; what is queued already is not queued twice, which bounds the queue."""
        if any(_is_same(plan, queued) for queued in self.plans):
            return
        if first:
            self.plans.insert(0, plan)
        else:
            self.plans.append(plan)

    def delay(self, plan: Plan, wait_s: float) -> None:
        """Queue something to do after `wait_s` seconds."""
        subject = self.context.new_task_id()
        self.delayed[subject] = plan
        self.set_timer(Timer.PAUSE, self.context.now + wait_s, subject)

    # --- Child SAs --------------------------------------------------------------------------------

    def add_child(self, child_sa: ChildSa) -> None:
        """Take a Child SA into care."""
        child_sa.ike_sa_id = self.id
        self.children[child_sa.child_sa_id] = child_sa
        self.context.child_owners[child_sa.child_sa_id] = self.id

    def child_established(self, child_sa: ChildSa, replaced: ChildSa | None = None) -> None:
        """Note that both directions are installed; start the lifetime; tell it.

        With `replaced`, the new one takes over: the old one only drains from here on (RFC 7296 §2.8). If that
        was told to be deleted while the new one was being installed, there is nothing to take over.
        """
        told = self.context.told
        child_sa.establish(self.context.now)
        self._arm_child(child_sa)
        told.add(child_sa.child_sa_id)
        if replaced is not None and replaced.child_sa_id in told:
            if replaced.state in CARRYING_STATES:
                replaced.follow(ChildSaTrigger.REPLACED)
            told.discard(replaced.child_sa_id)
            self.context.emit(ChildSaRekeyed(old=replaced.info(), new=child_sa.info()))
        else:
            self.context.emit(ChildSaEstablished(child_sa=child_sa.info()))
        self._pass_on_deletion(child_sa)
        self._settle_twin(child_sa)

    def _pass_on_deletion(self, successor: ChildSa) -> None:
        """Have the successor deleted where the operator asked for that while it was being made."""
        for plan in tuple(self.plans):
            if (
                plan.kind is PlanKind.DELETE_CHILD
                and plan.child_sa_id == successor.replaces
                and plan.failure is not None
                and plan.failure.reason is FailureReason.DELETED_BY_OPERATOR
            ):
                self.plan(replace(plan, child_sa_id=successor.child_sa_id))

    def _settle_twin(self, child_sa: ChildSa) -> None:
        """Choose between two Child SAs for the same traffic that both sides asked for at once.

        As with two successors (RFC 7296 §2.8.1), the one whose exchange had the lowest of the four nonces
        goes, deleted by whoever made it; both are installed, so that nothing is lost. Not every side sees
        that the two crossed (one request may have come late), but each knows the same of both, even when
        they were rekeyed meanwhile. Where we do see it, and a peer of another kind keeps its own, we delete
        that later.
        """
        twin = self.find_twin(child_sa)
        if twin is None or twin.origin.is_ours is child_sa.origin.is_ours:
            return
        if child_sa.cpu is not None:
            # The peer counts its CPUs otherwise: to it they may be no twins (RFC 9611 §4).
            return
        loser = min((child_sa, twin), key=lambda one: one.origin.lowest_nonce)
        if loser.origin.is_ours:
            plan = Plan(kind=PlanKind.DELETE_CHILD, child_sa_id=loser.child_sa_id, failure=TWIN)
            self.plan(plan, first=True)
        elif loser is twin and child_sa.replaces is None:
            self.set_child_timer(Timer.CHILD_LINGER, twin, self.context.options.delete_grace_s)

    def _arm_child(self, child_sa: ChildSa) -> None:
        timers, number = self.context.timers, child_sa.child_sa_id
        if child_sa.rekey_at is not None:
            timers.set(TimerKey(number, Timer.CHILD_REKEY), child_sa.rekey_at)
        if child_sa.expires_at is not None:
            timers.set(TimerKey(number, Timer.CHILD_EXPIRE), child_sa.expires_at)
        if child_sa.is_for_all_cpus:
            wait_s = 0.0 if child_sa.origin.is_ours else self.context.options.per_cpu_wait_s
            self.set_child_timer(Timer.CHILD_SPREAD, child_sa, wait_s)

    def set_child_timer(self, timer: Timer, child_sa: ChildSa, wait_s: float) -> None:
        """Start or move a timer of a Child SA; it stays with the Child SA at an IKE rekey."""
        self.context.timers.set(TimerKey(child_sa.child_sa_id, timer), self.context.now + wait_s)

    def end_child(self, child_sa: ChildSa, failure: Failure, *, has_twin: bool = False) -> None:
        """Remove a Child SA at once and tell why, if it was ever told that it exists.

        With `has_twin` another one carries its traffic: what is in flight on this one still arrives.
        """
        was_told = child_sa.child_sa_id in self.context.told
        if has_twin:
            self.drain_child(child_sa)
        else:
            self._forget_child(child_sa)
            self.context.remove_sas(child_sa.installed_sa_ids)
        if was_told:
            self.context.emit(ChildSaDeleted(child_sa=child_sa.info(), failure=failure))

    def stop_sending(self, child_sa: ChildSa) -> None:
        """Take the outbound SA away: what is left of the same (connection, child) carries the traffic."""
        if child_sa.is_outbound_installed:
            child_sa.is_outbound_installed = False
            self.context.remove_sas((child_sa.pair.outbound.sa_id,))

    def drain_child(self, child_sa: ChildSa) -> None:
        """Remove a replaced Child SA: outbound now, inbound when packets in flight have arrived."""
        self._forget_child(child_sa)
        self.stop_sending(child_sa)
        if child_sa.is_inbound_installed:
            self.context.linger(child_sa.child_sa_id, (child_sa.pair.inbound.sa_id,))

    def _forget_child(self, child_sa: ChildSa) -> None:
        child_sa.follow(ChildSaTrigger.GONE)
        number = child_sa.child_sa_id
        self.context.told.discard(number)
        self.children.pop(number, None)
        self.rekey_attempts.pop(number, None)
        self.context.child_owners.pop(number, None)
        self.context.timers.cancel_owner(number)

    def child_failed(
        self, child: str, failure: Failure, replaces: ChildSaId | None = None, *, cpu: int | None = None
    ) -> None:
        """Tell that a Child SA did not come up, for all CPUs or for one, or that a rekey failed."""
        self.context.emit(
            ChildSaFailed(
                ike_sa_id=self.id,
                connection=self.connection.name,
                child=child,
                failure=failure,
                replaces=replaces,
                cpu=cpu,
            )
        )

    # --- path -------------------------------------------------------------------------------------

    def follow_path(self, path: Path) -> None:
        """Send IKE to where the peer is now (RFC 7296 §2.23).

        The records of its Child SAs stay as they were installed: they name what the datapath holds, which
        follows the peer by authenticated ESP. Child SAs made from here on have the new path.
        """
        if path == self.path:
            return
        old, self.path = self.path, path
        if self.established_at is not None:
            self.context.emit(PathChanged(ike_sa=self.info(), old=old, new=path))


TWIN = Failure(reason=FailureReason.REPLACED, detail="both sides made it at once; the other one stays")
_CHILD_PLANS = frozenset(
    # Of the first one, what is left once the IKE SA is established is the first Child SA's.
    {PlanKind.IKE_SA_INIT, PlanKind.NEW_CHILD, PlanKind.REKEY_CHILD, PlanKind.DELETE_CHILD}
)


def _is_same(plan: Plan, other: Plan) -> bool:
    ours, theirs = (plan.kind, plan.child, plan.cpu), (other.kind, other.child, other.cpu)
    return ours == theirs and plan.child_sa_id == other.child_sa_id


def unresponsive(ike_sa: IkeSa, sent: int, waited_s: float) -> Failure:
    """Return what is told when the last retransmission went unanswered (RFC 7296 §2.4)."""
    if ike_sa.suspicion is not None:
        return ike_sa.suspicion
    peer = f"{ike_sa.path.remote}:{ike_sa.path.remote_port}"
    return Failure(
        reason=FailureReason.PEER_UNRESPONSIVE,
        detail=f"{peer} did not answer {sent} times in {waited_s:.1f} s while {ike_sa.state.value}",
    )
