"""Network namespaces for the demo, the benchmarks and the tests: made, used and always taken away again.

    PREFIX-ha ──── PREFIX-ga ──── [PREFIX-nat] ──── PREFIX-gb ──── PREFIX-hb
    10.1.0.10      .1 | 192.0.2.1               192.0.2.2 | .1     10.2.0.10
    fd00:1::10     ::1| 2001:db8::1             2001:db8::2|::1    fd00:2::10

Addresses are documentation and private ranges (RFC 5737, RFC 3849, RFC 4193); nothing leaves the namespaces.
Commands run inside by `nsenter`, which, unlike `ip netns exec`, leaves /sys as it is.
"""

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from gateway.ipsec.errors import GatewayError


class TopologyError(GatewayError):
    """A namespace, link or address could not be made."""


@dataclass(frozen=True, slots=True)
class Namespace:
    """One network namespace, by the name `ip netns` knows it by."""

    name: str

    def command(self, *argv: str) -> list[str]:
        """Return `argv` as a command line that runs in this namespace."""
        return ["nsenter", f"--net=/run/netns/{self.name}", "--", *argv]

    def run(
        self, *argv: str, check: bool = True, timeout_s: float = 60.0, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end and return it with its output as text.

        Raises:
            TopologyError: The command failed and `check` is set.
        """
        done = subprocess.run(
            self.command(*argv),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            input=stdin,
        )
        if check and done.returncode != 0:
            raise TopologyError(
                f"{' '.join(argv)} in {self.name}: {done.stderr.strip() or done.stdout.strip()}"
            )
        return done

    def popen(self, *argv: str, **options: object) -> "subprocess.Popen[str]":
        """Start a command; the caller owns the process and ends it."""
        return subprocess.Popen(self.command(*argv), text=True, **options)  # type: ignore[call-overload,no-any-return]


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A veth pair: a namespace, an interface name and addresses with prefix length at each end."""

    left: Namespace
    left_device: str
    left_addresses: tuple[str, ...]
    right: Namespace
    right_device: str
    right_addresses: tuple[str, ...]
    mtu: int = 1500
    queues: int = 1
    """Of each end, to receive and to send."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One half of a site-to-site topology."""

    gateway: Namespace
    host: Namespace
    outside: str
    """Outer IPv4 address of the gateway."""
    outside_v6: str
    inside: str
    """Protected IPv4 network."""
    inside_v6: str
    host_address: str
    host_address_v6: str
    outside_device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteToSite:
    """host - gateway - (NAT) - gateway - host."""

    a: Site
    b: Site
    nat: Namespace | None


_SYSCTLS = (
    "net.ipv4.ip_forward=1",
    "net.ipv6.conf.all.forwarding=1",
    "net.ipv6.conf.default.accept_dad=0",
    "net.ipv6.conf.all.accept_dad=0",
    "net.ipv4.conf.all.rp_filter=0",
    "net.ipv4.conf.default.rp_filter=0",
)

_MASQUERADE = """
table ip nat {
  chain postrouting {
    type nat hook postrouting priority 100;
    oifname "outside" masquerade
  }
}
"""


def make_namespace(name: str) -> Namespace:
    """Make a namespace that forwards, with its loopback up."""
    _ip("netns", "add", name)
    namespace = Namespace(name)
    namespace.run("ip", "link", "set", "lo", "up")
    namespace.run("sysctl", "-qw", *_SYSCTLS)
    return namespace


def delete_namespace(namespace: Namespace) -> None:
    """Delete a namespace with every device in it; one that is gone is fine."""
    subprocess.run(["ip", "netns", "delete", namespace.name], capture_output=True, check=False)


def connect(link: Link) -> None:
    """Make a veth pair between two namespaces, address both ends and bring them up."""
    queues = str(link.queues)
    many = ("numrxqueues", queues, "numtxqueues", queues) if link.queues > 1 else ()
    shape = ("mtu", str(link.mtu), *many)
    _ip(
        *("link", "add", link.left_device, "netns", link.left.name, *shape, "type", "veth"),
        *("peer", "name", link.right_device, "netns", link.right.name, *shape),
    )
    for namespace, device, addresses in (
        (link.left, link.left_device, link.left_addresses),
        (link.right, link.right_device, link.right_addresses),
    ):
        added = [f"address add {each} dev {device}" + (" nodad" if ":" in each else "") for each in addresses]
        _ip_at_once(namespace, *added, f"link set {device} up")


@contextmanager
def borrowed_link(device: str, namespace: Namespace) -> Iterator[None]:
    """Have an interface of our own namespace in another one meanwhile; it comes back without addresses.

    Raises:
        TopologyError: It is not there, or its driver keeps it where it is.
    """
    _ip("link", "set", device, "netns", namespace.name)
    try:
        yield
    finally:
        # One that was unplugged meanwhile cannot come back.
        namespace.run("ip", "link", "set", device, "netns", str(os.getpid()), check=False)


@contextmanager
def site_to_site(prefix: str, *, nat: bool = False, mtu: int = 1500) -> Iterator[SiteToSite]:
    """Make the topology of the module's picture and take it away at the end, whatever happened.

    With `nat`, site a is `10.9.0.2` behind a masquerading box whose outer address is 192.0.2.1; it can be
    reached only after it has sent something. The NAT case is IPv4 outside. Processes that are still inside at
    the end are killed.
    """
    names = [f"{prefix}-{role}" for role in ("ha", "ga", "nat", "gb", "hb") if nat or role != "nat"]
    made: list[Namespace] = []
    try:
        for name in names:
            made.append(make_namespace(name))  # noqa: PERF401  (what was made must be known when one fails)
        by_role = {namespace.name.rpartition("-")[2]: namespace for namespace in made}
        yield _wire(by_role, mtu=mtu)
    finally:
        for namespace in made:
            end_all_inside(namespace)
            delete_namespace(namespace)


def end_all_inside(namespace: Namespace) -> None:
    """End what was orphaned there, as an agent whose supervisor was killed: the namespace would live on."""
    for pid in pids_inside(namespace):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _wire(by_role: dict[str, Namespace], *, mtu: int) -> SiteToSite:
    host_a, gateway_a, gateway_b, host_b = (by_role[role] for role in ("ha", "ga", "gb", "hb"))
    nat = by_role.get("nat")
    if nat is None:
        connect(
            Link(
                left=gateway_a,
                left_device="outside",
                left_addresses=("192.0.2.1/24", "2001:db8::1/64"),
                right=gateway_b,
                right_device="outside",
                right_addresses=("192.0.2.2/24", "2001:db8::2/64"),
                mtu=mtu,
            )
        )
    else:
        connect(
            Link(
                left=gateway_a,
                left_device="outside",
                left_addresses=("10.9.0.2/24",),
                right=nat,
                right_device="inside",
                right_addresses=("10.9.0.1/24",),
                mtu=mtu,
            )
        )
        connect(
            Link(
                left=nat,
                left_device="outside",
                left_addresses=("192.0.2.1/24",),
                right=gateway_b,
                right_device="outside",
                right_addresses=("192.0.2.2/24",),
                mtu=mtu,
            )
        )
        gateway_a.run("ip", "route", "add", "default", "via", "10.9.0.1")
        nat.run("nft", "-f", "-", stdin=_MASQUERADE)
    for number, host, gateway in (("1", host_a, gateway_a), ("2", host_b, gateway_b)):
        connect(
            Link(
                left=gateway,
                left_device="inside",
                left_addresses=(f"10.{number}.0.1/16", f"fd00:{number}::1/64"),
                right=host,
                right_device="lan",
                right_addresses=(f"10.{number}.0.10/16", f"fd00:{number}::10/64"),
            )
        )
        _ip_at_once(host, f"route add 0.0.0.0/0 via 10.{number}.0.1", f"route add ::/0 via fd00:{number}::1")
    return SiteToSite(
        a=_site("1", host_a, gateway_a, "10.9.0.2" if nat else "192.0.2.1"),
        b=_site("2", host_b, gateway_b, "192.0.2.2"),
        nat=nat,
    )


def _site(number: str, host: Namespace, gateway: Namespace, outside: str) -> Site:
    return Site(
        gateway=gateway,
        host=host,
        outside=outside,
        outside_v6=f"2001:db8::{number}",
        inside=f"10.{number}.0.0/16",
        inside_v6=f"fd00:{number}::/64",
        host_address=f"10.{number}.0.10",
        host_address_v6=f"fd00:{number}::10",
        outside_device="outside",
    )


def require_root() -> None:
    """Raise a clear error unless this process may make namespaces.

    Raises:
        TopologyError: Not root, or no `ip netns` here.
    """
    if os.geteuid() != 0:
        raise TopologyError("making network namespaces needs root: run this with sudo")
    if not Path("/dev/net/tun").exists():
        raise TopologyError("/dev/net/tun is missing: load the tun module (modprobe tun)")


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise TopologyError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def _ip_at_once(namespace: Namespace, *commands: str) -> None:
    """Do several things in a namespace by one process, which takes longer to start than to work."""
    namespace.run("ip", "-batch", "-", stdin="\n".join(commands))


def pids_inside(namespace: Namespace) -> Sequence[int]:
    """Return the processes that live in a namespace."""
    done = subprocess.run(
        ["ip", "netns", "pids", namespace.name], capture_output=True, text=True, check=False
    )
    return [int(word) for word in done.stdout.split()]
