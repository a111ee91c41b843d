"""Proposals and transforms, their strongSwan-style text form, and selection (RFC 7296 §2.7, §3.3).

A proposal is written as words joined by `-`; several words of one type are alternatives, in order of
preference: `aes256gcm16-prfsha384-x25519`, `aes256-aes128-sha256-modp2048`. In an IKE proposal without a
PRF word the integrity word names the PRF as well; beside an AEAD the integrity algorithm itself is left
out. `parse_proposal` gives the transforms in the order ENCR, INTEG, PRF, KE, ADDKE, SN, whatever order the
words had.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Final, NamedTuple

from gateway.ipsec.algorithms import (
    ADDITIONAL_KE,
    ENCR,
    INTEG,
    KE,
    PRF,
    PRIVATE_KEYWORDS,
    SN_KEYWORDS,
    Encr,
    Integ,
    Ke,
    Prf,
    Sn,
    Status,
    TransformType,
    algorithm_status,
)
from gateway.ipsec.algorithms import ProtocolId as ProtocolId  # noqa: PLC0414 - a proposal's noun too
from gateway.ipsec.errors import VocabularyError
from gateway.ipsec.implemented import is_implemented


class Transform(NamedTuple):
    """One transform: type, ID and, where the algorithm has variable key lengths, the key length in bits."""

    type: TransformType
    id: int
    key_bits: int | None = None

    def __str__(self) -> str:
        """Return the proposal word of this transform."""
        return format_transform(self)

    @property
    def is_aead(self) -> bool:
        """Whether this is an encryption algorithm that needs no integrity algorithm beside it."""
        return self.type is TransformType.ENCR and self.id in ENCR and ENCR[Encr(self.id)].aead


@dataclass(frozen=True, slots=True)
class Proposal:
    """What one side offers or both agreed on: transforms in order of preference within each type.

    The properties `encr` to `esn` are for an agreed proposal: they raise `VocabularyError` where there is
    more than one transform of their type, or none of a type that must be there.
    """

    protocol: ProtocolId
    transforms: tuple[Transform, ...]

    def __str__(self) -> str:
        """Return the text form; see `format_proposal`."""
        return format_proposal(self)

    def of_type(self, type_: TransformType) -> tuple[Transform, ...]:
        """Return the transforms of one type, in order of preference."""
        return tuple([t for t in self.transforms if t.type is type_])

    @property
    def is_aead(self) -> bool:
        """Whether there are encryption algorithms, all of them AEADs."""
        encr = self.of_type(TransformType.ENCR)
        return bool(encr) and all(t.is_aead for t in encr)

    @property
    def encr(self) -> Encr:
        """The agreed encryption algorithm; NULL in AH, which has none."""
        return Encr(self._encr.id)

    @property
    def key_bits(self) -> int:
        """Key length of the agreed encryption algorithm in bits, without salt; 0 for NULL."""
        transform = self._encr
        if transform.key_bits is None:
            return ENCR[Encr(transform.id)].default_key_bits
        return transform.key_bits

    @property
    def _encr(self) -> Transform:
        absent = Encr.NULL if self.protocol is ProtocolId.AH else None
        return self._single(TransformType.ENCR, absent)

    @property
    def integ(self) -> Integ:
        """The agreed integrity algorithm; NONE beside an AEAD."""
        return Integ(self._single(TransformType.INTEG, absent=Integ.NONE).id)

    @property
    def prf(self) -> Prf:
        """The agreed pseudorandom function (IKE only)."""
        return Prf(self._single(TransformType.PRF).id)

    @property
    def ke(self) -> Ke:
        """The agreed key exchange method; NONE where the proposal has none (ESP without PFS)."""
        return Ke(self._single(TransformType.KE, absent=Ke.NONE).id)

    @property
    def esn(self) -> bool:
        """Whether 64-bit sequence numbers were agreed; no SN transform means 32 bits."""
        return self._single(TransformType.SN, absent=Sn.NO_ESN).id == Sn.ESN

    def _single(self, type_: TransformType, absent: int | None = None) -> Transform:
        found = [t for t in self.transforms if t.type is type_]
        if not found and absent is not None:
            return Transform(type_, absent)
        if len(found) != 1:
            raise VocabularyError(
                f"an agreed proposal has exactly one {type_.name} transform, this one {len(found)}: {self}"
            )
        return found[0]


# --- words --------------------------------------------------------------------------------------


def _encr_words() -> Iterator[tuple[str, Transform]]:
    for info in ENCR.values():
        for template in filter(None, (info.keyword, *info.aliases)):
            if "{}" not in template:
                bits = info.default_key_bits if info.key_length_attribute else None
                yield template, Transform(TransformType.ENCR, info.id, bits)
                continue
            for bits in info.key_bits:
                yield template.format(bits), Transform(TransformType.ENCR, info.id, bits)


def _other_words() -> Iterator[tuple[str, Transform]]:
    for prf in PRF.values():
        if prf.keyword:
            yield prf.keyword, Transform(TransformType.PRF, prf.id)
    for integ in INTEG.values():
        for word in filter(None, (integ.keyword, *integ.aliases)):
            yield word, Transform(TransformType.INTEG, integ.id)
    for ke in KE.values():
        for word in (ke.keyword, *ke.aliases):
            yield word, Transform(TransformType.KE, ke.id)
    for sn, word in SN_KEYWORDS.items():
        yield word, Transform(TransformType.SN, sn)


# The words aes128gmac to aes256gmac are both: the encryption algorithm in ESP, the integrity one in AH.
_AH_WORDS: Final[Mapping[str, Transform]] = dict((*_encr_words(), *_other_words()))
_WORDS: Final[Mapping[str, Transform]] = dict((*_other_words(), *_encr_words()))

_CANONICAL: Final[Mapping[Transform, str]] = {
    transform: word for words in (_AH_WORDS, _WORDS) for word, transform in reversed(list(words.items()))
}
"""The first word of each transform in the tables: reversed, so that it is written last."""

_TYPE_ORDER: Final = (
    TransformType.ENCR,
    TransformType.INTEG,
    TransformType.PRF,
    TransformType.KE,
    *ADDITIONAL_KE,
    TransformType.SN,
)

_ADDITIONAL: Final = re.compile(r"ke([1-7])_(.+)", re.DOTALL)
_NUMBERED: Final = re.compile(r"(encr|prf|integ|ke|sn)\(([0-9]{1,5})(?:/([0-9]{1,5}))?\)")

_TYPE_NAMES: Final[Mapping[TransformType, str]] = {
    TransformType.ENCR: "encryption algorithm",
    TransformType.PRF: "PRF",
    TransformType.INTEG: "integrity algorithm",
    TransformType.KE: "key exchange method",
    TransformType.SN: "sequence number size",
    **{t: f"additional key exchange {n}" for n, t in enumerate(ADDITIONAL_KE, 1)},
}

# What encrypts nothing or has no IV to send cannot make an SK payload (RFC 7296 §3.14, RFC 8750 §5).
_NOT_IN_IKE: Final = frozenset(
    {
        *(Encr.NULL, Encr.NULL_AUTH_AES_GMAC),
        *(Encr.AES_CCM_8_IIV, Encr.AES_GCM_16_IIV, Encr.CHACHA20_POLY1305_IIV),
    }
)


def keywords(protocol: ProtocolId) -> tuple[str, ...]:
    """Return every word that stands for an algorithm of this build in such a proposal, sorted."""
    words = _AH_WORDS if protocol is ProtocolId.AH else _WORDS
    return tuple(
        sorted(
            word
            for word, t in words.items()
            if is_implemented(protocol, t.type, t.id) and _misplaced(t, protocol) is None
        )
    )


def find_keyword(word: str, protocol: ProtocolId = ProtocolId.ESP) -> Transform | None:
    """Return the transform a proposal word stands for, implemented or not; `None` if it is not a word."""
    word = word.lower()
    if match := _ADDITIONAL.fullmatch(word):
        inner = find_keyword(match[2], protocol)
        if inner is None or inner.type is not TransformType.KE:
            return None
        return Transform(ADDITIONAL_KE[int(match[1]) - 1], inner.id, inner.key_bits)
    if match := _NUMBERED.fullmatch(word):
        type_, id_ = TransformType[match[1].upper()], int(match[2])
        return Transform(type_, id_, int(match[3]) if match[3] else None) if id_ <= 0xFFFF else None
    return (_AH_WORDS if protocol is ProtocolId.AH else _WORDS).get(word)


def format_transform(transform: Transform) -> str:
    """Return the word of a transform, or a numbered form such as `encr(1026/128)` where it has none.

    `find_keyword` reads both back.
    """
    if transform.type in ADDITIONAL_KE:
        number = ADDITIONAL_KE.index(transform.type) + 1
        return f"ke{number}_{format_transform(Transform(TransformType.KE, transform.id, transform.key_bits))}"
    if word := _CANONICAL.get(transform):
        return word
    bits = "" if transform.key_bits is None else f"/{transform.key_bits}"
    return f"{transform.type.name.lower()}({transform.id}{bits})"


# --- text form ----------------------------------------------------------------------------------


def parse_proposal(text: str, protocol: ProtocolId, *, implemented_only: bool = True) -> Proposal:
    """Parse a proposal string as strongSwan writes it.

    With `implemented_only` (for configuration) an algorithm that is known but not in this build is an
    error; without it (for display and tests) it is not, and the numbered forms of `format_transform` are
    read too. Weak algorithms are not this function's business: see `check_strength`.

    Raises:
        VocabularyError: A word is unknown, misplaced or not implemented (`column` is its offset), or
            something is missing; the text says what would be right.
    """
    found: list[tuple[int, Transform]] = []
    for column, word in _split(text):
        transform = _parse_word(word, column, protocol, implemented_only=implemented_only)
        if transform not in (t for _, t in found):
            found.append((column, transform))
    _refuse_mixture(found)
    chosen = [t for _, t in found]
    _complete(chosen, protocol, end=len(text))
    ordered = tuple(t for type_ in _TYPE_ORDER for t in chosen if t.type is type_)
    return Proposal(protocol, ordered)


def format_proposal(proposal: Proposal) -> str:
    """Return the text form that `parse_proposal` reads back to an equal proposal.

    A PRF that the integrity words imply, INTEG NONE, and 32-bit sequence numbers are not written.
    """
    words = [format_transform(t) for type_ in _TYPE_ORDER for t in _written(proposal, type_)]
    return "-".join(words)


def format_proposals(proposals: Sequence[Proposal]) -> str:
    """Return several proposals as strongSwan lists them: joined by commas."""
    return ", ".join(format_proposal(proposal) or "nothing" for proposal in proposals) or "nothing"


def _written(proposal: Proposal, type_: TransformType) -> tuple[Transform, ...]:
    transforms = proposal.of_type(type_)
    if type_ is TransformType.INTEG and proposal.is_aead:
        return tuple(t for t in transforms if t.id != Integ.NONE)
    if type_ is TransformType.PRF and not proposal.is_aead:
        implied = tuple(_implied_prfs(proposal.transforms))
        return () if transforms == implied else transforms
    if type_ is TransformType.SN and transforms == (Transform(TransformType.SN, Sn.NO_ESN),):
        return ()
    return transforms


def _split(text: str) -> Iterator[tuple[int, str]]:
    column = 0
    for part in text.split("-"):
        word = part.strip()
        at = column + len(part) - len(part.lstrip())
        if not word:
            raise VocabularyError(
                f"an algorithm word is missing at column {at} of {text!r}; "
                "a proposal is words joined by '-', like aes256gcm16-prfsha384-x25519",
                column=at,
            )
        yield at, word
        column += len(part) + 1


def _parse_word(word: str, column: int, protocol: ProtocolId, *, implemented_only: bool) -> Transform:
    transform = find_keyword(word, protocol)
    numbered = _NUMBERED.search(word.lower()) is not None
    if transform is None or (numbered and implemented_only):
        raise VocabularyError(_unknown(word, protocol), column=column)
    if problem := _misplaced(transform, protocol):
        raise VocabularyError(f"{word}: {problem}", column=column)
    if implemented_only and not is_implemented(protocol, transform.type, transform.id):
        raise VocabularyError(
            f"{word} is known but not implemented for {protocol.name} in this version; "
            f"implemented {_TYPE_NAMES[transform.type]}s: {_advised_words(protocol, transform.type)}",
            column=column,
        )
    return transform


def _unknown(word: str, protocol: ProtocolId) -> str:
    if word.lower() in PRIVATE_KEYWORDS:
        return (
            f"{word} is outside the RFCs (a private-use number or a pre-standard variant of strongSwan's); "
            "it is not implemented, name a standard algorithm"
        )
    near = get_close_matches(word.lower(), keywords(protocol), n=3, cutoff=0.6)
    if near:
        return f"{word!r} is not an algorithm; did you mean {' or '.join(near)}?"
    return f"{word!r} is not an algorithm; one of {_advised_words(protocol)} is expected"


def _advised_words(protocol: ProtocolId, type_: TransformType | None = None) -> str:
    """Return one word for each implemented algorithm that is not weak."""
    known = ((word, find_keyword(word, protocol)) for word in keywords(protocol))
    words = (
        word
        for word, t in known
        if t is not None
        and type_ in (None, t.type)
        and format_transform(t) == word
        and _weakness(t, protocol) is None
    )
    return ", ".join(words) or "none yet"


def _misplaced(transform: Transform, protocol: ProtocolId) -> str | None:
    """Return why the transform has no place in such a proposal, or `None` (RFC 7296 §3.3.3)."""
    type_ = transform.type
    if protocol is ProtocolId.IKE:
        if type_ is TransformType.SN:
            return "sequence number size belongs into an ESP proposal, take the word out"
        if type_ is TransformType.KE and transform.id == Ke.NONE:
            return "an IKE proposal needs a key exchange method, take 'none' out"
        if type_ is TransformType.ENCR and transform.id in _NOT_IN_IKE:
            return "it cannot protect IKE messages; it is for ESP only"
        return None
    if type_ is TransformType.PRF:
        return f"a PRF belongs into an IKE proposal, take it out of the {protocol.name} proposal"
    if type_ is TransformType.ENCR and protocol is ProtocolId.AH:
        return "AH does not encrypt, take the encryption algorithm out"
    return None


def _refuse_mixture(found: Sequence[tuple[int, Transform]]) -> None:
    encr = [(column, t) for column, t in found if t.type is TransformType.ENCR]
    for column, transform in encr[1:]:
        first = encr[0][1]
        if transform.is_aead != first.is_aead:
            raise VocabularyError(
                f"{transform} beside {first}: RFC 7296 §3.3 wants AEADs (GCM, CCM, ChaCha20-Poly1305) and "
                "ciphers with an integrity algorithm in separate proposals; write two",
                column=column,
            )


def _implied_prfs(transforms: Sequence[Transform]) -> Iterator[Transform]:
    for t in transforms:
        if t.type is TransformType.INTEG and t.id in INTEG and (prf := INTEG[Integ(t.id)].implied_prf):
            yield Transform(TransformType.PRF, prf)


def _complete(chosen: list[Transform], protocol: ProtocolId, *, end: int) -> None:
    """Add what the words imply, drop what an AEAD makes superfluous, refuse what is incomplete."""
    present = {t.type for t in chosen}

    def need(type_: TransformType, example: str) -> None:
        if type_ not in present:
            raise VocabularyError(
                f"no {_TYPE_NAMES[type_]} in this {protocol.name} proposal; add one, for example -{example}",
                column=end,
            )

    if protocol is not ProtocolId.AH:
        need(TransformType.ENCR, "aes256gcm16")
    if protocol is ProtocolId.IKE and TransformType.PRF not in present:
        implied = list(dict.fromkeys(_implied_prfs(chosen)))
        chosen.extend(implied)
        present.update(t.type for t in implied)
    if any(t.is_aead for t in chosen):
        chosen[:] = [t for t in chosen if t.type is not TransformType.INTEG]
    else:
        need(TransformType.INTEG, "sha256")
    if protocol is ProtocolId.IKE:
        need(TransformType.PRF, "prfsha256")
        need(TransformType.KE, "x25519")
        return
    if present & set(ADDITIONAL_KE):
        need(TransformType.KE, "x25519")
    if TransformType.SN not in present:
        chosen.append(Transform(TransformType.SN, Sn.NO_ESN))


# --- strength -----------------------------------------------------------------------------------


class WeakAlgorithm(VocabularyError):
    """A proposal names weak algorithms the operator did not allow by name.

    Attributes:
        words: The proposal words concerned.
    """

    def __init__(self, message: str, words: tuple[str, ...]) -> None:
        super().__init__(message)
        self.words = words


def check_strength(proposal: Proposal, allow: Collection[str] = ()) -> list[str]:
    """Return one warning for each weak algorithm that is allowed by name.

    Weak is what RFC 8247 (IKE) or RFC 8221 (ESP, AH) calls MUST NOT or SHOULD NOT, and what the tables
    carry a caution for. `allow` holds proposal words; allowing an integrity word allows the PRF it implies.

    Raises:
        WeakAlgorithm: Something weak is not allowed.
    """
    allowed = set(_allowed(allow, proposal.protocol))
    warnings, refused = [], []
    for transform in proposal.transforms:
        problem = _weakness(transform, proposal.protocol)
        if problem is None:
            continue
        if (transform.type, transform.id) in allowed:
            warnings.append(f"{transform} is allowed although {problem}")
        else:
            refused.append((str(transform), problem))
    if refused:
        words = tuple(word for word, _ in refused)
        reasons = "; ".join(f"{word}: {problem}" for word, problem in refused)
        raise WeakAlgorithm(
            f"weak algorithm refused: {reasons}. Choose another, or add {', '.join(words)} to allow_weak",
            words,
        )
    return warnings


def _allowed(allow: Collection[str], protocol: ProtocolId) -> Iterator[tuple[TransformType, int]]:
    for word in allow:
        transform = find_keyword(word, protocol)
        if transform is not None:
            yield transform.type, transform.id
            yield from ((t.type, t.id) for t in _implied_prfs([transform]))


def _weakness(transform: Transform, protocol: ProtocolId) -> str | None:
    ike = protocol is ProtocolId.IKE
    status, caution = algorithm_status(transform.type, transform.id, ike=ike)
    if status in (Status.MUST_NOT, Status.SHOULD_NOT):
        rfc = "RFC 8247" if ike or transform.type in (TransformType.KE, *ADDITIONAL_KE) else "RFC 8221"
        updated = ", as updated by RFC 9395," if status is Status.MUST_NOT else ""
        return f"{rfc}{updated} says {status.value}"
    return caution or None


# --- selection ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The outcome of a negotiation."""

    index: int
    """Which of the offered proposals was taken."""
    proposal: Proposal
    """Exactly one transform of each type that the offer has."""


