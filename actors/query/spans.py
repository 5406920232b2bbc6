"""The spans of a sampled query: ``query.resolve`` and, below it, ``upstream.exchange`` with its retries as events."""

from __future__ import annotations

from typing import NamedTuple

from raydns.schemas import dns, names, wire
from raydns.schemas.batch import AnswerItem, QueryItem
from raydns.schemas.errors import RaydnsError

from .forward.forwarder import Result
from .forward.message import Question
from .ports import Spans


class Resolved(NamedTuple):
    """A query that the pipeline has answered; times are Unix µs."""

    query: wire.Query
    answer: AnswerItem
    actor: str
    start_us: int
    end_us: int


class Exchanged(NamedTuple):
    """A question that upstreams have answered, or not; times are Unix µs."""

    question: Question
    start_us: int
    end_us: int
    offset_us: int  # from monotonic to Unix time
    result: Result | None
    error: RaydnsError | None


def tell_query(spans: Spans, item: QueryItem, span_id: bytes, told: Resolved) -> None:
    """Records ``query.resolve``."""
    rcode = told.answer.message[3] & dns.RCODE_MASK
    spans.record(
        "query.resolve",
        kind="internal",
        trace_id=item.trace_id,
        span_id=span_id,
        parent_id=item.span_id,
        start_us=told.start_us,
        end_us=told.end_us,
        attributes={
            "dns.question.name": names.to_text(told.query.key),
            "dns.question.type": told.query.qtype,
            "dns.response_code": rcode,
            "raydns.actor": told.actor,
        },
        error=(told.answer.ede_text or "SERVFAIL") if rcode == dns.Rcode.SERVFAIL else "",
    )


def tell_exchange(spans: Spans, item: QueryItem, parent_id: bytes, told: Exchanged) -> None:
    """Records ``upstream.exchange``."""
    result = told.result
    address, _, port = (result.upstream if result is not None else "").rpartition(":")
    spans.record(
        "upstream.exchange",
        kind="client",
        trace_id=item.trace_id,
        span_id=spans.new_span_id(),
        parent_id=parent_id,
        start_us=told.start_us,
        end_us=told.end_us,
        attributes={
            "dns.question.name": names.to_text(told.question.key),
            "server.address": address.strip("[]"),
            "server.port": int(port or 0),
            "raydns.attempts": result.attempts if result is not None else 0,
            "raydns.joined": result is not None and result.joined,
        },
        events=tuple(
            (event.name, int(event.at * 1e6) + told.offset_us, {"server.address": event.upstream})
            for event in (result.events if result is not None else ())
        ),
        error=str(told.error) if told.error is not None else "",
    )
