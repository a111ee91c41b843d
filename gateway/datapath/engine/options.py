"""How the native engine sits in its machine: names and numbers."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gateway.datapath.engine.espd import espd_path
from gateway.datapath.protection import ProtectionOptions

DEFAULT_PROTECTION: Final = ProtectionOptions(
    tunnel_device="ipsecgw0e", tag="0_engine", table=4502, first_preference=7100, routing_protocol=48
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """Names and numbers. Two agents in one network namespace need other ones."""

    state_dir: Path | None = None
    """Where espd's socket and the journal are; without it nothing of a former life is adopted, and espd ends
    with us."""
    protection: ProtectionOptions = DEFAULT_PROTECTION
    is_alone: bool = True
    """Whether no other backend may have the sockets of UDP 4500, without which the port would be closed."""
    program: Path = field(default_factory=espd_path)
    interfaces: tuple[str, ...] = ()
    """Those to the peers that espd has for itself, by XDP; the kernel brings it what comes in over others."""
    inner_interfaces: tuple[str, ...] = ()
    """The same to the networks that are protected."""
    ike_per_s: int = 100
    """So many first messages of IKE SAs XDP lets pass in a second from one /24 or /56; 0: any number."""
    sending: str = "auto"
    """One of `devices.SENDING`: by what it sends on those."""
    cpus: tuple[int | None, ...] = (None,)
    """A worker for each, pinned to this CPU; `None`: to none."""
    busy_poll: bool = False
    """Whether a worker that has nothing to do spins: what comes does not wait for it to wake up."""
    inbound_bits: int = 17
    """So many low bits of an SPI are its place in espd's table."""
    outbound_sas: int = 1 << 16
    tunnels: int = 1 << 14
    frames: int = 8192
    """Of each worker, of `frame_bytes`: memory that is touched when packets come."""
    frame_bytes: int = 4096
    batch_low: int = 64
    batch_high: int = 256
