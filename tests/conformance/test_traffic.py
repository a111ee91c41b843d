"""Every suite × mode × family over a real link, against scapy: what an engine sends, and what it takes.

The datapath sits on one end of a veth pair. The test is the peer: it has the other end, puts frames into it
and reads what comes out. scapy signs, encrypts, verifies and decrypts; what it lacks is as in the unit tests.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, UDP, defragment, fragment
from scapy.layers.inet6 import (
    HBHOptUnknown,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    defragment6,
)
from scapy.layers.ipsec import AH, ESP
from scapy.layers.ipsec import SecurityAssociation as ScapySa
from scapy.packet import Packet, Raw

from gateway.datapath.backend import BadSpi, Datapath, DatapathEvent, ErrorReason
from gateway.datapath.watch import Watch
from gateway.esp import ah, transform
from gateway.esp.packet import PROTOCOL_FRAGMENT
from gateway.ipsec.algorithms import Encr, Integ
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.sa import IpsecProtocol, Mode, SecurityAssociation, UdpEncapsulation
from gateway.ipsec.secret import Secret
from gateway.ipsec.selectors import TrafficSelector
from tests.conformance.conftest import OPENERS
from tests.conformance.engine_methods import METHODS, check_received
from tests.conformance.exemptions import EXEMPTIONS, skip_if_exempt
from tests.conformance.namespace import neighbour, set_mtu
from tests.conformance.sas import inbound, outbound, policy
from tests.unit.esp.ah_samples import AH_SUITES, AhSuite
from tests.unit.esp.samples import BY_NAME, SUITES, Suite
from tests.unit.esp.test_ah_scapy import ALGO_NAME
from tests.unit.esp.test_scapy import CONSTRUCTED, ICV_BYTES, SCAPY_CIPHER, SCAPY_MAC
from tests.unit.esp.test_truncated_gcm import TRUNCATED
from tests.unit.esp.written_out import gcm

pytestmark = pytest.mark.netns

IP_CLASS = {4: IP, 6: IPv6}
ETHERTYPE = {4: 0x0800, 6: 0x86DD}
OUTER = {4: ("192.0.2.1", "192.0.2.2"), 6: ("2001:db8::1", "2001:db8::2")}
INNER = {4: ("10.1.0.1", "10.2.0.1"), 6: ("fd00:1::1", "fd00:2::1")}
PORT = 7001
SHAPES = [
    pytest.param(mode, inner, outer, id=f"{mode.value}-v{inner}-in-v{outer}")
    for mode, inner, outer in (
        *((Mode.TUNNEL, inner, outer) for inner in (4, 6) for outer in (4, 6)),
        (Mode.TRANSPORT, 4, 4),
        (Mode.TRANSPORT, 6, 6),
    )
]
ENGINES = ["software", "engine", *METHODS, pytest.param("xfrm", marks=pytest.mark.guest)]
GMAC_OF_AH = {suite.integrity for suite in AH_SUITES if suite.is_gmac}
SPI_OUT, SPI_IN = 0x2001, 0x1001


class Peer:
    """The other end of the link: frames in, frames out."""

    def __init__(self) -> None:
        self._link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
        self._link.bind(("beyond", 0))
        self._link.setblocking(False)
        self._ours, self._theirs = neighbour("beyond"), neighbour("outside")

    def put(self, packet: Packet) -> None:
        """Send an IP packet to the datapath's machine."""
        version = packet.version
        frame = self._theirs + self._ours + ETHERTYPE[version].to_bytes(2) + bytes(packet)
        self._link.send(frame)

    async def take(self, protocol: int) -> bytes:
        """Return the next IP packet of ESP or AH that the datapath sends."""
        loop = asyncio.get_running_loop()
        while True:
            frame = await asyncio.wait_for(loop.sock_recv(self._link, 4096), 30)
            if frame[:6] != self._ours or frame[12:14] not in (b"\x08\x00", b"\x86\xdd"):
                continue
            packet = frame[14:]
            if protocol == packet_protocol(packet):
                return packet

    def close(self) -> None:
        self._link.close()


