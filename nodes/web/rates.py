"""Rates and latencies of the last moments, from counters that only grow; no clock and no socket here."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from raydns.nodes.metrics import Family

HISTORY_MAX: Final = 180
WINDOW_S: Final = 10.0  # over which rates and quantiles are taken
UP: Final = "up"  # the tier of answers that came from above

QUERIES: Final = "raydns_ingress_queries_total"
ANSWERS: Final = "raydns_ingress_answers_total"
RESPONSES: Final = "raydns_ingress_responses_total"
LATENCY: Final = "raydns_ingress_latency_seconds"

# What counts as one piece of work of an actor, by kind.
WORK: Final[Mapping[str, tuple[str, ...]]] = {
    "cache": (
        "raydns_cache_hits_total",
        "raydns_cache_misses_total",
        "raydns_cache_joined_total",
        "raydns_cache_stale_total",
        "raydns_cache_failures_total",
    ),
    "query": ("raydns_query_answers_total",),
    "zone": ("raydns_zone_queries_total",),
    "llm": ("raydns_llm_queries_total",),
    "health": ("raydns_health_probes_total",),
}


@dataclass(frozen=True, slots=True)
class Reading:
    """Counters of the ingress at one moment."""

    time: float
    queries: float
    answers: Mapping[str, float]
    responses: Mapping[str, float]
    bounds: Sequence[float] = ()
    latency: Sequence[int] = ()
    """One count a bucket, all tiers together."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What happened between two readings."""

    queries_per_second: float = 0.0
    answers: Mapping[str, float] = field(default_factory=dict)
    """A second, by tier."""
    responses: Mapping[str, float] = field(default_factory=dict)
    """A second, by response code."""
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None


def read(families: Iterable[Family], now: float) -> Reading:
    """A reading of the ingress's families."""
    found = {family.name: family for family in families}
    bounds: tuple[float, ...] = ()
    counts: list[int] = []
    for sample in found[LATENCY].samples if LATENCY in found else ():
        value = sample.histogram
        if value is None or len(value.counts) != len(value.bounds) + 1:
            continue
        if not counts:
            bounds, counts = tuple(value.bounds), list(value.counts)
        elif tuple(value.bounds) == bounds:
            counts = [a + b for a, b in zip(counts, value.counts, strict=True)]
    queries = sum(_by_label(found.get(QUERIES)).values())
    return Reading(now, queries, _by_label(found.get(ANSWERS)), _by_label(found.get(RESPONSES)), bounds, counts)


def between(old: Reading, new: Reading) -> Rates:
    """Rates from one reading to a later one; counters that went back (a new process) count from zero."""
    seconds = new.time - old.time
    if seconds <= 0:
        return Rates()
    if new.queries < old.queries:
        old = Reading(old.time, 0.0, {}, {})
    counts: list[int] = []
    if len(old.latency) == len(new.latency):
        counts = [max(b - a, 0) for a, b in zip(old.latency, new.latency, strict=True)]
    elif new.latency:
        counts = list(new.latency)

    def milliseconds(q: float) -> float | None:
        found = quantile(new.bounds, counts, q)
        return None if found is None else round(found * 1000, 3)

    return Rates(
        max(new.queries - old.queries, 0.0) / seconds,
        _difference(old.answers, new.answers, seconds),
        _difference(old.responses, new.responses, seconds),
        milliseconds(0.5),
        milliseconds(0.95),
        milliseconds(0.99),
    )


def quantile(bounds: Sequence[float], counts: Sequence[int], q: float) -> float | None:
    """The q-quantile, linear within its bucket as Prometheus does it; the last bound for what is above all."""
    total = sum(counts)
    if not total or not bounds:
        return None
    rank = q * total
    below = 0
    for index, count in enumerate(counts):
        if count and below + count >= rank:
            if index >= len(bounds):
                break
            lower = bounds[index - 1] if index else 0.0
            return lower + (bounds[index] - lower) * (rank - below) / count
        below += count
    return bounds[-1]


class History:
    """Readings of the last minutes, bounded."""

    def __init__(self, size: int = HISTORY_MAX) -> None:
        self._readings: deque[Reading] = deque(maxlen=size)
        self._points: deque[tuple[float, float, float, float | None]] = deque(maxlen=size)

    def add(self, reading: Reading) -> None:
        """Takes a reading; older or equal times are ignored."""
        last = self._readings[-1] if self._readings else None
        if last is not None:
            if reading.time <= last.time:
                return
            step = between(last, reading)
            self._points.append((reading.time, step.queries_per_second, step.answers.get(UP, 0.0), step.p99_ms))
        self._readings.append(reading)

    def rates(self) -> Rates:
        """Over the last ``WINDOW_S``, or as much of it as there is."""
        if len(self._readings) < 2:
            return Rates()
        newest = self._readings[-1]
        base = self._readings[-2]
        for reading in reversed(self._readings):
            if newest.time - reading.time > WINDOW_S:
                break
            if reading is not newest:
                base = reading
        return between(base, newest)

    def points(self, now: float) -> list[list[float | None]]:
        """Age in seconds, queries a second, from above a second, p99 in ms; oldest first."""
        return [[round(now - time, 1), round(queries, 1), round(up, 1), p99] for time, queries, up, p99 in self._points]


class ActorRates:
    """Work a second of each actor, from its own counters."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, float]] = {}
        self._rates: dict[str, float] = {}

    def add(self, families: Iterable[Family], now: float) -> None:
        """Takes the agent's families, whose series bear the label ``actor``."""
        totals: dict[str, float] = {}
        for family in families:
            for sample in family.samples:
                actor = sample.labels.get("actor", "")
                if family.name in WORK.get(actor.partition(":")[0], ()):
                    totals[actor] = totals.get(actor, 0.0) + sample.value
        rates: dict[str, float] = {}
        for actor, total in totals.items():
            then, before = self._last.get(actor, (now, total))
            if now > then:
                rates[actor] = round((total - before if total >= before else total) / (now - then), 2)
        self._last = {actor: (now, total) for actor, total in totals.items()}
        self._rates = rates

    def of(self, actor: str) -> float | None:
        """Work a second; ``None`` where it is not known."""
        return self._rates.get(actor)


def _by_label(family: Family | None) -> dict[str, float]:
    """Values by the family's one label."""
    found: dict[str, float] = {}
    for sample in family.samples if family is not None else ():
        label = next(iter(sample.labels.values()), "")
        found[label] = found.get(label, 0.0) + sample.value
    return found


def _difference(old: Mapping[str, float], new: Mapping[str, float], seconds: float) -> dict[str, float]:
    return {
        label: round(max(value - old.get(label, 0.0), 0.0) / seconds, 2)
        for label, value in new.items()
        if value > old.get(label, 0.0)
    }
