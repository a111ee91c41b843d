"""Read TOML tables into frozen records: a key too many or too few, or a value of another type, is refused."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

from gateway.ipsec.errors import GatewayError

#: What TOML has for each annotation of a record; whatever else was made a record before.
_LISTS: Final = {tuple[str, ...]: str, tuple[int, ...]: int}
_SCALARS: Final = (str, int, bool)


def read_list(
    content: Mapping[str, Any], key: str, of: type, place: str, error: type[GatewayError]
) -> list[Any]:
    """Return a list whose items are all of one type.

    Raises:
        GatewayError: Of the class `error`: it is missing, or something else; the text begins with `place`.
    """
    value = content.get(key)
    if not isinstance(value, list) or not all(type(item) is of for item in value):
        raise error(f"{place}: {key}: expected a list of {of.__name__}")
    return value


def read_record(record: Any, content: Mapping[str, Any], place: str, error: type[GatewayError]) -> Any:
    """Return a record of that class, after a look at every key and its type.

    Raises:
        GatewayError: Of the class `error`; the text begins with `place`.
    """
    known = {field.name: field.type for field in fields(record)}
    strange = content.keys() - known.keys()
    missing = known.keys() - content.keys()
    if strange or missing:
        words = [f"unknown key {key}" for key in sorted(strange)]
        words += [f"missing key {key}" for key in sorted(missing)]
        raise error(f"{place}: {', '.join(words)}")
    values = {}
    for key, kind in known.items():
        value = content[key]
        if kind in _LISTS:
            of = _LISTS[kind]  # type: ignore[index]  # it is a key of it
            value = tuple(read_list(content, key, of, place, error))
        elif kind in _SCALARS and type(value) is not kind:
            raise error(f"{place}: {key}: expected {getattr(kind, '__name__', kind)}, not {value!r}")
        values[key] = value
    return record(**values)
