"""Instructions for IPsec's algorithms, from /proc/cpuinfo."""

from dataclasses import dataclass
from typing import Final

from gateway.hardware.facts import Answer, CpuFacts, Fact
from gateway.hardware.readings import Reading


@dataclass(frozen=True, slots=True)
class _Feature:
    name: str
    flags: tuple[str, ...]  # All of these, as the kernel spells them.


#: By the line of /proc/cpuinfo that lists flags: the architecture, and what is asked of it.
_ARCHITECTURES: Final = {
    "flags": (
        "x86_64",
        (
            _Feature("AES-NI", ("aes",)),
            _Feature("PCLMULQDQ", ("pclmulqdq",)),
            _Feature("VAES", ("vaes",)),
            _Feature("VPCLMULQDQ", ("vpclmulqdq",)),
            _Feature("AVX2", ("avx2",)),
            # What the kernel's AVX-512 ciphers want together; one alone is of no use.
            _Feature("AVX-512", ("avx512f", "avx512bw", "avx512dq", "avx512vl")),
            _Feature("SHA-NI", ("sha_ni",)),
            _Feature("GFNI", ("gfni",)),
        ),
    ),
    "Features": (
        "aarch64",
        (
            _Feature("AES", ("aes",)),
            _Feature("PMULL", ("pmull",)),
            _Feature("SHA1", ("sha1",)),
            _Feature("SHA2", ("sha2",)),
            _Feature("SHA512", ("sha512",)),
            _Feature("SHA3", ("sha3",)),
            _Feature("ASIMD", ("asimd",)),
            _Feature("SVE", ("sve",)),
        ),
    ),
}


def parse_cpu(cpuinfo: Reading, machine: str) -> CpuFacts:
    """Return what the processors have.

    Args:
        cpuinfo: Of /proc/cpuinfo.
        machine: What uname(2) calls the architecture; it names what is asked if /proc/cpuinfo cannot be read.
    """
    processors = [] if cpuinfo.text is None else _processors(cpuinfo.text)
    for key, (architecture, features) in _ARCHITECTURES.items():
        flags = [frozenset(processor[key].split()) for processor in processors if key in processor]
        if flags:
            return CpuFacts(
                model=_model(processors[0]),
                architecture=architecture,
                processors=len(flags),
                features=tuple(_judge(feature, flags, f"{key} in {cpuinfo.source}") for feature in features),
            )
    asked = next((features for name, features in _ARCHITECTURES.values() if name == machine), ())
    reason = cpuinfo.why_not if cpuinfo.text is None else f"{cpuinfo.source} lists no flags"
    return CpuFacts(
        model=_model(processors[0]) if processors else "",
        architecture=machine,
        processors=len(processors),
        features=tuple(Fact(name=feature.name, answer=Answer.UNKNOWN, evidence=reason) for feature in asked),
    )


def _processors(text: str) -> list[dict[str, str]]:
    """Return the fields of every processor; they are paragraphs."""
    blocks = []
    for paragraph in text.split("\n\n"):
        fields = (line.partition(":") for line in paragraph.splitlines() if ":" in line)
        block = {key.strip(): value.strip() for key, _, value in fields}
        if "processor" in block:
            blocks.append(block)
    return blocks


def _model(processor: dict[str, str]) -> str:
    """Return the model: its name on x86, on Arm the numbers of implementer and part."""
    if "model name" in processor:
        return processor["model name"]
    arm = [processor.get(key, "") for key in ("CPU implementer", "CPU part")]
    return f"implementer {arm[0]} part {arm[1]}" if all(arm) else ""


def _judge(feature: _Feature, flags: list[frozenset[str]], source: str) -> Fact:
    lacking = [[flag for flag in feature.flags if flag not in has] for has in flags]
    without = sum(1 for missing in lacking if missing)
    words = " ".join(feature.flags)
    if not without:
        return Fact(name=feature.name, answer=Answer.YES, evidence=f"{source}: {words} on all {len(flags)}")
    missing = " ".join(dict.fromkeys(flag for flags_of_one in lacking for flag in flags_of_one))
    return Fact(
        name=feature.name,
        answer=Answer.NO,
        evidence=f"{source}: no {missing} on {without} of {len(flags)}",
    )
