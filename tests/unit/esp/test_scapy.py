"""Every suite, mode, family, UDP encapsulation and ESN against another implementation, in both directions.

The oracle is scapy 2.8's `scapy.layers.ipsec`, with one exception: it has no truncated AES-GCM tags (it hands
the AEAD interface of `cryptography` an ICV of 8 or 12 bytes, which that refuses). For AES-GCM-8 and -12 the
oracle is `test_truncated_gcm.py`: GHASH and GCTR written out from NIST SP 800-38D. Nor has it AES-XCBC-96: it
is given one that is written out from RFC 3566 (`written_out.xcbc`). All together are complete:
`test_matrix_has_no_empty_cell`.
"""

from itertools import product

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting
from scapy.layers.ipsec import AUTH_ALGOS, ESP, AuthAlgo
from scapy.layers.ipsec import SecurityAssociation as ScapySa
from scapy.packet import Raw

from gateway.esp.inbound import parse_outer
from gateway.esp.transform import supported_encryption, supported_integrity
from gateway.ipsec.algorithms import Encr, Integ
from gateway.ipsec.sa import Mode
from tests.unit.esp.samples import (
    BY_NAME,
    ENCAPSULATION,
    INNER,
    OUTER,
    SPI,
    SUITES,
    Suite,
    inbound,
    ip_packet,
    outbound,
)
from tests.unit.esp.written_out import XcbcMac

IP_CLASS = {4: IP, 6: IPv6}
SCAPY_CIPHER = {
    Encr.NULL: "NULL",
    Encr.AES_CBC: "AES-CBC",
    Encr.AES_CTR: "AES-CTR",
    Encr.AES_GCM_16: "AES-GCM",
    Encr.AES_CCM_16: "AES-CCM",
    Encr.AES_CCM_12: "AES-CCM",
    Encr.AES_CCM_8: "AES-CCM",
    Encr.CHACHA20_POLY1305: "CHACHA20-POLY1305",
    Encr.NULL_AUTH_AES_GMAC: "AES-NULL-GMAC",
}
SCAPY_MAC = {
    Integ.NONE: None,
    Integ.HMAC_SHA1_96: "HMAC-SHA1-96",
    Integ.HMAC_SHA2_256_128: "SHA2-256-128",
    Integ.HMAC_SHA2_384_192: "SHA2-384-192",
    Integ.HMAC_SHA2_512_256: "SHA2-512-256",
    Integ.AES_CMAC_96: "AES-CMAC-96",
    Integ.AES_XCBC_96: "AES-XCBC-96",
}
AUTH_ALGOS["AES-XCBC-96"] = AuthAlgo("AES-XCBC-96", XcbcMac, bytes, icv_size=12, key_size=(16,))
ICV_BYTES = {Encr.AES_CCM_12: 12, Encr.AES_CCM_8: 8}
CONSTRUCTED = (Encr.AES_GCM_12, Encr.AES_GCM_8)

SCAPY_SUITES = [suite for suite in SUITES if suite.encryption in SCAPY_CIPHER]
TUNNEL = [(Mode.TUNNEL, inner, outer) for inner, outer in product((4, 6), (4, 6))]
TRANSPORT = [(Mode.TRANSPORT, version, version) for version in (4, 6)]
SHAPES = list(product(TUNNEL + TRANSPORT, (False, True), (7, (5 << 32) + 7)))
"""Mode and families, whether in UDP, and a sequence number, which needs ESN where it is long."""
PAYLOADS = [bytes(range(n)) for n in (0, 1, 14, 33)]


def scapy_sa(suite: Suite, mode: Mode, outer: int, *, udp: bool, sequence: int, esn: bool) -> ScapySa:
    source, destination = OUTER[outer]
    return ScapySa(
        ESP,
        spi=SPI,
        seq_num=sequence & 0xFFFFFFFF,
        crypt_algo=SCAPY_CIPHER[suite.encryption],
        crypt_key=suite.encryption_key,
        crypt_icv_size=ICV_BYTES.get(suite.encryption),
        auth_algo=SCAPY_MAC[suite.integrity],
        auth_key=suite.integrity_key,
        tunnel_header=IP_CLASS[outer](src=source, dst=destination) if mode is Mode.TUNNEL else None,
        nat_t_header=UDP(sport=4500, dport=4500) if udp else None,
        esn_en=esn,
        esn=sequence >> 32,
    )


def sample_packets(mode: Mode, inner: int) -> list[bytes]:
    addresses = INNER if mode is Mode.TUNNEL else OUTER
    return [ip_packet(inner, payload, addresses=addresses) for payload in PAYLOADS]


