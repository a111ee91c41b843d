"""Run the fuzz targets under libFuzzer (atheris), guided by the coverage of `gateway`.

Usage: python -m tests.fuzz.run [--seconds N] [--corpus DIR] [TARGET ...]

Each target runs in a process of its own, from its seeds and what DIR kept of former runs, and gets N seconds.
One line a target says how many inputs it executed and what became of it. An input that raises is left in
DIR/TARGET-crash-*; `python -m tests.fuzz.run --input FILE TARGET` runs it again. Exit status 1: one failed.
"""

import argparse
import io
import os
import re
import sys
import tempfile
import time
from contextlib import redirect_stderr
from pathlib import Path

import atheris

# atheris names every module it instruments, which nobody wants to read.
with redirect_stderr(io.StringIO()), atheris.instrument_imports(include=["gateway"]):
    from tests.fuzz.esp_targets import ESP_TARGETS
    from tests.fuzz.file_targets import FILE_TARGETS
    from tests.fuzz.ike_targets import IKE_TARGETS

TARGETS = {target.name: target for target in (*IKE_TARGETS, *ESP_TARGETS, *FILE_TARGETS)}
SLOW_INPUT_S = 10
"""One input may take no longer: more is a way to keep a gateway busy."""
MEMORY_MB = 2048


def main():
    """Run what the command line names, or everything; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="for each target")
    parser.add_argument("--corpus", type=Path, help="where inputs are kept from run to run")
    parser.add_argument("--input", type=Path, help="run this file once instead")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    args = parser.parse_args()
    if unknown := set(args.targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    chosen = [TARGETS[name] for name in args.targets or TARGETS]
    if args.input:
        for target in chosen:
            target.run(args.input.read_bytes())
        return 0
    with tempfile.TemporaryDirectory(prefix="ipsecgw-fuzz-") as scratch:
        corpus = args.corpus or Path(scratch)
        results = [fuzz(target, args.seconds, corpus) for target in chosen]
    return int(not all(results))


def fuzz(target, seconds, corpus):
    """Run one target in a child; print its line; return whether it came through."""
    inputs = corpus / target.name
    inputs.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (inputs / f"seed-{number:04}").write_bytes(seed[: target.max_bytes])
    log = corpus / f"{target.name}.log"
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        in_child(target, seconds, inputs, log, corpus)
    _, status = os.waitpid(child, 0)
    took = time.monotonic() - began
    text = log.read_text(errors="replace")
    executed = re.findall(r"^stat::number_of_executed_units: +(\d+)", text, re.MULTILINE)
    covered = re.findall(r"cov: (\d+)", text)
    verdict = "ok" if status == 0 else f"FAILED, see {log}"
    print(
        f"{target.name:18} {executed[-1] if executed else 0:>10} executions in {took:7.1f} s  "
        f"{covered[-1] if covered else 0:>6} edges  {verdict}",
        flush=True,
    )
    if status != 0:
        print(text[-4000:], file=sys.stderr, flush=True)
    return status == 0


def in_child(target, seconds, inputs, log, corpus):
    """Fuzz; never returns."""
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    atheris.Setup(
        [
            "fuzz",
            f"-max_total_time={max(round(seconds), 1)}",
            f"-max_len={target.max_bytes}",
            f"-timeout={SLOW_INPUT_S}",
            f"-rss_limit_mb={MEMORY_MB}",
            f"-artifact_prefix={corpus}/{target.name}-",
            "-print_final_stats=1",
            str(inputs),
        ],
        target.run,
    )
    atheris.Fuzz()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
