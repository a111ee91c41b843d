"""The findings of a whole capture: as lines for a human, and as the JSON object scripts read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from gateway.ike.wire.header import MAJOR_VERSION
from gateway.inspect.capture import CaptureCut, read_capture
from gateway.inspect.describe import Description, format_description
from gateway.inspect.errors import InspectError
from gateway.inspect.esp import EspFindings, EspInspector, describe_ah
from gateway.inspect.ike import IkeFindings, IkeInspector
from gateway.inspect.keys import KeyTables
from gateway.inspect.ledger import Checked, Verdict
from gateway.inspect.packet import SUPPORTED_LINK_TYPES, Finder, Found, Kind
from gateway.inspect.secrets import SecretLog
from gateway.inspect.verification import Verifier


@dataclass(slots=True)
class IkeCounts:
    """IKE messages, by what became of them."""

    messages: int = 0
    protected: int = 0
    decrypted: int = 0
    verified: int = 0


@dataclass(slots=True)
class EspCounts:
    """ESP packets, by what became of them."""

    packets: int = 0
    decrypted: int = 0
    verified: int = 0


@dataclass(slots=True)
class Totals:
    """The summary of a capture."""

    ike: IkeCounts = field(default_factory=IkeCounts)
    esp: EspCounts = field(default_factory=EspCounts)
    ah_packets: int = 0
    keepalives: int = 0
    frames: int = 0
    problems: list[str] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)
    """What is worth knowing and no failure, with how often."""
    has_failed: bool = False
    """Something that there was a key for did not decrypt or verify, or makes no sense inside."""
    checked: list[Checked] | None = None
    """What became of each value that secrets were given for; None without any."""

    def count(self, verdict: Verdict) -> int:
        """Return how many values were found so."""
        return sum(one.verdict is verdict for one in self.checked or ())


@dataclass(frozen=True, slots=True)
class Entry:
    """One message or packet: as JSON and as lines."""

    json: Description
    lines: list[str]


class Inspection:
    """One pass over one capture. Iterate over `entries()` once, then read `totals`."""

    def __init__(self, capture: Path, keys: KeyTables, secrets: Sequence[SecretLog] = ()) -> None:
        self.totals = Totals()
        self._capture = capture
        self._verifier = Verifier(secrets, keys) if secrets else None
        self._ike = IkeInspector(keys.ike, self._verifier)
        self._esp = EspInspector(keys.esp)

    def entries(self) -> Iterator[Entry]:
        """Yield what of ours is in the capture, in its order.

        Raises:
            InspectError: The capture cannot be used.
        """
        finder = Finder()
        link_types: set[int] = set()
        is_cut = False
        try:
            for frame in read_capture(self._capture):
                self.totals.frames += 1
                link_types.add(frame.link_type)
                found = finder.find(frame)
                if found is not None:
                    yield from self._entry(found)
        except CaptureCut as error:
            # What a killed capture program leaves; everything before the cut counts.
            self.totals.problems.append(str(error))
            is_cut = True
        if link_types and not link_types & SUPPORTED_LINK_TYPES:
            unknown = ", ".join(str(link_type) for link_type in sorted(link_types))
            raise InspectError(f"{self._capture}: link type {unknown} is not one we can read")
        if self._verifier is not None:
            self.totals.checked = self._verifier.finish(is_cut=is_cut)
            self.totals.has_failed = self.totals.has_failed or self.totals.count(Verdict.DIFFERS) > 0

    def _entry(self, found: Found) -> Iterator[Entry]:
        if found.kind is Kind.IKE:
            yield self._ike_entry(found)
        elif found.kind is Kind.ESP:
            yield self._esp_entry(found)
        elif found.kind is Kind.AH:
            self.totals.ah_packets += 1
            text = describe_ah(found)
            yield Entry(_json_head(found) | {"summary": text}, [f"{_head(found)}  {text}"])
        else:
            self.totals.keepalives += 1

    def _ike_entry(self, found: Found) -> Entry:
        findings = self._ike.inspect(found.data)
        counts = self.totals.ike
        counts.messages += 1
        counts.protected += findings.is_protected
        counts.decrypted += findings.is_decrypted
        counts.verified += findings.is_verified
        self._remember(found, findings.problem, findings.note, has_failed=findings.has_failed)
        return Entry(_ike_json(found, findings), _ike_lines(found, findings))

    def _esp_entry(self, found: Found) -> Entry:
        findings = self._esp.inspect(found)
        counts = self.totals.esp
        counts.packets += 1
        counts.decrypted += findings.is_decrypted
        counts.verified += findings.is_verified
        self._remember(found, findings.problem, findings.note, has_failed=findings.has_failed)
        return Entry(_esp_json(found, findings), _esp_lines(found, findings))

    def _remember(self, found: Found, problem: str, note: str, *, has_failed: bool) -> None:
        self.totals.has_failed = self.totals.has_failed or has_failed
        if note:
            name = f"{found.kind.value.upper()}: {note}"
            self.totals.notes[name] = self.totals.notes.get(name, 0) + 1
        if problem:
            cut = " (the capture cut this packet short)" if found.is_cut else ""
            self.totals.problems.append(f"frame {found.frame}: {found.kind.value.upper()} {problem}{cut}")


def totals_json(totals: Totals, entries: list[Description]) -> Description:
    """Return the whole report as one object."""
    report: Description = {
        "ike": {
            "messages": totals.ike.messages,
            "protected": totals.ike.protected,
            "decrypted": totals.ike.decrypted,
            "verified": totals.ike.verified,
        },
        "esp": {
            "packets": totals.esp.packets,
            "decrypted": totals.esp.decrypted,
            "verified": totals.esp.verified,
        },
        "problems": list(totals.problems),
        "messages": entries,
    }
    if totals.checked is not None:
        report["secrets"] = {
            "verified": totals.count(Verdict.OK),
            "failed": totals.count(Verdict.DIFFERS),
            "not_verified": totals.count(Verdict.NOT_VERIFIED),
            "values": [
                {"of": one.subject, "value": one.value, "result": one.verdict.value, "detail": one.detail}
                for one in totals.checked
            ],
        }
    return report


def summary_lines(totals: Totals) -> list[str]:
    """Return the end of the human's report."""
    ike, esp = totals.ike, totals.esp
    lines = [
        f"{totals.frames} frames",
        f"IKE: {ike.messages} messages, {ike.protected} protected, "
        f"{ike.decrypted} decrypted, {ike.verified} verified",
        f"ESP: {esp.packets} packets, {esp.decrypted} decrypted, {esp.verified} verified",
    ]
    if totals.ah_packets:
        lines.append(f"AH: {totals.ah_packets} packets, not checked")
    if totals.keepalives:
        lines.append(f"NAT keepalives: {totals.keepalives}")
    lines += [f"note: {note} ({count} x)" for note, count in totals.notes.items()]
    lines += [f"problem: {problem}" for problem in totals.problems]
    return lines if totals.checked is None else [*lines, "", *_checked_lines(totals, totals.checked)]


