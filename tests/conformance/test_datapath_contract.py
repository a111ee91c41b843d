"""The contract of `Datapath`, for every backend and every fake."""

import asyncio
from dataclasses import replace
from ipaddress import ip_address

import pytest

from gateway.datapath.backend import Datapath, ErrorReason, ItemResult
from gateway.ipsec.algorithms import Encr
from gateway.ipsec.lifetime import Lifetime, Limit
from gateway.ipsec.placement import Engine, Placement
from gateway.ipsec.policy import Action
from gateway.ipsec.sa import IpsecProtocol, Mode, SaId, SecurityAssociation
from gateway.ipsec.secret import Secret
from gateway.ipsec.selectors import TrafficSelector
from tests.conformance.sas import OURS, inbound, outbound, policy


def without_keys(sa: SecurityAssociation) -> SecurityAssociation:
    """An SA as it may be compared: keys are not read back over the API."""
    return replace(sa, encryption_key=Secret(b""), integrity_key=Secret(b""))


def reasons(results: tuple[ItemResult, ...]) -> list[ErrorReason | None]:
    return [None if result.error is None else result.error.reason for result in results]


# --- capabilities ---------------------------------------------------------------------------------


async def test_capabilities_name_what_every_datapath_must_carry(datapath: Datapath) -> None:
    capabilities = await datapath.capabilities()

    assert (Encr.AES_GCM_16, 256) in capabilities.encryption
    assert (Encr.AES_CBC, 256) in capabilities.encryption
    assert set(capabilities.modes) == {Mode.TUNNEL, Mode.TRANSPORT}
    assert IpsecProtocol.ESP in capabilities.protocols
    assert capabilities.udp_encapsulation
    assert capabilities.max_replay_window_packets >= 1024
    assert capabilities.engines


# --- SPIs -----------------------------------------------------------------------------------------


async def test_spis_are_legal_and_never_given_twice(datapath: Datapath) -> None:
    first = await datapath.allocate_spis(200)
    second = await datapath.allocate_spis(200, OURS)

    assert len({*first, *second}) == 400
    assert all(256 <= spi <= 0xFFFFFFFF for spi in (*first, *second))


async def test_no_spis_are_no_spis(datapath: Datapath) -> None:
    assert await datapath.allocate_spis(0) == ()


async def test_sa_with_an_allocated_spi_is_installed(datapath: Datapath) -> None:
    (spi,) = await datapath.allocate_spis(1)

    results = await datapath.install_sas([inbound(spi)])

    assert reasons(results) == [None]


# --- SAs ------------------------------------------------------------------------------------------


async def test_installed_sas_are_listed_with_their_placement(datapath: Datapath) -> None:
    sas = (inbound(), outbound())

    results = await datapath.install_sas(sas, 3)

    assert [result.name for result in results] == [sa.sa_id for sa in sas]
    engines = (await datapath.capabilities()).engines
    assert all(result.placement in engines for result in results)
    listed = {item.sa.sa_id: item for item in await datapath.list_sas()}
    assert [without_keys(listed[sa.sa_id].sa) for sa in sas] == [without_keys(sa) for sa in sas]
    assert [listed[sa.sa_id].generation for sa in sas] == [3, 3]


async def test_empty_batches_are_answered_empty(datapath: Datapath) -> None:
    assert await datapath.install_sas([]) == ()
    assert await datapath.remove_sas([]) == ()
    assert await datapath.apply_policies([]) == ()
    assert await datapath.remove_policies([]) == ()


async def test_installing_the_same_again_is_a_success_without_effect(datapath: Datapath) -> None:
    sa = outbound()
    await datapath.install_sas([sa], 1)

    results = await datapath.install_sas([replace(sa, encryption_key=Secret(sa.encryption_key.reveal()))], 2)

    assert reasons(results) == [None]
    (listed,) = await datapath.list_sas()
    assert listed.generation == 2


async def test_other_contents_under_the_same_name_are_refused(datapath: Datapath) -> None:
    sa = inbound()
    await datapath.install_sas([sa])

    results = await datapath.install_sas(
        [replace(sa, encryption_key=Secret(bytes(36))), inbound(0x1002), replace(sa, esn=True)]
    )

    assert reasons(results) == [ErrorReason.SPI_IN_USE, None, ErrorReason.SPI_IN_USE]
    assert {item.sa.spi for item in await datapath.list_sas()} == {0x1001, 0x1002}
    held = next(item.sa for item in await datapath.list_sas() if item.sa.spi == 0x1001)
    assert without_keys(held) == without_keys(sa)


