"""Spans of sampled queries: taken in a microsecond, made and sent by a thread that nobody waits for.

The room that a query meets decides early (``sampled``) and records late, after the answer has gone: ``record``
puts one tuple on a bounded queue. OpenTelemetry is imported by the exporter's thread alone, when the first span
comes; a process that never samples never loads it (44 µs a span, 9 µs even for one that a sampler drops: that is
why neither its tracer nor its sampler stands on our path). A receiver that is slow, wrong or away costs spans,
which are counted, and nothing else.
"""

from __future__ import annotations

import logging
import os
import random
import secrets
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from raydns.nodes.metrics import Metrics
from raydns.schemas.batch import NO_SPAN, NO_TRACE

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

    from raydns.schemas.config.telemetry import TraceConfig

log = logging.getLogger(__name__)

SERVICE_NAME: Final = "raydns"
TRACES_PATH: Final = "/v1/traces"  # of OTLP/HTTP
QUEUE_MAX: Final = 4096
BATCH_MAX: Final = 512
INTERVAL_S: Final = 0.5
EXPORT_TIMEOUT_S: Final = 5.0
TEXT_MAX: Final = 1024  # of one attribute's value

CONTEXT_SIZE: Final = 26
SAMPLED: Final = 1

Attributes = Mapping[str, Any]
SpanEvent = tuple[str, int, Attributes]
"""Name, Unix time in µs, attributes."""


class TraceContext(NamedTuple):
    """What a caller tells of its trace (W3C Trace Context)."""

    trace_id: bytes
    span_id: bytes
    flags: int

    @property
    def sampled(self) -> bool:
        """Whether the caller records its own spans."""
        return bool(self.flags & SAMPLED)


def parse_context(option: bytes) -> TraceContext | None:
    """The trace context in an EDNS option 65500; ``None`` for what is none.

    The layout is traceparent's in octets: version, 16 of trace id, 8 of span id, flags. As the recommendation asks,
    version 255 and ids of zeros are invalid, and a later version is read as far as version 0 goes.
    """
    if len(option) < CONTEXT_SIZE or option[0] == 0xFF or (option[0] == 0 and len(option) != CONTEXT_SIZE):
        return None
    trace_id, span_id = option[1:17], option[17:25]
    if trace_id == NO_TRACE or span_id == NO_SPAN:
        return None
    return TraceContext(trace_id, span_id, option[25])


def format_context(trace_id: bytes, span_id: bytes, flags: int = SAMPLED) -> bytes:
    """The EDNS option's value that hands a trace on."""
    return b"\x00" + trace_id + span_id + bytes((flags & 0xFF,))


def sampled(ratio: float, rng: Callable[[], float]) -> bool:
    """Whether a query gets a trace: one comparison while tracing is off."""
    return ratio > 0.0 and rng() < ratio


class _Span(NamedTuple):
    name: str
    kind: str
    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    start_us: int
    end_us: int
    attributes: Attributes
    events: Sequence[SpanEvent]
    error: str


