"""Who needs a cookie, and who makes room for whom (RFC 7296 §2.6, RFC 8019)."""

from ipaddress import ip_address

from gateway.ike.events import IkeSaId
from gateway.ike.v2.half_open import HalfOpenTable
from gateway.ike.v2.options import EndpointOptions

NAT = ip_address("203.0.113.7")
NEIGHBOUR = ip_address("203.0.113.8")
FAR = ip_address("192.0.2.1")
OPTIONS = EndpointOptions(
    cookie_threshold=20, cookie_threshold_per_prefix=2, half_open_limit=30, half_open_per_prefix=4
)


def filled(*addresses, is_proven=True):
    table = HalfOpenTable(OPTIONS)
    for number, address in enumerate(addresses):
        table.add(IkeSaId(number), address, is_proven=is_proven)
    return table


def test_one_place_needs_cookies_before_the_others():
    table = filled(NAT, NAT, is_proven=False)

    assert table.wants_cookie(NAT)
    assert not table.wants_cookie(NEIGHBOUR)


def test_from_the_threshold_on_everybody_needs_one():
    table = filled(*[FAR + number for number in range(20)], is_proven=False)

    assert table.wants_cookie(NAT)


def test_an_ipv6_host_is_its_network():
    table = filled(ip_address("2001:db8::1"), ip_address("2001:db8::2"), is_proven=False)

    assert table.wants_cookie(ip_address("2001:db8::3"))
    assert not table.wants_cookie(ip_address("2001:db8:0:1::3"))


def test_in_a_full_place_the_oldest_makes_room_and_nobody_elsewhere():
    table = filled(FAR, NAT, NAT, NAT, NAT)

    assert table.crowded_out(NAT)[0] == 1
    assert table.crowded_out(FAR) == ()


def test_a_network_has_twice_the_share_of_an_address():
    addresses = [ip_address("203.0.113.0") + number for number in range(8)]
    table = filled(*addresses)

    assert table.crowded_out(ip_address("203.0.113.99"))[0] == 0
    assert table.crowded_out(ip_address("203.0.114.1")) == ()


def test_an_ipv6_customer_with_many_networks_has_four_times_the_share():
    networks = [ip_address(f"2001:db8:0:{number << 8:x}::1") for number in range(16)]
    table = filled(*networks)

    assert table.crowded_out(ip_address("2001:db8:0:ff00::1"))[0] == 0
    assert table.crowded_out(ip_address("2001:db8:1::1")) == ()


def test_in_a_full_table_the_fullest_place_makes_room():
    many = [ip_address(f"198.51.{number}.1") for number in range(26)]
    table = filled(*many, NAT, NAT, NAT, NEIGHBOUR)

    assert table.crowded_out(FAR)[0] == 26


def test_what_is_discarded_does_not_count_any_more():
    table = filled(NAT, NAT, NAT, NAT)
    for number in range(4):
        table.discard(IkeSaId(number))
        table.discard(IkeSaId(number))

    assert len(table) == 0
    assert table.crowded_out(NAT) == ()
    assert not table._proven
    assert not table._unproven
