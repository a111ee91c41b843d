"""A real strongSwan as its ipsec.conf starts it: `starter` and `charon` with the stroke plugin.

Debian's packages for that are unpacked, not installed. Their paths are compiled in, so everything runs in a
mount namespace of its own, where /usr/lib/ipsec is a copy with both, and /run is empty.
"""

import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from gateway.bench.topology import Namespace
from tests.interop.null_kernel import NullKernel
from tests.interop.packages import unpacked

_LIBRARY = Path("/usr/lib/ipsec")
_START_S = 60.0

_MOUNTED = """\
mount --bind "$1/ipsec" /usr/lib/ipsec && mount -t tmpfs none /run && exec /usr/lib/ipsec/starter --nofork \
  --conf "$1/ipsec.conf"
"""
_STRONGSWAN_CONF = """
charon {{
  load = {plugins}
  filelog {{ main {{
    path = {state}/charon.log
    append = no
    flush_line = yes
    ike = 2
    cfg = 2
  }} }}
  plugins {{
    stroke {{ secrets_file = {state}/ipsec.secrets }}
    kernel-libipsec {{ allow_peer_ts = yes }}
    kernel-netlink {{ fwmark = !0x42 }}
    socket-default {{ fwmark = 0x42 }}
  }}
}}
"""
_PLUGINS = (
    "random nonce aes sha1 sha2 hmac kdf gcm openssl gmp pem pkcs1 pkcs8 x509 pubkey {backend} "
    "kernel-netlink socket-default stroke updown"
)


@dataclass(slots=True)
class Starter:
    """One running strongSwan with an ipsec.conf; `with Starter(...) as peer:` starts and ends it."""

    namespace: Namespace
    state: Path
    """A directory of its own for configuration and log."""
    conf: str
    """The text of ipsec.conf."""
    secrets: str
    """The text of ipsec.secrets."""
    kernel: NullKernel | None = None
    """A kernel that takes SAs and moves nothing, instead of user-space ESP, which has no transport mode."""
    _process: "subprocess.Popen[str] | None" = field(default=None, repr=False)

    def __enter__(self) -> "Starter":
        self.state.mkdir(parents=True)
        (self.state / "ipsec.conf").write_text(self.conf)
        (self.state / "ipsec.secrets").write_text(self.secrets)
        plugins = _PLUGINS.format(backend="kernel-libipsec" if self.kernel is None else "")
        (self.state / "strongswan.conf").write_text(
            _STRONGSWAN_CONF.format(plugins=plugins, state=self.state)
        )
        self._copy_programs(self.state / "ipsec")
        with (self.state / "stdout").open("w") as stdout:
            self._process = self.namespace.popen(
                *("unshare", "--mount", "--propagation", "private", "--"),
                *("sh", "-c", _MOUNTED, "sh", str(self.state)),
                env={
                    "STRONGSWAN_CONF": str(self.state / "strongswan.conf"),
                    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                    **({} if self.kernel is None else self.kernel.environment()),
                },
                stdout=stdout,
                stderr=stdout,
                cwd="/",
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def log(self) -> str:
        """Return what charon and starter said so far."""
        paths = [self.state / "stdout", self.state / "charon.log"]
        return "\n".join(path.read_text() for path in paths if path.exists())

    def stop(self) -> None:
        """End both daemons; charon deletes its SAs first."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(60)
        self._process = None

    def _copy_programs(self, target: Path) -> None:
        shutil.copytree(_LIBRARY, target, symlinks=True)
        for package, program in (("strongswan-charon", "charon"), ("strongswan-starter", "starter")):
            library = unpacked(package, f"usr/lib/ipsec/{program}") / "usr/lib/ipsec"
            shutil.copytree(library, target, symlinks=True, dirs_exist_ok=True)

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _START_S
        while "added configuration" not in self.log():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"strongSwan did not load its ipsec.conf:\n{self.log()}")
            time.sleep(0.1)
