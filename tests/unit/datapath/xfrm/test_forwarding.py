"""Which SPD XDP is to see beside packet offload."""

from collections.abc import Collection
from typing import Any

from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.forwarding_spd import policies_for_xdp
from gateway.datapath.xfrm.installation import whereabouts_of
from gateway.datapath.xfrm.numbers import OffloadFlag
from gateway.datapath.xfrm.sad import Held
from gateway.datapath.xfrm.spd import Entry
from gateway.ipsec.mark import Mark
from gateway.ipsec.placement import Engine
from gateway.ipsec.policy import Action, Policy
from gateway.ipsec.sa import SaId, SecurityAssociation
from gateway.ipsec.selectors import TrafficSelector
from tests.conformance.sas import inbound, outbound, policy

WIDE, NARROW = (TrafficSelector.parse("10.2.0.0/16"),), (TrafficSelector.parse("10.2.3.0/24"),)


def held(sa: SecurityAssociation, engine: Engine = Engine.NIC_PACKET) -> Held:
    offload = r.Offload(link=3, flags=OffloadFlag.PACKET) if engine is Engine.NIC_PACKET else None
    return Held(sa=sa, generation=1, engine=engine, at=whereabouts_of(sa), offload=offload)


def seen(
    policies: list[Policy], sas: list[Held], forwarded: Collection[int]
) -> list[tuple[str, str, int | None]]:
    """Return remote selector, action and SPI of each policy, in the order that XDP searches."""
    entries = [Entry(policy=item, generation=1) for item in policies]
    names = {item.sa.sa_id for item in sas if item.sa.spi in forwarded}
    made = policies_for_xdp(entries, sas, names)
    meant, spis = made.offloaded, {item.sa.sa_id: int(item.sa.spi) for item in sas}
    return [
        (str(item.remote_ts[0]), item.action.value, spis[meant[item.name]] if item.name in meant else None)
        for item in sorted(made.policies, key=lambda item: item.priority)
    ]


def seen_in(
    sas: list[Held], forwarded: Collection[int], **entry: Any
) -> list[tuple[str, int | None, int | None]]:
    """Return remote selector, outbound and inbound SPI of each policy of an entry, in their order."""
    outward, inward = (
        {item.sa.sa_id for item in sas if item.sa.spi in forwarded and item.is_inbound is is_inbound}
        for is_inbound in (False, True)
    )
    made = policies_for_xdp([Entry(policy=policy(**entry), generation=1)], sas, outward, inward)
    spis = {item.sa.sa_id: int(item.sa.spi) for item in sas}
    return [
        (
            str(item.remote_ts[0]),
            spis.get(made.offloaded.get(item.name, SaId(""))),
            spis.get(made.inbound.get(item.name, SaId(""))),
        )
        for item in made.policies
    ]


def test_what_an_sa_was_negotiated_for_comes_before_the_rest_of_its_entry() -> None:
    sa = held(outbound(0x2001, remote_ts=NARROW))

    assert seen([policy()], [sa, held(inbound())], {0x2001}) == [
        ("10.2.3.0/24", "protect", 0x2001),
        ("10.2.0.0/16", "protect", None),
    ]


def test_the_newest_sa_comes_first() -> None:
    sas = [held(outbound(0x2001)), held(outbound(0x2002))]

    assert [spi for _, _, spi in seen([policy()], sas, {0x2001, 0x2002})] == [0x2002, 0x2001, None]


def test_a_newer_sa_of_the_kernel_hides_an_older_one_of_the_nic() -> None:
    sas = [held(outbound(0x2001)), held(outbound(0x2002), Engine.KERNEL)]

    assert [spi for _, _, spi in seen([policy()], sas, {0x2001})] == [None, 0x2001, None]


def test_an_sa_that_cannot_be_forwarded_to_leaves_its_packets_to_the_stack() -> None:
    assert seen([policy()], [held(outbound(0x2001))], set()) == [
        ("10.2.0.0/16", "protect", None),
        ("10.2.0.0/16", "protect", None),
    ]


