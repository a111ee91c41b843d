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

What a NIC decrypted XDP cannot tell from what came in clear; the stack can, and forwards it. Where the
operator has said of a NIC that it lets nothing in in clear that a policy protects, XDP forwards from there to
the LAN, by the same rules: while the NIC has all inbound SAs of the Child, and the kernel the newest.

Calls must not overlap, but for `forget` and the readers.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
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
    why_unfit,
)
from gateway.datapath.xfrm.forwarding_spd import XdpSpd, numbered, policies_for_xdp
from gateway.datapath.xfrm.kernel import read_policies
from gateway.datapath.xfrm.lan_hops import Hops, is_too_many, lan_hops
from gateway.datapath.xfrm.netlink import XfrmThread
from gateway.datapath.xfrm.numbers import OffloadFlag, PolicyDirection
from gateway.datapath.xfrm.options import ROUTING_PROTOCOL
from gateway.datapath.xfrm.sad import Held, Sad
from gateway.datapath.xfrm.spd import Serves, Spd
from gateway.datapath.xfrm.xdp_forwarder import XdpForwarder
from gateway.esp.mtu import effective_mtu
from gateway.host.bpf.abi import Exit, InboundNicSa, NextHop, OffloadedSa, Port, PortKey
from gateway.host.bpf.attach import XdpMode
from gateway.host.bpf.grace import wait_for_running_programs
from gateway.host.errors import HostError
from gateway.host.network import LocalAddress, Network
from gateway.host.routing_mirror import RoutingMirror
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.placement import Engine
from gateway.ipsec.sa import SaId
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Content:
    """What the maps are to have."""

    ports: Mapping[PortKey, Port]
    addresses: tuple[LocalAddress, ...]
    hops: Hops
    sas: Mapping[int, OffloadedSa]
    inbound_sas: Mapping[int, InboundNicSa]
    spd: XdpSpd
    offloaded: Mapping[str, int]
    """By the name of a policy: the number of its SA."""
    inbound: Mapping[str, int]


