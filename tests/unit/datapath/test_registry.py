"""Which backends there are, by name."""

import pytest

from gateway.datapath.backend import DatapathError
from gateway.datapath.engine.devices import SENDING
from gateway.datapath.registry import ENGINE_IO, BackendOptions, backend_names, make_backend
from gateway.datapath.xfrm.backend import XfrmBackend


def test_unknown_backend_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(DatapathError, match="software, xfrm"):
        make_backend("hardware")

    assert backend_names()[0] == "auto"


def test_what_the_engine_may_send_by_is_what_the_command_line_offers() -> None:
    assert ENGINE_IO == SENDING


def test_the_kernels_backend_is_told_from_where_to_forward_both_ways() -> None:
    made = make_backend("xfrm", BackendOptions(forward_interfaces=("lan0",), forward_inbound=("nic0",)))

    assert isinstance(made, XfrmBackend)
    assert made._options.forward_interfaces == ("lan0",)
    assert made._options.forward_inbound == ("nic0",)
    assert made._forwarding._interfaces == ("lan0", "nic0"), "the program runs on the NIC, too"
