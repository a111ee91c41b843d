"""Measure TCP through two gateways, way by way and round by round, beside the same hosts without any.

    host a ── gateway a ═══ gateway b ── host b        network namespaces, veth, MTU 1500 outside

Hosts send and take super-frames of 64 KB, as NICs with segmentation offload have it. Everything shares the
CPUs of this machine: both hosts' TCP, both gateways, and what is between them. So beside the rate stands how
much CPU time a gigabit took.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

from gateway.bench.cpu import cpu_between, read_cpu
from gateway.bench.machine import crypto_versions, describe_machine
from gateway.bench.tcp.pair import NoGateway, Pair, Way, running_pair
from gateway.bench.topology import SiteToSite, TopologyError, site_to_site

_SETTLE_S: Final = 30.0
_END_S: Final = 30.0
_RAMP_S: Final = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One stream."""

    gigabits_per_s: float
    """Of what the application sent."""
    cpu_s_per_gigabit: float
    """Of all CPUs, hosts and gateways together, less what has no part in it."""
    gateways_cpu: float
    """CPUs that the gateways' processes were busy with; the kernel's work in their name included."""
    others_cpu: float
    """CPUs that others were busy with: where it is high, only ratios can be believed."""


@dataclass(slots=True, kw_only=True)
class Row:
    """One way."""

    way: str
    words: str = ""
    """How packets came and went."""
    left_out: str = ""
    """Why there is nothing of it."""
    rounds: list[Measured] = field(default_factory=list)

    def figure(self, name: str) -> float:
        """Return the median of a figure."""
        return float(median(getattr(measured, name) for measured in self.rounds))

    def spread(self, name: str) -> tuple[float, float]:
        """Return its smallest and largest."""
        values = [getattr(measured, name) for measured in self.rounds]
        return min(values), max(values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """One run."""

    machine: dict[str, str]
    seconds: float
    rows: tuple[Row, ...]

    def to_json(self) -> str:
        """Return everything, each round included."""
        return json.dumps(
            {"machine": self.machine, "seconds": self.seconds, "rows": [asdict(row) for row in self.rows]},
            indent=2,
        )


def run(ways: Sequence[Way], *, rounds: int, seconds: float, say: Callable[[str], None]) -> Results:
    """Measure each way once a round.

    Raises:
        TopologyError: Not root, or a namespace or a stream failed.
    """
    rows = {way.name: Row(way=way.name) for way in ways}
    with (
        tempfile.TemporaryDirectory(prefix="ipsecgw-bench-") as directory,
        site_to_site(f"ipsecgw-tcp{os.getpid()}") as sites,
    ):
        for site in (sites.a, sites.b):
            # Only then does a veth device poll, and take frames that an XDP program has redirected to it.
            site.gateway.run("ethtool", "-K", "outside", "gro", "on")
        for number in range(1, rounds + 1):
            for way in ways:
                row = rows[way.name]
                if row.left_out:
                    continue
                say(f"round {number}: {way.name}")
                try:
                    with running_pair(sites, way, Path(directory) / f"{number}-{ways.index(way)}") as pair:
                        row.words = pair.words
                        row.rounds.append(_stream(sites, pair, seconds))
                except NoGateway as error:
                    row.left_out = str(error)
                    say(f"{way.name} is left out: {error}")
    return Results(
        machine={**describe_machine(), **crypto_versions()}, seconds=seconds, rows=tuple(rows.values())
    )


def _stream(sites: SiteToSite, pair: Pair, seconds: float) -> Measured:
    _wait_for_ping(sites)
    module = (sys.executable, "-m", "gateway.bench.tcp.stream")
    receiver = sites.b.host.popen(*module, "receive", sites.b.host_address, stdout=subprocess.PIPE)
    try:
        assert receiver.stdout is not None
        if receiver.stdout.readline() != "ready\n":
            raise TopologyError("the receiver did not start")
        sender = sites.a.host.popen(*module, "send", sites.b.host_address, str(seconds))
        try:
            groups = {"gateways": pair.pids, "hosts": (receiver.pid, sender.pid)}
            time.sleep(min(_RAMP_S, seconds / 4))
            start, before = time.monotonic(), read_cpu(groups)
            time.sleep(seconds / 2)
            taken, after = time.monotonic() - start, read_cpu(groups)
            sender.wait(_END_S)
        finally:
            sender.kill()
            sender.wait()
        said = json.loads(receiver.communicate(timeout=_END_S)[0])
    finally:
        receiver.kill()
        receiver.wait()
    used = cpu_between(before, after)
    gigabits_per_s = said["bytes"] * 8 / 1e9 / said["seconds"]
    return Measured(
        gigabits_per_s=gigabits_per_s,
        cpu_s_per_gigabit=used.busy_s / taken / gigabits_per_s,
        gateways_cpu=used.groups_s["gateways"] / taken,
        others_cpu=used.others_s / taken,
    )


def _wait_for_ping(sites: SiteToSite) -> None:
    deadline = time.monotonic() + _SETTLE_S
    while sites.a.host.run("ping", "-c1", "-W1", sites.b.host_address, check=False).returncode != 0:
        if time.monotonic() > deadline:
            raise TopologyError("the hosts do not reach each other")
