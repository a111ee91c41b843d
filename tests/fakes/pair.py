"""Two real IKEv2 endpoints, an in-memory link between them, and everything the shell would do for them.

`Pair` drives both: it jumps the clock to whatever is due next, carries datagrams over the link, answers the
requests of the cores (at once, late, with a refusal, or never: `Host.answer`), keeps a `FakeSad` for each
side, and writes down in which order it all happened. Alice is on the left, Bob on the right.
"""

import contextlib
import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from itertools import count
from typing import Any

from gateway.controller.credentials import Credentials
from gateway.ike.crypto.revocation import Crl
from gateway.ike.crypto.signature import PrivateKey
from gateway.ike.endpoint import Endpoint, EndpointOptions
from gateway.ike.errors import LocalError
from gateway.ike.events import (
    ChildSaDeleted,
    ChildSaEstablished,
    ChildSaId,
    ChildSaInfo,
    ChildSaRekeyed,
    CredentialFound,
    CredentialRequest,
    Event,
    IkeSaDeleted,
    IkeSaEstablished,
    IkeSaId,
    IkeSaInfo,
    IkeSaKeysDerived,
    IkeSaRekeyed,
    Installed,
    InstallRequest,
    ReauthenticationDue,
    Refused,
    RemoveSas,
    Request,
    Result,
    SignRequest,
    SpiAllocated,
    SpiRequest,
    TrustRequest,
)
from gateway.ike.path import Path
from gateway.ipsec.authentication import PSK_AUTHENTICATION, Authentication
from gateway.ipsec.connection import Child, Connection, IkeOptions, Side
from gateway.ipsec.identity import Identity, IdType
from gateway.ipsec.proposal import Proposal, ProtocolId, parse_proposal
from gateway.ipsec.sa import Direction, SecurityAssociation
from gateway.ipsec.secret import Secret
from gateway.ipsec.selectors import TrafficSelector
from tests.fakes.clock import Clock
from tests.fakes.datapath import FakeSad
from tests.fakes.entropy import Entropy
from tests.fakes.link import Link, Packet
from tests.fakes.pki import NOW
from tests.fakes.tap import Opened, Tap

ALICE = ip_address("192.0.2.1")
BOB = ip_address("198.51.100.2")
ALICE_LAN = "10.1.0.0/16"
BOB_LAN = "10.2.0.0/16"
PSK = b"a key both sides know"
KEEPALIVE = b"\xff"

IKE = "aes256gcm16-prfsha384-x25519"
ESP = "aes256gcm16"

USUAL_OPTIONS = EndpointOptions()

MAX_STEPS = 200_000
"""More than any scenario takes: whoever gets here runs in a circle."""


# --- configuration ------------------------------------------------------------------------------


def proposals(text: str, protocol: ProtocolId) -> tuple[Proposal, ...]:
    """Return comma-separated proposal strings as proposals."""
    return tuple(parse_proposal(part.strip(), protocol) for part in text.split(","))


def selectors(*prefixes: str) -> tuple[TrafficSelector, ...]:
    """Return prefixes as traffic selectors."""
    networks = [ip_network(prefix) for prefix in prefixes]
    return tuple(TrafficSelector(network[0], network[-1]) for network in networks)


def fqdn(name: str) -> Identity:
    """Return an ID_FQDN."""
    return Identity(IdType.FQDN, name.encode())


def child(name: str = "lan", *, local: str, remote: str, esp: str = ESP, **changes: Any) -> Child:
    """Return a Child with prefixes and proposals as text; a prefix of "" means dynamic."""
    return Child(
        name=name,
        local_ts=selectors(local) if local else (),
        remote_ts=selectors(remote) if remote else (),
        proposals=proposals(esp, ProtocolId.ESP),
        **changes,
    )


def alice_connection(**changes: Any) -> Connection:
    """Return Alice's side of the usual connection; see `_connection` for what can be changed."""
    given = {"local_address": ALICE, "remote_address": BOB, "local_id": "alice", "remote_id": "bob"}
    return _connection(**given | {"local_lan": ALICE_LAN, "remote_lan": BOB_LAN} | changes)


