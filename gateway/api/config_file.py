"""The configuration file: YAML with places, typed by the `Config` message, every error at once.

The text is read as nodes, all scalars as strings, so that `on`, `1e3` or `0x10` mean what is written. `_Walk`
fills the message by its descriptor and remembers where each field stands; `convert_connection` then judges
the values, and its violations find their way back to line and column. Secret references are read here,
relative to the file's directory, so that only `value` leaves this process.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import yaml
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from yaml.events import AliasEvent, NodeEvent
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from gateway.api.config_error import ConfigError, Problem
from gateway.api.control.v1 import connection_pb2 as cpb
from gateway.api.convert import write_duration
from gateway.api.convert_authentication import out_of_date
from gateway.api.convert_connection import list_connections, strength_warnings
from gateway.api.duration import parse_duration
from gateway.api.plain import DURATION, AnyDescriptor, AnyField, enum_spellings
from gateway.api.sources import resolve_sources
from gateway.api.violations import Violations, at
from gateway.controller.facade import WantedConnection

MAX_DEPTH: Final = 32
"""Of nested lists and mappings; ours needs ten."""

_ANSWERS_ONLY: Final = frozenset(
    f"gateway.api.control.v1.{message}.is_set" for message in ("PreSharedKey", "PrivateKey", "CrlFile")
)
"""Fields that services answer and no file says."""

_MANY_LINES: Final = frozenset(
    f"gateway.api.control.v1.{message}.value" for message in ("PrivateKey", "PublicFile", "CrlFile")
)
"""Texts that may be PEM."""

_NULL_TAG: Final = "tag:yaml.org,2002:null"

_PLACEHOLDERS: Final = {FieldDescriptor.TYPE_ENUM: 0, FieldDescriptor.TYPE_STRING: ""}

_INTEGERS: Final = {
    FieldDescriptor.TYPE_UINT32: 2**32 - 1,
    FieldDescriptor.TYPE_UINT64: 2**64 - 1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedConfig:
    """A configuration file that is all right."""

    message: cpb.Config
    """With every key as `value`: ready for `ApplyConnections`, never to be printed."""
    connections: tuple[WantedConnection, ...]
    warnings: tuple[str, ...] = ()
    """Weak algorithms that the file allows by name, each with its connection."""


def load_config(path: Path, *, at_time: float | None = None) -> LoadedConfig:
    """Read a configuration file and the secrets it refers to.

    Args:
        path: The file.
        at_time: Unix time, to refuse certificates that are not valid then; None where a gateway starts, which
            must protect the other connections whatever became of one certificate.

    Raises:
        ConfigError: With every problem of the file.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        advice = (
            "run as root, or as its owner"
            if isinstance(error, PermissionError)
            else "give the path of a YAML file with connections"
        )
        why = f"cannot be read: {error.strerror}; {advice}"
        raise ConfigError([Problem(file=str(path), line=0, column=0, path="", message=why)]) from error
    except UnicodeDecodeError as error:
        why = f"is not UTF-8 text (byte {error.start})"
        raise ConfigError([Problem(file=str(path), line=0, column=0, path="", message=why)]) from error
    return parse_config(text, str(path), path.parent, at_time=at_time)


def parse_config(text: str, name: str, directory: Path, *, at_time: float | None = None) -> LoadedConfig:
    """Read the text of a configuration file; `directory` is what its secret files are relative to.

    `at_time` as of `load_config`.

    Raises:
        ConfigError: With every problem of the text, each placed in a file called `name`.
    """
    walk = _Walk(name)
    message = cpb.Config()
    root = _compose(text, walk)
    if root is not None:
        walk.read_message(root, message, "")
    for i, connection in enumerate(message.connections):
        resolve_sources(connection, at("", "connections", i), directory, walk.judge)
    violations = Violations()
    connections = list_connections(message.connections, violations)
    for violation in violations.found():
        walk.judge(violation.field, violation.description, violation.offset)
    if at_time is not None and not walk.problems:
        for i, wanted in enumerate(connections):
            for where, why in out_of_date(wanted.connection, at("", "connections", i), at_time):
                walk.judge(where, why)
    if walk.problems:
        raise ConfigError(walk.problems)
    warnings = tuple(
        f"connection {wanted.connection.name}: {warning}"
        for wanted in connections
        for warning in strength_warnings(wanted.connection)
    )
    return LoadedConfig(message=message, connections=connections, warnings=warnings)


