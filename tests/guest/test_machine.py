"""The guest itself, by its runner: what a command in it can do, and how it ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.bench.process import is_running
from tests.guest.machine import reason_for_none
from tests.netns.site_gateways import wait_until

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(reason_for_none() is not None, reason=str(reason_for_none())),
]

PROJECT = Path(__file__).parents[2]
RUN = (sys.executable, "-m", "tests.guest.run")


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*RUN, *arguments], cwd=PROJECT, capture_output=True, text=True, timeout=300, check=False
    )


def test_command_has_a_kernel_of_its_own_and_its_status_comes_back() -> None:
    done = run("--", "sh", "-c", "uname -r; id -u; echo problem >&2; exit 7")

    assert done.returncode == 7
    release, user, problem = done.stdout.split()
    assert release.endswith("-ipsecgw")
    assert release != os.uname().release
    assert (user, problem) == ("0", "problem")


def test_command_sees_the_hosts_files_and_changes_none(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("before")

    done = run("--", "sh", "-c", f"cat {tmp_path}/here; echo after > {tmp_path}/here; cat {tmp_path}/here")

    assert done.stdout == "beforeafter\n"
    assert (tmp_path / "here").read_text() == "before"


def test_what_is_to_be_kept_is_kept(tmp_path: Path) -> None:
    run(
        "--keep",
        str(tmp_path / "kept"),
        "--",
        "sh",
        "-c",
        "mkdir $GUEST_SHARE/keep; date > $GUEST_SHARE/keep/f",
    )

    assert (tmp_path / "kept" / "f").stat().st_size > 0


def test_command_that_does_not_end_is_ended() -> None:
    done = run("--timeout", "2", "--", "sleep", "1000")

    assert done.returncode == 124
    assert "no end after 2 s" in done.stderr


def test_guest_ends_with_whoever_started_it() -> None:
    with subprocess.Popen(
        [*RUN, "--", "sh", "-c", "echo up; sleep 1000"], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    ) as runner:
        assert runner.stdout is not None
        assert runner.stdout.readline() == "up\n"
        children = Path(f"/proc/{runner.pid}/task/{runner.pid}/children").read_text().split()

        runner.kill()

    assert len(children) == 2, "the kernel and its guard"
    wait_until(lambda: not any(is_running(int(pid)) for pid in children))
