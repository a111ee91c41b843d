"""Runs the exchanges: which one when, what each step means, where a message or a result goes.

An IKE SA has one slot for an exchange of ours, one for a request of the peer's, and any number of chores.
Whatever is asked for while the first slot is taken waits in the IKE SA's `plans` (window size 1, RFC 7296
§2.3). Rules a change must keep:

- Classify, authenticate, check the state, and only then accept a message (`_take_request`).
- A generator that is resumed may end the IKE SA; look at nothing of it afterwards without asking.
"""

from collections.abc import Callable

from gateway.ike.crypto.cipher import IntegrityFailed
from gateway.ike.errors import InvalidSyntax, LocalError, PeerError
from gateway.ike.events import (
    ChildSaId,
    CredentialRequest,
    DatagramDropped,
    Failure,
    FailureReason,
    IkeSaDeleted,
    IkeSaEstablished,
    IkeSaFailed,
    IkeSaId,
    Installed,
    InstallRequest,
    Refused,
    RequestId,
    Result,
    SpiRequest,
)
from gateway.ike.path import Path
from gateway.ike.timers import Timer, TimerKey
from gateway.ike.v2 import create_child_sa, ike_auth, ike_sa_init, informational, rekey_child_sa, rekey_ike_sa
from gateway.ike.v2.child_sa import ChildSa
from gateway.ike.v2.context import Context
from gateway.ike.v2.exchange import (
    Adopt,
    Answer,
    AwaitResponse,
    Denied,
    Established,
    IkeSaGone,
    NeedCredential,
    NeedInstall,
    NeedSpi,
    Plan,
    PlanKind,
    Received,
    SendRequest,
    SendResponse,
    Step,
    Steps,
    as_exception,
    expected_result,
)
from gateway.ike.v2.ike_sa import IkeSa, Task, TaskRole, unresponsive
from gateway.ike.v2.nat import KEEPALIVE
from gateway.ike.v2.states import (
    AUTHENTICATED_STATES,
    SERVING_STATES,
    ChildSaState,
    IkeSaState,
    IkeSaTrigger,
)
from gateway.ike.v2.window import GiveUp, Incoming, Retransmit
from gateway.ike.wire.header import ExchangeType
from gateway.ike.wire.message import EncryptedPayload, Message, encode_message
from gateway.ike.wire.notify import NotifyType
from gateway.ike.wire.payloads import (
    DeletePayload,
    NotifyPayload,
    Payload,
    SaPayload,
    find_notify,
    find_payload,
)
from gateway.ike.wire.rules import check_rules
from gateway.ipsec.connection import Child
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.identity import Identity
from gateway.ipsec.proposal import ProtocolId
from gateway.ipsec.sa import SaId

MAX_LATE_INSTALLS = 1024
"""Installations that were given up and may still happen: so many are remembered, to be taken back."""
GHOST_S = 30.0
"""How long the last answer of an IKE SA that ended is repeated for a peer that did not get it, in seconds."""
MAX_GHOSTS = 256