def packet_protocol(packet: bytes) -> int:
    """Return the protocol of an IP packet, behind a Fragment header too."""
    if packet[0] >> 4 == 4:
        return packet[9]
    return packet[40] if packet[6] == PROTOCOL_FRAGMENT else packet[6]


@contextmanager
def host(version: int, mode: Mode) -> Iterator[socket.socket]:
    """A program on the datapath's machine, inside of what is protected."""
    ours, _ = (INNER if mode is Mode.TUNNEL else OUTER)[version]
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.bind((ours, PORT))
        yield sock


@pytest.fixture(params=ENGINES)
async def link(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Datapath, Peer]]:
    """A datapath with an engine, and its peer."""
    async with OPENERS[request.param]() as datapath:
        peer = Peer()
        try:
            yield datapath, peer
        finally:
            peer.close()


def selectors(mode: Mode, version: int) -> tuple[tuple[TrafficSelector, ...], tuple[TrafficSelector, ...]]:
    ours, theirs = (INNER if mode is Mode.TUNNEL else OUTER)[version]
    return (TrafficSelector.parse(ours),), (TrafficSelector.parse(theirs),)


def pair(
    mode: Mode, inner: int, outer: int, keys: dict[str, Any]
) -> tuple[SecurityAssociation, SecurityAssociation]:
    """Return inbound and outbound SA of one suite; both directions have other keys."""
    local_ts, remote_ts = selectors(mode, inner)
    ours, theirs = map(ip_address, OUTER[outer])
    shape: dict[str, Any] = {"mode": mode, "local_ts": local_ts, "remote_ts": remote_ts, **keys}
    return (
        inbound(SPI_IN, source=theirs, destination=ours, **shape),
        outbound(SPI_OUT, source=ours, destination=theirs, **shape),
    )


def esp_keys(suite: Suite) -> dict[str, Any]:
    return {
        "encryption": suite.encryption,
        "encryption_key": Secret(suite.encryption_key),
        "key_bits": suite.key_bits,
        "integrity": suite.integrity,
        "integrity_key": Secret(suite.integrity_key),
    }


def ah_keys(suite: AhSuite) -> dict[str, Any]:
    return {
        "protocol": IpsecProtocol.AH,
        "encryption": Encr.NULL,
        "encryption_key": Secret(b""),
        "key_bits": 0,
        "integrity": suite.integrity,
        "integrity_key": Secret(suite.key),
    }


class ShortIcvGcm:
    """AES-GCM-8 and -12, which scapy lacks, by SP 800-38D; scapy still makes and reads the packets."""

    def __init__(self, suite: Suite, sa: SecurityAssociation) -> None:
        self._key, self._salt = suite.encryption_key[:-4], suite.encryption_key[-4:]
        self._icv_bytes = TRUNCATED[suite.encryption]
        self._null = ScapySa(ESP, spi=sa.spi, seq_num=1, tunnel_header=outer_of(sa))
        self._spi = sa.spi

    def encrypt(self, packet: Packet) -> Packet:
        clear = self._null.encrypt(packet)
        iv = bytes(7) + b"\x01"
        ciphertext, tag = gcm(self._key, self._salt + iv, clear[ESP].data, bytes(clear[ESP])[:8])
        return self._with(clear, iv + ciphertext + tag[: self._icv_bytes])

    def decrypt(self, packet: Packet) -> Packet:
        iv, body = packet[ESP].data[:8], packet[ESP].data[8:]
        ciphertext, icv = body[: -self._icv_bytes], body[-self._icv_bytes :]
        head = bytes(packet[ESP])[:8]
        # Counter mode is its own inverse.
        plaintext, _ = gcm(self._key, self._salt + iv, ciphertext, head)
        assert gcm(self._key, self._salt + iv, plaintext, head)[1][: self._icv_bytes] == icv
        return self._null.decrypt(self._with(packet, plaintext))

    @staticmethod
    def _with(packet: Packet, data: bytes) -> Packet:
        changed = packet.copy()
        changed[ESP].data = data
        if changed.version == 4:
            del changed.len, changed.chksum
        else:
            del changed.plen
        return changed.__class__(bytes(changed))


def outer_of(sa: SecurityAssociation) -> Packet | None:
    header = IP_CLASS[sa.source.version](src=str(sa.source), dst=str(sa.destination))
    return header if sa.mode is Mode.TUNNEL else None


