"""Collisions told as ladders: who sends what, when it is delivered, and what each side holds afterwards.

A story is text, one event a line, read from top to bottom. Alice is on the left, Bob on the right; nothing
is delivered that the story does not deliver, and no time passes that it does not let pass:

```
                              | Alice        | Bob
A: rekey 1                    | 1~>          | 1>
B: rekey 1                    |              | 1~>
a1  --> REKEY_SA(1)           |              | 1~> a1+
b1  <-- REKEY_SA(1)           | 1~> b1+      |
a1' <-- SA                    | ...          |
end                           | b1>          | b1>
```

**Messages.** `a1` is Alice's first request of the story, `a1'` Bob's response to it; `b1` is Bob's. `-->
TEXT` and `<-- TEXT` deliver one, and what it says is checked: `NEW`, `REKEY_SA(child)`, `REKEY(IKE)`, `SA`
(an offer that was accepted), `D(child, ...)`, `D(IKE)`, `{}` (nothing), or the name of an error notify.

- `a1 lost` - that copy never arrives.
- `a1 resent` - time goes on until Alice retransmits it.
- `a1 --> again` - a copy of what has arrived before arrives once more.
- `a1' <-- instead TEXT` - an authentic response of another kind arrives in its place (`{}`, `D(..)`, a
  notify, or what another message says).

**Holdings.** A Child SA is named after the exchange that made it; `1` is the one made by IKE_AUTH, of the
Child `lan`; `?` is one whose message is not sent yet. Marks say its state: none for installed, `+`
creating, `~` rekeying, `-` rekeyed, `x` deleting; `>` is on the one this side sends with. `(1)` is an
inbound SA that only drains. `I` is the first IKE SA, `Ia1` one that exchange made, with the same marks;
they are compared where a story names any. An empty column means: as before. That is checked too, after
every line.

**Commands.** `A: rekey 1`, `delete 1`, `new dmz`, `rekey I`, `delete I`, `check I` (liveness), `expire 1`
(a hard limit at the datapath; `expire I` that of the IKE SA), `forget 1` (it is lost here and nobody says
so), `packet` (a packet leaves and is seen by the peer), `say D(1)` (a DELETE out of turn; eight hex digits
are an SPI), `refuse inbound|outbound|spi REASON`, `hold inbound|outbound|spi` and `let go` (how the
datapath answers), `believe won|lost` (this side compares the nonces wrongly).

**Other lines.** `lowest a1'` - whose nonce is the lowest of the four; `wait 20` - seconds pass; `rest` -
all that is under way arrives, in order, until nothing is; `gap` - from here on traffic may have no SA;
`end` - a minute and a half in which everything arrives, and then both sides must agree about everything
(`Story.conclude`).

After every line: whatever a side sends with, the peer can receive (`gap` apart), and Child SAs that both
hold have the same keys.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from gateway.ike.endpoint import EndpointOptions
from gateway.ike.events import (
    ChildSaId,
    ChildSaInfo,
    Failure,
    FailureReason,
    IkeSaId,
    InstallRequest,
    SpiRequest,
)
from gateway.ike.v2.exchange import Plan, PlanKind, Steps, request
from gateway.ike.v2.ike_sa import TaskRole
from gateway.ike.wire.header import ExchangeType
from gateway.ike.wire.notify import NotifyType
from gateway.ike.wire.payloads import DeletePayload, NotifyPayload, Payload, SaPayload
from gateway.ipsec.proposal import ProtocolId
from gateway.ipsec.sa import Direction
from tests.fakes.link import Packet, untouched
from tests.fakes.pair import ESP, IKE, KEEPALIVE, Host, Pair, Sent, child
from tests.fakes.tap import Opened

PATIENT = {"retransmit_timeout_s": 1.0, "retransmit_base": 1.5, "retransmit_tries": 8, "dpd_delay_s": 0.0}
NONCE_BYTES = 33
"""A length nothing else that is drawn has: so the story knows nonces from keys."""
FIRST_CHILD = "1"
FIRST_IKE_SA = "I"
MARKS = {
    "creating": "+",
    "installed": "",
    "rekeying": "~",
    "rekeyed": "-",
    "deleting": "x",
    "established": "",
}
COLUMNS = (40, 26)
"""Widths of a ladder that is printed: of the event, and of what one side holds."""


def two_children(
    *,
    alice_esp: str = ESP,
    bob_esp: str = ESP,
    alice_ike: str = IKE,
    bob_ike: str = IKE,
    bob_grace_s: float = 30.0,
) -> Pair:
    """Return a pair with the Children `lan` and `dmz`, nothing up yet; its nonces can be ruled by a story."""
    options = EndpointOptions(nonce_bytes=NONCE_BYTES)
    return Pair(
        both={"ike_options": PATIENT},
        alice={
            "ike": alice_ike,
            "children": [
                child("lan", local="10.1.0.0/16", remote="10.2.0.0/16", esp=alice_esp),
                child("dmz", local="10.11.0.0/16", remote="10.12.0.0/16", esp=alice_esp),
            ],
        },
        bob={
            "ike": bob_ike,
            "children": [
                child("lan", local="10.2.0.0/16", remote="10.1.0.0/16", esp=bob_esp),
                child("dmz", local="10.12.0.0/16", remote="10.11.0.0/16", esp=bob_esp),
            ],
        },
        alice_options=options,
        bob_options=replace(options, delete_grace_s=bob_grace_s),
    )


def tell(text: str, pair: Pair | None = None) -> "Story":
    """Play a story from an IKE SA with one Child SA, and check every line of it."""
    story = Story(pair)
    story.play(text)
    return story


@dataclass(slots=True)
class Letter:
    """One message of a story, and how often it is under way."""

    name: str
    packet: Packet
    opened: Opened
    sender: str
    under_way: int = 1
    arrivals: int = 0
    copies: int = 1
    """How often it was sent."""


class Told(AssertionError):
    """A story went another way than it was told; the text is the ladder up to there."""


class Nonces:
    """A host's entropy with the first octet of its next nonces set."""

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._entropy = entropy
        self.first_octets: Iterator[int] = iter(())

    def __call__(self, size: int) -> bytes:
        drawn = self._entropy(size)
        if size != NONCE_BYTES:
            return drawn
        first = next(self.first_octets, None)
        return drawn if first is None else bytes((first,)) + drawn[1:]


