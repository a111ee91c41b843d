"""Every way in which two exchanges can cross: all orders of delivery, and one fault.

A *crossing* is what Alice does, what Bob does, and at most one fault. Its *paths* are the orders in which
the two commands and all messages can happen. Two events at different sides, neither caused by the other,
give the same whichever comes first; only one of such orders is told (the events at Alice first), which
loses nothing and leaves some dozens of paths of what would be thousands.

A path cannot be wound back, so that each is played from its beginning: a few milliseconds.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from gateway.ike.events import InstallRequest, SpiRequest
from tests.fakes.link import untouched
from tests.fakes.pair import Host
from tests.fakes.story import Story, check_quiet

CARRYING = frozenset({"installed", "rekeying"})
SERVING = frozenset({"established", "rekeying"})
LATE_S = 4.0
"""How long what is late is held back: its retransmission was answered long ago then."""
FAULTS = ("lost", "doubled", "late")
MESSAGES = ("a1", "a1'", "b1", "b1'", "a2", "a2'", "b2", "b2'")


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong once.

    Attributes:
        kind: `lost`, `doubled` (a copy comes again when all is said), `late` (it comes seconds later, as its
            retransmission did); or of the datapath: `slow` (answers any time later), `refuses`.
        subject: Name of the message; or of the side, with `refuses` the number of its request too.
    """

    kind: str
    subject: str

    def __str__(self) -> str:
        return f"{self.subject} {self.kind}"


NO_FAULT = Fault("", "nothing")
MESSAGE_FAULTS = tuple(Fault(kind, name) for name in MESSAGES for kind in FAULTS)
DATAPATH_FAULTS = (
    Fault("slow", "alice"),
    Fault("slow", "bob"),
    *(Fault("refuses", f"{name} {number}") for name in ("alice", "bob") for number in range(3)),
)


@dataclass(frozen=True, slots=True)
class Crossing:
    """What both sides do at about the same time; of two commands of one side say `rekey child, rekey IKE`."""

    alice: str
    bob: str
    fault: Fault = NO_FAULT
    lowest: str = ""
    """Whose nonce is the lowest of four, where it matters."""

    def __str__(self) -> str:
        fault = "" if self.fault is NO_FAULT else f" ({self.fault})"
        lowest = f", nonce of {self.lowest} lowest" if self.lowest else ""
        return f"{self.alice} x {self.bob}{lowest}{fault}"


_SIDES = {"A acts": "alice", "B acts": "bob"}


