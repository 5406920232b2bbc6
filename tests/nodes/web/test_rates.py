"""Rates and quantiles from counters, against what was really counted."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydns.nodes.metrics import Family, HistogramValue, Sample
from raydns.nodes.web.rates import HISTORY_MAX, ActorRates, History, Reading, between, quantile, read
from tests.nodes.web.conftest import ingress_families

# Two busy cores: how long one example takes proves nothing.
settings.register_profile("raydns", deadline=None)
settings.load_profile("raydns")


@given(st.lists(st.floats(0.0, 1.2), min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 0.99]))
def test_quantile_lies_in_the_right_bucket(values: list[float], q: float) -> None:
    """The estimate is in the bucket that really holds the quantile."""
    bounds = (0.1, 0.2, 0.5, 1.0)
    counts = [0] * 5
    for value in values:
        counts[next((i for i, bound in enumerate(bounds) if value <= bound), 4)] += 1
    found = quantile(bounds, counts, q)
    assert found is not None
    true = sorted(values)[max(math.ceil(q * len(values)) - 1, 0)]
    index = next((i for i, bound in enumerate(bounds) if true <= bound), 4)
    if index == 4:
        assert found == bounds[-1]
    else:
        assert (bounds[index - 1] if index else 0.0) <= found <= bounds[index]


def test_quantile_by_hand() -> None:
    """Half of ten in a bucket from 1 to 2 is 1.5; nothing observed is nothing; above all bounds is the last."""
    assert quantile((1.0, 2.0), [0, 10, 0], 0.5) == 1.5
    assert quantile((1.0, 2.0), [10, 0, 0], 1.0) == 1.0
    assert quantile((1.0, 2.0), [0, 0, 5], 0.5) == 2.0
    assert quantile((1.0, 2.0), [0, 0, 0], 0.5) is None
    assert quantile((), [], 0.5) is None


def test_between_two_readings() -> None:
    """A hundred queries in four seconds are 25 a second, by tier and code alike."""
    rates = between(read(ingress_families(100), 10.0), read(ingress_families(200), 14.0))
    assert rates.queries_per_second == 25
    assert rates.answers == {"l1": 22.5, "up": 2.5}
    assert rates.responses == {"NOERROR": 25}
    assert rates.p50_ms == pytest.approx(0.556, abs=0.001)
    assert rates.p99_ms == pytest.approx(91.0)


def test_a_new_ingress_counts_from_zero() -> None:
    """Counters that went back are those of a new process: no negative rate, no burst of the old total."""
    rates = between(read(ingress_families(1000), 10.0), read(ingress_families(20), 12.0))
    assert rates.queries_per_second == 10
    assert rates.answers == {"l1": 9, "up": 1}
    assert between(read([], 1.0), read([], 1.0)).queries_per_second == 0
    assert between(read([], 1.0), read(ingress_families(10), 2.0)).queries_per_second == 10


def test_odd_histograms_are_left_out() -> None:
    """Series whose buckets do not fit are ignored."""
    family = Family(
        "raydns_ingress_latency_seconds",
        "histogram",
        "",
        [
            Sample({}, 0.0, HistogramValue((1.0,), [1, 2, 3])),
            Sample({}, 0.0, HistogramValue((1.0,), [1, 1])),
            Sample({}),
        ],
    )
    assert read([family], 0.0).latency == [1, 1]


def test_history_is_bounded_and_ordered() -> None:
    """The history keeps its newest readings, ignores repeated ones, and rates look back ten seconds."""
    history = History()
    for second in range(500):
        history.add(read(ingress_families(second * 10), float(second)))
        history.add(Reading(float(second), 0.0, {}, {}))
    points = history.points(499.0)
    assert len(points) == HISTORY_MAX
    assert points[-1][:3] == [0.0, 10.0, 1.0]
    assert history.rates().queries_per_second == 10
    assert History().rates().queries_per_second == 0


def test_actor_rates() -> None:
    """An actor's work is the sum of its kind's counters; a restarted one counts from zero; unknown is None."""

    def families(hits: float, misses: float) -> list[Family]:
        return [
            Family("raydns_cache_hits_total", "counter", "", [Sample({"actor": "cache:0.g1"}, hits)]),
            Family("raydns_cache_misses_total", "counter", "", [Sample({"actor": "cache:0.g1"}, misses)]),
            Family(
                "raydns_zone_queries_total", "counter", "", [Sample({"actor": "cache:0.g1"}, 99.0), Sample({}, 5.0)]
            ),
        ]

    rates = ActorRates()
    assert rates.of("cache:0.g1") is None
    rates.add(families(10, 10), 1.0)
    rates.add(families(20, 20), 3.0)
    assert rates.of("cache:0.g1") == 10
    rates.add(families(1, 1), 4.0)
    assert rates.of("cache:0.g1") == 2
    rates.add([], 5.0)
    assert rates.of("cache:0.g1") is None
