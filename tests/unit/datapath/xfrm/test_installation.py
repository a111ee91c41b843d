"""An SA as the kernel's, and what reading it back tells."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.algorithms import Suite, check_suite, every_suite, read_suite, suite_of
from gateway.datapath.xfrm.installation import (
    SEQUENCE_SOFT_PACKETS,
    Placing,
    counters_of,
    kernel_name,
    kernel_sa,
    reached_limit,
    whereabouts_of,
)
from gateway.datapath.xfrm.numbers import (
    EncapsulationType,
    Mode,
    OffloadFlag,
    SaDirection,
    SaExtraFlag,
    SaFlag,
)
from gateway.ipsec import sa as ipsec
from gateway.ipsec.algorithms import ENCR, INTEG, Encr, Integ
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.lifetime import Lifetime, Limit
from gateway.ipsec.mark import ALL_BITS, Mark
from gateway.ipsec.sa import Direction, IpsecProtocol, SecurityAssociation, UdpEncapsulation
from gateway.ipsec.secret import Secret
from gateway.ipsec.selectors import TrafficSelector
from tests.conformance.sas import inbound, outbound

PLACING = Placing(reqid=5, tag=0xABCD, knows_direction=True)
OLD_KERNEL = replace(PLACING, knows_direction=False)


def made(sa: SecurityAssociation, placing: Placing = PLACING) -> tuple[r.SaInfo, r.Attributes]:
    return kernel_sa(sa, placing, whereabouts_of(sa))


# --- to the kernel --------------------------------------------------------------------------------


def name_of(suite: Suite) -> str:
    return f"{suite.protocol.name}-{suite.encryption.name}-{suite.key_bits}-{suite.integrity.name}"


@pytest.mark.parametrize("suite", list(every_suite()), ids=name_of)
def test_every_suite_goes_to_the_kernel_and_comes_back(suite: Suite) -> None:
    key = Secret(bytes(range(suite.key_bits // 8 + ENCR[suite.encryption].salt_bytes)))
    integrity_key = Secret(bytes(range(50, 50 + INTEG[suite.integrity].key_bytes)))
    sa = outbound(
        protocol=suite.protocol,
        encryption=suite.encryption,
        encryption_key=key,
        key_bits=suite.key_bits,
        integrity=suite.integrity,
        integrity_key=integrity_key,
    )

    check_suite(sa)
    _, attributes = made(sa)

    assert read_suite(suite.protocol, attributes) == (suite_of(sa), key, integrity_key)


def test_sa_of_an_algorithm_that_we_have_not_is_not_read() -> None:
    strange = r.Attributes(
        aead=r.AeadAlgorithm(name="rfc4106(gcm(sm4))", key=Secret(bytes(20)), icv_bits=128)
    )

    assert read_suite(IpsecProtocol.ESP, strange) is None
    assert read_suite(IpsecProtocol.ESP, r.Attributes()) is None


def test_names_of_an_sa_are_the_kernels() -> None:
    info, _ = made(inbound(0x1234))

    assert info.id == r.SaId(destination=ip_address("192.0.2.1"), spi=0x1234, protocol=50)
    assert (info.source, info.mode, info.reqid) == (ip_address("192.0.2.2"), Mode.TUNNEL, 5)
    assert (str(info.selector.source), str(info.selector.destination)) == ("10.2.0.0/16", "10.1.0.0/16")
    assert info.selector.user == 0xABCD


def test_sa_of_both_families_has_no_selector_but_the_tag() -> None:
    both = {
        "local_ts": (TrafficSelector.parse("10.1.0.0/16"), TrafficSelector.parse("fd00::/64")),
        "remote_ts": (TrafficSelector.parse("10.2.0.0/16"), TrafficSelector.parse("fd01::/64")),
    }

    info, _ = made(outbound(**both))

    assert info.selector == r.Selector(user=0xABCD)
    assert info.flags & SaFlag.AF_UNSPEC


@pytest.mark.parametrize(
    ("sa", "window", "esn"),
    [
        (inbound(replay_window_packets=0), 0, None),
        (inbound(replay_window_packets=64), 0, 64),
        (inbound(replay_window_packets=4096, esn=True), 0, 4096),
        (outbound(), 0, None),
        (outbound(esn=True), 0, 0),
    ],
)
def test_replay_window_stands_where_the_kernel_looks(
    sa: SecurityAssociation, window: int, esn: int | None
) -> None:
    info, attributes = made(sa)

    assert info.replay_window == window
    assert (attributes.replay_esn.window_packets if attributes.replay_esn else None) == esn
    assert bool(info.flags & SaFlag.ESN) is sa.esn


def test_outbound_esn_has_a_window_on_kernels_that_know_no_direction() -> None:
    _, attributes = made(outbound(esn=True), OLD_KERNEL)

    assert attributes.replay_esn is not None
    assert attributes.replay_esn.window_packets == 32
    assert attributes.direction is None


def test_direction_is_told_to_kernels_that_know_it() -> None:
    assert made(inbound())[1].direction is SaDirection.IN
    assert made(outbound())[1].direction is SaDirection.OUT


def test_udp_encapsulation_and_its_mapping_threshold() -> None:
    ports = UdpEncapsulation(source_port=4500, destination_port=61000)

    _, sending = made(outbound(encapsulation=ports))
    _, receiving = made(inbound(encapsulation=ports))

    assert sending.encapsulation == r.Encapsulation(
        type=EncapsulationType.ESP_IN_UDP, source_port=4500, destination_port=61000
    )
    assert sending.mapping_threshold_s is None
    assert receiving.mapping_threshold_s


def test_headers_are_copied_as_the_sa_says() -> None:
    info, attributes = made(outbound(copy_df=False, copy_dscp=False, tfc_padding_bytes=512))
    plain_info, plain = made(outbound())
    in_info, in_attributes = made(inbound(copy_df=False, copy_dscp=False, tfc_padding_bytes=512))

    assert info.flags & SaFlag.NOPMTUDISC
    assert attributes.extra_flags == SaExtraFlag.DONT_ENCAP_DSCP
    assert attributes.tfc_padding_bytes == 512
    assert not plain_info.flags & SaFlag.NOPMTUDISC
    assert (plain.extra_flags, plain.tfc_padding_bytes) == (None, None)
    assert (in_info.flags, in_attributes.extra_flags, in_attributes.tfc_padding_bytes) == (0, None, None)


def test_ah_is_aligned_as_the_rfc_says() -> None:
    ah = {
        "protocol": IpsecProtocol.AH,
        "encryption": Encr.NULL,
        "encryption_key": Secret(b""),
        "key_bits": 0,
        "integrity": Integ.HMAC_SHA2_256_128,
        "integrity_key": Secret(bytes(32)),
    }
    ipv6 = {"source": ip_address("2001:db8::1"), "destination": ip_address("2001:db8::2")}

    assert made(outbound(**ah))[0].flags & SaFlag.ALIGN4
    assert not made(outbound(**ah, **ipv6))[0].flags & SaFlag.ALIGN4
    assert not made(outbound())[0].flags & SaFlag.ALIGN4


# --- limits ---------------------------------------------------------------------------------------


def test_times_are_whole_seconds_with_the_soft_one_before_the_hard_one() -> None:
    lifetime = Lifetime(soft=Limit(seconds=0.05), hard=Limit(seconds=0.1))
    long = Lifetime(soft=Limit(seconds=3240.9), hard=Limit(seconds=3960.2))

    short_limits, limits = made(inbound(lifetime=lifetime))[0].limits, made(inbound(lifetime=long))[0].limits

    assert (short_limits.soft_add_s, short_limits.hard_add_s) == (1, 2)
    assert (limits.soft_add_s, limits.hard_add_s) == (3240, 3961)


def test_outbound_sa_without_esn_is_rekeyed_before_its_numbers_end() -> None:
    few = Lifetime(soft=Limit(packets=10))

    assert made(outbound())[0].limits.soft_packets == SEQUENCE_SOFT_PACKETS == 3 * 2**30
    assert made(outbound(lifetime=few))[0].limits.soft_packets == 10
    assert made(outbound(esn=True))[0].limits.soft_packets is None
    assert made(inbound())[0].limits.soft_packets is None


@pytest.mark.parametrize(
    ("usage", "is_hard", "limit"),
    [
        (r.LifetimeUsage(bytes=1000, packets=3), False, "bytes"),
        (r.LifetimeUsage(bytes=10, packets=8), False, "packets"),
        (r.LifetimeUsage(bytes=10, packets=3), False, "seconds"),
        (r.LifetimeUsage(bytes=10, packets=SEQUENCE_SOFT_PACKETS), True, "packets"),
        (r.LifetimeUsage(bytes=10, packets=19), True, "seconds"),
    ],
)
def test_reached_limit_is_named(usage: r.LifetimeUsage, is_hard: bool, limit: str) -> None:
    sa = outbound(lifetime=Lifetime(soft=Limit(bytes=1000, packets=8), hard=Limit(packets=20)))

    assert reached_limit(sa, usage, is_hard=is_hard) == limit


def test_sequence_numbers_that_run_out_are_named() -> None:
    usage = r.LifetimeUsage(packets=SEQUENCE_SOFT_PACKETS)

    assert reached_limit(outbound(), usage, is_hard=False) == "sequence"
    assert reached_limit(outbound(esn=True), usage, is_hard=False) == "seconds"


# --- from the kernel ------------------------------------------------------------------------------

ESN = r.ReplayStateEsn(window_packets=64, outbound=7, outbound_high=1, inbound=9, inbound_high=2)


@pytest.mark.parametrize(
    ("direction", "attributes", "sequence"),
    [
        (Direction.OUTBOUND, r.Attributes(replay_esn=ESN), 2**32 + 7),
        (Direction.INBOUND, r.Attributes(replay_esn=ESN), 2 * 2**32 + 9),
        (Direction.OUTBOUND, r.Attributes(replay=r.ReplayState(outbound=3, inbound=4)), 3),
        (Direction.INBOUND, r.Attributes(replay=r.ReplayState(outbound=3, inbound=4)), 4),
        (Direction.INBOUND, r.Attributes(), 0),
    ],
)
def test_sequence_number_is_that_of_the_direction(
    direction: Direction, attributes: r.Attributes, sequence: int
) -> None:
    info, _ = made(inbound())

    assert counters_of(inbound().sa_id, direction, info, attributes, 0.0).sequence == sequence


def test_counters_are_those_of_the_kernel() -> None:
    info, _ = made(inbound())
    info = replace(
        info,
        usage=r.LifetimeUsage(bytes=500, packets=4, use_time_s=990),
        statistics=r.Statistics(replay_window=1, replay=0, integrity_failed=2),
    )

    counted = counters_of(inbound().sa_id, Direction.INBOUND, info, r.Attributes(last_used_s=995), 1000.0)
    by_first_use = counters_of(inbound().sa_id, Direction.INBOUND, info, r.Attributes(), 1000.0)

    assert (counted.packets, counted.bytes, counted.last_used_s_ago) == (4, 500, 5.0)
    assert counted.drops == {DropReason.REPLAY_WINDOW: 1, DropReason.INTEGRITY: 2}
    assert by_first_use.last_used_s_ago == 10.0


def test_mode_names_are_those_of_the_kernel() -> None:
    assert made(outbound(mode=ipsec.Mode.TRANSPORT))[0].mode is Mode.TRANSPORT


# --- marks and CPUs -------------------------------------------------------------------------------


def test_marks_of_an_sa_are_those_it_compares_and_those_it_sets() -> None:
    _, attributes = made(outbound(mark=Mark(42, 255), set_mark=Mark(7)))

    assert attributes.mark == r.Mark(value=42, mask=255)
    assert (attributes.set_mark, attributes.set_mark_mask) == (7, ALL_BITS)
    assert kernel_name(whereabouts_of(outbound()).id_of(outbound()), outbound(mark=Mark(42))).mark is not None


def test_the_operators_mark_takes_the_place_of_ours_on_what_an_interface_sends() -> None:
    placing = replace(PLACING, mark=99)

    assert made(outbound(interface_id=5), placing)[1].set_mark == 99
    assert made(outbound(interface_id=5, set_mark=Mark(7)), placing)[1].set_mark == 7


def test_only_an_outbound_sa_is_bound_to_its_cpu_and_only_where_the_kernel_knows_of_that() -> None:
    knows = replace(PLACING, knows_cpu=True)

    assert made(outbound(cpu=3), knows)[1].cpu == 3
    assert made(outbound(cpu=None), knows)[1].cpu is None
    assert made(inbound(cpu=3), knows)[1].cpu is None
    assert made(outbound(cpu=3), PLACING)[1].cpu is None
    to_nic = replace(knows, offload=r.Offload(link=2, flags=OffloadFlag.PACKET))
    assert made(outbound(cpu=3), to_nic)[1].cpu is None
    assert made(outbound(cpu=3), replace(knows, offload=r.Offload(link=2)))[1].cpu == 3
