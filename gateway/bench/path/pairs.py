"""Peers that exchange keys themselves, so that two stand face to face: strongSwan's libipsec, wireguard-go.

Packets are plaintext at both ends, and go through both gateways. Neither is pinned: both programs use several
threads.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final

from gateway.bench.ike import charon
from gateway.bench.path.bed import GATEWAY_OUTER, LOCAL_NETWORK, PEER, REMOTE_NETWORK, Bed, pair_bed
from gateway.bench.path.gateway import NotPlaced
from gateway.bench.topology import Namespace

_START_S: Final = 20.0
_STOP_S: Final = 10.0
_WIREGUARD_PORT: Final = "51820"
_WIREGUARD_MTU: Final = "1420"


def _sites(bed: Bed, far: Namespace) -> list[tuple[Namespace, IPv4Address, IPv4Address, IPv4Network]]:
    """Return of both gateways: where, own address, the other's address, the network behind the other."""
    return [
        (bed.gateway, GATEWAY_OUTER, PEER, REMOTE_NETWORK),
        (far, PEER, GATEWAY_OUTER, LOCAL_NETWORK),
    ]


# --- wireguard-go


@contextmanager
def wireguard_pair(prefix: str, directory: Path) -> Iterator[tuple[Bed, tuple[int, ...]]]:
    """Run two of wireguard-go; yields the bed and their processes.

    Raises:
        NotPlaced: It is not installed, or does not start.
    """
    missing = [name for name in ("wireguard-go", "wg") if shutil.which(name) is None]
    if missing:
        packages = "wireguard-go wireguard-tools"
        raise NotPlaced(f"{', '.join(missing)} is missing (apt-get install {packages})")
    directory.mkdir(parents=True, exist_ok=True)
    with pair_bed(f"{prefix}-wg") as (bed, far), ExitStack() as stack:
        keys = [_wireguard_key(directory / f"{number}.key") for number in range(2)]
        pids = []
        for number, (namespace, _, other, network) in enumerate(_sites(bed, far)):
            # Their sockets are in one directory, whatever the namespace.
            device = f"wg{os.getpid()}-{number}"
            pids.append(stack.enter_context(_wireguard(namespace, device, directory)))
            namespace.run(
                *("wg", "set", device, "private-key", str(directory / f"{number}.key")),
                *("listen-port", _WIREGUARD_PORT, "peer", keys[1 - number], "allowed-ips", str(network)),
                *("endpoint", f"{other}:{_WIREGUARD_PORT}"),
            )
            namespace.run("ip", "link", "set", device, "mtu", _WIREGUARD_MTU, "up")
            namespace.run("ip", "route", "replace", str(network), "dev", device)
        yield bed, tuple(pids)


def _wireguard_key(path: Path) -> str:
    """Make a private key in a file; return the public one."""
    private = subprocess.run(["wg", "genkey"], capture_output=True, check=True).stdout
    path.touch(mode=0o600)
    path.write_bytes(private)
    public = subprocess.run(["wg", "pubkey"], input=private, capture_output=True, check=True).stdout
    return public.decode().strip()


@contextmanager
def _wireguard(namespace: Namespace, device: str, directory: Path) -> Iterator[int]:
    log = directory / f"{device}.log"
    with log.open("w") as output:
        process = namespace.popen("wireguard-go", "--foreground", device, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + _START_S
        while namespace.run("wg", "show", device, check=False).returncode != 0:
            if process.poll() is not None or time.monotonic() > deadline:
                lines = log.read_text().strip().splitlines() or ["it said nothing"]
                raise NotPlaced(f"wireguard-go did not start: {lines[-1]}")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# --- strongSwan's libipsec


@contextmanager
def libipsec_pair(prefix: str, directory: Path) -> Iterator[tuple[Bed, tuple[int, ...]]]:
    """Run two charons with kernel-libipsec and a Child SA between them; yields the bed and their processes.

    Raises:
        NotPlaced: It is not installed, or they do not agree.
    """
    if absent := charon.missing():
        raise NotPlaced(f"{absent} is missing")
    with pair_bed(f"{prefix}-sw") as (bed, far), ExitStack() as stack:
        try:
            pids = _start_charons(stack, bed, far, directory)
        except charon.CharonError as error:
            raise NotPlaced(str(error)) from error
        yield bed, pids


def _start_charons(stack: ExitStack, bed: Bed, far: Namespace, directory: Path) -> tuple[int, ...]:
    sites = _sites(bed, far)
    pids = []
    for number, (namespace, own, other, network) in enumerate(sites):
        (_, _, _, own_network) = sites[1 - number]
        # Its route wants an address of its own in the selector.
        namespace.run("ip", "address", "add", f"{own_network[-2]}/32", "dev", "lo")
        running = charon.charon_site(
            namespace,
            directory / f"charon{number}",
            address=str(own),
            peer=str(other),
            network=str(own_network),
            peer_network=str(network),
        )
        pids.append(stack.enter_context(running))
    charon.initiate_site(bed.gateway, directory / "charon0")
    return tuple(pids)
