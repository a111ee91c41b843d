"""Why a connection is (not) up, in facts for a person: what differed, where SAs landed, what to do."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from gateway.controller.facade import ChildSaStatus, ConnectionState, ConnectionStatus, Fact
from gateway.ike.events import Failure, FailureReason, IkeSaInfo
from gateway.ipsec.connection import Child, Start
from gateway.ipsec.placement import Engine, PlacementReason, PlacementRefusal
from gateway.ipsec.policy import Action
from gateway.ipsec.sa import IpAddress

_ADVICE = {
    FailureReason.NO_PROPOSAL_CHOSEN: "give both sides one proposal in common",
    FailureReason.AUTHENTICATION_FAILED: "compare the pre-shared keys and the identities of both sides",
    FailureReason.TS_UNACCEPTABLE: "make local_ts here and remote_ts there overlap, and the other way round",
    FailureReason.NO_CREDENTIAL: "give the connection a pre-shared key",
    FailureReason.PEER_UNRESPONSIVE: "check that the peer runs, and that UDP 500 and 4500 get there and back",
    FailureReason.NO_CONNECTION: "compare the addresses and identities of both sides' connections",
    FailureReason.NAME_NOT_RESOLVED: "check the name, and that this machine can resolve names",
    FailureReason.DATAPATH_REFUSED: "see `ipsecgw status`: the datapath must offer what was negotiated",
    FailureReason.INVALID_KE_PAYLOAD: "give both sides one key exchange method in common",
    FailureReason.TIMEOUT: "check that the peer runs and is not overloaded",
    FailureReason.INTERNAL: "see the controller's log",
}

#: What to do to have an SA on a better engine than it is on; docs/troubleshooting.md says more.
PLACEMENT_ADVICE: Final = {
    PlacementReason.NO_BACKEND: "`ipsecgw hw` says what is lacking here, --backend of the agent what is used",
    PlacementReason.NO_DEVICE: "`ipsecgw hw` says what each NIC offers; use an address of one that offloads",
    PlacementReason.FEATURE_OFF: "`ipsecgw hw` says how to switch it on",
    PlacementReason.KERNEL_TOO_OLD: "boot the kernel it names, or a later one",
    PlacementReason.ALG_UNSUPPORTED: "put a proposal first that it takes, such as aes256gcm16",
    PlacementReason.KEYLEN: "put a proposal first with a key length that it takes",
    PlacementReason.ICV: "put a proposal first with an ICV of 16 bytes, such as aes256gcm16",
    PlacementReason.ESN: "put a proposal first without esn",
    PlacementReason.REPLAY_WINDOW: "set the child's replay_window to a size that it takes",
    PlacementReason.ENCAP: "take the NAT away from between the peers, or do without it",
    PlacementReason.MODE: "set the child's mode to the other one, if both sides are the endpoints of traffic",
    PlacementReason.DIRECTION: "nothing: this device does one direction only",
    PlacementReason.SELECTOR: "leave out of the child what it names: a protocol, an interface or marks",
    PlacementReason.SA_TABLE_FULL: "let fewer children prefer it",
    PlacementReason.DRIVER_REFUSED: "change what the driver names, and see the kernel's log",
    PlacementReason.KERNEL_IGNORED_OFFLOAD: "see the kernel's log for what the driver said",
    PlacementReason.POLICY_FORBIDS: "give both children the same placement, or selectors that do not overlap",
    PlacementReason.OTHER_DIRECTION: "see why the other direction is where it is",
    PlacementReason.DEVICE_LOST: "bring the device up; the next rekey moves the SA back",
    PlacementReason.BACKEND_REFUSED: "change what the backend names, and see the agent's log",
}


def explain_connection(
    *,
    status: ConnectionStatus,
    ike_sas: Sequence[IkeSaInfo],
    child_sas: Sequence[ChildSaStatus],
    datapath_problem: str,
    policy_problems: Mapping[str, str],
    next_attempt_in_s: float | None,
    resolved: Mapping[str, Sequence[IpAddress]] = MappingProxyType({}),
    cpus: int = 0,
    now: float,
) -> tuple[Fact, ...]:
    """Return the facts about one connection, the most important first."""
    missing = _missing(status, child_sas)
    facts = [_state(status, next_attempt_in_s)]
    if datapath_problem:
        facts.append(
            Fact(
                topic="datapath",
                text=datapath_problem,
                advice="start an agent (`ipsecgw agent`, or `ipsecgw run`, which starts its own)",
            )
        )
    facts += [
        Fact(topic="policy", text=f"{name} is not in force: {why}", advice="change the child's selectors")
        for name, why in sorted(policy_problems.items())
    ]
    if status.last_failure is not None and status.last_failure_at is not None:
        facts += _failure(
            status.last_failure,
            now - status.last_failure_at,
            is_past=status.state is ConnectionState.UP and not missing,
        )
    if status.state is ConnectionState.UP:
        name = status.connection.name
        facts += [
            Fact(topic="child", text=f"{child} has no Child SA", advice=f"`ipsecgw up {name}/{child}`")
            for child in missing
        ]
    facts += [
        Fact(
            topic="peer",
            text=f"IKE SA {sa.spi_i.hex()}_i {sa.spi_r.hex()}_r is {sa.state} with {sa.path.remote} "
            f"port {sa.path.remote_port} ({sa.remote_id or 'not authenticated'}), "
            f"as {'initiator' if sa.is_initiator else 'responder'}"
            + _nat(sa)
            + (f", {sa.proposal}" if sa.proposal else "")
            + (f", to be authenticated anew in {sa.reauth_at - now:.0f} s" if sa.reauth_at else ""),
        )
        for sa in ike_sas
    ]
    facts += [
        Fact(topic="name", text=f"{name} is {', '.join(map(str, addresses)) or 'not resolved yet'}")
        for name, addresses in resolved.items()
    ]
    for child_sa in child_sas:
        facts += _child(child_sa)
    facts += [
        Fact(
            topic="interface",
            text=f"{child.name} carries what routes lead into {child.interface.name} "
            f"(if_id {child.interface.id})",
            advice=f"`ip route show dev {child.interface.name}` shows them",
        )
        for child in status.connection.children
        if child.interface is not None
    ]
    facts += [fact for child in status.connection.children for fact in _cpus(child, child_sas, cpus)]
    return tuple(facts)


def _cpus(child: Child, child_sas: Sequence[ChildSaStatus], cpus: int) -> list[Fact]:
    """Return why a Child that wants SAs for CPUs has none (RFC 9611)."""
    there = [child_sa.info for child_sa in child_sas if child_sa.info.child == child.name]
    if child.per_cpu_sas == 0 or not there or any(info.cpu is not None for info in there):
        return []
    if not cpus:
        text = f"{child.name} has one SA for all CPUs: the datapath cannot give each CPU one"
        return [
            Fact(
                topic="cpus",
                text=text,
                advice="the kernel's datapath can, from Linux 6.13 on, and Debian's 6.12",
            )
        ]
    return [
        Fact(
            topic="cpus",
            text=f"{child.name} has one SA for all CPUs: the peer did not agree to more (RFC 9611)",
            advice="let the peer have SAs for each CPU too, as strongSwan 6 has by per_cpu_sas",
        )
    ]


def _missing(status: ConnectionStatus, child_sas: Sequence[ChildSaStatus]) -> list[str]:
    """Return the children that are to be protected and have no Child SA."""
    there = {child_sa.info.child for child_sa in child_sas}
    return [
        child.name
        for child in status.connection.children
        if child.action is Action.PROTECT and child.name not in there
    ]


def _state(status: ConnectionStatus, next_attempt_in_s: float | None) -> Fact:
    name = status.connection.name
    match status.state:
        case ConnectionState.UP:
            return Fact(topic="state", text=f"{name} is up")
        case ConnectionState.CONNECTING:
            return Fact(topic="state", text=f"{name} is connecting")
        case ConnectionState.FAILED:
            again = "" if next_attempt_in_s is None else f"; the next attempt is in {next_attempt_in_s:.0f} s"
            return Fact(topic="state", text=f"{name} is down: the last attempt failed{again}")
        case ConnectionState.DOWN:
            return Fact(topic="state", text=f"{name} is down", advice=_how_to_start(status))


def _how_to_start(status: ConnectionStatus) -> str:
    if not status.connection.remote.is_known:
        return "it has no remote address: the peer has to initiate"
    starts = {child.start for child in status.connection.children if child.action is Action.PROTECT}
    if Start.ON_TRAFFIC in starts:
        return "send a packet that its selectors match, or `ipsecgw up`"
    return f"`ipsecgw up {status.connection.name}`"


def _failure(failure: Failure, age_s: float, *, is_past: bool) -> list[Fact]:
    facts = [
        Fact(
            topic="failure",
            text=f"{age_s:.0f} s ago: {failure.reason.value}: {failure.detail}"
            + (f" (notify {failure.notify})" if failure.notify else ""),
            advice="" if is_past else _ADVICE.get(failure.reason, ""),
        )
    ]
    if failure.offered:
        facts.append(Fact(topic="offered", text=failure.offered))
    if failure.configured:
        facts.append(Fact(topic="configured", text=failure.configured))
    return facts


def _nat(sa: IkeSaInfo) -> str:
    match sa.nat_local, sa.nat_remote:
        case True, True:
            return ", with a NAT on both sides"
        case True, False:
            return ", behind a NAT here"
        case False, True:
            return ", behind a NAT there"
        case _:
            return ""


def _child(child_sa: ChildSaStatus) -> list[Fact]:
    info = child_sa.info
    selectors = (
        f"{', '.join(str(ts) for ts in info.local_ts)} === {', '.join(str(ts) for ts in info.remote_ts)}"
    )
    cpu = "" if info.cpu is None else f" for CPU {info.cpu}"
    facts = [
        Fact(
            topic="selectors",
            text=f"{info.child}{cpu} is {info.state}: {selectors}, {info.proposal}, "
            f"{child_sa.packets_in} packets in, {child_sa.packets_out} out"
            + (f", effective MTU {child_sa.effective_mtu}" if child_sa.effective_mtu is not None else ""),
        )
    ]
    return facts + _placement(child_sa)


def _placement(child_sa: ChildSaStatus) -> list[Fact]:
    """Return what was asked for, where the SAs are, and for each better engine why not there."""
    info = child_sa.info
    found: dict[tuple[Engine, tuple[PlacementRefusal, ...], str], list[str]] = {}
    for word, sa, placement in (
        ("in", info.inbound, child_sa.inbound),
        ("out", info.outbound, child_sa.outbound),
    ):
        if sa is not None and placement is not None:
            wish = "requires" if sa.placement.require is not None else "prefers"
            asked = f"{wish} {', '.join(engine.value for engine in sa.placement.wanted)}"
            found.setdefault((placement.engine, placement.refusals, asked), []).append(word)
    facts = []
    for (engine, refusals, asked), words in found.items():
        directions = " and ".join(words)
        verb = "is" if len(words) == 1 else "are"
        facts.append(
            Fact(topic="placement", text=f"{info.child} {directions} {verb} on {engine.value}; it {asked}")
        )
        together: dict[tuple[PlacementReason, str], list[str]] = {}
        for refusal in refusals:
            together.setdefault((refusal.reason, refusal.text), []).append(refusal.engine.value)
        facts += [
            Fact(
                topic="placement",
                text=f"{info.child} {directions} not on {', '.join(engines)}: {reason.value}: {text}",
                advice=PLACEMENT_ADVICE[reason],
            )
            for (reason, text), engines in together.items()
        ]
    return facts
