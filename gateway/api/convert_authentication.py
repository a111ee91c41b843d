"""The bridge between the `Authentication` messages of a connection and how its sides prove who they are.

Certificates and keys are read here, where what is wrong with them can be said at its place: what is no
certificate, a key that does not fit one, an authority that is none, an identity that no certificate confirms.
Private keys and pre-shared keys go in and never come out.
"""

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.api.control.v1 import connection_pb2 as cpb
from gateway.api.convert import EnumBridge
from gateway.api.violations import Violations, at
from gateway.config.secrets import (
    SecretError,
    SecretReference,
    SecretSource,
    decode_text,
    resolve_key,
    resolve_secret,
)
from gateway.ike.crypto.certificate import (
    Certificate,
    CertificateProblem,
    Check,
    read_certificate,
    read_public_key_material,
    split_certificates,
    split_crls,
)
from gateway.ike.crypto.certificate_names import confirms, fingerprint, names_text
from gateway.ike.crypto.chain import check_authority, check_end_entity, check_time
from gateway.ike.crypto.revocation import Crl, read_crl
from gateway.ike.crypto.signature import KeyProblem, PrivateKey, key_hash
from gateway.ipsec.authentication import (
    PSK_AUTHENTICATION,
    WEAK_SCHEMES,
    Authentication,
    AuthMethod,
    Authority,
    OwnCertificate,
    PublicKey,
    Revocation,
    SignatureScheme,
    parse_scheme,
)
from gateway.ipsec.connection import Connection
from gateway.ipsec.errors import VocabularyError
from gateway.ipsec.identity import Identity, IdType
from gateway.ipsec.secret import Secret

REVOCATION: Final = EnumBridge(Revocation, cpb.Revocation, unspecified=Revocation.IFURI)

_EXAMPLES: Final = {
    "local": "{certificate: {certs: [{file: PATH}], key: {file: PATH}}}",
    "remote": "{certificate: {cas: [{file: PATH}]}}",
}


@dataclass(slots=True, kw_only=True)
class SidesAuthentication:
    """How both sides of a connection prove who they are, and the secrets for that."""

    local: Authentication = PSK_AUTHENTICATION
    remote: Authentication = PSK_AUTHENTICATION
    psk: Secret | None = None
    """`None` means to keep the one that is held, where a side has one."""
    private_keys: tuple[PrivateKey, ...] | None = ()
    """`None` means to keep those that are held."""
    crls: tuple[Crl, ...] | None = ()
    """`None` means to keep those that are held."""
    local_id: Identity | None = None
    """Who we are by our certificate, where nothing else is configured."""


def read_authentication(
    message: cpb.Connection, path: str, local_id: Identity | None, violations: Violations
) -> SidesAuthentication:
    """Return how both sides of a connection prove who they are, and note what is wrong with that.

    Args:
        message: The connection.
        path: Its path.
        local_id: Our identity, where one is configured.
        violations: Where to note.
    """
    found = SidesAuthentication()
    reader = _Reader(message, path, violations)
    methods = reader.methods()
    if methods is None:
        return found
    local, remote = methods
    if AuthMethod.PSK in methods:
        found.psk = reader.psk()
    if local is AuthMethod.CERTIFICATE:
        found.local, found.private_keys = reader.own_certificates()
        found.local_id = reader.own_identity(found.local, local_id)
    elif local is AuthMethod.PUBLIC_KEY:
        found.local, found.private_keys = reader.own_public_key()
    if remote is AuthMethod.CERTIFICATE:
        found.remote, found.crls = reader.authorities()
    elif remote is AuthMethod.PUBLIC_KEY:
        found.remote = reader.known_public_keys()
    return found


def is_weak_scheme(word: str) -> bool:
    """Say whether a word of `allow_weak` names a weak signature scheme."""
    return word in {scheme.value for scheme in WEAK_SCHEMES}


def configured_certificates(connection: Connection, path: str) -> Iterator[tuple[str, Certificate]]:
    """Yield path and contents of every certificate that must be in time: our chains, and whom we believe.

    Args:
        connection: Whose certificates.
        path: Its path.
    """
    for i, own in enumerate(connection.local.auth.certificates):
        for der in own.chain:
            yield f"{path}.local.auth.certificate.certs[{i}]", read_certificate(der)
    for authority in connection.remote.auth.authorities:
        yield f"{path}.remote.auth.certificate.cas", read_certificate(authority.certificate)


