"""Find the compiled XDP programs: in `ebpf/build`, made there by `make` where clang is at hand.

The product works without them, on paths that need no XDP; who wants one gets an error that says what is
missing.
"""

import fcntl
import os
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Final

from gateway.host.bpf.abi import check_abi
from gateway.host.bpf.errors import BpfError
from gateway.host.bpf.spec import ObjectSpec, read_object

_CHECKOUT: Final = Path(__file__).parents[3] / "ebpf"
_TIMEOUT_S: Final = 120.0


def compiled_object(name: str) -> Path:
    """Return the object of `NAME.bpf.c`, compiled now if it is missing or older than its sources.

    Without clang an object that is there, made before or shipped with the sources, is good enough.
    `IPSECGW_EBPF` names a folder of objects that are to be taken as they are.

    Raises:
        BpfError: It cannot be compiled: clang, make or headers are missing, or the sources are.
    """
    named = os.environ.get("IPSECGW_EBPF")
    if named:
        return _made_elsewhere(Path(named), name)
    sources = source_directory()
    if not (sources / f"{name}.bpf.c").is_file():
        raise BpfError(f"{sources} has no program {name}")
    build = build_directory(sources)
    target = build / f"{name}.bpf.o"
    missing = [tool for tool in ("clang", "make") if shutil.which(tool) is None]
    if missing:
        for made in (target, sources / "build" / target.name):
            if made.is_file():
                return made
        raise BpfError(
            f"the XDP program {name} is not compiled and {' and '.join(missing)} cannot be found: "
            "install clang, make and libbpf-dev"
        )
    build.mkdir(parents=True, exist_ok=True)
    with (sources / "Makefile").open() as lock:  # one at a time: processes and tests start together
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(  # noqa: S603 (our own Makefile)
            ["make", "--silent", "-C", str(sources), f"BUILD={build}", str(target)],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_S,
        )
    if done.returncode != 0:
        raise BpfError(f"the XDP program {name} cannot be compiled: {done.stderr.strip()[-2000:]}")
    return target


def _made_elsewhere(folder: Path, name: str) -> Path:
    made = folder / f"{name}.bpf.o"
    if not made.is_file():
        raise BpfError(f"{folder}, which IPSECGW_EBPF names, has no program {name}")
    return made


def read_program(name: str) -> ObjectSpec:
    """Return the spec of `NAME.bpf.c`, its maps compared with our records.

    Raises:
        BpfError: It cannot be compiled or read, or its maps are laid out otherwise.
    """
    spec = read_object(compiled_object(name))
    check_abi(spec)
    return spec


def source_directory() -> Path:
    """Return where the C sources are: of the checkout, or of the installed package."""
    packaged = Path(str(files("gateway.host.bpf") / "source"))
    return packaged if packaged.is_dir() else _CHECKOUT


def build_directory(sources: Path) -> Path:
    """Return where objects go: beside the sources in a checkout, else into the user's cache."""
    if sources == _CHECKOUT:
        return sources / "build"
    return Path(os.environ.get("IPSECGW_CACHE", Path.home() / ".cache" / "ipsecgw")) / "ebpf"
