"""What figures depend on: this machine, and the versions of what was measured on it."""

import os
import platform
import re
import subprocess
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Final

from gateway.datapath.engine.core import Crypto, EngineError, EngineLibrary
from gateway.hardware.cpu import parse_cpu
from gateway.hardware.readings import read_text

_ASK_S: Final = 20.0
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)+\S*")

Question = tuple[str, ...]
"""A command line whose output names a version, as its first number with a point."""


def describe_machine() -> dict[str, str]:
    """Return what every figure depends on; the load, which is no part of it, last."""
    return {
        "ipsecgw": version("ipsec-gateway"),
        "kernel": platform.release(),
        "cpu": parse_cpu(read_text(Path("/proc/cpuinfo")), platform.machine()).model,
        "cpus": str(os.cpu_count()),
        "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
    }


def crypto_versions() -> dict[str, str]:
    """Return the native engine's crypto libraries and their versions; none where it is not built."""
    try:
        library = EngineLibrary()
    except EngineError:
        return {}
    return name_crypto(library.crypto_name(Crypto.IPSECMB), library.crypto_name(Crypto.OPENSSL))


def name_crypto(ipsec_mb: str, openssl: str) -> dict[str, str]:
    """Return the versions of both libraries from what they call themselves; empty: it is not there."""
    return {
        "ipsec-mb": ipsec_mb.removeprefix("ipsec-mb "),
        "openssl": openssl.removeprefix("OpenSSL "),
    }


def ask_version(questions: Iterable[Question]) -> str:
    """Return the version that the first of some commands tells; `not told` if none does."""
    for question in questions:
        try:
            done = subprocess.run(question, capture_output=True, text=True, timeout=_ASK_S, check=False)
        except (OSError, subprocess.TimeoutExpired):
            continue
        # Some tell it beside an error, or with their usage on standard error.
        if found := _NUMBER.search(done.stdout) or _NUMBER.search(done.stderr):
            return found.group()
    return "not told"
