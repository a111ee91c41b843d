"""Several Child SAs for the same traffic, one for all CPUs and others for one CPU each (RFC 9611).

```
 HDR, SK { ..., N(SA_RESOURCE_INFO), SA, Ni, [KEi], TSi, TSr }  -->   the one for all: both say so
                              <--  HDR, SK { ..., N(SA_RESOURCE_INFO), SA, Nr, [KEr], TSi, TSr }
 HDR, SK { N(SA_RESOURCE_INFO), SA, Ni, [KEi], TSi, TSr }  -->   another beside it, with its
                              <--  HDR, SK { N(SA_RESOURCE_INFO), ... }  selectors, suite and mode
                                       or { N(TS_MAX_QUEUE) }
```

Each side has CPUs of its own: which one of ours a Child SA is for is told to the peer for people only (§5.1).
A successor is for the CPU of what it replaces (§3).

The initiator of the first asks for the others at once, not when their CPU has packets: while an ACQUIRE for a
CPU is unanswered (XFRM_POLICY_CPU_ACQUIRE), Linux 7.3 drops the packets of that CPU beside an SA for all.
"""

from collections import Counter

from gateway.ike.events import Failure, FailureReason
from gateway.ike.v2.child_sa import ChildSa, Resource
from gateway.ike.v2.exchange import ChildRejected
from gateway.ike.v2.ike_sa import IkeSa
from gateway.ike.v2.states import CARRYING_STATES, ChildSaState
from gateway.ike.wire.notify import NotifyType
from gateway.ike.wire.payloads import NotifyPayload, Payload, find_notify
from gateway.ipsec.algorithms import TransformType
from gateway.ipsec.connection import Child
from gateway.ipsec.proposal import Proposal
from gateway.ipsec.sa import Mode
from gateway.ipsec.selectors import TrafficSelector

FOR_ALL = Resource(cpu=None)
_CPU_BYTES = 4
_SPARE = 2
"""So many for each CPU: at a rekey there are two, and both sides may ask at once (RFC 9611 §6)."""


def cpus_of(ike_sa: IkeSa, child: Child) -> int:
    """Return how many CPUs may have a Child SA of their own; with 0 nothing is said of it."""
    cpus = ike_sa.context.cpus
    return cpus if child.per_cpu_sas is None else min(child.per_cpu_sas, cpus)


def resource_notify(resource: Resource | None) -> list[Payload]:
    """Return [N(SA_RESOURCE_INFO)]; its data are for people who read a capture (RFC 9611 §5.1)."""
    if resource is None:
        return []
    data = b"" if resource.cpu is None else resource.cpu.to_bytes(_CPU_BYTES, "big")
    return [NotifyPayload(NotifyType.SA_RESOURCE_INFO, data)]


def says_resource(payloads: tuple[Payload, ...]) -> bool:
    """Tell whether a message has N(SA_RESOURCE_INFO)."""
    return find_notify(payloads, NotifyType.SA_RESOURCE_INFO) is not None


# --- initiator ----------------------------------------------------------------------------------


def find_fallback(ike_sa: IkeSa, child: Child, cpu: int) -> ChildSa | None:
    """Return the Child SA for all beside which one for a CPU may be asked for now."""
    found = ike_sa.find_carrying(child.name)
    if found is None or found.state not in CARRYING_STATES or found.parameters.resource is None:
        return None
    may = cpu < cpus_of(ike_sa, child) and not found.peer_has_enough
    return found if may and ike_sa.find_carrying(child.name, cpu) is None else None


def proposals_like(agreed: Proposal, configured: tuple[Proposal, ...]) -> tuple[Proposal, ...]:
    """Return proposals of exactly what was agreed on, with the key exchange methods that are configured."""
    kept = tuple(t for t in agreed.transforms if t.type is not TransformType.KE)
    methods = dict.fromkeys(t for proposal in configured for t in proposal.of_type(TransformType.KE))
    return (Proposal(agreed.protocol, (*kept, *methods)),)


# --- responder ----------------------------------------------------------------------------------


def assign(
    ike_sa: IkeSa,
    child: Child,
    payloads: tuple[Payload, ...],
    agreed: tuple[Proposal, Mode, tuple[TrafficSelector, ...], tuple[TrafficSelector, ...]],
) -> Resource | None:
    """Return what a Child SA that a peer asks for is for: the CPU of ours with the fewest (RFC 9611 §4).

    Args:
        ike_sa: Where it is asked for.
        child: What it is made for.
        payloads: Of the request.
        agreed: Proposal, mode, local and remote selectors.

    Raises:
        ChildRejected: TS_MAX_QUEUE: there are enough. NO_PROPOSAL_CHOSEN: it is unlike the one for all.
    """
    cpus = cpus_of(ike_sa, child)
    if not cpus or not says_resource(payloads):
        return None
    group = [c for c in ike_sa.children.values() if _is_beside(c, child.name, agreed[2:])]
    first = next((c for c in group if c.cpu is None), None)
    if first is None:
        return FOR_ALL
    if _properties(agreed[0], agreed[1]) != _properties(first.parameters.proposal, first.parameters.mode):
        raise ChildRejected(
            Failure(
                reason=FailureReason.NO_PROPOSAL_CHOSEN,
                detail=f"a Child SA beside another must be like it (RFC 9611 §3): {agreed[0]} is not "
                f"{first.parameters.proposal}",
                notify=NotifyType.NO_PROPOSAL_CHOSEN.name,
                offered=str(agreed[0]),
                configured=str(first.parameters.proposal),
            ),
            NotifyType.NO_PROPOSAL_CHOSEN,
        )
    load = Counter(c.cpu for c in group if c.cpu is not None)
    if load.total() >= _SPARE * cpus:
        detail = f"Child {child.name!r} has {load.total()} Child SAs for {cpus} CPUs: that is enough"
        raise ChildRejected(
            Failure(reason=FailureReason.PEER_NOTIFY, detail=detail, notify=NotifyType.TS_MAX_QUEUE.name),
            NotifyType.TS_MAX_QUEUE,
        )
    return Resource(cpu=min(range(cpus), key=lambda cpu: (load[cpu], cpu)))


def _is_beside(child_sa: ChildSa, child: str, selectors: tuple[tuple[TrafficSelector, ...], ...]) -> bool:
    given = child_sa.parameters
    is_there = child_sa.state in CARRYING_STATES or child_sa.state is ChildSaState.CREATING
    is_same = (given.child.name, (given.local_ts, given.remote_ts)) == (child, selectors)
    return is_there and is_same and given.resource is not None


def _properties(proposal: Proposal, mode: Mode) -> tuple[object, ...]:
    return proposal.protocol, proposal.encr, proposal.key_bits, proposal.integ, proposal.esn, mode
