"""Keys, private keys, trusted authorities and CRLs by connection (RFC 4301 §4.4.3): what the core asks for.

Keys stay `Secret`s from the file to the PRF or the library; nothing here formats, logs or compares them
otherwise than `Secret` does. Signatures are made, and certificates judged, at once: the slowest of it
(RSA-4096, a chain of three) takes some milliseconds, and only a peer that proved itself makes us sign as
responder. A key in an HSM, or a revocation service, would answer the same requests later.
"""

from collections.abc import Callable
from dataclasses import dataclass

from gateway.ike.crypto.certificate import Certificate, CertificateProblem, Check, read_certificate
from gateway.ike.crypto.certificate_names import fingerprint
from gateway.ike.crypto.chain import TrustStore, check_time, readable
from gateway.ike.crypto.revocation import Crl
from gateway.ike.crypto.signature import KeyProblem, PrivateKey
from gateway.ike.events import (
    CredentialFound,
    CredentialRequest,
    Refused,
    Signed,
    SignRequest,
    Trusted,
    TrustRequest,
)
from gateway.ipsec.authentication import AuthMethod, PublicKey
from gateway.ipsec.connection import Connection
from gateway.ipsec.secret import Secret


@dataclass(slots=True)
class _Held:
    """What is held for one connection."""

    connection: Connection
    certificates: tuple[Certificate, ...]
    """Our own ones, of end entities."""
    private_keys: tuple[PrivateKey, ...]
    crls: tuple[Crl, ...]
    store: TrustStore


