"""What users can write and read is in the documentation: every key, every command, every drop reason."""

import re
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor

from gateway.api.control.v1 import connection_pb2 as cpb
from gateway.api.types.v1 import ipsec_pb2 as tpb
from gateway.cli.main import build_parser
from gateway.ipsec.drop_reason import DropReason

CONFIGURATION = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
#: Not for files: what services answer.
ANSWERS = {"is_set"}


def keys() -> list[str]:
    messages: list[Descriptor] = [
        message.DESCRIPTOR
        for message in (
            *(cpb.Config, cpb.Connection, cpb.Side, cpb.Authentication, cpb.PreSharedKey),
            *(cpb.CertificateAuthentication, cpb.PublicKeyAuthentication, cpb.PublicFile, cpb.CrlFile),
            *(cpb.PrivateKey, cpb.Passphrase),
            *(cpb.Ike, cpb.Child, cpb.Esp, tpb.Placement, tpb.TunnelInterface),
        )
    ]
    return sorted({field.name for message in messages for field in message.fields} - ANSWERS)


@pytest.mark.parametrize("key", keys())
def test_every_key_of_the_configuration_is_documented(key: str) -> None:
    assert re.search(rf"`[^`\n]*\b{key}\b[^`\n]*`|\b{key}: ", CONFIGURATION)


@pytest.mark.parametrize("reason", DropReason, ids=lambda reason: reason.value)
def test_every_drop_reason_is_documented(reason: DropReason) -> None:
    assert f"| `{reason.value}` | " in CONFIGURATION


def test_every_command_is_documented() -> None:
    listed = re.search(r"^ +\{?COMMAND\}?\n(.*)", build_parser().format_help(), re.M | re.S)
    assert listed is not None
    commands = re.findall(r"^    ([a-z]+) ", listed[1], re.M)

    assert len(commands) > 10
    for command in commands:
        assert re.search(rf"`{command}\b", CONFIGURATION) or f"`ipsecgw {command}" in CONFIGURATION, command
