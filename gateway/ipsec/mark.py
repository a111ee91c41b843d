"""Packet marks: numbers that the machine's firewall and routing write beside a packet, never in it."""

from dataclasses import dataclass
from typing import Final, Self

from gateway.ipsec.errors import VocabularyError

ALL_BITS: Final = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark under a mask: the bits of the mask are compared, or set, and no others.

    Raises:
        VocabularyError: A number does not fit 32 bits, or the value has bits outside the mask.
    """

    value: int
    mask: int = ALL_BITS

    def __post_init__(self) -> None:
        if not (0 <= self.value <= ALL_BITS and 0 <= self.mask <= ALL_BITS):
            raise VocabularyError(f"mark and mask are of 32 bits each, got {self.value:#x}/{self.mask:#x}")
        if self.value & ~self.mask:
            raise VocabularyError(f"mark {self.value:#x} has bits that its mask {self.mask:#x} leaves out")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the mark in `42`, `0x2a` or `0x2a/0xff`.

        Raises:
            VocabularyError: It is none.
        """
        value, slash, mask = text.partition("/")
        try:
            numbers = int(value, 0), int(mask, 0) if slash else ALL_BITS
        except ValueError:
            raise VocabularyError(
                f"{text!r} is no mark; write a number with or without a mask, as 42 or 0x2a/0xff"
            ) from None
        return cls(*numbers)

    def __str__(self) -> str:
        return f"{self.value:#x}" if self.mask == ALL_BITS else f"{self.value:#x}/{self.mask:#x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """What marks have to do with a Child; `None`: nothing."""

    inbound: Mark | None = None
    """Only decrypted packets with this mark are taken."""
    outbound: Mark | None = None
    """Only packets with this mark are protected."""
    set_inbound: Mark | None = None
    """Given to packets when they were decrypted."""
    set_outbound: Mark | None = None
    """Given to packets when they were encrypted; their route is looked up with it."""
    on_inbound_sa: bool = False
    """Protected packets are told by `inbound` too: only those that come with it are decrypted."""


NO_MARKS: Final = Marks()
