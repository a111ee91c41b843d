"""What `--json` prints."""

import json

from google.protobuf.descriptor import FieldDescriptor

from gateway.api import convert
from gateway.api.datapath.v1 import datapath_pb2 as dpb
from gateway.api.plain import to_json
from gateway.api.types.v1 import ipsec_pb2 as tpb
from tests.fakes.records import make_sa


def test_an_sa_is_printed_without_its_keys() -> None:
    message = dpb.ListSasResponse()
    message.sas.add(sa=convert.write_sa(make_sa(0x1001, key=b"A" * 36), with_keys=True))

    (printed,) = json.loads(to_json(message))["sas"]

    assert printed["sa"]["spi"] == 0x1001
    assert "encryption_key" not in printed["sa"]
    assert "integrity_key" not in printed["sa"]


def test_every_binary_field_of_an_sa_is_a_key() -> None:
    # `to_plain` leaves binary fields out because of this.
    binary = [
        field
        for field in tpb.SecurityAssociation.DESCRIPTOR.fields
        if field.type == FieldDescriptor.TYPE_BYTES
    ]

    assert [field.name for field in binary] == ["encryption_key", "integrity_key"]
    assert all(field.GetOptions().debug_redact for field in binary)
