"""The bridge: both sides of every enum are the same list, and records survive the way there and back."""

from enum import Enum

import pytest

from gateway.api import convert, convert_control, convert_datapath
from gateway.api.control.v1 import connection_pb2 as cpb
from gateway.api.control.v1 import control_pb2 as pb
from gateway.api.convert_connection import (
    START,
    read_connections,
    strength_warnings,
    write_connection,
)
from gateway.api.sources import write_key
from gateway.api.types.v1 import ipsec_pb2 as tpb
from gateway.api.types.v1 import status_pb2 as spb
from gateway.api.violations import InvalidArgument, Violations, at
from gateway.controller.facade import (
    Applied,
    ApplyResult,
    ControlErrorReason,
    WantedConnection,
)
from gateway.datapath.backend import DatapathError, ErrorReason, InstalledSa, ItemResult, PlacementChange
from gateway.ipsec.algorithms import Encr, Integ
from gateway.ipsec.connection import Child, Connection, IkeOptions, Side
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.placement import Engine, Placement, PlacementReason, PlacementRefusal
from gateway.ipsec.proposal import ProtocolId, parse_proposal
from gateway.ipsec.sa import SaId
from gateway.ipsec.secret import Secret
from tests.conformance.sas import policy
from tests.fakes.records import make_sa

BRIDGES = {
    "EncryptionAlgorithm": convert.ENCRYPTION,
    "IntegrityAlgorithm": convert.INTEGRITY,
    "Mode": convert.MODE,
    "Action": convert.ACTION,
    "Direction": convert.DIRECTION,
    "IpsecProtocol": convert.PROTOCOL,
    "Engine": convert.ENGINE,
    "PlacementReason": convert.PLACEMENT_REASON,
    "DropReason": convert.DROP_REASON,
    "Start": START,
    "Applied": convert_control.APPLIED,
    "ConnectionState": convert_control.CONNECTION_STATE,
    "OperationState": convert_control.OPERATION_STATE,
}


@pytest.mark.parametrize("bridge", BRIDGES.values(), ids=BRIDGES.keys())
def test_every_member_crosses_and_comes_back(bridge: convert.EnumBridge[Enum]) -> None:
    violations = Violations()
    for number, member in bridge._members.items():
        assert bridge.read(number, "", violations) is member
    for member, name in bridge._names.items():
        assert bridge.write(member) == name
    assert not violations.found()


def test_algorithms_have_the_numbers_of_iana_in_the_contract() -> None:
    assert {
        name.removeprefix("ENCRYPTION_ALGORITHM_"): number
        for name, number in tpb.EncryptionAlgorithm.items()
        if number
    } == {member.name: member.value for member in Encr}
    assert {
        name.removeprefix("INTEGRITY_ALGORITHM_"): number
        for name, number in tpb.IntegrityAlgorithm.items()
        if number
    } == {member.name: member.value for member in Integ if member is not Integ.NONE}


def test_drop_reasons_are_spelled_alike_in_the_contract() -> None:
    names = [name.removeprefix("DROP_REASON_").lower() for name, number in spb.DropReason.items() if number]
    assert names == [reason.value for reason in DropReason]


def test_every_reason_of_a_refusal_is_in_the_contract() -> None:
    names = {name.removeprefix("ERROR_REASON_") for name, _ in spb.ErrorReason.items()}
    ours = {reason.value for reason in (*ErrorReason, *ControlErrorReason)}
    others = {"UNSPECIFIED", "INVALID_ARGUMENT", "ROLE_REQUIRED", "TOO_MANY_CALLS", "GENERATOR_REFUSED"}
    assert names == ours | others


def test_a_reason_newer_than_we_are_is_a_system_error() -> None:
    newer = spb.ItemResult(name="x", error=spb.ItemError(reason=999, message="too new"))  # type: ignore[arg-type]

    result = convert.read_item_result(newer)

    assert result.error is not None
    assert result.error.reason is ErrorReason.SYSTEM
    assert str(result.error) == "too new"


def test_paths_name_fields_and_items() -> None:
    assert at("", "sas", 3) == "sas[3]"
    assert at("sas[3]", "local_ts", 0) == "sas[3].local_ts[0]"
    assert at("target", "child") == "target.child"


def test_an_allowed_weak_algorithm_is_warned_about_once_and_in_the_answer() -> None:
    weak = parse_proposal("3des-sha1-modp1024", ProtocolId.IKE, implemented_only=False)
    connection = Connection(
        name="old",
        local=Side(),
        remote=Side(),
        ike=IkeOptions(proposals=(weak, weak)),
        children=(Child(name="lan"),),
        allow_weak=("3des", "sha1", "modp1024"),
    )

    warnings = strength_warnings(connection)
    answer = convert_control.write_apply_result(
        ApplyResult(name="old", applied=Applied.CREATED, warnings=("and this",)),
        WantedConnection(connection=connection),
    )

    assert len(warnings) == len(set(warnings)) >= 2
    assert tuple(answer.warnings) == ("and this", *warnings)
    assert answer.applied == pb.APPLIED_CREATED


