"""Filters of lists and watches: a subset of AIP-160, over the fields of a message.

    filter     = [or]
    or         = and { "OR" and }
    and        = not { ["AND"] not }          a space between two means AND
    not        = ["NOT" | "-"] term
    term       = "(" or ")" | FIELD operator VALUE
    operator   = "=" | "!=" | "<" | "<=" | ">" | ">=" | ":"

FIELD is a path of field names; a path through a list means that some item is so. `:` asks for presence
(`FIELD:*`), for an item of a list or, of a text, for a part of it. What AIP-160 has beyond this, bare values
and functions, is refused by name. OR binds closer than AND in AIP-160; who mixes them has to write
parentheses here, because nobody remembers that.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import eq, ge, gt, le, lt
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.api.duration import DurationError, parse_duration
from gateway.api.plain import DURATION, TIMESTAMP, AnyDescriptor, AnyField, enum_spellings
from gateway.api.violations import InvalidArgument, Violations

MAX_LENGTH: Final = 2048
"""Characters."""
MAX_DEPTH: Final = 20
"""Of parentheses and NOTs."""

Matches = Callable[[Message], bool]

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<operator><=|>=|!=|[=<>:])
      | (?P<bracket>[(),])
      | (?P<word>[^\s()=<>!:"',]+)
    )""",
    re.VERBOSE,
)
_PATH = re.compile(r"[a-z_][a-z0-9_]*(?:\.[a-z_][a-z0-9_]*)*")
_ORDER: Final[dict[str, Callable[[Any, Any], bool]]] = {"<": lt, "<=": le, ">": gt, ">=": ge}
_NUMBERS: Final = frozenset(
    {
        FieldDescriptor.CPPTYPE_INT32,
        FieldDescriptor.CPPTYPE_INT64,
        FieldDescriptor.CPPTYPE_UINT32,
        FieldDescriptor.CPPTYPE_UINT64,
        FieldDescriptor.CPPTYPE_DOUBLE,
        FieldDescriptor.CPPTYPE_FLOAT,
    }
)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    offset: int


class _Refused(Exception):
    def __init__(self, offset: int, description: str) -> None:
        super().__init__(description)
        self.offset = offset


def parse_filter(text: str, descriptor: AnyDescriptor) -> Matches | None:
    """Return what tells whether a message fits; `None` for an empty filter, which everything fits.

    Args:
        text: The filter.
        descriptor: Of the messages.

    Raises:
        InvalidArgument: It is no filter, or asks for what such messages do not have.
    """
    if not text.strip():
        return None
    try:
        if len(text) > MAX_LENGTH:
            raise _Refused(0, f"has {len(text)} characters; at most {MAX_LENGTH} are allowed")
        parser = _Parser(list(_tokens(text)), len(text), descriptor)
        return parser.parse()
    except _Refused as refused:
        violations = Violations()
        violations.add("filter", f"{refused} (at character {refused.offset + 1})", refused.offset)
        raise InvalidArgument(violations.found()) from None


def _tokens(text: str) -> Iterator[_Token]:
    offset, end = 0, len(text.rstrip())
    while offset < end:
        found = _TOKEN.match(text, offset)
        if found is None:
            there = text[offset:].lstrip()[:1]
            raise _Refused(offset, f"{there!r} has no place in a filter; a text with it goes into quotes")
        kind = str(found.lastgroup)
        yield _Token(kind, found[kind], found.start(kind))
        offset = found.end()


class _Parser:
    """One pass over the tokens; every method returns what it has read as a predicate."""

    def __init__(self, tokens: list[_Token], end: int, descriptor: AnyDescriptor) -> None:
        self._tokens = tokens
        self._next = 0
        self._end = _Token("end", "", end)
        self._descriptor = descriptor
        self._depth = 0

    def parse(self) -> Matches:
        """Read the whole."""
        matches = self._all()
        left = self._peek()
        if left.kind != "end":
            raise _Refused(left.offset, f"{left.text!r} is left over")
        return matches

    def _peek(self) -> _Token:
        return self._tokens[self._next] if self._next < len(self._tokens) else self._end

    def _take(self) -> _Token:
        token = self._peek()
        self._next += 1
        return token

    def _is_word(self, *words: str) -> bool:
        token = self._peek()
        return token.kind == "word" and token.text in words

    def _all(self) -> Matches:
        terms = [self._not()]
        joined_by = ""
        while self._peek().kind != "end" and self._peek().text != ")":
            token = self._peek()
            word = "OR" if self._is_word("OR") else "AND"
            if joined_by and word != joined_by:
                raise _Refused(token.offset, "AND and OR are mixed; put parentheses around one of them")
            joined_by = word
            if self._is_word("AND", "OR"):
                self._take()
            terms.append(self._not())
        if len(terms) == 1:
            return terms[0]
        join = any if joined_by == "OR" else all
        return lambda message: join(matches(message) for matches in terms)

    def _not(self) -> Matches:
        self._depth += 1
        try:
            if self._depth > MAX_DEPTH:
                raise _Refused(self._peek().offset, f"is nested more than {MAX_DEPTH} deep")
            if self._is_word("NOT", "-"):
                self._take()
                inner = self._not()
                return lambda message: not inner(message)
            return self._term()
        finally:
            self._depth -= 1

    def _term(self) -> Matches:
        token = self._take()
        if token.kind == "bracket" and token.text == "(":
            inner = self._all()
            closing = self._take()
            if closing.text != ")":
                raise _Refused(closing.offset, "a closing parenthesis is missing")
            return inner
        if token.kind != "word":
            what = "the filter ends" if token.kind == "end" else f"{token.text!r} stands"
            raise _Refused(token.offset, f"{what} where a field is wanted")
        operator = self._peek()
        if operator.text == "(":
            raise _Refused(token.offset, f"{token.text!r} is called like a function; there are none")
        if operator.kind != "operator":
            raise _Refused(
                token.offset,
                f"{token.text!r} stands alone; compare a field with a value, as name = {token.text}",
            )
        self._take()
        value = self._take()
        if value.kind not in ("word", "text"):
            raise _Refused(value.offset, "a value is missing")
        return _comparison(self._descriptor, token, operator, value)


