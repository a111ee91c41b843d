"""`ipsecgw doctor`: what is wrong with this machine, with the evidence and the fix."""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from gateway.api.config_file import load_config
from gateway.api.convert_authentication import configured_certificates
from gateway.hardware.advice import advise
from gateway.hardware.doctor import CertificateReading, Finding, Severity, examine
from gateway.hardware.doctor_readings import take_readings
from gateway.hardware.machine import probe_machine
from gateway.hardware.profiles import load_profiles
from gateway.ipsec.connection import Connection

_MARKS: Final = {
    Severity.PROBLEM: "✗",
    Severity.WARNING: "!",
    Severity.UNKNOWN: "?",
    Severity.ADVICE: "·",
    Severity.OK: "✓",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `ipsecgw doctor`."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="look at the certificates of this configuration too"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Examine and print; 1 where something will not work until it is mended."""
    certificates: tuple[CertificateReading, ...] = ()
    if options.config is not None:
        loaded = load_config(options.config)
        certificates = tuple(
            reading for wanted in loaded.connections for reading in certificates_of(wanted.connection)
        )
    profiles = load_profiles()
    findings = examine(take_readings(certificates, advise(probe_machine(profiles), profiles)))
    if options.json:
        print(json.dumps({"findings": [to_plain(finding) for finding in findings]}, indent=2))
    else:
        sys.stdout.writelines(f"{line}\n" for line in report(findings))
    return 1 if any(finding.severity is Severity.PROBLEM for finding in findings) else 0


def certificates_of(connection: Connection) -> Iterator[CertificateReading]:
    """Yield how long the certificates of a connection are valid: ours, and those of its authorities."""
    for where, certificate in configured_certificates(connection, connection.name):
        yield CertificateReading(
            where=where,
            name=str(certificate),
            not_before=certificate.not_before,
            not_after=certificate.not_after,
        )


def to_plain(finding: Finding) -> dict[str, str]:
    """Return a finding as JSON has it."""
    return {**asdict(finding), "severity": finding.severity.value}


def report(findings: Sequence[Finding]) -> Iterable[str]:
    """Return the findings as lines for a terminal, and how many there are of each kind."""
    for finding in findings:
        yield f"{_MARKS[finding.severity]} {finding.check}: {finding.text}"
        if finding.severity is not Severity.OK:
            yield f"    seen in: {finding.evidence}"
        if finding.fix:
            yield f"    fix: {finding.fix}"
    counts = {severity: sum(finding.severity is severity for finding in findings) for severity in Severity}
    yield ", ".join(f"{severity.value}: {count}" for severity, count in counts.items() if count)
