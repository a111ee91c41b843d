"""ipsec.secrets(5) of both dialects, and which pre-shared key is whose: the most specific one."""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gateway.config.foreign.statement import Notes, Place, included, read_text
from gateway.config.foreign.values import ANY_ADDRESSES, identity
from gateway.ipsec.secret import Secret

_TOKEN: Final = re.compile(r"\"[^\"\n]*\"|'[^'\n]*'|[^\s\"']\S*")
_INCLUDE: Final = re.compile(r"include[ \t]+(?:\"([^\"]*)\"|(\S+))\s*$")

_NOT_CARRIED: Final = {
    "EAP": "EAP is not spoken here",
    "NTLM": "EAP is not spoken here",
    "XAUTH": "XAUTH is of IKEv1",
    "PIN": "keys on a token are not used here",
    "P12": "take certificate and key out of the container: openssl pkcs12 -in FILE -nodes",
    "PKCS12": "take certificate and key out of the container: openssl pkcs12 -in FILE -nodes",
    "PPKS": "postquantum pre-shared keys are not carried",
    "PPK": "postquantum pre-shared keys are not carried",
    "BLISS": "BLISS signatures are not made here",
}
_KEY_KINDS: Final = frozenset({"RSA", "ECDSA", "PKCS8", "PRIV"})


@dataclass(frozen=True, slots=True)
class PresharedKey:
    """One pre-shared key and the identities it is for; none: for everybody."""

    ids: tuple[str, ...]
    """As `values.identity` writes them."""
    key: Secret
    """As our configuration writes it, see `our_text`."""
    place: Place


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A private key's file, with its passphrase where it has one."""

    file: str
    """As it stands in the secrets file."""
    passphrase: Secret | None
    place: Place


@dataclass(slots=True)
class Secrets:
    """What the secrets of a configuration have for us."""

    psks: list[PresharedKey] = field(default_factory=list)
    keys: list[KeyFile] = field(default_factory=list)
    used: set[Place] = field(default_factory=set)
    """Places of the keys that some connection took."""

    def psk(self, local: str, remote: str) -> Secret | None:
        """Return the key for two identities (`%any`: not known), the most specific one.

        Raises:
            ValueError: Several fit equally well, and are not the same.
        """
        ranked = [(rank, psk) for psk in self.psks if (rank := _rank(psk, local, remote))]
        if not ranked:
            return None
        best = max(rank for rank, _ in ranked)
        chosen = [psk for rank, psk in ranked if rank == best]
        self.used |= {psk.place for psk in chosen}
        if len({psk.key.reveal() for psk in chosen}) > 1:
            places = ", ".join(str(psk.place) for psk in chosen)
            raise ValueError(f"several pre-shared keys fit {local} and {remote} equally well: {places}")
        return chosen[0].key

    def tell_unused(self, notes: Notes, key_folder: Path, used_keys: Collection[Path]) -> None:
        """Note the secrets that no carried connection has.

        Args:
            notes: Where to note.
            key_folder: What the names of key files are relative to.
            used_keys: Private keys that some connection has.
        """
        for key in self.keys:
            path = key_folder / key.file
            if path not in used_keys:
                why = "no carried connection needs this key" if path.exists() else f"{path} does not exist"
                notes.add(key.place, key.file, why)
        for psk in self.psks:
            if psk.place not in self.used:
                notes.add(psk.place, "PSK", f"no carried connection is between {', '.join(psk.ids) or 'any'}")


def _rank(psk: PresharedKey, local: str, remote: str) -> int:
    """Return how well a key fits: 0 not at all; both identities count more than one, that more than none."""
    if not psk.ids:
        return 1
    ours, theirs = (_fits(psk.ids, name) for name in (local, remote))
    if len(psk.ids) == 1:
        # Of the key for one identity, the other side does not count.
        return 2 * max(ours, theirs)
    return 4 * (ours + theirs) if ours and theirs else 0


def _fits(ids: Iterable[str], name: str) -> int:
    if name != "%any" and name in ids:
        return 2
    # An identity that is not known yet may be any of those that are left.
    return 1 if "%any" in ids or name == "%any" else 0


