"""Witnesses of what the kernel understood: iproute2's view of the SAD and SPD, and notifications."""

import select
import subprocess
from typing import TypeVar

from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.netlink import XfrmListener

B = TypeVar("B", bound=r.Body)


def shown_by_ip(*arguments: str) -> str:
    """Return what `ip xfrm` prints, white space folded."""
    done = subprocess.run(["ip", "xfrm", *arguments], check=True, capture_output=True, text=True)
    return " ".join(done.stdout.split())


def told(listener: XfrmListener, body: type[B], *, timeout_s: float = 30.0) -> r.Message[B]:
    """Wait for a notification with this body."""
    while select.select([listener], [], [], timeout_s)[0]:
        for message in listener.receive():
            if isinstance(message.body, body):
                return message
    raise AssertionError(f"the kernel did not tell any {body.__name__}")


def drain(listener: XfrmListener) -> list[r.Message[r.Body]]:
    """Read what waits."""
    read: list[r.Message[r.Body]] = []
    while messages := listener.receive():
        read += messages
    return read
