"""What a NIC's answers mean, and that the questions are understood by the kernel that runs the tests."""

import errno
import re
import socket
import struct
import subprocess
from pathlib import Path

import pytest

from gateway.hardware.accelerators import PciReading, find_accelerators
from gateway.hardware.ethtool_ioctl import (
    FLOW_TYPES,
    DriverInfo,
    ask_driver,
    ask_hash_fields,
    parse_hash_fields,
)
from gateway.hardware.facts import Answer, find_fact
from gateway.hardware.nic import ESP_FEATURES, judge_nic
from gateway.hardware.nic_netlink import (
    Channels,
    FeatureSets,
    _Features,
    _names,
    ask_channels,
    ask_eswitch_mode,
    ask_features,
    ask_xdp_features,
    ask_xdp_program,
)
from gateway.hardware.readings import Refused
from tests.unit.hardware.machines import ALL_ESP, features, nic_readings

EPERM = Refused(source="ASK", number=errno.EPERM)
EOPNOTSUPP = Refused(source="ASK", number=errno.EOPNOTSUPP)


@pytest.mark.parametrize(
    ("sets", "answer", "value"),
    [
        (features(), Answer.NO, "off [fixed]"),
        (features(changeable=ALL_ESP), Answer.NO, "off"),
        (features(changeable=ALL_ESP, active=ALL_ESP), Answer.YES, "on"),
        (features(active=ALL_ESP), Answer.YES, "on [fixed]"),
        (features(changeable=ALL_ESP, active=ALL_ESP, fixed=ALL_ESP), Answer.YES, "on [fixed]"),
        (EPERM, Answer.UNKNOWN, ""),
    ],
)
def test_a_feature_is_on_off_or_not_to_be_had(
    sets: FeatureSets | Refused, answer: Answer, value: str
) -> None:
    fact = find_fact(judge_nic(nic_readings(features=sets)).facts, "esp-hw-offload")

    assert (fact.answer, fact.value) == (answer, value)


@pytest.mark.parametrize(
    ("channels", "answer", "value"),
    [
        (Channels(receive=16, receive_max=63), Answer.YES, "16 of 63"),
        (Channels(receive=1, receive_max=63), Answer.NO, "1 of 63"),
        (EOPNOTSUPP, Answer.UNKNOWN, ""),
    ],
)
def test_receive_queues_are_counted(channels: Channels | Refused, answer: Answer, value: str) -> None:
    fact = find_fact(judge_nic(nic_readings(channels=channels)).facts, "several receive queues")

    assert (fact.answer, fact.value) == (answer, value)


def test_a_driver_that_does_not_tell_its_hash_fields_is_not_one_without() -> None:
    nic = judge_nic(
        nic_readings(hash_fields={"esp4": EOPNOTSUPP, "esp6": (), "udp4": ("IP source", "bytes 0-1")})
    )

    assert find_fact(nic.facts, "RSS of esp4").answer is Answer.UNKNOWN
    assert find_fact(nic.facts, "RSS of esp6").answer is Answer.NO
    assert find_fact(nic.facts, "RSS of udp4").value == "IP source, bytes 0-1"


def test_the_spi_is_the_first_four_bytes_behind_the_ip_header() -> None:
    # RXH_IP_SRC | RXH_IP_DST | RXH_L4_B_0_1 | RXH_L4_B_2_3, <linux/ethtool.h>
    assert parse_hash_fields(0x10 | 0x20 | 0x40 | 0x80) == (
        *("IP source", "IP destination"),
        *("bytes 0-1", "bytes 2-3"),
    )


def test_xdp_in_the_driver_and_zero_copy_are_two_things() -> None:
    # NETDEV_XDP_ACT_BASIC | _REDIRECT | _NDO_XMIT, without _XSK_ZEROCOPY
    facts = judge_nic(nic_readings(xdp_features=0b0111)).facts

    assert find_fact(facts, "XDP in the driver").answer is Answer.YES
    assert find_fact(facts, "AF_XDP zero-copy").answer is Answer.NO


