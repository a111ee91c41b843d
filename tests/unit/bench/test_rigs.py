"""Every rig is whole; what does not hold is found and done. Commands are `printf` and `touch` here."""

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.bench.path.rigs import (
    Finding,
    Rig,
    RigError,
    Step,
    describe_steps,
    find_outer,
    kernel_findings,
    load_rigs,
    parse_rig,
    prepare,
    step_findings,
)
from gateway.hardware.facts import Answer, CpuFacts, Fact, KernelFacts, MachineFacts, NicFacts
from gateway.hardware.profiles import find_profile, load_profiles
from gateway.ipsec.placement import Engine

ROOT = Path(__file__).parents[3]
RIGS = load_rigs()
GOOD = (ROOT / "hw" / "rigs" / "mlx5.toml").read_text()


def each_rig() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("rig", RIGS, ids=lambda rig: rig.name)


def test_the_nics_that_are_to_be_measured_have_a_rig() -> None:
    assert [rig.name for rig in RIGS] == ["bluefield", "ixgbe", "mlx5", "netdevsim"]


@each_rig()
def test_a_rig_is_of_a_driver_with_a_profile_and_measures_what_that_offloads(rig: Rig) -> None:
    profile = find_profile(load_profiles(), rig.profile)

    assert profile is not None
    assert {profile.driver, *profile.names} >= set(rig.drivers)
    offloads = {Engine.NIC_PACKET: profile.packet, Engine.NIC_CRYPTO: profile.crypto}
    for engine, offload in offloads.items():
        if engine.value in rig.placements:
            assert offload is not None
            assert any(rig.key_bits in algorithm.key_bits for algorithm in offload.algorithms)
    assert "forwarding" in rig.placements, "there is nothing to compare with"


@each_rig()
def test_every_step_says_why_and_where_that_is_from(rig: Rig) -> None:
    assert rig.steps
    for step in rig.steps:
        assert step.why
        assert step.source
        assert step.check


def test_rigs_are_part_of_the_package() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]

    assert wheel["force-include"]["hw/rigs"] == "gateway/bench/rig_data"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("key_bits = 256", "key_bits = 256\nsurplus = 1", "unknown key surplus"),
        ("key_bits = 256", "", "missing key key_bits"),
        ("key_bits = 256", 'key_bits = "256"', "key_bits: expected int"),
        ('"nic_packet"', '"nic_magic"', "not nic_magic"),
        ("{outer_bus}", "{nowhere}", "nowhere"),
        ('wanted = "^esp', 'wanted = "(^esp', "unterminated"),
        ('command = ""', 'command = "true"', "and not both"),
        ("name = ", "name ", "mlx5.toml"),
    ],
    ids=["surplus", "missing", "type", "placement", "place", "expression", "two remedies", "no TOML"],
)
def test_a_file_that_is_no_rig_is_refused(old: str, new: str, words: str) -> None:
    assert old in GOOD

    with pytest.raises(RigError, match=words):
        parse_rig(GOOD.replace(old, new), "mlx5.toml")


def machine(*nics: tuple[str, str], options: tuple[Fact, ...] = ()) -> MachineFacts:
    return MachineFacts(
        cpu=CpuFacts(model="some", architecture="x86_64", processors=2, features=()),
        kernel=KernelFacts(release="6.12", vendor="", xfrm=(), bpf=(), options=options, crypto=()),
        nics=tuple(
            NicFacts(
                name=name, driver=driver, firmware="", bus="0000:3b:00.0", pci_id="", numa_node=None, facts=()
            )
            for name, driver in nics
        ),
        accelerators=(),
        unseen=(),
    )


def rig(*steps: Step) -> Rig:
    return replace(RIGS[2], steps=steps)


def step(**changes: Any) -> Step:
    values = {"why": "it is so", "check": "printf on", "wanted": "^on$", "command": "true", "manual": ""}
    return Step(**{**values, "source": "here", **changes})


def test_the_first_nic_with_the_driver_is_taken_unless_another_is_named() -> None:
    here = machine(("lo", ""), ("ens1f0", "mlx5_core"), ("ens1f1", "mlx5_core"))

    assert find_outer(rig(), here, None).name == "ens1f0"
    assert find_outer(rig(), here, "ens1f1").name == "ens1f1"


@pytest.mark.parametrize(
    ("named", "words"),
    [
        (None, r"rig mlx5 needs a NIC with driver mlx5_core, and this machine has none: lo \(no driver\)"),
        ("eth0", r"eth0 is no interface of rig mlx5, whose driver is mlx5_core"),
    ],
    ids=["none", "another"],
)
def test_a_machine_without_the_nic_is_told_so(named: str | None, words: str) -> None:
    with pytest.raises(RigError, match=words):
        find_outer(rig(), machine(("lo", ""), ("eth0", "virtio_net")), named)


def test_without_the_nic_steps_are_shown_and_nothing_is_looked_at() -> None:
    (found,) = describe_steps(rig(step(check="false", command="ethtool -K {outer} on")))

    assert (found.answer, found.remedy) == (Answer.UNKNOWN, "ethtool -K OUTER on")


def test_build_options_are_told_as_the_kernel_tells_them() -> None:
    fact = Fact(name="CONFIG_ONE", answer=Answer.NO, evidence="not set")

    found = kernel_findings(("ONE", "TWO"), machine(options=(fact,)))

    assert [item.answer for item in found] == [Answer.NO, Answer.UNKNOWN]


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({}, Answer.YES),
        ({"check": "printf 'off\\non\\n'"}, Answer.YES),
        ({"check": "printf off"}, Answer.NO),
        ({"check": "false"}, Answer.UNKNOWN),
        ({"check": "gw-no-such-program"}, Answer.UNKNOWN),
        ({"check": "printf {outer}", "wanted": "^eth7$"}, Answer.YES),
    ],
    ids=["holds", "second line", "does not", "command fails", "no command", "interface"],
)
def test_a_step_is_looked_at(changes: dict[str, str], answer: Answer) -> None:
    (found,) = step_findings(rig(step(**changes)), {"lan": "a", "outer": "eth7", "outer_bus": ""})

    assert found.answer is answer


def test_only_what_does_not_hold_is_done(tmp_path: Path) -> None:
    places = {"lan": "a", "outer": str(tmp_path), "outer_bus": ""}
    steps = (
        step(command="touch {outer}/needless"),
        step(check="find {outer} -name done", wanted="/done$", command="touch {outer}/done"),
    )

    prepare(step_findings(rig(*steps), places))

    assert [path.name for path in tmp_path.iterdir()] == ["done"]
    assert [item.answer for item in step_findings(rig(*steps), places)] == [Answer.YES, Answer.YES]


@pytest.mark.parametrize(
    ("command", "words"),
    [((), "a person must: no \\(seen\\); turn the screw"), (("ls", "/nonexistent"), "No such file")],
    ids=["person", "failure"],
)
def test_what_cannot_be_done_stops_it(command: tuple[str, ...], words: str) -> None:
    finding = Finding(
        what="a person must",
        answer=Answer.NO,
        evidence="seen",
        remedy="turn the screw",
        command=command,
    )

    with pytest.raises(RigError, match=words):
        prepare([finding])
