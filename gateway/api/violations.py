"""What is wrong with a message, field by field, all of it at once.

`Violations` collects while a message is read; `InvalidArgument` carries them out. The service answers
with google.rpc.BadRequest, the configuration file's reader with `file:line:column`.
"""

from dataclasses import dataclass

from gateway.ipsec.errors import GatewayError


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing wrong with one field."""

    field: str
    """As `connections[0].children[1].esp.proposals[0]`."""
    description: str
    """What is wrong, and what would be right."""
    offset: int = 0
    """Where in the field's text the offending part starts, in characters."""


class InvalidArgument(GatewayError, ValueError):
    """A message is not well-formed; `violations` has at least one entry."""

    def __init__(self, violations: tuple[Violation, ...]) -> None:
        super().__init__(
            "; ".join(f"{v.field}: {v.description}" if v.field else v.description for v in violations)
        )
        self.violations = violations


class Violations:
    """A growing list of violations."""

    def __init__(self) -> None:
        self._found: list[Violation] = []

    def add(self, field: str, description: str, offset: int = 0) -> None:
        """Note one violation."""
        self._found.append(Violation(field, description, offset))

    def __len__(self) -> int:
        return len(self._found)

    def found(self) -> tuple[Violation, ...]:
        """Return what was noted, in order."""
        return tuple(self._found)

    def raise_if_any(self) -> None:
        """Raise everything that was noted.

        Raises:
            InvalidArgument: Something was noted.
        """
        if self._found:
            raise InvalidArgument(tuple(self._found))


def at(path: str, name: str, index: int | None = None) -> str:
    """Return the path of a field below `path`."""
    below = name if index is None else f"{name}[{index}]"
    return f"{path}.{below}" if path else below
