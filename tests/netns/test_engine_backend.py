"""The native engine's backend over an espd that keeps the books: what reaches it, and what outlives whom."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from gateway.datapath.backend import (
    Acquire,
    BadSpi,
    DatapathEvent,
    ErrorReason,
    HardExpire,
    MappingChange,
    SasLost,
    SoftExpire,
)
from gateway.datapath.engine import protocol as p
from gateway.datapath.engine.backend import EngineBackend
from gateway.datapath.engine.core import EventKind, Refusal, put_bytes
from gateway.datapath.engine.installation import RESERVED_PACKETS
from gateway.datapath.engine.options import EngineOptions
from gateway.datapath.software.tun import Tun
from gateway.datapath.watch import Watch
from gateway.host.errors import HostError
from gateway.host.sockets import PortOptions, open_ports
from gateway.ipsec.algorithms import Encr, Integ
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.lifetime import Lifetime, Limit
from gateway.ipsec.policy import Action
from gateway.ipsec.sa import SecurityAssociation, UdpEncapsulation
from gateway.ipsec.secret import Secret
from gateway.ipsec.selectors import TrafficSelector
from tests.conformance.namespace import fresh_network_namespace
from tests.conformance.sas import OURS, PEER, inbound, outbound, policy
from tests.fakes.espd import FakeLauncher, Refuse

pytestmark = pytest.mark.netns

NARROW = (TrafficSelector.parse("10.2.7.0/24"),)


@pytest.fixture
def launcher() -> Iterator[FakeLauncher]:
    with fresh_network_namespace("192.0.2.1/24", "10.1.0.1/16"):
        launcher = FakeLauncher(Tun)
        yield launcher
        for life in launcher.lives:
            life.end()


@asynccontextmanager
async def agent(
    launcher: FakeLauncher, folder: Path, cpus: tuple[int | None, ...] = (None,)
) -> AsyncIterator[EngineBackend]:
    """One life of the agent's backend."""
    ports = open_ports(PortOptions())
    backend = EngineBackend(EngineOptions(state_dir=folder, cpus=cpus), ports.esp, launcher=launcher)
    try:
        await backend.start()
        yield backend
    finally:
        await backend.close()
        ports.close()


@pytest.fixture
async def backend(launcher: FakeLauncher, tmp_path: Path) -> AsyncIterator[EngineBackend]:
    async with agent(launcher, tmp_path) as backend:
        yield backend


async def next_event(events: Watch[DatapathEvent]) -> DatapathEvent:
    return await asyncio.wait_for(anext(aiter(events)), 30)


async def until(is_so: Callable[[], bool]) -> None:
    """Let everything else go on until something is so."""
    async with asyncio.timeout(60):
        while not is_so():  # noqa: ASYNC110 - what others do to each other has no event for us
            await asyncio.sleep(0.001)


def carried_by(launcher: FakeLauncher, name_order: int) -> list[int]:
    """Return the SAs of the tunnel that an entry of the SPD leads to, by its place."""
    entry = launcher.espd.in_order()[name_order]
    return launcher.espd.tunnels[entry.tunnel]


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def rules() -> str:
    return ip("rule")


# --- SAs and tunnels ------------------------------------------------------------------------------


async def test_an_outbound_sa_takes_over_its_tunnel_and_the_spd_stays_as_it_is(
    launcher: FakeLauncher, backend: EngineBackend
) -> None:
    await backend.apply_policies([policy()])
    assert carried_by(launcher, 0) == []
    commits = launcher.espd.commits

    await backend.install_sas([outbound(0x2001)])
    (first,) = carried_by(launcher, 0)
    await backend.install_sas([outbound(0x2002, child_sa_id=2)])
    (second,) = carried_by(launcher, 0)

    assert launcher.espd.records[first].spi == 0x2001
    assert launcher.espd.records[second].spi == 0x2002
    assert launcher.espd.commits == commits

    await backend.remove_sas([outbound(0x2002).sa_id])
    assert carried_by(launcher, 0) == [first]


async def test_a_narrowed_sa_carries_its_part_and_the_rest_still_asks(
    launcher: FakeLauncher, backend: EngineBackend
) -> None:
    await backend.apply_policies([policy()])

    await backend.install_sas([outbound(remote_ts=NARROW)])

    narrow, rest = launcher.espd.in_order()
    assert bytes(narrow.selectors[1].start)[:4] == ip_address("10.2.7.0").packed
    assert len(launcher.espd.tunnels[narrow.tunnel]) == 1
    assert launcher.espd.tunnels[rest.tunnel] == []
    assert rest.acquire

    await backend.remove_sas([outbound().sa_id])
    (only,) = launcher.espd.in_order()
    assert launcher.espd.tunnels[only.tunnel] == []


