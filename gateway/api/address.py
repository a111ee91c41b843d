"""Where a service listens: `unix:PATH` or `HOST:PORT`, and the channel to it."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
import grpc.aio

from gateway.ipsec.errors import GatewayError

DEFAULT_CONTROL: Final = "unix:/run/ipsecgw/control.sock"

MAX_MESSAGE_BYTES: Final = 64 << 20
"""Some 200,000 SAs in one list; a batch of ours has a thousand."""

SUN_PATH_BYTES: Final = 107
"""Longest path of a Unix socket (unix(7): 108 with the final zero)."""


class AddressError(GatewayError, ValueError):
    """An address or its credentials cannot be used; the text says what would be right."""


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A Unix socket."""

    path: Path

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A TCP port; the host is a name or an address without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


Address = UnixAddress | TcpAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files of one end of mutual TLS: its own certificate and key, and the CA of the other end."""

    certificate: Path
    key: Path
    ca: Path

    def read(self) -> tuple[bytes, bytes, bytes]:
        """Return the contents of certificate, key and CA.

        Raises:
            AddressError: One of them cannot be read, or they do not fit together. gRPC would only say that
                nobody answers, to the client as to the server.
        """
        contents = _read_pem(self.certificate), _read_pem(self.key), _read_pem(self.ca)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # The empty passphrase keeps OpenSSL from asking at the terminal.
            context.load_cert_chain(self.certificate, self.key, password="")
        except ssl.SSLError as error:
            raise AddressError(
                f"the TLS key {self.key} is not the key of the certificate {self.certificate}, "
                f"or it has a passphrase: {error.reason or error}"
            ) from error
        try:
            context.load_verify_locations(self.ca)
        except ssl.SSLError as error:
            raise AddressError(f"the TLS file {self.ca} holds no usable certificate") from error
        return contents


def _read_pem(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise AddressError(f"cannot read the TLS file {path}: {error.strerror}") from error
    if b"-----BEGIN " not in content:
        raise AddressError(f"the TLS file {path} is not in PEM format")
    return content


def parse_address(text: str) -> Address:
    """Return the address that `text` means.

    Raises:
        AddressError: It is neither `unix:PATH` nor `HOST:PORT`.
    """
    if text.startswith("unix:"):
        path = Path(text.removeprefix("unix:"))
        if not path.is_absolute():
            raise AddressError(f"'{text}': the path of a Unix socket must be absolute, as {DEFAULT_CONTROL}")
        return UnixAddress(path)
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise AddressError(f"'{text}' is not an address: write unix:/PATH or HOST:PORT")
    return TcpAddress(host, int(port))


def dial(address: Address, tls: TlsFiles | None = None) -> grpc.aio.Channel:
    """Return a channel that connects when first used, and again whenever it must.

    Must be called in the event loop that uses the channel.

    Raises:
        AddressError: TCP without TLS files, or TLS files that cannot be read.
    """
    options = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        # A local agent is back in a moment; grpc's own minutes of back-off are meant for the Internet.
        # How long an attempt may take stays as it is: a server that is busy greets a client later than that.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if isinstance(address, UnixAddress):
        return grpc.aio.insecure_channel(str(address), options=options)
    if tls is None:
        raise AddressError(
            f"TCP to {address} needs mutual TLS: give a certificate, its key and the CA of the server,"
            " or use unix:PATH"
        )
    certificate, key, ca = tls.read()
    credentials = grpc.ssl_channel_credentials(ca, key, certificate)
    keepalive = [("grpc.keepalive_time_ms", 20_000), ("grpc.keepalive_timeout_ms", 5_000)]
    return grpc.aio.secure_channel(str(address), credentials, options=options + keepalive)
