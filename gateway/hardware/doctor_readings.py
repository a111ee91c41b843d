"""Look at what `doctor` judges. Reads only; what needs privilege says so where it is missing."""

import asyncio
import ctypes
import fcntl
import os
import re
import shutil
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gateway.hardware.advice import Advice
from gateway.hardware.doctor import (
    IKE_PORTS,
    CertificateReading,
    InterfaceReading,
    Listener,
    Readings,
)
from gateway.hardware.readings import Reading, read_text
from gateway.host.errors import HostError
from gateway.host.nftables import run_nft

_PROC: Final = Path("/proc")
_IPV4: Final = _PROC / "sys/net/ipv4"
_TIME_ERROR: Final = 5
"""What adjtimex(2) returns while nothing disciplines the clock."""
_TIMEX_BYTES: Final = 512
"""More than any `struct timex`."""
_SIOCGIFFLAGS: Final = 0x8913
_SIOCGIFMTU: Final = 0x8921
_IFF_UP: Final = 0x1
_IFF_LOOPBACK: Final = 0x8
_SOCKET: Final = re.compile(r"socket:\[([0-9]+)\]")


def take_readings(certificates: tuple[CertificateReading, ...], advice: tuple[Advice, ...]) -> Readings:
    """Return everything that can be seen of this machine, in this network namespace."""
    return Readings(
        now=time.time(),
        ruleset=asyncio.run(_ruleset()),
        legacy_tables=read_text(_PROC / "net/ip_tables_names"),
        rp_filter_all=read_text(_IPV4 / "conf/all/rp_filter"),
        interfaces=tuple(_interfaces()),
        forwarding=(
            read_text(_IPV4 / "ip_forward"),
            read_text(_PROC / "sys/net/ipv6/conf/all/forwarding"),
        ),
        no_pmtu_discovery=read_text(_IPV4 / "ip_no_pmtu_disc"),
        clock=_clock(),
        certificates=certificates,
        listeners=tuple(_listeners()),
        tun=_tun(),
        nft=_nft(),
        advice=advice,
    )


async def _ruleset() -> Reading:
    source = "nft -j list ruleset"
    try:
        return Reading(source=source, text=await run_nft("-j", "list", "ruleset"))
    except HostError as error:
        return Reading(source=source, error=str(error))


def _interfaces() -> Iterator[InterfaceReading]:
    """Yield the interfaces that are up, without the loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            flags, mtu = (_ask_interface(asked, request, name) for request in (_SIOCGIFFLAGS, _SIOCGIFMTU))
            if flags is None or mtu is None or not flags & _IFF_UP or flags & _IFF_LOOPBACK:
                continue
            yield InterfaceReading(name=name, mtu=mtu, rp_filter=read_text(_IPV4 / f"conf/{name}/rp_filter"))


def _ask_interface(asked: socket.socket, request: int, name: str) -> int | None:
    """Return flags or MTU (netdevice(7)), None where the interface is gone."""
    try:
        answer = fcntl.ioctl(asked, request, struct.pack("16sI12x", name.encode(), 0))
    except OSError:
        return None
    (value,) = struct.unpack_from("=H" if request == _SIOCGIFFLAGS else "=I", answer, 16)
    return int(value)


def _clock() -> Reading:
    source = "adjtimex(2)"
    library = ctypes.CDLL(None, use_errno=True)
    state = library.adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    if state < 0:
        return Reading(source=source, error=os.strerror(ctypes.get_errno()).lower())
    return Reading(source=source, text="not synchronised" if state == _TIME_ERROR else "synchronised")


def _tun() -> Reading:
    path = Path("/dev/net/tun")
    if path.exists():
        return Reading(source=str(path), text="present")
    return Reading(source=str(path), error="no such file or directory")


def _nft() -> Reading:
    program = shutil.which("nft", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None:
        return Reading(source="PATH and /usr/sbin", error="no nft")
    return Reading(source=program, text=program)


# --- sockets ------------------------------------------------------------------------------------


def _listeners() -> Iterator[Listener]:
    """Yield who has the IKE ports, each process and port once."""
    inodes: dict[str, tuple[int, str]] = {}
    for table in ("udp", "udp6"):
        sockets = read_text(_PROC / "net" / table)
        for line in (sockets.text or "").splitlines()[1:]:
            fields = line.split()
            port = int(fields[1].rpartition(":")[2], 16)
            if port in IKE_PORTS:
                inodes[fields[9]] = (port, sockets.source)
    owners = _owners(frozenset(inodes)) if inodes else {}
    seen: set[tuple[int, int | None]] = set()
    for inode, (port, source) in inodes.items():
        pid = owners.get(inode)
        if (port, pid) in seen:
            continue
        seen.add((port, pid))
        yield Listener(port=port, pid=pid, process="" if pid is None else _command(pid), source=source)


def _owners(wanted: frozenset[str]) -> dict[str, int]:
    """Return the process of each socket, as far as this user may see."""
    found: dict[str, int] = {}
    for process in _PROC.iterdir():
        if not process.name.isdecimal():
            continue
        try:
            targets = [str(link.readlink()) for link in (process / "fd").iterdir()]
        except OSError:
            continue
        for target in targets:
            match = _SOCKET.fullmatch(target)
            if match and match[1] in wanted:
                found.setdefault(match[1], int(process.name))
    return found


def _command(pid: int) -> str:
    text = read_text(_PROC / str(pid) / "cmdline").text or ""
    return " ".join(text.split("\0")).strip() or (read_text(_PROC / str(pid) / "comm").text or "").strip()
