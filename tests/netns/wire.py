"""What must hold for every capture of the outside link, whatever happened to the gateways meanwhile."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from gateway.bench.capture import capturing, clear_packets
from gateway.bench.topology import Link, Namespace, SiteToSite, connect, delete_namespace, make_namespace
from gateway.inspect.capture import read_capture
from gateway.inspect.packet import Finder, Found, Kind

#: SPI and sequence number (RFC 4303 §2), then the explicit IV (RFC 4106 §3.1).
_SPI, _IV = slice(0, 4), slice(8, 16)

Sent = tuple[IPv4Address | IPv6Address, bytes, bytes]
"""Where to, SPI, IV: what must never come twice with one key."""


def packets_of(capture: Path, kind: Kind) -> Iterator[Found]:
    """Return the IKE messages or ESP packets of a capture."""
    finder = Finder()
    for frame in read_capture(capture):
        found = finder.find(frame)
        if found is not None and found.kind is kind:
            yield found


def repeated_ivs(capture: Path) -> tuple[list[Sent], int]:
    """Return what was sent twice with AES-GCM, and how many packets there were."""
    sent = Counter[Sent](
        (packet.destination, packet.data[_SPI], packet.data[_IV]) for packet in packets_of(capture, Kind.ESP)
    )
    return [key for key, times in sent.items() if times > 1], sent.total()


def show_every_packet(sites: SiteToSite) -> None:
    """Have the kernel cut bursts of UDP before the outside link, so that a capture sees each packet."""
    for site in (sites.a, sites.b):
        site.gateway.run("ethtool", "-K", site.outside_device, "tx-udp-segmentation", "off")


@contextmanager
def nothing_in_clear_and_no_iv_twice(
    sites: SiteToSite, directory: Path, *, least_esp: int = 100, only_sent: bool = False
) -> Iterator[tuple[Path, Path]]:
    """Capture both ends of the outside link while the context lasts, and check them at its end.

    `least_esp` packets must be in each, so that the check cannot pass by seeing nothing. `only_sent` looks at
    what leaves: a kernel that decrypts shows the packet again, in clear, on the device it came by.
    """
    show_every_packet(sites)
    with ExitStack() as stack:
        captures = tuple(
            stack.enter_context(
                capturing(
                    site.gateway,
                    site.outside_device,
                    directory / f"wire-{name}.pcap",
                    "outbound" if only_sent else "",
                )
            )
            for name, site in (("a", sites.a), ("b", sites.b))
        )
        yield captures[0], captures[1]
    for capture in captures:
        check_wire(capture, least_esp)


def check_wire(capture: Path, least_esp: int) -> None:
    """Check that a capture of the outside link has so many packets of ESP, no IV twice and none in clear."""
    assert clear_packets(capture) == 0, f"clear packets in {capture}"
    repeated, seen = repeated_ivs(capture)
    assert repeated == [], f"IVs sent twice in {capture}"
    assert seen >= least_esp, f"only {seen} ESP packets in {capture}"


def wire_of(sites: SiteToSite) -> Namespace:
    """Return where the bridge of `bridged_wire` is, with its ports `to-a` and `to-b`."""
    return Namespace(f"{sites.a.gateway.name}-wire")


@contextmanager
def bridged_wire(sites: SiteToSite) -> Iterator[None]:
    """Have a bridge between both gateways: a capture of its ports sees what XDP keeps from their devices."""
    b, wire = sites.b, wire_of(sites)
    make_namespace(wire.name)
    try:
        b.gateway.run("ip", "link", "set", b.outside_device, "netns", wire.name, "name", "to-a")
        ours = f"{b.outside}/24", f"{b.outside_v6}/64"
        connect(
            Link(
                left=wire,
                left_device="to-b",
                left_addresses=(),
                right=b.gateway,
                right_device=b.outside_device,
                right_addresses=ours,
            )
        )
        wire.run("ip", "link", "add", "bridge", "type", "bridge")
        for device in ("to-a", "to-b"):
            wire.run("ip", "link", "set", device, "master", "bridge", "up")
            wire.run("ethtool", "-K", device, "gro", "on")  # a veth takes redirected frames while it polls
        wire.run("ip", "link", "set", "bridge", "up")
        yield
    finally:
        delete_namespace(wire)
