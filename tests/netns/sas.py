"""Pairs of SAs and policies with manual keys, as the two ends of one Child SA install them."""

from dataclasses import dataclass
from ipaddress import ip_address

from gateway.ipsec.algorithms import Encr
from gateway.ipsec.lifetime import Lifetime
from gateway.ipsec.policy import Action, Policy
from gateway.ipsec.sa import Direction, Mode, SecurityAssociation, Spi, UdpEncapsulation
from gateway.ipsec.secret import Secret
from gateway.ipsec.selectors import TrafficSelector


@dataclass(frozen=True, kw_only=True)
class ChildSa:
    """One Child SA between a and b, from which each end takes its half."""

    outer_a: str
    outer_b: str
    inner_a: tuple[str, ...]
    inner_b: tuple[str, ...]
    mode: Mode = Mode.TUNNEL
    is_encapsulated: bool = False
    spi: int = 0x1000
    """The SPI towards b; the one towards a is the next."""
    name: str = "net"
    lifetime: Lifetime = Lifetime()

    def sas_of_a(self) -> tuple[SecurityAssociation, SecurityAssociation]:
        """Return a's inbound and outbound SA."""
        return self._inbound(to_b=False), self._outbound(to_b=True)

    def sas_of_b(self) -> tuple[SecurityAssociation, SecurityAssociation]:
        return self._inbound(to_b=True), self._outbound(to_b=False)

    def policy_of_a(self, **changes: object) -> Policy:
        return self._policy(self.inner_a, self.inner_b, changes)

    def policy_of_b(self, **changes: object) -> Policy:
        return self._policy(self.inner_b, self.inner_a, changes)

    def _policy(self, local: tuple[str, ...], remote: tuple[str, ...], changes: dict[str, object]) -> Policy:
        fields: dict[str, object] = {
            "name": f"test/{self.name}",
            "action": Action.PROTECT,
            "local_ts": _selectors(local),
            "remote_ts": _selectors(remote),
            "mode": self.mode,
            "connection": "test",
            "child": self.name,
        }
        return Policy(**{**fields, **changes})  # type: ignore[arg-type]

    def _inbound(self, *, to_b: bool) -> SecurityAssociation:
        return self._sa(Direction.INBOUND, to_b=to_b)

    def _outbound(self, *, to_b: bool) -> SecurityAssociation:
        return self._sa(Direction.OUTBOUND, to_b=to_b)

    def _sa(self, direction: Direction, *, to_b: bool) -> SecurityAssociation:
        is_at_a = to_b == (direction is Direction.OUTBOUND)
        local, remote = (self.inner_a, self.inner_b) if is_at_a else (self.inner_b, self.inner_a)
        source, destination = (self.outer_a, self.outer_b) if to_b else (self.outer_b, self.outer_a)
        spi = self.spi if to_b else self.spi + 1
        return SecurityAssociation(
            spi=Spi(spi),
            direction=direction,
            mode=self.mode,
            source=ip_address(source),
            destination=ip_address(destination),
            encapsulation=UdpEncapsulation(source_port=4500, destination_port=4500)
            if self.is_encapsulated
            else None,
            encryption=Encr.AES_GCM_16,
            encryption_key=Secret(spi.to_bytes(4, "big") * 9),
            key_bits=256,
            local_ts=_selectors(local),
            remote_ts=_selectors(remote),
            lifetime=self.lifetime,
            connection="test",
            child=self.name,
            child_sa_id=self.spi,
        )


def _selectors(texts: tuple[str, ...]) -> tuple[TrafficSelector, ...]:
    return tuple(map(TrafficSelector.parse, texts))
