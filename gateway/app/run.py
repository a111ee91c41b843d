"""`ipsecgw run`: a small supervisor with two children, the privileged agent and the unprivileged controller.

It parses nothing that comes from the network. It starts the agent first and the controller when the agent
serves, starts either again when it dies (with a growing wait), and ends them in the other order: the
controller deletes its SAs with the peers while the agent still carries them.

A supervisor that is killed takes its controller with it, but not its agent: packets flow on for the grace
period, and the next `ipsecgw run` adopts the agent and its SAs. A child that ends before it ever served
ends the whole: then the configuration or the machine is not right, and trying again would not help.
"""

import argparse
import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.api.address import UnixAddress
from gateway.api.config_file import load_config
from gateway.app.access import access_arguments, role_sockets
from gateway.app.arguments import seconds
from gateway.app.controller_options import add_controller_arguments
from gateway.app.engine_options import add_engine_arguments, engine_arguments
from gateway.app.log_options import complain, configure_logs, log_arguments
from gateway.app.places import (
    DEFAULT_RUN_DIR,
    Places,
    controller_account,
    find_places,
    is_listening,
    is_root,
    make_directory,
)
from gateway.app.ready import environment_of_child, serving, stop_event
from gateway.app.tls_options import tls_arguments, tls_files
from gateway.app.xfrm_options import add_xfrm_arguments, xfrm_arguments
from gateway.datapath.engine.espd import SOCKET_NAME, end_espd
from gateway.datapath.registry import backend_names
from gateway.host.privileges import keep_memory_private
from gateway.host.sockets import peer_pid
from gateway.ipsec.errors import GatewayError
from gateway.observe.logs import get_logger

_log = get_logger("app")

_FIRST_WAIT_S: Final = 0.1
_LONGEST_WAIT_S: Final = 5.0
#: A child that served this long has earned a short wait again.
_STEADY_S: Final = 30.0
_STOP_S: Final = 8.0


class StartError(GatewayError):
    """The gateway cannot start: another one runs, or a child ended before it served (it has said why)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `ipsecgw run`."""
    add_controller_arguments(parser)
    parser.add_argument(
        "--datapath",
        default="auto",
        metavar="WHERE",
        help=f"{', '.join(backend_names())}: start an agent with this backend (default auto); "
        "unix:PATH or HOST:PORT: use the agent there",
    )
    parser.add_argument("--grace", type=seconds, metavar="S", help="see `ipsecgw agent --help`")
    add_xfrm_arguments(parser)
    add_engine_arguments(parser)
    parser.add_argument(
        "--teardown",
        action="store_true",
        help="at the end, remove the protection too: traffic may leave in clear then",
    )


def run(args: argparse.Namespace) -> int:
    """Run the gateway until SIGTERM or SIGINT; 0 after an orderly end, 1 when it could not start."""
    try:
        configure_logs(args)
        keep_memory_private()
        if args.config is not None:
            # Every mistake is told before anything is started.
            for warning in load_config(args.config).warnings:
                _log.warning("weak_algorithm_allowed", detail=warning)
        tls_files(args)
        own_agent = args.datapath in backend_names()
        places = find_places(
            os.environ,
            run_dir=args.run_dir,
            control=args.socket,
            datapath=None if own_agent else args.datapath,
        )
        if is_root():
            controller_account(args.user, places.datapath)
        return asyncio.run(_Supervisor(args, places, own_agent=own_agent).run())
    except GatewayError as error:
        complain("ipsecgw run", error)
        return 1


@dataclass(slots=True)
class _Child:
    """One process that is kept running."""

    name: str
    argv: tuple[str, ...]
    pid_file: Path
    process: asyncio.subprocess.Process | None = None
    has_served: bool = False

    async def start(self) -> None:
        """Start it and return when it serves.

        Raises:
            StartError: It ended first.
        """
        read_end, write_end = os.pipe()
        try:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-P", "-m", *self.argv),
                pass_fds=(write_end,),
                env=environment_of_child(write_end),
                stdin=asyncio.subprocess.DEVNULL,
            )
        finally:
            os.close(write_end)
        self.pid_file.write_text(f"{self.process.pid}\n")
        try:
            await _readable(read_end)
            serves = os.read(read_end, 1)
        finally:
            os.close(read_end)
        if not serves:
            status = await self.process.wait()
            raise StartError(f"the {self.name} ended with status {exit_status(status)} before it served")
        self.has_served = True

    async def stop(self) -> None:
        """End it, in order if it does so in time."""
        if self.process is None:
            return
        if self.process.returncode is not None:
            self.pid_file.unlink(missing_ok=True)
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        try:
            async with asyncio.timeout(_STOP_S):
                await self.process.wait()
        except TimeoutError:
            _log.error("process_killed", process=self.name, pid=self.process.pid, waited_s=_STOP_S)
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()
        self.pid_file.unlink(missing_ok=True)


