"""The fake kernel answers as Linux does, and what placement foretells of a driver is what it then says."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from gateway.datapath.ability import nic_abilities
from gateway.datapath.select import Link, Surroundings, choose
from gateway.datapath.xfrm import netlink
from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.errors import KernelRefusedError
from gateway.datapath.xfrm.installation import Placing, kernel_sa, whereabouts_of
from gateway.datapath.xfrm.netlink import XfrmSocket
from gateway.datapath.xfrm.numbers import OffloadFlag
from gateway.hardware.profiles import find_profile
from gateway.ipsec.algorithms import Encr, Integ
from gateway.ipsec.placement import Engine, Placement
from gateway.ipsec.sa import Direction, Mode, SecurityAssociation, UdpEncapsulation
from gateway.ipsec.secret import Secret
from gateway.ipsec.selectors import TrafficSelector
from tests.conformance.sas import OURS, PEER, inbound, outbound
from tests.fakes.machines import KERNEL, PROFILES, nic, surroundings_of_nics
from tests.fakes.xfrm_kernel import FakeKernel, FakeNic

LINK = 7
UDP = UdpEncapsulation(source_port=4500, destination_port=4500)
FLAGS = {Engine.NIC_PACKET: OffloadFlag.PACKET, Engine.NIC_CRYPTO: OffloadFlag(0)}
DRIVERS = [profile.driver for profile in PROFILES]


@contextmanager
def asking(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> Iterator[XfrmSocket]:
    monkeypatch.setattr(netlink, "_opening", kernel.opening)
    with XfrmSocket() as xfrm:
        yield xfrm


def kernel_with(driver: str, **changes: Any) -> FakeKernel:
    profile = find_profile(PROFILES, driver)
    return FakeKernel(nics={LINK: FakeNic(name="eth0", index=LINK, profile=profile, **changes)})


def add(xfrm: XfrmSocket, sa: SecurityAssociation, engine: Engine) -> r.Offload | None:
    """Install an SA with a request for offload; return the offload it was read back with."""
    flags = FLAGS[engine] | (OffloadFlag.INBOUND if sa.direction is Direction.INBOUND else OffloadFlag(0))
    placing = Placing(reqid=1, tag=1, knows_direction=True, offload=r.Offload(link=LINK, flags=flags))
    info, attributes = kernel_sa(sa, placing, whereabouts_of(sa))
    xfrm.add_sa(info, attributes)
    return xfrm.sa(info.id).attributes.offload


def keyed(encryption: Encr, key_bits: int, salt_bytes: int = 4, **changes: Any) -> dict[str, Any]:
    return {
        "encryption": encryption,
        "key_bits": key_bits,
        "encryption_key": Secret(bytes(key_bits // 8 + salt_bytes)),
        **changes,
    }


SUITES = {
    "gcm128": keyed(Encr.AES_GCM_16, 128),
    "gcm192": keyed(Encr.AES_GCM_16, 192),
    "gcm256": keyed(Encr.AES_GCM_16, 256),
    "gcm256-icv8": keyed(Encr.AES_GCM_8, 256),
    "gcm256-icv12": keyed(Encr.AES_GCM_12, 256),
    "chacha": keyed(Encr.CHACHA20_POLY1305, 256),
    "cbc-sha256": keyed(
        Encr.AES_CBC, 256, 0, integrity=Integ.HMAC_SHA2_256_128, integrity_key=Secret(bytes(32))
    ),
    "cbc-xcbc": keyed(Encr.AES_CBC, 128, 0, integrity=Integ.AES_XCBC_96, integrity_key=Secret(bytes(16))),
}
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "transport": {"mode": Mode.TRANSPORT},
    "esn": {"esn": True},
    "window64": {"replay_window_packets": 64},
    "udp": {"encapsulation": UDP},
    "udp-transport": {"encapsulation": UDP, "mode": Mode.TRANSPORT},
    "tcp": {"local_ts": (TrafficSelector.parse("10.1.0.0/16[tcp]"),)},
    "icmp": {
        "local_ts": (TrafficSelector.parse("10.1.0.0/16[icmp]"),),
        "remote_ts": (TrafficSelector.parse("10.2.0.0/16[icmp]"),),
    },
}


@pytest.mark.parametrize("engine", FLAGS, ids=lambda engine: engine.value)
@pytest.mark.parametrize("driver", DRIVERS)
def test_what_is_foretold_of_a_driver_is_what_it_says(
    driver: str, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Surroundings(
        abilities=nic_abilities(KERNEL, [nic("eth0", driver)], surroundings_of_nics("6.18")),
        links={OURS: Link(name="eth0", driver=driver)},
    )
    wish = Placement(prefer=(engine,), require=engine)
    differing = []
    outcomes = set()
    with asking(kernel_with(driver, max_sas=10_000), monkeypatch) as xfrm:
        number = 0x1000
        for suite_name, suite in SUITES.items():
            for shape_name, shape in SHAPES.items():
                for make in (inbound, outbound):
                    number += 1
                    sa = make(number, placement=wish, **suite | shape)
                    foretold = choose(sa, here).ability is not None
                    try:
                        taken = add(xfrm, sa, engine) is not None
                    except KernelRefusedError:
                        taken = False
                    outcomes.add(taken)
                    if foretold is not taken:
                        differing.append((suite_name, shape_name, sa.direction.value, foretold, taken))

    assert differing == []
    offload = find_profile(PROFILES, driver)
    assert offload is not None
    has_any = (offload.packet if engine is Engine.NIC_PACKET else offload.crypto) is not None
    assert outcomes == ({True, False} if has_any else {False})


def test_a_refused_packet_offload_is_an_error_with_the_drivers_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        asking(kernel_with("mlx5_core"), monkeypatch) as xfrm,
        pytest.raises(KernelRefusedError) as refused,
    ):
        add(xfrm, inbound(replay_window_packets=1024), Engine.NIC_PACKET)

    assert (refused.value.code, refused.value.text) == (errno.EINVAL, "Unsupported replay window size")


@pytest.mark.parametrize("driver", ["mlx5_core", None])
def test_a_crypto_offload_that_is_not_to_be_had_is_silently_left_out(
    driver: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = kernel_with(driver or "none", unsupported=errno.EOPNOTSUPP)
    with asking(kernel, monkeypatch) as xfrm:
        assert add(xfrm, inbound(encapsulation=UDP), Engine.NIC_CRYPTO) is None
        (listed,) = xfrm.sas()

    assert listed.attributes.offload is None
    assert kernel.nics[LINK].taken == 0


def test_a_packet_only_device_takes_packets_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = kernel_with("mlx5_core")
    profile = kernel.nics[LINK].profile
    assert profile is not None
    kernel.nics[LINK].profile = replace(profile, crypto=None)

    with asking(kernel, monkeypatch) as xfrm:
        assert add(xfrm, inbound(0x1001, replay_window_packets=256), Engine.NIC_PACKET) is not None
        with pytest.raises(KernelRefusedError, match="Unsupported offload type"):
            add(xfrm, inbound(0x1002), Engine.NIC_CRYPTO)


def test_a_full_table_has_room_again_when_an_sa_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    key = SUITES["gcm128"]
    with asking(kernel_with("netdevsim", max_sas=1), monkeypatch) as xfrm:
        add(xfrm, inbound(0x1001, **key), Engine.NIC_CRYPTO)
        with pytest.raises(KernelRefusedError, match="No space in SA table"):
            add(xfrm, inbound(0x1002, **key), Engine.NIC_CRYPTO)
        xfrm.delete_sa(r.SaId(destination=OURS, spi=0x1001, protocol=50))

        assert add(xfrm, inbound(0x1002, **key), Engine.NIC_CRYPTO) is not None


def test_a_device_that_goes_down_takes_its_sas_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = kernel_with("mlx5_core")
    with asking(kernel, monkeypatch) as xfrm:
        add(xfrm, inbound(0x1001), Engine.NIC_CRYPTO)
        info, attributes = kernel_sa(
            inbound(0x1002), Placing(reqid=1, tag=1, knows_direction=True), whereabouts_of(inbound())
        )
        xfrm.add_sa(info, attributes)

        kernel.take_down(LINK)

        assert [sa.body.id.spi for sa in xfrm.sas()] == [0x1002]


def test_an_spi_that_was_allocated_becomes_the_sa(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = r.SaInfo(
        id=r.SaId(destination=OURS, spi=0, protocol=50),
        source=PEER,
        mode=kernel_sa(inbound(), Placing(reqid=1, tag=1, knows_direction=True), whereabouts_of(inbound()))[
            0
        ].mode,
    )
    with asking(FakeKernel(), monkeypatch) as xfrm:
        spi = xfrm.allocate_spi(r.SpiRange(sa=wanted, lowest=256, highest=2**32 - 1)).body.id.spi
        sa = inbound(spi)
        info, attributes = kernel_sa(sa, Placing(reqid=1, tag=1, knows_direction=True), whereabouts_of(sa))
        with pytest.raises(KernelRefusedError) as refused:
            xfrm.add_sa(info, attributes)
        assert refused.value.code == errno.EEXIST

        xfrm.update_sa(info, attributes)

        assert xfrm.sa(info.id).body.reqid == 1


def test_a_kernel_without_esp_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        asking(FakeKernel(has_esp=False), monkeypatch) as xfrm,
        pytest.raises(KernelRefusedError) as refused,
    ):
        add(xfrm, inbound(), Engine.NIC_CRYPTO)

    assert refused.value.code == errno.EPROTONOSUPPORT
