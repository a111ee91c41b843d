"""What a fuzz target is: seeds, and a function that must survive any bytes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """One entrance for bytes that somebody else chose."""

    name: str
    seeds: Callable[[], Iterable[bytes]]
    """Where mutation starts: real messages, packets and texts."""
    run: Callable[[bytes], None]
    """Raises for a mistake of ours only: the errors that the entrance documents are caught inside."""
    max_bytes: int = 4096
    """Longest input."""


def choice(number, options):
    """Return the option that one byte of the input chooses."""
    return options[number % len(options)]
