"""The datapath agent's process: ports, backend, agent, gRPC listener, in that order, and back.

An orderly end leaves the protection in force: policy routes and nftables rules stay, so that nothing
leaves in clear while no agent runs. They go with `--remove-protection`, or with `--teardown` at the end.
"""

import argparse
import asyncio
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from gateway.agent.agent import DEFAULT_GRACE_S, Agent
from gateway.api.address import Address, TlsFiles, UnixAddress
from gateway.api.listener import Listener
from gateway.api.server import ApiServer
from gateway.app.arguments import count, seconds
from gateway.app.backends import capabilities_of, make_datapath
from gateway.app.engine_options import add_engine_arguments, has_interfaces
from gateway.app.log_options import add_log_arguments, complain, configure_logs
from gateway.app.option_owners import check_owners, warn_of_idle
from gateway.app.places import (
    Places,
    controller_account,
    enter_directory,
    find_places,
    is_listening,
    is_root,
    make_directory,
    ports_socket,
)
from gateway.app.ready import serving, stop_event
from gateway.app.tls_options import add_tls_arguments, tls_files
from gateway.app.xfrm_options import add_xfrm_arguments, check_forwarding, loads_programs
from gateway.datapath.backend import StartedDatapath
from gateway.datapath.engine.xdp_steering import PINS_NAME
from gateway.datapath.registry import BackendOptions, backend_names, default_mark
from gateway.host.bpf.errors import BpfError
from gateway.host.bpf.pins import mount_bpffs
from gateway.host.errors import HostError
from gateway.host.privileges import (
    Capability,
    forbid_new_privileges,
    keep_memory_private,
    keep_only_capabilities,
)
from gateway.host.sockets import PortGroups, PortOptions, PortServer, open_ports
from gateway.ipsec.errors import GatewayError
from gateway.observe.logs import get_logger

_log = get_logger("app")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `ipsecgw agent`."""
    parser.add_argument(
        "--listen",
        metavar="ADDRESS",
        help="unix:PATH or HOST:PORT (default: $IPSECGW_DATAPATH, or below --run-dir)",
    )
    parser.add_argument(
        "--run-dir", type=Path, metavar="DIR", help="where the sockets are (default /run/ipsecgw)"
    )
    parser.add_argument(
        "--backend", choices=backend_names(), default="auto", help="what carries the packets (default auto)"
    )
    parser.add_argument(
        "--group-id",
        type=count,
        metavar="GID",
        help="group whose members may connect (default: the controller's)",
    )
    parser.add_argument(
        "--grace",
        type=seconds,
        default=DEFAULT_GRACE_S,
        metavar="S",
        help=f"how long SAs outlive a controller that went away (default {DEFAULT_GRACE_S:.0f})",
    )
    add_xfrm_arguments(parser)
    add_engine_arguments(parser)
    parser.add_argument("--teardown", action="store_true", help="remove the protection at the end")
    parser.add_argument(
        "--remove-protection",
        action="store_true",
        help="take away the rules and routes that keep traffic from leaving in clear, and end",
    )
    add_tls_arguments(parser)
    add_log_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the agent until SIGTERM or SIGINT; 0 after an orderly end, 1 when it could not start."""
    try:
        configure_logs(args)
        keep_memory_private()
        forbid_new_privileges()
        places = find_places(os.environ, run_dir=args.run_dir, datapath=args.listen)
        if args.remove_protection:
            asyncio.run(_remove_protection(args.backend, places))
        else:
            check_owners(args)
            check_forwarding(args)
            tls = tls_files(args)
            group_id = _controller_group(args, places.datapath)
            here = _enter(places.datapath)
            # It opens UDP port 500, and carries packets.
            kept = (Capability.CAP_NET_BIND_SERVICE, *capabilities_of(args.backend))
            if loads_programs(args) or has_interfaces(args):
                kept = (*kept, Capability.CAP_BPF, Capability.CAP_PERFMON)
            if has_interfaces(args):
                _mount_pins(_state_dir(args, here))
            keep_only_capabilities(kept, () if group_id is None else (group_id,))
            asyncio.run(_serve(args, places.datapath, here, group_id, tls))
    except GatewayError as error:
        complain("ipsecgw agent", error)
        return 1
    return 0


def _controller_group(args: argparse.Namespace, listen: Address) -> int | None:
    """Return the group that may connect to a Unix socket: as told, else what a controller has by default."""
    group_id: int | None = args.group_id
    if group_id is None and isinstance(listen, UnixAddress) and is_root():
        return controller_account(None, listen).gid
    return group_id


