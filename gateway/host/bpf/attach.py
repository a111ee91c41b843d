"""Attach XDP programs to interfaces: in the driver where it can, else generically, and say which and why."""

import errno
import socket
import struct
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from pyroute2 import IPRoute

from gateway.host.bpf.errors import BpfError, KernelRefusedError
from gateway.host.bpf.programs import Link, Program, create_link
from gateway.host.bpf.syscall import Command, KernelObject, address, buffer, call, require


class XdpMode(Enum):
    """Where a program runs; the value is its XDP_FLAGS_*_MODE."""

    DRIVER = 1 << 2
    """In the driver, before there is a socket buffer."""
    GENERIC = 1 << 1
    """In the stack, on socket buffers: it works with every driver, and saves little."""


#: As pyroute2 spells IFLA_XDP_ATTACHED.
_MODE_NAMES: Final = {"xdp": "in the driver", "xdpgeneric": "generic", "xdpoffload": "in the hardware"}
_PROGRAM_INFO_BYTES: Final = 256
_NAME_AT: Final = 64
"""Of the name in `struct bpf_prog_info`."""


class InterfaceTakenError(BpfError):
    """Another XDP program is attached.

    Attributes:
        interface: Where.
        program: Its name, as its author gave it; empty where it cannot be read.
        program_id: Its number.
    """

    def __init__(self, interface: str, program: str, program_id: int, mode: str) -> None:
        super().__init__(
            f"{interface} has another XDP program already, {program or 'without a name'} (id {program_id}, "
            f"{mode}): detach it (ip link set dev {interface} xdp off, or stop who attached it)"
        )
        self.interface = interface
        self.program = program
        self.program_id = program_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A program on an interface."""

    link: Link
    interface: str
    mode: XdpMode
    reason: str
    """Why the mode is not the driver's; empty where it is."""


def attach_xdp(program: Program, interface: str) -> Attachment:
    """Attach a program to an interface of this network namespace.

    Raises:
        InterfaceTakenError: Another program is there.
        KernelRefusedError: Neither mode is possible, or we lack CAP_NET_ADMIN.
        BpfError: There is no such interface.
    """
    ifindex = interface_index(interface)
    try:
        link = _link(program, ifindex, XdpMode.DRIVER, interface)
    except KernelRefusedError as error:
        if error.code == errno.EPERM:
            raise
        reason = f"the driver of {interface} takes no XDP program: {error}"
        link = _link(program, ifindex, XdpMode.GENERIC, interface)
        return Attachment(link=link, interface=interface, mode=XdpMode.GENERIC, reason=reason)
    return Attachment(link=link, interface=interface, mode=XdpMode.DRIVER, reason="")


def attached_program(ifindex: int) -> tuple[int, str] | None:
    """Return the id of the XDP program of an interface and its mode, or `None`."""
    with IPRoute() as netlink:
        (found,) = netlink.get_links(ifindex)
        xdp: Any = found.get_attr("IFLA_XDP")  # pyroute2 has no types
    program_id = xdp.get_attr("IFLA_XDP_PROG_ID") if xdp else None
    if not program_id:
        return None
    mode = str(xdp.get_attr("IFLA_XDP_ATTACHED"))
    return int(program_id), _MODE_NAMES.get(mode, mode)


def why_not_in_driver(interface: str) -> str:
    """Return why the program that an interface has does not run in the driver; empty where it does.

    Raises:
        BpfError: There is no such interface.
    """
    attached = attached_program(interface_index(interface))
    if attached is None or attached[1] == _MODE_NAMES["xdp"]:
        return ""
    return f"the driver of {interface} takes no XDP program: it runs {attached[1]}"


def program_name(program_id: int) -> str:
    """Return the name of a loaded program, or nothing where it is gone or we may not ask."""
    fd = call(Command.PROG_GET_FD_BY_ID, buffer(struct.pack("=III", program_id, 0, 0)))
    if fd < 0:
        return ""
    with KernelObject(fd, f"program {program_id}") as program:
        info = buffer(_PROGRAM_INFO_BYTES)
        attributes = buffer(struct.pack("=IIQ", program.fd, len(info), address(info)))
        require(call(Command.OBJ_GET_INFO_BY_FD, attributes), f"inspect program {program_id}")
    return info.raw[_NAME_AT : _NAME_AT + 16].split(b"\0")[0].decode(errors="replace")


def interface_index(interface: str) -> int:
    """Return the index of an interface of this network namespace.

    Raises:
        BpfError: There is none of this name.
    """
    try:
        return socket.if_nametoindex(interface)
    except OSError as error:
        raise BpfError(f"there is no interface {interface!r}: {error.strerror}") from error


def _link(program: Program, ifindex: int, mode: XdpMode, interface: str) -> Link:
    try:
        return create_link(program, ifindex, mode.value, interface)
    except KernelRefusedError as error:
        found = attached_program(ifindex) if error.code in (errno.EBUSY, errno.EEXIST) else None
        if found is None:
            raise
        program_id, where = found
        raise InterfaceTakenError(interface, program_name(program_id), program_id, where) from error
