"""The drop reasons are one list: the same names and numbers in Python, C and proto."""

import re
from pathlib import Path

from gateway.api.types.v1 import status_pb2 as spb
from gateway.ipsec.drop_reason import DropReason

HEADER = Path(__file__).parents[2] / "ebpf" / "include" / "gw_drop_reasons.h"


def test_c_lists_the_drop_reasons_of_python_in_the_same_order() -> None:
    listed = re.findall(r'\bX\((\w+), "(\w+)"\)', HEADER.read_text())

    assert listed == [(reason.name, reason.value) for reason in DropReason]


def test_proto_numbers_a_drop_reason_by_its_place_in_the_list() -> None:
    numbered = {name.removeprefix("DROP_REASON_"): number for name, number in spb.DropReason.items()}

    assert numbered == {
        "UNSPECIFIED": 0,
        **{reason.name: place for place, reason in enumerate(DropReason, start=1)},
    }
