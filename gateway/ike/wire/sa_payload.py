"""The SA payload: proposals, transforms and their attributes (RFC 7296 §3.3).

The records here hold what came, the unknown included, so that it can be printed and sent back as it was.
`WireProposal.proposal` translates into the vocabulary and leaves out what RFC 7296 §3.3.6 wants refused:
a whole proposal with an unknown protocol or transform type, a single transform with an unknown attribute.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from gateway.ike.errors import InvalidSyntax, LocalError
from gateway.ike.wire.buffer import Reader, pack
from gateway.ipsec.algorithms import TransformType
from gateway.ipsec.proposal import Proposal, ProtocolId, Transform

KEY_LENGTH: Final = 14
"""The one transform attribute there is: key length in bits (RFC 7296 §3.3.5)."""
_TYPE_VALUE_FORMAT: Final = 0x8000
_TYPES: Final[Mapping[int, TransformType]] = {int(t): t for t in TransformType}
_PROTOCOLS: Final[Mapping[int, ProtocolId]] = {int(p): p for p in ProtocolId}
_LAST: Final = 0
_MORE_PROPOSALS: Final = 2
_MORE_TRANSFORMS: Final = 3
_PROPOSAL: Final = struct.Struct("!BxHBBBB")
"""Whether more follow, RESERVED, length of the whole substructure; number, protocol, SPI size, number of
transforms."""
_TRANSFORM: Final = struct.Struct("!BxHBxH")
"""Whether more follow, RESERVED, length of the whole substructure; type, RESERVED, ID."""
_ATTRIBUTE: Final = struct.Struct("!HH")
"""Type, with its format bit; then the value, or its length."""
_REMEMBERED: Final = 128
"""Peers offer the same over and over, and so do we: the last lists of transforms are remembered."""
_MAX_REMEMBERED_BYTES: Final = 512
"""Longer lists are read anew each time: strangers send them too, and are not to make us keep much."""
_SPI_SIZES: Final = {ProtocolId.IKE: (0, 8), ProtocolId.AH: (4,), ProtocolId.ESP: (4,)}


class Attribute(NamedTuple):
    """One transform attribute: a 16-bit value, or bytes if it came in the long form."""

    type: int
    value: int | bytes


class WireTransform(NamedTuple):
    """One transform as it stands in a message."""

    type: int
    id: int
    attributes: tuple[Attribute, ...] = ()


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
        protocol = _PROTOCOLS.get(self.protocol)
        if protocol is None or any(item.type not in _TYPES for item in self.transforms):
            return None
        known = tuple(t for t in map(_translate, self.transforms) if t is not None)
        # A type whose every transform had an unknown attribute is a type nothing can be chosen from.
        if {t.type for t in known} != {t.type for t in self.transforms}:
            return None
        return Proposal(protocol, known)


def _translate(wire: WireTransform) -> Transform | None:
    """Return a transform of a known type in our vocabulary, or None if an attribute is unknown."""
    key_bits: int | None = None
    for attribute in wire.attributes:
        if attribute.type != KEY_LENGTH or isinstance(attribute.value, bytes) or key_bits is not None:
            return None
        key_bits = attribute.value
    return Transform(_TYPES[wire.type], wire.id, key_bits)


def wire_proposal(proposal: Proposal, number: int, spi: bytes = b"") -> WireProposal:
    """Return a proposal of our vocabulary as it goes into a message."""
    return WireProposal(
        number=number,
        protocol=proposal.protocol,
        spi=spi,
        transforms=tuple(map(_wire_transform, proposal.transforms)),
    )


def _wire_transform(transform: Transform) -> WireTransform:
    if transform.key_bits is None:
        return WireTransform(transform.type, transform.id)
    return WireTransform(transform.type, transform.id, (Attribute(KEY_LENGTH, transform.key_bits),))


def wire_proposals(proposals: Sequence[Proposal], spi: bytes = b"") -> tuple[WireProposal, ...]:
    """Return an offer, numbered from 1 (RFC 7296 §3.3.1), every proposal with the same SPI."""
    return tuple(wire_proposal(proposal, number, spi) for number, proposal in enumerate(proposals, start=1))


# --- reading ------------------------------------------------------------------------------------


def parse_proposals(body: bytes) -> tuple[WireProposal, ...]:
    """Read the body of an SA payload.

    Raises:
        InvalidSyntax: It holds no proposal, or one that contradicts itself.
    """
    reader = Reader(body, "SA payload")
    proposals = []
    more = True
    while more:
        proposal, more = _parse_proposal(reader)
        proposals.append(proposal)
    reader.finish()
    return tuple(proposals)


def _parse_proposal(reader: Reader) -> tuple[WireProposal, bool]:
    marker, length, number, protocol, spi_size, count = reader.unpack(_PROPOSAL)
    if marker not in (_LAST, _MORE_PROPOSALS):
        raise InvalidSyntax(f"proposal: last-substructure byte is {marker}, RFC 7296 §3.3.1 wants 0 or 2")
    body = reader.sub(length - _PROPOSAL.size, "proposal")
    spi = body.take(spi_size)
    if spi_size not in _SPI_SIZES.get(protocol, (spi_size,)):
        raise InvalidSyntax(f"proposal {number}: SPI of protocol {protocol} is {spi_size} bytes")
    parse = _remembered_transforms if length <= _MAX_REMEMBERED_BYTES else _parse_transforms
    transforms = parse(body.rest(), count)
    proposal = WireProposal(number=number, protocol=protocol, spi=spi, transforms=transforms)
    return proposal, marker == _MORE_PROPOSALS


def _parse_transforms(data: bytes, count: int) -> tuple[WireTransform, ...]:
    """Read the transforms of a proposal.

    Raises:
        InvalidSyntax: There are not `count` of them, or one contradicts itself.
    """
    reader = Reader(data, "proposal")
    transforms = []
    more = count > 0
    while more:
        transform, more = _parse_transform(reader)
        transforms.append(transform)
    if len(transforms) != count:
        raise InvalidSyntax(f"proposal: {count} transforms announced, {len(transforms)} found")
    reader.finish()
    return tuple(transforms)


_remembered_transforms = lru_cache(maxsize=_REMEMBERED)(_parse_transforms)


def _parse_transform(reader: Reader) -> tuple[WireTransform, bool]:
    marker, length, transform_type, transform_id = reader.unpack(_TRANSFORM)
    if marker not in (_LAST, _MORE_TRANSFORMS):
        raise InvalidSyntax(f"transform: last-substructure byte is {marker}, RFC 7296 §3.3.2 wants 0 or 3")
    body = reader.sub(length - _TRANSFORM.size, "transform")
    attributes = []
    while body.remaining:
        attributes.append(_parse_attribute(body))
    return WireTransform(transform_type, transform_id, tuple(attributes)), marker == _MORE_TRANSFORMS


def _parse_attribute(reader: Reader) -> Attribute:
    head, value_or_length = reader.unpack(_ATTRIBUTE)
    if head & _TYPE_VALUE_FORMAT:
        return Attribute(head & ~_TYPE_VALUE_FORMAT, value_or_length)
    return Attribute(head, reader.take(value_or_length))


# --- writing ------------------------------------------------------------------------------------


def encode_proposals(proposals: Sequence[WireProposal]) -> bytes:
    """Return the body of an SA payload."""
    if not proposals:
        raise LocalError("an SA payload holds at least one proposal")
    last = len(proposals) - 1
    return b"".join(
        _encode_proposal(proposal, _LAST if index == last else _MORE_PROPOSALS)
        for index, proposal in enumerate(proposals)
    )


def _encode_proposal(proposal: WireProposal, marker: int) -> bytes:
    transforms = _encode_transforms(proposal.transforms)
    head = pack(
        _PROPOSAL,
        marker,
        _PROPOSAL.size + len(proposal.spi) + len(transforms),
        proposal.number,
        proposal.protocol,
        len(proposal.spi),
        len(proposal.transforms),
    )
    return head + proposal.spi + transforms


@lru_cache(maxsize=_REMEMBERED)
def _encode_transforms(transforms: tuple[WireTransform, ...]) -> bytes:
    """Return the transforms of a proposal; what we send is our configuration's, over and over."""
    last = len(transforms) - 1
    return b"".join(
        _encode_transform(transform, _LAST if index == last else _MORE_TRANSFORMS)
        for index, transform in enumerate(transforms)
    )


def _encode_transform(transform: WireTransform, marker: int) -> bytes:
    attributes = b"".join(map(_encode_attribute, transform.attributes))
    length = _TRANSFORM.size + len(attributes)
    return pack(_TRANSFORM, marker, length, transform.type, transform.id) + attributes


def _encode_attribute(attribute: Attribute) -> bytes:
    if isinstance(attribute.value, bytes):
        return pack(_ATTRIBUTE, attribute.type, len(attribute.value)) + attribute.value
    return pack(_ATTRIBUTE, attribute.type | _TYPE_VALUE_FORMAT, attribute.value)
