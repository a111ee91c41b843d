"""The commands that talk to a controller or to a datapath agent: apply, up, down, rekey, list, status..."""

import argparse
import asyncio
import json
import os
import stat
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message

from gateway.api import convert
from gateway.api.address import UnixAddress
from gateway.api.connection_view import ConnectionView, follow
from gateway.api.control.v1 import control_pb2 as pb
from gateway.api.control_client import ControlClient
from gateway.api.datapath.v1 import datapath_pb2 as dpb
from gateway.api.datapath_client import DatapathClient
from gateway.api.log_client import log_levels
from gateway.api.plain import to_json, to_plain
from gateway.app.access import usable_control
from gateway.app.arguments import count, seconds
from gateway.app.places import Places, find_places
from gateway.app.tls_options import add_tls_arguments, tls_files
from gateway.cli import tables
from gateway.ipsec.errors import GatewayError

if TYPE_CHECKING:
    from gateway.api.config_file import LoadedConfig

Act = Callable[[ControlClient, argparse.Namespace], Awaitable[int]]
#: What `add_subparsers` returns has no public name.
Commands = Any

_CHANGES = (pb.APPLIED_CREATED, pb.APPLIED_UPDATED, pb.APPLIED_DELETED)
_WAIT_S = 60.0
_WATCH_S = 1.0


class CommandError(GatewayError):
    """A command cannot be carried out; the text says what to do."""


def add_commands(commands: Commands) -> None:
    """Declare every command of this file."""
    command = _add(commands, "validate", "check a configuration file; every mistake is told at once")
    command.add_argument("file", type=Path, metavar="FILE")
    command.set_defaults(act=_validate)

    command = _add(commands, "apply", "create and update connections from a configuration file", _apply)
    command.add_argument("file", type=Path, metavar="FILE")
    command.add_argument("--prune", action="store_true", help="delete connections that are not in the file")
    command.add_argument(
        *("--validate-only", "--dry-run"),
        action="store_true",
        help="only say what would change, and what that does to SAs",
    )
    command.add_argument("--diff", action="store_true", help="say which fields differ")
    command.add_argument(
        "--generation", type=count, default=0, metavar="N", help="refuse if a higher one was applied"
    )

    for name, text, act in (
        ("up", "bring up a connection, or one child of it", _up),
        ("down", "delete the SAs of a connection, or of one child of it", _down),
        ("rekey", "rekey the IKE SA of a connection, or the Child SA of one child", _rekey),
    ):
        command = _add(commands, name, text, act)
        command.add_argument("name", metavar="NAME", help="CONNECTION or CONNECTION/CHILD")
        command.add_argument(
            "--timeout",
            type=seconds,
            default=_WAIT_S,
            metavar="S",
            help="how long to wait for the result (default 60)",
        )
        command.add_argument("--no-wait", action="store_true", help="do not wait for the result")
        if act is _rekey:
            command.add_argument(
                "--reauth", action="store_true", help="authenticate both sides anew, with a new IKE SA"
            )

    command = commands.add_parser("list", help="list what there is", description="List what there is.")
    kinds = command.add_subparsers(title="what", metavar="WHAT", required=True)
    for name, text, act in (
        ("connections", "configured connections and their state", _list_connections),
        ("ike-sas", "IKE SAs", _list_ike_sas),
        ("child-sas", "Child SAs with counters and placement", _list_child_sas),
    ):
        kind = _json(_add(kinds, name, text, act))
        kind.add_argument(
            "--filter", default="", metavar="FILTER", help="only those, as 'status.state = down' (AIP-160)"
        )
    for name, text, act_at_datapath in (
        ("sas", "SAs at the datapath, one direction each", _list_sas),
        ("policies", "SPD entries at the datapath, in the order of search", _list_policies),
    ):
        kind = _add(kinds, name, text)
        kind.add_argument("--datapath", metavar="ADDRESS", help="the agent (default: $IPSECGW_DATAPATH)")
        kind.set_defaults(act=_with_datapath(act_at_datapath))
        _json(kind)

    command = _json(_add(commands, "status", "the gateway at a glance", _status))
    command.add_argument("--watch", action="store_true", help="print it again every second")

    command = _add(commands, "log-level", "show or set what is logged while the gateway runs")
    command.add_argument(
        "levels", nargs="?", metavar="LEVELS", help="as info,ike=debug: of all, then of single subsystems"
    )
    command.add_argument("--agent", action="store_true", help="of the datapath agent, not of the controller")
    command.set_defaults(act=_log_level)
    command = _json(_add(commands, "events", "print events as they happen", _events))
    command.add_argument("--after", type=count, metavar="N", help="begin with the kept event after number N")
    command = _json(_add(commands, "watch", "print connections, and again whenever they change", _watch))
    command.add_argument(
        "--filter", default="", metavar="FILTER", help="only those, as 'status.state = down' (AIP-160)"
    )

    command = _add(
        commands,
        "export-keys",
        "write the keys of a connection's SAs for Wireshark: debugging only",
        _export_keys,
    )
    command.add_argument("name", metavar="NAME", help="a connection")
    command.add_argument(
        "directory", type=Path, metavar="DIR", help="where the key tables are; made if missing"
    )

    command = _json(
        _add(commands, "explain", "why a connection is not up, and where its SAs landed", _explain)
    )
    command.add_argument("name", metavar="NAME", help="a connection")


