"""A real OpenIKED in a network namespace, on the null kernel.

The Debian package is unpacked, not installed (it would start a service). iked wants its own user, /etc/iked
and an empty directory for its unprivileged processes: a mount namespace of its own shows it a private /etc.
"""

import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Self

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateway.bench.topology import Site
from tests.interop.null_kernel import InstalledSa, NullKernel
from tests.interop.packages import unpacked
from tests.interop.peer import CONNECTION, OUR_ID, THEIR_ID, Daemon, Wanted

_WORDS = {
    "aes128": "enc aes-128",
    "aes192": "enc aes-192",
    "aes256": "enc aes-256",
    "aes128ctr": "enc aes-128-ctr",
    "aes256ctr": "enc aes-256-ctr",
    "aes128gcm12": "enc aes-128-gcm-12",
    "aes128gcm16": "enc aes-128-gcm",
    "aes256gcm16": "enc aes-256-gcm",
    "chacha20poly1305": "enc chacha20-poly1305",
    "sha1": "auth hmac-sha1",
    "sha256": "auth hmac-sha2-256",
    "sha384": "auth hmac-sha2-384",
    "sha512": "auth hmac-sha2-512",
    "prfsha256": "prf hmac-sha2-256",
    "prfsha384": "prf hmac-sha2-384",
    "prfsha512": "prf hmac-sha2-512",
    "modp2048": "group modp2048",
    "modp3072": "group modp3072",
    "modp4096": "group modp4096",
    "ecp256": "group ecp256",
    "ecp384": "group ecp384",
    "ecp521": "group ecp521",
    "x25519": "group curve25519",
}
_AS_ROOT_IN_ETC = """\
mount --bind "$0" /etc && exec "$@"
"""
_ETC_FILES = ("protocols", "services", "nsswitch.conf", "ld.so.cache", "hosts", "localtime")


def words(proposals: tuple[str, ...], kind: str) -> str:
    """Return our proposals in OpenIKED's words, each after `ikesa` or `childsa`."""
    return " ".join(
        " ".join((kind, *(_WORDS[token] for token in proposal.split("-")))) for proposal in proposals
    )


@dataclass(slots=True)
class Iked:
    """One iked with one policy; `with Iked(...) as peer:` starts and ends it."""

    name: ClassVar[str] = "OpenIKED"
    esp: ClassVar[tuple[str, ...]] = ("aes256-sha512-x25519",)

    here: Site
    there: Site
    wanted: Wanted
    state: Path
    setup: tuple[str, ...] = ()
    """More global lines of iked.conf."""
    _daemon: Daemon = field(init=False, repr=False)
    _kernel: NullKernel = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._daemon = Daemon(self.here.gateway, self.state, self.state / "stdout")
        self._kernel = NullKernel(self.state)

    def version(self) -> str:
        """Return `OpenIKED 7.2`, or which it is."""
        done = subprocess.run([_program("iked"), "-V"], capture_output=True, text=True, check=True)
        return (done.stdout + done.stderr).strip()

    def __enter__(self) -> Self:
        etc = self.state / "etc"
        for folder in ("ca", "certs", "crls", "private", "pubkeys/fqdn", "pubkeys/ipv4", "pubkeys/ipv6"):
            (etc / "iked" / folder).mkdir(parents=True)
        (self.state / "empty").mkdir(mode=0o755)
        for name in _ETC_FILES:
            if Path("/etc", name).exists():
                shutil.copy(Path("/etc", name), etc / name)
        (etc / "passwd").write_text(
            f"root:x:0:0::/root:/bin/sh\n_iked:x:65533:65533::{self.state}/empty:/usr/sbin/nologin\n"
        )
        (etc / "group").write_text("root:x:0:\n_iked:x:65533:\n")
        # It does not start without a key of its own, whatever it authenticates with.
        credentials = self.wanted.credentials
        own = credentials.theirs.key if credentials else ec.generate_private_key(ec.SECP256R1())
        key = etc / "iked" / "private" / "local.key"
        key.write_bytes(own.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
        key.chmod(0o600)
        if credentials:
            (etc / "iked" / "ca" / "ca.crt").write_bytes(credentials.ca.pem)
            (etc / "iked" / "certs" / "own.crt").write_bytes(credentials.theirs.pem)
        self._configure()
        self._daemon.start(
            *("unshare", "--mount", "sh", "-c", _AS_ROOT_IN_ETC, str(etc)),
            *(_program("iked"), "-d", "-vv", "-f", str(self.state / "iked.conf"), "-s", str(self._socket)),
            environment=self._kernel.environment(),
            is_ready=lambda: "config_getpfkey: received" in self.log() and self._socket.exists(),
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._daemon.end()

    def ikectl(self, *arguments: str, check: bool = True) -> str:
        """Run one ikectl command and return what it printed."""
        done = self.here.gateway.run(_program("ikectl"), "-s", str(self._socket), *arguments, check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"ikectl {' '.join(arguments)}: {done.stdout}{done.stderr}\n{self.log()}")
        return done.stdout + done.stderr

    def initiate(self) -> None:
        """Let it be active: two seconds later it initiates what it wants."""
        self.ikectl("active")

    def rekey_child(self) -> None:
        """Let the kernel say that the soft lifetime of the newest SA is over."""
        self._kernel.say("soft", list(self._kernel.installed())[-1])

    def rekey_ike(self) -> None:
        """Nothing to do: it rekeys after the `ikelifetime` that the test gave it."""
        assert "ikelifetime" in " ".join(self.wanted.their_options)

    def delete_child(self) -> None:
        """Let the kernel say that the hard lifetime of the newest SA is over: no command does this."""
        self._kernel.say("hard", list(self._kernel.installed())[-1])

    def delete_ike(self) -> None:
        self.ikectl("reset", "sa")

    def send_traffic(self) -> None:
        """Let it believe that it sends through the Child SA: without that it makes no liveness checks."""
        for sa in self._kernel.installed().values():
            if sa.source == self.wanted.outer(self.here):
                self._kernel.say("used", sa.spi)

    def installed(self) -> dict[int, InstalledSa]:
        return self._kernel.installed()

    def present(self) -> set[int]:
        return self._kernel.present()

    def log(self) -> str:
        return self._daemon.log()

    def kill(self) -> None:
        self._daemon.end(signal.SIGKILL)

    @property
    def _socket(self) -> Path:
        return self.state / "iked.sock"

    def _configure(self) -> None:
        wanted = self.wanted
        local, remote = wanted.outer(self.here), wanted.outer(self.there)
        flow = f"from {self.here.inside} to {self.there.inside}"
        if wanted.mode == "transport":
            flow = f"from {local} to {remote}"
        settings = [*self.setup, "set passive"]
        if wanted.dpd_s:
            settings.append(f"set dpd_check_interval {wanted.dpd_s}")
        policy = (
            *(f'ikev2 "{CONNECTION}" active', wanted.mode, "esp", flow, f"local {local} peer {remote}"),
            *(words(wanted.their_ike or wanted.ike, "ikesa"), words(wanted.esp or self.esp, "childsa")),
            *(f"srcid {THEIR_ID} dstid {OUR_ID}", *wanted.their_options),
            "" if wanted.credentials else f'psk "{wanted.their_psk}"',
        )
        path = self.state / "iked.conf"
        path.write_text("\n".join((*settings, " ".join(policy), "")))
        path.chmod(0o600)


def _program(name: str) -> str:
    return str(unpacked("openiked", "usr/sbin/iked") / "usr/sbin" / name)
