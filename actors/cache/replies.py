"""Answers on their way down: made from an entry, a remembered failure or a flight's end; stamped, counted, traced."""

from __future__ import annotations

from typing import Final, Protocol

from raydns.schemas import dns
from raydns.schemas.batch import AnswerFlag, AnswerItem, Outcome, QueryItem, Room, stamp

from .answers import aged, bare, failed, with_ttl
from .failures import Failure
from .flights import Waiter
from .metrics import OUTCOMES, CacheMetrics
from .store import Entry

LATE: Final = "no answer in time"


class SpanSink(Protocol):
    """What of ``nodes.tracing.Tracer`` is used here."""

    def new_span_id(self) -> bytes:
        """Eight random octets."""

    def record(
        self,
        name: str,
        *,
        kind: str,
        trace_id: bytes,
        span_id: bytes,
        parent_id: bytes,
        start_us: int,
        end_us: int,
        attributes: dict[str, str | int | float | bool],
    ) -> None:
        """Queues a span that has ended."""


class Replies:
    """Makes and sends answers.

    Args:
        index: of the shard, for the time stamps.
        wall_offset: what the shard's clock lacks to Unix time, in seconds.
        metrics: counted here, once an answer.
        tracer: takes spans of sampled queries; ``None``: there are none.
    """

    def __init__(self, index: int, wall_offset: float, metrics: CacheMetrics, tracer: SpanSink | None) -> None:
        self.index = index
        self.wall_offset = wall_offset
        self.ring_version = 0
        self.stale_ttl = 30
        self._metrics = metrics
        self._tracer = tracer

    def new_span_id(self, item: QueryItem) -> bytes:
        """The span that a sampled query has here; what goes up has it as its parent."""
        return self._tracer.new_span_id() if item.sampled and self._tracer is not None else item.span_id

    def fresh(self, waiter: Waiter, entry: Entry, now: float) -> None:
        """From a fresh entry: what is left is told, and the TTLs count from now."""
        # Rounded down, so that no tier below ever keeps it longer than this one would.
        left = int(entry.fresh_until - now)
        message = entry.message if left == entry.ttl else aged(entry.message, entry.layout, entry.ttl - left)
        outcome = Outcome.NEGATIVE if entry.negative else Outcome.HIT
        answer = AnswerItem(
            waiter.slot,
            message,
            entry.flags,
            entry.scope,
            left,
            int(entry.stale_until - entry.fresh_until),
            entry.began,
            self.ring_version,
            entry.layout,
            entry.facts,
            b"",
            entry.ede,
            entry.ede_text,
        )
        self.send(waiter, answer, outcome, now)
        self._metrics.hits.inc()
        if entry.negative:
            self._metrics.negative.inc()

    def stale(self, waiter: Waiter, entry: Entry, now: float) -> None:
        """From an expired entry (RFC 8767): TTL 30, EDE 3, or 19 where it says that the name does not exist."""
        gone = entry.message[3] & dns.RCODE_MASK == dns.Rcode.NXDOMAIN
        answer = AnswerItem(
            waiter.slot,
            with_ttl(entry.message, entry.layout, self.stale_ttl),
            entry.flags | AnswerFlag.STALE,
            entry.scope,
            # Below it may serve until it would be tried again here; at once, while that is going on.
            max(min(self.stale_ttl, int(entry.retry_at - now)), 0),
            max(int(entry.stale_until - now), 0),
            entry.began,
            self.ring_version,
            entry.layout,
            entry.facts,
            b"",
            dns.Ede.STALE_NXDOMAIN if gone else dns.Ede.STALE_ANSWER,
            "",
        )
        self.send(waiter, answer, Outcome.STALE, now)
        self._metrics.stale.inc()

    def remembered(self, waiter: Waiter, question: bytes, failure: Failure, now: float) -> None:
        """From a remembered failure (RFC 9520), which EDE 13 says."""
        answer = AnswerItem(
            waiter.slot,
            bare(question, failure.rcode),
            AnswerFlag.SHAREABLE,
            fresh_s=int(failure.until - now),
            began=failure.began,
            ring_version=self.ring_version,
            ede=dns.Ede.CACHED_ERROR,
            ede_text=failure.ede_text,
        )
        self.send(waiter, answer, Outcome.FAILED, now)
        self._metrics.failures.inc()

    def servfail(self, waiter: Waiter, question: bytes, ede: int, reason: str, now: float, *, detail: str = "") -> None:
        """A failure of our own making, told to all who wait below for the same, and cached nowhere."""
        text = f"{reason}: {detail}" if detail else reason
        answer = failed(waiter.slot, question, dns.Rcode.SERVFAIL, ede, text, shareable=True)
        answer.ring_version = self.ring_version
        self.send(waiter, answer, Outcome.TIMEOUT if reason == LATE else Outcome.FAILED, now)
        self._metrics.failed.inc(reason)

    def not_held(self, waiter: Waiter, question: bytes, now: float) -> None:
        """RD=0 never goes upstream, and nothing is held: this slot only, since others may ask with RD=1."""
        text = "not in the cache, and recursion was not desired"
        answer = failed(waiter.slot, question, dns.Rcode.REFUSED, dns.Ede.NOT_AUTHORITATIVE, text, shareable=False)
        answer.ring_version = self.ring_version
        self.send(waiter, answer, Outcome.REFUSED, now)

    def formerr(self, waiter: Waiter, problem: str, now: float) -> None:
        """The ingress has let through what is no query."""
        answer = failed(waiter.slot, b"", dns.Rcode.FORMERR, dns.Ede.INVALID_DATA, problem, shareable=False)
        self.send(waiter, answer, Outcome.FAILED, now)
        self._metrics.failed.inc("malformed query")

    def send(self, waiter: Waiter, answer: AnswerItem, outcome: int, now: float) -> None:
        """Stamps and sends; ``answer.rooms`` are those met above."""
        item = waiter.item
        if item is None:
            return
        took = now - waiter.arrived
        start_us = int((waiter.arrived + self.wall_offset) * 1e6)
        duration_us = int(took * 1e6)
        answer.rooms = stamp(Room.CACHE, outcome, self.index, start_us, duration_us) + answer.rooms
        if item.trace_flags & 1:
            answer.flags |= AnswerFlag.TRACED
        waiter.reply(answer)
        self._metrics.latency.observe(took, OUTCOMES[outcome])
        if item.trace_flags & 1 and self._tracer is not None:
            self._trace(waiter, answer, outcome, start_us, start_us + duration_us)

    def _trace(self, waiter: Waiter, answer: AnswerItem, outcome: int, start_us: int, end_us: int) -> None:
        item, tracer = waiter.item, self._tracer
        if item is None or tracer is None:
            return
        tracer.record(
            "cache.lookup",
            kind="internal",
            trace_id=item.trace_id,
            span_id=waiter.span_id or tracer.new_span_id(),
            parent_id=item.span_id,
            start_us=start_us,
            end_us=end_us,
            attributes={
                "raydns.actor": f"cache:{self.index}",
                "raydns.outcome": OUTCOMES[outcome],
                "dns.response_code": answer.message[3] & dns.RCODE_MASK,
            },
        )