def select_offer(
    offered: Sequence[Proposal],
    configured: Sequence[Proposal],
    *,
    prefer_configured: bool = False,
    ignore_ke: bool = False,
) -> Selection | None:
    """Choose one offered proposal and one transform of each type (RFC 7296 §2.7, §3.3.6).

    The order is the initiator's, or ours with `prefer_configured`. Transforms with unknown IDs and other
    key lengths simply do not match. An absent SN means NO_ESN, an absent KE the same as KE NONE; beside an
    AEAD an offered integrity algorithm other than NONE is passed over. `ignore_ke` is for IKE_AUTH, where
    no key exchange can take place (RFC 7296 §1.2): KE transforms on either side do not count, and only a
    KE NONE is answered.
    """
    pairs: Iterator[tuple[int, Proposal]]
    if prefer_configured:
        pairs = ((i, mine) for mine in configured for i in range(len(offered)))
    else:
        pairs = ((i, mine) for i in range(len(offered)) for mine in configured)
    for index, mine in pairs:
        common = _common(offered[index], mine, prefer_configured=prefer_configured, ignore_ke=ignore_ke)
        if not isinstance(common, TransformType):
            return Selection(index=index, proposal=common)
    return None


def select_proposal(
    offered: Sequence[Proposal],
    configured: Sequence[Proposal],
    *,
    prefer_configured: bool = False,
    ignore_ke: bool = False,
) -> Proposal | None:
    """Return the proposal of `select_offer`, or `None`."""
    selection = select_offer(offered, configured, prefer_configured=prefer_configured, ignore_ke=ignore_ke)
    return None if selection is None else selection.proposal


