"""Every algorithm that IKE has code for, negotiated and used by two cores: setup, rekey, DPD, PFS, delete.

The tables are generated from `IMPLEMENTED`, so that an algorithm added there is run here. What the suites
look like on the wire is judged by tshark; what they compute, by `tests/unit/ike/crypto/test_vectors.py`.
"""

import os
import shutil
import subprocess

import pytest
from scapy.layers.inet import IP, UDP
from scapy.utils import wrpcap

from gateway.ike.endpoint import EndpointOptions
from gateway.ike.events import ChildSaRekeyed, IkeSaFailed, IkeSaKeysDerived, IkeSaRekeyed
from gateway.ike.wire.header import ExchangeType
from gateway.ike.wire.payloads import KePayload
from gateway.ipsec.algorithms import ENCR, KE, PRF, Encr, Integ, Ke, Prf, ProtocolId, TransformType
from gateway.ipsec.implemented import IMPLEMENTED
from gateway.ipsec.proposal import Transform, format_transform, parse_proposal
from gateway.observe.keylog import KeyLogError, format_ike_sa
from tests.fakes.pair import Pair, Sent

IKE = IMPLEMENTED[ProtocolId.IKE]


def words(type_, *ids):
    return [format_transform(Transform(type_, id_)) for id_ in ids or sorted(IKE[type_])]


CIPHERS = [
    Transform(TransformType.ENCR, id_, bits if ENCR[Encr(id_)].key_length_attribute else None)
    for id_ in sorted(IKE[TransformType.ENCR])
    for bits in ENCR[Encr(id_)].key_bits
]
PRFS = words(TransformType.PRF)
INTEGS = words(TransformType.INTEG, *sorted(IKE[TransformType.INTEG] - {Integ.NONE}))
GROUPS = words(TransformType.KE)

SUITES = [
    *(
        f"{cipher}-prfsha256-x25519" if cipher.is_aead else f"{cipher}-sha256-prfsha256-x25519"
        for cipher in CIPHERS
    ),
    *(f"aes128-{integ}-prfsha256-x25519" for integ in INTEGS),
    *(f"aes128ctr-{integ}-prfsha256-x25519" for integ in INTEGS),
    *(f"aes256gcm16-{prf}-x25519" for prf in PRFS),
    # What an integrity word alone means: the PRF of the same name.
    *(f"aes256-{integ}-x25519" for integ in INTEGS),
]


def derived(host):
    return [event.keys for event in host.events(IkeSaKeysDerived)]


def test_keys_of_ike_sas_are_told_only_where_they_are_asked_for():
    pair = Pair()
    pair.bob.endpoint._context.options = EndpointOptions()

    pair.establish()
    pair.alice.rekey_ike()
    pair.settle()

    assert len(derived(pair.alice)) == 2
    assert not derived(pair.bob)


def key_exchanges(pair):
    return [p for opened in pair.messages() for p in opened.payloads if isinstance(p, KePayload)]


@pytest.mark.parametrize("suite", SUITES)
def test_suite_carries_every_exchange(suite):
    agreed = parse_proposal(suite, ProtocolId.IKE)
    pair = Pair(both={"ike": suite})

    # IKE_SA_INIT, IKE_AUTH
    pair.establish()
    # CREATE_CHILD_SA SK {SA, Ni, KEi} -->
    pair.alice.rekey_ike()
    pair.settle()
    # <-- CREATE_CHILD_SA SK {N(REKEY_SA), SA, Ni, TSi, TSr}
    pair.bob.rekey_child()
    pair.settle()
    # INFORMATIONAL SK {} -->
    pair.alice.check_liveness()
    pair.run_for(10.0)

    pair.check(children=1)
    for host in pair.hosts:
        assert host.ike_sa.proposal.transforms == agreed.transforms
        assert len(host.events(IkeSaRekeyed)) == len(host.events(ChildSaRekeyed)) == 1
    for ours, theirs in zip(derived(pair.alice), derived(pair.bob), strict=True):
        assert (ours.sk_ei, ours.sk_er) == (theirs.sk_ei, theirs.sk_er)
        assert (ours.sk_ai, ours.sk_ar) == (theirs.sk_ai, theirs.sk_ar)
        assert len(ours.sk_ei) == ENCR[agreed.encr].keymat_bytes(agreed.key_bits)
    first, second = derived(pair.alice)
    assert first.sk_ei != second.sk_ei

    # INFORMATIONAL SK {D} -->
    pair.alice.delete_ike()
    pair.settle()
    assert pair.alice.ike_sas == pair.bob.ike_sas == ()