async def test_one_spi_may_serve_two_destinations(datapath: Datapath) -> None:
    there = outbound(0x3001, destination=ip_address("192.0.2.3"))

    results = await datapath.install_sas([outbound(0x3001), there])

    assert reasons(results) == [None, None]


async def test_removed_sas_are_gone_and_removing_is_idempotent(datapath: Datapath) -> None:
    sa = inbound()
    await datapath.install_sas([sa])

    first = await datapath.remove_sas([sa.sa_id, SaId("in:esp:192.0.2.1:0000dead")])
    second = await datapath.remove_sas([sa.sa_id])

    assert reasons(first) == [None, None]
    assert reasons(second) == [None]
    assert await datapath.list_sas() == ()
    # What it had counted is told once, when it goes.
    assert [result.counters and result.counters.packets for result in (*first, *second)] == [0, None, None]


async def test_counters_of_a_new_sa_are_zero(datapath: Datapath) -> None:
    sas = (inbound(), outbound())
    await datapath.install_sas(sas)

    counters = await datapath.counters()

    assert {count.sa_id for count in counters.sas} == {sa.sa_id for sa in sas}
    assert all((c.packets, c.bytes, c.sequence, c.drops) == (0, 0, 0, {}) for c in counters.sas)
    assert all(count.last_used_s_ago is None for count in counters.sas)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"encryption": Encr.BLOWFISH}, ErrorReason.ALGORITHM_UNSUPPORTED),
        ({"protocol": IpsecProtocol.AH}, ErrorReason.ALGORITHM_UNSUPPORTED),
        ({"encryption_key": Secret(bytes(20))}, ErrorReason.KEY_LENGTH),
        ({"key_bits": 128}, ErrorReason.KEY_LENGTH),
        ({"placement": Placement(require=Engine.NIC_PACKET)}, ErrorReason.PLACEMENT_UNAVAILABLE),
    ],
)
async def test_what_cannot_be_carried_is_refused_item_by_item(
    engine: Datapath, changes: dict[str, object], reason: ErrorReason
) -> None:
    good = outbound(0x4001)

    results = await engine.install_sas([replace(outbound(), **changes), good])

    assert reasons(results) == [reason, None]
    assert [without_keys(item.sa) for item in await engine.list_sas()] == [without_keys(good)]


async def test_traffic_of_a_virtual_interface_is_carried_or_refused_in_sas_and_policies_alike(
    engine: Datapath,
) -> None:
    sas = await engine.install_sas([inbound(interface_id=7), outbound(interface_id=7)])
    policies = await engine.apply_policies([policy(interface_id=7)])

    assert set(reasons(sas)) == set(reasons(policies)) <= {None, ErrorReason.MODE_UNSUPPORTED}


async def test_errors_never_show_a_key(engine: Datapath) -> None:
    key = bytes(range(100, 120))

    (result,) = await engine.install_sas([outbound(encryption_key=Secret(key))])

    assert key.hex() not in str(result)
    assert repr(key) not in str(result)


async def test_lifetime_in_seconds_is_told_soft_then_hard(engine: Datapath) -> None:
    events = engine.events()
    sa = inbound(lifetime=Lifetime(soft=Limit(seconds=0.05), hard=Limit(seconds=0.1)))
    await engine.install_sas([sa])

    seen = [await asyncio.wait_for(anext(events), 30) for _ in range(2)]

    assert [type(event).__name__ for event in seen] == ["SoftExpire", "HardExpire"]
    assert {(event.sa_id, event.limit) for event in seen} == {(sa.sa_id, "seconds")}  # type: ignore[union-attr]


# --- policies -------------------------------------------------------------------------------------


async def test_policies_are_listed_in_the_order_in_which_they_are_searched(datapath: Datapath) -> None:
    results = await datapath.apply_policies(
        [
            policy("z", priority=10, action=Action.BYPASS),
            policy("b"),
            policy("a"),
            policy("y", priority=2000, action=Action.DISCARD),
        ]
    )

    assert [result.name for result in results] == ["z", "b", "a", "y"]
    assert reasons(results) == [None] * 4
    assert [entry.name for entry in await datapath.list_policies()] == ["z", "a", "b", "y"]


async def test_policy_of_the_same_name_replaces(datapath: Datapath) -> None:
    await datapath.apply_policies([policy()])

    await datapath.apply_policies([policy(action=Action.DISCARD)])

    assert await datapath.list_policies() == (policy(action=Action.DISCARD),)