async def test_keys_are_neither_kept_nor_noted(
    launcher: FakeLauncher, backend: EngineBackend, tmp_path: Path
) -> None:
    key = bytes(range(36))

    await backend.install_sas([outbound(encryption_key=Secret(key))])

    (message,) = launcher.espd.sas.values()
    assert bytes(message.params.encryption_key)[:36] == key
    (listed,) = await backend.list_sas()
    assert not len(listed.sa.encryption_key)
    assert key.hex() not in (tmp_path / "engine.journal").read_text()


async def test_a_key_that_sent_never_sends_again(launcher: FakeLauncher, backend: EngineBackend) -> None:
    sa = outbound()
    await backend.install_sas([sa])
    await backend.remove_sas([sa.sa_id])

    again, elsewhere = await backend.install_sas([sa, replace(sa, spi=0x2009)])

    for result in (again, elsewhere):
        assert result.error is not None
        assert result.error.reason is ErrorReason.SPI_IN_USE
    assert not launcher.espd.sas


async def test_another_integrity_key_makes_no_iv_new(launcher: FakeLauncher, backend: EngineBackend) -> None:
    def sealing(spi: int, integrity_key: bytes) -> SecurityAssociation:
        return outbound(
            spi=spi,
            encryption=Encr.AES_CTR,
            key_bits=128,
            encryption_key=Secret(bytes(range(20))),
            integrity=Integ.HMAC_SHA2_256_128,
            integrity_key=Secret(integrity_key),
        )

    first = sealing(0x2001, b"w" * 32)
    (installed,) = await backend.install_sas([first])
    await backend.remove_sas([first.sa_id])

    (again,) = await backend.install_sas([sealing(0x2002, b"x" * 32)])

    assert installed.ok
    assert again.error is not None
    assert again.error.reason is ErrorReason.SPI_IN_USE


async def test_an_spd_that_espd_refused_in_part_never_comes_in_force(
    launcher: FakeLauncher, backend: EngineBackend
) -> None:
    await backend.apply_policies([policy()])
    launcher.espd.refusals[p.MessageType.COMMIT] = Refuse(p.ControlError.FULL, "too many")

    (refused,) = await backend.apply_policies([policy("more", remote_ts=NARROW)])
    (taken,) = await backend.apply_policies([policy("other", action=Action.BYPASS, priority=5)])

    assert refused.error is not None
    assert refused.error.reason is ErrorReason.TABLE_FULL
    assert taken.ok
    assert [entry.action for entry in launcher.espd.in_order()] == [
        p.PolicyAction.BYPASS,
        p.PolicyAction.PROTECT,
    ]
    assert [entry.name for entry in await backend.list_policies()] == ["other", "paris/lan"]


async def test_a_key_that_was_refused_may_be_tried_again(
    launcher: FakeLauncher, backend: EngineBackend
) -> None:
    launcher.espd.refusals[p.MessageType.SA_ADD] = Refuse(Refusal.MEMORY, "no memory")
    sa = outbound()

    (refused,) = await backend.install_sas([sa])
    (taken,) = await backend.install_sas([sa])

    assert refused.error is not None
    assert (refused.error.reason, refused.error.is_spent) == (ErrorReason.TABLE_FULL, False)
    assert taken.ok


async def test_more_sequence_numbers_are_noted_before_they_are_granted(
    launcher: FakeLauncher, backend: EngineBackend, tmp_path: Path
) -> None:
    await backend.install_sas([outbound()])
    (cookie,) = launcher.espd.records
    assert launcher.espd.records[cookie].sequence_limit == 1 + RESERVED_PACKETS

    launcher.espd.tell_of_sa(cookie, EventKind.RESERVE, sequence=200_000_000)

    limit = 200_000_000 + RESERVED_PACKETS
    await until(lambda: launcher.espd.records[cookie].sequence_limit == limit)
    assert f'"sequence_limit":{limit}' in (tmp_path / "engine.journal").read_text()


async def test_spis_have_places_of_their_own(launcher: FakeLauncher, backend: EngineBackend) -> None:
    mask = (1 << EngineOptions().inbound_bits) - 1
    spis = await backend.allocate_spis(500)

    results = await backend.install_sas([inbound(spi) for spi in spis])
    more = await backend.allocate_spis(500)

    assert all(result.ok for result in results)
    assert len({spi & mask for spi in (*spis, *more)}) == 1000


