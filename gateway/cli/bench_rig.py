"""`ipsecgw bench path --rig NAME`: show what a rig needs and what of it holds; do the rest where wanted."""

import argparse
from collections.abc import Sequence

from rich.table import Table

from gateway.bench.path.rigs import (
    Finding,
    Rig,
    RigError,
    describe_steps,
    find_outer,
    kernel_findings,
    load_rigs,
    prepare,
    step_findings,
)
from gateway.cli.bench_output import wide_console
from gateway.hardware.facts import Answer, MachineFacts
from gateway.hardware.machine import probe_machine
from gateway.hardware.profiles import find_profile, load_profiles


def add_rig_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that are about rigs."""
    names = [rig.name for rig in load_rigs()]
    parser.add_argument(
        "--rig",
        choices=names,
        metavar="NAME",
        help="show how this kind of NIC is made ready, and what of it holds, and change nothing; one of "
        f"{', '.join(names)}",
    )
    parser.add_argument(
        "--prepare", action="store_true", help="do the steps of --rig that do not hold, and measure then"
    )


def check_rig(name: str, *, lan: str | None, outer: str | None, may_change: bool) -> tuple[Rig, bool]:
    """Print a rig and what of it holds; return it, and whether all of it does.

    Args:
        name: Of the rig.
        lan: The gateway's interfaces; `None` for `outer` looks for one.
        outer: The same.
        may_change: Do what does not hold, and look again.

    Raises:
        RigError: Such a NIC is not here, or a step failed.
    """
    rig = next(rig for rig in load_rigs() if rig.name == name)
    profiles = load_profiles()
    profile = find_profile(profiles, rig.profile)
    options = () if profile is None else profile.kconfig
    machine = probe_machine(profiles)
    try:
        nic = find_outer(rig, machine, outer)
    except RigError:
        _show(rig, [*kernel_findings(options, machine), *describe_steps(rig)])
        raise
    places = {"lan": lan or "LAN", "outer": nic.name, "outer_bus": nic.bus}
    findings = _look(rig, options, machine, places)
    _show(rig, findings)
    if may_change:
        # A build option that could not be told is no reason to stop: the steps tell more.
        prepare([item for item in findings if item.command or item.answer is Answer.NO])
        findings = _look(rig, options, machine, places)
        _show(rig, findings)
    return rig, all(finding.answer is Answer.YES for finding in findings)


def _look(rig: Rig, options: Sequence[str], machine: MachineFacts, places: dict[str, str]) -> list[Finding]:
    return [*kernel_findings(options, machine), *step_findings(rig, places)]


def _show(rig: Rig, findings: Sequence[Finding]) -> None:
    console = wide_console()
    console.print(f"rig {rig.name}: {rig.title}", markup=False)
    for line in (rig.wiring, *rig.limits):
        console.print(line, markup=False)
    table = Table(title="what it needs", title_justify="left")
    for column in ("needed", "holds", "seen", "otherwise"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        remedy = "" if finding.answer is Answer.YES else finding.remedy
        table.add_row(finding.what, finding.answer.value, finding.evidence, remedy)
    console.print(table)