def is_acceptable_answer(answer: Proposal, offered: Sequence[Proposal], *, ignore_ke: bool = False) -> bool:
    """Say whether an answer is one of our offers, with one transform of each type (RFC 7296 §2.7)."""
    types = [t.type for t in answer.transforms]
    if len(types) != len(set(types)):
        return False
    chosen = select_proposal([answer], offered, ignore_ke=ignore_ke)
    if chosen is None:
        return False
    skipped = {TransformType.KE, *ADDITIONAL_KE} if ignore_ke else set()
    return all(t in chosen.transforms for t in answer.transforms if t.type not in skipped)


# What one of many peers offers, the next one offers too. Whoever sent it, what is remembered stays small.
@lru_cache(maxsize=128)
def _common(
    offer: Proposal, mine: Proposal, *, prefer_configured: bool, ignore_ke: bool
) -> Proposal | TransformType:
    """Return the agreement, or the first transform type that has nothing in common."""
    if offer.protocol is not mine.protocol:
        return TransformType.ENCR
    chosen: list[Transform] = []
    offered, configured = _by_type(offer), _by_type(mine)
    for type_ in _TYPE_ORDER:
        theirs, ours = offered.get(type_, ()), configured.get(type_, ())
        if not theirs and not ours:
            continue
        if ignore_ke and (type_ is TransformType.KE or type_ in ADDITIONAL_KE):
            chosen.extend(t for t in theirs if t.id == Ke.NONE)
            continue
        if type_ is TransformType.INTEG and any(t.is_aead for t in chosen):
            chosen.extend(t for t in theirs if t.id == Integ.NONE)
            continue
        first, second = (ours, theirs) if prefer_configured else (theirs, ours)
        absent = _MEANING_OF_ABSENCE.get(type_)
        transform = _first_common(type_, first, second, absent)
        if transform is None:
            return type_
        if transform in theirs:
            chosen.append(transform)
    return Proposal(offer.protocol, tuple(chosen))


