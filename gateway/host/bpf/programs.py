"""Programs in the kernel, their test runs, and the links that attach them."""

import errno
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.host.bpf.btf import find_function_id
from gateway.host.bpf.errors import BpfError
from gateway.host.bpf.link import INSTRUCTION, Target
from gateway.host.bpf.maps import kernel_name
from gateway.host.bpf.spec import ProgramKind, ProgramSpec
from gateway.host.bpf.syscall import Buffer, Command, KernelObject, address, buffer, call, require
from gateway.host.privileges import Capability, require_capabilities

_KERNEL_BTF: Final = Path("/sys/kernel/btf/vmlinux")
_LOG_BYTES: Final = 16 << 20
_LINK_INFO_BYTES: Final = 256
_TEST_HEADROOM_BYTES: Final = 4096
"""A program may make a frame longer, by less than this."""


@dataclass(frozen=True, slots=True)
class TestRun:
    """What BPF_PROG_TEST_RUN gave."""

    __test__ = False  # of pytest: this is none of its tests

    verdict: int
    """What the program returned: XDP_ABORTED 0, XDP_DROP 1, XDP_PASS 2, XDP_TX 3, XDP_REDIRECT 4."""
    frame: bytes
    """The frame as the program left it."""
    nanoseconds: int
    """A run, on average over the repetitions."""


#: To load our programs. CAP_PERFMON, because the verifier lets only its holder add a number it does not know
#: to the address of a packet, as IPv4 options and extension headers want it. Later the others are enough.
LOAD_CAPABILITIES: Final = (Capability.CAP_BPF, Capability.CAP_NET_ADMIN, Capability.CAP_PERFMON)


class Program(KernelObject):
    """One loaded program.

    Attributes:
        kind: What it was loaded as.
    """

    __slots__ = ("kind",)

    def __init__(self, fd: int, name: str, kind: ProgramKind) -> None:
        super().__init__(fd, f"program {name}")
        self.kind = kind

    def test_run(self, frame: bytes, *, repeat: int = 1, ifindex: int = 0, queue: int = 0) -> TestRun:
        """Run the program on a frame, which goes nowhere.

        Args:
            frame: From its link header on, 14 bytes or more.
            repeat: How often; each run gets what the one before left.
            ifindex: Over which interface the frame is said to come in; 0 for the loopback's.
            queue: Its receive queue there, which must exist.

        Raises:
            KernelRefusedError: The frame is too short or too long, or the interface has no such queue.
        """
        source, target = buffer(frame), buffer(len(frame) + _TEST_HEADROOM_BYTES)
        # struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
        context = buffer(struct.pack("=6I", 0, len(frame), 0, ifindex, queue, 0)) if ifindex else None
        attributes = buffer(
            struct.pack(
                "=IIIIQQIIIIQQIII4x",
                self.fd,
                0,
                len(frame),
                len(target),
                address(source),
                address(target),
                repeat,
                0,
                len(context) if context else 0,
                0,
                address(context) if context else 0,
                0,
                0,
                0,
                0,
            )
        )
        require(call(Command.PROG_TEST_RUN, attributes), f"test {self.name}")
        (verdict,) = struct.unpack_from("=I", attributes, 4)
        (length,) = struct.unpack_from("=I", attributes, 12)
        (duration_ns,) = struct.unpack_from("=I", attributes, 36)
        return TestRun(verdict, target.raw[:length], duration_ns)


