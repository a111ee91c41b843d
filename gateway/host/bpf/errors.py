"""What can be wrong with a BPF object, or what the kernel says of it."""

import errno
import os

from gateway.host.errors import HostError


class BpfError(HostError):
    """Root of what this room raises."""


class ObjectFormatError(BpfError):
    """A compiled object is not what the loader reads; the text says what it found."""


class AbiMismatchError(BpfError):
    """A C struct is laid out otherwise than the Python record of the same name, or a map has other sizes."""


class KernelRefusedError(BpfError):
    """The bpf(2) system call failed.

    Attributes:
        code: The errno.
        log: What the verifier wrote; empty for anything but a program.
    """

    def __init__(self, what: str, code: int, log: str = "") -> None:
        lines = [line for line in log.splitlines() if line.strip()]
        verdict = f"; the verifier's last words: {' | '.join(lines[-4:])}" if lines else ""
        super().__init__(f"cannot {what}: {os.strerror(code)} ({errno.errorcode.get(code, code)}){verdict}")
        self.code = code
        self.log = log
