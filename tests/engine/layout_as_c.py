"""What the C compiler makes of a header: sizes and offsets of structs, and numbers."""

import ctypes
import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
INCLUDE = [f"-I{REPOSITORY / folder}" for folder in ("hw/espd/include", "hw/engine/include", "ebpf/include")]


def layout(record: Any) -> dict[str, int]:
    """Return offsets by field of a ctypes record, and its size under the empty name."""
    offsets = {name: getattr(record, name).offset for name, *_ in record._fields_}
    return {"": ctypes.sizeof(record), **offsets}


def compile_layout(
    folder: Path, header: str, records: Mapping[str, Any], numbers: Iterable[str]
) -> dict[str, int]:
    """Return numbers by name, and sizes (`struct.`) and offsets (`struct.field`) of structs."""
    lines = [f'printf("{name} %lld\\n", (long long)({name}));' for name in numbers]
    for name, record in records.items():
        lines.append(f'printf("{name}. %zu\\n", sizeof(struct {name}));')
        lines += [
            f'printf("{name}.{field} %zu\\n", offsetof(struct {name}, {field}));'
            for field in layout(record)
            if field
        ]
    source, program = folder / "layout.c", folder / "layout"
    includes = f"#include <stddef.h>\n#include <stdio.h>\n#include <{header}>\n"
    source.write_text(includes + "int main(void)\n{\n" + "\n".join(lines) + "\n}\n")
    subprocess.run(["gcc", "-std=c11", *INCLUDE, source, "-o", program], check=True, timeout=60)
    printed = subprocess.run([program], check=True, capture_output=True, text=True, timeout=60).stdout
    return {name: int(value) for name, value in (line.split() for line in printed.splitlines())}


def fields_in_header(header: Path, struct: str) -> list[str]:
    """Return the names of a struct's fields as they are written, in order."""
    body = header.read_text().split(f"struct {struct} {{\n", 1)[1].split("\n};", 1)[0]
    declarations = re.sub(r"/\*.*?\*/", "", body, flags=re.DOTALL).split(";")[:-1]
    return [one.replace("*", " ").split("[")[0].split()[-1] for one in declarations]
