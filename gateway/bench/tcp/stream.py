"""One end of a TCP stream, as fast as it goes: `python -m gateway.bench.tcp.stream receive|send ...`.

`receive ADDRESS` takes one connection, says `ready` before, and prints how many bytes came and in what time;
`send ADDRESS SECONDS` sends for so long. iperf3 does the same; this needs nothing that is not here.
"""

import argparse
import json
import signal
import socket
import time
from typing import Final

PORT: Final = 7010
_CHUNK_BYTES: Final = 1 << 20


def receive(address: str) -> None:
    """Take one connection to its end and print what came."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    memory = memoryview(bytearray(_CHUNK_BYTES))
    with socket.create_server((address, PORT), family=family) as server:
        print("ready", flush=True)
        connection, _ = server.accept()
        with connection:
            start, total = time.monotonic(), 0
            while got := connection.recv_into(memory):
                total += got
            seconds = time.monotonic() - start
    print(json.dumps({"bytes": total, "seconds": seconds}), flush=True)


def send(address: str, seconds: float) -> None:
    """Send zeros for some seconds."""
    chunk = bytes(_CHUNK_BYTES)
    with socket.create_connection((address, PORT), timeout=20.0) as connection:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            connection.sendall(chunk)


def main() -> None:
    """Run one end."""
    parser = argparse.ArgumentParser(prog="python -m gateway.bench.tcp.stream")
    parser.add_argument("command", choices=("receive", "send"))
    parser.add_argument("address")
    parser.add_argument("seconds", type=float, nargs="?", default=1.0)
    options = parser.parse_args()
    # A terminal's Ctrl-C reaches us beside those who started us; what to say about it is theirs.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if options.command == "receive":
        receive(options.address)
    else:
        send(options.address, options.seconds)


if __name__ == "__main__":
    main()
