"""AH of every algorithm, mode, family and ESN against another implementation, in both directions.

The oracle is scapy 2.8's `scapy.layers.ipsec`. It has neither AES-XCBC-96 nor AES-GMAC: it is given those of
`written_out.py`, which are written out from RFC 3566 and NIST SP 800-38D, so that headers, mutable fields,
padding and ESN stay scapy's. `test_table_of_oracles_has_no_empty_cell` says which is whose.
"""

from itertools import product
from struct import pack
from typing import Any

import pytest
from scapy.layers.inet import (
    IP,
    UDP,
    IPOption_LSRR,
    IPOption_NOP,
    IPOption_Router_Alert,
    IPOption_RR,
    IPOption_Security,
    IPOption_SSRR,
    IPOption_Stream_Id,
    IPOption_Timestamp,
)
from scapy.layers.inet6 import (
    HBHOptUnknown,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    RouterAlert,
)
from scapy.layers.ipsec import AH, AUTH_ALGOS, AuthAlgo, IPSecIntegrityError, zero_mutable_fields
from scapy.layers.ipsec import SecurityAssociation as ScapySa
from scapy.packet import Packet, Raw

from gateway.esp.ah import supported_integrity
from gateway.esp.inbound import parse_outer
from gateway.esp.packet import PROTOCOL_AH
from gateway.ipsec.algorithms import Integ
from gateway.ipsec.sa import Mode
from tests.unit.esp.ah_samples import AH_SUITES, SHA256, AhSuite, ah_inbound, ah_outbound
from tests.unit.esp.samples import INNER, OUTER, SPI, ip_packet
from tests.unit.esp.written_out import XcbcMac, gcm

IP_CLASS = {4: IP, 6: IPv6}


class GmacAlgo(AuthAlgo):
    """RFC 4543 §4 for scapy: 8 bytes of IV and 16 of tag where the ICV stands."""

    def __init__(self, name: str, key_bytes: int) -> None:
        super().__init__(name, gcm, None, icv_size=24, key_size=(key_bytes + 4,))

    def sign(self, pkt: Packet, key: bytes, esn_en: bool = False, esn: int = 0) -> Packet:
        high = pack("!L", esn) if esn_en else b""
        iv = pack("!LL", esn if esn_en else 0, pkt[AH].seq)
        covered = bytes(zero_mutable_fields(pkt.copy(), sending=True)) + high
        pkt[AH].icv = iv + gcm(key[:-4], key[-4:] + iv, b"", covered)[1]
        return pkt

    def verify(self, pkt: Packet, key: bytes, esn_en: bool = False, esn: int = 0) -> None:
        pkt[AH].padding, pkt[AH].icv = pkt[AH].icv[24:], pkt[AH].icv[:24]
        iv, tag = pkt[AH].icv[:8], pkt[AH].icv[8:]
        covered = bytes(zero_mutable_fields(pkt.copy(), sending=False))
        covered += pack("!L", esn) if esn_en else b""
        if gcm(key[:-4], key[-4:] + iv, b"", covered)[1] != tag:
            raise IPSecIntegrityError


SCAPY_OWN = {
    Integ.HMAC_SHA1_96: "HMAC-SHA1-96",
    Integ.HMAC_SHA2_256_128: "SHA2-256-128",
    Integ.HMAC_SHA2_384_192: "SHA2-384-192",
    Integ.HMAC_SHA2_512_256: "SHA2-512-256",
    Integ.AES_CMAC_96: "AES-CMAC-96",
}
WRITTEN_OUT: dict[Integ, AuthAlgo] = {
    Integ.AES_XCBC_96: AuthAlgo("XCBC written out", XcbcMac, bytes, icv_size=12, key_size=(16,)),
    Integ.AES_128_GMAC: GmacAlgo("GMAC-128 written out", 16),
    Integ.AES_192_GMAC: GmacAlgo("GMAC-192 written out", 24),
    Integ.AES_256_GMAC: GmacAlgo("GMAC-256 written out", 32),
}
AUTH_ALGOS.update({algo.name: algo for algo in WRITTEN_OUT.values()})
ALGO_NAME = SCAPY_OWN | {integ: algo.name for integ, algo in WRITTEN_OUT.items()}

