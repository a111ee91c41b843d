"""Every module of these tests has a network namespace of its own, in which programs run."""

import subprocess
from collections.abc import Iterator

import pytest

from tests.conformance.namespace import fresh_network_namespace


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Loading programs needs root, as making namespaces does."""
    for item in items:
        if item.path.parent.name == "ebpf":
            item.add_marker(pytest.mark.netns)


@pytest.fixture(scope="module", autouse=True)
def namespace() -> Iterator[None]:
    """Enter a fresh namespace with the veth devices `outside` and `beyond`, over which nothing comes."""
    with fresh_network_namespace():
        subprocess.run(["ip", "link", "set", "beyond", "down"], check=True)
        yield
