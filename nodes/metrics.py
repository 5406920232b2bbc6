"""Counters, gauges and histograms that cost an integer addition, and the form in which they cross processes.

OpenTelemetry's counters cost 12 µs each (libraries.md), so each component counts in plain dictionaries and
hands a list of ``Family`` to whoever serves /metrics. Names follow ``raydns_<folder>_<noun>_<unit>[_total]``;
labels never hold a name or a client.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Literal

import msgspec

LATENCY_BUCKETS_S = (
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip


class HistogramValue(msgspec.Struct, array_like=True):
    """Cumulative counts are made at rendering; here one count a bucket, the last for what is above all bounds."""

    bounds: tuple[float, ...]
    counts: list[int]
    total: float = 0.0

    def quantile(self, q: float) -> float:
        """The upper bound of the bucket that holds the q-quantile; 0 where nothing was observed."""
        rank = q * sum(self.counts)
        seen = 0
        for bound, count in zip((*self.bounds, self.bounds[-1]), self.counts, strict=True):
            seen += count
            if seen and seen >= rank:
                return bound
        return 0.0


class Sample(msgspec.Struct, array_like=True):
    """One series of a family."""

    labels: dict[str, str]
    value: float = 0.0
    histogram: HistogramValue | None = None


class Family(msgspec.Struct, array_like=True):
    """One metric with all its series."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    samples: list[Sample]


class Counter:
    """A counter with at most one label; ``counter.inc("udp")``."""

    __slots__ = ("family", "label", "text", "values")

    def __init__(self, family: str, text: str, label: str = "") -> None:
        self.family = family
        self.text = text
        self.label = label
        self.values: dict[str, int] = {}

    def inc(self, label: str = "", by: int = 1) -> None:
        """Adds ``by`` to the series."""
        self.values[label] = self.values.get(label, 0) + by

    @property
    def total(self) -> int:
        """The sum over all series."""
        return sum(self.values.values())


class Histogram:
    """A histogram with at most one label; observations in the unit that its name ends in."""

    __slots__ = ("bounds", "family", "label", "text", "values")

    def __init__(self, family: str, text: str, label: str = "", bounds: tuple[float, ...] = LATENCY_BUCKETS_S) -> None:
        self.family = family
        self.text = text
        self.label = label
        self.bounds = bounds
        self.values: dict[str, HistogramValue] = {}

    def observe(self, value: float, label: str = "") -> None:
        """Counts one observation."""
        series = self.values.get(label)
        if series is None:
            series = self.values[label] = HistogramValue(self.bounds, [0] * (len(self.bounds) + 1))
        series.counts[bisect_left(self.bounds, value)] += 1
        series.total += value


class Metrics:
    """The metrics of one component: made once at its start, read by ``families``."""

    def __init__(self) -> None:
        self._counters: list[Counter] = []
        self._histograms: list[Histogram] = []
        self._gauges: list[tuple[str, str, str, Callable[[], float | dict[str, float]]]] = []

    def counter(self, name: str, text: str, label: str = "") -> Counter:
        """A new counter; its name ends in ``_total``, ``text`` is a sentence."""
        counter = Counter(name, text, label)
        self._counters.append(counter)
        return counter

    def histogram(
        self, name: str, text: str, label: str = "", bounds: tuple[float, ...] = LATENCY_BUCKETS_S
    ) -> Histogram:
        """A new histogram; its name ends in its unit."""
        histogram = Histogram(name, text, label, bounds)
        self._histograms.append(histogram)
        return histogram

    def gauge(self, name: str, text: str, read: Callable[[], float | dict[str, float]], label: str = "") -> None:
        """A gauge that is read when it is asked for; with a label, ``read`` returns a value a label."""
        self._gauges.append((name, text, label, read))

    def families(self) -> list[Family]:
        """All metrics as they stand now."""
        found: list[Family] = []
        for c in self._counters:
            samples = [Sample({c.label: k} if c.label else {}, float(v)) for k, v in c.values.items()]
            found.append(Family(c.family, "counter", c.text, samples or ([] if c.label else [Sample({})])))
        for h in self._histograms:
            found.append(
                Family(
                    h.family,
                    "histogram",
                    h.text,
                    [Sample({h.label: k} if h.label else {}, 0.0, v) for k, v in h.values.items()],
                )
            )
        for name, text, label, read in self._gauges:
            value = read()
            series = value if isinstance(value, dict) else {"": value}
            found.append(
                Family(name, "gauge", text, [Sample({label: k} if label else {}, float(v)) for k, v in series.items()])
            )
        return found


def merge(groups: list[list[Family]]) -> list[Family]:
    """One list out of several components' lists: series of the same family stand together."""
    merged: dict[str, Family] = {}
    for families in groups:
        for family in families:
            known = merged.get(family.name)
            if known is None:
                merged[family.name] = Family(family.name, family.kind, family.help, list(family.samples))
            else:
                known.samples.extend(family.samples)
    return list(merged.values())
