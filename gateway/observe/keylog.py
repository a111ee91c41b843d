"""Key tables for Wireshark and tshark: `ikev2_decryption_table` and `esp_sa`.

Off unless the operator names a directory; then announced at WARNING. The files are Wireshark UAT files,
readable by their owner only, and appended to: point `WIRESHARK_CONFIG_DIR` at the directory, or give it to
`ipsecgw inspect --keys`. The algorithm names are exactly those of Wireshark's lists: a row with another
one makes it refuse the whole file.
"""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from gateway.ike.events import IkeSaKeys, IkeSaKeysDerived
from gateway.ipsec.algorithms import ENCR, Encr, Integ, TransformType, iana_name
from gateway.ipsec.errors import GatewayError
from gateway.ipsec.sa import IpsecProtocol, SecurityAssociation
from gateway.ipsec.secret import Secret
from gateway.observe.logs import get_logger

_log = get_logger(__name__)

IKEV2_TABLE: Final = "ikev2_decryption_table"
ESP_TABLE: Final = "esp_sa"

_IKE_ENCR: Final[Mapping[tuple[Encr, int], str]] = {
    (Encr.TRIPLE_DES, 192): "3DES [RFC2451]",
    (Encr.NULL, 0): "NULL [RFC2410]",
    **{(Encr.AES_CBC, bits): f"AES-CBC-{bits} [RFC3602]" for bits in (128, 192, 256)},
    **{(Encr.AES_CTR, bits): f"AES-CTR-{bits} [RFC5930]" for bits in (128, 192, 256)},
    **{
        (encr, bits): f"AES-{mode}-{bits} with {icv} octet ICV [RFC5282]"
        for encr, mode, icv in (
            (Encr.AES_CCM_8, "CCM", 8),
            (Encr.AES_CCM_12, "CCM", 12),
            (Encr.AES_CCM_16, "CCM", 16),
            (Encr.AES_GCM_8, "GCM", 8),
            (Encr.AES_GCM_12, "GCM", 12),
            (Encr.AES_GCM_16, "GCM", 16),
        )
        for bits in (128, 192, 256)
    },
}
_IKE_INTEG: Final[Mapping[Integ, str]] = {
    Integ.NONE: "NONE [RFC4306]",
    Integ.HMAC_MD5_96: "HMAC_MD5_96 [RFC2403]",
    Integ.HMAC_SHA1_96: "HMAC_SHA1_96 [RFC2404]",
    Integ.HMAC_SHA1_160: "HMAC_SHA1_160 [RFC4595]",
    Integ.HMAC_SHA2_256_128: "HMAC_SHA2_256_128 [RFC4868]",
    Integ.HMAC_SHA2_384_192: "HMAC_SHA2_384_192 [RFC4868]",
    Integ.HMAC_SHA2_512_256: "HMAC_SHA2_512_256 [RFC4868]",
}
_ESP_ENCR: Final[Mapping[Encr, str]] = {
    Encr.NULL: "NULL",
    Encr.TRIPLE_DES: "TripleDES-CBC [RFC2451]",
    Encr.AES_CBC: "AES-CBC [RFC3602]",
    Encr.AES_CTR: "AES-CTR [RFC3686]",
    Encr.AES_GCM_8: "AES-GCM with 8 octet ICV [RFC4106]",
    Encr.AES_GCM_12: "AES-GCM with 12 octet ICV [RFC4106]",
    Encr.AES_GCM_16: "AES-GCM with 16 octet ICV [RFC4106]",
}
_ESP_INTEG: Final[Mapping[Integ, str]] = {
    Integ.NONE: "NULL",
    Integ.HMAC_MD5_96: "HMAC-MD5-96 [RFC2403]",
    Integ.HMAC_SHA1_96: "HMAC-SHA-1-96 [RFC2404]",
    Integ.HMAC_SHA2_256_128: "HMAC-SHA-256-128 [RFC4868]",
    Integ.HMAC_SHA2_384_192: "HMAC-SHA-384-192 [RFC4868]",
    Integ.HMAC_SHA2_512_256: "HMAC-SHA-512-256 [RFC4868]",
}


class KeyLogError(GatewayError):
    """A key table cannot be written, or Wireshark has no name for an algorithm."""


