"""The layouts and numbers against what a C compiler makes of `<linux/xfrm.h>`."""

import json
import struct
from enum import IntEnum
from pathlib import Path

import pytest

from gateway.datapath.xfrm import layouts, numbers
from gateway.datapath.xfrm.layouts import Layout, size_of

COMPILED = json.loads(Path("tests/vectors/xfrm/layouts.json").read_text())

#: Struct, its class here. `xfrm_sec_ctx` is the kernel's own, not one of netlink.
CLASSES = {
    name: getattr(layouts, "".join(word.capitalize() for word in name.split("_")))
    for name in COMPILED["structs"]
    if name != "xfrm_sec_ctx"
}

#: Enum, prefix of its constants in the header, and constants whose name there is another.
ENUMS = [
    (numbers.MessageType, "XFRM_MSG_", {"BASE", "MAX"}),
    (numbers.Attribute, "XFRMA_", {"UNSPEC", "MAX", "OUTPUT_MARK", "REPLAY_ESN_MAX"}),
    (numbers.Group, "XFRMNLGRP_", {"NONE", "MAX"}),
    (numbers.Mode, "XFRM_MODE_", {"MAX"}),
    (numbers.Share, "XFRM_SHARE_", set()),
    (numbers.SaFlag, "XFRM_STATE_", set()),
    (numbers.SaExtraFlag, "XFRM_SA_XFLAG_", set()),
    (numbers.OffloadFlag, "XFRM_OFFLOAD_", set()),
    (numbers.PolicyType, "XFRM_POLICY_TYPE_", {"MAX"}),
]
#: Constants newer than the compiled header (Linux 6.1).
NEWER = {
    "XFRMA_SA_DIR",
    "XFRMA_NAT_KEEPALIVE_INTERVAL",
    "XFRMA_SA_PCPU",
    "XFRMA_IPTFS_DROP_TIME",
    "XFRMA_IPTFS_REORDER_WINDOW",
    "XFRMA_IPTFS_DONT_FRAG",
    "XFRMA_IPTFS_INIT_DELAY",
    "XFRMA_IPTFS_MAX_QSIZE",
    "XFRMA_IPTFS_PKT_SIZE",
    "XFRM_MODE_IPTFS",
}


def places(layout: type[Layout]) -> dict[str, list[int]]:
    """Return offset and size of each member that is no hole."""
    found, offset = {}, 0
    for name, kind in layout.members:
        size = struct.calcsize(kind) if isinstance(kind, str) else kind.size()
        if not name.startswith("_"):
            found[name] = [offset, size]
        offset += size
    return found


@pytest.mark.parametrize("name", CLASSES)
def test_members_stand_where_a_compiler_puts_them(name: str) -> None:
    assert places(CLASSES[name]) == COMPILED["structs"][name]["members"]
    assert size_of(CLASSES[name].members) == COMPILED["structs"][name]["size"]


@pytest.mark.parametrize(("enum", "prefix", "others"), ENUMS, ids=lambda one: getattr(one, "__name__", ""))
def test_numbers_are_those_of_the_header(enum: type[IntEnum], prefix: str, others: set[str]) -> None:
    theirs = {
        name.removeprefix(prefix): number
        for name, number in COMPILED["constants"].items()
        if name.startswith(prefix)
    }
    if enum is numbers.Attribute:
        theirs = {k: v for k, v in theirs.items() if not k.startswith(("SAD_", "SPD_"))}
    newer = {member.name for member in enum if prefix + str(member.name) in NEWER}

    ours = {str(member.name): member.value for member in enum if member.name not in newer}

    assert ours == {name: number for name, number in theirs.items() if name not in others}


@pytest.mark.parametrize(
    ("enum", "prefix"),
    [(numbers.SadAttribute, "XFRMA_SAD_"), (numbers.SpdAttribute, "XFRMA_SPD_")],
)
def test_numbers_of_the_counts_are_those_of_the_header(enum: type[IntEnum], prefix: str) -> None:
    assert {prefix + member.name: member.value for member in enum}.items() <= COMPILED["constants"].items()


def test_newest_attributes_continue_in_the_order_of_linux_6_18() -> None:
    newest = [member.name for member in numbers.Attribute if member > COMPILED["constants"]["XFRMA_MAX"]]

    assert newest == [
        "SA_DIR",
        "NAT_KEEPALIVE_INTERVAL",
        "SA_PCPU",
        "IPTFS_DROP_TIME",
        "IPTFS_REORDER_WINDOW",
        "IPTFS_DONT_FRAG",
        "IPTFS_INIT_DELAY",
        "IPTFS_MAX_QSIZE",
        "IPTFS_PKT_SIZE",
    ]
    assert [member.value for member in numbers.Attribute] == list(range(1, 42))


def test_numbers_with_names_of_our_own_are_those_of_the_header() -> None:
    theirs = COMPILED["constants"]

    assert [theirs[f"XFRM_AE_{name}"] for name in ["RTHR", "RVAL", "LVAL", "ETHR", "CR", "CE", "CU"]] == [
        flag.value for flag in numbers.AeventFlag
    ]
    assert [theirs[f"XFRM_POLICY_{name}"] for name in ("IN", "OUT", "FWD", "ALLOW", "BLOCK")] == [
        *list(numbers.PolicyDirection)[:3],
        *numbers.PolicyAction,
    ]
    assert [theirs[f"XFRM_USERPOLICY_{name}"] for name in ("UNSPEC", "BLOCK", "ACCEPT")] == list(
        numbers.DefaultAction
    )
    assert theirs["XFRM_POLICY_MAX"] == numbers.PolicyDirection.SOCKET_IN
    assert [theirs["XFRM_POLICY_LOCALOK"], theirs["XFRM_POLICY_ICMP"]] == [
        numbers.PolicyFlag.LOCALOK,
        numbers.PolicyFlag.ICMP,
    ]
