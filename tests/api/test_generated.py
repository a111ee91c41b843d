"""The generated code is what proto/ says, and `generate.sh --check` notices when it is not."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def check(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [root / "proto" / "generate.sh", "--check"],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    for package in ("types", "bench", "control", "datapath", "log"):
        shutil.copytree(ROOT / "gateway" / "api" / package, tmp_path / "gateway" / "api" / package)
    return tmp_path


def test_the_generated_code_is_fresh() -> None:
    done = check(ROOT)

    assert done.returncode == 0, done.stderr


def test_stale_missing_and_orphaned_code_is_told(copy: Path) -> None:
    code = copy / "gateway" / "api"
    (code / "types" / "v1" / "ipsec_pb2.py").write_text("# edited\n")
    (code / "types" / "v1" / "status_pb2.pyi").unlink()
    (code / "control" / "v1" / "old_pb2_grpc.py").write_text("# of a .proto that is gone\n")

    done = check(copy)

    assert done.returncode == 1
    assert sorted(done.stderr.splitlines()) == [
        "differs: gateway/api/types/v1/ipsec_pb2.py",
        "generated code is not what proto/ says: run proto/generate.sh and commit the result",
        "has no .proto: gateway/api/control/v1/old_pb2_grpc.py",
        "missing: gateway/api/types/v1/status_pb2.pyi",
    ]


def test_an_unknown_argument_is_a_usage_error(copy: Path) -> None:
    done = subprocess.run([copy / "proto" / "generate.sh", "--chekc"], capture_output=True, text=True)

    assert done.returncode == 2
    assert done.stderr == "usage: proto/generate.sh [--check]\n"
