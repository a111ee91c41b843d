"""Proposals and transforms, their strongSwan-style text form, and selection (RFC 7296 §2.7, §3.3)."""

from dataclasses import dataclass
from enum import IntEnum

from gateway.ipsec.algorithms import TransformType


class ProtocolId(IntEnum):
    """Security protocol identifiers (RFC 7296 §3.3.1)."""

    IKE = 1
    AH = 2
    ESP = 3


@dataclass(frozen=True, slots=True)
class Transform:
    """One transform: type, ID and, where the algorithm has variable key lengths, the key length in bits."""

    type: TransformType
    id: int
    key_bits: int | None = None


@dataclass(frozen=True, slots=True)
class Proposal:
    """What one side offers or both agreed on: transforms in order of preference within each type."""

    protocol: ProtocolId
    transforms: tuple[Transform, ...]
