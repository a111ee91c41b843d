"""`ipsecgw completion`: a script that lets the shell complete commands, options, choices and files.

It is for bash; zsh reads it after `autoload -U +X bashcompinit && bashcompinit`.
"""

import argparse
from collections.abc import Iterator

from gateway.cli.commands import Command, describe

_HEAD = """\
# Completion of ipsecgw for bash; for zsh after: autoload -U +X bashcompinit && bashcompinit
# Made by `ipsecgw completion`.
_ipsecgw() {
  local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} path=ipsecgw word commands
  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    _ipsecgw_commands "$path"
    [[ " $commands " == *" $word "* ]] && path="$path $word"
  done
  _ipsecgw_commands "$path"
  local files='' choices='' options='' arguments=''
  _ipsecgw_arguments "$path" "$before"
  if [[ -n $files ]]; then
    compopt -o filenames 2>/dev/null
    COMPREPLY=($(compgen -f -- "$current"))
  elif [[ -n $choices ]]; then
    COMPREPLY=($(compgen -W "$choices" -- "$current"))
  elif [[ $current == -* ]]; then
    COMPREPLY=($(compgen -W "$options" -- "$current"))
  elif [[ -n $commands ]]; then
    COMPREPLY=($(compgen -W "$commands" -- "$current"))
  elif [[ $arguments == files ]]; then
    compopt -o filenames 2>/dev/null
    COMPREPLY=($(compgen -f -- "$current"))
  else
    COMPREPLY=($(compgen -W "$arguments" -- "$current"))
  fi
}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing: there is one script."""
    parser.epilog = "For this shell: source <(ipsecgw completion)"


def run(_options: argparse.Namespace) -> int:
    """Print the script."""
    # The whole parser is needed, and main imports this module.
    from gateway.cli.main import build_parser  # noqa: PLC0415 - see above

    print(script(describe(build_parser(None))), end="")
    return 0


def script(program: Command) -> str:
    """Return the script of a program."""
    commands = tuple(program.walk())
    return "".join(f"{line}\n" for line in [*_HEAD.splitlines(), *_commands(commands), *_arguments(commands)])


def _commands(commands: tuple[Command, ...]) -> Iterator[str]:
    """Yield the function that tells which commands there are below one."""
    yield "_ipsecgw_commands() {"
    yield "  case $1 in"
    for command in commands:
        if command.commands:
            names = " ".join(below.words[-1] for below in command.commands)
            yield f"    {_quoted(' '.join(command.words))}) commands={_quoted(names)} ;;"
    yield "    *) commands='' ;;"
    yield "  esac"
    yield "}"


def _arguments(commands: tuple[Command, ...]) -> Iterator[str]:
    """Yield the function that tells what a command takes, and the value of the option before."""
    yield "_ipsecgw_arguments() {"
    yield '  case "$1 $2" in'
    for command in commands:
        path = " ".join(command.words)
        for argument in command.arguments:
            what = "files=1" if argument.is_path else f"choices={_quoted(' '.join(argument.choices))}"
            if argument.value and (argument.is_path or argument.choices):
                for flag in argument.flags:
                    yield f"    {_quoted(f'{path} {flag}')}) {what} ;;"
    yield "  esac"
    yield "  case $1 in"
    for command in commands:
        options = " ".join(flag for argument in command.arguments for flag in argument.flags)
        values = [argument for argument in command.arguments if not argument.flags]
        words = " ".join(choice for argument in values for choice in argument.choices)
        words = "files" if any(argument.is_path for argument in values) else words
        found = f"options={_quoted(options)}" + (f" arguments={_quoted(words)}" if words else "")
        yield f"    {_quoted(' '.join(command.words))}) {found} ;;"
    yield "  esac"
    yield "}"
    yield "complete -F _ipsecgw ipsecgw"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
