"""Where compiled programs come from, and what is said where there are none."""

import shutil
from pathlib import Path

import pytest

from gateway.host.bpf import compiled
from gateway.host.bpf.compiled import compiled_object, read_program
from gateway.host.bpf.errors import BpfError

EBPF = Path(__file__).parents[4] / "ebpf"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sources as an installed package has them, with nothing compiled."""
    sources = tmp_path / "source"
    shutil.copytree(EBPF, sources, ignore=shutil.ignore_patterns("build"))
    monkeypatch.setattr(compiled, "source_directory", lambda: sources)
    monkeypatch.setenv("IPSECGW_CACHE", str(tmp_path / "cache"))
    return sources


def test_an_installed_program_is_compiled_into_the_cache(installed: Path, tmp_path: Path) -> None:
    found = compiled_object("xdp_cpumap")

    assert found == tmp_path / "cache" / "ebpf" / "xdp_cpumap.bpf.o"
    assert set(read_program("xdp_cpumap").programs) == {"gw_cpumap"}


def test_without_clang_the_error_says_what_to_install(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda tool: None if tool == "clang" else f"/usr/bin/{tool}")

    with pytest.raises(BpfError, match="clang cannot be found: install clang, make and libbpf-dev"):
        compiled_object("xdp_inbound")


def test_without_clang_an_object_that_came_with_the_sources_will_do(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda tool: None)
    shipped = installed / "build" / "xdp_inbound.bpf.o"
    shipped.parent.mkdir()
    shipped.write_bytes(b"object")

    assert compiled_object("xdp_inbound") == shipped


def test_a_program_that_is_none_is_named(installed: Path) -> None:
    with pytest.raises(BpfError, match="has no program xdp_absent"):
        compiled_object("xdp_absent")


def test_what_the_compiler_says_is_in_the_error(installed: Path) -> None:
    (installed / "xdp_wrong.bpf.c").write_text("int wrong(void) { return nothing; }\n")

    with pytest.raises(BpfError, match="undeclared identifier 'nothing'"):
        compiled_object("xdp_wrong")


def test_objects_made_elsewhere_are_taken_as_they_are(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPSECGW_EBPF", str(tmp_path))
    made = tmp_path / "xdp_inbound.bpf.o"
    made.write_bytes(b"object")

    assert compiled_object("xdp_inbound") == made
    with pytest.raises(BpfError, match="IPSECGW_EBPF names, has no program xdp_outbound"):
        compiled_object("xdp_outbound")
