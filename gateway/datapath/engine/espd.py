"""The process espd: found alive and taken over, or started; and started again when it has ended.

One of another build than the program is now, hands everything over to a new process, without losing a packet
(hw/espd/src/succession.h): an upgrade is a new program and a restart of the agent.

espd outlives the agent. What it carries goes on without us, and the next agent finds it by its socket. A life
of espd has a number of its own, drawn when it starts: another one, and every SA of the former is lost.
"""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, Protocol, TypeVar

from gateway.datapath.engine import protocol as p
from gateway.datapath.engine.connection import Connection, EspdGoneError, connect
from gateway.datapath.engine.core import EngineError, library_path
from gateway.datapath.engine.records import REASONS
from gateway.host.errors import HostError
from gateway.observe.logs import get_logger

_log = get_logger(__name__)

R = TypeVar("R", bound=p.ReplyMessage)
T = TypeVar("T")

_AT_ONCE: Final = 256
START_S: Final = 5.0
"""How long espd may take from its start to its first answer."""
_LOOK_S: Final = 0.01
_STOP_S: Final = 3.0
_SUCCESSION_S: Final = 15.0
"""How long an espd may take to start and to take over: it makes as many SAs as there are."""
_SOCKET_MASK: Final = 0o177
"""umask under which espd makes its socket: nobody else connects."""


SOCKET_NAME: Final = "espd.sock"
"""Where it listens, in the run directory of its agent."""


def batches(items: Iterable[T]) -> Iterator[list[T]]:
    """Yield items in portions for which requests may be under way together."""
    iterator = iter(items)
    while batch := list(islice(iterator, _AT_ONCE)):
        yield batch


def espd_path() -> Path:
    """Return where `make engine` puts it; `IPSECGW_ESPD` names another file."""
    named = os.environ.get("IPSECGW_ESPD")
    return Path(named) if named else library_path().with_name("espd")


class Launcher(Protocol):
    """Starts espd. Tests start something else."""

    def check(self) -> None:
        """Look whether there is something to start.

        Raises:
            HostError: There is not; the text says what to do.
        """

    def launch(self, socket_path: Path, *, takes_over: bool = False) -> "Running":
        """Start it, to listen at a path; or to have everything of the one that listens there.

        Raises:
            HostError: It cannot be started.
        """

    def build(self) -> str:
        """Return which build it would be, or nothing where that cannot be told."""


class Running(Protocol):
    """An espd that was started here."""

    def exit_code(self) -> int | None:
        """Return how it ended, or `None` while it runs."""

    def kill(self) -> None:
        """End it at once."""