# --- YAML ---------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """Composes nodes without anchors, aliases and tags: a file says what it means where it stands."""

    def __init__(self, text: str, walk: "_Walk") -> None:
        super().__init__(text)
        self._walk = walk
        self._depth = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # YAML's parser has no types
        if isinstance(event, AliasEvent):
            self._walk.note(event.start_mark, "", "aliases are not understood here; write the value out")
            self.get_event()  # type: ignore[no-untyped-call]  # the same
            # The mark may be of YAML's C implementation, which its types keep apart.
            mark: Any = event.start_mark
            return ScalarNode(_NULL_TAG, "", mark, mark)
        if isinstance(event, NodeEvent) and event.anchor is not None:
            self._walk.note(event.start_mark, "", "anchors are not understood here; leave it out")
            event.anchor = None
        if getattr(event, "tag", None) not in (None, "!"):
            self._walk.note(
                event.start_mark, "", f"tags like {event.tag} are not understood here; leave it out"
            )
        if self._depth >= MAX_DEPTH:
            raise yaml.composer.ComposerError(
                None, None, f"more than {MAX_DEPTH} levels deep", event.start_mark
            )
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _quoting(error: yaml.MarkedYAMLError) -> str:
    """Return advice where YAML gives a meaning of its own to what our values contain."""
    problem = error.problem or ""
    if error.context == "while parsing a flow sequence" and "got '['" in problem:
        return "; write a selector with a port in quotes inside [...]: ['10.1.0.0/16[tcp/443]']"
    if error.context == "while scanning an alias" or "that cannot start any token" in problem:
        return "; write a value that begins with %, @ or * in quotes: '%any'" if "\\t" not in problem else ""
    return ""


def _compose(text: str, walk: "_Walk") -> Node | None:
    try:
        loader = _Loader(text, walk)
        root = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        what = " ".join(part for part in (error.context, error.problem) if part)
        walk.note(error.problem_mark or error.context_mark, "", f"is not YAML: {what}{_quoting(error)}")
        return None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        walk.note_at(line, column, "", f"has a character that YAML forbids: U+{error.character:04X}")
        return None
    if root is None:
        walk.note_at(1, 1, "", "is empty; expected `connections:` with a list")
    return root


# --- walking ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a value stands."""

    line: int
    column: int
    text_column: int | None = None
    """Where the first character of its text stands, if the text is written as it is."""


