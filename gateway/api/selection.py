"""What a list returns of all there is: those that fit a filter, page by page, with the fields asked for."""

import base64
import binascii
import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from gateway.api.filter import Matches, parse_filter
from gateway.api.plain import AnyDescriptor
from gateway.api.violations import InvalidArgument, Violations

M = TypeVar("M", bound=Message)

DEFAULT_PAGE: Final = 1000
MAX_PAGE: Final = 10_000
_DIGEST_BYTES: Final = 8


def read_mask(mask: FieldMask, descriptor: AnyDescriptor, violations: Violations) -> FieldMask | None:
    """Return which fields are wanted; `None` for all of them.

    Args:
        mask: As the request has it.
        descriptor: Of the messages.
        violations: Takes what is wrong.
    """
    for path in mask.paths:
        if path == "*":
            return None
        alone = FieldMask(paths=[path])
        if not alone.IsValidForDescriptor(descriptor):
            first = path.partition(".")[0]
            hint = (
                "a path ends at a list, and has no index"
                if first in descriptor.fields_by_name
                else f"there are {', '.join(sorted(descriptor.fields_by_name))}"
            )
            violations.add("read_mask", f"there is no field {path}; {hint}")
    return mask if mask.paths else None


def masked(message: M, mask: FieldMask | None) -> M:
    """Return a message with the wanted fields only."""
    if mask is None:
        return message
    chosen = type(message)()
    mask.MergeMessage(message, chosen)
    return chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[M]):
    """What one answer has of a list."""

    items: tuple[M, ...]
    next_token: str


K = TypeVar("K", str, int)


class Selection(Generic[M, K]):
    """One list request, read.

    Args:
        request: Has `page_size`, `page_token`, `filter` and `read_mask`.
        kind: The messages that are listed.
        first: A key that is lower than all others.
        also: What else a token is bound to.

    Raises:
        InvalidArgument: Something in it is wrong; all of it is named.
    """

    def __init__(self, request: Any, kind: type[M], first: K, also: str = "") -> None:
        violations = Violations()
        self._matches: Matches | None = None
        try:
            self._matches = parse_filter(request.filter, kind.DESCRIPTOR)
        except InvalidArgument as error:
            for found in error.violations:
                violations.add(found.field, found.description, found.offset)
        self._mask = read_mask(request.read_mask, kind.DESCRIPTOR, violations)
        if not 0 <= request.page_size <= MAX_PAGE:
            violations.add("page_size", f"{request.page_size} is not between 0 and {MAX_PAGE}")
        self._size = request.page_size or DEFAULT_PAGE
        self._bound_to = _digest(request.filter, also, kind.DESCRIPTOR.full_name)
        #: Where this page begins: behind this key.
        self.after: K = first
        if request.page_token:
            self.after = self._read_token(request.page_token, violations)
        violations.raise_if_any()

    def page(self, candidates: Iterable[tuple[K, M]]) -> Page[M]:
        """Return the page of what is there behind `after`, in the order of its keys."""
        items: list[M] = []
        last = self.after
        for key, message in candidates:
            if self._matches is not None and not self._matches(message):
                continue
            if len(items) == self._size:
                return Page(items=tuple(items), next_token=self._write_token(last))
            items.append(masked(message, self._mask))
            last = key
        return Page(items=tuple(items), next_token="")

    def _write_token(self, last: K) -> str:
        text = json.dumps([self._bound_to, last], separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    def _read_token(self, token: str, violations: Violations) -> K:
        try:
            padded = token + "=" * (-len(token) % 4)
            bound_to, last = json.loads(base64.urlsafe_b64decode(padded.encode("ascii")))
        except (ValueError, binascii.Error, TypeError, RecursionError):
            bound_to, last = "", None
        if bound_to != self._bound_to or type(last) is not type(self.after):
            violations.add("page_token", "is not the next_page_token of a list with this filter")
            return self.after
        key: K = last
        return key


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=_DIGEST_BYTES).hexdigest()


def from_after(keys: Sequence[str], after: str) -> Sequence[str]:
    """Return the part of sorted keys that lies behind `after`."""
    return keys[bisect_right(keys, after) :]
