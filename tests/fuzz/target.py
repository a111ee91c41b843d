"""What a fuzz target is: seeds, and a function that must survive any bytes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp


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


@cache
def scratch():
    """A folder for inputs: some readers take paths."""
    return Path(mkdtemp(prefix="ipsecgw-fuzz-"))


def written(name, data):
    """Return a file with this content; the next input of that name replaces it."""
    path = scratch() / name
    path.write_bytes(data)
    return path