def format_ike_sa(spi_i: bytes, spi_r: bytes, keys: IkeSaKeys) -> str:
    """Return the `ikev2_decryption_table` row of an IKE SA, without line end. It contains keys.

    Of an AEAD, SK_e is key and salt (RFC 5282 §7.1) and SK_a is empty.

    Raises:
        KeyLogError: Wireshark has no name for an algorithm.
    """
    encr, key_bits, integ = keys.proposal.encr, keys.proposal.key_bits, keys.proposal.integ
    if ENCR[encr].aead:
        integ = Integ.NONE
    encr_name = _IKE_ENCR.get((encr, key_bits))
    integ_name = _IKE_INTEG.get(integ)
    if encr_name is None or integ_name is None:
        raise _nameless(encr, integ)
    sk_a = ("", "") if integ is Integ.NONE else (_hex(keys.sk_ai), _hex(keys.sk_ar))
    return ",".join(
        (
            *(spi_i.hex(), spi_r.hex(), _hex(keys.sk_ei), _hex(keys.sk_er), f'"{encr_name}"'),
            *(*sk_a, f'"{integ_name}"'),
        )
    )


def format_esp_sa(sa: SecurityAssociation) -> str:
    """Return the `esp_sa` row of one direction of a Child SA, without line end. It contains keys.

    Raises:
        KeyLogError: The SA is not ESP, or Wireshark has no name for an algorithm.
    """
    if sa.protocol is not IpsecProtocol.ESP:
        raise KeyLogError("Wireshark's esp_sa table has no AH")
    encr_name, integ_name = _ESP_ENCR.get(sa.encryption), _ESP_INTEG.get(sa.integrity)
    if encr_name is None or integ_name is None:
        raise _nameless(sa.encryption, sa.integrity)
    integrity_key = "" if sa.integrity is Integ.NONE else _hex(sa.integrity_key)
    columns = (
        *(f"IPv{sa.source.version}", sa.source, sa.destination, f"0x{sa.spi:08x}"),
        *(encr_name, f"0x{_hex(sa.encryption_key)}", integ_name, f"0x{integrity_key}"),
    )
    return ",".join(f'"{column}"' for column in columns)


def _hex(secret: Secret) -> str:
    return secret.reveal().hex()


def _nameless(encr: Encr, integ: Integ) -> KeyLogError:
    names = f"{iana_name(TransformType.ENCR, encr)} with {iana_name(TransformType.INTEG, integ)}"
    return KeyLogError(f"Wireshark's key tables have no name for {names}")


class KeyLog:
    """The key tables of one directory, announced at WARNING when they are opened."""

    def __init__(self, directory: Path) -> None:
        """Open the directory, making it for its owner only where it does not exist.

        Both tables stay open, so that rows can be written after this process gave up its privileges.

        Raises:
            KeyLogError: The directory or a table cannot be written.
        """
        self._tables: dict[str, int] = {}
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for table in (IKEV2_TABLE, ESP_TABLE):
                self._tables[table] = _open_table(directory / table)
        except OSError as error:
            raise KeyLogError(
                f"cannot write key tables in {directory}: {error.strerror}; "
                "name a directory that this process may write, or leave the key log off"
            ) from error
        _log.warning(
            "key_log_open",
            directory=str(directory),
            hint="the keys of every SA are written here: for debugging only, delete the files afterwards",
        )

    def ike_sa(self, event: IkeSaKeysDerived) -> None:
        """Append the keys of an IKE SA; a failure is logged and never disturbs the SA."""
        spi_i, spi_r = event.ike_sa.spi_i, event.ike_sa.spi_r
        try:
            self._append(IKEV2_TABLE, format_ike_sa(spi_i, spi_r, event.keys) + "\n")
        except (KeyLogError, OSError) as error:
            _log.warning(
                "key_log_failed", table=IKEV2_TABLE, ike_spi_i=spi_i, ike_spi_r=spi_r, detail=str(error)
            )

    def sa(self, sa: SecurityAssociation) -> None:
        """Append the keys of one direction of a Child SA; a failure is logged and never disturbs the SA."""
        try:
            self._append(ESP_TABLE, format_esp_sa(sa) + "\n")
        except (KeyLogError, OSError) as error:
            _log.warning("key_log_failed", table=ESP_TABLE, sa_id=sa.sa_id, detail=str(error))

    def add(self, table: str, row: str) -> None:
        """Append a row that was made elsewhere.

        Raises:
            KeyLogError: It cannot be written.
        """
        try:
            self._append(table, row + "\n")
        except OSError as error:
            raise KeyLogError(f"cannot write {table}: {error.strerror}") from error

    def _append(self, table: str, text: str) -> None:
        """Append in one write, so that rows of several processes never mix."""
        os.write(self._tables[table], text.encode())


def _open_table(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        there = os.fstat(descriptor)
        if not stat.S_ISREG(there.st_mode) or there.st_uid != os.geteuid() or there.st_nlink != 1:
            raise KeyLogError(f"{path} is not a file of our own: its owner could read the keys; remove it")
        os.fchmod(descriptor, 0o600)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
