"""SAs without keys in the kernel of the machine that runs the tests, which need have no ESP, to be looked up.

The kernel makes one for each SPI that it is asked to reserve (ALLOCSPI), and finds it as it finds any other.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.netlink import XfrmSocket
from gateway.datapath.xfrm.numbers import Mode
from gateway.ipsec.sa import IpAddress

_ESP = 50
_ANY: dict[int, IpAddress] = {4: IPv4Address(0), 6: IPv6Address(0)}
_LIFETIME_S = 3600


@contextmanager
def kernel_sad() -> Iterator["KernelSad"]:
    """Yield the SAD of this thread's network namespace, in which larval SAs live for an hour."""
    Path("/proc/sys/net/core/xfrm_acq_expires").write_text(str(_LIFETIME_S))
    with XfrmSocket() as xfrm:
        yield KernelSad(xfrm)


class KernelSad:
    """Puts SAs into the kernel and takes them out again."""

    def __init__(self, xfrm: XfrmSocket) -> None:
        self._xfrm = xfrm

    def add(self, destination: IpAddress, spi: int) -> None:
        """Have an SA of ESP; no two may have one SPI."""
        sa = r.SaInfo(
            id=r.SaId(destination=destination, spi=0, protocol=_ESP),
            source=_ANY[destination.version],
            mode=Mode.TUNNEL,
        )
        self._xfrm.allocate_spi(r.SpiRange(sa=sa, lowest=spi, highest=spi))

    def remove(self, destination: IpAddress, spi: int) -> None:
        """Have it no more."""
        self._xfrm.delete_sa(r.SaId(destination=destination, spi=spi, protocol=_ESP))