@pytest.mark.parametrize("key", [b"text", b"\x00\xff", b"0x12", b"0sAA==", "Schlüssel".encode(), b" \n"])
def test_any_key_survives_as_a_value(key: bytes) -> None:
    psk = cpb.PreSharedKey(value=write_key(Secret(key)))
    message = cpb.Connection(
        name="a",
        remote=cpb.Side(auth=cpb.Authentication(psk=psk)),
        children=[cpb.Child(name="lan")],
    )

    (wanted,) = read_connections([message])

    assert wanted.psk == Secret(key)


def test_a_connection_is_written_without_its_key_and_read_back() -> None:
    connection = Connection(name="a", local=Side(), remote=Side(), children=(Child(name="lan"),))

    message = write_connection(connection, psk_is_set=True)
    (wanted,) = read_connections([message])

    assert wanted == WantedConnection(connection=connection, psk=None)


@pytest.mark.parametrize("seconds", [315_360_001, 2**62])
def test_no_time_is_so_long_that_an_answer_could_not_tell_it(seconds: int) -> None:
    message = write_connection(
        Connection(name="a", local=Side(), remote=Side(), children=(Child(name="lan"),)), psk_is_set=True
    )
    for duration in (message.ike.rekey, message.ike.dpd_delay, message.children[0].rekey):
        duration.seconds = seconds

    with pytest.raises(InvalidArgument) as caught:
        read_connections([message])

    assert [violation.field for violation in caught.value.violations] == [
        f"connections[0].{where}" for where in ("ike.rekey", "ike.dpd_delay", "children[0].rekey")
    ]
    assert "at most 3650d are allowed" in str(caught.value)


def test_an_invalid_argument_says_everything() -> None:
    with pytest.raises(InvalidArgument) as caught:
        read_connections([cpb.Connection(name="a"), cpb.Connection(name="a")])

    assert (
        str(caught.value)
        == "; ".join(
            f"connections[{i}].{what}"
            for i in range(2)
            for what in (
                "local.auth: is required: auth: {psk: {file: PATH}}, here or on the remote side",
                "children: is required: at least one child",
            )
        )
        + "; connections[1].name: 'a' is already the name of connections[0]"
    )


REFUSALS = (
    PlacementRefusal(engine=Engine.NIC_PACKET, reason=PlacementReason.ESN, text="no ESN"),
    PlacementRefusal(engine=Engine.ENGINE, reason=PlacementReason.NO_BACKEND, text="no espd"),
)


def test_where_an_sa_landed_and_every_reason_cross_and_come_back() -> None:
    result = ItemResult(name="x", placement=Engine.KERNEL, placement_reason="words", refusals=REFUSALS)
    installed = InstalledSa(
        sa=make_sa(0x1001), placement=Engine.KERNEL, placement_reason="words", refusals=REFUSALS
    )

    assert convert.read_item_result(convert.write_item_result(result)) == result
    back = convert.read_installed_sa(convert.write_installed_sa(installed), "", Violations())
    assert back is not None
    assert (back.placement, back.refusals) == (Engine.KERNEL, REFUSALS)


def test_a_refused_sa_tells_why_of_every_engine() -> None:
    error = DatapathError(ErrorReason.PLACEMENT_UNAVAILABLE, "nothing took it", refusals=REFUSALS)

    back = convert.read_item_result(convert.write_item_result(ItemResult(name="x", error=error))).error

    assert back is not None
    assert (back.reason, str(back), back.refusals) == (error.reason, str(error), REFUSALS)


def test_a_placement_reason_newer_than_we_are_keeps_its_words_and_a_newer_engine_is_left_out() -> None:
    newer = [
        tpb.PlacementRefusal(engine=tpb.ENGINE_KERNEL, reason=999, text="moon phase"),  # type: ignore[arg-type]
        tpb.PlacementRefusal(engine=999, reason=tpb.PLACEMENT_REASON_ESN, text="no ESN"),  # type: ignore[arg-type]
    ]

    assert convert.read_refusals(newer) == (
        PlacementRefusal(engine=Engine.KERNEL, reason=PlacementReason.BACKEND_REFUSED, text="moon phase"),
    )


@pytest.mark.parametrize("why", [None, PlacementReason.DEVICE_LOST])
def test_a_move_crosses_and_comes_back(why: PlacementReason | None) -> None:
    change = PlacementChange(
        sa_id=SaId("in:esp:192.0.2.1:00001001"),
        old=Engine.NIC_PACKET,
        new=Engine.KERNEL,
        reason="eth0 went down",
        why=why,
    )

    message = convert_datapath.write_datapath_event(change, 1.0)
    assert convert_datapath.read_datapath_event(message) == change


def test_a_policy_carries_where_its_sas_are_expected() -> None:
    entry = policy(placement=Placement(prefer=(Engine.XDP, Engine.KERNEL)))

    assert convert.read_policy(convert.write_policy(entry), "", Violations()) == entry
