"""The MTU of a path that changes under SAs of the kernel: interfaces follow it."""

import asyncio
import json

import pytest

from gateway.datapath.xfrm import backend as xfrm_backend
from gateway.datapath.xfrm.backend import XfrmBackend
from gateway.ipsec.interface import EVERYTHING, TunnelInterface
from tests.conformance.sas import PEER, policy
from tests.guest.backend_rig import Peer, ip
from tests.guest.test_backend_traffic import couple

pytestmark = pytest.mark.guest

INTERFACE = TunnelInterface(name="ipsec42", id=42)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xfrm_backend, "_PATHS_S", 0.1)


async def mtu_becomes(wanted: int) -> None:
    """Return when the interface has an MTU; fail after a while."""
    found = 0
    for _ in range(300):
        (link,) = json.loads(ip("-j", "link", "show", INTERFACE.name))
        found = link["mtu"]
        if found == wanted:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"the MTU is {found}, not {wanted}")


async def test_an_interface_follows_the_mtu_of_its_path_down_and_up(backend: XfrmBackend, peer: Peer) -> None:
    sas = couple(interface_id=42, local_ts=EVERYTHING[:1], remote_ts=EVERYTHING[:1])
    wanted = policy(interface=INTERFACE, interface_id=42, local_ts=EVERYTHING[:1], remote_ts=EVERYTHING[:1])
    assert [result.error for result in await backend.apply_policies([wanted])] == [None]
    assert [result.error for result in await backend.install_sas(sas)] == [None, None]
    (whole,) = {sa.effective_mtu for sa in await backend.list_sas()} - {None}
    assert whole is not None
    await mtu_becomes(whole)

    # What a router's "too big" teaches the kernel, the administrator says here.
    ip("route", "add", str(PEER), "dev", "outside", "mtu", "1400")
    await mtu_becomes(whole - 100)

    ip("route", "del", str(PEER), "dev", "outside", "mtu", "1400")
    await mtu_becomes(whole)

    ip("link", "set", "outside", "mtu", "1380")
    await mtu_becomes(whole - 120)