class _Supervisor:
    def __init__(self, args: argparse.Namespace, places: Places, *, own_agent: bool) -> None:
        run_dir = (args.run_dir or DEFAULT_RUN_DIR).absolute()
        if own_agent and isinstance(places.datapath, UnixAddress):
            run_dir = places.datapath.path.parent
        self._args = args
        self._places = places
        self._own_agent = own_agent
        self._run_dir = run_dir
        self._adopted_pid = 0
        self._agent = _Child("agent", self._agent_argv(), run_dir / "agent.pid")
        self._controller = _Child("controller", self._controller_argv(), run_dir / "controller.pid")

    def _agent_argv(self) -> tuple[str, ...]:
        args = self._args
        group = (
            ["--group-id", str(controller_account(args.user, self._places.datapath).gid)] if is_root() else []
        )
        return (
            *("gateway.app.agent", "--listen", str(self._places.datapath), "--backend"),
            args.datapath if self._own_agent else "auto",
            *group,
            *([] if args.grace is None else ["--grace", str(args.grace)]),
            *(["--teardown"] if args.teardown else []),
            *xfrm_arguments(args),
            *engine_arguments(args),
            *tls_arguments(args),
            *log_arguments(args),
        )

    def _controller_argv(self) -> tuple[str, ...]:
        args = self._args
        return (
            *("gateway.app.controller", "--datapath", str(self._places.datapath)),
            *("--socket", str(self._places.control), "--parent", str(os.getpid())),
            *([] if args.config is None else ["--config", str(args.config.absolute())]),
            *([] if args.state is None else ["--state", str(args.state.absolute())]),
            *("--node", args.node),
            *(["--allow-key-export"] if args.allow_key_export else []),
            *([] if args.user is None else ["--user", args.user]),
            *([] if args.key_log is None else ["--key-log", str(args.key_log.absolute())]),
            *([] if args.metrics is None else ["--metrics", str(args.metrics)]),
            *access_arguments(args),
            *tls_arguments(args),
            *log_arguments(args),
        )

    async def run(self) -> int:
        """Start both, keep both, end both."""
        stopping = stop_event()
        make_directory(self._run_dir)
        with _only_one(self._run_dir):
            return await self._run(stopping)

    async def _run(self, stopping: asyncio.Event) -> int:
        keepers: list[asyncio.Task[None]] = []
        try:
            if self._own_agent:
                await self._find_or_start_agent()
                keepers.append(asyncio.create_task(self._keep_agent(), name="keep-agent"))
            await self._controller.start()
            keepers.append(asyncio.create_task(self._keep(self._controller), name="keep-controller"))
            _log.info("gateway_ready", control=str(self._places.control), datapath=str(self._places.datapath))
            waiting = asyncio.create_task(stopping.wait(), name="stop")
            async with serving():
                await asyncio.wait((waiting, *keepers), return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            for keeper in keepers:
                if keeper.done():
                    keeper.result()  # By itself it only ends by a mistake of ours, which is raised here.
            _log.info("gateway_stopping", protection="removed" if self._args.teardown else "stays in force")
        finally:
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)
            await self._controller.stop()
            if self._controller.has_served and isinstance(self._places.control, UnixAddress):
                # The controller had no right any more to remove them. One that never served has none there.
                for address in role_sockets(self._places.control).values():
                    address.path.unlink(missing_ok=True)
            await self._agent.stop()
            if await self._stop_adopted():
                await self._end_what_outlives_an_agent()
        return 0

    async def _end_what_outlives_an_agent(self) -> None:
        """End espd, which has nothing to do without an agent, and give up the bpffs of XDP if it is empty."""
        await end_espd(self._run_dir / SOCKET_NAME)
        if not any(entry.is_mount() for entry in self._run_dir.iterdir()):
            return
        # To load what knows of BPF takes as long as to load all else here, and few gateways need it.
        from gateway.datapath.engine.xdp_steering import PINS_NAME  # noqa: PLC0415 - see above
        from gateway.host.bpf.errors import BpfError  # noqa: PLC0415
        from gateway.host.bpf.pins import unmount_unused  # noqa: PLC0415

        # The agent could mount it, but gave up what it takes to unmount it.
        with contextlib.suppress(BpfError):
            unmount_unused(self._run_dir / PINS_NAME)

    async def _keep(self, child: _Child) -> None:
        """Start a child again whenever it ends."""
        loop = asyncio.get_running_loop()
        wait = _FIRST_WAIT_S
        while True:
            assert child.process is not None
            served_at = loop.time()
            status = await child.process.wait()
            if loop.time() - served_at > _STEADY_S:
                wait = _FIRST_WAIT_S
            wait = await self._restart(child, exit_status(status), wait)

    async def _restart(self, child: _Child, status: str, wait: float) -> float:
        """Start a child that has ended, as often as it takes; return how long to wait the next time."""
        while True:
            _log.error("process_died", process=child.name, status=status, restart_in_s=round(wait, 1))
            await asyncio.sleep(wait)
            wait = min(_LONGEST_WAIT_S, wait * 2)
            try:
                await child.start()
            except (StartError, OSError) as error:
                _log.error("process_not_restarted", process=child.name, reason=str(error))
                status = "it did not serve"
            else:
                assert child.process is not None
                _log.warning("process_restarted", process=child.name, pid=child.process.pid)
                return wait

    # --- an agent that is there already ---------------------------------------------------------

    async def _find_or_start_agent(self) -> None:
        address = self._places.datapath
        if isinstance(address, UnixAddress) and await is_listening(address.path):
            self._adopted_pid = _listener_pid(address.path)
            _log.warning("agent_adopted", pid=self._adopted_pid, datapath=str(address))
            return
        await self._agent.start()

    async def _keep_agent(self) -> None:
        if self._adopted_pid:
            await _wait_for_end(self._adopted_pid)
            self._adopted_pid = 0
            await self._restart(self._agent, "unknown: adopted", _FIRST_WAIT_S)
        await self._keep(self._agent)

    async def _stop_adopted(self) -> bool:
        """End an adopted agent that an earlier `ipsecgw run` had started; leave somebody else's alone.

        Returns:
            Whether no agent is left here.
        """
        pid_file = self._agent.pid_file
        if not self._adopted_pid:
            return self._own_agent
        if not pid_file.exists() or pid_file.read_text().strip() != str(self._adopted_pid):
            _log.info("agent_left_running", pid=self._adopted_pid)
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._adopted_pid, signal.SIGTERM)
            try:
                async with asyncio.timeout(_STOP_S):
                    await _wait_for_end(self._adopted_pid)
            except TimeoutError:
                _log.error("process_killed", process="agent", pid=self._adopted_pid, waited_s=_STOP_S)
                os.kill(self._adopted_pid, signal.SIGKILL)
        pid_file.unlink(missing_ok=True)
        return True


