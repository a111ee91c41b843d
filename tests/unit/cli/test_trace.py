"""The lines of `ipsecgw trace drops`."""

from gateway.cli.trace import Row, kernel_rows, own_rows
from gateway.host.drop_trace import Drop


def drop(ifindex: int = 0, netns: int = 0, *, location: str = "ip_rcv+0x1", protocol: int = 0x0800) -> Drop:
    return Drop(
        packets=2, reason="NO_SOCKET", location=location, ifindex=ifindex, netns=netns, protocol=protocol
    )


def row(interface: str, protocol: str = "IPv4") -> Row:
    return Row(packets=2, reason="NO_SOCKET", where="ip_rcv+0x1", interface=interface, protocol=protocol)


def test_drops_of_other_namespaces_are_shown_where_asked_for() -> None:
    drops = [drop(1, 7), drop(1, 8), drop(protocol=0), drop(2, protocol=0x88F7)]

    here = list(kernel_rows(drops, 7))
    everywhere = list(kernel_rows(drops, 7, everywhere=True))

    assert here == [row("lo"), row("-", "-"), row("#2", "0x88f7")]
    assert [item.interface for item in everywhere] == ["lo", "#1 of namespace 8", "-", "#2"]


def test_what_goes_by_unix_sockets_is_no_packet() -> None:
    assert list(kernel_rows([drop(location="unix_release_sock+0x31a", protocol=0)], 7)) == []


def test_the_gateways_own_drops_are_those_since_the_last_look() -> None:
    before = {("datapath", "replay"): 5, ("datapath", "bad_icv"): 9, ("controller", "ike_cookie"): 1}
    now = {
        ("datapath", "replay"): 8,
        ("datapath", "bad_icv"): 2,  # The agent was started again.
        ("controller", "ike_cookie"): 1,
        ("datapath", "no_sa"): 4,
    }

    rows = [(row.where, row.reason, row.packets) for row in own_rows(before, now)]

    assert rows == [("datapath", "replay", 3), ("datapath", "bad_icv", 2), ("datapath", "no_sa", 4)]
