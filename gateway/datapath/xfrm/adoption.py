"""What a former life of the agent left in the kernel: taken over, or kept in force until it is replaced."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from gateway.datapath.backend import DatapathError
from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.algorithms import read_suite, suite_of
from gateway.datapath.xfrm.installation import KernelName
from gateway.datapath.xfrm.journal import Journal, SaNote
from gateway.datapath.xfrm.kernel import delete_policies, delete_sas
from gateway.datapath.xfrm.kernel_sas import carried_bytes
from gateway.datapath.xfrm.netlink import Policy, Sa, XfrmSocket
from gateway.datapath.xfrm.placing import engine_of
from gateway.datapath.xfrm.policies import serves_of
from gateway.datapath.xfrm.sad import Held, Sad
from gateway.datapath.xfrm.spd import Key, Spd, closed_tag
from gateway.ipsec.sa import Direction


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What is in the kernel with our tag."""

    sas: tuple[Sa, ...] = ()
    policies: tuple[Policy, ...] = ()

    def remove(self, xfrm: XfrmSocket, *, but: Spd | None = None) -> None:
        """Remove it, save the policies that an SPD has taken over; in the netlink thread."""
        delete_sas(xfrm, [KernelName(sa.body.id, sa.attributes.mark) for sa in self.sas])
        keys = map(_key, self.policies)
        delete_policies(xfrm, [key for key in keys if but is None or not but.has(key)])


def find_leftovers(xfrm: XfrmSocket, tag: int) -> Leftovers:
    """Return everything with our tag; in the netlink thread."""
    return Leftovers(
        tuple(sa for sa in xfrm.sas() if sa.body.selector.user == tag),
        tuple(policy for policy in xfrm.policies() if policy.body.selector.user in (tag, closed_tag(tag))),
    )


def adopt(found: Leftovers, journal: Journal, sad: Sad, spd: Spd) -> Leftovers:
    """Take over what the journal knows, and return the rest.

    What is left comes before all that is put in force from now on: nothing it protects goes in clear.

    Raises:
        OSError: The journal cannot be read or written.
    """
    sa_notes, policy_notes = journal.open()
    sas = {sa.body.id: sa for sa in found.sas}
    for note in sa_notes:
        held = _held(note, sas)
        if held is None:
            journal.forget_sa(note.sa.sa_id)
            continue
        del sas[held.kernel_id]
        sad.restore_reqid(held.serves, note.reqid)
        sad.add(held)
        if held.sa.direction is Direction.OUTBOUND:
            sad.keys.adopt(sad.keys.fingerprint(held.sa))
    for entry in policy_notes:
        policy = entry.policy
        try:
            spd.put(policy, entry.generation, sad.carriers(serves_of(policy)), label=entry.label)
        except DatapathError:
            journal.forget_policy(policy.name)
    rest = Leftovers(tuple(sas.values()), tuple(_without_entry(found.policies, spd)))
    spd.come_after(max((policy.body.priority for policy in rest.policies), default=0))
    return rest


def _held(note: SaNote, sas: dict[r.SaId, Sa]) -> Held | None:
    """Return the SA of a note with the keys that the kernel has; `None` if it has none like it."""
    there = sas.get(note.at.id_of(note.sa))
    found = None if there is None else read_suite(note.sa.protocol, there.attributes)
    if there is None or found is None or found[0] != suite_of(note.sa):
        return None
    _, encryption_key, integrity_key = found
    offload = there.attributes.offload
    return Held(
        sa=replace(note.sa, encryption_key=encryption_key, integrity_key=integrity_key),
        generation=note.generation,
        engine=engine_of(offload),
        at=note.at,
        offload=offload,
        device=note.device,
        mtu_bytes=carried_bytes(note.sa, note.at) if note.sa.direction is Direction.OUTBOUND else 0,
    )


def _without_entry(policies: Iterable[Policy], spd: Spd) -> Iterable[Policy]:
    for policy in policies:
        if not spd.has(_key(policy)):
            yield policy


def _key(policy: Policy) -> Key:
    attributes = policy.attributes
    return Key(policy.body.direction, policy.body.selector, attributes.if_id or 0, attributes.mark)
