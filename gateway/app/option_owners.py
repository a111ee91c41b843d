"""Options of one datapath that were given to an agent which does not run it."""

import argparse
from collections.abc import Collection, Iterator
from typing import Final

from gateway.datapath.registry import AUTO, ENGINES
from gateway.host.errors import HostError
from gateway.ipsec.placement import Engine
from gateway.observe.logs import get_logger

_log = get_logger("app")

_OPTIONS: Final = {
    "xfrm": ("forward_interface", "forward_inbound"),
    "engine": ("engine_interface", "engine_inner_interface", "engine_cpu", "engine_busy_poll"),
}
"""Whose they are; those that have a default mean nothing without them."""


def check_owners(args: argparse.Namespace) -> None:
    """Check that every option is for the backend that is asked for; `auto` may come to run any of them.

    Raises:
        HostError: One is for another.
    """
    for option, owner in _given(args):
        if args.backend not in (AUTO, owner):
            wanted = f"{option} is for the {owner} datapath, and {args.backend} was asked for"
            raise HostError(f"{wanted}: leave out one of them")


def warn_of_idle(args: argparse.Namespace, engines: Collection[Engine]) -> None:
    """Say which options have no effect, since what they are for does not run here."""
    for option, owner in _given(args):
        if not set(ENGINES[owner]) & set(engines):
            hint = "`ipsecgw hw` says what it lacks"
            _log.warning("option_without_effect", option=option, missing=f"{owner} datapath", hint=hint)


def _given(args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    for owner, names in _OPTIONS.items():
        for name in names:
            if getattr(args, name):
                yield f"--{name.replace('_', '-')}", owner
