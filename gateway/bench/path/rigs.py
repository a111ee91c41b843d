"""Benchmark set-ups with NICs that offload: read `hw/rigs`, see which steps of a rig hold, and do the others.

The records are the schema of the TOML files. Nothing is changed but by `prepare`.
"""

import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from gateway.bench.path.plan import PLACEMENTS
from gateway.hardware.facts import Answer, MachineFacts, NicFacts
from gateway.hardware.toml_records import read_list, read_record
from gateway.ipsec.errors import GatewayError

PLACES: Final = ("lan", "outer", "outer_bus")
"""What commands may name in braces."""
_COMMAND_S: Final = 30.0


class RigError(GatewayError):
    """A file is no rig, or this machine is not one; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that must be so."""

    why: str
    check: str
    """A command that tells."""
    wanted: str
    """A regular expression that is found in what it prints, where the step holds."""
    command: str
    """What makes it so; empty where only a person can."""
    manual: str
    """What that person is told."""
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rig:
    """One kind of NIC, ready to be measured."""

    name: str
    title: str
    drivers: tuple[str, ...]
    """Of the gateway's outer interface, any of them."""
    profile: str
    """The driver in `hw/profiles`."""
    placements: tuple[str, ...]
    """What is measured unless something else is asked for."""
    key_bits: int
    wiring: str
    limits: tuple[str, ...]
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Whether one step holds."""

    what: str
    answer: Answer
    evidence: str
    remedy: str
    """The command, or what a person has to do."""
    command: tuple[str, ...] = ()
    """Empty where no command helps."""


def load_rigs(folder: Traversable | None = None) -> tuple[Rig, ...]:
    """Return every rig of a folder, or of this installation, by name.

    Raises:
        RigError: A file is no rig.
    """
    place = folder or _installed()
    names = sorted(entry.name for entry in place.iterdir() if entry.name.endswith(".toml"))
    return tuple(parse_rig((place / name).read_text("utf-8"), name) for name in names)


def _installed() -> Traversable:
    """Return the folder with the rigs: in a wheel, or in `hw` of a checkout."""
    packaged = files("gateway.bench") / "rig_data"
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / "hw" / "rigs"


def parse_rig(text: str, name: str) -> Rig:
    """Return the rig in a TOML text; `name` is of its file, for messages.

    Raises:
        RigError: It is not TOML, or no rig.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RigError(f"{name}: {error}") from error
    content["steps"] = tuple(
        _step(entry, f"{name}: steps") for entry in read_list(content, "steps", dict, name, RigError)
    )
    rig: Rig = read_record(Rig, content, name, RigError)
    strange = [placement for placement in rig.placements if placement not in PLACEMENTS]
    if strange:
        raise RigError(f"{name}: placements: expected {', '.join(PLACEMENTS)}, not {', '.join(strange)}")
    return rig


def _step(entry: dict[str, object], place: str) -> Step:
    step: Step = read_record(Step, entry, place, RigError)
    if bool(step.command) == bool(step.manual):
        raise RigError(f"{place}: {step.why}: expected a command, or what a person does, and not both")
    try:
        re.compile(step.wanted)
        for command in (step.check, step.command):
            command.format(**dict.fromkeys(PLACES, ""))
    except (re.error, KeyError, IndexError, ValueError) as error:
        raise RigError(f"{place}: {step.why}: {error}") from error
    return step


def find_outer(rig: Rig, machine: MachineFacts, name: str | None) -> NicFacts:
    """Return the interface that a rig is about: the one that was named, else the first with its driver.

    Raises:
        RigError: There is none.
    """
    fitting = [nic for nic in machine.nics if nic.driver in rig.drivers]
    for nic in fitting:
        if name in (None, nic.name):
            return nic
    present = ", ".join(f"{nic.name} ({nic.driver or 'no driver'})" for nic in machine.nics) or "none"
    wanted = " or ".join(rig.drivers)
    if name is not None:
        raise RigError(
            f"{name} is no interface of rig {rig.name}, whose driver is {wanted}; here are {present}"
        )
    raise RigError(f"rig {rig.name} needs a NIC with driver {wanted}, and this machine has none: {present}")


def kernel_findings(options: Iterable[str], machine: MachineFacts) -> list[Finding]:
    """Say of each build option, named without `CONFIG_`, whether the kernel has it."""
    known = {fact.name: fact for fact in machine.kernel.options}
    found = []
    for option in options:
        fact = known.get(f"CONFIG_{option}")
        found.append(
            Finding(
                what=f"the kernel is built with CONFIG_{option}",
                answer=Answer.UNKNOWN if fact is None else fact.answer,
                evidence="not asked for" if fact is None else fact.evidence,
                remedy="boot a kernel that is",
            )
        )
    return found


def step_findings(rig: Rig, places: dict[str, str]) -> list[Finding]:
    """Look whether each step holds; changes nothing.

    Args:
        rig: Whose steps.
        places: What `PLACES` stand for.
    """
    return [_look(step, places) for step in rig.steps]


def describe_steps(rig: Rig) -> list[Finding]:
    """Return the steps of a rig that is not here: nothing is looked at."""
    names = {place: place.upper() for place in PLACES}
    return [
        Finding(
            what=step.why,
            answer=Answer.UNKNOWN,
            evidence="the NIC is not here",
            remedy=step.command.format(**names) or step.manual,
        )
        for step in rig.steps
    ]


def prepare(findings: Sequence[Finding]) -> None:
    """Do what does not hold, in order.

    Raises:
        RigError: A command failed, or only a person can do it; what was done before stays done.
    """
    for finding in findings:
        if finding.answer is Answer.YES:
            continue
        if not finding.command:
            raise RigError(f"{finding.what}: {finding.answer.value} ({finding.evidence}); {finding.remedy}")
        done = _run(finding.command)
        if done.returncode != 0:
            words = done.stderr.strip() or done.stdout.strip() or f"status {done.returncode}"
            raise RigError(f"{shlex.join(finding.command)}: {words}")


def _look(step: Step, places: dict[str, str]) -> Finding:
    check, command = (_words(text, places) for text in (step.check, step.command))
    try:
        done = _run(check)
    except RigError as error:
        answer, evidence = Answer.UNKNOWN, str(error)
    else:
        printed = done.stdout + done.stderr
        holds = re.search(step.wanted, printed, re.MULTILINE)
        answer = Answer.YES if holds else Answer.NO if done.returncode == 0 else Answer.UNKNOWN
        first = next(iter(printed.strip().splitlines()), "")
        evidence = holds[0].strip() if holds else first if done.returncode else f"not in {step.check}"
    return Finding(
        what=step.why,
        answer=answer,
        evidence=evidence or "nothing is printed",
        remedy=shlex.join(command) if command else step.manual,
        command=command,
    )


def _words(command: str, places: dict[str, str]) -> tuple[str, ...]:
    return tuple(word.format(**places) for word in shlex.split(command))


def _run(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=_COMMAND_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RigError(f"{shlex.join(command)}: {error}") from error
