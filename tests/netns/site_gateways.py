"""Two gateways with one PSK between the two sites of a topology, for tests of the whole product."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from string import Template
from typing import Any

from gateway.bench.process import GatewayProcess
from gateway.bench.topology import Namespace, Site, SiteToSite
from tests.netns.command import Gateway

PSK = "correct horse battery staple"

LAN = (
    "{name: lan, local_ts: [$local_net], remote_ts: [$remote_net], "
    "esp: {proposals: [aes256gcm16-x25519]}, start: $start}"
)

NOTHING = "connections: []\n"
_CONFIG = Template("""\
connections:
- name: paris-tokyo
  local:  {address: $local, id: $local_id, auth: {psk: {file: test.psk}}}
  remote: {address: $remote, id: $remote_id, auth: {psk: {file: test.psk}}}
  ike: {proposals: [aes256gcm16-prfsha384-x25519]$ike}
  children:
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a test wants other than the usual; the same at both ends, mirrored.

    In a child, `$local_net`, `$remote_net`, `$local_net_v6`, `$remote_net_v6`, `$local`, `$remote` and
    `$start` are filled in, each from that gateway's point of view.
    """

    children: tuple[str, ...] = (LAN,)
    ike: str = ""
    """More keys of `ike`: "dpd_delay: 1s, rekey: 3s"."""
    start: str = "on_traffic"
    start_at_tokyo: str | None = None
    """Where both shall not do the same."""
    ipv6_outside: bool = False


USUAL = Wish()


def config(sites: SiteToSite, *, of_a: bool, wish: Wish = USUAL) -> str:
    """Return the configuration of one side."""
    here, there = (sites.a, sites.b) if of_a else (sites.b, sites.a)
    ids = ("gw-paris.example", "gw-tokyo.example")
    start = wish.start if of_a or wish.start_at_tokyo is None else wish.start_at_tokyo
    values = {
        "local": _outer(sites, here, wish, seen_from_b=False),
        "remote": _outer(sites, there, wish, seen_from_b=not of_a),
        "local_id": ids[not of_a],
        "remote_id": ids[of_a],
        "local_net": here.inside,
        "remote_net": there.inside,
        "local_net_v6": here.inside_v6,
        "remote_net_v6": there.inside_v6,
        "start": start,
        "ike": f", {wish.ike}" if wish.ike else "",
    }
    children = "".join(f"  - {Template(child).substitute(values)}\n" for child in wish.children)
    return _CONFIG.substitute(values) + children


def _outer(sites: SiteToSite, site: Site, wish: Wish, *, seen_from_b: bool) -> str:
    if sites.nat is not None and seen_from_b:
        return "192.0.2.1"  # the masquerading box
    return site.outside_v6 if wish.ipv6_outside else site.outside


def gateways(
    sites: SiteToSite, directory: Path, wish: Wish = USUAL, options: tuple[str, ...] = ()
) -> tuple[Gateway, Gateway]:
    """Return both gateways, not started."""
    made = []
    for site, name in ((sites.a, "paris"), (sites.b, "tokyo")):
        home = directory / name
        home.mkdir()
        psk = home / "test.psk"
        psk.write_text(f"{PSK}\n")
        psk.chmod(0o600)
        text = config(sites, of_a=site is sites.a, wish=wish)
        made.append(Gateway(site.gateway, home, text, options))
    return made[0], made[1]


@contextmanager
def paris_and_tokyo(
    sites: SiteToSite, directory: Path, wish: Wish = USUAL, options: tuple[str, ...] = ()
) -> Iterator[tuple[Gateway, Gateway]]:
    """Run both gateways while the context lasts."""
    paris, tokyo = gateways(sites, directory, wish, options)
    with running(paris, tokyo):
        yield paris, tokyo


@contextmanager
def running(*several: GatewayProcess) -> Iterator[None]:
    """Run gateways while the context lasts; all start at once."""
    with ExitStack() as stack:
        for gateway in several:
            gateway.launch()
            stack.callback(gateway.stop)
        for gateway in several:
            gateway.wait_until_it_answers()
        yield


@dataclass(frozen=True, slots=True)
class Standing:
    """Two gateways that run, and have no connection until `connected` gives them one."""

    sites: SiteToSite
    paris: Gateway
    tokyo: Gateway


@contextmanager
def standing(sites: SiteToSite, directory: Path) -> Iterator[Standing]:
    """Run both gateways while the context lasts.

    To start a gateway takes longer than most tests: those that only use it share one.
    """
    paris, tokyo = gateways(sites, directory)
    paris.config = tokyo.config = NOTHING
    with running(paris, tokyo):
        yield Standing(sites, paris, tokyo)


@contextmanager
def connected(pair: Standing, wish: Wish = USUAL) -> Iterator[tuple[Gateway, Gateway]]:
    """Give two gateways a connection while the context lasts, at whose end no SA of it is left.

    Their logs begin here. Who starts connections of its own accord should be Paris: Tokyo is told first.
    """
    paris, tokyo = pair.paris, pair.tokyo
    for gateway in (paris, tokyo):
        gateway.begin_log()
    try:
        tokyo.configure(config(pair.sites, of_a=False, wish=wish))
        paris.configure(config(pair.sites, of_a=True, wish=wish))
        yield paris, tokyo
    finally:
        for gateway in (paris, tokyo):
            gateway.configure(NOTHING)
        wait_until(lambda: not (has_sas(paris) or has_sas(tokyo)), what=lambda: what_they_have(paris, tokyo))


def route_in_clear(sites: SiteToSite) -> None:
    """Give both gateways routes by which traffic of the sites would leave in clear, if nothing kept it."""
    next_hops = (
        (sites.a, sites.b, sites.b.outside if sites.nat is None else "10.9.0.1"),
        (sites.b, sites.a, sites.a.outside if sites.nat is None else "192.0.2.1"),
    )
    for here, there, next_hop in next_hops:
        ip = partial(here.gateway.run, "ip")
        ip("route", "replace", there.inside, "via", next_hop)
        if sites.nat is None:
            ip("-6", "address", "replace", f"{here.outside_v6}/64", "dev", here.outside_device, "nodad")
            ip("-6", "route", "replace", there.inside_v6, "via", there.outside_v6)


def wait_until(
    condition: Callable[[], object], timeout_s: float = 40.0, what: Callable[[], str] = lambda: ""
) -> None:
    """Return when the condition holds; fail with `what()` when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen in {timeout_s} s: {what()}"
        time.sleep(0.1)


