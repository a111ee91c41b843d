"""Forwarding in XDP beside packet offload: which packets go straight to the NIC that encrypts them, and when.

What is forwarded here passes by the kernel's routing and policies, and a NIC sends in clear what it has no
SA for. So the rule is that XDP gives a packet to a NIC only where the kernel itself, at that moment, would
give it to the same NIC in clear, to be encrypted there:

- An SA is put into the program's maps when it and its policies have been read back as the device's, and taken
  out again, with time for the frames that are under way, before we change either (`withdraw`).
- The program asks the kernel for the SA, packet by packet, for what happens without us: a device that goes
  down cannot send before it is up again, and has lost its SAs in the kernel's table by then; whoever deletes
  an SA, or the end of its lifetime, takes it out of the table before the device.
- The lease ends by itself when nobody renews it; the program ends with this process.

Inbound nothing is forwarded: XDP cannot tell what the NIC decrypted from what came in clear, the stack can.

Calls must not overlap, but for `forget` and the readers.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.errors import XfrmError
from gateway.datapath.xfrm.forwarding_paths import (
    PathKey,
    Surroundings,
    keep_neighbours,
    path_of,
    ports_of,
    read_surroundings,
    sysctl_of,
)
from gateway.datapath.xfrm.kernel import read_policies
from gateway.datapath.xfrm.netlink import XfrmThread
from gateway.datapath.xfrm.numbers import OffloadFlag, PolicyDirection
from gateway.datapath.xfrm.sad import Held, Sad
from gateway.datapath.xfrm.selectors import common, meet
from gateway.datapath.xfrm.spd import Entry, Serves, Spd
from gateway.datapath.xfrm.xdp_forwarder import XdpForwarder
from gateway.esp.mtu import effective_mtu
from gateway.host.bpf.abi import Exit, NextHop, OffloadedSa, Port, PortKey
from gateway.host.bpf.grace import wait_for_running_programs
from gateway.host.errors import HostError
from gateway.host.network import Network
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.placement import Engine
from gateway.ipsec.policy import Action, Policy
from gateway.ipsec.sa import Mode, SaId
from gateway.observe.logs import get_logger

_log = get_logger(__name__)

LEASE_S: Final = 5.0
"""Forwarding ends so long after the agent was last heard of."""
_RENEW_S: Final = 1.0
_REFRESH_S: Final = 5.0
"""Next hops are looked at so often where nothing tells of a change, as neighbours do not."""
_SETTLE_S: Final = 0.1
_WORK_SHARE: Final = 0.2
"""Of the time may be spent on publishing while SAs come and go."""
_LONGEST_PAUSE_S: Final = 2.0
"""Well within a lease."""
_DRAIN_S: Final = 0.01
"""What is in the queue of a NIC is sent by then: 8192 frames of 1500 bytes take 1 ms at 100 Gb/s."""
_MAX_NUMBER: Final = (1 << 32) - 1
_INBOUND: Final = "the stack forwards what comes in, because it can tell what was encrypted"


class Forwarding:
    """What XDP forwards for one agent. Without interfaces every call does nothing.

    Args:
        interfaces: Names of those that the program runs on.
        thread: To the kernel's XFRM; borrowed.
        network: Borrowed.
        sad: The SAs of ours.
        spd: The entries of ours.
    """

    def __init__(
        self,
        interfaces: Sequence[str],
        *,
        thread: XfrmThread,
        network: Network,
        sad: Sad,
        spd: Spd,
    ) -> None:
        self._interfaces = tuple(interfaces)
        self._thread = thread
        self._network = network
        self._sad = sad
        self._spd = spd
        self._forwarder: XdpForwarder | None = None
        self._why_none = ""
        self._numbers: dict[SaId, int] = {}
        """Of the SAs in the maps; each number is used once."""
        self._next_number = 1
        self._reqids: dict[SaId, int] = {}
        self._records: dict[int, OffloadedSa] = {}
        """What the maps have, by number."""
        self._words: dict[SaId, str] = {}
        self._published: tuple[tuple[Policy, ...], Mapping[str, int]] = ((), {})
        self._changed = asyncio.Event()
        self._refresh_at = 0.0
        self._is_held = True
        """Whether nothing is forwarded until the SPD was published."""
        self._pause_s = _SETTLE_S

    @property
    def is_wanted(self) -> bool:
        """Return whether there are interfaces to forward from."""
        return bool(self._interfaces)

    # --- life ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load the program; where this kernel cannot run it, the stack forwards, and `words` say why."""
        if not self._interfaces:
            return
        try:
            self._forwarder = await asyncio.to_thread(XdpForwarder)
        except HostError as error:
            self._why_none = f"the stack forwards: {error}"
            _log.warning("no_forwarding_in_xdp", reason=str(error))
        self._changed.set()

    async def close(self) -> None:
        """Detach the program: from here on the stack forwards."""
        forwarder, self._forwarder = self._forwarder, None
        if forwarder is not None:
            await asyncio.to_thread(forwarder.close)

    # --- less is forwarded: at once -----------------------------------------------------------------

    def note_change(self) -> None:
        """Note that SAs, links, addresses or routes changed: `follow` looks at them."""
        self._changed.set()

    def hold(self) -> None:
        """Forward nothing until `follow` has seen the SPD, whose entries change."""
        if self._forwarder is not None:
            self._is_held = True
            self._forwarder.lease_until(0)
            self._changed.set()

    def forget(self, held: Held) -> None:
        """Forward nothing to an SA that the kernel has no more; does not wait."""
        self._forget(held.sa.sa_id)

    def _forget(self, sa_id: SaId) -> None:
        number = self._numbers.pop(sa_id, None)
        self._reqids.pop(sa_id, None)
        if number is not None and self._forwarder is not None:
            self._records.pop(number, None)
            self._forwarder.remove_sas((number,))
            self._changed.set()

    async def withdraw(self, sas: Iterable[Held]) -> None:
        """Forward nothing to these SAs any more, and return when nothing is under way to them."""
        there = [held for held in sas if held.sa.sa_id in self._numbers]
        for held in there:
            self.forget(held)
        if there:
            await asyncio.to_thread(wait_for_running_programs)
            await asyncio.sleep(_DRAIN_S)

    async def withdraw_served(self, reqids: Collection[int]) -> None:
        """Do so with the SAs that policies with these reqids lead to, before a device loses such a policy."""
        names = [sa_id for sa_id, reqid in self._reqids.items() if reqid in reqids]
        await self.withdraw(held for sa_id in names if (held := self._sad.get(sa_id)) is not None)

    # --- more is forwarded: when all was looked at --------------------------------------------------

    async def wait(self) -> None:
        """Return when it is time to `follow`."""
        try:
            async with asyncio.timeout(_RENEW_S):
                await self._changed.wait()
        except TimeoutError:
            return
        # Changes come in bursts.
        await asyncio.sleep(self._pause_s)

    async def follow(self) -> None:
        """Have the maps say what SAs, SPD and next hops are now, if they changed; renew the lease."""
        if self._forwarder is None:
            return
        if self._changed.is_set() or time.monotonic() >= self._refresh_at:
            self._changed.clear()
            began = time.monotonic()
            try:
                await self._publish(self._forwarder)
            except (HostError, XfrmError) as error:
                # Without a lease all of it is the stack's; it is tried again at the next change.
                self._forwarder.lease_until(0)
                self._why_none = f"the stack forwards: {error}"
                _log.warning("forwarding_not_followed", reason=str(error))
                self._refresh_at = began + _REFRESH_S
                self._is_held = True
                return
            self._why_none = ""
            self._is_held = False
            ended = time.monotonic()
            self._pause_s = min(max(_SETTLE_S, (ended - began) / _WORK_SHARE), _LONGEST_PAUSE_S)
            self._refresh_at = ended + _REFRESH_S
        if not self._is_held:
            self._forwarder.lease_until(time.monotonic_ns() + int(LEASE_S * 1e9))

    async def _publish(self, forwarder: XdpForwarder) -> None:
        nics = {held.offload.link for held in self._sad if _is_offloaded(held) and held.offload is not None}
        around = await read_surroundings(self._network, nics)
        here = {link.name: link.index for link in around.links.values() if link.name in self._interfaces}
        await asyncio.to_thread(forwarder.follow, here)
        found = await self._forwarded(around)
        # The kernel may have told meanwhile that some are gone.
        sas = {sa_id: sa for sa_id, sa in found.items() if self._sad.get(sa_id) is not None}
        for sa_id in [sa_id for sa_id in self._numbers if sa_id not in sas]:
            self._forget(sa_id)
        for sa_id in sas:
            self._number(sa_id)
        policies, names = policies_for_xdp(self._spd.entries(), self._sad, sas)
        spd = policies, {name: self._numbers[sa_id] for name, sa_id in names.items()}
        records = {self._numbers[sa_id]: sa for sa_id, sa in sas.items()}
        ports = ports_of(here.values(), around, nics)
        await asyncio.to_thread(self._write, forwarder, ports, around, records, spd)
        await keep_neighbours(self._network, around, (sa.hop for sa in sas.values()))

    def _write(
        self,
        forwarder: XdpForwarder,
        ports: Mapping[PortKey, Port],
        around: Surroundings,
        records: dict[int, OffloadedSa],
        spd: tuple[tuple[Policy, ...], Mapping[str, int]],
    ) -> None:
        forwarder.set_ports(ports, (item.address for item in around.addresses))
        forwarder.set_sas({key: sa for key, sa in records.items() if self._records.get(key) != sa})
        if spd != self._published:
            forwarder.set_policies(*spd)
            self._published = spd
        forwarder.keep_sas(records)
        self._records = records

    def _number(self, sa_id: SaId) -> None:
        if sa_id in self._numbers:
            return
        self._numbers[sa_id] = self._next_number
        self._next_number = self._next_number % _MAX_NUMBER + 1
        held = self._sad.get(sa_id)
        assert held is not None
        self._reqids[sa_id] = self._sad.reqid(held.serves)

    # --- what is so now -----------------------------------------------------------------------------

    async def _forwarded(self, around: Surroundings) -> dict[SaId, OffloadedSa]:
        """Return the SAs that are forwarded to, and note of the others why not."""
        found: dict[SaId, OffloadedSa] = {}
        words: dict[SaId, str] = {}
        paths: dict[PathKey, NextHop | str] = {}
        for held in filter(_is_offloaded, self._sad):
            if held.is_inbound:
                continue
            why = await self._why_not(held, around)
            if not why:
                path = held.at.source, held.at.destination, held.device
                if path not in paths:
                    paths[path] = await path_of(held, around, self._network)
                way = paths[path]
                if isinstance(way, NextHop):
                    found[held.sa.sa_id] = OffloadedSa(
                        destination=held.at.destination,
                        spi=held.sa.spi,
                        hop=replace(way, mtu=effective_mtu(held.sa, way.mtu)),
                        family=held.at.destination.version,
                    )
                    continue
                why = way
            words[held.sa.sa_id] = f"the stack forwards: {why}"
        self._words = words
        return found

    async def _why_not(self, held: Held, around: Surroundings) -> str:
        """Return why nothing is forwarded to an SA that a NIC has; empty where it can be."""
        assert held.offload is not None
        if held.sa.mode is not Mode.TUNNEL:
            return "in transport mode only this machine itself sends"
        if held.sa.interface_id:
            return "routes lead into a virtual interface"
        if held.sa.mark is not None:
            return "it is for packets with a mark, which they get behind XDP"
        if held.sa.set_mark is not None:
            return "its route is looked up with a mark"
        if held.sa.cpu is not None:
            return "it is for packets that one CPU sends"
        off = [version for version in _versions(held) if not around.forwards[version]]
        if off:
            return f"this machine is no router for IPv{off[0]} (sysctl {sysctl_of(off[0])} is 0)"
        if around.sends[held.offload.link]:
            return around.sends[held.offload.link]
        if held.sa.sa_id in self._numbers:
            return ""
        return await self._policy_not_found(held)

    async def _policy_not_found(self, held: Held) -> str:
        """Return which policy of an SA the kernel does not say its device has."""
        assert held.offload is not None
        reqid = self._sad.reqid(held.serves)
        keys = [
            key
            for entry in self._spd.entries_of(held.serves)
            for key, policy in entry.claims.items()
            if key.direction is PolicyDirection.OUT
            and any(template.reqid == reqid for template in policy.templates)
        ]
        if not keys:
            return "no SPD entry leads to it"
        wanted = r.Offload(link=held.offload.link, flags=OffloadFlag.PACKET)
        there = await self._thread.run(lambda xfrm: read_policies(xfrm, keys))
        for key in keys:
            if key not in there or not _is_at(there[key].attributes.offload, wanted):
                return (
                    f"the kernel does not say that {held.device} has the policy of {key.selector.destination}"
                )
        return ""

    # --- for operators ------------------------------------------------------------------------------

    def words(self) -> dict[SaId, str]:
        """Return what is forwarded past the stack for each SA that a NIC has, or why nothing."""
        if not self._interfaces:
            return {}
        forwarded = "" if self._why_none or self._is_held else self._forwarded_words()
        return {held.sa.sa_id: self._words_of(held, forwarded) for held in self._sad if _is_offloaded(held)}

    def _words_of(self, held: Held, forwarded: str) -> str:
        if held.is_inbound:
            return _INBOUND
        if forwarded and self._numbers.get(held.sa.sa_id) in self._records:
            return forwarded
        reason = self._why_none or self._words.get(held.sa.sa_id)
        return reason or "the stack forwards: XDP is about to be told"

    def _forwarded_words(self) -> str:
        """Return from where packets are forwarded, and how often the program ended in which way."""
        if self._forwarder is None:
            return ""
        where = [f"{name} ({item.words})" for name, item in sorted(self._forwarder.attached.items())]
        where += [f"{name} (not there)" for name in self._interfaces if name not in self._forwarder.attached]
        if all(item.attachment is None for item in self._forwarder.attached.values()):
            return f"the stack forwards: {', '.join(where)}"
        packets = Counter({end.value: count.packets for end, count in self._forwarder.counters().items()})
        forwarded = packets.pop(Exit.FORWARDED.value, 0)
        others = ", ".join(f"{name} {count}" for name, count in sorted(packets.items()))
        said = f"XDP forwards from {', '.join(where)}: {forwarded} packets"
        return f"{said}; others: {others}" if others else said

    def drops(self) -> dict[DropReason, int]:
        """Return what the program dropped, packets by reason."""
        ends = {} if self._forwarder is None else self._forwarder.counters()
        return {reason: end.packets for reason, end in ends.items() if isinstance(reason, DropReason)}


