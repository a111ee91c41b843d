"""Processes that stand in for agent, controller and peer in the tests of the socket groups.

Each prints one line for every datagram it reads: `ike PORT HEX` or `esp PORT HEX`.
"""

import asyncio
import os
import select
import socket
import sys
import time

from gateway.host.errors import HostError
from gateway.host.sockets import PortOptions, PortServer, open_ports, receive_ports


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def agent(path: str, controller_uid: str) -> None:
    """Open every port, read ESP, and hand the rest over."""

    async def main() -> None:
        groups = open_ports(PortOptions(wait_s=3.0))
        server = PortServer(groups, path, mode=0o600, owner=(int(controller_uid), -1))
        await server.start()
        loop = asyncio.get_running_loop()
        for esp in groups.esp:
            loop.add_reader(esp.fileno(), read, "esp", esp)
        say("ready")
        await asyncio.Event().wait()

    asyncio.run(main())


def controller(path: str, uid: str) -> None:
    """Become another user, borrow the IKE sockets and read them; again and again when the agent is gone."""
    os.setgroups([])
    os.setresgid(int(uid), int(uid), int(uid))
    os.setresuid(int(uid), int(uid), int(uid))
    while True:
        try:
            ports = receive_ports(path)
        except HostError as error:
            print(error, file=sys.stderr)
            time.sleep(0.02)
            continue
        say("ready")
        assert ports.control is not None
        sockets = [port.socket for port in ports.ports]
        while True:
            readable, _, _ = select.select([*sockets, ports.control], [], [])
            if ports.control in readable:
                break
            for sock in readable:
                read("ike", sock)
        ports.close()
        say("agent is gone")


def read(kind: str, sock: socket.socket) -> None:
    data = sock.recv(65535)
    say(f"{kind} {sock.getsockname()[1]} {data.hex()}")


def peer() -> None:
    """Send what each line of the input says: address, port and payload in hex."""
    for line in sys.stdin:
        address, port, *payload = line.split()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.sendto(bytes.fromhex("".join(payload)), (address, int(port)))
        say("sent")


def intruder(uid: str, port: str) -> None:
    """Try to join a group as another user."""
    os.setresuid(int(uid), int(uid), int(uid))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            sock.bind(("0.0.0.0", int(port)))
        except OSError as error:
            say(f"refused {error.errno}")
        else:
            say("joined")


if __name__ == "__main__":
    {"agent": agent, "controller": controller, "peer": peer, "intruder": intruder}[sys.argv[1]](*sys.argv[2:])
