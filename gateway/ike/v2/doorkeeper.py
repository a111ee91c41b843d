"""Meets every datagram that belongs to no IKE SA (RFC 7296 §1.5, §2.5, §2.6, §2.21.4).

What arrives here comes from strangers, at any rate and with any source address, so the order of the checks
is the order of their cost: a request that a flood consists of is answered (or not) after its header, its
nonce and its cookie were looked at; only then is it parsed. Nothing is kept of what is refused.

What is never answered: responses, and what is no request under the protection of an IKE SA that could
have been ours. So no two gateways can keep each other busy, and nobody makes us send more than it sent.
"""

from collections.abc import Iterable

from gateway.ike.errors import PeerError
from gateway.ike.events import DatagramDropped, Failure, FailureReason
from gateway.ike.path import Path
from gateway.ike.timers import Timer
from gateway.ike.v2 import ike_sa_init
from gateway.ike.v2.context import Context
from gateway.ike.v2.cookie import CookieSecrets
from gateway.ike.v2.exchange import Received
from gateway.ike.v2.ike_sa import IkeSa
from gateway.ike.v2.ike_sa_table import IkeSaTable
from gateway.ike.v2.rate_limit import RateLimit, TokenBucket
from gateway.ike.v2.runner import Runner
from gateway.ike.v2.states import IkeSaState
from gateway.ike.wire.first_request import FirstRequest, encode_cookie_answer, outline
from gateway.ike.wire.header import NO_SPI, HeaderFlag, IkeHeader
from gateway.ike.wire.message import encode_message, parse_message
from gateway.ike.wire.notify import NotifyType
from gateway.ike.wire.payloads import NotifyPayload, PayloadType
from gateway.ike.wire.rules import check_rules
from gateway.ipsec.connection import Connection
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.sa import IpAddress

MAX_FIRST_BYTES = 8192
"""Longest message of IKE_SA_INIT that is looked at: honest ones have some hundred bytes, RFC 7296 §2 asks for
3000. A stranger's could otherwise cost us 64 KiB of memory, and as much time as all its proposals take."""

_PROTECTED = (PayloadType.SK, PayloadType.SKF)


