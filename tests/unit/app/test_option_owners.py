"""An option for a datapath that does not run is told, not passed over."""

import argparse

import pytest

from gateway.app import agent
from gateway.app.option_owners import check_owners, warn_of_idle
from gateway.host.errors import HostError
from gateway.ipsec.placement import Engine


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    agent.add_arguments(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize(
    ("backend", "option", "owner"),
    [
        ("engine", "--forward-interface", "xfrm"),
        ("engine", "--forward-inbound", "xfrm"),
        ("software", "--forward-interface", "xfrm"),
        ("software", "--engine-interface", "engine"),
        ("xfrm", "--engine-inner-interface", "engine"),
    ],
)
def test_an_option_for_another_backend_than_the_one_asked_for_is_refused(
    backend: str, option: str, owner: str
) -> None:
    with pytest.raises(HostError, match=f"{option} is for the {owner} datapath, and {backend} was asked for"):
        check_owners(parsed("--backend", backend, option, "eth0"))


@pytest.mark.parametrize(
    "words",
    [
        ("--forward-interface", "eth0"),
        ("--backend", "xfrm", "--forward-interface", "eth0"),
        ("--backend", "engine", "--engine-cpu", "0"),
        ("--backend", "software", "--engine-io", "auto"),
    ],
)
def test_an_option_for_a_backend_that_may_run_is_taken(words: tuple[str, ...]) -> None:
    check_owners(parsed(*words))


def test_what_has_no_effect_is_told(caplog: pytest.LogCaptureFixture) -> None:
    args = parsed("--forward-interface", "eth0", "--engine-interface", "eth1")

    warn_of_idle(args, (Engine.ENGINE, Engine.SOFTWARE))

    (record,) = caplog.records
    assert record.gw_fields["option"] == "--forward-interface"  # type: ignore[attr-defined]
    assert record.gw_fields["missing"] == "xfrm datapath"  # type: ignore[attr-defined]
