"""Certificates of a TCP listener that are replaced on disk are used from the next connection on."""

import grpc

from gateway.api.address import AddressError, TlsFiles
from gateway.host.file_stamps import FileStamps
from gateway.observe.logs import get_logger

_log = get_logger("api")


class TlsReload:
    """The files of one listener, and what was read from them last.

    Files that cannot be read any more, or do not fit together, leave in force what was there before: they
    are looked at again when they change again.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._stamps = FileStamps(files.certificate, files.key, files.ca)

    def credentials(self) -> grpc.ServerCredentials:
        """Return credentials that look at the files at each new connection.

        Raises:
            AddressError: They cannot be used now.
        """
        self._stamps.have_changed()
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
        if not self._stamps.have_changed():
            return None
        try:
            configuration = self._read()
        except AddressError as error:
            _log.warning("certificates_not_reloaded", reason=str(error))
            return None
        _log.info("certificates_reloaded", certificate=str(self._files.certificate))
        return configuration
