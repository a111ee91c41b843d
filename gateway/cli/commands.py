"""The command line as data: every command with its options, read from the parsers that run it.

What `argparse` knows of itself has no public names; this file alone looks there. Completion and man pages
are made of these records.
"""

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass

_PATHS = re.compile(r"(PATH|FILE|DIR|CAPTURE)$")
_FORMAT = re.compile(r"%\((\w+)\)s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """An option, or a value without one."""

    flags: tuple[str, ...]
    """`-o`, `--output`; none for a value without an option."""
    value: str
    """What stands for its value: `FILE`; empty for an option that is on or off."""
    choices: tuple[str, ...]
    help: str
    is_required: bool
    is_repeated: bool

    @property
    def is_path(self) -> bool:
        """Whether its value is a file or directory."""
        return bool(_PATHS.search(self.value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command, with those below it."""

    words: tuple[str, ...]
    """As typed, the program first: `ipsecgw`, `list`, `sas`."""
    help: str
    """One line, as the list of commands has it."""
    arguments: tuple[Argument, ...]
    commands: tuple["Command", ...]

    def walk(self) -> Iterator["Command"]:
        """Yield this command and all below it, parents first."""
        yield self
        for command in self.commands:
            yield from command.walk()


def describe(parser: argparse.ArgumentParser, words: tuple[str, ...] = (), text: str = "") -> Command:
    """Return the command that a parser reads.

    Args:
        parser: All of it loaded.
        words: How it is called; none for its own name.
        text: One line about it; empty for its description.
    """
    words = words or (parser.prog,)
    arguments: list[Argument] = []
    commands: list[Command] = []
    for action in parser._actions:  # noqa: SLF001 - argparse has no public way to list what it reads
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - the same
            texts = {choice.dest: choice.help or "" for choice in action._choices_actions}  # noqa: SLF001 - the same
            commands += [
                describe(below, (*words, name), texts.get(name, "")) for name, below in action.choices.items()
            ]
        elif action.help != argparse.SUPPRESS:
            arguments.append(_argument(action))
    return Command(
        words=words,
        help=text or parser.description or "",
        arguments=tuple(arguments),
        commands=tuple(commands),
    )


def _argument(action: argparse.Action) -> Argument:
    choices = tuple(str(choice) for choice in action.choices or ())
    value = ""
    if action.nargs != 0:
        value = action.metavar if isinstance(action.metavar, str) else ""
        value = value or (f"{{{','.join(choices)}}}" if choices else action.dest.upper())
    return Argument(
        flags=tuple(action.option_strings),
        value=value,
        choices=choices,
        help=_FORMAT.sub(lambda found: str(getattr(action, found[1], "")), action.help or "").replace(
            "%%", "%"
        ),
        is_required=action.required,
        is_repeated=action.nargs in ("*", "+"),
    )
