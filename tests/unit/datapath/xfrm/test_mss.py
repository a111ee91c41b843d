"""The nftables table that lowers the MSS: when it is written, and what becomes of a machine without nft."""

import json
from typing import Any

import pytest

from gateway.datapath.xfrm import mss
from gateway.datapath.xfrm.mss import MssClamp
from gateway.host.errors import HostError


class Nft:
    """Stands for the program; it refuses where it is told to."""

    def __init__(self) -> None:
        self.given: list[str] = []
        self.is_missing = False

    async def run(self, *_arguments: str, commands: list[dict[str, Any]]) -> str:
        if self.is_missing:
            raise HostError("the program nft is missing")
        self.given.append(json.dumps(commands))
        return ""


@pytest.fixture
def nft(monkeypatch: pytest.MonkeyPatch) -> Nft:
    made = Nft()
    monkeypatch.setattr(mss, "run_nft", made.run)
    return made


async def test_table_is_written_when_something_changes_and_only_then(nft: Nft) -> None:
    clamp = MssClamp("0")

    for mtu in (1438, 1438, 1400, 1400):
        await clamp.follow(mtu, ["ipsec0"])
    await clamp.follow(1400, ["ipsec1", "ipsec0"])
    await clamp.follow(1400, ["ipsec0", "ipsec1"])

    assert len(nft.given) == 3
    assert ['"value": 1398' in given for given in nft.given] == [True, False, False]
    assert ['"ipsec1"' in given for given in nft.given] == [False, False, True]


async def test_ipv6_has_20_bytes_less_than_ipv4(nft: Nft) -> None:
    await MssClamp("0").follow(1400, [])

    assert '"value": 1360' in nft.given[0]
    assert '"value": 1340' in nft.given[0]


async def test_without_sas_and_interfaces_there_is_no_table(nft: Nft) -> None:
    clamp = MssClamp("0")

    await clamp.follow(1400, [])
    await clamp.follow(None, [])

    assert '"rule"' in nft.given[0]
    assert '"rule"' not in nft.given[1]


async def test_tag_that_is_no_word_for_nftables_is_spelled_otherwise(nft: Nft) -> None:
    await MssClamp("a-b").follow(1400, [])

    assert '"ipsecgw_mss_612d62"' in nft.given[0]


async def test_machine_without_nft_is_told_once_and_nothing_fails(
    nft: Nft, caplog: pytest.LogCaptureFixture
) -> None:
    nft.is_missing = True
    clamp = MssClamp("0")

    await clamp.follow(1400, [])
    await clamp.follow(1300, [])
    await clamp.remove()

    assert nft.given == []
    assert len([record for record in caplog.records if "mss_not_clamped" in record.getMessage()]) == 1
