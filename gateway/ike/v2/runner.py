"""Runs the exchanges: does their steps, brings the answers, starts what waits, ends IKE SAs.

An IKE SA has one slot for an exchange of ours, one for a request of the peer's, and any number of chores.
Whatever is asked for while the first slot is taken waits in the IKE SA's `plans` (window size 1, RFC 7296
§2.3). A generator that is resumed may end the IKE SA; look at nothing of it afterwards without asking.
"""

from gateway.ike.errors import LocalError, PeerError
from gateway.ike.events import (
    CredentialRequest,
    Failure,
    FailureReason,
    IkeSaDeleted,
    IkeSaEstablished,
    IkeSaFailed,
    Installed,
    InstallRequest,
    Refused,
    RequestId,
    Result,
    SignRequest,
    SpiRequest,
    TrustRequest,
)
from gateway.ike.path import Path
from gateway.ike.timers import Timer, TimerKey
from gateway.ike.v2.child_sa import ChildSa
from gateway.ike.v2.context import Context
from gateway.ike.v2.dispatch import begin, bring_up
from gateway.ike.v2.exchange import (
    Adopt,
    Answer,
    AwaitResponse,
    AwaitTakeover,
    CheckUnique,
    Denied,
    Established,
    IkeSaGone,
    LetTakeOver,
    NeedCredential,
    NeedInstall,
    NeedSignature,
    NeedSpi,
    NeedTrust,
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
from gateway.ike.v2.fragmentation import SENDINGS_BEFORE_SMALLER, smaller_packet_bytes
from gateway.ike.v2.ike_sa import IkeSa, Task, TaskRole
from gateway.ike.v2.ike_sa_table import IkeSaTable
from gateway.ike.v2.reauthentication import start_clock
from gateway.ike.v2.states import AUTHENTICATED_STATES, IkeSaState, IkeSaTrigger
from gateway.ike.v2.takeover import Takeovers
from gateway.ike.v2.uniqueness import Uniqueness
from gateway.ike.v2.window import Datagrams
from gateway.ike.wire.header import ExchangeType, IkeHeader
from gateway.ike.wire.message import encode_message
from gateway.ike.wire.payloads import DeletePayload
from gateway.ipsec.connection import Child
from gateway.ipsec.proposal import ProtocolId
from gateway.ipsec.sa import SaId

MAX_LATE_INSTALLS = 1024
"""Installations that were given up and may still happen: so many are remembered, to be taken back."""


class Runner:
    """The exchanges that are under way in all IKE SAs of an endpoint."""

    __slots__ = ("_context", "_ike_sas", "_late_installs", "_running", "_tasks", "takeovers", "uniqueness")

    def __init__(self, context: Context, ike_sas: IkeSaTable) -> None:
        self._context = context
        self._ike_sas = ike_sas
        self._tasks: dict[int, Task] = {}
        self._running: dict[RequestId, Task] = {}
        self._late_installs: dict[RequestId, SaId] = {}
        self.uniqueness = Uniqueness(context, ike_sas, self)
        self.takeovers = Takeovers(context, ike_sas, self)

    # --- starting ---------------------------------------------------------------------------------

    def bring_up(self, ike_sa: IkeSa, child: Child | None) -> None:
        """Start IKE_SA_INIT and IKE_AUTH as initiator; without a Child, the IKE SA is to be childless."""
        plan = Plan(kind=PlanKind.IKE_SA_INIT, child="" if child is None else child.name)
        ike_sa.initiating = self._start(ike_sa, TaskRole.INITIATOR, bring_up(ike_sa, child), plan)
        self._advance(ike_sa.initiating, None)

    def answer(self, ike_sa: IkeSa, steps: Steps[None], received: Received) -> None:
        """Start the exchange that answers a request of the peer's."""
        task = self._start(ike_sa, TaskRole.RESPONDER, steps)
        task.received = received
        ike_sa.responding = task
        self._advance(task, None)

    def start_chore(self, ike_sa: IkeSa, steps: Steps[None]) -> None:
        """Run steps that hold nobody up."""
        task = self._start(ike_sa, TaskRole.CHORE, steps)
        ike_sa.background.append(task)
        self._advance(task, None)

    def ask(self, ike_sa: IkeSa, plan: Plan, *, first: bool = False) -> None:
        """Do something as soon as the request window is free."""
        ike_sa.plan(plan, first=first)
        self.pump(ike_sa)

    def pump(self, ike_sa: IkeSa) -> None:
        """Start what waits, as far as the request window is free."""
        while ike_sa.initiating is None and ike_sa.plans and ike_sa.requests.is_free:
            if ike_sa.state not in AUTHENTICATED_STATES:
                return
            plan = ike_sa.plans.pop(0)
            steps = begin(ike_sa, plan)
            if steps is not None:
                ike_sa.initiating = self._start(ike_sa, TaskRole.INITIATOR, steps, plan)
                self._advance(ike_sa.initiating, None)

    def _start(self, ike_sa: IkeSa, role: TaskRole, steps: Steps[None], plan: Plan | None = None) -> Task:
        task = Task(self._context.new_task_id(), ike_sa, role, steps, plan)
        self._tasks[task.task_id] = task
        return task

    # --- going on ---------------------------------------------------------------------------------

    def take_response(self, task: Task, received: Received) -> None:
        """Bring an exchange of ours the response it waits for."""
        self._advance(task, received)

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
        task.request_id = None
        del self._running[request_id]
        self._context.timers.cancel(TimerKey(task.task_id, Timer.REQUEST_DEADLINE, request_id))
        self._advance(task, answer)

    def resume(self, task: Task) -> None:
        """Go on with a task that waited for a takeover."""
        self._advance(task, None)

    def is_installing(self, child_sa: ChildSa) -> bool:
        """Say whether the datapath was asked for one of the SAs of a Child SA and has not answered."""
        names = (child_sa.pair.inbound.sa_id, child_sa.pair.outbound.sa_id)
        pending = (task.pending for task in self._running.values())
        return any(isinstance(step, NeedInstall) and step.sa.sa_id in names for step in pending)

    def find_task(self, number: int) -> Task | None:
        """Return a running exchange by its number: the owner of its timers."""
        return self._tasks.get(number)

    def on_timer(self, task: Task, key: TimerKey) -> None:
        """Go on without what was waited for too long."""
        if key.timer is Timer.PAUSE:
            # Nothing better than an error notify came, or nothing that a takeover could wait for.
            self._advance(task, None)
            return
        what = type(task.pending).__name__.removeprefix("Need")
        self._give_up(RequestId(key.subject), task)
        self._advance(task, Denied("DEADLINE", f"{what} was not answered in time"))

    def _advance(self, task: Task, answer: Answer | Denied) -> None:
        """Resume a task until it waits for something or is done."""
        self.takeovers.forget(task)
        task.pending = None
        while True:
            try:
                step = task.steps.throw(answer) if isinstance(answer, Denied) else task.steps.send(answer)
                answer = None
                if isinstance(step, CheckUnique):
                    answer = self.uniqueness.refusal(task.ike_sa)
                elif self._do(task, step):
                    return
            except StopIteration:
                self._finish(task)
                break
            except IkeSaGone as gone:
                self._finish(task)
                (self.end_with_delete if gone.is_told else self.end)(task.ike_sa, gone.failure)
                break
            except (PeerError, Denied) as error:
                self._finish(task)
                failure = Failure(reason=FailureReason.INVALID_SYNTAX, detail=str(error))
                self.end(task.ike_sa, failure)
                break
        self.takeovers.settle()
        self.uniqueness.at_rest(task.ike_sa)
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
            case NeedSignature():
                context.ask(
                    SignRequest(
                        request_id=self._await_result(task, step),
                        connection=step.connection,
                        public_key=step.public_key,
                        scheme=step.scheme,
                        octets=step.octets,
                    )
                )
            case NeedTrust():
                context.ask(
                    TrustRequest(
                        request_id=self._await_result(task, step),
                        connection=step.connection,
                        remote_id=step.remote_id,
                        certificates=step.certificates,
                        public_keys=step.public_keys,
                    )
                )
            case SendRequest():
                task.pending = step
                self.send_request(ike_sa, step)
            case AwaitResponse():
                task.pending = step
                if step.grace_s is not None and not task.grace:
                    task.grace = True
                    self._set_task_timer(task, Timer.PAUSE, step.grace_s)
            case SendResponse():
                self._send_response(task, step)
                return False
            case AwaitTakeover() | LetTakeOver():
                return self.takeovers.park(task, step)
            case Established():
                self._established(ike_sa)
                return False
            case Adopt():
                self._adopt(ike_sa)
                return False
        return True

    def _await_result(self, task: Task, step: Step) -> RequestId:
        request_id = self._context.new_request_id()
        task.pending, task.request_id = step, request_id
        self._running[request_id] = task
        key = TimerKey(task.task_id, Timer.REQUEST_DEADLINE, request_id)
        self._context.timers.set(key, self._context.now + self._context.options.request_deadline_s)
        return request_id

    def _set_task_timer(self, task: Task, timer: Timer, wait_s: float) -> None:
        self._context.timers.set(TimerKey(task.task_id, timer), self._context.now + wait_s)

    def send_request(self, ike_sa: IkeSa, step: SendRequest) -> None:
        """Send a request, protected where there are keys; from here on it is retransmitted."""
        message_id = 0 if step.is_restart else ike_sa.requests.next_id
        header = ike_sa.header(step.exchange_type, message_id, is_response=False)
        if ike_sa.protection is None:
            datagrams: Datagrams = (encode_message(header, step.payloads),)
        else:
            datagrams = ike_sa.seal(header, step.payloads)
        if step.is_restart:
            ike_sa.requests.restart(datagrams, self._context.now)
        else:
            ike_sa.requests.send(datagrams, self._context.now)
        ike_sa.arm_retransmission()
        ike_sa.send(datagrams)

    def divide_smaller(self, ike_sa: IkeSa) -> bool:
        """Send the outstanding request in smaller fragments if it goes unanswered (RFC 7383 §2.5.2).

        Its waits start again. What comes later in this IKE SA is divided alike.

        Returns:
            Whether that was done: it was sent often enough, and there are smaller fragments of it.
        """
        outstanding, task, tried = ike_sa.requests.outstanding, ike_sa.initiating, ike_sa.max_packet_bytes
        if outstanding is None or outstanding.sent <= SENDINGS_BEFORE_SMALLER or tried is None:
            return False
        smaller = smaller_packet_bytes(ike_sa.path, tried, outstanding.datagrams[0])
        if smaller is None or task is None or not isinstance(task.pending, SendRequest):
            return False
        ike_sa.max_packet_bytes = smaller
        header = ike_sa.header(task.pending.exchange_type, outstanding.message_id, is_response=False)
        datagrams = ike_sa.seal(header, task.pending.payloads)
        if len(datagrams) <= len(outstanding.datagrams):
            # The peer would take them for what it has of the larger ones (§2.6).
            return False
        ike_sa.requests.divide(datagrams, self._context.now)
        ike_sa.arm_retransmission()
        ike_sa.send(datagrams)
        return True

    def _send_response(self, task: Task, step: SendResponse) -> None:
        ike_sa, received = task.ike_sa, task.received
        assert received is not None
        exchange_type = ExchangeType(received.exchange_type)
        header = ike_sa.header(exchange_type, received.message_id, is_response=True)
        datagrams = ike_sa.seal(header, step.payloads, received.path)
        ike_sa.responses.respond(received.message_id, datagrams)
        tried = ike_sa.max_packet_bytes
        can_shrink = (
            tried is not None and smaller_packet_bytes(received.path, tried, datagrams[0]) is not None
        )
        ike_sa.last_response = step.payloads if can_shrink else ()
        # To where the request came from, whatever that is (RFC 7296 §2.11).
        ike_sa.send(datagrams, received.path)
        ike_sa.responding = None
        task.role = TaskRole.CHORE
        ike_sa.background.append(task)

    def repeat_response(self, ike_sa: IkeSa, header: IkeHeader, path: Path) -> None:
        """Answer a request that was answered before, byte for byte (RFC 7296 §2.1).

        A request that keeps coming may mean that the answer is too large for the path: then it is divided
        into smaller fragments (RFC 7383 §2.5.2), and what comes later in this IKE SA alike.

        Args:
            ike_sa: The IKE SA.
            header: Of the repeated request, which was authenticated.
            path: Where it came from.
        """
        ike_sa.send(self._divide_response(ike_sa, header, path) or ike_sa.responses.repeat(), path)

    def _divide_response(self, ike_sa: IkeSa, header: IkeHeader, path: Path) -> Datagrams:
        """Return the last response in smaller fragments; nothing if it is to be repeated as it is."""
        responses, tried = ike_sa.responses, ike_sa.max_packet_bytes
        if responses.sent < SENDINGS_BEFORE_SMALLER or tried is None or not ike_sa.last_response:
            return ()
        smaller = smaller_packet_bytes(path, tried, responses.cached_response[0])
        if smaller is None:
            return ()
        ike_sa.max_packet_bytes = smaller
        exchange_type = ExchangeType(header.exchange_type)
        answer = ike_sa.header(exchange_type, header.message_id, is_response=True)
        datagrams = ike_sa.seal(answer, ike_sa.last_response, path)
        if len(datagrams) <= len(responses.cached_response):
            return ()
        responses.divide(datagrams)
        return datagrams

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
        self.takeovers.forget(task)
        self._context.timers.cancel_owner(task.task_id)
        if task.request_id is not None:
            self._give_up(task.request_id, task)

    def _give_up(self, request_id: RequestId, task: Task) -> None:
        """Forget a request; remember what may still be installed for it."""
        task.request_id = None
        del self._running[request_id]
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

    # --- ending -----------------------------------------------------------------------------------

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
            ike_sa.end_child(child_sa, failure, has_twin=self._ike_sas.has_twin(ike_sa, child_sa))
        if ike_sa.established_at is not None:
            for plan in (*ike_sa.plans, *ike_sa.delayed.values()):
                if plan.kind is PlanKind.NEW_CHILD:
                    ike_sa.child_failed(plan.child, failure, cpu=plan.cpu)
        ike_sa.plans.clear()
        ike_sa.delayed.clear()
        ike_sa.fragments.clear()
        self._context.timers.cancel_owner(ike_sa.id)
        self._context.half_open.discard(ike_sa.id)
        self._context.forget_init(ike_sa.init_path, ike_sa.spi_i)
        if ike_sa.keys is not None:
            ike_sa.keys.wipe()
        may_repeat = was is not IkeSaState.HALF_OPEN and bool(ike_sa.responses.cached_response)
        self._ike_sas.remove(ike_sa, as_ghost=may_repeat)
        self.takeovers.settle()
        self.uniqueness.ended(ike_sa)
        rival, ike_sa.rival, ike_sa.rival_sa = ike_sa.rival_sa, None, None
        if rival is not None and rival.state is not IkeSaState.DELETED:
            # What the peer's rekey made of it took nothing over: it ends as well.
            self.end_with_delete(rival, failure)
        if ike_sa.successor is not None:
            self.pump(ike_sa.heir())
        old = ike_sa.predecessor
        if old is not None and old.state is IkeSaState.REKEYED:
            # This was the redundant one of two successors: the peer knows which one stays (RFC 7296 §2.8.2).
            replaced = Failure(reason=FailureReason.REPLACED, detail="the IKE SA was rekeyed")
            self.ask(old, Plan(kind=PlanKind.DELETE_IKE, failure=replaced), first=True)
        if was is IkeSaState.REKEYED or ike_sa.successor is not None:
            return
        if was is IkeSaState.HALF_OPEN and not ike_sa.connection.remote.addresses:
            # A stranger can do this any number of times; `DatagramDropped` counts what came.
            return
        if ike_sa.is_told:
            self._context.emit(IkeSaDeleted(ike_sa=ike_sa.info(), failure=failure))
        elif not ike_sa.is_successor:
            self._context.emit(IkeSaFailed(ike_sa=ike_sa.info(), failure=failure))

    # --- established ------------------------------------------------------------------------------

    def _established(self, ike_sa: IkeSa) -> None:
        ike_sa.is_told = True
        self._ike_sas.note_authenticated(ike_sa)
        self._context.emit(IkeSaEstablished(ike_sa=ike_sa.info()))
        start_clock(ike_sa)
        self.uniqueness.established(ike_sa)

    def end_with_delete(self, ike_sa: IkeSa, failure: Failure) -> None:
        """End an IKE SA now; say so once to the peer where the request window is free."""
        if ike_sa.initiating is None and ike_sa.requests.is_free and ike_sa.state in AUTHENTICATED_STATES:
            delete = DeletePayload(ProtocolId.IKE)
            self.send_request(
                ike_sa, SendRequest(exchange_type=ExchangeType.INFORMATIONAL, payloads=[delete])
            )
        self.end(ike_sa, failure)

    def _adopt(self, old: IkeSa) -> None:
        """Register what a rekey has just made."""
        made, old.newborn = old.newborn, None
        assert made is not None
        made.init_path = old.init_path
        made.limit_authentication(old.reauth_at, old.authentic_until)
        self.uniqueness.inherit(old, made)
        self._ike_sas.add(made)
        self._ike_sas.note_authenticated(made)
        self.pump(made)