class Scheduler:
    """All IKE SAs of an endpoint and the exchanges they are in."""

    __slots__ = ("_by_spi", "_context", "_ghosts", "_ike_sas", "_late_installs", "_running", "_tasks")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._ike_sas: dict[IkeSaId, IkeSa] = {}
        self._by_spi: dict[bytes, IkeSa] = {}
        self._ghosts: dict[IkeSaId, IkeSa] = {}
        self._tasks: dict[int, Task] = {}
        self._running: dict[RequestId, Task] = {}
        self._late_installs: dict[RequestId, SaId] = {}

    # --- getters ----------------------------------------------------------------------------------

    def ike_sas(self) -> tuple[IkeSa, ...]:
        """Return every IKE SA, oldest first."""
        return tuple(self._ike_sas.values())

    def find(self, ike_sa_id: IkeSaId) -> IkeSa | None:
        """Return an IKE SA by its number."""
        return self._ike_sas.get(ike_sa_id)

    def find_by_spi(self, spi: bytes) -> IkeSa | None:
        """Return the IKE SA (or what is left of one) whose SPI on our side this is."""
        return self._by_spi.get(spi)

    def find_child(self, child_sa_id: ChildSaId) -> tuple[IkeSa, ChildSa] | None:
        """Return a Child SA and the IKE SA that has it."""
        owner = self._context.child_owners.get(child_sa_id)
        ike_sa = None if owner is None else self._ike_sas.get(owner)
        child_sa = None if ike_sa is None else ike_sa.children.get(child_sa_id)
        return None if ike_sa is None or child_sa is None else (ike_sa, child_sa)

    # --- life of an IKE SA ------------------------------------------------------------------------

    def add(self, ike_sa: IkeSa) -> None:
        """Take an IKE SA into care."""
        self._ike_sas[ike_sa.id] = ike_sa
        self._by_spi[ike_sa.local_spi] = ike_sa

    def bring_up(self, ike_sa: IkeSa, child: Child) -> None:
        """Start IKE_SA_INIT and IKE_AUTH as initiator."""
        plan = Plan(kind=PlanKind.IKE_SA_INIT, child=child.name)
        ike_sa.initiating = self._start(ike_sa, TaskRole.INITIATOR, _bring_up(ike_sa, child), plan)
        self._advance(ike_sa.initiating, None)

    def end(self, ike_sa: IkeSa, failure: Failure) -> None:
        """End an IKE SA and everything in it, and tell why."""
        if ike_sa.state is IkeSaState.DELETED:
            return
        was = ike_sa.state
        ike_sa.follow(IkeSaTrigger.GONE)
        gone = IkeSaGone(failure)
        for task in (ike_sa.initiating, ike_sa.responding, *ike_sa.background):
            if task is not None:
                self._abort(task, gone)
        for child_sa in list(ike_sa.children.values()):
            ike_sa.end_child(child_sa, failure, has_twin=self._has_twin(ike_sa, child_sa))
        if ike_sa.established_at is not None:
            for plan in (*ike_sa.plans, *ike_sa.delayed.values()):
                if plan.kind is PlanKind.NEW_CHILD:
                    ike_sa.child_failed(plan.child, failure)
        ike_sa.plans.clear()
        ike_sa.delayed.clear()
        self._context.timers.cancel_owner(ike_sa.id)
        self._context.authenticated.pop(ike_sa.id, None)
        self._context.half_open.discard(ike_sa.id)
        self._context.init_requests.pop((ike_sa.init_path, ike_sa.spi_i), None)
        self._ike_sas.pop(ike_sa.id, None)
        if ike_sa.keys is not None:
            ike_sa.keys.wipe()
        if was is IkeSaState.HALF_OPEN or not ike_sa.responses.cached_response:
            self._forget(ike_sa)
        else:
            self._keep_ghost(ike_sa)
        if was is IkeSaState.REKEYED or ike_sa.successor is not None:
            return
        if was is IkeSaState.HALF_OPEN and not ike_sa.connection.remote.addresses:
            # A stranger can do this any number of times; `DatagramDropped` counts what came.
            return
        if ike_sa.is_told:
            self._context.emit(IkeSaDeleted(ike_sa=ike_sa.info(), failure=failure))
        elif not ike_sa.is_successor:
            self._context.emit(IkeSaFailed(ike_sa=ike_sa.info(), failure=failure))

    def _has_twin(self, ike_sa: IkeSa, child_sa: ChildSa) -> bool:
        """Tell whether another IKE SA to the same peer carries the traffic of a Child SA."""
        others = (other for other in self._ike_sas.values() if _is_same_pair(ike_sa, other))
        return any(other.find_twin(child_sa) is not None for other in others)

    def _keep_ghost(self, ike_sa: IkeSa) -> None:
        """Keep what answers a retransmission of the peer's last request, for a while."""
        while len(self._ghosts) >= MAX_GHOSTS:
            self._forget(next(iter(self._ghosts.values())))
        self._ghosts[ike_sa.id] = ike_sa
        ike_sa.set_timer(Timer.IKE_LINGER, self._context.now + GHOST_S)

    def _forget(self, ike_sa: IkeSa) -> None:
        self._ghosts.pop(ike_sa.id, None)
        if self._by_spi.get(ike_sa.local_spi) is ike_sa:
            del self._by_spi[ike_sa.local_spi]
        self._context.timers.cancel_owner(ike_sa.id)

    # --- messages ---------------------------------------------------------------------------------

    def receive(self, ike_sa: IkeSa, message: Message, path: Path) -> None:
        """Take a message whose SPIs are this IKE SA's."""
        if message.header.from_initiator is ike_sa.is_initiator:
            self._drop(path, DropReason.IKE_MALFORMED, "the Initiator flag contradicts the SPIs")
        elif message.header.is_response:
            self._take_response(ike_sa, message, path)
        else:
            self._take_request(ike_sa, message, path)

    def _take_request(self, ike_sa: IkeSa, message: Message, path: Path) -> None:
        header = message.header
        incoming = ike_sa.responses.classify(header.message_id)
        if incoming is Incoming.PENDING_REQUEST:
            return
        if incoming not in (Incoming.NEW_REQUEST, Incoming.ANSWERED_REQUEST):
            self._drop(path, DropReason.IKE_MESSAGE_ID, f"{incoming.value}: {header.message_id}")
            return
        payloads = self._open(ike_sa, message, path)
        if payloads is None:
            return
        if incoming is Incoming.ANSWERED_REQUEST:
            if ike_sa.state is IkeSaState.DELETED and message.datagram != ike_sa.last_request:
                self._drop(path, DropReason.IKE_UNKNOWN_SPI, "the IKE SA has ended")
                return
            ike_sa.send(ike_sa.responses.cached_response, path)
            return
        if not _is_legal(ike_sa, header.exchange_type):
            detail = f"exchange {header.exchange_type} while {ike_sa.state.value}"
            self._drop(path, DropReason.IKE_UNEXPECTED, detail)
            return
        ike_sa.responses.accept(header.message_id)
        ike_sa.last_request = message.datagram
        ike_sa.heard()
        self._follow_path(ike_sa, path)
        received = Received(
            exchange_type=header.exchange_type,
            message_id=header.message_id,
            payloads=() if isinstance(payloads, PeerError) else payloads,
            path=path,
            datagram=message.datagram,
        )
        try:
            if isinstance(payloads, PeerError):
                raise payloads
            check_rules(received.payloads, header.exchange_type, is_response=False)
            steps = _respond(ike_sa, received)
        except PeerError as error:
            steps = _refuse(ike_sa, error)
        task = self._start(ike_sa, TaskRole.RESPONDER, steps)
        task.received = received
        ike_sa.responding = task
        self._advance(task, None)

    def _take_response(self, ike_sa: IkeSa, message: Message, path: Path) -> None:
        header, task = message.header, ike_sa.initiating
        incoming = ike_sa.requests.classify(header.message_id)
        if incoming is not Incoming.RESPONSE or task is None:
            self._drop(path, DropReason.IKE_MESSAGE_ID, f"{incoming.value}: {header.message_id}")
            return
        if header.exchange_type != _awaited_exchange(task):
            self._drop(path, DropReason.IKE_UNEXPECTED, f"a response of exchange {header.exchange_type}")
            return
        if ike_sa.state is IkeSaState.CONNECTING:
            self._take_init_response(ike_sa, task, message, path)
            return
        payloads = self._open(ike_sa, message, path)
        if payloads is None:
            return
        ike_sa.requests.complete(header.message_id)
        ike_sa.arm_retransmission()
        ike_sa.heard()
        self._follow_path(ike_sa, path)
        try:
            if isinstance(payloads, PeerError):
                raise payloads
            check_rules(payloads, header.exchange_type, is_response=True)
        except PeerError as error:
            # Authentic and malformed: fatal for both sides (RFC 7296 §2.21.3).
            failure = Failure(reason=FailureReason.INVALID_SYNTAX, detail=f"malformed response: {error}")
            self.end(ike_sa, failure)
            return
        received = Received(
            exchange_type=header.exchange_type,
            message_id=header.message_id,
            payloads=payloads,
            path=path,
            datagram=message.datagram,
        )
        self._advance(task, received)

    def _take_init_response(self, ike_sa: IkeSa, task: Task, message: Message, path: Path) -> None:
        """Hand on a response that nobody authenticated; whether it is believed is IKE_SA_INIT's business."""
        if path.remote != ike_sa.path.remote or message.protected is not None:
            self._drop(path, DropReason.IKE_UNEXPECTED, "no IKE_SA_INIT response of this peer")
            return
        try:
            check_rules(message.payloads, message.header.exchange_type, is_response=True)
        except PeerError as error:
            self._drop(path, DropReason.IKE_MALFORMED, str(error))
            return
        received = Received(
            exchange_type=message.header.exchange_type,
            message_id=0,
            payloads=message.payloads,
            path=path,
            datagram=message.datagram,
        )
        self._advance(task, received)

    def _open(self, ike_sa: IkeSa, message: Message, path: Path) -> tuple[Payload, ...] | PeerError | None:
        """Return the payloads inside SK; the error of an authentic but malformed message; None if dropped."""
        if ike_sa.protection is None or not isinstance(message.protected, EncryptedPayload):
            self._drop(path, DropReason.IKE_UNEXPECTED, "a protected message was expected")
            return None
        try:
            return ike_sa.protection.open(message)
        except IntegrityFailed as error:
            self._drop(path, DropReason.IKE_INTEGRITY, str(error))
            return None
        except InvalidSyntax as error:
            return error

    def _follow_path(self, ike_sa: IkeSa, path: Path) -> None:
        """Follow a peer behind a NAT, or one that floats to port 4500, now that it is authentic."""
        floats = ike_sa.state is IkeSaState.HALF_OPEN
        if path != ike_sa.path and (floats or (ike_sa.nat.remote and not ike_sa.nat.local)):
            ike_sa.follow_path(path)

    def _drop(self, path: Path, reason: DropReason, detail: str) -> None:
        self._context.emit(DatagramDropped(reason=reason, path=path, detail=detail))

    # --- running ----------------------------------------------------------------------------------

    def _start(self, ike_sa: IkeSa, role: TaskRole, steps: Steps[None], plan: Plan | None = None) -> Task:
        task = Task(self._context.new_task_id(), ike_sa, role, steps, plan)
        self._tasks[task.task_id] = task
        return task

    def start_chore(self, ike_sa: IkeSa, steps: Steps[None]) -> None:
        """Run steps that hold nobody up."""
        task = self._start(ike_sa, TaskRole.CHORE, steps)
        ike_sa.background.append(task)
        self._advance(task, None)

    def _advance(self, task: Task, answer: Answer | Denied) -> None:
        """Resume a task until it waits for something or is done."""
        task.pending = None
        while True:
            try:
                step = task.steps.throw(answer) if isinstance(answer, Denied) else task.steps.send(answer)
                answer = None
                if self._do(task, step):
                    return
            except StopIteration:
                self._finish(task)
                break
            except IkeSaGone as gone:
                self._finish(task)
                self.end(task.ike_sa, gone.failure)
                break
            except (PeerError, Denied) as error:
                self._finish(task)
                failure = Failure(reason=FailureReason.INVALID_SYNTAX, detail=str(error))
                self.end(task.ike_sa, failure)
                break
        self._retire_superseded(task.ike_sa)
        self.pump(task.ike_sa.heir())

    def _do(self, task: Task, step: Step) -> bool:
        """Do one step; say whether the task waits for an answer."""
        ike_sa, context = task.ike_sa, self._context
        if ike_sa.state is IkeSaState.DELETED and not isinstance(step, NeedInstall | NeedSpi):
            task.steps.close()
            self._finish(task)
            return True
        match step:
            case NeedSpi():
                request_id = self._await_result(task, step)
                context.ask(SpiRequest(request_id=request_id, connection=step.connection, child=step.child))
            case NeedInstall():
                request_id = self._await_result(task, step)
                context.ask(InstallRequest(request_id=request_id, sa=step.sa, replaces=step.replaces))
            case NeedCredential():
                request_id = self._await_result(task, step)
                context.ask(
                    CredentialRequest(
                        request_id=request_id,
                        connection=step.connection,
                        local_id=step.local_id,
                        remote_id=step.remote_id,
                    )
                )
            case SendRequest():
                task.pending = step
                self._send_request(ike_sa, step)
            case AwaitResponse():
                task.pending = step
                if step.grace_s is not None and not task.grace:
                    task.grace = True
                    self._set_task_timer(task, Timer.PAUSE, step.grace_s)
            case SendResponse():
                self._send_response(task, step)
                return False
            case Established():
                self._established(ike_sa)
                return False
            case Adopt():
                self._adopt(ike_sa)
                return False
        return True

    def _await_result(self, task: Task, step: Step) -> RequestId:
        request_id = self._context.new_request_id()
        task.pending = step
        self._running[request_id] = task
        key = TimerKey(task.task_id, Timer.REQUEST_DEADLINE, request_id)
        self._context.timers.set(key, self._context.now + self._context.options.request_deadline_s)
        return request_id

    def _set_task_timer(self, task: Task, timer: Timer, wait_s: float) -> None:
        self._context.timers.set(TimerKey(task.task_id, timer), self._context.now + wait_s)

    def _send_request(self, ike_sa: IkeSa, step: SendRequest) -> None:
        message_id = 0 if step.is_restart else ike_sa.requests.next_id
        header = ike_sa.header(step.exchange_type, message_id, is_response=False)
        if ike_sa.protection is None:
            datagrams = (encode_message(header, step.payloads),)
        else:
            datagrams = (ike_sa.protection.seal(header, step.payloads),)
        if step.is_restart:
            ike_sa.requests.restart(datagrams, self._context.now)
        else:
            ike_sa.requests.send(datagrams, self._context.now)
        ike_sa.arm_retransmission()
        ike_sa.send(datagrams)

    def _send_response(self, task: Task, step: SendResponse) -> None:
        ike_sa, received = task.ike_sa, task.received
        assert received is not None
        assert ike_sa.protection is not None
        exchange_type = ExchangeType(received.exchange_type)
        header = ike_sa.header(exchange_type, received.message_id, is_response=True)
        datagrams = (ike_sa.protection.seal(header, step.payloads),)
        ike_sa.responses.respond(received.message_id, datagrams)
        # To where the request came from, whatever that is (RFC 7296 §2.11).
        ike_sa.send(datagrams, received.path)
        ike_sa.responding = None
        task.role = TaskRole.CHORE
        ike_sa.background.append(task)

    def _finish(self, task: Task) -> None:
        """Take a task that is done, or is to be done no more, out of its slot."""
        ike_sa = task.ike_sa
        if ike_sa.initiating is task:
            ike_sa.initiating = None
        if ike_sa.responding is task:
            ike_sa.responding = None
            ike_sa.responses.abandon()
        if task in ike_sa.background:
            ike_sa.background.remove(task)
        self._tasks.pop(task.task_id, None)
        self._context.timers.cancel_owner(task.task_id)
        for request_id in [number for number, waiting in self._running.items() if waiting is task]:
            self._give_up(request_id, task)

    def _give_up(self, request_id: RequestId, task: Task) -> None:
        """Forget a request; remember what may still be installed for it."""
        self._running.pop(request_id, None)
        self._context.timers.cancel(TimerKey(task.task_id, Timer.REQUEST_DEADLINE, request_id))
        if isinstance(task.pending, NeedInstall):
            while len(self._late_installs) >= MAX_LATE_INSTALLS:
                del self._late_installs[next(iter(self._late_installs))]
            self._late_installs[request_id] = task.pending.sa.sa_id

    def _abort(self, task: Task, gone: IkeSaGone) -> None:
        """End a task because its IKE SA is gone; it may say what failed, and nothing more."""
        self._finish(task)
        try:
            task.steps.throw(gone)
        except (StopIteration, IkeSaGone, PeerError, Denied):
            return
        task.steps.close()

    # --- results ----------------------------------------------------------------------------------

    def resolve(self, request_id: RequestId, result: Result) -> None:
        """Answer a request; see `Endpoint.resolve`."""
        task = self._running.get(request_id)
        if task is None:
            late = self._late_installs.pop(request_id, None)
            if late is not None and isinstance(result, Installed):
                self._context.remove_sas((late,))
            return
        assert task.pending is not None
        if isinstance(result, Refused):
            answer: Result | Denied = as_exception(result)
        elif type(result) is expected_result(task.pending):
            answer = result
        else:
            raise LocalError(f"request {request_id} is not answered by {type(result).__name__}")
        del self._running[request_id]
        self._context.timers.cancel(TimerKey(task.task_id, Timer.REQUEST_DEADLINE, request_id))
        self._advance(task, answer)

    # --- plans ------------------------------------------------------------------------------------

    def pump(self, ike_sa: IkeSa) -> None:
        """Start what waits, as far as the request window is free."""
        while ike_sa.initiating is None and ike_sa.plans and ike_sa.requests.is_free:
            if ike_sa.state not in AUTHENTICATED_STATES:
                return
            plan = ike_sa.plans.popleft()
            steps = _begin(ike_sa, plan)
            if steps is not None:
                ike_sa.initiating = self._start(ike_sa, TaskRole.INITIATOR, steps, plan)
                self._advance(ike_sa.initiating, None)

    # --- established ------------------------------------------------------------------------------

    def _established(self, ike_sa: IkeSa) -> None:
        ike_sa.is_told = True
        self._context.authenticated[ike_sa.id] = ike_sa.connection.name
        self._context.emit(IkeSaEstablished(ike_sa=ike_sa.info()))
        for other in [other for other in self._ike_sas.values() if _is_same_pair(ike_sa, other)]:
            self._settle_duplicate(ike_sa, other)

    def _settle_duplicate(self, ike_sa: IkeSa, other: IkeSa) -> None:
        """Decide about an older IKE SA with the same identities.

        The peer says INITIAL_CONTACT when it knows no other IKE SA: one that was established before this
        one began is gone at its end (RFC 7296 §2.4). One that crossed with this one is not: both sides
        started at once. Then the IKE SA with the lowest nonce goes, as in §2.8.2: whoever initiated it
        deletes it, and if it does not (other implementations need not), we do it a little later.
        """
        assert other.established_at is not None
        if other.established_at < ike_sa.began_at:
            if ike_sa.had_initial_contact and self._context.options.accept_initial_contact:
                detail = "the peer made INITIAL_CONTACT: it has lost this IKE SA"
                self.end(other, Failure(reason=FailureReason.REPLACED, detail=detail))
            return
        if ike_sa.is_initiator is other.is_initiator:
            return
        loser = min((ike_sa, other), key=lambda sa: min(sa.nonce_i, sa.nonce_r))
        if loser.is_initiator:
            winner = other if loser is ike_sa else ike_sa
            winner.supersedes = loser
            self._retire_superseded(winner)
        else:
            loser.set_timer(Timer.IKE_LINGER, self._context.now + self._context.options.duplicate_grace_s)

    def _retire_superseded(self, winner: IkeSa) -> None:
        """Delete the other one of two IKE SAs, once this one's Child SAs carry the traffic; none is lost."""
        loser = winner.supersedes
        if loser is None or winner.initiating or winner.responding or winner.background:
            return
        if winner.state not in SERVING_STATES or loser.state not in SERVING_STATES:
            winner.supersedes = None
            return
        if loser.initiating or loser.responding or loser.background:
            return
        winner.supersedes = None
        detail = "both sides started at once; the other IKE SA stays"
        failure = Failure(reason=FailureReason.REPLACED, detail=detail)
        self.ask(loser, Plan(kind=PlanKind.DELETE_IKE, failure=failure), first=True)

    def _adopt(self, old: IkeSa) -> None:
        """Register what a rekey has just made."""
        made, old.newborn = old.newborn, None
        assert made is not None
        self._context.authenticated[made.id] = made.connection.name
        self.add(made)
        self.pump(made)

    # --- timers -----------------------------------------------------------------------------------

    def on_timer(self, key: TimerKey) -> None:
        """Do what a timer was set for."""
        if key.timer in _CHILD_TIMERS:
            self._on_child_timer(ChildSaId(key.owner), key.timer)
        elif key.owner in self._tasks:
            self._on_task_timer(self._tasks[key.owner], key)
        elif key.owner in self._ghosts:
            self._forget(self._ghosts[IkeSaId(key.owner)])
        elif key.owner in self._ike_sas:
            self._on_ike_timer(self._ike_sas[IkeSaId(key.owner)], key)

    def _on_task_timer(self, task: Task, key: TimerKey) -> None:
        if key.timer is Timer.PAUSE:
            # Nothing better than an error notify came.
            self._advance(task, None)
            return
        what = type(task.pending).__name__.removeprefix("Need")
        self._give_up(RequestId(key.subject), task)
        self._advance(task, Denied("DEADLINE", f"{what} was not answered in time"))

    def _on_ike_timer(self, ike_sa: IkeSa, key: TimerKey) -> None:
        now, options = self._context.now, self._context.options
        match key.timer:
            case Timer.RETRANSMIT:
                self._retransmit(ike_sa)
            case Timer.HALF_OPEN:
                detail = f"no valid IKE_AUTH within {options.half_open_timeout_s:g} s"
                self.end(ike_sa, Failure(reason=FailureReason.TIMEOUT, detail=detail))
            case Timer.PAUSE:
                plan = ike_sa.delayed.pop(key.subject, None)
                if plan is not None:
                    self.ask(ike_sa, plan)
            case Timer.IKE_REKEY:
                self.ask(ike_sa, Plan(kind=PlanKind.REKEY_IKE))
            case Timer.IKE_EXPIRE:
                self._expire(ike_sa)
            case Timer.IKE_LINGER:
                detail = "it was replaced, and the peer did not delete it"
                failure = Failure(reason=FailureReason.REPLACED, detail=detail)
                self.ask(ike_sa, Plan(kind=PlanKind.DELETE_IKE, failure=failure), first=True)
            case Timer.LIVENESS:
                self._check_silence(ike_sa)
            case Timer.KEEPALIVE:
                self._context.send(ike_sa.path, KEEPALIVE)
                ike_sa.set_timer(Timer.KEEPALIVE, now + options.keepalive_s)

    def _expire(self, ike_sa: IkeSa) -> None:
        """End an IKE SA at its hard lifetime, whatever it is doing; say so once where the window is free."""
        if ike_sa.initiating is None and ike_sa.requests.is_free:
            delete = DeletePayload(ProtocolId.IKE)
            self._send_request(
                ike_sa, SendRequest(exchange_type=ExchangeType.INFORMATIONAL, payloads=[delete])
            )
        detail = "the IKE SA reached its hard lifetime without a successful rekey"
        self.end(ike_sa, Failure(reason=FailureReason.LIFETIME_EXPIRED, detail=detail))

    def _retransmit(self, ike_sa: IkeSa) -> None:
        due = ike_sa.requests.tick(self._context.now)
        match due:
            case Retransmit():
                ike_sa.send(due.datagrams)
                ike_sa.arm_retransmission()
            case GiveUp():
                self.end(ike_sa, unresponsive(ike_sa, due.sent, due.waited_s))
            case None:
                ike_sa.arm_retransmission()

    def _check_silence(self, ike_sa: IkeSa) -> None:
        """Ask for a sign of life after enough silence; a request that is under way does as well."""
        delay_s = ike_sa.connection.ike.dpd_delay_s
        quiet_until = ike_sa.last_heard_at + delay_s
        if quiet_until > self._context.now:
            ike_sa.set_timer(Timer.LIVENESS, quiet_until)
            return
        ike_sa.set_timer(Timer.LIVENESS, self._context.now + delay_s)
        if ike_sa.initiating is None:
            self.ask(ike_sa, Plan(kind=PlanKind.LIVENESS))

    def _on_child_timer(self, child_sa_id: ChildSaId, timer: Timer) -> None:
        if timer is Timer.REMOVE_INBOUND:
            self._context.remove_sas(self._context.lingering.pop(child_sa_id, ()))
            return
        found = self.find_child(child_sa_id)
        if found is None:
            return
        ike_sa, child_sa = found
        match timer:
            case Timer.CHILD_REKEY:
                self.rekey_child(ike_sa, child_sa)
            case Timer.CHILD_EXPIRE:
                self.expire_child(ike_sa, child_sa, "its lifetime in seconds")
            case Timer.CHILD_SWITCH:
                self.start_chore(ike_sa, rekey_child_sa.switch_outbound(ike_sa, child_sa))
            case _:
                detail = "it was replaced, and the peer did not delete it"
                failure = Failure(reason=FailureReason.REPLACED, detail=detail)
                self.ask(ike_sa, Plan(kind=PlanKind.DELETE_CHILD, child_sa_id=child_sa_id, failure=failure))

    # --- commands ---------------------------------------------------------------------------------

    def ask(self, ike_sa: IkeSa, plan: Plan, *, first: bool = False) -> None:
        """Do something as soon as the request window is free."""
        ike_sa.plan(plan, first=first)
        self.pump(ike_sa)

    def rekey_child(self, ike_sa: IkeSa, child_sa: ChildSa) -> None:
        """Replace a Child SA, unless that is under way."""
        if child_sa.state is ChildSaState.INSTALLED:
            self.ask(ike_sa, Plan(kind=PlanKind.REKEY_CHILD, child_sa_id=child_sa.child_sa_id))

    def expire_child(self, ike_sa: IkeSa, child_sa: ChildSa, limit: str) -> None:
        """Stop using a Child SA at once, and delete it with the peer."""
        self._context.remove_sas(child_sa.installed_sa_ids)
        child_sa.is_inbound_installed = child_sa.is_outbound_installed = False
        failure = Failure(
            reason=FailureReason.LIFETIME_EXPIRED, detail=f"the Child SA reached the hard limit of {limit}"
        )
        self.ask(
            ike_sa,
            Plan(kind=PlanKind.DELETE_CHILD, child_sa_id=child_sa.child_sa_id, failure=failure),
            first=True,
        )

    def note_traffic(self, ike_sa: IkeSa, child_sa: ChildSa) -> None:
        """Take authenticated inbound traffic as a sign of life, and of the peer using this Child SA."""
        ike_sa.heard()
        if rekey_child_sa.is_ready_to_switch(ike_sa, child_sa):
            self.start_chore(ike_sa, rekey_child_sa.switch_outbound(ike_sa, child_sa))


