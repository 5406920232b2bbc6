"""What a shard counts; names are listed in README.md."""

from __future__ import annotations

from collections.abc import Callable

from raydns.nodes.metrics import Metrics
from raydns.schemas.batch import Outcome

OUTCOMES: dict[int, str] = {int(outcome): outcome.name.lower() for outcome in Outcome}


class CacheMetrics:
    """Counters of one shard, made once."""

    def __init__(self) -> None:
        self.all = metrics = Metrics()
        self.hits = metrics.counter("raydns_cache_hits_total", "Queries answered with a fresh entry.")
        self.misses = metrics.counter("raydns_cache_misses_total", "Queries that led a flight.")
        self.joined = metrics.counter("raydns_cache_joined_total", "Queries that joined a flight of another.")
        self.stale = metrics.counter("raydns_cache_stale_total", "Queries answered beyond the TTL (RFC 8767).")
        self.negative = metrics.counter("raydns_cache_negative_total", "Of the hits, negative ones (RFC 2308).")
        self.failures = metrics.counter("raydns_cache_failures_total", "Queries answered with a remembered failure.")
        self.failed = metrics.counter(
            "raydns_cache_failed_total", "Failures of the shard's own making, by reason.", "reason"
        )
        self.flights = metrics.counter("raydns_cache_flights_total", "Flights that ended, by how.", "end")
        self.prefetches = metrics.counter("raydns_cache_prefetches_total", "Flights that nobody waited for.")
        self.relayed = metrics.counter("raydns_cache_relayed_total", "Flights that went to the shard owning the name.")
        self.shed = metrics.counter("raydns_cache_shed_total", "Queries turned away because something was full.")
        self.dropped = metrics.counter("raydns_cache_dropped_answers_total", "Answers not kept, by reason.", "reason")
        self.evictions = metrics.counter("raydns_cache_evictions_total", "Entries evicted from the store.")
        self.latency = metrics.histogram(
            "raydns_cache_latency_seconds", "Time a query spends in the shard and above, by outcome.", "outcome"
        )

    def gauges(self, read: dict[str, Callable[[], float]]) -> None:
        """Adds the gauges; ``read`` holds a function a name."""
        texts = {
            "entries": "Answers in the store.",
            "bytes": "Octets that they take, overhead included.",
            "bytes_limit": "Bound of these octets.",
            "waiters": "Queries that wait for a flight.",
            "flights_open": "Flights not ended.",
            "failures_known": "Failures remembered (RFC 9520).",
            "in_flight": "Flights at query actors.",
        }
        for name, text in texts.items():
            self.all.gauge(f"raydns_cache_{name}", text, read[name])
