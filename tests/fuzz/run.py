"""Run the fuzz targets under libFuzzer (atheris), guided by the coverage of `gateway`.

Usage: python -m tests.fuzz.run [--seconds N | --inputs N] [--total N] [--corpus DIR] [TARGET ...]

Each target runs in a process of its own, from its seeds and what DIR kept of former runs, and gets N seconds;
with --inputs so many inputs beyond the seeds, however long they take. One line a target says how many inputs
it executed and what became of it. An input that raises is left in DIR/TARGET-crash-*;
`python -m tests.fuzz.run --input FILE TARGET` runs it again. Exit status 1: one failed.

With --total, targets get their N seconds in turn until each has had that much CPU time over all runs that DIR
remembers: hours can be gathered at low priority, by several processes at once, each on a target of its own.
--record prints what DIR remembers.
"""

import io
import sys
from contextlib import redirect_stderr

import atheris

# atheris names every module it instruments, which nobody wants to read.
with redirect_stderr(io.StringIO()), atheris.instrument_imports(include=["gateway"]):
    from tests.fuzz.api_targets import API_TARGETS
    from tests.fuzz.esp_targets import ESP_TARGETS
    from tests.fuzz.file_targets import FILE_TARGETS
    from tests.fuzz.foreign_targets import FOREIGN_TARGETS
    from tests.fuzz.ike_targets import IKE_TARGETS

from tests.fuzz.campaign import main

if __name__ == "__main__":
    sys.exit(main((*IKE_TARGETS, *ESP_TARGETS, *FILE_TARGETS, *FOREIGN_TARGETS, *API_TARGETS)))
