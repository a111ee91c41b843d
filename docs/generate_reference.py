"""Write docs/configuration-reference.md and docs/api-reference.md from proto/ and its comments.

Usage: python docs/generate_reference.py [--check]
"""

import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)
from grpc_tools import protoc

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from gateway.api.roles import role_needed  # noqa: E402 - found only with the line above

DOCS = ROOT / "docs"
CONFIG = ".gateway.api.control.v1.Config"
_SCALARS = {
    FieldDescriptorProto.TYPE_BOOL: "true or false",
    FieldDescriptorProto.TYPE_STRING: "text",
    FieldDescriptorProto.TYPE_BYTES: "bytes",
    FieldDescriptorProto.TYPE_DOUBLE: "number",
    FieldDescriptorProto.TYPE_UINT32: "whole number",
    FieldDescriptorProto.TYPE_UINT64: "whole number",
    FieldDescriptorProto.TYPE_INT32: "whole number",
    FieldDescriptorProto.TYPE_INT64: "whole number",
    FieldDescriptorProto.TYPE_FIXED32: "whole number",
    FieldDescriptorProto.TYPE_FIXED64: "whole number",
}
_NAMED = (FieldDescriptorProto.TYPE_MESSAGE, FieldDescriptorProto.TYPE_ENUM)
_WELL_KNOWN = {
    ".google.protobuf.Duration": "duration",
    ".google.protobuf.Timestamp": "time",
    ".google.protobuf.FieldMask": "field mask",
    ".google.protobuf.Any": "any message",
    ".google.rpc.Status": "`google.rpc.Status`",
}

CONFIGURATION_HEAD = """<!-- Written by docs/generate_reference.py from proto/: do not edit. -->
# Configuration reference

Every key that the configuration file takes: the fields of the message `Config`, with the comments of
`proto/gateway/api/control/v1/connection.proto`. [configuration.md](configuration.md) explains them with
examples. The file is YAML: names are as here, enumerated values in lower case and without the name of their
enumeration, durations as `90s`, `15m`, `1h` or `1h30m`. Of those that are "one of" the same, give one at
most.
"""
API_HEAD = """<!-- Written by docs/generate_reference.py from proto/: do not edit. -->
# API reference

Every service, method and message of `proto/`, but for those of the configuration, which have
[a page of their own](configuration-reference.md). The servers have gRPC reflection, so that `grpcurl` needs
no files. The role is what a caller needs: see [security.md](security.md).
"""


@dataclass(frozen=True)
class Named:
    """A message, an enumeration or a service, with its comment and those of its parts."""

    full_name: str
    proto: DescriptorProto | EnumDescriptorProto | ServiceDescriptorProto
    comment: str
    parts: tuple[str, ...]

    @property
    def is_map_entry(self) -> bool:
        """Whether it only says what a map is from and to."""
        return isinstance(self.proto, DescriptorProto) and self.proto.options.map_entry


def main() -> int:
    """Write the pages, or with --check say which are not as they would be written."""
    named = {one.full_name: one for one in read(compile_protos())}
    config = dict.fromkeys(reachable(named, [CONFIG]))
    services = [one for one in named.values() if isinstance(one.proto, ServiceDescriptorProto)]
    others = [
        one
        for one in named.values()
        if one.full_name not in config and one not in services and not one.is_map_entry
    ]
    configuration = Page(named, config)
    api = Page(named, dict.fromkeys(one.full_name for one in (*services, *others)))
    pages = {
        "configuration-reference.md": CONFIGURATION_HEAD + configuration.text("api-reference.md"),
        "api-reference.md": API_HEAD + api.text("configuration-reference.md"),
    }
    if "--check" in sys.argv:
        stale = [name for name, text in pages.items() if not _is(DOCS / name, text)]
        if stale:
            print(f"stale: {', '.join(stale)}; run python docs/generate_reference.py", file=sys.stderr)
        return 1 if stale else 0
    for name, text in pages.items():
        (DOCS / name).write_text(text)
    return 0


