"""What figures depend on: versions are told by programs themselves, or by packages."""

import pytest

from gateway.bench.machine import ask_version, describe_machine, name_crypto


def says(words: str, *, to: int = 1, status: int = 0) -> tuple[str, ...]:
    return ("sh", "-c", f"printf '%s' '{words}' >&{to}; exit {status}")


@pytest.mark.parametrize(
    ("question", "version"),
    [
        (says("wireguard-go v0.0.20220316\n\nUserspace WireGuard daemon"), "0.0.20220316"),
        (says("22.11.11-0+deb12u1"), "22.11.11-0+deb12u1"),
        (says("strongSwan 5.9.8 swanctl", to=2, status=111), "5.9.8"),
    ],
    ids=["program", "package", "beside an error"],
)
def test_a_version_is_the_first_number_with_a_point(question: tuple[str, ...], version: str) -> None:
    assert ask_version([question]) == version


def test_the_next_is_asked_where_one_is_missing_or_says_nothing() -> None:
    questions = [("ipsecgw-no-such-program",), says("no packages found", to=2, status=1), says("v1.2")]

    assert ask_version(questions) == "1.2"
    assert ask_version(questions[:2]) == "not told"


def test_the_load_is_told_beside_the_machine() -> None:
    assert list(describe_machine()) == ["ipsecgw", "kernel", "cpu", "cpus", "load"]


def test_crypto_libraries_are_told_by_their_versions_alone() -> None:
    assert name_crypto("ipsec-mb 1.3.0", "OpenSSL 3.0.19") == {"ipsec-mb": "1.3.0", "openssl": "3.0.19"}
