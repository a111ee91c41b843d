"""Counters: they only grow, and their OpenMetrics text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.observe import metrics as module
from gateway.observe.metrics import Metrics, MetricsError


def test_counts_by_labels():
    drops = Metrics().counter("gw_drops_total", "Dropped packets.", ("reason",))

    drops.add(reason="replay")
    drops.add(2, reason="replay")
    drops.add(reason="integrity")

    assert (drops.value(reason="replay"), drops.value(reason="integrity")) == (3, 1)
    assert drops.value(reason="padding") == 0
    assert list(drops.series()) == [((("reason", "integrity"),), 1), ((("reason", "replay"),), 3)]


def test_total_from_elsewhere_never_goes_back():
    counter = Metrics().counter("gw_esp_bytes_total", "Bytes.")

    counter.advance_to(100)
    counter.advance_to(40)

    assert counter.value() == 100


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2**64)), max_size=20))
def test_counter_is_monotonic(steps):
    counter = Metrics().counter("gw_esp_bytes_total", "Bytes.")
    last = 0
    for is_total, amount in steps:
        counter.advance_to(amount) if is_total else counter.add(amount)
        assert counter.value() >= last
        last = counter.value()


def test_series_of_what_is_gone_are_forgotten():
    counter = Metrics().counter("gw_esp_packets_total", "Packets.", ("connection", "spi"))
    counter.add(connection="paris", spi="1")
    counter.add(connection="paris", spi="2")
    counter.add(connection="tokyo", spi="1")

    counter.forget(connection="paris")

    assert list(counter.series()) == [((("connection", "tokyo"), ("spi", "1")), 1)]


def test_same_name_is_the_same_counter():
    metrics = Metrics()

    assert metrics.counter("gw_a_total", "A.", ("x",)) is metrics.counter("gw_a_total", "A.", ("x",))
    with pytest.raises(MetricsError, match="declared with labels"):
        metrics.counter("gw_a_total", "A.", ("y",))


@pytest.mark.parametrize("name", ["gw_bytes", "bytes_total", "gw_Bytes_total", "gw__total ", ""])
def test_names_say_that_they_are_counters(name):
    with pytest.raises(MetricsError, match="not a counter name"):
        Metrics().counter(name, "x")


def test_misuse_is_refused():
    counter = Metrics().counter("gw_a_total", "A.", ("x",))

    for labels in ({}, {"y": "1"}, {"x": "1", "y": "1"}):
        with pytest.raises(MetricsError, match="has labels"):
            counter.add(**labels)
    with pytest.raises(MetricsError, match="only grows"):
        counter.add(-1, x="1")
    with pytest.raises(MetricsError, match="has labels"):
        counter.forget(y="1")
    with pytest.raises(MetricsError, match="label names"):
        Metrics().counter("gw_b_total", "B.", ("Bad Label",))


def test_number_of_series_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "MAX_SERIES", 3)
    counter = Metrics().counter("gw_a_total", "A.", ("peer",))

    for n in range(10):
        counter.add(peer=str(n))
    counter.add(peer="1")

    assert dict(counter.series()) == {
        (("peer", "0"),): 1, (("peer", "1"),): 2, (("peer", "2"),): 1, (("peer", "other"),): 7,
    }  # fmt: skip


def test_openmetrics_text():
    metrics = Metrics()
    drops = metrics.counter("gw_drops_total", "Dropped packets.", ("reason",))
    metrics.counter("gw_esp_bytes_total", 'Bytes "inside" ESP.').advance_to(7)
    drops.add(reason="replay")
    drops.add(reason='a"b\\c\nd')

    assert metrics.render() == (
        "# TYPE gw_drops counter\n"
        "# HELP gw_drops Dropped packets.\n"
        'gw_drops_total{reason="a\\"b\\\\c\\nd"} 1\n'
        'gw_drops_total{reason="replay"} 1\n'
        "# TYPE gw_esp_bytes counter\n"
        '# HELP gw_esp_bytes Bytes \\"inside\\" ESP.\n'
        "gw_esp_bytes_total 7\n"
        "# EOF\n"
    )


def test_snapshot_does_not_move():
    metrics = Metrics()
    counter = metrics.counter("gw_drops_total", "Dropped packets.", ("reason",))
    counter.add(reason="replay")

    snapshot = metrics.snapshot()
    counter.add(reason="replay")

    assert snapshot == {("gw_drops_total", (("reason", "replay"),)): 1}
