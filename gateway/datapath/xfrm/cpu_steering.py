"""Spread what comes in for the kernel's SAs over the CPUs, by SPI, in XDP (`ebpf/xdp_cpumap.bpf.c`).

A NIC, or a veth device, with one receive queue has all of its packets decrypted by one CPU. Here each packet
of IPsec goes on at the CPU of its SPI, so that an SA keeps its order; all else stays where it is. One program
is attached to every interface that has the outer address of such an SA and fewer queues than there are CPUs.

It protects nothing: when it is gone, or cannot be had, packets take the way they always took. It goes with
this process, whose descriptors hold it.
"""

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gateway.hardware.nic_netlink import ask_channels
from gateway.hardware.readings import Refused
from gateway.host.bpf.abi import CPU_LIST, CPUS, CpuQueue, Word
from gateway.host.bpf.attach import Attachment, attach_xdp
from gateway.host.bpf.compiled import read_program
from gateway.host.bpf.objects import LoadedObject, load_object
from gateway.host.errors import HostError
from gateway.observe.logs import get_logger

_log = get_logger(__name__)

_PROGRAM: Final = "xdp_cpumap"
_ENTRY: Final = "gw_cpumap"
_QUEUE_FRAMES: Final = 2048
"""What may wait for a CPU: some milliseconds of small packets."""


@dataclass(slots=True, kw_only=True)
class _Followed:
    """One interface that was looked at."""

    index: int
    attachment: Attachment | None
    words: str
    """What was done there, or why nothing."""


class CpuSteering:
    """The program, and the interfaces it is attached to. Its calls block: they load and attach."""

    def __init__(self) -> None:
        self._cpus = sorted(os.sched_getaffinity(0))
        self._loaded: LoadedObject | None = None
        self._followed: dict[str, _Followed] = {}

    @property
    def devices(self) -> dict[str, int]:
        """Return the interfaces that are followed, by name and index."""
        return {name: item.index for name, item in self._followed.items()}

    def words(self, device: str) -> str:
        """Return what is done with packets that come in by an interface, for an operator."""
        followed = self._followed.get(device)
        return "" if followed is None else followed.words

    def follow(self, devices: Mapping[str, int]) -> None:
        """Attach the program to these interfaces, by name and index, and to no others.

        What cannot be attached is told, and is no error.
        """
        for name, item in list(self._followed.items()):
            if devices.get(name) != item.index:
                self._detach(name)
        for name, index in devices.items():
            if name not in self._followed:
                self._followed[name] = self._look(name, index)
                _log.info("cpu_steering", device=name, state=self._followed[name].words)

    def close(self) -> None:
        """Detach the program everywhere."""
        for name in list(self._followed):
            self._detach(name)
        if self._loaded is not None:
            self._loaded.close()
            self._loaded = None

    def _detach(self, name: str) -> None:
        followed = self._followed.pop(name)
        if followed.attachment is not None:
            followed.attachment.link.close()

    def _look(self, name: str, index: int) -> _Followed:
        queues = ask_channels(index)
        # A driver that does not tell of its queues has one.
        count = 1 if isinstance(queues, Refused) else max(1, queues.receive)
        if count >= len(self._cpus):
            words = f"{count} receive queues for {len(self._cpus)} CPUs: nothing to spread"
            return _Followed(index=index, attachment=None, words=words)
        try:
            attachment = attach_xdp(self._program().programs[_ENTRY], name)
        except HostError as error:
            return _Followed(index=index, attachment=None, words=f"not spread over CPUs: {error}")
        words = f"spread over {len(self._cpus)} CPUs by SPI, XDP {attachment.mode.name.lower()}"
        return _Followed(index=index, attachment=attachment, words=words)

    def _program(self) -> LoadedObject:
        """Return the program with a queue for each CPU, loaded when it is needed first."""
        if self._loaded is None:
            count = struct.pack("=I", len(self._cpus))
            loaded = load_object(read_program(_PROGRAM).with_constants({"gw_cpu_count": count}))
            try:
                for place, cpu in enumerate(self._cpus):
                    CPUS.of(loaded.maps).set(Word(cpu), CpuQueue(frames=_QUEUE_FRAMES))
                    CPU_LIST.of(loaded.maps).set(Word(place), Word(cpu))
            except HostError:
                loaded.close()
                raise
            self._loaded = loaded
        return self._loaded