def oracle(suite: Suite | AhSuite, sa: SecurityAssociation) -> Any:
    """Return the peer's end of one direction."""
    common = {"spi": sa.spi, "seq_num": 1, "tunnel_header": outer_of(sa)}
    if isinstance(suite, Suite) and suite.encryption in CONSTRUCTED:
        return ShortIcvGcm(suite, sa)
    if isinstance(suite, AhSuite):
        return ScapySa(AH, auth_algo=ALGO_NAME[suite.integrity], auth_key=suite.key, **common)
    return ScapySa(
        ESP,
        crypt_algo=SCAPY_CIPHER[suite.encryption],
        crypt_key=suite.encryption_key,
        crypt_icv_size=ICV_BYTES.get(suite.encryption),
        auth_algo=SCAPY_MAC[suite.integrity],
        auth_key=suite.integrity_key,
        **common,
    )


def packet_of_peer(mode: Mode, version: int, data: bytes) -> Packet:
    ours, theirs = (INNER if mode is Mode.TUNNEL else OUTER)[version]
    packet = IP_CLASS[version](src=theirs, dst=ours) / UDP(sport=PORT, dport=PORT) / Raw(data)
    return IP_CLASS[version](bytes(packet))


async def send_both_ways(
    link: tuple[Datapath, Peer],
    sas: tuple[SecurityAssociation, SecurityAssociation],
    suite: Suite | AhSuite,
    inner: int,
) -> None:
    """Carry a datagram out, which scapy opens, and one in, which scapy sealed."""
    datapath, peer = link
    receiving, sending = sas
    results = await datapath.install_sas(sas)
    assert [result.error for result in results] == [None, None], suite
    theirs = (INNER if sending.mode is Mode.TUNNEL else OUTER)[inner][1]
    with host(inner, sending.mode) as program:
        data = str(suite).encode()
        program.sendto(data, (theirs, PORT))
        sealed = IP_CLASS[sending.source.version](await peer.take(sending.protocol))
        opened = IP_CLASS[inner](bytes(oracle(suite, sending).decrypt(sealed)))
        assert bytes(opened[UDP].payload) == data, suite

        peer.put(oracle(suite, receiving).encrypt(packet_of_peer(receiving.mode, inner, data)))
        loop = asyncio.get_running_loop()
        assert await asyncio.wait_for(loop.sock_recv(program, 2048), 30) == data, suite
    removed = await datapath.remove_sas([sa.sa_id for sa in sas])
    assert all(result.ok for result in removed)


@pytest.mark.parametrize(("mode", "inner", "outer"), SHAPES)
async def test_every_esp_suite_is_carried_both_ways(
    link: tuple[Datapath, Peer], mode: Mode, inner: int, outer: int
) -> None:
    local_ts, remote_ts = selectors(mode, inner)
    await link[0].apply_policies([policy(local_ts=local_ts, remote_ts=remote_ts, mode=mode)])

    for suite in SUITES:
        await send_both_ways(link, pair(mode, inner, outer, esp_keys(suite)), suite, inner)

    await check_received(link[0], len(SUITES))


@pytest.mark.parametrize(("mode", "inner", "outer"), SHAPES)
async def test_every_ah_suite_is_carried_both_ways(
    link: tuple[Datapath, Peer], mode: Mode, inner: int, outer: int
) -> None:
    local_ts, remote_ts = selectors(mode, inner)
    await link[0].apply_policies(
        [policy(local_ts=local_ts, remote_ts=remote_ts, mode=mode, protocol=IpsecProtocol.AH)]
    )

    carried = (await link[0].capabilities()).integrity
    suites = [suite for suite in AH_SUITES if suite.integrity in carried]
    for suite in suites:
        await send_both_ways(link, pair(mode, inner, outer, ah_keys(suite)), suite, inner)

    await check_received(link[0], len(suites))


