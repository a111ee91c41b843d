"""Network namespaces for the calling thread: one with a name, or a fresh one that goes with its last user."""

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.bench.topology import Namespace

PEERS = ("192.0.2.2", "2001:db8::2")
"""Neighbours of `outside` that `beyond` speaks for."""
_LINK_ADDRESSES = {"outside": "00:00:5e:00:53:01", "beyond": "00:00:5e:00:53:02"}
_CLONE_NEWNET = 0x40000000
_SIOCGIFHWADDR = 0x8927
_IFREQ = struct.Struct("16sH6s16x")
"""Name, family and link address: netdevice(7)."""
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def fresh_network_namespace(*addresses: str) -> Iterator[None]:
    """Run this thread, and the threads and processes it starts, in a namespace of their own.

    A pair of veth devices is up in it, one of which has `addresses` (with prefix length).
    """
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        _check(_libc.unshare(_CLONE_NEWNET))
        try:
            _ip_batch(_pair_of_devices(addresses))
            yield
        finally:
            _check(_libc.setns(before, _CLONE_NEWNET))
    finally:
        os.close(before)


@contextmanager
def inside(namespace: Namespace) -> Iterator[None]:
    """Run this thread, and the threads and processes it starts, in a namespace that has a name."""
    with open("/proc/thread-self/ns/net") as before, open(f"/run/netns/{namespace.name}") as there:
        _check(_libc.setns(there.fileno(), _CLONE_NEWNET))
        try:
            yield
        finally:
            _check(_libc.setns(before.fileno(), _CLONE_NEWNET))


def _check(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _pair_of_devices(addresses: tuple[str, ...]) -> list[str]:
    """Return what `ip` is told to make a pair, which has `addresses` at one end."""
    ours, theirs = _LINK_ADDRESSES.items()
    ends = " type veth peer ".join(f"name {name} address {address}" for name, address in (ours, theirs))
    lines = ["link set lo up", f"link add {ends}"]
    lines += [f"link set {device} up" for device in _LINK_ADDRESSES]
    for address in addresses:
        lines.append(f"address add {address} dev outside" + (" nodad" if ":" in address else ""))
    lines += [f"neighbour add {peer} lladdr {_LINK_ADDRESSES['beyond']} dev outside" for peer in PEERS]
    return lines


def _ip_batch(lines: list[str]) -> None:
    """Do all of it by one process: in the guest each takes a fortieth of a second."""
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines).encode(), check=True, capture_output=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def neighbour(device: str) -> bytes:
    """Return the link address of a device of this thread's namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        asked = _IFREQ.pack(device.encode(), 0, bytes(6))
        answered = fcntl.ioctl(any_socket, _SIOCGIFHWADDR, asked)
    address: bytes = _IFREQ.unpack(answered)[2]
    return address


def set_mtu(device: str, mtu_bytes: int) -> None:
    """Give a device of this thread's namespace another MTU."""
    _ip("link", "set", device, "mtu", str(mtu_bytes))


def take_down(device: str) -> None:
    """Take a device of this thread's namespace down."""
    _ip("link", "set", device, "down")