@pytest.mark.parametrize("suite", SCAPY_SUITES, ids=str)
def test_scapy_opens_what_we_seal(suite: Suite) -> None:
    for shape in SHAPES:
        (mode, inner, outer), udp, sequence = shape
        esn = sequence > 0xFFFFFFFF
        ours = outbound(
            suite,
            mode=mode,
            outer=outer,
            esn=esn,
            encapsulation=ENCAPSULATION if udp else None,
            next_sequence=sequence,
        )
        for number, packet in enumerate(sample_packets(mode, inner), sequence):
            theirs = scapy_sa(suite, mode, outer, udp=udp, sequence=number, esn=esn)

            sealed = ours.seal(packet, 0.0)

            assert bytes(theirs.decrypt(IP_CLASS[outer](sealed))) == packet, shape


@pytest.mark.parametrize("suite", SCAPY_SUITES, ids=str)
def test_we_open_what_scapy_seals(suite: Suite) -> None:
    for shape in SHAPES:
        (mode, inner, outer), udp, sequence = shape
        esn = sequence > 0xFFFFFFFF
        ours = inbound(suite, mode=mode, outer=outer, esn=esn, encapsulation=ENCAPSULATION if udp else None)
        ours.window.commit(sequence - 1)
        for number, packet in enumerate(sample_packets(mode, inner), sequence):
            theirs = scapy_sa(suite, mode, outer, udp=udp, sequence=number, esn=esn)

            sealed = bytes(theirs.encrypt(IP_CLASS[inner](packet)))
            header, esp = parse_outer(sealed)
            opened = ours.open(esp, header, 0.0)

            assert (opened.packet, opened.sequence) == (packet, number), shape


def test_matrix_has_no_empty_cell() -> None:
    covered = {(suite.encryption, suite.key_bits, suite.integrity) for suite in SCAPY_SUITES}
    covered |= {
        (suite.encryption, suite.key_bits, suite.integrity)
        for suite in SUITES
        if suite.encryption in CONSTRUCTED
    }

    combined = {Encr.NULL, Encr.AES_CBC, Encr.AES_CTR}
    expected = set()
    for encryption, bits in supported_encryption():
        macs = supported_integrity() if encryption in combined else (Integ.NONE,)
        expected |= {(encryption, bits, mac) for mac in macs}
    assert covered == expected


EXTENSION_CHAINS = {
    "hop-by-hop": lambda: IPv6ExtHdrHopByHop(),
    "routing": lambda: IPv6ExtHdrRouting(addresses=[]),
    "destination-options": lambda: IPv6ExtHdrDestOpt(),
    "all": lambda: (
        IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / IPv6ExtHdrRouting(addresses=[]) / IPv6ExtHdrDestOpt()
    ),
}


@pytest.mark.parametrize("chain", EXTENSION_CHAINS)
def test_scapy_agrees_on_ipv6_extension_headers_in_transport_mode(chain: str) -> None:
    source, destination = OUTER[6]
    packet = bytes(
        IPv6(src=source, dst=destination) / EXTENSION_CHAINS[chain]() / UDP(sport=1, dport=2) / Raw(b"data")
    )
    suite = BY_NAME["aes256-sha256"]
    theirs = scapy_sa(suite, Mode.TRANSPORT, 6, udp=False, sequence=1, esn=False)

    sealed = outbound(suite, mode=Mode.TRANSPORT, outer=6).seal(packet, 0.0)
    assert bytes(theirs.decrypt(IPv6(sealed))) == packet

    header, esp = parse_outer(bytes(theirs.encrypt(IPv6(packet), seq_num=1)))
    assert inbound(suite, mode=Mode.TRANSPORT, outer=6).open(esp, header, 0.0).packet == packet


def test_scapy_agrees_on_ipv4_options_in_transport_mode() -> None:
    source, destination = OUTER[4]
    router_alert = b"\x94\x04\x00\x00"
    packet = bytes(
        IP(src=source, dst=destination, options=router_alert) / UDP(sport=1, dport=2) / Raw(b"data")
    )
    suite = BY_NAME["aes128-sha256"]
    theirs = scapy_sa(suite, Mode.TRANSPORT, 4, udp=False, sequence=1, esn=False)

    sealed = outbound(suite, mode=Mode.TRANSPORT).seal(packet, 0.0)
    assert sealed[20:24] == router_alert
    assert bytes(theirs.decrypt(IP(sealed))) == packet

    header, esp = parse_outer(bytes(theirs.encrypt(IP(packet), seq_num=1)))
    assert inbound(suite, mode=Mode.TRANSPORT).open(esp, header, 0.0).packet == packet
