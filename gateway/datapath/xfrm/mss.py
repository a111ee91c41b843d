"""TCP connections that are forwarded into tunnels: segments that fit, whatever becomes of ICMP on the way.

What this machine sends itself the kernel fits to the path of the SA. Of what it forwards, a table of nftables
lowers the MSS in the SYN of both sides (RFC 4459 §3.2 has why): on the way into a tunnel to what its route
carries, which the kernel knows with all headers that come around it; on the way out of one to what the
narrowest SA carries in the other direction, because the way back is not looked up there.

    table inet ipsecgw_mss_TAG
        forward  rt ipsec exists       tcp flags syn  MSS <= that of the route
                 oif or iif INTERFACE  tcp flags syn  MSS <= that of the route there or back
                 meta ipsec exists     tcp flags syn  MSS <= that of the narrowest SA

An MSS is never raised. The table is there as long as there are SAs or interfaces of ours; meanwhile the IPsec
of other key managers has its MSS fitted too. Without nftables connections rely on ICMP: that is told once.
"""

from collections.abc import Iterable
from typing import Final

from gateway.esp.mtu import tcp_mss
from gateway.host.errors import HostError
from gateway.host.nftables import Json, run_nft
from gateway.observe.logs import get_logger

_log = get_logger(__name__)

_MANGLE: Final = -150
_NOTHING: Final[tuple[None, tuple[str, ...]]] = (None, ())
_VERSIONS: Final = {4: "ipv4", 6: "ipv6"}


class MssClamp:
    """The table of one agent.

    Args:
        tag: Of the agent.
    """

    def __init__(self, tag: str) -> None:
        # Names of nftables have letters, digits and underscores.
        self._table = f"ipsecgw_mss_{tag.encode().hex() if not tag.isalnum() else tag}"
        self._in_force: tuple[int | None, tuple[str, ...]] | None = None
        self._is_able = True

    async def follow(self, mtu_bytes: int | None, interfaces: Iterable[str]) -> None:
        """Have the table be about these.

        Args:
            mtu_bytes: What the narrowest outbound SA carries in one piece; `None` without any.
            interfaces: Names of tunnel interfaces.
        """
        wanted = mtu_bytes, tuple(sorted(interfaces))
        if wanted == self._in_force or not self._is_able:
            return
        try:
            commands = self._empty() if wanted == _NOTHING else self._commands(*wanted)
            await run_nft("-j", "-f", "-", commands=commands)
        except HostError as error:
            self._is_able = False
            _log.warning("mss_not_clamped", reason=str(error), hint="TCP through tunnels relies on ICMP")
        else:
            self._in_force = wanted

    async def remove(self) -> None:
        """Take the table away, also one that a former life left."""
        self._in_force = None
        await self.follow(*_NOTHING)

    def _empty(self) -> list[Json]:
        table = {"table": {"family": "inet", "name": self._table}}
        # What is not there cannot be deleted.
        return [{"add": table}, {"delete": table}]

    def _commands(self, mtu_bytes: int | None, interfaces: tuple[str, ...]) -> list[Json]:
        chain: Json = {
            "family": "inet",
            "table": self._table,
            "name": "forward",
            "type": "filter",
            "hook": "forward",
            "prio": _MANGLE,
            "policy": "accept",
        }
        into: list[Json] = [_match({"rt": {"key": "ipsec"}}, right=True)]
        into += [_match({"meta": {"key": f"{way}ifname"}}, right=name) for name in interfaces for way in "oi"]
        rules = [[match, _is_syn(), _lower({"rt": {"key": "mtu"}})] for match in into]
        if mtu_bytes is not None:
            out_of = _match({"meta": {"key": "ipsec"}}, right=True)
            rules += [
                [
                    _match({"meta": {"key": "nfproto"}}, right=name),
                    out_of,
                    _is_syn(),
                    _lower(tcp_mss(mtu_bytes, version)),
                ]
                for version, name in _VERSIONS.items()
            ]
        return [
            *self._empty(),
            {"add": {"table": {"family": "inet", "name": self._table}}},
            {"add": {"chain": chain}},
            *(
                {"add": {"rule": {"family": "inet", "table": self._table, "chain": "forward", "expr": rule}}}
                for rule in rules
            ),
        ]


def _match(left: Json, *, right: object) -> Json:
    return {"match": {"op": "==", "left": left, "right": right}}


def _is_syn() -> Json:
    flags = {"payload": {"protocol": "tcp", "field": "flags"}}
    return {"match": {"op": "in", "left": flags, "right": "syn"}}


def _lower(size: object) -> Json:
    return {"mangle": {"key": {"tcp option": {"name": "maxseg", "field": "size"}}, "value": size}}
