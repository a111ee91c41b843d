"""A real libreswan pluto in a network namespace, on the null kernel.

The Debian package is unpacked, not installed (it conflicts with strongSwan's). pluto looks for its helpers in
/usr/libexec/ipsec: a mount namespace of its own shows them there.
"""

import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Self

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12

from gateway.bench.topology import Site
from tests.interop.null_kernel import InstalledSa, NullKernel
from tests.interop.packages import unpacked
from tests.interop.peer import CONNECTION, OUR_ID, THEIR_ID, Credentials, Daemon, Wanted

_WORDS = {
    "aes128": "aes128",
    "aes256": "aes256",
    "null": "null",
    "aes256gmac": "aes_gmac256",
    "aes128gcm8": "aes_gcm_a128",
    "aes256gcm12": "aes_gcm_b256",
    "aes128ctr": "aes_ctr128",
    "aes256ctr": "aes_ctr256",
    "aes128ccm16": "aes_ccm_c128",
    "aes256ccm16": "aes_ccm_c256",
    "aes128gcm16": "aes_gcm128",
    "aes256gcm16": "aes_gcm256",
    "chacha20poly1305": "chacha20_poly1305",
    "sha1": "sha1",
    "aesxcbc": "aes_xcbc",
    "aescmac": "aes_cmac",
    "sha384": "sha2_384",
    "sha256": "sha2_256",
    "sha512": "sha2_512",
    "prfsha256": "sha2_256",
    "prfsha384": "sha2_384",
    "prfsha512": "sha2_512",
    "modp2048": "modp2048",
    "modp3072": "modp3072",
    "modp4096": "modp4096",
    "ecp256": "dh19",
    "ecp384": "dh20",
    "ecp521": "dh21",
    "x25519": "dh31",
}
_METHODS = ("modp", "ecp", "x25519")

_IPSEC_CONF = """\
config setup
	logfile={state}/pluto.log
	ipsecdir={state}/d
	nssdir={state}/nss
	secretsfile={state}/ipsec.secrets
	dnssec-enable=no
	{setup}

conn {name}
	left={local}
	leftid=@{their_id}
	right={remote}
	rightid=@{our_id}
	{selectors}
	ikev2=insist
	ike={ike}
	esp={esp}
	type={mode}
	leftupdown=%disabled
	auto=ignore
	{options}
"""


def words(proposal: str, *, is_esp: bool) -> str:
    """Return a proposal of ours in libreswan's words, as `aes_gcm256-sha2_384;dh31`."""
    tokens = [token for token in proposal.split("-") if token != "esn"]
    methods = [_WORDS[token] for token in tokens if token.startswith(_METHODS)]
    others = list(dict.fromkeys(_WORDS[token] for token in tokens if not token.startswith(_METHODS)))
    if is_esp and len(others) == 1:
        others.append("null")
    return ";".join(("-".join(others), *methods))


