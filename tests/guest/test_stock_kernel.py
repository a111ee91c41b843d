"""Debian's stock kernel in QEMU: its own crypto drivers, two CPUs, and modules that their first use loads."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gateway.datapath.xfrm.backend import XfrmBackend
from gateway.hardware.facts import Answer
from gateway.hardware.machine import probe_machine
from gateway.ipsec.algorithms import Encr
from tests.conformance.sas import outbound
from tests.guest.backend_rig import Peer
from tests.guest.test_backend_traffic import KERNEL, PORT, bring_up, received, udp

pytestmark = [pytest.mark.slow, pytest.mark.guest(kernel="stock", timeout_s=600.0)]

CPUS = 2
PATIENCE_S = 60.0


@contextmanager
def on_cpu(number: int) -> Iterator[None]:
    """Run on one CPU only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {number})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def test_it_is_debians_own_with_two_cpus() -> None:
    assert os.uname().release.endswith("-amd64")
    assert "Debian" in os.uname().version
    assert os.cpu_count() == CPUS


async def test_packets_pass_protected_both_ways(backend: XfrmBackend, peer: Peer) -> None:
    await bring_up(backend, peer)

    with udp("10.1.0.1") as ours, udp("10.2.0.1", peer.namespace) as theirs:
        ours.sendto(b"there", ("10.2.0.1", PORT))
        assert await received(theirs, PATIENCE_S) == b"there"
        theirs.sendto(b"back", ("10.1.0.1", PORT))
        assert await received(ours, PATIENCE_S) == b"back"

    assert [counted.packets for counted in (await backend.counters()).sas] == [1, 1]


async def test_it_has_the_algorithms_of_rfc_8221(backend: XfrmBackend) -> None:
    capabilities = await backend.capabilities()

    wanted = {
        (Encr.AES_GCM_16, 256),
        (Encr.CHACHA20_POLY1305, 256),
        (Encr.AES_CBC, 256),
        (Encr.AES_CCM_8, 128),
    }
    assert wanted <= set(capabilities.encryption)


async def test_each_cpu_sends_on_its_own_sa_and_else_on_the_one_for_all(
    backend: XfrmBackend, peer: Peer
) -> None:
    assert (await backend.capabilities()).cpus == CPUS
    await bring_up(backend, peer)
    spis = {None: 0x2001, 0: 0x2010, 1: 0x2011}
    for cpu in range(CPUS):
        sa = outbound(spis[cpu], child_sa_id=spis[cpu], placement=KERNEL, cpu=cpu)
        assert [result.error for result in await backend.install_sas([sa])] == [None]
        peer.install(sa)

    async def counted() -> dict[int, int]:
        counters = (await backend.counters()).sas
        return {int(one.sa_id[-8:], 16): one.packets for one in counters if one.sa_id.startswith("out")}

    with udp("10.1.0.1") as ours, udp("10.2.0.1", peer.namespace) as theirs:

        async def send(cpu: int, count: int) -> None:
            with on_cpu(cpu):
                for _ in range(count):
                    ours.sendto(b"x", ("10.2.0.1", PORT))
                    assert await received(theirs, PATIENCE_S) == b"x"

        await send(0, 3)
        await send(1, 5)
        assert await counted() == {spis[None]: 0, spis[0]: 3, spis[1]: 5}

        # Without one of its own a CPU falls back to that for all.
        of_cpu_1 = outbound(spis[1], child_sa_id=spis[1], placement=KERNEL, cpu=1)
        await backend.remove_sas([of_cpu_1.sa_id])
        await send(1, 2)
        assert await counted() == {spis[None]: 2, spis[0]: 3}


def test_the_probe_names_its_drivers() -> None:
    # As udev does at a boot, by the features of the processor; its self-tests end before it is there.
    subprocess.run(["modprobe", "aesni_intel"], check=True)

    kernel = probe_machine(()).kernel

    (gcm,) = [crypto for crypto in kernel.crypto if crypto.name == "rfc4106(gcm(aes))"]
    assert gcm.available.answer is Answer.YES
    assert gcm.accelerated.answer is Answer.YES, gcm
    assert "aesni" in gcm.driver
    assert kernel.vendor == "Debian"
