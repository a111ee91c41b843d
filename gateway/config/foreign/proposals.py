"""Proposals of strongSwan's and libreswan's dialects as strings of ours.

A word that we do not have is taken out, and told, where the proposal still means something without it. Weak
algorithms are carried, because the tunnel needs them today: each is named in `allow_weak`, and told.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from gateway.ipsec.algorithms import TransformType
from gateway.ipsec.errors import VocabularyError
from gateway.ipsec.proposal import (
    ProtocolId,
    WeakAlgorithm,
    check_strength,
    default_proposals,
    find_keyword,
    parse_proposal,
)

DEFAULT_WORD: Final = "default"
_ADDITIONAL_KE: Final = re.compile(r"ke[1-7]_", re.IGNORECASE)


@dataclass(slots=True)
class Carried:
    """What became of one list of proposals."""

    proposals: list[str] = field(default_factory=list)
    allow_weak: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, text: str, protocol: ProtocolId) -> None:
        """Carry one proposal, without the words that we do not have."""
        words = text.split("-")
        while words:
            try:
                proposal = parse_proposal("-".join(words), protocol)
                break
            except VocabularyError as error:
                wrong = _word_at("-".join(words), error.column)
                self.problems.append(str(error))
                # Without an additional key exchange (RFC 9370) it would be another, weaker proposal.
                if wrong not in words or _ADDITIONAL_KE.match(wrong):
                    return
                words.remove(wrong)
        else:
            return
        try:
            check_strength(proposal, ())
        except WeakAlgorithm as error:
            self.problems.append(
                f"{', '.join(error.words)} is weak, and carried by `allow_weak`: replace it soon"
            )
            self.allow_weak += [word for word in error.words if word not in self.allow_weak]
        if str(proposal) not in self.proposals:
            self.proposals.append(str(proposal))


def _word_at(text: str, column: int | None) -> str:
    """Return the word that an error is about; nothing where it is about the proposal as a whole."""
    if column is None or column >= len(text):
        return ""
    return text[column:].split("-", maxsplit=1)[0]


def strongswan(items: Sequence[str], protocol: ProtocolId) -> Carried:
    """Carry proposals in strongSwan's words; `default` is our default."""
    carried = Carried()
    for item in items:
        if item.lower() == DEFAULT_WORD:
            carried.proposals += [str(proposal) for proposal in default_proposals(protocol)]
        else:
            carried.add(item, protocol)
    if [item.lower() for item in items] == [DEFAULT_WORD]:
        carried.proposals.clear()
    return carried


# --- libreswan ----------------------------------------------------------------------------------

_ICV: Final = {"": "16", "a": "8", "b": "12", "c": "16", "8": "8", "12": "12", "16": "16"}
_BITS: Final = ("256", "128")
"""Of a cipher without a size IKEv2 offers both, the longer first."""

_MACS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("sha", "sha1", "hmac_sha1", "hmac_sha1_96"), "sha1"),
    **dict.fromkeys(("sha2", "sha256", "sha2_256", "hmac_sha2_256", "hmac_sha2_256_128"), "sha256"),
    **dict.fromkeys(("sha384", "sha2_384", "hmac_sha2_384", "hmac_sha2_384_192"), "sha384"),
    **dict.fromkeys(("sha512", "sha2_512", "hmac_sha2_512", "hmac_sha2_512_256"), "sha512"),
    **dict.fromkeys(("md5", "hmac_md5", "hmac_md5_96"), "md5"),
    **dict.fromkeys(("aes_xcbc", "aes128_xcbc", "aes_xcbc_96"), "aesxcbc"),
    **dict.fromkeys(("aes_cmac", "aes_cmac_96"), "aescmac"),
}
_GROUPS: Final[Mapping[str, str]] = {
    **{f"dh{number}": f"modp{bits}" for number, bits in ((2, 1024), (5, 1536), (14, 2048), (15, 3072))},
    **{f"dh{number}": f"modp{bits}" for number, bits in ((16, 4096), (17, 6144), (18, 8192))},
    **{f"dh{number}": f"ecp{bits}" for number, bits in ((19, 256), (20, 384), (21, 521))},
    **{f"ecp_{bits}": f"ecp{bits}" for bits in (256, 384, 521)},
    **dict.fromkeys(("dh31", "curve25519", "x25519"), "x25519"),
    **{f"modp{bits}": f"modp{bits}" for bits in (1024, 1536, 2048, 3072, 4096, 6144, 8192)},
    **dict.fromkeys(("dh0", "none", "null"), "modpnone"),
}
_DEFAULT_MACS: Final = ("sha512", "sha256")
_DEFAULT_GROUPS: Final = (
    *("modp2048", "modp3072", "modp4096", "modp8192"),
    *("ecp256", "ecp384", "ecp521", "x25519"),
)
"""What libreswan 4.10 fills in where a proposal names none (its `algparse` tells them)."""

