"""The completion script, in a real bash."""

import subprocess
from pathlib import Path

import pytest

from gateway.cli.main import main


@pytest.fixture
def script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["completion"]) == 0
    path = tmp_path / "completion.bash"
    path.write_text(capsys.readouterr().out)
    return path


def complete(script: Path, line: str) -> set[str]:
    """Return what bash offers at the end of a line; a blank at its end begins a new word."""
    words = line.split()
    if line.endswith(" "):
        words.append("")
    quoted = " ".join(f"'{word}'" for word in words)
    ask = (
        f"source '{script}'; cd '{script.parent}'; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; "
        "_ipsecgw; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(["bash", "-u", "-c", ask], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("line", "some", "none"),
    [
        ("ipsecgw ", {"run", "import", "doctor", "list"}, {"sas", "--config"}),
        ("ipsecgw i", {"import", "inspect"}, {"run"}),
        ("ipsecgw list ", {"connections", "ike-sas", "sas"}, {"run"}),
        ("ipsecgw list sas --", {"--json", "--datapath"}, {"--watch"}),
        ("ipsecgw status --w", {"--watch"}, {"--json"}),
        ("ipsecgw import --format ", {"swanctl", "strongswan", "libreswan"}, {"--force"}),
        ("ipsecgw import --local l", {"left"}, {"right"}),
        ("ipsecgw import ", {"completion.bash"}, {"swanctl"}),
        ("ipsecgw run --config comp", {"completion.bash"}, set()),
        ("ipsecgw import x -o ", {"completion.bash"}, set()),
    ],
)
def test_what_is_offered(script: Path, line: str, some: set[str], none: set[str]) -> None:
    offered = complete(script, line)

    assert some <= offered
    assert not none & offered
