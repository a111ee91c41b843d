"""What strongSwan's `auth` values and the directories of credentials mean in our `auth`.

strongSwan loads every key of a directory and takes whichever fits a certificate; our configuration names the
file. So certificates and keys are opened here, to be matched; only their paths come out.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gateway.config.foreign.draft import Plain, without_defaults
from gateway.config.secrets import SecretError, read_public_file
from gateway.ike.crypto.certificate import (
    CertificateProblem,
    read_certificate,
    read_public_key_material,
    split_certificates,
    split_crls,
)
from gateway.ike.crypto.signature import KeyProblem, PrivateKey
from gateway.ipsec.authentication import PublicKey
from gateway.ipsec.secret import Secret

_HASHES: Final = ("sha256", "sha384", "sha512")
_SCHEMES: Final = {
    "rsa": ("rsa-pss-{}", "rsa-pkcs1-{}"),
    "rsa/pss": ("rsa-pss-{}",),
    "ecdsa": ("ecdsa-{}",),
    "ed25519": ("ed25519",),
    "ed448": ("ed448",),
}
BESIDE_PSK: Final = "is of no use beside a pre-shared key"
_ANY_KIND: Final = frozenset({"pubkey", "rsasig", "ecdsasig", "any"})
_PSK: Final = frozenset({"psk", "secret"})
_NOT_SPOKEN: Final = {"eap": "EAP", **dict.fromkeys(("xauth", "xauthpsk", "xauthrsasig"), "XAUTH")}
_MIN_BITS: Final = {"rsa": 2048, "rsa/pss": 2048, "ecdsa": 256}
"""What is asked of a key here, whatever is configured."""


@dataclass(frozen=True, slots=True)
class Method:
    """How one side proves who it is."""

    is_psk: bool
    signatures: tuple[str, ...] = ()
    """Empty: all but weak ones."""


def method(text: str) -> Method:
    """Return what a value of `auth`, `leftauth` or `authby` means.

    Raises:
        ValueError: We have nothing of that kind; the text says why.
    """
    words = text.lower().replace("ike:", "").split("-")
    if words[0] in _PSK and len(words) == 1:
        return Method(is_psk=True)
    if words[0] in _NOT_SPOKEN:
        raise ValueError(f"{_NOT_SPOKEN[words[0]]} is not spoken here")
    kinds: list[str] = []
    schemes: list[str] = []
    bounds: list[str] = []
    for word in words:
        if word in _ANY_KIND:
            kinds = list(_SCHEMES)
        elif word in _SCHEMES:
            kinds = [word] if word not in kinds else kinds
            bounds.append(word)
        elif word.isdecimal() and bounds:
            if int(word) > _MIN_BITS.get(bounds[-1], 0):
                raise ValueError(
                    f"a key strength of {word} bits cannot be demanded; ours is {_MIN_BITS[bounds[-1]]}"
                )
        elif word in _HASHES and kinds:
            schemes += [template.format(word) for kind in kinds for template in _SCHEMES[kind]]
        elif word == "identity" and kinds:
            schemes += [scheme for scheme in ("ed25519", "ed448") if scheme in kinds]
        elif word == "sha1" and kinds:
            raise ValueError("signatures with SHA-1 are weak; name rsa-pkcs1-sha1 in our file if you must")
        else:
            raise ValueError(f"'{text}' is no way to authenticate that we have")
    if not schemes and len(kinds) < len(_SCHEMES):
        schemes = [t.format(name) for kind in kinds for name in _HASHES for t in _SCHEMES[kind]]
    return Method(is_psk=False, signatures=tuple(dict.fromkeys(schemes)))


@dataclass(slots=True, kw_only=True)
class Store:
    """Where a configuration keeps its credentials."""

    certificates: Path
    authorities: Path
    crls: Path
    public_keys: Path
    keys: list[tuple[Path, Secret | None]] = field(default_factory=list)
    """Private keys with their passphrases."""
    more_authorities: list[Path] = field(default_factory=list)
    """Named in sections of their own."""
    more_crls: list[Path] = field(default_factory=list)
    used: set[Path] = field(default_factory=set)
    """Private keys that some connection has."""

    def own(self, certs: Sequence[str], pubkeys: Sequence[str], wish: Method) -> dict[str, Plain]:
        """Return our `auth` by certificates, or by a raw public key.

        Raises:
            ValueError: Something is missing or cannot be read; the text says what.
        """
        if pubkeys and not certs:
            path = self.public_keys / pubkeys[0]
            return {
                "public_key": without_defaults(
                    {"key": self._key_for(path), "signatures": list(wish.signatures)}
                )
            }
        if not certs:
            raise ValueError("names no certificate of ours: write which one (certs = FILE)")
        paths = [self.certificates / name for name in certs]
        keys: list[dict[str, Plain]] = []
        for path in paths:
            key = self._key_for(path)
            if key not in keys:
                keys.append(key)
        return {
            "certificate": without_defaults(
                {
                    "certs": _files(paths),
                    "key": keys[0] if len(keys) == 1 else None,
                    "keys": keys if len(keys) > 1 else None,
                    "signatures": list(wish.signatures),
                }
            )
        }

    def known(self, files: Iterable[str], folder: Path, wish: Method) -> dict[str, Plain]:
        """Return the `auth` of a peer whose very keys are known."""
        keys = _files(folder / name for name in files)
        return {"public_key": without_defaults({"keys": keys, "signatures": list(wish.signatures)})}

    def believed(self, cacerts: Sequence[str], wish: Method, revocation: str) -> dict[str, Plain]:
        """Return the `auth` of a peer whom an authority certifies: those named, or all there are.

        Raises:
            ValueError: There is none.
        """
        named = [self.authorities / name for name in cacerts]
        found = named or [*_all_in(self.authorities, split_certificates), *self.more_authorities]
        if not found:
            raise ValueError(f"no certificate of an authority is named, and none is in {self.authorities}")
        return {
            "certificate": without_defaults(
                {
                    "cas": _files(dict.fromkeys(found)),
                    "crls": _files(dict.fromkeys([*_all_in(self.crls, split_crls), *self.more_crls])),
                    "revocation": revocation,
                    "signatures": list(wish.signatures),
                }
            )
        }

    def _key_for(self, path: Path) -> dict[str, Plain]:
        wanted = _public_key(path)
        failures = []
        for file, passphrase in self.keys:
            try:
                material = file.read_bytes()
                if PrivateKey.load(Secret(material), passphrase).public == wanted:
                    self.used.add(file)
                    return without_defaults({"file": str(file), "passphrase": passphrase})
            except OSError as error:
                failures.append(f"{file} cannot be read: {error.strerror}")
            except KeyProblem as problem:
                failures.append(f"{file} {problem}")
        seen = "; ".join(failures) or f"{len(self.keys)} keys were looked at"
        raise ValueError(f"no private key fits {path} ({seen})")


def _public_key(path: Path) -> PublicKey:
    try:
        material = read_public_file(str(path), base=Path("/"))
        try:
            return read_certificate(split_certificates(material)[0]).public_key
        except CertificateProblem:
            return read_public_key_material(material)
    except (SecretError, KeyProblem) as error:
        raise ValueError(str(error)) from None


def _files(paths: Iterable[Path]) -> list[dict[str, str]]:
    return [{"file": str(path)} for path in paths]


def _all_in(folder: Path, split: Callable[[bytes], object]) -> list[Path]:
    """Return the files of a directory that hold what `split` reads, sorted; others are passed over."""
    if not folder.is_dir():
        return []
    found = []
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        try:
            split(path.read_bytes())
        except CertificateProblem:
            continue
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from None
        found.append(path)
    return found


def crl_file(uri: str) -> Path | None:
    """Return the file of a CRL's URI; None for what would have to be fetched."""
    found = re.fullmatch(r"file://(/.+)", uri)
    return Path(found[1]) if found else None
