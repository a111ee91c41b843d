"""What a datapath is not asked for, and why, in the words of docs/architecture.md: a test compares them."""

from typing import Final

import pytest

from gateway.datapath.backend import Datapath
from tests.conformance.engine_methods import METHODS

EXEMPTIONS: Final = {
    ("engine", "fragments of AH"): (
        "The engine makes no fragments of AH: what does not fit it fragments before it protects it."
    ),
    ("xfrm", "AES-GMAC in AH"): "Linux has AES-GMAC in ESP, and not in AH.",
    **{
        (name, "VRF"): (
            "VRFs are tried in the guest's kernel alone, which loads no XDP program of the engine's: its "
            "verifier wants aligned accesses. The tunnel interface is the same TUN device by every I/O "
            "method."
        )
        for name in METHODS
    },
}
"""By the name of a datapath, or of its I/O method, and what it is not asked for."""


async def skip_if_exempt(datapath: Datapath, what: str) -> None:
    """Skip a case that a datapath is not asked for, with the reason."""
    skip_if_named((await datapath.capabilities()).name, what)


def skip_if_named(name: str, what: str) -> None:
    """Do the same by the name of a datapath."""
    reason = EXEMPTIONS.get((name, what))
    if reason is not None:
        pytest.skip(reason)
