"""What the native engine could carry on this machine, and which crypto library would compute it."""

import os
from typing import Final

from gateway.datapath.engine.core import Crypto, EngineError, EngineLibrary, library_path
from gateway.datapath.engine.espd import espd_path
from gateway.hardware.facts import Answer, Fact
from gateway.ipsec.algorithms import Encr, Integ

_LIBRARIES: Final = ((Crypto.IPSECMB, "ipsec-mb"), (Crypto.OPENSSL, "OpenSSL"))
_SUITES: Final = (
    ("AES-GCM", Encr.AES_GCM_16, Integ.NONE, 256),
    ("ChaCha20-Poly1305", Encr.CHACHA20_POLY1305, Integ.NONE, 256),
    ("AES-CBC with HMAC-SHA2-256", Encr.AES_CBC, Integ.HMAC_SHA2_256_128, 256),
    ("AES-CTR with HMAC-SHA2-256", Encr.AES_CTR, Integ.HMAC_SHA2_256_128, 256),
    ("AES-CBC with AES-XCBC", Encr.AES_CBC, Integ.AES_XCBC_96, 256),
    ("AES-CCM", Encr.AES_CCM_16, Integ.NONE, 256),
    ("AES-GMAC", Encr.NULL_AUTH_AES_GMAC, Integ.NONE, 256),
    ("NULL with HMAC-SHA2-256", Encr.NULL, Integ.HMAC_SHA2_256_128, 0),
)


def probe_engine() -> tuple[Fact, ...]:
    """Return whether espd and its library are here, the crypto libraries, and who computes each suite."""
    try:
        library = EngineLibrary()
    except EngineError as error:
        return probe_espd(), Fact(name="its library", answer=Answer.NO, evidence=str(error))
    return (
        probe_espd(),
        Fact(name="its library", answer=Answer.YES, evidence=str(library_path())),
        *(_library_fact(library, crypto, name) for crypto, name in _LIBRARIES),
        *(_suite_fact(library, *suite) for suite in _SUITES),
    )


def probe_espd() -> Fact:
    """Return whether the program that carries packets is here."""
    program = espd_path()
    is_there = program.is_file() and os.access(program, os.X_OK)
    return Fact(
        name="espd",
        answer=Answer.YES if is_there else Answer.NO,
        evidence=str(program) if is_there else f"no program {program}; `make engine` builds it",
    )


def _library_fact(library: EngineLibrary, crypto: Crypto, name: str) -> Fact:
    found = library.crypto_name(crypto)
    evidence = "gw_crypto_name" if found else "gw_crypto_name: not in this build, or not for this CPU"
    return Fact(name=name, answer=Answer.YES if found else Answer.NO, evidence=evidence, value=found)


def _suite_fact(library: EngineLibrary, name: str, encryption: Encr, integrity: Integ, key_bits: int) -> Fact:
    able = [
        label for crypto, label in _LIBRARIES if library.has_suite(encryption, integrity, key_bits, crypto)
    ]
    by = able[0] if able else ""
    return Fact(
        name=name,
        answer=Answer.YES if by else Answer.NO,
        evidence="gw_suite_crypto",
        value=f"by {by}" if by else "",
    )
