"""`ipsecgw hw` on the machine that runs the tests, and its report of another."""

import json

import pytest

from gateway.cli.hw import report, to_plain
from gateway.cli.main import main
from gateway.hardware.advice import advise
from gateway.hardware.machine import probe_machine
from gateway.hardware.profiles import load_profiles
from tests.unit.hardware.machines import machine, nic_readings

PROFILES = load_profiles()


def test_this_machine_is_probed_and_every_answer_has_its_evidence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["hw", "--json"]) == 0

    told = json.loads(capsys.readouterr().out)
    facts = [
        *told["machine"]["cpu"]["features"],
        *told["machine"]["kernel"]["xfrm"],
        *told["machine"]["kernel"]["bpf"],
        *told["machine"]["kernel"]["options"],
        *(
            entry[key]
            for entry in told["machine"]["kernel"]["crypto"]
            for key in ("available", "accelerated")
        ),
        *(fact for nic in told["machine"]["nics"] for fact in nic["facts"]),
    ]
    assert "lo" in [nic["name"] for nic in told["machine"]["nics"]]
    assert len(facts) > 40
    assert {fact["answer"] for fact in facts} <= {"yes", "no", "could not tell"}
    assert [fact for fact in facts if not fact["evidence"]] == []


def test_the_report_says_what_carries_packets_today(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hw", "--evidence"]) == 0

    out = capsys.readouterr().out
    assert out.endswith("`ipsecgw explain` says.\n")
    assert "\nlo:\n" in out


def test_two_probes_of_one_machine_agree() -> None:
    first, second = probe_machine(PROFILES), probe_machine(PROFILES)

    assert (first.cpu, first.kernel.options) == (second.cpu, second.kernel.options)


def test_the_matrix_shows_the_profile_and_the_reason_beside_the_nic() -> None:
    facts = machine(nic_readings())

    lines = report(facts, PROFILES, advise(facts, PROFILES), evidence=False)

    (row,) = [line for line in lines if line.startswith("eth0  mlx5_core")]
    assert "22.38.1002  0000:3b:00.0  15b3:101d  0" in row
    assert "16 of 63" in row
    assert row.endswith("crypto, packet")
    assert (
        "eth0       this Debian kernel is built without MLX5_EN_IPSEC: offload to mlx5_core is compiled out"
        in lines
    )


def test_json_carries_the_profiles_of_the_drivers_found() -> None:
    facts = machine(nic_readings())

    plain = to_plain(facts, PROFILES, advise(facts, PROFILES))

    assert json.loads(json.dumps(plain)) == plain
    profiles = plain["profiles"]
    assert isinstance(profiles, list)
    assert [profile["driver"] for profile in profiles] == ["mlx5_core"]
