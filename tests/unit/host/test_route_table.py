"""The table of routes by what the kernel tells: which counts, and where the table must be read anew."""

import pytest

from gateway.host.route_messages import NLM_F_REPLACE, Prefix, RawRoute, RouteKey, RouteMessage, RouteType
from gateway.host.route_table import RouteTable

NET = Prefix(4, 24, bytes((198, 51, 100, 0)))
NEW, GONE = 24, 25
MAIN, LOCAL, DEFAULT, OTHER = 254, 255, 253, 77


def message(
    gateway: int = 2,
    *,
    kind: int = NEW,
    flags: int = 0,
    table: int = MAIN,
    metric: int = 0,
    tos: int = 0,
    usable: bool = True,
) -> RouteMessage:
    route = RawRoute(
        type=RouteType.UNICAST,
        link=7,
        gateway=bytes((192, 0, 2, gateway)),
        mtu_bytes=0,
        is_plain=not tos,
        is_usable=usable,
    )
    return RouteMessage(kind, flags, NET, RouteKey(table, metric, tos, 0), route)


def table_of(*messages: RouteMessage) -> RouteTable:
    table = RouteTable()
    table.load(messages)
    return table


def gateway(table: RouteTable) -> int | None:
    best = table.best(NET)
    return None if best is None else best.gateway[-1]


@pytest.mark.parametrize(
    ("routes", "best"),
    [
        ([], None),
        ([message(2, metric=9), message(3, metric=8)], 3),
        ([message(2, table=DEFAULT), message(3, metric=900)], 3),
        ([message(2), message(3, table=LOCAL, metric=900)], 3),
        ([message(2, usable=False), message(3, metric=9)], 3),
        ([message(2, usable=False)], None),
        ([message(2, table=OTHER)], None),
    ],
    ids=["none", "metric", "main before default", "local first", "link down", "all down", "another table"],
)
def test_the_best_route_counts(routes: list[RouteMessage], best: int | None) -> None:
    assert gateway(table_of(*routes)) == best


@pytest.mark.parametrize("routes", [[message(2), message(3, tos=16)], [message(2), message(3)]])
def test_what_more_than_the_destination_decides_is_not_plain(routes: list[RouteMessage]) -> None:
    best = table_of(*routes).best(NET)

    assert best is not None
    assert not best.is_plain


@pytest.mark.parametrize(
    ("change", "is_sure", "best"),
    [
        (message(3, metric=5), True, 2),
        (message(2), True, 2),
        (message(3, flags=NLM_F_REPLACE), True, 3),
        (message(3), False, 3),
        (message(2, kind=GONE), True, None),
        (message(3, kind=GONE), False, None),
        (message(3, kind=GONE, metric=5), True, 2),
        (message(9, table=OTHER), True, 2),
    ],
    ids=[
        "one more",
        "told twice",
        "replaced",
        "beside the one that is there",
        "gone",
        "another than ours is gone",
        "one that we never knew is gone",
        "of a table that is not looked at",
    ],
)
def test_a_change_is_followed_or_makes_the_table_unsure(
    change: RouteMessage, best: int | None, *, is_sure: bool
) -> None:
    table = table_of(message(2))

    assert table.change(change) is is_sure
    assert gateway(table) == best


def test_which_of_several_alike_has_gone_is_not_known() -> None:
    table = table_of(message(2), message(3))

    assert not table.change(message(2, kind=GONE))


def test_what_is_loaded_is_all_there_is() -> None:
    table = table_of(message(2))
    table.load([])

    assert list(table) == []
