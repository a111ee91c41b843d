"""Fixtures of the tests in the guest."""

from collections.abc import AsyncIterator, Iterator

import pytest

from gateway.datapath.xfrm import forwarding, forwarding_paths
from gateway.datapath.xfrm.backend import XfrmBackend
from gateway.datapath.xfrm.netlink import XfrmSocket
from gateway.datapath.xfrm.numbers import ANY_PROTOCOL
from gateway.host.sockets import PortOptions, open_ports
from tests.conformance.namespace import fresh_network_namespace
from tests.fakes.xdp_forwarder import FakeXdpForwarder
from tests.guest.backend_rig import Peer, beside_a_peer


@pytest.fixture(scope="module")
def one_host() -> Iterator[None]:
    """Stay in a network namespace with a veth device, `outside`: it takes a quarter of a second to make."""
    with fresh_network_namespace("192.0.2.1/24", "2001:db8::1/64"):
        yield


@pytest.fixture
def peer() -> Iterator[Peer]:
    """Stay one link away from another gateway, which is a kernel."""
    with beside_a_peer() as made:
        yield made


@pytest.fixture
async def backend(peer: Peer) -> AsyncIterator[XfrmBackend]:
    """Give the xfrm backend beside that peer."""
    ports = open_ports(PortOptions())
    made = XfrmBackend(esp_sockets=ports.esp)
    await made.start()
    yield made
    await made.close()
    ports.close()


@pytest.fixture
def xfrm(one_host: None) -> Iterator[XfrmSocket]:
    """Give a socket to an SAD and an SPD that are empty."""
    with XfrmSocket() as kernel:
        yield kernel
        kernel.flush_sas(ANY_PROTOCOL)
        kernel.flush_policies()


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> FakeXdpForwarder:
    """Stand in for the program of the backend that is started after it."""
    made = FakeXdpForwarder()
    monkeypatch.setattr(forwarding, "XdpForwarder", lambda: made)
    # netdevsim has no ndo_xdp_xmit.
    monkeypatch.setattr(forwarding_paths, "why_not_sent_by", lambda _index: "")
    return made
