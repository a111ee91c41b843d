"""NETLINK_XFRM against this machine's own kernel, with iproute2 as witness of what the kernel understood.

Needs no ESP in the kernel: policies, SPIs, acquires and refusals do without.
"""

import errno
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

import pytest

from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.codec import encode
from gateway.datapath.xfrm.errors import EventsLostError, KernelRefusedError, NoSocketError
from gateway.datapath.xfrm.netlink import XfrmListener, XfrmSocket, XfrmThread
from gateway.datapath.xfrm.numbers import (
    ANY_PROTOCOL,
    AeventFlag,
    DefaultAction,
    Group,
    MessageType,
    Mode,
    PolicyAction,
    PolicyDirection,
    PolicyFlag,
    PolicyType,
)
from gateway.ipsec.secret import Secret
from tests.conformance.namespace import fresh_network_namespace
from tests.netns.xfrm_witness import drain, shown_by_ip, told

pytestmark = pytest.mark.netns

HERE, PEER = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")
HERE6, PEER6 = IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2")
SITES = r.Selector(source=IPv4Interface("10.1.0.0/16"), destination=IPv4Interface("10.2.0.0/16"))
HOSTS = r.Selector(source=IPv4Interface("192.0.2.1/32"), destination=IPv4Interface("192.0.2.2/32"))
SITES6 = r.Selector(source=IPv6Interface("2001:db8:1::/64"), destination=IPv6Interface("2001:db8:2::/64"))
ANY = IPv4Interface("0.0.0.0/0")
TUNNEL = r.Template(source=HERE, destination=PEER, protocol=50, mode=Mode.TUNNEL, reqid=7)
LARVAL = r.SaInfo(id=r.SaId(destination=PEER, spi=0, protocol=50), source=HERE, mode=Mode.TUNNEL, reqid=9)

#: Policy, attributes, and what `ip xfrm policy` prints of it, white space folded.
POLICIES = [
    (
        r.PolicyInfo(selector=SITES, direction=PolicyDirection.OUT, priority=1000),
        r.Attributes(templates=(TUNNEL,)),
        "src 10.1.0.0/16 dst 10.2.0.0/16 dir out priority 1000 ptype main "
        "tmpl src 192.0.2.1 dst 192.0.2.2 proto esp reqid 7 mode tunnel",
    ),
    (
        r.PolicyInfo(
            selector=replace(SITES, protocol=6, destination_port=443, destination_port_mask=0xFFFF),
            direction=PolicyDirection.IN,
            flags=PolicyFlag.ICMP | PolicyFlag.LOCALOK,
        ),
        r.Attributes(
            templates=(
                replace(TUNNEL, spi=0x1234, is_optional=True),
                r.Template(source=HERE, destination=PEER, protocol=51, mode=Mode.TRANSPORT),
            ),
            mark=r.Mark(value=0x10, mask=0xFF),
            if_id=42,
        ),
        "src 10.1.0.0/16 dst 10.2.0.0/16 proto tcp dport 443 dir in priority 0 ptype main "
        "flag localok icmp mark 0x10/0xff "
        "tmpl src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x00001234 reqid 7 mode tunnel level use "
        "tmpl src 192.0.2.1 dst 192.0.2.2 proto ah reqid 0 mode transport if_id 0x2a",
    ),
    (
        r.PolicyInfo(
            selector=SITES,
            direction=PolicyDirection.FORWARD,
            action=PolicyAction.BLOCK,
            limits=r.LifetimeLimits(hard_add_s=3600, soft_packets=9),
        ),
        r.Attributes(),
        "src 10.1.0.0/16 dst 10.2.0.0/16 dir fwd action block priority 0 ptype main",
    ),
    (
        r.PolicyInfo(selector=SITES6, direction=PolicyDirection.OUT, priority=2**32 - 1),
        r.Attributes(
            templates=(r.Template(source=HERE6, destination=PEER6, protocol=50, mode=Mode.BEET, reqid=3),)
        ),
        "src 2001:db8:1::/64 dst 2001:db8:2::/64 dir out priority 4294967295 ptype main "
        "tmpl src 2001:db8::1 dst 2001:db8::2 proto esp reqid 3 mode beet",
    ),
]


