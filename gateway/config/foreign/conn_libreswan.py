"""One conn of libreswan's ipsec.conf(5).

Certificates and raw keys of libreswan live in an NSS database, which is not read here: a conn that proves
itself with them is left out, and told how to export them.
"""

import math
import re
from collections.abc import Iterator
from itertools import product
from typing import Final

from gateway.config.foreign import carry
from gateway.config.foreign import keywords_libreswan as keywords
from gateway.config.foreign.conn import LOCAL, REMOTE, Conn, Context, Times, lifetimes, rules_of, start
from gateway.config.foreign.draft import Plain, without_defaults
from gateway.config.foreign.lifetimes import DEFAULT_OVER, duration
from gateway.config.foreign.proposals import defaults, groups_of, libreswan
from gateway.config.foreign.route_based import by_interface
from gateway.config.foreign.shunts import SHUNTS
from gateway.config.foreign.statement import NO, Statements
from gateway.config.foreign.values import count, identity, libreswan_identity, seconds, upper
from gateway.ipsec.proposal import ProtocolId

ALIASES: Final = {
    "keylife": "salifetime",
    "lifetime": "salifetime",
    "phase2alg": "esp",
    "forceencaps": "encapsulation",
    "aggrmode": "aggressive",
}
_OWN_WORDS: Final = {"salifetime": "lifetime", "rekeymargin": "margintime"}
"""libreswan's words for what `conn.lifetimes` reads."""

_TIMES: Final = Times(ike_s=8 * 3600.0, child_s=8 * 3600.0)
_RULES: Final = rules_of(keywords.CONN, keywords.SIDE, keywords.SIDE)
_MODES: Final = {
    "tunnel": "tunnel",
    "transport": "transport",
    "passthrough": "bypass",
    "drop": "discard",
    "reject": "discard",
}
_START: Final = {
    "ignore": None,
    "add": None,
    "keep": None,
    "ondemand": "on_traffic",
    "route": "on_traffic",
    "start": "start",
    "up": "start",
}
_LOSS: Final = {"hold": "trap", "clear": "clear", "restart": "restart", "restart_by_peer": "restart"}
_FRAGMENTATION: Final = {"yes": "yes", "force": "yes", "no": "no"}
_IKEV2: Final = frozenset({"yes", "insist", "propose"})
_ESN: Final = {"either": "esn-noesn", "yes": "esn", "no": "noesn"}
UNIQUE: Final = {"yes": "replace", "no": "allow"}


def renamed(keyword: str) -> str:
    """Return the word by which a keyword is looked up in this module."""
    keyword = ALIASES.get(keyword, keyword)
    return _OWN_WORDS.get(keyword, keyword)


def read_conn(name: str, said: Statements, context: Context) -> Conn | None:
    """Return one conn; None where it is left out, which is told."""
    weak: list[str] = []
    _demand(said)
    places = {side: _places(said, side) for side in (LOCAL, REMOTE)}
    ike = _ike(said, context, weak)
    common = _child(said, ike, weak)
    pairs = list(_pairs(said, places))
    children = [{"name": name, **pair, **common} for pair in pairs]
    interface = by_interface(said, LOCAL, children, places[REMOTE])
    children = [without_defaults({**child, "interface": interface}) for child in children]
    if len(children) > 1:
        children = [{**child, "name": f"{name}-{i}"} for i, child in enumerate(children, 1)]
    is_shunt = common.get("action") in SHUNTS
    here, there = (_end(said, side, places[side], is_shunt=is_shunt) for side in (LOCAL, REMOTE))
    said.judge(_RULES)
    if not said.is_left_out and not is_shunt:
        carry.give_psk(said, context.secrets, here, there)
    if said.is_left_out:
        return None
    return Conn(name=name, place=said.place, here=here, there=there, ike=ike, children=children, weak=weak)


def _demand(said: Statements) -> None:
    """Leave out what is not IKEv2 over UDP port 500."""
    if (version := said.take("ikev2")) and version.value.lower() not in _IKEV2:
        said.leave_out(version, "is IKEv1, which is not spoken here")
    if (exchange := said.take("keyexchange")) and exchange.value.lower() not in ("ike", "ikev2"):
        said.leave_out(exchange, f"{exchange.value} is not spoken here")
    if (ppk := said.take("ppk")) and ppk.value.lower() == "insist":
        said.leave_out(ppk, "demands a postquantum pre-shared key")
    for side in (LOCAL, REMOTE):
        if port := said.take(f"{side}ikeport"):
            said.leave_out(port, "IKE begins at port 500 here")


