"""The controller's process: everything that needs privilege first, then none.

Order matters. While still root: the configuration with its secrets, the key log, TLS files, the control
socket, and (with a datapath elsewhere) the IKE sockets. Then it becomes an ordinary user for good, and only
then are connections begun.
"""

import argparse
import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from gateway.api.address import Address, TlsFiles, UnixAddress
from gateway.api.config_file import load_config
from gateway.api.datapath_client import DatapathClient
from gateway.api.server import ApiServer
from gateway.api.state_file import StateFile
from gateway.app.access import control_listeners
from gateway.app.arguments import count
from gateway.app.controller_options import add_controller_arguments
from gateway.app.log_options import complain, configure_logs
from gateway.app.places import (
    PlaceError,
    Places,
    controller_account,
    enter_directory,
    find_places,
    is_root,
    make_directory,
    ports_socket,
)
from gateway.app.ready import serving, stop_event
from gateway.app.tls_options import tls_files
from gateway.controller.collector import collect_less_often
from gateway.controller.controller import Controller, ControllerOptions
from gateway.controller.facade import WantedConnection
from gateway.host.privileges import (
    Account,
    die_with_parent,
    drop_privileges,
    forbid_new_privileges,
    keep_memory_private,
)
from gateway.host.sockets import IkePorts, open_ports, receive_ports
from gateway.ipsec.errors import GatewayError
from gateway.observe.keylog import KeyLog
from gateway.observe.logs import get_logger
from gateway.web.server import HttpsFiles, MetricsServer

_log = get_logger("app")

DISTRIBUTION = "ipsec-gateway"

#: Of one call to the datapath; the controller has shorter ones of its own where it matters.
_DATAPATH_DEADLINE_S = 12.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `ipsecgw controller`."""
    add_controller_arguments(parser)
    parser.add_argument(
        "--datapath",
        metavar="ADDRESS",
        help="where the agent listens: unix:PATH or HOST:PORT (default: $IPSECGW_DATAPATH, below --run-dir)",
    )
    parser.add_argument("--parent", type=count, default=0, metavar="PID", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Run the controller until SIGTERM; 0 after an orderly end, 1 when it could not start."""
    try:
        configure_logs(args)
        keep_memory_private()
        forbid_new_privileges()  # before there is a thread: it is one thread's, and its children's
        collect_less_often()
        wanted = () if args.config is None else load_config(args.config).connections
        # Where it is, before the working directory changes.
        state = None if args.state is None else args.state.absolute()
        places = find_places(os.environ, run_dir=args.run_dir, control=args.socket, datapath=args.datapath)
        asyncio.run(_serve(args, wanted, state, places))
    except GatewayError as error:
        complain("ipsecgw run" if args.parent else "ipsecgw controller", error)
        return 1
    return 0


