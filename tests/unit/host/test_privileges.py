"""What a process keeps to itself."""

import signal
import subprocess
import sys
from pathlib import Path

_STATE = """
import ctypes, os, resource
from gateway.host.privileges import keep_memory_private
keep_memory_private()
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE), flush=True)
os.abort()
"""


def test_a_process_with_keys_leaves_no_core_file(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.path[:0] = sys.argv[1:]" + _STATE, str(Path.cwd())],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )

    # PR_GET_DUMPABLE, and RLIMIT_CORE.
    assert done.stdout.strip() == "0 (0, 0)", done.stderr
    assert done.returncode == -signal.SIGABRT
    assert list(tmp_path.iterdir()) == []