def _by_type(proposal: Proposal) -> dict[TransformType, tuple[Transform, ...]]:
    found: dict[TransformType, tuple[Transform, ...]] = {}
    for transform in proposal.transforms:
        found[transform.type] = (*found.get(transform.type, ()), transform)
    return found


_MEANING_OF_ABSENCE: Final[Mapping[TransformType, int]] = {
    TransformType.INTEG: Integ.NONE,
    TransformType.KE: Ke.NONE,
    TransformType.SN: Sn.NO_ESN,
    **dict.fromkeys(ADDITIONAL_KE, Ke.NONE),
}


def _first_common(
    type_: TransformType,
    first: tuple[Transform, ...],
    second: tuple[Transform, ...],
    absent: int | None,
) -> Transform | None:
    if absent is not None:
        nothing = (Transform(type_, absent),)
        first, second = first or nothing, second or nothing
    return next((t for t in first if t in second), None)


def explain_mismatch(
    offered: Sequence[Proposal], configured: Sequence[Proposal], *, ignore_ke: bool = False
) -> str:
    """Return which transform types have nothing in common and what each side has, for the closest pair.

    The text is for an operator: both sides in proposal words, `offered` being the initiator's.
    """
    pairs = [(o, c) for o in offered for c in configured if o.protocol is c.protocol]
    if not pairs:
        theirs, ours = format_proposals(offered), format_proposals(configured)
        return f"nothing to compare: offered {theirs}; configured {ours}"
    differing = {pair: _differing(*pair, ignore_ke=ignore_ke) for pair in pairs}
    offer, mine = min(pairs, key=lambda pair: len(differing[pair]))
    types = differing[offer, mine]
    if not types:
        return "the proposals do match"
    parts = (
        f"no common {_TYPE_NAMES[t]}: offered {_words(offer, t)}, configured {_words(mine, t)}" for t in types
    )
    return f"{'; '.join(parts)} (closest: offered {offer}, configured {mine})"