def exit_status(status: int) -> str:
    """Return how a child ended: its number, or the name of the signal that ended it."""
    if status >= 0:
        return str(status)
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


@contextlib.contextmanager
def _only_one(run_dir: Path) -> Iterator[None]:
    """Keep a second `ipsecgw run` away from this directory: it would end what the first one runs.

    The lock goes with the process, however that ends.

    Raises:
        StartError: There is another one.
    """
    pid_file = run_dir / "run.pid"
    directory = os.open(run_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = pid_file.read_text().strip() if pid_file.exists() else "unknown"
            raise StartError(
                f"another `ipsecgw run` (process {pid}) uses {run_dir}: stop it, "
                "or choose another place with --run-dir"
            ) from error
        pid_file.write_text(f"{os.getpid()}\n")
        try:
            yield
        finally:
            pid_file.unlink(missing_ok=True)
    finally:
        os.close(directory)


def _listener_pid(path: Path) -> int:
    """Return the process that listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.connect(os.fspath(path))
        return peer_pid(probe)


async def _wait_for_end(pid: int) -> None:
    """Wait until a process that is not our child is gone."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await _readable(descriptor)
    finally:
        os.close(descriptor)


async def _readable(descriptor: int) -> None:
    """Wait until a descriptor has something to read, or its end has come."""
    ready = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a gateway (`python -m gateway.app.run`)."""
    parser = argparse.ArgumentParser(prog="ipsecgw run")
    add_arguments(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