async def _serve(
    args: argparse.Namespace, wanted: Sequence[WantedConnection], state: Path | None, places: Places
) -> None:
    control, datapath = places.control, places.datapath
    stopping = stop_event()
    account = controller_account(args.user, datapath) if is_root() else None
    key_log = None if args.key_log is None else KeyLog(args.key_log)
    async with contextlib.AsyncExitStack() as stack:
        store = None if state is None else _open_state(state, account, stack)
        kept = None if store is None else store.load()
        wanted = wanted if kept is None else kept.connections
        address = _near(datapath) if account is not None else datapath
        client = DatapathClient(
            address,
            tls=_tls_for(datapath, args),
            deadline_s=_DATAPATH_DEADLINE_S,
            patience_s=0.0,
            shown=datapath,
        )
        stack.push_async_callback(client.close)
        controller = Controller(
            datapath=client,
            obtain_ports=_ports_from(address, stack),
            entropy=os.urandom,
            rng=random.Random(os.urandom(16)),  # noqa: S311 - jitter only
            wall_clock=time.time,
            options=ControllerOptions(
                version=version(DISTRIBUTION),
                datapath_address=str(datapath),
                node=args.node,
                desired_state=_desired_state(args),
                allows_key_export=args.allow_key_export,
            ),
            key_log=key_log,
            store=store,
        )
        if isinstance(control, UnixAddress):
            make_directory(control.path.parent)
        listeners = control_listeners(control, _tls_for(control, args), args.access)
        server = ApiServer(listeners, control=controller, keeps_state=store is not None)
        await server.start()
        stack.push_async_callback(server.stop, 0.5)
        if args.metrics is not None:
            metrics = MetricsServer(controller, args.metrics.host, args.metrics.port, https=_https_for(args))
            metrics.start()
            stack.push_async_callback(metrics.stop)
        if account is not None:
            drop_privileges(account)
            keep_memory_private()
        if args.parent:
            # After the change of user, which clears it. SIGKILL, not SIGTERM: an orderly end would delete the
            # SAs, but whoever starts us again can adopt them from the agent without a gap.
            die_with_parent(signal.SIGKILL, args.parent)
        results = await controller.start(
            wanted,
            kept=() if kept is None else kept.kept,
            generation=0 if kept is None else kept.generation,
        )
        refused = [result for result in results if result.error is not None]
        stack.push_async_callback(controller.stop)
        if refused:
            raise PlaceError("; ".join(f"{result.name}: {result.error}" for result in refused))
        # Whoever waits for us to be ready may rely on the protection being in force.
        is_protecting = await controller.is_protecting()
        _log.info(
            "controller_ready",
            protecting=is_protecting,
            listen=str(control),
            datapath=str(datapath),
            user=None if account is None else account.name,
            connections=len(wanted),
        )
        async with serving():
            await stopping.wait()
        _log.info("controller_stopping")


def _open_state(directory: Path, account: Account | None, stack: contextlib.AsyncExitStack) -> StateFile:
    store = StateFile(directory, owner=None if account is None else (account.uid, account.gid))
    stack.callback(store.close)
    return store


def _desired_state(args: argparse.Namespace) -> str:
    if args.state is not None:
        return f"state:{args.state}"
    return "memory" if args.config is None else f"file:{args.config}"


def _tls_for(address: Address, args: argparse.Namespace) -> TlsFiles | None:
    return None if isinstance(address, UnixAddress) else tls_files(args)


def _https_for(args: argparse.Namespace) -> HttpsFiles | None:
    files = tls_files(args)
    return None if files is None else HttpsFiles(certificate=files.certificate, key=files.key, ca=files.ca)


def _near(datapath: Address) -> Address:
    """Return a Unix socket's address relative to its directory, which becomes the working directory.

    The user that the controller becomes may not be allowed to walk there from the root (a test's or demo's
    private directory), but what is open stays open, and the working directory is.
    """
    if not isinstance(datapath, UnixAddress):
        return datapath
    try:
        return enter_directory(datapath)
    except OSError as error:
        raise PlaceError(
            f"no datapath agent at {datapath} ({error.strerror}): start one with `ipsecgw agent`"
        ) from error


def _ports_from(datapath: Address, stack: contextlib.AsyncExitStack) -> Callable[[], Awaitable[IkePorts]]:
    """Return how the IKE sockets are had: from a local agent, or opened now if the datapath is elsewhere."""
    if isinstance(datapath, UnixAddress):
        path = ports_socket(datapath)

        async def ask() -> IkePorts:
            return await asyncio.to_thread(receive_ports, path)

        return ask
    groups = open_ports()
    stack.callback(groups.close)

    async def duplicate() -> IkePorts:
        return groups.ike_ports()

    return duplicate


def main(argv: Sequence[str] | None = None) -> int:
    """Run the controller as a process of its own (`python -m gateway.app.controller`)."""
    parser = argparse.ArgumentParser(prog="ipsecgw controller")
    add_arguments(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
