"""What the query actor counts, and the families that need two labels (upstream and outcome)."""

from __future__ import annotations

from collections.abc import Callable

from raydns.nodes.metrics import Family, Metrics, Sample
from raydns.schemas.batch import AnswerItem, Outcome

from .forward.breaker import State
from .forward.forwarder import Forwarder

_STATES = {State.CLOSED: 0.0, State.HALF_OPEN: 1.0, State.OPEN: 2.0}


class Measures:
    """Made once an actor; ``families`` adds what upstreams know of themselves."""

    def __init__(self, in_flight: Callable[[], float]) -> None:
        self.metrics = Metrics()
        self.answers = self.metrics.counter(
            "raydns_query_answers_total", "Answers of the query actor, by outcome.", "outcome"
        )
        self.shed = self.metrics.counter(
            "raydns_query_shed_total", "Queries that were refused at once because the actor was full."
        )
        self.errors = self.metrics.counter(
            "raydns_query_internal_errors_total", "Queries that a bug of ours failed; each has a line in the log."
        )
        self.duration = self.metrics.histogram(
            "raydns_query_duration_seconds", "Time that a query spent in the query actor, in seconds."
        )
        self.flights = self.metrics.histogram(
            "raydns_query_upstream_duration_seconds",
            "Time of a question to upstreams over all its attempts, in seconds, by result.",
            "result",
        )
        self.metrics.gauge("raydns_query_in_flight", "Queries that the query actor works on now.", in_flight)

    def answered(self, answer: AnswerItem, outcome: Outcome, seconds: float) -> None:
        """Counts one answer."""
        self.answers.inc(outcome.name.lower())
        self.duration.observe(seconds)

    def flight(self, seconds: float, good: bool) -> None:
        """Counts one flight that ended."""
        self.flights.observe(seconds, "answer" if good else "failure")

    def families(self, forwarder: Forwarder) -> list[Family]:
        """Everything, as it stands now."""
        return [*self.metrics.families(), *_upstreams(forwarder)]


def _upstreams(forwarder: Forwarder) -> list[Family]:
    requests: list[Sample] = []
    rtt: list[Sample] = []
    state: list[Sample] = []
    opened: list[Sample] = []
    in_flight: list[Sample] = []
    strangers: list[Sample] = []
    for server in forwarder.servers():
        upstream = server.state
        label = {"upstream": str(server.address)}
        requests += [Sample({**label, "outcome": k}, float(v)) for k, v in upstream.outcomes.items()]
        rtt.append(Sample(label, upstream.srtt))
        state.append(Sample(label, _STATES[upstream.breaker.state]))
        opened.append(Sample(label, float(upstream.breaker.opened)))
        in_flight.append(Sample(label, float(upstream.in_flight)))
        strangers.append(Sample(label, float(server.udp.strangers)))
    prefix = "raydns_query_upstream"
    return [
        Family(f"{prefix}_requests_total", "counter", "Exchanges with upstream servers, by outcome.", requests),
        Family(f"{prefix}_rtt_seconds", "gauge", "Smoothed time of an upstream's answers, in seconds.", rtt),
        Family(
            f"{prefix}_breaker_state", "gauge", "Circuit breaker of an upstream: 0 closed, 1 half-open, 2 open.", state
        ),
        Family(f"{prefix}_breaker_opened_total", "counter", "Times that a breaker opened.", opened),
        Family(f"{prefix}_in_flight", "gauge", "Exchanges that wait for an upstream now.", in_flight),
        Family(
            f"{prefix}_strange_replies_total",
            "counter",
            "Datagrams from an upstream's address with an ID that nobody waited for.",
            strangers,
        ),
        Family(
            "raydns_query_coalesced_total",
            "counter",
            "Questions to upstreams that joined an equal one under way.",
            [Sample({}, float(forwarder.joined))],
        ),
        Family(
            "raydns_query_zone_share_shed_total",
            "counter",
            "Questions to upstreams that were not sent because their zone had its share in flight.",
            [Sample({}, float(forwarder.shed))],
        ),
        Family(
            "raydns_query_upstream_unresolved",
            "gauge",
            "Questions that failed since no upstream of their rule had an address.",
            [Sample({}, float(forwarder.unresolved))],
        ),
    ]
