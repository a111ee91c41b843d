"""What this kernel's XFRM can do, by trying: SAs that nothing uses are installed, read back and removed."""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.algorithms import Suite, every_suite, kernel_algorithms
from gateway.datapath.xfrm.errors import KernelRefusedError
from gateway.datapath.xfrm.netlink import XfrmSocket
from gateway.datapath.xfrm.numbers import Mode, SaDirection, SaFlag
from gateway.host.errors import HostError
from gateway.ipsec.algorithms import ENCR, INTEG, Encr, Integ
from gateway.ipsec.sa import IpAddress, IpsecProtocol, Spi
from gateway.ipsec.secret import Secret

_LOOPBACK: Final[tuple[IpAddress, ...]] = (IPv4Address("127.0.0.1"), IPv6Address("::1"))

#: By protocol and IP version: the build option that is missing, and the module it makes.
_OPTIONS: Final = {
    (IpsecProtocol.ESP, 4): ("CONFIG_INET_ESP", "esp4"),
    (IpsecProtocol.ESP, 6): ("CONFIG_INET6_ESP", "esp6"),
    (IpsecProtocol.AH, 4): ("CONFIG_INET_AH", "ah4"),
    (IpsecProtocol.AH, 6): ("CONFIG_INET6_AH", "ah6"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelAbility:
    """What the kernel took."""

    encryption: tuple[tuple[Encr, int], ...]
    """(algorithm, key bits) pairs, with ESP."""
    integrity: tuple[Integ, ...]
    protocols: tuple[IpsecProtocol, ...]
    knows_direction: bool
    """XFRMA_SA_DIR; Linux 6.10."""
    versions: tuple[int, ...]
    """IP versions that have ESP."""
    cpus: int = 0
    """How many CPUs can have an outbound SA each (XFRMA_SA_PCPU, Linux 6.13); 0: none can."""


def missing_option(protocol: IpsecProtocol, version: int) -> str:
    """Return what to say where the kernel has no such protocol."""
    option, module = _OPTIONS[protocol, version]
    return (
        f"this kernel has no {protocol.name} over IPv{version}: it needs {option} "
        f"(module {module}); see `ipsecgw hw`"
    )


def explain_refusal(error: KernelRefusedError, protocol: IpsecProtocol, version: int) -> str:
    """Return a kernel's refusal of an SA in words, with the build option where one is missing."""
    if error.code == errno.EPROTONOSUPPORT:
        return missing_option(protocol, version)
    return str(error)


def probe_kernel(xfrm: XfrmSocket, spi: Callable[[], Spi]) -> KernelAbility:
    """Try every algorithm.

    Raises:
        HostError: The kernel has no ESP at all, or gives no leave.
    """
    plain = Suite(integrity=Integ.HMAC_SHA1_96)
    refusals = {address.version: _try(xfrm, plain, address, spi()) for address in _LOOPBACK}
    versions = tuple(version for version, refusal in refusals.items() if refusal is None)
    if not versions:
        raise HostError(_why_not(refusals[4]))
    address = _LOOPBACK[0] if 4 in versions else _LOOPBACK[1]
    taken = [suite for suite in every_suite() if _try(xfrm, suite, address, spi()) is None]
    return KernelAbility(
        encryption=tuple(
            dict.fromkeys(
                (suite.encryption, suite.key_bits) for suite in taken if suite.protocol is IpsecProtocol.ESP
            )
        ),
        integrity=tuple(
            dict.fromkeys(suite.integrity for suite in taken if suite.integrity is not Integ.NONE)
        ),
        protocols=tuple(dict.fromkeys(suite.protocol for suite in taken)),
        knows_direction=_knows_direction(xfrm, plain, address, spi()),
        versions=versions,
        cpus=len(os.sched_getaffinity(0)) if _knows_cpu(xfrm, plain, address, spi()) else 0,
    )


def _why_not(refusal: KernelRefusedError | None) -> str:
    assert refusal is not None
    if refusal.code == errno.EPERM:
        return "changing the kernel's SAs needs CAP_NET_ADMIN: run the agent as root"
    if refusal.code == errno.ENOSYS:
        return f"the kernel has no HMAC-SHA1 for ESP, which every ESP has (RFC 8221 §6): {refusal}"
    return explain_refusal(refusal, IpsecProtocol.ESP, 4)


def _try(
    xfrm: XfrmSocket, suite: Suite, address: IpAddress, spi: Spi, direction: SaDirection | None = None
) -> KernelRefusedError | None:
    info, attributes = _trial(suite, address, spi, direction)
    try:
        xfrm.add_sa(info, attributes)
    except KernelRefusedError as error:
        return error
    xfrm.delete_sa(info.id)
    return None


def _knows_direction(xfrm: XfrmSocket, suite: Suite, address: IpAddress, spi: Spi) -> bool:
    """Return whether the kernel kept the direction of an SA: an old one ignores the attribute."""
    info, attributes = _trial(suite, address, spi, SaDirection.OUT)
    xfrm.add_sa(info, attributes)
    try:
        return xfrm.sa(info.id).attributes.direction is SaDirection.OUT
    finally:
        xfrm.delete_sa(info.id)


def _knows_cpu(xfrm: XfrmSocket, suite: Suite, address: IpAddress, spi: Spi) -> bool:
    """Return whether the kernel kept the CPU of an outbound SA: an old one ignores or refuses it."""
    info, attributes = _trial(suite, address, spi, SaDirection.OUT)
    try:
        xfrm.add_sa(info, replace(attributes, cpu=0))
    except KernelRefusedError:
        return False
    try:
        return xfrm.sa(info.id).attributes.cpu == 0
    finally:
        xfrm.delete_sa(info.id)


def _trial(
    suite: Suite, address: IpAddress, spi: Spi, direction: SaDirection | None
) -> tuple[r.SaInfo, r.Attributes]:
    """Return an SA from this machine to itself, with a key of zeros, that no policy leads to."""
    key = Secret(bytes(suite.key_bits // 8 + ENCR[suite.encryption].salt_bytes))
    algorithms = kernel_algorithms(suite, key, Secret(bytes(INTEG[suite.integrity].key_bytes)))
    info = r.SaInfo(
        id=r.SaId(destination=address, spi=spi, protocol=suite.protocol),
        source=address,
        mode=Mode.TUNNEL,
        flags=SaFlag.AF_UNSPEC,
    )
    return info, r.Attributes(
        encryption=algorithms.encryption,
        integrity=algorithms.integrity,
        aead=algorithms.aead,
        direction=direction,
    )