class Story:
    """Two cores between which nothing moves but what the story moves.

    Args:
        pair: With nothing up yet; the usual is `two_children()`.
    """

    def __init__(self, pair: Pair | None = None) -> None:
        self.pair = pair or two_children()
        self.letters: dict[str, Letter] = {}
        self.ladder: list[str] = []
        self.may_gap = False
        self.lowest = ""
        self._names: dict[tuple[str, int], str] = {}
        """Child SAs, by who receives on an SPI."""
        self._ike_names: dict[bytes, str] = {}
        """IKE SAs, by the initiator's SPI."""
        self._by_packet: dict[bytes, Letter] = {}
        self._counts = {"alice": 0, "bob": 0}
        self._expected = {"alice": "", "bob": ""}
        pair = self.pair
        pair.alice.initiate("lan")
        pair.settle()
        pair.check(children=1)
        for host in pair.hosts:
            self._names[host.name, host.child_sa.inbound.spi] = FIRST_CHILD
            host.endpoint._context.entropy = Nonces(host.endpoint._context.entropy)
        self._ike_names[pair.alice.ike_sa.spi_i] = FIRST_IKE_SA
        self._read = len(pair.log)
        pair.link.fate = lambda packet: ()

    # --- playing ----------------------------------------------------------------------------------

    def play(self, text: str) -> None:
        """Play every line of a story; the first one may be the heads of the columns."""
        for line in text.splitlines():
            event, _, holdings = line.partition("|")
            if not event.strip():
                continue
            try:
                self.do(event.strip())
                self._compare(holdings)
            except AssertionError as error:
                self._write(f"{event.strip()}   <- here")
                raise Told("\n" + "\n".join([*self.ladder, "", str(error)])) from None
            self._write(event.strip())

    def do(self, event: str) -> None:
        """Let one thing happen, given as a line of a story without its columns."""
        head, _, rest = event.partition(" ")
        match head:
            case "A:":
                self.command(self.pair.alice, rest.strip())
            case "B:":
                self.command(self.pair.bob, rest.strip())
            case "lowest":
                self._set_lowest(rest.strip())
            case "wait":
                self.run_for(float(rest))
            case "gap":
                self.may_gap = True
            case "rest":
                self.deliver_all()
            case "end":
                self.conclude()
            case _:
                self._letter(head, rest.strip())
        self.collect()
        self.check_now()

    def command(self, host: Host, text: str) -> None:
        """Have one side do something."""
        verb, _, what = text.partition(" ")
        endpoint, now = host.endpoint, self.pair.now
        match verb, what:
            case "rekey", _ if what in self._ike_names.values():
                host.rekey_ike(self._ike_sa_id(host, what))
            case "rekey", _:
                host.rekey_child(self.child(host, what).child_sa_id)
            case "delete", _ if what in self._ike_names.values():
                host.delete_ike(self._ike_sa_id(host, what))
            case "delete", _:
                host.delete_child(self.child(host, what).child_sa_id)
            case "new", _:
                host.initiate(what)
            case "check", _:
                host.check_liveness(self._ike_sa_id(host, what))
            case "expire", _ if what in self._ike_names.values():
                endpoint._context.now = now
                endpoint._scheduler._expire(endpoint._ike_sas.find(self._ike_sa_id(host, what)))
            case "expire", _:
                endpoint.expire_child(self.child(host, what).child_sa_id, now)
            case "forget", _:
                self._forget(host, self.child(host, what).child_sa_id)
            case "packet", _:
                self._packet(host)
            case "believe", ("lost" | "won"):
                self._misjudge(host, bytes((0xFF if what == "lost" else 0,)))
            case "say", _:
                self._say(host, self._payloads(host, what))
            case "refuse", _:
                where, _, reason = what.partition(" ")
                kind, rule = _asked(where)
                host.answer(kind, refuse=reason, where=rule, times=1)
            case "hold", _:
                kind, rule = _asked(what)
                host.answer(kind, after=1e6, where=rule)
            case "let", "go":
                host.answer_normally()
                self._let_go(host)
            case _:
                raise ValueError(f"no such command: {text}")
        self.pair.drain(host)

    # --- messages ---------------------------------------------------------------------------------

    def _letter(self, name: str, what: str) -> None:
        """Deliver, lose, or wait for one message."""
        if what == "resent":
            copies = self.letters[name].copies
            self.pair.run_until(lambda: self.collect() or self.letters[name].copies > copies, limit_s=60.0)
            return
        assert name in self.letters, f"{name} was not sent; there are {', '.join(self.letters) or 'none'}"
        if what == "lost":
            self.lose(name)
            return
        arrow, _, text = what.partition(" ")
        letter = self.letters[name]
        assert arrow == ("-->" if letter.sender == "alice" else "<--"), f"{name} goes the other way"
        if text == "again":
            self.deliver(name, again=True)
            return
        if text.startswith("instead "):
            self.lose(name)
            self._deliver_instead(letter, text.removeprefix("instead "))
            return
        said = self.describe(letter)
        assert said == text, f"{name} says {said}"
        self.deliver(name)

    def collect(self) -> bool:
        """Take up what was sent since the last time."""
        log, start = self.pair.log, self._read
        self._read = len(log)
        for entry in log[start:]:
            if not isinstance(entry, Sent) or entry.packet.data == KEEPALIVE:
                continue
            letter = self._by_packet.get(entry.packet.data)
            if letter is None:
                self._post(entry.host, entry.packet)
            else:
                letter.under_way += 1
                letter.copies += 1
        return False

    def _post(self, sender: str, packet: Packet) -> None:
        opened = self.pair.tap.open(packet.data)
        header = opened.message.header
        peer = "bob" if sender == "alice" else "alice"
        asker = sender if header.is_request else peer
        name = next(
            (
                letter.name
                for letter in self.letters.values()
                if not header.is_request
                and letter.sender == asker
                and letter.opened.message.header.is_request
                and _exchange_of(letter.opened) == _exchange_of(opened)
            ),
            None,
        )
        if header.is_request:
            self._counts[sender] += 1
            name = f"{sender[0]}{self._counts[sender]}"
        assert name is not None, f"{sender} answers what nobody asked: {opened}"
        self._learn_names(sender, name, opened)
        letter = Letter(name if header.is_request else f"{name}'", packet, opened, sender)
        self.letters[letter.name] = self._by_packet[packet.data] = letter

    def _learn_names(self, sender: str, exchange: str, opened: Opened) -> None:
        """Name what an exchange makes after it."""
        for payload in opened.payloads:
            if not isinstance(payload, SaPayload):
                continue
            for offered in payload.proposals:
                if offered.protocol == ProtocolId.IKE and opened.message.header.is_request:
                    self._ike_names[offered.spi] = f"{FIRST_IKE_SA}{exchange}"
                elif offered.protocol == ProtocolId.ESP:
                    self._names[sender, int.from_bytes(offered.spi)] = exchange

    def under_way(self) -> list[str]:
        """Return the names of the messages that have a copy under way, the oldest first."""
        return [letter.name for letter in self.letters.values() if letter.under_way]

    def deliver(self, name: str, *, again: bool = False) -> None:
        """Let a copy of a message arrive."""
        letter = self.letters[name]
        assert again or letter.under_way, f"no copy of {name} is under way"
        letter.under_way -= not again
        letter.arrivals += 1
        self.pair._deliver(letter.packet)
        self.collect()

    def lose(self, name: str) -> None:
        """Let a copy of a message get lost."""
        assert self.letters[name].under_way, f"no copy of {name} is under way"
        self.letters[name].under_way -= 1

    def deliver_all(self) -> None:
        """Let everything arrive, in the order in which it was sent, until nothing is under way."""
        self.collect()
        while names := self.under_way():
            self.deliver(names[0])
            self.check_now()

    def _deliver_instead(self, letter: Letter, text: str) -> None:
        host = getattr(self.pair, letter.sender)
        header = letter.opened.message.header
        keys = self.pair.tap.keys(header.spi_i, header.spi_r)
        other = self.letters.get(text)
        if other is None:
            exchange_type, payloads = header.exchange_type, self._payloads(host, text)
        else:
            exchange_type, payloads = other.opened.message.header.exchange_type, list(other.opened.payloads)
        data = keys.seal(replace(header, length=0, exchange_type=exchange_type), payloads)
        self.pair._deliver(replace(letter.packet, data=data))

    def _payloads(self, host: Host, text: str) -> list[Payload]:
        if text == "{}":
            return []
        if not text.startswith("D("):
            return [NotifyPayload(NotifyType[text])]
        named = [name.strip() for name in text[2:-1].split(",")]
        if named == ["IKE"]:
            return [DeletePayload(ProtocolId.IKE)]
        return [DeletePayload(ProtocolId.ESP, tuple(self._spi(host, name) for name in named))]

    def _spi(self, host: Host, name: str) -> bytes:
        """Return the SPI with which `host` receives on a Child SA, or the one written out."""
        known = [spi for (owner, spi), of in self._names.items() if owner == host.name and of == name]
        return known[-1].to_bytes(4) if known else bytes.fromhex(name)

    def describe(self, letter: Letter) -> str:
        """Return what a message says, in short."""
        opened, sender = letter.opened, letter.sender
        is_create = opened.message.header.exchange_type == ExchangeType.CREATE_CHILD_SA
        said = []
        for payload in opened.payloads:
            match payload:
                case NotifyPayload() if payload.notify_type == NotifyType.REKEY_SA:
                    return f"REKEY_SA({self._name(sender, payload.spi)})"
                case NotifyPayload() if payload.is_error:
                    said.append(payload.name)
                case DeletePayload() if payload.protocol == ProtocolId.IKE:
                    said.append("D(IKE)")
                case DeletePayload():
                    said.append(f"D({', '.join(self._name(sender, spi) for spi in payload.spis)})")
                case SaPayload() if not opened.message.header.is_request:
                    said.append("SA")
                case SaPayload():
                    is_ike = payload.proposals[0].protocol == ProtocolId.IKE
                    said.append("REKEY(IKE)" if is_ike else "NEW")
                case _:
                    pass
        return " ".join(said) or ("?" if is_create else "{}")

    def _name(self, receiver: str, spi: bytes) -> str:
        return self._names.get((receiver, int.from_bytes(spi)), spi.hex())

    # --- commands that no operator has ------------------------------------------------------------

    def _forget(self, host: Host, child_sa_id: ChildSaId) -> None:
        ike_sa, child_sa = host.endpoint._ike_sas.find_child(child_sa_id)
        host.endpoint._context.now = self.pair.now
        ike_sa.end_child(child_sa, Failure(reason=FailureReason.INTERNAL, detail="lost in a story"))

    def _packet(self, host: Host) -> None:
        sending = host.sad.outbound("site", "lan")
        peer = self.pair.peer_of(host)
        received = peer.sad.inbound(sending.spi)
        assert received is not None, f"{peer.name} cannot receive what {host.name} sends"
        peer.endpoint.note_traffic(ChildSaId(received.child_sa_id), self.pair.now)
        self.pair.drain(peer)

    def _misjudge(self, host: Host, theirs: bytes) -> None:
        """Have one side compare wrongly, by giving it other nonces for the peer's exchange."""
        for ike_sa in host.endpoint._ike_sas.all():
            for number, rival in ike_sa.rivals.items():
                ike_sa.rivals[number] = replace(rival, nonces=(theirs, theirs))

    def _say(self, host: Host, payloads: list[Payload]) -> None:
        """Have a core send an INFORMATIONAL that it would not send by itself."""
        ike_sa = next(sa for sa in host.endpoint._ike_sas.all() if sa.established_at and sa.successor is None)
        runner = host.endpoint._runner
        host.endpoint._context.now = self.pair.now
        assert ike_sa.initiating is None, f"{host.name} waits for a response"

        def steps() -> Steps[None]:
            yield from request(ExchangeType.INFORMATIONAL, payloads)

        plan = Plan(kind=PlanKind.LIVENESS)
        ike_sa.initiating = runner._start(ike_sa, TaskRole.INITIATOR, steps(), plan)
        runner._advance(ike_sa.initiating, None)

    def _let_go(self, host: Host) -> None:
        held = [answer for answer in self.pair._answers if answer[2] is host]
        self.pair._answers = [answer for answer in self.pair._answers if answer[2] is not host]
        for _, _, _, asked, refusal in sorted(held, key=lambda answer: answer[:2]):
            self.pair._resolve(host, asked, refusal)

    def _set_lowest(self, name: str) -> None:
        """Rule the nonces of two requests that cross: each side draws its Ni first, then its Nr."""
        self.lowest = name
        drawn = {"alice": ("a1", "b1'"), "bob": ("b1", "a1'")}
        for host in self.pair.hosts:
            octets = [0x01 if of == name else 0x80 for of in drawn[host.name]]
            host.endpoint._context.entropy.first_octets = iter(octets)

    # --- what each side holds ---------------------------------------------------------------------

    def child(self, host: Host, name: str) -> ChildSaInfo:
        """Return one side's Child SA by its name."""
        found = [sa for sa in host.child_sas if self._child_name(host, sa) == name]
        assert found, f"{host.name} has no Child SA {name}, but {self.holdings(host)}"
        return found[0]

    def _child_name(self, host: Host, sa: ChildSaInfo) -> str:
        return self._names.get((host.name, sa.inbound.spi), "?")

    def _ike_name(self, spi_i: bytes) -> str:
        return self._ike_names.get(spi_i, spi_i.hex())

    def _ike_sa_id(self, host: Host, name: str) -> IkeSaId:
        (found,) = [sa for sa in host.ike_sas if self._ike_names.get(sa.spi_i) == name]
        return found.ike_sa_id

    def holdings(self, host: Host) -> str:
        """Return what one side has, as the columns of a story write it."""
        said = [f"{self._ike_name(sa.spi_i)}{MARKS.get(sa.state, '?')}" for sa in host.ike_sas]
        held = set()
        for sa in host.child_sas:
            held |= {sa.inbound.spi, sa.outbound.spi}
            serving = host.sad.outbound("site", sa.child)
            sends = serving is not None and serving.spi == sa.outbound.spi
            said.append(f"{self._child_name(host, sa)}{MARKS[sa.state]}{'>' if sends else ''}")
        for installed in host.sad.sas.values():
            sa = installed.sa
            if sa.spi not in held:
                is_inbound = sa.direction is Direction.INBOUND
                name = self._names.get((host.name, sa.spi)) if is_inbound else None
                said.append(f"({name or f'{sa.direction.value} {sa.spi:08x}'})")
        return " ".join(said)

    def _compare(self, columns: str) -> None:
        wanted = [column.strip() for column in columns.split("|")] if columns else ["", ""]
        for host, column in zip(self.pair.hosts, wanted, strict=True):
            expected = self._expected[host.name] = column or self._expected[host.name]
            if not expected:
                continue
            actual = set(self.holdings(host).split())
            if FIRST_IKE_SA not in expected:
                actual = {item for item in actual if not item.startswith(FIRST_IKE_SA)}
            assert (actual or {"none"}) == set(expected.split()), f"{host.name} should hold {expected}"

    def _write(self, event: str) -> None:
        alice, bob = (self.holdings(host) for host in self.pair.hosts)
        self.ladder.append(f"{event:{COLUMNS[0]}}| {alice:{COLUMNS[1]}}| {bob}".rstrip())

    # --- what must hold ---------------------------------------------------------------------------

    def check_now(self) -> None:
        """Check what must hold at every instant."""
        for host in self.pair.hosts:
            peer = self.pair.peer_of(host)
            sending = host.sad.outbound("site", "lan")
            received = None if sending is None else peer.sad.inbound(sending.spi)
            if sending is None or received is None:
                what = "nothing" if sending is None else f"{sending.spi:08x}, which {peer.name} drops"
                assert self.may_gap, f"{host.name} sends with {what}"
                continue
            assert received.encryption_key == sending.encryption_key, "the sides have other keys"

    def run_for(self, seconds: float) -> None:
        """Let time pass, and check at every instant at which anything happens."""
        pair, end = self.pair, self.pair.now + seconds
        while (due := pair._next_due()) is not None and due <= end:
            pair._step()
            self.check_now()
        pair.clock.jump_to(end)

    def conclude(
        self, seconds: float = 90.0, children: int | None = None, ike_sas: int | None = None
    ) -> None:
        """Let everything arrive for a while; both sides must agree then, and have nothing left to do."""
        self.collect()
        strays = [letter.name for letter in self.letters.values() if letter.under_way and not letter.arrivals]
        assert not strays, f"what becomes of {', '.join(strays)}?"
        self.deliver_all()
        self.pair.link.fate = untouched
        self.run_for(seconds)
        check_quiet(self.pair, children=children, ike_sas=ike_sas)


