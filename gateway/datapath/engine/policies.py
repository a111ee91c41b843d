"""Keep espd's SPD and tunnels as they shall be, by the changes that lead there.

A change of the SPD is in force whole (COMMIT). A tunnel's SA is set at once: of a new tunnel before its entry
is in force, of an old one when its entry is gone. Numbers of tunnels are noted in the journal: the next agent
uses the same, so that no packet takes another tunnel while it puts its SPD in force.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from gateway.datapath.backend import DatapathError, ErrorReason
from gateway.datapath.engine import protocol as p
from gateway.datapath.engine.core import put_selector
from gateway.datapath.engine.espd import Espd
from gateway.datapath.engine.spd import EngineEntry, Wanted
from gateway.datapath.journal import Journal, Json
from gateway.ipsec.policy import Action

_TUNNEL: Final = "tunnel"
_ACTIONS: Final = {
    Action.PROTECT: p.PolicyAction.PROTECT,
    Action.BYPASS: p.PolicyAction.BYPASS,
    Action.DISCARD: p.PolicyAction.DISCARD,
}


class _Placed(NamedTuple):
    """One entry of espd as it is in force."""

    order: int
    entry: EngineEntry


class PolicyTable:
    """What espd has of SPD and tunnels.

    Args:
        espd: Borrowed.
        journal: Borrowed; read already.
        max_tunnels: Numbers go from 1 to this.
        device_of: Returns the device of an interface id; 0 for none.
    """

    def __init__(
        self, espd: Espd, journal: Journal, max_tunnels: int, device_of: Callable[[int], int]
    ) -> None:
        self._espd = espd
        self._device_of = device_of
        self._journal = journal
        self._max_tunnels = max_tunnels
        self._entries: dict[int, _Placed] = {}
        self._entry_numbers: dict[tuple[str, str, int], int] = {}
        self._last_entry_number = 0
        self._tunnels: dict[str, int] = {}
        """The SA in force, by key."""
        self._tunnel_numbers: dict[str, int] = {}
        self._free_tunnels: list[int] = []
        self._last_tunnel = 0
        self._is_sure = True
        """Whether espd has what we think: not after a change that it took in part."""

    def adopt_numbers(self) -> None:
        """Number tunnels as the last agent did."""
        self._tunnel_numbers = dict(self._journal.parsed(_TUNNEL, _parse_number))
        self._last_tunnel = max(self._tunnel_numbers.values(), default=0)
        taken = set(self._tunnel_numbers.values())
        self._free_tunnels = [number for number in range(1, self._last_tunnel) if number not in taken]

    def forget(self) -> None:
        """Note that espd has nothing: it is in a new life."""
        self._entries.clear()
        self._tunnels.clear()
        self._is_sure = True

    def name_of(self, number: int) -> str | None:
        """Return the name of the entry of ours that espd means by a number."""
        placed = self._entries.get(number)
        return None if placed is None else placed.entry.policy

    async def start_over(self, wanted: Wanted) -> None:
        """Put an SPD in force in place of all that espd has; see `put_in_force`."""
        self.forget()
        self._is_sure = False
        await self.put_in_force(wanted)

    async def put_in_force(self, wanted: Wanted) -> None:
        """Put an SPD in force.

        Raises:
            DatapathError: TABLE_FULL: it has too many tunnels; nothing was changed.
            EngineError: espd refused, or is gone; some of it may be in force.
        """
        self._check_room(wanted.tunnels)
        await self._set_tunnels(
            {key: cookie for key, cookie in wanted.tunnels.items() if self._tunnels.get(key) != cookie}
        )
        entries = self._number(wanted.entries)
        if entries != self._entries or not self._is_sure:
            await self._change(entries)
        await self._drop_tunnels([key for key in self._tunnel_numbers if key not in wanted.tunnels])

    async def _change(self, entries: dict[int, _Placed]) -> None:
        """Make these the entries of espd."""
        there = self._entries if self._is_sure else {}
        if not self._is_sure:
            await self._espd.do(p.MessageType.CLEAR, p.Plain())
        self._is_sure = False
        await asyncio.gather(
            *(
                self._espd.do(p.MessageType.POLICY_REMOVE, p.PolicyName(policy=number))
                for number in there
                if number not in entries
            ),
            *(
                self._espd.do(p.MessageType.POLICY_SET, self._message(number, placed))
                for number, placed in entries.items()
                if there.get(number) != placed
            ),
        )
        await self._espd.do(p.MessageType.COMMIT, p.Plain())
        self._is_sure = True
        self._entries = entries
        numbers = {number: key for key, number in self._entry_numbers.items()}
        self._entry_numbers = {numbers[number]: number for number in entries}

    # --- tunnels ------------------------------------------------------------------------------------

    def _check_room(self, wanted: Mapping[str, int]) -> None:
        count = len({*wanted, *self._tunnel_numbers})
        if count > self._max_tunnels:
            raise DatapathError(
                ErrorReason.TABLE_FULL, f"the SPD needs {count} tunnels, espd has {self._max_tunnels}"
            )

    def _tunnel_number(self, key: str) -> int:
        number = self._tunnel_numbers.get(key)
        if number is None:
            if self._free_tunnels:
                number = self._free_tunnels.pop()
            else:
                self._last_tunnel += 1
                number = self._last_tunnel
            self._tunnel_numbers[key] = number
            self._journal.note(_TUNNEL, key, {"key": key, "number": number})
        return number

    async def _set_tunnels(self, cookies: Mapping[str, int]) -> None:
        messages = []
        for key, cookie in cookies.items():
            message = p.Tunnel(tunnel=self._tunnel_number(key), count=1 if cookie else 0)
            message.cookies[0] = cookie
            messages.append(self._espd.do(p.MessageType.TUNNEL_SET, message))
        await asyncio.gather(*messages)
        self._tunnels.update(cookies)

    async def _drop_tunnels(self, keys: Iterable[str]) -> None:
        gone = tuple(keys)
        await self._set_tunnels(dict.fromkeys(gone, 0))
        for key in gone:
            self._tunnels.pop(key, None)
            self._free_tunnels.append(self._tunnel_numbers.pop(key))
            self._journal.forget(_TUNNEL, key)

    # --- entries ------------------------------------------------------------------------------------

    def _number(self, entries: Iterable[EngineEntry]) -> dict[int, _Placed]:
        """Return entries by their numbers: one that was there before keeps its own."""
        numbered: dict[int, _Placed] = {}
        portions: dict[tuple[str, str], int] = {}
        for order, entry in enumerate(entries):
            portion = portions.get((entry.policy, entry.tunnel), 0)
            portions[entry.policy, entry.tunnel] = portion + 1
            key = entry.policy, entry.tunnel, portion
            number = self._entry_numbers.get(key)
            if number is None:
                self._last_entry_number += 1
                number = self._entry_numbers[key] = self._last_entry_number
            numbered[number] = _Placed(order, entry)
        return numbered

    def _message(self, number: int, placed: _Placed) -> p.PolicyMessage:
        entry = placed.entry
        message = p.PolicyMessage(
            order=placed.order,
            policy=number,
            tunnel=self._tunnel_number(entry.tunnel) if entry.tunnel else 0,
            device=self._device_of(entry.interface_id),
            action=_ACTIONS[entry.action],
            acquire=entry.acquire,
            local_selectors=len(entry.local_ts),
            remote_selectors=len(entry.remote_ts),
        )
        for place, selector in zip(message.selectors, (*entry.local_ts, *entry.remote_ts), strict=False):
            put_selector(place, selector)
        return message


def _parse_number(value: Json) -> tuple[str, int]:
    return str(value["key"]), int(value["number"])