def test_entries_before_it_keep_their_place() -> None:
    other: dict[str, Any] = {"connection": "", "child": ""}
    first = policy("no", action=Action.DISCARD, remote_ts=NARROW, priority=1, **other)
    last = policy("pass", action=Action.BYPASS, remote_ts=WIDE, priority=2000, **other)

    found = seen([first, policy(), last], [held(outbound(0x2001))], {0x2001})

    assert [(action, spi) for _, action, spi in found] == [
        ("discard", None),
        ("protect", 0x2001),
        ("protect", None),
        ("bypass", None),
    ]


def test_entries_of_tunnel_interfaces_are_not_about_what_comes_in_from_a_lan() -> None:
    assert seen([policy(interface_id=5)], [held(outbound(0x2001, interface_id=5))], {0x2001}) == []


def test_an_sa_of_other_addresses_than_its_entry_adds_nothing() -> None:
    elsewhere = (TrafficSelector.parse("10.9.0.0/16"),)

    assert seen([policy()], [held(outbound(0x2001, remote_ts=elsewhere))], {0x2001}) == [
        ("10.2.0.0/16", "protect", None)
    ]


# --- what comes in ------------------------------------------------------------------------------------


def test_both_sas_of_a_child_are_of_one_part() -> None:
    sas = [held(inbound(0x1001)), held(outbound(0x2001))]

    assert seen_in(sas, {0x1001, 0x2001}) == [("10.2.0.0/16", 0x2001, 0x1001), ("10.2.0.0/16", None, None)]


def test_the_newest_inbound_sa_stands_for_all_of_them() -> None:
    sas = [held(inbound(0x1001)), held(outbound(0x2001)), held(inbound(0x1002)), held(outbound(0x2002))]

    assert seen_in(sas, {0x1001, 0x1002, 0x2002}) == [
        ("10.2.0.0/16", 0x2002, 0x1002),
        ("10.2.0.0/16", None, 0x1002),
        ("10.2.0.0/16", None, None),
    ]


def test_an_inbound_sa_that_is_not_forwarded_leaves_its_packets_to_the_stack() -> None:
    sas = [held(inbound(0x1001)), held(outbound(0x2001))]

    assert seen_in(sas, {0x2001}) == [("10.2.0.0/16", 0x2001, None), ("10.2.0.0/16", None, None)]


def test_an_inbound_sa_of_fewer_addresses_serves_no_part_with_more() -> None:
    sas = [held(inbound(0x1001, remote_ts=NARROW)), held(outbound(0x2001, remote_ts=WIDE))]

    # A part of its own would hide the SA that is sent by, or be hidden by it.
    assert seen_in(sas, {0x1001, 0x2001}) == [("10.2.0.0/16", 0x2001, None), ("10.2.0.0/16", None, None)]


def test_an_inbound_sa_of_more_addresses_serves_a_part_with_fewer() -> None:
    sas = [held(inbound(0x1001, remote_ts=WIDE)), held(outbound(0x2001, remote_ts=NARROW))]

    assert seen_in(sas, {0x1001, 0x2001}) == [
        ("10.2.3.0/24", 0x2001, 0x1001),
        ("10.2.0.0/16", None, 0x1001),
        ("10.2.0.0/16", None, None),
    ]


def test_before_the_outbound_sa_is_there_what_comes_in_is_forwarded() -> None:
    assert seen_in([held(inbound(0x1001))], {0x1001}) == [
        ("10.2.0.0/16", None, 0x1001),
        ("10.2.0.0/16", None, None),
    ]


def test_what_is_only_for_decrypted_packets_with_a_mark_is_the_stacks() -> None:
    sas = [held(inbound(0x1001)), held(outbound(0x2001))]

    found = seen_in(sas, {0x1001, 0x2001}, mark_in=Mark(value=1))

    assert found == [("10.2.0.0/16", 0x2001, None), ("10.2.0.0/16", None, None)]
