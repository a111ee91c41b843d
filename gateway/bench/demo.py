"""`ipsecgw demo`: two gateways in network namespaces, a real tunnel, real traffic, and a picture of it."""

import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from gateway.bench import ladder
from gateway.bench.capture import capturing, clear_packets
from gateway.bench.flows import Transfer, TwoWayFlow, tcp_transfer, two_way_udp
from gateway.bench.process import GatewayProcess
from gateway.bench.topology import SiteToSite, require_root, site_to_site
from gateway.datapath.engine.probe import probe_engine, probe_espd
from gateway.hardware.facts import Answer
from gateway.host.bpf.compiled import compiled_object
from gateway.host.bpf.errors import BpfError

_CONFIG = """\
connections:
- name: paris-tokyo
  local:  {{address: {local}, id: {local_id}, auth: {{psk: {{file: paris-tokyo.psk}}}}}}
  remote: {{address: {remote}, id: {remote_id}, auth: {{psk: {{file: paris-tokyo.psk}}}}}}
  ike: {{proposals: [aes256gcm16-prfsha384-x25519]}}
  children:
  - name: lan
    local_ts: [{local_ts}]
    remote_ts: [{remote_ts}]
    esp: {{proposals: [aes256gcm16-x25519]}}
    start: on_traffic
- name: wrong-key
  local:  {{address: {local}, id: wrong.{local_id}, auth: {{psk: {{file: wrong.psk}}}}}}
  remote: {{address: {remote}, id: wrong.{remote_id}, auth: {{psk: {{file: wrong.psk}}}}}}
  children:
  - {{name: lan, local_ts: [{unused_local}], remote_ts: [{unused_remote}]}}
"""
_WIRESHARK_PREFERENCES = """\
# Together with the tables beside it, this folder is a Wireshark configuration.
esp.enable_encryption_decode: TRUE
esp.enable_authentication_check: TRUE
"""
_ASK_S = 20.0
_UNUSED = ("172.16.1.0/24", "172.16.2.0/24")
#: What is told of if it is missing, by its fact.
_FASTER = {
    "espd": "the native engine",
    "its library": "the native engine's library",
    "ipsec-mb": "ipsec-mb (libipsec-mb-dev, and `make engine`)",
}


@dataclass(frozen=True, slots=True)
class Carrier:
    """Who carries the packets of the tunnel."""

    engine: str = ""
    reason: str = ""
    """By which methods, and what is missing for a better engine."""


@dataclass(slots=True)
class Findings:
    """What the demo measured; written to summary.json."""

    checks: list[tuple[str, bool, str]] = field(default_factory=list)
    """(what, whether it holds, what was seen)."""
    carrier: Carrier = Carrier()

    def check(self, what: str, holds: bool, seen: str) -> None:
        """Record one check."""
        self.checks.append((what, holds, seen))

    @property
    def passed(self) -> bool:
        """Whether everything held."""
        return all(holds for _, holds, _ in self.checks)


