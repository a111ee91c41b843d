"""NAT detection, the float to port 4500 and who must send keepalives (RFC 7296 §2.23, RFC 3948 §4).

Knows hashes and ports only. Which datagram leaves from where is the endpoint's business, and following a
peer whose mapping changed is the IKE SA's, after authentication.
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

from gateway.ike.path import IKE_PORT, NAT_T_PORT, Path
from gateway.ipsec.sa import IpAddress

KEEPALIVE: Final = b"\xff"
"""A NAT-keepalive packet: one octet on port 4500, without a non-ESP marker (RFC 3948 §2.3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NatDetection:
    """The data of the two notifies of one IKE_SA_INIT message (RFC 7296 §2.23)."""

    source: bytes
    """Of N(NAT_DETECTION_SOURCE_IP)."""
    destination: bytes
    """Of N(NAT_DETECTION_DESTINATION_IP)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NatStatus:
    """Who is behind a NAT, as this gateway sees it."""

    is_supported: bool = False
    """Whether the peer sent the notifies at all: without them there is no UDP encapsulation."""
    local: bool = False
    """A NAT hides us (or we claim so, because the operator forces encapsulation)."""
    remote: bool = False
    """A NAT hides the peer."""

    @property
    def is_present(self) -> bool:
        """Return whether IKE floats to port 4500 and ESP is encapsulated in UDP."""
        return self.local or self.remote

    @property
    def must_keep_alive(self) -> bool:
        """Return whether it is for us to keep the mapping alive (RFC 3948 §4: the side behind the NAT)."""
        return self.local


def detection_hash(spi_i: bytes, spi_r: bytes, address: IpAddress, port: int) -> bytes:
    """Return SHA-1(SPIi | SPIr | address | port), as both notifies carry it (RFC 7296 §2.23)."""
    # The RFC fixes SHA-1 here; nothing depends on its collision resistance.
    data = spi_i + spi_r + address.packed + port.to_bytes(2)
    return hashlib.sha1(data, usedforsecurity=False).digest()


def detection_to_send(
    spi_i: bytes, spi_r: bytes, path: Path, *, force_encapsulation: bool = False
) -> NatDetection:
    """Return the two hashes for a message that leaves on `path`.

    With `force_encapsulation` the source hash is one that matches nothing, so that the peer takes us to
    be behind a NAT and encapsulates (RFC 7296 §2.23 has no other way to ask for it).
    """
    source = detection_hash(spi_i, spi_r, path.local, path.local_port)
    if force_encapsulation:
        source = hashlib.sha1(source, usedforsecurity=False).digest()
    destination = detection_hash(spi_i, spi_r, path.remote, path.remote_port)
    return NatDetection(source=source, destination=destination)


def detect(
    *,
    spi_i: bytes,
    spi_r: bytes,
    path: Path,
    sources: Collection[bytes],
    destinations: Collection[bytes],
    force_encapsulation: bool = False,
) -> NatStatus:
    """Compare the notifies of a received message with the path it came by.

    Args:
        spi_i: Initiator's SPI in that message's header.
        spi_r: Responder's SPI in that message's header (zeros in the request).
        path: Where the message came from and arrived.
        sources: Data of every N(NAT_DETECTION_SOURCE_IP); a sender with several addresses may send several.
        destinations: Data of every N(NAT_DETECTION_DESTINATION_IP).
        force_encapsulation: Treat us as hidden whatever the hashes say.
    """
    if not sources or not destinations:
        return NatStatus()
    peer = detection_hash(spi_i, spi_r, path.remote, path.remote_port)
    ours = detection_hash(spi_i, spi_r, path.local, path.local_port)
    return NatStatus(
        is_supported=True,
        local=force_encapsulation or ours not in destinations,
        remote=peer not in sources,
    )


def floated(path: Path) -> Path:
    """Return the path an initiator uses from IKE_AUTH on, once a NAT was found (RFC 7296 §2.23).

    Only the standard port floats: whoever configured another one already speaks the non-ESP marker there.
    """
    return replace(
        path,
        local_port=NAT_T_PORT if path.local_port == IKE_PORT else path.local_port,
        remote_port=NAT_T_PORT if path.remote_port == IKE_PORT else path.remote_port,
    )