def _words(proposal: Proposal, type_: TransformType) -> str:
    return ", ".join(map(format_transform, proposal.of_type(type_))) or "none"


def _differing(offer: Proposal, mine: Proposal, *, ignore_ke: bool) -> tuple[TransformType, ...]:
    types = []
    aead = False
    for type_ in _TYPE_ORDER:
        theirs, ours = offer.of_type(type_), mine.of_type(type_)
        if ignore_ke and (type_ is TransformType.KE or type_ in ADDITIONAL_KE):
            continue
        if type_ is TransformType.INTEG and aead:
            continue
        transform = _first_common(type_, theirs, ours, _MEANING_OF_ABSENCE.get(type_))
        if transform is None and (theirs or ours):
            types.append(type_)
        if type_ is TransformType.ENCR:
            # Where not even the cipher is common, the integrity algorithm differs only if both need one.
            aead = transform.is_aead if transform else offer.is_aead or mine.is_aead
    return tuple(types)


def ke_methods(proposals: Sequence[Proposal]) -> tuple[Ke, ...]:
    """Return the known key exchange methods but NONE, each once, in order of preference."""
    ids = (t.id for proposal in proposals for t in proposal.of_type(TransformType.KE))
    return tuple(Ke(id_) for id_ in dict.fromkeys(ids) if id_ in KE and id_ != Ke.NONE)