def bob_connection(**changes: Any) -> Connection:
    """Return Bob's side of it."""
    given = {"local_address": BOB, "remote_address": ALICE, "local_id": "bob", "remote_id": "alice"}
    return _connection(**given | {"local_lan": BOB_LAN, "remote_lan": ALICE_LAN} | changes)


def _connection(
    *,
    local_address: Any,
    remote_address: Any,
    local_id: str | Identity | None,
    remote_id: str | Identity | None,
    local_lan: str,
    remote_lan: str,
    local_auth: Authentication = PSK_AUTHENTICATION,
    remote_auth: Authentication = PSK_AUTHENTICATION,
    name: str = "site",
    ike: str = IKE,
    ike_options: dict[str, Any] | None = None,
    esp: str = ESP,
    children: Sequence[Child] | None = None,
    child_options: dict[str, Any] | None = None,
) -> Connection:
    wanted = children
    if wanted is None:
        wanted = (child("lan", local=local_lan, remote=remote_lan, esp=esp, **child_options or {}),)
    return Connection(
        name=name,
        local=Side(
            addresses=() if local_address is None else (local_address,),
            id=_identity(local_id),
            auth=local_auth,
        ),
        remote=Side(
            addresses=() if remote_address is None else (remote_address,),
            id=_identity(remote_id),
            auth=remote_auth,
        ),
        ike=IkeOptions(proposals=proposals(ike, ProtocolId.IKE), **ike_options or {}),
        children=tuple(wanted),
    )


def _identity(given: str | Identity | None) -> Identity | None:
    return fqdn(f"{given}.example") if isinstance(given, str) else given


# --- the record of what happened ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """A core emitted a request."""

    host: str
    now: float
    request: Request


@dataclass(frozen=True, slots=True)
class Answered:
    """The shell resolved it."""

    host: str
    now: float
    request: Request
    result: Result


@dataclass(frozen=True, slots=True)
class Sent:
    """A core sent a datagram."""

    host: str
    now: float
    packet: Packet


@dataclass(frozen=True, slots=True)
class Arrived:
    """A datagram reached a core."""

    host: str
    now: float
    packet: Packet


@dataclass(frozen=True, slots=True)
class Told:
    """A core emitted an event."""

    host: str
    now: float
    event: Event


Entry = Asked | Answered | Sent | Arrived | Told


@dataclass(slots=True, kw_only=True)
class Rule:
    """How requests of one kind are answered."""

    kind: type[Request]
    after_s: float = 0.0
    refusal: Refused | None = None
    is_never: bool = False
    where: Callable[[Any], bool] = lambda request: True
    times: int | None = None

    def applies(self, request: Request) -> bool:
        return isinstance(request, self.kind) and self.times != 0 and self.where(request)