# --- which exchange -----------------------------------------------------------------------------

_CHILD_TIMERS = frozenset(
    {
        Timer.CHILD_REKEY,
        Timer.CHILD_EXPIRE,
        Timer.CHILD_SWITCH,
        Timer.CHILD_LINGER,
        Timer.REMOVE_INBOUND,
    }
)


def _bring_up(ike_sa: IkeSa, child: Child) -> Steps[None]:
    yield from ike_sa_init.initiate(ike_sa)
    yield from ike_auth.initiate(ike_sa, child)


def _begin(ike_sa: IkeSa, plan: Plan) -> Steps[None] | None:
    """Return the exchange of a plan; None if there is nothing left to do."""
    begin = _PLANS.get(plan.kind)
    return None if begin is None else begin(ike_sa, plan)


def _begin_new_child(ike_sa: IkeSa, plan: Plan) -> Steps[None] | None:
    child = next((c for c in ike_sa.connection.children if c.name == plan.child), None)
    if child is None or ike_sa.state not in SERVING_STATES or ike_sa.find_carrying(plan.child) is not None:
        return None
    return create_child_sa.initiate(ike_sa, child, plan.attempt)


def _begin_rekey_child(ike_sa: IkeSa, plan: Plan) -> Steps[None] | None:
    child_sa = None if plan.child_sa_id is None else ike_sa.children.get(plan.child_sa_id)
    if child_sa is None or child_sa.state is not ChildSaState.INSTALLED or ike_sa.state not in SERVING_STATES:
        return None
    return rekey_child_sa.initiate(ike_sa, child_sa)


