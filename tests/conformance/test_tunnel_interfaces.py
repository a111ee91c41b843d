"""Route-based tunnels: what routes lead into an interface is protected, and nothing else; and whose it is."""

import asyncio
import json
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace
from functools import partial
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any, Final

import pytest
from scapy.layers.inet import IP, UDP
from scapy.packet import Raw

from gateway.datapath.backend import DEFAULT_MARK, Acquire, Datapath, DatapathError, ErrorReason
from gateway.datapath.engine.backend import EngineBackend
from gateway.datapath.software.backend import SoftwareBackend
from gateway.datapath.watch import Watch
from gateway.datapath.xfrm.backend import XfrmBackend
from gateway.ipsec.interface import EVERYTHING, TunnelInterface
from gateway.ipsec.policy import Policy
from gateway.ipsec.sa import SecurityAssociation
from tests.conformance.conftest import OPENERS, OUR_ADDRESSES, engine_options
from tests.conformance.engine_methods import METHODS
from tests.conformance.exemptions import EXEMPTIONS
from tests.conformance.namespace import fresh_network_namespace
from tests.conformance.sas import PEER, inbound, outbound, policy
from tests.conformance.test_traffic import ENGINES, IP_CLASS, Peer, esp_keys, oracle
from tests.unit.esp.samples import BY_NAME

pytestmark = pytest.mark.netns

SUITE = BY_NAME["aes256gcm16"]
PORT: Final = 7001
IPSEC0 = TunnelInterface(
    name="ipsec0",
    id=42,
    addresses=(ip_interface("169.254.9.1/30"), ip_interface("fd00:9::1/64")),
    routes=(ip_network("10.2.0.0/16"), ip_network("fd00:2::/64")),
)
BARE = TunnelInterface(name="ipsec0", id=42)
#: Where the kernel has VRFs for sure; it loads no XDP program of the engine's.
WITH_VRFS = [
    *(pytest.param(name, marks=pytest.mark.guest) for name in ("software", "engine", "xfrm")),
    *(pytest.param(name, marks=pytest.mark.skip(reason=EXEMPTIONS[name, "VRF"])) for name in METHODS),
]
KIND = {"software": "tun", "xfrm": "xfrm", "engine": "tun", **dict.fromkeys(METHODS, "tun")}


@pytest.fixture(params=ENGINES)
async def engine_name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
async def engine(engine_name: str) -> AsyncIterator[Datapath]:
    async with OPENERS[engine_name]() as datapath:
        yield datapath


@pytest.fixture
async def peer(engine: Datapath) -> AsyncIterator[Peer]:
    made = Peer()
    yield made
    made.close()


def wide(interface: TunnelInterface = IPSEC0, **changes: Any) -> Policy:
    """Return the entry of an interface whose routes decide about everything."""
    shape: dict[str, Any] = {
        "local_ts": EVERYTHING,
        "remote_ts": EVERYTHING,
        "remote_address": PEER,
        "interface_id": interface.id,
        "interface": interface,
    }
    return policy(**(shape | changes))


def wide_pair() -> tuple[SecurityAssociation, SecurityAssociation]:
    shape: dict[str, Any] = {"local_ts": EVERYTHING, "remote_ts": EVERYTHING, "interface_id": 42}
    shape |= esp_keys(SUITE)
    return inbound(**shape), outbound(**shape)


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


def link(name: str = "ipsec0") -> dict[str, Any] | None:
    """Return what `ip` says of an interface."""
    shown: list[dict[str, Any]] = json.loads(ip("-j", "-d", "address", "show"))
    return next((one for one in shown if one["ifname"] == name), None)


def link_index() -> int:
    there = link()
    assert there is not None
    return int(there["ifindex"])


def addresses() -> set[str]:
    there = link()
    assert there is not None
    return {f"{one['local']}/{one['prefixlen']}" for one in there["addr_info"] if one["scope"] != "link"}


def kind_of(there: dict[str, Any] | None) -> str | None:
    return None if there is None else there["linkinfo"]["info_kind"]