SHAPES = [
    pytest.param(mode, inner, outer, id=f"{mode.value}-v{inner}-in-v{outer}")
    for mode, inner, outer in (
        *((Mode.TUNNEL, inner, outer) for inner, outer in product((4, 6), (4, 6))),
        *((Mode.TRANSPORT, version, version) for version in (4, 6)),
    )
]
SEQUENCES = [pytest.param(False, 7, id="sn32"), pytest.param(True, (5 << 32) + 7, id="esn")]
PAYLOADS = [bytes(range(n)) for n in (0, 1, 33)]


def scapy_sa(suite: AhSuite, mode: Mode, outer: int, *, sequence: int, esn: bool) -> ScapySa:
    source, destination = OUTER[outer]
    return ScapySa(
        AH,
        spi=SPI,
        seq_num=sequence & 0xFFFFFFFF,
        auth_algo=ALGO_NAME[suite.integrity],
        auth_key=suite.key,
        tunnel_header=IP_CLASS[outer](src=source, dst=destination) if mode is Mode.TUNNEL else None,
        esn_en=esn,
        esn=sequence >> 32,
    )


def sample_packets(mode: Mode, inner: int) -> list[bytes]:
    addresses = INNER if mode is Mode.TUNNEL else OUTER
    return [ip_packet(inner, payload, addresses=addresses) for payload in PAYLOADS]


@pytest.mark.parametrize("suite", AH_SUITES, ids=str)
@pytest.mark.parametrize(("esn", "sequence"), SEQUENCES)
@pytest.mark.parametrize(("mode", "inner", "outer"), SHAPES)
def test_scapy_verifies_what_we_sign(
    *, suite: AhSuite, mode: Mode, inner: int, outer: int, esn: bool, sequence: int
) -> None:
    ours = ah_outbound(suite, mode=mode, outer=outer, esn=esn, next_sequence=sequence)
    for number, packet in enumerate(sample_packets(mode, inner), sequence):
        theirs = scapy_sa(suite, mode, outer, sequence=number, esn=esn)

        sealed = ours.seal(packet, 0.0)

        opened = bytes(theirs.decrypt(IP_CLASS[outer](sealed)))
        assert without_identification(opened) == without_identification(packet)


def without_identification(packet: bytes) -> bytes:
    """Leave out what a sender may fill in where an IPv4 packet without DF has none."""
    return packet if packet[0] >> 4 == 6 else packet[:4] + b"\0\0" + packet[6:10] + b"\0\0" + packet[12:]


@pytest.mark.parametrize("suite", AH_SUITES, ids=str)
@pytest.mark.parametrize(("esn", "sequence"), SEQUENCES)
@pytest.mark.parametrize(("mode", "inner", "outer"), SHAPES)
def test_we_verify_what_scapy_signs(
    *, suite: AhSuite, mode: Mode, inner: int, outer: int, esn: bool, sequence: int
) -> None:
    ours = ah_inbound(suite, mode=mode, outer=outer, esn=esn)
    ours.window.commit(sequence - 1)
    for number, packet in enumerate(sample_packets(mode, inner), sequence):
        theirs = scapy_sa(suite, mode, outer, sequence=number, esn=esn)

        sealed = bytes(theirs.encrypt(IP_CLASS[inner](packet)))
        opened = ours.open(*reversed(parse_outer(sealed, PROTOCOL_AH)), 0.0)  # type: ignore[misc]

        assert opened.packet == packet
        assert opened.sequence == number


def test_table_of_oracles_has_no_empty_cell() -> None:
    assert {suite.integrity for suite in AH_SUITES} == set(supported_integrity())
    assert set(ALGO_NAME) == set(supported_integrity())
    assert not set(SCAPY_OWN) & set(WRITTEN_OUT)


# --- options and extension headers: RFC 4302 Appendix A, as scapy classifies them -----------------------

IPV4_OPTIONS: dict[str, list[Any]] = {
    "nop": [IPOption_NOP(), IPOption_NOP()],
    "router alert": [IPOption_Router_Alert()],
    "security": [IPOption_Security()],
    "record route": [IPOption_RR(routers=["192.0.2.9", "0.0.0.0"])],
    "timestamp": [IPOption_Timestamp()],
    "stream id": [IPOption_Stream_Id(security=7)],
    "followed source route": [IPOption_LSRR(pointer=8, routers=["192.0.2.9"])],
    "followed strict source route": [IPOption_SSRR(pointer=8, routers=["192.0.2.9"])],
    "several": [IPOption_NOP(), IPOption_RR(routers=["192.0.2.9"]), IPOption_Router_Alert(), IPOption_NOP()],
}