class Host:
    """One side: an endpoint, its datapath, its credentials, and how its shell answers."""

    def __init__(
        self,
        pair: "Pair",
        *,
        name: str,
        number: int,
        connections: Iterable[Connection],
        options: EndpointOptions,
        address: Any,
    ) -> None:
        self.name = name
        self.address = address
        self.sad = FakeSad(first_spi=(number << 12) + 1)
        self.psk: bytes | None = PSK
        self.credentials = Credentials(lambda: NOW)
        """For certificates and raw public keys: the controller's own; `hold` fills it."""
        # The tap reads what is protected.
        self._options = replace(options, tells_ike_keys=True)
        self.endpoint = Endpoint(entropy=Entropy(number), connections=connections, options=self._options)
        self.born = 0
        """Where in the pair's log the present life of this side begins."""
        self._pair = pair
        self._connections = tuple(connections)
        self._number = number
        self._rules: list[Rule] = []

    def restart(self) -> None:
        """Lose everything, as a gateway that crashed and came back: SAs, datapath, and all memory."""
        self._number += 0x10
        self.born = len(self._pair.log)
        self.sad = FakeSad(first_spi=(self._number << 12) + 1)
        self.endpoint = Endpoint(
            entropy=Entropy(self._number), connections=self._connections, options=self._options
        )

    def hold(self, *keys: PrivateKey, crls: Iterable[Crl] = ()) -> None:
        """Hold private keys and CRLs for all connections."""
        for connection in self._connections:
            self.credentials.configure(connection, keys, tuple(crls))

    # --- how the shell answers --------------------------------------------------------------------

    def answer(
        self,
        kind: type[Request],
        *,
        after: float = 0.0,
        refuse: str | None = None,
        never: bool = False,
        where: Callable[[Any], bool] = lambda request: True,
        times: int | None = None,
    ) -> None:
        """Answer requests of a kind late, with a refusal, or never; the newest rule that applies wins.

        Args:
            kind: Class of the request.
            after: Seconds until the answer.
            refuse: Reason code of a refusal.
            never: Do not answer.
            where: Which requests of the kind.
            times: How many of them; None for all.
        """
        refusal = None if refuse is None else Refused(refuse, f"{self.name}'s datapath says no")
        rule = Rule(kind=kind, after_s=after, refusal=refusal, is_never=never, where=where, times=times)
        self._rules.insert(0, rule)

    def answer_normally(self) -> None:
        """Forget every `answer`."""
        self._rules.clear()

    def rule_for(self, request: Request) -> Rule:
        """Return how this request is answered, and count it."""
        rule = next((rule for rule in self._rules if rule.applies(request)), None)
        if rule is None:
            return Rule(kind=type(request))
        if rule.times is not None:
            rule.times -= 1
        return rule

    def do(self, request: Request) -> Result:
        """Do what a request asks for, as shell and datapath would."""
        if isinstance(request, SpiRequest):
            return SpiAllocated(self.sad.allocate_spi())
        if isinstance(request, CredentialRequest):
            if self.psk is None:
                return Refused("NO_CREDENTIAL", f"{self.name} has no key for {request.remote_id}")
            return CredentialFound(Secret(self.psk))
        if isinstance(request, SignRequest):
            return self.credentials.sign(request)
        if isinstance(request, TrustRequest):
            return self.credentials.trust(request)
        assert isinstance(request, InstallRequest)
        sa = request.sa
        if sa.direction is Direction.INBOUND:
            assert sa.spi in self.sad.reserved, f"{self.name} installs {sa.spi:08x}, which nobody allocated"
        result = self.sad.install(sa)
        if result.error is not None:
            return Refused(result.error.reason.value, str(result.error))
        return Installed()

    # --- commands, each with everything drained after it ------------------------------------------

    def initiate(self, child: str | None = "lan", connection: str = "site") -> IkeSaId:
        return self._drained(self.endpoint.initiate(connection, child, self._pair.now))

    def rekey_child(self, child_sa_id: ChildSaId | None = None) -> None:
        wanted = self.child_sa.child_sa_id if child_sa_id is None else child_sa_id
        self._drained(self.endpoint.rekey_child(wanted, self._pair.now))

    def rekey_ike(self, ike_sa_id: IkeSaId | None = None) -> None:
        wanted = self.ike_sa.ike_sa_id if ike_sa_id is None else ike_sa_id
        self._drained(self.endpoint.rekey_ike(wanted, self._pair.now))

    def delete_child(self, child_sa_id: ChildSaId | None = None) -> None:
        wanted = self.child_sa.child_sa_id if child_sa_id is None else child_sa_id
        self._drained(self.endpoint.terminate_child(wanted, self._pair.now))

    def delete_ike(self, ike_sa_id: IkeSaId | None = None) -> None:
        wanted = self.ike_sa.ike_sa_id if ike_sa_id is None else ike_sa_id
        self._drained(self.endpoint.terminate_ike(wanted, self._pair.now))

    def reauthenticate(self, ike_sa_id: IkeSaId | None = None) -> IkeSaId:
        wanted = self.ike_sa.ike_sa_id if ike_sa_id is None else ike_sa_id
        return self._drained(self.endpoint.reauthenticate(wanted, self._pair.now))

    def check_liveness(self, ike_sa_id: IkeSaId | None = None) -> None:
        wanted = self.ike_sa.ike_sa_id if ike_sa_id is None else ike_sa_id
        self._drained(self.endpoint.check_liveness(wanted, self._pair.now))

    def receive(self, datagram: bytes, path: Path | None = None) -> None:
        """Hand a datagram to the core, as if it had just arrived."""
        peer = self._pair.peer_of(self)
        if path is None:
            path = Path(self.address, 500, peer.address, 500)
        self._drained(self.endpoint.receive(datagram, path, self._pair.now))

    def _drained(self, result: Any) -> Any:
        self._pair.drain(self)
        return result

    # --- what this side believes ------------------------------------------------------------------

    @property
    def ike_sas(self) -> tuple[IkeSaInfo, ...]:
        return self.endpoint.ike_sas()

    @property
    def child_sas(self) -> tuple[ChildSaInfo, ...]:
        return self.endpoint.child_sas()

    @property
    def ike_sa(self) -> IkeSaInfo:
        """Return the only IKE SA that is established."""
        (found,) = [sa for sa in self.ike_sas if sa.state in {"established", "rekeying"}]
        return found

    @property
    def child_sa(self) -> ChildSaInfo:
        """Return the only Child SA that carries traffic."""
        (found,) = [sa for sa in self.child_sas if sa.state in {"installed", "rekeying"}]
        return found

    def events(self, *kinds: type[Event]) -> list[Any]:
        """Return every event so far, of these kinds only if any are given."""
        told = [
            entry.event for entry in self._pair.log if isinstance(entry, Told) and entry.host == self.name
        ]
        return [event for event in told if not kinds or isinstance(event, kinds)]