def our_text(raw: bytes, *, is_literal: bool) -> Secret:
    """Return a secret as our configuration writes it.

    Args:
        raw: The text as it stands.
        is_literal: It means itself, even where it begins with `0x` or `0s`.
    """
    try:
        is_text = raw.decode().isprintable()
    except UnicodeDecodeError:
        is_text = False
    if is_text and not (is_literal and raw[:2].lower() in (b"0x", b"0s")):
        return Secret(raw)
    return Secret(b"0x" + raw.hex().encode())


# --- ipsec.secrets ------------------------------------------------------------------------------


def read_secrets(path: Path, notes: Notes, secrets: Secrets, depth: int = 0) -> None:
    """Add what a secrets file and its includes have.

    Raises:
        ForeignConfigError: It cannot be read.
    """
    for place, text in _entries(path):
        if found := _INCLUDE.match(text):
            for file in included(found[1] or found[2], place, notes, depth):
                read_secrets(file, notes, secrets, depth + 1)
        else:
            _read_entry(_TOKEN.findall(text), place, notes, secrets)


def _entries(path: Path) -> Iterator[tuple[Place, str]]:
    """Yield entries and includes; an indented line goes on with an entry that has no secret yet."""
    begun, parts = 0, ""
    for number, raw in enumerate(read_text(path).split("\n"), 1):
        text = _without_comment(raw)
        if not text.strip():
            continue
        if parts and not (text[0] in " \t" and _wants_more(parts)):
            yield Place(str(path), begun), parts
            parts = ""
        if not parts:
            begun = number
        parts = f"{parts} {text.strip()}".strip()
    if parts:
        yield Place(str(path), begun), parts


def _wants_more(text: str) -> bool:
    tokens = _TOKEN.findall(text)
    if tokens.count("{") > tokens.count("}"):
        return True
    return ":" not in tokens or len(tokens) - tokens.index(":") < 3


def _without_comment(text: str) -> str:
    quote = ""
    for i, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character == "#" and (i == 0 or text[i - 1] in " \t"):
            return text[:i]
    return text


def _read_entry(tokens: list[str], place: Place, notes: Notes, secrets: Secrets) -> None:
    if ":" not in tokens:
        # What stands there is not shown: it may be a secret in the wrong place.
        notes.add(place, "entry", "has no ':' between blanks; `IDENTITIES : KIND SECRET` is expected")
        return
    at = tokens.index(":")
    names, kind, values = tokens[:at], tokens[at + 1 : at + 2], tokens[at + 2 :]
    word = kind[0].upper() if kind else ""
    if word in _NOT_CARRIED:
        notes.add(place, word, _NOT_CARRIED[word])
    elif word == "PSK" and values:
        _read_psk(names, values[0], place, notes, secrets)
    elif word in _KEY_KINDS and values and values[0] != "{":
        passphrase = None if len(values) < 2 or values[1] == "%prompt" else _secret(values[1])
        secrets.keys.append(KeyFile(_unquoted(values[0])[0], passphrase, place))
    elif word in _KEY_KINDS:
        notes.add(place, word, "a key written out in numbers is not carried; convert it to PEM")
    else:
        notes.add(place, "entry", "has no kind of secret that is known, or no secret after it")


def _read_psk(names: list[str], value: str, place: Place, notes: Notes, secrets: Secrets) -> None:
    try:
        ids = tuple(_index(name) for name in names)
    except ValueError as error:
        notes.add(place, "PSK", str(error))
        return
    secrets.psks.append(PresharedKey(ids, _secret(value), place))


def _index(name: str) -> str:
    plain = _unquoted(name)[0]
    if plain in ANY_ADDRESSES:
        return "%any"
    found = re.fullmatch(r"@\[(.+)\]", plain)
    return identity(f"keyid:{found[1]}" if found else plain)


def _unquoted(token: str) -> tuple[str, bool]:
    is_quoted = len(token) > 1 and token[0] in "\"'" and token[-1] == token[0]
    return (token[1:-1], True) if is_quoted else (token, False)


def _secret(token: str) -> Secret:
    text, is_quoted = _unquoted(token)
    if not is_quoted and text[:2].lower() == "0t":
        text, is_quoted = text[2:], True
    elif not is_quoted and text[:2].lower() == "0x":
        text = text.replace("_", "")
    return our_text(text.encode("utf-8", "surrogateescape"), is_literal=is_quoted)