def _begin_rekey_ike(ike_sa: IkeSa, _plan: Plan) -> Steps[None] | None:
    # One that nobody was told of may be the half of a collision that goes: not ours to renew.
    may = ike_sa.state is IkeSaState.ESTABLISHED and ike_sa.is_told
    return rekey_ike_sa.initiate(ike_sa) if may else None


def _begin_delete_child(ike_sa: IkeSa, plan: Plan) -> Steps[None] | None:
    child_sa = None if plan.child_sa_id is None else ike_sa.children.get(plan.child_sa_id)
    if child_sa is None or child_sa.state in (ChildSaState.DELETING, ChildSaState.DELETED):
        return None
    assert plan.failure is not None
    return informational.delete_child(ike_sa, child_sa, plan.failure)


def _begin_delete_ike(ike_sa: IkeSa, plan: Plan) -> Steps[None] | None:
    assert plan.failure is not None
    return None if ike_sa.state is IkeSaState.DELETING else informational.delete_ike(ike_sa, plan.failure)


def _begin_liveness(_ike_sa: IkeSa, _plan: Plan) -> Steps[None] | None:
    return informational.check_liveness()


_PLANS: dict[PlanKind, Callable[[IkeSa, Plan], Steps[None] | None]] = {
    PlanKind.NEW_CHILD: _begin_new_child,
    PlanKind.REKEY_CHILD: _begin_rekey_child,
    PlanKind.REKEY_IKE: _begin_rekey_ike,
    PlanKind.DELETE_CHILD: _begin_delete_child,
    PlanKind.DELETE_IKE: _begin_delete_ike,
    PlanKind.LIVENESS: _begin_liveness,
}


