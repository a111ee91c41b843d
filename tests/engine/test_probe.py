"""What `ipsecgw hw` says of the engine."""

from pathlib import Path

import pytest

from gateway.datapath.engine.core import Crypto, EngineLibrary
from gateway.datapath.engine.probe import probe_engine, probe_espd
from gateway.hardware.facts import Answer, find_fact


def test_says_who_computes_which_suite(library: EngineLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPSECGW_ENGINE", str(library.path))

    facts = probe_engine()

    ipsec_mb = library.crypto_name(Crypto.IPSECMB)
    assert find_fact(facts, "ipsec-mb").value == ipsec_mb
    assert find_fact(facts, "OpenSSL").value.startswith("OpenSSL ")
    assert find_fact(facts, "AES-GCM").value == ("by ipsec-mb" if ipsec_mb else "by OpenSSL")
    assert find_fact(facts, "AES-CBC with AES-XCBC").answer is (Answer.YES if ipsec_mb else Answer.NO)


def test_without_the_library_says_how_to_build_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IPSECGW_ENGINE", str(tmp_path / "none.so"))

    _, library = probe_engine()

    assert library.answer is Answer.NO
    assert "make engine" in library.evidence


def test_espd_is_found_or_it_is_said_how_to_build_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "espd"
    monkeypatch.setenv("IPSECGW_ESPD", str(program))
    absent = probe_espd()
    program.write_text("#!/bin/sh\n")
    no_program = probe_espd()
    program.chmod(0o700)

    assert (absent.answer, no_program.answer, probe_espd().answer) == (Answer.NO, Answer.NO, Answer.YES)
    assert "make engine" in absent.evidence
    assert probe_espd().evidence == str(program)
