"""What a new life of the agent makes of the SAs and policies that the kernel kept."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from gateway.datapath.backend import SaCounters
from gateway.datapath.xfrm.backend import XfrmBackend
from gateway.datapath.xfrm.netlink import XfrmSocket
from gateway.datapath.xfrm.options import XfrmOptions
from gateway.ipsec.lifetime import Lifetime, Limit
from gateway.ipsec.policy import Action
from gateway.ipsec.sa import SaId, Spi
from gateway.ipsec.secret import Secret
from gateway.ipsec.selectors import TrafficSelector
from tests.conformance.sas import inbound, policy
from tests.guest.backend_rig import Peer, beside_a_peer
from tests.guest.test_backend_traffic import PORT, bring_up, couple, received, udp

pytestmark = pytest.mark.guest


@pytest.fixture
def peer() -> Iterator[Peer]:
    with beside_a_peer() as made:
        yield made


HOST = TrafficSelector.parse("10.1.77.1")


async def counted(backend: XfrmBackend) -> dict[SaId, SaCounters]:
    """Return the counters of each SA, but when it was used last."""
    return {item.sa_id: replace(item, last_used_s_ago=None) for item in (await backend.counters()).sas}


@asynccontextmanager
async def life(journal: Path | None) -> AsyncIterator[XfrmBackend]:
    """One life of the agent, which leaves everything in the kernel."""
    backend = XfrmBackend(XfrmOptions(journal=journal))
    await backend.start()
    yield backend
    await backend.close()


async def test_new_life_has_the_sas_and_policies_of_the_last_with_their_counters(
    peer: Peer, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    lifetime = Lifetime(soft=Limit(seconds=1234.5, packets=10**6), hard=Limit(bytes=10**12))
    async with life(journal) as first:
        sas = await bring_up(first, peer, lifetime=lifetime, local_ts=(TrafficSelector.parse("10.1.0.0/16"),))
        await first.apply_policies([policy("no", action=Action.DISCARD, priority=7, local_ts=(HOST,))])
        with udp("10.1.0.1") as here, udp("10.2.0.1", peer.namespace) as there:
            here.sendto(b"x", ("10.2.0.1", PORT))
            await received(there)
        policies = await first.list_policies()
        before = await counted(first)

    async with life(journal) as second:
        assert [item.sa for item in await second.list_sas()] == list(sas)
        assert await second.list_policies() == policies
        assert {
            item.sa_id: replace(item, last_used_s_ago=None) for item in (await second.counters()).sas
        } == {sa_id: replace(item, last_used_s_ago=None) for sa_id, item in before.items()}
        with udp("10.1.0.1") as here, udp("10.2.0.1", peer.namespace) as there:
            here.sendto(b"again", ("10.2.0.1", PORT))
            assert await received(there) == b"again"
        sent = {item.sa_id: item.sequence for item in (await second.counters()).sas}
        assert sent[sas[1].sa_id] == before[sas[1].sa_id].sequence + 1


async def test_adopted_sa_is_rekeyed_and_removed_like_any_other(peer: Peer, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    async with life(journal) as first:
        old = await bring_up(first, peer)
    new = couple(2)

    async with life(journal) as second:
        assert [result.error for result in await second.install_sas(new)] == [None, None]
        peer.install(*new)
        with udp("10.1.0.1") as here, udp("10.2.0.1", peer.namespace) as there:
            here.sendto(b"new", ("10.2.0.1", PORT))
            await received(there)
        packets = {item.sa_id: item.packets for item in (await second.counters()).sas}
        assert (packets[old[1].sa_id], packets[new[1].sa_id]) == (0, 1)
        await second.remove_sas([sa.sa_id for sa in old])
        assert [item.sa for item in await second.list_sas()] == list(new)

    async with life(journal) as third:
        assert [item.sa for item in await third.list_sas()] == list(new)


async def test_key_of_an_adopted_outbound_sa_cannot_be_installed_again(peer: Peer, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    async with life(journal) as first:
        _, sending = await bring_up(first, peer)
    again = replace(sending, spi=Spi(0x2999), encryption_key=Secret(sending.encryption_key.reveal()))

    async with life(journal) as second:
        (result,) = await second.install_sas([again])

    assert result.error is not None
    assert "IVs" in str(result.error)


async def test_without_a_journal_what_was_left_stays_in_force_until_everything_is_known(peer: Peer) -> None:
    async with life(None) as first:
        await bring_up(first, peer)

    async with life(None) as second:
        assert await second.list_sas() == ()
        # A wide BYPASS of the new life comes behind what the old one protected.
        everything = (TrafficSelector.parse("0.0.0.0/0"),)
        await second.apply_policies(
            [policy("all", action=Action.BYPASS, priority=1, local_ts=everything, remote_ts=everything)], 2
        )
        with udp("10.1.0.1") as here, udp("10.2.0.1", peer.namespace) as there:
            here.sendto(b"still", ("10.2.0.1", PORT))
            assert await received(there) == b"still"
            with XfrmSocket() as kernel:
                assert sum(sa.body.usage.packets for sa in kernel.sas()) == 1

            await second.reconcile(2)

            with XfrmSocket() as kernel:
                assert kernel.sas() == ()
                kept = {one.body.action for one in kernel.policies() if one.body.selector.user}
                assert len(kept) == 1
            assert [entry.name for entry in await second.list_policies()] == ["all"]


async def test_policy_of_the_last_life_is_taken_over_by_the_same_one_of_the_new(peer: Peer) -> None:
    async with life(None) as first:
        await first.apply_policies([policy(remote_address=ip_address("192.0.2.2"))])

    async with life(None) as second:
        await second.apply_policies([policy(remote_address=ip_address("192.0.2.2"))], 2)
        with XfrmSocket() as kernel:
            before = {(one.body.direction, one.body.selector) for one in ours(kernel)}

            await second.reconcile(2)

            assert {(one.body.direction, one.body.selector) for one in ours(kernel)} == before != set()


def ours(kernel: XfrmSocket) -> list[object]:
    return [one for one in kernel.policies() if one.body.selector.user]


async def test_journal_has_no_key_and_is_for_its_owner_only(peer: Peer, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    key = bytes(range(64, 100))
    async with life(journal) as first:
        await first.install_sas([inbound(encryption_key=Secret(key))])

    assert key.hex() not in journal.read_text()
    assert str(list(key)) not in journal.read_text()
    assert journal.stat().st_mode & 0o077 == 0


async def test_removed_protection_leaves_nothing_of_ours(peer: Peer, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    async with life(journal) as first:
        await bring_up(first, peer)

    cleaner = XfrmBackend(XfrmOptions(journal=journal))
    await cleaner.remove_protection()
    await cleaner.close()

    with XfrmSocket() as kernel:
        assert kernel.sas() == ()
        assert ours(kernel) == []
    assert not journal.exists()