async def test_capabilities_are_the_suites_that_are_carried(link: tuple[Datapath, Peer]) -> None:
    capabilities = await link[0].capabilities()
    absent = GMAC_OF_AH if (capabilities.name, "AES-GMAC in AH") in EXEMPTIONS else set()

    assert {(suite.encryption, suite.key_bits) for suite in SUITES} == set(capabilities.encryption)
    tried = {suite.integrity for suite in (*SUITES, *AH_SUITES)} - {Integ.NONE}
    assert tried - absent == set(capabilities.integrity)
    assert set(capabilities.protocols) == {IpsecProtocol.ESP, IpsecProtocol.AH}
    assert tried == {*transform.supported_integrity(), *ah.supported_integrity()}


# --- what AH drops ------------------------------------------------------------------------------------------

SUITE = AH_SUITES[1]
BETWEEN = {
    "hop-by-hop": None,
    "hop-by-hop, destination, routing": (
        IPv6ExtHdrDestOpt(options=[HBHOptUnknown(otype=0x3E, optdata=b"may change")])
        / IPv6ExtHdrRouting(addresses=[])
    ),
}
"""What is between the hop-by-hop options and AH: all in one order, which the kernel shows in parts."""
VERSIONS = pytest.mark.parametrize("version", [4, 6])
MODES = pytest.mark.parametrize("mode", list(Mode))


async def drops_of(datapath: Datapath, sa: SecurityAssociation, count: int) -> dict[DropReason, int]:
    """Return what was dropped, of an SA and of none, as soon as that are so many.

    The kernel counts some reasons for all SAs together.
    """
    for _ in range(600):
        counters = await datapath.counters()
        (own,) = [item for item in counters.sas if item.sa_id == sa.sa_id]
        drops = Counter(own.drops) + Counter(counters.drops)
        if drops.total() >= count:
            return dict(drops)
        await asyncio.sleep(0.05)
    raise AssertionError(f"no {count} drops, only {own.drops} and {counters.drops}")


async def install_ah(datapath: Datapath, mode: Mode, version: int, **changes: Any) -> SecurityAssociation:
    receiving = replace(pair(mode, version, version, ah_keys(SUITE))[0], **changes)
    protected = policy(
        local_ts=receiving.local_ts, remote_ts=receiving.remote_ts, mode=mode, protocol=IpsecProtocol.AH
    )
    assert [result.error for result in await datapath.apply_policies([protected])] == [None]
    assert [result.error for result in await datapath.install_sas([receiving])] == [None]
    return receiving


@VERSIONS
@MODES
async def test_ah_that_is_replayed_forged_or_elsewhere_is_dropped_with_its_reason(
    link: tuple[Datapath, Peer], mode: Mode, version: int
) -> None:
    datapath, peer = link
    sa = await install_ah(datapath, mode, version)
    good = oracle(SUITE, sa).encrypt(packet_of_peer(mode, version, b"data"), seq_num=100)
    forged = IP_CLASS[version](
        bytes(oracle(SUITE, sa).encrypt(packet_of_peer(mode, version, b"x"), seq_num=101))
    )
    forged[AH].icv = bytes(len(forged[AH].icv))

    with host(version, mode) as program:
        peer.put(good)
        assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(program, 2048), 30) == b"data"
    for packet in (good, forged):
        peer.put(packet)

    assert await drops_of(datapath, sa, 2) == {DropReason.REPLAY: 1, DropReason.INTEGRITY: 1}


@VERSIONS
async def test_ah_outside_the_window_and_outside_the_selectors_is_dropped(
    link: tuple[Datapath, Peer], version: int
) -> None:
    datapath, peer = link
    sa = await install_ah(datapath, Mode.TUNNEL, version, replay_window_packets=64)
    theirs = oracle(SUITE, sa)
    stranger = packet_of_peer(Mode.TUNNEL, version, b"x")
    stranger.src = {4: "10.7.0.1", 6: "fd00:7::1"}[version]
    del stranger[UDP].chksum
    if version == 4:
        del stranger.chksum

    # Without a program the kernel would answer, and there is no SA for that.
    with host(version, Mode.TUNNEL):
        peer.put(theirs.encrypt(packet_of_peer(Mode.TUNNEL, version, b"data"), seq_num=1000))
        peer.put(theirs.encrypt(packet_of_peer(Mode.TUNNEL, version, b"data"), seq_num=900))
        peer.put(theirs.encrypt(IP_CLASS[version](bytes(stranger)), seq_num=1001))

        assert await drops_of(datapath, sa, 2) == {
            DropReason.REPLAY_WINDOW: 1,
            DropReason.SELECTOR_MISMATCH: 1,
        }