class Credentials:
    """The credentials of every connection; the core has already matched the identities to the connection.

    Args:
        wall_clock: Unix time: certificates and CRLs have dates.
    """

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self._psks: dict[str, Secret] = {}
        self._held: dict[str, _Held] = {}

    # --- keeping ----------------------------------------------------------------------------------

    def set_psk(self, connection: str, psk: Secret) -> None:
        """Keep the key of a connection; the one before is wiped."""
        old = self._psks.get(connection)
        if old is psk:
            return
        self._psks[connection] = psk
        if old is not None and old != psk:
            old.wipe()

    def configure(
        self,
        connection: Connection,
        private_keys: tuple[PrivateKey, ...] | None,
        crls: tuple[Crl, ...] | None,
    ) -> None:
        """Keep what a connection signs and judges with; `None` keeps what is held."""
        held = self._held.get(connection.name)
        if AuthMethod.PSK not in (connection.local.auth.method, connection.remote.auth.method):
            self._forget_psk(connection.name)
        if private_keys is None:
            private_keys = () if held is None else held.private_keys
        if crls is None:
            crls = () if held is None else held.crls
        remote = connection.remote.auth
        store = TrustStore(
            anchors=tuple(read_certificate(authority.certificate) for authority in remote.authorities),
            intermediates=tuple(read_certificate(der) for der in remote.intermediates),
            crls=crls,
            revocation=remote.revocation,
        )
        own = tuple(read_certificate(own.chain[0]) for own in connection.local.auth.certificates)
        self._held[connection.name] = _Held(connection, own, private_keys, crls, store)

    def forget(self, connection: str) -> None:
        """Wipe and forget the credentials of a connection."""
        self._held.pop(connection, None)
        self._forget_psk(connection)

    def _forget_psk(self, connection: str) -> None:
        old = self._psks.pop(connection, None)
        if old is not None:
            old.wipe()

    # --- what is held -----------------------------------------------------------------------------

    def has_psk(self, connection: str) -> bool:
        """Say whether a key is held for the connection."""
        return connection in self._psks

    def is_psk(self, connection: str, psk: Secret) -> bool:
        """Say whether `psk` is the key that is held, in constant time."""
        held = self._psks.get(connection)
        return held is not None and held == psk

    def has_crls(self, connection: str) -> bool:
        """Say whether CRLs are held for the connection."""
        held = self._held.get(connection)
        return held is not None and bool(held.crls)

    def can_sign(self, connection: Connection) -> bool:
        """Say whether every private key is held that the local side of a connection signs with."""
        held = self._held.get(connection.name)
        public = set() if held is None else {key.public for key in held.private_keys}
        return _signing_keys(connection) <= public

    def are_crls(self, connection: str, crls: tuple[Crl, ...]) -> bool:
        """Say whether these are the CRLs that are held."""
        held = self._held.get(connection)
        return held is not None and [crl.library for crl in held.crls] == [crl.library for crl in crls]

    def may_be_revoked(self, connection: str, certificates: tuple[bytes, ...]) -> bool:
        """Say whether a CRL that is held lists the number of one of a peer's certificates, or of one above.

        Numbers are unique for each authority only, and the CRL may be forged: `trust` judges. This is for a
        great many peers, of which a new CRL concerns few.
        """
        held = self._held.get(connection)
        if held is None or not certificates:
            return False
        known = (*readable(certificates), *held.store.intermediates)
        numbers = {certificate.library.serial_number for certificate in known}
        return any(
            crl.library.get_revoked_certificate_by_serial_number(number) is not None
            for crl in held.crls
            for number in numbers
        )

    # --- answering --------------------------------------------------------------------------------

    def find(self, request: CredentialRequest) -> CredentialFound | Refused:
        """Answer the core's question for the key of two identities.

        The core gets a copy of its own, so that a key that is replaced while an IKE_AUTH is under way
        is not wiped under its hands.
        """
        psk = self._psks.get(request.connection)
        if psk is None:
            return Refused("NO_CREDENTIAL", f"no pre-shared key is held for connection {request.connection}")
        return CredentialFound(Secret(psk.reveal()))

    def sign(self, request: SignRequest) -> Signed | Refused:
        """Make a signature by a private key of ours, unless its certificates are out of date."""
        held = self._held.get(request.connection)
        keys = () if held is None else held.private_keys
        key = next((key for key in keys if key.public == request.public_key), None)
        if held is None or key is None:
            return Refused(
                "NO_CREDENTIAL",
                f"no private key is held for the {request.public_key.kind.value} key "
                f"{fingerprint(request.public_key.der)} of connection {request.connection}",
            )
        try:
            self._check_own_certificates(held, request.public_key)
            return Signed(key.sign(request.scheme, request.octets))
        except CertificateProblem as problem:
            return Refused(problem.check.value, f"our own {problem}")
        except KeyProblem as problem:
            return Refused("NO_CREDENTIAL", str(problem))

    def _check_own_certificates(self, held: _Held, key: PublicKey) -> None:
        now = self._wall_clock()
        problem: CertificateProblem | None = None
        for own in held.certificates:
            if own.public_key == key:
                try:
                    check_time(own, now)
                except CertificateProblem as found:
                    problem = found
                else:
                    return
        if problem is not None:
            raise problem

    def trust(self, request: TrustRequest) -> Trusted | Refused:
        """Say by which keys a peer may prove its identity."""
        held = self._held.get(request.connection)
        if held is None:
            return Refused("NO_CREDENTIAL", f"nothing is held for connection {request.connection}")
        try:
            if held.connection.remote.auth.method is AuthMethod.PUBLIC_KEY:
                return Trusted(_known_keys(held.connection.remote.auth.public_keys, request))
            key = held.store.believe(request.certificates, request.remote_id, self._wall_clock())
        except CertificateProblem as problem:
            return Refused(problem.check.value, str(problem))
        return Trusted((key,))


def _signing_keys(connection: Connection) -> set[PublicKey]:
    own = connection.local.auth
    return {certificate.public_key for certificate in own.certificates} | set(own.public_keys)


def _known_keys(known: tuple[PublicKey, ...], request: TrustRequest) -> tuple[PublicKey, ...]:
    """Return those known keys that the peer showed, or all where it showed none (RFC 7670).

    Raises:
        CertificateProblem: It showed others.
    """
    shown = [*request.public_keys]
    if request.certificates:
        # Nothing of a certificate counts here but its key.
        shown.append(read_certificate(request.certificates[0]).public_key)
    found = tuple(key for key in known if key in shown) if shown else known
    if not found:
        theirs = ", ".join(f"{key.kind.value} {fingerprint(key.der)}" for key in shown)
        ours = ", ".join(f"{key.kind.value} {fingerprint(key.der)}" for key in known)
        raise CertificateProblem(
            Check.UNKNOWN_KEY, f"{request.remote_id} showed the key {theirs}; known of it is {ours}"
        )
    return found
