"""The kernel's crypto API: which driver would run each algorithm of ESP and AH, from /proc/crypto.

/proc/crypto lists what is registered now. Templates (`gcm(aes)` made of `ctr(aes)` and `ghash`) appear with
their first use, so absence alone says nothing: the build options decide.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.hardware.facts import Answer, CryptoFacts, Fact
from gateway.hardware.kernel_config import KernelConfig
from gateway.hardware.readings import Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """One paragraph of /proc/crypto."""

    name: str
    driver: str
    priority: int
    is_internal: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Algorithm:
    name: str
    use: str
    names: tuple[str, ...]  # What to look for: itself, or what it is made of, best first.
    options: tuple[str, ...]  # Build options that it needs, all of them.
    accelerators: Mapping[str, str]  # By architecture: the option without which its code is portable.


_AES_BLOCK: Final = {"x86_64": "CRYPTO_AES_NI_INTEL", "aarch64": "CRYPTO_AES_ARM64_CE_BLK"}
_AES_GCM: Final = {"x86_64": "CRYPTO_AES_NI_INTEL", "aarch64": "CRYPTO_GHASH_ARM64_CE"}
_AES_CCM: Final = {"x86_64": "CRYPTO_AES_NI_INTEL", "aarch64": "CRYPTO_AES_ARM64_CE_CCM"}

# Hashes and ChaCha20 name no option: newer kernels choose their fast code inside lib/crypto, without one.
_ALGORITHMS: Final = tuple(
    _Algorithm(name=name, use=use, names=(name, *parts), options=options, accelerators=accelerators)
    for name, use, parts, options, accelerators in (
        ("rfc4106(gcm(aes))", "AES-GCM", ("gcm(aes)",), ("CRYPTO_GCM", "CRYPTO_SEQIV"), _AES_GCM),
        ("rfc4543(gcm(aes))", "AES-GMAC", ("gcm(aes)",), ("CRYPTO_GCM", "CRYPTO_SEQIV"), _AES_GCM),
        ("rfc4309(ccm(aes))", "AES-CCM", ("ccm(aes)",), ("CRYPTO_CCM", "CRYPTO_SEQIV"), _AES_CCM),
        (
            *("rfc7539esp(chacha20,poly1305)", "ChaCha20-Poly1305", ("rfc7539(chacha20,poly1305)",)),
            *(("CRYPTO_CHACHA20POLY1305",), {}),
        ),
        ("cbc(aes)", "AES-CBC", (), ("CRYPTO_CBC", "CRYPTO_AUTHENC"), _AES_BLOCK),
        ("rfc3686(ctr(aes))", "AES-CTR", ("ctr(aes)",), ("CRYPTO_CTR", "CRYPTO_AUTHENC"), _AES_BLOCK),
        ("hmac(sha1)", "HMAC-SHA1", ("sha1",), ("CRYPTO_HMAC", "CRYPTO_SHA1"), {}),
        ("hmac(sha256)", "HMAC-SHA2-256", ("sha256",), ("CRYPTO_HMAC", "CRYPTO_SHA256"), {}),
        ("hmac(sha384)", "HMAC-SHA2-384", ("sha384",), ("CRYPTO_HMAC", "CRYPTO_SHA512"), {}),
        ("hmac(sha512)", "HMAC-SHA2-512", ("sha512",), ("CRYPTO_HMAC", "CRYPTO_SHA512"), {}),
        ("cmac(aes)", "AES-CMAC", (), ("CRYPTO_CMAC",), {}),
        ("xcbc(aes)", "AES-XCBC", (), ("CRYPTO_XCBC",), {}),
    )
)

_WORD = re.compile(r"[a-z0-9_-]+")
_PORTABLE = re.compile(r"^(?!generic-).*(-generic|-fixed-time)$")
_HIDDEN = re.compile(r"-lib$")
_DEVICE = re.compile(
    r"^(qat|ccp|caam|hisi|safexcel|otx|cpt|chcr|atmel|omap|mv|bcm|iproc)[_-]|-(ccp|chcr|caam)$"
)
_FAST = re.compile(
    r"aesni|vaes|avx|sse[23]|clmul|shani|neon|simd|(^|-)(ni|ce|x86_64|arm64|x86|asm|arch)(-|$)"
)


def parse_crypto(proc_crypto: Reading, config: KernelConfig, *, architecture: str) -> tuple[CryptoFacts, ...]:
    """Return every algorithm that ESP and AH could use.

    Args:
        proc_crypto: Of /proc/crypto.
        config: What the kernel was built with.
        architecture: As `CpuFacts` has it.
    """
    entries = None if proc_crypto.text is None else parse_proc_crypto(proc_crypto.text)
    return tuple(_judge(algorithm, entries, proc_crypto, config, architecture) for algorithm in _ALGORITHMS)


def parse_proc_crypto(text: str) -> tuple[Registered, ...]:
    """Return what is registered; paragraphs without a name, driver and priority are left out."""
    entries = []
    for paragraph in text.split("\n\n"):
        fields = (line.partition(":") for line in paragraph.splitlines())
        block = {key.strip(): value.strip() for key, _, value in fields}
        if {"name", "driver"} <= block.keys() and block.get("priority", "").isdecimal():
            entries.append(
                Registered(
                    name=block["name"],
                    driver=block["driver"],
                    priority=int(block["priority"]),
                    is_internal=block.get("internal") == "yes",
                )
            )
    return tuple(entries)


def _best(entries: Iterable[Registered], names: Sequence[str]) -> Registered | None:
    """Return what the kernel would take: of the first name that is registered, the highest priority."""
    usable = [entry for entry in entries if not entry.is_internal]
    for name in names:
        named = [entry for entry in usable if entry.name == name]
        if named:
            return max(named, key=lambda entry: entry.priority)
    return None


def _judge(
    algorithm: _Algorithm,
    entries: tuple[Registered, ...] | None,
    source: Reading,
    config: KernelConfig,
    architecture: str,
) -> CryptoFacts:
    best = None if entries is None else _best(entries, algorithm.names)
    is_whole = best is not None and best.name == algorithm.name
    return CryptoFacts(
        name=algorithm.name,
        use=algorithm.use,
        available=_registered(algorithm, best, source) if is_whole else _built(algorithm, source, config),
        driver=best.driver if best else "",
        priority=best.priority if best else None,
        accelerated=_accelerated(algorithm, best, config, architecture),
    )


def _registered(algorithm: _Algorithm, best: Registered | None, source: Reading) -> Fact:
    assert best is not None
    return Fact(
        name=algorithm.name,
        answer=Answer.YES,
        evidence=f"{source.source}: {best.driver}, priority {best.priority}",
    )


def _built(algorithm: _Algorithm, source: Reading, config: KernelConfig) -> Fact:
    """Return whether an algorithm that is not registered would be, from the options that it needs."""
    absent = f"{source.source} does not list it" if source.text is not None else source.why_not
    for answer in (Answer.NO, Answer.UNKNOWN):
        for option in algorithm.options:
            if config.has(option) is answer:
                return Fact(
                    name=algorithm.name, answer=answer, evidence=f"{absent}; {config.evidence(option)}"
                )
    said = ", ".join(config.evidence(option).rpartition(": ")[2] for option in algorithm.options)
    return Fact(
        name=algorithm.name,
        answer=Answer.YES,
        evidence=f"{absent} until its first use; {config.source}: {said}",
    )


def _accelerated(
    algorithm: _Algorithm, best: Registered | None, config: KernelConfig, architecture: str
) -> Fact:
    name = f"{algorithm.name} accelerated"
    if best is not None:
        answer, why = judge_driver(best.driver)
        of = "" if best.name == algorithm.name else f" (of {best.name})"
        return Fact(name=name, answer=answer, evidence=f"driver {best.driver}{of}: {why}")
    option = algorithm.accelerators.get(architecture)
    if option is not None and config.has(option) is Answer.NO:
        return Fact(name=name, answer=Answer.NO, evidence=config.evidence(option))
    return Fact(name=name, answer=Answer.UNKNOWN, evidence="no driver is registered yet")


def judge_driver(driver: str) -> tuple[Answer, str]:
    """Return whether a driver uses the processor's or a device's crypto, by its name, and why.

    A template is as slow as its slowest part: `gcm_base(ctr-aes-aesni,ghash-generic)` is not accelerated.
    """
    words = _WORD.findall(driver)
    for pattern, answer, why in (
        (_PORTABLE, Answer.NO, "portable code"),
        (_HIDDEN, Answer.UNKNOWN, "lib/crypto chooses the code inside, and its name does not tell"),
        (_DEVICE, Answer.YES, "a device"),
        (_FAST, Answer.YES, "instructions of this processor"),
    ):
        for word in words:
            if pattern.search(word):
                return answer, f"{word} is {why}" if answer is not Answer.UNKNOWN else f"{word}: {why}"
    return Answer.UNKNOWN, "a name that says nothing about its code"
