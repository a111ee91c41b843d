"""IKE and ESP reach the right process on ports 500 and 4500, whoever dies, and whoever else wants in."""

import errno
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.bench.topology import Namespace, delete_namespace, make_namespace
from gateway.host.errors import HostError
from gateway.host.sockets import receive_ports

pytestmark = pytest.mark.netns

CONTROLLER_UID = 65534
OTHER_UID = 65533
ADDRESSES = ("127.0.0.1", "::1")


class Process:
    """One of the stand-ins, with the lines it printed."""

    def __init__(self, namespace: Namespace, *arguments: str) -> None:
        self._process = subprocess.Popen(
            namespace.command(sys.executable, "-m", "tests.netns.port_processes", *arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._collect, daemon=True).start()

    def _collect(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.strip())

    def expect(self, line: str, timeout_s: float = 30.0) -> None:
        """Read the next line, which must be this one."""
        try:
            assert self._lines.get(timeout=timeout_s) == line
        except queue.Empty:
            self.kill()
            raise AssertionError(f"expected {line!r}, there was nothing: {self.errors()}") from None

    def expect_silence(self) -> None:
        time.sleep(0.1)
        assert self._lines.empty(), self._lines.get()

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def stop(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(60)

    def errors_at_the_end(self) -> str:
        """Wait for the process to end of its own accord, and return what it said."""
        self._process.wait(60)
        return self.errors()

    def errors(self) -> str:
        assert self._process.stderr is not None
        return self._process.stderr.read()


class Stage:
    """A namespace with a path for the hand-over, and a peer in it."""

    def __init__(self, namespace: Namespace, directory: Path) -> None:
        self.namespace = namespace
        self.path = directory / "ports.sock"
        self.processes: list[Process] = []
        self.peer = self.start("peer")

    def start(self, *arguments: str) -> Process:
        process = Process(self.namespace, *arguments)
        self.processes.append(process)
        return process

    def agent(self) -> Process:
        process = self.start("agent", str(self.path), str(CONTROLLER_UID))
        process.expect("ready")
        return process

    def controller(self) -> Process:
        process = self.start("controller", str(self.path), str(CONTROLLER_UID))
        process.expect("ready")
        return process

    def send(self, address: str, port: int, payload: bytes) -> None:
        self.peer.say(f"{address} {port} {payload.hex()}")
        self.peer.expect("sent")


@pytest.fixture
def stage() -> Iterator[Stage]:
    namespace = make_namespace(f"ports{os.getpid()}")
    made = None
    # Not under pytest's own directory: only root may go there, and the controller is someone else.
    with tempfile.TemporaryDirectory(prefix="ports") as directory:
        os.chmod(directory, 0o755)
        try:
            made = Stage(namespace, Path(directory))
            yield made
        finally:
            for process in made.processes if made else ():
                process.kill()
            delete_namespace(namespace)


IKE = bytes(4) + b"ike on the port of nat traversal"
ESP = bytes.fromhex("c0ffee01") + b"esp"


def _check_both(stage: Stage, agent: Process, controller: Process, mark: str) -> None:
    """Every kind of datagram, of both families, reaches the one it is for."""
    for address in ADDRESSES:
        stage.send(address, 4500, IKE + mark.encode())
        controller.expect(f"ike 4500 {(IKE + mark.encode()).hex()}")
        stage.send(address, 4500, ESP + mark.encode())
        agent.expect(f"esp 4500 {(ESP + mark.encode()).hex()}")
        stage.send(address, 500, ESP + mark.encode())
        controller.expect(f"ike 500 {(ESP + mark.encode()).hex()}")
    agent.expect_silence()
    controller.expect_silence()


def test_marker_tells_ike_from_esp_across_processes_and_users(stage: Stage) -> None:
    agent = stage.agent()
    controller = stage.controller()

    _check_both(stage, agent, controller, "")


@pytest.mark.parametrize("runt", [b"\xff", b"\0", b"\0\0\0"])
def test_keepalives_and_runts_do_not_reach_ike(stage: Stage, runt: bytes) -> None:
    agent = stage.agent()
    controller = stage.controller()

    stage.send("127.0.0.1", 4500, runt)

    agent.expect(f"esp 4500 {runt.hex()}")
    controller.expect_silence()


def test_killed_controller_gets_the_same_sockets_with_what_arrived_meanwhile(stage: Stage) -> None:
    agent = stage.agent()
    first = stage.controller()
    _check_both(stage, agent, first, "before")

    first.kill()
    stage.send("127.0.0.1", 4500, IKE + b"while nobody listens")
    stage.send("127.0.0.1", 4500, ESP + b"while nobody listens")
    agent.expect(f"esp 4500 {(ESP + b'while nobody listens').hex()}")
    second = stage.controller()

    second.expect(f"ike 4500 {(IKE + b'while nobody listens').hex()}")
    _check_both(stage, agent, second, "after")


def test_killed_agent_leaves_the_ports_to_the_next_one(stage: Stage) -> None:
    agent = stage.agent()
    controller = stage.controller()
    _check_both(stage, agent, controller, "before")

    agent.kill()
    controller.expect("agent is gone")
    again = stage.agent()
    controller.expect("ready")

    _check_both(stage, again, controller, "after")


def test_killing_both_again_and_again_never_swaps_the_slots(stage: Stage) -> None:
    for number in range(3):
        agent = stage.agent()
        controller = stage.controller()
        _check_both(stage, agent, controller, f"round {number}")
        for process in (agent, controller) if number % 2 else (controller, agent):
            process.kill()


def test_another_user_cannot_join_a_group(stage: Stage) -> None:
    stage.namespace.run("sysctl", "-qw", "net.ipv4.ip_unprivileged_port_start=0")
    stage.agent()

    for port in ("500", "4500"):
        intruder = stage.start("intruder", str(OTHER_UID), port)
        intruder.expect(f"refused {errno.EADDRINUSE}")


def test_second_agent_says_which_port_is_in_use_and_how_to_find_the_owner(stage: Stage) -> None:
    stage.agent()

    second = stage.start("agent", str(stage.path) + ".other", str(CONTROLLER_UID))
    errors = second.errors_at_the_end()

    assert "UDP port 500 on 0.0.0.0 is in use" in errors
    assert "ss -lunp 'sport = :500'" in errors


def test_controller_that_holds_on_keeps_the_ports_busy(stage: Stage) -> None:
    agent = stage.agent()
    controller = stage.controller()
    controller.stop()
    agent.kill()

    second = stage.start("agent", str(stage.path), str(CONTROLLER_UID))

    assert "is in use" in second.errors_at_the_end()


def test_other_users_may_not_ask_for_the_sockets(stage: Stage) -> None:
    stage.agent()
    code = (
        "import os, sys; os.setresuid(65533, 65533, 65533)\n"
        "from gateway.host.sockets import receive_ports\n"
        "receive_ports(sys.argv[1])"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, str(stage.path)], capture_output=True, text=True, check=False, timeout=60
    )

    assert done.returncode != 0
    assert "no permission to connect" in done.stderr


def test_absent_agent_is_named(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"no datapath agent at .*: start one with `ipsecgw agent`"):
        receive_ports(tmp_path / "nothing.sock")
