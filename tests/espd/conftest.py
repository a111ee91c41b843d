"""espd as the tests get it: built here, from the sources as they are, under the sanitizers or as it ships."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.namespace import fresh_network_namespace
from tests.engine.conftest import BUILD, make
from tests.espd.machine import OURS, Machine, running

ESPD = Path(__file__).parents[2] / "hw" / "espd"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Carrying packets needs root."""
    for item in items:
        if item.path.parent.name == "espd" and "machine" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.netns)


@pytest.fixture(scope="session")
def sanitized() -> Path:
    """Espd under the address and undefined behaviour sanitizers; it has no filter of system calls."""
    return make("espd", build=BUILD / "sanitized", source=ESPD, SANITIZE="yes") / "espd"


@pytest.fixture(scope="session")
def shipped() -> Path:
    """Espd as it ships."""
    return make("espd", source=ESPD) / "espd"


@pytest.fixture
def machine(sanitized: Path, tmp_path: Path) -> Iterator[Machine]:
    """A machine of its own with espd on it, and a peer on its wire."""
    with fresh_network_namespace(*OURS), running(sanitized, tmp_path) as machine:
        yield machine