def _places(said: Statements, side: str) -> list[str]:
    setting = said.take(side)
    if setting is None:
        return []
    word = setting.value.lower()
    if word in ("%group", "%opportunisticgroup", "%opportunistic"):
        said.leave_out(setting, keywords.OPPORTUNISTIC_REASON)
        return []
    if word == "%defaultroute":
        return []
    if re.fullmatch(r"%[a-z][\w.-]*", word) and not carry.is_any(word):
        said.lose(setting, "our own address is one, or whatever the kernel chooses")
        return []
    return carry.outer_addresses(said, side, is_local=side == LOCAL)


# --- the IKE SA ---------------------------------------------------------------------------------


def _ike(said: Statements, context: Context, weak: list[str]) -> dict[str, Plain]:
    proposals = []
    if setting := said.take("ike"):
        proposals = carry.taken_proposals(said, setting, libreswan(setting.value, ProtocolId.IKE), weak)
    if (wanted := said.take("fragmentation")) and wanted.value.lower() == "force":
        said.lose(wanted, "is carried as yes: offered, and used where a message is large")
    encapsulation = said.take("encapsulation")
    if encapsulation is not None and encapsulation.value.lower() in NO:
        said.lose(encapsulation, "behind a NAT, ESP is always encapsulated in UDP")
    setup = Statements(context.setup, context.notes, place=said.place)
    return without_defaults(
        {
            "proposals": proposals,
            "dpd_delay": duration(carry.read(said, "dpddelay", seconds)),
            **_retransmission(said),
            "encapsulation": True
            if encapsulation is not None and encapsulation.value.lower() == "yes"
            else None,
            "fragmentation": said.word("fragmentation", _FRAGMENTATION),
            "unique": setup.word("uniqueids", UNIQUE),
        }
    )


def _retransmission(said: Statements) -> dict[str, Plain]:
    """Return the waits: the first in milliseconds, each twice the one before, all together with an end."""
    interval, total = said.take("retransmit-interval"), said.take("retransmit-timeout")
    if interval is None and total is None:
        return {}
    first_s = (carry.read(said, "retransmit-interval", _milliseconds) or 0.0) or 0.5
    total_s = carry.read(said, "retransmit-timeout", seconds) or 60.0
    tries = max(1, math.ceil(math.log2(total_s / first_s + 1)) - 1)
    return {
        "retransmit_timeout": duration(first_s),
        "retransmit_base": 2.0,
        "retransmit_tries": tries,
    }


def _milliseconds(text: str) -> float:
    found = re.fullmatch(r"([0-9]+)(?:ms)?", text)
    return int(found[1]) / 1000 if found else seconds(text)


def _end(said: Statements, side: str, places: list[str], *, is_shunt: bool) -> dict[str, Plain]:
    both, own = said.take("authby"), said.take(f"{side}auth")
    setting = own or both
    name = carry.read(said, f"{side}id", _identity, or_leave_out=True)
    if is_shunt:
        return {}
    if setting is None:
        said.leave_out_whole("authby", f"proves itself by certificates or raw keys; {keywords.NSS_REASON}")
    elif setting.value.lower() not in ("secret", "psk"):
        said.leave_out(setting, f"{setting.value}: {keywords.NSS_REASON}")
    if name is None and side == REMOTE and places:
        name = carry.read(said, side, lambda _text: identity(places[0]), or_leave_out=True)
    return carry.side(places, None if name in ("%any", "") else name, None)


def _identity(text: str) -> str:
    if text.lower() == "%none":
        return ""
    if text.lower() in ("%fromcert", "%myid"):
        raise ValueError(f"{text} is not known here; write the identity itself")
    return "%any" if carry.is_any(text) else libreswan_identity(text)


# --- Child SAs ----------------------------------------------------------------------------------


