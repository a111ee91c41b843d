"""What is told about lost SAs: by strangers as a hint, by the peer inside its IKE SA (RFC 7296 §1.5, §2.21).

A gateway that restarted answers for SPIs it does not know with INVALID_IKE_SPI, unprotected, for it has no
key any more. Anybody could say that, so that it changes nothing: the peer is asked for a sign of life, and
only its silence ends the IKE SA. The same goes for every other error that comes without protection.

INVALID_SPI inside an IKE SA is authentic: the peer gets ESP that it has no SA for. That Child SA is rekeyed,
which works if the peer has it after all, and otherwise brings CHILD_SA_NOT_FOUND and a new one.

Both are rate-limited per place, so that nobody can keep us busy with them.
"""

from gateway.ike.path import Path
from gateway.ike.v2.context import Context
from gateway.ike.v2.exchange import Plan, PlanKind, Received
from gateway.ike.v2.ike_sa import IkeSa
from gateway.ike.v2.ike_sa_table import IkeSaTable
from gateway.ike.v2.rate_limit import RateLimit
from gateway.ike.v2.reauthentication import take_lifetime
from gateway.ike.v2.runner import Runner
from gateway.ike.v2.states import SERVING_STATES, ChildSaState
from gateway.ike.wire.header import ExchangeType
from gateway.ike.wire.message import Message
from gateway.ike.wire.notify import NotifyType
from gateway.ike.wire.payloads import NotifyPayload, all_payloads, error_notify
from gateway.ipsec.sa import IpAddress, Spi


class Hints:
    """Acts on hints, and gives one to a peer that uses an SA we do not have."""

    __slots__ = ("_checks", "_context", "_ike_sas", "_rekeys", "_reports", "_runner")

    def __init__(self, context: Context, ike_sas: IkeSaTable, runner: Runner) -> None:
        options = context.options
        self._context = context
        self._ike_sas = ike_sas
        self._runner = runner
        self._checks = RateLimit(per_s=options.answers_per_s, pause_s=options.hint_pause_s)
        self._rekeys = RateLimit(per_s=options.answers_per_s, pause_s=options.hint_pause_s)
        self._reports = RateLimit(per_s=options.answers_per_s, pause_s=options.hint_pause_s)

    def take_unprotected(self, ike_sa: IkeSa, message: Message, path: Path) -> None:
        """Check the liveness of a peer for whom somebody says, unprotected, that something is wrong.

        A request of ours that is under way is such a check already.
        """
        if (
            ike_sa.state in SERVING_STATES
            and path.remote == ike_sa.path.remote
            and error_notify(message.payloads) is not None
            and ike_sa.initiating is None
            and self._checks.allows(path.remote, self._context.now)
        ):
            self._runner.ask(ike_sa, Plan(kind=PlanKind.LIVENESS))

    def take_authentic(self, ike_sa: IkeSa, received: Received) -> None:
        """Take what the peer says inside the IKE SA: it lacks a Child SA, or trusts us for a time only."""
        if received.exchange_type != ExchangeType.INFORMATIONAL or ike_sa.state not in SERVING_STATES:
            return
        take_lifetime(ike_sa, received.payloads)
        for notify in all_payloads(received.payloads, NotifyPayload):
            child_sa = ike_sa.find_outbound(notify.data)
            if (
                notify.notify_type == NotifyType.INVALID_SPI
                and child_sa is not None
                and child_sa.state is ChildSaState.INSTALLED
                and self._rekeys.allows(ike_sa.path.remote, self._context.now)
            ):
                plan = Plan(kind=PlanKind.REKEY_CHILD, child_sa_id=child_sa.child_sa_id)
                self._runner.ask(ike_sa, plan)

    def report_invalid_spi(self, spi: Spi, source: IpAddress) -> None:
        """Tell the peer at `source` that its ESP has an SPI we do not know (RFC 7296 §1.5).

        Only inside an IKE SA, and only where the peer really is: without one nothing is said.
        """
        ike_sa = next(
            (
                sa
                for sa in reversed(self._ike_sas.all())
                if sa.path.remote == source and sa.state in SERVING_STATES
            ),
            None,
        )
        if ike_sa is None or self._knows(spi) or not self._reports.allows(source, self._context.now):
            return
        self._runner.ask(ike_sa, Plan(kind=PlanKind.INVALID_SPI, spi=spi))

    def _knows(self, spi: Spi) -> bool:
        """Tell whether there is an inbound SA with this SPI."""
        return any(c.spi_in == spi for sa in self._ike_sas.all() for c in sa.children.values())
