"""strongSwan's charon as the responder to compare with: Debian's binary, our measurement's configuration.

Its datapath is kernel-libipsec, ESP in user space, since it must run where the kernel has no ESP. One route
serves all SAs and nothing is logged, so that it is the key exchange that costs. Its memory includes its
ESP SAs.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from gateway.bench.ike.pki import AUTHORITY, RESPONDER, Pki
from gateway.bench.ike.suites import INITIATORS_LAN, PSK, RESPONDER_LAN, Suite
from gateway.bench.machine import ask_version
from gateway.bench.topology import Namespace
from gateway.ipsec.errors import GatewayError

CHARON: Final = Path("/usr/sbin/charon-systemd")
SWANCTL: Final = Path("/usr/sbin/swanctl")
_PLUGINS: Final = Path("/usr/lib/ipsec/plugins")
_START_S: Final = 15.0

_STRONGSWAN_CONF: Final = """
charon-systemd {{
  load = {plugins}
  start-scripts {{ }}
  dos_protection = {dos_protection}
  filelog {{ main {{
    path = {state}/charon.log
    default = 0
  }} }}
  journal {{ default = -1 }}
  plugins {{ vici {{ socket = unix://{state}/vici.sock }} }}
}}
swanctl {{ load = pem pkcs1 x509 pubkey openssl random }}
"""
_WANTED: Final = (
    "random nonce aesni aes sha1 sha2 hmac kdf gcm curve25519 openssl gmp pem pkcs1 pkcs8 x509 pubkey "
    "constraints kernel-libipsec kernel-netlink socket-default vici"
)
_WITH_PSK: Final = ("auth = psk", "auth = psk")
_WITH_KEYS: Final = (f"auth = pubkey\n      certs = {RESPONDER}.pem", "auth = pubkey")
_SWANCTL_CONF: Final = """
connections {{
  hub {{
    version = 2
    local_addrs = {address}
    remote_addrs = %any
    proposals = {ike}
    unique = never
    mobike = no
    local {{
      {own_auth}
      id = {responder_id}
    }}
    remote {{
      {peer_auth}
      id = *.bench
    }}
    children {{
      lan {{
        local_ts = {lan}
        remote_ts = {remote_lan}
        esp_proposals = {esp}
      }}
    }}
  }}
}}
secrets {{
  ike-all {{
    secret = "{psk}"
  }}
}}
"""


_SITE_CONF: Final = """
connections {{
  site {{
    version = 2
    local_addrs = {address}
    remote_addrs = {peer}
    proposals = aes256gcm16-prfsha256-x25519
    mobike = no
    local {{ auth = psk }}
    remote {{ auth = psk }}
    children {{
      lan {{
        local_ts = {network}
        remote_ts = {peer_network}
        esp_proposals = aes256gcm16
      }}
    }}
  }}
}}
secrets {{
  ike-all {{
    secret = "{psk}"
  }}
}}
"""


class CharonError(GatewayError):
    """charon did not start."""


def missing() -> str:
    """Return what keeps charon from running here, or the empty string."""
    needed = (CHARON, SWANCTL, _PLUGINS / "libstrongswan-kernel-libipsec.so")
    absent = [str(path) for path in needed if not path.exists()]
    if not absent:
        return ""
    packages = "charon-systemd libcharon-extra-plugins strongswan-swanctl"
    return f"{', '.join(absent)} (apt-get install {packages})"


def version() -> str:
    """Return strongSwan's version, as its own command tells it."""
    return f"strongSwan {ask_version([(str(SWANCTL), '--version')])}"


@contextmanager
def charon(
    namespace: Namespace,
    state: Path,
    suite: Suite,
    *,
    address: str,
    dos_protection: bool,
    pki: Pki | None = None,
) -> Iterator[int]:
    """Run charon as the responder of a suite; yields its PID.

    Args:
        namespace: Where it runs.
        state: A directory for its configuration, socket and log.
        suite: What it is to negotiate.
        address: Its own outer address.
        dos_protection: Whether it asks for cookies and limits half-open IKE SAs, as it does by default.
        pki: Keys and certificates where the suite signs.

    Raises:
        CharonError: It did not start.
    """
    if pki is not None:
        _give(state / "swanctl", pki)
    own_auth, peer_auth = _WITH_PSK if pki is None else _WITH_KEYS
    connections = _SWANCTL_CONF.format(
        address=address,
        ike=suite.ike,
        esp=suite.esp,
        responder_id=RESPONDER,
        own_auth=own_auth,
        peer_auth=peer_auth,
        lan=RESPONDER_LAN,
        remote_lan=INITIATORS_LAN,
        psk=PSK,
    )
    with _running(namespace, state, connections, dos_protection=dos_protection) as pid:
        yield pid


@contextmanager
def charon_site(
    namespace: Namespace, state: Path, *, address: str, peer: str, network: str, peer_network: str
) -> Iterator[int]:
    """Run charon as one of two gateways with AES-256-GCM between two networks; yields its PID.

    Args:
        namespace: Where it runs.
        state: A directory for its configuration, socket and log.
        address: Its own outer address.
        peer: The other's.
        network: Behind it; one address of it is this machine's.
        peer_network: Behind the other.

    Raises:
        CharonError: It did not start.
    """
    connections = _SITE_CONF.format(
        address=address, peer=peer, network=network, peer_network=peer_network, psk=PSK
    )
    with _running(namespace, state, connections, dos_protection=True) as pid:
        yield pid


def initiate_site(namespace: Namespace, state: Path) -> None:
    """Have one of two `charon_site`s bring the Child SA up.

    Raises:
        CharonError: It did not come up.
    """
    command = (str(SWANCTL), "--initiate", "--child", "lan", "--uri", f"unix://{state}/vici.sock")
    done = subprocess.run(namespace.command(*command), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CharonError(f"charon brings no Child SA up: {done.stdout}{done.stderr}")


@contextmanager
def _running(namespace: Namespace, state: Path, connections: str, *, dos_protection: bool) -> Iterator[int]:
    swanctl = state / "swanctl"
    swanctl.mkdir(parents=True, exist_ok=True)
    (swanctl / "swanctl.conf").write_text(connections)
    plugins = [name for name in _WANTED.split() if (_PLUGINS / f"libstrongswan-{name}.so").exists()]
    (state / "strongswan.conf").write_text(
        _STRONGSWAN_CONF.format(
            plugins=" ".join(plugins), state=state, dos_protection="yes" if dos_protection else "no"
        )
    )
    environment = {
        **os.environ,
        "STRONGSWAN_CONF": str(state / "strongswan.conf"),
        "SWANCTL_DIR": str(swanctl),
    }
    with (state / "stdout").open("w") as output:
        process = namespace.popen(str(CHARON), env=environment, stdout=output, stderr=output, cwd="/")
    try:
        _load(namespace, state, environment, process)
        yield process.pid
    finally:
        # Not asked to end: it would delete every SA with its peer first, and the peer is gone by then.
        process.kill()
        process.wait(10)


def _give(swanctl: Path, pki: Pki) -> None:
    swanctl.mkdir(parents=True)
    for folder, name in (
        ("x509ca", f"{AUTHORITY}.pem"),
        ("x509", f"{RESPONDER}.pem"),
        ("private", f"{RESPONDER}.key"),
    ):
        (swanctl / folder).mkdir()
        shutil.copy(pki.directory / name, swanctl / folder / name)


def _load(
    namespace: Namespace, state: Path, environment: dict[str, str], process: "subprocess.Popen[str]"
) -> None:
    command = [str(SWANCTL), "--load-all", "--uri", f"unix://{state}/vici.sock"]
    deadline = time.monotonic() + _START_S
    told = ""
    while time.monotonic() < deadline and process.poll() is None:
        if (state / "vici.sock").exists():
            done = subprocess.run(
                namespace.command(*command), env=environment, capture_output=True, text=True, check=False
            )
            told = done.stdout + done.stderr
            if done.returncode == 0:
                return
        time.sleep(0.1)
    raise CharonError(f"charon did not start: {told} {(state / 'stdout').read_text()}")
