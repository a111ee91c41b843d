"""One conn of strongSwan's ipsec.conf(5)."""

from typing import Final

from gateway.config.foreign import carry
from gateway.config.foreign import keywords_strongswan as keywords
from gateway.config.foreign.authentication import BESIDE_PSK, Method, method
from gateway.config.foreign.conn import (
    LOCAL,
    REMOTE,
    Conn,
    Context,
    Times,
    lifetimes,
    reauthenticated,
    rules_of,
    start,
)
from gateway.config.foreign.draft import Plain, without_defaults
from gateway.config.foreign.lifetimes import duration
from gateway.config.foreign.proposals import strongswan
from gateway.config.foreign.shunts import SHUNTS
from gateway.config.foreign.statement import Statements
from gateway.config.foreign.values import identity, seconds, upper
from gateway.ipsec.proposal import ProtocolId

ALIASES: Final = {"keylife": "lifetime", "rekeymargin": "margintime"}

_TIMES: Final = Times(ike_s=3 * 3600.0, child_s=3600.0)
_RULES: Final = rules_of(keywords.CONN, keywords.LOCAL, keywords.REMOTE)
_MODES: Final = {"tunnel": "tunnel", "transport": "transport", "passthrough": "bypass", "pass": "bypass"}
_START: Final = {"ignore": None, "add": None, "route": "on_traffic", "start": "start"}
_LOSS: Final = {"none": "clear", "clear": "clear", "hold": "trap", "restart": "restart"}
_FRAGMENTATION: Final = {"yes": "yes", "accept": "yes", "force": "yes", "no": "no"}
UNIQUE: Final = {"yes": "replace", "replace": "replace", "no": "allow", "never": "never", "keep": "reject"}
STRICT_CRL: Final = {"yes": "strict", "ifuri": "ifuri", "no": "relaxed"}


def read_conn(name: str, said: Statements, context: Context) -> Conn | None:
    """Return one conn; None where it is left out, which is told."""
    weak: list[str] = []
    if (version := said.take("keyexchange")) and version.value.lower() not in ("ike", "ikev2"):
        said.leave_out(version, f"{version.value} is not spoken here")
    for side in (LOCAL, REMOTE):
        if (port := said.take(f"{side}ikeport")) and port.value != "500":
            said.leave_out(port, "IKE begins at port 500 here")
    places = {side: carry.outer_addresses(said, side, is_local=side == LOCAL) for side in (LOCAL, REMOTE)}
    child = _child(said, places, weak)
    ike = _ike(said, context, child, weak)
    is_shunt = child.get("action") in SHUNTS
    if is_shunt:
        _take_authentication(said)
    here, there = ({} if is_shunt else _end(said, side, places[side], context) for side in (LOCAL, REMOTE))
    said.judge(_RULES)
    if not said.is_left_out and not is_shunt:
        carry.give_psk(said, context.secrets, here, there)
    if said.is_left_out:
        return None
    children = [{"name": name, **child}]
    return Conn(name=name, place=said.place, here=here, there=there, ike=ike, children=children, weak=weak)


def _ike(said: Statements, context: Context, child: dict[str, Plain], weak: list[str]) -> dict[str, Plain]:
    """Return the options of the IKE SA; those of lifetimes go to the child too."""
    times = lifetimes(said, _TIMES)
    child |= times.child
    ike = {"proposals": _proposals(said, "ike", ProtocolId.IKE, weak), **times.ike}
    # Reauthentication is that daemon's default; only what is asked for is carried.
    if said.take("reauth") and said.flag("reauth"):
        ike = reauthenticated(ike, _TIMES)
    if (wanted := said.take("fragmentation")) and wanted.value in ("accept", "force"):
        said.lose(wanted, "is carried as yes: offered, and used where a message is large")
    setup = Statements(context.setup, context.notes, place=said.place)
    return without_defaults(
        {
            **ike,
            "dpd_delay": _dpd(said, child),
            "encapsulation": said.flag("forceencaps") or None,
            "fragmentation": said.word("fragmentation", _FRAGMENTATION),
            "unique": setup.word("uniqueids", UNIQUE),
        }
    )


def _dpd(said: Statements, child: dict[str, Plain]) -> str | None:
    """Return the time between liveness checks: `dpdaction` says whether there are any."""
    setting = said.take("dpdaction")
    action = said.word("dpdaction", _LOSS)
    delay = carry.read(said, "dpddelay", seconds)
    if setting is not None and setting.value.lower() == "none":
        return duration(0.0)
    if action is not None:
        child["dpd_action"] = action
        return duration(30.0 if delay is None else delay)
    return duration(delay)


# --- the two ends -------------------------------------------------------------------------------