class Doorkeeper:
    """Decides who may begin an IKE SA, and what others are told."""

    __slots__ = (
        "_anybody",
        "_by_remote",
        "_context",
        "_cookies",
        "_ike_sas",
        "_refusals",
        "_runner",
        "_unknown_spi",
        "_version",
    )

    def __init__(self, context: Context, ike_sas: IkeSaTable, runner: Runner) -> None:
        options = context.options
        self._context = context
        self._ike_sas = ike_sas
        self._runner = runner
        self._cookies = CookieSecrets(context.entropy, options.cookie_secret_lifetime_s)
        self._unknown_spi = RateLimit(per_s=options.answers_per_s, pause_s=options.answer_pause_s)
        self._version = RateLimit(per_s=options.answers_per_s, pause_s=options.answer_pause_s)
        self._refusals = TokenBucket(options.refusals_per_s)
        self._by_remote: dict[IpAddress, dict[str, Connection]] = {}
        self._anybody: dict[str, Connection] = {}

    def update(self, added: Iterable[Connection], removed: Iterable[Connection]) -> None:
        """Take note of who may knock at all; what changed is in both, as it is and as it was."""
        for connection in removed:
            self._anybody.pop(connection.name, None)
            for address in set(connection.remote.addresses):
                knocking = self._by_remote[address]
                del knocking[connection.name]
                if not knocking:
                    del self._by_remote[address]
        for connection in added:
            for address in connection.remote.addresses:
                self._by_remote.setdefault(address, {})[connection.name] = connection
            if connection.remote.names or not connection.remote.addresses:
                # Where a name leads is the resolver's word only; the identity decides.
                self._anybody[connection.name] = connection

    def candidates(self, path: Path) -> list[Connection]:
        """Return the connections that fit the addresses, the most specific first."""
        fitting = (*self._by_remote.get(path.remote, {}).values(), *self._anybody.values())
        local = [c for c in fitting if not c.local.addresses or path.local in c.local.addresses]
        unique = {connection.name: connection for connection in local}.values()
        return sorted(unique, key=lambda c: (path.remote not in c.remote.addresses, not c.local.addresses))

    # --- IKE_SA_INIT as responder -----------------------------------------------------------------

    def receive_first(self, datagram: bytes, path: Path) -> None:
        """Take the first message of somebody (RFC 7296 §1.2, §2.6)."""
        if len(datagram) > MAX_FIRST_BYTES:
            self._drop(path, DropReason.IKE_MALFORMED, "too long for an IKE_SA_INIT request")
            return
        first = outline(datagram)
        if first is None:
            self._drop(path, DropReason.IKE_MALFORMED, "no first message of an IKE SA")
            return
        made = self._context.find_init(path, first.spi_i)
        ike_sa = None if made is None else self._ike_sas.find(made)
        if ike_sa is not None and ike_sa.init_request == datagram:
            self._repeat(ike_sa, path)
            return
        if path.remote not in self._by_remote and not self._anybody:
            self._drop(path, DropReason.IKE_UNKNOWN_PEER, "no connection is configured for this address")
            return
        is_proven = self._wants_cookie(path.remote)
        if is_proven and not self._has_cookie(first, path):
            return
        if self._ike_sas.find_by_spi(first.spi_i) is not None:
            # Our own request, reflected: without identities configured we would authenticate ourselves.
            self._drop(path, DropReason.IKE_UNEXPECTED, "the initiator's SPI is one of ours")
            return
        self._admit(datagram, path, first, is_proven=is_proven)

    def _repeat(self, ike_sa: IkeSa, path: Path) -> None:
        """Answer a request that made an IKE SA already, byte for byte (RFC 7296 §2.1).

        Once that is authenticated the initiator has the answer, and the datagram is an old duplicate.
        """
        if ike_sa.state is IkeSaState.HALF_OPEN:
            self._context.send(path, ike_sa.init_response)

    def _wants_cookie(self, source: IpAddress) -> bool:
        """Say whether a request from there has to bring a cookie: state, or work, is made for too many."""
        return self._context.half_open.wants_cookie(source) or not self._refusals.has_one(self._context.now)

    def _has_cookie(self, first: FirstRequest, path: Path) -> bool:
        """Look for the cookie that proves the address; ask for it where it is missing (RFC 7296 §2.6)."""
        spi_i, nonce_i, cookie = first
        now, source = self._context.now, path.remote
        if cookie and self._cookies.is_valid(cookie, nonce_i=nonce_i, source=source, spi_i=spi_i, now=now):
            return True
        self._drop(path, DropReason.IKE_COOKIE, "a cookie was asked for")
        wanted = self._cookies.make(nonce_i=nonce_i, source=source, spi_i=spi_i, now=now)
        self._context.send(path, encode_cookie_answer(spi_i, wanted))
        return False

    def _admit(self, datagram: bytes, path: Path, first: FirstRequest, *, is_proven: bool) -> None:
        """Parse the request, and answer it with a half-open IKE SA or a refusal."""
        context = self._context
        candidates = self.candidates(path)
        if not candidates:
            self._drop(path, DropReason.IKE_UNKNOWN_PEER, "no connection is configured for these addresses")
            return
        try:
            message = parse_message(datagram)
        except PeerError as error:
            self._refusals.take(context.now)
            self._drop(path, DropReason.IKE_MALFORMED, str(error))
            return
        header = message.header
        try:
            if message.protected is not None:
                raise PeerError("an IKE_SA_INIT request holds an Encrypted payload")
            check_rules(message.payloads, header.exchange_type, is_response=False)
            received = Received(
                exchange_type=header.exchange_type,
                message_id=0,
                payloads=message.payloads,
                path=path,
                datagram=datagram,
            )
            ike_sa = ike_sa_init.answer(context, candidates, received, first.spi_i)
        except PeerError as error:
            self._drop(path, DropReason.IKE_UNEXPECTED, str(error))
            self._refusals.take(context.now)
            if error.notify is not None:
                self._refuse(header, path, NotifyPayload(error.notify, error.data))
            return
        self._make_room(path.remote)
        self._ike_sas.add(ike_sa)
        context.half_open.add(ike_sa.id, path.remote, is_proven=is_proven)
        context.note_init(path, first.spi_i, ike_sa.id)
        ike_sa.set_timer(Timer.HALF_OPEN, context.now + context.options.half_open_timeout_s)
        context.send(path, ike_sa.init_response)

    def _make_room(self, address: IpAddress) -> None:
        """Let the oldest half-open IKE SA of the fullest place go, if there are too many."""
        for number in self._context.half_open.crowded_out(address):
            crowded = self._ike_sas.find(number)
            if crowded is None or crowded.state is not IkeSaState.HALF_OPEN:
                continue
            detail = f"one of {len(self._context.half_open)} that are half-open made room"
            self._drop(crowded.path, DropReason.IKE_HALF_OPEN_LIMIT, detail)
            self._runner.end(crowded, Failure(reason=FailureReason.TIMEOUT, detail=detail))
            return

    # --- what is for no IKE SA we know ------------------------------------------------------------

    def receive_stray(self, header: IkeHeader, size_bytes: int, path: Path) -> None:
        """Take a message whose SPIs name no IKE SA: perhaps we have lost it (RFC 7296 §1.5, §2.21.4).

        Only a protected request is answered, so rarely that nobody can make use of it. The peer takes the
        answer as a hint, for it is not protected.
        """
        if header.length != size_bytes:
            self._drop(path, DropReason.IKE_MALFORMED, f"{size_bytes} bytes that say {header.length}")
            return
        detail = f"SPIs {header.spi_i.hex()} {header.spi_r.hex()}"
        self._drop(path, DropReason.IKE_UNKNOWN_SPI, detail)
        if (
            header.is_request
            and header.next_payload in _PROTECTED
            and NO_SPI not in (header.spi_i, header.spi_r)
            and self._unknown_spi.allows(path.remote, self._context.now)
        ):
            self._refuse(header, path, NotifyPayload(NotifyType.INVALID_IKE_SPI))

    def receive_unreadable(self, header: IkeHeader | None, path: Path, error: PeerError) -> None:
        """Take what cannot be parsed; say which version we speak where that is the matter (RFC 7296 §2.5)."""
        if header is None or error.notify != NotifyType.INVALID_MAJOR_VERSION:
            self._drop(path, DropReason.IKE_MALFORMED, str(error))
            return
        self._drop(path, DropReason.IKE_VERSION, str(error))
        if header.is_request and self._version.allows(path.remote, self._context.now):
            self._refuse(header, path, NotifyPayload(NotifyType.INVALID_MAJOR_VERSION))

    def _refuse(self, header: IkeHeader, path: Path, notify: NotifyPayload) -> None:
        """Answer a request outside of any IKE SA, without keeping anything: its SPIs, its Message ID."""
        initiator = 0 if header.from_initiator else HeaderFlag.INITIATOR
        answer = IkeHeader(
            spi_i=header.spi_i,
            spi_r=header.spi_r,
            exchange_type=header.exchange_type,
            flags=HeaderFlag.RESPONSE | initiator,
            message_id=header.message_id,
        )
        self._context.send(path, encode_message(answer, [notify]))

    def _drop(self, path: Path, reason: DropReason, detail: str) -> None:
        self._context.emit(DatagramDropped(reason=reason, path=path, detail=detail))
