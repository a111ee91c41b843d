"""What makes the exchanges go: messages, timers, and what the datapath and the operator ask for.

A rule a change must keep: classify, authenticate, check the state, and only then accept a message
(`_take_request`).
"""

from gateway.ike.errors import PeerError
from gateway.ike.events import ChildSaId, DatagramDropped, Failure, FailureReason, ReauthenticationDue
from gateway.ike.path import Path
from gateway.ike.timers import Timer, TimerKey
from gateway.ike.v2 import rekey_child_sa
from gateway.ike.v2.child_sa import ChildSa
from gateway.ike.v2.context import Context
from gateway.ike.v2.dispatch import is_legal, refuse, respond
from gateway.ike.v2.exchange import AwaitResponse, Plan, PlanKind, Received, SendRequest
from gateway.ike.v2.hints import Hints
from gateway.ike.v2.ike_sa import IkeSa, Task, unresponsive
from gateway.ike.v2.ike_sa_table import IkeSaTable
from gateway.ike.v2.nat import KEEPALIVE
from gateway.ike.v2.opening import Opener
from gateway.ike.v2.resources import cpus_of
from gateway.ike.v2.runner import Runner
from gateway.ike.v2.states import SERVING_STATES, ChildSaState, IkeSaState
from gateway.ike.v2.window import GiveUp, Incoming, Retransmit
from gateway.ike.wire.header import ExchangeType
from gateway.ike.wire.message import EncryptedFragment, Message
from gateway.ike.wire.rules import check_rules
from gateway.ipsec.drop_reason import DropReason


