"""Choose where an SA lands: the operator's wish against what a datapath has, and why not somewhere better."""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.datapath.backend import DatapathError, ErrorReason
from gateway.ipsec.placement import Engine, Placement


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One engine, and the reason in words for an operator."""

    engine: Engine
    reason: str
    """Why none of the engines that were preferred; empty for the first choice."""


def choose(
    wish: Placement, available: Sequence[Engine], *, why_not: dict[Engine, str] | None = None
) -> Choice:
    """Return the first engine of the wish that is available.

    Args:
        wish: Of the SA.
        available: What this datapath can place the SA on.
        why_not: What is known about engines that are not available.

    Raises:
        DatapathError: PLACEMENT_UNAVAILABLE: nothing that the wish allows is available.
    """
    reasons = why_not or {}
    wanted = wish.prefer if wish.require is None else (wish.require,)
    refused: dict[str, list[str]] = {}
    for engine in wanted:
        if engine in available:
            return Choice(engine=engine, reason=_in_words(refused))
        refused.setdefault(reasons.get(engine, "not in this datapath"), []).append(engine.value)
    verb = "wanted" if wish.require is None else "required"
    raise DatapathError(
        ErrorReason.PLACEMENT_UNAVAILABLE,
        f"{', '.join(engine.value for engine in wanted) or 'nothing'} is {verb}; "
        f"this datapath has {', '.join(engine.value for engine in available)} ({_in_words(refused)})",
    )


def _in_words(refused: dict[str, list[str]]) -> str:
    """Return every reason once, behind the engines it is of."""
    return "; ".join(f"{', '.join(engines)}: {why}" for why, engines in refused.items())
