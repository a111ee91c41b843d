"""Child SAs with AH between two real cores (RFC 7296 §2.17, §3.3; RFC 4302; RFC 4543 §5)."""

from ipaddress import ip_address

import pytest

from gateway.ike.events import ChildSaEstablished, ChildSaFailed, FailureReason, IkeSaFailed
from gateway.ike.wire.notify import NotifyType
from gateway.ike.wire.payloads import DeletePayload, NotifyPayload, SaPayload
from gateway.ipsec.algorithms import INTEG, Encr, Integ, TransformType
from gateway.ipsec.connection import Child, Childless
from gateway.ipsec.proposal import ProtocolId
from gateway.ipsec.sa import IpsecProtocol, Mode
from tests.fakes.link import Nat
from tests.fakes.pair import ALICE, Pair, child, proposals, selectors

LANS = ("10.1.0.0/16", "10.2.0.0/16")
DMZS = ("10.11.0.0/16", "10.12.0.0/16")
NAT = ip_address("203.0.113.9")


def ah_child(local, remote, *, ah="sha256", name="lan", **changes):
    return Child(
        name=name,
        local_ts=selectors(local) if local else (),
        remote_ts=selectors(remote) if remote else (),
        proposals=proposals(ah, ProtocolId.AH),
        **changes,
    )


def both(ah="sha256", *, bob_ah=None, others=(), ike_options=None, **changes):
    """A pair whose only Child, or first one, is for AH; `others` are further ones of ESP, by name."""
    alice = [ah_child(*LANS, ah=ah, **changes), *(child(n, local=DMZS[0], remote=DMZS[1]) for n in others)]
    bob = [
        ah_child(*reversed(LANS), ah=bob_ah or ah, **changes),
        *(child(n, local=DMZS[1], remote=DMZS[0]) for n in others),
    ]
    options = {"ike_options": ike_options} if ike_options else {}
    return Pair(alice={"children": alice} | options, bob={"children": bob, "remote_address": None} | options)


def behind_a_nat(pair):
    """Let a NAT hide Alice."""
    pair.link.nats = [Nat(inside=ALICE, outside=NAT)]
    return pair


def notifies(pair, kind):
    found = (p for m in pair.messages() for p in m.payloads if isinstance(p, NotifyPayload))
    return [p for p in found if p.notify_type == kind]


# --- negotiation ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "integ", "esn"),
    [
        ("sha256", Integ.HMAC_SHA2_256_128, False),
        ("sha1", Integ.HMAC_SHA1_96, False),
        ("sha384-esn", Integ.HMAC_SHA2_384_192, True),
        ("sha512", Integ.HMAC_SHA2_512_256, False),
        ("aesxcbc", Integ.AES_XCBC_96, False),
        ("aescmac", Integ.AES_CMAC_96, False),
        ("aes128gmac", Integ.AES_128_GMAC, False),
        ("aes192gmac", Integ.AES_192_GMAC, False),
        ("aes256gmac-esn", Integ.AES_256_GMAC, True),
    ],
)
def test_every_algorithm_comes_up_with_keys_of_its_length(words, integ, esn):
    pair = both(words)

    pair.establish()

    for host in pair.hosts:
        for sa in (host.child_sa.inbound, host.child_sa.outbound):
            assert sa.protocol is IpsecProtocol.AH
            assert (sa.encryption, len(sa.encryption_key), sa.key_bits) == (Encr.NULL, 0, 0)
            assert sa.integrity is integ
            # The salt of GMAC follows its key (RFC 4543 §5.4).
            assert len(sa.integrity_key) == INTEG[integ].key_bytes + INTEG[integ].salt_bytes
            assert sa.esn is esn
            assert sa.sa_id.startswith(("in:ah:", "out:ah:"))