def routes(*selection: str) -> set[str]:
    shown = [*json.loads(ip("-j", "-4", "route", "show", *selection))]
    shown += json.loads(ip("-j", "-6", "route", "show", *selection))
    return {route["dst"] for route in shown if route.get("dev") == "ipsec0" and route["protocol"] == "47"}


async def apply(engine: Datapath, *policies: Policy) -> list[DatapathError | None]:
    return [result.error for result in await engine.apply_policies(policies)]


async def install(engine: Datapath, sas: Iterable[SecurityAssociation]) -> None:
    assert [result.error for result in await engine.install_sas(tuple(sas))] == [None, None]


def send(destination: str, data: bytes, source: str = "") -> None:
    """Send a datagram; that it is not let out is no error."""
    family = socket.AF_INET6 if ":" in destination else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as program:
        try:
            if source:
                program.bind((source, 0))
            program.sendto(data, (destination, PORT))
        except OSError:
            pass


async def is_sent_sealed(peer: Peer, sa: SecurityAssociation, destination: str, data: bytes) -> bool:
    """Send a datagram, and return whether it leaves in ESP, whole."""
    send(destination, data)
    wire = oracle(SUITE, sa)
    version = ip_address(destination).version
    while True:
        opened = wire.decrypt(IP(await peer.take(50)))
        inner = IP_CLASS[version](bytes(opened))
        if UDP in inner and bytes(inner[UDP].payload) == data:
            return bool(inner.dst == destination)


async def next_acquire(events: Watch[Any]) -> Acquire:
    async with asyncio.timeout(30):
        async for event in events:
            if isinstance(event, Acquire):
                return event
    raise AssertionError("the events ended")


# --- whose it is ------------------------------------------------------------------------------------------


async def test_interface_is_made_with_its_entry_and_gone_after_the_last(
    engine: Datapath, engine_name: str
) -> None:
    before = ip("-j", "link"), ip("route"), ip("-6", "route"), ip("rule")

    assert await apply(engine, wide()) == [None]
    assert await apply(engine, wide(name="paris/more", child="more")) == [None]

    made = link()
    assert made is not None
    assert kind_of(made) == KIND[engine_name]
    assert "UP" in made["flags"]
    assert addresses() == {"169.254.9.1/30", "fd00:9::1/64"}
    assert routes() == {"10.2.0.0/16", "fd00:2::/64"}
    await engine.remove_policies(["paris/lan"])
    assert link() is not None
    await engine.remove_policies(["paris/more"])
    assert link() is None
    after = ip("-j", "link"), ip("route"), ip("-6", "route"), ip("rule")
    assert after == before


async def test_interface_of_somebody_else_is_used_as_it_is_and_stays(
    engine: Datapath, engine_name: str
) -> None:
    make_by_hand(engine_name)

    assert await apply(engine, wide(BARE)) == [None]
    descriptors = len(os.listdir("/proc/self/fd"))
    await engine.remove_policies(["paris/lan"])

    assert len(os.listdir("/proc/self/fd")) <= descriptors - (engine_name == "software")
    assert kind_of(link()) == KIND[engine_name]
    assert addresses() == {"169.254.7.1/30"}


async def test_interface_of_somebody_else_is_not_furnished_by_us(engine: Datapath, engine_name: str) -> None:
    make_by_hand(engine_name)

    (refusal,) = await apply(engine, wide())

    assert refusal is not None
    assert refusal.reason is ErrorReason.POLICY_CONFLICT
    assert "its maker's" in str(refusal)
    assert addresses() == {"169.254.7.1/30"}
    assert await engine.list_policies() == ()


async def test_interface_of_another_kind_is_refused(engine: Datapath) -> None:
    ip("link", "add", "ipsec0", "type", "veth", "peer", "name", "other")

    (refusal,) = await apply(engine, wide(BARE))

    assert refusal is not None
    assert "kind veth" in str(refusal)


def make_by_hand(engine_name: str) -> None:
    if engine_name == "xfrm":
        ip("link", "add", "ipsec0", "type", "xfrm", "if_id", "42")
    else:
        ip("tuntap", "add", "ipsec0", "mode", "tun")
    ip("link", "set", "ipsec0", "up")
    ip("address", "add", "169.254.7.1/30", "dev", "ipsec0")