class Path:
    """One order of events in a crossing."""

    def __init__(self, crossing: Crossing) -> None:
        self.crossing = crossing
        self.story = Story()
        self.events: list[str] = []
        self.lan = {1}
        """How many Child SAs `lan` may have in the end; `dmz` likewise."""
        self.dmz = {0}
        self.has_ike_sa = True
        self.to_do = {"A acts": crossing.alice.split(", "), "B acts": crossing.bob.split(", ")}
        self.held_back = ""
        self.repeated = ""
        if crossing.lowest:
            self.story._set_lowest(crossing.lowest)
        self._arm()

    def _arm(self) -> None:
        fault, story = self.crossing.fault, self.story
        if fault.kind == "slow":
            getattr(story.pair, fault.subject).answer(InstallRequest, after=1e6)
        elif fault.kind == "refuses":
            name, _, number = fault.subject.partition(" ")
            host, before = getattr(story.pair, name), int(number)
            host.answer(InstallRequest, refuse="SYSTEM", times=1)
            host.answer(SpiRequest, refuse="SYSTEM", times=1)
            if before:
                host.answer(object, times=before)
        # With a datapath that refuses, what is made may be given up again, on either side.
        if fault.kind == "refuses":
            self.lan |= {0}
            self.story.may_gap = True

    # --- events -----------------------------------------------------------------------------------

    def enabled(self) -> dict[str, str]:
        """Return what can happen next: each event, and the side it happens at."""
        self.story.collect()
        events = {event: _SIDES[event] for event, actions in self.to_do.items() if actions}
        for name in self.story.under_way():
            letter = self.story.letters[name]
            if not letter.arrivals and name not in (self.held_back, self.repeated):
                events[name] = "bob" if letter.sender == "alice" else "alice"
        for host in self.story.pair.hosts:
            if any(answer[2] is host for answer in self.story.pair._answers):
                events[f"{host.name} installs"] = host.name
        return events

    def happen(self, event: str) -> None:
        """Let one event happen."""
        self.events.append(event)
        story, fault = self.story, self.crossing.fault
        if event in self.to_do:
            self._act(getattr(story.pair, _SIDES[event]), self.to_do[event].pop(0))
        elif event.endswith("installs"):
            self._install_one(getattr(story.pair, event.removesuffix(" installs")))
        elif event == fault.subject and fault.kind == "lost":
            story.lose(event)
        elif event == fault.subject and fault.kind == "late":
            self.held_back = event
        else:
            if event == fault.subject and fault.kind == "doubled":
                story.letters[event].under_way += 1
                self.repeated = event
            story.deliver(event)
        story.collect()
        story.check_now()

    def _install_one(self, host: Host) -> None:
        pair = self.story.pair
        answer = min((a for a in pair._answers if a[2] is host), key=lambda a: a[:2])
        pair._answers.remove(answer)
        pair._resolve(host, answer[3], answer[4])

    def _act(self, host: Host, action: str) -> None:
        children = [sa for sa in host.child_sas if sa.child == "lan"]
        carrying = [sa for sa in children if sa.state in CARRYING]
        ike_sas = [sa for sa in host.ike_sas if sa.state in SERVING]
        match action:
            case "create child" if ike_sas:
                host.initiate("dmz")
                self.dmz = {0, 1} if self.crossing.fault.kind == "refuses" else {1}
            case "rekey child" if carrying:
                host.rekey_child(carrying[0].child_sa_id)
            case "delete child" if children:
                self.story.may_gap = True
                self.lan = {0}
                host.delete_child((carrying or children)[0].child_sa_id)
            case "rekey IKE" if ike_sas:
                host.rekey_ike(ike_sas[0].ike_sa_id)
            case "delete IKE" if ike_sas:
                self.story.may_gap = True
                self.has_ike_sa = False
                host.delete_ike(ike_sas[0].ike_sa_id)
            case "DPD" if ike_sas:
                host.check_liveness(ike_sas[0].ike_sa_id)

    # --- the end ----------------------------------------------------------------------------------

    def conclude(self) -> None:
        """Let everything arrive that is still to come; check what is left."""
        story, pair = self.story, self.story.pair
        if self.repeated:
            story.deliver(self.repeated, again=True)
        story.deliver_all()
        pair.link.fate = untouched
        for host in pair.hosts:
            host.answer_normally()
        if self.held_back:
            story.run_for(LATE_S)
            story.deliver(self.held_back, again=True)
        story.run_for(90.0)
        check_quiet(pair, ike_sas=1 if self.has_ike_sa else 0)
        names = [sa.child for sa in pair.alice.child_sas]
        lan, dmz = (self.lan, self.dmz) if self.has_ike_sa else ({0}, {0})
        assert names.count("lan") in lan, f"{names.count('lan')} Child SAs lan, not {lan}"
        assert names.count("dmz") in dmz, f"{names.count('dmz')} Child SAs dmz, not {dmz}"


def play(crossing: Crossing, beginning: tuple[str, ...]) -> tuple[Path | None, list[tuple[str, ...]]]:
    """Play one path; return it, and how others begin that branch off after `beginning`.

    The path is None where it turns out to be another one in another order.

    Raises:
        AssertionError: Something is not as it must be; the text has the events and the ladder.
    """
    path = Path(crossing)
    branches = []
    last, before = "", dict[str, str]()
    try:
        while enabled := path.enabled():
            side = before.get(last, "")
            fresh = [
                event
                for event, where in enabled.items()
                if not (side == "bob" and where == "alice" and event in before)
            ]
            if not fresh:
                return None, branches
            number = len(path.events)
            if number < len(beginning):
                chosen = beginning[number]
            else:
                chosen = fresh[0]
                branches += [(*path.events, other) for other in fresh[1:]]
            last, before = chosen, enabled
            path.happen(chosen)
        path.conclude()
    except Exception as error:
        told = "\n".join(path.story.pair.story())
        text = f"{crossing}: {', '.join(path.events)}\n{type(error).__name__}: {error}\n{told}"
        raise AssertionError(text) from error
    return path, branches


def paths(crossing: Crossing, limit: int | None = None, beginning: tuple[str, ...] = ()) -> Iterator[Path]:
    """Play every path of a crossing that begins like this, or the first ones."""
    waiting = [beginning]
    told = 0
    while waiting and (limit is None or told < limit):
        path, branches = play(crossing, waiting.pop())
        waiting += branches
        if path is not None:
            told += 1
            yield path


def struck(crossing: Crossing, fault: Fault, orders: Iterable[tuple[str, ...]], limit: int) -> Iterator[Path]:
    """Play a fault of one message in some of the situations that it can strike in.

    Args:
        crossing: Without a fault.
        fault: Of a message.
        orders: Of events in the crossing without the fault: up to that message everything goes as there.
        limit: Number of situations; what went before the message differs in each.
    """
    situations = dict.fromkeys(
        events[: events.index(fault.subject) + 1] for events in orders if fault.subject in events
    )
    told = 0
    # The shortest and the longest first: the other side has done nothing yet, or all it can.
    ranked = deque(sorted(situations, key=len))
    while ranked and told < limit:
        chosen = ranked.pop() if told % 2 else ranked.popleft()
        for path in paths(replace(crossing, fault=fault), 1, chosen):
            told += 1
            yield path
