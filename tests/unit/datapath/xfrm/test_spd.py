"""Which kernel policies an SPD entry wants, and which changes lead there."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from gateway.datapath.backend import DatapathError, ErrorReason
from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.numbers import Mode, OffloadFlag, PolicyAction, PolicyDirection
from gateway.datapath.xfrm.spd import (
    Carrier,
    Carriers,
    Change,
    KernelPolicy,
    Key,
    Spd,
    closed_tag,
    kernel_policies,
)
from gateway.ipsec import sa as ipsec
from gateway.ipsec.mark import ALL_BITS, Mark
from gateway.ipsec.policy import Action, Policy
from gateway.ipsec.selectors import TrafficSelector
from tests.conformance.sas import OURS, PEER, policy

TAG = 7
REQID, TRAP = 100, 101
OUT, IN, FORWARD = PolicyDirection.OUT, PolicyDirection.IN, PolicyDirection.FORWARD
NO_SA = Carriers(reqid=REQID, trap_reqid=TRAP)


def carrier(remote: str = "10.2.0.0/16", *, inbound: bool = False, **changes: object) -> Carrier:
    made = Carrier(
        source=PEER if inbound else OURS,
        destination=OURS if inbound else PEER,
        mode=ipsec.Mode.TUNNEL,
        protocol=ipsec.IpsecProtocol.ESP,
        local_ts=(TrafficSelector.parse("10.1.0.0/16"),),
        remote_ts=(TrafficSelector.parse(remote),),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def shown(found: dict[Key, KernelPolicy]) -> list[tuple[str, str, str, str, int | None]]:
    """Direction, source, destination, action and reqid of each policy, in the order of the search."""
    return [
        (
            key.direction.name,
            str(key.selector.source),
            str(key.selector.destination),
            made.action.name,
            made.templates[0].reqid if made.templates else None,
        )
        for key, made in sorted(found.items(), key=lambda item: item[1].priority)
    ]


# --- one entry ------------------------------------------------------------------------------------


def test_entry_with_marks_is_about_packets_that_have_them_and_clear_ones_from_outside_are_dropped() -> None:
    there = replace(NO_SA, inbound=(carrier(inbound=True),), outbound=(carrier(),))

    found = kernel_policies(policy(mark_in=Mark(1, 255), mark_out=Mark(42)), there, TAG)

    marks = {
        (key.direction.name, made.templates[0].reqid if made.templates else None): (
            key.mark and (key.mark.value, key.mark.mask)
        )
        for key, made in found.items()
    }
    assert marks == {
        ("OUT", REQID): (42, ALL_BITS),
        ("IN", REQID): (1, 255),
        ("FORWARD", REQID): (1, 255),
        ("IN", TRAP): None,
        ("FORWARD", TRAP): None,
        ("FORWARD", None): None,
    }


def test_what_drops_clear_packets_leaves_those_of_other_marks_to_other_entries() -> None:
    spd = Spd(TAG)
    for number in (1, 2):
        spd.put(
            policy(name=f"c/{number}", child=str(number), mark_in=Mark(number)),
            0,
            replace(NO_SA, reqid=number, inbound=(carrier(inbound=True),)),
        )

    puts = [change for change in spd.changes() if change.policy is not None]

    inbound = [change for change in puts if change.key.direction is IN]
    of_sas = [change for change in inbound if change.key.mark is not None]
    closed = [change for change in inbound if change.key.mark is None]
    assert [change.key.mark and change.key.mark.value for change in of_sas] == [1, 2]
    (only,) = closed
    assert only.policy is not None
    for change in of_sas:
        assert change.policy is not None
        assert change.policy.priority < only.policy.priority


def test_protect_is_closed_in_every_direction_before_the_first_sa() -> None:
    found = kernel_policies(policy(), NO_SA, TAG)

    assert shown(found) == [
        ("OUT", "10.1.0.0/16", "10.2.0.0/16", "BLOCK", None),
        ("IN", "10.2.0.0/16", "10.1.0.0/16", "ALLOW", TRAP),
        ("FORWARD", "10.2.0.0/16", "10.1.0.0/16", "ALLOW", TRAP),
        ("FORWARD", "10.1.0.0/16", "10.2.0.0/16", "ALLOW", None),
    ]


def test_protect_with_a_known_peer_asks_for_an_sa() -> None:
    found = kernel_policies(policy(remote_address=PEER), NO_SA, TAG)

    (asking,) = [made for key, made in found.items() if key.direction is OUT]
    (template,) = asking.templates
    assert (template.source, template.destination) == (ip_address("0.0.0.0"), PEER)
    assert (template.reqid, template.mode, template.protocol) == (TRAP, Mode.TUNNEL, 50)


def test_transport_mode_asks_by_the_addresses_of_the_packet() -> None:
    found = kernel_policies(policy(mode=ipsec.Mode.TRANSPORT), NO_SA, TAG)

    (asking,) = [made for key, made in found.items() if key.direction is OUT]
    assert asking.templates == (
        r.Template(source=None, destination=None, protocol=50, mode=Mode.TRANSPORT, reqid=TRAP),
    )


def test_sa_takes_over_what_it_was_negotiated_for_and_nothing_more() -> None:
    narrow = replace(
        NO_SA, outbound=(carrier("10.2.5.0/24"),), inbound=(carrier("10.2.5.0/24", inbound=True),)
    )

    found = kernel_policies(policy(), narrow, TAG)

    assert shown(found) == [
        ("OUT", "10.1.0.0/16", "10.2.5.0/24", "ALLOW", REQID),
        ("IN", "10.2.5.0/24", "10.1.0.0/16", "ALLOW", REQID),
        ("FORWARD", "10.2.5.0/24", "10.1.0.0/16", "ALLOW", REQID),
        ("OUT", "10.1.0.0/16", "10.2.0.0/16", "BLOCK", None),
        ("IN", "10.2.0.0/16", "10.1.0.0/16", "ALLOW", TRAP),
        ("FORWARD", "10.2.0.0/16", "10.1.0.0/16", "ALLOW", TRAP),
        ("FORWARD", "10.1.0.0/16", "10.2.0.0/16", "ALLOW", None),
    ]


def test_sa_for_more_than_the_entry_is_used_for_the_entry_only() -> None:
    found = kernel_policies(policy(), replace(NO_SA, outbound=(carrier("10.0.0.0/8"),)), TAG)

    assert [row[2] for row in shown(found) if row[0] == "OUT"] == ["10.2.0.0/16"]


def test_newest_outbound_sa_says_where_packets_go() -> None:
    elsewhere = ip_address("192.0.2.9")
    newest_first = (carrier(destination=elsewhere), carrier())

    found = kernel_policies(policy(), replace(NO_SA, outbound=newest_first), TAG)

    (made,) = [made for key, made in found.items() if key.direction is OUT]
    assert [template.destination for template in made.templates] == [elsewhere]


def test_inbound_sa_is_accepted_before_the_outbound_one_is_there() -> None:
    found = kernel_policies(policy(), replace(NO_SA, inbound=(carrier(inbound=True),)), TAG)

    assert [row[4] for row in shown(found) if row[0] == "IN"] == [REQID]
    assert [row[3] for row in shown(found) if row[0] == "OUT"] == ["BLOCK"]


def test_packet_offload_is_asked_of_policies_too_but_not_of_those_for_what_passes_through() -> None:
    """mlx5 refuses the latter (mlx5e_xfrm_validate_policy, Linux 6.12)."""
    to_nic = r.Offload(link=3, flags=OffloadFlag.PACKET)
    both = replace(
        NO_SA, outbound=(carrier(offload=to_nic),), inbound=(carrier(inbound=True, offload=to_nic),)
    )

    found = kernel_policies(policy(), both, TAG)

    assert {
        key.direction: made.offload
        for key, made in found.items()
        if made.templates and key.selector.user == TAG
    } == {
        OUT: to_nic,
        IN: to_nic,
        FORWARD: None,
    }


def test_what_is_closed_stays_when_a_device_takes_its_policies_away() -> None:
    """Linux deletes them with the device, and tells nobody (xfrm_dev_policy_flush)."""
    to_nic = r.Offload(link=3, flags=OffloadFlag.PACKET)
    spd = Spd(TAG)
    spd.put(policy(), 1, NO_SA)
    settle(spd)
    spd.put(policy(), 1, replace(NO_SA, outbound=(carrier(offload=to_nic),)))

    steps = settle(spd)

    beneath = {
        change.key.direction: change.policy
        for change in steps
        if change.key.selector.user == closed_tag(TAG) and change.policy is not None
    }
    assert beneath.keys() == {OUT, IN, FORWARD}
    assert beneath[OUT].action is PolicyAction.BLOCK
    assert all(made.offload is None for made in beneath.values())
    (given,) = [change for change in steps if change.policy is not None and change.policy.offload is not None]
    assert steps.index(given) == 3, "it is closed before the device gets anything"
    assert given.policy is not None
    assert given.policy.priority < beneath[OUT].priority


@pytest.mark.parametrize(
    ("action", "kernel"), [(Action.BYPASS, PolicyAction.ALLOW), (Action.DISCARD, PolicyAction.BLOCK)]
)
def test_bypass_and_discard_have_no_template(action: Action, kernel: PolicyAction) -> None:
    found = kernel_policies(policy(action=action), NO_SA, TAG)

    towards_us = [made for key, made in found.items() if key.direction is not FORWARD or made.priority == 1]
    assert {(made.action, made.templates) for made in towards_us} == {(kernel, ())}
    assert len(towards_us) == 3


def test_fragments_of_what_is_protected_by_ports_are_blocked() -> None:
    found = kernel_policies(policy(remote_ts=(TrafficSelector.parse("10.2.0.0/16[tcp/443]"),)), NO_SA, TAG)

    blocked = [key for key in found if key.selector.source_port_mask and key.selector.destination_port_mask]
    assert {key.direction for key in blocked} == {OUT, FORWARD}
    assert {found[key].action for key in blocked} == {PolicyAction.BLOCK}


def test_too_big_from_a_router_reaches_a_protected_outer_address() -> None:
    host = policy(local_ts=(TrafficSelector.parse(str(OURS)),), remote_ts=(TrafficSelector.parse(str(PEER)),))
    sa = carrier(local_ts=host.local_ts, remote_ts=host.remote_ts)

    found = kernel_policies(host, replace(NO_SA, outbound=(sa,)), TAG)

    first, made = min(found.items(), key=lambda item: item[1].priority)
    assert (first.direction, made.action, made.templates) == (IN, PolicyAction.ALLOW, ())
    assert (first.selector.protocol, first.selector.source_port, first.selector.destination_port) == (1, 3, 4)
    assert first.selector.destination is not None
    assert first.selector.destination.network == ip_network(OURS)


def test_entry_that_matches_nothing_is_refused() -> None:
    with pytest.raises(DatapathError) as refused:
        kernel_policies(policy(remote_ts=(TrafficSelector.parse("fd00::/64"),)), NO_SA, TAG)

    assert refused.value.reason is ErrorReason.ADDRESS_FAMILY


# --- all of them ------------------------------------------------------------------------------------


def settle(spd: Spd) -> tuple[Change, ...]:
    """Tell the kernel all, and return what it was told."""
    changes = spd.changes()
    for change in changes:
        spd.note(change.key, change.policy)
    assert spd.changes() == ()
    return changes


def names(changes: tuple[Change, ...]) -> list[tuple[str, bool]]:
    return [(change.key.direction.name, change.policy is None) for change in changes]


def test_what_the_kernel_has_is_not_told_again() -> None:
    spd = Spd(TAG)
    spd.put(policy(), 1, NO_SA)
    settle(spd)

    spd.put(policy(), 2, NO_SA)

    assert spd.changes() == ()
    assert spd.entries()[0].generation == 2


def test_rekey_with_the_same_selectors_changes_no_policy() -> None:
    spd = Spd(TAG)
    spd.put(policy(), 1, replace(NO_SA, outbound=(carrier(),)))
    settle(spd)

    spd.follow("paris/lan", replace(NO_SA, outbound=(carrier(), carrier())))

    assert spd.changes() == ()


def test_new_policies_are_told_before_old_ones_are_deleted() -> None:
    spd = Spd(TAG)
    spd.put(policy(), 1, NO_SA)
    settle(spd)

    spd.put(policy(remote_ts=(TrafficSelector.parse("10.9.0.0/16"),)), 1, NO_SA)

    assert [is_deletion for _, is_deletion in names(settle(spd))] == [False] * 4 + [True] * 4


def test_of_two_entries_with_one_selector_the_first_of_the_spd_has_the_kernel_policy() -> None:
    spd = Spd(TAG)
    spd.put(policy("b", action=Action.BYPASS), 1, NO_SA)
    settle(spd)
    spd.put(policy("a", action=Action.DISCARD), 1, NO_SA)
    taken = settle(spd)
    spd.drop("a")

    given_back = settle(spd)

    assert {change.policy.action for change in taken if change.policy} == {PolicyAction.BLOCK}
    assert {change.policy.action for change in given_back if change.policy} == {PolicyAction.ALLOW}


def test_priorities_rise_in_the_order_of_the_spd() -> None:
    spd = Spd(TAG)
    wanted = [("z", 1), ("a", 5), ("b", 5), ("a first", 0)]
    for number, (name, priority) in enumerate(wanted):
        selector = TrafficSelector.parse(f"10.{number}.0.0/16")
        spd.put(policy(name, priority=priority, remote_ts=(selector,), action=Action.DISCARD), 1, NO_SA)

    outbound = [change for change in settle(spd) if change.key.direction is OUT]
    found = sorted(outbound, key=lambda change: change.policy.priority if change.policy else 0)
    assert [str(change.key.selector.destination) for change in found] == [
        "10.3.0.0/16",
        "10.0.0.0/16",
        "10.1.0.0/16",
        "10.2.0.0/16",
    ]


def test_entry_that_cannot_be_changes_nothing() -> None:
    spd = Spd(TAG)
    spd.put(policy(), 1, NO_SA)
    settle(spd)

    with pytest.raises(DatapathError):
        spd.put(policy(remote_ts=(TrafficSelector.parse("fd00::/64"),)), 2, NO_SA)

    assert spd.changes() == ()
    assert [entry.policy for entry in spd.entries()] == [policy()]


def test_owner_of_a_kernel_policy_is_found() -> None:
    spd = Spd(TAG)
    spd.put(policy(), 1, NO_SA)
    key = next(change.key for change in settle(spd) if change.key.direction is OUT)

    owner = spd.owner(key)

    assert owner is not None
    assert owner.policy.name == "paris/lan"
    assert spd.owner(replace_source(key)) is None


def replace_source(key: Key) -> Key:
    return Key(key.direction, replace(key.selector, user=key.selector.user + 1))


def ipv6(name: str = "v6", **changes: object) -> Policy:
    everything = (TrafficSelector.parse("::/0"),)
    return policy(name, local_ts=everything, remote_ts=everything, **changes)


def test_neighbour_discovery_passes_before_all_else_while_an_entry_is_about_ipv6() -> None:
    spd = Spd(TAG)
    spd.put(policy(), 1, NO_SA)
    assert not any(is_discovery(change) for change in settle(spd))

    spd.put(ipv6(), 1, NO_SA)
    come = settle(spd)
    spd.drop("v6")
    gone = settle(spd)

    assert [is_discovery(change) for change in come] == [True] * 18 + [False] * 3
    assert [is_discovery(change) for change in gone] == [False] * 3 + [True] * 18
    solicitation = next(change for change in come if change.key.selector.source_port == 135)
    assert solicitation.policy == KernelPolicy(priority=1)


def test_what_the_machine_says_to_itself_over_ipv6_passes_and_comes_in_by_the_loopback_only() -> None:
    spd = Spd(TAG)
    spd.put(ipv6(), 1, NO_SA)
    settle(spd)

    spd.use_addresses([ip_address("192.0.2.1"), ip_address("fd00::1")])
    come = settle(spd)
    spd.use_addresses([])
    gone = settle(spd)

    assert {(change.key.direction, change.key.selector.link) for change in come} == {(OUT, 0), (IN, 1)}
    assert {str(change.key.selector.source) for change in come} == {"fd00::1/128"}
    assert {change.policy for change in come} == {KernelPolicy(priority=1)}
    assert [change.policy for change in gone] == [None, None]


def is_discovery(change: Change) -> bool:
    return change.key.selector.protocol == 58
