"""What is wrong with a configuration file, with the place of each mistake."""

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.ipsec.errors import GatewayError


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Problem:
    """One thing wrong with a file."""

    file: str
    line: int
    """From 1; 0 where the whole file is meant."""
    column: int
    """From 1, in characters."""
    path: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}"


class ConfigError(GatewayError):
    """A configuration file cannot be used.

    Attributes:
        problems: Everything that is wrong with it, in the order of the file.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))
