"""What an interop test asks of a peer, whichever it is, and what both ends are configured with."""

import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, Self

from gateway.bench.topology import Namespace, Site
from tests.fakes.pki import Issued
from tests.interop.null_kernel import InstalledSa

PSK = "interop-psk-0123456789abcdef"
OUR_ID = "ours.test"
THEIR_ID = "theirs.test"
CONNECTION = "net"

_OURS = """\
connections:
- name: net
  local:  {{address: "{local}", id: ours.test, auth: {{{local_auth}}}}}
  remote: {{address: "{remote}", id: theirs.test, auth: {{{remote_auth}}}}}
  ike: {{proposals: [{ike}], retransmit_timeout: 0.5s, retransmit_tries: 3{ike_options}}}
  allow_weak: [{allow_weak}]
  children:
{children}
"""
_OUR_CERTIFICATE = "certificate: {certs: [{file: our.pem}], key: {file: our.key}}"
_THEIR_CERTIFICATE = "certificate: {cas: [{file: ca.pem}]}"
_PORTS = {"icmp": ("[icmp]", "[icmp]"), "tcp": ("[tcp]", "[tcp/5001]"), "udp": ("[udp]", "[udp/5002]")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Both sides' certificates, of one authority."""

    ca: Issued
    ours: Issued
    theirs: Issued

    def write_ours(self, directory: Path) -> None:
        """Write the files that our configuration names."""
        files = {"ca.pem": self.ca.pem, "our.pem": self.ours.pem, "our.key": self.ours.key_pem}
        for name, contents in files.items():
            (directory / name).write_bytes(contents)
            (directory / name).chmod(0o600)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What both ends are configured with. Proposals are in our words; each peer translates them."""

    ike: tuple[str, ...] = ("aes256gcm16-prfsha384-x25519",)
    esp: tuple[str, ...] = ()
    """Empty: the first that the peer can, see `Peer.esp`."""
    ah: tuple[str, ...] = ()
    """Instead of ESP."""
    allow_weak: tuple[str, ...] = ()
    children: tuple[str, ...] = (CONNECTION,)
    """Names of Child SAs; `icmp`, `tcp` and `udp` are for one protocol, and one port of theirs."""
    their_ike: tuple[str, ...] = ()
    """Empty: as ours."""
    their_psk: str = PSK
    credentials: Credentials | None = None
    """Certificates on both sides, instead of the PSK."""
    mode: Literal["tunnel", "transport"] = "tunnel"
    version: Literal[4, 6] = 4
    """Of the outer addresses."""
    dpd_s: int = 0
    """Liveness checks after this much silence, in seconds; 0: none."""
    our_ike_options: str = ""
    """More keys of our `ike:` mapping, each with a leading comma."""
    their_options: tuple[str, ...] = ()
    """More lines of their configuration, in their words."""

    def outer(self, site: Site) -> str:
        """Return the outer address of a site."""
        return site.outside if self.version == 4 else site.outside_v6

    def selectors(self, child: str, ours: Site, theirs: Site) -> tuple[str, str]:
        """Return the selectors of a Child SA, our side first; strongSwan writes them as we do."""
        local, remote = _PORTS.get(child, ("", ""))
        return f"{ours.inside}{local}", f"{theirs.inside}{remote}"

    def ours(self, here: Site, there: Site, esp: tuple[str, ...]) -> str:
        """Return our configuration file."""
        children: list[str] = []
        for name in self.children:
            children += [f"  - name: {name}", f"    mode: {self.mode}"]
            if self.ah:
                children.append(f"    ah: {{proposals: [{', '.join(self.ah)}]}}")
            else:
                children.append(f"    esp: {{proposals: [{', '.join(self.esp or esp)}]}}")
            if self.mode == "tunnel":
                local, remote = self.selectors(name, here, there)
                children += [f"    local_ts: ['{local}']", f"    remote_ts: ['{remote}']"]
        options = self.our_ike_options + (f", dpd_delay: {self.dpd_s}s" if self.dpd_s else "")
        return _OURS.format(
            local=self.outer(here),
            remote=self.outer(there),
            local_auth=f'psk: {{value: "{PSK}"}}' if self.credentials is None else _OUR_CERTIFICATE,
            remote_auth=f'psk: {{value: "{PSK}"}}' if self.credentials is None else _THEIR_CERTIFICATE,
            ike=", ".join(self.ike),
            ike_options=options,
            allow_weak=", ".join(self.allow_weak),
            children="\n".join(children),
        )


class Peer(Protocol):
    """An IKE daemon on a null kernel, started for one test with one connection, `net`."""

    name: str
    """As docs/interop.md writes it, without version."""
    esp: tuple[str, ...]
    """ESP proposals in our words that it can, the best first."""

    def __init__(
        self, here: Site, there: Site, wanted: Wanted, state: Path, setup: tuple[str, ...]
    ) -> None: ...

    def version(self) -> str:
        """Return the daemon's name and version, as it tells them itself."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def initiate(self) -> None:
        """Begin to bring up the connection."""

    def rekey_child(self) -> None:
        """Begin to rekey the Child SA."""

    def rekey_ike(self) -> None:
        """Begin to rekey the IKE SA."""

    def delete_child(self) -> None:
        """Delete the Child SA."""

    def delete_ike(self) -> None:
        """Delete the IKE SA."""

    def installed(self) -> dict[int, InstalledSa]:
        """Return every SA that it installed since its start, by SPI."""

    def present(self) -> set[int]:
        """Return the SPIs of the SAs that it has installed now."""

    def log(self) -> str:
        """Return its log."""

    def kill(self) -> None:
        """End it without a word to us."""


@dataclass(slots=True)
class Daemon:
    """One process of a peer in a namespace, with what its log says."""

    namespace: Namespace
    state: Path
    """A directory of its own for configuration, log and sockets."""
    log_path: Path
    _process: "subprocess.Popen[str] | None" = field(default=None, repr=False)

    def start(
        self,
        *command: str,
        environment: dict[str, str],
        is_ready: Callable[[], bool],
        timeout_s: float = 40.0,
    ) -> None:
        """Start it and wait until it is ready.

        Raises:
            AssertionError: It ended or is not ready in time; the text has its log.
        """
        with (self.state / "stdout").open("w") as stdout:
            self._process = self.namespace.popen(
                *command,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stdout,
                cwd="/",
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environment},
                start_new_session=True,
            )
        try:
            wait_until(lambda: self.has_ended or is_ready(), f"{command[-1]} is ready", self.log, timeout_s)
            assert not self.has_ended, f"{self.state.name} ended while starting:\n{self.log()}"
        except BaseException:
            self.end(signal.SIGKILL)
            raise

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self._process is None or self._process.poll() is not None

    def log(self) -> str:
        """Return its log, or what it printed when it has none."""
        path = self.log_path if self.log_path.exists() else self.state / "stdout"
        return path.read_text(errors="replace") if path.exists() else ""

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it by a signal, and with force after 10 s."""
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(60)
        self._process = None


def wait_until(
    condition: Callable[[], bool], what: str, log: Callable[[], str], timeout_s: float = 40.0
) -> None:
    """Wait until something is so.

    Raises:
        AssertionError: It is not so in time; the text has the end of the log.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not after {timeout_s} s\n{log()[-8000:]}"
        time.sleep(0.05)
