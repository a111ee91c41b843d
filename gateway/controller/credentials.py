"""The pre-shared keys of the configured connections, found by connection and identities (RFC 4301 §4.4.3).

Keys stay `Secret`s from the file to the PRF; nothing here formats, logs or compares them otherwise than
`Secret` does.
"""

from gateway.ike.events import CredentialFound, CredentialRequest, Refused
from gateway.ipsec.secret import Secret


class Credentials:
    """One pre-shared key per connection; the core has already matched the identities to the connection."""

    def __init__(self) -> None:
        self._psks: dict[str, Secret] = {}

    def set_psk(self, connection: str, psk: Secret) -> None:
        """Keep the key of a connection; the one before is wiped."""
        old = self._psks.get(connection)
        if old is psk:
            return
        self._psks[connection] = psk
        if old is not None and old != psk:
            old.wipe()

    def forget(self, connection: str) -> None:
        """Wipe and forget the key of a connection."""
        old = self._psks.pop(connection, None)
        if old is not None:
            old.wipe()

    def has_psk(self, connection: str) -> bool:
        """Say whether a key is held for the connection."""
        return connection in self._psks

    def is_psk(self, connection: str, psk: Secret) -> bool:
        """Say whether `psk` is the key that is held, in constant time."""
        held = self._psks.get(connection)
        return held is not None and held == psk

    def find(self, request: CredentialRequest) -> CredentialFound | Refused:
        """Answer the core's question for the key of two identities.

        The core gets a copy of its own, so that a key that is replaced while an IKE_AUTH is under way
        is not wiped under its hands.
        """
        psk = self._psks.get(request.connection)
        if psk is None:
            return Refused("NO_CREDENTIAL", f"no pre-shared key is held for connection {request.connection}")
        return CredentialFound(Secret(psk.reveal()))