def _state_dir(args: argparse.Namespace, here: Address) -> Path | None:
    """Return where things are that outlive this process."""
    return here.path.parent if isinstance(here, UnixAddress) else args.run_dir


def _mount_pins(state_dir: Path | None) -> None:
    """Mount a bpffs while this process may do that: XDP programs that are pinned there outlive it."""
    if state_dir is None:
        return
    try:
        mount_bpffs(state_dir / PINS_NAME)
    except BpfError as error:
        _log.warning("programs_not_pinned", reason=str(error), effect="they end with this agent")


def _enter(listen: Address) -> Address:
    """Return a Unix socket's address relative to its directory, which becomes the working directory.

    Root without capabilities may not walk through directories that others have closed, as a user's home.
    """
    if not isinstance(listen, UnixAddress):
        return listen
    make_directory(listen.path.parent)
    return enter_directory(listen)


async def _remove_protection(backend_name: str, places: Places) -> None:
    if isinstance(places.datapath, UnixAddress) and await is_listening(places.datapath.path):
        raise HostError(
            f"an agent runs at {places.datapath}: it would put the protection back; stop it first"
        )
    state_dir = places.datapath.path.parent if isinstance(places.datapath, UnixAddress) else None
    await make_datapath(backend_name, BackendOptions(state_dir=state_dir)).remove_protection()
    _log.warning("protection_removed", hint="traffic of all policies may leave this machine in clear now")


async def _serve(
    args: argparse.Namespace, listen: Address, here: Address, group_id: int | None, tls: TlsFiles | None
) -> None:
    """Serve at `listen`, which is `here` as seen from the working directory."""
    stopping = stop_event()
    mode = 0o600 if group_id is None else 0o660
    listener = Listener(address=here, mode=mode, group=group_id, tls=tls)
    # Before anything of the network is touched.
    listener.check()
    if isinstance(here, UnixAddress) and await is_listening(here.path):
        raise HostError(f"an agent already listens at {listen}: use it, or name another --run-dir")
    async with contextlib.AsyncExitStack() as stack:
        groups = await asyncio.to_thread(open_ports, PortOptions(mark=default_mark()))
        stack.callback(groups.close)
        state_dir = _state_dir(args, here)
        options = BackendOptions(
            esp_sockets=groups.esp,
            state_dir=state_dir,
            spreads_esp=args.spread_esp == "auto",
            forward_interfaces=tuple(args.forward_interface),
            forward_inbound=tuple(args.forward_inbound),
            engine_interfaces=tuple(args.engine_interface),
            engine_inner_interfaces=tuple(args.engine_inner_interface),
            engine_ike_per_s=args.engine_ike_rate,
            engine_io=args.engine_io,
            engine_cpus=tuple(args.engine_cpu),
            engine_busy_poll=args.engine_busy_poll,
        )
        backend = make_datapath(args.backend, options)
        await backend.start()
        warn_of_idle(args, (await backend.capabilities()).engines)
        agent = Agent(backend, fingerprint_key=os.urandom(32), grace_s=args.grace)
        stack.push_async_callback(_close, agent, backend, remove_protection=args.teardown)
        await agent.start()
        if isinstance(here, UnixAddress):
            await _hand_out_ports(stack, groups, here, group_id)
        server = ApiServer([listener], datapath=agent)
        await server.start()
        stack.push_async_callback(server.stop, 0.5)
        _log.info("agent_ready", listen=str(listen), backend=(await backend.capabilities()).name)
        async with serving():
            await stopping.wait()
        if args.teardown:
            _log.info("agent_stopping", protection="removed")
        else:
            _log.info(
                "agent_stopping",
                protection="stays in force",
                hint="ipsecgw agent --remove-protection takes it away",
            )


async def _hand_out_ports(
    stack: contextlib.AsyncExitStack, groups: PortGroups, address: UnixAddress, group_id: int | None
) -> None:
    ports = PortServer(
        groups,
        ports_socket(address),
        mode=0o600 if group_id is None else 0o660,
        owner=None if group_id is None else (-1, group_id),
    )
    await ports.start()
    stack.push_async_callback(ports.close)


async def _close(agent: Agent, backend: StartedDatapath, *, remove_protection: bool) -> None:
    if remove_protection:
        await backend.remove_protection()
    await agent.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the agent as a process of its own (`python -m gateway.app.agent`)."""
    parser = argparse.ArgumentParser(prog="ipsecgw agent")
    add_arguments(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
