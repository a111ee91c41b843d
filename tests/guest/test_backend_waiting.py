"""Packets that come before their SA: what the kernel does with them, and which of its settings say so."""

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from gateway.datapath.backend import Acquire
from gateway.datapath.xfrm.backend import XfrmBackend
from gateway.datapath.xfrm.statistics import read_statistics
from tests.conformance.sas import policy
from tests.guest.backend_rig import Peer
from tests.guest.test_backend_traffic import PORT, couple, next_of, received, udp

pytestmark = pytest.mark.guest

BY_ITSELF = {"xfrm_larval_drop": "1", "xfrm_acq_expires": "30"}
ASKING = policy(remote_address=ip_address("192.0.2.2"))


@contextmanager
def setting(name: str, value: str) -> Iterator[None]:
    """Set something of net.core in this network namespace, and set it back to what Linux has by itself."""
    path = Path(f"/proc/sys/net/core/{name}")
    before = path.read_text()
    assert before.strip() == BY_ITSELF[name]
    path.write_text(value)
    try:
        yield
    finally:
        path.write_text(before)


@pytest.mark.parametrize(
    ("drops", "first", "patience_s"),
    [
        # The kernel looks whether it can send on after a tenth of a second, and twice as long each time.
        pytest.param("1", b"second", 1.0, id="drops"),
        pytest.param("0", b"first", 30.0, id="holds"),
    ],
)
async def test_kernel_drops_what_asks_for_an_sa_or_holds_it(
    backend: XfrmBackend, peer: Peer, drops: str, first: bytes, patience_s: float
) -> None:
    """`net.core.xfrm_larval_drop`."""
    events = backend.events()
    sas = couple()
    peer.install(*sas)
    peer.protect(ASKING, sas[0])

    with (
        setting("xfrm_larval_drop", drops),
        udp("10.1.0.1") as here,
        udp("10.2.0.1", peer.namespace) as there,
    ):
        await backend.apply_policies([ASKING])
        with contextlib.suppress(OSError):
            here.sendto(b"first", ("10.2.0.1", PORT))
        await next_of(events, Acquire)
        await backend.install_sas(sas)
        with contextlib.suppress(TimeoutError):
            assert await received(there, patience_s) == b"first"
            assert first == b"first"
            return
        here.sendto(b"second", ("10.2.0.1", PORT))
        assert await received(there) == first == b"second"


async def test_kernel_asks_again_only_when_it_has_waited_long_enough(
    backend: XfrmBackend, peer: Peer
) -> None:
    """`net.core.xfrm_acq_expires`, in seconds: until then it takes the first question for unanswered."""
    events = backend.events()
    with setting("xfrm_acq_expires", "1"), udp("10.1.0.1") as here:
        await backend.apply_policies([ASKING])
        loop = asyncio.get_running_loop()
        # Before the first question, so that what is late here makes the time between both longer.
        began_at, heard = loop.time(), 0
        while heard < 2:
            with contextlib.suppress(OSError):
                here.sendto(b"anybody?", ("10.2.0.1", PORT))
            with contextlib.suppress(TimeoutError):
                await next_of(events, Acquire, 0.1)
                heard += 1

    assert loop.time() - began_at > 0.5


async def test_packet_for_an_spi_that_is_only_reserved_is_dropped_and_counted(
    backend: XfrmBackend, peer: Peer
) -> None:
    """As a peer sends it that has a new Child SA before we can have it; see `software/early.py`."""
    sas = couple()
    await backend.apply_policies([policy()])
    peer.install(*sas)
    peer.protect(policy(), sas[0])
    before = read_statistics()["XfrmInNoStates"]

    with udp("10.1.0.1") as here, udp("10.2.0.1", peer.namespace) as there:
        there.sendto(b"early", ("10.1.0.1", PORT))
        async with asyncio.timeout(30):
            while read_statistics()["XfrmInNoStates"] == before:  # noqa: ASYNC110 - the kernel only counts
                await asyncio.sleep(0.05)
        await backend.install_sas(sas)
        there.sendto(b"in time", ("10.1.0.1", PORT))

        assert await received(here) == b"in time"
