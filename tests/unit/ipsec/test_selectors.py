"""Traffic selectors: text form, sets, packets and narrowing."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ipsec.errors import VocabularyError
from gateway.ipsec.selectors import (
    ANY_IPV4,
    ANY_IPV6,
    MAX_SELECTORS,
    PacketSelectors,
    TrafficSelector,
    TsUnacceptable,
    format_selectors,
    is_narrowing,
    narrow,
)

ts = TrafficSelector.parse


def many(*texts: str) -> tuple[TrafficSelector, ...]:
    return tuple(map(ts, texts))


# --- text form ----------------------------------------------------------------------------------

PARSED = [
    ("10.1.0.0/16", "10.1.0.0", "10.1.255.255", 0, 0, 65535),
    ("10.1.0.5", "10.1.0.5", "10.1.0.5", 0, 0, 65535),
    ("10.1.0.1-10.1.0.9", "10.1.0.1", "10.1.0.9", 0, 0, 65535),
    (" 10.1.0.1 - 10.1.0.9 ", "10.1.0.1", "10.1.0.9", 0, 0, 65535),
    ("0.0.0.0/0", "0.0.0.0", "255.255.255.255", 0, 0, 65535),
    ("2001:db8::/32", "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", 0, 0, 65535),
    ("10.1.0.0/16[tcp/443]", "10.1.0.0", "10.1.255.255", 6, 443, 443),
    ("10.1.0.0/16[TCP]", "10.1.0.0", "10.1.255.255", 6, 0, 65535),
    ("10.1.0.0/16[udp/1000-2000]", "10.1.0.0", "10.1.255.255", 17, 1000, 2000),
    ("10.1.0.0/16[47]", "10.1.0.0", "10.1.255.255", 47, 0, 65535),
    ("10.1.0.0/16[sctp/any]", "10.1.0.0", "10.1.255.255", 132, 0, 65535),
    ("10.1.0.0/16[any]", "10.1.0.0", "10.1.255.255", 0, 0, 65535),
    ("10.1.0.0/16[tcp/opaque]", "10.1.0.0", "10.1.255.255", 6, 65535, 0),
    ("10.1.0.5[icmp/8]", "10.1.0.5", "10.1.0.5", 1, 0x0800, 0x08FF),
    ("10.1.0.5[icmp/3(4)]", "10.1.0.5", "10.1.0.5", 1, 0x0304, 0x0304),
    ("10.1.0.5[icmp/8-10]", "10.1.0.5", "10.1.0.5", 1, 0x0800, 0x0AFF),
    ("::1[icmpv6/128]", "::1", "::1", 58, 0x8000, 0x80FF),
]


@pytest.mark.parametrize(
    ("text", "start", "end", "protocol", "first", "last"), PARSED, ids=[p[0] for p in PARSED]
)
def test_parse(text, start, end, protocol, first, last):  # noqa: PLR0917 - a table
    expected = TrafficSelector(ip_address(start), ip_address(end), protocol, first, last)

    assert ts(text) == expected
    assert ts(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("10.1.0.5", "10.1.0.5/32"),
        ("10.0.0.0-10.0.0.3", "10.0.0.0/30"),
        ("10.0.0.1-10.0.0.4", "10.0.0.1-10.0.0.4"),
        ("::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::/0"),
        ("10.0.0.0/8[6/80-80]", "10.0.0.0/8[tcp/80]"),
        ("10.0.0.0/8[99]", "10.0.0.0/8[99]"),
        ("10.0.0.0/8[icmp/3(1)-3(4)]", "10.0.0.0/8[icmp/3(1)-3(4)]"),
    ],
)
def test_written_form_is_the_shortest(text, written):
    assert str(ts(text)) == written


REFUSED = [
    ("", 0, "begins with addresses"),
    ("[tcp/443]", 0, "begins with addresses"),
    ("10.1.0.0/33", 9, "0 to 32"),
    ("10.1.0.5/16", 0, "did you mean 10.1.0.0/16"),
    ("10.1.0.500", 0, "not an IPv4 or IPv6 address"),
    ("10.1.0.500/24", 0, "not an IPv4 or IPv6 address"),
    ("10.1.0.1-10.1.0.x", 9, "not an IPv4 or IPv6 address"),
    ("fe80::1%eth0", 0, "zone"),
    ("10.1.0.9-10.1.0.1", None, "upwards"),
    ("10.1.0.9-2001:db8::", None, "one address family"),
    ("10.1.0.0/16[tcp/443", 11, "not closed"),
    ("10.1.0.0/16[tpc/443]", 12, "not an IP protocol"),
    ("10.1.0.0/16[256]", 12, "not an IP protocol"),
    ("10.1.0.0/16[tcp/https]", 16, "not a port"),
    ("10.1.0.0/16[tcp/1-65536]", 18, "not a port"),
    ("10.1.0.0/16[tcp/9-1]", 16, "downwards"),
    ("10.1.0.0/16[icmp/256]", 17, "not an ICMP type"),
    ("10.1.0.0/16[icmp/3(256)]", 17, "not an ICMP type"),
    ("10.1.0.0/16[icmp/echo]", 17, "not an ICMP type"),
]


@pytest.mark.parametrize(("text", "column", "hint"), REFUSED, ids=[r[0] for r in REFUSED])
def test_bad_text_is_refused_with_its_place(text, column, hint):
    with pytest.raises(VocabularyError, match=hint) as caught:
        ts(text)

    assert caught.value.column == column


@pytest.mark.parametrize(
    "arguments",
    [
        (IPv4Address("10.0.0.2"), IPv4Address("10.0.0.1")),
        (IPv4Address("10.0.0.2"), IPv6Address("::1")),
        (IPv4Address(1), IPv4Address(1), 256),
        (IPv4Address(1), IPv4Address(1), 6, -1, 1),
        (IPv4Address(1), IPv4Address(1), 6, 0, 65536),
        (IPv4Address(1), IPv4Address(1), 6, 10, 9),
    ],
)
def test_impossible_ranges_are_refused(arguments):
    with pytest.raises(VocabularyError):
        TrafficSelector(*arguments)


@st.composite
def selectors(draw):
    kind, top = draw(st.sampled_from([(IPv4Address, 2**32 - 1), (IPv6Address, 2**128 - 1)]))
    addresses = st.integers(0, 15) | st.integers(0, top)
    start, end = sorted((draw(addresses), draw(addresses)))
    protocol = draw(st.sampled_from([0, 1, 6, 17, 58, 200]))
    ports = draw(
        st.just((0, 65535))
        | st.just((65535, 0))
        | st.tuples(st.integers(0, 65535), st.integers(0, 65535)).map(lambda p: tuple(sorted(p)))
        | st.tuples(st.integers(0, 255), st.integers(0, 255)).map(
            lambda p: (min(p) * 256, max(p) * 256 + 255)
        )
    )
    if protocol == 0:
        ports = (0, 65535)
    return TrafficSelector(kind(start), kind(end), protocol, *ports)


@given(selectors())
def test_text_form_round_trips(selector):
    assert ts(str(selector)) == selector


@given(st.text(alphabet="0123456789.:/-[]()tcpudimv6any ", max_size=40))
def test_any_text_is_a_selector_or_a_vocabulary_error(text):
    try:
        selector = ts(text)
    except VocabularyError:
        return
    assert ts(str(selector)) == selector


# --- sets ---------------------------------------------------------------------------------------


def test_from_prefix_takes_networks_and_addresses():
    assert TrafficSelector.from_prefix(ip_network("10.1.0.0/16")) == ts("10.1.0.0/16")
    assert TrafficSelector.from_prefix(ip_address("::1"), 6, 80, 80) == ts("::1[tcp/80]")


INTERSECTIONS = [
    ("10.1.0.0/16", "10.1.2.0/24", "10.1.2.0/24"),
    ("10.1.0.1-10.1.0.9", "10.1.0.5-10.1.0.20", "10.1.0.5-10.1.0.9"),
    ("10.1.0.0/16", "10.2.0.0/16", None),
    ("0.0.0.0/0", "::/0", None),
    ("10.1.0.0/16[tcp]", "10.1.0.0/16", "10.1.0.0/16[tcp]"),
    ("10.1.0.0/16[tcp]", "10.1.0.0/16[udp]", None),
    ("10.1.0.0/16[tcp/80-90]", "10.1.0.0/16[tcp/85-100]", "10.1.0.0/16[tcp/85-90]"),
    ("10.1.0.0/16[tcp/80]", "10.1.0.0/16[tcp/81]", None),
    ("10.1.0.0/16[tcp/opaque]", "10.1.0.0/16[tcp]", "10.1.0.0/16[tcp/opaque]"),
    ("10.1.0.0/16[tcp/opaque]", "10.1.0.0/16[tcp/opaque]", "10.1.0.0/16[tcp/opaque]"),
    ("10.1.0.0/16[tcp/opaque]", "10.1.0.0/16[tcp/80]", None),
]


@pytest.mark.parametrize(("a", "b", "common"), INTERSECTIONS)
def test_intersection(a, b, common):
    expected = None if common is None else ts(common)

    assert ts(a).intersect(ts(b)) == expected
    assert ts(b).intersect(ts(a)) == expected


@given(selectors(), selectors())
def test_intersection_is_a_subset_of_both(a, b):
    common = a.intersect(b)

    assert (common is None) == (b.intersect(a) is None)
    if common is not None:
        assert common.is_subset(a)
        assert common.is_subset(b)


@given(selectors())
def test_prefixes_cover_exactly_the_range(selector):
    prefixes = selector.prefixes()

    assert prefixes[0].network_address == selector.start
    assert prefixes[-1].broadcast_address == selector.end
    assert sum(p.num_addresses for p in prefixes) == int(selector.end) - int(selector.start) + 1


def test_prefixes_of_an_uneven_range():
    assert list(map(str, ts("10.0.0.1-10.0.0.6").prefixes())) == [
        "10.0.0.1/32",
        "10.0.0.2/31",
        "10.0.0.4/31",
        "10.0.0.6/32",
    ]


# --- packets ------------------------------------------------------------------------------------

CONTAINED = [
    ("10.1.0.0/16", "10.1.2.3", 6, 80, True),
    ("10.1.0.0/16", "10.2.2.3", 6, 80, False),
    ("10.1.0.0/16", "2001:db8::1", 6, 80, False),
    ("10.1.0.0/16[tcp]", "10.1.2.3", 17, 80, False),
    ("10.1.0.0/16[tcp/443]", "10.1.2.3", 6, 443, True),
    ("10.1.0.0/16[tcp/443]", "10.1.2.3", 6, 80, False),
    # A packet whose ports cannot be seen, as a fragment: ANY and OPAQUE only (RFC 4301 §4.4.1.1).
    ("10.1.0.0/16[tcp/443]", "10.1.2.3", 6, None, False),
    ("10.1.0.0/16[tcp]", "10.1.2.3", 6, None, True),
    ("10.1.0.0/16[tcp/opaque]", "10.1.2.3", 6, None, True),
    ("10.1.0.0/16[tcp/opaque]", "10.1.2.3", 6, 443, False),
    ("10.1.0.0/16[icmp/8]", "10.1.2.3", 1, 0x0800, True),
    ("10.1.0.0/16[icmp/8]", "10.1.2.3", 1, 0x0000, False),
]


@pytest.mark.parametrize(("selector", "address", "protocol", "port", "inside"), CONTAINED)
def test_contains(selector, address, protocol, port, inside):
    assert ts(selector).contains(ip_address(address), protocol, port) is inside


def test_packet_matches_when_both_sides_do():
    packet = PacketSelectors(ip_address("10.1.0.1"), ip_address("10.2.0.1"), 6, 40000, 443)
    local, remote = many("10.9.0.0/16", "10.1.0.0/16"), many("2001:db8::/32", "10.2.0.0/16[tcp/443]")

    assert packet.matches(local, remote)
    assert not packet.matches(remote, local)
    assert not packet.matches(local, many("10.2.0.0/16[tcp/80]"))
    assert not packet.matches((), remote)


# --- narrowing ----------------------------------------------------------------------------------

NARROWED = [
    ("all of it", ["10.1.0.0/16"], ["0.0.0.0/0"], ["10.1.0.0/16"]),
    ("a part", ["0.0.0.0/0"], ["10.1.0.0/16"], ["10.1.0.0/16"]),
    ("the first stays first",
     ["10.1.5.0/24", "10.3.0.0/16"], ["10.3.0.0/16", "10.1.0.0/16"], ["10.1.5.0/24", "10.3.0.0/16"]),
    # RFC 7296 §2.9: the packet that triggered comes first, and is inside what follows.
    ("the packet's own selector merges into the range that holds it",
     ["10.1.0.66[tcp/1234]", "10.1.0.0/24", "10.9.0.0/24"], ["10.1.0.0/16", "10.9.0.0/16"],
     ["10.1.0.0/24", "10.9.0.0/24"]),
    ("a split policy", ["0.0.0.0/0"], ["10.1.0.0/16", "10.3.0.0/16"], ["10.1.0.0/16", "10.3.0.0/16"]),
    ("both families",
     ["::/0", "0.0.0.0/0"], ["10.1.0.0/16", "2001:db8::/32"], ["2001:db8::/32", "10.1.0.0/16"]),
    ("protocol and ports", ["10.1.0.0/16[tcp]"], ["0.0.0.0/0[tcp/80-443]"], ["10.1.0.0/16[tcp/80-443]"]),
    ("what is not ours is left out", ["10.1.0.0/16", "10.8.0.0/16"], ["10.1.0.0/16"], ["10.1.0.0/16"]),
    ("twice the same", ["10.1.0.0/16", "10.1.0.0/16"], ["10.1.0.0/16"], ["10.1.0.0/16"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("offered", "configured", "expected"), [n[1:] for n in NARROWED], ids=[n[0] for n in NARROWED]
)
def test_narrow(offered, configured, expected):
    result = narrow(many(*offered), many(*configured))

    assert result == many(*expected)
    assert is_narrowing(result, many(*offered))
    assert is_narrowing(result, many(*configured))


@pytest.mark.parametrize(
    ("offered", "configured"),
    [(["10.1.0.0/16"], ["10.2.0.0/16"]), (["10.1.0.0/16"], ["::/0"]), ([], ["::/0"]), (["::/0"], [])],
)
def test_nothing_in_common_is_ts_unacceptable(offered, configured):
    with pytest.raises(TsUnacceptable) as caught:
        narrow(many(*offered), many(*configured))

    assert caught.value.offered == many(*offered)
    assert format_selectors(many(*configured)) in str(caught.value)


@given(st.lists(selectors(), min_size=1, max_size=4), st.lists(selectors(), min_size=1, max_size=4))
def test_narrowing_never_widens(offered, configured):
    try:
        result = narrow(offered, configured)
    except TsUnacceptable:
        assert all(o.intersect(c) is None for o in offered for c in configured)
        return
    assert is_narrowing(result, offered)
    assert is_narrowing(result, configured)
    assert narrow(result, configured) == result


def test_result_fits_the_count_of_a_ts_payload():
    offered = [TrafficSelector.from_prefix(IPv4Address(n * 2)) for n in range(300)]

    assert narrow(offered, [ANY_IPV4]) == tuple(offered[:MAX_SELECTORS])


def test_a_peer_cannot_keep_narrowing_busy(monkeypatch):
    # 255 selectors none of which holds another, against 16 of ours that do the same: 4080 overlaps.
    everything = (IPv4Address(0), IPv4Address(2**32 - 1))
    offered = [
        TrafficSelector(IPv4Address(n), IPv4Address(2**32 - 1 - n), 17, 255 - n, 65280 + n)
        for n in range(255)
    ]
    configured = [TrafficSelector(*everything, 17, n, 65520 + n) for n in range(1, 16)]
    comparisons = 0
    compare = TrafficSelector.is_subset

    def count(self, other):
        nonlocal comparisons
        comparisons += 1
        return compare(self, other)

    monkeypatch.setattr(TrafficSelector, "is_subset", count)
    result = narrow(offered, configured)

    assert comparisons < 300_000
    assert is_narrowing(result, offered)
    assert is_narrowing(result, configured)


def test_answer_wider_than_the_offer_or_empty_is_no_narrowing():
    assert not is_narrowing([], [ANY_IPV4])
    assert not is_narrowing([ANY_IPV4], many("10.0.0.0/8"))
    assert not is_narrowing([ANY_IPV6], [ANY_IPV4])
