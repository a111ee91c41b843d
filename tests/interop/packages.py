"""Where the peers are whose packages are unpacked, not installed (`.ci/fetch-peers`)."""

import os
from pathlib import Path


def cache() -> Path:
    """Return the directory of what is fetched or built once for many runs."""
    return Path(os.environ.get("IPSECGW_CACHE") or Path.home() / ".cache" / "ipsecgw")


def unpacked(package: str, program: str) -> Path:
    """Return the root that a Debian package was unpacked to.

    Raises:
        AssertionError: It is not there; the text says what fetches it.
    """
    root = cache() / "peers" / package
    assert (root / program).exists(), (
        f"{package} is not in {root}: `make deps-peers` downloads and unpacks it"
    )
    return root
