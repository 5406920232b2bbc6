"""Traces and the memory of the last queries: decided at the door, written after the answer has gone.

A query is sampled by chance (``telemetry.trace.sample_ratio``) or because a client with the right ``trace`` says so
in EDNS option 65500. Only then does a ``Trace`` exist; every other query allocates nothing for it.
"""

from __future__ import annotations

import random
import secrets
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from raydns.schemas import dns, names, wire
from raydns.schemas.batch import NO_SPAN, NO_TRACE, Right
from raydns.schemas.config.telemetry import TraceConfig
from raydns.schemas.wire import Query

from .admission import Client
from .asked import Asked, Trace
from .counters import RCODES, TRANSPORTS
from .engine import RecentQuery

OPTION_SIZE: Final = 26  # 1 version + 16 trace id + 8 span id + 1 flags (W3C Trace Context, binary)
REMEMBER_EVERY_S: Final = 0.01
"""At most so often a query that met no other room is remembered: a flood of hits must not pay for the status page."""
_TYPE_NAMES: Final = {int(member): member.name for member in dns.Type}


class Recorder(Protocol):
    """What we need of ``nodes.tracing.Tracer``."""

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
        attributes: Mapping[str, Any],
        events: Sequence[Any] = (),
        error: str = "",
    ) -> None:
        """Queues one finished span."""


class Traces:
    """Sampling, spans of this room, and the ring of remembered queries."""

    def __init__(self, recorder: Recorder | None, rng: random.Random) -> None:
        self._recorder = recorder
        self._rng = rng
        self._recent: deque[tuple[Any, ...]] = deque(maxlen=0)
        self._next_at = 0.0
        self.ratio = 0.0
        self.sampled = 0

    def configure(self, config: TraceConfig) -> None:
        """Takes a new configuration; what is remembered stays as far as it fits."""
        self.ratio = config.sample_ratio
        if self._recent.maxlen != config.recent:
            self._recent = deque(self._recent, maxlen=config.recent)

    def decide(self, query: Query, client: Client) -> Trace | None:
        """A trace for this query, or ``None``: nearly always."""
        edns = query.edns
        if edns is not None and edns.options and client.klass.rights & Right.TRACE:
            asked = edns.options.get(dns.EdnsOption.TRACE_CONTEXT)
            if asked is not None:
                unsampled = len(asked) == OPTION_SIZE and asked[0] == 0 and not asked[OPTION_SIZE - 1] & 1
                return None if unsampled else self._begin(asked, tell=True)
        if self.ratio and self._rng.random() < self.ratio:
            return self._begin(b"", tell=False)
        return None

    def _begin(self, asked: bytes, *, tell: bool) -> Trace:
        self.sampled += 1
        trace_id, parent_id = NO_TRACE, NO_SPAN
        if len(asked) == OPTION_SIZE and asked[0] == 0:
            trace_id, parent_id = asked[1:17], asked[17:25]
        if trace_id == NO_TRACE:
            trace_id, parent_id = secrets.token_bytes(16), NO_SPAN
        return Trace(trace_id, parent_id, secrets.token_bytes(8), tell=tell)

    @staticmethod
    def option(trace: Trace | None) -> bytes:
        """The EDNS option for the reply, where the client asked for it."""
        if trace is None or not trace.tell:
            return b""
        return wire.option(dns.EdnsOption.TRACE_CONTEXT, b"\x00" + trace.trace_id + trace.span_id + b"\x01")

    def wants(self, now: float) -> bool:
        """Whether an unsampled query that met no other room should be remembered."""
        return now >= self._next_at

    def noted(self, now: float) -> None:
        """One was remembered: the next that met no other room waits its turn."""
        self._next_at = now + REMEMBER_EVERY_S

    def note(self, asked: Asked, tier: str, rcode: int, *, start_us: int, duration_us: int, rooms: bytes) -> None:
        """Remembers a query that was answered, and writes its span if it is sampled."""
        trace, query, client = asked.trace, asked.query, asked.client
        trace_id = trace.trace_id if trace is not None else b""
        self._recent.append(
            (trace_id, query.qname, query.qtype, rcode, client.host, asked.transport, start_us, duration_us, rooms)
        )
        if trace is None or self._recorder is None:
            return
        self._recorder.record(
            "dns.query",
            kind="server",
            trace_id=trace.trace_id,
            span_id=trace.span_id,
            parent_id=trace.parent_id,
            start_us=start_us,
            end_us=start_us + duration_us,
            attributes={
                "dns.question.name": names.to_text(query.qname),
                "dns.question.type": _TYPE_NAMES.get(query.qtype, f"TYPE{query.qtype}"),
                "dns.response.code": RCODES[rcode],
                "network.transport": "udp" if asked.transport == dns.Transport.UDP else "tcp",
                "network.protocol.name": TRANSPORTS.get(asked.transport, "dns"),
                "client.address": client.host,
                "raydns.class": client.klass.name,
                "raydns.tier": tier,
            },
            error="SERVFAIL" if rcode == dns.Rcode.SERVFAIL else "",
        )

    def recent(self, limit: int, trace_id: str = "") -> list[RecentQuery]:
        """The newest remembered queries, newest first, or those of one trace."""
        found: list[RecentQuery] = []
        for trace, name, qtype, rcode, host, transport, start_us, duration_us, rooms in reversed(self._recent):
            if len(found) >= limit:
                break
            if trace_id and trace.hex() != trace_id:
                continue
            found.append(
                RecentQuery(
                    trace.hex(), names.to_text(name), qtype, rcode, host, transport, start_us, duration_us, rooms
                )
            )
        return found