_FAMILIES: Final = (
    (re.compile(r"aes_(gcm|ccm)(?:_([abc]|8|12|16))?[_-]?(128|192|256)?"), "aes{bits}{mode}{icv}"),
    (re.compile(r"aes_?(ctr)()[_-]?(128|192|256)?"), "aes{bits}ctr"),
    (re.compile(r"(?:aes(?:_cbc)?)()()[_-]?(128|192|256)?"), "aes{bits}"),
    (re.compile(r"(?:camellia(?:_cbc)?)()()[_-]?(128|192|256)?"), "camellia{bits}"),
    (re.compile(r"(?:null_auth_aes_gmac|aes_gmac)()()[_-]?(128|192|256)?"), "aes{bits}gmac"),
)
_CIPHERS: Final = {
    "3des": "3des",
    "3des_cbc": "3des",
    "null": "null",
    "chacha20_poly1305": "chacha20poly1305",
}


def libreswan(text: str, protocol: ProtocolId, *, pfs_groups: Sequence[str] = (), esn: str = "") -> Carried:
    """Carry proposals in libreswan's words: `aes_gcm256+aes_gcm128-sha2;dh14,aes256-sha1`.

    Args:
        text: The value of `ike`, `esp` or `ah`.
        protocol: Which of the three it is.
        pfs_groups: For Child SAs with PFS: the groups of the IKE SA, used where the proposal has none.
        esn: The words for the size of sequence numbers that each proposal ends with.
    """
    carried = Carried()
    for item in (part.strip() for part in text.lower().split(",")):
        if not item:
            continue
        try:
            ciphers, macs, groups = _three(item, protocol)
        except ValueError as error:
            carried.problems.append(str(error))
            continue
        if protocol is ProtocolId.IKE:
            groups = groups or list(_DEFAULT_GROUPS)
        else:
            groups = (groups or list(pfs_groups)) if pfs_groups else []
        aead = [word for word in ciphers if _is_aead(word)]
        plain = [word for word in ciphers if word not in aead]
        # One string mixes no AEADs with other ciphers.
        for kind in filter(None, (aead, plain)):
            carried.add(
                "-".join([*kind, *_checks(kind, macs, protocol), *groups, *filter(None, [esn])]), protocol
            )
        if protocol is ProtocolId.AH:
            carried.add("-".join([*macs, *groups, *filter(None, [esn])]), protocol)
    return carried


def groups_of(proposals: Iterable[str]) -> tuple[str, ...]:
    """Return the key exchange words of IKE proposals, each once; libreswan's default without proposals."""
    words = [word for text in proposals for word in text.split("-")]
    found = [word for word in words if (t := find_keyword(word)) is not None and t.type is TransformType.KE]
    return tuple(dict.fromkeys(found)) or _DEFAULT_GROUPS


def defaults(protocol: ProtocolId, *, has_pfs: bool, esn: str) -> list[str]:
    """Return our default proposals of a Child SA, without PFS those without a key exchange, with `esn`."""
    chosen = [p for p in default_proposals(protocol) if has_pfs or not p.of_type(TransformType.KE)]
    return ["-".join(filter(None, (str(proposal), esn))) for proposal in chosen]


def _checks(ciphers: Sequence[str], macs: list[str], protocol: ProtocolId) -> list[str]:
    """Return the words for integrity or, of an AEAD in IKE, for the PRF."""
    if not _is_aead(ciphers[0]):
        return macs or list(_DEFAULT_MACS)
    return [f"prf{word}" for word in macs or _DEFAULT_MACS] if protocol is ProtocolId.IKE else []


def _is_aead(word: str) -> bool:
    transform = find_keyword(word)
    return transform is not None and transform.is_aead


def _three(item: str, protocol: ProtocolId) -> tuple[list[str], list[str], list[str]]:
    """Return the words for ciphers, integrity and groups of one proposal."""
    front, _, behind = item.partition(";")
    # `aes_gcm-256` is one algorithm with its size.
    fields = re.sub(r"-(?=(?:128|192|256)(?:[-;]|$))", "_", front).split("-")
    if protocol is ProtocolId.AH:
        fields.insert(0, "")
    fields += [""] * (3 - len(fields))
    ciphers, macs, groups = fields[0], fields[1], "+".join(filter(None, (*fields[2:], behind)))
    # `aes128-dh14` leaves integrity to the default.
    if macs and all(word in _GROUPS and word not in ("none", "null") for word in macs.split("+")):
        macs, groups = "", f"{macs}+{groups}".strip("+")
    return (
        [word for name in ciphers.split("+") if name for word in _cipher(name)],
        [_look_up(_MACS, name, item) for name in macs.split("+") if name not in ("", "null", "none")],
        [_look_up(_GROUPS, name, item) for name in groups.split("+") if name],
    )


def _cipher(name: str) -> list[str]:
    if name in _CIPHERS:
        return [_CIPHERS[name]]
    for pattern, template in _FAMILIES:
        if found := pattern.fullmatch(name):
            mode, icv, bits = found[1], found[2], found[3]
            sizes = (bits,) if bits else _BITS
            return [template.format(bits=size, mode=mode, icv=_ICV[icv or ""]) for size in sizes]
    raise ValueError(f"'{name}' is no cipher that we have")


def _look_up(table: Mapping[str, str], name: str, item: str) -> str:
    if name not in table:
        raise ValueError(f"'{name}' in '{item}' is no algorithm that we have")
    return table[name]
