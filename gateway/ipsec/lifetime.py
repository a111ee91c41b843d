"""Hard and soft limits of an SA in seconds, bytes and packets (RFC 4301 §4.4.2.1)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One bound; `None` means no bound of that kind."""

    seconds: float | None = None
    bytes: int | None = None
    packets: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetime:
    """When to rekey (`soft`) and when to stop using the SA whatever happens (`hard`).

    The values are final: jitter was already applied by `gateway.ipsec.lifetime.jittered`.
    """

    soft: Limit = Limit()
    hard: Limit = Limit()
