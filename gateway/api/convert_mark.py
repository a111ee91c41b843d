"""Packet marks and SAs for CPUs as they are written: from records to text, and from untrusted text."""

from gateway.api.control.v1 import connection_pb2 as cpb
from gateway.api.violations import Violations, at
from gateway.ipsec.errors import VocabularyError
from gateway.ipsec.mark import Mark, Marks
from gateway.ipsec.policy import Action

MAX_CPUS = 1024
"""More no Child gets SAs for."""
_AUTO = "auto"
_OFF = "off"


def write_mark(mark: Mark | None) -> str:
    """Return a mark as text; empty for none."""
    return "" if mark is None else str(mark)


def read_mark(text: str, path: str, violations: Violations) -> Mark | None:
    """Return the mark in a text; `None` where it is empty."""
    if not text:
        return None
    try:
        return Mark.parse(text)
    except VocabularyError as error:
        violations.add(path, str(error))
        return None


def read_marks(message: cpb.Child, action: Action, path: str, violations: Violations) -> Marks:
    """Return what marks have to do with a Child."""
    for name in _MARK_FIELDS:
        if action is not Action.PROTECT and getattr(message, name):
            violations.add(at(path, name), f"is for action protect, not {action.value}; leave it out")
    if message.mark_in_sa and not message.mark_in:
        violations.add(at(path, "mark_in_sa"), "is about mark_in, which is not given")
    return Marks(
        inbound=read_mark(message.mark_in, at(path, "mark_in"), violations),
        outbound=read_mark(message.mark_out, at(path, "mark_out"), violations),
        set_inbound=read_mark(message.set_mark_in, at(path, "set_mark_in"), violations),
        set_outbound=read_mark(message.set_mark_out, at(path, "set_mark_out"), violations),
        on_inbound_sa=message.mark_in_sa,
    )


_MARK_FIELDS = ("mark_in", "mark_out", "mark_in_sa", "set_mark_in", "set_mark_out")


def read_per_cpu_sas(message: cpb.Child, action: Action, path: str, violations: Violations) -> int | None:
    """Return for how many CPUs a Child may have SAs; `None`: for all."""
    text = message.per_cpu_sas
    if text in ("", _OFF):
        return 0
    if action is not Action.PROTECT:
        violations.add(path, f"is for action protect, not {action.value}; leave it out")
    if text == _AUTO:
        return None
    if not text.isdecimal() or not 1 <= int(text) <= MAX_CPUS:
        violations.add(path, f"{text!r} is neither {_AUTO}, {_OFF} nor a number of CPUs from 1 to {MAX_CPUS}")
        return 0
    return int(text)


def write_per_cpu_sas(count: int | None) -> str:
    """Return for how many CPUs a Child may have SAs, as it is written."""
    if count is None:
        return _AUTO
    return str(count) if count else ""