async def test_a_lifetime_in_seconds_ends_an_sa_that_stays_listed(
    launcher: FakeLauncher, backend: EngineBackend
) -> None:
    await backend.apply_policies([policy()])
    events = backend.events()
    sa = outbound(lifetime=Lifetime(soft=Limit(seconds=0.05), hard=Limit(seconds=0.1)))

    await backend.install_sas([sa])

    assert await next_event(events) == SoftExpire(sa_id=sa.sa_id, spi=sa.spi, limit="seconds")
    assert await next_event(events) == HardExpire(sa_id=sa.sa_id, spi=sa.spi, limit="seconds")
    assert carried_by(launcher, 0) == []
    assert not launcher.espd.sas
    assert [item.sa.sa_id for item in await backend.list_sas()] == [sa.sa_id]
    (removed,) = await backend.remove_sas([sa.sa_id])
    assert removed.counters is not None


async def test_drops_of_sas_are_not_counted_twice(launcher: FakeLauncher, backend: EngineBackend) -> None:
    await backend.install_sas([inbound(), inbound(0x1002)])
    replay, unknown = (
        list(DropReason).index(reason) + 1 for reason in (DropReason.REPLAY, DropReason.UNKNOWN_SPI)
    )
    for record in launcher.espd.records.values():
        record.usage.drops[replay] = 3
    launcher.espd.drops[replay], launcher.espd.drops[unknown] = 6, 5

    before = await backend.counters()
    await backend.remove_sas([inbound().sa_id])
    after = await backend.counters()

    assert [sa.drops for sa in before.sas] == [{DropReason.REPLAY: 3}] * 2
    assert before.drops == after.drops == {DropReason.UNKNOWN_SPI: 5}


# --- events ---------------------------------------------------------------------------------------

LIMITS = {
    EventKind.SOFT_PACKETS: (SoftExpire, "packets"),
    EventKind.SOFT_BYTES: (SoftExpire, "bytes"),
    EventKind.SOFT_SEQUENCE: (SoftExpire, "sequence"),
    EventKind.HARD_PACKETS: (HardExpire, "packets"),
    EventKind.HARD_BYTES: (HardExpire, "bytes"),
    EventKind.HARD_SEQUENCE: (HardExpire, "sequence"),
}


@pytest.mark.parametrize("kind", LIMITS, ids=lambda kind: kind.name.lower())
async def test_limits_that_espd_tells_are_told_on(
    launcher: FakeLauncher, backend: EngineBackend, kind: EventKind
) -> None:
    sa = outbound()
    await backend.install_sas([sa])
    events = backend.events()
    (cookie,) = launcher.espd.records

    launcher.espd.tell_of_sa(cookie, kind)

    event, limit = LIMITS[kind]
    assert await next_event(events) == event(sa_id=sa.sa_id, spi=sa.spi, limit=limit)


async def test_an_acquire_names_the_entry_and_the_packet(
    launcher: FakeLauncher, backend: EngineBackend
) -> None:
    await backend.apply_policies(
        [policy(), policy("other", action=Action.BYPASS, remote_ts=NARROW, priority=5)]
    )
    events = backend.events()
    (number,) = (entry.policy for entry in launcher.espd.in_order() if entry.acquire and entry.tunnel)
    event = p.AcquireEvent(policy=number, source_port=5, destination_port=6, family=4, protocol=17)
    put_bytes(event.source, ip_address("10.1.0.1").packed)
    put_bytes(event.destination, ip_address("10.2.0.1").packed)

    launcher.espd.tell(p.MessageType.EVENT_ACQUIRE, event)

    assert await next_event(events) == Acquire(
        policy="paris/lan",
        source=ip_address("10.1.0.1"),
        destination=ip_address("10.2.0.1"),
        protocol=17,
        source_port=5,
        destination_port=6,
    )


async def test_an_unknown_spi_is_told_unless_its_sa_is_about_to_come(
    launcher: FakeLauncher, backend: EngineBackend
) -> None:
    (reserved,) = await backend.allocate_spis(1)
    events = backend.events()

    for spi in (reserved, 0xDEAD):
        event = p.BadSpiEvent(spi=spi, family=4, protocol=50)
        put_bytes(event.source, PEER.packed)
        put_bytes(event.destination, OURS.packed)
        launcher.espd.tell(p.MessageType.EVENT_BAD_SPI, event)

    told = await next_event(events)
    assert isinstance(told, BadSpi)
    assert (told.spi, told.source, told.destination) == (0xDEAD, PEER, OURS)