def policies_for_xdp(
    entries: Iterable[Entry], held_sas: Iterable[Held], forwarded: Collection[SaId]
) -> tuple[tuple[Policy, ...], dict[str, SaId]]:
    """Return the SPD in order as XDP is to see it, and by which names of its policies SAs are meant.

    As in the kernel, what an SA was negotiated for comes before the rest of its entry, the newest first.
    PROTECT without an SA leaves a packet to the stack.
    """
    newest_first: dict[Serves, list[Held]] = {}
    for held in held_sas:
        if not held.is_inbound:
            newest_first.setdefault(held.serves, []).insert(0, held)
    found: list[Policy] = []
    names: dict[str, SaId] = {}
    for entry in entries:
        policy = entry.policy
        if policy.interface_id:
            continue
        if policy.mark_out is not None:
            # Packets get marks behind XDP: only the stack can say which are meant.
            found.append(replace(policy, action=Action.PROTECT))
            continue
        outbound = newest_first.get((policy.connection, policy.child), ())
        for held in outbound if policy.action is Action.PROTECT else ():
            local_ts = common(held.sa.local_ts, policy.local_ts)
            remote_ts = common(held.sa.remote_ts, policy.remote_ts)
            if not any(True for _ in meet(local_ts, remote_ts)):
                continue
            name = f"{policy.name} {held.sa.sa_id}"
            found.append(replace(policy, name=name, local_ts=local_ts, remote_ts=remote_ts))
            if held.sa.sa_id in forwarded:
                names[name] = held.sa.sa_id
        found.append(policy)
    # The place in this list is the order: priorities of several parts of one entry are the same.
    return tuple(replace(policy, priority=place) for place, policy in enumerate(found)), names


def _is_offloaded(held: Held) -> bool:
    return held.engine is Engine.NIC_PACKET and held.offload is not None


def _versions(held: Held) -> list[int]:
    """Return the IP versions of what an SA carries."""
    return sorted({selector.version for selector in held.sa.local_ts})


def _is_at(offload: r.Offload | None, wanted: r.Offload) -> bool:
    return offload is not None and offload.link == wanted.link and bool(offload.flags & wanted.flags)