def run_demo(directory: Path, *, seconds: float, transfer_bytes: int) -> int:
    """Run the whole demo, leave its results in `directory`, and return the exit status.

    `seconds` is how long the numbered UDP flows last at least. Everything that was started is ended and every
    namespace deleted, also after SIGINT and SIGTERM.

    Raises:
        TopologyError: Not root, or a namespace could not be made.
        GatewayProcessError: A gateway did not start.
    """
    require_root()
    console = Console(highlight=False, soft_wrap=True)
    findings = Findings()
    directory.mkdir(parents=True, exist_ok=True)
    with _interruptible(), ExitStack() as stack:
        console.rule("[bold]ipsecgw demo[/]: host – gateway – gateway – host, in four network namespaces")
        sites = stack.enter_context(site_to_site(f"gwdemo{os.getpid()}"))
        wire = stack.enter_context(
            capturing(sites.a.gateway, sites.a.outside_device, directory / "wire.pcap")
        )
        paris = _start_gateways(stack, sites, directory)
        console.print("1. two gateways run, no SA exists yet: the first packet will ask for one")
        findings.carrier = _ask_for_an_sa(sites, paris, console)
        _ping_both_ways(sites, console, findings)
        transfer = _transfer(sites, console, transfer_bytes)
        findings.check(
            "TCP transfer arrives intact",
            transfer.intact,
            f"{transfer.bytes >> 20} MiB, {transfer.mbit_per_s:.0f} Mb/s",
        )
        flow = _rekey_under_load(sites, paris, console, seconds)
        findings.check(
            "rekeys lose nothing", flow.missing == 0, f"{flow.missing} of {flow.sent} packets missing"
        )
        findings.check("rekeys repeat nothing", flow.duplicates == 0, f"{flow.duplicates} duplicates")
        _refuse_wrong_key(paris, console, findings)
        _print_sas(paris, console)
    clear = clear_packets(wire)
    findings.check("nothing in clear on the wire", clear == 0, f"{clear} clear packets between the gateways")
    _explain_capture(directory, paris, console, findings)
    _summarise(directory, findings, transfer, flow, console)
    return 0 if findings.passed else 1


@contextmanager
def _interruptible() -> Iterator[None]:
    """Turn SIGTERM into the exception that SIGINT already is, so that every `with` cleans up."""

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _start_gateways(stack: ExitStack, sites: SiteToSite, directory: Path) -> GatewayProcess:
    """Start both gateways and return Paris, which the demo drives."""
    psk = secrets.token_urlsafe(32)
    # espd outlives its agent; what ends the demo ends it too.
    has_engine = probe_espd().answer is Answer.YES
    options = ("--datapath", "engine", "--teardown") if has_engine else ()
    started = []
    for name, here, there, unused in (
        ("paris", sites.a, sites.b, _UNUSED),
        ("tokyo", sites.b, sites.a, _UNUSED[::-1]),
    ):
        gateway = GatewayProcess(
            here.gateway,
            directory / name,
            _CONFIG.format(
                local=here.outside,
                remote=there.outside,
                local_id=f"gw-{name}.example",
                remote_id="gw-tokyo.example" if name == "paris" else "gw-paris.example",
                local_ts=here.inside,
                remote_ts=there.inside,
                unused_local=unused[0],
                unused_remote=unused[1],
            ),
            options,
        )
        gateway.directory.mkdir(parents=True, exist_ok=True)
        _write_secret(gateway.directory / "paris-tokyo.psk", psk)
        _write_secret(gateway.directory / "wrong.psk", secrets.token_urlsafe(32))
        started.append(stack.enter_context(gateway))
    return started[0]


def _write_secret(path: Path, secret: str) -> None:
    path.touch(mode=0o600)
    path.write_text(secret + "\n")


def _ask_for_an_sa(sites: SiteToSite, paris: GatewayProcess, console: Console) -> Carrier:
    """Ping until it is answered, and return where the SA that this asked for has landed."""
    deadline = time.monotonic() + _ASK_S
    while time.monotonic() < deadline:
        done = sites.a.host.run("ping", "-c", "1", "-W", "1", sites.b.host_address, check=False)
        if done.returncode == 0:
            break
    sas = paris.json("list", "sas")["sas"]
    carrier = Carrier(str(sas[0]["placement"]), str(sas[0]["placement_reason"])) if sas else Carrier("", "")
    console.print(f"   it is carried by: {carrier.engine or 'nobody'}", markup=False)
    console.print(f"   {carrier.reason}", markup=False)
    for line in _what_is_missing():
        console.print(f"   it would be faster with {line}", markup=False)
    return carrier


def _what_is_missing() -> Iterator[str]:
    """Tell what this machine has not that the native engine is made of, and why, best first."""
    for fact in probe_engine():
        if fact.name in _FASTER and fact.answer is Answer.NO:
            yield f"{_FASTER[fact.name]}: {fact.evidence}"
    try:
        compiled_object("xdp_inbound")
    except BpfError as error:
        yield f"XDP: {error}"


