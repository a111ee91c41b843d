"""Marks with SAs and policies of the kernel: Children with the same selectors are told apart by them."""

import socket
from dataclasses import replace

import pytest

from gateway.datapath.xfrm.backend import XfrmBackend
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.mark import Mark
from tests.conformance.sas import policy
from tests.guest.backend_rig import Peer, ip
from tests.guest.test_backend_traffic import PORT, couple, received, udp

pytestmark = pytest.mark.guest

BLUE, RED = Mark(0x10, 0xF0), Mark(0x20, 0xF0)


async def counted(backend: XfrmBackend) -> dict[str, int]:
    return {one.sa_id: one.packets for one in (await backend.counters()).sas}


async def test_a_packet_takes_the_child_of_its_mark_and_what_comes_back_is_taken_by_the_mark_it_gets(
    backend: XfrmBackend, peer: Peer
) -> None:
    sas = {}
    for number, mark in ((1, BLUE), (2, RED)):
        entry = policy(name=f"c/{number}", child=str(number), mark_in=mark, mark_out=mark)
        inbound, outbound = couple(number, child=str(number))
        changed = (
            replace(inbound, set_mark=mark),
            replace(outbound, mark=mark),
        )
        sas[number] = changed
        assert [result.error for result in await backend.apply_policies([entry])] == [None]
        assert [result.error for result in await backend.install_sas(changed)] == [None, None]
        # Marks are of this machine only.
        peer.install(inbound, outbound)
    peer.protect(policy(), sas[1][0])

    with udp("10.1.0.1") as ours, udp("10.2.0.1", peer.namespace) as theirs:
        for number, mark in ((1, BLUE), (2, RED)):
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark.value)
            ours.sendto(b"there", ("10.2.0.1", PORT))
            assert await received(theirs) == b"there"
            assert (await counted(backend))[sas[number][1].sa_id] == 1

        # The peer sends on the newest SA that it has: that of the second.
        theirs.sendto(b"back", ("10.1.0.1", PORT))
        assert await received(ours) == b"back"
        assert (await counted(backend))[sas[2][0].sa_id] == 1

    # All of it can be read, listed and removed by its mark.
    names = [sa.sa_id for pair in sas.values() for sa in pair]
    results = await backend.remove_sas(names)
    assert [result.error for result in results] == [None] * 4
    assert [result.counters and result.counters.packets for result in results] == [0, 1, 1, 1]


async def test_clear_packets_from_outside_are_dropped_without_a_mark_too(
    backend: XfrmBackend, peer: Peer
) -> None:
    entry = policy(mark_in=BLUE, mark_out=BLUE)
    assert [result.error for result in await backend.apply_policies([entry])] == [None]
    before = (await backend.counters()).drops.get(DropReason.CLEAR_INBOUND, 0)

    with udp("10.1.0.1") as ours, udp("10.2.0.1", peer.namespace) as theirs:
        theirs.sendto(b"clear", ("10.1.0.1", PORT))
        with pytest.raises(TimeoutError):
            await received(ours, 0.5)

    assert (await backend.counters()).drops[DropReason.CLEAR_INBOUND] > before


async def test_marks_are_there_as_the_kernel_lists_them(backend: XfrmBackend, peer: Peer) -> None:
    entry = policy(mark_in=BLUE, mark_out=RED)
    _, outbound = couple()
    assert [result.error for result in await backend.apply_policies([entry])] == [None]
    marked = replace(outbound, mark=RED, set_mark=Mark(7))
    assert [result.error for result in await backend.install_sas([marked])] == [None]

    state = ip("xfrm", "state")
    policies = ip("xfrm", "policy")

    assert "mark 0x20/0xf0" in state
    assert "output-mark 0x7" in state
    assert "mark 0x20/0xf0" in policies