def check_quiet(pair: Pair, *, children: int | None = None, ike_sas: int | None = None) -> None:
    """Check that the sides agree about every SA, datapaths have just those, and nothing is under way."""
    pair.check(children=children, ike_sas=ike_sas)
    assert len(pair.alice.ike_sas) <= 1, "one IKE SA too many"
    for host in pair.hosts:
        context, runner = host.endpoint._context, host.endpoint._runner
        names = [sa.child for sa in host.child_sas]
        assert len(names) == len(set(names)), f"{host.name} has a Child SA too many"
        assert not context.lingering, f"{host.name} still drains {context.lingering}"
        assert not runner._tasks, f"{host.name} still runs {list(runner._tasks.values())}"
        assert not runner._running, f"{host.name} waits for its shell"
        assert context.told == {sa.child_sa_id for sa in host.child_sas}
        assert set(context.child_owners) == context.told
        for ike_sa in host.endpoint._ike_sas.all():
            assert ike_sa.requests.outstanding is None, f"{host.name} has a request pending"
            assert ike_sa.responses.pending_id is None, f"{host.name} owes a response"
            left = (ike_sa.plans, ike_sa.delayed, ike_sa.rivals, ike_sa.settled, ike_sa.background)
            assert not any(left), f"{host.name} has something left to do: {left}"
            assert ike_sa.rival is ike_sa.rival_sa is ike_sa.predecessor is None


def _exchange_of(opened: Opened) -> tuple[bytes, bytes, int]:
    header = opened.message.header
    return header.spi_i, header.spi_r, header.message_id


def _asked(what: str) -> tuple[Any, Callable[[Any], bool]]:
    if what == "spi":
        return SpiRequest, lambda asked: True
    direction = Direction(what)
    return InstallRequest, lambda asked: asked.sa.direction is direction