def _comparison(descriptor: AnyDescriptor, path: _Token, operator: _Token, value: _Token) -> Matches:
    if not _PATH.fullmatch(path.text):
        raise _Refused(path.offset, f"{path.text!r} is no field")
    names = path.text.split(".")
    field: AnyField = None
    for i, name in enumerate(names):
        if descriptor is None:
            raise _Refused(path.offset, f"{'.'.join(names[:i])} has no fields")
        field = descriptor.fields_by_name.get(name)
        if field is None:
            known = ", ".join(sorted(descriptor.fields_by_name))
            raise _Refused(path.offset, f"there is no field {path.text}; there are {known}")
        descriptor = field.message_type
    if operator.text == ":" and value.kind == "word" and value.text == "*":
        return lambda message: any(True for _ in _values(message, names, only_set=True))
    fits = _test_of(field, path, operator, value)
    if operator.text == "!=":
        # Of a list: no item is so, as the opposite of `=`.
        return lambda message: not any(fits(got) for got in _values(message, names))
    return lambda message: any(fits(got) for got in _values(message, names))


def _values(message: Any, names: list[str], *, only_set: bool = False) -> Iterator[Any]:
    """Yield what a path leads to: nothing through absent messages, each item of lists."""
    field: AnyField = message.DESCRIPTOR.fields_by_name[names[0]]
    if field.has_presence and not message.HasField(field.name):
        return
    value = getattr(message, field.name)
    if only_set and not field.is_repeated and not field.has_presence and not value:
        return
    for item in value if field.is_repeated else (value,):
        if len(names) == 1:
            yield item
        else:
            yield from _values(item, names[1:], only_set=only_set)


def _test_of(field: AnyField, path: _Token, operator: _Token, value: _Token) -> Callable[[Any], bool]:
    """Return what tells whether one value of a field fits; `!=` is read as `=` here."""
    text = _unquoted(value)
    if field.message_type is not None:
        kind = field.message_type.full_name
        if kind == DURATION:
            return _ordered(_seconds(text, value), operator, lambda got: got.seconds + got.nanos / 1e9)
        if kind == TIMESTAMP:
            return _ordered(_moment(text, value), operator, lambda got: (got.seconds, got.nanos))
        raise _Refused(path.offset, f"{path.text} has fields; name one of them, or ask with {path.text}:*")
    if field.enum_type is not None:
        spellings = enum_spellings(field.enum_type)
        if text.lower() not in spellings:
            raise _Refused(value.offset, f"{text!r} is none of {', '.join(spellings)}")
        return _equal(spellings[text.lower()], path, operator)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        if text not in ("true", "false"):
            raise _Refused(value.offset, f"{text!r} is neither true nor false")
        return _equal(text == "true", path, operator)
    if field.cpp_type in _NUMBERS:
        try:
            number = float(text) if "." in text else int(text)
        except ValueError:
            raise _Refused(value.offset, f"{text!r} is no number") from None
        return _ordered(number, operator, lambda got: got)
    if field.type == FieldDescriptor.TYPE_BYTES:
        raise _Refused(path.offset, f"{path.text} cannot be asked for")
    return _text_test(text, operator, is_quoted=value.kind == "text")


def _equal(wanted: object, path: _Token, operator: _Token) -> Callable[[Any], bool]:
    if operator.text in _ORDER:
        raise _Refused(operator.offset, f"{path.text} has no order; compare with = or !=")
    return lambda got: bool(got == wanted)


def _ordered(wanted: Any, operator: _Token, key: Callable[[Any], Any]) -> Callable[[Any], bool]:
    compare: Callable[[Any, Any], bool] = _ORDER.get(operator.text, eq)
    return lambda got: compare(key(got), wanted)


def _text_test(text: str, operator: _Token, *, is_quoted: bool) -> Callable[[Any], bool]:
    if operator.text in _ORDER:
        compare = _ORDER[operator.text]
        return lambda got: compare(got, text)
    if operator.text == ":":
        return lambda got: text in got
    if is_quoted or "*" not in text:
        return lambda got: bool(got == text)
    begins, ends = text.startswith("*"), text.endswith("*")
    part = text[1 if begins else 0 : -1 if ends and len(text) > 1 else None]
    if "*" in part:
        raise _Refused(operator.offset, "'*' stands for anything at the begin or end of a text only")
    if begins and ends:
        return lambda got: part in got
    return (lambda got: got.endswith(part)) if begins else (lambda got: got.startswith(part))


def _unquoted(value: _Token) -> str:
    return re.sub(r"\\(.)", r"\1", value.text[1:-1]) if value.kind == "text" else value.text


def _seconds(text: str, value: _Token) -> float:
    try:
        return parse_duration(text)
    except DurationError as error:
        raise _Refused(value.offset, str(error)) from None


def _moment(text: str, value: _Token) -> tuple[int, int]:
    moment = Timestamp()
    try:
        moment.FromJsonString(text)
    except ValueError:
        raise _Refused(value.offset, f'{text!r} is no time, as "2027-01-15T08:00:00Z" with quotes') from None
    return moment.seconds, moment.nanos
