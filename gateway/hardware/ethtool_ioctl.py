"""What only the ethtool ioctl answers: driver, firmware, and the fields of ESP that a NIC spreads flows by.

Reads only.
"""

import array
import fcntl
import socket
import struct
from dataclasses import dataclass
from typing import Final

from gateway.hardware.readings import Refused

# <linux/sockios.h> and <linux/ethtool.h>
_SIOCETHTOOL: Final = 0x8946
_GDRVINFO: Final = 0x00000003
_GRXFH: Final = 0x00000029
_DRVINFO: Final = struct.Struct("=I 32s 32s 32s 32s 32s 12s 5I")
_RXNFC_BYTES: Final = 192  # struct ethtool_rxnfc up to its array of rules
_RXFH_HEAD: Final = struct.Struct("=IIQ")

#: Flow types of ESP, and those of ESP in UDP, which NICs take for UDP.
FLOW_TYPES: Final = {"esp4": 0x0A, "esp6": 0x0C, "udp4": 0x02, "udp6": 0x06}

#: RXH_*: for ESP, bytes 0 to 3 behind the IP header are the SPI.
_FIELDS: Final = {
    1 << 1: "MAC destination",
    1 << 2: "VLAN",
    1 << 3: "IP protocol",
    1 << 4: "IP source",
    1 << 5: "IP destination",
    1 << 6: "bytes 0-1",
    1 << 7: "bytes 2-3",
    1 << 31: "discard",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverInfo:
    """ETHTOOL_GDRVINFO."""

    driver: str
    firmware: str
    bus: str


def ask_driver(link: str) -> DriverInfo | Refused:
    """Return driver, firmware version and bus address of a network interface."""
    request = bytearray(_DRVINFO.size)
    struct.pack_into("=I", request, 0, _GDRVINFO)
    answer = _ask(link, request, "ETHTOOL_GDRVINFO")
    if isinstance(answer, Refused):
        return answer
    _, driver, _, firmware, bus, *_ = _DRVINFO.unpack(answer)
    return DriverInfo(driver=_text(driver), firmware=_text(firmware), bus=_text(bus))


def ask_hash_fields(link: str, flow: str) -> tuple[str, ...] | Refused:
    """Return what chooses the receive queue for a flow type of `FLOW_TYPES`; nothing: one queue for all."""
    request = bytearray(_RXNFC_BYTES)
    _RXFH_HEAD.pack_into(request, 0, _GRXFH, FLOW_TYPES[flow], 0)
    answer = _ask(link, request, f"ETHTOOL_GRXFH {flow}")
    if isinstance(answer, Refused):
        return answer
    return parse_hash_fields(_RXFH_HEAD.unpack_from(answer)[2])


def parse_hash_fields(bits: int) -> tuple[str, ...]:
    """Return the names of RXH_* bits."""
    return tuple(name for bit, name in _FIELDS.items() if bits & bit)


def _ask(link: str, request: bytearray, source: str) -> bytes | Refused:
    buffer = array.array("B", request)
    address, _ = buffer.buffer_info()
    # struct ifreq: the name, then a pointer to the request.
    ifreq = struct.pack("16sP16x", link.encode(), address)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            fcntl.ioctl(sock.fileno(), _SIOCETHTOOL, ifreq)
    except OSError as error:
        return Refused(source=source, number=error.errno or 0)
    return buffer.tobytes()


def _text(raw: bytes) -> str:
    text = raw.partition(b"\0")[0].decode("ascii", "replace").strip()
    return "" if text in ("N/A", "n/a") else text
