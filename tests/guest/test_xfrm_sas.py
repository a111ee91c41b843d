"""SAs of every kind over NETLINK_XFRM against a kernel that has them, with iproute2 as witness.

What an SA was given comes back from the kernel, one by one and in a list, and is what iproute2 shows.
Policies, SPIs and notifications of what needs no ESP are tested in tests/netns/test_xfrm_netlink.py.
"""

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from ipaddress import IPv4Address, IPv4Interface

import pytest

from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.errors import KernelRefusedError
from gateway.datapath.xfrm.netlink import XfrmSocket
from gateway.datapath.xfrm.numbers import (
    ANY_PROTOCOL,
    AeventFlag,
    EncapsulationType,
    Mode,
    SaDirection,
    SaExtraFlag,
    SaFlag,
)
from tests.guest.sas import (
    CBC_SHA256,
    EVERYTHING,
    EVERYTHING6,
    GCM_128,
    HERE,
    HERE6,
    PEER,
    PEER6,
    ah,
    esp,
    key,
)
from tests.netns.xfrm_witness import shown_by_ip

pytestmark = pytest.mark.guest

SPI = 0x1001
FORMER = IPv4Address("198.51.100.1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """An SA, and what iproute2 prints of it, white space folded."""

    sa: r.SaInfo
    attributes: r.Attributes
    shown: str
    added: Mapping[str, object] = field(default_factory=lambda: {"replay": r.ReplayState()})
    """What the kernel says besides."""


def integrity(name: str, key_bits: int, icv_bits: int) -> r.AuthAlgorithm:
    return r.AuthAlgorithm(name=name, key=key(key_bits), icv_bits=icv_bits)


#: As the kernel tells it also to those who do not know of truncation.
HMAC_SHA256 = r.Algorithm(name="hmac(sha256)", key=key(256))

EXAMPLES = {
    "AES-GCM": Example(
        sa=esp(SPI),
        attributes=GCM_128,
        shown="src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x00001001 reqid 7 mode tunnel "
        "replay-window 0 aead rfc4106(gcm(aes))",
    ),
    "AES-CBC with HMAC": Example(
        sa=esp(SPI),
        attributes=CBC_SHA256,
        shown="auth-trunc hmac(sha256) 0x",
        added={"replay": r.ReplayState(), "authentication": HMAC_SHA256},
    ),
    "AH": Example(
        sa=ah(SPI),
        attributes=r.Attributes(integrity=integrity("hmac(sha256)", 256, 128)),
        shown="proto ah",
        added={"replay": r.ReplayState(), "authentication": HMAC_SHA256},
    ),
    "IPv6, BEET": Example(sa=esp(SPI, HERE6, PEER6, mode=Mode.BEET), attributes=GCM_128, shown="mode beet"),
    "IPComp": Example(
        sa=replace(esp(0x1002), id=r.SaId(destination=PEER, spi=0x1002, protocol=108)),
        attributes=r.Attributes(compression=r.Algorithm(name="deflate", key=key(0))),
        shown="comp deflate",
    ),
    "flags, selector and limits": Example(
        sa=replace(
            esp(SPI, mode=Mode.TRANSPORT),
            selector=r.Selector(
                source=IPv4Interface("192.0.2.1/32"),
                destination=IPv4Interface("192.0.2.2/32"),
                protocol=17,
                source_port=500,
                source_port_mask=0xFFFF,
                destination_port=4500,
                destination_port_mask=0xFFFF,
            ),
            limits=r.LifetimeLimits(
                soft_bytes=2**33,
                hard_bytes=2**34,
                soft_packets=1000,
                hard_packets=2000,
                soft_add_s=3600,
                hard_add_s=7200,
                soft_use_s=100,
                hard_use_s=200,
            ),
            replay_window=32,
            flags=SaFlag.NOECN | SaFlag.DECAP_DSCP | SaFlag.NOPMTUDISC | SaFlag.ICMP,
        ),
        attributes=replace(GCM_128, extra_flags=SaExtraFlag.DONT_ENCAP_DSCP | SaExtraFlag.OSEQ_MAY_WRAP),
        shown="proto udp sport 500 dport 4500",
    ),
    "ESN and a wide window": Example(
        sa=replace(esp(SPI), flags=SaFlag.ESN),
        attributes=replace(
            GCM_128,
            replay_esn=r.ReplayStateEsn(window_packets=128, bitmap=(0, 0, 0, 0), outbound=5, outbound_high=1),
        ),
        shown="oseq-hi 0x1, oseq 0x5 replay_window 128",
        added={},
    ),
    "UDP encapsulation": Example(
        sa=esp(SPI),
        attributes=replace(
            GCM_128,
            encapsulation=r.Encapsulation(
                type=EncapsulationType.ESP_IN_UDP,
                source_port=4500,
                destination_port=1025,
                original_address=FORMER,
            ),
            mapping_threshold_s=30,
        ),
        shown="encap type espinudp sport 4500 dport 1025 addr 198.51.100.1",
    ),
    "marks and interface": Example(
        sa=esp(SPI),
        attributes=replace(
            GCM_128, mark=r.Mark(value=0x10, mask=0xFF), set_mark=0x20, set_mark_mask=0xF0, if_id=42
        ),
        shown="if_id 0x2a",
    ),
    "TFC padding": Example(sa=esp(SPI), attributes=replace(GCM_128, tfc_padding_bytes=1400), shown="tfcpad"),
    "inbound": Example(
        sa=replace(esp(SPI), replay_window=32),
        attributes=replace(GCM_128, direction=SaDirection.IN),
        shown="replay-window 32",
    ),
    "outbound with NAT keepalives": Example(
        sa=esp(SPI),
        attributes=replace(
            GCM_128,
            direction=SaDirection.OUT,
            encapsulation=r.Encapsulation(
                type=EncapsulationType.ESP_IN_UDP, source_port=4500, destination_port=4500
            ),
            nat_keepalive_s=20,
        ),
        shown="encap type espinudp",
    ),
    "of one CPU": Example(
        sa=esp(SPI), attributes=replace(GCM_128, direction=SaDirection.OUT, cpu=0), shown="mode tunnel"
    ),
    "Mobile IPv6": Example(
        sa=r.SaInfo(
            id=r.SaId(destination=PEER6, spi=0, protocol=43),
            source=HERE6,
            mode=Mode.ROUTEOPTIMIZATION,
            selector=EVERYTHING6,
        ),
        attributes=r.Attributes(care_of_address=HERE6),
        shown="coa 2001:db8::1",
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_sa_comes_back_as_it_was_given(xfrm: XfrmSocket, name: str) -> None:
    example = EXAMPLES[name]

    xfrm.add_sa(example.sa, example.attributes)

    assert example.shown in shown_by_ip("state", "list")
    (listed,) = [sa for sa in xfrm.sas() if sa.body.id == example.sa.id]
    # The name of an SA: Mobile IPv6 has no SPI, but the source.
    also = r.Attributes(mark=example.attributes.mark, source=example.sa.source)
    for found in (listed, xfrm.sa(example.sa.id, also)):
        assert replace(found.body, usage=r.LifetimeUsage()) == example.sa
        assert differing(found.attributes, example.attributes) == example.added
    xfrm.delete_sa(example.sa.id, also)
    assert example.sa.id not in [sa.body.id for sa in xfrm.sas()]


def differing(one: r.Attributes, other: r.Attributes) -> dict[str, object]:
    """Return the attributes of one that differ from those of the other."""
    names = [one_of.name for one_of in fields(r.Attributes)]
    return {name: getattr(one, name) for name in names if getattr(one, name) != getattr(other, name)}


#: Every algorithm that the kernel has for XFRM (net/xfrm/xfrm_algo.c) and IKEv2 has a number for.
AEADS = {
    **{
        f"rfc4106(gcm(aes)) {bits}/{icv}": ("rfc4106(gcm(aes))", bits, 4, icv)
        for bits in (128, 192, 256)
        for icv in (64, 96, 128)
    },
    **{
        f"rfc4309(ccm(aes)) {bits}/{icv}": ("rfc4309(ccm(aes))", bits, 3, icv)
        for bits in (128, 256)
        for icv in (64, 96, 128)
    },
    **{f"rfc4543(gcm(aes)) {bits}": ("rfc4543(gcm(aes))", bits, 4, 128) for bits in (128, 256)},
    "rfc7539esp(chacha20,poly1305)": ("rfc7539esp(chacha20,poly1305)", 256, 4, 128),
}
CIPHERS = {
    "ecb(cipher_null)": 0,
    "cbc(des3_ede)": 192,
    "cbc(aes)": 256,
    "cbc(camellia)": 256,
    "rfc3686(ctr(aes))": 256 + 32,
}
INTEGRITIES = {
    "hmac(md5)": (128, 96),
    "hmac(sha1)": (160, 96),
    "hmac(sha256)": (256, 128),
    "hmac(sha384)": (384, 192),
    "hmac(sha512)": (512, 256),
    "xcbc(aes)": (128, 96),
    "cmac(aes)": (128, 96),
}


@pytest.mark.parametrize("what", AEADS)
def test_kernel_has_the_combined_mode_algorithm(xfrm: XfrmSocket, what: str) -> None:
    name, bits, salt_bytes, icv_bits = AEADS[what]
    aead = r.AeadAlgorithm(name=name, key=key(bits, salt_bytes=salt_bytes), icv_bits=icv_bits)

    xfrm.add_sa(esp(SPI), r.Attributes(aead=aead))

    assert xfrm.sa(esp(SPI).id).attributes.aead == aead


@pytest.mark.parametrize("name", CIPHERS)
def test_kernel_has_the_cipher(xfrm: XfrmSocket, name: str) -> None:
    cipher = r.Algorithm(name=name, key=key(CIPHERS[name]))

    xfrm.add_sa(esp(SPI), r.Attributes(encryption=cipher, integrity=integrity("hmac(sha256)", 256, 128)))

    assert xfrm.sa(esp(SPI).id).attributes.encryption == cipher


@pytest.mark.parametrize("name", INTEGRITIES)
@pytest.mark.parametrize("sa", [esp(SPI), ah(SPI)], ids=["esp", "ah"])
def test_kernel_has_the_integrity_algorithm(xfrm: XfrmSocket, sa: r.SaInfo, name: str) -> None:
    algorithm = integrity(name, *INTEGRITIES[name])
    cipher = r.Algorithm(name="cbc(aes)", key=key(128)) if sa.id.protocol == 50 else None

    xfrm.add_sa(sa, r.Attributes(encryption=cipher, integrity=algorithm))

    assert xfrm.sa(sa.id).attributes.integrity == algorithm


def test_reserved_spi_becomes_an_sa(xfrm: XfrmSocket) -> None:
    larval = replace(esp(0), replay_window=0)
    reserved = xfrm.allocate_spi(r.SpiRange(sa=larval, lowest=0xC0000000, highest=0xC00000FF))

    xfrm.update_sa(replace(larval, id=reserved.body.id), GCM_128)

    (found,) = xfrm.sas()
    assert 0xC0000000 <= found.body.id.spi <= 0xC00000FF
    assert found.attributes.aead == GCM_128.aead


def test_update_gives_a_living_sa_new_limits_and_keeps_its_key(xfrm: XfrmSocket) -> None:
    xfrm.add_sa(esp(SPI), GCM_128)
    limits = r.LifetimeLimits(soft_packets=10, hard_packets=20)
    other_key = replace(
        GCM_128, aead=r.AeadAlgorithm(name="rfc4106(gcm(aes))", key=key(256, salt_bytes=4), icv_bits=128)
    )

    xfrm.update_sa(replace(esp(SPI), limits=limits), other_key)

    found = xfrm.sa(esp(SPI).id)
    assert found.body.limits == limits
    assert found.attributes.aead == GCM_128.aead


def test_list_is_filtered_by_protocol_and_by_address(xfrm: XfrmSocket) -> None:
    xfrm.add_sa(esp(SPI), GCM_128)
    xfrm.add_sa(ah(SPI), r.Attributes(integrity=integrity("hmac(sha256)", 256, 128)))
    xfrm.add_sa(esp(SPI, PEER, HERE), GCM_128)
    xfrm.add_sa(esp(SPI, HERE6, PEER6), GCM_128)

    def listed(attributes: r.Attributes) -> set[tuple[int, str]]:
        return {(sa.body.id.protocol, str(sa.body.id.destination)) for sa in xfrm.sas(attributes)}

    assert listed(r.Attributes(protocol=51)) == {(51, str(PEER))}
    to_peer = r.AddressFilter(source=EVERYTHING.source, destination=IPv4Interface("192.0.2.2/32"))
    assert listed(r.Attributes(address_filter=to_peer)) == {(50, str(PEER)), (51, str(PEER))}
    assert len(listed(r.NO_ATTRIBUTES)) == 4
    assert xfrm.sad_info().sas == 4


def test_flush_takes_the_sas_of_one_protocol_or_all(xfrm: XfrmSocket) -> None:
    xfrm.add_sa(esp(SPI), GCM_128)
    xfrm.add_sa(ah(SPI), r.Attributes(integrity=integrity("hmac(sha256)", 256, 128)))

    xfrm.flush_sas(50)
    assert [sa.body.id.protocol for sa in xfrm.sas()] == [51]
    xfrm.flush_sas(ANY_PROTOCOL)
    assert xfrm.sas() == ()
    xfrm.flush_sas(ANY_PROTOCOL)


def test_same_name_twice_is_refused_and_what_is_not_there_cannot_be_deleted(xfrm: XfrmSocket) -> None:
    xfrm.add_sa(esp(SPI), GCM_128)

    with pytest.raises(KernelRefusedError) as twice:
        xfrm.add_sa(esp(SPI), GCM_128)
    with pytest.raises(KernelRefusedError) as never:
        xfrm.delete_sa(esp(SPI + 1).id)

    assert (twice.value.code, never.value.code) == (errno.EEXIST, errno.ESRCH)


def test_counters_of_an_sa_are_asked_and_set(xfrm: XfrmSocket) -> None:
    xfrm.add_sa(replace(esp(SPI), replay_window=32), GCM_128)
    event = r.Aevent(id=esp(SPI).id, source=HERE, reqid=7)
    counters = r.Attributes(
        usage=r.LifetimeUsage(bytes=1000, packets=10, add_time_s=1_700_000_000, use_time_s=1_700_000_001),
        replay=r.ReplayState(inbound=9, outbound=0, bitmap=0x1FF),
        replay_threshold=100,
        timer_threshold_ds=50,
    )

    xfrm.set_aevent(event, counters)

    everything = AeventFlag.REPLAY_THRESHOLD | AeventFlag.EXPIRY_TIMER_THRESHOLD
    told = xfrm.aevent(replace(event, flags=everything))
    assert told.body.id == esp(SPI).id
    # The threshold is told in tenths of a second and taken in jiffies, of which the guest has 100 a second.
    in_tenths = replace(counters, timer_threshold_ds=5)
    assert told.attributes == in_tenths
