"""A clock that stands still until it is told to jump."""


class Clock:
    """Monotonic seconds, as the cores want them."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def jump_to(self, when: float) -> None:
        """Move to `when`; never back."""
        assert when >= self.now, f"the clock cannot go back from {self.now} to {when}"
        self.now = when
