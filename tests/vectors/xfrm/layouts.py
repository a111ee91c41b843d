"""Make `layouts.json` anew: what gcc makes of the installed `<linux/xfrm.h>` (of linux-libc-dev).

For each struct its size, and offset and size of each member; for each constant its number.
"""

import json
import re
import subprocess
import tempfile
from pathlib import Path

HEADER = Path("/usr/include/linux/xfrm.h")


def structs(header: str) -> dict[str, list[str]]:
    """Return the members of every struct that the header defines."""
    found = {}
    for match in re.finditer(r"^struct (\w+) \{(.*?)^\};", header, re.S | re.M):
        body = re.sub(r"/\*.*?\*/|#define.*?$", "", match[2], flags=re.S | re.M)
        found[match[1]] = [re.split(r"[\s*]+", one.strip())[-1] for one in body.split(";") if one.strip()]
    return found


def constants(header: str) -> list[str]:
    """Return every constant of the families this project has an enum for."""
    words = set(
        re.findall(r"\b(?:XFRMA|XFRM_MSG|XFRMNLGRP|XFRM_MODE|XFRM_AE|XFRM_SHARE|XFRM_STATE)_\w+", header)
    )
    words |= set(re.findall(r"\b(?:XFRM_POLICY|XFRM_OFFLOAD|XFRM_SA_XFLAG|XFRM_USERPOLICY)_\w+", header))
    return sorted(words - {"XFRM_STATE_xxx", "XFRM_MODE_xxx"})


def program(header: str) -> str:
    """Return a C program that prints it all as JSON."""
    lines = ["#include <linux/xfrm.h>", "#include <stdio.h>", "#include <stddef.h>", "int main(void) {"]
    lines.append('printf("{\\"structs\\": {");')
    comma = ""
    for name, members in structs(header).items():
        lines.append(
            f'printf("{comma}\\"{name}\\": {{\\"size\\": %zu, \\"members\\": {{", sizeof(struct {name}));'
        )
        fixed = [one for one in members if not one.endswith("[]")]
        for i, member in enumerate(fixed):
            plain = member.split("[")[0]
            lines.append(
                f'printf("{"," if i else ""}\\"{plain}\\": [%zu, %zu]", offsetof(struct {name}, {plain}), '
                f"sizeof(((struct {name} *)0)->{plain}));"
            )
        lines.append('printf("}}");')
        comma = ","
    lines.append('printf("}, \\"constants\\": {");')
    for i, name in enumerate(constants(header)):
        lines.append(f'printf("{"," if i else ""}\\"{name}\\": %d", (int){name});')
    lines.append('printf("}}\\n"); return 0; }')
    return "\n".join(lines)


def main() -> None:
    """Compile, run and write the file."""
    with tempfile.TemporaryDirectory() as scratch:
        source, binary = Path(scratch) / "layouts.c", Path(scratch) / "layouts"
        source.write_text(program(HEADER.read_text()))
        subprocess.run(["gcc", "-o", str(binary), str(source)], check=True)
        printed = subprocess.run([str(binary)], capture_output=True, text=True, check=True).stdout
    Path(__file__).with_suffix(".json").write_text(json.dumps(json.loads(printed), indent=1) + "\n")


if __name__ == "__main__":
    main()
