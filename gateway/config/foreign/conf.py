"""The syntax of ipsec.conf(5), of strongSwan and of libreswan: `conn NAME` and indented `keyword=value`.

`also=NAME` inherits another section of the same kind, `alsoflip=NAME` (libreswan) with left and right
exchanged, and a section `%default` all others of its kind. What a section says itself comes first.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gateway.config.foreign.statement import ForeignConfigError, Notes, Place, Setting, included, read_text

DEFAULT: Final = "%default"

_HEAD: Final = re.compile(r"(config|conn|ca)[ \t]+(\S+)\s*$")
_INCLUDE: Final = re.compile(r"include[ \t]+(?:\"([^\"]*)\"|(\S+))\s*$")
_VERSION: Final = re.compile(r"version\b")
_PAIR: Final = re.compile(r"([^\s=]+)\s*=\s*(.*)$", re.DOTALL)
_STRING: Final = re.compile(r'"((?:[^"\\]|\\.)*)"$', re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_MEANING: Final = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}


@dataclass(slots=True)
class ConfSection:
    """One section, before or after it inherited."""

    kind: str
    name: str
    place: Place
    settings: dict[str, Setting] = field(default_factory=dict)
    also: list[Setting] = field(default_factory=list)
    """`also` and `alsoflip`, in their order."""


@dataclass(slots=True)
class Conf:
    """A configuration with all its includes."""

    sections: dict[tuple[str, str], ConfSection] = field(default_factory=dict)

    def of_kind(self, kind: str) -> Iterator[ConfSection]:
        """Yield sections of a kind, in the order of the files, without `%default`."""
        for (of, name), section in self.sections.items():
            if of == kind and name != DEFAULT:
                yield section

    def templates(self, kind: str) -> frozenset[str]:
        """Return the names that some `also` refers to."""
        sections = [section for (of, _), section in self.sections.items() if of == kind]
        return frozenset(setting.value for section in sections for setting in section.also)

    def effective(self, section: ConfSection, notes: Notes) -> dict[str, Setting]:
        """Return the settings of a section with those it inherits.

        Raises:
            ForeignConfigError: It inherits itself.
        """
        default = self.sections.get((section.kind, DEFAULT))
        inherited = {} if default is None else self._with_also(default, notes, ())
        return {**inherited, **self._with_also(section, notes, ())}

    def _with_also(self, section: ConfSection, notes: Notes, above: tuple[str, ...]) -> dict[str, Setting]:
        if section.name in above:
            raise ForeignConfigError(f"{section.place}: {section.kind} {section.name} inherits itself")
        settings: dict[str, Setting] = {}
        for also in section.also:
            base = self.sections.get((section.kind, also.value))
            if base is None:
                notes.add(also.place, also.keyword, f"there is no {section.kind} {also.value}")
                continue
            below = self._with_also(base, notes, (*above, section.name))
            settings |= _flipped(below) if also.keyword == "alsoflip" else below
        return {**settings, **section.settings}


def _flipped(settings: dict[str, Setting]) -> dict[str, Setting]:
    """Return settings with left and right exchanged; a note still names the line as it stands."""
    other = {"left": "right", "right": "left"}
    flipped = {}
    for keyword, setting in settings.items():
        side = next((side for side in other if keyword.startswith(side)), "")
        flipped[other[side] + keyword.removeprefix(side) if side else keyword] = setting
    return flipped


def read_conf(path: Path, notes: Notes) -> Conf:
    """Return the sections of a file and of what it includes.

    Raises:
        ForeignConfigError: It cannot be read.
    """
    conf = Conf()
    _read_file(path, conf, notes, 0)
    return conf


def _read_file(path: Path, conf: Conf, notes: Notes, depth: int) -> None:
    section: ConfSection | None = None
    for place, text in _logical_lines(path):
        statement = text.strip()
        if found := _INCLUDE.match(statement):
            for file in included(found[1] or found[2], place, notes, depth):
                _read_file(file, conf, notes, depth + 1)
        elif text[0] in " \t":
            if section is None:
                notes.add(place, statement.split("=")[0].strip(), "is in no section")
            else:
                _add_setting(section, statement, place, notes)
        elif found := _HEAD.match(statement):
            section = conf.sections.setdefault((found[1], found[2]), ConfSection(found[1], found[2], place))
        elif not _VERSION.match(statement):
            section = None
            notes.add(place, statement.split()[0], "is no section, and not indented: not understood")


def _add_setting(section: ConfSection, statement: str, place: Place, notes: Notes) -> None:
    found = _PAIR.match(statement)
    if found is None:
        notes.add(place, statement.split(maxsplit=1)[0], "has no '='")
        return
    setting = Setting(found[1].lower(), _value(found[2]), place)
    if setting.keyword in ("also", "alsoflip"):
        section.also.append(setting)
        return
    earlier = section.settings.get(setting.keyword)
    if earlier is not None:
        notes.add(earlier.place, earlier.keyword, f"is given again in {place}, which counts")
    section.settings[setting.keyword] = setting


def _value(text: str) -> str:
    if found := _STRING.match(text):
        return _ESCAPE.sub(lambda escape: _MEANING.get(escape[1], escape[1]), found[1])
    return " ".join(text.split())


def _logical_lines(path: Path) -> Iterator[tuple[Place, str]]:
    """Yield lines without comments, and strings over several lines as one, where they begin."""
    lines = iter(enumerate(read_text(path).split("\n"), 1))
    for number, raw in lines:
        text, is_open = _without_comment(raw.rstrip("\r"))
        while is_open and text.endswith("\\"):
            following = next(lines, None)
            if following is None:
                break
            text, is_open = _without_comment(text[:-1] + following[1].rstrip("\r"))
        if is_open:
            raise ForeignConfigError(f"{path}:{number}: a string is not closed by '\"'")
        if text.strip():
            yield Place(str(path), number), text.rstrip()


def _without_comment(text: str) -> tuple[str, bool]:
    """Return a line up to its comment, and whether a string is open at its end."""
    in_string = False
    for i, character in enumerate(text):
        if character == '"' and text[i - 1 : i] != "\\":
            in_string = not in_string
        elif character == "#" and not in_string and (i == 0 or text[i - 1] in " \t"):
            return text[:i], False
    return text, in_string