def out_of_date(connection: Connection, path: str, at_time: float) -> tuple[tuple[str, str], ...]:
    """Return path and text of every certificate of a connection that is not valid at a time.

    Args:
        connection: Whose configured certificates are looked at.
        path: Its path.
        at_time: Unix time.
    """
    problems = []
    for where, certificate in configured_certificates(connection, path):
        try:
            check_time(certificate, at_time)
        except CertificateProblem as problem:
            problems.append((where, str(problem)))
    return tuple(problems)


# --- reading ------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Reader:
    message: cpb.Connection
    path: str
    violations: Violations

    def methods(self) -> tuple[AuthMethod, AuthMethod] | None:
        """Return the methods of both sides; a PSK counts for both if the other says nothing."""
        said: dict[str, AuthMethod | None] = {}
        for name, side in (("local", self.message.local), ("remote", self.message.remote)):
            if not side.HasField("auth"):
                continue
            method = side.auth.WhichOneof("method")
            if method is None:
                self._note(
                    at(name, "auth"),
                    f"is required to name a method: psk, public_key, or as {_EXAMPLES[name]}",
                )
            said[name] = None if method is None else AuthMethod(method)
        if not said:
            self._note("local.auth", "is required: auth: {psk: {file: PATH}}, here or on the remote side")
        if not said or None in said.values():
            return None
        for name, other in (("local", "remote"), ("remote", "local")):
            beside = said.get(other)
            if name not in said and beside is not None and beside is not AuthMethod.PSK:
                self._note(
                    f"{name}.auth",
                    f"is required beside {beside.value} of the {other} side, as {_EXAMPLES[name]}",
                )
                return None
        local, remote = said.get("local", AuthMethod.PSK), said.get("remote", AuthMethod.PSK)
        assert local is not None
        assert remote is not None
        return local, remote

    def _note(self, where: str, text: str) -> None:
        self.violations.add(at(self.path, where), text)

    # --- pre-shared keys --------------------------------------------------------------------------

    def psk(self) -> Secret | None:
        """Return the one PSK of both sides; `None` means to keep the one that is held."""
        keys: list[tuple[str, Secret]] = []
        for name, side in (("local", self.message.local), ("remote", self.message.remote)):
            if side.auth.WhichOneof("method") != "psk":
                continue
            where = f"{name}.auth.psk"
            key = self._read_psk(side.auth.psk, where)
            if key is not None:
                keys.append((where, key))
        if len(keys) == 2 and keys[0][1] != keys[1][1]:
            self._note(keys[1][0], "is not the key of the local side; both sides share one key")
        return keys[0][1] if keys else None

    def _read_psk(self, message: cpb.PreSharedKey, where: str) -> Secret | None:
        source = message.WhichOneof("source")
        if source is None:
            if not message.is_set:
                self._note(where, "is required to name one of file, env, credential or value")
            return None
        if source != "value":
            self._left_to_client(where, source, "the key")
            return None
        reference = self._value(message.value, where)
        if reference is None:
            return None
        try:
            return resolve_secret(reference, base=Path())
        except SecretError as error:
            self._note(f"{where}.value", str(error))
            return None

    def _left_to_client(self, where: str, source: str, what: str) -> None:
        self._note(
            f"{where}.{source}", f"is for the client to read: send {what} as value (`ipsecgw apply` does so)"
        )

    def _value(self, text: str, where: str) -> SecretReference | None:
        if not text:
            self._note(f"{where}.value", "is empty")
            return None
        return SecretReference(SecretSource.VALUE, Secret(text.encode()))

    # --- our side ---------------------------------------------------------------------------------

    def own_certificates(self) -> tuple[Authentication, tuple[PrivateKey, ...] | None]:
        """Return our certificates, and the keys that sign for them; `None` means to keep those held."""
        message, where = self.message.local.auth.certificate, "local.auth.certificate"
        self._not_here(message, where, ("cas", "crls", "intermediates", "revocation"), "remote")
        if not message.certs:
            self._note(f"{where}.certs", "is required: our certificate, as certs: [{file: PATH}]")
        chains = [self._chain(item, f"{where}.certs[{i}]") for i, item in enumerate(message.certs)]
        keys = self._private_keys(message, where)
        for i, chain in enumerate(chains):
            if chain and keys:
                self._fits(chain[0], keys, message, f"{where}.certs[{i}]", f"{where}.key")
        known = self._known_authorities()
        certificates = tuple(_own_certificate(chain, known) for chain in chains if chain)
        return (
            Authentication(
                method=AuthMethod.CERTIFICATE,
                signatures=self._schemes(message.signatures, where),
                certificates=certificates,
            ),
            keys,
        )

    def _chain(self, message: cpb.PublicFile, where: str) -> list[Certificate]:
        """Return the certificates of one entry, the end entity first."""
        chain = self._certificates(message, where)
        if not chain:
            return []
        try:
            check_end_entity(chain[0], chain[0].not_after)
            for above in chain[1:]:
                check_authority(above, above.not_after)
        except CertificateProblem as problem:
            self._note(where, str(problem))
        return chain

    def _fits(
        self,
        certificate: Certificate,
        keys: tuple[PrivateKey, ...],
        message: cpb.CertificateAuthentication,
        where: str,
        key_path: str,
    ) -> None:
        if any(key.public == certificate.public_key for key in keys):
            return
        given = ", ".join(f"{key.public.kind.value} ({fingerprint(key.public.der)})" for key in keys)
        wanted = f"{certificate.public_key.kind.value} ({fingerprint(certificate.public_key.der)})"
        self._note(
            key_path if message.HasField("key") and len(message.certs) == 1 else where,
            f"the private key does not fit the {certificate}: that has the key {wanted}, given is {given}",
        )

    def _private_keys(
        self, message: cpb.CertificateAuthentication, where: str
    ) -> tuple[PrivateKey, ...] | None:
        if message.HasField("key") and message.keys:
            self._note(f"{where}.keys", "is given beside key; give one of them")
        places = [(f"{where}.keys[{i}]", key) for i, key in enumerate(message.keys)]
        if message.HasField("key"):
            places.insert(0, (f"{where}.key", message.key))
        if not places:
            self._note(f"{where}.key", "is required: the private key, as key: {file: PATH}")
            return ()
        if all(key.is_set and key.WhichOneof("source") is None for _, key in places):
            return None
        keys = [self._private_key(key, place) for place, key in places]
        return tuple(key for key in keys if key is not None)

    def _private_key(self, message: cpb.PrivateKey, where: str) -> PrivateKey | None:
        source = message.WhichOneof("source")
        if source is None:
            self._note(where, "is required to name one of file, env, credential or value")
            return None
        if source != "value":
            self._left_to_client(where, source, "the key")
            return None
        reference, passphrase = self._value(message.value, where), None
        if message.HasField("passphrase"):
            passphrase = self._passphrase(message.passphrase, f"{where}.passphrase")
            if passphrase is None:
                return None
        if reference is None:
            return None
        try:
            return PrivateKey.load(resolve_key(reference, base=Path()), passphrase)
        except (SecretError, KeyProblem) as error:
            self._note(where, str(error))
            return None

    def _passphrase(self, message: cpb.Passphrase, where: str) -> Secret | None:
        source = message.WhichOneof("source")
        if source is None:
            self._note(where, "is required to name one of file, env, credential or value")
            return None
        if source != "value":
            self._left_to_client(where, source, "the passphrase")
            return None
        reference = self._value(message.value, where)
        try:
            return None if reference is None else resolve_secret(reference, base=Path())
        except SecretError as error:
            self._note(where, str(error))
            return None

    def own_public_key(self) -> tuple[Authentication, tuple[PrivateKey, ...] | None]:
        """Return our key pair without a certificate."""
        message, where = self.message.local.auth.public_key, "local.auth.public_key"
        keys: tuple[PrivateKey, ...] | None = ()
        public: tuple[PublicKey, ...] = ()
        if not message.HasField("key"):
            self._note(f"{where}.key", "is required: our private key, as key: {file: PATH}")
        elif message.key.is_set and message.key.WhichOneof("source") is None:
            # What is kept is known by its public half, which a response tells.
            keys, public = None, self._public_keys(message, where)
            if len(public) != 1:
                self._note(f"{where}.keys", "is required beside a key that is kept: its public key")
        else:
            if message.keys:
                self._note(f"{where}.keys", "is for the remote side; leave it out, our key is enough")
            key = self._private_key(message.key, f"{where}.key")
            keys = () if key is None else (key,)
            public = tuple(item.public for item in keys)
        signatures = self._schemes(message.signatures, where)
        return Authentication(method=AuthMethod.PUBLIC_KEY, signatures=signatures, public_keys=public), keys

    def own_identity(self, ours: Authentication, configured: Identity | None) -> Identity | None:
        """Check that our certificates confirm who we say we are; return who that is.

        Without an identity in the configuration we are the subject of our first certificate.
        """
        identity = configured
        for i, own in enumerate(ours.certificates):
            certificate = read_certificate(own.chain[0])
            if identity is None:
                identity = Identity(IdType.DER_ASN1_DN, certificate.subject)
            if confirms(certificate, identity):
                continue
            where = "local.id" if configured is not None else f"local.auth.certificate.certs[{i}]"
            names = names_text(certificate)
            self._note(
                where, f"{identity} is not confirmed by our {certificate}, which names {names}; set local.id"
            )
        return identity

    # --- the peer's side --------------------------------------------------------------------------

    def authorities(self) -> tuple[Authentication, tuple[Crl, ...] | None]:
        """Return whom we believe, and the CRLs; `None` means to keep those held."""
        message, where = self.message.remote.auth.certificate, "remote.auth.certificate"
        self._not_here(message, where, ("certs", "key", "keys"), "local")
        if not message.cas:
            self._note(f"{where}.cas", "is required: certificates of authorities, as cas: [{file: PATH}]")
        anchors = self._known(message.cas, f"{where}.cas")
        intermediates = self._known(message.intermediates, f"{where}.intermediates")
        return (
            Authentication(
                method=AuthMethod.CERTIFICATE,
                signatures=self._schemes(message.signatures, where),
                authorities=tuple(
                    Authority(certificate=ca.der, key_hash=key_hash(ca.public_key.der)) for ca in anchors
                ),
                intermediates=tuple(certificate.der for certificate in intermediates),
                revocation=REVOCATION.read(
                    message.revocation, at(self.path, f"{where}.revocation"), self.violations
                )
                or Revocation.IFURI,
            ),
            self._crls(message.crls, f"{where}.crls"),
        )

    def _known(self, messages: Sequence[cpb.PublicFile], where: str) -> tuple[Certificate, ...]:
        """Return certificates of authorities, each once."""
        found: dict[bytes, Certificate] = {}
        for i, message in enumerate(messages):
            for certificate in self._certificates(message, f"{where}[{i}]"):
                try:
                    check_authority(certificate, certificate.not_after)
                except CertificateProblem as problem:
                    self._note(f"{where}[{i}]", str(problem))
                found[certificate.der] = certificate
        return tuple(found.values())

    def _known_authorities(self) -> list[Certificate]:
        """Return what the remote side says of authorities, as far as it can be read; it is judged there."""
        message = self.message.remote.auth.certificate
        quiet = _Reader(self.message, self.path, Violations())
        return [
            certificate
            for item in (*message.cas, *message.intermediates)
            for certificate in quiet._certificates(item, "")
        ]

    def _crls(self, messages: Sequence[cpb.CrlFile], where: str) -> tuple[Crl, ...] | None:
        if len(messages) == 1 and messages[0].is_set and messages[0].WhichOneof("source") is None:
            return None
        found: list[Crl] = []
        for i, message in enumerate(messages):
            material = self._public_material(message, f"{where}[{i}]")
            try:
                found += [] if material is None else [read_crl(der) for der in split_crls(material)]
            except CertificateProblem as problem:
                self._note(f"{where}[{i}]", str(problem))
        return tuple(found)

    def known_public_keys(self) -> Authentication:
        """Return the keys that the peer may have."""
        message, where = self.message.remote.auth.public_key, "remote.auth.public_key"
        if message.HasField("key"):
            self._note(
                f"{where}.key", "is for the local side; the peer's public key goes to keys: [{file: PATH}]"
            )
        if not message.keys:
            self._note(f"{where}.keys", "is required: the peer's public keys, as keys: [{file: PATH}]")
        return Authentication(
            method=AuthMethod.PUBLIC_KEY,
            signatures=self._schemes(message.signatures, where),
            public_keys=self._public_keys(message, where),
        )

    def _public_keys(self, message: cpb.PublicKeyAuthentication, where: str) -> tuple[PublicKey, ...]:
        found: list[PublicKey] = []
        for i, item in enumerate(message.keys):
            material = self._public_material(item, f"{where}.keys[{i}]")
            if material is None:
                continue
            try:
                found.append(read_public_key_material(material))
            except KeyProblem as problem:
                self._note(f"{where}.keys[{i}]", str(problem))
        return tuple(dict.fromkeys(found))

    # --- both -------------------------------------------------------------------------------------

    def _not_here(
        self, message: cpb.CertificateAuthentication, where: str, names: Iterable[str], other: str
    ) -> None:
        for name in names:
            if getattr(message, name) and (name != "key" or message.HasField("key")):
                self._note(f"{where}.{name}", f"is for the {other} side; move it there")

    def _certificates(self, message: cpb.PublicFile, where: str) -> list[Certificate]:
        material = self._public_material(message, where)
        if material is None:
            return []
        try:
            if b"PRIVATE KEY-----" in material and b"-----BEGIN CERTIFICATE-----" not in material:
                raise CertificateProblem(Check.MALFORMED, "is a private key; a certificate is expected here")
            return [read_certificate(der) for der in split_certificates(material)]
        except CertificateProblem as problem:
            self._note(where, str(problem))
            return []

    def _public_material(self, message: cpb.PublicFile | cpb.CrlFile, where: str) -> bytes | None:
        source = message.WhichOneof("source")
        if source is None:
            self._note(where, "is required to name one of file or value")
            return None
        if source != "value":
            self._left_to_client(where, source, "its contents")
            return None
        try:
            return decode_text(message.value)
        except SecretError as error:
            self._note(f"{where}.value", str(error))
            return None

    def _schemes(self, texts: Sequence[str], where: str) -> tuple[SignatureScheme, ...]:
        schemes = []
        for i, text in enumerate(texts):
            try:
                schemes.append(parse_scheme(text, self.message.allow_weak))
            except VocabularyError as error:
                self._note(f"{where}.signatures[{i}]", str(error))
        return tuple(dict.fromkeys(schemes))