def _ping_both_ways(sites: SiteToSite, console: Console, findings: Findings) -> None:
    for here, there, arrow in ((sites.a, sites.b, "paris → tokyo"), (sites.b, sites.a, "tokyo → paris")):
        done = here.host.run("ping", "-c", "3", "-i", "0.2", "-W", "5", there.host_address, check=False)
        lines = [line for line in done.stdout.splitlines() if "packets transmitted" in line or "rtt" in line]
        console.print(f"2. ping {arrow}: {'; '.join(lines) or done.stderr.strip()}")
        findings.check(f"ping {arrow}", " 0% packet loss" in done.stdout, lines[0] if lines else "no answer")


def _transfer(sites: SiteToSite, console: Console, total_bytes: int) -> Transfer:
    with Progress(
        TextColumn("3. TCP host → host"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        console=console,
    ) as bar:
        task = bar.add_task("transfer", total=total_bytes)
        transfer = tcp_transfer(
            sites.a.host,
            sites.b.host,
            sites.b.host_address,
            total_bytes,
            lambda sent, _seconds: bar.update(task, completed=sent),
        )
    console.print(f"   {transfer.mbit_per_s:.1f} Mb/s through both gateways on this machine")
    return transfer


def _rekey_under_load(
    sites: SiteToSite, paris: GatewayProcess, console: Console, seconds: float
) -> TwoWayFlow:
    steps: tuple[tuple[str, Callable[[], object]], ...] = (
        ("Child SA rekeyed", lambda: paris.ctl("rekey", "paris-tokyo/lan")),
        ("IKE SA rekeyed", lambda: paris.ctl("rekey", "paris-tokyo")),
    )
    with two_way_udp(
        sites.a.host, sites.a.host_address, sites.b.host, sites.b.host_address, rate_pps=1000
    ) as flow:
        console.print("4. numbered UDP, 1000 packets/s each way, while both SAs are rekeyed:")
        for what, step in steps:
            time.sleep(seconds / 3)
            step()
            console.print(f"   {what}")
        time.sleep(seconds / 3)
    console.print(f"   {flow.sent} packets sent, {flow.missing} missing, {flow.duplicates} duplicate")
    return flow


def _refuse_wrong_key(paris: GatewayProcess, console: Console, findings: Findings) -> None:
    done = paris.ctl("up", "wrong-key", check=False)
    reason = (done.stderr.strip() or done.stdout.strip()).replace("\n", "\n   ")
    console.print(f"5. a peer with the wrong pre-shared key is refused:\n   {reason}", markup=False)
    refused = done.returncode != 0 and "authentication_failed" in reason.lower().replace(" ", "_")
    findings.check("wrong PSK is refused", refused, reason.splitlines()[0] if reason else "no reason given")


def _print_sas(paris: GatewayProcess, console: Console) -> None:
    console.print("6. what paris holds:")
    console.print(paris.ctl("list", "child-sas").stdout.rstrip(), markup=False)


def _explain_capture(directory: Path, paris: GatewayProcess, console: Console, findings: Findings) -> None:
    """Decrypt the capture with the key tables of one side, and draw the ladder from it."""
    keys = directory / "keys"
    keys.mkdir(exist_ok=True)
    for table in sorted(paris.key_log.iterdir()):
        target = keys / table.name
        target.touch(mode=0o600)
        target.write_bytes(table.read_bytes())
    (keys / "preferences").write_text(_WIRESHARK_PREFERENCES)
    wire = directory / "wire.pcap"
    done = paris.ctl("inspect", str(wire), "--keys", str(keys), "--json", check=False, timeout_s=300)
    report: dict[str, Any] = json.loads(done.stdout) if done.stdout else {"problems": [done.stderr]}
    ike, esp = report.get("ike", {}), report.get("esp", {})
    findings.check(
        "the capture decrypts with its key tables",
        done.returncode == 0 and esp.get("verified", 0) > 0,
        f"{ike.get('decrypted')} of {ike.get('protected')} IKE messages, "
        f"{esp.get('verified')} of {esp.get('packets')} ESP packets",
    )
    for problem in report.get("problems", [])[:5]:
        console.print(f"   problem: {problem}", markup=False)
    (directory / "ladder.svg").write_text(
        ladder.draw(
            _rungs(report.get("messages", []), paris_address="192.0.2.1"),
            title="paris – tokyo: every IKE exchange of the demo",
            left="gw-paris (192.0.2.1)",
            right="gw-tokyo (192.0.2.2)",
        ),
        encoding="utf-8",
    )


def _rungs(messages: list[dict[str, Any]], *, paris_address: str) -> list[ladder.Rung]:
    """Turn the messages of `ipsecgw inspect --json` into rungs; ESP packets between two become one band."""
    rungs = list[ladder.Rung]()
    esp = list[tuple[float, bool]]()
    start = datetime.fromisoformat(messages[0]["time"]) if messages else datetime.now(UTC)

    def flush() -> None:
        if esp:
            right = sum(1 for _, rightward in esp if rightward)
            rungs.append(
                ladder.Burst(
                    at_s=esp[0][0], until_s=esp[-1][0], packets_right=right, packets_left=len(esp) - right
                )
            )
            esp.clear()

    for message in messages:
        at_s = (datetime.fromisoformat(message["time"]) - start).total_seconds()
        rightward = message["source"].partition(":")[0] == paris_address
        if message["protocol"] != "ike":
            esp.append((at_s, rightward))
            continue
        flush()
        rungs.append(
            ladder.Message(
                at_s=at_s,
                rightward=rightward,
                exchange=message["exchange"],
                is_request="RESPONSE" not in message["flags"],
                message_id=message["message_id"],
                payloads=_payload_names(message),
            )
        )
    flush()
    return rungs


def _payload_names(message: dict[str, Any]) -> str:
    """Return the payloads of a message as RFC 7296 writes them: `SK { IDi, AUTH, SA, TSi, TSr }`."""

    def names(payloads: list[dict[str, Any]]) -> str:
        return ", ".join(
            f"N({payload['notify']})" if payload["type"] == "N" else str(payload["type"])
            for payload in payloads
        )

    clear = names(message.get("payloads", []))
    if not message.get("protected"):
        return clear
    inner = names(message.get("encrypted_payloads", [])) if message.get("decrypted") else "?"
    return f"SK {{ {inner} }}" if inner else "SK {}"


def _summarise(
    directory: Path, findings: Findings, transfer: Transfer, flow: TwoWayFlow, console: Console
) -> None:
    table = Table(title="what was checked", show_lines=False)
    table.add_column("check")
    table.add_column("holds")
    table.add_column("seen")
    for what, holds, seen in findings.checks:
        table.add_row(what, "yes" if holds else "NO", seen)
    console.print(table)
    (directory / "summary.json").write_text(
        json.dumps(
            {
                "passed": findings.passed,
                "checks": [{"check": w, "holds": h, "seen": s} for w, h, s in findings.checks],
                "carried_by": {"engine": findings.carrier.engine, "reason": findings.carrier.reason},
                "tcp_mbit_per_s": round(transfer.mbit_per_s, 1),
                "udp": {"sent": flow.sent, "missing": flow.missing, "duplicates": flow.duplicates},
            },
            indent=2,
        )
        + "\n"
    )
    console.print(
        f"results in {directory}:\n"
        "  wire.pcap     everything between the gateways\n"
        "  keys/         ikev2_decryption_table and esp_sa, as a Wireshark configuration (secret!)\n"
        "  ladder.svg    the exchanges as a picture\n"
        "  summary.json  the table above\n"
        f"look inside: ipsecgw inspect {directory}/wire.pcap --keys {directory}/keys\n"
        f"         or: WIRESHARK_CONFIG_DIR={directory}/keys wireshark {directory}/wire.pcap"
    )
    console.print(
        "[bold green]the demo passed[/]" if findings.passed else "[bold red]the demo FAILED[/]",
    )
    sys.stdout.flush()
