"""What this build can run: nothing without a word, nothing that cannot be, nothing weak by accident."""

import pytest

from gateway.esp import ah, transform
from gateway.ipsec.algorithms import (
    ENCR,
    KE,
    PRF,
    Encr,
    Integ,
    Ke,
    Prf,
    ProtocolId,
    Status,
    TransformType,
    algorithm_status,
)
from gateway.ipsec.implemented import IMPLEMENTED, is_implemented
from gateway.ipsec.proposal import (
    DEFAULT_ESP_PROPOSALS,
    DEFAULT_IKE_PROPOSALS,
    Transform,
    WeakAlgorithm,
    check_strength,
    find_keyword,
    format_transform,
    keywords,
    parse_proposal,
)

IKE, ESP, AH = ProtocolId.IKE, ProtocolId.ESP, ProtocolId.AH
ALL = [(p, t, id_) for p, types in IMPLEMENTED.items() for t, ids in types.items() for id_ in sorted(ids)]


def words_of(protocol, type_, id_):
    """Return the words of an algorithm, one for each key length."""
    if type_ is not TransformType.ENCR:
        return [format_transform(Transform(type_, id_))]
    info = ENCR[Encr(id_)]
    lengths = info.key_bits if info.key_length_attribute else (None,)
    return [format_transform(Transform(type_, id_, bits)) for bits in lengths]


@pytest.mark.parametrize(("protocol", "type_", "id_"), ALL, ids=str)
def test_every_implemented_algorithm_has_words_that_mean_it(protocol, type_, id_):
    if (type_, id_) == (TransformType.INTEG, Integ.NONE):
        return  # what is said by no word

    for word in words_of(protocol, type_, id_):
        assert word in keywords(protocol)
        transform = find_keyword(word, protocol)
        assert (transform.type, transform.id) == (type_, id_)


def test_what_is_unknown_or_elsewhere_is_not_implemented():
    assert is_implemented(IKE, TransformType.KE, Ke.CURVE25519)
    assert not is_implemented(IKE, TransformType.ADDKE1, Ke.CURVE25519)
    assert not is_implemented(IKE, TransformType.ENCR, 1026)
    assert not is_implemented(ESP, TransformType.PRF, Prf.HMAC_SHA2_256)
    assert not is_implemented(AH, TransformType.ENCR, Encr.AES_CBC)


def test_ike_messages_are_always_encrypted_and_authenticated():
    """RFC 7296 §3.14, RFC 8247 §2.1, RFC 8750 §5: neither NULL nor GMAC nor an implicit IV in IKE."""
    ciphers = [ENCR[id_] for id_ in IMPLEMENTED[IKE][TransformType.ENCR]]

    assert all(info.iv_bytes > 0 for info in ciphers)
    assert not {Encr.NULL, Encr.NULL_AUTH_AES_GMAC} & {info.id for info in ciphers}


def test_child_sas_have_the_key_exchanges_of_ike():
    for protocol in (ESP, AH):
        wanted = IMPLEMENTED[IKE][TransformType.KE] | {Ke.NONE}
        assert IMPLEMENTED[protocol][TransformType.KE] == wanted


def test_every_entry_is_held_against_a_second_source():
    """By tests that run over the same sets, so that an entry without fails there.

    IKE: `tests/unit/ike/crypto/test_vectors.py` runs over `IMPLEMENTED`. ESP and AH: `test_scapy.py` and
    `test_ah_scapy.py` in `tests/unit/esp` demand a cell for everything that the packet core supports, which
    must be what can be negotiated.
    """
    encryption = {(encr, bits) for encr, bits in transform.supported_encryption()}
    negotiable = {(Encr(e), bits) for e in IMPLEMENTED[ESP][TransformType.ENCR] for bits in ENCR[e].key_bits}

    assert encryption == negotiable
    assert {*transform.supported_integrity(), Integ.NONE} == IMPLEMENTED[ESP][TransformType.INTEG]
    assert set(ah.supported_integrity()) == IMPLEMENTED[AH][TransformType.INTEG]


@pytest.mark.parametrize(
    ("type_", "table"), [(TransformType.ENCR, ENCR), (TransformType.PRF, PRF), (TransformType.KE, KE)]
)
def test_what_rfc_8247_demands_is_there(type_, table):
    demanded = {id_ for id_, info in table.items() if info.ike in (Status.MUST, Status.SHOULD)}

    assert demanded <= IMPLEMENTED[IKE][type_]


def test_weak_algorithms_with_code_are_these():
    """RFC 8247 §2.1 to §2.4. Who wants one names it in `allow_weak`."""
    weak = {
        format_transform(Transform(type_, id_))
        for protocol, type_, id_ in ALL
        if protocol is IKE
        for status, caution in [algorithm_status(type_, id_, ike=True)]
        if caution or status in (Status.MUST_NOT, Status.SHOULD_NOT)
    }

    assert weak == {"3des", "md5", "prfmd5", "modp1024", "modp1536"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("3des-sha256-modp2048", ["3des"]),
        ("aes128-md5-modp2048", ["md5"]),
        ("aes128gcm16-prfmd5-x25519", ["prfmd5"]),
        ("aes256-sha256-modp1024-modp1536", ["modp1024", "modp1536"]),
    ],
)
def test_weak_algorithms_run_only_where_allow_weak_names_them(text, words):
    proposal = parse_proposal(text, IKE)

    with pytest.raises(WeakAlgorithm):
        check_strength(proposal)
    for word in words:
        with pytest.raises(WeakAlgorithm):
            check_strength(proposal, [w for w in words if w != word])
    assert check_strength(proposal, words)


def test_defaults_hold_implemented_algorithms_only():
    for proposal in (*DEFAULT_IKE_PROPOSALS, *DEFAULT_ESP_PROPOSALS):
        for wanted in proposal.transforms:
            assert is_implemented(proposal.protocol, wanted.type, wanted.id), str(wanted)
