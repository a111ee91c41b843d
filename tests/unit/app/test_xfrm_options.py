"""Options of the kernel's datapath that contradict each other."""

import argparse

import pytest

from gateway.app import agent
from gateway.app.xfrm_options import check_forwarding, loads_programs
from gateway.host.errors import HostError


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    agent.add_arguments(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize(
    "words",
    [
        ("--forward-inbound", "nic0"),
        ("--forward-inbound", "nic0", "--forward-interface", "nic0"),
    ],
    ids=["no interface", "the NIC alone"],
)
def test_inbound_forwarding_to_nowhere_is_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(
        HostError, match="--forward-inbound forwards to the interfaces of --forward-interface"
    ):
        check_forwarding(parsed(*words))


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--forward-interface", "lan0"),
        ("--forward-inbound", "nic0", "--forward-interface", "lan0"),
        ("--forward-inbound", "nic0", "--forward-interface", "lan0", "--forward-interface", "nic0"),
    ],
    ids=["nothing", "outbound only", "both ways", "both ways, the NIC named twice"],
)
def test_what_can_be_forwarded_is_taken(words: tuple[str, ...]) -> None:
    args = parsed(*words)

    check_forwarding(args)

    assert loads_programs(args) is bool(words)
