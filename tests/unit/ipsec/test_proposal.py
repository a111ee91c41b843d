"""Proposal strings both ways, strength, selection and the explanation of a mismatch."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ipsec.algorithms import ENCR, INTEG, KE, PRF, Encr, Integ, Ke, Prf, Sn, TransformType
from gateway.ipsec.errors import VocabularyError
from gateway.ipsec.proposal import (
    DEFAULT_ESP_PROPOSALS,
    DEFAULT_IKE_PROPOSALS,
    Proposal,
    ProtocolId,
    Transform,
    WeakAlgorithm,
    check_strength,
    default_proposals,
    explain_mismatch,
    find_keyword,
    format_proposal,
    format_proposals,
    format_transform,
    is_acceptable_answer,
    ke_methods,
    keywords,
    parse_proposal,
    select_offer,
    select_proposal,
)

IKE, ESP, AH = ProtocolId.IKE, ProtocolId.ESP, ProtocolId.AH
T, ENCR_, PRF_, INTEG_, KE_, SN_ = (
    Transform,
    TransformType.ENCR,
    TransformType.PRF,
    TransformType.INTEG,
    TransformType.KE,
    TransformType.SN,
)


def ike(text: str) -> Proposal:
    return parse_proposal(text, IKE, implemented_only=False)


def esp(text: str) -> Proposal:
    return parse_proposal(text, ESP, implemented_only=False)


# --- parsing ------------------------------------------------------------------------------------

PARSED = [
    (IKE, "aes256gcm16-prfsha384-x25519",
     [T(ENCR_, Encr.AES_GCM_16, 256), T(PRF_, Prf.HMAC_SHA2_384), T(KE_, Ke.CURVE25519)]),
    (IKE, "aes256-sha256-modp2048",
     [T(ENCR_, Encr.AES_CBC, 256), T(INTEG_, Integ.HMAC_SHA2_256_128), T(PRF_, Prf.HMAC_SHA2_256),
      T(KE_, Ke.MODP_2048)]),
    # The integrity word of an AEAD proposal names the PRF and nothing else.
    (IKE, "aes256gcm16-sha2_512-modp2048",
     [T(ENCR_, Encr.AES_GCM_16, 256), T(PRF_, Prf.HMAC_SHA2_512), T(KE_, Ke.MODP_2048)]),
    # A named PRF wins over the integrity word.
    (IKE, "aes128-sha256-prfsha512-ecp256",
     [T(ENCR_, Encr.AES_CBC, 128), T(INTEG_, Integ.HMAC_SHA2_256_128), T(PRF_, Prf.HMAC_SHA2_512),
      T(KE_, Ke.ECP_256)]),
    # Any order; alternatives keep theirs.
    (IKE, "modp3072-sha512-aes128-sha256-aes256-x25519",
     [T(ENCR_, Encr.AES_CBC, 128), T(ENCR_, Encr.AES_CBC, 256), T(INTEG_, Integ.HMAC_SHA2_512_256),
      T(INTEG_, Integ.HMAC_SHA2_256_128), T(PRF_, Prf.HMAC_SHA2_512), T(PRF_, Prf.HMAC_SHA2_256),
      T(KE_, Ke.MODP_3072), T(KE_, Ke.CURVE25519)]),
    (ESP, "aes256gcm16", [T(ENCR_, Encr.AES_GCM_16, 256), T(SN_, Sn.NO_ESN)]),
    (ESP, "aes256gcm16-sha256", [T(ENCR_, Encr.AES_GCM_16, 256), T(SN_, Sn.NO_ESN)]),
    (ESP, "aes128-sha256-esn",
     [T(ENCR_, Encr.AES_CBC, 128), T(INTEG_, Integ.HMAC_SHA2_256_128), T(SN_, Sn.ESN)]),
    (ESP, "aes128gcm128-esn-noesn-none",
     [T(ENCR_, Encr.AES_GCM_16, 128), T(KE_, Ke.NONE), T(SN_, Sn.ESN), T(SN_, Sn.NO_ESN)]),
    (ESP, " AES256GCM16 - X25519 ",
     [T(ENCR_, Encr.AES_GCM_16, 256), T(KE_, Ke.CURVE25519), T(SN_, Sn.NO_ESN)]),
]  # fmt: skip


@pytest.mark.parametrize(("protocol", "text", "transforms"), PARSED, ids=[p[1] for p in PARSED])
def test_parse(protocol, text, transforms):
    assert parse_proposal(text, protocol) == Proposal(protocol, tuple(transforms))


@pytest.mark.parametrize(
    ("protocol", "text", "encr"),
    [
        (IKE, "chacha20poly1305-prfsha256-x448", T(ENCR_, Encr.CHACHA20_POLY1305)),
        (IKE, "3des-sha1-modp1024", T(ENCR_, Encr.TRIPLE_DES)),
        (IKE, "aes-md5-modp1024s160", T(ENCR_, Encr.AES_CBC, 128)),
        (IKE, "aes256ccm8-prfaescmac-ecp384bp", T(ENCR_, Encr.AES_CCM_8, 256)),
        (IKE, "aes192gcm96-prfaesxcbc-curve25519-ke1_mlkem768", T(ENCR_, Encr.AES_GCM_12, 192)),
        (IKE, "blowfish192-sha384-ecp521", T(ENCR_, Encr.BLOWFISH, 192)),
        (IKE, "cast128-sha-modp768", T(ENCR_, Encr.CAST, 128)),
        (IKE, "camellia256ctr-aesxcbc-modp8192", T(ENCR_, Encr.CAMELLIA_CTR, 256)),
        (ESP, "null-sha256", T(ENCR_, Encr.NULL)),
        (ESP, "aes256gmac", T(ENCR_, Encr.NULL_AUTH_AES_GMAC, 256)),
        (ESP, "des-sha1_160-modp1536", T(ENCR_, Encr.DES)),
    ],
)
def test_words_beyond_this_build_are_known(protocol, text, encr):
    proposal = parse_proposal(text, protocol, implemented_only=False)

    assert proposal.of_type(ENCR_) == (encr,)
    assert parse_proposal(format_proposal(proposal), protocol, implemented_only=False) == proposal


def test_additional_key_exchanges_have_their_own_types():
    proposal = ike("aes256gcm16-prfsha384-x25519-ke1_mlkem768-ke2_none")

    assert proposal.of_type(TransformType.ADDKE1) == (T(TransformType.ADDKE1, Ke.ML_KEM_768),)
    assert str(proposal) == "aes256gcm16-prfsha384-x25519-ke1_mlkem768-ke2_none"


def test_gmac_is_an_integrity_algorithm_in_ah():
    proposal = parse_proposal("aes128gmac", AH, implemented_only=False)

    assert proposal.of_type(INTEG_) == (T(INTEG_, Integ.AES_128_GMAC),)
    assert str(proposal) == "aes128gmac"


REFUSED = [
    (IKE, "aes256gcm17-prfsha256-x25519", 0, "did you mean aes256gcm16"),
    (IKE, "aes256-sha265-x25519", 7, "did you mean sha256"),
    (IKE, "aes256-sha256-qqqqqqq", 14, "x25519"),
    (IKE, "camellia256ccm8-prfsha256-x25519", 0, "known but not implemented for IKE"),
    (IKE, "aes256-sha256-ecp224", 14, "key exchange methods: ecp256, .*x25519"),
    (AH, "md5", 0, "known but not implemented for AH"),
    (IKE, "aes256gcm16-prfsha256-x25519-ke1_mlkem768", 29, "not implemented"),
    (IKE, "aes256gcm16-x25519", 18, "no PRF"),
    (IKE, "aes256-prfsha256-x25519", 23, "no integrity algorithm"),
    (IKE, "aes256-sha256", 13, "no key exchange method"),
    (IKE, "sha256-x25519", 13, "no encryption algorithm"),
    (IKE, "aes256-sha256-none", 14, "needs a key exchange"),
    (IKE, "aes256-sha256-x25519-esn", 21, "ESP"),
    (IKE, "null-sha256-x25519", 0, "ESP only"),
    (IKE, "aes256-aes256gcm16-sha256-x25519", 7, "separate proposals"),
    (IKE, "aes256--x25519", 7, "missing"),
    (IKE, "", 0, "missing"),
    (IKE, "aes256-sha256-x25519-", 21, "missing"),
    (IKE, "aes256-sha256_96-x25519", 7, "outside the RFCs"),
    (ESP, "aes256", 6, "no integrity algorithm"),
    (ESP, "aes256gcm16-prfsha256", 12, "IKE proposal"),
    (ESP, "encr(20/256)", 0, "not an algorithm"),
    (AH, "aes256gcm16-sha256", 0, "AH does not encrypt"),
]


@pytest.mark.parametrize(
    ("protocol", "text", "column", "hint"), REFUSED, ids=[f"{p[0].name}:{p[1]}" for p in REFUSED]
)
def test_bad_text_is_refused_with_its_place_and_what_would_be_right(protocol, text, column, hint):
    with pytest.raises(VocabularyError, match=hint) as caught:
        parse_proposal(text, protocol)

    assert caught.value.column == column


def test_additional_key_exchange_needs_a_first_one():
    with pytest.raises(VocabularyError, match="no key exchange method"):
        esp("aes256gcm16-ke1_mlkem768")


def test_keywords_are_those_that_parse():
    assert {"aes256gcm16", "sha2_512", "x25519", "curve25519", "esn", "none"} <= set(keywords(ESP))
    assert {"none", "esn"}.isdisjoint(keywords(IKE))
    assert "prfsha256" not in keywords(ESP)
    assert "3des" in keywords(IKE)
    assert "blowfish128" not in keywords(IKE)


# --- round trips --------------------------------------------------------------------------------

IKE_WORDS = {
    "aead": [format_transform(T(ENCR_, i.id, b if i.key_length_attribute else None))
             for i in ENCR.values() if i.aead and i.keyword and i.id is not Encr.NULL_AUTH_AES_GMAC
             for b in i.key_bits],
    "cipher": [format_transform(T(ENCR_, i.id, b if i.key_length_attribute else None))
               for i in ENCR.values() if not i.aead and i.keyword and i.id is not Encr.NULL
               for b in i.key_bits],
    "integ": [i.keyword for i in INTEG.values() if i.keyword and "gmac" not in i.keyword],
    "prf": [i.keyword for i in PRF.values() if i.keyword],
    "ke": [i.keyword for i in KE.values() if i.id is not Ke.NONE],
}  # fmt: skip


def some(kind: str, minimum: int = 1):
    return st.lists(st.sampled_from(IKE_WORDS[kind]), min_size=minimum, max_size=4, unique=True)


@given(data=st.data())
def test_ike_proposals_round_trip(data):
    aead = data.draw(st.booleans())
    words = data.draw(some("aead" if aead else "cipher"))
    words += data.draw(some("integ", 0 if aead else 1))
    words += data.draw(some("prf", 1 if aead else 0)) + data.draw(some("ke"))
    proposal = ike("-".join(data.draw(st.permutations(words))))

    assert ike(str(proposal)) == proposal
    assert format_proposal(ike(str(proposal))) == str(proposal)


@given(data=st.data())
def test_esp_proposals_round_trip(data):
    aead = data.draw(st.booleans())
    words = data.draw(some("aead" if aead else "cipher"))
    words += [] if aead else data.draw(some("integ"))
    words += data.draw(some("ke", 0))
    words += data.draw(st.lists(st.sampled_from(["esn", "noesn"]), max_size=2, unique=True))
    proposal = esp("-".join(words))

    assert esp(str(proposal)) == proposal


@given(
    type_=st.sampled_from(list(TransformType)),
    id_=st.integers(0, 65535),
    key_bits=st.none() | st.integers(0, 65535),
)
def test_any_transform_has_a_word_that_reads_back(type_, id_, key_bits):
    transform = T(type_, id_, key_bits)

    assert find_keyword(format_transform(transform)) == transform


@given(st.text(max_size=60))
def test_any_text_is_a_proposal_or_a_vocabulary_error(text):
    for protocol in ProtocolId:
        column: int | None = 0
        try:
            parse_proposal(text, protocol)
        except VocabularyError as error:
            column = error.column
        assert column is not None
        assert 0 <= column <= len(text)


# --- accessors ----------------------------------------------------------------------------------


def test_accessors_of_an_agreed_ike_proposal():
    chosen = ike("aes256-sha384-prfsha512-ecp384")

    assert (chosen.encr, chosen.key_bits) == (Encr.AES_CBC, 256)
    assert (chosen.integ, chosen.prf, chosen.ke) == (Integ.HMAC_SHA2_384_192, Prf.HMAC_SHA2_512, Ke.ECP_384)


def test_accessors_of_an_agreed_esp_proposal():
    chosen = esp("chacha20poly1305-esn")

    assert (chosen.encr, chosen.key_bits, chosen.integ) == (Encr.CHACHA20_POLY1305, 256, Integ.NONE)
    assert (chosen.ke, chosen.esn) == (Ke.NONE, True)
    assert Proposal(ESP, (T(ENCR_, Encr.AES_GCM_16, 128),)).esn is False


def test_accessors_refuse_alternatives():
    with pytest.raises(VocabularyError, match="exactly one ENCR"):
        _ = esp("aes256gcm16-aes128gcm16").encr


# --- strength -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("proposal", "words"),
    [
        (ike("aes256-sha256-modp1024"), ("modp1024",)),
        (ike("3des-md5-modp768"), ("3des", "md5", "prfmd5", "modp768")),
        (esp("des-sha256"), ("des",)),
        (esp("null-sha256"), ("null",)),
        (esp("aes256gcm16-modp1536"), ("modp1536",)),
        (esp("3des-sha256"), ("3des",)),
    ],
    ids=str,
)
def test_weak_algorithms_are_refused_unless_allowed_by_name(proposal, words):
    with pytest.raises(WeakAlgorithm) as caught:
        check_strength(proposal)

    assert caught.value.words == words
    warnings = check_strength(proposal, words)
    assert len(warnings) == len(words)
    assert all(word in warning for word, warning in zip(words, warnings, strict=True))


def test_allowing_one_weak_algorithm_does_not_allow_another():
    with pytest.raises(WeakAlgorithm, match="modp1024: RFC 8247 says SHOULD NOT"):
        check_strength(ike("3des-sha256-modp1024"), ["3des"])


def test_allowing_an_integrity_word_allows_the_prf_it_implies():
    assert len(check_strength(ike("aes128-md5-modp2048"), ["md5"])) == 2


@pytest.mark.parametrize("proposal", [*DEFAULT_IKE_PROPOSALS, *DEFAULT_ESP_PROPOSALS], ids=str)
def test_defaults_are_strong_and_implemented(proposal):
    assert check_strength(proposal) == []
    assert parse_proposal(str(proposal), proposal.protocol) == proposal


def test_every_protocol_has_defaults():
    assert default_proposals(IKE) is DEFAULT_IKE_PROPOSALS
    assert default_proposals(ESP) is DEFAULT_ESP_PROPOSALS
    assert [proposal.protocol for proposal in default_proposals(AH)] == [AH, AH]


def test_agreed_ah_proposal_has_no_encryption():
    proposal = parse_proposal("aes256gmac-x25519-esn", AH)

    assert (proposal.encr, proposal.key_bits) == (Encr.NULL, 0)
    assert (proposal.integ, proposal.ke, proposal.esn) == (Integ.AES_256_GMAC, Ke.CURVE25519, True)


def test_agreed_esp_proposal_without_encryption_is_a_mistake():
    with pytest.raises(VocabularyError):
        _ = Proposal(ESP, (Transform(TransformType.INTEG, Integ.HMAC_SHA2_256_128),)).encr


# --- selection ----------------------------------------------------------------------------------

SELECTED = [
    ("the initiator's order of proposals",
     [ike("aes128-sha256-modp2048"), ike("aes256gcm16-prfsha384-x25519")],
     [ike("aes256gcm16-prfsha384-x25519"), ike("aes128-sha256-modp2048")],
     {}, 0, "aes128-sha256-modp2048"),
    ("our order of proposals",
     [ike("aes128-sha256-modp2048"), ike("aes256gcm16-prfsha384-x25519")],
     [ike("aes256gcm16-prfsha384-x25519"), ike("aes128-sha256-modp2048")],
     {"prefer_configured": True}, 1, "aes256gcm16-prfsha384-x25519"),
    ("the initiator's order of transforms",
     [ike("aes128-aes256-sha256-modp2048-x25519")], [ike("aes256-aes128-sha256-x25519-modp2048")],
     {}, 0, "aes128-sha256-modp2048"),
    ("our order of transforms",
     [ike("aes128-aes256-sha256-modp2048-x25519")], [ike("aes256-aes128-sha256-x25519-modp2048")],
     {"prefer_configured": True}, 0, "aes256-sha256-x25519"),
    ("another key length is another algorithm",
     [ike("aes128-sha256-x25519")], [ike("aes256-sha256-x25519")], {}, None, None),
    ("unknown transforms are passed over",
     [ike("encr(1026/256)-aes256-integ(1026)-sha256-prf(9)-prfsha256-ke(1030)-x25519")],
     [ike("aes256-sha256-x25519")], {}, 0, "aes256-sha256-x25519"),
    ("a second proposal when the first has nothing for us",
     [ike("3des-sha1-modp1024"), ike("aes256-sha256-x25519")], [ike("aes256-sha256-x25519")],
     {}, 1, "aes256-sha256-x25519"),
    ("PFS on one side only", [esp("aes256gcm16-x25519")], [esp("aes256gcm16")], {}, None, None),
    ("PFS wanted by us only", [esp("aes256gcm16")], [esp("aes256gcm16-x25519")], {}, None, None),
    ("PFS is left out in IKE_AUTH",
     [esp("aes256gcm16-x25519")], [esp("aes256gcm16")], {"ignore_ke": True}, 0, "aes256gcm16"),
    ("PFS of ours is left out in IKE_AUTH",
     [esp("aes256gcm16")], [esp("aes256gcm16-modp2048")], {"ignore_ke": True}, 0, "aes256gcm16"),
    ("KE NONE is answered",
     [esp("aes256gcm16-x25519-none")], [esp("aes256gcm16")], {}, 0, "aes256gcm16-none"),
    ("KE NONE of ours is an absent KE",
     [esp("aes256gcm16")], [esp("aes256gcm16-x25519-none")], {}, 0, "aes256gcm16"),
    ("ESN only", [esp("aes256gcm16-esn")], [esp("aes256gcm16")], {}, None, None),
    ("ESN is optional",
     [esp("aes256gcm16-esn-noesn")], [esp("aes256gcm16")], {}, 0, "aes256gcm16"),
    ("an absent SN is NO_ESN",
     [Proposal(ESP, (T(ENCR_, Encr.AES_GCM_16, 256),))], [esp("aes256gcm16-noesn-esn")],
     {}, 0, "aes256gcm16"),
    ("an absent SN is not ESN",
     [Proposal(ESP, (T(ENCR_, Encr.AES_GCM_16, 256),))], [esp("aes256gcm16-esn")], {}, None, None),
    ("a protocol of its own", [esp("aes256gcm16")], [parse_proposal("sha256", AH)], {}, None, None),
    ("an additional key exchange we do not have",
     [ike("aes256gcm16-prfsha256-x25519-ke1_mlkem768")], [ike("aes256gcm16-prfsha256-x25519")],
     {}, None, None),
    ("an additional key exchange that may be NONE",
     [ike("aes256gcm16-prfsha256-x25519-ke1_mlkem768-ke1_none")], [ike("aes256gcm16-prfsha256-x25519")],
     {}, 0, "aes256gcm16-prfsha256-x25519-ke1_none"),
    ("nothing offered", [], [esp("aes256gcm16")], {}, None, None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("offered", "configured", "options", "index", "chosen"),
    [s[1:] for s in SELECTED],
    ids=[s[0] for s in SELECTED],
)
def test_selection(offered, configured, options, index, chosen):
    selection = select_offer(offered, configured, **options)

    if index is None:
        assert selection is None
        return
    assert selection is not None
    assert (selection.index, str(selection.proposal)) == (index, chosen)
    types = [t.type for t in selection.proposal.transforms]
    assert len(types) == len(set(types))
    assert set(selection.proposal.transforms) <= set(offered[index].transforms)


def test_aead_offer_with_integ_none_is_answered_with_it():
    none = T(INTEG_, Integ.NONE)
    offer = Proposal(ESP, (T(ENCR_, Encr.AES_GCM_16, 256), none, T(SN_, Sn.NO_ESN)))

    chosen = select_proposal([offer], [esp("aes256gcm16")])

    assert chosen == offer
    assert chosen.integ is Integ.NONE


def test_mixed_offer_gives_an_aead_without_integrity_algorithm():
    offer = Proposal(
        ESP,
        (T(ENCR_, Encr.AES_CBC, 256), T(ENCR_, Encr.AES_GCM_16, 256), T(INTEG_, Integ.HMAC_SHA2_256_128)),
    )

    assert str(select_proposal([offer], [esp("aes256gcm16")])) == "aes256gcm16"
    assert str(select_proposal([offer], [esp("aes256-sha256")])) == "aes256-sha256"


@pytest.mark.parametrize(
    ("answer", "good"),
    [
        (esp("aes256gcm16-x25519"), True),
        (esp("aes128gcm16-x25519"), True),
        (esp("aes256gcm16-aes128gcm16-x25519"), False),
        (esp("aes256gcm16-modp2048"), False),
        (esp("aes256gcm16"), False),
        (esp("aes256gcm16-x25519-esn"), False),
        (esp("aes256gcm8-x25519"), False),
    ],
    ids=str,
)
def test_answer_must_be_one_of_the_offers(answer, good):
    assert is_acceptable_answer(answer, [esp("aes256gcm16-aes128gcm16-x25519")]) is good


def test_answer_in_ike_auth_may_leave_out_the_key_exchange():
    assert is_acceptable_answer(esp("aes256gcm16"), [esp("aes256gcm16-x25519")], ignore_ke=True)


def test_answer_with_a_superfluous_integrity_algorithm_is_refused():
    answer = Proposal(ESP, (*esp("aes256gcm16").transforms, T(INTEG_, Integ.HMAC_SHA2_256_128)))

    assert not is_acceptable_answer(answer, [esp("aes256gcm16")])


@given(st.lists(st.sampled_from(DEFAULT_ESP_PROPOSALS), min_size=1, max_size=3))
def test_what_is_selected_is_an_acceptable_answer(offered):
    chosen = select_proposal(offered, DEFAULT_ESP_PROPOSALS)

    assert chosen is not None
    assert is_acceptable_answer(chosen, offered)


# --- explanation --------------------------------------------------------------------------------


def test_explanation_names_the_type_and_both_sides():
    text = explain_mismatch([ike("aes256-sha256-modp1024-modp1536")], [ike("aes256-sha256-x25519-ecp256")])

    assert "no common key exchange method: offered modp1024, modp1536, configured x25519, ecp256" in text
    assert "encryption" not in text


def test_explanation_takes_the_closest_pair():
    text = explain_mismatch(
        [ike("3des-sha1-modp1024"), ike("aes128-sha256-x25519")],
        [ike("aes256gcm16-prfsha384-ecp384"), ike("aes256-sha256-x25519")],
    )

    assert text.startswith("no common encryption algorithm: offered aes128, configured aes256 (closest")


def test_explanation_tells_of_a_missing_key_exchange_and_of_esn():
    text = explain_mismatch([esp("aes256gcm16-x25519-esn")], [esp("aes256gcm16")])

    assert "key exchange method: offered x25519, configured none" in text
    assert "sequence number size: offered esn, configured noesn" in text
    assert "key exchange" not in explain_mismatch(
        [esp("aes256gcm16-x25519-esn")], [esp("aes256gcm16")], ignore_ke=True
    )


def test_explanation_without_anything_to_compare():
    assert "offered nothing; configured aes256gcm16" in explain_mismatch([], [esp("aes256gcm16")])


def test_explanation_of_a_match_says_so():
    assert "do match" in explain_mismatch([esp("aes256gcm16")], [esp("aes256gcm16")])


def test_key_exchange_methods_come_in_order_of_preference():
    proposals = [ike("aes256gcm16-prfsha256-x25519-ke(1030)-ecp256"), esp("aes256gcm16-ecp256-none-modp2048")]

    assert ke_methods(proposals) == (Ke.CURVE25519, Ke.ECP_256, Ke.MODP_2048)
    assert format_proposals([esp("aes256gcm16"), esp("aes128gcm16")]) == "aes256gcm16, aes128gcm16"


def test_a_proposal_without_anything_to_say_is_called_nothing():
    """What a strange peer offers is told to the operator all the same."""
    empty = Proposal(ESP, (T(SN_, Sn.NO_ESN),))

    assert str(empty) == ""
    assert format_proposals([empty, esp("aes256gcm16")]) == "nothing, aes256gcm16"
    assert format_proposals([]) == "nothing"
