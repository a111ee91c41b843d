"""The example configurations of the documentation load as they stand, with the key files they name."""

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