def _is_legal(ike_sa: IkeSa, exchange_type: int) -> bool:
    """Tell whether the peer may ask for this exchange now."""
    if exchange_type == ExchangeType.IKE_AUTH:
        return ike_sa.state is IkeSaState.HALF_OPEN
    known = exchange_type in (ExchangeType.CREATE_CHILD_SA, ExchangeType.INFORMATIONAL)
    return known and ike_sa.state in AUTHENTICATED_STATES


def _respond(ike_sa: IkeSa, received: Received) -> Steps[None]:
    if received.exchange_type == ExchangeType.IKE_AUTH:
        return ike_auth.respond(ike_sa, received)
    if ike_sa.predecessor is not None and not informational.ends_ike_sa(received):
        rekey_ike_sa.take_over(ike_sa)
    if received.exchange_type == ExchangeType.INFORMATIONAL:
        return informational.respond(ike_sa, received)
    sa = find_payload(received.payloads, SaPayload)
    if sa is not None and any(proposal.protocol == ProtocolId.IKE for proposal in sa.proposals):
        return rekey_ike_sa.respond(ike_sa, received)
    if ike_sa.state is not IkeSaState.ESTABLISHED:
        # RFC 7296 §2.25.2: not while the IKE SA is being rekeyed or closed.
        return _answer([NotifyPayload(NotifyType.TEMPORARY_FAILURE)])
    rekey = find_notify(received.payloads, NotifyType.REKEY_SA)
    if rekey is not None:
        return rekey_child_sa.respond(ike_sa, received, rekey)
    return create_child_sa.respond(ike_sa, received)


