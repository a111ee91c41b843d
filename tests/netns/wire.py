"""What must hold for every capture of the outside link, whatever happened to the gateways meanwhile."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from gateway.bench.capture import capturing, clear_packets
from gateway.bench.topology import SiteToSite
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
        assert clear_packets(capture) == 0, f"clear packets in {capture}"
        repeated, seen = repeated_ivs(capture)
        assert repeated == [], f"IVs sent twice in {capture}"
        assert seen >= least_esp, f"only {seen} ESP packets in {capture}"