def _checked_lines(totals: Totals, checked: list[Checked]) -> list[str]:
    """Return the table of what secrets were given for."""
    lines = [
        f"secrets: {totals.count(Verdict.OK)} values verified, {totals.count(Verdict.DIFFERS)} differ, "
        f"{totals.count(Verdict.NOT_VERIFIED)} not verified"
    ]
    width = max((len(one.value) for one in checked), default=0)
    subject = ""
    for one in checked:
        if one.subject != subject:
            subject = one.subject
            lines.append(subject)
        detail = f": {one.detail}" if one.detail else ""
        lines.append(f"  {one.value.ljust(width)}  {one.verdict.value}{detail}")
    return lines


# --- heads --------------------------------------------------------------------------------------


def _time(time_ns: int) -> str:
    seconds, rest = divmod(time_ns, 1_000_000_000)
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        # A damaged capture may claim a time beyond the year 9999.
        return f"{seconds}.{rest // 1000:06d}s"
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest // 1000:06d}Z"


def _addresses(found: Found) -> tuple[str, str]:
    if not found.source_port and not found.destination_port:
        return str(found.source), str(found.destination)
    bracket = "[{}]:{}" if found.source.version == 6 else "{}:{}"
    return (
        bracket.format(found.source, found.source_port),
        bracket.format(found.destination, found.destination_port),
    )


def _head(found: Found) -> str:
    source, destination = _addresses(found)
    return f"#{found.frame} {_time(found.time_ns)} {source} > {destination}"


