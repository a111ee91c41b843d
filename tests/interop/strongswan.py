"""A real strongSwan charon in a network namespace, with user-space ESP (kernel-libipsec), for interop tests.

Debian 12's 5.9.8 moves packets through a TUN device and always encapsulates ESP in UDP. No systemd is needed:
the `charon-systemd` binary runs by itself with a private configuration, vici socket and log.
"""

import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gateway.bench.topology import Namespace

CHARON = Path("/usr/sbin/charon-systemd")
SWANCTL = Path("/usr/sbin/swanctl")
_PLUGIN_DIR = Path("/usr/lib/ipsec/plugins")
_PLUGINS = (
    "random nonce rdrand drbg aesni aes sha1 sha2 sha3 md5 hmac kdf cmac xcbc gcm ccm ctr chapoly curve25519 "
    "openssl gmp pem pkcs1 pkcs8 x509 revocation constraints pubkey {backend} kernel-netlink socket-default "
    "updown vici counters"
)
_START_S = 60.0

_STRONGSWAN_CONF = """
charon-systemd {{
  load = {plugins}
  start-scripts {{ }}
  filelog {{ main {{
    path = {state}/charon.log
    append = no
    flush_line = yes
    time_format = %H:%M:%S
    time_add_ms = yes
    default = 1
    ike = 2
    cfg = 2
  }} }}
  journal {{ default = -1 }}
  plugins {{ vici {{ socket = unix://{state}/vici.sock }} }}
  {settings}
}}
swanctl {{ load = pem pkcs1 x509 pubkey openssl random }}
"""


@dataclass(slots=True)
class Charon:
    """One running charon; `with Charon(...) as peer:` starts and ends it."""

    namespace: Namespace
    state: Path
    """A directory of its own for configuration, log and socket."""
    connections: str
    """The text of swanctl.conf."""
    settings: str = ""
    """More lines for the `charon` section of strongswan.conf."""
    backend: str = "kernel-libipsec"
    """The plugin that takes SAs; empty: kernel-netlink itself, for a kernel with ESP or a null one."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """More environment variables."""
    _process: "subprocess.Popen[str] | None" = field(default=None, repr=False)

    def __enter__(self) -> "Charon":
        self.state.mkdir(parents=True, exist_ok=True)
        swanctl = self.state / "swanctl"
        for folder in ("x509", "x509ca", "private"):
            (swanctl / folder).mkdir(parents=True, exist_ok=True)
        (swanctl / "swanctl.conf").write_text(self.connections)
        plugins = [
            name
            for name in _PLUGINS.format(backend=self.backend).split()
            if (_PLUGIN_DIR / f"libstrongswan-{name}.so").exists()
        ]
        (self.state / "strongswan.conf").write_text(
            _STRONGSWAN_CONF.format(plugins=" ".join(plugins), state=self.state, settings=self.settings)
        )
        with (self.state / "stdout").open("w") as stdout:
            self._process = self.namespace.popen(
                str(CHARON),
                env={**self._environment(), **self.environment},
                stdout=stdout,
                stderr=stdout,
                cwd="/",
            )
        try:
            self._wait_until_ready()
            self.swanctl("--load-all")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def swanctl(self, *arguments: str, check: bool = True, timeout_s: float = 90.0) -> str:
        """Run one swanctl command and return what it printed."""
        done = subprocess.run(
            self.namespace.command(str(SWANCTL), *arguments, "--uri", f"unix://{self.state}/vici.sock"),
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"swanctl {' '.join(arguments)}: {done.stdout}{done.stderr}\n{self.log()}")
        return done.stdout + done.stderr

    def initiate(self, child: str, *, check: bool = True) -> str:
        """Initiate a CHILD_SA by name and wait for the outcome."""
        return self.swanctl("--initiate", "--child", child, "--timeout", "60", check=check)

    def sas(self) -> str:
        """Return the text of `swanctl --list-sas`."""
        return self.swanctl("--list-sas")

    def log(self) -> str:
        """Return charon's log so far."""
        path = self.state / "charon.log"
        return path.read_text() if path.exists() else (self.state / "stdout").read_text()

    def stop(self) -> None:
        """End the daemon (it deletes its SAs first)."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the daemon without a word to its peers."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(60)
        self._process = None

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise AssertionError(f"charon ended while starting:\n{self.log()}")
            if (self.state / "vici.sock").exists() and "uptime" in self.swanctl("--stats", check=False):
                return
            time.sleep(0.1)
        raise AssertionError(f"charon has no vici socket after {_START_S} s:\n{self.log()}")

    def _environment(self) -> dict[str, str]:
        return {
            "STRONGSWAN_CONF": str(self.state / "strongswan.conf"),
            "SWANCTL_DIR": str(self.state / "swanctl"),
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        }


def version() -> str:
    """Return `strongSwan 5.9.8`, or which it is."""
    # It fails for want of a daemon to ask, and tells its own version all the same.
    told = subprocess.run([SWANCTL, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"strongSwan \d[\w.]*", told.stdout + told.stderr)
    return found.group() if found else "strongSwan"


def missing() -> str:
    """Return what keeps strongSwan from running here, or the empty string."""
    absent = [str(path) for path in (CHARON, SWANCTL) if not path.exists()]
    if not (_PLUGIN_DIR / "libstrongswan-kernel-libipsec.so").exists():
        absent.append("plugin kernel-libipsec")
    if shutil.which("nsenter") is None:
        absent.append("nsenter")
    return ", ".join(absent)