class Tracer:
    """Takes finished spans of one component and sends them to ``telemetry.trace.otlp_endpoint``.

    Args:
        component: ``ingress``, ``cache``, ``query``, ``zone``, ``llm``.
        instance: which of them: an actor's name or number, a machine's name.
        config: section ``telemetry.trace``.
        rng: decides who is sampled; ids come from the system's source.
        exporter: makes the exporter in the thread; tests put their own here.
    """

    def __init__(
        self,
        component: str,
        instance: str,
        config: TraceConfig,
        *,
        rng: Callable[[], float] | None = None,
        exporter: Callable[[str], SpanExporter] | None = None,
        queue_max: int = QUEUE_MAX,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self.component = component
        self.instance = instance
        self.ratio = config.sample_ratio
        self.endpoint = config.otlp_endpoint
        self.metrics = Metrics()
        self._spans = self.metrics.counter(
            "raydns_nodes_spans_total",
            "Spans by what became of them: exported, dropped (queue full), failed.",
            "result",
        )
        self._rng = rng or random.random
        self._make_exporter = exporter or _otlp_exporter
        self._queue: deque[_Span] = deque()
        self._queue_max = queue_max
        self._interval_s = interval_s
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._idle = threading.Condition()
        self._busy = False
        self._stopped = False
        self._thread: threading.Thread | None = None

    def configure(self, config: TraceConfig) -> None:
        """Takes a new configuration while running; spans in the queue go to the new receiver."""
        self.ratio = config.sample_ratio
        self.endpoint = config.otlp_endpoint

    def sampled(self) -> bool:
        """Whether this query gets a trace."""
        return sampled(self.ratio, self._rng)

    @staticmethod
    def new_trace_id() -> bytes:
        """Sixteen random octets."""
        return secrets.token_bytes(16)

    @staticmethod
    def new_span_id() -> bytes:
        """Eight random octets."""
        return secrets.token_bytes(8)

    @property
    def exported(self) -> int:
        """Spans that the receiver took."""
        return self._spans.values.get("exported", 0)

    @property
    def dropped(self) -> int:
        """Spans for which the queue had no room."""
        return self._spans.values.get("dropped", 0)

    @property
    def failed(self) -> int:
        """Spans that could not be made or sent."""
        return self._spans.values.get("failed", 0)

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
        attributes: Attributes,
        events: Sequence[SpanEvent] = (),
        error: str = "",
    ) -> None:
        """Queues one finished span; never blocks, never raises, does nothing without a receiver.

        Args:
            name: the room's: ``dns.query``, ``cache.lookup``, ``query.resolve``, ``upstream.exchange``, …
            kind: ``server``, ``client`` or ``internal``.
            trace_id: 16 octets.
            span_id: this span's own, 8 octets.
            parent_id: 8 octets; zeros or nothing for a root.
            start_us: Unix time.
            end_us: Unix time.
            attributes: by the names of the semantic conventions; values are text, numbers, booleans.
            events: what happened within.
            error: what went wrong; empty for success.
        """
        if not self.endpoint or self._stopped:
            return
        if len(self._queue) >= self._queue_max:
            self._spans.inc("dropped")
            return
        self._queue.append(_Span(name, kind, trace_id, span_id, parent_id, start_us, end_us, attributes, events, error))
        if self._thread is None:
            self._start()
        if not self._wake.is_set():
            self._wake.set()
        if len(self._queue) >= BATCH_MAX and not self._hurry.is_set():
            self._hurry.set()

    def flush(self, timeout_s: float = EXPORT_TIMEOUT_S) -> bool:
        """Waits until all that was recorded has been sent or given up; ``False`` at the time-out."""
        if self._thread is None:
            return True
        with self._idle:
            self._hurry.set()
            self._wake.set()
            return self._idle.wait_for(lambda: not self._queue and not self._busy, timeout_s)

    def close(self, timeout_s: float = 1.0) -> None:
        """Sends what is left within the time, and ends the thread."""
        self.flush(timeout_s)
        self._stopped = True
        self._hurry.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._main, name="raydns-spans", daemon=True)
        self._thread.start()

    def _main(self) -> None:
        sender = _Sender(self.component, self.instance, self._make_exporter)
        while not self._stopped:
            self._wake.wait()
            self._hurry.wait(self._interval_s)  # let more of them come together
            self._wake.clear()
            self._hurry.clear()
            while self._queue and not self._stopped:
                self._busy = True
                taken = [self._queue.popleft() for _ in range(min(len(self._queue), BATCH_MAX))]
                good, bad = sender.send(taken, self.endpoint)
                self._spans.inc("exported", good)
                self._spans.inc("failed", bad)
            with self._idle:
                self._busy = False
                self._idle.notify_all()
        sender.close()


