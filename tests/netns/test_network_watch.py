"""Changes of the network, as those who follow them are told."""

import asyncio
import subprocess

import pytest

from gateway.host.network_watch import NetworkWatch
from tests.conformance.namespace import fresh_network_namespace

pytestmark = pytest.mark.netns


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


async def test_a_burst_of_changes_is_told_once_and_a_later_one_again() -> None:
    told = asyncio.Queue[None]()
    with fresh_network_namespace("192.0.2.1/24"):
        watch = NetworkWatch(lambda: told.put_nowait(None))
        watch.start()
        try:
            for host in range(1, 6):
                ip("route", "add", f"198.51.100.{host}", "dev", "outside")
            await asyncio.wait_for(told.get(), 30)
            assert told.empty()

            ip("address", "add", "192.0.2.9/24", "dev", "outside")
            await asyncio.wait_for(told.get(), 30)
        finally:
            watch.close()


async def test_without_routes_only_links_and_addresses_are_told() -> None:
    told = asyncio.Queue[None]()
    with fresh_network_namespace("192.0.2.1/24"):
        watch = NetworkWatch(lambda: told.put_nowait(None))
        watch.start(with_routes=False)
        try:
            ip("route", "add", "198.51.100.1", "dev", "outside")
            ip("link", "set", "beyond", "mtu", "1400")
            await asyncio.wait_for(told.get(), 30)

            assert told.empty()
        finally:
            watch.close()


async def test_nothing_is_told_after_closing_and_closing_twice_is_harmless() -> None:
    told: list[None] = []
    with fresh_network_namespace("192.0.2.1/24"):
        watch = NetworkWatch(lambda: told.append(None))
        watch.start()
        ip("route", "add", "198.51.100.1", "dev", "outside")
        await asyncio.sleep(0)

        watch.close()
        watch.close()

    assert told == []