def _child(said: Statements, ike: dict[str, Plain], weak: list[str]) -> dict[str, Plain]:
    """Return what all children of a conn have in common; lifetimes of the IKE SA are added to `ike`."""
    kind = said.take("type")
    mode = "tunnel" if kind is None else _MODES.get(kind.value.lower(), "")
    if kind is not None and not mode:
        said.leave_out(kind, f"there is no type {kind.value} here")
    elif kind is not None and kind.value.lower() == "reject":
        said.lose(kind, "is carried as discard: nothing is answered")
    if (auto := said.take("auto")) and auto.value.lower() == "keep":
        said.lose(auto, "is carried as `start: none`: the peer brings it up")
    times = lifetimes(said, _TIMES)
    ike |= times.ike
    started = start(said, _START)
    protected = without_defaults(
        {
            "mode": "transport" if mode == "transport" else None,
            **_protection(said, ike, weak),
            **times.child,
            **_volumes(said, times.child),
            "replay_window": carry.window(said, "replay-window"),
            "copy_df": False if said.flag("nopmtudisc") else None,
            "placement": carry.placement(said, "nic-offload"),
            "start": started,
            "dpd_action": said.word("dpdaction", _LOSS),
        }
    )
    priority = said.take("priority")
    order = carry.read(said, "priority", count) if priority and priority.value != "0" else None
    return without_defaults({"priority": order, **({"action": mode} if mode in SHUNTS else protected)})


def _protection(said: Statements, ike: dict[str, Plain], weak: list[str]) -> dict[str, Plain]:
    """Return `esp` or `ah`; with PFS, which is that daemon's default, by the groups of the IKE SA."""
    has_pfs = said.flag("pfs") is not False
    groups = groups_of(ike.get("proposals", ())) if has_pfs else ()
    esn = said.word("esn", _ESN) or ""
    kind = said.take("phase2")
    word = said.word("phase2", {"esp": "esp", "ah": "ah"}) or ("ah" if said.take("ah") else "esp")
    protocol = ProtocolId.AH if word == "ah" else ProtocolId.ESP
    if kind is not None and kind.value.lower() not in ("esp", "ah"):
        said.is_left_out = True
    setting = said.take(word)
    if word == "ah":
        carry.one_protocol(said, esp="esp", ah="ah")
    else:
        said.of_no_use(("ah",), "is of no use beside phase2=esp")
    if setting is None and has_pfs and not esn and word == "esp":
        return {}
    if setting is None:
        return {word: {"proposals": defaults(protocol, has_pfs=has_pfs, esn=esn)}}
    carried = libreswan(setting.value, protocol, pfs_groups=groups, esn=esn)
    return {word: {"proposals": carry.taken_proposals(said, setting, carried, weak)}}


def _volumes(said: Statements, child: dict[str, Plain]) -> dict[str, Plain]:
    """Return soft limits such that the hard ones are those of the file."""
    over = 1 + float(child.get("over_fraction", DEFAULT_OVER))
    limits = {f"rekey_{unit}": carry.read(said, f"ipsec-max-{unit}", count) for unit in ("bytes", "packets")}
    return {keyword: int(limit / over) for keyword, limit in limits.items() if limit}


def _pairs(said: Statements, places: dict[str, list[str]]) -> Iterator[dict[str, Plain]]:
    """Yield the selectors of each Child SA: that daemon makes one for every pair of subnets."""
    local, remote = (_subnets(said, side, places[side]) for side in (LOCAL, REMOTE))
    for ours, theirs in product(local, remote):
        families = [":" in selectors[0] for selectors in (ours, theirs) if selectors]
        if len(set(families)) < 2:  # It makes none between IPv4 and IPv6.
            yield without_defaults({"local_ts": ours, "remote_ts": theirs})


def _subnets(said: Statements, side: str, places: list[str]) -> list[list[str]]:
    several, one = said.take(f"{side}subnets"), said.take(f"{side}subnet")
    setting, ports = several or one, said.take(f"{side}protoport")
    names = re.split(r"[,\s]+", setting.value.strip("{} ")) if setting is not None else ["dynamic"]
    if setting is not None and any(name.startswith(("vhost:", "vnet:", "%")) for name in names):
        said.leave_out(setting, "vhost:, vnet: and %priv are not understood here")
        return [[]]
    suffix = ""
    if ports is not None:
        above = upper(ports.value)
        suffix = f"[{above.protocol or 'any'}/{'any' if above.port in ('', '0', '%any') else above.port}]"
    asked = ports or setting
    if asked is None:
        return [[]]
    return [carry.selectors(said, asked, [f"{name}{suffix}"], places) for name in names if name]