def _add(commands: Commands, name: str, text: str, act: Act | None = None) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}."
    )
    command.add_argument("--socket", metavar="ADDRESS", help="the controller (default: $IPSECGW_CONTROL)")
    command.add_argument(
        "--run-dir", type=Path, metavar="DIR", help="where the sockets are (default /run/ipsecgw)"
    )
    add_tls_arguments(command)
    if act is not None:
        command.set_defaults(act=_with_controller(act))
    return command


def _json(command: argparse.ArgumentParser) -> argparse.ArgumentParser:
    command.add_argument("--json", action="store_true", help="print JSON")
    return command


def _load(path: Path) -> "LoadedConfig":
    # What reads configurations takes as long to load as the other commands to run.
    from gateway.api.config_file import load_config  # noqa: PLC0415 - see above

    return load_config(path, at_time=time.time())


# --- reaching the services ----------------------------------------------------------------------


def _places(args: argparse.Namespace) -> Places:
    return find_places(
        os.environ,
        run_dir=args.run_dir,
        control=args.socket,
        datapath=getattr(args, "datapath", None),
    )


def _check_socket(address: object, what: str, advice: str) -> None:
    """Tell at once what a connection attempt would only tell as `unavailable`."""
    if not isinstance(address, UnixAddress):
        return
    try:
        mode = address.path.stat().st_mode
    except PermissionError as error:
        raise CommandError(f"no permission to reach {address.path}: run as root") from error
    except OSError as error:
        raise CommandError(f"no {what} at {address}: {advice}") from error
    if mode and not os.access(address.path, os.W_OK):
        others = "or join its group" if mode & stat.S_IWGRP else "or as its owner"
        raise CommandError(f"no permission to use {address.path}: run as root, {others}")


def _with_controller(act: Act) -> Callable[[argparse.Namespace], int]:
    async def work(args: argparse.Namespace) -> int:
        address = usable_control(_places(args).control)
        _check_socket(
            address, "controller", "start `ipsecgw run`, or name another with --socket or IPSECGW_CONTROL"
        )
        async with ControlClient(address, tls=tls_files(args)) as client:
            return await act(client, args)

    return lambda args: asyncio.run(work(args))


def _with_datapath(
    act: Callable[[DatapathClient, argparse.Namespace], Awaitable[int]],
) -> Callable[[argparse.Namespace], int]:
    async def work(args: argparse.Namespace) -> int:
        address = _places(args).datapath
        _check_socket(address, "datapath agent", "start `ipsecgw agent`, or name another with --datapath")
        client = DatapathClient(address, tls=tls_files(args))
        try:
            return await act(client, args)
        finally:
            await client.close()

    return lambda args: asyncio.run(work(args))


# --- configuration ------------------------------------------------------------------------------


def _validate(args: argparse.Namespace) -> int:
    loaded = _load(args.file)
    names = ", ".join(item.connection.name for item in loaded.connections) or "no connections"
    for warning in loaded.warnings:
        print(f"{args.file}: warning: {warning}", file=sys.stderr)
    print(f"{args.file}: all right: {names}")
    return 0


async def _apply(client: ControlClient, args: argparse.Namespace) -> int:
    loaded = _load(args.file)
    results = await client.apply(
        loaded.message.connections,
        validate_only=args.validate_only,
        prune=args.prune,
        generation=args.generation,
    )
    for result in results:
        would = "would be " if args.validate_only and result.applied in _CHANGES else ""
        impact = f" ({tables.impact(result.impact)})" if result.HasField("impact") else ""
        print(f"{result.name}: {would}{_word(result, 'applied')}{impact}")
        for field in result.changed_fields if args.diff else ():
            print(f"  {field}")
        for warning in result.warnings:
            print(f"  warning: {warning}")
        if result.HasField("error"):
            print(f"  {result.error.message}", file=sys.stderr)
    return int(any(result.HasField("error") for result in results))


# --- operations -----------------------------------------------------------------------------------


def _target(name: str) -> pb.Target:
    connection, _, child = name.partition("/")
    return pb.Target(connection=connection, child=child)


async def _up(client: ControlClient, args: argparse.Namespace) -> int:
    return _tell(await client.initiate(_target(args.name), wait_s=_wait(args)), args, "is up")


async def _down(client: ControlClient, args: argparse.Namespace) -> int:
    return _tell(await client.terminate(_target(args.name), wait_s=_wait(args)), args, "is down")


async def _rekey(client: ControlClient, args: argparse.Namespace) -> int:
    target, wait_s = _target(args.name), _wait(args)
    operation = await client.rekey(target, reauthenticate=args.reauth, wait_s=wait_s)
    return _tell(operation, args, "is authenticated anew" if args.reauth else "is rekeyed")


def _wait(args: argparse.Namespace) -> float:
    return 0.0 if args.no_wait else float(args.timeout)


