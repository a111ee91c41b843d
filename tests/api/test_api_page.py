"""The commands of docs/api.md, run as grpcurl would: by reflection, from JSON to JSON."""

import asyncio
import json
import re
import shlex
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from gateway.api.address import UnixAddress
from gateway.api.control.v1 import control_pb2
from gateway.api.control_client import ControlClient
from tests.api.test_control_service import connection

PAGE = Path(__file__).parents[2] / "docs/api.md"
COMMANDS = re.findall(r"^grpcurl .*$", PAGE.read_text(), re.MULTILINE)


def _run(command: str, address: UnixAddress) -> dict[str, Any]:
    """Return the first answer to a command of the page, at another address than its own."""
    words = shlex.split(command)
    assert words[:3] == ["grpcurl", "-plaintext", "-d"]
    request, where, method = words[3:]
    assert where == "unix:///run/ipsecgw/control.sock"
    with grpc.insecure_channel(f"unix:{address.path}") as channel:
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        service, _, name = method.partition("/")
        found = pool.FindServiceByName(service).methods_by_name[name]
        asked, answered = GetMessageClass(found.input_type), GetMessageClass(found.output_type)
        open_call = channel.unary_stream if found.server_streaming else channel.unary_unary
        call = open_call(
            f"/{method}",
            request_serializer=asked.SerializeToString,
            response_deserializer=answered.FromString,
        )
        answer = call(ParseDict(json.loads(request), asked()), timeout=10)
        return MessageToDict(next(answer) if found.server_streaming else answer)


ANSWERS = {
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

    answer = await asyncio.to_thread(_run, command, control_address)

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
