"""Every suite that Debian's strongSwan has in common with us, in both roles, with real traffic.

One gateway of ours, one charon with its user-space ESP and one pair of namespaces serve all suites.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from gateway.bench.topology import SiteToSite, site_to_site
from tests.interop.our_gateway import OurGateway, failure_of
from tests.interop.page import Evidence
from tests.interop.peer import wait_until
from tests.interop.strongswan import Charon, missing, version

_OURS = """\
connections:
- name: net
  local:  {{address: {local}, id: ours.test, auth: {{psk: {{value: interop-psk-0123456789abcdef}}}}}}
  remote: {{address: {remote}, id: theirs.test, auth: {{psk: {{value: interop-psk-0123456789abcdef}}}}}}
  ike: {{proposals: [{ike}], retransmit_timeout: 2s, retransmit_tries: 2}}
  allow_weak: [{weak}]
  children:
  - name: net
    local_ts: [{local_ts}]
    remote_ts: [{remote_ts}]
    esp: {{proposals: [{esp}]}}
"""

_THEIRS = """\
connections {{ net {{
  version = 2
  local_addrs = {remote}
  remote_addrs = {local}
  proposals = {ike}
  local {{
    auth = psk
    id = theirs.test
  }}
  remote {{
    auth = psk
    id = ours.test
  }}
  children {{ net {{
    local_ts = {remote_ts}
    remote_ts = {local_ts}
    esp_proposals = {esp}
  }} }}
}} }}
secrets {{ ike-1 {{ secret = interop-psk-0123456789abcdef }} }}
"""

GOOD_IKE, GOOD_ESP = "aes256gcm16-prfsha384-x25519", "aes256gcm16"

IKE_SUITES = (
    # Ciphers.
    "aes128-sha256-x25519",
    "aes192-sha384-x25519",
    "aes256-sha512-x25519",
    "camellia256-sha256-x25519",
    "aes128ctr-sha256-x25519",
    "aes192ctr-sha256-x25519",
    "aes256ctr-sha256-x25519",
    "aes128ccm8-prfsha256-x25519",
    "aes192ccm12-prfsha256-x25519",
    "aes256ccm16-prfsha256-x25519",
    "aes128gcm8-prfsha256-x25519",
    "aes192gcm12-prfsha256-x25519",
    "aes256gcm16-prfsha384-x25519",
    "chacha20poly1305-prfsha256-x25519",
    # Integrity and PRFs.
    "aes128-sha1-x25519",
    "aes128-aesxcbc-x25519",
    "aes128-aescmac-x25519",
    "aes256gcm16-prfsha1-x25519",
    "aes256gcm16-prfsha512-x25519",
    "aes256gcm16-prfaesxcbc-x25519",
    "aes256gcm16-prfaescmac-x25519",
    # Key exchange methods.
    *(
        f"aes256gcm16-prfsha256-{method}"
        for method in (
            *("modp2048", "modp3072", "modp4096", "modp6144", "modp8192"),
            *("ecp256", "ecp384", "ecp521", "ecp256bp", "ecp384bp", "ecp512bp", "x448"),
        )
    ),
    # Weak: by name only.
    "3des-md5-modp1536",
    "3des-sha1-modp1024",
)
_WEAK = ("3des", "md5", "modp1024", "modp1536", "null")

ESP_SUITES = (
    "aes128-sha256",
    "aes192-sha384",
    "aes256-sha512",
    "aes128-sha1",
    "aes128-aesxcbc",
    "aes256-aescmac",
    "aes128ctr-sha256",
    "aes192ctr-sha1",
    "aes256ctr-sha512",
    "aes128ccm8",
    "aes192ccm12",
    "aes256ccm16",
    "aes128gcm8",
    "aes192gcm12",
    "aes256gcm16",
    "chacha20poly1305",
    "null-sha256",
)


@dataclass(slots=True)
class Gateways:
    """Both gateways, for one suite after the other."""

    sites: SiteToSite
    ours: OurGateway
    theirs: Charon

    def configure(self, ike: str, esp: str) -> None:
        """Give both sides one connection with these suites."""
        a, b = self.sites.a, self.sites.b
        words = {"local": a.outside, "remote": b.outside, "local_ts": a.inside, "remote_ts": b.inside}
        words |= {"ike": ike, "esp": esp}
        (self.theirs.state / "swanctl" / "swanctl.conf").write_text(_THEIRS.format(**words))
        self.theirs.swanctl("--load-all", "--clear", "--noprompt")
        weak = ", ".join(word for word in _WEAK if word in f"{ike}-{esp}".split("-"))
        self.ours.configure(_OURS.format(**words, weak=weak))

    def bring_up(self, initiator: str) -> None:
        """Bring up the Child SA from one side."""
        if initiator == "ours":
            failure = failure_of(self.ours.up("net"))
            assert not failure, f"{failure}\n{self.theirs.log()[-4000:]}"
        else:
            self.theirs.initiate("net")

    def take_down(self) -> None:
        """Delete everything, and wait until it is gone at both ends."""
        assert not failure_of(self.ours.down("net"))
        wait_until(lambda: not self.ours.ike_sas(), "our SAs are gone", self.ours.log)
        wait_until(lambda: "net:" not in self.theirs.sas(), "their SAs are gone", self.theirs.log)

    def ping(self) -> None:
        """Ping from each host to the other, with packets of an odd and of a large size."""
        a, b = self.sites.a, self.sites.b
        # One at a time: of several, ping gives up the last one after twice the round trip of the others.
        for here, there, size in ((a, b, "61"), (b, a, "1200"), (a, b, "900"), (b, a, "62")):
            done = here.host.run("ping", "-c", "1", "-W", "5", "-s", size, there.host_address, check=False)
            assert " 0% packet loss" in done.stdout, (
                f"{done.stdout}\n{self.counters()}\n{self.theirs.log()[-4000:]}"
            )

    def counters(self) -> str:
        """Return what both sides counted."""
        return f"{self.ours.process.ctl('status').stdout}{self.ours.child_sas()}\n{self.theirs.sas()}"


@pytest.fixture(scope="module")
def gateways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateways]:
    """Both gateways, without any connection."""
    problem = missing()
    assert not problem, f"strongSwan cannot run here: {problem} (make deps-test installs it)"
    folder = tmp_path_factory.mktemp("suites")
    with site_to_site(f"su{os.getpid()}") as sites:
        # What is left of a rekeyed Child SA goes at once, not while the next suite is tested.
        charon = Charon(sites.b.gateway, folder / "theirs", "", settings="delete_rekeyed_delay = 1")
        with OurGateway(sites.a.gateway, folder / "ours") as ours, charon:
            yield Gateways(sites, ours, charon)


@pytest.mark.interop(feature="IKE `{suite}`", peer="strongSwan", role="both")
@pytest.mark.parametrize("suite", IKE_SUITES)
def test_an_ike_suite_in_both_roles(gateways: Gateways, suite: str, evidence: Evidence) -> None:
    """RFC 7296 §3.3.2: IKE_SA_INIT, IKE_AUTH, a rekey of the IKE SA, and a deletion over it."""
    evidence.peer_is(version())
    gateways.configure(suite, GOOD_ESP)
    for initiator in ("ours", "theirs"):
        gateways.bring_up(initiator)

        (ike_sa,) = gateways.ours.ike_sas()
        assert set(ike_sa.proposal.split("-")) >= set(suite.split("-"))
        assert not failure_of(gateways.ours.rekey("net"))
        gateways.take_down()


@pytest.mark.interop(feature="ESP `{suite}`", peer="strongSwan", role="both")
@pytest.mark.parametrize("suite", ESP_SUITES)
def test_an_esp_suite_carries_traffic_in_both_roles(
    gateways: Gateways, suite: str, evidence: Evidence
) -> None:
    """Pings each way, again after a rekey with a key exchange of its own (RFC 7296 §1.3.3)."""
    evidence.peer_is(version())
    gateways.configure(GOOD_IKE, f"{suite}-x25519")
    for initiator in ("ours", "theirs"):
        gateways.bring_up(initiator)

        gateways.ping()

        assert not failure_of(gateways.ours.rekey("net/net"))
        gateways.ping()
        (child_sa,) = gateways.ours.child_sas()
        assert set(child_sa.proposal.split("-")) == {*suite.split("-"), "x25519"}
        gateways.take_down()
