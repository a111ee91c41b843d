"""Which backends there are, by name."""

import pytest

from gateway.datapath.backend import DatapathError
from gateway.datapath.engine.devices import SENDING
from gateway.datapath.registry import ENGINE_IO, backend_names, make_backend


def test_unknown_backend_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(DatapathError, match="software, xfrm"):
        make_backend("hardware")

    assert backend_names()[0] == "auto"


def test_what_the_engine_may_send_by_is_what_the_command_line_offers() -> None:
    assert ENGINE_IO == SENDING
