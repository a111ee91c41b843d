"""A Debian that has never seen us, and the package that goes into it."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.bench.topology import Namespace

REPOSITORY = Path(__file__).parents[2]
CACHE = Path(os.environ.get("IPSECGW_CACHE", Path.home() / ".cache" / "ipsecgw"))


def build(directory: Path) -> Path:
    """Return the package that `make deb` builds."""
    done = subprocess.run(
        [REPOSITORY / "packaging" / "build-deb", directory],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env={**os.environ, "SOURCE_DATE_EPOCH": "1750000000"},
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.split()[-1])


@dataclass(frozen=True, slots=True)
class CleanDebian:
    """A Debian below a directory, in the network of a namespace."""

    root: Path
    network: Namespace

    def command(self, *argv: str) -> list[str]:
        """Return a command line that runs `argv` there; its mounts end with it."""
        mounts = " && ".join(f"mount --rbind /{name} {self.root}/{name}" for name in ("proc", "sys", "dev"))
        script = f'{mounts} && exec chroot {self.root} env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"'
        private = ("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh")
        return self.network.command(*private, *argv)

    def run(self, *argv: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end."""
        done = subprocess.run(self.command(*argv), capture_output=True, text=True, check=False, timeout=120)
        assert not check or done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
        return done

    @contextmanager
    def running(self, *argv: str) -> Iterator["subprocess.Popen[bytes]"]:
        """Run a command until the end of the block."""
        with (self.root / "log").open("a") as log:
            process = subprocess.Popen(self.command(*argv), stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)

    def log(self) -> str:
        """Return the end of what the commands of `running` said."""
        return (self.root / "log").read_text()[-4000:]


def clean_debian(directory: Path, network: Namespace) -> CleanDebian:
    """Return one below a directory, which must not be there yet."""
    done = subprocess.run(
        [REPOSITORY / ".ci" / "clean-root", CACHE / "roots"],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    subprocess.run(["cp", "-a", done.stdout.strip(), directory], check=True)
    return CleanDebian(directory, network)
