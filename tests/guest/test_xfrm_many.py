"""Thousands of SAs and policies: put in, listed and taken out, with the work per SA as it goes.

By netlink alone, which is what the kernel costs, and through the backend. What a step took is noted as a
property of the test in the JUnit file and not judged: tests in the guest say nothing about speed.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any

import pytest

from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.backend import XfrmBackend
from gateway.datapath.xfrm.netlink import XfrmSocket
from gateway.datapath.xfrm.numbers import Mode, PolicyDirection
from gateway.host.network import Network
from gateway.ipsec.placement import Engine, Placement
from gateway.ipsec.policy import Policy
from gateway.ipsec.sa import SecurityAssociation
from gateway.ipsec.selectors import TrafficSelector
from tests.conformance.sas import outbound, policy
from tests.guest.sas import GCM_128, HERE, PEER, esp

pytestmark = pytest.mark.guest

MANY = 5_000
STEP = 1_000
BATCH = 100


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
        info = r.PolicyInfo(selector=selector(number), direction=PolicyDirection.OUT)
        xfrm.add_policy(info, r.Attributes(templates=(replace(template, reqid=number + 1),)))

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

    assert len({sa.body.id.spi for sa in sas}) == len({one.body.selector for one in policies}) == MANY
    assert (xfrm.sas(), xfrm.policies()) == ((), ())
    note(record_property, adding=adding, deleting=deleting, listing=listing, memory_kib=memory)


@pytest.mark.slow
@pytest.mark.guest(timeout_s=1800)
async def test_backend_takes_thousands_of_sas_and_policies(
    one_host: None, record_property: Callable[[str, object], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = XfrmBackend()
    await backend.start()
    adding, deleting = [], []
    requests = count_requests(monkeypatch)
    asked_adding, asked_deleting = [], []
    memory_before = kernel_memory_kib()

    for first in range(0, MANY, STEP):
        start, before = time.perf_counter(), requests.total()
        for batch in batches(first):
            await backend.apply_policies([wanted(number) for number in batch])
            results = await backend.install_sas([installed(number) for number in batch])
            assert {result.error for result in results} == {None}
        adding.append(time.perf_counter() - start)
        asked_adding.append(requests.total() - before)
    memory = kernel_memory_kib() - memory_before
    start = time.perf_counter()
    listed = await backend.list_sas()
    listing = time.perf_counter() - start
    assert len({item.sa.sa_id for item in listed}) == len(await backend.list_policies()) == MANY
    for first in range(0, MANY, STEP):
        start, before = time.perf_counter(), requests.total()
        for batch in batches(first):
            await backend.remove_sas([installed(number).sa_id for number in batch])
            await backend.remove_policies([f"paris/{number}" for number in batch])
        deleting.append(time.perf_counter() - start)
        asked_deleting.append(requests.total() - before)

    # The work per SA, which time does not tell on a machine that others use too. Names that sort otherwise
    # than they come have all entries numbered anew once on the way.
    for asked in (asked_adding, asked_deleting):
        flat = 1.01 * asked[0]
        assert asked[-1] <= flat, asked
        assert sum(requests_of_step > flat for requests_of_step in asked) <= 1, asked
    record_property("requests_per_pair_added", round(asked_adding[-1] / STEP, 2))
    record_property("requests_per_pair_deleted", round(asked_deleting[-1] / STEP, 2))
    with XfrmSocket() as kernel:
        assert kernel.sas() == ()
        assert [policy for policy in kernel.policies() if policy.attributes.templates] == []
    await backend.close()
    note(record_property, adding=adding, deleting=deleting, listing=listing, memory_kib=memory)


def count_requests(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count what the kernel is asked from here on, by netlink family."""
    asked: Counter[str] = Counter()
    exchange, run = XfrmSocket._exchange, Network.run

    def counted_exchange(*arguments: Any) -> Any:
        asked["xfrm"] += 1
        return exchange(*arguments)

    async def counted_run(*arguments: Any) -> Any:
        asked["route"] += 1
        return await run(*arguments)

    monkeypatch.setattr(XfrmSocket, "_exchange", counted_exchange)
    monkeypatch.setattr(Network, "run", counted_run)
    return asked


def batches(first: int) -> Iterator[range]:
    """Yield the numbers of a step, as many at a time as an agent is given."""
    for start in range(first, first + STEP, BATCH):
        yield range(start, start + BATCH)


def wanted(number: int) -> Policy:
    """Return one of many policies."""
    remote = TrafficSelector.parse(str(selector(number).destination))
    return policy(f"paris/{number}", child=str(number), remote_ts=(remote,))


def installed(number: int) -> SecurityAssociation:
    """Return the outbound SA of one of many policies, as the dispatcher asks a backend for it."""
    return outbound(
        0x10000 + number,
        child=str(number),
        child_sa_id=number + 1,
        remote_ts=wanted(number).remote_ts,
        placement=Placement(require=Engine.KERNEL),
    )


def note(
    record_property: Callable[[str, object], None],
    *,
    adding: list[float],
    deleting: list[float],
    listing: float,
    memory_kib: int,
) -> None:
    """Note what it took, a pair of an SA and a policy as the unit."""
    record_property("pairs_added_per_s", [round(STEP / seconds) for seconds in adding])
    record_property("pairs_deleted_per_s", [round(STEP / seconds) for seconds in deleting])
    record_property("listed_per_s", round(MANY / listing))
    record_property("kernel_kib_per_pair", round(memory_kib / MANY, 2))
    record_property("last_step_over_first", round(adding[-1] / adding[0], 2))


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
