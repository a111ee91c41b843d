"""The Python records against what the C compiler makes of gw_engine.h; the lists against the Python enums."""

import ctypes
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gateway.datapath.engine import records
from gateway.datapath.engine.core import Crypto, EngineLibrary, EventKind, Refusal
from gateway.ipsec.drop_reason import DropReason
from tests.engine.conftest import ENGINE

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


def layout(record: Any) -> dict[str, int]:
    offsets = {name: getattr(record, name).offset for name, *_ in record._fields_}
    return {"": ctypes.sizeof(record), **offsets}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    folder = tmp_path_factory.mktemp("layout")
    lines = [f'printf("{name} %lld\\n", (long long)({name}));' for name in NUMBERS]
    for name, record in RECORDS.items():
        lines.append(f'printf("{name}. %zu\\n", sizeof(struct {name}));')
        lines += [
            f'printf("{name}.{field} %zu\\n", offsetof(struct {name}, {field}));'
            for field in layout(record)
            if field
        ]
    source = folder / "layout.c"
    source.write_text(
        "#include <stdio.h>\n#include <gw_engine.h>\nint main(void)\n{\n" + "\n".join(lines) + "\n}\n"
    )
    include = [f"-I{ENGINE / 'include'}", f"-I{ENGINE.parents[1] / 'ebpf' / 'include'}"]
    program = folder / "layout"
    subprocess.run(["gcc", "-std=c11", *include, source, "-o", program], check=True, timeout=60)
    printed = subprocess.run([program], check=True, capture_output=True, text=True, timeout=10).stdout
    return {name: int(value) for name, value in (line.split() for line in printed.splitlines())}


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_has_the_layout_of_its_struct(compiled: dict[str, int], name: str) -> None:
    expected = {field: compiled[f"{name}.{field}"] for field in layout(RECORDS[name])}

    assert layout(RECORDS[name]) == expected


def test_no_field_of_a_struct_is_missing_in_its_record() -> None:
    header = (ENGINE / "include" / "gw_engine.h").read_text()
    for name, record in RECORDS.items():
        body = header.split(f"struct {name} {{\n", 1)[1].split("\n};", 1)[0]
        fields = [line.split(";")[0] for line in body.splitlines() if ";" in line and line.startswith("\t")]
        names = [field.replace("*", " ").split()[-1].split("[")[0] for field in fields]
        assert names == [field for field, *_ in record._fields_], name


def test_numbers_are_those_of_the_header(compiled: dict[str, int]) -> None:
    assert {name: compiled[name] for name in NUMBERS} == {name: int(value) for name, value in NUMBERS.items()}


def test_drop_reasons_have_the_names_of_the_one_list(library: EngineLibrary) -> None:
    assert library.drop_names() == ["", *(reason.value for reason in DropReason)]


def test_the_public_header_stands_alone(tmp_path: Path) -> None:
    include = [f"-I{ENGINE / 'include'}", f"-I{ENGINE.parents[1] / 'ebpf' / 'include'}"]
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
            *include,
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
