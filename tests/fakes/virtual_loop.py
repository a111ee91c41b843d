"""An asyncio loop whose time jumps: every sleep and timer is instant, and in the right order."""

import asyncio
import selectors
from typing import Any


class _JumpingSelector(selectors.DefaultSelector):
    """Asks for ready descriptors without waiting, and lets the loop's clock jump instead."""

    def __init__(self) -> None:
        super().__init__()
        self.loop: VirtualLoop | None = None

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if ready or self.loop is None:
            return ready
        if timeout is None:
            # Nothing is planned: only another thread could wake us up, which no test of this kind has.
            return super().select(1.0)
        self.loop.jump(timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """See module."""

    def __init__(self) -> None:
        self._now = 1000.0
        selector = _JumpingSelector()
        super().__init__(selector)
        selector.loop = self

    def time(self) -> float:
        return self._now

    def jump(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds


async def pass_time(seconds: float) -> None:
    """Let virtual time pass; in a real loop this would be sleeping."""
    assert isinstance(asyncio.get_running_loop(), VirtualLoop), "only virtual time passes in unit tests"
    await asyncio.sleep(seconds)
