"""Messages as plain data, spelled as in the configuration file: what `--json` prints and YAML holds.

Enum values are lower case and without prefix, durations as `1h30m`, timestamps in UTC. What a message does
not say (an absent message, an enum that is unspecified) is absent; in the configuration's spelling so is
everything that is its default. Binary fields are keys, which are write only: they are never printed.
"""

import json
from typing import Any, Final, TypeAlias

import yaml
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.api.duration import format_duration

# Plain data is whatever JSON can say.
Plain: TypeAlias = Any

# Descriptors come from either of protobuf's two implementations, whose types have no ancestor in common.
AnyDescriptor: TypeAlias = Any
AnyEnum: TypeAlias = Any
AnyField: TypeAlias = Any

DURATION: Final = Duration.DESCRIPTOR.full_name
TIMESTAMP: Final = Timestamp.DESCRIPTOR.full_name


def enum_spellings(enum: AnyEnum) -> dict[str, int]:
    """Return the values of an enum as files and JSON spell them, without the unspecified one."""
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return {value.name.removeprefix(prefix).lower(): value.number for value in enum.values if value.number}


def to_plain(message: Message, *, defaults: bool = True) -> Plain:
    """Return a message as plain data.

    Args:
        message: Any message of ours.
        defaults: Whether empty lists, zeros and empty texts appear too.
    """
    if message.DESCRIPTOR.full_name == DURATION:
        assert isinstance(message, Duration)
        return format_duration(message.seconds + message.nanos / 1e9)
    if message.DESCRIPTOR.full_name == TIMESTAMP:
        assert isinstance(message, Timestamp)
        return message.ToJsonString()
    plain = {}
    field: AnyField
    for field in message.DESCRIPTOR.fields:
        if field.type == FieldDescriptor.TYPE_BYTES:
            continue
        value = getattr(message, field.name)
        if field.is_repeated:
            if value or defaults:
                plain[field.name] = [_plain_value(field, item, defaults=defaults) for item in value]
        elif field.has_presence:
            if message.HasField(field.name):
                plain[field.name] = _plain_value(field, value, defaults=defaults)
        elif value or (defaults and field.type != FieldDescriptor.TYPE_ENUM):
            plain[field.name] = _plain_value(field, value, defaults=defaults)
    return plain


def _plain_value(field: AnyField, value: Any, *, defaults: bool) -> Plain:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return to_plain(value, defaults=defaults)
    if field.type == FieldDescriptor.TYPE_ENUM:
        names = {number: name for name, number in enum_spellings(field.enum_type).items()}
        # A value newer than we are has only its number.
        return names.get(value, value)
    return value


def to_json(message: Message, *, indent: int | None = 2) -> str:
    """Return a message as JSON."""
    return json.dumps(to_plain(message), indent=indent, ensure_ascii=False)


def to_yaml(message: Message) -> str:
    """Return a message as the YAML of the configuration file, without what is default."""
    text: str = yaml.safe_dump(
        to_plain(message, defaults=False), sort_keys=False, allow_unicode=True, width=100
    )
    return text