def can_ping(namespace: Namespace, address: str, *options: str) -> bool:
    """Say whether one echo request is answered within a second."""
    done = namespace.run("ping", "-c1", "-W1", *options, address, check=False)
    return done.returncode == 0


def wait_for_ping(namespace: Namespace, address: str, timeout_s: float = 40.0) -> None:
    """Return when the first echo request is answered."""
    wait_until(lambda: can_ping(namespace, address), timeout_s, lambda: f"no answer from {address}")


def listed(gateway: GatewayProcess, what: str) -> list[dict[str, Any]]:
    """Return `ike-sas` or `child-sas` of a gateway; none while its controller does not answer."""
    done = gateway.ctl("list", what, "--json", check=False)
    if done.returncode != 0:
        return []
    items: list[dict[str, Any]] = json.loads(done.stdout)[what.replace("-", "_")]
    return items


def spis(gateway: GatewayProcess) -> set[str]:
    """Return the outbound SPIs of a gateway."""
    return {sa["outbound"]["spi"] for sa in listed(gateway, "child-sas")}


def has_sas(gateway: GatewayProcess) -> bool:
    """Say whether a gateway has an IKE SA or a Child SA.

    Its datapath still takes for some seconds what was on its way for one that was rekeyed.
    """
    return any(gateway.json("list", what)[what.replace("-", "_")] for what in ("ike-sas", "child-sas"))


def have_one_of_each(*both: GatewayProcess) -> bool:
    """Say whether every gateway has exactly one IKE SA, established, and one Child SA, installed."""
    for gateway in both:
        ike_sas, child_sas = listed(gateway, "ike-sas"), listed(gateway, "child-sas")
        if [sa["state"] for sa in ike_sas] != ["established"]:
            return False
        if [sa["state"] for sa in child_sas] != ["installed"]:
            return False
    return True


def what_they_have(*both: GatewayProcess) -> str:
    """Return the SAs of gateways, for the message of a failed test."""
    return "\n".join(
        f"{gateway.directory.name} {what}:\n{gateway.ctl('list', what, check=False).stdout}"
        for gateway in both
        for what in ("ike-sas", "child-sas")
    )


def settle(*both: GatewayProcess, timeout_s: float = 40.0) -> None:
    """Return when every gateway has exactly one IKE SA and one Child SA."""
    wait_until(lambda: have_one_of_each(*both), timeout_s, lambda: what_they_have(*both))


def bring_up(gateway: GatewayProcess, name: str) -> None:
    """Bring a connection up; a controller whose agent ended a moment ago has to meet the next one first."""

    def is_asked() -> bool:
        done = gateway.ctl("up", name, check=False)
        assert done.returncode == 0 or "no datapath agent" in done.stderr, done.stderr
        return done.returncode == 0

    wait_until(is_asked)


class AgentProcess:
    """`ipsecgw agent` alone: nobody starts it again.

    Args:
        namespace: Where.
        directory: For its files.
        prefix: Words before the command.
    """

    def __init__(self, namespace: Namespace, directory: Path, *prefix: str) -> None:
        self._prefix = prefix
        self.directory = directory
        self.address = f"unix:{directory}/run/datapath.sock"
        self._log_path = directory / "agent.log"
        directory.mkdir(parents=True, exist_ok=True)
        self._namespace = namespace
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "AgentProcess":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        ready = self.log().count('"agent_ready"')
        with self._log_path.open("a") as log:
            self._process = self._namespace.popen(
                *(*self._prefix, sys.executable, "-m", "gateway.cli.main", "agent", "--listen", self.address),
                *("--log-format", "json"),
                stdout=log,
                stderr=log,
            )
        wait_until(lambda: self.log().count('"agent_ready"') > ready, 60.0, self.log)

    def log(self) -> str:
        return self._log_path.read_text() if self._log_path.exists() else ""

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(60)

    def end(self) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(60)