def _answer(payloads: list[Payload]) -> Steps[None]:
    yield SendResponse(payloads=payloads)


def _refuse(ike_sa: IkeSa, error: PeerError) -> Steps[None]:
    """Answer an authentic request that breaks the rules.

    INVALID_SYNTAX ends the IKE SA on both sides (RFC 7296 §2.21.3), anything does in IKE_AUTH (§2.21.2).
    """
    yield SendResponse(payloads=[NotifyPayload(error.notify or NotifyType.INVALID_SYNTAX, error.data)])
    if error.notify != NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD or ike_sa.state not in AUTHENTICATED_STATES:
        reasons = {NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD: FailureReason.UNSUPPORTED_CRITICAL_PAYLOAD}
        notify = NotifyType(error.notify or NotifyType.INVALID_SYNTAX)
        reason = reasons.get(notify, FailureReason.INVALID_SYNTAX)
        raise IkeSaGone(Failure(reason=reason, detail=f"request refused: {error}", notify=notify.name))


def _awaited_exchange(task: Task) -> int | None:
    if isinstance(task.pending, SendRequest):
        return task.pending.exchange_type
    return ExchangeType.IKE_SA_INIT if isinstance(task.pending, AwaitResponse) else None


def _is_same_pair(ike_sa: IkeSa, other: IkeSa) -> bool:
    def pair(sa: IkeSa) -> tuple[str, Identity | None, Identity | None]:
        return sa.connection.name, sa.local_id, sa.remote_id

    return other is not ike_sa and other.state in SERVING_STATES and pair(ike_sa) == pair(other)
