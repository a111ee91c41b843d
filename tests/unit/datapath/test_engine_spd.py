"""SPD entries as espd wants them: which tunnel carries what, and who is in it."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gateway.datapath.engine.records import MAX_SELECTORS
from gateway.datapath.engine.spd import Carrier, EngineEntry, compile_spd
from gateway.ipsec.policy import Action, Policy
from gateway.ipsec.selectors import TrafficSelector

LOCAL = (TrafficSelector.parse("10.1.0.0/16"),)
REMOTE = (TrafficSelector.parse("10.2.0.0/16"),)
NARROW = (TrafficSelector.parse("10.2.7.0/24"),)
LAN = Policy(
    name="paris/lan",
    action=Action.PROTECT,
    local_ts=LOCAL,
    remote_ts=REMOTE,
    connection="paris",
    child="lan",
)


def whole(cookie: int) -> Carrier:
    return Carrier(cookie, LOCAL, REMOTE)


def narrow(cookie: int) -> Carrier:
    return Carrier(cookie, LOCAL, NARROW)


def compiled(*newest_first: Carrier) -> tuple[list[tuple[str, str]], dict[str, int]]:
    """Return (remote selectors, tunnel) of each entry, and the tunnels."""
    wanted = compile_spd([LAN], lambda *_: newest_first)
    entries = [(" ".join(map(str, entry.remote_ts)), entry.tunnel) for entry in wanted.entries]
    return entries, wanted.tunnels


def test_without_an_sa_the_tunnel_is_empty() -> None:
    assert compiled() == ([("10.2.0.0/16", "paris/lan")], {"paris/lan": 0})


def test_the_newest_sa_that_permits_everything_is_the_tunnels() -> None:
    assert compiled(whole(2), whole(1)) == ([("10.2.0.0/16", "paris/lan")], {"paris/lan": 2})


def test_a_narrowed_sa_comes_before_the_rest_which_has_none() -> None:
    entries, tunnels = compiled(narrow(1))

    assert [remote for remote, _ in entries] == ["10.2.7.0/24", "10.2.0.0/16"]
    assert [tunnels[tunnel] for _, tunnel in entries] == [1, 0]


def test_a_narrowed_sa_that_is_newer_takes_its_part_of_a_whole_one() -> None:
    entries, tunnels = compiled(narrow(3), narrow(2), whole(1))

    assert [tunnels[tunnel] for _, tunnel in entries] == [3, 1]


def test_a_narrowed_sa_that_is_older_than_a_whole_one_carries_nothing() -> None:
    assert compiled(whole(2), narrow(1)) == compiled(whole(2))


def test_an_sa_of_other_traffic_carries_nothing() -> None:
    elsewhere = Carrier(1, LOCAL, (TrafficSelector.parse("10.9.0.0/16"),))

    assert compiled(elsewhere) == compiled()


def test_bypass_and_discard_have_no_tunnel_and_order_is_kept() -> None:
    bypass = replace(LAN, name="b", action=Action.BYPASS)
    discard = replace(LAN, name="d", action=Action.DISCARD)

    wanted = compile_spd([bypass, LAN, discard], lambda *_: [whole(1)])

    assert [(entry.action, entry.tunnel) for entry in wanted.entries] == [
        (Action.BYPASS, ""),
        (Action.PROTECT, "paris/lan"),
        (Action.DISCARD, ""),
    ]


@given(local=st.integers(1, 150), remote=st.integers(1, 150))
def test_long_lists_are_entries_that_fit_and_together_match_the_same(local: int, remote: int) -> None:
    ours = tuple(TrafficSelector.parse(f"10.1.{n}.1") for n in range(local))
    theirs = tuple(TrafficSelector.parse(f"10.2.{n}.1") for n in range(remote))

    wanted = compile_spd([replace(LAN, local_ts=ours, remote_ts=theirs)], lambda *_: [])

    assert all(len(entry.local_ts) + len(entry.remote_ts) <= MAX_SELECTORS for entry in wanted.entries)
    pairs = [pair for entry in wanted.entries for pair in _pairs(entry)]
    assert len(pairs) == len(set(pairs)) == local * remote


def _pairs(entry: EngineEntry) -> list[tuple[str, str]]:
    return [(str(ours), str(theirs)) for ours in entry.local_ts for theirs in entry.remote_ts]