# --- defaults -----------------------------------------------------------------------------------

# Curves first, by speed; MODP for who has nothing else, 2048 last: RFC 8247 §2.4 still says MUST.
_KE_WORDS: Final = "x25519-ecp256-ecp384-x448-ecp521-modp3072-modp4096-modp2048"
_CBC_WORDS: Final = "aes256-aes128-sha256-sha384-sha512"

DEFAULT_IKE_PROPOSALS: Final = (
    parse_proposal(
        f"aes256gcm16-aes128gcm16-chacha20poly1305-prfsha384-prfsha256-prfsha512-{_KE_WORDS}", ProtocolId.IKE
    ),
    parse_proposal(f"{_CBC_WORDS}-{_KE_WORDS}", ProtocolId.IKE),
)

DEFAULT_ESP_PROPOSALS: Final = (
    parse_proposal(f"aes256gcm16-aes128gcm16-{_KE_WORDS}", ProtocolId.ESP),
    parse_proposal(f"{_CBC_WORDS}-{_KE_WORDS}", ProtocolId.ESP),
    parse_proposal("aes256gcm16-aes128gcm16", ProtocolId.ESP),
    parse_proposal(_CBC_WORDS, ProtocolId.ESP),
)
"""With PFS before without: a peer that rekeys without a key exchange is still answered."""

_MAC_WORDS: Final = "sha256-sha384-sha512"
DEFAULT_AH_PROPOSALS: Final = (
    parse_proposal(f"{_MAC_WORDS}-{_KE_WORDS}", ProtocolId.AH),
    parse_proposal(_MAC_WORDS, ProtocolId.AH),
)


def default_proposals(protocol: ProtocolId) -> tuple[Proposal, ...]:
    """Return what is proposed where the operator names nothing."""
    return _DEFAULTS[protocol]


_DEFAULTS: Final[Mapping[ProtocolId, tuple[Proposal, ...]]] = {
    ProtocolId.IKE: DEFAULT_IKE_PROPOSALS,
    ProtocolId.AH: DEFAULT_AH_PROPOSALS,
    ProtocolId.ESP: DEFAULT_ESP_PROPOSALS,
}
