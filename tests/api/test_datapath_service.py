"""The datapath service and its client: what goes in comes out, for every call, over a real socket."""

import asyncio
from ipaddress import ip_address
from pathlib import Path

import grpc
import grpc.aio
import pytest

from gateway.api.address import UnixAddress, dial
from gateway.api.datapath.v1 import datapath_pb2 as dpb
from gateway.api.datapath.v1.datapath_pb2_grpc import DatapathServiceStub
from gateway.api.datapath_client import DatapathClient
from gateway.api.errors import api_error
from gateway.api.listener import Listener
from gateway.api.server import ApiServer
from gateway.api.types.v1 import ipsec_pb2 as tpb
from gateway.datapath.backend import (
    Acquire,
    BadSpi,
    Counters,
    DatapathError,
    DatapathEvent,
    ErrorReason,
    HardExpire,
    ItemResult,
    MappingChange,
    PlacementChange,
    SaCounters,
    SasLost,
    SoftExpire,
)
from gateway.ipsec.algorithms import Encr, Integ
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.lifetime import Lifetime, Limit
from gateway.ipsec.placement import Engine, Placement
from gateway.ipsec.policy import Action, Policy
from gateway.ipsec.sa import (
    Direction,
    IpsecProtocol,
    Mode,
    SaId,
    SecurityAssociation,
    Spi,
    UdpEncapsulation,
)
from gateway.ipsec.secret import Secret
from gateway.ipsec.selectors import TrafficSelector
from tests.fakes.datapath import FakeDatapath, FakeSad

KEY = bytes(range(36))

FULL_SA = SecurityAssociation(
    spi=Spi(0xC0FFEE01),
    direction=Direction.OUTBOUND,
    mode=Mode.TRANSPORT,
    source=ip_address("2001:db8::1"),
    destination=ip_address("2001:db8::2"),
    encapsulation=UdpEncapsulation(source_port=4500, destination_port=40123),
    encryption=Encr.AES_CBC,
    encryption_key=Secret(KEY[:32]),
    key_bits=256,
    integrity=Integ.HMAC_SHA2_256_128,
    integrity_key=Secret(KEY[::-1][:32]),
    esn=True,
    replay_window_packets=4096,
    local_ts=(
        TrafficSelector(ip_address("2001:db8::1"), ip_address("2001:db8::1"), 6, 443, 443),
        TrafficSelector(ip_address("2001:db8::1"), ip_address("2001:db8::1"), 58, 128 * 256, 129 * 256),
    ),
    remote_ts=(TrafficSelector(ip_address("2001:db8::2"), ip_address("2001:db8::9"), 17, 65535, 0),),
    lifetime=Lifetime(
        soft=Limit(seconds=3240.125, bytes=10**15, packets=3_000_000_000),
        hard=Limit(seconds=3600.0, bytes=2 * 10**15),
    ),
    copy_dscp=False,
    copy_df=False,
    tfc_padding_bytes=1400,
    connection="paris-tokyo",
    child="lan",
    child_sa_id=2**40,
    placement=Placement(prefer=(Engine.XDP, Engine.KERNEL)),
)

PLAIN_SA = SecurityAssociation(
    spi=Spi(0x1001),
    direction=Direction.INBOUND,
    source=ip_address("192.0.2.2"),
    destination=ip_address("192.0.2.1"),
    encryption=Encr.AES_GCM_16,
    encryption_key=Secret(KEY),
    key_bits=256,
    local_ts=(TrafficSelector.parse("10.1.0.0/16"),),
    remote_ts=(TrafficSelector.parse("10.2.0.0/16"),),
)

POLICY = Policy(
    name="paris-tokyo/lan",
    action=Action.PROTECT,
    local_ts=(TrafficSelector.parse("10.1.0.0/16"),),
    remote_ts=(TrafficSelector.parse("10.2.0.0/16[tcp/443]"), TrafficSelector.parse("10.3.0.0/16")),
    priority=77,
    mode=Mode.TUNNEL,
    local_address=ip_address("192.0.2.1"),
    remote_address=ip_address("192.0.2.2"),
    acquire=False,
    connection="paris-tokyo",
    child="lan",
)


async def test_capabilities_come_through(datapath: DatapathClient, fake_datapath: FakeDatapath) -> None:
    assert await datapath.capabilities() == await fake_datapath.capabilities()


