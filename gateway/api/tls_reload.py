"""Certificates of a TCP listener that are replaced on disk are used from the next connection on."""

from typing import Final

import grpc

from gateway.api.address import AddressError, TlsFiles
from gateway.observe.logs import get_logger

_log = get_logger("api")

Stamps = tuple[tuple[int, int, int], ...]
"""Inode, change time and size of each file."""

NOTHING: Final[Stamps] = ()


class TlsReload:
    """The files of one listener, and what was read from them last.

    Files that cannot be read any more, or do not fit together, leave in force what was there before: they
    are looked at again when they change again.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._seen = NOTHING

    def credentials(self) -> grpc.ServerCredentials:
        """Return credentials that look at the files at each new connection.

        Raises:
            AddressError: They cannot be used now.
        """
        self._seen = self._stamps()
        # The types that come with grpc leave out that None means "as before".
        return grpc.dynamic_ssl_server_credentials(
            self._read(),
            self._changed,  # type: ignore[arg-type]
            require_client_authentication=True,
        )

    def _read(self) -> grpc.ServerCertificateConfiguration:
        certificate, key, ca = self._files.read()
        return grpc.ssl_server_certificate_configuration([(key, certificate)], root_certificates=ca)

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return what is to be used from now on; None: what was used so far. gRPC calls it in its threads."""
        stamps = self._stamps()
        if stamps == self._seen:
            return None
        self._seen = stamps
        try:
            configuration = self._read()
        except AddressError as error:
            _log.warning("certificates_not_reloaded", reason=str(error))
            return None
        _log.info("certificates_reloaded", certificate=str(self._files.certificate))
        return configuration

    def _stamps(self) -> Stamps:
        found = []
        for path in (self._files.certificate, self._files.key, self._files.ca):
            try:
                status = path.stat()
            except OSError:
                return NOTHING
            found.append((status.st_ino, status.st_mtime_ns, status.st_size))
        return tuple(found)
