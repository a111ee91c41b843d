"""What `ipsecgw trace drops` needs of a machine, and what it says where something is missing."""

import json
import os
import stat
from pathlib import Path

import pytest

from gateway.host import drop_trace
from gateway.host.bpf.btf import Btf, BtfType, Kind, Member
from gateway.host.drop_trace import Drop, _offset, find_setting, order, parse_tracepoint, trace
from gateway.host.errors import HostError

FORMAT = """name: kfree_skb
ID: 2310
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;

\tfield:void * skbaddr;\toffset:8;\tsize:8;\tsigned:0;
\tfield:void * location;\toffset:16;\tsize:8;\tsigned:0;
\tfield:unsigned short protocol;\toffset:32;\tsize:2;\tsigned:0;
\tfield:enum skb_drop_reason reason;\toffset:36;\tsize:4;\tsigned:0;

print fmt: "reason: %s", __print_symbolic(REC->reason, { 2, "NOT_SPECIFIED" }, { 18, "XFRM_POLICY" })
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root directory with all that is needed, but BTF."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(drop_trace.platform, "release", lambda: "6.1.0")
    monkeypatch.delenv("BCC_KERNEL_SOURCE", raising=False)
    place = tmp_path / "sys/kernel/tracing/events/skb/kfree_skb"
    place.mkdir(parents=True)
    (place / "format").write_text(FORMAT)
    (tmp_path / "lib/modules/6.1.0/build").mkdir(parents=True)
    return tmp_path


def python(directory: Path, *, status: int = 0, lines: tuple[object, ...] = (), said: str = "") -> str:
    """Return a stand-in for a Python: it ends with a status when asked for bcc, and else writes lines."""
    path = directory / f"python-{status}"
    printed = "".join(f"echo '{json.dumps(line)}'\n" for line in lines)
    path.write_text(f'#!/bin/sh\n[ "$2" = -c ] && exit {status}\necho "{said}" >&2\n{printed}')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_machine_with_everything_is_told_where_the_fields_are(machine: Path) -> None:
    setting = find_setting(machine, (python(machine, status=1), python(machine)))

    command, environment = order(setting, 2.0)

    assert command[0] == str(machine / "python-0")
    assert json.loads(command[-1]) == {
        "offsets": {"LOCATION": 16, "PROTOCOL": 32, "REASON": 36, "SKB": 8},
        "interval_s": 2.0,
        "flags": [],
    }
    assert environment == {}


def test_headers_of_another_kernel_do_where_there_are_none_of_this_one(machine: Path) -> None:
    (machine / "lib/modules/6.1.0/build").rmdir()
    other = machine / "lib/modules/5.10"
    (other / "source").mkdir(parents=True)
    for name in ("include", "arch/x86/include/generated"):
        (other / "build" / name).mkdir(parents=True)

    command, environment = order(find_setting(machine, (python(machine),)), 1.0)

    assert environment == {"BCC_KERNEL_SOURCE": str(other / "source")}
    assert json.loads(command[-1])["flags"] == [
        f"-I{other}/build/include",
        f"-I{other}/build/arch/x86/include/generated",
    ]


@pytest.mark.parametrize(
    ("missing", "why"),
    [
        ("sys/kernel/tracing", "tracefs is not mounted: mount -t tracefs tracefs /sys/kernel/tracing"),
        ("sys/kernel/tracing/events/skb/kfree_skb/format", "no tracepoint skb:kfree_skb"),
        ("lib/modules/6.1.0/build", "there are none: apt install linux-headers-6.1.0"),
    ],
    ids=["tracefs", "tracepoint", "headers"],
)
def test_what_is_missing_is_named(machine: Path, missing: str, why: str) -> None:
    path = machine / missing
    path.rename(machine / "away")

    with pytest.raises(HostError, match=why):
        find_setting(machine, (python(machine),))


def test_only_debians_bcc_is_taken_for_bcc(machine: Path) -> None:
    with pytest.raises(HostError, match=r"^there is no bcc here: apt install python3-bpfcc$"):
        find_setting(machine, (python(machine, status=1), str(machine / "no-python")))
    with pytest.raises(HostError, match="python-3 is another package, about lattices: apt install"):
        find_setting(machine, (python(machine, status=3),))


def test_stranger_is_told_that_it_takes_root(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(HostError, match="takes root"):
        find_setting(machine, (python(machine),))


def test_tracepoint_of_an_old_kernel_tells_no_reasons() -> None:
    old = FORMAT.replace("\tfield:enum skb_drop_reason reason;\toffset:36;\tsize:4;\tsigned:0;\n", "")

    tracepoint = parse_tracepoint(old.partition("print fmt")[0])

    assert "reason" not in tracepoint.offsets
    assert tracepoint.reasons == {}
    with pytest.raises(HostError, match="no field skbaddr, location"):
        parse_tracepoint("field:unsigned short protocol;\toffset:32;")


def test_fields_are_found_inside_nameless_structs_and_unions() -> None:
    number = BtfType(Kind.INT, "u32", 4)
    types = Btf(
        (
            BtfType(Kind.VOID, "", 0),
            number,
            BtfType(Kind.UNION, "", 8, (Member("next", 1, 0), Member("dev", 1, 4))),
            BtfType(Kind.STRUCT, "ns_common", 8, (Member("ops", 1, 0), Member("inum", 1, 4))),
            BtfType(
                Kind.STRUCT, "sk_buff", 64, (Member("head", 1, 0), Member("", 2, 16), Member("ns", 3, 40))
            ),
        )
    )

    assert _offset(types, "sk_buff", "dev") == 20
    assert _offset(types, "sk_buff", "ns", "inum") == 44
    assert _offset(types, "sk_buff", "skb_iif") is None
    assert _offset(types, "net", "ns") is None


def test_drops_are_told_with_the_kernels_words_most_first(machine: Path) -> None:
    def found(reason: int, packets: int, location: str) -> dict[str, object]:
        where = {"ifindex": 3, "netns": 9, "protocol": 0x0800}
        return {"reason": reason, "packets": packets, "location": location, **where}

    batch = [found(18, 1, "xfrm_lookup+0x1"), found(7, 5, "[unknown]")]
    runner = python(machine, lines=({"ready": True}, {"drops": batch}))

    with trace(find_setting(machine, (runner,)), 1.0) as batches:
        drops = next(batches)
        with pytest.raises(HostError, match="ended"):
            next(batches)

    assert drops == [
        Drop(packets=5, reason="reason 7", location="", ifindex=3, netns=9, protocol=0x0800),
        Drop(
            packets=1, reason="XFRM_POLICY", location="xfrm_lookup+0x1", ifindex=3, netns=9, protocol=0x0800
        ),
    ]


def test_what_bcc_and_its_compiler_say_is_told(machine: Path) -> None:
    runner = python(machine, lines=({"error": "Failed to compile"},), said="fatal error: no types.h")

    with (
        pytest.raises(HostError, match=r"Failed to compile\nfatal error: no types.h"),
        trace(find_setting(machine, (runner,)), 1.0),
    ):
        pass
