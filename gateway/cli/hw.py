"""`ipsecgw hw`: what this machine can offload, with the evidence, and what to do about what it cannot."""

import argparse
import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from enum import Enum

from gateway.app.places import find_places
from gateway.cli.tables import table
from gateway.datapath.engine.probe import probe_engine
from gateway.hardware.advice import Advice, advise
from gateway.hardware.facts import Answer, Fact, MachineFacts, NicFacts, find_fact
from gateway.hardware.machine import probe_machine
from gateway.hardware.profiles import Profile, find_profile, load_profiles

#: Columns of the NICs' matrix: head, and the fact below it.
_COLUMNS = (
    ("esp", "esp-hw-offload"),
    ("esp csum", "esp-tx-csum-hw-offload"),
    ("esp gso", "tx-esp-segmentation"),
    ("queues", "several receive queues"),
    ("rss esp4", "RSS of esp4"),
    ("rss esp6", "RSS of esp6"),
    ("xdp", "XDP in the driver"),
    ("zero-copy", "AF_XDP zero-copy"),
    ("xdp program", "XDP program attached"),
    ("eswitch", "devlink eswitch"),
    ("sr-iov", "SR-IOV"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `ipsecgw hw`."""
    parser.add_argument("--json", action="store_true", help="everything, with the evidence of every answer")
    parser.add_argument(
        "--evidence", action="store_true", help="show where each answer about a NIC is from, too"
    )
    parser.add_argument(
        "--datapath",
        metavar="ADDRESS",
        help="the agent that is asked how its packets come and go (default: $IPSECGW_DATAPATH)",
    )


def run(options: argparse.Namespace) -> int:
    """Probe this machine and print; always 0: that something is missing is no failure."""
    profiles = load_profiles()
    machine = probe_machine(profiles)
    advice = advise(machine, profiles)
    engine = (*probe_engine(), *_ask_agent(options.datapath))
    if options.json:
        print(json.dumps(to_plain(machine, profiles, advice, engine), indent=2))
        return 0
    for line in report(machine, profiles, advice, engine, evidence=options.evidence):
        print(line)
    return 0


def _ask_agent(datapath: str | None) -> tuple[Fact, ...]:
    # The client takes as long to load as all else here.
    from gateway.cli.hw_agent import ask_agent  # noqa: PLC0415 - see above

    return ask_agent(find_places(os.environ, datapath=datapath).datapath)


def to_plain(
    machine: MachineFacts,
    profiles: tuple[Profile, ...],
    advice: Iterable[Advice],
    engine: Iterable[Fact] = (),
) -> dict[str, object]:
    """Return the facts, the profiles of the drivers found here and the advice, as JSON has them."""
    drivers = {nic.driver for nic in machine.nics}
    found = [profile for profile in profiles if drivers & {profile.driver, *profile.names}]
    record = {
        "machine": asdict(machine),
        "engine": [asdict(fact) for fact in engine],
        "profiles": [asdict(profile) for profile in found],
        "advice": [asdict(entry) for entry in advice],
    }
    plain: dict[str, object] = json.loads(json.dumps(record, default=_enum))
    return plain


def _enum(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def report(
    machine: MachineFacts,
    profiles: tuple[Profile, ...],
    advice: Iterable[Advice],
    engine: Iterable[Fact] = (),
    *,
    evidence: bool,
) -> list[str]:
    """Return everything as lines for a terminal; with `evidence`, that of the NICs too."""
    cpu, kernel = machine.cpu, machine.kernel
    model = " ".join(filter(None, (cpu.model, cpu.architecture)))
    vendor = f" ({kernel.vendor})" if kernel.vendor else ""
    return [
        f"CPU: {model or 'could not tell'}, {cpu.processors} processors",
        *_fact_table(cpu.features),
        "",
        f"Kernel: Linux {kernel.release}{vendor}",
        *_fact_table((*kernel.xfrm, *_others(kernel.options, kernel.xfrm))),
        "",
        "Kernel crypto",
        *_crypto_table(machine),
        "",
        "BPF and XDP",
        *_fact_table(kernel.bpf),
        "",
        "NICs",
        *_nic_table(machine.nics, profiles),
        *(_nic_evidence(machine.nics) if evidence else _nic_doubts(machine.nics)),
        "",
        "Crypto devices",
        *table(
            ("bus", "pci id", "name", "driver", "evidence"),
            (
                (device.bus, device.pci_id, device.name, device.driver.value or "-", device.driver.evidence)
                for device in machine.accelerators
            ),
            empty=_no_devices(machine),
        ),
        "",
        "Native engine (--backend engine): how packets come and go, and who computes what",
        *_fact_table(engine),
        "",
        "Advice",
        *_advice_lines(advice),
        "",
        "Where the SAs of this gateway are, and why not elsewhere, `ipsecgw explain` says.",
    ]


def _no_devices(machine: MachineFacts) -> str:
    """Return why there is no crypto device: none was found, or PCI could not be looked at."""
    blind = [what for what in machine.unseen if what.startswith("/sys/bus/pci")]
    return f"could not tell: {blind[0]}" if blind else "no QAT device found"


def _others(facts: Iterable[Fact], shown: Iterable[Fact]) -> list[Fact]:
    """Return the facts whose evidence is not shown yet."""
    seen = {fact.evidence for fact in shown}
    return [fact for fact in facts if fact.evidence not in seen]


def _fact_table(facts: Iterable[Fact]) -> list[str]:
    return table(
        ("what", "answer", "value", "evidence"),
        ((fact.name, fact.answer.value, fact.value or "-", fact.evidence) for fact in facts),
        empty="nothing asked",
    )


def _crypto_table(machine: MachineFacts) -> list[str]:
    return table(
        ("algorithm", "kernel name", "there", "driver", "priority", "accelerated", "evidence"),
        (
            (
                *(entry.use, entry.name, entry.available.answer.value, entry.driver or "-"),
                *("-" if entry.priority is None else entry.priority, entry.accelerated.answer.value),
                f"{entry.available.evidence}; {entry.accelerated.evidence}",
            )
            for entry in machine.kernel.crypto
        ),
        empty="nothing asked",
    )


def _nic_table(nics: Iterable[NicFacts], profiles: tuple[Profile, ...]) -> list[str]:
    return table(
        (
            *("nic", "driver", "firmware", "bus", "pci id", "numa", *(head for head, _ in _COLUMNS)),
            "driver can offload",
        ),
        (
            (
                *(nic.name, nic.driver or "-", nic.firmware or "-", nic.bus or "-", nic.pci_id or "-"),
                "-" if nic.numa_node is None else nic.numa_node,
                *(_cell(nic, name) for _, name in _COLUMNS),
                _kinds(find_profile(profiles, nic.driver)),
            )
            for nic in nics
        ),
        empty="no network interface seen",
    )


def _cell(nic: NicFacts, name: str) -> str:
    if not any(fact.name == name for fact in nic.facts):
        return "-"
    fact = find_fact(nic.facts, name)
    if fact.answer is Answer.UNKNOWN:
        return "?"
    # Fields and modes are long: the matrix has room for a count or a word.
    return fact.value if fact.value and len(fact.value) <= 12 else fact.answer.value


def _kinds(profile: Profile | None) -> str:
    if profile is None:
        return "no profile"
    kinds = (("crypto", profile.crypto), ("packet", profile.packet))
    return ", ".join(name for name, offload in kinds if offload is not None)


def _nic_evidence(nics: Iterable[NicFacts]) -> list[str]:
    lines = []
    for nic in nics:
        lines += ["", f"{nic.name}:", *_fact_table(nic.facts)]
    return lines


def _nic_doubts(nics: Iterable[NicFacts]) -> list[str]:
    """Return why the matrix has question marks: once for each reason, with the interfaces it is of."""
    doubts: dict[str, dict[str, None]] = {}
    shown = {name for _, name in _COLUMNS}
    for nic in nics:
        for fact in nic.facts:
            if fact.answer is Answer.UNKNOWN and fact.name in shown:
                doubts.setdefault(fact.evidence, {})[nic.name] = None
    return [f"? {', '.join(names)}: {evidence}" for evidence, names in doubts.items()]


def _advice_lines(advice: Iterable[Advice]) -> list[str]:
    lines = []
    for entry in advice:
        lines.append(f"{entry.topic:<10} {entry.text}")
        if entry.remedy:
            lines.append(f"{'':<10} -> {entry.remedy}")
    return lines or ["nothing to say"]
