"""Which instructions a processor has, from the /proc/cpuinfo of several."""

import pytest

from gateway.hardware.cpu import parse_cpu
from gateway.hardware.facts import Answer
from tests.unit.hardware.machines import DENIED, answers, evidence, reading, sample


@pytest.mark.parametrize(
    ("name", "has", "lacks"),
    [
        (
            *("cpuinfo-epyc-7302", {"AES-NI", "PCLMULQDQ", "AVX2", "SHA-NI"}),
            {"VAES", "VPCLMULQDQ", "AVX-512", "GFNI"},
        ),
        (
            "cpuinfo-xeon-8380",
            {"AES-NI", "PCLMULQDQ", "VAES", "VPCLMULQDQ", "AVX2", "AVX-512", "SHA-NI", "GFNI"},
            set(),
        ),
        ("cpuinfo-graviton2", {"AES", "PMULL", "SHA1", "SHA2", "ASIMD"}, {"SHA512", "SHA3", "SVE"}),
        ("cpuinfo-graviton3", {"AES", "PMULL", "SHA1", "SHA2", "ASIMD", "SHA512", "SHA3", "SVE"}, set()),
    ],
)
def test_every_instruction_asked_for_is_told_of_known_processors(
    name: str, has: set[str], lacks: set[str]
) -> None:
    cpu = parse_cpu(sample(name), "")

    told = answers(cpu.features)
    assert {feature for feature, answer in told.items() if answer == "yes"} == has
    assert {feature for feature, answer in told.items() if answer == "no"} == lacks
    assert cpu.processors == 2


def test_the_model_is_named_on_x86_and_numbered_on_arm() -> None:
    assert parse_cpu(sample("cpuinfo-epyc-7302"), "").model == "AMD EPYC 7302 16-Core Processor"
    assert parse_cpu(sample("cpuinfo-graviton2"), "").model == "implementer 0x41 part 0xd0c"


def test_a_feature_that_one_of_the_processors_lacks_does_not_count() -> None:
    mixed = "processor\t: 0\nflags\t: aes vaes\n\nprocessor\t: 1\nflags\t: aes\n"

    cpu = parse_cpu(reading(mixed, "/proc/cpuinfo"), "x86_64")

    assert answers(cpu.features)["AES-NI"] == "yes"
    assert answers(cpu.features)["VAES"] == "no"
    assert evidence(cpu.features, "VAES") == "flags in /proc/cpuinfo: no vaes on 1 of 2"


def test_part_of_avx_512_is_no_avx_512() -> None:
    cpu = parse_cpu(reading("processor\t: 0\nflags\t: avx512f avx512dq\n"), "x86_64")

    assert answers(cpu.features)["AVX-512"] == "no"
    assert "no avx512bw avx512vl" in evidence(cpu.features, "AVX-512")


def test_nothing_is_told_of_a_processor_that_cannot_be_seen() -> None:
    cpu = parse_cpu(DENIED, "x86_64")

    assert {fact.answer for fact in cpu.features} == {Answer.UNKNOWN}
    assert evidence(cpu.features, "AES-NI") == "/proc/x: permission denied"


def test_an_architecture_that_we_do_not_know_is_asked_nothing() -> None:
    cpu = parse_cpu(reading("processor\t: 0\nisa\t: rv64imafdc\n"), "riscv64")

    assert cpu.features == ()
    assert (cpu.architecture, cpu.processors) == ("riscv64", 1)
