"""The xfrm backend in one network namespace, and a kernel that is its peer in another."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from gateway.bench.topology import Namespace, delete_namespace, make_namespace
from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.installation import Placing, kernel_sa, whereabouts_of
from gateway.datapath.xfrm.netlink import XfrmSocket
from gateway.datapath.xfrm.numbers import PolicyDirection
from gateway.datapath.xfrm.selectors import cells
from gateway.datapath.xfrm.spd import KERNEL_MODE
from gateway.ipsec.policy import Policy
from gateway.ipsec.sa import Direction, Mode, SecurityAssociation
from tests.conformance.namespace import fresh_network_namespace, inside

OURS = ("192.0.2.1/24", "2001:db8::1/64", "10.1.0.1/16", "fd00:1::1/64")
THEIRS = ("192.0.2.2/24", "192.0.2.3/24", "2001:db8::2/64", "10.2.0.1/16", "10.2.7.1/16", "fd00:2::1/64")
_PLACING = Placing(reqid=77, tag=0, knows_direction=False)


class Peer:
    """The other gateway: nothing but a kernel.

    Args:
        namespace: It is in this one.
        xfrm: To its kernel.
    """

    def __init__(self, namespace: Namespace, xfrm: XfrmSocket) -> None:
        self.namespace = namespace
        self.xfrm = xfrm

    def install(self, *sas: SecurityAssociation) -> None:
        """Install the other end of SAs of ours."""
        for sa in sas:
            mirror = mirrored(sa)
            self.xfrm.add_sa(*kernel_sa(mirror, _PLACING, whereabouts_of(mirror)))

    def remove(self, *sas: SecurityAssociation) -> None:
        """Remove the other end of SAs of ours."""
        for sa in sas:
            self.xfrm.delete_sa(whereabouts_of(sa).id_of(sa))

    def protect(self, policy: Policy, receiving: SecurityAssociation) -> None:
        """Have traffic of an SPD entry of ours protected the other way round.

        Args:
            policy: Ours.
            receiving: Our inbound SA, for the addresses.
        """
        for cell in cells(policy.remote_ts, policy.local_ts, may_widen=True):
            for direction, selector in (
                (PolicyDirection.OUT, cell.outbound(0)),
                (PolicyDirection.IN, cell.inbound(0)),
            ):
                sends = direction is PolicyDirection.OUT and policy.mode is Mode.TUNNEL
                template = r.Template(
                    source=receiving.source if sends else None,
                    destination=receiving.destination if sends else None,
                    protocol=policy.protocol,
                    mode=KERNEL_MODE[policy.mode],
                    reqid=_PLACING.reqid,
                )
                info = r.PolicyInfo(selector=selector, direction=direction, priority=100)
                self.xfrm.update_policy(info, r.Attributes(templates=(template,)))


def mirrored(sa: SecurityAssociation) -> SecurityAssociation:
    """Return the same SA as its other end has it."""
    turned = Direction.OUTBOUND if sa.direction is Direction.INBOUND else Direction.INBOUND
    return replace(sa, direction=turned, local_ts=sa.remote_ts, remote_ts=sa.local_ts)


@contextmanager
def beside_a_peer() -> Iterator[Peer]:
    """Stay in a fresh namespace, one link away from a peer."""
    with fresh_network_namespace(*OURS):
        namespace = make_namespace("xfrm-peer")
        try:
            ip("link", "set", "beyond", "netns", namespace.name)
            inner = ("-n", namespace.name)
            ip(*inner, "link", "set", "beyond", "up")
            for address in THEIRS:
                ip(
                    *inner,
                    "address",
                    "add",
                    address,
                    "dev",
                    "beyond",
                    *(("nodad",) if ":" in address else ()),
                )
            for prefix in ("10.1.0.0/16", "fd00:1::/64"):
                ip(*inner, "route", "add", prefix, "dev", "beyond")
            with inside(namespace):
                xfrm = XfrmSocket()
            with xfrm:
                yield Peer(namespace, xfrm)
        finally:
            delete_namespace(namespace)


def ip(*arguments: str) -> str:
    """Return what the program printed."""
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout
