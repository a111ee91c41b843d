"""The TUN device through which the kernel hands us what is to be protected, and takes back what was.

One packet per read and per write, without a header of the device's own. Unless it is persistent, the device
belongs to this process: when it ends, however it ends, the device and the routes into it vanish.
"""

import errno
import fcntl
import os
import struct
from typing import Final

from gateway.host.errors import HostError

MAX_PACKET_BYTES: Final = 65535

_TUNSETIFF: Final = 0x400454CA
_TUNSETPERSIST: Final = 0x400454CB
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
_IFREQ: Final = struct.Struct("16sH22x")
_MAX_NAME_BYTES: Final = 15


class Tun:
    """One open TUN device; owns its descriptor."""

    def __init__(self, name: str, *, is_persistent: bool = False) -> None:
        """Create the device, or take over one that is persistent.

        Args:
            name: Of the device.
            is_persistent: Whether it stays when this process ends: then it drops what is routed there.

        Raises:
            HostError: Another process has it, or this one may not.
        """
        if not 0 < len(name.encode()) <= _MAX_NAME_BYTES:
            raise HostError(f"{name!r} is no name for a link: it has 1 to {_MAX_NAME_BYTES} bytes")
        self.name = name
        try:
            self.descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise HostError("there is no /dev/net/tun: load the module with `modprobe tun`") from error
        except PermissionError as error:
            raise HostError("no permission to open /dev/net/tun: run the agent as root") from error
        try:
            fcntl.ioctl(self.descriptor, _TUNSETIFF, _IFREQ.pack(name.encode(), _IFF_TUN | _IFF_NO_PI))
            fcntl.ioctl(self.descriptor, _TUNSETPERSIST, int(is_persistent))
        except OSError as error:
            os.close(self.descriptor)
            raise HostError(_explain(name, error)) from error

    def read(self) -> bytes | None:
        """Return the next packet, or `None` if there is none now."""
        try:
            return os.read(self.descriptor, MAX_PACKET_BYTES)
        except BlockingIOError:
            return None

    def write(self, packet: bytes) -> bool:
        """Hand a packet to the kernel as if it had come in over the device; return whether it took it."""
        try:
            os.write(self.descriptor, packet)
        except OSError:
            return False
        return True

    def end_persistence(self) -> None:
        """Have the device vanish when it is closed.

        Raises:
            OSError: It is gone already.
        """
        fcntl.ioctl(self.descriptor, _TUNSETPERSIST, 0)

    def close(self) -> None:
        """Close the device, which vanishes unless it is persistent."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _explain(name: str, error: OSError) -> str:
    if error.errno == errno.EBUSY:
        return f"the link {name} belongs to another process: is an agent running already?"
    if error.errno == errno.EPERM:
        return f"creating the link {name} needs CAP_NET_ADMIN: run the agent as root"
    if error.errno == errno.EINVAL:
        return f"there is a link {name} that is no TUN device: remove it or choose another name"
    return f"cannot create the link {name}: {error.strerror}"
