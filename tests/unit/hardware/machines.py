"""Readings and facts of machines that we do not have, for the tests of the probes."""

from pathlib import Path
from typing import Any

from gateway.hardware.cpu import parse_cpu
from gateway.hardware.crypto import parse_crypto
from gateway.hardware.ethtool_ioctl import DriverInfo
from gateway.hardware.facts import AcceleratorFacts, Fact, KernelFacts, MachineFacts, find_fact
from gateway.hardware.kernel_config import KernelConfig, parse_kernel_config
from gateway.hardware.nic import ESP_FEATURES, NicReadings, judge_nic
from gateway.hardware.nic_netlink import Channels, FeatureSets
from gateway.hardware.profiles import load_profiles
from gateway.hardware.readings import Reading
from gateway.hardware.xfrm import XfrmReadings, parse_xfrm

SAMPLES = Path(__file__).parent / "samples"
DENIED = Reading(source="/proc/x", error="permission denied")
ABSENT = Reading(source="/proc/x", error="no such file or directory")
ALL_ESP = frozenset(ESP_FEATURES)
NONE: frozenset[str] = frozenset()

NETLINK_HEAD = "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n"
KERNEL_XFRM_SOCKET = (
    "00000000ad8ab842 6   0          00000000 0        0        0     2        0        567\n"
)
DAEMON_XFRM_SOCKET = (
    "00000000ad8ab843 6   1234       00000000 0        0        0     2        0        568\n"
)


def sample(name: str) -> Reading:
    return Reading(source=f"/proc/{name.partition('-')[0]}", text=(SAMPLES / name).read_text())


def reading(text: str, source: str = "/proc/x") -> Reading:
    return Reading(source=source, text=text)


def config(**options: str) -> KernelConfig:
    return KernelConfig(source="/proc/config.gz", options=options)


DEBIAN = parse_kernel_config(sample("config-debian-6.12"))
UNREADABLE = parse_kernel_config(Reading(source="/boot/config-6.12", error="no such file or directory"))


def xfrm(
    kernel_config: KernelConfig, *, btf: tuple[Reading, ...] = (ABSENT,), **readings: Reading
) -> tuple[Fact, ...]:
    given: dict[str, Reading] = {
        "netlink": reading(NETLINK_HEAD + KERNEL_XFRM_SOCKET, "/proc/net/netlink"),
        "xfrm_stat": reading("XfrmInError 0\n", "/proc/net/xfrm_stat"),
        "modules": reading(""),
        "kallsyms": ABSENT,
        **readings,
    }
    return parse_xfrm(XfrmReadings(btf=btf, **given), kernel_config)


def features(
    *, active: frozenset[str] = NONE, changeable: frozenset[str] = NONE, fixed: frozenset[str] = NONE
) -> FeatureSets:
    return FeatureSets(active=active, changeable=changeable, fixed=fixed)


def nic_readings(**changes: Any) -> NicReadings:
    """Return the readings of a ConnectX-6 Dx whose kernel has no offload for it."""
    given: dict[str, Any] = {
        "name": "eth0",
        "sysfs_driver": "mlx5_core",
        "bus": "0000:3b:00.0",
        "pci_id": "15b3:101d",
        "numa_node": "0",
        "sriov_total": "8",
        "sriov_now": "0",
        "is_virtual_function": False,
        "driver": DriverInfo(
            driver=changes.get("sysfs_driver", "mlx5_core"), firmware="22.38.1002", bus="0000:3b:00.0"
        ),
        "features": features(),
        "channels": Channels(receive=16, receive_max=63),
        "xdp_features": 0x2B,
        "xdp_program": "",
        "hash_fields": {"esp4": ("IP source", "IP destination")},
        "eswitch": "legacy",
        **changes,
    }
    return NicReadings(**given)


def machine(
    *nics: NicReadings,
    kernel_config: KernelConfig = DEBIAN,
    release: str = "6.12.48-amd64",
    cpu: str = "cpuinfo-xeon-8380",
    crypto: str = "crypto-aesni",
    accelerators: tuple[AcceleratorFacts, ...] = (),
) -> MachineFacts:
    """Return a machine with Debian's kernel and those NICs."""
    processor = parse_cpu(sample(cpu), "")
    options = dict.fromkeys(option for profile in load_profiles() for option in profile.kconfig)
    return MachineFacts(
        cpu=processor,
        kernel=KernelFacts(
            release=release,
            vendor="Debian",
            xfrm=xfrm(kernel_config),
            bpf=(),
            options=tuple(kernel_config.fact(option) for option in options),
            crypto=parse_crypto(sample(crypto), kernel_config, architecture=processor.architecture),
        ),
        nics=tuple(judge_nic(readings) for readings in nics),
        accelerators=accelerators,
        unseen=(),
    )


def answers(facts: tuple[Fact, ...]) -> dict[str, str]:
    return {fact.name: fact.answer.value for fact in facts}


def evidence(facts: tuple[Fact, ...], name: str) -> str:
    return find_fact(facts, name).evidence
