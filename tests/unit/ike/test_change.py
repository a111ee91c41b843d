"""What a changed configuration costs the SAs there are: by field, and no field is forgotten."""

from dataclasses import fields, replace

import pytest

from gateway.ike.v2.change import CHILD_EFFECTS, CONNECTION_EFFECTS, IKE_EFFECTS, Effect, change_of
from gateway.ipsec.connection import Child, Connection, IkeOptions
from gateway.ipsec.proposal import ProtocolId, parse_proposal
from tests.fakes.pair import alice_connection, child

OLD = alice_connection()


def _with_child(**changes: object) -> Connection:
    return replace(OLD, children=(replace(OLD.children[0], **changes),))


def test_the_tables_have_every_field_of_the_records() -> None:
    assert {field.name for field in fields(Connection)} - CONNECTION_EFFECTS.keys() == {"ike", "children"}
    assert {field.name for field in fields(IkeOptions)} == IKE_EFFECTS.keys()
    assert {field.name for field in fields(Child)} == CHILD_EFFECTS.keys()


@pytest.mark.parametrize(
    ("new", "named", "ike", "lan"),
    [
        (OLD, (), Effect.NONE, Effect.NONE),
        (replace(OLD, allow_weak=("3des",)), ("allow_weak",), Effect.NONE, Effect.NONE),
        (
            replace(OLD, ike=replace(OLD.ike, dpd_delay_s=5.0)),
            ("ike.dpd_delay_s",),
            Effect.NONE,
            Effect.NONE,
        ),
        (
            replace(OLD, ike=replace(OLD.ike, proposals=())),
            ("ike.proposals",),
            Effect.REKEY,
            Effect.NONE,
        ),
        (
            replace(OLD, ike=replace(OLD.ike, encapsulation=True)),
            ("ike.encapsulation",),
            Effect.RESTART,
            Effect.RESTART,
        ),
        (
            replace(OLD, remote=replace(OLD.remote, id=None)),
            ("remote",),
            Effect.RESTART,
            Effect.RESTART,
        ),
        (_with_child(copy_df=False), ("children[lan].copy_df",), Effect.NONE, Effect.REKEY),
        (_with_child(priority=5), ("children[lan].priority",), Effect.NONE, Effect.NONE),
        (_with_child(local_ts=()), ("children[lan].local_ts",), Effect.NONE, Effect.RESTART),
        (
            _with_child(proposals=(parse_proposal("sha256", ProtocolId.AH),)),
            ("children[lan].proposals",),
            Effect.NONE,
            Effect.RESTART,
        ),
        (
            replace(OLD, children=(child("dmz", local="10.9.0.0/16", remote="10.8.0.0/16"),)),
            ("children[lan]", "children[dmz]"),
            Effect.NONE,
            Effect.END,
        ),
    ],
    ids=[
        "nothing",
        "allow_weak",
        "dpd",
        "ike proposals",
        "encapsulation",
        "peer",
        "copy_df",
        "priority",
        "selectors",
        "esp to ah",
        "another child",
    ],
)
def test_a_change_names_its_fields_and_what_it_costs(
    new: Connection, named: tuple[str, ...], ike: Effect, lan: Effect
) -> None:
    change = change_of(OLD, new)

    assert (change.fields, change.ike, change.of_child("lan")) == (named, ike, lan)


def test_a_connection_that_goes_ends_everything() -> None:
    change = change_of(OLD, None)

    assert (change.ike, change.of_child("lan")) == (Effect.END, Effect.END)
