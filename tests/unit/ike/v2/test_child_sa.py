"""The pair of SAs of a Child SA (RFC 7296 §2.17), its lifetimes and its record."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from gateway.ike.crypto.keymat import derive_child_keymat
from gateway.ike.errors import LocalError
from gateway.ike.events import ChildSaId, IkeSaId
from gateway.ike.path import Path
from gateway.ike.v2.child_sa import (
    ChildSa,
    ChildSaParameters,
    Origin,
    child_lifetime,
    make_pair,
)
from gateway.ike.v2.states import ChildSaState, ChildSaTrigger
from gateway.ipsec.algorithms import Encr, Integ, Prf, Sn, TransformType
from gateway.ipsec.connection import Child
from gateway.ipsec.errors import VocabularyError
from gateway.ipsec.lifetime import Lifetime, Limit
from gateway.ipsec.placement import Engine, Placement
from gateway.ipsec.proposal import Proposal, ProtocolId, Transform
from gateway.ipsec.sa import Direction, Mode, Spi, UdpEncapsulation
from gateway.ipsec.secret import Secret
from gateway.ipsec.selectors import TrafficSelector

PARIS, TOKYO = ip_address("192.0.2.1"), ip_address("198.51.100.2")
LAN = TrafficSelector(ip_address("10.1.0.0"), ip_address("10.1.255.255"))
OTHER_LAN = TrafficSelector(ip_address("10.2.0.0"), ip_address("10.2.255.255"))


def esp(encryption, key_bits, integrity=None, sn=Sn.NO_ESN):
    transforms = [Transform(TransformType.ENCR, encryption, key_bits)]
    if integrity is not None:
        transforms.append(Transform(TransformType.INTEG, integrity))
    return Proposal(ProtocolId.ESP, (*transforms, Transform(TransformType.SN, sn)))


GCM = esp(Encr.AES_GCM_16, 256)
CBC = esp(Encr.AES_CBC, 128, Integ.HMAC_SHA2_256_128)


def parameters(proposal=GCM, **changes):
    given = ChildSaParameters(
        child_sa_id=ChildSaId(7),
        connection="paris-tokyo",
        child=Child(name="lan"),
        proposal=proposal,
        mode=Mode.TUNNEL,
        spi_in=Spi(0x1001),
        spi_out=Spi(0x2001),
        local_ts=(LAN,),
        remote_ts=(OTHER_LAN,),
        path=Path(PARIS, 500, TOKYO, 500),
        is_encapsulated=False,
        lifetime=Lifetime(),
    )
    return replace(given, **changes)


def keys(proposal):
    """Keys that differ from each other, of the lengths the proposal has."""
    return derive_child_keymat(
        Prf.HMAC_SHA2_256,
        Secret(b"d" * 32),
        encr=proposal.encr,
        key_bits=proposal.key_bits,
        integ=proposal.integ,
        nonce_i=b"i" * 32,
        nonce_r=b"r" * 32,
    )


@pytest.mark.parametrize("proposal", [GCM, CBC])
@pytest.mark.parametrize("is_initiator", [True, False])
def test_who_initiated_the_exchange_sends_with_the_initiators_keys(proposal, is_initiator):
    # RFC 7296 §2.17: "initiator" is that of the exchange that makes the Child SA.
    given = keys(proposal)

    pair = make_pair(parameters(proposal), given, is_initiator=is_initiator)

    forth, back = (pair.outbound, pair.inbound) if is_initiator else (pair.inbound, pair.outbound)
    assert (forth.encryption_key, forth.integrity_key) == (given.encryption_i, given.integrity_i)
    assert (back.encryption_key, back.integrity_key) == (given.encryption_r, given.integrity_r)
    assert given.encryption_i != given.encryption_r


@pytest.mark.parametrize(
    ("proposal", "encryption", "integrity"),
    [
        # key + salt (RFC 4106 §8.1, RFC 4309 §7.1, RFC 7634 §2, RFC 3686 §5.1), and the integrity key
        (esp(Encr.AES_GCM_16, 128), 16 + 4, 0),
        (esp(Encr.AES_GCM_16, 256), 32 + 4, 0),
        (esp(Encr.AES_GCM_16, 128, Integ.NONE), 16 + 4, 0),
        (esp(Encr.AES_CCM_16, 128), 16 + 3, 0),
        (esp(Encr.CHACHA20_POLY1305, None), 32 + 4, 0),
        (esp(Encr.AES_CBC, 128, Integ.HMAC_SHA1_96), 16, 20),
        (esp(Encr.AES_CBC, 256, Integ.HMAC_SHA2_384_192), 32, 48),
        (esp(Encr.AES_CTR, 128, Integ.HMAC_SHA2_256_128), 16 + 4, 32),
        (esp(Encr.NULL, None, Integ.HMAC_SHA2_512_256), 0, 64),
    ],
)
def test_an_sa_has_keys_as_long_as_its_algorithms_want(proposal, encryption, integrity):
    pair = make_pair(parameters(proposal), keys(proposal), is_initiator=True)

    for sa in (pair.inbound, pair.outbound):
        assert (len(sa.encryption_key), len(sa.integrity_key)) == (encryption, integrity)


@pytest.mark.parametrize("proposal", [GCM, CBC])
def test_both_sides_derive_mirrored_pairs(proposal):
    ours = parameters(proposal)
    theirs = replace(
        ours,
        spi_in=ours.spi_out,
        spi_out=ours.spi_in,
        local_ts=ours.remote_ts,
        remote_ts=ours.local_ts,
        path=Path(TOKYO, 500, PARIS, 500),
    )

    here = make_pair(ours, keys(proposal), is_initiator=True)
    there = make_pair(theirs, keys(proposal), is_initiator=False)

    for sending, receiving in ((here.outbound, there.inbound), (there.outbound, here.inbound)):
        assert sending.direction is Direction.OUTBOUND
        assert receiving.direction is Direction.INBOUND
        assert sending.spi == receiving.spi
        assert sending.encryption_key == receiving.encryption_key
        assert sending.integrity_key == receiving.integrity_key
        assert (sending.source, sending.destination) == (receiving.source, receiving.destination)
    assert here.outbound.encryption_key != here.inbound.encryption_key


def test_the_spi_we_chose_is_the_inbound_one():
    pair = make_pair(parameters(), keys(GCM), is_initiator=True)

    assert (pair.inbound.spi, pair.outbound.spi) == (0x1001, 0x2001)
    assert pair.inbound.sa_id == "in:esp:192.0.2.1:00001001"
    assert pair.outbound.sa_id == "out:esp:198.51.100.2:00002001"


def test_without_a_nat_there_is_no_udp_encapsulation():
    pair = make_pair(parameters(), keys(GCM), is_initiator=True)

    assert pair.inbound.encapsulation is None
    assert pair.outbound.encapsulation is None


def test_udp_encapsulation_takes_the_ports_of_the_path_as_each_direction_carries_them():
    behind_nat = parameters(path=Path(PARIS, 4500, TOKYO, 33333), is_encapsulated=True)

    pair = make_pair(behind_nat, keys(GCM), is_initiator=False)

    assert pair.outbound.encapsulation == UdpEncapsulation(source_port=4500, destination_port=33333)
    assert pair.inbound.encapsulation == UdpEncapsulation(source_port=33333, destination_port=4500)


def test_what_the_operator_configured_reaches_both_directions():
    child = Child(
        name="lan",
        replay_window_packets=4096,
        copy_dscp=False,
        copy_df=False,
        placement=Placement(require=Engine.KERNEL),
    )
    lifetime = Lifetime(soft=Limit(seconds=1.0), hard=Limit(seconds=2.0))
    given = parameters(child=child, mode=Mode.TRANSPORT, lifetime=lifetime)

    pair = make_pair(given, keys(GCM), is_initiator=True)

    for sa in (pair.inbound, pair.outbound):
        assert sa.replay_window_packets == 4096
        assert (sa.copy_dscp, sa.copy_df) == (False, False)
        assert sa.placement.require is Engine.KERNEL
        assert sa.mode is Mode.TRANSPORT
        assert sa.lifetime == lifetime
        assert (sa.local_ts, sa.remote_ts) == ((LAN,), (OTHER_LAN,))
        assert (sa.connection, sa.child, sa.child_sa_id) == ("paris-tokyo", "lan", 7)


@pytest.mark.parametrize(("sn", "esn"), [(Sn.ESN, True), (Sn.NO_ESN, False)])
def test_extended_sequence_numbers_are_as_agreed(sn, esn):
    proposal = esp(Encr.AES_GCM_16, 128, sn=sn)

    pair = make_pair(parameters(proposal), keys(proposal), is_initiator=True)

    assert (pair.inbound.esn, pair.outbound.esn) == (esn, esn)


def test_a_proposal_without_encryption_is_our_mistake():
    nothing = Proposal(ProtocolId.ESP, (Transform(TransformType.SN, Sn.NO_ESN),))

    with pytest.raises(VocabularyError):
        make_pair(parameters(nothing), keys(GCM), is_initiator=True)


# --- lifetimes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("draw", "soft"), [(0.0, 3600.0), (0.5, 3420.0), (0.999999, 3240.0)])
def test_jitter_shortens_the_soft_lifetime_and_leaves_the_hard_one(draw, soft):
    child = Child(name="lan", rekey=Limit(seconds=3600.0), over=0.1, jitter=0.1)

    lifetime = child_lifetime(child, esn=False, draw=draw)

    assert lifetime.soft.seconds == pytest.approx(soft, abs=0.01)
    assert lifetime.hard.seconds == pytest.approx(3960.0)


def test_bytes_and_packets_are_bounded_the_same_way():
    child = Child(name="lan", rekey=Limit(bytes=1000, packets=500), over=0.2, jitter=0.1)

    lifetime = child_lifetime(child, esn=False, draw=0.5)

    assert lifetime.soft == Limit(bytes=950, packets=475)
    assert lifetime.hard == Limit(bytes=1200, packets=600)


@pytest.mark.parametrize(("esn", "bits"), [(False, 32), (True, 64)])
def test_three_quarters_of_the_sequence_space_end_the_soft_lifetime(esn, bits):
    child = Child(name="lan", rekey=Limit())

    lifetime = child_lifetime(child, esn=esn, draw=0.0)

    assert lifetime.soft == Limit(packets=3 * 2**bits // 4)
    assert lifetime.hard == Limit(packets=2**bits - 1)


@pytest.mark.parametrize("packets", [2**32, 2**40])
def test_no_configuration_goes_beyond_the_sequence_space(packets):
    child = Child(name="lan", rekey=Limit(packets=packets))

    lifetime = child_lifetime(child, esn=False, draw=0.0)

    assert lifetime.soft.packets == 3 * 2**30
    assert lifetime.hard.packets == 2**32 - 1


def test_a_limit_never_rounds_to_nothing():
    child = Child(name="lan", rekey=Limit(bytes=1, packets=1), jitter=0.9)

    assert child_lifetime(child, esn=False, draw=0.9).soft == Limit(bytes=1, packets=1)


# --- the record ---------------------------------------------------------------------------------


def child_sa(**changes):
    given = parameters(**changes)
    return ChildSa(
        ike_sa_id=IkeSaId(3),
        parameters=given,
        pair=make_pair(given, keys(GCM), is_initiator=True),
        origin=Origin(is_ours=True, lowest_nonce=bytes(32)),
    )


def test_a_child_sa_is_established_when_both_directions_are_installed():
    lifetime = Lifetime(soft=Limit(seconds=10.0), hard=Limit(seconds=12.0))
    record = child_sa(lifetime=lifetime)
    assert record.info().state == "creating"

    record.establish(now=100.0)

    info = record.info()
    assert info.state == "installed"
    assert (info.established_at, info.rekey_at, info.expires_at) == (100.0, 110.0, 112.0)
    assert (info.child_sa_id, info.ike_sa_id, info.connection, info.child) == (7, 3, "paris-tokyo", "lan")
    assert info.inbound is record.pair.inbound
    assert info.outbound is record.pair.outbound


def test_without_a_limit_in_seconds_nothing_is_due():
    record = child_sa()

    record.establish(now=100.0)

    assert record.info().rekey_at is None
    assert record.info().expires_at is None


def test_what_was_installed_is_what_must_be_removed():
    record = child_sa()
    assert record.installed_sa_ids == ()

    record.is_inbound_installed = True
    assert record.installed_sa_ids == (record.pair.inbound.sa_id,)

    record.is_outbound_installed = True
    assert record.installed_sa_ids == (record.pair.inbound.sa_id, record.pair.outbound.sa_id)


def test_the_state_follows_the_table_and_nothing_else():
    record = child_sa()

    with pytest.raises(LocalError):
        record.follow(ChildSaTrigger.REKEY_STARTED)
    assert record.state is ChildSaState.CREATING
    record.establish(now=0.0)
    record.follow(ChildSaTrigger.REKEY_STARTED)
    assert record.state is ChildSaState.REKEYING


def test_a_rekey_time_of_zero_means_never() -> None:
    lifetime = child_lifetime(
        Child(name="net", rekey=Limit(seconds=0.0, bytes=0, packets=0)), esn=False, draw=0.5
    )

    assert lifetime.soft == Limit(packets=int(0.75 * 2**32))
    assert lifetime.hard == Limit(packets=2**32 - 1)