def load_program(
    spec: ProgramSpec, maps: Mapping[str, int], licence: str, kernel_functions: Mapping[str, int]
) -> Program:
    """Load a program.

    Args:
        spec: The program.
        maps: File descriptors of the maps it refers to, by name.
        licence: As the object declares it.
        kernel_functions: Type ids of the kernel functions it calls, by name.

    Raises:
        MissingCapabilityError: One of LOAD_CAPABILITIES, where that may be why it was refused.
        KernelRefusedError: The verifier rejected it (`log` says why).
    """
    code = buffer(spec.code.resolved(maps, kernel_functions))
    licence_text = buffer(licence.encode() + b"\0")

    def attempt(log_level: int, log: Buffer | None) -> int:
        attributes = struct.pack(
            "=IIQQIIQII16sII",
            spec.kind.program_type,
            len(code) // INSTRUCTION.size,
            address(code),
            address(licence_text),
            log_level,
            0 if log is None else len(log),
            0 if log is None else address(log),
            0,
            spec.kind.load_flags,
            kernel_name(spec.name),
            0,
            spec.kind.attach_type,
        )
        return call(Command.PROG_LOAD, buffer(attributes))

    result = attempt(0, None)
    if result >= 0:
        return Program(result, spec.name, spec.kind)
    if result in (-errno.EPERM, -errno.EACCES):
        require_capabilities(LOAD_CAPABILITIES, f"loading the BPF program {spec.name}")
    log = buffer(_LOG_BYTES)
    result = attempt(1, log)
    require(result, f"load program {spec.name}", log.value.decode(errors="replace"))
    return Program(result, spec.name, spec.kind)


def find_kernel_functions(spec: ProgramSpec) -> dict[str, int]:
    """Return the type ids, in this kernel, of the kernel functions that a program calls.

    Raises:
        BpfError: The kernel has no BTF, or no such function.
    """
    names = {item.name for item in spec.code.references if item.target is Target.KERNEL_FUNCTION}
    if not names:
        return {}
    try:
        types = _KERNEL_BTF.read_bytes()
    except OSError as error:
        raise BpfError(f"the kernel shows no BTF, which {', '.join(sorted(names))} needs: {error}") from error
    found = {}
    for name in sorted(names):
        type_id = find_function_id(types, name)
        if type_id is None:
            raise BpfError(f"this kernel has no function {name} for BPF programs")
        found[name] = type_id
    return found


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """What the kernel says of a link."""

    number: int
    """Its own: no other link of this boot has it."""
    program: int
    """The id of the program that runs now."""


class Link(KernelObject):
    """A program attached to an interface; it is detached when the link is neither open nor pinned."""

    __slots__ = ()

    def inspect(self) -> LinkInfo:
        """Return what the kernel says of it.

        Raises:
            KernelRefusedError: The kernel does not tell.
        """
        info = buffer(_LINK_INFO_BYTES)
        attributes = buffer(struct.pack("=IIQ", self.fd, len(info), address(info)))
        require(call(Command.OBJ_GET_INFO_BY_FD, attributes), f"inspect {self.name}")
        _, number, program = struct.unpack_from("=III", info)  # struct bpf_link_info: type, id, prog_id
        return LinkInfo(number, program)

    def replace(self, program: Program) -> None:
        """Have another program run from the next packet on: there is no packet without a program.

        Raises:
            KernelRefusedError: The interface is gone, or the program is of another kind.
        """
        attributes = buffer(struct.pack("=IIII", self.fd, program.fd, 0, 0))
        require(call(Command.LINK_UPDATE, attributes), f"replace the program of {self.name}")

    def detach(self) -> None:
        """Detach the program now, also where the link is pinned.

        Raises:
            KernelRefusedError: It is detached already.
        """
        require(call(Command.LINK_DETACH, buffer(struct.pack("=I", self.fd))), f"detach {self.name}")


def create_link(program: Program, ifindex: int, flags: int, name: str) -> Link:
    """Attach a program to an interface.

    Raises:
        KernelRefusedError: There is another one (EBUSY), or the driver has not this mode (EOPNOTSUPP).
    """
    attributes = buffer(struct.pack("=IIIIQQ", program.fd, ifindex, program.kind.attach_type, flags, 0, 0))
    result = require(call(Command.LINK_CREATE, attributes), f"attach {program.name} to {name}")
    return Link(result, f"link {name}")