@pytest.fixture
def xfrm() -> Iterator[XfrmSocket]:
    with fresh_network_namespace("192.0.2.1/24", "2001:db8::1/64"), XfrmSocket() as kernel:
        yield kernel


# --- policies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "attributes", "text"), POLICIES)
def test_policy_is_what_iproute2_shows_and_what_the_kernel_gives_back(
    xfrm: XfrmSocket, policy: r.PolicyInfo, attributes: r.Attributes, text: str
) -> None:
    xfrm.add_policy(policy, attributes)

    assert text in shown_by_ip("policy", "list")
    (listed,) = xfrm.policies()
    by_selector = xfrm.policy(
        r.PolicyId(direction=policy.direction, selector=policy.selector),
        r.Attributes(mark=attributes.mark, if_id=attributes.if_id),
    )
    for found in (listed, by_selector):
        assert replace(found.body, index=0, usage=r.LifetimeUsage()) == policy
        assert found.attributes == replace(attributes, policy_type=PolicyType.MAIN)

    xfrm.delete_policy(
        r.PolicyId(direction=policy.direction, index=listed.body.index),
        r.Attributes(mark=attributes.mark, if_id=attributes.if_id),
    )
    assert shown_by_ip("policy", "list") == ""


def test_update_replaces_a_policy_and_add_refuses_to(xfrm: XfrmSocket) -> None:
    policy, attributes, _ = POLICIES[0]
    xfrm.add_policy(policy, attributes)

    with pytest.raises(KernelRefusedError) as refused:
        xfrm.add_policy(policy, attributes)
    xfrm.update_policy(replace(policy, priority=5), attributes)

    assert refused.value.code == errno.EEXIST
    assert [one.body.priority for one in xfrm.policies()] == [5]


def test_a_thousand_policies_are_listed_over_many_datagrams(xfrm: XfrmSocket) -> None:
    policy, attributes, _ = POLICIES[0]
    for i in range(1000):
        selector = replace(SITES, destination=IPv4Interface((0x0A020000 + i, 32)))
        xfrm.add_policy(replace(policy, selector=selector), attributes)

    assert len({one.body.selector for one in xfrm.policies()}) == 1000
    assert xfrm.spd_info().policies == r.PolicyCounts(outbound=1000)


def test_flush_takes_policies_of_one_type(xfrm: XfrmSocket) -> None:
    xfrm.add_policy(POLICIES[0][0])
    xfrm.add_policy(POLICIES[2][0])

    xfrm.flush_policies()

    assert xfrm.policies() == ()


