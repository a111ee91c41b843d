"""What a foreign file says, line by line, and what is told of lines that could not be carried.

Every keyword of a section is either taken by the code that carries it, or judged by a table of `Rule`s.
Nothing is passed over in silence: what no table knows is told as unknown.
"""

import glob
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Final

from gateway.ipsec.errors import GatewayError

MAX_FILE_BYTES: Final = 8 << 20
"""More is no configuration."""
MAX_INCLUDE_DEPTH: Final = 10
"""As in strongSwan and libreswan (ipsec.secrets(5))."""

YES: Final = frozenset({"yes", "true", "1", "on", "enabled"})
NO: Final = frozenset({"no", "false", "0", "off", "disabled"})


class ForeignConfigError(GatewayError):
    """A foreign configuration cannot be read at all; the text has file and line where there is one."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where something stands."""

    file: str
    line: int
    """From 1."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Loss(Enum):
    """How much is lost with a keyword that cannot be carried."""

    LINE = "not carried"
    """The rest means what it meant, or something stricter."""
    OWNER = "left out"
    """The rest would admit, protect or send something else: all that it belongs to is left out."""


@dataclass(frozen=True, slots=True, order=True)
class Note:
    """One line that was not carried, or not as it stands."""

    place: Place
    keyword: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.keyword}: {self.text}"


@dataclass(frozen=True, slots=True)
class Setting:
    """One `keyword = value`; the keyword as its dialect spells it."""

    keyword: str
    value: str
    place: Place

    @property
    def items(self) -> tuple[str, ...]:
        """The value as a list separated by commas, without empty items."""
        return tuple(item.strip() for item in self.value.split(",") if item.strip())


@dataclass(frozen=True, slots=True)
class Rule:
    """What becomes of a keyword that has no counterpart here."""

    reason: str
    harmless: Collection[str] = ()
    """Values (lower case) that say what is so here anyway: nothing is lost with them."""
    loss: Loss = Loss.LINE


Rules = Mapping[str, Rule]


def line(reason: str, harmless: Collection[str] = ()) -> Rule:
    """Return a rule that loses the line."""
    return Rule(reason, harmless)


def owner(reason: str, harmless: Collection[str] = ()) -> Rule:
    """Return a rule that loses all that the line belongs to."""
    return Rule(reason, harmless, Loss.OWNER)


@dataclass(slots=True)
class Notes:
    """What is told of one import, in the order of the files."""

    _found: dict[Note, None] = field(default_factory=dict)

    def add(self, place: Place, keyword: str, text: str) -> None:
        """Note one thing; the same thing is told once."""
        self._found[Note(place, keyword, text)] = None

    def __iter__(self) -> Iterator[Note]:
        return iter(sorted(self._found))


class Statements:
    """The settings of one section while they are carried: each is taken once, and what is left is judged."""

    def __init__(self, settings: Mapping[str, Setting], notes: Notes, *, place: Place) -> None:
        self._settings = settings
        self._left = dict(settings)
        self._notes = notes
        self.place = place
        self.is_left_out = False

    def take(self, keyword: str) -> Setting | None:
        """Return a setting that is carried, or None where it is absent or empty."""
        setting = self._left.pop(keyword, None) or self._settings.get(keyword)
        return setting if setting is not None and setting.value else None

    def take_first(self, *keywords: str) -> Setting | None:
        """Return the first that is there of several keywords for one thing; further ones are told."""
        found = [setting for keyword in keywords if (setting := self.take(keyword))]
        for beside in found[1:]:
            self.lose(beside, f"is given beside {found[0].keyword}, which counts")
        return found[0] if found else None

    def lose(self, setting: Setting, reason: str) -> None:
        """Note that a line is not carried."""
        self._notes.add(setting.place, setting.keyword, reason)

    def of_no_use(self, keywords: Collection[str], reason: str) -> None:
        """Note those of some keywords that are there, and mean nothing beside what else is said."""
        for keyword in keywords:
            if setting := self.take(keyword):
                self.lose(setting, reason)

    def leave_out(self, setting: Setting, reason: str) -> None:
        """Note that all that the line belongs to is left out because of it."""
        self.is_left_out = True
        self._notes.add(setting.place, setting.keyword, f"{reason}; left out with all it belongs to")

    def leave_out_whole(self, keyword: str, reason: str) -> None:
        """Note that all of this is left out for something that no single line says."""
        self.is_left_out = True
        self._notes.add(self.place, keyword, f"{reason}; left out")

    def judge(self, rules: Rules) -> None:
        """Judge what was not taken; what `rules` do not know is told as unknown."""
        for keyword, setting in self._left.items():
            rule = rules.get(keyword)
            if rule is None:
                self.lose(setting, "is not a documented keyword here; is it misspelt?")
            elif setting.value and setting.value.lower() not in rule.harmless:
                (self.leave_out if rule.loss is Loss.OWNER else self.lose)(setting, rule.reason)
        self._left.clear()

    def word(self, keyword: str, meanings: Mapping[str, str]) -> str | None:
        """Return what a setting with few values means here; another value is told."""
        setting = self.take(keyword)
        if setting is None:
            return None
        meaning = meanings.get(setting.value.lower())
        if meaning is None:
            self.lose(setting, f"'{setting.value}' is unknown; one of {', '.join(meanings)} is expected")
        return meaning

    def flag(self, keyword: str) -> bool | None:
        """Return a setting that is yes or no, None where it is absent; another value is told."""
        setting = self.take(keyword)
        if setting is None:
            return None
        if setting.value.lower() in YES | NO:
            return setting.value.lower() in YES
        self.lose(setting, f"'{setting.value}' is neither yes nor no")
        return None


def read_text(path: Path) -> str:
    """Return the text of a file.

    Raises:
        ForeignConfigError: It cannot be read, or is too long.
    """
    try:
        with path.open("rb") as file:
            contents = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        detail = error.strerror if isinstance(error, OSError) else "not a path"
        raise ForeignConfigError(f"{path} cannot be read: {detail}") from None
    if len(contents) > MAX_FILE_BYTES:
        raise ForeignConfigError(f"{path} is over {MAX_FILE_BYTES} bytes; is it the right file?")
    # Names and comments of old files are often Latin-1; no byte of a value may be lost.
    return contents.decode("utf-8", errors="surrogateescape")


def included(pattern: str, place: Place, notes: Notes, depth: int) -> Iterable[Path]:
    """Return the files of an `include`, sorted; relative ones beside the including file.

    A pattern without wildcards that names no file is told; one with wildcards may match nothing.
    """
    if depth >= MAX_INCLUDE_DEPTH:
        notes.add(place, "include", f"is nested more than {MAX_INCLUDE_DEPTH} deep; not followed")
        return ()
    full = Path(place.file).parent / pattern
    found = sorted(Path(name) for name in glob.glob(str(full)))
    if not found and not glob.has_magic(pattern):
        notes.add(place, "include", f"{full} does not exist")
    return [path for path in found if path.is_file()]
