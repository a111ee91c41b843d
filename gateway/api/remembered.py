"""Parts of connections that are the same in thousands of them, read and written once.

An orchestrator's connections differ in names, addresses and keys, and share the rest. What is remembered here
are records without secrets and messages that nobody changes.
"""

from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_address
from typing import Concatenate, Final, Generic, ParamSpec, TypeVar

from google.protobuf.message import Message

from gateway.ipsec.identity import parse_identity
from gateway.ipsec.proposal import check_strength, parse_proposal
from gateway.ipsec.selectors import TrafficSelector

KEPT: Final = 1024

#: The functions they are made of; what is refused is not remembered.
known_proposal = lru_cache(KEPT)(parse_proposal)
known_strength = lru_cache(KEPT)(check_strength)
known_selector = lru_cache(KEPT)(TrafficSelector.parse)
known_identity = lru_cache(KEPT)(parse_identity)
known_address = lru_cache(KEPT)(ip_address)
written_proposal = lru_cache(KEPT)(str)
written_identity = lru_cache(KEPT)(str)

R = TypeVar("R")
M = TypeVar("M", bound=Message)
P = ParamSpec("P")


class ReadOnce(Generic[R]):
    """Records by the bytes of the messages that they were read from, and by whatever else they depend on."""

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, object], R] = {}

    def find(self, message: Message, also: object) -> R | None:
        """Return the record of such a message; `None` if there was none yet."""
        return self._known.get((message.SerializeToString(), also))

    def keep(self, message: Message, also: object, record: R) -> None:
        """Remember a record; the oldest one makes room."""
        if len(self._known) >= KEPT:
            del self._known[next(iter(self._known))]
        self._known[message.SerializeToString(), also] = record


class WrittenOnce(Generic[R, P, M]):
    """Messages by the very object that they were written from, which lives as long as it is known.

    Args:
        write: Makes the message of the object, and of whatever else it depends on, given by position.
    """

    def __init__(self, write: Callable[Concatenate[R, P], M]) -> None:
        self._write = write
        self._known: dict[tuple[object, ...], tuple[R, M]] = {}

    def __call__(self, record: R, *also: P.args, **named: P.kwargs) -> M:
        """Return the message of a record, which nobody may change."""
        key = (id(record), *also)
        known = self._known.get(key)
        if known is not None:
            return known[1]
        if len(self._known) >= KEPT:
            del self._known[next(iter(self._known))]
        message = self._write(record, *also, **named)
        self._known[key] = (record, message)
        return message
