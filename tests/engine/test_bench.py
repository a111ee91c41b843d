"""The benchmark program itself: every kind of measure gives a figure."""

import pytest

from gateway.bench.engine.plan import REFERENCE_SUITE, SUITES, crypto_measures, engine_measures
from gateway.bench.engine.run import Effort, run
from gateway.datapath.engine.core import Crypto, EngineError, EngineLibrary
from tests.engine.conftest import make

EFFORT = Effort(rounds=2, packets=256, burst=32, cpu=None)


def test_measures_esp_through_one_and_several_sas(
    library: EngineLibrary, crypto: Crypto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPSECGW_ENGINE", str(library.path))
    make("bench")

    results = run(engine_measures(REFERENCE_SUITE, crypto, (64, 1420), (1, 40)), EFFORT)

    assert all(len(result.rounds) == 2 and min(result.rounds) > 0 for result in results.results)
    assert results.counter_hz > 1e8


def test_measures_every_suite_that_a_library_has(
    library: EngineLibrary, crypto: Crypto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPSECGW_ENGINE", str(library.path))
    make("bench")

    results = run(crypto_measures(SUITES, [crypto], (64,)), EFFORT)

    assert [result.measure.suite for result in results.results] == list(SUITES)


def test_a_spec_that_the_program_refuses_is_an_error(
    library: EngineLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPSECGW_ENGINE", str(library.path))
    make("bench")

    with pytest.raises(EngineError, match="not a spec"):
        run(engine_measures(REFERENCE_SUITE, Crypto.OPENSSL, (9000,), (1,)), EFFORT)