class Forwarding:
    """What XDP forwards for one agent. Without interfaces every call does nothing.

    Args:
        interfaces: Names of those that the program runs on.
        trusted: Those of them, NICs, that let nothing in in clear that a policy protects.
        thread: To the kernel's XFRM; borrowed.
        network: Borrowed.
        sad: The SAs of ours.
        spd: The entries of ours.
    """

    def __init__(
        self,
        interfaces: Sequence[str],
        trusted: Sequence[str] = (),
        *,
        thread: XfrmThread,
        network: Network,
        sad: Sad,
        spd: Spd,
    ) -> None:
        self._interfaces = tuple(dict.fromkeys((*interfaces, *trusted)))
        self._trusted = frozenset(trusted)
        self._mirror = RoutingMirror([ROUTING_PROTOCOL])
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
        self._records: dict[int, OffloadedSa | InboundNicSa] = {}
        """What the maps have, by number."""
        self._words: dict[SaId, str] = {}
        self._towards: tuple[str, ...] = ()
        """Interfaces to the LAN that XDP sends by."""
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
        for name in sorted(self._trusted):
            _log.warning(
                "inbound_forwarding_trusts_nic",
                interface=name,
                effect="what comes in there from protected networks goes to the LAN, encrypted or not",
                hint="something must drop clear packets before: see docs/hardware.md",
            )
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
        if self._trusted:
            await self._network.run(lambda _: self._mirror.close())

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
        """Forward nothing by an SA that the kernel has no more; does not wait."""
        self._forget(held.sa.sa_id)

    def _forget(self, sa_id: SaId) -> None:
        number = self._numbers.pop(sa_id, None)
        self._reqids.pop(sa_id, None)
        if number is not None and self._forwarder is not None:
            self._records.pop(number, None)
            self._forwarder.remove_sas((number,))
            self._changed.set()

    async def withdraw(self, sas: Iterable[Held]) -> None:
        """Forward nothing by these SAs any more, and return when nothing is under way to a NIC.

        What came in before needs no wait: the NIC had the SA when it came.
        """
        there = [held for held in sas if held.sa.sa_id in self._numbers]
        for held in there:
            self.forget(held)
        if not all(held.is_inbound for held in there):
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
        around = await read_surroundings(self._network, nics, self._interfaces)
        here = {link.name: link.index for link in around.links.values() if link.name in self._interfaces}
        await asyncio.to_thread(forwarder.follow, here)
        outer = nics | {index for name, index in here.items() if name in self._trusted}
        found = await self._forwarded(around)
        hops, found_in = await self._forwarded_in(
            around, {index for index in here.values() if index not in outer and not around.sends[index]}
        )
        # The kernel may have told meanwhile that some are gone.
        sas = {sa_id: sa for sa_id, sa in found.items() if self._sad.get(sa_id) is not None}
        inbound = {sa_id: sa for sa_id, sa in found_in.items() if self._sad.get(sa_id) is not None}
        for sa_id in [sa_id for sa_id in self._numbers if sa_id not in sas and sa_id not in inbound]:
            self._forget(sa_id)
        for sa_id in (*sas, *inbound):
            self._number(sa_id)
        spd = policies_for_xdp(self._spd.entries(), self._sad, sas, inbound)
        content = _Content(
            ports=ports_of(here.values(), around, outer),
            addresses=around.addresses,
            hops=hops,
            sas={self._numbers[sa_id]: sa for sa_id, sa in sas.items()},
            inbound_sas={self._numbers[sa_id]: sa for sa_id, sa in inbound.items()},
            spd=spd,
            offloaded=numbered(spd.offloaded, self._numbers),
            inbound=numbered(spd.inbound, self._numbers),
        )
        await asyncio.to_thread(self._write, forwarder, content)
        await keep_neighbours(self._network, around, (*(sa.hop for sa in sas.values()), *hops.values()))

    def _write(self, forwarder: XdpForwarder, content: _Content) -> None:
        records: dict[int, OffloadedSa | InboundNicSa] = {**content.sas, **content.inbound_sas}
        changed = {number for number, sa in records.items() if self._records.get(number) != sa}
        forwarder.set_ports(content.ports, (item.address for item in content.addresses))
        forwarder.set_hops(content.hops)
        forwarder.set_sas({number: sa for number, sa in content.sas.items() if number in changed})
        forwarder.set_inbound_sas(
            {number: sa for number, sa in content.inbound_sas.items() if number in changed}
        )
        forwarder.set_policies(content.spd.policies, content.offloaded, content.inbound)
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

    async def _forwarded_in(
        self, around: Surroundings, lans: Collection[int]
    ) -> tuple[Hops, dict[SaId, InboundNicSa]]:
        """Return next hops and SAs of what comes in and is forwarded, and note of the others why not."""
        inbound = [held for held in self._sad if held.is_inbound]
        trusted = [held for held in inbound if _is_offloaded(held) and held.device in self._trusted]
        self._towards = tuple(sorted(around.links[index].name for index in lans))
        if not trusted:
            return {}, {}
        await self._network.run(self._mirror.follow)
        why_none = self._why_none_in(lans)
        found: dict[SaId, InboundNicSa] = {}
        devices: dict[Serves, set[str]] = {}
        for held in inbound:
            devices.setdefault(held.serves, set()).add(held.device if _is_offloaded(held) else "")
        for held in trusted:
            assert held.offload is not None
            why = why_none or self._why_not_from(held.device)
            if devices[held.serves] != {held.device}:
                why = why or f"another inbound SA of the Child is not on {held.device}"
            why = why or await self._why_not(held, around)
            if why:
                self._words[held.sa.sa_id] = f"the stack forwards: {why}"
                continue
            back = self._sad.partner(held)
            found[held.sa.sa_id] = InboundNicSa(
                destination=held.at.destination,
                spi=held.sa.spi,
                family=held.at.destination.version,
                ifindex=held.offload.link,
                mtu=0 if back is None else back.mtu_bytes,
            )
        local_ts = {selector for held in trusted if held.sa.sa_id in found for selector in held.sa.local_ts}
        networks = {network for selector in local_ts for network in selector.prefixes()}
        hops = lan_hops(self._mirror, around, lans, networks)
        if is_too_many(hops):
            words = f"the stack forwards: XDP has no room for {len(hops)} routes to the protected networks"
            self._words.update(dict.fromkeys(found, words))
            return {}, {}
        return hops, found

    def _why_none_in(self, lans: Collection[int]) -> str:
        if not lans:
            return "XDP can send by none of the interfaces to the LAN that --forward-interface names"
        if self._mirror.strange_rules:
            rules = ", ".join(self._mirror.strange_rules)
            return f"routes are chosen by rules that XDP does not follow ({rules})"
        return ""

    def _why_not_from(self, nic: str) -> str:
        """Return why XDP leaves all that a NIC decrypts to the stack; empty where it need not."""
        item = None if self._forwarder is None else self._forwarder.attached.get(nic)
        if item is not None and item.attachment is not None and item.attachment.mode is XdpMode.GENERIC:
            # The socket buffer says how it was decrypted: the driver of the LAN could take that for its own.
            return f"XDP does not run in the driver of {nic} ({item.words})"
        return ""

    async def _why_not(self, held: Held, around: Surroundings) -> str:
        """Return why nothing is forwarded by an SA that a NIC has; empty where it can be."""
        assert held.offload is not None
        unfit = why_unfit(held)
        if unfit:
            return unfit
        off = [version for version in _versions(held) if not around.forwards[version]]
        if off:
            return f"this machine is no router for IPv{off[0]} (sysctl {sysctl_of(off[0])} is 0)"
        if not held.is_inbound and around.sends[held.offload.link]:
            return around.sends[held.offload.link]
        if held.sa.sa_id in self._numbers:
            return ""
        return await self._policy_not_found(held)

    async def _policy_not_found(self, held: Held) -> str:
        """Return which policy of an SA the kernel does not say its device has."""
        assert held.offload is not None
        reqid = self._sad.reqid(held.serves)
        direction = PolicyDirection.IN if held.is_inbound else PolicyDirection.OUT
        keys = [
            key
            for entry in self._spd.entries_of(held.serves)
            for key, policy in entry.claims.items()
            if key.direction is direction and any(template.reqid == reqid for template in policy.templates)
        ]
        if not keys:
            return "no SPD entry leads to it"
        wanted = r.Offload(link=held.offload.link, flags=OffloadFlag.PACKET)
        there = await self._thread.run(lambda xfrm: read_policies(xfrm, keys))
        for key in keys:
            if key not in there or not _is_at(there[key].attributes.offload, wanted):
                remote = key.selector.source if held.is_inbound else key.selector.destination
                return f"the kernel does not say that {held.device} has the policy of {remote}"
        return ""

    # --- for operators ------------------------------------------------------------------------------

    def words(self) -> dict[SaId, str]:
        """Return what is forwarded past the stack for each SA that a NIC has, or why nothing."""
        if not self._interfaces:
            return {}
        forwarded = "" if self._why_none or self._is_held else self._forwarded_words()
        return {held.sa.sa_id: self._words_of(held, forwarded) for held in self._sad if _is_offloaded(held)}

    def _words_of(self, held: Held, forwarded: str) -> str:
        if held.is_inbound and held.device not in self._trusted:
            return _INBOUND
        if forwarded and self._numbers.get(held.sa.sa_id) in self._records:
            return self._forwarded_in_words(held.device) if held.is_inbound else forwarded
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
        packets.pop(Exit.FORWARDED_IN.value, None)
        others = ", ".join(f"{name} {count}" for name, count in sorted(packets.items()))
        said = f"XDP forwards from {', '.join(where)}: {forwarded} packets"
        return f"{said}; others: {others}" if others else said

    def _forwarded_in_words(self, nic: str) -> str:
        """Return to where XDP forwards what comes in by a NIC, and how much of all NICs together."""
        assert self._forwarder is not None
        item = self._forwarder.attached.get(nic)
        if item is None or item.attachment is None:
            return f"the stack forwards: {nic} ({'not there' if item is None else item.words})"
        count = self._forwarder.counters().get(Exit.FORWARDED_IN)
        packets = 0 if count is None else count.packets
        return f"XDP forwards from {nic} ({item.words}) to {', '.join(self._towards)}: {packets} packets"

    def drops(self) -> dict[DropReason, int]:
        """Return what the program dropped, packets by reason."""
        ends = {} if self._forwarder is None else self._forwarder.counters()
        return {reason: end.packets for reason, end in ends.items() if isinstance(reason, DropReason)}


def _is_offloaded(held: Held) -> bool:
    return held.engine is Engine.NIC_PACKET and held.offload is not None


def _versions(held: Held) -> list[int]:
    """Return the IP versions of what an SA carries."""
    return sorted({selector.version for selector in held.sa.local_ts})


def _is_at(offload: r.Offload | None, wanted: r.Offload) -> bool:
    return offload is not None and offload.link == wanted.link and bool(offload.flags & wanted.flags)
