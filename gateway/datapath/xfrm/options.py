"""How the xfrm backend sits in its machine: names and numbers."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.datapath.backend import DEFAULT_MARK

DEFAULT_TABLE: Final = 4501
DEFAULT_PREFERENCE: Final = 4990
ROUTING_PROTOCOL: Final = 46
"""rtm_protocol of our rule and routes: a number that nobody has in /etc/iproute2/rt_protos."""


@dataclass(frozen=True, slots=True, kw_only=True)
class XfrmOptions:
    """Names and numbers. Two agents in one network namespace need other ones."""

    tag: str = "0"
    """Of the agent: its SAs and policies are told from others' by it, also in its next life."""
    journal: Path | None = None
    """Where to remember what the kernel does not; without it nothing of a former life is adopted."""
    table: int = DEFAULT_TABLE
    """Routing table for destinations that have no route of their own."""
    preference: int = DEFAULT_PREFERENCE
    """Of the first of the three rules that lead there."""
    spreads_esp: bool = False
    """Whether what comes in for the kernel's SAs is spread over the CPUs in XDP."""
    forward_interfaces: tuple[str, ...] = ()
    """Those from which XDP forwards to NICs with packet offload; the NICs themselves may be among them."""
    forward_inbound: tuple[str, ...] = ()
    """NICs with packet offload that let nothing in in clear that a policy protects, as the operator says: XDP
    forwards from there to the interfaces above."""
    mark: int = DEFAULT_MARK
    """SO_MARK of our own packets: IKE, and questions about the routing."""

    @property
    def number(self) -> int:
        """Return the tag as it stands in the selectors of SAs and policies: 32 bits, not 0."""
        return int.from_bytes(hashlib.blake2s(b"ipsecgw " + self.tag.encode(), digest_size=4).digest()) | 1
