"""The Python records against what the C compiler makes of gw_engine.h; the lists against the Python enums."""

import subprocess
from pathlib import Path

import pytest

from gateway.datapath.engine import records
from gateway.datapath.engine.core import Crypto, EngineLibrary, EventKind, Refusal
from gateway.ipsec.drop_reason import DropReason
from tests.engine.conftest import ENGINE
from tests.engine.layout_as_c import INCLUDE, compile_layout, fields_in_header, layout

RECORDS = {
    "gw_selector": records.Selector,
    "gw_sa_params": records.SaParams,
    "gw_sa_state": records.SaState,
    "gw_sa_usage": records.SaUsage,
    "gw_event": records.EventRecord,
    "gw_packet": records.PacketRecord,
    "gw_worker_config": records.WorkerConfig,
}
NUMBERS = {
    "GW_HEADROOM": records.HEADROOM,
    "GW_TAILROOM": records.TAILROOM,
    "GW_MAX_SELECTORS": records.MAX_SELECTORS,
    "GW_MAX_WINDOW_BLOCKS": records.MAX_WINDOW_BLOCKS,
    "GW_NO_REF": records.NO_REF,
    "GW_REF_INBOUND": records.REF_INBOUND,
    "GW_PACKET_DUMMY": records.PACKET_DUMMY,
    "GW_DROP_REASON_COUNT": len(records.REASONS),
    **{f"GW_CRYPTO_{crypto.name}": crypto for crypto in Crypto},
    **{f"GW_E_{refusal.name}": refusal for refusal in Refusal},
    **{f"GW_EVENT_{kind.name}": kind for kind in EventKind},
}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    return compile_layout(tmp_path_factory.mktemp("layout"), "gw_engine.h", RECORDS, NUMBERS)


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_has_the_layout_of_its_struct(compiled: dict[str, int], name: str) -> None:
    expected = {field: compiled[f"{name}.{field}"] for field in layout(RECORDS[name])}

    assert layout(RECORDS[name]) == expected


def test_no_field_of_a_struct_is_missing_in_its_record() -> None:
    for name, record in RECORDS.items():
        written = fields_in_header(ENGINE / "include" / "gw_engine.h", name)
        assert written == [field for field, *_ in record._fields_], name


def test_numbers_are_those_of_the_header(compiled: dict[str, int]) -> None:
    assert {name: compiled[name] for name in NUMBERS} == {name: int(value) for name, value in NUMBERS.items()}


def test_drop_reasons_have_the_names_of_the_one_list(library: EngineLibrary) -> None:
    assert library.drop_names() == ["", *(reason.value for reason in DropReason)]


def test_the_public_header_stands_alone(tmp_path: Path) -> None:
    source = tmp_path / "alone.c"
    source.write_text("#include <gw_engine.h>\n")

    done = subprocess.run(
        [
            "gcc",
            "-std=c11",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-pedantic",
            *INCLUDE,
            "-c",
            source,
            "-o",
            "/dev/null",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_only_the_public_functions_are_visible(library: EngineLibrary) -> None:
    listed = subprocess.run(
        ["nm", "-D", "--defined-only", library.path], capture_output=True, text=True, check=True, timeout=30
    ).stdout
    exported = {line.split()[-1] for line in listed.splitlines()}
    header = (ENGINE / "include" / "gw_engine.h").read_text()

    assert exported
    assert {name for name in exported if f"{name}(" not in header} == set()