async def test_spis_are_reserved_at_the_datapath(
    datapath: DatapathClient, fake_datapath: FakeDatapath
) -> None:
    spis = await datapath.allocate_spis(32, ip_address("192.0.2.1"))

    assert len(set(spis)) == 32
    assert fake_datapath.sad.reserved == set(spis)


async def test_an_sa_with_every_field_set_arrives_unchanged(
    datapath: DatapathClient, fake_datapath: FakeDatapath
) -> None:
    results = await datapath.install_sas([FULL_SA, PLAIN_SA], generation=7)

    assert results == (
        ItemResult(name=FULL_SA.sa_id, placement=Engine.SOFTWARE),
        ItemResult(name=PLAIN_SA.sa_id, placement=Engine.SOFTWARE),
    )
    assert fake_datapath.sad.sas[FULL_SA.sa_id].sa == FULL_SA
    assert fake_datapath.sad.sas[PLAIN_SA.sa_id].sa == PLAIN_SA
    assert fake_datapath.sad.sas[PLAIN_SA.sa_id].generation == 7


async def test_a_required_placement_arrives(datapath: DatapathClient, fake_datapath: FakeDatapath) -> None:
    placement = Placement(prefer=(Engine.NIC_PACKET,), require=Engine.NIC_PACKET)
    sa = replaced(PLAIN_SA, placement=placement)

    await datapath.install_sas([sa])

    assert fake_datapath.sad.sas[sa.sa_id].sa.placement == placement


async def test_installing_the_same_again_has_no_effect(
    datapath: DatapathClient, fake_datapath: FakeDatapath
) -> None:
    first = await datapath.install_sas([PLAIN_SA])
    again = await datapath.install_sas([PLAIN_SA])

    assert again == first
    assert [change.verb for change in fake_datapath.sad.history] == ["install"]


async def test_each_item_of_a_batch_is_answered_by_itself(datapath: DatapathClient) -> None:
    conflicting = replaced(PLAIN_SA, encryption_key=Secret(KEY[::-1]))

    installed, refused, other = await datapath.install_sas([PLAIN_SA, conflicting, FULL_SA])

    assert installed.ok
    assert other.ok
    assert refused.error is not None
    assert refused.error.reason is ErrorReason.SPI_IN_USE
    assert "00001001" in str(refused.error)


async def test_every_reason_of_a_refusal_comes_through(
    datapath: DatapathClient, fake_datapath: FakeDatapath
) -> None:
    fake_datapath.refusals = [DatapathError(reason, f"because of {reason.value}") for reason in ErrorReason]
    sas = [replaced(PLAIN_SA, spi=Spi(0x2000 + i)) for i in range(len(ErrorReason))]

    results = await datapath.install_sas(sas)

    assert [result.error and result.error.reason for result in results] == list(ErrorReason)
    assert [str(result.error) for result in results] == [f"because of {r.value}" for r in ErrorReason]


async def test_removing_is_idempotent_and_tells_once_what_was_counted(
    datapath: DatapathClient, fake_datapath: FakeDatapath
) -> None:
    await datapath.install_sas([PLAIN_SA])

    first = await datapath.remove_sas([SaId("in:esp:192.0.2.1:0000dead"), PLAIN_SA.sa_id])
    again = await datapath.remove_sas([PLAIN_SA.sa_id])

    counted = SaCounters(sa_id=PLAIN_SA.sa_id, packets=0, bytes=0, sequence=0)
    nothing = ItemResult(name=SaId("in:esp:192.0.2.1:0000dead"))
    assert first == (nothing, ItemResult(name=PLAIN_SA.sa_id, counters=counted))
    assert again == (ItemResult(name=PLAIN_SA.sa_id),)
    assert not fake_datapath.sad.sas


async def test_listed_sas_have_everything_but_their_keys(
    datapath: DatapathClient, datapath_address: UnixAddress
) -> None:
    await datapath.install_sas([FULL_SA], generation=3)

    (listed,) = await datapath.list_sas()

    assert listed.sa == replaced(FULL_SA, encryption_key=Secret(b""), integrity_key=Secret(b""))
    assert listed.placement is Engine.SOFTWARE
    assert listed.generation == 3
    assert FULL_SA.encryption_key.reveal() not in await raw(datapath_address, "ListSas", dpb.ListSasRequest())
    assert FULL_SA.integrity_key.reveal() not in await raw(datapath_address, "ListSas", dpb.ListSasRequest())


