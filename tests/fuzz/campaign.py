"""How fuzz targets run under libFuzzer (atheris), what is told of each, and what is remembered between runs.

Which targets there are, and that `gateway` is instrumented for coverage, is the business of `run.py`: the
tests of this file have targets of their own.
"""

import argparse
import fcntl
import json
import os
import re
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import atheris

SLOW_INPUT_S = 60
"""One input may take no longer by the clock: a hang. A quick one takes seconds where others have the CPUs."""
MEMORY_MB = 2048


def main(table, arguments=None):
    """Run what the command line names of a table of targets, or everything; return the exit status."""
    targets = {target.name: target for target in table}
    parser = argparse.ArgumentParser(description="Run the fuzz targets, guided by coverage.")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each target")
    parser.add_argument("--inputs", type=int, help="for each target beyond its seeds, instead of seconds")
    parser.add_argument("--total", type=float, help="CPU seconds for each target, over all runs in --corpus")
    parser.add_argument("--corpus", type=Path, help="where inputs are kept from run to run")
    parser.add_argument(
        "--record", action="store_true", help="print what was run so far in --corpus, and end"
    )
    parser.add_argument("--input", type=Path, help="run this file once instead")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(targets))
    args = parser.parse_args(arguments)
    if unknown := set(args.targets) - set(targets):
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(targets)}")
    chosen = [targets[name] for name in args.targets or targets]
    if (args.total or args.record) and not args.corpus:
        parser.error("--total and --record need --corpus, where former runs are remembered")
    if args.record:
        for target in chosen:
            print_record(target, args.corpus)
        return 0
    if args.total:
        return int(not gather(chosen, args.seconds, args.total, args.corpus))
    if args.input:
        for target in chosen:
            target.run(args.input.read_bytes())
        return 0
    with tempfile.TemporaryDirectory(prefix="ipsecgw-fuzz-") as scratch:
        corpus = args.corpus or Path(scratch)
        results = [fuzz(target, args.seconds, corpus, args.inputs) for target in chosen]
    return int(not all(results))


def gather(targets, seconds, total_s, corpus):
    """Give who has had least its turn until each has had `total_s`; return whether all came through."""
    corpus.mkdir(parents=True, exist_ok=True)
    while behind := [target for target in targets if read_record(target, corpus)["cpu_s"] < total_s]:
        for target in sorted(behind, key=lambda target: read_record(target, corpus)["cpu_s"]):
            with claim(target, corpus) as ours:
                if ours:
                    if not fuzz(target, seconds, corpus):
                        return False
                    break
        else:
            return True  # Other processes have what is left.
    return True


@contextmanager
def claim(target, corpus):
    """Yield whether no other process runs this target, and keep others from it meanwhile."""
    with open(corpus / f"{target.name}.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def read_record(target, corpus):
    """Return what all runs of a target in this folder came to."""
    path = corpus / f"{target.name}.json"
    if not path.exists():
        return {"cpu_s": 0.0, "executions": 0, "edges": 0, "failures": 0}
    return json.loads(path.read_text())


def add_to_record(target, corpus, *, cpu_s, executions, edges, failed):
    """Add one run to what the folder remembers."""
    record = read_record(target, corpus)
    record["cpu_s"] += cpu_s
    record["executions"] += executions
    record["edges"] = edges
    record["failures"] += failed
    whole = corpus / f"{target.name}.json.new"
    whole.write_text(json.dumps(record))
    whole.replace(corpus / f"{target.name}.json")


def print_record(target, corpus):
    """Print one target's line of the record."""
    record = read_record(target, corpus)
    print(
        f"{target.name:18} {record['executions']:>11} executions in {record['cpu_s']:8.0f} s of CPU  "
        f"{record['edges']:>6} edges  {record['failures']} failed runs"
    )


def fuzz(target, seconds, corpus, inputs_beyond_seeds=None):
    """Run one target in a child; print its line; return whether it came through."""
    inputs = corpus / target.name
    inputs.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (inputs / f"seed-{number:04}").write_bytes(seed[: target.max_bytes])
    log = corpus / f"{target.name}.log"
    child = os.fork()
    if child == 0:
        if inputs_beyond_seeds is None:
            limit = f"-max_total_time={max(round(seconds), 1)}"
        else:
            limit = f"-runs={len(list(inputs.iterdir())) + inputs_beyond_seeds}"
        in_child(target, limit, inputs, log, corpus)
    _, status, usage = os.wait4(child, 0)
    cpu_s = usage.ru_utime + usage.ru_stime
    text = log.read_text(errors="replace")
    executed = int((re.findall(r"^stat::number_of_executed_units: +(\d+)", text, re.MULTILINE) or [0])[-1])
    covered = int((re.findall(r"cov: (\d+)", text) or [0])[-1])
    add_to_record(target, corpus, cpu_s=cpu_s, executions=executed, edges=covered, failed=int(status != 0))
    verdict = "ok" if status == 0 else f"FAILED, see {log}"
    print(
        f"{target.name:18} {executed:>10} executions in {cpu_s:7.1f} s of CPU  {covered:>6} edges  {verdict}",
        flush=True,
    )
    if status != 0:
        print(text[-4000:], file=sys.stderr, flush=True)
    return status == 0


def in_child(target, limit, inputs, log, corpus):
    """Fuzz until libFuzzer's option `limit` says that it is enough; never returns."""
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    atheris.Setup(
        [
            "fuzz",
            limit,
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
