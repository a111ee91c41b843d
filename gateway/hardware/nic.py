"""What one network interface can do for IPsec: the answers of ethtool, netdev, devlink and sysfs as facts.

Pure: `NicReadings` are collected in `machine.py`.
"""

from dataclasses import dataclass
from typing import Final

from gateway.hardware.ethtool_ioctl import DriverInfo
from gateway.hardware.facts import Answer, Fact, NicFacts
from gateway.hardware.nic_netlink import Channels, FeatureSets
from gateway.hardware.readings import Refused

#: The features of a NIC that offloads ESP, as `ethtool -k` names them.
ESP_FEATURES: Final = ("esp-hw-offload", "esp-tx-csum-hw-offload", "tx-esp-segmentation")

# <linux/netdev.h>: NETDEV_XDP_ACT_BASIC, _REDIRECT, _NDO_XMIT, _XSK_ZEROCOPY
_XDP_ACTIONS: Final = {
    "XDP in the driver": 1 << 0,
    "XDP redirect": 1 << 1,
    "XDP transmit": 1 << 2,
    "AF_XDP zero-copy": 1 << 3,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NicReadings:
    """What was asked of one interface."""

    name: str
    sysfs_driver: str
    """Where /sys/class/net/NAME/device/driver leads; empty if there is no such link."""
    bus: str
    pci_id: str
    """`15b3:101d`; empty if it is not on PCI."""
    numa_node: str
    """Text of device/numa_node; `-1` if the machine has no nodes."""
    sriov_total: str
    """Text of device/sriov_totalvfs; empty if there is no such file."""
    sriov_now: str
    is_virtual_function: bool
    driver: DriverInfo | Refused
    features: FeatureSets | Refused
    channels: Channels | Refused
    xdp_features: int | Refused
    xdp_program: str | Refused
    """What is attached, and where it runs; empty: nothing."""
    hash_fields: dict[str, tuple[str, ...] | Refused]
    """By flow type: `esp4`, `udp4`..."""
    eswitch: str | Refused | None
    """None: not on PCI, not asked."""


def judge_nic(readings: NicReadings) -> NicFacts:
    """Return the facts of one interface."""
    info = readings.driver if isinstance(readings.driver, DriverInfo) else None
    node = readings.numa_node
    return NicFacts(
        name=readings.name,
        # The ioctl tells a representor (mlx5e_rep) or a subfunction from its parent; sysfs does not.
        driver=(info.driver if info else "") or readings.sysfs_driver,
        firmware=info.firmware if info else "",
        bus=readings.bus,
        pci_id=readings.pci_id,
        numa_node=int(node) if node.isdecimal() else None,
        facts=(
            *(_feature(name, readings.features) for name in ESP_FEATURES),
            _queues(readings.channels),
            *(_hash_fields(flow, fields) for flow, fields in readings.hash_fields.items()),
            *(_xdp(name, bit, readings.xdp_features) for name, bit in _XDP_ACTIONS.items()),
            _xdp_program(readings.xdp_program),
            *_eswitch(readings.eswitch),
            *_sriov(readings),
        ),
    )


def _feature(name: str, features: FeatureSets | Refused) -> Fact:
    """Return whether a feature is on; off and fixed are told apart, because one has a remedy."""
    if isinstance(features, Refused):
        return features.fact(name)
    source = "ETHTOOL_MSG_FEATURES_GET"
    if name in features.active:
        fixed = name in features.fixed or name not in features.changeable
        value = "on [fixed]" if fixed else "on"
        return Fact(name=name, answer=Answer.YES, evidence=f"{source}: active", value=value)
    if name in features.changeable:
        return Fact(name=name, answer=Answer.NO, evidence=f"{source}: changeable, not active", value="off")
    return Fact(name=name, answer=Answer.NO, evidence=f"{source}: not offered", value="off [fixed]")


def _queues(channels: Channels | Refused) -> Fact:
    name = "several receive queues"
    if isinstance(channels, Refused):
        return channels.fact(name)
    return Fact(
        name=name,
        answer=Answer.YES if channels.receive > 1 else Answer.NO,
        evidence="ETHTOOL_MSG_CHANNELS_GET",
        value=f"{channels.receive} of {channels.receive_max}",
    )


def _hash_fields(flow: str, fields: tuple[str, ...] | Refused) -> Fact:
    name = f"RSS of {flow}"
    if isinstance(fields, Refused):
        return fields.fact(name)
    return Fact(
        name=name,
        answer=Answer.YES if fields else Answer.NO,
        evidence=f"ETHTOOL_GRXFH {flow}",
        value=", ".join(fields) or "one queue takes all",
    )


def _xdp(name: str, bit: int, features: int | Refused) -> Fact:
    source = "NETDEV_CMD_DEV_GET"
    if isinstance(features, Refused):
        # Before Linux 6.3 there is no such family: the kernel may well have XDP.
        return features.fact(name)
    return Fact(
        name=name,
        answer=Answer.YES if features & bit else Answer.NO,
        evidence=f"{source}: xdp-features {features:#x}",
    )


def _xdp_program(program: str | Refused) -> Fact:
    name = "XDP program attached"
    if isinstance(program, Refused):
        return program.fact(name)
    return Fact(name=name, answer=Answer.YES if program else Answer.NO, evidence="RTM_GETLINK", value=program)


def _eswitch(mode: str | Refused | None) -> tuple[Fact, ...]:
    if mode is None:
        return ()
    name = "devlink eswitch"
    if isinstance(mode, Refused):
        return (mode.fact(name, absent_is_no=True),)
    return (Fact(name=name, answer=Answer.YES, evidence="DEVLINK_CMD_ESWITCH_GET", value=mode),)


def _sriov(readings: NicReadings) -> tuple[Fact, ...]:
    if readings.is_virtual_function:
        return (
            Fact(
                name="SR-IOV",
                answer=Answer.YES,
                evidence=f"/sys/class/net/{readings.name}/device/physfn exists",
                value="a virtual function",
            ),
        )
    if not readings.pci_id:
        return ()
    path = f"/sys/class/net/{readings.name}/device/sriov_totalvfs"
    total = readings.sriov_total
    if not total:
        return (Fact(name="SR-IOV", answer=Answer.NO, evidence=f"{path} does not exist"),)
    return (
        Fact(
            name="SR-IOV",
            answer=Answer.YES if total != "0" else Answer.NO,
            evidence=f"{path}: {total}",
            value=f"{readings.sriov_now or 'no'} of {total} virtual functions",
        ),
    )
