"""What the ingress counts: every family that it shows on /metrics, made in one place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from raydns.nodes.metrics import Counter, Family, Histogram, Metrics

TRANSPORTS: Final = {1: "udp", 2: "tcp", 3: "dot", 4: "doh", 5: "doq", 6: "control"}
RCODES: Final = tuple(
    {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED", 9: "NOTAUTH"}.get(
        rcode, f"RCODE{rcode}"
    )
    for rcode in range(16)
)

# Tiers: who answered.
ZONE: Final = "zone"
L1: Final = "l1"
STALE: Final = "stale"
SPECIAL: Final = "special"
UP: Final = "up"
REFUSED: Final = "refused"
ERROR: Final = "error"
FAILED: Final = "failed"


class Counters:
    """The ingress's metrics; the hot ones are plain dictionaries that the caller adds to."""

    def __init__(self) -> None:
        m = self._metrics = Metrics()
        self._fetched: list[tuple[Counter, Callable[[], int]]] = []
        self.queries: Counter = m.counter(
            "raydns_ingress_queries_total", "Queries that were read, by transport.", "transport"
        )
        self.responses: Counter = m.counter("raydns_ingress_responses_total", "Replies by response code.", "rcode")
        self.tiers: Counter = m.counter("raydns_ingress_answers_total", "Replies by the tier that made them.", "tier")
        self.latency: Histogram = m.histogram(
            "raydns_ingress_latency_seconds", "Time from reading a query to its reply, by tier.", "tier"
        )
        self.malformed: Counter = m.counter(
            "raydns_ingress_malformed_total", "Packets that are no query or a bad one, by kind.", "kind"
        )
        self.shed: Counter = m.counter(
            "raydns_ingress_shed_total",
            "Queries that could not wait for an answer from above, by the bound they met.",
            "reason",
        )
        self.limited: Counter = m.counter(
            "raydns_ingress_limited_total", "Queries above their client's rate, by the mode of the limit.", "mode"
        )
        self.dropped: Counter = m.counter(
            "raydns_ingress_dropped_total", "Queries left without a reply on purpose, by reason.", "reason"
        )
        self.sends: Counter = m.counter(
            "raydns_ingress_send_failures_total", "Replies that the socket did not take, by reason.", "reason"
        )
        self.faults: Counter = m.counter(
            "raydns_ingress_faults_total", "Exceptions that reached the last guard, by kind.", "kind"
        )
        self.answers_bad: Counter = m.counter(
            "raydns_ingress_answers_bad_total", "Answers from above that could not be used, by reason.", "reason"
        )
        self.batches: Counter = m.counter(
            "raydns_ingress_batches_total", "Batches exchanged with cache shards, by direction.", "direction"
        )
        self.connections: Counter = m.counter(
            "raydns_ingress_connections_total", "TCP connections by what became of them.", "event"
        )
        self.prefetches: Counter = m.counter(
            "raydns_ingress_prefetches_total", "Popular answers that were asked for again before they expired."
        )

    def gauge(self, name: str, text: str, read: Callable[[], float | dict[str, float]], label: str = "") -> None:
        """Adds a gauge."""
        self._metrics.gauge(name, text, read, label)

    def counted(self, name: str, text: str, read: Callable[[], int]) -> None:
        """Adds a counter whose number stands elsewhere and is fetched when it is asked for."""
        self._fetched.append((self._metrics.counter(name, text), read))

    def families(self) -> list[Family]:
        """All metrics as they stand now."""
        for counter, read in self._fetched:
            counter.values[""] = read()
        return self._metrics.families()
