"""Which controller is heard: one that was superseded is not, however late its words come."""

from gateway.datapath.backend import DatapathError, ErrorReason


class Generation:
    """The newest generation that was reconciled."""

    def __init__(self) -> None:
        self._newest = 0

    def reconcile(self, generation: int) -> None:
        """Hear nobody older from now on."""
        self._newest = max(self._newest, generation)

    def check(self, generation: int) -> None:
        """Check that who speaks was not superseded; 0 is for those who do not count.

        Raises:
            DatapathError: STALE_GENERATION: it was.
        """
        if 0 < generation < self._newest:
            raise DatapathError(
                ErrorReason.STALE_GENERATION,
                f"generation {generation} is over, {self._newest} is in force",
            )
