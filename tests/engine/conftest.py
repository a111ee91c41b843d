"""The ESP core library as the tests get it: built here, from the sources as they are."""

import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.datapath.engine.core import Crypto, EngineLibrary, Worker
from tests.unit.esp.samples import material

ENGINE = Path(__file__).parents[2] / "hw" / "engine"
BUILD = Path(os.environ.get("IPSECGW_CACHE") or Path.home() / ".cache" / "ipsecgw") / "engine"
LIBRARIES = [Crypto.IPSECMB, Crypto.OPENSSL]


def make(*targets: str, build: Path = BUILD, source: Path = ENGINE, **variables: str) -> Path:
    """Build targets of hw/engine, or of another source, and return the folder they are in."""
    settings = [f"{name}={value}" for name, value in {"BUILD": str(build), **variables}.items()]
    command = ["make", "--no-print-directory", "-C", str(source), "-j2", *settings]
    command += [str(build / target) for target in targets]
    build.mkdir(parents=True, exist_ok=True)
    with (build / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return build


@pytest.fixture(scope="session")
def library() -> EngineLibrary:
    return EngineLibrary(make("libgw_engine.so") / "libgw_engine.so")


@pytest.fixture
def worker(library: EngineLibrary) -> Iterator[Worker]:
    worker = Worker(library, seed=material("worker", 32))
    yield worker
    worker.close()


@pytest.fixture(params=LIBRARIES, ids=lambda crypto: crypto.name.lower())
def crypto(request: pytest.FixtureRequest, library: EngineLibrary) -> Crypto:
    """Each crypto library in turn."""
    crypto: Crypto = request.param
    if not library.crypto_name(crypto):
        pytest.skip(f"this build or CPU has no {crypto.name}")
    return crypto
