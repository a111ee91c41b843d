"""What an agent is made of, by the name of its backend."""

import pytest

from gateway.app.backends import make_datapath
from gateway.datapath.registry import AUTO, AUTOMATIC, ENGINES, BackendOptions, backend_names, make_backend
from gateway.ipsec.placement import Engine, PlacementReason


def test_auto_is_every_automatic_backend_in_the_order_of_the_best_engine() -> None:
    made = make_datapath(AUTO, BackendOptions())

    assert [candidate.name for candidate in made._candidates] == list(AUTOMATIC)
    assert ENGINES["xfrm"][0] is Engine.NIC_PACKET
    assert not made._need_all


def test_one_backend_by_name_has_to_run_and_says_who_else_would_drive_the_other_engines() -> None:
    made = make_datapath("software", BackendOptions())

    assert [candidate.name for candidate in made._candidates] == ["software"]
    assert made._need_all
    why = made._absent[Engine.KERNEL]
    assert why.reason is PlacementReason.NO_BACKEND
    assert why.text == "the agent runs the software backend alone, xfrm drives it"
    assert Engine.SOFTWARE not in made._absent


@pytest.mark.parametrize("name", [name for name in backend_names() if name != AUTO])
def test_every_name_makes_a_backend(name: str) -> None:
    assert make_backend(name) is not None