async def test_a_peer_that_moves_is_followed(launcher: FakeLauncher, backend: EngineBackend) -> None:
    ports = UdpEncapsulation(source_port=4500, destination_port=4500)
    sas = inbound(encapsulation=ports), outbound(encapsulation=ports)
    await backend.install_sas(sas)
    events = backend.events()
    coming, going = sorted(launcher.espd.records)
    new = ip_address("192.0.2.77"), 40123
    message = p.SaEvent()
    message.event.cookie, message.event.kinds = coming, EventKind.NAT_MOVED
    message.event.port, message.event.family = new[1], 4
    put_bytes(message.event.address, new[0].packed)

    launcher.espd.tell(p.MessageType.EVENT_SA, message)

    assert await next_event(events) == MappingChange(
        sa_id=sas[0].sa_id, spi=sas[0].spi, old=(PEER, 4500), new=new
    )
    moved = launcher.espd.records[going]
    assert (bytes(moved.destination)[:4], moved.udp_destination_port) == (new[0].packed, new[1])


# --- who outlives whom ----------------------------------------------------------------------------


async def test_the_next_agent_adopts_sas_policies_and_tunnels(launcher: FakeLauncher, tmp_path: Path) -> None:
    sas = inbound(), outbound()
    async with agent(launcher, tmp_path) as first:
        await first.apply_policies([policy("a", priority=1), policy()], 3)
        await first.install_sas(sas, 3)
        tunnel = launcher.espd.in_order()[1].tunnel
        before = launcher.espd.tunnels[tunnel]

    async with agent(launcher, tmp_path) as second:
        assert len(launcher.lives) == 1
        assert {item.sa.sa_id for item in await second.list_sas()} == {sa.sa_id for sa in sas}
        assert [entry.name for entry in await second.list_policies()] == ["a", "paris/lan"]
        assert launcher.espd.in_order()[1].tunnel == tunnel
        assert launcher.espd.tunnels[tunnel] == before

        same, other = await second.install_sas([sas[1], replace(sas[0], encryption_key=Secret(bytes(36)))], 4)
        assert same.ok
        assert other.error is not None
        assert other.error.reason is ErrorReason.SPI_IN_USE
        assert {item.generation for item in await second.list_sas()} == {3, 4}
        assert await second.reconcile(4) == (sas[0].sa_id, "a", "paris/lan")


async def test_sas_that_nobody_noted_are_taken_out_of_espd(launcher: FakeLauncher, tmp_path: Path) -> None:
    async with agent(launcher, tmp_path) as first:
        await first.install_sas([inbound()])
    journal = tmp_path / "engine.journal"
    journal.write_text("".join(line for line in journal.open() if not line.startswith('["sa"')))

    async with agent(launcher, tmp_path) as second:
        assert await second.list_sas() == ()
        assert not launcher.espd.sas


async def test_without_a_journal_the_old_espd_ends_and_a_new_one_starts(
    launcher: FakeLauncher, tmp_path: Path
) -> None:
    async with agent(launcher, tmp_path) as first:
        await first.install_sas([inbound()])
    (tmp_path / "engine.journal").unlink()

    async with agent(launcher, tmp_path) as second:
        assert len(launcher.lives) == 2
        assert launcher.lives[0].has_ended
        assert await second.list_sas() == ()


async def test_an_agent_has_an_espd_of_another_build_handed_over_to_a_new_one_with_its_sas(
    launcher: FakeLauncher, tmp_path: Path
) -> None:
    sas = inbound(), outbound()
    async with agent(launcher, tmp_path) as first:
        await first.install_sas(sas)
    launcher.program = "second"

    async with agent(launcher, tmp_path) as second:
        assert {sa.sa.sa_id for sa in await second.list_sas()} == {sa.sa_id for sa in sas}
        assert launcher.espd.build == b"second"
        assert len(launcher.lives) == 1


async def test_an_espd_that_cannot_be_handed_over_carries_on_with_its_sas(
    launcher: FakeLauncher, tmp_path: Path
) -> None:
    sas = inbound(), outbound()
    async with agent(launcher, tmp_path) as first:
        await first.install_sas(sas)
    launcher.program, launcher.refuses_succession = "second", True

    async with agent(launcher, tmp_path) as second:
        assert {sa.sa.sa_id for sa in await second.list_sas()} == {sa.sa_id for sa in sas}
        assert launcher.espd.build == b"first"


