"""What notifications of the kernel mean for us, and which are not ours."""

from dataclasses import replace
from ipaddress import ip_address, ip_interface

import pytest

from gateway.datapath.backend import Acquire, HardExpire, MappingChange, SasLost, SoftExpire
from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.installation import Placing, kernel_sa, whereabouts_of
from gateway.datapath.xfrm.notifications import Asked, Meaning, from_peer_at, meaning_of, to_peer_at
from gateway.datapath.xfrm.numbers import MessageType, PolicyDirection
from gateway.datapath.xfrm.sad import Held, Sad
from gateway.datapath.xfrm.spd import Carriers, Spd
from gateway.ipsec import sa as ipsec
from gateway.ipsec.lifetime import Lifetime, Limit
from gateway.ipsec.placement import Engine
from gateway.ipsec.policy import Action
from gateway.ipsec.sa import SecurityAssociation, UdpEncapsulation
from tests.conformance.sas import PEER, inbound, outbound, policy

TAG = 7
NO_SA = Carriers(reqid=100, trap_reqid=101)
PLACING = Placing(reqid=100, tag=TAG, knows_direction=True)
PORTS = UdpEncapsulation(source_port=4500, destination_port=4500)
SA = inbound(encapsulation=PORTS, lifetime=Lifetime(soft=Limit(packets=5)))
ELSEWHERE = (ip_address("192.0.2.9"), 4510)


def held(sa: SecurityAssociation) -> Held:
    return Held(sa=sa, generation=0, engine=Engine.KERNEL, at=whereabouts_of(sa))


@pytest.fixture
def sad() -> Sad:
    made = Sad(bytes)
    made.add(held(SA))
    return made


@pytest.fixture
def spd() -> Spd:
    made = Spd(TAG)
    made.put(policy(remote_address=PEER), 0, NO_SA)
    made.put(policy("quiet", acquire=False, priority=1, protocol=ipsec.IpsecProtocol.AH), 0, NO_SA)
    made.drop("quiet")
    return made


def meaning(body: r.Body, sad: Sad, spd: Spd) -> Meaning:
    return meaning_of(r.Message(type=MessageType.NEWSA, body=body), sad, spd)


def info_of(sa: SecurityAssociation, packets: int = 0) -> r.SaInfo:
    info, _ = kernel_sa(sa, PLACING, whereabouts_of(sa))
    return replace(info, usage=r.LifetimeUsage(packets=packets))