async def test_policies_come_and_go(datapath: DatapathClient, fake_datapath: FakeDatapath) -> None:
    bypass = Policy(
        name="ospf",
        action=Action.BYPASS,
        local_ts=(TrafficSelector.parse("0.0.0.0/0[89]"),),
        remote_ts=(TrafficSelector.parse("0.0.0.0/0[89]"),),
        priority=10,
    )

    results = await datapath.apply_policies([POLICY, bypass], generation=2)

    assert [result.name for result in results] == ["paris-tokyo/lan", "ospf"]
    assert await datapath.list_policies() == (bypass, POLICY)
    assert fake_datapath.sad.policies["ospf"] == (bypass, 2)

    await datapath.remove_policies(["ospf", "never-there"])

    assert await datapath.list_policies() == (POLICY,)


async def test_reconcile_names_what_it_removed(datapath: DatapathClient) -> None:
    await datapath.install_sas([PLAIN_SA], generation=1)
    await datapath.install_sas([FULL_SA], generation=2)
    await datapath.apply_policies([POLICY], generation=1)

    assert await datapath.reconcile(2) == (PLAIN_SA.sa_id, "paris-tokyo/lan")
    assert [listed.sa.sa_id for listed in await datapath.list_sas()] == [FULL_SA.sa_id]


