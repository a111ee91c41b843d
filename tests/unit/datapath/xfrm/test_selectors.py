"""Traffic selectors as kernel selectors: what a packet matches is the same, or as the module says."""

from ipaddress import ip_address, ip_network
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.datapath.backend import DatapathError, ErrorReason
from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.selectors import (
    MAX_CELLS,
    PROTOCOLS_WITH_PORTS,
    Cell,
    Ports,
    cells,
    common,
    covering_cell,
    hidden_cells,
)
from gateway.ipsec.selectors import MAX_PORT, PacketSelectors, TrafficSelector

TAG = 0x11223344
UDP, TCP, ICMP, MOBILITY, GRE = 17, 6, 1, 135, 47


def ts(*texts: str) -> tuple[TrafficSelector, ...]:
    return tuple(TrafficSelector.parse(text) for text in texts)


def kernel_matches(
    selector: r.Selector, source: str, destination: str, protocol: int, ports: tuple[int, int]
) -> bool:
    """`xfrm_selector_match`, for a packet whose ports or ICMP type and code are these."""
    assert selector.source is not None
    assert selector.destination is not None
    return (
        ip_address(source) in selector.source.network
        and ip_address(destination) in selector.destination.network
        and selector.protocol in (0, protocol)
        and not (ports[0] ^ selector.source_port) & selector.source_port_mask
        and not (ports[1] ^ selector.destination_port) & selector.destination_port_mask
    )


# --- addresses ------------------------------------------------------------------------------------


def test_range_of_addresses_becomes_prefixes() -> None:
    found = cells(ts("10.0.0.1-10.0.0.6"), ts("10.2.0.0/16"), may_widen=True)

    assert [str(cell.local) for cell in found] == ["10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/31", "10.0.0.6/32"]
    assert {cell.remote for cell in found} == {ip_network("10.2.0.0/16")}


def test_families_and_protocols_that_do_not_meet_make_no_cell() -> None:
    found = cells(ts("10.1.0.0/16[tcp]", "fd00::/64"), ts("10.2.0.0/16[udp]", "fd01::/64"), may_widen=True)

    assert [str(cell.local) for cell in found] == ["fd00::/64"]


def test_protocol_of_one_side_is_that_of_both() -> None:
    (cell,) = cells(ts("10.1.0.0/16"), ts("10.2.0.0/16[tcp/443]"), may_widen=True)

    assert (cell.protocol, cell.local_ports, cell.remote_ports) == (TCP, Ports(), Ports(443, MAX_PORT))


def test_selector_has_the_tag_and_turns_round_for_inbound_packets() -> None:
    (cell,) = cells(ts("10.1.0.0/16[tcp/1000]"), ts("10.2.0.0/16[tcp/443]"), may_widen=True)

    out, back = cell.outbound(TAG), cell.inbound(TAG)

    assert (out.user, back.user) == (TAG, TAG)
    assert (str(out.source), str(out.destination)) == ("10.1.0.0/16", "10.2.0.0/16")
    assert (str(back.source), str(back.destination)) == ("10.2.0.0/16", "10.1.0.0/16")
    assert (out.source_port, out.destination_port) == (1000, 443)
    assert (back.source_port, back.destination_port) == (443, 1000)


