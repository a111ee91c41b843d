"""The syntax of strongswan.conf(5), which swanctl.conf is written in: nested sections of `key = value`.

Sections of one name are merged. `include PATTERN` may stand anywhere. `name : base, other.base { ... }`
inherits settings and sections of others, named from the root with dots; its own come first, and a key
without value takes an inherited one away.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gateway.config.foreign.statement import ForeignConfigError, Notes, Place, Setting, included, read_text

_SKIP: Final = re.compile(r"(?:[ \t\r]+|#[^\n]*)*")
_NAME: Final = re.compile(r'[^#{}:,="\r\n\t ]+')
_WORD: Final = re.compile(r'[^#}"\r\n\t ]+')
_STRING: Final = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_INCLUDE: Final = re.compile(r'include[ \t]+(?!=)(?:"([^"\n]*)"|((?:\\[ "#}]|[^\s"#}])+))')
_ESCAPE: Final = re.compile(r"\\(\r?\n|.)", re.DOTALL)
_MEANING: Final = {"n": "\n", "r": "\r", "t": "\t", "\n": "", "\r\n": ""}


@dataclass(slots=True)
class Section:
    """One section with what is in it, in the order of the file."""

    name: str
    place: Place
    settings: dict[str, Setting] = field(default_factory=dict)
    sections: dict[str, "Section"] = field(default_factory=dict)
    bases: list[tuple[str, Place]] = field(default_factory=list)

    def section(self, name: str) -> "Section":
        """Return a section below this one; an empty one if there is none."""
        return self.sections.get(name, Section(name, self.place))


def read_sections(path: Path, notes: Notes) -> Section:
    """Return the root section of a file, with what it includes and refers to.

    Raises:
        ForeignConfigError: It is not of this syntax, or cannot be read.
    """
    root = Section("", Place(str(path), 1))
    _Parser(path, notes, 0).read_into(root)
    return _resolved(root, root, notes, ())


@dataclass(slots=True)
class _Parser:
    path: Path
    notes: Notes
    depth: int
    text: str = ""
    at: int = 0

    def read_into(self, root: Section) -> None:
        self.text = read_text(self.path)
        self._body(root, is_root=True)

    @property
    def place(self) -> Place:
        return Place(str(self.path), self.text.count("\n", 0, self.at) + 1)

    def _fail(self, what: str) -> ForeignConfigError:
        return ForeignConfigError(f"{self.place}: {what}")

    def _skip(self, *, lines: bool) -> str:
        """Pass over blanks and comments; return the character that stands there, or nothing at the end."""
        while True:
            found = _SKIP.match(self.text, self.at)
            assert found is not None  # it matches nothing too
            self.at = found.end()
            if not lines or self.text[self.at : self.at + 1] != "\n":
                return self.text[self.at : self.at + 1]
            self.at += 1

    def _body(self, section: Section, *, is_root: bool) -> None:
        while mark := self._skip(lines=True):
            if mark == "}":
                if is_root:
                    raise self._fail("a '}' closes nothing")
                self.at += 1
                return
            if found := _INCLUDE.match(self.text, self.at):
                self._include(found, section)
                continue
            self._statement(section)
        if not is_root:
            raise self._fail(
                f"the section {section.name}, opened in line {section.place.line}, is not closed"
            )

    def _include(self, found: re.Match[str], section: Section) -> None:
        pattern = found[1] if found[1] is not None else re.sub(r'\\([ "#}])', r"\1", found[2])
        place = self.place
        self.at = found.end()
        for path in included(pattern, place, self.notes, self.depth):
            _Parser(path, self.notes, self.depth + 1).read_into(section)

    def _statement(self, section: Section) -> None:
        place = self.place
        name = self._name("a name")
        mark = self._skip(lines=False)
        if mark == "=":
            self.at += 1
            section.settings[name] = Setting(name, self._value(), place)
            return
        below = section.sections.setdefault(name, Section(name, place))
        if mark == ":":
            self.at += 1
            below.bases += [(base, place) for base in self._bases()]
        if self._skip(lines=True) != "{":
            raise self._fail(f"'=' or '{{' is expected after {name}")
        self.at += 1
        self._body(below, is_root=False)

    def _name(self, what: str) -> str:
        self._skip(lines=True)
        found = _NAME.match(self.text, self.at)
        if found is None:
            raise self._fail(f"{what} is expected, found {self.text[self.at : self.at + 1]!r}")
        self.at = found.end()
        return found[0]

    def _bases(self) -> Iterator[str]:
        yield self._name("the name of a section")
        while self._skip(lines=True) == ",":
            self.at += 1
            yield self._name("the name of a section")

    def _value(self) -> str:
        """Return the words and strings up to the end of the line or the section, joined by blanks."""
        parts: list[str] = []
        while (mark := self._skip(lines=False)) not in ("", "\n", "}"):
            if mark == '"':
                found = _STRING.match(self.text, self.at)
                if found is None:
                    raise self._fail("a string is not closed by '\"'")
                parts.append(_ESCAPE.sub(lambda escape: _MEANING.get(escape[1], escape[1]), found[1]))
            else:
                found = _WORD.match(self.text, self.at)
                assert found is not None  # neither blank, comment, string nor end
                parts.append(found[0])
            self.at = found.end()
        return " ".join(parts)


# --- references ---------------------------------------------------------------------------------


def _resolved(section: Section, root: Section, notes: Notes, above: tuple[int, ...]) -> Section:
    """Return a section with all that it and those below it inherit."""
    if id(section) in above:
        raise ForeignConfigError(f"{section.place}: the section {section.name} refers to itself")
    above = (*above, id(section))
    settings, sections = dict(section.settings), dict(section.sections)
    for name, place in section.bases:
        base = _find(root, name)
        if base is None:
            notes.add(place, section.name, f"refers to the section {name}, which does not exist")
            continue
        inherited = _resolved(base, root, notes, above)
        settings = {**inherited.settings, **settings}
        sections = _merged(inherited.sections, sections)
    return Section(
        section.name,
        section.place,
        {key: setting for key, setting in settings.items() if setting.value},
        {name: _resolved(below, root, notes, above) for name, below in sections.items()},
    )


def _merged(base: Mapping[str, Section], own: Mapping[str, Section]) -> dict[str, Section]:
    merged = dict(base)
    for name, section in own.items():
        under = base.get(name)
        merged[name] = (
            section
            if under is None
            else Section(
                name,
                section.place,
                {**under.settings, **section.settings},
                _merged(under.sections, section.sections),
                [*section.bases],
            )
        )
    return merged


def _find(root: Section, dotted: str) -> Section | None:
    section: Section | None = root
    for name in dotted.split("."):
        section = None if section is None else section.sections.get(name)
    return section