async def test_removed_policies_are_gone_and_removing_is_idempotent(datapath: Datapath) -> None:
    await datapath.apply_policies([policy("a"), policy("b")])

    first = await datapath.remove_policies(["a", "never there"])
    second = await datapath.remove_policies(["a"])

    assert reasons(first) == [None, None]
    assert reasons(second) == [None]
    assert [entry.name for entry in await datapath.list_policies()] == ["b"]


async def test_policy_that_matches_nothing_is_refused_and_the_rest_applied(engine: Datapath) -> None:
    mixed = policy("mixed", remote_ts=(TrafficSelector.parse("fd00:2::/64"),))

    results = await engine.apply_policies([mixed, policy("good")])

    assert reasons(results) == [ErrorReason.ADDRESS_FAMILY, None]
    assert [entry.name for entry in await engine.list_policies()] == ["good"]


async def test_policies_of_every_kind_of_selector_are_taken(datapath: Datapath) -> None:
    texts = (
        ("10.1.0.0/16[tcp/443]", "10.2.0.0/16"),
        ("10.1.0.0/16[udp/1000-65535]", "10.2.0.0/16[udp/opaque]"),
        ("10.1.0.3-10.1.0.77", "0.0.0.0/0"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::/0", "::/0"),
        ("fd00:1::/64[icmpv6/128]", "fd00:2::5"),
        ("10.1.0.0/16[icmp/3(4)]", "10.2.0.0/16[icmp/3(4)]"),
        ("10.1.0.0/16[mh/5]", "10.2.0.0/16"),
        ("192.0.2.1", "192.0.2.2"),
        ("10.1.0.0/16[tcp/65535]", "10.2.0.0/16[tcp/0]"),
    )
    policies = [
        policy(
            f"{action.value} {number}",
            action=action,
            local_ts=(TrafficSelector.parse(local),),
            remote_ts=(TrafficSelector.parse(remote),),
        )
        for number, (local, remote) in enumerate(texts)
        for action in Action
    ]

    results = await datapath.apply_policies(policies)

    assert reasons(results) == [None] * len(policies)
    assert len(await datapath.list_policies()) == len(policies)


async def test_selectors_that_need_too_many_rules_are_refused_and_change_nothing(engine: Datapath) -> None:
    await engine.apply_policies([policy("there")])
    hosts = tuple(TrafficSelector.parse(f"10.7.{n}.1") for n in range(250))

    results = await engine.apply_policies([policy("many", local_ts=hosts, remote_ts=hosts)])

    assert reasons(results) == [ErrorReason.TABLE_FULL]
    assert [entry.name for entry in await engine.list_policies()] == ["there"]


# --- generations ----------------------------------------------------------------------------------


async def test_reconcile_removes_what_is_older_and_names_it(datapath: Datapath) -> None:
    old, new = inbound(0x1001), inbound(0x1002)
    await datapath.install_sas([old], 1)
    await datapath.install_sas([new], 2)
    await datapath.apply_policies([policy("old")], 1)
    await datapath.apply_policies([policy("new")], 2)

    gone = await datapath.reconcile(2)

    assert sorted(gone) == sorted([old.sa_id, "old"])
    assert [without_keys(item.sa) for item in await datapath.list_sas()] == [without_keys(new)]
    assert [entry.name for entry in await datapath.list_policies()] == ["new"]


async def test_what_was_said_again_survives_reconciliation(datapath: Datapath) -> None:
    sa = inbound()
    await datapath.install_sas([sa], 1)
    await datapath.apply_policies([policy()], 1)

    await datapath.install_sas([sa], 2)
    await datapath.apply_policies([policy()], 2)
    gone = await datapath.reconcile(2)

    assert gone == ()
    assert len(await datapath.list_sas()) == 1
    assert len(await datapath.list_policies()) == 1


async def test_superseded_generation_is_refused(engine: Datapath) -> None:
    await engine.reconcile(5)

    sas = await engine.install_sas([inbound()], 4)
    policies = await engine.apply_policies([policy()], 4)

    assert reasons(sas) == reasons(policies) == [ErrorReason.STALE_GENERATION]


# --- events ---------------------------------------------------------------------------------------


async def test_each_subscriber_has_its_own_stream_that_ends_at_close(datapath: Datapath) -> None:
    streams = [datapath.events(), datapath.events()]
    readers = [asyncio.create_task(_collect(stream)) for stream in streams]
    await asyncio.sleep(0)

    await datapath.close()

    assert await asyncio.wait_for(asyncio.gather(*readers), 30) == [[], []]


async def _collect(stream: object) -> list[object]:
    return [event async for event in stream]  # type: ignore[attr-defined]


async def test_closing_twice_is_harmless(datapath: Datapath) -> None:
    await datapath.close()
    await datapath.close()
