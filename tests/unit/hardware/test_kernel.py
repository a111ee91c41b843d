"""What the kernel was built with, and whether it has IPsec and BPF, by evidence."""

import gzip
from pathlib import Path

import pytest

from gateway.hardware.bpf import BpfReadings, parse_bpf
from gateway.hardware.facts import Answer, find_fact
from gateway.hardware.kernel_config import parse_kernel_config, parse_vendor
from gateway.hardware.readings import Reading, Refused, read_btf_names, read_first, read_text
from tests.unit.hardware.machines import (
    ABSENT,
    DAEMON_XFRM_SOCKET,
    DEBIAN,
    DENIED,
    KERNEL_XFRM_SOCKET,
    NETLINK_HEAD,
    UNREADABLE,
    answers,
    config,
    evidence,
    reading,
    xfrm,
)


@pytest.mark.parametrize(
    ("option", "answer", "said"),
    [
        ("XFRM_OFFLOAD", Answer.YES, "CONFIG_XFRM_OFFLOAD=y"),
        ("INET_ESP", Answer.YES, "CONFIG_INET_ESP=m"),
        ("MLX5_EN_IPSEC", Answer.NO, "CONFIG_MLX5_EN_IPSEC is not set"),
        ("OF_A_LATER_KERNEL", Answer.NO, "CONFIG_OF_A_LATER_KERNEL is not set"),
    ],
)
def test_an_option_is_built_in_a_module_or_not_set(option: str, answer: Answer, said: str) -> None:
    fact = DEBIAN.fact(option)

    assert (fact.answer, fact.evidence) == (answer, f"/proc/config: {said}")


def test_options_that_cannot_be_read_are_not_told() -> None:
    fact = UNREADABLE.fact("XFRM_OFFLOAD")

    assert fact.answer is Answer.UNKNOWN
    assert fact.evidence == "/boot/config-6.12: no such file or directory"


def test_a_packed_configuration_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "config.gz"
    path.write_bytes(gzip.compress(b"CONFIG_XFRM=y\n"))

    assert parse_kernel_config(read_text(path)).options == {"XFRM": "y"}


