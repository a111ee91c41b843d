"""Which SPD entries belong together: the index against looking at every pair."""

from ipaddress import ip_address
from itertools import product

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.agent.spd_homes import HomedPolicy, SpdHomes
from gateway.ipsec.policy import Action, Policy
from gateway.ipsec.selectors import TrafficSelector

#: Few addresses, of both families, so that ranges meet in every way.
_PLACES = (int(ip_address("10.0.0.0")), int(ip_address("2001:db8::")))


def selector(place: int, ends: tuple[int, int], protocol: int) -> TrafficSelector:
    return TrafficSelector(ip_address(place + min(ends)), ip_address(place + max(ends)), protocol)


selectors = st.builds(
    selector,
    st.sampled_from(_PLACES),
    st.tuples(st.integers(0, 41), st.integers(0, 41)),
    st.sampled_from([0, 6, 17]),
)
policies = st.builds(
    Policy,
    name=st.sampled_from("abcdefghij"),
    action=st.sampled_from(Action),
    local_ts=st.tuples(selectors),
    remote_ts=st.one_of(st.tuples(selectors), st.tuples(selectors, selectors)),
    connection=st.just("c"),
    child=st.sampled_from("xy"),
    interface_id=st.sampled_from([0, 0, 42]),
)


def meet(one: Policy, other: Policy) -> bool:
    return one.interface_id == other.interface_id and all(
        any(mine.intersect(theirs) is not None for mine, theirs in product(ours, others))
        for ours, others in ((one.local_ts, other.local_ts), (one.remote_ts, other.remote_ts))
    )


def closure(entry: Policy, there: list[Policy]) -> set[str]:
    """Return the names of what meets an entry, directly or through others."""
    found: dict[str, Policy] = {}
    pending = [entry]
    while pending:
        current = pending.pop()
        new = [policy for policy in there if policy.name not in found and meet(current, policy)]
        found |= {policy.name: policy for policy in new}
        pending += new
    return set(found)


# A busy machine is no fault of the strategy.
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(there=st.lists(policies, max_size=8), gone=st.sets(st.sampled_from("abcdefghij")), entry=policies)
def test_a_group_is_what_overlaps_directly_or_through_others(
    there: list[Policy], gone: set[str], entry: Policy
) -> None:
    homes = SpdHomes()
    for policy in there:
        homes.put(HomedPolicy(policy=policy, generation=1, home="x"))
    for name in gone:
        homes.drop(name)
    left = [policy for name, policy in {policy.name: policy for policy in there}.items() if name not in gone]

    assert {item.policy.name for item in homes.group([entry])} == closure(entry, left)
    assert {item.policy.name for item in homes.all()} == {policy.name for policy in left}
    for child in "xy":
        assert {item.policy.name for item in homes.of_child("c", child)} == {
            policy.name for policy in left if policy.child == child and policy.action is Action.PROTECT
        }


def test_what_is_dropped_leaves_nothing_behind() -> None:
    homes = SpdHomes()
    ts = (TrafficSelector.parse("10.0.0.0/24"),)
    homes.put(
        HomedPolicy(
            policy=Policy(name="a", action=Action.PROTECT, local_ts=ts, remote_ts=ts), generation=1, home="x"
        )
    )

    homes.drop("a")
    homes.drop("a")

    assert (homes._prefixes, homes._by_prefix, homes._by_child) == ([], {}, {})


def test_narrow_entries_find_wide_ones_and_the_other_way_round() -> None:
    local = (TrafficSelector.parse("10.1.0.0/16"),)
    wide, narrow, beside = (
        Policy(name=text, action=Action.PROTECT, local_ts=local, remote_ts=(TrafficSelector.parse(text),))
        for text in ("10.0.0.0/8", "10.2.3.4", "11.0.0.0/8")
    )
    homes = SpdHomes()
    homes.put(HomedPolicy(policy=wide, generation=1, home="x"))
    homes.put(HomedPolicy(policy=beside, generation=1, home="x"))
    assert [entry.policy for entry in homes.group([narrow])] == [wide]

    homes.drop(wide.name)
    homes.put(HomedPolicy(policy=narrow, generation=1, home="x"))
    assert [entry.policy for entry in homes.group([wide])] == [narrow]
