"""Fixtures of the tests in the guest."""

from collections.abc import Iterator

import pytest

from gateway.datapath.xfrm.netlink import XfrmSocket
from gateway.datapath.xfrm.numbers import ANY_PROTOCOL
from tests.conformance.namespace import fresh_network_namespace


@pytest.fixture(scope="module")
def one_host() -> Iterator[None]:
    """Stay in a network namespace with a veth device, `outside`: it takes a quarter of a second to make."""
    with fresh_network_namespace("192.0.2.1/24", "2001:db8::1/64"):
        yield


@pytest.fixture
def xfrm(one_host: None) -> Iterator[XfrmSocket]:
    """Give a socket to an SAD and an SPD that are empty."""
    with XfrmSocket() as kernel:
        yield kernel
        kernel.flush_sas(ANY_PROTOCOL)
        kernel.flush_policies()