@pytest.mark.parametrize(
    ("program", "answer", "value"),
    [
        ("gw_cpumap, in the driver", Answer.YES, "gw_cpumap, in the driver"),
        ("", Answer.NO, ""),
        (Refused(source="RTM_GETLINK", number=errno.ENODEV), Answer.UNKNOWN, ""),
    ],
    ids=["attached", "none", "gone"],
)
def test_the_program_that_is_attached_is_named(program: str | Refused, answer: Answer, value: str) -> None:
    fact = find_fact(judge_nic(nic_readings(xdp_program=program)).facts, "XDP program attached")

    assert (fact.answer, fact.value) == (answer, value)


def test_a_kernel_before_6_3_does_not_tell_its_xdp_features() -> None:
    no_family = Refused(source="NETDEV_CMD_DEV_GET", number=errno.ENOENT)

    facts = judge_nic(nic_readings(xdp_features=no_family)).facts

    assert find_fact(facts, "XDP in the driver").answer is Answer.UNKNOWN


@pytest.mark.parametrize(
    ("mode", "answer", "value"),
    [
        ("switchdev", Answer.YES, "switchdev"),
        (EOPNOTSUPP, Answer.NO, ""),
        (EPERM, Answer.UNKNOWN, ""),
    ],
)
def test_the_eswitch_mode_is_for_root_only(mode: str | Refused, answer: Answer, value: str) -> None:
    fact = find_fact(judge_nic(nic_readings(eswitch=mode)).facts, "devlink eswitch")

    assert (fact.answer, fact.value) == (answer, value)


@pytest.mark.parametrize(
    ("changes", "answer", "value"),
    [
        ({"sriov_total": "8", "sriov_now": "2"}, Answer.YES, "2 of 8 virtual functions"),
        ({"sriov_total": "0", "sriov_now": "0"}, Answer.NO, "0 of 0 virtual functions"),
        ({"sriov_total": "", "sriov_now": ""}, Answer.NO, ""),
        ({"is_virtual_function": True}, Answer.YES, "a virtual function"),
    ],
)
def test_virtual_functions_are_counted(changes: dict[str, object], answer: Answer, value: str) -> None:
    fact = find_fact(judge_nic(nic_readings(**changes)).facts, "SR-IOV")

    assert (fact.answer, fact.value) == (answer, value)


def test_an_interface_without_a_device_has_neither_node_nor_driver() -> None:
    nic = judge_nic(
        nic_readings(
            sysfs_driver="", bus="", pci_id="", numa_node="", sriov_total="", driver=EOPNOTSUPP, eswitch=None
        )
    )

    assert (nic.driver, nic.firmware, nic.numa_node) == ("", "", None)
    assert not [fact for fact in nic.facts if fact.name in ("SR-IOV", "devlink eswitch")]


def test_the_driver_is_the_one_that_ethtool_names() -> None:
    representor = DriverInfo(driver="mlx5e_rep", firmware="", bus="")

    assert judge_nic(nic_readings(driver=representor)).driver == "mlx5e_rep"
    assert judge_nic(nic_readings(driver=EPERM)).driver == "mlx5_core"


def test_a_machine_without_numa_has_no_node() -> None:
    assert judge_nic(nic_readings(numa_node="-1")).numa_node is None
    assert judge_nic(nic_readings(numa_node="1")).numa_node == 1