def test_policy_of_a_socket_is_listed_with_the_others(xfrm: XfrmSocket) -> None:
    ip_xfrm_policy = 17
    policy = r.Message(
        type=MessageType.NEWPOLICY,
        body=r.PolicyInfo(selector=r.Selector(source=ANY, destination=ANY), direction=PolicyDirection.OUT),
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bypass:
        # The option takes an xfrm_userpolicy_info: the message without its header.
        bypass.setsockopt(socket.IPPROTO_IP, ip_xfrm_policy, bytes(encode(policy))[16:])
        (listed,) = xfrm.policies()

    assert listed.body.direction is PolicyDirection.SOCKET_OUT


def test_defaults_and_thresholds_are_as_set(xfrm: XfrmSocket) -> None:
    defaults = r.PolicyDefaults(
        inbound=DefaultAction.BLOCK, forward=DefaultAction.BLOCK, outbound=DefaultAction.ACCEPT
    )
    v4, v6 = r.HashThreshold(local_bits=24, remote_bits=25), r.HashThreshold(local_bits=64, remote_bits=65)

    xfrm.set_policy_defaults(defaults)
    xfrm.set_spd_thresholds(v4, v6)

    assert xfrm.policy_defaults() == defaults
    text = shown_by_ip("policy", "getdefault")
    assert [word in text for word in ("in: block", "fwd: block", "out: accept")] == [True] * 3
    info = xfrm.spd_info()
    assert (info.ipv4_threshold, info.ipv6_threshold) == (v4, v6)


# --- the SAD --------------------------------------------------------------------------------------------


def test_allocated_spi_is_found_listed_counted_and_deleted(xfrm: XfrmSocket) -> None:
    made = xfrm.allocate_spi(r.SpiRange(sa=LARVAL, lowest=0x2000, highest=0x2000))

    assert made.body.id == r.SaId(destination=PEER, spi=0x2000, protocol=50)
    assert "src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x00002000 reqid 9 mode tunnel" in shown_by_ip("state")
    assert xfrm.sa(made.body.id).body == made.body
    assert [one.body for one in xfrm.sas()] == [made.body]
    assert xfrm.sas(r.Attributes(protocol=51)) == ()
    elsewhere = r.AddressFilter(
        source=IPv4Interface("198.51.100.0/24"), destination=IPv4Interface("0.0.0.0/0")
    )
    assert xfrm.sas(r.Attributes(address_filter=elsewhere)) == ()
    assert xfrm.sad_info().sas == 1

    event = xfrm.aevent(r.Aevent(id=made.body.id, source=HERE, flags=AeventFlag.LIFETIME_VALUE))
    assert event.attributes.replay == r.ReplayState()
    assert event.attributes.usage is not None
    assert event.attributes.usage.bytes == 0

    xfrm.delete_sa(made.body.id)
    assert xfrm.sas() == ()


def test_spi_that_is_taken_is_refused(xfrm: XfrmSocket) -> None:
    xfrm.allocate_spi(r.SpiRange(sa=LARVAL, lowest=0x2000, highest=0x2000))

    with pytest.raises(KernelRefusedError) as refused:
        xfrm.allocate_spi(r.SpiRange(sa=replace(LARVAL, reqid=10, sequence=1), lowest=0x2000, highest=0x2000))

    assert refused.value.request == "XFRM_MSG_ALLOCSPI"


def test_flush_of_sas_says_nothing_when_there_are_none(xfrm: XfrmSocket) -> None:
    xfrm.flush_sas(ANY_PROTOCOL)
    xfrm.allocate_spi(r.SpiRange(sa=LARVAL, lowest=0x2000, highest=0x2000))

    xfrm.flush_sas(ANY_PROTOCOL)

    assert xfrm.sad_info().sas == 0


# --- refusals -------------------------------------------------------------------------------------------


def test_refusal_carries_the_text_of_the_kernel_and_no_key(xfrm: XfrmSocket) -> None:
    key = b"very secret key material"
    aead = r.AeadAlgorithm(name="rfc4106(nosuch(cipher))", key=Secret(key), icv_bits=128)

    with pytest.raises(KernelRefusedError) as refused:
        xfrm.add_sa(replace(LARVAL, id=replace(LARVAL.id, spi=0x1001)), r.Attributes(aead=aead))

    assert refused.value.code == errno.ENOSYS
    assert refused.value.text == "Requested AEAD algorithm not found"
    assert "XFRM_MSG_NEWSA with ENOSYS" in str(refused.value)
    assert key.decode() not in str(refused.value)


def test_refusal_names_the_attribute_the_kernel_points_at(xfrm: XfrmSocket) -> None:
    nonsense = r.Attributes(if_id=1, direction=3)  # type: ignore[arg-type]

    with pytest.raises(KernelRefusedError) as refused:
        xfrm.add_sa(replace(LARVAL, id=replace(LARVAL.id, spi=0x1001)), nonsense)

    assert refused.value.attribute == "XFRMA_SA_DIR"
    assert not refused.value.is_missing
    assert (refused.value.code, refused.value.text) == (errno.ERANGE, "integer out of range")


def test_sa_that_is_not_there_is_a_refusal_and_the_socket_goes_on(xfrm: XfrmSocket) -> None:
    for _ in range(2):
        with pytest.raises(KernelRefusedError) as refused:
            xfrm.sa(r.SaId(destination=PEER, spi=0x9999, protocol=50))
        assert refused.value.code == errno.ESRCH
    assert xfrm.sas() == ()


# --- notifications --------------------------------------------------------------------------------------


def test_traffic_makes_an_acquire_that_tells_packet_policy_and_template(xfrm: XfrmSocket) -> None:
    policy = r.PolicyInfo(selector=HOSTS, direction=PolicyDirection.OUT, priority=3)
    xfrm.add_policy(policy, r.Attributes(templates=(TUNNEL,)))

    with XfrmListener([Group.ACQUIRE]) as listener, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("192.0.2.1", 1000))
        udp.sendto(b"wake up", ("192.0.2.2", 2000))
        message = told(listener, r.Acquire)

    assert isinstance(message.body, r.Acquire)
    acquire = message.body
    assert acquire.id == r.SaId(destination=PEER, spi=0, protocol=50)
    assert acquire.source == HERE
    packet = acquire.selector
    assert (packet.protocol, packet.source_port, packet.destination_port) == (17, 1000, 2000)
    assert (packet.source, packet.destination) == (HOSTS.source, HOSTS.destination)
    assert acquire.policy.selector == HOSTS
    assert acquire.policy.index == xfrm.policies()[0].body.index
    assert message.attributes.templates == (TUNNEL,)
    # The kernel keeps the acquire as an SA without an SPI, by the same number.
    assert [one.body.sequence for one in xfrm.sas()] == [acquire.sequence]


