"""One record of every kind NETLINK_XFRM has, each number in it another."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.numbers import (
    AeventFlag,
    DefaultAction,
    EncapsulationType,
    MessageType,
    Mode,
    OffloadFlag,
    PolicyAction,
    PolicyDirection,
    PolicyFlag,
    PolicyType,
    SaDirection,
    SaExtraFlag,
    SaFlag,
    Share,
)
from gateway.ipsec.secret import Secret

A, B, C, D = (IPv4Address(f"192.0.2.{i}") for i in range(1, 5))
A6, B6, C6, D6 = (IPv6Address(f"2001:db8::{i}") for i in range(1, 5))

SELECTOR = r.Selector(
    source=IPv4Interface("10.1.0.1/16"),
    destination=IPv4Interface("10.2.0.0/17"),
    protocol=17,
    source_port=1000,
    source_port_mask=0xFFF0,
    destination_port=2000,
    destination_port_mask=0xFF00,
    link=7,
    user=8,
)
SELECTOR6 = r.Selector(
    source=IPv6Interface("2001:db8:1::/64"), destination=IPv6Interface("2001:db8:2::/65"), protocol=6
)
LIMITS = r.LifetimeLimits(
    soft_bytes=1,
    hard_bytes=2**63,
    soft_packets=3,
    hard_packets=4,
    soft_add_s=5,
    hard_add_s=6,
    soft_use_s=7,
    hard_use_s=8,
)
USAGE = r.LifetimeUsage(bytes=2**40, packets=2**33, add_time_s=1_700_000_000, use_time_s=1_700_000_001)
SA = r.SaInfo(
    id=r.SaId(destination=B, spi=0xC0FFEE01, protocol=50),
    source=A,
    mode=Mode.TUNNEL,
    reqid=9,
    selector=SELECTOR,
    limits=LIMITS,
    usage=USAGE,
    statistics=r.Statistics(replay_window=10, replay=11, integrity_failed=12),
    sequence=13,
    replay_window=32,
    flags=SaFlag.ESN | SaFlag.NOECN,
)
SA6 = r.SaInfo(
    id=r.SaId(destination=B6, spi=0x1234, protocol=51), source=A6, mode=Mode.TRANSPORT, selector=SELECTOR6
)
POLICY = r.PolicyInfo(
    selector=SELECTOR,
    direction=PolicyDirection.FORWARD,
    action=PolicyAction.BLOCK,
    priority=14,
    index=15,
    limits=LIMITS,
    usage=USAGE,
    flags=PolicyFlag.ICMP | PolicyFlag.CPU_ACQUIRE,
    share=Share.UNIQUE,
)
POLICY_ID = r.PolicyId(direction=PolicyDirection.OUT, selector=SELECTOR6, index=16)

#: Every type of message with a body; a dump is told by its flags.
BODIES: list[tuple[MessageType, int, r.Body]] = [
    (MessageType.NEWSA, 0, SA),
    (MessageType.NEWSA, 0, SA6),
    (MessageType.UPDSA, 0, SA),
    (MessageType.DELSA, 0, SA.id),
    (MessageType.GETSA, 0, SA6.id),
    (MessageType.GETSA, 0x300, r.Nothing()),
    (MessageType.FLUSHSA, 0, r.FlushSas(protocol=255)),
    (MessageType.ALLOCSPI, 0, r.SpiRange(sa=SA, lowest=256, highest=0xFFFFFFFF)),
    (MessageType.NEWPOLICY, 0, POLICY),
    (MessageType.UPDPOLICY, 0, POLICY),
    (MessageType.DELPOLICY, 0, POLICY_ID),
    (MessageType.GETPOLICY, 0, POLICY_ID),
    (MessageType.GETPOLICY, 0x300, r.Nothing()),
    (MessageType.FLUSHPOLICY, 0, r.Nothing()),
    (
        MessageType.ACQUIRE,
        0,
        r.Acquire(
            id=r.SaId(destination=B, spi=0, protocol=50),
            source=A,
            selector=SELECTOR,
            policy=POLICY,
            sequence=17,
            authentication_algorithms=18,
            encryption_algorithms=19,
            compression_algorithms=20,
        ),
    ),
    (MessageType.EXPIRE, 0, r.Expire(sa=SA, is_hard=True)),
    (MessageType.EXPIRE, 0, r.Expire(sa=SA6, is_hard=False)),
    (MessageType.POLEXPIRE, 0, r.PolicyExpire(policy=POLICY, is_hard=True)),
    (
        MessageType.NEWAE,
        0,
        r.Aevent(id=SA.id, source=A, flags=AeventFlag.REPLAY_VALUE | AeventFlag.CAUSE_REPLAY, reqid=21),
    ),
    (MessageType.GETAE, 0, r.Aevent(id=SA6.id, source=A6)),
    (MessageType.REPORT, 0, r.Report(protocol=43, selector=SELECTOR6)),
    (MessageType.MIGRATE, 0, POLICY_ID),
    (
        MessageType.MAPPING,
        0,
        r.Mapping(id=SA.id, old_source=C, new_source=D, old_source_port=4500, new_source_port=1025, reqid=22),
    ),
    (
        MessageType.SETDEFAULT,
        0,
        r.PolicyDefaults(
            inbound=DefaultAction.BLOCK,
            forward=DefaultAction.ACCEPT,
            outbound=DefaultAction.UNSPECIFIED,
        ),
    ),
    (MessageType.GETDEFAULT, 0, r.PolicyDefaults()),
    (MessageType.GETSADINFO, 0, r.SadInfo()),
    (
        MessageType.NEWSADINFO,
        0,
        r.SadInfo(flags=23, sas=24, hash=r.HashInfo(buckets=25, most_buckets=26)),
    ),
    (MessageType.GETSPDINFO, 0, r.SpdInfo()),
    (
        MessageType.NEWSPDINFO,
        0,
        r.SpdInfo(
            flags=27,
            policies=r.PolicyCounts(
                inbound=28,
                outbound=29,
                forward=30,
                socket_inbound=31,
                socket_outbound=32,
                socket_forward=33,
            ),
            hash=r.HashInfo(buckets=34, most_buckets=35),
            ipv4_threshold=r.HashThreshold(local_bits=24, remote_bits=25),
            ipv6_threshold=r.HashThreshold(local_bits=64, remote_bits=65),
        ),
    ),
]

#: A value for every field of `Attributes`, of a message whose body is IPv4.
ATTRIBUTES: dict[str, object] = {
    "authentication": r.Algorithm(name="hmac(sha1)", key=Secret(bytes(range(20)))),
    "encryption": r.Algorithm(name="cbc(aes)", key=Secret(bytes(range(32)))),
    "compression": r.Algorithm(name="deflate", key=Secret(b"")),
    "encapsulation": r.Encapsulation(
        type=EncapsulationType.ESP_IN_UDP, source_port=4500, destination_port=1025, original_address=C
    ),
    "templates": (
        r.Template(
            source=A,
            destination=B,
            protocol=50,
            mode=Mode.TUNNEL,
            reqid=1,
            spi=0x1001,
            share=Share.SESSION,
            is_optional=True,
            authentication_algorithms=2,
            encryption_algorithms=3,
            compression_algorithms=4,
        ),
        r.Template(source=A6, destination=B6, protocol=51, mode=Mode.BEET),
        r.Template(source=None, destination=None, protocol=108, mode=Mode.TRANSPORT),
    ),
    "sa": SA6,
    "policy": replace(POLICY, priority=99),
    "security_context": r.SecurityContext(context=b"system_u:object_r:ipsec_spd_t\0"),
    "usage": USAGE,
    "replay": r.ReplayState(outbound=5, inbound=6, bitmap=7),
    "replay_threshold": 8,
    "timer_threshold_ds": 9,
    "source": C,
    "care_of_address": D,
    "last_used_s": 1_700_000_002,
    "policy_type": PolicyType.SUB,
    "migrations": (
        r.Migration(
            old_source=A,
            old_destination=B,
            new_source=C6,
            new_destination=D6,
            protocol=50,
            mode=Mode.TUNNEL,
            reqid=10,
        ),
        r.Migration(
            old_source=A6,
            old_destination=B6,
            new_source=C,
            new_destination=D,
            protocol=51,
            mode=Mode.BEET,
        ),
    ),
    "aead": r.AeadAlgorithm(name="rfc4106(gcm(aes))", key=Secret(bytes(range(36))), icv_bits=128),
    "km_address": r.KmAddress(local=C6, remote=D6),
    "integrity": r.AuthAlgorithm(name="hmac(sha256)", key=Secret(bytes(range(32))), icv_bits=96),
    "mark": r.Mark(value=11, mask=12),
    "tfc_padding_bytes": 13,
    "replay_esn": r.ReplayStateEsn(
        window_packets=128,
        outbound=14,
        outbound_high=15,
        inbound=16,
        inbound_high=17,
        bitmap=(18, 19, 20, 0xFFFFFFFF),
    ),
    "extra_flags": SaExtraFlag.OSEQ_MAY_WRAP,
    "protocol": 51,
    "address_filter": r.AddressFilter(
        source=IPv4Interface("192.0.2.0/24"), destination=IPv4Interface("198.51.100.0/25")
    ),
    "offload": r.Offload(link=21, flags=OffloadFlag.INBOUND | OffloadFlag.PACKET),
    "set_mark": 22,
    "set_mark_mask": 23,
    "if_id": 24,
    "mapping_threshold_s": 25,
    "direction": SaDirection.OUT,
    "nat_keepalive_s": 26,
    "cpu": 27,
    "iptfs_drop_time_us": 28,
    "iptfs_reorder_window_packets": 29,
    "iptfs_dont_fragment": True,
    "iptfs_init_delay_us": 30,
    "iptfs_max_queue_bytes": 31,
    "iptfs_packet_bytes": 32,
}
