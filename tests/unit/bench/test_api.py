"""The parts of `ipsecgw bench api` that are arithmetic or another's format."""

from gateway.api.convert_connection import read_connections
from gateway.bench.api import connections
from gateway.bench.api.results import Applied, Call
from gateway.bench.api.run import Results
from gateway.bench.api.vici import encode
from gateway.bench.compare import compare


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


def test_two_runs_are_compared_by_their_median_rounds() -> None:
    def results(rate: float) -> str:
        rounds = [
            Applied(
                rate=rate * factor,
                first_tenth=rate,
                last_tenth=rate,
                cpu_us=100.0,
                again_s=0.1,
                first_list_s=0.2,
                list_s=0.1,
                resident_bytes=1,
            )
            for factor in (0.5, 1.0, 3.0)
        ]
        calls = [Call.of("Get", [0.001, 0.002])]
        return Results(machine={}, applied={"ipsecgw": rounds}, calls={"ipsecgw": calls}).to_json()

    table, _ = compare("api", results(1000.0), results(2000.0))

    ratios = dict(zip(table.columns[0].cells, table.columns[4].cells, strict=True))
    assert ratios["ipsecgw, rate"] == "2.000"
    assert ratios["ipsecgw, Get, p99"] == "1.000"
