"""Network namespaces for the calling thread: one with a name, or a fresh one that goes with its last user."""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.bench.topology import Namespace

PEERS = ("192.0.2.2", "2001:db8::2")
"""Neighbours of `outside` that `beyond` speaks for."""
_CLONE_NEWNET = 0x40000000
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
            _ip("link", "set", "lo", "up")
            _ip("link", "add", "outside", "type", "veth", "peer", "name", "beyond")
            for device in ("outside", "beyond"):
                _ip("link", "set", device, "up")
            for address in addresses:
                _ip("address", "add", address, "dev", "outside", *(("nodad",) if ":" in address else ()))
            beyond = neighbour("beyond").hex(":")
            for peer in PEERS:
                _ip("neighbour", "add", peer, "lladdr", beyond, "dev", "outside")
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


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def neighbour(device: str) -> bytes:
    """Return the link address of a device of this thread's namespace."""
    lines = subprocess.run(
        ["ip", "-o", "link", "show", "dev", device], check=True, capture_output=True, text=True
    ).stdout
    words = lines.split()
    return bytes.fromhex(words[words.index("link/ether") + 1].replace(":", ""))


def set_mtu(device: str, mtu_bytes: int) -> None:
    """Give a device of this thread's namespace another MTU."""
    _ip("link", "set", device, "mtu", str(mtu_bytes))


def take_down(device: str) -> None:
    """Take a device of this thread's namespace down."""
    _ip("link", "set", device, "down")
