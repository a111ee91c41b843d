"""One direction of one Child SA: everything a datapath needs to carry its packets (RFC 4301 §4.4.2)."""

from dataclasses import dataclass, field
from enum import Enum, IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NewType

from gateway.ipsec.algorithms import Encr, Integ
from gateway.ipsec.errors import VocabularyError
from gateway.ipsec.lifetime import Lifetime
from gateway.ipsec.mark import Mark
from gateway.ipsec.placement import Placement
from gateway.ipsec.secret import Secret
from gateway.ipsec.selectors import TrafficSelector

IpAddress = IPv4Address | IPv6Address

Spi = NewType("Spi", int)
"""An ESP or AH SPI: 32 bits, host order, 256 or more (RFC 4303 §2.1)."""

SaId = NewType("SaId", str)
"""The name of one direction of one SA at the datapath: `in:` or `out:`, protocol, destination, SPI."""

MIN_SPI: Final = 256
"""0 is for local use, 1 to 255 are reserved by IANA (RFC 4303 §2.1)."""
MAX_SPI: Final = 2**32 - 1
MIN_REPLAY_WINDOW: Final = 64
MAX_REPLAY_WINDOW: Final = 4096


class Direction(Enum):
    """Seen from this gateway."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"


class Mode(Enum):
    """Encapsulation mode (RFC 4301 §3.2)."""

    TUNNEL = "tunnel"
    TRANSPORT = "transport"


class IpsecProtocol(IntEnum):
    """The IP protocol number of the security protocol."""

    ESP = 50
    AH = 51


@dataclass(frozen=True, slots=True, kw_only=True)
class UdpEncapsulation:
    """UDP encapsulation of ESP (RFC 3948): the outer ports, as this SA's packets carry them."""

    source_port: int
    destination_port: int

    def __post_init__(self) -> None:
        for port in (self.source_port, self.destination_port):
            if not 1 <= port <= 65535:
                raise VocabularyError(f"a UDP port is 1 to 65535, got {port}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityAssociation:
    """One direction of one SA.

    `source` and `destination` are the outer addresses as packets of this SA carry them: of an inbound
    SA, `destination` is ours. Selectors are `local_ts`/`remote_ts` seen from this gateway, in both
    directions. Equality compares keys in constant time, so that an idempotent install can be told
    from a conflicting one.

    Raises:
        VocabularyError: The SPI, the window or the interface id is out of range, or the outer addresses mix
            families. Key lengths are the datapath's to check: it knows what it can carry.
    """

    spi: Spi
    direction: Direction
    protocol: IpsecProtocol = IpsecProtocol.ESP
    mode: Mode = Mode.TUNNEL
    source: IpAddress
    destination: IpAddress
    encapsulation: UdpEncapsulation | None = None
    encryption: Encr
    """NULL for AH."""
    encryption_key: Secret
    """Key followed by the salt, as RFC 4106 §8.1, RFC 7634 §2 and RFC 3686 §4 lay out KEYMAT."""
    key_bits: int
    """Length of the key without salt, as the Key Length attribute says it (RFC 7296 §3.3.5); 0 for NULL."""
    integrity: Integ = Integ.NONE
    integrity_key: Secret = field(default_factory=lambda: Secret(b""))
    """Of AES-GMAC in AH followed by the salt (RFC 4543 §5.4)."""
    esn: bool = False
    """Extended (64-bit) sequence numbers (RFC 4304)."""
    replay_window_packets: int = 1024
    """Size of the anti-replay window, inbound: 0 (off, manual keys only) or 64 to 4096."""
    local_ts: tuple[TrafficSelector, ...]
    remote_ts: tuple[TrafficSelector, ...]
    lifetime: Lifetime = Lifetime()
    copy_dscp: bool = True
    copy_df: bool = True
    tfc_padding_bytes: int = 0
    connection: str = ""
    """The operator's connection name; empty for an SA an orchestrator keyed itself."""
    child: str = ""
    """The operator's Child name; (connection, child) also names the SPD entry this SA serves."""
    child_sa_id: int = 0
    """Joins the two directions of one Child SA; unique within one controller."""
    placement: Placement = Placement()
    interface_id: int = 0
    """Of the virtual interface whose traffic this SA carries (Linux: `if_id`); 0 for that of none."""
    cpu: int | None = None
    """The CPU that this one of several SAs for the same traffic is for (RFC 9611); `None`: for all."""
    mark: Mark | None = None
    """Only for packets with this mark: those to protect, or, inbound, the protected ones."""
    set_mark: Mark | None = None
    """Given to packets that this SA has processed."""
    _sa_id: SaId = field(init=False, repr=False, compare=False)
    """Made once: installing an SA asks for it a dozen times and more."""

    def __post_init__(self) -> None:
        if not MIN_SPI <= self.spi <= MAX_SPI:
            raise VocabularyError(f"an SPI is {MIN_SPI} to {MAX_SPI:#x}, got {self.spi}")
        if self.source.version != self.destination.version:
            raise VocabularyError(
                f"outer addresses are of one family, got {self.source} and {self.destination}"
            )
        if not 0 <= self.interface_id < 1 << 32:
            raise VocabularyError(f"an interface id is of 32 bits, got {self.interface_id}")
        window = self.replay_window_packets
        if window != 0 and not MIN_REPLAY_WINDOW <= window <= MAX_REPLAY_WINDOW:
            raise VocabularyError(
                f"a window is 0 or {MIN_REPLAY_WINDOW} to {MAX_REPLAY_WINDOW} packets, got {window}"
            )
        prefix = "in" if self.direction is Direction.INBOUND else "out"
        sa_id = SaId(f"{prefix}:{self.protocol.name.lower()}:{self.destination}:{self.spi:08x}")
        object.__setattr__(self, "_sa_id", sa_id)

    @property
    def sa_id(self) -> SaId:
        """Return the SA's name at the datapath (RFC 4301 §4.1: SPI, destination, protocol)."""
        return self._sa_id
