"""The parts of `ipsecgw bench api` that are arithmetic or another's format."""

from gateway.api.convert_connection import read_connections
from gateway.bench.api import connections
from gateway.bench.api.results import Call
from gateway.bench.api.vici import encode


def test_a_vici_message_is_encoded_as_its_readme_shows() -> None:
    message = {"key1": "value1", "section1": {"sub-section": {"key2": "value2"}, "list1": ["item1", "item2"]}}

    assert encode(message) == (
        b"\x03\x04key1\x00\x06value1"
        b"\x01\x08section1"
        b"\x01\x0bsub-section\x03\x04key2\x00\x06value2\x02"
        b"\x04\x05list1\x05\x00\x05item1\x05\x00\x05item2\x06"
        b"\x02"
    )


def test_every_connection_of_the_bench_is_well_formed_and_its_own() -> None:
    numbers = (0, 1, 255, 256, 9_999, connections.MOST - 1)

    wanted = read_connections(connections.message(number) for number in numbers)

    assert len({item.connection.remote for item in wanted}) == len(numbers)
    assert len({item.connection.children[0].remote_ts for item in wanted}) == len(numbers)


def test_the_figures_of_calls_are_of_the_ordered_times() -> None:
    call = Call.of("x", [number / 1000 for number in range(200, 0, -1)])

    assert (call.p50_ms, call.p99_ms, call.worst_ms) == (101.0, 199.0, 200.0)
