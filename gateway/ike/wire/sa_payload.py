"""The SA payload: proposals, transforms and their attributes (RFC 7296 §3.3).

The records here hold what came, the unknown included, so that it can be printed and sent back as it was.
`WireProposal.proposal` translates into the vocabulary and leaves out what RFC 7296 §3.3.6 wants refused:
a whole proposal with an unknown protocol or transform type, a single transform with an unknown attribute.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.ike.errors import InvalidSyntax, LocalError
from gateway.ike.wire.buffer import Reader, Writer
from gateway.ipsec.algorithms import TransformType
from gateway.ipsec.proposal import Proposal, ProtocolId, Transform

KEY_LENGTH: Final = 14
"""The one transform attribute there is: key length in bits (RFC 7296 §3.3.5)."""
_TYPE_VALUE_FORMAT: Final = 0x8000
_KNOWN_TYPES: Final = frozenset(TransformType)
_LAST: Final = 0
_MORE_PROPOSALS: Final = 2
_MORE_TRANSFORMS: Final = 3
_SUBSTRUCTURE: Final = struct.Struct("!BxH")
"""Whether more follow, RESERVED, length of the whole substructure."""
_PROPOSAL: Final = struct.Struct("!BBBB")
"""Number, protocol, SPI size, number of transforms."""
_TRANSFORM: Final = struct.Struct("!BxH")
"""Type, RESERVED, ID."""
_SPI_SIZES: Final = {ProtocolId.IKE: (0, 8), ProtocolId.AH: (4,), ProtocolId.ESP: (4,)}


@dataclass(frozen=True, slots=True)
class Attribute:
    """One transform attribute: a 16-bit value, or bytes if it came in the long form."""

    type: int
    value: int | bytes


@dataclass(frozen=True, slots=True)
class WireTransform:
    """One transform as it stands in a message."""

    type: int
    id: int
    attributes: tuple[Attribute, ...] = ()

    @property
    def transform(self) -> Transform | None:
        """Return the transform in our vocabulary, or None if its type or an attribute is unknown."""
        try:
            transform_type = TransformType(self.type)
        except ValueError:
            return None
        key_bits: int | None = None
        for attribute in self.attributes:
            if attribute.type != KEY_LENGTH or isinstance(attribute.value, bytes) or key_bits is not None:
                return None
            key_bits = attribute.value
        return Transform(transform_type, self.id, key_bits)


@dataclass(frozen=True, slots=True, kw_only=True)
class WireProposal:
    """One proposal as it stands in a message."""

    number: int
    """1 for the first, one more for each following; in an answer, that of the one chosen."""
    protocol: int
    spi: bytes = b""
    """Ours: 8 bytes at an IKE rekey, none in IKE_SA_INIT, 4 for ESP and AH."""
    transforms: tuple[WireTransform, ...]

    @property
    def proposal(self) -> Proposal | None:
        """Return the proposal in our vocabulary, or None if it must be refused (RFC 7296 §3.3.6)."""
        try:
            protocol = ProtocolId(self.protocol)
        except ValueError:
            return None
        if any(transform.type not in _KNOWN_TYPES for transform in self.transforms):
            return None
        transforms = tuple(t for t in (item.transform for item in self.transforms) if t is not None)
        # A type whose every transform had an unknown attribute is a type nothing can be chosen from.
        if {item.type for item in self.transforms} != {int(t.type) for t in transforms}:
            return None
        return Proposal(protocol, transforms)


def wire_proposal(proposal: Proposal, number: int, spi: bytes = b"") -> WireProposal:
    """Return a proposal of our vocabulary as it goes into a message."""
    return WireProposal(
        number=number,
        protocol=proposal.protocol,
        spi=spi,
        transforms=tuple(
            WireTransform(
                transform.type,
                transform.id,
                () if transform.key_bits is None else (Attribute(KEY_LENGTH, transform.key_bits),),
            )
            for transform in proposal.transforms
        ),
    )


def wire_proposals(proposals: Sequence[Proposal], spi: bytes = b"") -> tuple[WireProposal, ...]:
    """Return an offer, numbered from 1 (RFC 7296 §3.3.1), every proposal with the same SPI."""
    return tuple(wire_proposal(proposal, number, spi) for number, proposal in enumerate(proposals, start=1))


# --- reading ------------------------------------------------------------------------------------


def parse_proposals(reader: Reader) -> tuple[WireProposal, ...]:
    """Read the body of an SA payload.

    Raises:
        InvalidSyntax: It holds no proposal, or one that contradicts itself.
    """
    proposals = []
    more = True
    while more:
        proposal, more = _parse_proposal(reader)
        proposals.append(proposal)
    reader.finish()
    return tuple(proposals)


def _parse_proposal(reader: Reader) -> tuple[WireProposal, bool]:
    marker, length = reader.unpack(_SUBSTRUCTURE)
    if marker not in (_LAST, _MORE_PROPOSALS):
        raise InvalidSyntax(f"proposal: last-substructure byte is {marker}, RFC 7296 §3.3.1 wants 0 or 2")
    body = reader.sub(length - _SUBSTRUCTURE.size, "proposal")
    number, protocol, spi_size, count = body.unpack(_PROPOSAL)
    spi = body.take(spi_size)
    if spi_size not in _SPI_SIZES.get(protocol, (spi_size,)):
        raise InvalidSyntax(f"proposal {number}: SPI of protocol {protocol} is {spi_size} bytes")
    transforms = []
    more = count > 0
    while more:
        transform, more = _parse_transform(body)
        transforms.append(transform)
    if len(transforms) != count:
        raise InvalidSyntax(f"proposal {number}: {count} transforms announced, {len(transforms)} found")
    body.finish()
    proposal = WireProposal(number=number, protocol=protocol, spi=spi, transforms=tuple(transforms))
    return proposal, marker == _MORE_PROPOSALS


def _parse_transform(reader: Reader) -> tuple[WireTransform, bool]:
    marker, length = reader.unpack(_SUBSTRUCTURE)
    if marker not in (_LAST, _MORE_TRANSFORMS):
        raise InvalidSyntax(f"transform: last-substructure byte is {marker}, RFC 7296 §3.3.2 wants 0 or 3")
    body = reader.sub(length - _SUBSTRUCTURE.size, "transform")
    transform_type, transform_id = body.unpack(_TRANSFORM)
    attributes = []
    while body.remaining:
        attributes.append(_parse_attribute(body))
    return WireTransform(transform_type, transform_id, tuple(attributes)), marker == _MORE_TRANSFORMS


def _parse_attribute(reader: Reader) -> Attribute:
    head = reader.u16()
    if head & _TYPE_VALUE_FORMAT:
        return Attribute(head & ~_TYPE_VALUE_FORMAT, reader.u16())
    return Attribute(head, reader.take(reader.u16()))


# --- writing ------------------------------------------------------------------------------------


def write_proposals(writer: Writer, proposals: Sequence[WireProposal]) -> None:
    """Append the body of an SA payload."""
    if not proposals:
        raise LocalError("an SA payload holds at least one proposal")
    for index, proposal in enumerate(proposals):
        start = len(writer)
        # The length is filled in below.
        writer.pack(_SUBSTRUCTURE, _LAST if index == len(proposals) - 1 else _MORE_PROPOSALS, 0)
        writer.pack(
            _PROPOSAL, proposal.number, proposal.protocol, len(proposal.spi), len(proposal.transforms)
        )
        writer.raw(proposal.spi)
        for position, transform in enumerate(proposal.transforms):
            _write_transform(writer, transform, last=position == len(proposal.transforms) - 1)
        writer.set_u16(start + 2, len(writer) - start)


def _write_transform(writer: Writer, transform: WireTransform, *, last: bool) -> None:
    start = len(writer)
    writer.pack(_SUBSTRUCTURE, _LAST if last else _MORE_TRANSFORMS, 0)
    writer.pack(_TRANSFORM, transform.type, transform.id)
    for attribute in transform.attributes:
        if isinstance(attribute.value, bytes):
            writer.u16(attribute.type)
            writer.u16(len(attribute.value))
            writer.raw(attribute.value)
        else:
            writer.u16(attribute.type | _TYPE_VALUE_FORMAT)
            writer.u16(attribute.value)
    writer.set_u16(start + 2, len(writer) - start)
