"""Load what the engine sends live frames with: one program for each of its workers, and what that needs.

The program copies frames out of a map whose memory is the worker's pool, and is run by the engine itself
(BPF_PROG_TEST_RUN). It is attached to a veth device that nothing uses, because the kernel's XDP dispatcher
would change at every run of a program that is attached nowhere: `measure` in tests/espd_io tells what that
costs. Two tracepoints count what became of each frame; without them losses would be silent.
"""

import dataclasses
import errno
import struct
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from gateway.host.bpf.attach import attach_xdp, attached_program, interface_index
from gateway.host.bpf.compiled import read_program
from gateway.host.bpf.errors import BpfError
from gateway.host.bpf.maps import Map
from gateway.host.bpf.objects import load_object
from gateway.host.bpf.programs import Link, Program
from gateway.host.bpf.spec import ObjectSpec
from gateway.host.bpf.syscall import Command, address, buffer, call, require

_MAX_OFFSET: Final = 511
"""GW_LIVE_MAX_OFFSET of ebpf/include/gw_live.h."""
_FRAMES: Final = "gw_live_frames"
_BURST: Final = "gw_live_burst"
#: Which program hears of which tracepoint.
_TRACEPOINTS: Final = {"gw_live_sent": "xdp_devmap_xmit", "gw_live_refused": "xdp_redirect_err"}
_MAX_SPARES: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveFrames:
    """The program of one worker with its maps, in the kernel while this, or the engine, has it open."""

    program: Program
    frames: Map
    burst: Map
    links: tuple[Link, ...]
    """To the spare device and to the tracepoints."""
    spare: str
    """The device, one end of a pair."""

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Return what the engine gets: program, burst, frames, and links that it keeps open."""
        return (self.program.fd, self.burst.fd, self.frames.fd, *(link.fd for link in self.links))

    def close(self) -> None:
        """Close the descriptors, and remove the spare device unless the engine has the program still."""
        ifindex = interface_index(self.spare)
        for item in (*self.links, self.program, self.burst, self.frames):
            item.close()
        if attached_program(ifindex) is None:
            _remove(self.spare)

    def __enter__(self) -> "LiveFrames":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def load_live_frames(*, frames: int, frame_bytes: int) -> LiveFrames:
    """Load the program for one worker, and attach it in this network namespace.

    Args:
        frames: Of the worker's pool.
        frame_bytes: Of each of them: 2048 or 4096.

    Raises:
        BpfError: It cannot be compiled, or the kernel refuses a part; nothing stays.
        MissingCapabilityError: We may not load programs.
    """
    with ExitStack() as undo:
        loaded = undo.enter_context(load_object(_sized(frames, frame_bytes)))
        program = loaded.programs["gw_live"]
        spare = _make_spare()
        undo.callback(_remove, spare)
        links = [attach_xdp(program, spare).link]
        undo.callback(links[0].close)
        for name, tracepoint in _TRACEPOINTS.items():
            with loaded.programs[name] as watcher:
                links.append(_watch(watcher, tracepoint))
                undo.callback(links[-1].close)
        undo.pop_all()
    for name, item in loaded.maps.items():
        if name not in (_FRAMES, _BURST):
            item.close()
    return LiveFrames(
        program=program,
        frames=loaded.maps[_FRAMES],
        burst=loaded.maps[_BURST],
        links=tuple(links),
        spare=spare,
    )


def _sized(frames: int, frame_bytes: int) -> ObjectSpec:
    """Return the spec with maps and limits for such frames."""
    longest = struct.pack("=I", frame_bytes - _MAX_OFFSET - 1)
    spec = read_program("xdp_live").with_constants({"gw_live_max_length": longest})
    pool = dataclasses.replace(spec.maps[_FRAMES], value_bytes=frame_bytes, max_entries=frames)
    return dataclasses.replace(spec, maps={**spec.maps, _FRAMES: pool})


def _watch(watcher: Program, tracepoint: str) -> Link:
    name = buffer(tracepoint.encode() + b"\0")
    attributes = buffer(struct.pack("=QII", address(name), watcher.fd, 0))
    result = require(call(Command.RAW_TRACEPOINT_OPEN, attributes), f"watch the tracepoint {tracepoint}")
    return Link(result, f"link {tracepoint}")


def _make_spare() -> str:
    """Make a pair of devices that stay down, and return the name of the first.

    A pair of a former life whose program an engine still has is left alone; another is made anew.
    """
    with IPRoute() as netlink:
        for number in range(_MAX_SPARES):
            name = f"gwlive{number}"
            found = netlink.link_lookup(ifname=name)
            if found and attached_program(found[0]) is not None:
                continue
            try:
                if found:
                    netlink.link("del", index=found[0])
                netlink.link("add", ifname=name, kind="veth", peer={"ifname": f"{name}p"})
            except NetlinkError as error:
                if error.code == errno.EEXIST:  # another process was faster
                    continue
                raise BpfError(f"cannot make the veth device {name}: {error}") from error
            return name
    raise BpfError(f"{_MAX_SPARES} devices for live frames are in use: remove those named gwlive*")


def _remove(device: str) -> None:
    with IPRoute() as netlink:
        for index in netlink.link_lookup(ifname=device):
            netlink.link("del", index=index)