class Scheduler:
    """Sends every input to the IKE SA and the exchange it is for."""

    __slots__ = ("_context", "_hints", "_ike_sas", "_opener", "_runner")

    def __init__(self, context: Context, ike_sas: IkeSaTable, runner: Runner, hints: Hints) -> None:
        self._hints = hints
        self._context = context
        self._ike_sas = ike_sas
        self._runner = runner
        self._opener = Opener(context)

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
        if incoming is Incoming.ANSWERED_REQUEST:
            self._repeat_response(ike_sa, message, path)
            return
        opened = self._opener.open(ike_sa, message, path)
        if opened is None:
            return
        if not is_legal(ike_sa, header.exchange_type):
            detail = f"exchange {header.exchange_type} while {ike_sa.state.value}"
            self._drop(path, DropReason.IKE_UNEXPECTED, detail)
            return
        payloads = opened.payloads
        ike_sa.responses.accept(header.message_id)
        ike_sa.last_request = opened.datagram
        ike_sa.heard()
        self._follow_path(ike_sa, path)
        received = Received(
            exchange_type=header.exchange_type,
            message_id=header.message_id,
            payloads=() if isinstance(payloads, PeerError) else payloads,
            path=path,
            datagram=opened.datagram,
        )
        try:
            if isinstance(payloads, PeerError):
                raise payloads
            check_rules(received.payloads, header.exchange_type, is_response=False)
            steps = respond(ike_sa, received)
        except PeerError as error:
            steps = refuse(ike_sa, error)
        self._runner.answer(ike_sa, steps, received)
        self._hints.take_authentic(ike_sa, received)

    def _repeat_response(self, ike_sa: IkeSa, message: Message, path: Path) -> None:
        """Answer a request that was answered before.

        Of a fragmented one only the first fragment is answered (RFC 7383 §2.6.1), lest every retransmission
        be answered once per fragment.
        """
        if isinstance(message.protected, EncryptedFragment) and message.protected.number != 1:
            return
        if self._opener.unseal(ike_sa, message, path) is None:
            return
        if ike_sa.state is not IkeSaState.DELETED:
            self._runner.repeat_response(ike_sa, message.header, path)
        elif message.datagram == ike_sa.last_request:
            ike_sa.send(ike_sa.responses.cached_response, path)
        else:
            self._drop(path, DropReason.IKE_UNKNOWN_SPI, "the IKE SA has ended")

    def _take_response(self, ike_sa: IkeSa, message: Message, path: Path) -> None:
        header, task = message.header, ike_sa.initiating
        if message.protected is None:
            self._hints.take_unprotected(ike_sa, message, path)
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
        opened = self._opener.open(ike_sa, message, path)
        if opened is None:
            return
        payloads = opened.payloads
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
            self._runner.end(ike_sa, failure)
            return
        if ike_sa.requests.is_nearly_exhausted and not _is_rekey_of_ike_sa(task):
            ike_sa.plan(Plan(kind=PlanKind.REKEY_IKE))
        received = Received(
            exchange_type=header.exchange_type,
            message_id=header.message_id,
            payloads=payloads,
            path=path,
            datagram=opened.datagram,
        )
        self._runner.take_response(task, received)

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
        self._runner.take_response(task, received)

    def _follow_path(self, ike_sa: IkeSa, path: Path) -> None:
        """Follow a peer behind a NAT, or one that floats to port 4500, now that it is authentic.

        Only a NAT changes addresses; who else sends from another than IKE_SA_INIT was answered at forges it.
        """
        is_same_place = (path.local, path.remote) == (ike_sa.path.local, ike_sa.path.remote)
        floats = ike_sa.state is IkeSaState.HALF_OPEN and is_same_place
        if path != ike_sa.path and (floats or (ike_sa.nat.remote and not ike_sa.nat.local)):
            ike_sa.follow_path(path)

    def _drop(self, path: Path, reason: DropReason, detail: str) -> None:
        self._context.emit(DatagramDropped(reason=reason, path=path, detail=detail))

    # --- timers -----------------------------------------------------------------------------------

    def on_timer(self, key: TimerKey) -> None:
        """Do what a timer was set for."""
        if key.timer in _CHILD_TIMERS:
            self._on_child_timer(ChildSaId(key.owner), key.timer)
        elif (task := self._runner.find_task(key.owner)) is not None:
            self._runner.on_timer(task, key)
        elif (ike_sa := self._ike_sas.find(key.owner)) is not None:
            self._on_ike_timer(ike_sa, key)
        else:
            self._ike_sas.forget_ghost(key.owner)

    def _on_ike_timer(self, ike_sa: IkeSa, key: TimerKey) -> None:
        now, options = self._context.now, self._context.options
        match key.timer:
            case Timer.RETRANSMIT:
                self._retransmit(ike_sa)
            case Timer.REASSEMBLY:
                ike_sa.fragments.clear()
            case Timer.HALF_OPEN:
                detail = f"no valid IKE_AUTH within {options.half_open_timeout_s:g} s"
                self._runner.end(ike_sa, Failure(reason=FailureReason.TIMEOUT, detail=detail))
            case Timer.PAUSE:
                plan = ike_sa.delayed.pop(key.subject, None)
                if plan is not None:
                    self._runner.ask(ike_sa, plan)
            case Timer.IKE_REKEY:
                self._runner.ask(ike_sa, Plan(kind=PlanKind.REKEY_IKE))
            case Timer.IKE_EXPIRE:
                self._expire(ike_sa)
            case Timer.IKE_REAUTH:
                self._reauthenticate(ike_sa)
            case Timer.IKE_UNAUTHENTIC:
                detail = "nobody authenticated anew in time"
                failure = Failure(reason=FailureReason.LIFETIME_EXPIRED, detail=detail)
                self._runner.end_with_delete(ike_sa, failure)
            case Timer.IKE_LINGER:
                detail = "it was replaced, and the peer did not delete it"
                failure = Failure(reason=FailureReason.REPLACED, detail=detail)
                self._runner.ask(ike_sa, Plan(kind=PlanKind.DELETE_IKE, failure=failure), first=True)
            case Timer.LIVENESS:
                self._check_silence(ike_sa)
            case Timer.KEEPALIVE:
                self._context.send(ike_sa.path, KEEPALIVE)
                ike_sa.set_timer(Timer.KEEPALIVE, now + options.keepalive_s)

    def _expire(self, ike_sa: IkeSa) -> None:
        """End an IKE SA at its hard lifetime, whatever it is doing; say so once where the window is free."""
        detail = "the IKE SA reached its hard lifetime without a successful rekey"
        failure = Failure(reason=FailureReason.LIFETIME_EXPIRED, detail=detail)
        self._runner.end_with_delete(ike_sa, failure)

    def _reauthenticate(self, ike_sa: IkeSa) -> None:
        """Tell that it is time to authenticate anew, now and again until somebody does."""
        if ike_sa.state not in SERVING_STATES or self._runner.uniqueness.is_under_way(ike_sa):
            return
        ike_sa.set_timer(Timer.IKE_REAUTH, self._context.now + self._context.options.rekey_retry_s)
        self._context.emit(ReauthenticationDue(ike_sa=ike_sa.info()))

    def _retransmit(self, ike_sa: IkeSa) -> None:
        due = ike_sa.requests.tick(self._context.now)
        match due:
            case Retransmit() if self._runner.divide_smaller(ike_sa):
                pass
            case Retransmit():
                ike_sa.send(due.datagrams)
                ike_sa.arm_retransmission()
            case GiveUp():
                self._runner.end(ike_sa, unresponsive(ike_sa, due.sent, due.waited_s))
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
            self._runner.ask(ike_sa, Plan(kind=PlanKind.LIVENESS))

    def _on_child_timer(self, child_sa_id: ChildSaId, timer: Timer) -> None:
        if timer is Timer.REMOVE_INBOUND:
            self._context.remove_sas(self._context.lingering.pop(child_sa_id, ()))
            return
        found = self._ike_sas.find_child(child_sa_id)
        if found is None:
            return
        ike_sa, child_sa = found
        match timer:
            case Timer.CHILD_REKEY:
                self.rekey_child(ike_sa, child_sa)
            case Timer.CHILD_EXPIRE:
                self.expire_child(ike_sa, child_sa, "its lifetime in seconds")
            case Timer.CHILD_SPREAD:
                for cpu in range(cpus_of(ike_sa, ike_sa.configured(child_sa))):
                    plan = Plan(kind=PlanKind.NEW_CHILD, child=child_sa.parameters.child.name, cpu=cpu)
                    self._runner.ask(ike_sa, plan)
            case Timer.CHILD_SWITCH:
                self._runner.start_chore(ike_sa, rekey_child_sa.switch_outbound(ike_sa, child_sa))
            case _:
                detail = "it was replaced, and the peer did not delete it"
                failure = Failure(reason=FailureReason.REPLACED, detail=detail)
                self._runner.ask(
                    ike_sa, Plan(kind=PlanKind.DELETE_CHILD, child_sa_id=child_sa_id, failure=failure)
                )

    # --- commands ---------------------------------------------------------------------------------

    def rekey_child(self, ike_sa: IkeSa, child_sa: ChildSa) -> None:
        """Replace a Child SA, unless that is under way."""
        if child_sa.state is ChildSaState.INSTALLED:
            self._runner.ask(ike_sa, Plan(kind=PlanKind.REKEY_CHILD, child_sa_id=child_sa.child_sa_id))

    def expire_child(self, ike_sa: IkeSa, child_sa: ChildSa, limit: str) -> None:
        """Stop using a Child SA at once, and delete it with the peer."""
        self._context.remove_sas(child_sa.installed_sa_ids)
        child_sa.is_inbound_installed = child_sa.is_outbound_installed = False
        failure = Failure(
            reason=FailureReason.LIFETIME_EXPIRED, detail=f"the Child SA reached the hard limit of {limit}"
        )
        self._runner.ask(
            ike_sa,
            Plan(kind=PlanKind.DELETE_CHILD, child_sa_id=child_sa.child_sa_id, failure=failure),
            first=True,
        )

    def note_traffic(self, ike_sa: IkeSa, child_sa: ChildSa) -> None:
        """Take authenticated inbound traffic as a sign of life, and of the peer using this Child SA."""
        ike_sa.heard()
        self._runner.takeovers.note_traffic(child_sa)
        if rekey_child_sa.is_ready_to_switch(ike_sa, child_sa):
            self._runner.start_chore(ike_sa, rekey_child_sa.switch_outbound(ike_sa, child_sa))


_CHILD_TIMERS = frozenset(
    {
        Timer.CHILD_REKEY,
        Timer.CHILD_EXPIRE,
        Timer.CHILD_SPREAD,
        Timer.CHILD_SWITCH,
        Timer.CHILD_LINGER,
        Timer.REMOVE_INBOUND,
    }
)


def _is_rekey_of_ike_sa(task: Task) -> bool:
    return task.plan is not None and task.plan.kind is PlanKind.REKEY_IKE


def _awaited_exchange(task: Task) -> int | None:
    if isinstance(task.pending, SendRequest):
        return task.pending.exchange_type
    return ExchangeType.IKE_SA_INIT if isinstance(task.pending, AwaitResponse) else None