@dataclass(slots=True)
class Flow:
    """Numbered packets of both sides through the Child SA, to see that none is lost."""

    interval_s: float
    next_at: float
    connection: str = "site"
    child: str = "lan"
    notes_traffic: bool = True
    sent: int = 0
    received: int = 0
    missing: list[str] = field(default_factory=list)
    under_way: list[tuple[float, str, SecurityAssociation]] = field(default_factory=list)


class Pair:
    """Alice and Bob.

    Args:
        alice: Changes to Alice's connection, see `alice_connection`; or whole connections.
        bob: The same for Bob.
        both: Changes to both.
        alice_options: Of Alice's endpoint.
        bob_options: Of Bob's.
    """

    def __init__(
        self,
        *,
        alice: dict[str, Any] | Sequence[Connection] | None = None,
        bob: dict[str, Any] | Sequence[Connection] | None = None,
        both: dict[str, Any] | None = None,
        alice_options: EndpointOptions = USUAL_OPTIONS,
        bob_options: EndpointOptions = USUAL_OPTIONS,
    ) -> None:
        self.clock = Clock()
        self.link = Link()
        self.tap = Tap()
        self.log: list[Entry] = []
        self.flow: Flow | None = None
        self._answers: list[tuple[float, int, Host, Request, Refused | None]] = []
        self._order = count()
        self._steps = 0
        common = both or {}
        self.alice = Host(
            self,
            name="alice",
            number=0x0A,
            connections=_configured(alice_connection, alice, common),
            options=alice_options,
            address=ALICE,
        )
        self.bob = Host(
            self,
            name="bob",
            number=0x0B,
            connections=_configured(bob_connection, bob, common),
            options=bob_options,
            address=BOB,
        )

    @property
    def now(self) -> float:
        return self.clock.now

    @property
    def hosts(self) -> tuple[Host, Host]:
        return self.alice, self.bob

    def peer_of(self, host: Host) -> Host:
        return self.bob if host is self.alice else self.alice

    # --- letting time pass ------------------------------------------------------------------------

    def establish(self) -> None:
        """Have Alice bring up the IKE SA and the first Child SA, and check that both are there."""
        self.alice.initiate()
        self.settle()
        self.check(children=1)

    def settle(self) -> None:
        """Go on until nothing is under way and no answer is due; later timers stay where they are."""
        while len(self.link) or self._answers:
            self._step()

    def run_for(self, seconds: float) -> None:
        """Go on for that long, timers included."""
        end = self.now + seconds
        while (due := self._next_due()) is not None and due <= end:
            self._step()
        self.clock.jump_to(end)

    def run_until(self, condition: Callable[[], bool], limit_s: float = 1000.0) -> None:
        """Go on until something is the case; fail if it is not within `limit_s`."""
        end = self.now + limit_s
        while not condition():
            due = self._next_due()
            assert due is not None, "nothing will ever happen again"
            assert due <= end, f"it did not happen within {limit_s} s"
            self._step()

    def _next_due(self) -> float | None:
        candidates = [host.endpoint.next_deadline() for host in self.hosts]
        candidates.append(self.link.next_arrival())
        candidates.append(self._answers[0][0] if self._answers else None)
        if self.flow is not None:
            candidates.append(self.flow.next_at)
            candidates.append(self.flow.under_way[0][0] if self.flow.under_way else None)
        known = [max(candidate, self.now) for candidate in candidates if candidate is not None]
        return min(known) if known else None

    def _step(self) -> None:
        self._steps += 1
        assert self._steps < MAX_STEPS, "this runs in a circle"
        due = self._next_due()
        assert due is not None
        self.clock.jump_to(due)
        for packet in self.link.arrived(self.now):
            self._deliver(packet)
        while self._answers and self._answers[0][0] <= self.now:
            _, _, host, request, refusal = heapq.heappop(self._answers)
            self._resolve(host, request, refusal)
        for host in self.hosts:
            deadline = host.endpoint.next_deadline()
            if deadline is not None and deadline <= self.now:
                host.endpoint.tick(self.now)
                self.drain(host)
        if self.flow is not None:
            self._step_flow(self.flow)

    def _deliver(self, packet: Packet) -> None:
        host = next((host for host in self.hosts if host.address == packet.destination[0]), None)
        if host is None or packet.data == KEEPALIVE:
            return
        self.log.append(Arrived(host.name, self.now, packet))
        path = Path(*packet.destination, *packet.source)
        host.endpoint.receive(packet.data, path, self.now)
        self.drain(host)

    # --- draining, as the shell must after every input and command --------------------------------

    def drain(self, host: Host) -> None:
        """Take everything out of a core until it has nothing more to say."""
        while True:
            datagrams = host.endpoint.datagrams()
            events = host.endpoint.events()
            requests = host.endpoint.requests()
            if not datagrams and not events and not requests:
                return
            for path, datagram in datagrams:
                source, destination = (path.local, path.local_port), (path.remote, path.remote_port)
                packet = self.link.send(source, destination, datagram, self.now)
                self.log.append(Sent(host.name, self.now, packet))
            for event in events:
                self.log.append(Told(host.name, self.now, event))
                self._act_on(host, event)
            for request in requests:
                self.log.append(Asked(host.name, self.now, request))
                self._schedule(host, request)

    def _act_on(self, host: Host, event: Event) -> None:
        if isinstance(event, RemoveSas):
            for sa_id in event.sa_ids:
                host.sad.remove(sa_id)
        if isinstance(event, ReauthenticationDue):
            with contextlib.suppress(LocalError):
                host.endpoint.reauthenticate(event.ike_sa.ike_sa_id, self.now)
        if isinstance(event, IkeSaKeysDerived):
            self.tap.learn(event.ike_sa.spi_i, event.ike_sa.spi_r, event.keys)

    def _schedule(self, host: Host, request: Request) -> None:
        rule = host.rule_for(request)
        if rule.is_never:
            return
        if rule.after_s == 0.0:
            self._resolve(host, request, rule.refusal)
            return
        when = self.now + rule.after_s
        heapq.heappush(self._answers, (when, next(self._order), host, request, rule.refusal))

    def _resolve(self, host: Host, request: Request, refusal: Refused | None) -> None:
        result = host.do(request) if refusal is None else refusal
        self.log.append(Answered(host.name, self.now, request, result))
        host.endpoint.resolve(request.request_id, result, self.now)
        self.drain(host)

    # --- traffic ----------------------------------------------------------------------------------

    def start_flow(self, interval_s: float = 0.005, *, notes_traffic: bool = True) -> Flow:
        """Let both sides send through the Child SA from now on, and count what does not arrive."""
        self.flow = Flow(interval_s, self.now, notes_traffic=notes_traffic)
        return self.flow

    def _step_flow(self, flow: Flow) -> None:
        while flow.under_way and flow.under_way[0][0] <= self.now:
            _, receiver, sa = flow.under_way.pop(0)
            self._receive_packet(flow, self.alice if receiver == "alice" else self.bob, sa)
        if self.now < flow.next_at:
            return
        flow.next_at = self.now + flow.interval_s
        for host in self.hosts:
            flow.sent += 1
            sa = host.sad.outbound(flow.connection, flow.child)
            if sa is None:
                flow.missing.append(f"{self.now:.3f}: {host.name} has no outbound SA")
                continue
            flow.under_way.append((self.now + self.link.latency_s, self.peer_of(host).name, sa))

    def _receive_packet(self, flow: Flow, host: Host, sent_with: SecurityAssociation) -> None:
        sa = host.sad.inbound(sent_with.spi)
        if sa is None or sa.encryption_key != sent_with.encryption_key:
            flow.missing.append(f"{self.now:.3f}: {host.name} has no inbound SA {sent_with.spi:08x}")
            return
        flow.received += 1
        if flow.notes_traffic:
            host.endpoint.note_traffic(ChildSaId(sa.child_sa_id), self.now)
            self.drain(host)

    # --- looking back -----------------------------------------------------------------------------

    def sent(self, host: Host | None = None) -> list[Packet]:
        """Return every IKE datagram sent so far, by one side or both."""
        return [
            entry.packet
            for entry in self.log
            if isinstance(entry, Sent)
            and entry.packet.data != KEEPALIVE
            and (host is None or entry.host == host.name)
        ]

    def messages(self, host: Host | None = None) -> list[Opened]:
        """Return every IKE message sent so far, decrypted, retransmissions left out."""
        return [self.tap.open(data) for data in dict.fromkeys(packet.data for packet in self.sent(host))]

    def story(self, since: int = 0) -> list[str]:
        """Return the messages sent from packet number `since` on, as the RFC writes them.

        A datagram that was sent before is marked `again`.
        """
        lines = []
        seen: set[bytes] = set()
        for entry in self.log:
            if not isinstance(entry, Sent) or entry.packet.data == KEEPALIVE:
                continue
            again = " again" if entry.packet.data in seen else ""
            seen.add(entry.packet.data)
            if entry.packet.number < since:
                continue
            text = f"{self.tap.open(entry.packet.data)}{again}"
            lines.append(f"{text} -->" if entry.host == "alice" else f"<-- {text}")
        return lines

    @property
    def mark(self) -> int:
        """Return the number the next packet will have, for `story(since=...)`."""
        packets = [entry.packet.number for entry in self.log if isinstance(entry, Sent)]
        return max(packets, default=-1) + 1

    # --- the invariant ----------------------------------------------------------------------------

    def check(self, *, children: int | None = None, ike_sas: int | None = 1) -> None:
        """Check that both sides agree about every SA, and that each datapath has exactly those.

        Args:
            children: How many Child SAs there must be; None for any number.
            ike_sas: The same for IKE SAs.
        """
        ours = {(sa.spi_i, sa.spi_r): sa for sa in self.alice.ike_sas}
        theirs = {(sa.spi_i, sa.spi_r): sa for sa in self.bob.ike_sas}
        assert ours.keys() == theirs.keys(), "the sides have other IKE SAs"
        assert ike_sas is None or len(ours) == ike_sas, f"{len(ours)} IKE SAs: {list(ours.values())}"
        for spis, sa in ours.items():
            assert sa.is_initiator is not theirs[spis].is_initiator
            assert sa.state == theirs[spis].state == "established"
        self._check_children(children)
        for host in self.hosts:
            self._check_datapath(host)
            self._check_told(host)
        assert not self._answers

    def _check_children(self, wanted: int | None) -> None:
        ours = {sa.inbound.spi: sa for sa in self.alice.child_sas if sa.inbound is not None}
        theirs = {sa.outbound.spi: sa for sa in self.bob.child_sas if sa.outbound is not None}
        assert len(ours) == len(self.alice.child_sas)
        assert len(theirs) == len(self.bob.child_sas)
        assert ours.keys() == theirs.keys(), "the sides have other Child SAs"
        assert wanted is None or len(ours) == wanted, f"{len(ours)} Child SAs: {list(ours.values())}"
        for spi, sa in ours.items():
            _check_mirrored(sa, theirs[spi])

    def _check_datapath(self, host: Host) -> None:
        wanted = set()
        for sa in host.child_sas:
            assert sa.state == "installed"
            assert sa.inbound is not None
            assert sa.outbound is not None
            wanted |= {sa.inbound.sa_id, sa.outbound.sa_id}
        assert set(host.sad.sas) == wanted, f"{host.name}'s datapath has orphans or lacks SAs"

    def _check_told(self, host: Host) -> None:
        """Check that the events alone tell which SAs there are: that is all a shell has."""
        ike_sas: set[int] = set()
        children: set[int] = set()
        for entry in self.log[host.born :]:
            if not isinstance(entry, Told) or entry.host != host.name:
                continue
            match entry.event:
                case IkeSaEstablished(ike_sa=ike_sa):
                    ike_sas.add(ike_sa.ike_sa_id)
                case IkeSaRekeyed(old=old, new=new):
                    ike_sas.remove(old.ike_sa_id)
                    ike_sas.add(new.ike_sa_id)
                case IkeSaDeleted(ike_sa=ike_sa):
                    ike_sas.remove(ike_sa.ike_sa_id)
                case ChildSaEstablished(child_sa=child_sa):
                    children.add(child_sa.child_sa_id)
                case ChildSaRekeyed(old=old_child, new=new_child):
                    children.remove(old_child.child_sa_id)
                    children.add(new_child.child_sa_id)
                case ChildSaDeleted(child_sa=child_sa):
                    children.remove(child_sa.child_sa_id)
        assert ike_sas == {sa.ike_sa_id for sa in host.ike_sas}, f"{host.name} told of other IKE SAs"
        assert children == {sa.child_sa_id for sa in host.child_sas}, f"{host.name} told of other Child SAs"


def _configured(
    make: Callable[..., Connection],
    given: dict[str, Any] | Sequence[Connection] | None,
    common: dict[str, Any],
) -> Sequence[Connection]:
    if given is None or isinstance(given, dict):
        return (make(**common | (given or {})),)
    return given


def _check_mirrored(ours: ChildSaInfo, theirs: ChildSaInfo) -> None:
    assert ours.inbound is not None
    assert ours.outbound is not None
    assert theirs.inbound is not None
    assert theirs.outbound is not None
    assert ours.proposal == theirs.proposal
    assert (ours.local_ts, ours.remote_ts) == (theirs.remote_ts, theirs.local_ts)
    for sending, receiving in ((ours.outbound, theirs.inbound), (theirs.outbound, ours.inbound)):
        assert sending.spi == receiving.spi
        assert sending.encryption_key == receiving.encryption_key
        assert sending.integrity_key == receiving.integrity_key
        assert sending.mode is receiving.mode
        assert sending.esn == receiving.esn
        assert (sending.local_ts, sending.remote_ts) == (receiving.remote_ts, receiving.local_ts)