def _own_certificate(chain: list[Certificate], known: list[Certificate]) -> OwnCertificate:
    """Return a chain of ours, with the hashes of all authorities above it that are known by name."""
    names, above = {chain[0].issuer}, dict[bytes, bytes]()
    pool = [*chain[1:], *known]
    while found := [ca for ca in pool if ca.subject in names and ca.der not in above]:
        for ca in found:
            above[ca.der] = key_hash(ca.public_key.der)
            names.add(ca.issuer)
    return OwnCertificate(
        # A self-signed certificate proves nothing to anyone who does not have it.
        chain=tuple(c.der for c in chain[:1] + [c for c in chain[1:] if not c.is_self_issued]),
        roots=tuple(c.der for c in chain[1:] if c.is_self_issued),
        public_key=chain[0].public_key,
        authorities=tuple(dict.fromkeys(above.values())),
    )


# --- writing ------------------------------------------------------------------------------------


def write_authentication(
    authentication: Authentication, *, is_local: bool, psk_is_set: bool, crls_are_set: bool
) -> cpb.Authentication | None:
    """Return the message of one side, with no secret."""
    signatures = [scheme.value for scheme in authentication.signatures]
    match authentication.method:
        case AuthMethod.PSK:
            if not psk_is_set:
                return None
            return cpb.Authentication(psk=cpb.PreSharedKey(is_set=True))
        case AuthMethod.PUBLIC_KEY:
            return cpb.Authentication(
                public_key=cpb.PublicKeyAuthentication(
                    key=cpb.PrivateKey(is_set=True) if is_local else None,
                    keys=[_public_file("PUBLIC KEY", (key.der,)) for key in authentication.public_keys],
                    signatures=signatures,
                )
            )
        case AuthMethod.CERTIFICATE:
            return cpb.Authentication(
                certificate=_write_certificate(authentication, signatures, crls_are_set=crls_are_set)
            )


def _write_certificate(
    authentication: Authentication, signatures: list[str], *, crls_are_set: bool
) -> cpb.CertificateAuthentication:
    message = cpb.CertificateAuthentication(
        signatures=signatures,
        revocation=None if authentication.certificates else REVOCATION.write(authentication.revocation),
    )
    for own in authentication.certificates:
        message.certs.append(_public_file("CERTIFICATE", (*own.chain, *own.roots)))
    if authentication.certificates:
        message.key.is_set = True
        return message
    message.cas.extend(_public_file("CERTIFICATE", (ca.certificate,)) for ca in authentication.authorities)
    message.intermediates.extend(_public_file("CERTIFICATE", (der,)) for der in authentication.intermediates)
    if crls_are_set:
        message.crls.add(is_set=True)
    return message


def _public_file(label: str, ders: Iterable[bytes]) -> cpb.PublicFile:
    return cpb.PublicFile(value="".join(_pem(label, der) for der in ders))


def _pem(label: str, der: bytes) -> str:
    text = base64.b64encode(der).decode()
    lines = [text[i : i + 64] for i in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])