def _is(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text


# --- reading --------------------------------------------------------------------------------------


def compile_protos() -> FileDescriptorSet:
    """Return what is in proto/, comments included."""
    sources = sorted(str(path.relative_to(ROOT / "proto")) for path in (ROOT / "proto").rglob("*.proto"))
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / "set"
        own = str(files("grpc_tools") / "_proto")
        arguments = ["protoc", f"-I{ROOT / 'proto'}", f"-I{own}", "--include_source_info"]
        if protoc.main([*arguments, f"--descriptor_set_out={target}", *sources]) != 0:
            raise SystemExit("protoc refused proto/: see above")
        return FileDescriptorSet.FromString(target.read_bytes())


def read(found: FileDescriptorSet) -> Iterator[Named]:
    """Yield everything that has a name, in the order of the files."""
    for file in found.file:
        comments = {
            tuple(place.path): " ".join(place.leading_comments.split())
            for place in file.source_code_info.location
        }
        kinds = (
            (6, "method", file.service),
            (4, "field", file.message_type),
            (5, "value", file.enum_type),
        )
        for number, part, protos in kinds:
            for index, proto in enumerate(protos):
                yield from _named(f".{file.package}", proto, (number, index), part, comments)


def _named(
    prefix: str,
    proto: DescriptorProto | EnumDescriptorProto | ServiceDescriptorProto,
    path: tuple[int, ...],
    part: str,
    comments: dict[tuple[int, ...], str],
) -> Iterator[Named]:
    parts = getattr(proto, part)
    full_name = f"{prefix}.{proto.name}"
    yield Named(
        full_name=full_name,
        proto=proto,
        comment=comments.get(path, ""),
        # Fields, values and methods all have the number 2 in their descriptors.
        parts=tuple(comments.get((*path, 2, index), "") for index in range(len(parts))),
    )
    if isinstance(proto, DescriptorProto):
        for number, kind, inner in ((3, "field", proto.nested_type), (4, "value", proto.enum_type)):
            for index, nested in enumerate(inner):
                yield from _named(full_name, nested, (*path, number, index), kind, comments)


def reachable(named: dict[str, Named], first: Iterable[str]) -> Iterator[str]:
    """Yield the messages and enumerations that messages consist of, themselves included."""
    pending, seen = list(first), set()
    while pending:
        name = pending.pop(0)
        if name in seen or name not in named:
            continue
        seen.add(name)
        yield name
        proto = named[name].proto
        if isinstance(proto, DescriptorProto):
            pending += [field.type_name for field in proto.field if field.type in _NAMED]


# --- writing --------------------------------------------------------------------------------------


class Page:
    """The sections of one page.

    Args:
        named: Everything there is.
        here: The full names of what this page is about, in order.
    """

    def __init__(self, named: dict[str, Named], here: dict[str, None]) -> None:
        self._named = named
        self._here = here
        self._other = ""

    def text(self, other: str) -> str:
        """Return the sections; what is not on this page is on `other`."""
        self._other = other
        return "".join(self._section(self._named[name]) for name in self._here)

    def _section(self, one: Named) -> str:
        rows = {
            ServiceDescriptorProto: self._methods,
            EnumDescriptorProto: self._values,
            DescriptorProto: self._fields,
        }
        comment = f"{one.comment}\n\n" if one.comment else ""
        table = "\n".join(rows[type(one.proto)](one))
        return f"\n## {_short(one.full_name)}\n\n{comment}{table}\n"

    def _methods(self, one: Named) -> Iterator[str]:
        yield "| method | takes | answers | role | what it does |"
        yield "|---|---|---|---|---|"
        assert isinstance(one.proto, ServiceDescriptorProto)
        for method, comment in zip(one.proto.method, one.parts, strict=True):
            role = role_needed(f"/{one.full_name[1:]}/{method.name}").value
            takes = _stream(self._link(method.input_type), method.client_streaming)
            answers = _stream(self._link(method.output_type), method.server_streaming)
            yield f"| `{method.name}` | {takes} | {answers} | {role} | {_cell(comment)} |"

    def _values(self, one: Named) -> Iterator[str]:
        assert isinstance(one.proto, EnumDescriptorProto)
        yield "| value | number | meaning |"
        yield "|---|---|---|"
        for value, comment in zip(one.proto.value, one.parts, strict=True):
            yield f"| `{value.name}` | {value.number} | {_cell(comment)} |"

    def _fields(self, one: Named) -> Iterator[str]:
        assert isinstance(one.proto, DescriptorProto)
        if not one.proto.field:
            yield "It has no fields."
            return
        yield "| field | type | meaning |"
        yield "|---|---|---|"
        for field, comment in zip(one.proto.field, one.parts, strict=True):
            kind = self._type(field)
            if field.HasField("oneof_index") and not field.proto3_optional:
                kind += f"; one of `{one.proto.oneof_decl[field.oneof_index].name}`"
            yield f"| `{field.name}` | {kind} | {_cell(comment)} |"

    def _type(self, field: FieldDescriptorProto) -> str:
        if field.type not in _NAMED:
            kind = _SCALARS[field.type]
        elif field.type_name in self._named and self._named[field.type_name].is_map_entry:
            entry = self._named[field.type_name].proto
            assert isinstance(entry, DescriptorProto)
            key, value = map(self._type, entry.field)
            return f"map of {key} to {value}"
        else:
            kind = _WELL_KNOWN.get(field.type_name) or self._link(field.type_name)
        return f"list of {kind}" if field.label == FieldDescriptorProto.LABEL_REPEATED else kind

    def _link(self, full_name: str) -> str:
        if full_name not in self._named:
            return f"`{full_name[1:]}`"
        page = "" if full_name in self._here else self._other
        anchor = _short(full_name).replace(".", "").lower()
        return f"[{_short(full_name)}]({page}#{anchor})"


def _stream(text: str, is_stream: bool) -> str:
    return f"stream of {text}" if is_stream else text


def _short(full_name: str) -> str:
    """Return a name from its first capital on: without its package."""
    words = full_name.split(".")
    return ".".join(word for word in words if word[:1].isupper())


def _cell(comment: str) -> str:
    return comment.replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