async def test_when_espd_dies_its_sas_are_lost_their_keys_spent_and_a_new_one_has_the_spd(
    launcher: FakeLauncher, backend: EngineBackend
) -> None:
    sas = inbound(), outbound()
    await backend.apply_policies([policy()])
    await backend.install_sas(sas)
    events = backend.events()

    launcher.espd.end()

    lost = await next_event(events)
    assert isinstance(lost, SasLost)
    assert set(lost.sa_ids) == {sa.sa_id for sa in sas}
    assert await backend.list_sas() == ()
    again, fresh = await backend.install_sas([sas[1], outbound(0x2002)])
    assert again.error is not None
    assert again.error.reason is ErrorReason.SPI_IN_USE
    assert fresh.ok
    assert len(launcher.lives) == 2
    (cookie,) = carried_by(launcher, 0)
    assert launcher.espd.records[cookie].spi == 0x2002
    assert "lookup 4502" in rules()


async def test_an_espd_that_cannot_be_started_again_is_tried_again(
    launcher: FakeLauncher, backend: EngineBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.datapath.engine.backend._RETRY_S", 0.05)
    await backend.apply_policies([policy()])
    await backend.install_sas([outbound()])
    events = backend.events()
    launcher.failures += [HostError("no such file"), HostError("no such file")]

    launcher.espd.end()

    assert isinstance(await next_event(events), SasLost)
    await until(lambda: len(launcher.lives) == 2 and bool(launcher.espd.policies))
    (result,) = await backend.install_sas([outbound(0x2002)])
    assert result.ok


async def test_an_espd_that_only_hung_up_keeps_its_sas(
    launcher: FakeLauncher, backend: EngineBackend
) -> None:
    await backend.apply_policies([policy()])
    await backend.install_sas([outbound()])
    hellos = launcher.espd.asked.count(p.MessageType.HELLO)

    launcher.espd.hang_up()

    await until(lambda: launcher.espd.asked.count(p.MessageType.HELLO) > hellos)
    (removed,) = await backend.remove_sas([outbound().sa_id])
    assert removed.counters is not None
    assert len(launcher.lives) == 1


async def test_an_espd_of_another_version_is_an_error_that_says_what_to_do(
    launcher: FakeLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with agent(launcher, tmp_path):
        pass
    launcher.espd.refusals[p.MessageType.HELLO] = Refuse(p.ControlError.VERSION)

    with pytest.raises(HostError, match="make engine"):
        async with agent(launcher, tmp_path):
            pass


async def test_an_espd_with_other_options_is_an_error_that_says_what_to_do(
    launcher: FakeLauncher, tmp_path: Path
) -> None:
    async with agent(launcher, tmp_path):
        pass

    with pytest.raises(HostError, match="give it the options of the agent before it, or end espd first"):
        async with agent(launcher, tmp_path, cpus=(0, 1)):
            pass


async def test_addresses_of_the_machine_are_followed_as_those_of_icmp_errors(
    launcher: FakeLauncher, tmp_path: Path
) -> None:
    def told() -> set[str]:
        return {str(ip_address(bytes(device.address4))) for device in launcher.espd.devices.values()}

    async with agent(launcher, tmp_path):
        assert told() == {"192.0.2.1"}

        # Another one of the link comes behind its first; one of `lo`, the first link, before it.
        ip("address", "add", "192.0.2.7/24", "dev", "outside")
        ip("address", "add", "10.7.0.1/32", "dev", "lo")
        await until(lambda: told() == {"10.7.0.1"})

        ip("address", "del", "10.7.0.1/32", "dev", "lo")
        await until(lambda: told() == {"192.0.2.1"})
    before = launcher.espd.asked.count(p.MessageType.DEVICE_SET)
    async with agent(launcher, tmp_path):
        assert told() == {"192.0.2.1"}
        assert launcher.espd.asked.count(p.MessageType.DEVICE_SET) == before + len(launcher.espd.devices)


async def test_nonsense_of_espd_ends_the_connection_and_not_the_agent(
    launcher: FakeLauncher, backend: EngineBackend
) -> None:
    await backend.install_sas([outbound()])

    launcher.espd.say(b"nonsense")

    await until(lambda: launcher.espd.asked.count(p.MessageType.HELLO) == 2)
    (result,) = await backend.install_sas([outbound(0x2002)])
    assert result.ok


async def test_removing_the_protection_ends_espd_and_leaves_nothing(
    launcher: FakeLauncher, tmp_path: Path
) -> None:
    async with agent(launcher, tmp_path) as backend:
        await backend.apply_policies([policy()])
        await backend.remove_protection()

        assert launcher.espd.has_ended
        assert "4502" not in rules()
    assert os.listdir(tmp_path) == []
