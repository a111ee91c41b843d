"""DPDK's programs beside ours: its example ipsec-secgw, built from Debian's package, and its testpmd.

Both poll AF_XDP sockets (net_af_xdp) of the same interfaces, on the CPU of our worker. ipsec-secgw seals and
opens in the worker itself (crypto_aesni_gcm, cpu-crypto). Its source is changed in one line: it asks for a
checksum offload that net_af_xdp does not have, and would not start.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from gateway.api.generator import Tunnel
from gateway.bench.path.bed import LOCAL_NETWORK, PEER, Bed, gateway_cpus
from gateway.bench.path.gateway import REPLAY_WINDOW_PACKETS, NotPlaced, remote_network
from gateway.ipsec.secret import Secret

_EXAMPLE: Final = Path("/usr/share/dpdk/examples/ipsec-secgw")
_PACKAGES: Final = "dpdk-doc dpdk-dev libdpdk-dev"
_OFFLOAD: Final = ".offloads = RTE_ETH_RX_OFFLOAD_CHECKSUM,"
_RUN: Final = Path("/run/dpdk")
_BUILD_S: Final = 300.0
_START_S: Final = 60.0
_STOP_S: Final = 10.0
_READY: Final = {"ipsec-secgw": "entering main loop", "testpmd": "Press enter to exit"}


def secgw_path() -> Path:
    """Return the program, built where it is not yet.

    Raises:
        NotPlaced: There is no source, or it cannot be built; the text says what is missing.
    """
    cache = Path(os.environ.get("IPSECGW_CACHE", Path.home() / ".cache" / "ipsecgw"))
    folder = cache / f"ipsec-secgw-{_version()}"
    program = folder / "build" / "ipsec-secgw"
    if program.exists():
        return program
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(_EXAMPLE, folder)
    source = folder / "ipsec-secgw.c"
    text = source.read_text()
    if text.count(_OFFLOAD) != 1:
        raise NotPlaced(f"{source} does not ask for the checksum offload where it is expected")
    source.write_text(text.replace(_OFFLOAD, ".offloads = 0,"))
    try:
        done = subprocess.run(
            ["make", "-C", str(folder)], capture_output=True, text=True, timeout=_BUILD_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotPlaced(f"ipsec-secgw cannot be built: {error}") from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["make failed"]
        raise NotPlaced(f"ipsec-secgw cannot be built: {said[-1]}")
    return program


def _version() -> str:
    if not _EXAMPLE.is_dir():
        raise NotPlaced(f"{_EXAMPLE} is missing (apt-get install {_PACKAGES})")
    command = ["pkg-config", "--modversion", "libdpdk"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise NotPlaced(f"pkg-config is missing (apt-get install pkg-config {_PACKAGES})") from error
    if done.returncode != 0:
        raise NotPlaced(f"libdpdk is missing (apt-get install {_PACKAGES})")
    return done.stdout.strip()


@contextmanager
def running_secgw(bed: Bed, tunnel: Tunnel, directory: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run ipsec-secgw with SAs of a tunnel; it ends at the end.

    Raises:
        NotPlaced: It is not there and cannot be built, or does not start.
    """
    program = secgw_path()
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "secgw.cfg"
    config.touch(mode=0o600)
    config.write_text(secgw_config(tunnel, [port.mac for port in bed.generator.ports()]))
    (cpu,) = gateway_cpus(1)
    options = (
        *("-p", "0x3", "-P", "-u", "0x2", "-l", "-w", str(REPLAY_WINDOW_PACKETS)),
        *("--config", f"(0,0,{cpu}),(1,0,{cpu})", "-f", str(config)),
    )
    command = (str(program), *_environment(bed, (cpu,)), "--vdev", "crypto_aesni_gcm0", "--", *options)
    with _running("ipsec-secgw", bed, command, directory) as process:
        yield process


@contextmanager
def running_testpmd(bed: Bed, directory: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run testpmd, which gives every frame of one interface to the other; it ends at the end.

    Raises:
        NotPlaced: It is not there, or does not start.
    """
    program = shutil.which("dpdk-testpmd")
    if program is None:
        raise NotPlaced("dpdk-testpmd is missing (apt-get install dpdk-dev)")
    (cpu,) = gateway_cpus(1)
    # Its first CPU is for commands; a second one, which may be the same, forwards.
    command = (
        *(program, *_environment(bed, (0, 1), f"(0,1)@{cpu}"), "--"),
        *("--forward-mode=io", "--auto-start", "--nb-cores=1", "--total-num-mbufs=16384"),
    )
    directory.mkdir(parents=True, exist_ok=True)
    with _running("testpmd", bed, command, directory) as process:
        yield process


def _environment(bed: Bed, cpus: tuple[int, ...], lcores: str = "") -> tuple[str, ...]:
    """Return the options of DPDK's environment: these CPUs, no huge pages, our two interfaces."""
    return (
        *(("--lcores", lcores) if lcores else ("-l", ",".join(map(str, cpus)))),
        *("--no-huge", "-m", "512", "--no-pci", "--no-telemetry"),
        *("--file-prefix", _prefix()),
        *("--vdev", f"net_af_xdp0,iface={bed.lan.name}", "--vdev", f"net_af_xdp1,iface={bed.outer.name}"),
    )


def _prefix() -> str:
    return f"ipsecgw{os.getpid()}"


@contextmanager
def _running(
    name: str, bed: Bed, command: tuple[str, ...], directory: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    log = directory / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            bed.gateway.command("stdbuf", "-oL", *command),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _wait_until(_READY[name], process, log)
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        # What it attached stays when it was killed, and so does its folder always.
        for device in (bed.lan.name, bed.outer.name):
            bed.gateway.run("ip", "link", "set", "dev", device, "xdp", "off", check=False)
        shutil.rmtree(_RUN / _prefix(), ignore_errors=True)


def _wait_until(words: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while words not in log.read_text(errors="replace"):
        if process.poll() is not None or time.monotonic() > deadline:
            lines = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
            raise NotPlaced(f"it did not start: {lines[-1]}")
        time.sleep(0.05)


def secgw_config(tunnel: Tunnel, macs: list[str]) -> str:
    """Return the configuration, keys included: SPD entries and SAs of each pair, routes, neighbours."""
    lines = []
    bits = tunnel.key_bits
    for index, pair in enumerate(tunnel.sas):
        far = remote_network(index)
        for way, spi, key, ends, selector in (
            ("out", pair.outbound_spi, pair.outbound_key, (tunnel.gateway, tunnel.peer), f"dst {far}"),
            (
                *("in", pair.inbound_spi, pair.inbound_key, (tunnel.peer, tunnel.gateway)),
                f"src {far} dst {LOCAL_NETWORK}",
            ),
        ):
            lines += [
                f"sp ipv4 {way} esp protect {spi} pri 1 {selector} sport 0:65535 dport 0:65535",
                f"sa {way} {spi} aead_algo aes-{bits}-gcm aead_key {_octets(key)} "
                f"mode ipv4-tunnel src {ends[0]} dst {ends[1]} type cpu-crypto",
            ]
    lines += [f"rt ipv4 dst {LOCAL_NETWORK} port 0", f"rt ipv4 dst {PEER}/32 port 1"]
    lines += [f"neigh port {port} {mac}" for port, mac in enumerate(macs)]
    return "\n".join([*lines, ""])


def _octets(key: Secret) -> str:
    return key.reveal().hex(":")
