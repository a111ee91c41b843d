"""The versions of what carried packets in `bench path`: libraries of ours, programs of others."""

from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Final

from gateway.bench.machine import Question, ask_version, crypto_versions
from gateway.bench.path.plan import LIBIPSEC, SECGW, TESTPMD, WIREGUARD
from gateway.ipsec.placement import Engine


def _package(name: str) -> Question:
    return ("dpkg-query", "-W", "-f", "${Version}", name)


#: Of each program: its name, and who tells its version. A package's is the more exact.
_PROGRAMS: Final[dict[str, tuple[str, tuple[Question, ...]]]] = {
    SECGW: ("DPDK", (_package("libdpdk-dev"), ("pkg-config", "--modversion", "libdpdk"))),
    TESTPMD: ("DPDK", (_package("dpdk-dev"), ("pkg-config", "--modversion", "libdpdk"))),
    LIBIPSEC: ("strongSwan", (_package("charon-systemd"), ("swanctl", "--version"))),
    WIREGUARD: ("wireguard-go", (("wireguard-go", "--version"),)),
}
_LIBRARIES: Final[dict[str, Callable[[], dict[str, str]]]] = {
    Engine.ENGINE.value: crypto_versions,
    Engine.SOFTWARE.value: lambda: {"cryptography": version("cryptography")},
}


def measured_versions(placements: Iterable[str]) -> dict[str, str]:
    """Return the version of each library and program that these placements are of, by its name.

    What is the kernel's, or nothing but ours, has that of the machine.
    """
    found: dict[str, str] = {}
    for placement in dict.fromkeys(placements):
        if placement in _LIBRARIES:
            found |= _LIBRARIES[placement]()
        if placement in _PROGRAMS:
            name, questions = _PROGRAMS[placement]
            found[name] = ask_version(questions)
    return found
