"""Packets that the kernel gives up, by reason, place and interface: its tracepoint `skb:kfree_skb` tells.

The counting is done in BPF by Debian's bcc, in a process of its own (`gateway.host.drop_program`), because
bcc belongs to the system's Python. Of kernel headers that program needs the types of numbers and no more:
where fields are is read from the running kernel, from its tracefs and its BTF. So the headers of any kernel
will do.
"""

import json
import os
import platform
import re
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Final

from gateway.host.bpf.btf import Btf, BtfType, Kind, parse_btf
from gateway.host.bpf.errors import BpfError
from gateway.host.errors import HostError

PROGRAM: Final = Path(__file__).with_name("drop_program.py")
SYSTEM_PYTHON: Final = "/usr/bin/python3"
PACKAGE: Final = "python3-bpfcc"
#: Where tracefs may be mounted.
TRACEFS: Final = ("sys/kernel/tracing", "sys/kernel/debug/tracing")
_EVENT: Final = "events/skb/kfree_skb/format"
_FIELD = re.compile(r"field:[^;]*?(\w+);\s*offset:(\d+);")
_SYMBOL = re.compile(r'\{ (\d+), "(\w+)" \}')
_INCLUDES: Final = (
    *("include", "include/generated/uapi"),
    *("arch/*/include/generated", "arch/*/include/generated/uapi"),
)
_KEPT_LINES: Final = 10
"""Of what bcc and its compiler say."""
#: Asks a Python for bcc; the package of that name on the Python index is about lattices, and has no BPF.
_ASK: Final = "import bcc; raise SystemExit(0 if hasattr(bcc, 'BPF') else 3)"
_OTHER_BCC: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """Packets that the kernel gave up at one place for one reason."""

    packets: int
    reason: str
    """As the kernel names it; `reason 7` where it has no name for it."""
    location: str
    """Function and offset; empty where the kernel does not tell."""
    ifindex: int
    """Of the interface they came from or were to leave by; 0: none."""
    netns: int
    """The inode of that interface's network namespace; 0: not known."""
    protocol: int
    """EtherType; 0: not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracepoint:
    """What the running kernel says of `skb:kfree_skb`."""

    offsets: Mapping[str, int]
    """Of its fields, in bytes."""
    reasons: Mapping[int, str]
    """Empty before Linux 5.17, which does not tell."""


def parse_tracepoint(text: str) -> Tracepoint:
    """Return what tracefs says in `format`.

    Raises:
        HostError: A field is missing without which nothing can be counted.
    """
    offsets = {name: int(offset) for name, offset in _FIELD.findall(text)}
    missing = [name for name in ("skbaddr", "location", "protocol") if name not in offsets]
    if missing:
        raise HostError(f"the kernel's tracepoint skb:kfree_skb has no field {', '.join(missing)}")
    _, _, symbols = text.partition("__print_symbolic(REC->reason")
    return Tracepoint(
        offsets=offsets, reasons={int(number): name for number, name in _SYMBOL.findall(symbols)}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How the counting program is started here."""

    python: str
    tracepoint: Tracepoint
    structures: Mapping[str, int]
    """Offsets in the kernel's structures; empty where it does not tell them: then no interface is known."""
    headers: Path | None
    """A kernel's build directory, where that of the running one is missing."""


def find_setting(root: Path = Path("/"), pythons: Sequence[str] = (sys.executable, SYSTEM_PYTHON)) -> Setting:
    """Return how to count drops on this machine.

    Args:
        root: Where `/sys` and `/lib` are.
        pythons: Who may have bcc.

    Raises:
        HostError: They cannot be counted; the text says why, and what to do.
    """
    if os.geteuid() != 0:
        raise HostError(
            "to see what the kernel drops takes root: CAP_BPF and CAP_PERFMON, and tracefs is root's"
        )
    return Setting(
        tracepoint=_find_tracepoint(root),
        python=_find_python(pythons),
        headers=_find_headers(root),
        structures=_find_structures(root / "sys/kernel/btf/vmlinux"),
    )


def _find_tracepoint(root: Path) -> Tracepoint:
    places = [root / place for place in TRACEFS]
    mounted = next((place for place in places if (place / "events").is_dir()), None)
    if mounted is None:
        raise HostError("tracefs is not mounted: mount -t tracefs tracefs /sys/kernel/tracing")
    try:
        return parse_tracepoint((mounted / _EVENT).read_text())
    except FileNotFoundError:
        raise HostError(
            "the kernel has no tracepoint skb:kfree_skb: it takes one with CONFIG_TRACEPOINTS and "
            "CONFIG_BPF_EVENTS"
        ) from None
    except OSError as error:
        raise HostError(f"cannot read {mounted / _EVENT}: {error.strerror}") from error