def asking(spd: Spd, **changes: object) -> r.Acquire:
    """What the kernel says when a packet finds the OUT policy of the SPD without an SA."""
    (key,) = [change.key for change in spd.changes() if change.key.direction is PolicyDirection.OUT]
    packet = r.Selector(
        source=ip_interface("10.1.0.1/32"),
        destination=ip_interface("10.2.0.1/32"),
        protocol=17,
        source_port=1000,
        source_port_mask=0xFFFF,
        destination_port=53,
        destination_port_mask=0xFFFF,
    )
    made = r.Acquire(
        id=r.SaId(destination=PEER, spi=0, protocol=50),
        source=ip_address("192.0.2.1"),
        selector=packet,
        policy=r.PolicyInfo(selector=key.selector, direction=PolicyDirection.OUT),
        sequence=1,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_acquire_names_the_entry_and_the_packet(sad: Sad, spd: Spd) -> None:
    assert meaning(asking(spd), sad, spd).event == Acquire(
        policy="paris/lan",
        source=ip_address("10.1.0.1"),
        destination=ip_address("10.2.0.1"),
        protocol=17,
        source_port=1000,
        destination_port=53,
    )
    assert meaning(asking(spd, sequence=7), sad, spd).asked == Asked(("paris", "lan"), 7)


@pytest.mark.parametrize("changes", [{"acquire": False}, {"action": Action.DISCARD}])
def test_entry_that_may_not_ask_asks_for_nothing(sad: Sad, spd: Spd, changes: dict[str, object]) -> None:
    body = asking(spd)
    spd.put(policy(remote_address=PEER, **changes), 0, NO_SA)

    assert meaning(body, sad, spd) == Meaning()


def test_acquire_of_another_key_manager_is_not_ours(sad: Sad, spd: Spd) -> None:
    ours = asking(spd)
    theirs = replace(ours, policy=replace(ours.policy, selector=replace(ours.policy.selector, user=0)))

    assert meaning(theirs, sad, spd) == Meaning()


def test_soft_expire_leaves_the_sa_and_hard_expire_takes_it(sad: Sad, spd: Spd) -> None:
    soft = meaning(r.Expire(sa=info_of(SA, packets=5), is_hard=False), sad, spd)
    hard = meaning(r.Expire(sa=info_of(SA), is_hard=True), sad, spd)

    assert (soft.event, soft.gone) == (SoftExpire(sa_id=SA.sa_id, spi=SA.spi, limit="packets"), None)
    assert hard.event == HardExpire(sa_id=SA.sa_id, spi=SA.spi, limit="seconds")
    assert hard.gone is sad.get(SA.sa_id)


@pytest.mark.parametrize(
    "body",
    [
        r.Expire(sa=info_of(inbound(0x9999)), is_hard=True),
        r.SaId(destination=PEER, spi=0x9999, protocol=50),
        r.Mapping(
            id=r.SaId(destination=PEER, spi=0x9999, protocol=50),
            old_source=PEER,
            new_source=PEER,
            old_source_port=1,
            new_source_port=2,
        ),
        info_of(inbound(0x9999)),
    ],
    ids=lambda body: type(body).__name__,
)
def test_sas_of_others_mean_nothing(sad: Sad, spd: Spd, body: r.Body) -> None:
    assert meaning(body, sad, spd) == Meaning()


def test_deletion_by_another_process_is_a_loss(sad: Sad, spd: Spd) -> None:
    found = meaning(whereabouts_of(SA).id_of(SA), sad, spd)

    assert isinstance(found.event, SasLost)
    assert found.event.sa_ids == (SA.sa_id,)
    assert found.gone is sad.get(SA.sa_id)


def test_our_own_deletion_means_nothing(sad: Sad, spd: Spd) -> None:
    sad.remove(SA.sa_id)

    assert meaning(whereabouts_of(SA).id_of(SA), sad, spd) == Meaning()


def test_flush_makes_us_look(sad: Sad, spd: Spd) -> None:
    assert meaning(r.FlushSas(protocol=50), sad, spd).is_unsure


# --- a peer that moves ------------------------------------------------------------------------------


def moved(source: tuple[object, int]) -> r.Mapping:
    return r.Mapping(
        id=whereabouts_of(SA).id_of(SA),
        old_source=SA.source,
        new_source=source[0],  # type: ignore[arg-type]
        old_source_port=4500,
        new_source_port=source[1],
    )


def test_peer_that_sends_from_elsewhere_is_told(sad: Sad, spd: Spd) -> None:
    found = meaning(moved(ELSEWHERE), sad, spd)

    assert found.event == MappingChange(
        sa_id=SA.sa_id, spi=SA.spi, old=(SA.source, 4500), new=(ip_address("192.0.2.9"), 4510)
    )
    assert (found.moved, found.peer) == (sad.get(SA.sa_id), ELSEWHERE)


def test_what_the_kernel_says_again_is_told_once(sad: Sad, spd: Spd) -> None:
    there = sad.get(SA.sa_id)
    assert there is not None
    sad.move(there, from_peer_at(there, ELSEWHERE))

    assert meaning(moved(ELSEWHERE), sad, spd) == Meaning()


def test_outbound_sa_follows_in_tunnel_mode_and_within_its_family() -> None:
    sending = held(outbound(encapsulation=PORTS))

    at = to_peer_at(sending, ELSEWHERE)

    assert at is not None
    assert (at.source, at.destination) == (sending.sa.source, ELSEWHERE[0])
    assert at.encapsulation == UdpEncapsulation(source_port=4500, destination_port=4510)
    assert to_peer_at(sending, (ip_address("2001:db8::9"), 4500)) is None
    assert to_peer_at(held(outbound()), ELSEWHERE) is None
    assert to_peer_at(held(outbound(encapsulation=PORTS, mode=ipsec.Mode.TRANSPORT)), ELSEWHERE) is None