@dataclass(slots=True)
class Pluto:
    """One pluto with one connection; `with Pluto(...) as peer:` starts and ends it."""

    name: ClassVar[str] = "libreswan"
    esp: ClassVar[tuple[str, ...]] = ("aes256gcm16-x25519",)

    here: Site
    there: Site
    wanted: Wanted
    state: Path
    setup: tuple[str, ...] = ()
    """More lines of `config setup`."""
    _daemon: Daemon = field(init=False, repr=False)
    _kernel: NullKernel = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._daemon = Daemon(self.here.gateway, self.state, self.state / "pluto.log")
        self._kernel = NullKernel(self.state)

    def version(self) -> str:
        """Return `libreswan 4.10`, or which it is."""
        told = subprocess.run([_program("pluto"), "--version"], capture_output=True, text=True, check=True)
        return " ".join(told.stdout.split()[:2]).lower()

    def __enter__(self) -> Self:
        for folder in ("run", "d", "nss"):
            (self.state / folder).mkdir(parents=True)
        _run("certutil", "-N", "--empty-password", "-d", f"sql:{self.state}/nss")
        if self.wanted.credentials:
            self._import(self.wanted.credentials)
        self._configure()
        pluto = (
            *(_program("pluto"), "--nofork", "--config", str(self.state / "ipsec.conf")),
            *("--rundir", str(self.state / "run"), "--nssdir", str(self.state / "nss")),
            *("--logfile", str(self.state / "pluto.log")),
        )
        self._daemon.start(
            *("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /usr/libexec && exec "$@"'),
            *(str(_root() / "usr/libexec"), *pluto),
            environment=self._kernel.environment(),
            is_ready=self._answers,
        )
        try:
            self.whack("--listen")
            self._addconn()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._daemon.end()

    def whack(self, *arguments: str, check: bool = True) -> str:
        """Run one whack command and return what it printed."""
        done = self.here.gateway.run(
            _program("whack"), "--rundir", str(self.state / "run"), *arguments, check=False
        )
        if check and done.returncode != 0:
            raise AssertionError(f"whack {' '.join(arguments)}: {done.stdout}{done.stderr}\n{self.log()}")
        return done.stdout + done.stderr

    def initiate(self) -> None:
        self.whack("--name", CONNECTION, "--initiate", "--asynchronous")

    def rekey_child(self) -> None:
        self.whack("--name", CONNECTION, "--rekey-ipsec", "--asynchronous")

    def rekey_ike(self) -> None:
        self.whack("--name", CONNECTION, "--rekey-ike", "--asynchronous")

    def delete_child(self) -> None:
        self.whack("--deletestate", self._state_number("ESTABLISHED_CHILD_SA"))

    def delete_ike(self) -> None:
        self.whack("--name", CONNECTION, "--terminate", check=False)

    def installed(self) -> dict[int, InstalledSa]:
        return self._kernel.installed()

    def present(self) -> set[int]:
        return self._kernel.present()

    def log(self) -> str:
        return self._daemon.log()

    def kill(self) -> None:
        self._daemon.end(signal.SIGKILL)

    def _import(self, credentials: Credentials) -> None:
        """Bring the authority and their own certificate with its key into the NSS database."""
        database = ("-d", f"sql:{self.state}/nss")
        (self.state / "ca.pem").write_bytes(credentials.ca.pem)
        _run("certutil", "-A", "-n", "ca", "-t", "CT,,", "-i", str(self.state / "ca.pem"), *database)
        theirs = credentials.theirs
        (self.state / "own.p12").write_bytes(
            pkcs12.serialize_key_and_certificates(
                b"own", theirs.key, theirs.certificate, [], BestAvailableEncryption(b"pass")
            )
        )
        _run("pk12util", "-i", str(self.state / "own.p12"), "-W", "pass", "-K", "", *database)

    def _answers(self) -> bool:
        return (self.state / "run" / "pluto.ctl").exists() and "total" in self.whack(
            "--globalstatus", check=False
        )

    def _addconn(self) -> None:
        done = self.here.gateway.run(
            *(_program("addconn"), "--config", str(self.state / "ipsec.conf")),
            *("--ctlsocket", str(self.state / "run" / "pluto.ctl"), CONNECTION),
            check=False,
        )
        assert "added" in self.log(), f"{done.stdout}{done.stderr}\n{self.log()}"

    def _state_number(self, kind: str) -> str:
        """Return the number of the newest state of a kind, as `#2` in `whack --showstates`."""
        lines = [line for line in self.whack("--showstates").splitlines() if kind in line]
        assert lines, self.whack("--showstates")
        return lines[-1].split("#")[1].split(":")[0]

    def _configure(self) -> None:
        wanted = self.wanted
        selectors = [f"leftsubnet={self.here.inside}", f"rightsubnet={self.there.inside}"]
        options = [*wanted.their_options]
        if wanted.credentials is None:
            options.append("authby=secret")
        else:
            is_rsa = isinstance(wanted.credentials.theirs.key, RSAPrivateKey)
            options.append("authby=rsasig" if is_rsa else "authby=ecdsa")
            options += ["leftcert=own", "leftsendcert=always", "rightca=%same", "rightrsasigkey=%cert"]
        if wanted.dpd_s:
            options += [f"dpddelay={wanted.dpd_s}", f"dpdtimeout={3 * wanted.dpd_s}", "dpdaction=clear"]
        text = _IPSEC_CONF.format(
            state=self.state,
            setup="\n\t".join(self.setup),
            name=CONNECTION,
            local=wanted.outer(self.here),
            remote=wanted.outer(self.there),
            our_id=OUR_ID,
            their_id=THEIR_ID,
            selectors="\n\t".join(selectors) if wanted.mode == "tunnel" else "",
            ike=",".join(words(one, is_esp=False) for one in wanted.their_ike or wanted.ike),
            esp=",".join(words(one, is_esp=True) for one in wanted.esp or self.esp),
            mode=wanted.mode,
            options="\n\t".join(options),
        )
        # A line of white space alone would end the section.
        lines = [line for line in text.splitlines() if line.strip() or not line]
        (self.state / "ipsec.conf").write_text("\n".join(lines) + "\n")
        secrets = self.state / "ipsec.secrets"
        secrets.write_text(f'@{OUR_ID} @{THEIR_ID} : PSK "{wanted.their_psk}"\n')
        secrets.chmod(0o600)


def _root() -> Path:
    return unpacked("libreswan", "usr/libexec/ipsec/pluto")


def _program(name: str) -> str:
    return str(_root() / "usr/libexec/ipsec" / name)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
