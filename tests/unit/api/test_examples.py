"""The example configurations of the documentation load as they stand, with the key files they name."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.api.config_file import parse_config

EXAMPLES = sorted((Path(__file__).parents[3] / "docs" / "examples").glob("*.yaml"))


def test_there_are_examples_for_three_clouds() -> None:
    assert {"aws", "azure", "google-cloud"} <= {path.stem for path in EXAMPLES}


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_an_example_loads_as_it_stands_and_is_of_two_route_based_tunnels(tmp_path: Path, path: Path) -> None:
    names = [f"{path.stem}-{number}" for number in (1, 2)]
    for name in names:
        (tmp_path / f"{name}.psk").write_text("a key of at least twenty letters\n")

    loaded = parse_config(path.read_text(), str(path), tmp_path)

    assert loaded.warnings == ()
    connections = [wanted.connection for wanted in loaded.connections]
    assert [connection.name for connection in connections] == names
    assert all(connection.children[0].interface is not None for connection in connections)


@dataclass(frozen=True, slots=True)
class Published:
    """What a cloud publishes of its gateways, as docs/cloud-peers.md has it with the sources."""

    ike_s: int
    child_s: int
    child_bytes: int | None
    dpd_s: int | None
    inside_mtu: int
    """With AES-GCM over IPv4."""


PUBLISHED = {
    "aws": Published(28_800, 3_600, None, 40, 1446),
    "azure": Published(28_800, 27_000, 102_400_000 * 1024, 45, 1400),
    "google-cloud": Published(36_000, 10_800, None, None, 1406),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_we_are_done_before_the_cloud_begins_and_nothing_is_too_big_for_it(tmp_path: Path, name: str) -> None:
    for number in (1, 2):
        (tmp_path / f"{name}-{number}.psk").write_text("a key of at least twenty letters\n")
    published = PUBLISHED[name]
    path = next(path for path in EXAMPLES if path.stem == name)

    for wanted in parse_config(path.read_text(), str(path), tmp_path).connections:
        ike, child = wanted.connection.ike, wanted.connection.children[0]

        assert ike.rekey_s + ike.over_s < published.ike_s
        assert child.rekey.seconds is not None
        assert child.rekey.seconds * (1 + child.over) < published.child_s
        if published.child_bytes is not None:
            assert child.rekey.bytes is not None
            assert child.rekey.bytes * (1 + child.over) < published.child_bytes
        # We notice a peer that is gone no later than it would notice us.
        assert ike.dpd_delay_s < (published.dpd_s or 60)
        assert child.interface is not None
        assert child.interface.mtu_bytes == published.inside_mtu
