"""One rig for all interop tests: our gateway at site a, a real strongSwan at site b, hosts behind both."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.bench.capture import capturing, clear_packets
from gateway.bench.topology import SiteToSite, site_to_site
from tests.interop.our_gateway import OurGateway
from tests.interop.page import Evidence, InteropPage
from tests.interop.pair import Pair
from tests.interop.peer import Peer, Wanted, wait_until
from tests.interop.strongswan import Charon, missing
from tests.netns.command import Gateway
from tests.netns.wire import show_every_packet

PSK = "interop-psk-0123456789abcdef"

OURS = """\
connections:
- name: swan
  local:  {{address: {local}, id: ours.test, auth: {{psk: {{value: "{psk}"}}}}}}
  remote: {{address: "{remote}", id: theirs.test, auth: {{psk: {{value: "{psk}"}}}}}}
  ike: {{proposals: [{ike}]{ike_options}}}
  children:
  - name: net
    local_ts: [{local_ts}]
    remote_ts: [{remote_ts}]
    esp: {{proposals: [{esp}]}}
"""

THEIRS = """\
connections {{ swan {{
  version = 2
  local_addrs = {local}
  remote_addrs = {remote}
  proposals = {ike}
  {ike_options}
  local {{
    auth = psk
    id = theirs.test
  }}
  remote {{
    auth = psk
    id = ours.test
  }}
  children {{ net {{
    local_ts = {local_ts}
    remote_ts = {remote_ts}
    esp_proposals = {esp}
    {child_options}
  }} }}
}} }}
secrets {{ ike-1 {{
  id-a = ours.test
  id-b = theirs.test
  secret = "{psk}"
}} }}
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a run write the page that every run checks."""
    parser.addoption("--write-interop", type=Path, metavar="PATH", help="write docs/interop.md from this run")


def pytest_configure(config: pytest.Config) -> None:
    """Gather what the interop tests show."""
    config.pluginmanager.register(InteropPage(config.getoption("--write-interop", default=None)))


@pytest.fixture
def evidence(request: pytest.FixtureRequest) -> Evidence:
    """What a test notes for docs/interop.md beside passing."""
    return Evidence(request.node.user_properties)


@dataclass(slots=True)
class Rig:
    """Both gateways and the link between them."""

    sites: SiteToSite
    ours: Gateway
    theirs: Charon
    wire: Path
    """Capture of the outside link; complete when the rig has ended."""

    def ping(self, *, count: int = 3) -> None:
        """Ping from each host to the other; every packet must be answered."""
        both = ((self.sites.a, self.sites.b), (self.sites.b, self.sites.a))
        # One at a time: of several, ping gives up the last one after twice the round trip of the others.
        for here, there in both * count:
            done = here.host.run("ping", "-c", "1", "-W", "5", there.host_address, check=False)
            assert " 0% packet loss" in done.stdout, (
                f"{done.stdout}\n{self.ours.log_tail()}\n{self.theirs.log()}"
            )

    def child_sas(self) -> list[dict[str, object]]:
        """Return our Child SAs as the API gives them."""
        return list(self.ours.json("list", "child-sas")["child_sas"])

    def ike_sas(self) -> list[dict[str, object]]:
        """Return our IKE SAs as the API gives them."""
        return list(self.ours.json("list", "ike-sas")["ike_sas"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a test varies; everything else is the same everywhere."""

    ike: str = "aes256gcm16-prfsha384-x25519"
    esp: str = "aes256gcm16-x25519"
    theirs_ike: str = ""
    theirs_esp: str = ""
    our_ike_options: str = ""
    """More keys of our `ike:` mapping, each with a leading comma."""
    their_ike_options: str = ""
    their_child_options: str = ""
    their_settings: str = ""
    our_remote_ts: str = ""
    their_local_ts: str = ""
    their_psk: str = PSK
    our_options: tuple[str, ...] = ()
    nat: bool = False
    """A NAT hides site a."""
    they_are_site_a: bool = False
    """strongSwan at site a and our gateway at site b, instead of the other way round."""
    environment: dict[str, str] = field(default_factory=dict)
    takes_redirected_frames: bool = False
    """strongSwan's interface takes what we send by XDP, as a veth device does only while it polls."""