def _find_python(pythons: Sequence[str]) -> str:
    found_other = ""
    for python in dict.fromkeys(pythons):
        try:
            done = subprocess.run(  # noqa: S603 - a Python of this machine
                [python, "-P", "-c", _ASK], capture_output=True, check=False, timeout=60
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return python
        if done.returncode == _OTHER_BCC:
            found_other = f"; the bcc of {python} is another package, about lattices"
    raise HostError(f"there is no bcc here{found_other}: apt install {PACKAGE}")


def _find_headers(root: Path) -> Path | None:
    """Return headers to use in place of those of the running kernel, which bcc finds by itself."""
    release = platform.release()
    modules = root / "lib/modules"
    has_own = (modules / release / "build").exists() or (root / "sys/kernel/kheaders.tar.xz").exists()
    if has_own or "BCC_KERNEL_SOURCE" in os.environ:
        return None
    others = sorted(path for path in modules.glob("*/build") if (path / "include").is_dir())
    if not others:
        raise HostError(
            f"bcc compiles with kernel headers, and there are none: apt install linux-headers-{release}, or "
            "linux-headers-amd64 or -arm64 where that kernel is not Debian's"
        )
    return others[-1]


def _find_structures(path: Path) -> dict[str, int]:
    try:
        types = parse_btf(path.read_bytes())
    except (OSError, BpfError):
        return {}
    found = {
        "SKB_DEV": _offset(types, "sk_buff", "dev"),
        "DEVICE_IFINDEX": _offset(types, "net_device", "ifindex"),
        "DEVICE_NET": _offset(types, "net_device", "nd_net"),
        "NET_INUM": _offset(types, "net", "ns", "inum"),
    }
    return {} if None in found.values() else {name: at for name, at in found.items() if at is not None}


def _offset(types: Btf, structure: str, *path: str) -> int | None:
    """Return where a field is, in bytes; `None` where the kernel has none of that name."""
    inside, at = types.struct(structure), 0
    for name in path:
        field = None if inside is None else _field(types, inside, name)
        if field is None:
            return None
        at += field[0]
        inside = types.resolve(field[1])
    return at


def _field(types: Btf, structure: BtfType, name: str) -> tuple[int, int] | None:
    """Return offset and type of a field, also of a nameless struct or union inside."""
    for member in structure.members:
        if member.name == name:
            return member.offset, member.type_id
        if member.name:
            continue
        inner = types.resolve(member.type_id)
        found = _field(types, inner, name) if inner.kind in (Kind.STRUCT, Kind.UNION) else None
        if found is not None:
            return member.offset + found[0], found[1]
    return None


def order(setting: Setting, interval_s: float) -> tuple[list[str], dict[str, str]]:
    """Return the command that counts, and what its environment has beside ours."""
    names = {"LOCATION": "location", "PROTOCOL": "protocol", "REASON": "reason", "SKB": "skbaddr"}
    fields = setting.tracepoint.offsets
    offsets = {name: fields[field] for name, field in names.items() if field in fields}
    includes: list[str] = []
    environment: dict[str, str] = {}
    if setting.headers is not None:
        # Debian has what all architectures share in a directory of its own.
        shared = setting.headers.with_name("source")
        environment["BCC_KERNEL_SOURCE"] = str((shared if shared.exists() else setting.headers).resolve())
        includes = [f"-I{path}" for name in _INCLUDES for path in sorted(setting.headers.glob(name))]
    asked = {"offsets": {**offsets, **setting.structures}, "interval_s": interval_s, "flags": includes}
    return [setting.python, "-P", str(PROGRAM), json.dumps(asked)], environment


@contextmanager
def trace(setting: Setting, interval_s: float) -> Iterator[Iterator[list[Drop]]]:
    """Count drops; yields what was dropped in each interval, most first.

    Raises:
        HostError: bcc cannot do it; the text has what it said.
    """
    command, more = order(setting, interval_s)
    process = subprocess.Popen(  # noqa: S603 - our own program
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **more},
    )
    said: deque[str] = deque(maxlen=_KEPT_LINES)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    hearing = Thread(target=said.extend, args=(process.stderr,), name="drop-trace", daemon=True)
    hearing.start()
    try:
        lines = iter(process.stdout)
        first = json.loads(next(lines, '{"error": "it ended"}'))
        if "error" in first:
            process.wait()
            hearing.join(timeout=5)
            raise HostError(f"bcc cannot count drops here: {first['error']}\n{''.join(said)}".rstrip())
        yield _read(lines, setting.tracepoint)
    finally:
        process.stdin.close()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _read(lines: Iterator[str], tracepoint: Tracepoint) -> Iterator[list[Drop]]:
    for line in lines:
        drops = [
            Drop(
                packets=found["packets"],
                reason=tracepoint.reasons.get(found["reason"], f"reason {found['reason']}")
                if tracepoint.reasons
                else "not told",
                location="" if found["location"].startswith("[unknown]") else found["location"],
                ifindex=found["ifindex"],
                netns=found["netns"],
                protocol=found["protocol"],
            )
            for found in json.loads(line)["drops"]
        ]
        yield sorted(drops, key=lambda drop: (-drop.packets, drop.reason, drop.location, drop.ifindex))
    raise HostError("the program that counts drops ended")
