"""Answers to strangers are rationed: in all, and for each place (RFC 7296 §2.21.4)."""

from ipaddress import ip_address

from gateway.ike.v2.rate_limit import MAX_PLACES, RateLimit

HERE, THERE = ip_address("192.0.2.1"), ip_address("192.0.2.2")


def test_one_place_waits_for_its_pause_and_the_others_do_not():
    limit = RateLimit(per_s=10.0, pause_s=5.0)

    assert limit.allows(HERE, 0.0)
    assert not limit.allows(HERE, 4.9)
    assert limit.allows(THERE, 4.9)
    assert limit.allows(HERE, 5.0)


def test_the_addresses_of_one_ipv6_network_are_one_place():
    limit = RateLimit(per_s=10.0, pause_s=5.0)

    assert limit.allows(ip_address("2001:db8::1"), 0.0)
    assert not limit.allows(ip_address("2001:db8::2"), 0.0)


def test_all_together_get_so_many_a_second():
    limit = RateLimit(per_s=10.0, pause_s=0.0)

    first = [limit.allows(HERE + number, 0.0) for number in range(100)]
    later = [limit.allows(HERE + number, 0.5) for number in range(100)]

    assert (sum(first), sum(later)) == (10, 5)


def test_a_rest_saves_up_no_more_than_one_second():
    limit = RateLimit(per_s=10.0, pause_s=0.0)

    assert sum(limit.allows(HERE + number, 1000.0) for number in range(100)) == 10


def test_a_flood_of_places_takes_no_more_memory():
    limit = RateLimit(per_s=1e9, pause_s=1.0)

    for number in range(10 * MAX_PLACES):
        limit.allows(HERE + number, number * 1e-3)

    assert len(limit._served) == MAX_PLACES