StartRig = Callable[[Setup], AbstractContextManager[Rig]]


@pytest.fixture
def start_rig(tmp_path: Path) -> StartRig:
    """Return a context manager that starts a rig, and at its end checks that nothing was in clear."""
    problem = missing()
    assert not problem, f"strongSwan cannot run here: {problem} (make deps-test installs it)"

    @contextmanager
    def start(setup: Setup) -> Iterator[Rig]:
        with site_to_site(f"sw{os.getpid()}", nat=setup.nat) as sites:
            here, there = (sites.b, sites.a) if setup.they_are_site_a else (sites.a, sites.b)
            ours = Gateway(
                here.gateway,
                tmp_path / "ours",
                OURS.format(
                    local=here.outside,
                    remote="%any" if setup.nat and setup.they_are_site_a else there.outside,
                    psk=PSK,
                    ike=setup.ike,
                    ike_options=setup.our_ike_options,
                    local_ts=here.inside,
                    remote_ts=setup.our_remote_ts or there.inside,
                    esp=setup.esp,
                ),
                options=setup.our_options,
                environment=setup.environment,
            )
            theirs = Charon(
                there.gateway,
                tmp_path / "theirs",
                THEIRS.format(
                    local=there.outside,
                    remote="%any" if setup.nat and not setup.they_are_site_a else here.outside,
                    ike=setup.theirs_ike or setup.ike,
                    esp=setup.theirs_esp or setup.esp,
                    ike_options=setup.their_ike_options,
                    child_options=setup.their_child_options,
                    local_ts=setup.their_local_ts or there.inside,
                    remote_ts=here.inside,
                    psk=setup.their_psk,
                ),
                settings=setup.their_settings,
            )
            wire = tmp_path / "wire.pcap"
            show_every_packet(sites)
            if setup.takes_redirected_frames:
                there.gateway.run("ethtool", "-K", there.outside_device, "gro", "on")
            with capturing(sites.b.gateway, sites.b.outside_device, wire), theirs, ours:
                yield Rig(sites, ours, theirs, wire)
        assert clear_packets(wire) == 0

    return start


@pytest.fixture(scope="module")
def sites() -> Iterator[SiteToSite]:
    """Two gateways' namespaces for all tests of a module."""
    with site_to_site(f"nk{os.getpid()}") as sites:
        yield sites


@pytest.fixture(scope="module")
def our_gateway(sites: SiteToSite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OurGateway]:
    """Our gateway at site a, for all tests of a module."""
    with OurGateway(sites.a.gateway, tmp_path_factory.mktemp("ours")) as ours:
        yield ours


StartPair = Callable[..., AbstractContextManager[Pair]]


@pytest.fixture
def start_pair(sites: SiteToSite, our_gateway: OurGateway, tmp_path: Path, evidence: Evidence) -> StartPair:
    """Return a context manager that gives our gateway one connection and starts a peer that has it too."""

    @contextmanager
    def start(kind: type[Peer], wanted: Wanted, *, setup: tuple[str, ...] = ()) -> Iterator[Pair]:
        theirs = kind(sites.b, sites.a, wanted, tmp_path / "theirs", setup)
        evidence.peer_is(theirs.version())
        if wanted.credentials:
            wanted.credentials.write_ours(our_gateway.process.directory)
        our_gateway.configure(wanted.ours(sites.a, sites.b, kind.esp))
        with theirs:
            try:
                yield Pair(sites, our_gateway, theirs)
            finally:
                # While the peer still answers: the next test begins without SAs.
                our_gateway.configure("connections: []\n")
                wait_until(lambda: not our_gateway.ike_sas(), "our SAs are gone", our_gateway.log)

    return start