def test_the_proposal_has_protocol_2_integrity_and_sequence_numbers_and_no_encryption():
    pair = both("sha256-aes128gmac-x25519-esn-noesn")

    pair.alice.initiate()
    pair.settle()

    # IKE_AUTH SK { IDi, AUTH, SAi2, TSi, TSr } -->
    (offered,) = next(p for p in pair.messages(pair.alice)[1].payloads if isinstance(p, SaPayload)).proposals
    assert offered.protocol == 2
    assert len(offered.spi) == 4
    assert {transform.type for transform in offered.transforms} == {TransformType.INTEG, TransformType.SN}
    pair.check(children=1)


def test_transport_mode_is_used_between_the_two_hosts():
    pair = Pair(
        alice={"children": [ah_child("", "", mode=Mode.TRANSPORT)]},
        bob={"children": [ah_child("", "", mode=Mode.TRANSPORT)]},
    )

    pair.establish()

    assert pair.alice.child_sa.outbound.mode is Mode.TRANSPORT


def test_ah_and_esp_have_nothing_in_common():
    pair = Pair(
        alice={"children": [ah_child(*LANS)]},
        bob={"children": [child("lan", local=LANS[1], remote=LANS[0], esp="null-sha256")]},
    )

    pair.alice.initiate()
    pair.settle()

    pair.check(children=0)
    assert notifies(pair, NotifyType.NO_PROPOSAL_CHOSEN)
    (failed,) = pair.bob.events(ChildSaFailed)
    assert failed.failure.reason is FailureReason.NO_PROPOSAL_CHOSEN


def test_other_algorithms_of_ah_have_nothing_in_common_and_both_are_told():
    pair = both("sha256", bob_ah="sha512")

    pair.alice.initiate()
    pair.settle()

    pair.check(children=0)
    (failed,) = pair.bob.events(ChildSaFailed)
    assert "integrity algorithm: offered sha256, configured sha512" in failed.failure.detail


# --- rekey and delete -------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["alice", "bob"])
@pytest.mark.parametrize("words", ["sha256", "aes128gmac-x25519"])
def test_rekey_names_the_protocol_and_loses_no_packet(who, words):
    pair = both(words)
    pair.establish()
    old = pair.alice.child_sa
    flow = pair.start_flow()
    host = getattr(pair, who)

    # CREATE_CHILD_SA SK { N(REKEY_SA), SA, Ni, [KEi], TSi, TSr } -->    then    D(AH)
    host.rekey_child()
    pair.run_for(30)

    pair.check(children=1)
    assert flow.missing == []
    assert pair.alice.child_sa.outbound.spi != old.outbound.spi
    assert pair.alice.child_sa.outbound.protocol is IpsecProtocol.AH
    (rekey,) = notifies(pair, NotifyType.REKEY_SA)
    assert rekey.protocol == ProtocolId.AH
    deletes = [p for m in pair.messages() for p in m.payloads if isinstance(p, DeletePayload)]
    assert [delete.protocol for delete in deletes] == [ProtocolId.AH, ProtocolId.AH]


def test_simultaneous_rekeys_leave_one_child_sa():
    pair = both()
    pair.establish()

    pair.alice.rekey_child()
    pair.bob.rekey_child()
    pair.run_for(60)

    pair.check(children=1)


def test_delete_names_the_protocol_both_ways():
    pair = both()
    pair.establish()
    mark = pair.mark

    pair.bob.delete_child()
    pair.settle()

    assert pair.story(since=mark) == ["<-- INFORMATIONAL SK {D(AH)}", "INFORMATIONAL SK {D(AH)} -->"]
    pair.run_for(20)
    pair.check(children=0)


def test_an_ike_rekey_takes_the_child_sa_along():
    pair = both()
    pair.establish()

    pair.alice.rekey_ike()
    pair.run_for(30)
    pair.bob.rekey_child()
    pair.run_for(30)

    pair.check(children=1)