def attribute(kind: int, payload: bytes) -> bytes:
    """Return a netlink attribute, padded to four bytes (netlink(7))."""
    return struct.pack("=HH", 4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def features_reply(*bits: tuple[str, bool]) -> bytes:
    """Return a FEATURES_GET reply with these bits in HW, numbered as in <linux/ethtool_netlink.h>."""
    nested = 0x8000
    listed = b"".join(
        attribute(1 | nested, attribute(2, name.encode() + b"\0") + (attribute(3, b"") if is_set else b""))
        for name, is_set in bits
    )
    hardware = attribute(2, struct.pack("=I", 64)) + attribute(3 | nested, listed)
    body = struct.pack("=BBH", 11, 1, 0) + attribute(2 | nested, hardware)
    return struct.pack("=IHHII", 16 + len(body), 0x15, 0, 1, 0) + body


def test_a_bitset_with_a_mask_tells_the_bits_that_are_set() -> None:
    message = _Features(features_reply(("esp-hw-offload", True), ("tx-esp-segmentation", False)))
    message.decode()

    assert _names(message, "HW") == {"esp-hw-offload"}
    assert _names(message, "ACTIVE") == frozenset()


def test_this_kernel_answers_about_its_loopback_interface() -> None:
    index = socket.if_nametoindex("lo")

    sets = ask_features(index)

    assert isinstance(sets, FeatureSets)
    assert "loopback" in sets.active
    assert "esp-hw-offload" not in sets.active
    # The loopback driver has neither channels nor flow hashing nor driver information of its own.
    assert isinstance(ask_channels(index), Refused)
    assert all(isinstance(ask_hash_fields("lo", flow), Refused) for flow in FLOW_TYPES)


#: What ethtool(8) calls a group of features, or a feature by its older name.
GROUPS = {
    *("rx-checksumming", "tx-checksumming", "scatter-gather", "tcp-segmentation-offload"),
    *("generic-segmentation-offload", "generic-receive-offload", "large-receive-offload"),
    *("rx-vlan-offload", "tx-vlan-offload", "ntuple-filters", "receive-hashing"),
}


def ethtool(*words: str) -> str:
    return subprocess.run(["ethtool", *words], capture_output=True, text=True, check=False).stdout


def links_that_stay() -> list[str]:
    """Return loopback and the interfaces with a device: other tests make and remove the rest meanwhile."""
    devices = [name for _, name in socket.if_nameindex() if Path(f"/sys/class/net/{name}/device").exists()]
    return ["lo", *devices]


def test_ethtool_tells_the_same_features() -> None:
    for link in links_that_stay():
        sets = ask_features(socket.if_nametoindex(link))

        assert isinstance(sets, FeatureSets)
        lines = re.findall(r"^\t?(\S+): (on|off)( \[fixed\])?", ethtool("-k", link), re.M)
        told = {name: (state, bool(fixed)) for name, state, fixed in lines if name not in GROUPS}
        assert set(ESP_FEATURES) < told.keys()
        assert told == {
            name: (
                "on" if name in sets.active else "off",
                name not in sets.changeable or name in sets.fixed,
            )
            for name in told
        }


def test_ethtool_tells_the_same_driver() -> None:
    for link in links_that_stay():
        info = ask_driver(link)

        told = dict(re.findall(r"^([a-z-]+): (.*)$", ethtool("-i", link), re.M))
        if isinstance(info, Refused):
            assert told == {}
        else:
            assert (info.driver, info.bus) == (told["driver"], told["bus-info"].replace("N/A", ""))


def test_an_interface_that_is_gone_is_a_refusal_and_no_crash() -> None:
    nobody = 0x7FFFFFF0

    refused = [
        *(ask_features(nobody), ask_channels(nobody), ask_xdp_features(nobody), ask_driver("gone0")),
        ask_xdp_program(nobody),
        ask_eswitch_mode("ffff:ff:1f.7"),
    ]

    assert [reply for reply in refused if not isinstance(reply, Refused)] == []


def test_qat_is_found_by_pci_id_with_or_without_its_driver() -> None:
    devices = [
        PciReading(bus="0000:6b:00.0", pci_id="8086:4940", driver="4xxx"),
        PciReading(bus="0000:70:00.0", pci_id="8086:37c8", driver=""),
        PciReading(bus="0000:3b:00.0", pci_id="15b3:101d", driver="mlx5_core"),
    ]

    found = find_accelerators(devices)

    assert [(device.name, device.driver.answer) for device in found] == [
        ("QAT 4xxx", Answer.YES),
        ("QAT C62x", Answer.NO),
    ]
    assert found[1].driver.evidence == (
        "/sys/bus/pci/devices/0000:70:00.0/driver does not exist; the kernel's is c6xx"
    )
