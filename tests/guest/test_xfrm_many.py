"""Thousands of SAs and policies: put in, listed and taken out, with the work per SA as it goes."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest

from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.netlink import XfrmSocket
from gateway.datapath.xfrm.numbers import Mode, PolicyDirection
from tests.guest.sas import GCM_128, HERE, PEER, esp

pytestmark = pytest.mark.guest

MANY = 5_000
STEP = 1_000


def selector(number: int) -> r.Selector:
    """Return one of many selectors that have nothing in common."""
    return r.Selector(
        source=IPv4Interface("10.1.0.0/16"),
        destination=IPv4Interface((int(IPv4Address("10.64.0.0")) + 256 * number, 24)),
    )


def test_thousands_of_sas_and_policies_come_and_go(
    xfrm: XfrmSocket, record_property: Callable[[str, object], None]
) -> None:
    template = r.Template(source=HERE, destination=PEER, protocol=50, mode=Mode.TUNNEL)

    def add(number: int) -> None:
        xfrm.add_sa(replace(esp(0x10000 + number), reqid=number + 1), GCM_128)
        policy = r.PolicyInfo(selector=selector(number), direction=PolicyDirection.OUT)
        xfrm.add_policy(policy, r.Attributes(templates=(replace(template, reqid=number + 1),)))

    def delete(number: int) -> None:
        xfrm.delete_policy(r.PolicyId(direction=PolicyDirection.OUT, selector=selector(number)))
        xfrm.delete_sa(esp(0x10000 + number).id)

    memory_before = kernel_memory_kib()
    adding = list(seconds_per_step(add))
    memory = kernel_memory_kib() - memory_before
    start = time.perf_counter()
    sas, policies = xfrm.sas(), xfrm.policies()
    listing = time.perf_counter() - start
    deleting = list(seconds_per_step(delete))

    assert len({sa.body.id.spi for sa in sas}) == len({policy.body.selector for policy in policies}) == MANY
    assert (xfrm.sas(), xfrm.policies()) == ((), ())
    # What this machine took; the tests of a guest say nothing about speed, only about growth.
    for name, value in {
        "pairs_added_per_s": [round(STEP / seconds) for seconds in adding],
        "pairs_deleted_per_s": [round(STEP / seconds) for seconds in deleting],
        "listed_per_s": round(2 * MANY / listing),
        "kernel_kib_per_pair": round(memory / MANY, 2),
        "last_step_over_first": round(adding[-1] / adding[0], 2),
    }.items():
        record_property(name, value)


def seconds_per_step(work: Callable[[int], None]) -> Iterator[float]:
    """Do it for every number, and yield the time of each step."""
    for first in range(0, MANY, STEP):
        start = time.perf_counter()
        for number in range(first, first + STEP):
            work(number)
        yield time.perf_counter() - start


def kernel_memory_kib() -> int:
    """Return what the kernel has in its slabs and other memory of its own, in KiB."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    meminfo = {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines)}
    return meminfo["Slab"] + meminfo["VmallocUsed"]
