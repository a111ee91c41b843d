"""Every profile is whole, and what its text says fits its numbers."""

import shutil
from pathlib import Path

import pytest

from gateway.hardware.crypto import _ALGORITHMS
from gateway.hardware.profiles import Profile, ProfileError, find_profile, load_profiles, parse_profile

FOLDER = Path(__file__).parents[3] / "hw" / "profiles"
PROFILES = load_profiles()
GOOD = (FOLDER / "mlx5.toml").read_text()


def each_profile() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.driver)


def test_every_driver_known_to_offload_has_a_profile() -> None:
    assert {profile.driver for profile in PROFILES} == {
        *("mlx5_core", "ixgbe", "ixgbevf", "cxgb4", "nfp", "netdevsim"),
    }


@each_profile()
def test_only_names_that_the_kernel_crypto_probe_knows_are_used(profile: Profile) -> None:
    known = {algorithm.name for algorithm in _ALGORITHMS}

    for offload in (profile.crypto, profile.packet):
        assert offload is None or {algorithm.name for algorithm in offload.algorithms} <= known


@each_profile()
def test_an_operator_is_told_how_to_enable_it_and_how_to_see_it(profile: Profile) -> None:
    assert profile.enable
    assert profile.verify
    assert profile.devices


@each_profile()
def test_the_options_that_every_offload_needs_are_among_those_of_the_driver(profile: Profile) -> None:
    assert {"XFRM_OFFLOAD", "INET_ESP_OFFLOAD", "INET6_ESP_OFFLOAD"} < set(profile.kconfig)


@each_profile()
def test_lengths_are_whole_bytes_and_no_icv_is_longer_than_its_algorithm_makes(profile: Profile) -> None:
    for offload in filter(None, (profile.crypto, profile.packet)):
        for algorithm in offload.algorithms:
            assert all(bits in (128, 192, 256) for bits in algorithm.key_bits)
            assert all(bits % 8 == 0 and 64 <= bits <= 256 for bits in algorithm.icv_bits)


@each_profile()
def test_no_profile_promises_ah(profile: Profile) -> None:
    """The kernel registers device offload for ESP alone (net/ipv4/esp4_offload.c and its IPv6 twin)."""
    for offload in filter(None, (profile.crypto, profile.packet)):
        assert offload.protocols == ("esp",)


def test_a_driver_is_found_by_any_of_its_names() -> None:
    assert find_profile(PROFILES, "mlx5_core") is find_profile(PROFILES, "mlx5e_rep")
    assert find_profile(PROFILES, "virtio_net") is None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('driver = "mlx5_core"\n', "", "bad.toml: missing key driver"),
        ('driver = "mlx5_core"', 'driver = "x"\nvendor = "y"', "bad.toml: unknown key vendor"),
        ('driver = "mlx5_core"', "driver = 7", "bad.toml: driver: expected str, not 7"),
        ('names = ["mlx5e_rep"]', "names = [1]", "bad.toml: names: expected a list of str"),
        ("esn = true", "esn = 1", "bad.toml: crypto: esn: expected bool, not 1"),
        ("max_sas = 0", "max_sas = true", "bad.toml: crypto: max_sas: expected int, not True"),
        ('kernel = "5.9"', 'kernel = "new"', "bad.toml: crypto.kernel: expected a release as 6.2, not 'new'"),
        (
            'protocols = ["esp"]',
            'protocols = ["esp", "ipcomp"]',
            "bad.toml: crypto.protocols: expected esp, ah, not ipcomp",
        ),
        (
            "key_bits = [128, 256]",
            "key_bits = 128",
            "bad.toml: crypto.algorithms: key_bits: expected a list of int",
        ),
        (
            'newer = ["tunnel 6.4", "udp 6.6", "prefixes 6.15"]',
            'newer = ["tunnel"]',
            "bad.toml: packet.newer: expected a mode, udp, esn or prefixes with a release, not 'tunnel'",
        ),
        (
            'encapsulation_modes = ["transport"]',
            'encapsulation_modes = ["beet"]',
            "bad.toml: packet.encapsulation_modes: expected tunnel, transport, not beet",
        ),
        ("[crypto]", "[crypto", "bad.toml: "),
        ("[[sources]]", "[[origins]]", "bad.toml: sources: expected a list of dict"),
    ],
)
def test_a_file_that_is_no_profile_is_refused_with_the_place(old: str, new: str, said: str) -> None:
    assert old in GOOD

    with pytest.raises(ProfileError) as caught:
        parse_profile(GOOD.replace(old, new), "bad.toml")

    assert str(caught.value).startswith(said)


def test_a_profile_without_any_offload_is_refused() -> None:
    head, _, tail = GOOD.partition("[crypto]")

    with pytest.raises(ProfileError, match="this driver offloads nothing"):
        parse_profile(head + tail[tail.index("[[sources]]") :], "bad.toml")


def test_a_folder_of_profiles_is_read_whole_and_nothing_else_in_it(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "nfp.toml", tmp_path)
    shutil.copy(FOLDER / "README.md", tmp_path)

    assert [profile.driver for profile in load_profiles(tmp_path)] == ["nfp"]


def test_the_wheel_carries_the_profiles_where_the_loader_looks() -> None:
    import tomllib

    project = tomllib.loads((FOLDER.parents[1] / "pyproject.toml").read_text())

    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"]["hw/profiles"] == "gateway/hardware/profile_data"
