"""The bridge between the `Connection` message (the configuration's schema) and what the controller takes.

Everything wrong with a connection is noted at once. How its sides prove who they are is read in
`convert_authentication`.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

from gateway.api.control.v1 import connection_pb2 as cpb
from gateway.api.convert import (
    ACTION,
    MODE,
    EnumBridge,
    read_address,
    read_duration,
    read_placement,
    required,
    write_duration,
    write_placement,
)
from gateway.api.convert_authentication import is_weak_scheme, read_authentication, write_authentication
from gateway.api.convert_interface import check_routes, read_interface, write_interface
from gateway.api.convert_mark import read_marks, read_per_cpu_sas, write_mark, write_per_cpu_sas
from gateway.api.remembered import (
    ReadOnce,
    WrittenOnce,
    known_identity,
    known_proposal,
    known_selector,
    known_strength,
    written_identity,
    written_proposal,
)
from gateway.api.types.v1 import ipsec_pb2 as tpb
from gateway.api.violations import Violations, at
from gateway.controller.facade import WantedConnection
from gateway.ipsec.authentication import WEAK_SCHEMES
from gateway.ipsec.connection import (
    Child,
    Childless,
    Connection,
    Fragmentation,
    IkeOptions,
    LossAction,
    Side,
    Start,
    Unique,
)
from gateway.ipsec.errors import VocabularyError
from gateway.ipsec.identity import ANY_IDENTITY, Identity
from gateway.ipsec.interface import EVERYTHING
from gateway.ipsec.lifetime import Limit
from gateway.ipsec.policy import Action
from gateway.ipsec.proposal import (
    Proposal,
    ProtocolId,
    WeakAlgorithm,
    default_proposals,
    find_keyword,
)
from gateway.ipsec.sa import MAX_REPLAY_WINDOW, MIN_REPLAY_WINDOW, IpAddress, Mode
from gateway.ipsec.selectors import MAX_SELECTORS, TrafficSelector

START: Final = EnumBridge(Start, cpb.Start, unspecified=Start.NONE)
UNIQUE: Final = EnumBridge(Unique, cpb.Unique, unspecified=Unique.REPLACE)
FRAGMENTATION: Final = EnumBridge(Fragmentation, cpb.Fragmentation, unspecified=Fragmentation.YES)
CHILDLESS: Final = EnumBridge(Childless, cpb.Childless, unspecified=Childless.ALLOW)
LOSS_ACTION: Final = EnumBridge(LossAction, cpb.LossAction)

ANY_ADDRESS: Final = "%any"
MAX_RETRANSMIT_TRIES: Final = 100
MIN_FRAGMENT_SIZE: Final = 256
"""Of the IP packet: room for some data beside the headers of IPv6, the IV, ICV and padding of any suite."""
MAX_FRAGMENT_SIZE: Final = 65535
MAX_NAME: Final = 64
MAX_IKE_SAS_PER_PEER: Final = 10_000

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# RFC 1123 §2.1. No top-level domain begins with a digit: what does is an address with a mistake.
_LABEL = r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}\.?$)({_LABEL}\.)*(?![0-9]){_LABEL}\.?")


Read = Callable[[cpb.Connection, str, Violations], WantedConnection | None]
"""Returns one connection, or notes what is wrong with it: `read_connection`, or something quicker."""


def read_connections(
    messages: Iterable[cpb.Connection], read: Read | None = None
) -> tuple[WantedConnection, ...]:
    """Return every connection of a request.

    Raises:
        InvalidArgument: Something in some connection is wrong; all of it is named.
    """
    violations = Violations()
    wanted = list_connections(messages, violations, read)
    violations.raise_if_any()
    return wanted


def list_connections(
    messages: Iterable[cpb.Connection], violations: Violations, read: Read | None = None
) -> tuple[WantedConnection, ...]:
    """Return those connections that are well-formed and note what is wrong with the others."""
    messages = list(messages)
    read = read or read_connection
    wanted = [read(message, at("", "connections", i), violations) for i, message in enumerate(messages)]
    _unique((message.name for message in messages), "", "connections", violations)
    return tuple(connection for connection in wanted if connection is not None)


def read_connection(message: cpb.Connection, path: str, violations: Violations) -> WantedConnection | None:
    """Return one connection with its PSK, or note what is wrong with it."""
    before = len(violations)
    _name(message.name, at(path, "name"), violations)
    allow_weak = tuple(message.allow_weak)
    for i, word in enumerate(allow_weak):
        is_algorithm = any(find_keyword(word, protocol) for protocol in (ProtocolId.IKE, ProtocolId.ESP))
        if not is_algorithm and not is_weak_scheme(word):
            violations.add(at(path, "allow_weak", i), f"'{word}' is no algorithm, as 3des or modp1024")
    local = _read_side(message.local, at(path, "local"), violations, may_be_names=False)
    remote = _read_side(message.remote, at(path, "remote"), violations, may_be_names=True)
    if local.id == ANY_IDENTITY:
        violations.add(
            at(path, "local.id"), "is what we say we are, so it cannot be %any; leave it out for our address"
        )
    _common_family(local, remote, path, violations)
    sides = read_authentication(message, path, local.id, violations)
    local = Side(
        addresses=local.addresses, names=local.names, id=sides.local_id or local.id, auth=sides.local
    )
    remote = Side(addresses=remote.addresses, names=remote.names, id=remote.id, auth=sides.remote)
    ike = _known_ike(message.ike, at(path, "ike"), allow_weak, violations)
    if ike.childless is not Childless.FORCE:
        required(message.children, at(path, "children"), "at least one child", violations)
    children = [
        _read_child(child, at(path, "children", i), allow_weak, violations)
        for i, child in enumerate(message.children)
    ]
    for i, child in enumerate(children):
        _ours_in_transport_mode(child, local, at(path, "children", i), violations)
        _ah_without_encapsulation(child, ike, at(path, "children", i), violations)
        if child.interface is not None:
            interface_path = at(at(path, "children", i), "interface")
            check_routes(child.interface, remote.addresses, interface_path, violations)
    _unique((child.name for child in message.children), path, "children", violations)
    if len(violations) > before:
        return None
    connection = Connection(
        name=message.name,
        local=local,
        remote=remote,
        ike=ike,
        children=tuple(children),
        allow_weak=allow_weak,
    )
    return WantedConnection(
        connection=connection, psk=sides.psk, private_keys=sides.private_keys, crls=sides.crls
    )


def strength_warnings(connection: Connection) -> tuple[str, ...]:
    """Return a warning for each weak algorithm that is allowed by name, and one where anyone is the peer."""
    proposals = [*connection.ike.proposals]
    for child in connection.children:
        proposals += child.proposals
    warnings = [
        warning for proposal in proposals for warning in known_strength(proposal, connection.allow_weak)
    ]
    for side in (connection.local, connection.remote):
        warnings += [f"{scheme.value} is weak" for scheme in side.auth.signatures if scheme in WEAK_SCHEMES]
    if connection.remote.auth.authorities and connection.remote.id is None:
        warnings.append(
            "remote.id is not given, so whoever has a certificate of remote's cas is the peer: "
            "give its id, or '%any' if that is meant"
        )
    return tuple(dict.fromkeys(warnings))


# --- reading ------------------------------------------------------------------------------------


def _name(name: str, path: str, violations: Violations) -> None:
    if not name:
        violations.add(path, "is required: letters, digits, '.', '_' and '-'")
    elif not _NAME.fullmatch(name):
        violations.add(
            path, f"'{name}' is not a name: letters, digits, '.', '_' and '-', a letter or digit first"
        )
    elif len(name) > MAX_NAME:
        violations.add(path, f"has {len(name)} characters; at most {MAX_NAME} are allowed")


def _unique(names: Iterable[str], path: str, field: str, violations: Violations) -> None:
    seen: dict[str, int] = {}
    for i, name in enumerate(names):
        if name and name in seen:
            there = at(path, field, seen[name])
            violations.add(at(at(path, field, i), "name"), f"'{name}' is already the name of {there}")
        seen.setdefault(name, i)


def _read_side(message: cpb.Side, path: str, violations: Violations, *, may_be_names: bool) -> Side:
    places = tuple(_read_places(message, path, violations, may_be_names=may_be_names))
    identity = _read_identity(message.id, at(path, "id"), violations) if message.id else None
    return Side(
        addresses=tuple(place for place in places if not isinstance(place, str)),
        names=tuple(place for place in places if isinstance(place, str)),
        id=identity,
    )


def _read_places(
    message: cpb.Side, path: str, violations: Violations, *, may_be_names: bool
) -> Iterable[IpAddress | str]:
    """Return addresses and host names, without those in which something is wrong."""
    if message.address and message.addresses:
        violations.add(at(path, "addresses"), "is given beside address; give one of them")
    texts = [(at(path, "addresses", i), text) for i, text in enumerate(message.addresses)]
    if message.address:
        texts.insert(0, (at(path, "address"), message.address))
    if [text for _, text in texts] == [ANY_ADDRESS]:
        return
    for where, text in texts:
        if may_be_names and _HOST_NAME.fullmatch(text):
            yield text.lower().rstrip(".")
            continue
        address = read_address(text, where, violations)
        if address is None:
            continue
        if address.is_unspecified or address.is_multicast:
            violations.add(where, f"{address} is no host's address; leave the address out for any")
        yield address


def _read_identity(text: str, path: str, violations: Violations) -> Identity | None:
    try:
        return known_identity(text)
    except VocabularyError as error:
        violations.add(path, str(error), error.column or 0)
        return None


def _common_family(local: Side, remote: Side, path: str, violations: Violations) -> None:
    ours = {address.version for address in local.addresses}
    theirs = {address.version for address in remote.addresses}
    if ours and theirs and not ours & theirs and not remote.names:
        violations.add(
            at(path, "remote"),
            f"has only IPv{theirs.pop()} addresses, but local has only IPv{ours.pop()} ones",
        )


def _read_proposals(
    texts: Sequence[str], protocol: ProtocolId, path: str, allow_weak: Sequence[str], violations: Violations
) -> tuple[Proposal, ...]:
    proposals = []
    for i, text in enumerate(texts):
        where = at(path, "proposals", i)
        try:
            proposal = known_proposal(text, protocol)
            known_strength(proposal, tuple(allow_weak))
        except WeakAlgorithm as error:
            violations.add(where, str(error), max(text.lower().find(error.words[0]), 0))
        except VocabularyError as error:
            violations.add(where, str(error), error.column or 0)
        else:
            proposals.append(proposal)
    return tuple(proposals)


_ikes: Final = ReadOnce[IkeOptions]()


def _known_ike(message: cpb.Ike, path: str, allow_weak: Sequence[str], violations: Violations) -> IkeOptions:
    """Return what `_read_ike` does, and the very same record for the same message."""
    known = _ikes.find(message, allow_weak)
    if known is None:
        before = len(violations)
        known = _read_ike(message, path, allow_weak, violations)
        if len(violations) == before:
            _ikes.keep(message, allow_weak, known)
    return known


def _read_ike(message: cpb.Ike, path: str, allow_weak: Sequence[str], violations: Violations) -> IkeOptions:
    default = IkeOptions()

    def seconds(name: str, otherwise: float) -> float:
        if not message.HasField(name):
            return otherwise
        return read_duration(getattr(message, name), at(path, name), violations)

    retransmit_timeout_s = seconds("retransmit_timeout", default.retransmit_timeout_s)
    if message.HasField("retransmit_timeout") and retransmit_timeout_s == 0:
        violations.add(at(path, "retransmit_timeout"), "is 0s; at least some milliseconds are needed")
    retransmit_base = (
        message.retransmit_base if message.HasField("retransmit_base") else default.retransmit_base
    )
    _between(retransmit_base, 1, 10, at(path, "retransmit_base"), violations)
    tries = message.retransmit_tries if message.HasField("retransmit_tries") else default.retransmit_tries
    _between(tries, 1, MAX_RETRANSMIT_TRIES, at(path, "retransmit_tries"), violations)
    per_peer = message.ike_sas_per_peer if message.HasField("ike_sas_per_peer") else default.ike_sas_per_peer
    _between(per_peer, 1, MAX_IKE_SAS_PER_PEER, at(path, "ike_sas_per_peer"), violations)
    size = message.fragment_size if message.HasField("fragment_size") else default.fragment_packet_bytes
    _between(size, MIN_FRAGMENT_SIZE, MAX_FRAGMENT_SIZE, at(path, "fragment_size"), violations)
    fragmentation = FRAGMENTATION.read(message.fragmentation, at(path, "fragmentation"), violations)
    return IkeOptions(
        proposals=_read_proposals(message.proposals, ProtocolId.IKE, path, allow_weak, violations),
        rekey_s=seconds("rekey", default.rekey_s),
        over_s=seconds("over_time", default.over_s),
        jitter=_fraction(
            message.jitter if message.HasField("jitter") else default.jitter, at(path, "jitter"), violations
        ),
        dpd_delay_s=seconds("dpd_delay", default.dpd_delay_s),
        retransmit_timeout_s=retransmit_timeout_s,
        retransmit_base=retransmit_base,
        retransmit_tries=tries,
        encapsulation=message.encapsulation,
        fragmentation=fragmentation or default.fragmentation,
        fragment_packet_bytes=size,
        unique=UNIQUE.read(message.unique, at(path, "unique"), violations) or default.unique,
        ike_sas_per_peer=per_peer,
        childless=CHILDLESS.read(message.childless, at(path, "childless"), violations) or default.childless,
        reauth_s=seconds("reauth", default.reauth_s),
    )


def _between(value: float, low: float, high: float, path: str, violations: Violations) -> None:
    # Written so that a NaN is refused too.
    if not low <= value <= high:
        violations.add(path, f"{value:g} is not between {low:g} and {high:g}")


def _fraction(value: float, path: str, violations: Violations) -> float:
    # Written so that a NaN is refused too. All of a lifetime taken off would leave none.
    if not 0 <= value < 1:
        violations.add(path, f"{value:g} is not a fraction from 0 to less than 1")
    return value


def _read_child(message: cpb.Child, path: str, allow_weak: Sequence[str], violations: Violations) -> Child:
    _name(message.name, at(path, "name"), violations)
    local_ts = _read_selectors(message.local_ts, path, "local_ts", violations)
    remote_ts = _read_selectors(message.remote_ts, path, "remote_ts", violations)
    _common_selector_family(local_ts, remote_ts, path, violations)
    options = _known_child_options(message, path, allow_weak, violations)
    if options.interface is not None:
        local_ts, remote_ts = local_ts or EVERYTHING, remote_ts or EVERYTHING
    return replace(options, name=message.name, local_ts=local_ts, remote_ts=remote_ts)


_child_options: Final = ReadOnce[Child]()


def _known_child_options(
    message: cpb.Child, path: str, allow_weak: Sequence[str], violations: Violations
) -> Child:
    """Return what `_read_child_options` does, the very same record where only names and selectors differ."""
    rest = cpb.Child()
    rest.CopyFrom(message)
    for name in ("name", "local_ts", "remote_ts"):
        rest.ClearField(name)
    known = _child_options.find(rest, allow_weak)
    if known is None:
        before = len(violations)
        known = _read_child_options(rest, path, allow_weak, violations)
        if len(violations) == before:
            _child_options.keep(rest, allow_weak, known)
    return known


def _read_child_options(
    message: cpb.Child, path: str, allow_weak: Sequence[str], violations: Violations
) -> Child:
    """Return a child without its name and its selectors."""
    default = Child(name="")
    action = ACTION.read(message.action, at(path, "action"), violations) or default.action
    interface = None
    if message.HasField("interface"):
        interface = read_interface(message.interface, at(path, "interface"), violations)
        if action is not Action.PROTECT:
            violations.add(at(path, "interface"), f"is for action protect, not {action.value}; leave it out")
        if message.mode == tpb.MODE_TRANSPORT:
            violations.add(at(path, "interface"), "is for mode tunnel, not transport; leave it out")
    start = START.read(message.start, at(path, "start"), violations) or default.start
    for name in ("start", "dpd_action", "close_action"):
        if action is not Action.PROTECT and getattr(message, name) not in (0, cpb.START_NONE):
            violations.add(at(path, name), f"is for action protect, not {action.value}; leave it out")
    rekey_s: float | None = default.rekey.seconds
    if message.HasField("rekey"):
        rekey_s = read_duration(message.rekey, at(path, "rekey"), violations) or None
    window = message.replay_window if message.HasField("replay_window") else default.replay_window_packets
    _between(window, MIN_REPLAY_WINDOW, MAX_REPLAY_WINDOW, at(path, "replay_window"), violations)
    over = message.over_fraction if message.HasField("over_fraction") else default.over
    _between(over, 0, 10, at(path, "over_fraction"), violations)
    jitter = message.jitter if message.HasField("jitter") else default.jitter
    return Child(
        name="",
        mode=MODE.read(message.mode, at(path, "mode"), violations) or default.mode,
        action=action,
        proposals=_read_child_proposals(message, path, allow_weak, violations),
        start=start,
        rekey=Limit(
            seconds=rekey_s, bytes=message.rekey_bytes or None, packets=message.rekey_packets or None
        ),
        over=over,
        jitter=_fraction(jitter, at(path, "jitter"), violations),
        replay_window_packets=window,
        copy_dscp=message.copy_dscp if message.HasField("copy_dscp") else default.copy_dscp,
        copy_df=message.copy_df if message.HasField("copy_df") else default.copy_df,
        priority=message.priority if message.HasField("priority") else default.priority,
        placement=read_placement(message.placement, at(path, "placement"), violations),
        interface=interface,
        per_cpu_sas=read_per_cpu_sas(message, action, at(path, "per_cpu_sas"), violations),
        marks=read_marks(message, action, path, violations),
        dpd_action=_read_loss_action(message, "dpd_action", path, violations),
        close_action=_read_loss_action(message, "close_action", path, violations),
    )


def _read_child_proposals(
    message: cpb.Child, path: str, allow_weak: Sequence[str], violations: Violations
) -> tuple[Proposal, ...]:
    """Return proposals of ESP or of AH; empty for ESP with the defaults."""
    if not message.HasField("ah"):
        return _read_proposals(message.esp.proposals, ProtocolId.ESP, at(path, "esp"), allow_weak, violations)
    if message.HasField("esp"):
        violations.add(at(path, "ah"), "is there beside esp; give one of them")
    given = _read_proposals(message.ah.proposals, ProtocolId.AH, at(path, "ah"), allow_weak, violations)
    return given or default_proposals(ProtocolId.AH)


def _ah_without_encapsulation(child: Child, ike: IkeOptions, path: str, violations: Violations) -> None:
    """Refuse AH where every packet is to be in UDP: there is no such thing (RFC 4302 §3.3.3)."""
    if child.protocol is ProtocolId.AH and ike.encapsulation:
        violations.add(at(path, "ah"), "cannot be encapsulated in UDP; use esp, or leave encapsulation out")


def _read_loss_action(message: cpb.Child, name: str, path: str, violations: Violations) -> LossAction | None:
    number = getattr(message, name)
    return LOSS_ACTION.read(number, at(path, name), violations) if number else None


def _holds(selector: TrafficSelector, address: IpAddress) -> bool:
    """Say whether an address is in a selector, whatever the protocol and ports of that."""
    is_same_family = selector.version == address.version
    return is_same_family and int(selector.start) <= int(address) <= int(selector.end)


def _ours_in_transport_mode(child: Child, local: Side, path: str, violations: Violations) -> None:
    """Refuse transport mode for other hosts' packets (RFC 4301 §4.1): they would leave with no outer header.

    The peer's side is left alone: behind a NAT, what it sends for itself is not its outer address.
    """
    if child.mode is not Mode.TRANSPORT or child.action is not Action.PROTECT or not child.local_ts:
        return
    ours = [address for address in local.addresses if address.version == child.local_ts[0].version]
    if ours and not any(_holds(selector, address) for selector in child.local_ts for address in ours):
        violations.add(
            at(path, "local_ts"),
            f"mode transport is for what {ours[0]} itself sends, which is not in it; leave it out, or use "
            "mode tunnel",
        )


def _read_selectors(
    texts: Sequence[str], path: str, name: str, violations: Violations
) -> tuple[TrafficSelector, ...]:
    if len(texts) > MAX_SELECTORS:
        violations.add(
            at(path, name), f"has {len(texts)} selectors; at most {MAX_SELECTORS} fit in a payload"
        )
    selectors = []
    for i, text in enumerate(texts):
        try:
            selectors.append(known_selector(text))
        except VocabularyError as error:
            violations.add(at(path, name, i), str(error), error.column or 0)
    return tuple(selectors)


def _common_selector_family(
    local_ts: Sequence[TrafficSelector],
    remote_ts: Sequence[TrafficSelector],
    path: str,
    violations: Violations,
) -> None:
    ours = {selector.start.version for selector in local_ts}
    theirs = {selector.start.version for selector in remote_ts}
    if ours and theirs and not ours & theirs:
        violations.add(
            at(path, "remote_ts"),
            f"has only IPv{theirs.pop()} selectors, but local_ts has only IPv{ours.pop()} ones",
        )


# --- writing ------------------------------------------------------------------------------------


def write_connection(
    connection: Connection, *, psk_is_set: bool, crls_are_set: bool = False
) -> cpb.Connection:
    """Return the message, with every default spelled out and no secret."""
    return cpb.Connection(
        name=connection.name,
        local=_write_side(
            connection.local,
            write_authentication(
                connection.local.auth, is_local=True, psk_is_set=psk_is_set, crls_are_set=crls_are_set
            ),
        ),
        remote=_write_side(
            connection.remote,
            write_authentication(
                connection.remote.auth, is_local=False, psk_is_set=psk_is_set, crls_are_set=crls_are_set
            ),
        ),
        ike=_written_ike(connection.ike),
        children=[_write_child(child) for child in connection.children],
        allow_weak=connection.allow_weak,
    )


def _write_side(side: Side, auth: cpb.Authentication | None) -> cpb.Side:
    addresses = [*map(str, side.addresses), *side.names]
    return cpb.Side(
        address=addresses[0] if len(addresses) == 1 else "",
        addresses=addresses if len(addresses) > 1 else (),
        id="" if side.id is None else written_identity(side.id),
        auth=auth,
    )


def _write_ike(ike: IkeOptions) -> cpb.Ike:
    return cpb.Ike(
        proposals=[written_proposal(proposal) for proposal in ike.proposals],
        rekey=write_duration(ike.rekey_s),
        over_time=write_duration(ike.over_s),
        jitter=ike.jitter,
        dpd_delay=write_duration(ike.dpd_delay_s),
        retransmit_timeout=write_duration(ike.retransmit_timeout_s),
        retransmit_base=ike.retransmit_base,
        retransmit_tries=ike.retransmit_tries,
        encapsulation=ike.encapsulation,
        fragmentation=FRAGMENTATION.write(ike.fragmentation),
        fragment_size=ike.fragment_packet_bytes,
        unique=UNIQUE.write(ike.unique),
        ike_sas_per_peer=ike.ike_sas_per_peer,
        childless=CHILDLESS.write(ike.childless),
        reauth=write_duration(ike.reauth_s),
    )


_written_ike: Final = WrittenOnce(_write_ike)


def _write_child(child: Child) -> cpb.Child:
    words = [written_proposal(proposal) for proposal in child.proposals]
    is_ah = child.protocol is ProtocolId.AH
    return cpb.Child(
        name=child.name,
        local_ts=[str(selector) for selector in child.local_ts],
        remote_ts=[str(selector) for selector in child.remote_ts],
        mode=MODE.write(child.mode),
        action=ACTION.write(child.action),
        esp=cpb.Esp(proposals=words) if words and not is_ah else None,
        ah=cpb.Ah(proposals=words) if is_ah else None,
        start=START.write(child.start),
        rekey=write_duration(child.rekey.seconds or 0.0),
        rekey_bytes=child.rekey.bytes or 0,
        rekey_packets=child.rekey.packets or 0,
        over_fraction=child.over,
        jitter=child.jitter,
        replay_window=child.replay_window_packets,
        copy_dscp=child.copy_dscp,
        copy_df=child.copy_df,
        priority=child.priority,
        placement=write_placement(child.placement),
        interface=write_interface(child.interface),
        per_cpu_sas=write_per_cpu_sas(child.per_cpu_sas),
        mark_in=write_mark(child.marks.inbound),
        mark_out=write_mark(child.marks.outbound),
        mark_in_sa=child.marks.on_inbound_sa,
        set_mark_in=write_mark(child.marks.set_inbound),
        set_mark_out=write_mark(child.marks.set_outbound),
        dpd_action=_write_loss_action(child.dpd_action),
        close_action=_write_loss_action(child.close_action),
    )


def _write_loss_action(action: LossAction | None) -> str | None:
    return None if action is None else LOSS_ACTION.write(action)