def _tell(operation: pb.Operation, args: argparse.Namespace, done: str) -> int:
    if operation.state == pb.OPERATION_STATE_SUCCEEDED:
        print(f"{args.name} {done}")
        return 0
    if operation.state == pb.OPERATION_STATE_FAILED:
        for line in tables.failure_lines(operation.failure):
            print(f"{args.name}: {line}", file=sys.stderr)
        print(f"more: ipsecgw explain {args.name.partition('/')[0]}", file=sys.stderr)
        return 1
    if args.no_wait:
        print(f"{args.name}: {operation.operation_id} is under way")
        return 0
    print(f"{args.name}: not done after {args.timeout:g} s; it is still tried", file=sys.stderr)
    return 1


# --- listing ----------------------------------------------------------------------------------------


def _show(message: Message, args: argparse.Namespace, lines: Iterable[str]) -> int:
    if args.json:
        print(to_json(message))
    else:
        for line in lines:
            print(line)
    return 0


async def _list_connections(client: ControlClient, args: argparse.Namespace) -> int:
    entries = await client.connections(args.filter)
    message = pb.ListConnectionsResponse(connections=entries)
    return _show(message, args, tables.connections(entries))


async def _list_ike_sas(client: ControlClient, args: argparse.Namespace) -> int:
    ike_sas = await client.ike_sas(text=args.filter)
    entries = [] if args.json or not ike_sas else await client.connections()
    return _show(pb.ListIkeSasResponse(ike_sas=ike_sas), args, tables.ike_sas(ike_sas, time.time(), entries))


async def _list_child_sas(client: ControlClient, args: argparse.Namespace) -> int:
    child_sas = await client.child_sas(text=args.filter)
    has_interface = any(sa.interface_id for sa in child_sas)
    entries = [] if args.json or not has_interface else await client.connections()
    message = pb.ListChildSasResponse(child_sas=child_sas)
    return _show(message, args, tables.child_sas(child_sas, time.time(), entries))


async def _list_sas(client: DatapathClient, args: argparse.Namespace) -> int:
    installed = await client.list_sas()
    message = dpb.ListSasResponse(sas=[convert.write_installed_sa(item) for item in installed])
    counted = {} if args.json else {item.sa_id: item for item in (await client.counters()).sas}
    return _show(message, args, tables.sas(installed, counted))


async def _list_policies(client: DatapathClient, args: argparse.Namespace) -> int:
    policies = await client.list_policies()
    message = dpb.ListPoliciesResponse(policies=[convert.write_policy(policy) for policy in policies])
    return _show(message, args, tables.policies(policies))


def _log_level(args: argparse.Namespace) -> int:
    places = _places(args)
    address = places.datapath if args.agent else usable_control(places.control)
    what, advice = ("agent", "start one") if args.agent else ("controller", "start `ipsecgw run`")
    _check_socket(address, what, advice)
    print(asyncio.run(log_levels(address, args.levels, tls=tls_files(args))))
    return 0


async def _status(client: ControlClient, args: argparse.Namespace) -> int:
    while True:
        status = await client.status()
        entries: Sequence[pb.ConnectionEntry] = [] if args.json else await client.connections()
        if args.watch and not args.json and sys.stdout.isatty():
            print("\x1b[2J\x1b[H", end="")
        _show(status, args, tables.status(status, entries, time.time()))
        if not args.watch:
            return 0
        sys.stdout.flush()
        await asyncio.sleep(_WATCH_S)


async def _events(client: ControlClient, args: argparse.Namespace) -> int:
    async for event in await client.events(args.after):
        if args.json:
            print(json.dumps(to_plain(event), ensure_ascii=False), flush=True)
        else:
            print(tables.event(event), flush=True)
    return 0


async def _watch(client: ControlClient, args: argparse.Namespace) -> int:
    async for difference in follow(client, ConnectionView(), text=args.filter):
        if args.json:
            for entry in difference.upserted:
                print(json.dumps({"upserted": to_plain(entry)}, ensure_ascii=False))
            for name in difference.removed:
                print(json.dumps({"removed": name}))
        else:
            for line in tables.difference(difference):
                print(line)
        if difference.problem:
            print(difference.problem, file=sys.stderr)
        sys.stdout.flush()
    return 0


async def _export_keys(client: ControlClient, args: argparse.Namespace) -> int:
    from gateway.observe.keylog import ESP_TABLE, IKEV2_TABLE, KeyLog  # noqa: PLC0415 - as in `_load`

    tables = await client.export_keys(args.name)
    log = KeyLog(args.directory)
    for table, rows in ((IKEV2_TABLE, tables.ikev2_decryption_table), (ESP_TABLE, tables.esp_sa)):
        for row in rows:
            log.add(table, row)
        print(f"{args.directory / table}: {len(rows)} rows added")
    for line in tables.left_out:
        print(f"left out: {line}", file=sys.stderr)
    return 0


async def _explain(client: ControlClient, args: argparse.Namespace) -> int:
    facts = await client.explain(args.name)
    return _show(pb.ExplainResponse(facts=facts), args, tables.facts(facts))


def _word(message: Message, field: str) -> str:
    return str(to_plain(message).get(field, ""))