def test_one_spi_may_be_of_ah_and_of_esp_and_a_delete_takes_the_right_one():
    # RFC 4301 §4.1: an SA is named by SPI, protocol and destination.
    pair = both(others=("dmz",))
    pair.bob.sad.allocate_spi = lambda: pair.bob.sad.reserved.add(0x5001) or 0x5001
    pair.alice.initiate("lan")
    pair.settle()
    pair.alice.initiate("dmz")
    pair.settle()
    assert {sa.outbound.spi for sa in pair.alice.child_sas} == {0x5001}

    # INFORMATIONAL SK { D(ESP) } -->  of Bob: the AH SA with the same SPI stays.
    esp = next(sa for sa in pair.bob.child_sas if sa.child == "dmz")
    pair.bob.delete_child(esp.child_sa_id)
    pair.run_for(30)

    assert [sa.child for sa in pair.alice.child_sas] == ["lan"]
    pair.check(children=1)


def test_a_delete_of_the_other_protocol_deletes_nothing():
    pair = both()
    pair.establish()
    sa = pair.alice.child_sa

    assert sa.outbound.protocol is IpsecProtocol.AH
    ike_sa = pair.alice.endpoint._ike_sas.all()[0]
    spi = sa.outbound.spi.to_bytes(4)
    assert ike_sa.find_outbound(spi, ProtocolId.ESP) is None
    assert ike_sa.find_outbound(spi, ProtocolId.AH) is not None
    assert ike_sa.find_outbound(spi) is not None


# --- NAT --------------------------------------------------------------------------------------------


def test_behind_a_nat_the_initiator_comes_up_without_the_child_sa_and_says_why():
    pair = behind_a_nat(both())

    pair.alice.initiate()
    pair.run_for(20)

    assert pair.alice.ike_sa.state == "established"
    assert pair.alice.child_sas == pair.bob.child_sas == ()
    (failed,) = pair.alice.events(ChildSaFailed)
    assert failed.failure.reason is FailureReason.NO_PROPOSAL_CHOSEN
    assert "AH, which cannot cross a NAT" in failed.failure.detail


def test_behind_a_nat_and_without_childless_the_ike_sa_is_given_up_and_it_is_said_why():
    pair = behind_a_nat(both(ike_options={"childless": Childless.NEVER}))

    pair.alice.initiate()
    pair.run_for(20)

    (failed,) = pair.alice.events(IkeSaFailed)
    assert "AH, which cannot cross a NAT" in failed.failure.detail
    assert pair.alice.ike_sas == ()


def test_the_responder_refuses_ah_through_a_nat_and_says_why():
    # This initiator tries all the same: it takes no notice of the NAT.
    pair = behind_a_nat(both())
    pair.alice.initiate(None)
    pair.run_for(5)
    alice_sa = pair.alice.endpoint._ike_sas.all()[0]
    alice_sa.nat = alice_sa.nat.__class__()
    mark = pair.mark

    # CREATE_CHILD_SA SK { SA, Ni, TSi, TSr } -->
    # <-- CREATE_CHILD_SA SK { N(NO_PROPOSAL_CHOSEN) }
    pair.alice.initiate("lan")
    pair.settle()

    assert pair.story(since=mark) == [
        "CREATE_CHILD_SA SK {SA, Ni, TSi, TSr} -->",
        "<-- CREATE_CHILD_SA SK {N(NO_PROPOSAL_CHOSEN)}",
    ]
    failed = pair.bob.events(ChildSaFailed)[-1]
    assert failed.failure.reason is FailureReason.NO_PROPOSAL_CHOSEN
    assert "NAT" in failed.failure.detail
    assert pair.bob.events(ChildSaEstablished) == []


def test_a_child_of_esp_beside_it_is_not_kept_from_coming_up():
    pair = behind_a_nat(both(others=("dmz",)))

    pair.alice.initiate("dmz")
    pair.run_for(20)

    assert pair.alice.child_sa.outbound.encapsulation is not None
    assert pair.bob.child_sa.outbound.protocol is IpsecProtocol.ESP
