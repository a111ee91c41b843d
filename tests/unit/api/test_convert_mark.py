"""Marks, and SAs for CPUs, in a configuration: what is read, what is written, and what is refused."""

from typing import Any

import pytest

from gateway.api.convert_connection import read_connection, write_connection
from gateway.api.violations import Violations
from gateway.ipsec.mark import Mark, Marks
from tests.unit.api.test_convert_interface import connection, read


def child_of(**child: Any) -> Any:
    message = connection({}, **child)
    message.children[0].ClearField("interface")
    message.children[0].local_ts.append("10.1.0.0/16")
    message.children[0].remote_ts.append("10.2.0.0/16")
    return message


def test_marks_are_read_and_written_alike() -> None:
    message = child_of(
        mark_in="0x1/0xff",
        mark_out="0x2a",
        set_mark_in="0x1/0xff",
        set_mark_out="0x7",
        mark_in_sa=True,
        per_cpu_sas="auto",
    )

    child, wrong = read(message)

    assert wrong == []
    assert child is not None
    assert child.marks == Marks(
        inbound=Mark(1, 255),
        outbound=Mark(42),
        set_inbound=Mark(1, 255),
        set_outbound=Mark(7),
        on_inbound_sa=True,
    )
    assert child.per_cpu_sas is None
    wanted = read_connection(message, "c", Violations())
    assert wanted is not None
    written = write_connection(wanted.connection, psk_is_set=True).children[0]
    for name in ("mark_in", "mark_out", "set_mark_in", "set_mark_out", "mark_in_sa", "per_cpu_sas"):
        assert getattr(written, name) == getattr(message.children[0], name)


@pytest.mark.parametrize(("text", "count"), [("", 0), ("off", 0), ("4", 4), ("auto", None)])
def test_for_how_many_cpus_a_child_has_sas(text: str, count: int | None) -> None:
    child, wrong = read(child_of(per_cpu_sas=text))

    assert wrong == []
    assert child is not None
    assert child.per_cpu_sas == count


@pytest.mark.parametrize(
    ("child", "complaint"),
    [
        ({"mark_out": "red"}, "c.children[0].mark_out: 'red' is no mark"),
        ({"set_mark_in": "3/1"}, "c.children[0].set_mark_in: mark 0x3 has bits"),
        ({"mark_in_sa": True}, "c.children[0].mark_in_sa: is about mark_in"),
        ({"mark_in": "1", "action": 2}, "c.children[0].mark_in: is for action protect, not bypass"),
        ({"per_cpu_sas": "many"}, "c.children[0].per_cpu_sas: 'many' is neither"),
        ({"per_cpu_sas": "0"}, "c.children[0].per_cpu_sas: '0' is neither"),
        ({"per_cpu_sas": "auto", "action": 2}, "c.children[0].per_cpu_sas: is for action protect"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_meant_is_refused(child: dict[str, Any], complaint: str) -> None:
    _, wrong = read(child_of(**child))

    assert any(line.startswith(complaint) for line in wrong), wrong
