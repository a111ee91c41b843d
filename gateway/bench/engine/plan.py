"""What the two benchmarks of the native engine measure, as specs of `hw/engine/bench/bench.c`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

from gateway.datapath.engine.core import Crypto
from gateway.ipsec.algorithms import Encr, Integ

SIZES: Final = (64, 512, 1420)
"""Bytes of the inner packet: small, middle, and what fits a tunnel over Ethernet."""
SA_COUNTS: Final = (1, 1000, 10_000)
DIRECT: Final = "direct"
CRYPTO: Final = "crypto"
SEAL: Final = "seal"
OPEN: Final = "open"
FETCH: Final = "fetch"
TURNS: Final = "turns"
TRAINS: Final = "trains"
RANDOM: Final = "random"
ORDERS: Final = (TURNS, TRAINS, RANDOM)
"""How packets go through many SAs: by turns, eight at a time to one at random, or each to one at random."""


@dataclass(frozen=True, slots=True)
class BenchSuite:
    """A suite by the name that proposals have for it."""

    name: str
    encryption: Encr
    key_bits: int
    integrity: Integ = Integ.NONE


SUITES: Final = (
    BenchSuite("aes128gcm16", Encr.AES_GCM_16, 128),
    BenchSuite("aes256gcm16", Encr.AES_GCM_16, 256),
    BenchSuite("chacha20poly1305", Encr.CHACHA20_POLY1305, 256),
    BenchSuite("aes256-sha1", Encr.AES_CBC, 256, Integ.HMAC_SHA1_96),
    BenchSuite("aes256-sha256", Encr.AES_CBC, 256, Integ.HMAC_SHA2_256_128),
    BenchSuite("aes256-sha512", Encr.AES_CBC, 256, Integ.HMAC_SHA2_512_256),
    BenchSuite("aes256ctr-sha256", Encr.AES_CTR, 256, Integ.HMAC_SHA2_256_128),
    BenchSuite("aes256ccm16", Encr.AES_CCM_16, 256),
    BenchSuite("aes256gmac", Encr.NULL_AUTH_AES_GMAC, 256),
    BenchSuite("null-sha256", Encr.NULL, 0, Integ.HMAC_SHA2_256_128),
)
REFERENCE_SUITE: Final = SUITES[1]
"""What `bench engine` measures unless it is told otherwise."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One thing to measure."""

    what: str
    """`direct`, `crypto`, `seal`, `open` or `fetch`: see bench.c."""
    suite: BenchSuite
    crypto: Crypto
    packet_bytes: int
    sas: int = 1
    order: str = TURNS

    @property
    def spec(self) -> str:
        """Return it as bench.c reads it."""
        suite = self.suite
        numbers = (
            suite.encryption,
            suite.integrity,
            suite.key_bits,
            self.crypto,
            self.packet_bytes,
            self.sas,
        )
        return ":".join((self.what, *(str(int(number)) for number in numbers), self.order))


def has_direct_call(suite: BenchSuite, crypto: Crypto) -> bool:
    """Say whether ipsec-mb has a call for one packet of a suite."""
    return crypto is Crypto.IPSECMB and suite.encryption is Encr.AES_GCM_16


def crypto_measures(
    suites: Iterable[BenchSuite], libraries: Sequence[Crypto], sizes: Sequence[int]
) -> list[Measure]:
    """Return the measures of `bench crypto`: each library's speed, without ESP."""
    return [
        Measure(DIRECT if has_direct_call(suite, crypto) else CRYPTO, suite, crypto, size)
        for suite in suites
        for crypto in libraries
        for size in sizes
    ]


def engine_measures(
    suite: BenchSuite, crypto: Crypto, sizes: Sequence[int], sa_counts: Sequence[int]
) -> list[Measure]:
    """Return the measures of `bench engine`: ESP both ways, beside the library alone under as many keys."""
    measures: list[Measure] = []
    for sas, order, size in product(sa_counts, ORDERS, sizes):
        if sas == 1 and order != TURNS:
            continue
        whats = [SEAL, OPEN]
        if has_direct_call(suite, crypto):
            whats = [DIRECT, *whats] if sas == 1 else [FETCH, DIRECT, *whats]
        elif sas == 1:
            whats = [CRYPTO, *whats]
        measures += (Measure(what, suite, crypto, size, sas, order) for what in whats)
    return measures