def test_changes_of_the_spd_and_sad_are_told(xfrm: XfrmSocket) -> None:
    policy, attributes, _ = POLICIES[0]

    with XfrmListener([Group.POLICY, Group.SA, Group.EXPIRE]) as listener:
        xfrm.add_policy(policy, attributes)
        added = told(listener, r.PolicyInfo)
        xfrm.delete_policy(r.PolicyId(direction=policy.direction, selector=policy.selector))
        deleted = told(listener, r.PolicyId)
        made = xfrm.allocate_spi(r.SpiRange(sa=LARVAL, lowest=0x2000, highest=0x2000))
        xfrm.delete_sa(made.body.id)
        gone = told(listener, r.SaId)

    assert added.attributes.templates == (TUNNEL,)
    assert deleted.attributes.policy is not None
    assert deleted.attributes.policy.selector == policy.selector
    assert gone.body == made.body.id
    assert gone.attributes.sa is not None
    assert gone.attributes.sa.id == made.body.id


def test_only_the_kinds_that_were_asked_for_are_told(xfrm: XfrmSocket) -> None:
    policy, attributes, _ = POLICIES[0]
    kinds = (MessageType.DELSA, MessageType.DELPOLICY)

    with XfrmListener([Group.POLICY, Group.SA], kinds=kinds) as listener:
        xfrm.add_policy(policy, attributes)
        xfrm.delete_policy(r.PolicyId(direction=policy.direction, selector=policy.selector))
        made = xfrm.allocate_spi(r.SpiRange(sa=LARVAL, lowest=0x2000, highest=0x2000))
        xfrm.delete_sa(made.body.id)
        heard = drain(listener)

    assert [message.type for message in heard] == [MessageType.DELPOLICY, MessageType.DELSA]


def test_lost_notifications_are_an_error_and_later_ones_arrive(xfrm: XfrmSocket) -> None:
    policy, attributes, _ = POLICIES[0]

    with XfrmListener([Group.POLICY], buffer_bytes=1) as listener:
        for i in range(50):
            xfrm.update_policy(replace(policy, priority=i), attributes)
        with pytest.raises(EventsLostError):
            drain(listener)
        drain(listener)
        xfrm.update_policy(replace(policy, priority=99), attributes)
        message = told(listener, r.PolicyInfo)

    assert isinstance(message.body, r.PolicyInfo)
    assert message.body.priority == 99


def test_group_the_kernel_does_not_know_is_an_error_that_leaves_no_socket(xfrm: XfrmSocket) -> None:
    before = len(os.listdir("/proc/self/fd"))

    with pytest.raises(NoSocketError, match=re.escape(os.strerror(errno.EINVAL))):
        # Stands for one of a newer kernel.
        XfrmListener([Group.SA, 999])  # type: ignore[list-item]

    assert len(os.listdir("/proc/self/fd")) == before


async def test_thread_serves_asyncio_in_the_namespace_it_was_made_in() -> None:
    with fresh_network_namespace("192.0.2.1/24"):
        thread = XfrmThread()
        await thread.run(lambda kernel: kernel.add_policy(POLICIES[0][0], POLICIES[0][1]))
        listed = await thread.run(lambda kernel: kernel.policies())
        with pytest.raises(KernelRefusedError):
            await thread.run(lambda kernel: kernel.sa(LARVAL.id))
        await thread.close()
        assert shown_by_ip("policy", "list") != ""

    assert [one.body.selector for one in listed] == [SITES]