async def test_entries_that_say_otherwise_of_one_interface_are_refused(engine: Datapath) -> None:
    other = replace(IPSEC0, mtu_bytes=1300)
    same_id = replace(BARE, name="ipsec1")
    await apply(engine, wide())

    first, second = await apply(
        engine, wide(other, name="paris/more", child="more"), wide(same_id, name="b", child="b")
    )

    assert first is not None
    assert "wanted otherwise by paris/lan" in str(first)
    assert second is not None
    assert "the id 42 of ipsec0" in str(second)
    assert link("ipsec1") is None
    assert [entry.name for entry in await engine.list_policies()] == ["paris/lan"]


async def test_change_that_all_entries_of_an_interface_say_together_is_taken(engine: Datapath) -> None:
    names = ("paris/v4", "paris/v6")
    await apply(engine, *(wide(name=name, child=name) for name in names))
    changed = replace(IPSEC0, addresses=(ip_interface("169.254.9.5/30"),))

    assert await apply(engine, *(wide(changed, name=name, child=name) for name in names)) == [None, None]

    assert addresses() == {"169.254.9.5/30"}


async def test_change_of_addresses_and_routes_is_followed(engine: Datapath) -> None:
    await apply(engine, wide())

    changed = replace(
        IPSEC0, addresses=(ip_interface("169.254.9.5/30"),), routes=(ip_network("10.3.0.0/16"),)
    )
    assert await apply(engine, wide(changed)) == [None]

    assert addresses() == {"169.254.9.5/30"}
    assert routes() == {"10.3.0.0/16"}


async def test_what_others_add_to_it_stays_when_its_entry_is_applied_again(engine: Datapath) -> None:
    await apply(engine, wide())
    index = link_index()
    ip("address", "add", "169.254.77.1/30", "dev", "ipsec0")
    ip("route", "add", "10.88.0.0/16", "dev", "ipsec0")

    assert await apply(engine, wide()) == [None]

    assert link_index() == index
    assert "169.254.77.1/30" in addresses()
    assert "10.88.0.0/16" in ip("route", "show", "dev", "ipsec0")


@pytest.mark.parametrize("engine_name", WITH_VRFS, indirect=True)
async def test_vrf_gets_the_interface_and_its_routes(engine: Datapath) -> None:
    in_red = wide(replace(IPSEC0, vrf="red"))
    (refusal,) = await apply(engine, in_red)
    assert refusal is not None
    assert "there is no VRF red" in str(refusal)
    assert link() is None

    ip("link", "add", "red", "type", "vrf", "table", "77")
    ip("link", "set", "red", "up")
    assert await apply(engine, in_red) == [None]

    made = link()
    assert made is not None
    assert made["master"] == "red"
    assert routes("table", "77") == {"10.2.0.0/16", "fd00:2::/64"}
    assert routes() == set()


async def test_interface_that_somebody_removes_is_made_again(engine: Datapath, peer: Peer) -> None:
    _, sending = sas = wide_pair()
    await apply(engine, wide())
    await install(engine, sas)

    ip("link", "del", "ipsec0")
    async with asyncio.timeout(30):
        while routes() != {"10.2.0.0/16", "fd00:2::/64"}:  # noqa: ASYNC110 - the kernel tells no event of ours
            await asyncio.sleep(0.05)

    assert await is_sent_sealed(peer, sending, "10.2.0.1", b"again")


def open_again(name: str, state_dir: Path) -> EngineBackend:
    return EngineBackend(engine_options(name, state_dir=state_dir))


@pytest.mark.parametrize("keeps", [True, False], ids=["still wanted", "not wanted"])
async def test_interface_outlives_the_agent_until_the_next_one_knows_better(
    engine_name: str, tmp_path: Path, *, keeps: bool
) -> None:
    backends: dict[str, Callable[[], SoftwareBackend | XfrmBackend | EngineBackend]] = {
        "software": SoftwareBackend,
        "xfrm": XfrmBackend,
        **{name: partial(open_again, name, tmp_path) for name in ("engine", *METHODS)},
    }
    with fresh_network_namespace(*OUR_ADDRESSES):
        first = backends[engine_name]()
        await first.start()
        await apply(first, wide())
        await first.close()
        assert routes() == {"10.2.0.0/16", "fd00:2::/64"}

        second = backends[engine_name]()
        await second.start()
        try:
            assert link() is not None
            if keeps:
                await second.apply_policies([wide()], generation=2)
            await second.reconcile(2)
            assert (link() is not None) is keeps

            await second.remove_protection()
            assert link() is None
        finally:
            await second.close()


