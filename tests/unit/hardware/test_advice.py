"""What an operator is told about machines of several kinds."""

import errno

import pytest

from gateway.hardware.accelerators import PciReading, find_accelerators
from gateway.hardware.advice import Advice, advise, is_older
from gateway.hardware.facts import MachineFacts
from gateway.hardware.kernel_config import KernelConfig
from gateway.hardware.profiles import load_profiles
from gateway.hardware.readings import Refused
from tests.unit.hardware.machines import ALL_ESP, DEBIAN, UNREADABLE, config, features, machine, nic_readings

PROFILES = load_profiles()
ALL_OPTIONS = KernelConfig(source="/proc/config.gz", options={**(DEBIAN.options or {}), "MLX5_EN_IPSEC": "y"})


def told(of: MachineFacts, topic: str) -> list[Advice]:
    return [advice for advice in advise(of, PROFILES) if advice.topic == topic]


def test_a_debian_kernel_does_not_offload_to_connectx() -> None:
    (advice,) = told(machine(nic_readings()), "eth0")

    assert advice.text == (
        "this Debian kernel is built without MLX5_EN_IPSEC: offload to mlx5_core is compiled out"
    )
    assert advice.remedy == "boot a kernel built with CONFIG_MLX5_EN_IPSEC"


def test_a_feature_that_is_off_has_a_command_that_turns_it_on() -> None:
    (advice,) = told(machine(nic_readings(features=features(changeable=ALL_ESP))), "eth0")

    assert (advice.text, advice.remedy) == (
        "can offload ESP, and it is off",
        "ethtool -K eth0 esp-hw-offload on",
    )


def test_a_nic_that_offers_it_needs_nothing() -> None:
    on = machine(nic_readings(features=features(active=ALL_ESP)), kernel_config=ALL_OPTIONS)

    assert told(on, "eth0") == [Advice(topic="eth0", text="offers ESP offload (mlx5_core)")]
    assert told(on, "NICs") == []


def test_a_device_that_offers_more_than_the_kernel_can_use_is_told() -> None:
    without = KernelConfig(
        source="/proc/config.gz",
        options={
            key: value for key, value in (ALL_OPTIONS.options or {}).items() if key != "INET6_ESP_OFFLOAD"
        },
    )

    (advice,) = told(machine(nic_readings(features=features(active=ALL_ESP)), kernel_config=without), "eth0")

    assert advice.text == "offers ESP offload, but this Debian kernel is built without INET6_ESP_OFFLOAD"


def test_an_old_kernel_is_named_with_the_first_that_would_do() -> None:
    (advice,) = told(machine(nic_readings(), kernel_config=ALL_OPTIONS, release="5.4.0-100"), "eth0")

    assert advice.text == "offload to mlx5_core came with Linux 5.9; this is 5.4.0-100"


def test_a_device_that_does_not_offer_it_under_the_right_kernel_is_the_wrong_part() -> None:
    (advice,) = told(machine(nic_readings(), kernel_config=ALL_OPTIONS), "eth0")

    assert "this device does not offer it" in advice.text
    assert "crypto enabled" in advice.remedy


def test_build_options_that_cannot_be_read_are_not_called_missing() -> None:
    (advice,) = told(machine(nic_readings(), kernel_config=UNREADABLE), "eth0")

    assert "compiled out" not in advice.text


def test_features_that_cannot_be_asked_are_not_called_absent() -> None:
    unknown = machine(nic_readings(features=Refused(source="ASK", number=errno.EPERM)))

    (advice,) = told(unknown, "eth0")
    assert advice.text == "could not tell whether ESP offload is on: ASK: EPERM (operation not permitted)"
    assert told(unknown, "NICs") == []


def test_a_machine_without_an_offloading_nic_is_told_so() -> None:
    virtio = machine(nic_readings(sysfs_driver="virtio_net", pci_id="1af4:1041"))

    assert told(virtio, "NICs") == [Advice(topic="NICs", text="no NIC here offloads ESP")]
    assert told(virtio, "eth0") == []


def test_esp_that_lands_in_one_of_many_queues_is_told() -> None:
    nic = nic_readings(sysfs_driver="virtio_net", hash_fields={"esp4": (), "esp6": (), "udp4": ()})

    (advice,) = told(machine(nic), "eth0")

    assert advice.text == "esp4 and esp6 packets all go to one receive queue; 16 of 63 are on"
    assert advice.remedy == "if the driver can: ethtool -N eth0 rx-flow-hash esp4 sdfn"


def test_a_kernel_without_esp_or_offload_is_told_with_the_evidence() -> None:
    bare = machine(kernel_config=config(XFRM="y", XFRM_USER="y"))

    texts = [advice.text for advice in told(bare, "kernel")]

    assert texts == [
        "this Debian kernel has no ESP over IPv4 and no ESP over IPv6: "
        "/proc/config.gz: CONFIG_INET_ESP is not set",
        "this Debian kernel is built without XFRM_OFFLOAD: no NIC can offload ESP under it",
    ]


def test_aes_instructions_that_the_kernel_leaves_alone_are_told() -> None:
    # Xeon 8380, but /proc/crypto as of a machine where nothing is registered, and no AES-NI driver is built.
    idle = machine(kernel_config=config(CRYPTO_GCM="y", CRYPTO_SEQIV="y"), crypto="README.md")

    (advice,) = told(idle, "cpu")

    assert advice.text == (
        "AES-NI is present, but the kernel's AES-GCM would not use it: "
        "/proc/config.gz: CONFIG_CRYPTO_AES_NI_INTEL is not set"
    )


@pytest.mark.parametrize(("release", "has_remedy"), [("6.1.0-40-amd64", True), ("6.12.48-amd64", False)])
def test_vaes_that_an_older_kernel_does_not_use_is_told(release: str, has_remedy: bool) -> None:
    (advice,) = told(machine(release=release), "cpu")

    assert advice.text == "VAES is present, but the kernel's AES-GCM is rfc4106-gcm-aesni"
    assert bool(advice.remedy) is has_remedy


@pytest.mark.parametrize(
    ("cpu", "crypto"), [("cpuinfo-epyc-7302", "crypto-aesni"), ("cpuinfo-graviton3", "crypto-arm64-ce")]
)
def test_a_processor_whose_instructions_are_all_used_is_not_mentioned(cpu: str, crypto: str) -> None:
    assert told(machine(cpu=cpu, crypto=crypto), "cpu") == []


def test_qat_without_a_driver_is_told() -> None:
    idle = find_accelerators([PciReading(bus="0000:6b:00.0", pci_id="8086:4940", driver="")])

    (advice,) = told(machine(accelerators=idle), "0000:6b:00.0")

    assert advice.text.startswith("QAT 4xxx has no driver bound: ")


@pytest.mark.parametrize(
    ("release", "than", "older"),
    [
        ("5.4.0-100-generic", "5.9", True),
        ("5.10.1", "5.9", False),
        ("6.2.0", "6.2", False),
        ("next", "6.2", False),
    ],
)
def test_releases_are_compared_as_numbers(release: str, than: str, older: bool) -> None:
    assert is_older(release, than) is older
