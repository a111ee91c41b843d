"""How many receive queues of an interface the engine serves."""

import errno

import pytest

from gateway.datapath.engine.fast_path import receive_queues
from gateway.hardware.nic_netlink import Channels
from gateway.hardware.readings import Refused
from gateway.host.bpf.errors import BpfError


@pytest.mark.parametrize(
    ("channels", "queues"),
    [
        (Channels(receive=2, receive_max=8), 2),
        (Channels(receive=64, receive_max=128), 64),
        (Channels(receive=0, receive_max=0), 1),
        (Refused(source="ETHTOOL_MSG_CHANNELS_GET", number=errno.EOPNOTSUPP), 1),
    ],
    ids=["some", "as many as there may be workers", "none told", "a driver that does not say"],
)
def test_every_queue_is_served(channels: Channels | Refused, queues: int) -> None:
    assert receive_queues("eth0", channels) == queues


def test_more_than_there_may_be_workers_are_refused_with_what_to_do() -> None:
    with pytest.raises(BpfError, match=r"eth0 has 65 receive queues.*by `ethtool -L eth0 combined 64`"):
        receive_queues("eth0", Channels(receive=65, receive_max=128))
