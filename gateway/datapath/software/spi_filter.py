"""A classic BPF program that lets a raw socket receive the packets of a few SPIs only.

A raw socket gets a copy of every packet of its protocol. Beside a backend that carries millions a second in
the kernel, that would drown a process that has a handful of SAs.
"""

from collections.abc import Collection
from typing import Final

from gateway.host.sockets import BpfInstruction
from gateway.ipsec.sa import IpsecProtocol

MAX_SPIS: Final = 2000
"""Beyond it everything is received: a program has 4096 instructions at most (BPF_MAXINSNS)."""

# <linux/bpf_common.h>, <linux/filter.h>
_LDX_IPV4_HEADER_BYTES: Final = 0xB1  # BPF_LDX | BPF_B | BPF_MSH
_LD_W_ABS: Final = 0x20
_LD_W_IND: Final = 0x40
_JEQ_K: Final = 0x15
_RET_K: Final = 0x06
_WHOLE: Final = 0xFFFFFFFF
_SPI_OFFSETS: Final = {IpsecProtocol.ESP: 0, IpsecProtocol.AH: 4}
"""RFC 4303 §2, RFC 4302 §2."""


def spi_filter(
    spis: Collection[int], protocol: IpsecProtocol, *, has_header: bool
) -> tuple[BpfInstruction, ...]:
    """Return the program.

    Args:
        spis: In host order.
        protocol: Of the socket.
        has_header: Whether packets begin with their IPv4 header, as those of raw IPv4 sockets do.
    """
    accept, drop = (_RET_K, 0, 0, _WHOLE), (_RET_K, 0, 0, 0)
    if len(spis) > MAX_SPIS:
        return (accept,)
    offset = _SPI_OFFSETS[protocol]
    load: tuple[BpfInstruction, ...] = ((_LD_W_ABS, 0, 0, offset),)
    if has_header:
        load = ((_LDX_IPV4_HEADER_BYTES, 0, 0, 0), (_LD_W_IND, 0, 0, offset))
    tests = (instruction for spi in sorted(spis) for instruction in ((_JEQ_K, 0, 1, spi), accept))
    return (*load, *tests, drop)
