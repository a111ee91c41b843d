"""The algorithms of an SA as the kernel wants them: their names, and the keys with the salt at the end."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from gateway.datapath import kernel_names
from gateway.datapath.backend import DatapathError, ErrorReason
from gateway.datapath.xfrm import records as r
from gateway.ipsec.algorithms import ENCR, INTEG, Encr, Integ, ProtocolId, TransformType
from gateway.ipsec.implemented import is_implemented
from gateway.ipsec.sa import IpsecProtocol, SecurityAssociation
from gateway.ipsec.secret import Secret

#: Name, and ICV in bits: 0 for a cipher that needs an integrity algorithm beside it.
ENCRYPTION: Final[dict[Encr, tuple[str, int]]] = {
    encryption: (name, icv_bits)
    for name, lengths in kernel_names.ENCRYPTION.items()
    for icv_bits, encryption in lengths.items()
    if is_implemented(ProtocolId.ESP, TransformType.ENCR, encryption)
}
INTEGRITY: Final[dict[Integ, tuple[str, int]]] = {
    integrity: (name, icv_bits)
    for name, lengths in kernel_names.INTEGRITY.items()
    for icv_bits, integrity in lengths.items()
    if is_implemented(ProtocolId.ESP, TransformType.INTEG, integrity)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """What an SA is protected with."""

    protocol: IpsecProtocol = IpsecProtocol.ESP
    encryption: Encr = Encr.NULL
    key_bits: int = 0
    integrity: Integ = Integ.NONE


def suite_of(sa: SecurityAssociation) -> Suite:
    """Return the suite of an SA."""
    return Suite(protocol=sa.protocol, encryption=sa.encryption, key_bits=sa.key_bits, integrity=sa.integrity)


def every_suite() -> Iterator[Suite]:
    """Yield one suite for each algorithm and key length that the kernel may have."""
    with_cipher = Integ.HMAC_SHA2_256_128
    for encryption, (_, icv_bits) in ENCRYPTION.items():
        for key_bits in ENCR[encryption].key_bits:
            yield Suite(
                encryption=encryption, key_bits=key_bits, integrity=Integ.NONE if icv_bits else with_cipher
            )
    for integrity in INTEGRITY:
        yield Suite(integrity=integrity)
        yield Suite(protocol=IpsecProtocol.AH, integrity=integrity)


def check_suite(sa: SecurityAssociation) -> None:
    """Check that the kernel has names for an SA's algorithms, and that its keys have their lengths.

    Raises:
        DatapathError: ALGORITHM_UNSUPPORTED, KEY_LENGTH or MODE_UNSUPPORTED.
    """
    if sa.protocol is IpsecProtocol.AH:
        _check_ah(sa)
    else:
        _check_encryption(sa)
    if sa.integrity is not Integ.NONE:
        _check_integrity(sa)


def _check_ah(sa: SecurityAssociation) -> None:
    if sa.encryption is not Encr.NULL or len(sa.encryption_key):
        raise _unsupported(f"AH does not encrypt, and the SA has {sa.encryption.name}")
    if sa.integrity is Integ.NONE:
        raise _unsupported("an AH SA without an integrity algorithm")
    if sa.encapsulation is not None:
        # The ICV covers the addresses, which a NAT changes (RFC 4302 §3.3.3, RFC 3948 §1).
        raise DatapathError(
            ErrorReason.MODE_UNSUPPORTED, "AH has no UDP encapsulation: it cannot cross a NAT, ESP can"
        )


def _check_encryption(sa: SecurityAssociation) -> None:
    if sa.encryption not in ENCRYPTION:
        raise _unsupported(f"the kernel's ESP has no {sa.encryption.name}")
    _, icv_bits = ENCRYPTION[sa.encryption]
    if bool(icv_bits) is not (sa.integrity is Integ.NONE):
        # Encryption without integrity is not offered at all (RFC 8221 §4).
        verb = "brings its own integrity" if icv_bits else "needs an integrity algorithm beside it"
        raise _unsupported(f"{sa.encryption.name} {verb}")
    lengths = ENCR[sa.encryption].key_bits
    if sa.key_bits not in lengths:
        raise DatapathError(
            ErrorReason.KEY_LENGTH, f"a key of {sa.encryption.name} is {lengths} bits, not {sa.key_bits}"
        )
    wanted = sa.key_bits // 8 + ENCR[sa.encryption].salt_bytes
    if len(sa.encryption_key) != wanted:
        raise DatapathError(
            ErrorReason.KEY_LENGTH,
            f"key and salt of {sa.encryption.name} are {wanted} bytes, not {len(sa.encryption_key)}",
        )


def _check_integrity(sa: SecurityAssociation) -> None:
    if sa.integrity not in INTEGRITY:
        raise _unsupported(f"the kernel has no {sa.integrity.name}")
    wanted = INTEG[sa.integrity].key_bytes
    if len(sa.integrity_key) != wanted:
        raise DatapathError(
            ErrorReason.KEY_LENGTH,
            f"a key of {sa.integrity.name} is {wanted} bytes, not {len(sa.integrity_key)}",
        )


def _unsupported(text: str) -> DatapathError:
    return DatapathError(ErrorReason.ALGORITHM_UNSUPPORTED, text)


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelAlgorithms:
    """The attributes of an SA that hold its algorithms and keys."""

    encryption: r.Algorithm | None = None
    integrity: r.AuthAlgorithm | None = None
    aead: r.AeadAlgorithm | None = None


def kernel_algorithms(suite: Suite, encryption_key: Secret, integrity_key: Secret) -> KernelAlgorithms:
    """Return the attributes for a suite that `check_suite` has passed."""
    integrity = None
    if suite.integrity is not Integ.NONE:
        name, icv_bits = INTEGRITY[suite.integrity]
        integrity = r.AuthAlgorithm(name=name, key=integrity_key, icv_bits=icv_bits)
    if suite.protocol is IpsecProtocol.AH:
        return KernelAlgorithms(integrity=integrity)
    name, icv_bits = ENCRYPTION[suite.encryption]
    if icv_bits:
        return KernelAlgorithms(aead=r.AeadAlgorithm(name=name, key=encryption_key, icv_bits=icv_bits))
    return KernelAlgorithms(encryption=r.Algorithm(name=name, key=encryption_key), integrity=integrity)


def read_suite(protocol: IpsecProtocol, attributes: r.Attributes) -> tuple[Suite, Secret, Secret] | None:
    """Return the suite, encryption key and integrity key that the kernel says; `None` if we have no such."""
    encryption, key_bits, encryption_key = Encr.NULL, 0, Secret(b"")
    integrity, integrity_key = Integ.NONE, Secret(b"")
    cipher = attributes.aead or attributes.encryption
    if protocol is IpsecProtocol.ESP:
        if cipher is None:
            return None
        icv_bits = cipher.icv_bits if isinstance(cipher, r.AeadAlgorithm) else 0
        found = kernel_names.ENCRYPTION.get(cipher.name, {}).get(icv_bits)
        if found is None:
            return None
        encryption, encryption_key = found, cipher.key
        key_bits = 8 * (len(cipher.key) - ENCR[found].salt_bytes)
    if attributes.integrity is not None:
        known = kernel_names.INTEGRITY.get(attributes.integrity.name, {})
        if attributes.integrity.icv_bits not in known:
            return None
        integrity, integrity_key = known[attributes.integrity.icv_bits], attributes.integrity.key
    suite = Suite(protocol=protocol, encryption=encryption, key_bits=key_bits, integrity=integrity)
    return suite, encryption_key, integrity_key
