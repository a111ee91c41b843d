"""How often Python looks for garbage that the counting of references does not find."""

import gc
from typing import Final

OBJECTS_BETWEEN_COLLECTIONS: Final = 20_000
"""Python looks when there are so many more objects than before; by itself, when there are 700.

A pair of SAs keeps some seventy objects, so that it would look at every tenth handshake, for 3 to 4 % of
their time; and it finds nothing, since neither handshakes nor rekeys leave cycles behind. What shells do
leave is kept back for longer: a few megabytes at most.
"""


def collect_less_often() -> None:
    """Look for garbage in cycles less often, in this process."""
    _, second, third = gc.get_threshold()
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS, second, third)
