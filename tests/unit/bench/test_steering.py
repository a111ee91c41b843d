"""`ipsecgw bench steering`: the frames it measures with, and its report."""

import json

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from gateway.bench.compare import compare
from gateway.bench.steering.run import INBOUND, OUTBOUND, Case, Results, Row, cases_of
from gateway.bench.steering.tables import report

ROW = Row(
    tunnels=2000,
    program=OUTBOUND,
    packet="IPv4, PROTECT",
    remembered_ns=(26, 27, 31),
    searched_ns=(94, 95, 96),
)
RESULTS = Results(machine={"cpu": "of a test"}, rows=(ROW,))


def find(packet: str, program: str, tunnels: int) -> Case:
    (case,) = (case for case in cases_of(tunnels) if (case.packet, case.program) == (packet, program))
    return case


def test_packets_are_of_the_last_tunnel() -> None:
    out4 = Ether(find("IPv4, PROTECT", OUTBOUND, 300).frame)
    out6 = Ether(find("IPv6, PROTECT", OUTBOUND, 300).frame)
    esp = Ether(find("ESP, known SPI", INBOUND, 300).frame)

    assert (out4[IP].src, out4[IP].dst, out4[IP].len) == ("10.1.1.1", "100.1.43.7", len(out4) - 14)
    assert (out6[IPv6].src, out6[IPv6].dst) == ("2001:db8:1::1", "2001:db8:8000:12b::7")
    assert out4[UDP].len == out6[UDP].len == len(out4[UDP])
    assert bytes(esp[IP].payload)[:4] == (0x10000 + 299).to_bytes(4, "big")


def test_the_report_has_medians_and_every_round() -> None:
    found = report(RESULTS)

    (row,) = json.loads(found.json)["rows"]
    assert (row["remembered_ns"], row["searched_ns"]) == (27, 95)
    assert row["rounds"]["searched_ns"] == [94, 95, 96]
    assert [bar.value for bar in found.charts[0].bars] == [27, 95]


def test_runs_are_compared_case_by_case() -> None:
    table, differences = compare("steering", RESULTS.to_json(), RESULTS.to_json())

    assert table.row_count == 2
    assert differences == []
