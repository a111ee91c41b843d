"""The root of the exception tree.

Every floor derives its own root from `GatewayError`; anything else escaping a floor is a bug.
"""


class GatewayError(Exception):
    """Something the gateway can explain; its text says what was expected and what came."""


class VocabularyError(GatewayError, ValueError):
    """A value is not one of the nouns it claims to be (bad proposal, prefix, identity, ...).

    Attributes:
        column: 0-based offset of the offending word in the parsed text; `None` if it is not one word.
    """

    def __init__(self, message: str, *, column: int | None = None) -> None:
        super().__init__(message)
        self.column = column
