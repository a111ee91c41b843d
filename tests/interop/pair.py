"""Our gateway and a peer on the null kernel, with one connection between them."""

from collections.abc import Callable
from dataclasses import dataclass

from gateway.api.types.v1 import ipsec_pb2 as types
from gateway.bench.topology import SiteToSite
from tests.interop.our_gateway import OurGateway, failure_of
from tests.interop.peer import CONNECTION, Peer, wait_until

_MODES = {types.MODE_TUNNEL: "tunnel", types.MODE_TRANSPORT: "transport"}


@dataclass(slots=True)
class Pair:
    """Both ends. `ours` lives on for other tests; `theirs` is new."""

    sites: SiteToSite
    ours: OurGateway
    theirs: Peer

    def bring_up(self, initiator: str) -> None:
        """Bring up the connection and wait until both ends have installed the same SAs."""
        if initiator == "ours":
            failure = failure_of(self.ours.up(CONNECTION))
            assert not failure, f"{failure}\n{self.log()}"
        else:
            self.theirs.initiate()
        self.wait_until(lambda: bool(self.ours.child_sas()), "a Child SA is there")
        self.wait_until(self.same_sas, "both ends have the same SAs")

    def spis(self) -> set[int]:
        """Return the SPIs of our Child SAs, both directions."""
        return {int(half.spi, 16) for sa in self.ours.child_sas() for half in (sa.inbound, sa.outbound)}

    def ike_spis(self) -> set[str]:
        """Return both SPIs of our IKE SAs."""
        return {f"{sa.spi_i}/{sa.spi_r}" for sa in self.ours.ike_sas()}

    def same_sas(self) -> bool:
        """Whether the SAs that are installed at both ends have the same SPIs."""
        return self.spis() == self.theirs.present()

    def moved_from(self, old: set[int]) -> bool:
        """Whether new SAs have taken the place of those with these SPIs, at both ends.

        We keep an old inbound SA for some seconds more, for packets that were on their way.
        """
        theirs, ours = self.theirs.present(), self.spis()
        return bool(theirs) and theirs.isdisjoint(old) and theirs == ours - old

    def check_keys(self) -> None:
        """Check that both ends installed the same SAs: SPI, direction, protocol, mode and keys."""
        installed, keys = self.theirs.installed(), self.ours.keys()
        child_sas = self.ours.child_sas()
        assert child_sas
        for child_sa in child_sas:
            for half, is_inbound in ((child_sa.inbound, True), (child_sa.outbound, False)):
                theirs = installed[int(half.spi, 16)]
                assert theirs.keys == keys[theirs.spi]
                assert theirs.keys[0] or theirs.keys[1]
                assert theirs.mode == _MODES[child_sa.mode]
                destination = self.ours.ike_sas()[0].local if is_inbound else self.ours.ike_sas()[0].remote
                assert theirs.destination == destination.address

    def wait_until(self, condition: Callable[[], bool], what: str, timeout_s: float = 40.0) -> None:
        """Wait until something is so; else fail with both logs."""
        wait_until(condition, what, self.log, timeout_s)

    def log(self) -> str:
        """Return the ends of both logs."""
        return f"--- ours\n{self.ours.log()[-6000:]}\n--- theirs\n{self.theirs.log()[-6000:]}"
