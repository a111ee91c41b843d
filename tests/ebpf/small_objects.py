"""Objects that test the loader, compiled from `objects/` beside this file, each once."""

import subprocess
import tempfile
from functools import cache
from pathlib import Path

SOURCES = Path(__file__).parent / "objects"
EBPF = Path(__file__).parents[2] / "ebpf"


@cache
def compile_object(name: str) -> bytes:
    """Return the object of `objects/NAME.bpf.c`, made by the rule of `ebpf/Makefile`."""
    with tempfile.TemporaryDirectory() as build:
        target = Path(build) / f"{name}.bpf.o"
        subprocess.run(
            ["make", "--silent", "-f", str(EBPF / "Makefile"), f"BUILD={build}", str(target)],
            cwd=SOURCES,
            check=True,
            timeout=60,
        )
        return target.read_bytes()
