"""What the kernel was built with: /proc/config.gz or /boot/config-RELEASE."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.hardware.facts import Answer, Fact
from gateway.hardware.readings import Reading

_SET = re.compile(r"CONFIG_(\w+)=(.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelConfig:
    """The build options, if they could be read."""

    source: str
    options: Mapping[str, str] | None
    """Values by name without `CONFIG_`: `y`, `m`, or a text. None: the file could not be read."""
    error: str = ""

    def has(self, option: str) -> Answer:
        """Return whether an option (without `CONFIG_`) is built in or a module."""
        if self.options is None:
            return Answer.UNKNOWN
        return Answer.YES if self.options.get(option) in ("y", "m") else Answer.NO

    def is_module(self, option: str) -> bool:
        """Return whether an option is known to be a module."""
        return self.options is not None and self.options.get(option) == "m"

    def evidence(self, option: str) -> str:
        """Return what the file says of an option, in one sentence."""
        if self.options is None:
            return f"{self.source}: {self.error}"
        value = self.options.get(option)
        said = f"CONFIG_{option} is not set" if value is None else f"CONFIG_{option}={value}"
        return f"{self.source}: {said}"

    def fact(self, option: str, name: str = "") -> Fact:
        """Return the option as a fact, called `name` or by the option's own name."""
        return Fact(name=name or f"CONFIG_{option}", answer=self.has(option), evidence=self.evidence(option))


def parse_kernel_config(reading: Reading) -> KernelConfig:
    """Return the options; an option that is not in the file is not set."""
    if reading.text is None:
        return KernelConfig(source=reading.source, options=None, error=reading.error)
    found = (_SET.fullmatch(line.strip()) for line in reading.text.splitlines())
    return KernelConfig(
        source=reading.source, options={match[1]: match[2].strip('"') for match in found if match}
    )


def parse_vendor(version: Reading) -> str:
    """Return who built the kernel, from /proc/version; empty if it names none that we know."""
    text = version.text or ""
    names = ("Debian", "Ubuntu", "Red Hat", "SUSE", "Amazon", "Raspbian")
    return next((name for name in names if name.lower() in text.lower()), "")