@dataclass(slots=True)
class _Walk:
    """Fills messages from nodes; collects problems and places."""

    file: str
    problems: list[Problem] = field(default_factory=list)
    places: dict[str, _Place] = field(default_factory=dict)
    excused: set[str] = field(default_factory=set)
    """Paths that were complained about, or that a misspelt key was surely meant to be."""
    unread: list[str] = field(default_factory=list)

    def note_at(self, line: int, column: int, path: str, message: str) -> None:
        """Note a problem at a place."""
        self.problems.append(Problem(file=self.file, line=line, column=column, path=path, message=message))
        self.excused.add(path)

    def note(self, mark: Any, path: str, message: str) -> None:
        """Note a problem at a mark of YAML's, which count from 0."""
        self.note_at(mark.line + 1, mark.column + 1, path, message)

    def refuse(self, node: Node, path: str, message: str) -> None:
        """Note that a node is of the wrong kind: nothing at or below its path can be judged."""
        self.note(node.start_mark, path, message)
        self.unread.append(path)

    def judge(self, path: str, message: str, offset: int = 0) -> None:
        """Place a violation: at its field, or at the nearest one above that is in the file."""
        if path in self.excused or any(_is_below(path, unread) for unread in self.unread):
            return
        if message.startswith("is required") and any(_is_below(excuse, path) for excuse in self.excused):
            return
        place = self.places.get(path)
        if place is not None and place.text_column is not None:
            self.note_at(place.line, place.text_column + offset, path, message)
            return
        above = path
        while above and above not in self.places:
            above = above[: max(above.rfind("."), above.rfind("["), 0)]
        place = self.places.get(above, _Place(1, 1))
        self.note_at(place.line, place.column, path, message)

    def read_message(self, node: Node, message: Message, path: str) -> None:
        """Fill a message from a mapping."""
        descriptor = message.DESCRIPTOR
        self._remember(node, path)
        if not isinstance(node, MappingNode):
            self.refuse(
                node,
                path,
                f"is {_kind(node)}; expected a mapping with {', '.join(_keys(descriptor))}",
            )
            return
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                self.note(key_node.start_mark, path, f"has {_kind(key_node)} as a key; expected a name")
                continue
            name = key_node.value
            where = at(path, name)
            if name in seen:
                self.note(
                    key_node.start_mark, where, f"is given twice, first in line {seen[name]}; leave one out"
                )
                continue
            seen[name] = key_node.start_mark.line + 1
            known = descriptor.fields_by_name.get(name)
            if known is None or known.full_name in _ANSWERS_ONLY:
                self._unknown_key(key_node, name, path, descriptor)
                continue
            if self._is_second_choice(known, seen, key_node, where):
                continue
            self._read_field(value_node, message, known, where)

    def _unknown_key(self, key_node: ScalarNode, name: str, path: str, descriptor: AnyDescriptor) -> None:
        keys = _keys(descriptor)
        close = get_close_matches(name, keys, n=1)
        advice = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(keys)}"
        self.note(key_node.start_mark, at(path, name), f"unknown key; {advice}")
        if close:
            self.excused.add(at(path, close[0]))

    def _is_second_choice(
        self, known: AnyField, seen: dict[str, int], key_node: ScalarNode, path: str
    ) -> bool:
        choice = known.containing_oneof
        if choice is None or len(choice.fields) < 2:
            return False
        names = [other.name for other in choice.fields]
        first = next((name for name in names if name in seen and name != known.name), None)
        if first is None:
            return False
        self.note(key_node.start_mark, path, f"is given beside {first}; give one of {', '.join(names)}")
        return True

    def _read_field(self, node: Node, message: Message, known: AnyField, path: str) -> None:
        self._remember(node, path)
        if (
            isinstance(node, ScalarNode)
            and node.tag == _NULL_TAG
            and not node.style
            and node.value in ("", "~")
        ):
            self.refuse(node, path, "has no value; give one or leave the key out")
        elif known.is_repeated:
            self._read_list(node, message, known, path)
        elif known.type == FieldDescriptor.TYPE_MESSAGE and known.message_type.full_name != DURATION:
            submessage = getattr(message, known.name)
            # Present even if nothing in it is: `psk: {}` is not the same as no psk.
            submessage.SetInParent()
            self.read_message(node, submessage, path)
        else:
            value = self._read_scalar(node, known, path)
            if isinstance(value, Message):
                getattr(message, known.name).CopyFrom(value)
            elif value is not None:
                setattr(message, known.name, value)

    def _read_list(self, node: Node, message: Message, known: AnyField, path: str) -> None:
        if not isinstance(node, SequenceNode):
            what = "[...]" if known.type == FieldDescriptor.TYPE_MESSAGE else "[a, b]"
            self.refuse(node, path, f"is {_kind(node)}; expected a list, as {what}, also of a single one")
            return
        values = getattr(message, known.name)
        for i, item in enumerate(node.value):
            where = f"{path}[{i}]"
            self._remember(item, where)
            if known.type == FieldDescriptor.TYPE_MESSAGE:
                self.read_message(item, values.add(), where)
                continue
            value = self._read_scalar(item, known, where)
            # An item that was complained about keeps its place, so that those after it keep theirs.
            values.append(_PLACEHOLDERS[known.type] if value is None else value)

    def _read_scalar(self, node: Node, known: AnyField, path: str) -> Any:
        """Return the value of a scalar, or `None` after noting a problem."""
        if not isinstance(node, ScalarNode):
            self.refuse(node, path, f"is {_kind(node)}; expected {_wanted(known)}")
            return None
        try:
            return _SCALARS[known.type](node.value, known)
        except ValueError as error:
            self.refuse(node, path, str(error))
            return None

    def _remember(self, node: Node, path: str) -> None:
        line, column = node.start_mark.line + 1, node.start_mark.column + 1
        text_column = None
        if isinstance(node, ScalarNode) and node.start_mark.line == node.end_mark.line:
            width = node.end_mark.column - node.start_mark.column
            quotes = 2 if node.style in ("'", '"') else 0
            if width == len(node.value) + quotes:
                text_column = column + quotes // 2
        self.places[path] = _Place(line, column, text_column)


