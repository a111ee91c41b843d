"""Which address of ours packets into a tunnel should come from."""

from ipaddress import ip_address

import pytest

from gateway.datapath.xfrm.routes import source_hint
from gateway.host.network import LocalAddress
from gateway.ipsec.selectors import TrafficSelector


def local(text: str, *, is_global: bool = True) -> LocalAddress:
    return LocalAddress(address=ip_address(text), link=2, is_global=is_global)


ADDRESSES = (
    local("127.0.0.1"),
    local("192.0.2.1"),
    local("10.1.0.1"),
    local("fe80::1", is_global=False),
    local("fd00:1::1"),
)


@pytest.mark.parametrize(
    ("selectors", "hint"),
    [
        (["10.1.0.0/16"], "10.1.0.1"),
        (["10.9.0.0/16", "10.1.0.0/24[tcp/443]"], "10.1.0.1"),
        (["0.0.0.0/0"], "192.0.2.1"),
        (["127.0.0.0/8"], None),
        (["fe80::/10"], None),
        (["::/0"], "fd00:1::1"),
        (["10.9.0.0/16"], None),
    ],
)
def test_source_is_a_global_address_of_ours_inside_the_selectors(
    selectors: list[str], hint: str | None
) -> None:
    found = source_hint([TrafficSelector.parse(text) for text in selectors], ADDRESSES)

    assert found == (None if hint is None else ip_address(hint))