class ProgramLauncher:
    """Starts the program.

    Args:
        program: Its path.
    """

    def __init__(self, program: Path) -> None:
        self._program = program

    def check(self) -> None:
        """Look for the program."""
        if not os.access(self._program, os.X_OK):
            raise HostError(f"there is no program {self._program}: `make engine` builds it")

    def launch(self, socket_path: Path, *, takes_over: bool = False) -> "RunningProgram":
        """Start it in a session of its own: a signal to ours is none to it."""
        options = ["--take-over"] if takes_over else []
        try:
            # Not a context manager: it outlives us.
            process = subprocess.Popen(  # noqa: S603 - our own program
                [str(self._program), "--socket", str(socket_path), *options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                # It ignores SIGPIPE as we do: whoever reads its standard error may be gone before it.
                restore_signals=False,
                umask=_SOCKET_MASK,
            )
        except OSError as error:
            raise HostError(
                f"cannot start {self._program}: {error.strerror}; `make engine` builds it"
            ) from error
        return RunningProgram(process)

    def build(self) -> str:
        """Ask the program."""
        try:
            done = subprocess.run(  # noqa: S603 - our own program
                [str(self._program), "--version"], capture_output=True, timeout=START_S, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return ""
        return done.stdout.decode(errors="replace").strip()


class RunningProgram:
    """A child process."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    def exit_code(self) -> int | None:
        """Return how it ended, or `None` while it runs."""
        return self._process.poll()

    def kill(self) -> None:
        """End it at once, and wait for it."""
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One life of espd, as it introduced itself."""

    number: bytes
    process: int
    is_new: bool
    """Whether it has nothing yet: it was started just now."""
    crypto: tuple[str, ...]
    """Its crypto libraries, with versions."""
    build: str
    """Of the program that it runs."""


class Espd:
    """espd, whichever life it is in.

    Args:
        socket_path: Where it listens.
        launcher: Starts it.
        on_event: Told of each event, in order; must not block.
        on_end: Told why, each time the connection ends by itself; must not block.
    """

    def __init__(
        self,
        socket_path: Path,
        launcher: Launcher,
        *,
        on_event: Callable[[p.EventMessage], None],
        on_end: Callable[[str], None],
    ) -> None:
        self._path = socket_path
        self._launcher = launcher
        self._on_event = on_event
        self._on_end = on_end
        self._is_end_expected = False
        self._running: Running | None = None
        self._connection: Connection | None = None

    @property
    def is_there(self) -> bool:
        """Whether it can be asked."""
        return self._connection is not None and self._connection.is_open

    async def start(self, known_life: bytes | None = None) -> Life:
        """Take over the espd that lives, if it is in `known_life`; otherwise start a new one.

        Raises:
            HostError: It cannot be started, or is another version; the text says what to do.
        """
        self.leave()
        life = await self._meet()
        if life is not None:
            if life.number == known_life:
                return await self._upgrade(life)
            _log.warning("espd_replaced", process=life.process, reason="its SAs are not known here")
            await self.stop()
        return await self._start_new()

    async def _meet(self) -> Life | None:
        """Connect to an espd that lives, if there is one."""
        try:
            connection = await connect(self._path, self._on_event, self._ended)
        except OSError:
            return None
        try:
            return await self._introduce(connection, is_new=False)
        except EspdGoneError:
            connection.close()
            return None

    async def _upgrade(self, life: Life) -> Life:
        """Have a new process take over from one of another build; where it does not, that one carries on.

        Raises:
            HostError: Both are gone, and no other can be started.
        """
        build = await asyncio.to_thread(self._launcher.build)
        if build in ("", life.build):
            return life
        self._is_end_expected = True
        try:
            running = self._launcher.launch(self._path, takes_over=True)
            reason = await self._succession(running)
            if reason and self.is_there:
                _log.error("espd_not_upgraded", process=life.process, build=life.build, reason=reason)
                return life
            upgraded = await self._meet()
            if upgraded is None:
                # Both are gone, and the SAs with them, as the life of the next one tells.
                return await self._start_new()
            self._running = running
        finally:
            self._is_end_expected = False
        _log.warning("espd_upgraded", process=upgraded.process, build=upgraded.build, formerly=life.build)
        return upgraded

    async def _succession(self, running: Running) -> str:
        """Wait until the old process has ended; return why not, if the new one ended first or is too slow."""
        deadline = asyncio.get_running_loop().time() + _SUCCESSION_S
        while self.is_there:
            code = running.exit_code()
            if code is not None:
                return f"the new one ended with {_words(code)}"
            if asyncio.get_running_loop().time() > deadline:
                running.kill()
                return f"the new one did not take over within {_SUCCESSION_S:.0f} s"
            await asyncio.sleep(_LOOK_S)
        return ""

    async def _start_new(self) -> Life:
        self._path.unlink(missing_ok=True)
        running = self._running = self._launcher.launch(self._path)
        deadline = asyncio.get_running_loop().time() + START_S
        while True:
            code = running.exit_code()
            if code is not None:
                raise HostError(f"espd ended as soon as it was started, with {_words(code)}")
            try:
                connection = await connect(self._path, self._on_event, self._ended)
            except OSError as error:
                if asyncio.get_running_loop().time() > deadline:
                    running.kill()
                    raise HostError(f"espd does not listen at {self._path}: {error.strerror}") from error
                await asyncio.sleep(_LOOK_S)
                continue
            try:
                return await self._introduce(connection, is_new=True)
            except EspdGoneError as error:
                running.kill()
                raise HostError(f"espd was started and does not answer: {error}") from error

    async def _introduce(self, connection: Connection, *, is_new: bool) -> Life:
        """Say hello, and make this the connection.

        Raises:
            HostError: It speaks another version.
            EspdGoneError: It does not answer.
        """
        try:
            said = await connection.ask(p.MessageType.HELLO, p.Hello(drop_reasons=len(REASONS)), p.HelloReply)
        except p.EspdRefused as error:
            connection.close()
            raise HostError(f"{error}: stop it, and build it anew with `make engine`") from error
        except EspdGoneError:
            connection.close()
            raise
        self._connection = connection
        return Life(
            number=bytes(said.life),
            process=said.process,
            is_new=is_new,
            build=said.build.decode(errors="replace"),
            crypto=tuple(name.decode() for name in (said.ipsecmb, said.openssl) if name),
        )

    async def ask(
        self,
        kind: p.MessageType,
        message: p.RequestMessage,
        reply: type[R],
        *,
        descriptors: Sequence[int] = (),
    ) -> R:
        """Send a request and return the reply; see `Connection.ask`."""
        if self._connection is None:
            p.wipe(message)
            raise EspdGoneError("espd is not there")
        return await self._connection.ask(kind, message, reply, descriptors=descriptors)

    async def do(self, kind: p.MessageType, message: p.RequestMessage) -> None:
        """Send a request whose reply says nothing but yes; see `Connection.ask`."""
        await self.ask(kind, message, p.Reply)

    def leave(self) -> None:
        """Close the connection; espd goes on."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def stop(self) -> None:
        """End espd, and all that it has; no error if there is none."""
        self._is_end_expected = True
        try:
            if not self.is_there:
                with contextlib.suppress(HostError):
                    await self._meet()
            if self._connection is not None:
                with contextlib.suppress(EngineError):
                    await self._connection.ask(p.MessageType.SHUT_DOWN, p.Plain(), p.Reply)
            self.leave()
            await self._wait_for_end()
        finally:
            self._is_end_expected = False
        self._path.unlink(missing_ok=True)

    def _ended(self, reason: str) -> None:
        if not self._is_end_expected:
            self._on_end(reason)

    async def _wait_for_end(self) -> None:
        """Wait until it has let go of its devices."""
        deadline = asyncio.get_running_loop().time() + _STOP_S
        while asyncio.get_running_loop().time() < deadline:
            if self._running is not None and self._running.exit_code() is not None:
                break
            if self._running is None and not await self._listens():
                break
            await asyncio.sleep(_LOOK_S)
        else:
            _log.warning("espd_not_stopped", path=str(self._path))
            if self._running is not None:
                self._running.kill()
        self._running = None

    async def _listens(self) -> bool:
        try:
            connection = await connect(self._path, lambda _: None, lambda _: None)
        except OSError:
            return False
        connection.close()
        return True


async def end_espd(socket_path: Path) -> None:
    """End the espd at a socket, with its SAs; no error if there is none."""
    await Espd(
        socket_path, ProgramLauncher(espd_path()), on_event=lambda _: None, on_end=lambda _: None
    ).stop()


def _words(code: int) -> str:
    """Say how a process ended."""
    return f"signal {-code}" if code < 0 else f"status {code}"