@pytest.mark.parametrize("options", IPV4_OPTIONS.values(), ids=IPV4_OPTIONS)
def test_scapy_agrees_on_ipv4_options(options: list[Any]) -> None:
    source, destination = OUTER[4]
    packet = bytes(
        IP(src=source, dst=destination, id=77, options=options) / UDP(sport=1, dport=2) / Raw(b"data")
    )
    theirs = scapy_sa(SHA256, Mode.TRANSPORT, 4, sequence=1, esn=False)

    sealed = ah_outbound(mode=Mode.TRANSPORT).seal(packet, 0.0)
    assert bytes(theirs.decrypt(IP(sealed))) == packet

    header, ah = parse_outer(bytes(theirs.encrypt(IP(packet), seq_num=1)), PROTOCOL_AH)
    assert ah_inbound(mode=Mode.TRANSPORT).open(ah, header, 0.0).packet == packet


MUTABLE = HBHOptUnknown(otype=0x3E, optdata=b"\x01\x02\x03\x04\x05\x06")
IMMUTABLE = HBHOptUnknown(otype=0x1E, optdata=b"\x01\x02\x03\x04\x05\x06")
EXTENSION_CHAINS = {
    "hop-by-hop": lambda: IPv6ExtHdrHopByHop(options=[RouterAlert()]),
    "hop-by-hop that may change": lambda: IPv6ExtHdrHopByHop(options=[MUTABLE, IMMUTABLE]),
    "routing": lambda: IPv6ExtHdrRouting(addresses=[]),
    "destination options": lambda: IPv6ExtHdrDestOpt(options=[MUTABLE]),
    "all": lambda: (
        IPv6ExtHdrHopByHop(options=[IMMUTABLE])
        / IPv6ExtHdrDestOpt(options=[MUTABLE])
        / IPv6ExtHdrRouting(addresses=[])
        / IPv6ExtHdrDestOpt(options=[IMMUTABLE])
    ),
}


@pytest.mark.parametrize("chain", EXTENSION_CHAINS)
def test_scapy_agrees_on_ipv6_extension_headers(chain: str) -> None:
    source, destination = OUTER[6]
    packet = bytes(
        IPv6(src=source, dst=destination) / EXTENSION_CHAINS[chain]() / UDP(sport=1, dport=2) / Raw(b"data")
    )
    theirs = scapy_sa(SHA256, Mode.TRANSPORT, 6, sequence=1, esn=False)

    sealed = ah_outbound(mode=Mode.TRANSPORT, outer=6).seal(packet, 0.0)
    assert bytes(theirs.decrypt(IPv6(sealed))) == packet

    header, ah = parse_outer(bytes(theirs.encrypt(IPv6(packet), seq_num=1)), PROTOCOL_AH)
    assert ah_inbound(mode=Mode.TRANSPORT, outer=6).open(ah, header, 0.0).packet == packet


def test_routing_header_is_signed_as_scapy_predicts_it_and_verified_where_it_ends() -> None:
    source, final = OUTER[6]
    hop = "2001:db8:ffff::99"
    # From us to the hop first, then to where the SA ends.
    sent = IPv6(src=source, dst=hop) / IPv6ExtHdrRouting(addresses=[final], segleft=1) / UDP(sport=1, dport=2)
    theirs = scapy_sa(SHA256, Mode.TRANSPORT, 6, sequence=1, esn=False)

    ours = IPv6(ah_outbound(mode=Mode.TRANSPORT, outer=6).seal(bytes(sent), 0.0))
    assert bytes(ours) == bytes(theirs.encrypt(IPv6(bytes(sent)), seq_num=1))

    # The hop swaps and counts down (RFC 2460 section 4.4).
    ours.dst, ours[IPv6ExtHdrRouting].addresses, ours[IPv6ExtHdrRouting].segleft = final, [hop], 0
    header, ah = parse_outer(bytes(ours), PROTOCOL_AH)
    opened = IPv6(ah_inbound(mode=Mode.TRANSPORT, outer=6).open(ah, header, 0.0).packet)
    assert (opened.dst, opened[UDP].dport) == (final, 2)
