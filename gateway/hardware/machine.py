"""Look at this machine: collect every reading, and hand each to its parser. Reads only, needs no privilege.

What may not be seen without privilege becomes `could not tell`, with the error as evidence.
"""

import os
import re
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from gateway.hardware import bpf, xfrm
from gateway.hardware.accelerators import PciReading, find_accelerators
from gateway.hardware.bpf import BpfReadings, parse_bpf
from gateway.hardware.cpu import parse_cpu
from gateway.hardware.crypto import parse_crypto
from gateway.hardware.ethtool_ioctl import FLOW_TYPES, ask_driver, ask_hash_fields
from gateway.hardware.facts import CpuFacts, KernelFacts, MachineFacts, NicFacts
from gateway.hardware.kernel_config import KernelConfig, parse_kernel_config, parse_vendor
from gateway.hardware.nic import NicReadings, judge_nic
from gateway.hardware.nic_netlink import (
    ask_channels,
    ask_eswitch_mode,
    ask_features,
    ask_xdp_features,
    ask_xdp_program,
)
from gateway.hardware.profiles import Profile
from gateway.hardware.readings import (
    Reading,
    read_btf_names,
    read_first,
    read_link_name,
    read_text,
    read_value,
)
from gateway.hardware.xfrm import XfrmReadings, parse_xfrm

_PCI_ADDRESS = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_PROC: Final = Path("/proc")
_SYS: Final = Path("/sys")
#: Below a file there is nothing: every reading of it fails.
_NOWHERE: Final = Path(os.devnull) / "nothing"


def probe_machine(profiles: Iterable[Profile]) -> MachineFacts:
    """Return everything that can be told about this machine.

    Args:
        profiles: Of the drivers whose build options are asked for.
    """
    cpu = parse_cpu(read_text(_PROC / "cpuinfo"), os.uname().machine)
    links = sorted(socket.if_nameindex())
    devices, unseen = _list_folder(_SYS / "bus/pci/devices")
    return MachineFacts(
        cpu=cpu,
        kernel=_probe_kernel(cpu, profiles),
        nics=tuple(_probe_nic(index, name) for index, name in links),
        accelerators=find_accelerators([_read_pci(path) for path in devices]),
        unseen=(
            *unseen,
            *(
                f"{_SYS}/class/net/{name}: not there, or of another network namespace"
                for index, name in links
                if not _is_in_sysfs(index, name)
            ),
        ),
    )


def _list_folder(folder: Path) -> tuple[list[Path], tuple[str, ...]]:
    """Return what is in a folder, in order, or why it cannot be seen."""
    try:
        return sorted(folder.iterdir()), ()
    except OSError as error:
        return [], (f"{folder}: {(error.strerror or str(error)).lower()}",)


def _probe_kernel(cpu: CpuFacts, profiles: Iterable[Profile]) -> KernelFacts:
    release = os.uname().release
    config = parse_kernel_config(
        read_first(
            _PROC / "config.gz",
            Path(f"/boot/config-{release}"),
            Path(f"/lib/modules/{release}/config"),
        )
    )
    options = dict.fromkeys(option for profile in profiles for option in profile.kconfig)
    return KernelFacts(
        release=release,
        vendor=parse_vendor(read_text(_PROC / "version")),
        xfrm=parse_xfrm(
            XfrmReadings(
                netlink=read_text(_PROC / "net/netlink"),
                xfrm_stat=read_text(_PROC / "net/xfrm_stat"),
                modules=read_text(_PROC / "modules"),
                kallsyms=_read_symbols(config),
                btf=tuple(
                    read_btf_names(_SYS / "kernel/btf" / name, xfrm.BTF_NAMES)
                    for name in ("vmlinux", "xfrm_user")
                ),
            ),
            config,
        ),
        bpf=parse_bpf(
            BpfReadings(
                btf=read_btf_names(_SYS / "kernel/btf/vmlinux", bpf.BTF_NAMES),
                mounts=read_text(_PROC / "mounts"),
                jit=read_text(_PROC / "sys/net/core/bpf_jit_enable"),
                unprivileged=read_text(_PROC / "sys/kernel/unprivileged_bpf_disabled"),
                protocols=read_text(_PROC / "net/protocols"),
            ),
            config,
        ),
        options=tuple(config.fact(option) for option in options),
        crypto=parse_crypto(read_text(_PROC / "crypto"), config, architecture=cpu.architecture),
    )


def _read_symbols(config: KernelConfig) -> Reading:
    if config.options is not None:
        return Reading(source="/proc/kallsyms", error="not needed")
    return read_text(_PROC / "kallsyms")


def _probe_nic(index: int, name: str) -> NicFacts:
    """Return the facts of an interface of this network namespace."""
    device = _SYS / "class/net" / name / "device" if _is_in_sysfs(index, name) else _NOWHERE
    bus = read_link_name(device)
    # A virtio NIC is a device on PCI's child bus: its PCI device is one above.
    pci = device if _PCI_ADDRESS.fullmatch(bus) else device.resolve().parent
    address = pci.resolve().name if bus else ""
    is_pci = _PCI_ADDRESS.fullmatch(address) is not None
    return judge_nic(
        NicReadings(
            name=name,
            sysfs_driver=read_link_name(device / "driver"),
            bus=address if is_pci else bus,
            pci_id=_pci_id(pci) if is_pci else "",
            numa_node=read_value(pci / "numa_node") if is_pci else "",
            sriov_total=read_value(pci / "sriov_totalvfs") if is_pci else "",
            sriov_now=read_value(pci / "sriov_numvfs") if is_pci else "",
            is_virtual_function=is_pci and (pci / "physfn").exists(),
            driver=ask_driver(name),
            features=ask_features(index),
            channels=ask_channels(index),
            xdp_features=ask_xdp_features(index),
            xdp_program=ask_xdp_program(index),
            hash_fields={flow: ask_hash_fields(name, flow) for flow in FLOW_TYPES},
            eswitch=ask_eswitch_mode(address) if is_pci else None,
        )
    )


def _is_in_sysfs(index: int, name: str) -> bool:
    """Return whether sysfs shows this interface, and not another of its name.

    sysfs shows the network namespace that it was mounted in, which need not be ours.
    """
    return read_value(_SYS / "class/net" / name / "ifindex") == str(index)


def _pci_id(path: Path) -> str:
    vendor, device = (read_value(path / part).removeprefix("0x") for part in ("vendor", "device"))
    return f"{vendor}:{device}" if vendor and device else ""


def _read_pci(path: Path) -> PciReading:
    return PciReading(bus=path.name, pci_id=_pci_id(path), driver=read_link_name(path / "driver"))