def _take_authentication(said: Statements) -> None:
    """Take what an exception without a peer has no use for."""
    for side in (LOCAL, REMOTE):
        for name in ("auth", "id", "cert", "sigkey"):
            said.take(f"{side}{name}")
    said.take("authby")


def _end(said: Statements, side: str, places: list[str], context: Context) -> dict[str, Plain]:
    wish = _method(said, side)
    certs, pubkeys = carry.items(said, f"{side}cert"), carry.items(said, f"{side}sigkey")
    name = carry.read(said, f"{side}id", _identity, or_leave_out=True)
    if (given := said.take(f"{side}id")) and given.value.startswith("%") and not carry.is_any(given.value):
        said.lose(given, "IDr is sent all the same; without it, leave the id out")
    if given is not None and carry.is_any(given.value):
        name = None
    elif name is None and side == REMOTE and (wish.is_psk or not certs) and places:
        # Without rightid the peer must be what right says.
        name = carry.read(said, side, lambda _text: identity(places[0]), or_leave_out=True)
    auth: dict[str, Plain] | None = None
    try:
        if wish.is_psk:
            said.of_no_use((f"{side}cert", f"{side}sigkey"), BESIDE_PSK)
        elif side == LOCAL:
            auth = context.store.own(certs, pubkeys, wish)
        elif certs or pubkeys:
            folder = context.store.certificates if certs else context.store.public_keys
            auth = context.store.known(certs or pubkeys, folder, wish)
        else:
            setup = Statements(context.setup, context.notes, place=said.place)
            auth = context.store.believed((), wish, setup.word("strictcrlpolicy", STRICT_CRL) or "relaxed")
    except ValueError as error:
        said.leave_out_whole(f"{side} side", str(error))
    return carry.side(places, name, auth)


def _identity(text: str) -> str:
    """Return an identity; `%` before it is about IDr, and no part of it."""
    return "%any" if carry.is_any(text) else identity(text.removeprefix("%"))


def _method(said: Statements, side: str) -> Method:
    both, own = said.take("authby"), said.take(f"{side}auth")
    setting = own or both
    try:
        return method("pubkey" if setting is None else setting.value)
    except ValueError as error:
        assert setting is not None  # the default is one that we have
        said.leave_out(setting, str(error))
        return method("pubkey")


# --- the Child SA -------------------------------------------------------------------------------


def _child(said: Statements, places: dict[str, list[str]], weak: list[str]) -> dict[str, Plain]:
    kind = said.take("type")
    mode = said.word("type", {**_MODES, "drop": "discard"}) or "tunnel"
    if kind is not None and kind.value.lower() not in (*_MODES, "drop"):
        said.is_left_out = True
    selectors = {side: _selectors(said, side, places[side]) for side in (LOCAL, REMOTE)}
    carry.one_protocol(said, esp="esp", ah="ah")
    ah, esp = (
        _proposals(said, keyword, protocol, weak)
        for keyword, protocol in (("ah", ProtocolId.AH), ("esp", ProtocolId.ESP))
    )
    protected = {
        "mode": "transport" if mode == "transport" else None,
        "esp": {"proposals": esp} if esp and not ah else None,
        "ah": {"proposals": ah} if ah else None,
        "replay_window": carry.window(said, "replay_window"),
        "start": start(said, _START),
        "close_action": said.word("closeaction", _LOSS),
    }
    common = {"local_ts": selectors[LOCAL], "remote_ts": selectors[REMOTE]}
    return without_defaults({**common, **({"action": mode} if mode in SHUNTS else protected)})


def _proposals(said: Statements, keyword: str, protocol: ProtocolId, weak: list[str]) -> list[str]:
    setting = said.take(keyword)
    if setting is None:
        return []
    items = [item.rstrip("!") for item in setting.items]
    if not setting.value.endswith("!"):
        said.lose(
            setting,
            "is carried alone: without '!' that daemon offers its default proposal too; leave "
            f"{keyword} out of our file if the peer needs that",
        )
    return carry.taken_proposals(said, setting, strongswan(items, protocol), weak)


def _selectors(said: Statements, side: str, places: list[str]) -> list[str]:
    setting, ports = said.take(f"{side}subnet"), said.take(f"{side}protoport")
    if ports is not None:
        above = upper(ports.value)
        suffix = f"[{above.protocol or 'any'}/{above.port or 'any'}]"
        listed = [f"{item}{suffix}" for item in (setting.items if setting else ("dynamic",))]
        return carry.selectors(said, ports, listed, places)
    if setting is None:
        return []
    if any(item.startswith("%") and item.split("[")[0] != "%dynamic" for item in setting.items):
        said.leave_out(setting, "is no subnet that we can carry")
        return []
    return carry.selectors(said, setting, list(setting.items), places)
