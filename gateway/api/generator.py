"""What is asked of a traffic generator and what it answers, wherever it runs: records without gRPC."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Protocol

from gateway.ipsec.errors import GatewayError
from gateway.ipsec.sa import Spi
from gateway.ipsec.secret import Secret


class GeneratorError(GatewayError):
    """The traffic generator is not there, or refuses, or died."""


@dataclass(frozen=True, slots=True)
class Port:
    """One interface of the generator."""

    device: str
    mac: str
    """Its own link address: `02:00:00:00:00:01`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyedSas:
    """Both SAs of one Child SA, as the gateway has them: AES-GCM keys with their salt."""

    outbound_spi: Spi
    outbound_key: Secret
    inbound_spi: Spi
    inbound_key: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """The outer addresses, and the SAs between them; their SPIs are counted up."""

    gateway: IPv4Address
    peer: IPv4Address
    """Who the generator is."""
    key_bits: int
    sas: Sequence[KeyedSas]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Packets to send through the gateway."""

    is_out: bool
    """In on the LAN side and out on the outer one, or the other way round."""
    is_esp: bool
    """Whether they are ESP on the outer side; without SAs they are the same on both."""
    packets_per_s: float
    """0: as fast as it goes."""
    seconds: float
    flows: int
    sample: int
    """One in so many is opened, checked and timed; a power of two."""
    sizes_bytes: Sequence[int]
    """Of inner packets, sent by turns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What became of a load."""

    seconds: float
    """How long was really sent: the window."""
    sent: int
    send_retries: int
    """How often the device had no room; live frames are lost then, and not sent."""
    received_in_window: int
    received: int
    """With what came within a moment after the window."""
    received_bytes: int
    sink_drops: int
    """Received, but lost by the generator itself: where there are any, loss is not the gateway's alone."""
    samples: int
    bad_samples: int
    """Samples that did not decrypt, or were no packets of ours."""
    clear_samples: int
    """Samples of ESP that were not encrypted: only a NIC that is merely played may do that."""
    sender_cpu_s: float
    """Of the sending thread, with what the kernel does in its name: on veth, much of the gateway's work."""
    sink_cpu_s: float
    method: str
    """How packets were sent: `live frames`, `packet socket`."""
    latency_us: dict[str, float]
    """`p50`, `p90`, `p99`, `p999` and `max` of the samples; none without samples."""

    @property
    def offered_per_s(self) -> float:
        """Return the rate of sending."""
        return self.sent / self.seconds

    @property
    def delivered_per_s(self) -> float:
        """Return the rate of receiving while packets were sent."""
        return self.received_in_window / self.seconds

    @property
    def loss(self) -> float:
        """Return the part of what was sent that never came."""
        return max(0.0, 1 - self.received / self.sent) if self.sent else 0.0


class Generator(Protocol):
    """Sends on one side of the gateway and receives on the other."""

    @property
    def pid(self) -> int | None:
        """Its process on this machine, if there is one now."""

    def ports(self) -> tuple[Port, Port]:
        """Return its interfaces: the one on the LAN's side, and the outer one."""

    def aim(self, *, gateway_lan: str, gateway_outer: str) -> None:
        """Send to these link addresses of the gateway, from the next `configure` on."""

    def configure(self, tunnel: Tunnel | None) -> None:
        """Be the peer of these SAs from now on, with new counters; `None`: there are none."""

    def run(self, load: Load, on_window: Callable[[bool], None]) -> Traffic:
        """Send, wait for the last packets, and return what was counted.

        `on_window` is called with True when sending begins and with False when it ends.

        Raises:
            GeneratorError: It cannot, or is gone.
        """

    def close(self) -> None:
        """Stop, also while it runs; it can be configured again."""
