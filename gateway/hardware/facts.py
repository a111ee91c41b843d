"""What is known about a machine: records that every probe fills in, with three answers and their evidence.

Not for judging: `advice.py` says what the facts mean.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Answer(Enum):
    """The three answers of a probe."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "could not tell"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One question and its answer."""

    name: str
    """What was asked, in the words of the tool that an operator would ask it with."""
    answer: Answer
    evidence: str
    """Where the answer is from: a file, a message, an error."""
    value: str = ""
    """More than yes or no: a count, a mode; empty if there is no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuFacts:
    """The processors; a feature counts when all of them have it."""

    model: str
    architecture: str
    """`x86_64`, `aarch64`, or empty if it could not be told."""
    processors: int
    features: tuple[Fact, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CryptoFacts:
    """One algorithm of the kernel's crypto API that ESP or AH would use."""

    name: str
    """As NETLINK_XFRM names it: `rfc4106(gcm(aes))`."""
    use: str
    """What IPsec calls it: `AES-GCM`."""
    available: Fact
    driver: str
    """The registered driver of the highest priority; empty if none is registered."""
    priority: int | None
    accelerated: Fact


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelFacts:
    """The kernel: what it was built with, and what it shows."""

    release: str
    vendor: str
    """`Debian`, `Ubuntu`..., or empty."""
    xfrm: tuple[Fact, ...]
    bpf: tuple[Fact, ...]
    options: tuple[Fact, ...]
    """The build options that the profiles of drivers ask for, by name: `CONFIG_MLX5_EN_IPSEC`."""
    crypto: tuple[CryptoFacts, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NicFacts:
    """One network interface."""

    name: str
    driver: str
    """Empty for an interface without one, or if it could not be told."""
    firmware: str
    bus: str
    """Where the device is: `0000:3b:00.0`; empty for an interface without a device."""
    pci_id: str
    """Vendor and device, `15b3:101d`; empty if it is not on PCI."""
    numa_node: int | None
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceleratorFacts:
    """A crypto device beside the NICs."""

    bus: str
    pci_id: str
    name: str
    driver: Fact


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFacts:
    """Everything that was asked of one machine."""

    cpu: CpuFacts
    kernel: KernelFacts
    nics: tuple[NicFacts, ...]
    accelerators: tuple[AcceleratorFacts, ...]
    unseen: tuple[str, ...]
    """What could not be looked at at all, and why: a directory that may not be read."""


def find_fact(facts: Iterable[Fact], name: str) -> Fact:
    """Return the fact of that name; the answer to a question that nobody asked is `could not tell`."""
    for fact in facts:
        if fact.name == name:
            return fact
    return Fact(name=name, answer=Answer.UNKNOWN, evidence="not asked")