async def event_under_packets(events: Watch[DatapathEvent], peer: Peer, packet: Packet) -> DatapathEvent:
    """Return the next event while a packet comes again and again."""
    waiting = asyncio.ensure_future(anext(events))
    for _ in range(300):
        peer.put(packet)
        if (await asyncio.wait([waiting], timeout=0.1))[0]:
            return waiting.result()
    raise AssertionError("no event")


@VERSIONS
async def test_ah_with_an_unknown_spi_is_told_as_such(link: tuple[Datapath, Peer], version: int) -> None:
    datapath, peer = link
    events = datapath.events()
    # An ESP SA with the SPI is another SA (RFC 4301 section 4.1).
    ours, theirs = map(ip_address, OUTER[version])
    local_ts, remote_ts = selectors(Mode.TUNNEL, version)
    esp = inbound(SPI_IN, source=theirs, destination=ours, local_ts=local_ts, remote_ts=remote_ts)
    await datapath.install_sas([esp])
    sa = pair(Mode.TUNNEL, version, version, ah_keys(SUITE))[0]

    packet = oracle(SUITE, sa).encrypt(packet_of_peer(Mode.TUNNEL, version, b"x"))

    assert await event_under_packets(events, peer, packet) == BadSpi(
        protocol=IpsecProtocol.AH, spi=sa.spi, source=theirs, destination=ours
    )
    assert (await datapath.counters()).drops[DropReason.UNKNOWN_SPI] >= 1


@pytest.mark.parametrize("more", BETWEEN.values(), ids=BETWEEN)
async def test_ah_behind_ipv6_extension_headers_is_verified_with_them(
    link: tuple[Datapath, Peer], more: Packet | None
) -> None:
    datapath, peer = link
    sa = await install_ah(datapath, Mode.TRANSPORT, 6)
    ours, theirs = OUTER[6]
    packet = IPv6(src=theirs, dst=ours) / IPv6ExtHdrHopByHop(
        options=[HBHOptUnknown(otype=0x1E, optdata=b"immutable.")]
    )
    packet = packet if more is None else packet / more
    packet = packet / UDP(sport=PORT, dport=PORT) / Raw(b"behind options")
    signed = oracle(SUITE, sa).encrypt(IPv6(bytes(packet)))
    # What no hop may change is authenticated also where the kernel has read it already.
    other = IPv6(bytes(oracle(SUITE, sa).encrypt(IPv6(bytes(packet)), seq_num=5)))
    other[IPv6ExtHdrHopByHop].options[0].optdata = b"otherwise."

    with host(6, Mode.TRANSPORT) as program:
        peer.put(signed)
        received = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(program, 2048), 30)
    peer.put(other)

    assert received == b"behind options"
    assert await drops_of(datapath, sa, 1) == {DropReason.INTEGRITY: 1}


async def install_ah_pair(datapath: Datapath, outer: int) -> tuple[SecurityAssociation, SecurityAssociation]:
    """Install both directions over a path that takes 1280 bytes."""
    set_mtu("outside", 1280)
    receiving, sending = pair(Mode.TUNNEL, 4, outer, ah_keys(SUITE))
    sending = replace(sending, copy_df=False)
    await datapath.apply_policies(
        [policy(local_ts=sending.local_ts, remote_ts=sending.remote_ts, protocol=IpsecProtocol.AH)]
    )
    await datapath.install_sas([receiving, sending])
    return receiving, sending


LONG = bytes(range(250)) * 5
"""1278 bytes with UDP and IP headers, which the tunnel device takes whole."""