def _json_head(found: Found) -> Description:
    source, destination = _addresses(found)
    return {
        "protocol": found.kind.value,
        "frame": found.frame,
        "time": _time(found.time_ns),
        "source": source,
        "destination": destination,
    }


# --- IKE ----------------------------------------------------------------------------------------


def _ike_json(found: Found, findings: IkeFindings) -> Description:
    entry = _json_head(found)
    header = findings.header
    if header is not None:
        entry |= {
            "version": f"{header.major_version}.{header.minor_version}",
            "spi_i": header.spi_i.hex(),
            "spi_r": header.spi_r.hex(),
            "exchange": findings.exchange,
            "flags": findings.flags,
            "message_id": header.message_id,
            "length": header.length,
        }
    entry |= {
        "protected": findings.is_protected,
        "decrypted": findings.is_decrypted,
        "verified": findings.is_verified,
        "payloads": findings.payloads,
        "encrypted_payloads": findings.inner,
    }
    if findings.fragment is not None:
        entry["fragment"] = {"number": findings.fragment[0], "total": findings.fragment[1]}
    return _with_remarks(entry, findings.note, findings.problem)


def _ike_lines(found: Found, findings: IkeFindings) -> list[str]:
    header = findings.header
    if header is None:
        return [f"{_head(found)}  IKE", f"  problem: {findings.problem}"]
    version = f"IKEv{header.major_version}"
    flags = f" [{' '.join(findings.flags)}]" if findings.flags else ""
    if header.major_version == MAJOR_VERSION:
        flags = f" {'request' if header.is_request else 'response'}{flags}"
    lines = [
        f"{_head(found)}  {version} {findings.exchange}{flags} ID {header.message_id}, {header.length} bytes",
        f"  SPIi {header.spi_i.hex()} SPIr {header.spi_r.hex()}",
    ]
    lines += _payload_lines(findings.payloads, "  ")
    if findings.is_protected:
        state = _state(is_decrypted=findings.is_decrypted, is_verified=findings.is_verified)
        name = "SK" if findings.fragment is None else "SKF fragment {} of {}".format(*findings.fragment)
        lines.append(f"  {name if header.major_version == MAJOR_VERSION else 'encrypted'}: {state}")
        lines += _payload_lines(findings.inner, "    ")
    return lines + _remark_lines(findings.note, findings.problem)


def _payload_lines(payloads: list[Description], indent: str) -> list[str]:
    return [indent + line for payload in payloads for line in format_description(payload)]


def _state(*, is_decrypted: bool, is_verified: bool) -> str:
    if is_decrypted:
        return "decrypted, verified" if is_verified else "decrypted, NOT verified"
    return "not decrypted"


def _with_remarks(entry: Description, note: str, problem: str) -> Description:
    if note:
        entry["note"] = note
    if problem:
        entry["problem"] = problem
    return entry


def _remark_lines(note: str, problem: str) -> list[str]:
    return ([f"  note: {note}"] if note else []) + ([f"  problem: {problem}"] if problem else [])


# --- ESP ----------------------------------------------------------------------------------------


def _esp_json(found: Found, findings: EspFindings) -> Description:
    entry = _json_head(found) | {
        "encapsulation": "udp" if found.source_port else "none",
        "spi": f"{findings.spi:08x}",
        "sequence": findings.sequence,
        "length": len(found.data),
        "decrypted": findings.is_decrypted,
        "verified": findings.is_verified,
    }
    if findings.is_decrypted:
        entry |= {
            "esn": findings.is_esn,
            "next_header": findings.next_header,
            "pad_bytes": findings.pad_bytes,
            "inner": findings.inner,
        }
    return _with_remarks(entry, findings.note, findings.problem)


def _esp_lines(found: Found, findings: EspFindings) -> list[str]:
    state = _state(is_decrypted=findings.is_decrypted, is_verified=findings.is_verified)
    packet = f"ESP SPI {findings.spi:08x} seq {findings.sequence}, {len(found.data)} bytes"
    lines = [f"{_head(found)}  {packet}: {state}"]
    if findings.is_decrypted:
        esn = " (ESN)" if findings.is_esn else ""
        lines.append(f"  {findings.inner}, padding {findings.pad_bytes}{esn}")
    return lines + _remark_lines(findings.note, findings.problem)