@pytest.mark.parametrize(
    "content", [b"no gzip", gzip.compress(b"CONFIG_XFRM=y\n" * 100, mtime=0)[:-12]], ids=["none", "cut"]
)
def test_a_broken_archive_is_a_reading_without_text(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.gz"
    path.write_bytes(content)

    told = read_text(path)

    assert told.text is None
    assert told.error


def test_the_first_file_that_can_be_read_counts_else_all_are_named(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("text")

    assert read_first(tmp_path / "gone", there).source == str(there)
    nothing = read_first(tmp_path / "gone", tmp_path / "too")
    assert nothing.why_not == f"{tmp_path}/gone and {tmp_path}/too: no such file or directory"


@pytest.mark.parametrize(
    ("version", "vendor"),
    [
        ("Linux version 6.12.48+deb13-amd64 (debian-kernel@lists.debian.org) (gcc-14)", "Debian"),
        ("Linux version 6.8.0-45-generic (buildd@lcy02) (x86_64-linux-gnu-gcc-13 (Ubuntu 13.2.0))", "Ubuntu"),
        ("Linux version 6.18.1 (me@home) (gcc (GCC) 15.3.0)", ""),
    ],
)
def test_who_built_the_kernel_is_in_its_version(version: str, vendor: str) -> None:
    assert parse_vendor(reading(version)) == vendor


@pytest.mark.parametrize(
    ("sockets", "options", "answer"),
    [
        (KERNEL_XFRM_SOCKET, {}, "yes"),
        ("", {"XFRM_USER": "m"}, "yes"),
        ("", {}, "no"),
        # The socket of a process proves nothing about the kernel's end.
        (DAEMON_XFRM_SOCKET, {}, "no"),
    ],
)
def test_netlink_xfrm_is_seen_by_the_kernels_own_socket(
    sockets: str, options: dict[str, str], answer: str
) -> None:
    facts = xfrm(config(**options), netlink=reading(NETLINK_HEAD + sockets))

    assert answers(facts)["NETLINK_XFRM"] == answer


def test_netlink_xfrm_is_not_told_when_neither_sockets_nor_options_are_seen() -> None:
    assert answers(xfrm(UNREADABLE, netlink=DENIED))["NETLINK_XFRM"] == "could not tell"
    assert answers(xfrm(UNREADABLE, netlink=reading(NETLINK_HEAD)))["NETLINK_XFRM"] == "could not tell"


def test_esp_as_a_module_that_is_not_loaded_is_there() -> None:
    facts = xfrm(DEBIAN)

    assert answers(facts)["ESP over IPv4"] == "yes"
    assert evidence(facts, "ESP over IPv4").endswith("CONFIG_INET_ESP=m; not loaded, its first use loads it")


def test_without_build_options_a_loaded_module_or_a_symbol_proves_esp() -> None:
    facts = xfrm(
        UNREADABLE,
        modules=reading("esp4 28672 0 - Live 0x0000000000000000\n"),
        kallsyms=reading("0000000000000000 t ah6_init_state\n", "/proc/kallsyms"),
    )

    assert evidence(facts, "ESP over IPv4") == "/proc/modules: esp4 is loaded"
    assert evidence(facts, "AH over IPv6") == "/proc/kallsyms has ah6_init_state"
    assert answers(facts)["AH over IPv4"] == "could not tell"


def test_a_kernel_without_esp_says_so() -> None:
    facts = xfrm(config(XFRM="y"))

    assert {
        answers(facts)[f"{protocol} over {ip}"] for protocol in ("ESP", "AH") for ip in ("IPv4", "IPv6")
    } == {"no"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("XfrmInError \t0\nXfrmInNoStates \t0\n", "all zero"),
        (
            "XfrmInError \t0\nXfrmInNoStates \t17\nXfrmOutPolBlock \t2\n",
            "XfrmInNoStates 17, XfrmOutPolBlock 2",
        ),
    ],
)
def test_counters_that_are_not_zero_are_shown(text: str, value: str) -> None:
    assert find_fact(xfrm(DEBIAN, xfrm_stat=reading(text)), "xfrm_stat").value == value


def test_absent_statistics_are_not_unreadable_ones() -> None:
    assert answers(xfrm(DEBIAN, xfrm_stat=ABSENT))["xfrm_stat"] == "no"
    assert answers(xfrm(DEBIAN, xfrm_stat=DENIED))["xfrm_stat"] == "could not tell"


VMLINUX, XFRM_USER = "/sys/kernel/btf/vmlinux", "/sys/kernel/btf/xfrm_user"


@pytest.mark.parametrize(
    ("btf", "answer", "said"),
    [
        (
            (reading("XFRMA_SA_PCPU XFRMA_OFFLOAD_DEV", VMLINUX), ABSENT),
            "yes",
            f"{VMLINUX} has XFRMA_SA_PCPU",
        ),
        (
            (reading("", VMLINUX), reading("XFRMA_SA_PCPU XFRMA_OFFLOAD_DEV", XFRM_USER)),
            "yes",
            f"{XFRM_USER} has XFRMA_SA_PCPU",
        ),
        (
            (reading("XFRMA_OFFLOAD_DEV", VMLINUX), ABSENT),
            "no",
            f"{VMLINUX} has XFRMA_OFFLOAD_DEV, and no XFRMA_SA_PCPU",
        ),
        # The attributes are in a module that is not loaded.
        (
            (reading("", VMLINUX), ABSENT),
            "could not tell",
            f"{VMLINUX} has no attributes of XFRM; /proc/x: no such file or directory",
        ),
        ((DENIED, DENIED), "could not tell", "/proc/x: permission denied; /proc/x: permission denied"),
    ],
    ids=["in the kernel", "in the module", "an older kernel", "the module is not loaded", "not readable"],
)
def test_sas_for_each_cpu_are_told_by_the_attribute_that_asks_for_them(
    btf: tuple[Reading, ...], answer: str, said: str
) -> None:
    facts = xfrm(DEBIAN, btf=btf)

    assert (answers(facts)["SAs for each CPU"], evidence(facts, "SAs for each CPU")) == (answer, said)


def test_names_are_whole_strings_of_btf(tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(b"\x9f\xeb\0\0XFRMA_SA_PCPU_X\0X_XFRMA_SA_DIR\0XFRMA_OFFLOAD_DEV\0")

    found = read_btf_names(path, ("XFRMA_SA_PCPU", "XFRMA_SA_DIR", "XFRMA_OFFLOAD_DEV"))

    assert found == Reading(source=str(path), text="XFRMA_OFFLOAD_DEV")
    assert read_btf_names(tmp_path / "none", ("x",)).error == "no such file or directory"


def bpf(**changes: Reading) -> dict[str, str]:
    given = {
        "btf": reading("bpf_xdp_get_xfrm_state"),
        "mounts": reading("bpf /sys/fs/bpf bpf rw,nosuid 0 0\n"),
        "jit": reading("1\n"),
        "unprivileged": reading("2\n"),
        "protocols": reading("protocol  size\nXDP       1088\n"),
        **changes,
    }
    return answers(parse_bpf(BpfReadings(**given), DEBIAN))


def test_bpf_features_are_told_from_proc_and_sys() -> None:
    assert bpf() == {
        "bpf(2)": "yes",
        "BTF": "yes",
        "bpf_xdp_get_xfrm_state": "yes",
        "bpffs": "yes",
        "BPF JIT": "yes",
        "unprivileged BPF": "no",
        "AF_XDP": "yes",
    }


@pytest.mark.parametrize(
    ("change", "name", "answer"),
    [
        ({"btf": ABSENT}, "BTF", "no"),
        ({"btf": DENIED}, "BTF", "yes"),
        ({"btf": reading("")}, "bpf_xdp_get_xfrm_state", "no"),
        ({"btf": ABSENT}, "bpf_xdp_get_xfrm_state", "no"),
        ({"btf": DENIED}, "bpf_xdp_get_xfrm_state", "could not tell"),
        ({"mounts": reading("none /sys/fs/bpf/x tmpfs rw 0 0\n")}, "bpffs", "no"),
        ({"mounts": DENIED}, "bpffs", "could not tell"),
        ({"jit": reading("0\n")}, "BPF JIT", "no"),
        ({"jit": DENIED}, "BPF JIT", "could not tell"),
        ({"jit": reading("7\n")}, "BPF JIT", "could not tell"),
        ({"unprivileged": reading("0\n")}, "unprivileged BPF", "yes"),
        ({"protocols": reading("protocol  size\nUDP  1\n")}, "AF_XDP", "no"),
        # The build options answer for a listing that cannot be read.
        ({"protocols": DENIED}, "AF_XDP", "yes"),
    ],
)
def test_each_bpf_feature_has_its_own_evidence(change: dict[str, Reading], name: str, answer: str) -> None:
    assert bpf(**change)[name] == answer


@pytest.mark.parametrize(
    ("number", "absent_is_no", "answer"),
    [
        (95, True, Answer.NO),  # EOPNOTSUPP
        (95, False, Answer.UNKNOWN),
        (1, True, Answer.UNKNOWN),  # EPERM
    ],
)
def test_not_supported_and_not_permitted_are_two_answers(
    number: int, absent_is_no: bool, answer: Answer
) -> None:
    assert Refused(source="ASK", number=number).fact("x", absent_is_no=absent_is_no).answer is answer


def test_a_refusal_names_its_errno() -> None:
    assert Refused(source="ASK", number=95).evidence == "ASK: EOPNOTSUPP (operation not supported)"
    assert Refused(source="ASK", number=1).evidence == "ASK: EPERM (operation not permitted)"
