"""One SPD entry: PROTECT, BYPASS or DISCARD (RFC 4301 §4.4.1)."""

from dataclasses import dataclass
from enum import Enum

from gateway.ipsec.errors import VocabularyError
from gateway.ipsec.interface import TunnelInterface
from gateway.ipsec.mark import Mark
from gateway.ipsec.placement import Placement
from gateway.ipsec.sa import IpAddress, IpsecProtocol, Mode
from gateway.ipsec.selectors import TrafficSelector


class Action(Enum):
    """What happens to a packet that matches (RFC 4301 §4.4.1)."""

    PROTECT = "protect"
    BYPASS = "bypass"
    DISCARD = "discard"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One entry of the ordered SPD, both directions at once.

    An outbound packet matches when its source is in `local_ts` and its destination in `remote_ts`; an
    inbound one the other way round. A PROTECT entry is served by the newest outbound SA whose
    (connection, child) equals the entry's; without one, a packet raises an acquire.
    """

    name: str
    """Unique in the SPD: `connection/child` for entries the controller makes."""
    action: Action
    local_ts: tuple[TrafficSelector, ...]
    remote_ts: tuple[TrafficSelector, ...]
    priority: int = 1000
    """Lower is looked at first; equal priorities are ordered by name."""
    mode: Mode = Mode.TUNNEL
    protocol: IpsecProtocol = IpsecProtocol.ESP
    local_address: IpAddress | None = None
    """Outer addresses of a PROTECT entry, where they are known; `None` for any."""
    remote_address: IpAddress | None = None
    acquire: bool = True
    """Whether a packet without an SA asks for one (start: on_traffic) or is merely dropped."""
    connection: str = ""
    child: str = ""
    placement: Placement = Placement()
    """Where the SAs of a PROTECT entry are expected: the entry waits for them there."""
    interface_id: int = 0
    """Only for traffic of this virtual interface (Linux: `if_id`), and for SAs of it; 0 for that of none."""
    interface: TunnelInterface | None = None
    """The interface, which is made if it is not there; `None`: somebody else makes it."""
    mark_in: Mark | None = None
    """Only decrypted packets with this mark match."""
    mark_out: Mark | None = None
    """Only outbound packets with this mark match."""

    def __post_init__(self) -> None:
        if self.interface is not None and self.interface.id != self.interface_id:
            raise VocabularyError(
                f"policy {self.name} is for interface id {self.interface_id}, "
                f"and its interface {self.interface.name} has {self.interface.id}"
            )