class _Sender:
    """The exporter's thread: the only place that knows OpenTelemetry."""

    def __init__(self, component: str, instance: str, make: Callable[[str], SpanExporter]) -> None:
        self._component = component
        self._instance = instance
        self._make = make
        self._exporter: SpanExporter | None = None
        self._endpoint = ""
        self._resource: Resource | None = None
        self._well = True

    def send(self, spans: list[_Span], endpoint: str) -> tuple[int, int]:
        """Exports; returns how many the receiver took and how many are lost. Never raises."""
        made: list[ReadableSpan] = []
        try:
            from opentelemetry.sdk.trace.export import SpanExportResult

            exporter = self._ready(endpoint)
            for span in spans:
                try:
                    made.append(_readable(span, self._resource))
                except (ValueError, TypeError, AttributeError) as error:
                    log.warning("span_malformed", extra={"span": span.name, "problem": str(error)})
            taken = not made or exporter.export(made) is SpanExportResult.SUCCESS
            problem = "" if taken else "the receiver did not take them"
        except Exception as error:
            # Whatever goes wrong in a library or at the receiver: queries must not notice (rule of this file).
            taken, problem = False, f"{type(error).__name__}: {error}"
        if taken is not self._well:
            self._well = taken
            if taken:
                log.info("trace_export_works_again", extra={"endpoint": endpoint})
            else:
                log.warning("trace_export_failed", extra={"endpoint": endpoint, "problem": problem})
        return (len(made), len(spans) - len(made)) if taken else (0, len(spans))

    def close(self) -> None:
        """Lets the exporter go."""
        if self._exporter is not None:
            self._exporter.shutdown()

    def _ready(self, endpoint: str) -> SpanExporter:
        if self._exporter is None or endpoint != self._endpoint:
            self.close()
            self._exporter = self._make(endpoint)
            self._endpoint = endpoint
        if self._resource is None:
            self._resource = _resource(self._component, self._instance)
        return self._exporter


def _otlp_exporter(endpoint: str) -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    # It logs each failed attempt by itself; we log the change from well to ill and back.
    logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
    base = endpoint.rstrip("/")
    url = base if base.endswith(TRACES_PATH) else base + TRACES_PATH
    return OTLPSpanExporter(endpoint=url, timeout=EXPORT_TIMEOUT_S)


def _resource(component: str, instance: str) -> Resource:
    from opentelemetry.sdk.resources import Resource

    host = socket.gethostname()
    return Resource.create(
        {
            "service.name": SERVICE_NAME,
            "service.instance.id": f"{component}/{instance}@{host}",
            "host.name": host,
            "process.pid": os.getpid(),
            "raydns.component": component,
        }
    )


def _readable(span: _Span, resource: Resource | None) -> ReadableSpan:
    """One span as the exporter takes it, with the ids that travelled in the batch."""
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

    if len(span.trace_id) != 16 or len(span.span_id) != 8 or span.trace_id == NO_TRACE or span.span_id == NO_SPAN:
        raise ValueError("a span needs a trace id of 16 octets and an id of 8, neither of them zeros")

    def context(span_id: bytes, remote: bool) -> SpanContext:
        return SpanContext(
            int.from_bytes(span.trace_id, "big"), int.from_bytes(span_id, "big"), remote, TraceFlags(TraceFlags.SAMPLED)
        )

    return ReadableSpan(
        span.name,
        context=context(span.span_id, False),
        parent=context(span.parent_id, True) if any(span.parent_id) else None,
        resource=resource,
        attributes=_values(span.attributes),
        events=[Event(name, _values(found), max(at, 0) * 1000) for name, at, found in span.events],
        kind=SpanKind[span.kind.upper()] if span.kind.upper() in SpanKind.__members__ else SpanKind.INTERNAL,
        status=Status(StatusCode.ERROR, span.error[:TEXT_MAX]) if span.error else Status(StatusCode.UNSET),
        start_time=max(span.start_us, 0) * 1000,
        end_time=max(span.end_us, span.start_us, 0) * 1000,
        instrumentation_scope=InstrumentationScope(SERVICE_NAME),
    )


def _values(attributes: Attributes) -> dict[str, str | bool | int | float]:
    """Attributes as OTLP can carry them: numbers of 64 bits, text of valid UTF-8 and bounded length."""
    found: dict[str, str | bool | int | float] = {}
    for key, value in attributes.items():
        if isinstance(value, bool | float):
            found[key] = value
        elif isinstance(value, int) and -(1 << 63) <= value < 1 << 63:
            found[key] = int(value)
        elif isinstance(value, bytes):
            found[key] = value[: TEXT_MAX // 2].hex()
        else:
            found[key] = str(value)[:TEXT_MAX].encode("utf-8", "backslashreplace").decode()
    return found
