"""Marks of packets, and SAs for each CPU, as swanctl.conf says them."""

from functools import partial

from gateway.config.foreign import carry
from gateway.config.foreign.draft import Plain
from gateway.config.foreign.statement import NO, YES, Statements
from gateway.ipsec.errors import VocabularyError
from gateway.ipsec.mark import Mark


def marks(said: Statements) -> dict[str, Plain]:
    """Return the marks of a child; left out where one cannot be carried, or it would take other traffic."""
    found: dict[str, Plain] = {}
    for way in ("in", "out"):
        compared = carry.read(said, f"mark_{way}", _mark, or_leave_out=True) or None
        given = carry.read(said, f"set_mark_{way}", partial(_mark, same=compared), or_leave_out=True) or None
        found |= {f"mark_{way}": compared, f"set_mark_{way}": given}
    if found["mark_in"] and said.flag("mark_in_sa"):
        found["mark_in_sa"] = True
    return found


def _mark(text: str, same: str | None = None) -> str:
    """Return a mark as we write it; empty for that of no packet in particular.

    Args:
        text: As it was written.
        same: What `%same` stands for, whatever its mask.
    """
    if same is not None and text.startswith("%same"):
        text = same.partition("/")[0] + text.removeprefix("%same")
    if text.startswith("%"):
        raise ValueError(f"'{text}' is chosen by that daemon; write a number that your rules know")
    try:
        mark = Mark.parse(text)
    except VocabularyError as error:
        raise ValueError(str(error)) from None
    return str(mark) if mark.value else ""


def per_cpu_sas(said: Statements) -> str | None:
    """Return for how many CPUs a child has SAs."""
    setting = said.take("per_cpu_sas")
    if setting is None or setting.value.lower() in NO:
        return None
    if setting.value.lower() == "encap":
        said.lose(setting, "is carried as auto: all SAs have the same UDP ports here")
    elif setting.value.lower() not in YES:
        said.lose(setting, f"'{setting.value}' is neither yes, no nor encap")
        return None
    return "auto"
