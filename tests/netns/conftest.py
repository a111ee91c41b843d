"""Two gateways for all tests of a module that only use them: each test gives them a connection of its own."""

import os
from collections.abc import Iterator

import pytest

from gateway.bench.topology import SiteToSite, site_to_site
from tests.netns.site_gateways import Standing, standing


@pytest.fixture(scope="module")
def sites() -> Iterator[SiteToSite]:
    with site_to_site(f"gw{os.getpid()}") as made:
        yield made


@pytest.fixture(scope="module")
def pair(sites: SiteToSite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    with standing(sites, tmp_path_factory.mktemp("pair")) as made:
        yield made