def test_too_many_cells_are_refused_before_they_are_made() -> None:
    hosts = tuple(TrafficSelector.parse(f"10.7.{number}.1") for number in range(MAX_CELLS // 50))

    with pytest.raises(DatapathError) as refused:
        cells(hosts, hosts, may_widen=True)

    assert refused.value.reason is ErrorReason.TABLE_FULL


# --- ports ----------------------------------------------------------------------------------------


@given(st.integers(0, MAX_PORT), st.integers(0, MAX_PORT), st.integers(0, MAX_PORT))
def test_port_masks_match_exactly_the_range(one: int, other: int, port: int) -> None:
    first, last = sorted((one, other))
    local = TrafficSelector.from_prefix(ip_network("10.1.0.0/16"), UDP, first, last)

    found = cells((local,), ts("10.2.0.0/16"), may_widen=True)
    hits = [kernel_matches(cell.outbound(TAG), "10.1.0.1", "10.2.0.1", UDP, (port, 9)) for cell in found]

    assert sum(hits) == (first <= port <= last)
    assert len(found) <= 30


@given(
    st.integers(0, MAX_PORT),
    st.integers(0, MAX_PORT),
    st.integers(0, 255),
    st.integers(0, 255),
    st.booleans(),
)
def test_icmp_is_matched_by_type_and_code_both_ways(
    one: int, other: int, kind: int, code: int, is_inbound: bool
) -> None:
    first, last = sorted((one, other))
    local = TrafficSelector.from_prefix(ip_network("10.1.0.0/16"), ICMP, first, last)

    found = cells((local,), ts("10.2.0.0/16"), may_widen=True)
    if is_inbound:
        hits = [
            kernel_matches(cell.inbound(TAG), "10.2.0.1", "10.1.0.1", ICMP, (kind, code)) for cell in found
        ]
    else:
        hits = [
            kernel_matches(cell.outbound(TAG), "10.1.0.1", "10.2.0.1", ICMP, (kind, code)) for cell in found
        ]

    assert sum(hits) == (first <= kind << 8 | code <= last)


def test_icmp_of_both_sides_is_what_they_share() -> None:
    found = cells(ts("10.1.0.0/16[icmp/3]"), ts("10.2.0.0/16[icmp/3(4)]"), may_widen=True)

    assert [(cell.local_ports.value, cell.remote_ports.value) for cell in found] == [(3, 4)]


def test_mobility_header_is_matched_by_its_type() -> None:
    local = TrafficSelector.from_prefix(ip_network("fd00::/64"), MOBILITY, 5 << 8, (5 << 8) | 255)

    (cell,) = cells((local,), ts("fd01::/64"), may_widen=True)

    assert (cell.local_ports, cell.remote_ports) == (Ports(5, MAX_PORT), Ports())
    assert cell.inbound(TAG).source_port == 5


def test_opaque_ports_are_those_of_a_fragment() -> None:
    (cell,) = cells(ts("10.1.0.0/16[udp/opaque]"), ts("10.2.0.0/16"), may_widen=True)

    assert kernel_matches(cell.outbound(TAG), "10.1.0.1", "10.2.0.1", UDP, (0, 0))
    assert not kernel_matches(cell.outbound(TAG), "10.1.0.1", "10.2.0.1", UDP, (53, 0))


def test_bypass_of_some_ports_lets_no_fragment_of_others_pass() -> None:
    found = cells(ts("10.1.0.0/16"), ts("10.2.0.0/16[udp/0-1023]"), may_widen=False)

    assert not any(kernel_matches(c.outbound(TAG), "10.1.0.1", "10.2.0.1", UDP, (0, 0)) for c in found)
    assert any(kernel_matches(c.outbound(TAG), "10.1.0.1", "10.2.0.1", UDP, (9, 1)) for c in found)


def test_ports_of_a_protocol_without_them_are_matched_widely_or_not_at_all() -> None:
    local = (TrafficSelector.from_prefix(ip_network("10.1.0.0/16"), GRE, 5, 6),)

    assert [cell.local_ports for cell in cells(local, ts("10.2.0.0/16"), may_widen=True)] == [Ports()]
    assert cells(local, ts("10.2.0.0/16"), may_widen=False) == ()


def test_fragments_of_what_is_matched_by_ports_have_a_cell_of_their_own() -> None:
    found = hidden_cells(ts("10.1.0.0/16"), ts("10.2.0.0/16[tcp/443]"))

    assert found == (
        Cell(
            ip_network("10.1.0.0/16"), ip_network("10.2.0.0/16"), TCP, Ports(0, MAX_PORT), Ports(0, MAX_PORT)
        ),
    )
    assert hidden_cells(ts("10.1.0.0/16[tcp]"), ts("10.2.0.0/16")) == ()


# --- whole selectors --------------------------------------------------------------------------------

LOCALS = ("10.1.0.0/16", "10.1.0.7", "10.1.0.3-10.1.0.9", "10.1.0.0/24[udp/53-99]", "10.1.0.0/16[tcp]")
REMOTES = ("10.2.0.0/16", "10.2.0.1[udp/1-5]", "0.0.0.0/0", "10.2.0.0/31[tcp/80]")
PACKETS = [
    (source, destination, protocol, ports)
    for source, destination in product(("10.1.0.7", "10.1.0.9", "10.1.9.9"), ("10.2.0.1", "10.2.9.9"))
    for protocol in (UDP, TCP, GRE)
    for ports in ((53, 5), (53, 80), (1024, 1024))
]


@pytest.mark.parametrize("remote", REMOTES)
@pytest.mark.parametrize("local", LOCALS)
def test_kernel_selectors_match_what_the_spd_matches(local: str, remote: str) -> None:
    local_ts, remote_ts = ts(local), ts(remote)
    found = cells(local_ts, remote_ts, may_widen=True)

    for source, destination, protocol, ports in PACKETS:
        seen = ports if protocol in PROTOCOLS_WITH_PORTS else (None, None)
        packet = PacketSelectors(ip_address(source), ip_address(destination), protocol, *seen)
        shown = ports if protocol in PROTOCOLS_WITH_PORTS else (0, 0)
        by_kernel = any(kernel_matches(c.outbound(TAG), source, destination, protocol, shown) for c in found)
        assert by_kernel == packet.matches(local_ts, remote_ts), (packet, found)


def test_common_selectors_are_each_told_once() -> None:
    assert common(ts("10.0.0.0/8"), ts("10.1.0.0/16", "192.0.2.0/24", "10.1.0.0/16")) == ts("10.1.0.0/16")


# --- the selector of an SA ----------------------------------------------------------------------------


def test_one_pair_of_selectors_is_covered_exactly() -> None:
    cell = covering_cell(ts("10.1.0.0/16[tcp/443]"), ts("10.2.0.9"))

    assert cell == Cell(
        ip_network("10.1.0.0/16"), ip_network("10.2.0.9/32"), TCP, Ports(443, MAX_PORT), Ports()
    )


def test_several_selectors_are_covered_by_the_longest_prefix_that_holds_them() -> None:
    cell = covering_cell(ts("10.1.0.0/16[tcp]", "10.3.0.0/24[udp]"), ts("10.2.0.9"))

    assert cell == Cell(ip_network("10.0.0.0/14"), ip_network("10.2.0.9/32"))


def test_selectors_of_both_families_are_covered_by_none() -> None:
    assert covering_cell(ts("10.1.0.0/16", "fd00::/64"), ts("10.2.0.0/16", "fd01::/64")) is None


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=5))
def test_covering_prefix_holds_every_address(numbers: list[int]) -> None:
    hosts = tuple(TrafficSelector.from_prefix(ip_address(number)) for number in numbers)

    cell = covering_cell(hosts, ts("10.2.0.0/16"))

    assert cell is not None
    assert all(host.start in cell.local for host in hosts)
    halves = list(cell.local.subnets()) if cell.local.prefixlen < 32 else []
    assert not any(all(host.start in half for host in hosts) for half in halves)