def _is_below(path: str, above: str) -> bool:
    return not above or (path.startswith(above) and path[len(above) :][:1] in ("", ".", "["))


def _keys(descriptor: AnyDescriptor) -> list[str]:
    return [known.name for known in descriptor.fields if known.full_name not in _ANSWERS_ONLY]


def _kind(node: Node) -> str:
    # The text itself is not shown: it may be a secret in the wrong place.
    if isinstance(node, MappingNode):
        return "a mapping"
    return "a list" if isinstance(node, SequenceNode) else "a single value"


# --- scalars ------------------------------------------------------------------------------------


def _wanted(known: AnyField) -> str:
    match known.type:
        case FieldDescriptor.TYPE_MESSAGE:
            return "a duration, as 90s, 15m, 1h or 1h30m"
        case FieldDescriptor.TYPE_ENUM:
            return f"one of {', '.join(enum_spellings(known.enum_type))}"
        case FieldDescriptor.TYPE_BOOL:
            return "true or false"
        case FieldDescriptor.TYPE_STRING:
            return "a text"
        case _:
            return "a number"


def _duration(text: str, _: AnyField) -> Message:
    return write_duration(parse_duration(text))


def _enum(text: str, known: AnyField) -> int:
    spellings = enum_spellings(known.enum_type)
    if text in spellings:
        return spellings[text]
    close = get_close_matches(text, spellings, n=1)
    advice = f"did you mean {close[0]}? " if close else ""
    raise ValueError(f"'{text}' is unknown; {advice}expected one of {', '.join(spellings)}")


def _boolean(text: str, _: AnyField) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"'{text}' is neither true nor false")
    return text == "true"


def _integer(text: str, known: AnyField) -> int:
    high = _INTEGERS[known.type]
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"'{text}' is not a whole number, as 1000")
    if len(text) > 20 or int(text) > high:
        raise ValueError(f"{text} is more than {high}")
    return int(text)


def _real(text: str, _: AnyField) -> float:
    if not text or not set(text) <= set("0123456789."):
        raise ValueError(f"'{text}' is not a number, as 0.1")
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"'{text}' is not a number, as 0.1") from None


def _string(text: str, known: AnyField) -> str:
    shown = text.replace("\n", "") if known.full_name in _MANY_LINES else text
    if not shown.isprintable():
        raise ValueError("has a control character or a lone surrogate; take it out")
    return text


_SCALARS: Final[dict[int, Callable[[str, AnyField], object]]] = {
    FieldDescriptor.TYPE_MESSAGE: _duration,
    FieldDescriptor.TYPE_ENUM: _enum,
    FieldDescriptor.TYPE_BOOL: _boolean,
    FieldDescriptor.TYPE_UINT32: _integer,
    FieldDescriptor.TYPE_UINT64: _integer,
    FieldDescriptor.TYPE_DOUBLE: _real,
    FieldDescriptor.TYPE_STRING: _string,
}