# --- what it carries --------------------------------------------------------------------------------------


@pytest.mark.parametrize("destination", ["10.2.0.1", "fd00:2::1"])
async def test_what_is_routed_into_it_is_protected_and_a_new_route_at_once(
    engine: Datapath, peer: Peer, destination: str
) -> None:
    _, sending = sas = wide_pair()
    await apply(engine, wide())
    await install(engine, sas)

    assert await is_sent_sealed(peer, sending, destination, b"by the first route")
    more = "fd00:88::1" if ":" in destination else "10.88.0.1"
    ip("route", "add", more, "dev", "ipsec0")

    assert await is_sent_sealed(peer, sending, more, b"by the second")


async def test_default_route_leads_all_but_marked_packets_into_it(engine: Datapath, peer: Peer) -> None:
    _, sending = sas = wide_pair()
    await apply(engine, wide(BARE))
    await install(engine, sas)

    ip("rule", "add", "pref", "100", "not", "fwmark", hex(DEFAULT_MARK), "lookup", "99")
    ip("route", "add", "default", "dev", "ipsec0", "table", "99")

    # The outer packet goes to an address that the default route holds, and does not take it.
    assert await is_sent_sealed(peer, sending, "198.51.100.1", b"anywhere")


async def test_what_the_peer_protects_comes_out_of_it(engine: Datapath, peer: Peer) -> None:
    receiving, _ = sas = wide_pair()
    await apply(engine, wide())
    await install(engine, sas)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as program:
        program.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"ipsec0")
        program.bind(("10.1.0.1", PORT))
        inner = IP(src="10.2.0.1", dst="10.1.0.1") / UDP(sport=PORT, dport=PORT) / Raw(b"in")
        peer.put(oracle(SUITE, receiving).encrypt(IP(bytes(inner))))

        got = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(program, 2048), 30)

    assert got == b"in"


async def test_traffic_of_other_routes_is_not_its_business(engine: Datapath, peer: Peer) -> None:
    sas = wide_pair()
    await apply(engine, wide())
    await install(engine, sas)

    send("192.0.2.2", b"in clear")

    assert bytes(IP(await peer.take(17))[UDP].payload) == b"in clear"


async def test_without_an_sa_what_is_routed_into_it_stays_here_and_asks_for_one(
    engine: Datapath, peer: Peer
) -> None:
    events = engine.events()
    _, sending = sas = wide_pair()
    await apply(engine, wide())

    send("10.2.0.1", b"too early", source="10.1.0.1")

    acquire = await next_acquire(events)
    assert acquire.policy == "paris/lan"
    await install(engine, sas)
    assert await is_sent_sealed(peer, sending, "10.2.0.1", b"now")
    await engine.remove_sas([sa.sa_id for sa in sas])
    send("10.2.0.1", b"too late")
    send("192.0.2.2", b"the next that leaves")
    # Nothing of what has no SA is between the two.
    assert bytes(IP(await peer.take(17))[UDP].payload) == b"the next that leaves"


async def test_its_mtu_is_what_its_sas_carry(engine: Datapath) -> None:
    await apply(engine, wide())

    await install(engine, wide_pair())

    mtu = (await engine.list_sas())[1].effective_mtu
    made = link()
    assert made is not None
    assert mtu is not None
    assert made["mtu"] == mtu < 1500


async def test_its_mtu_is_the_operators_where_he_says_one(engine: Datapath) -> None:
    await apply(engine, wide(replace(IPSEC0, mtu_bytes=1390)))

    await install(engine, wide_pair())

    made = link()
    assert made is not None
    assert made["mtu"] == 1390