async def test_counters_come_through(
    datapath: DatapathClient, fake_datapath: FakeDatapath, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counters(
        sas=(
            SaCounters(
                sa_id=PLAIN_SA.sa_id,
                packets=5,
                bytes=2**40,
                sequence=2**63,
                drops={DropReason.REPLAY: 3, DropReason.INTEGRITY: 1},
                last_used_s_ago=0.25,
            ),
            SaCounters(sa_id=FULL_SA.sa_id, packets=0, bytes=0, sequence=0),
        ),
        drops=dict.fromkeys(DropReason, 9),
    )

    async def counters() -> Counters:
        return counted

    monkeypatch.setattr(fake_datapath, "counters", counters)

    assert await datapath.counters() == counted


EVENTS: tuple[DatapathEvent, ...] = (
    Acquire(
        policy="paris-tokyo/lan",
        source=ip_address("10.1.0.1"),
        destination=ip_address("10.2.0.1"),
        protocol=6,
        source_port=40000,
        destination_port=443,
    ),
    SoftExpire(sa_id=PLAIN_SA.sa_id, spi=PLAIN_SA.spi, limit="sequence"),
    HardExpire(sa_id=PLAIN_SA.sa_id, spi=PLAIN_SA.spi, limit="bytes"),
    BadSpi(spi=Spi(0xFFFFFFFF), source=ip_address("192.0.2.9"), destination=ip_address("192.0.2.1")),
    MappingChange(
        sa_id=PLAIN_SA.sa_id,
        spi=PLAIN_SA.spi,
        old=(ip_address("192.0.2.2"), 4500),
        new=(ip_address("192.0.2.3"), 1024),
    ),
    PlacementChange(sa_id=PLAIN_SA.sa_id, old=Engine.NIC_PACKET, new=Engine.KERNEL, reason="link down"),
    SasLost(sa_ids=(PLAIN_SA.sa_id, SaId("out:esp:192.0.2.2:00001002")), reason="the agent restarted"),
)


async def test_every_kind_of_event_comes_through_in_order(
    datapath: DatapathClient, fake_datapath: FakeDatapath
) -> None:
    stream = datapath.events()
    await datapath.capabilities()  # Later calls wait until the watch is in place.
    for event in EVENTS:
        fake_datapath.emit(event)

    received = [await asyncio.wait_for(anext(stream), 30) for _ in EVENTS]

    assert tuple(received) == EVENTS


async def test_each_watcher_has_its_own_stream(datapath: DatapathClient, fake_datapath: FakeDatapath) -> None:
    streams = [datapath.events(), datapath.events()]
    await datapath.capabilities()

    fake_datapath.emit(EVENTS[0])

    assert [await asyncio.wait_for(anext(stream), 30) for stream in streams] == [EVENTS[0], EVENTS[0]]


@pytest.mark.parametrize("is_read", [True, False])
async def test_a_stream_that_is_left_is_forgotten_by_the_server(
    datapath: DatapathClient, fake_datapath: FakeDatapath, is_read: bool
) -> None:
    stream = datapath.events()
    await datapath.capabilities()
    fake_datapath.emit(EVENTS[0])
    if is_read:
        await anext(stream)
    assert len(fake_datapath._watchers) == 1

    await stream.aclose()

    for _ in range(3000):
        if not fake_datapath._watchers:
            break
        await asyncio.sleep(0.01)
    assert not fake_datapath._watchers


# --- bad input ----------------------------------------------------------------------------------


async def test_a_malformed_batch_is_refused_whole_with_every_field_named(
    datapath_address: UnixAddress, fake_datapath: FakeDatapath
) -> None:
    good = tpb.TrafficSelector(start="10.0.0.0", end="10.0.0.255")
    request = dpb.InstallSasRequest(
        sas=[
            tpb.SecurityAssociation(
                spi=4096,
                direction="DIRECTION_INBOUND",
                source="192.0.2.2",
                destination="192.0.2.1",
                encryption="ENCRYPTION_ALGORITHM_AES_GCM_16",
                local_ts=[good],
                remote_ts=[good],
            ),
            tpb.SecurityAssociation(
                spi=255,
                mode=9,  # type: ignore[arg-type]  # a value newer than this server
                source="192.0.2.300",
                encapsulation=tpb.UdpEncapsulation(source_port=0, destination_port=65536),
                local_ts=[tpb.TrafficSelector(start="10.0.0.9", end="10.0.0.1"), good],
                remote_ts=[
                    tpb.TrafficSelector(start="10.0.0.9", end="::1", protocol=256),
                    tpb.TrafficSelector(start="10.0.0.0", end="10.0.0.1", start_port=5, end_port=4),
                ],
                placement=tpb.Placement(prefer=["ENGINE_XDP", "ENGINE_XDP"], require="ENGINE_XDP"),
            ),
        ]
    )

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await raw(datapath_address, "InstallSas", request)

    failure = api_error(caught.value)
    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert failure.reason == "INVALID_ARGUMENT", failure
    assert {violation.field: violation.description for violation in failure.violations} == {
        "sas[1].spi": "255 is reserved; SPIs start at 256 (RFC 4303 §2.1)",
        "sas[1].direction": "is required; one of inbound, outbound",
        "sas[1].mode": "9 is unknown; one of tunnel, transport",
        "sas[1].source": "'192.0.2.300' is not an IPv4 or IPv6 address, as 192.0.2.1 or 2001:db8::1",
        "sas[1].destination": "is required: an IPv4 or IPv6 address",
        "sas[1].encapsulation.source_port": "0 is not a UDP port (1 to 65535)",
        "sas[1].encapsulation.destination_port": "65536 is not a UDP port (1 to 65535)",
        "sas[1].encryption": "is required; one of " + ", ".join(member.name.lower() for member in Encr),
        "sas[1].local_ts[0].end": "10.0.0.1 is before 10.0.0.9",
        "sas[1].remote_ts[0].protocol": "256 is more than 255",
        "sas[1].remote_ts[0].end": "::1 is not of the address family of 10.0.0.9",
        "sas[1].remote_ts[1].end_port": "4 is before start_port 5",
        "sas[1].placement": "has both prefer and require; give one of them",
    }
    assert not fake_datapath.sad.sas


async def test_a_malformed_policy_names_its_fields(datapath_address: UnixAddress) -> None:
    request = dpb.ApplyPoliciesRequest(policies=[tpb.Policy(local_address="here")])

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await raw(datapath_address, "ApplyPolicies", request)

    assert [violation.field for violation in api_error(caught.value).violations] == [
        "policies[0].name",
        "policies[0].local_ts",
        "policies[0].remote_ts",
        "policies[0].local_address",
    ]


@pytest.mark.parametrize("count", [0, 4097])
async def test_an_unreasonable_number_of_spis_is_refused(datapath_address: UnixAddress, count: int) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await raw(datapath_address, "AllocateSpis", dpb.AllocateSpisRequest(count=count))

    assert api_error(caught.value).violations[0].field == "count"


async def test_what_nobody_foresaw_is_internal_and_says_nothing(
    datapath_address: UnixAddress, fake_datapath: FakeDatapath, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def list_sas() -> None:
        raise RuntimeError("key 0123456789")

    monkeypatch.setattr(fake_datapath, "list_sas", list_sas)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await raw(datapath_address, "ListSas", dpb.ListSasRequest())

    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "0123456789" not in str(caught.value)
    assert "RuntimeError" in str(caught.value.details())


async def test_a_failure_of_the_whole_call_keeps_its_reason(
    datapath: DatapathClient, fake_datapath: FakeDatapath, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def reconcile(generation: int) -> None:
        raise DatapathError(ErrorReason.STALE_GENERATION, f"generation 9 was seen, {generation} is older")

    monkeypatch.setattr(fake_datapath, "reconcile", reconcile)

    with pytest.raises(DatapathError, match="generation 9 was seen, 3 is older") as caught:
        await datapath.reconcile(3)

    assert caught.value.reason is ErrorReason.STALE_GENERATION


# --- an agent that is not there -----------------------------------------------------------------


async def test_an_absent_agent_is_unavailable_and_says_what_to_do(tmp_path: Path) -> None:
    client = DatapathClient(UnixAddress(tmp_path / "no.sock"), patience_s=0.0)

    with pytest.raises(DatapathError) as caught:
        await client.capabilities()

    assert caught.value.reason is ErrorReason.UNAVAILABLE
    assert str(caught.value) == f"no datapath agent at unix:{tmp_path}/no.sock: start `ipsecgw agent`"
    await client.close()


async def test_an_agent_that_does_not_answer_is_unavailable(
    datapath_address: UnixAddress, fake_datapath: FakeDatapath
) -> None:
    fake_datapath.gate.clear()
    client = DatapathClient(datapath_address, deadline_s=0.2, patience_s=0.0)

    with pytest.raises(DatapathError, match=r"did not answer within 0\.2 s") as caught:
        await client.install_sas([PLAIN_SA])

    assert caught.value.reason is ErrorReason.UNAVAILABLE
    await client.close()


async def test_the_client_finds_an_agent_that_restarted_and_its_stream_ends(tmp_path: Path) -> None:
    address = UnixAddress(tmp_path / "datapath.sock")
    server = ApiServer([Listener(address=address)], datapath=FakeDatapath(FakeSad(first_spi=0x5000)))
    await server.start()
    client = DatapathClient(address, patience_s=30.0)
    stream = client.events()
    assert await client.allocate_spis(1) == (0x5000,)

    await server.stop(grace_s=0)
    with pytest.raises(DatapathError) as caught:
        await asyncio.wait_for(anext(stream), 30)
    assert caught.value.reason is ErrorReason.UNAVAILABLE
    server = ApiServer([Listener(address=address)], datapath=FakeDatapath(FakeSad(first_spi=0x6000)))
    await server.start()

    assert await client.allocate_spis(1) == (0x6000,)
    await client.close()
    await server.stop(grace_s=0)


async def test_a_stream_to_an_absent_agent_fails_at_once(tmp_path: Path) -> None:
    client = DatapathClient(UnixAddress(tmp_path / "no.sock"), patience_s=0.0)

    with pytest.raises(DatapathError, match="start `ipsecgw agent`"):
        await asyncio.wait_for(anext(client.events()), 30)
    await client.close()


# --- AH and friends -----------------------------------------------------------------------------


async def test_ah_and_default_fields_arrive(
    datapath_address: UnixAddress, fake_datapath: FakeDatapath
) -> None:
    any_v4 = tpb.TrafficSelector(start="0.0.0.0", end="255.255.255.255")
    sa = tpb.SecurityAssociation(
        spi=256,
        direction="DIRECTION_OUTBOUND",
        protocol="IPSEC_PROTOCOL_AH",
        source="192.0.2.1",
        destination="192.0.2.2",
        encryption="ENCRYPTION_ALGORITHM_NULL",
        local_ts=[any_v4],
        remote_ts=[any_v4],
    )

    await raw(datapath_address, "InstallSas", dpb.InstallSasRequest(sas=[sa]))

    (installed,) = fake_datapath.sad.sas.values()
    assert installed.sa.protocol is IpsecProtocol.AH
    assert installed.sa.mode is Mode.TUNNEL
    assert installed.sa.replay_window_packets == 1024
    assert installed.sa.copy_dscp
    assert installed.sa.copy_df
    assert installed.sa.integrity is Integ.NONE
    assert installed.sa.lifetime == Lifetime()
    assert installed.sa.placement == Placement()
    assert installed.sa.local_ts == (TrafficSelector.parse("0.0.0.0/0"),)


# --- tools --------------------------------------------------------------------------------------


def replaced(sa: SecurityAssociation, **changes: object) -> SecurityAssociation:
    # dataclasses.replace would copy fine too, but says nothing about the type of the result.
    every = SecurityAssociation.__dataclass_fields__
    fields = {name: getattr(sa, name) for name, field in every.items() if field.init}
    return SecurityAssociation(**{**fields, **changes})


async def raw(address: UnixAddress, method: str, request: object) -> bytes:
    async with dial(address) as channel:
        stub = DatapathServiceStub(channel)
        response = await getattr(stub, method)(request, timeout=30)
        return bytes(response.SerializeToString())