@pytest.mark.parametrize("outer", [4, 6])
async def test_ah_is_fragmented_by_its_sender(link: tuple[Datapath, Peer], outer: int) -> None:
    datapath, peer = link
    await skip_if_exempt(datapath, "fragments of AH")
    _, sending = await install_ah_pair(datapath, outer)

    with host(4, Mode.TUNNEL) as program:
        program.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER: IP_PMTUDISC_DONT
        program.sendto(LONG, (INNER[4][1], PORT))
        pieces = [IP_CLASS[outer](await peer.take(IpsecProtocol.AH)) for _ in range(2)]

    whole = defragment(pieces)[0] if outer == 4 else defragment6(pieces)
    opened = IP(bytes(oracle(SUITE, sending).decrypt(IP_CLASS[outer](bytes(whole)))))
    assert bytes(opened[UDP].payload) == LONG
    assert all(len(bytes(piece)) <= 1280 for piece in pieces)


@pytest.mark.parametrize("outer", [4, 6])
async def test_fragments_of_ah_are_reassembled_before_it_is_verified(
    link: tuple[Datapath, Peer], outer: int
) -> None:
    datapath, peer = link
    receiving, _ = await install_ah_pair(datapath, outer)
    signed = oracle(SUITE, receiving).encrypt(packet_of_peer(Mode.TUNNEL, 4, LONG))
    if outer == 4:
        pieces = fragment(IP(bytes(signed)), 800)
    else:
        pieces = [IPv6(piece) for piece in split_by_hand(bytes(signed), 40, 800, 77)]

    with host(4, Mode.TUNNEL) as program:
        for piece in pieces:
            peer.put(piece)
        received = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(program, 4096), 30)

    assert received == LONG


def split_by_hand(packet: bytes, at: int, size: int, identification: int) -> list[bytes]:
    """Return IPv6 fragments (RFC 8200 section 4.5); scapy's function wants a Fragment header there."""
    body = packet[at:]
    pieces = []
    for offset in range(0, len(body), size):
        part = body[offset : offset + size]
        more = offset + len(part) < len(body)
        head = bytes((packet[6], 0)) + (offset | more).to_bytes(2) + identification.to_bytes(4)
        length = (len(head) + len(part)).to_bytes(2)
        pieces.append(packet[:4] + length + bytes((44,)) + packet[7:at] + head + part)
    return pieces


@pytest.mark.parametrize("protocol", list(IpsecProtocol))
@VERSIONS
@MODES
async def test_router_that_says_too_big_is_heard(
    link: tuple[Datapath, Peer], mode: Mode, version: int, protocol: IpsecProtocol
) -> None:
    datapath, peer = link
    keys = ah_keys(SUITE) if protocol is IpsecProtocol.AH else esp_keys(BY_NAME["aes256gcm16"])
    _, sending = pair(mode, version, version, keys)
    await datapath.apply_policies(
        [policy(local_ts=sending.local_ts, remote_ts=sending.remote_ts, mode=mode, protocol=protocol)]
    )
    await datapath.install_sas([sending])
    (before,) = await datapath.list_sas()

    with host(version, mode) as program:
        program.sendto(bytes(1300), ((INNER if mode is Mode.TUNNEL else OUTER)[version][1], PORT))
        sent = await peer.take(protocol)
    ours, theirs = OUTER[version]
    if version == 4:
        peer.put(IP(src=theirs, dst=ours) / ICMP(type=3, code=4, nexthopmtu=1290) / Raw(sent[:548]))
    else:
        peer.put(IPv6(src=theirs, dst=ours) / ICMPv6PacketTooBig(mtu=1290) / Raw(sent[:1200]))

    assert before.effective_mtu is not None
    for _ in range(600):
        (after,) = await datapath.list_sas()
        if after.effective_mtu != before.effective_mtu:
            break
        await asyncio.sleep(0.05)
    assert after.effective_mtu is not None
    # 1500 - 1290, in units of the cipher
    assert before.effective_mtu - after.effective_mtu in range(206, 215)


@MODES
async def test_ah_that_is_to_be_encapsulated_is_refused(link: tuple[Datapath, Peer], mode: Mode) -> None:
    receiving, sending = pair(mode, 4, 4, ah_keys(SUITE))
    encapsulation = UdpEncapsulation(source_port=4500, destination_port=4500)

    results = await link[0].install_sas(
        [replace(receiving, encapsulation=encapsulation), replace(sending, encapsulation=encapsulation)]
    )

    assert [result.error and result.error.reason for result in results] == [ErrorReason.MODE_UNSUPPORTED] * 2
    assert all("NAT" in str(result.error) for result in results)
