"""The commands of docs/api.md by `buf curl`, a client that like grpcurl knows us by reflection alone.

grpcurl itself is in no registry of packages for Debian, Python or npm.
"""

import asyncio
import json
import os
import re
import shlex
from asyncio.subprocess import PIPE
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.api.address import UnixAddress
from gateway.api.control.v1 import control_pb2
from gateway.api.control_client import ControlClient
from tests.api.test_control_service import connection

PAGE = Path(__file__).parents[2] / "docs/api.md"
COMMANDS = re.findall(r"^grpcurl .*$", PAGE.read_text(), re.MULTILINE)
CACHE = Path(os.environ.get("IPSECGW_CACHE") or Path.home() / ".cache" / "ipsecgw")


def _as_buf_curl(command: str, address: UnixAddress) -> list[str]:
    """Return what does the same as a command of the page, at another address than its own."""
    words = shlex.split(command)
    assert words[:3] == ["grpcurl", "-plaintext", "-d"]
    request, where, method = words[3:]
    assert where == "unix:///run/ipsecgw/control.sock"
    # Not npm's wrapper, which would leave it behind when it is ended.
    installed = sorted(CACHE.glob("buf-*/node_modules/@bufbuild/buf-*/bin/buf"))
    assert installed, f"no buf in {CACHE}: `make test` installs it"
    plain = ["--protocol", "grpc", "--http2-prior-knowledge", "--unix-socket", str(address.path)]
    return [str(installed[-1]), "curl", *plain, "-d", request, f"http://localhost/{method}"]


async def _first_answer(command: list[str]) -> dict[str, Any]:
    """Run a client until it has printed one JSON object, and end it: some calls have no end.

    Raises:
        AssertionError: It ended without one; the text is what it complained of.
    """
    client = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE)
    assert client.stdout is not None
    said = ""
    try:
        async with asyncio.timeout(60):
            while line := await client.stdout.readline():
                said += line.decode()
                # Nested objects end further right.
                if line.rstrip() in (b"}", b"{}"):
                    return dict(json.loads(said))
    finally:
        if client.returncode is None:
            client.terminate()
        _, complaint = await client.communicate()
    raise AssertionError(complaint.decode())


ANSWERS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "ApplyConnections": lambda answer: answer["results"][0]["applied"] == "APPLIED_UPDATED",
    "ListConnections": lambda answer: len(answer["connections"]) == 1,
    "GetConnection": lambda answer: answer["connection"]["connection"] == {"name": "paris"},
    "ListChildSas": lambda answer: "childSas" not in answer,
    "WatchConnections": lambda answer: answer == {"resync": True},
    "Initiate": lambda answer: answer["operation"]["verb"] == "initiate",
}


@pytest.mark.parametrize("command", COMMANDS, ids=[command.rpartition("/")[2] for command in COMMANDS])
async def test_a_command_of_the_page_does_what_it_is_there_for(
    control: ControlClient, control_address: UnixAddress, command: str
) -> None:
    await control.apply([connection("paris"), connection("rome")])

    answer = await _first_answer(_as_buf_curl(command, control_address))

    assert ANSWERS[command.rpartition("/")[2]](answer), answer


def test_the_page_knows_every_condition_and_effect() -> None:
    text = PAGE.read_text()

    for value in control_pb2.ConditionType.DESCRIPTOR.values[1:]:
        assert f"`{value.name.removeprefix('CONDITION_TYPE_').lower()}`" in text
    for method in (
        "ApplyConnections",
        "StreamConnections",
        "WatchConnections",
        "WatchEvents",
        "GetOperation",
    ):
        assert f"`{method}`" in text