@pytest.mark.parametrize("group", GROUPS)
def test_group_serves_setup_rekey_of_the_ike_sa_and_pfs(group):
    method = next(Ke(k) for k in IKE[TransformType.KE] if group == words(TransformType.KE, k)[0])
    pair = Pair(both={"ike": f"aes256gcm16-prfsha256-{group}", "esp": f"aes256gcm16-{group}"})

    pair.establish()
    pair.bob.rekey_ike()
    pair.settle()
    pair.alice.rekey_child()
    pair.run_for(10.0)

    pair.check(children=1)
    assert pair.alice.ike_sa.proposal.ke is method
    # Six public values: two of IKE_SA_INIT, two of the rekey of the IKE SA, two of the Child SA's with PFS.
    payloads = key_exchanges(pair)
    assert [payload.method for payload in payloads] == [method] * 6
    assert {len(payload.data) for payload in payloads} == {KE[method].public_value_bytes}
    assert len({payload.data for payload in payloads}) == 6


def test_every_prf_makes_keys_of_its_own_length():
    for word in PRFS:
        pair = Pair(both={"ike": f"aes128-sha256-{word}-x25519"})
        pair.establish()
        prf = Prf(pair.alice.ike_sa.proposal.prf)
        assert words(TransformType.PRF, prf) == [word]
        assert PRF[prf].key_bytes == PRF[prf].output_bytes


def test_suites_that_share_nothing_are_told_word_by_word():
    pair = Pair(alice={"ike": "aes192ctr-aesxcbc-x448"}, bob={"ike": "chacha20poly1305-prfaescmac-ecp512bp"})

    pair.alice.initiate()
    pair.run_for(60.0)

    (failed,) = pair.alice.events(IkeSaFailed)
    assert failed.failure.reason.name == "NO_PROPOSAL_CHOSEN"
    told = pair.bob.events(IkeSaFailed)[0].failure.detail
    for part in (
        "no common encryption algorithm: offered aes192ctr, configured chacha20poly1305",
        "no common PRF: offered prfaesxcbc, configured prfaescmac",
        "no common key exchange method: offered x448, configured ecp512bp",
    ):
        assert part in told


# --- what it looks like on the wire -------------------------------------------------------------


def test_tshark_decrypts_and_verifies_every_suite_it_knows(tmp_path):
    """An independent decoder finds key, salt, IV, padding and ICV where we put them."""
    assert shutil.which("tshark"), "tshark is in .ci/packages-test"
    rows, packets, judged = [], [], 0
    for number, suite in enumerate(SUITES, start=1):
        pair = Pair(both={"ike": suite})
        for host, life in ((pair.alice, 2 * number), (pair.bob, 2 * number + 1)):
            host._number = life - 0x10  # each life draws other SPIs
            host.restart()
        pair.establish()
        pair.alice.rekey_ike()
        pair.settle()
        try:
            rows += [
                format_ike_sa(event.ike_sa.spi_i, event.ike_sa.spi_r, event.keys)
                for event in pair.alice.events(IkeSaKeysDerived)
            ]
        except KeyLogError:
            continue  # XCBC, CMAC, ChaCha20-Poly1305, Camellia: Wireshark's tables have no such row
        judged += 1
        packets += [entry.packet for entry in pair.log if isinstance(entry, Sent)]
    frames = [
        IP(src=str(p.source[0]), dst=str(p.destination[0]))
        / UDP(sport=p.source[1], dport=p.destination[1])
        / p.data
        for p in packets
    ]
    wrpcap(str(tmp_path / "suites.pcap"), frames)
    (tmp_path / "ikev2_decryption_table").write_text("\n".join(rows) + "\n")

    result = subprocess.run(
        ["tshark", "-r", tmp_path / "suites.pcap", "-V", "-O", "isakmp"],
        env={**os.environ, "WIRESHARK_CONFIG_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )

    protected = sum(p.data[18] != ExchangeType.IKE_SA_INIT for p in packets)
    # IKE_AUTH, the rekey, and the Delete of the old IKE SA, each a request and a response.
    assert protected == 6 * judged
    assert judged >= 40
    assert result.stdout.count("Decrypted Data") == protected
    assert result.stdout.count("[correct]") == protected
    assert "Malformed" not in result.stdout
