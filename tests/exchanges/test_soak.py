"""Anything at any time: random commands by both sides, a bad link, a slow shell; then peace, and agreement.

Each seed is one story, always the same. What a story did is printed when it fails. `SOAK_SEEDS=2000` tells
more of them, `SOAK_FIRST=2000` others, `SOAK_ACTIONS=200` longer ones.
"""

import os
from random import Random

import pytest

from gateway.ike.endpoint import EndpointOptions
from gateway.ike.errors import LocalError
from gateway.ike.events import InstallRequest, SpiRequest
from gateway.ipsec.lifetime import Limit
from tests.fakes.pair import Pair, child

FIRST = int(os.environ.get("SOAK_FIRST", "0"))
SEEDS = int(os.environ.get("SOAK_SEEDS", "40"))
ACTIONS = int(os.environ.get("SOAK_ACTIONS", "25"))
PATIENT = {"retransmit_timeout_s": 1.0, "retransmit_base": 1.3, "retransmit_tries": 12}
CARRYING = {"installed", "rekeying"}


def new_pair(**options):
    return Pair(
        both={"ike_options": PATIENT | options},
        alice={
            "children": [
                child("lan", local="10.1.0.0/16", remote="10.2.0.0/16", esp="aes256gcm16-x25519"),
                child("dmz", local="10.11.0.0/16", remote="10.12.0.0/16"),
            ]
        },
        bob={
            "children": [
                child("lan", local="10.2.0.0/16", remote="10.1.0.0/16", esp="aes256gcm16-x25519"),
                child("dmz", local="10.12.0.0/16", remote="10.11.0.0/16"),
            ]
        },
    )


def rekey_some_child(host, dice):
    carrying = [sa for sa in host.child_sas if sa.state in CARRYING]
    if carrying:
        host.rekey_child(dice.choice(carrying).child_sa_id)


def rekey_some_ike(host, dice):
    established = [sa for sa in host.ike_sas if sa.state in {"established", "rekeying"}]
    if established:
        host.rekey_ike(dice.choice(established).ike_sa_id)


def delete_some_child(host, dice):
    if host.child_sas:
        host.delete_child(dice.choice(host.child_sas).child_sa_id)


def delete_some_ike(host, dice):
    if host.ike_sas:
        host.delete_ike(dice.choice(host.ike_sas).ike_sa_id)


def check_some(host, dice):
    established = [sa for sa in host.ike_sas if sa.state == "established"]
    if established:
        host.check_liveness(dice.choice(established).ike_sa_id)


GENTLE = {
    "lan": lambda host, dice: host.initiate("lan"),
    "dmz": lambda host, dice: host.initiate("dmz"),
    "rekey child": rekey_some_child,
    "rekey IKE": rekey_some_ike,
    "liveness": check_some,
}
REKEYS = {name: GENTLE[name] for name in ("rekey child", "rekey IKE", "liveness")}
ROUGH = GENTLE | {"delete child": delete_some_child, "delete IKE": delete_some_ike}


def act(pair, dice, actions):
    host, name = dice.choice(pair.hosts), dice.choice(list(actions))
    print(f"{pair.now:9.3f} {host.name} {name}")
    try:
        actions[name](host, dice)
    except LocalError as refused:  # a command that makes no sense just now is refused, no more
        print(f"{'':9} refused: {refused}")


def bad_link(dice, loss):
    def fate(packet):
        if dice.random() < loss:
            return ()
        first = dice.choice((0.0, 0.0, 0.005, 0.03, 0.4))
        return (first, first + dice.random()) if dice.random() < 0.1 else (first,)

    return fate


def make_peace(pair):
    """No more faults; every exchange under way comes to its end."""
    pair.link.fate = lambda packet: (0.0,)
    for host in pair.hosts:
        host.answer_normally()
    pair.run_for(240.0)


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
def test_any_commands_on_a_bad_link_end_in_agreement(seed):
    dice = Random(seed)
    pair = new_pair()
    pair.alice.initiate("lan")
    pair.link.fate = bad_link(dice, loss=0.15)
    for host in pair.hosts:
        host.answer(InstallRequest, after=0.05, where=lambda request: dice.random() < 0.5)
        host.answer(SpiRequest, after=0.5, where=lambda request: dice.random() < 0.2)

    for _ in range(ACTIONS):
        pair.run_for(dice.choice((0.0, 0.004, 0.012, 0.1, 2.0)))
        act(pair, dice, ROUGH)
    make_peace(pair)

    pair.check(ike_sas=None)


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
def test_rekeys_at_any_time_lose_no_sa(seed):
    dice = Random(1000 + seed)
    pair = new_pair()
    pair.alice.initiate("lan")
    pair.settle()
    pair.link.fate = bad_link(dice, loss=0.1)

    for _ in range(ACTIONS):
        pair.run_for(dice.choice((0.0, 0.004, 0.012, 0.1, 2.0, 8.0)))
        act(pair, dice, GENTLE)
    make_peace(pair)

    pair.check(ike_sas=1)
    assert "lan" in {sa.child for sa in pair.alice.child_sas}
    assert len(pair.alice.child_sas) == len({sa.child for sa in pair.alice.child_sas})


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS // 2))
def test_rekeys_at_any_time_lose_no_packet_where_the_link_loses_none(seed):
    dice = Random(2000 + seed)
    pair = new_pair()
    pair.alice.initiate("lan")
    pair.settle()
    flow = pair.start_flow(interval_s=0.02, notes_traffic=bool(seed % 2))
    for _ in range(ACTIONS // 2):
        pair.run_for(dice.choice((0.0, 0.004, 0.012, 0.1, 2.0, 8.0)))
        act(pair, dice, REKEYS)
    pair.run_for(40.0)

    assert flow.missing == []
    pair.flow = None
    pair.check(ike_sas=1)


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS // 2))
def test_a_shell_that_refuses_at_random_leaves_no_orphans(seed):
    dice = Random(3000 + seed)
    pair = new_pair()
    pair.alice.initiate("lan")
    for host in pair.hosts:
        host.answer(InstallRequest, refuse="TABLE_FULL", where=lambda request: dice.random() < 0.25)
        host.answer(SpiRequest, refuse="UNAVAILABLE", where=lambda request: dice.random() < 0.15)
        host.answer(InstallRequest, never=True, where=lambda request: dice.random() < 0.1)

    for _ in range(ACTIONS):
        pair.run_for(dice.choice((0.0, 0.012, 0.1, 2.0)))
        act(pair, dice, ROUGH)
    make_peace(pair)

    pair.check(ike_sas=None)


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS // 8))
def test_short_lifetimes_on_a_bad_link_for_an_hour(seed):
    dice = Random(4000 + seed)
    short = {"rekey": Limit(seconds=60.0), "over": 0.9, "jitter": 0.3}
    pair = Pair(
        both={"ike_options": PATIENT | {"rekey_s": 150.0, "over_s": 120.0}, "child_options": short},
        alice_options=EndpointOptions(),
    )
    pair.alice.initiate("lan")
    pair.settle()
    pair.link.fate = bad_link(dice, loss=0.05)

    pair.run_for(3600.0)
    make_peace(pair)
    pair.run_until(lambda: is_quiet(pair), limit_s=120.0)

    pair.check(children=1, ike_sas=1)


def is_quiet(pair):
    """Whether no rekey is under way, or was so recently that something lingers."""
    states = {sa.state for host in pair.hosts for sa in (*host.ike_sas, *host.child_sas)}
    sas = [len(host.sad.sas) - 2 * len(host.child_sas) for host in pair.hosts]
    return states <= {"established", "installed"} and sas == [0, 0] and not len(pair.link)
