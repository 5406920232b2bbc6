"""Spans: exported to a real OTLP/HTTP receiver, never in anybody's way, and free for those who do not sample."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from raydns.nodes import tracing
from raydns.nodes.tracing import Tracer
from raydns.schemas.config.telemetry import TraceConfig

# Two busy cores: how long one example takes proves nothing.
settings.register_profile("raydns", deadline=None)
settings.load_profile("raydns")

TRACE_ID = bytes(range(1, 17))
ROOT_SPAN = b"rootspan"
CHILD_SPAN = b"a child!"


class Receiver:
    """An OTLP/HTTP receiver that remembers what it was told."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.status = 200
        self.url = ""

    async def traces(self, request: web.Request) -> web.Response:
        """``POST /v1/traces``."""
        assert request.content_type == "application/x-protobuf"
        body = await request.read()
        if self.status == 200:
            self.requests.append(ExportTraceServiceRequest.FromString(body))
        return web.Response(status=self.status)

    @property
    def spans(self) -> list[Span]:
        """All spans received."""
        return [s for r in self.requests for rs in r.resource_spans for ss in rs.scope_spans for s in ss.spans]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver on a free port of loopback."""
    made = Receiver()
    app = web.Application()
    app.router.add_post("/v1/traces", made.traces)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


class FakeExporter(SpanExporter):
    """Takes, refuses, raises or blocks, as told."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []
        self.result = SpanExportResult.SUCCESS
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """What the thread calls."""
        self.gate.wait(10)
        if self.error is not None:
            raise self.error
        if self.result is SpanExportResult.SUCCESS:
            self.spans.extend(spans)
        return self.result

    def shutdown(self) -> None:
        """Nothing to let go."""


def config(endpoint: str = "http://127.0.0.1:9", ratio: float = 1.0) -> TraceConfig:
    """Section telemetry.trace."""
    return TraceConfig(sample_ratio=ratio, otlp_endpoint=endpoint)


def record(tracer: Tracer, **changes: object) -> None:
    """A plain span, with changes."""
    fields: dict[str, object] = {
        "kind": "internal",
        "trace_id": TRACE_ID,
        "span_id": tracer.new_span_id(),
        "parent_id": bytes(8),
        "start_us": 1_000_000,
        "end_us": 1_000_500,
        "attributes": {},
    }
    tracer.record("cache.lookup", **(fields | changes))  # type: ignore[arg-type]


@pytest.fixture
def fake() -> Iterator[tuple[Tracer, FakeExporter]]:
    """A tracer whose exporter is ours."""
    exporter = FakeExporter()
    tracer = Tracer("cache", "0", config(), exporter=lambda _: exporter, queue_max=100, interval_s=0.01)
    yield tracer, exporter
    exporter.gate.set()
    tracer.close()


def value(found: AnyValue) -> object:
    """The Python value of an OTLP attribute."""
    return getattr(found, str(found.WhichOneof("value")))


async def test_spans_reach_a_real_receiver(receiver: Receiver) -> None:
    """Two rooms of one trace arrive over OTLP/HTTP with our ids, parents, kinds, times, attributes and resource."""
    tracer = Tracer("ingress", "m1", config(receiver.url + "/"), interval_s=0.01)
    tracer.record(
        "dns.query",
        kind="server",
        trace_id=TRACE_ID,
        span_id=ROOT_SPAN,
        parent_id=bytes(8),
        start_us=1_700_000_000_000_000,
        end_us=1_700_000_000_000_750,
        attributes={
            "dns.question.name": "www.example.com.",
            "server.address": "127.0.0.1",
            "server.port": 1053,
            "network.transport": "udp",
            "network.protocol.name": "dns",
            "raydns.cached": False,
            "raydns.share": 0.5,
        },
        events=[("batched", 1_700_000_000_000_100, {"items": 3})],
    )
    tracer.record(
        "upstream.exchange",
        kind="client",
        trace_id=TRACE_ID,
        span_id=CHILD_SPAN,
        parent_id=ROOT_SPAN,
        start_us=1_700_000_000_000_200,
        end_us=1_700_000_000_000_100,  # a clock that stepped back: never a negative duration
        attributes={
            "tls.key": b"\x01\x02",
            "odd\ud800": "a\ud800b",
            "huge": 1 << 80,
            "nothing": None,
            "long": "x" * 5000,
        },
        error="timeout",
    )
    assert await asyncio.to_thread(tracer.flush, 10.0)
    root, child = sorted(receiver.spans, key=lambda span: span.name)
    assert (root.trace_id, root.span_id, root.parent_span_id) == (TRACE_ID, ROOT_SPAN, b"")
    assert (child.trace_id, child.span_id, child.parent_span_id) == (TRACE_ID, CHILD_SPAN, ROOT_SPAN)
    assert (root.kind, child.kind) == (Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT)
    assert root.start_time_unix_nano == 1_700_000_000_000_000_000
    assert root.end_time_unix_nano - root.start_time_unix_nano == 750_000
    assert child.end_time_unix_nano == child.start_time_unix_nano
    assert {a.key: value(a.value) for a in root.attributes} == {
        "dns.question.name": "www.example.com.",
        "server.address": "127.0.0.1",
        "server.port": 1053,
        "network.transport": "udp",
        "network.protocol.name": "dns",
        "raydns.cached": False,
        "raydns.share": 0.5,
    }
    assert [(e.name, e.time_unix_nano) for e in root.events] == [("batched", 1_700_000_000_000_100_000)]
    assert (child.status.code, child.status.message) == (2, "timeout")
    strange = {a.key: value(a.value) for a in child.attributes}
    assert strange["tls.key"] == "0102"
    assert strange["huge"] == str(1 << 80)
    assert strange["nothing"] == "None"
    assert strange["long"] == "x" * tracing.TEXT_MAX
    resource = {a.key: value(a.value) for a in receiver.requests[0].resource_spans[0].resource.attributes}
    assert resource["service.name"] == "raydns"
    assert str(resource["service.instance.id"]).startswith("ingress/m1@")
    assert resource["host.name"]
    assert isinstance(resource["process.pid"], int)
    assert (tracer.exported, tracer.dropped, tracer.failed) == (2, 0, 0)
    await asyncio.to_thread(tracer.close)


async def test_receiver_that_refuses_and_recovers(receiver: Receiver) -> None:
    """A receiver that answers 400 costs the spans of that time, counted; later ones arrive."""
    tracer = Tracer("ingress", "m1", config(receiver.url), interval_s=0.01)
    receiver.status = 400
    record(tracer)
    assert await asyncio.to_thread(tracer.flush, 10.0)
    assert (tracer.exported, tracer.failed) == (0, 1)
    receiver.status = 200
    record(tracer)
    assert await asyncio.to_thread(tracer.flush, 10.0)
    assert (tracer.exported, tracer.failed) == (1, 1)
    await asyncio.to_thread(tracer.close)


def test_exporter_that_raises_or_fails(fake: tuple[Tracer, FakeExporter], caplog: pytest.LogCaptureFixture) -> None:
    """Whatever the exporter does, record returns, spans are counted, and one line a change is logged."""
    tracer, exporter = fake
    exporter.error = OSError("no route")
    for _ in range(3):
        record(tracer)
        assert tracer.flush()
    exporter.error, exporter.result = None, SpanExportResult.FAILURE
    record(tracer)
    assert tracer.flush()
    assert (tracer.exported, tracer.failed) == (0, 4)
    exporter.result = SpanExportResult.SUCCESS
    record(tracer)
    assert tracer.flush()
    assert tracer.exported == 1
    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == ["trace_export_failed"]


def test_full_queue_drops_and_counts(fake: tuple[Tracer, FakeExporter]) -> None:
    """While the receiver hangs the queue stays bounded and record does not wait."""
    tracer, exporter = fake
    exporter.gate.clear()
    start = time.perf_counter()
    for _ in range(5000):
        record(tracer)
    assert time.perf_counter() - start < 2.0
    assert tracer.dropped >= 5000 - 2 * 100 - tracing.BATCH_MAX
    exporter.gate.set()
    assert tracer.flush()
    assert tracer.exported + tracer.dropped == 5000
    assert {s.labels["result"]: s.value for s in tracer.metrics.families()[0].samples} == {
        "exported": tracer.exported,
        "dropped": tracer.dropped,
        "failed": 0,
    }


def test_malformed_spans_cost_only_themselves(fake: tuple[Tracer, FakeExporter]) -> None:
    """A span without ids, with odd kinds or attributes is left out or mended; its neighbours go out."""
    tracer, exporter = fake
    record(tracer, trace_id=bytes(16))
    record(tracer, span_id=b"short")
    record(tracer, attributes=None)
    record(tracer, events=[("x",)])
    record(tracer, kind="nonsense", start_us=-5, end_us=-9)
    record(tracer)
    assert tracer.flush()
    assert len(exporter.spans) == tracer.exported == 2
    assert tracer.failed == 4
    assert exporter.spans[0].start_time == exporter.spans[0].end_time == 0


def test_no_receiver_no_thread() -> None:
    """Without an endpoint record does nothing at all; after close neither."""
    tracer = Tracer("cache", "0", config(""))
    record(tracer)
    assert tracer._thread is None
    assert tracer.flush()
    tracer.close()
    exporter = FakeExporter()
    tracer = Tracer("cache", "0", config(), exporter=lambda _: exporter, interval_s=0.01)
    record(tracer)
    tracer.close()
    record(tracer)
    assert len(exporter.spans) == 1
    assert tracer._thread is not None
    assert not tracer._thread.is_alive()


def test_new_configuration_while_running() -> None:
    """A reload changes ratio and receiver: later spans go to the new one."""
    exporters: dict[str, FakeExporter] = {}

    def make(endpoint: str) -> SpanExporter:
        return exporters.setdefault(endpoint, FakeExporter())

    tracer = Tracer("cache", "0", config("http://one", 0.0), exporter=make, interval_s=0.01)
    assert not tracer.sampled()
    record(tracer)
    assert tracer.flush()
    tracer.configure(config("http://two", 1.0))
    assert tracer.sampled()
    record(tracer)
    assert tracer.flush()
    assert {endpoint: len(exporter.spans) for endpoint, exporter in exporters.items()} == {
        "http://one": 1,
        "http://two": 1,
    }
    tracer.close()


def test_unsampled_process_never_imports_opentelemetry() -> None:
    """A process that only decides against sampling has neither OpenTelemetry nor a thread for it."""
    code = """
import random, sys, threading
from raydns.nodes.tracing import Tracer
from raydns.schemas.config.telemetry import TraceConfig
tracer = Tracer("ingress", "m", TraceConfig(sample_ratio=0.0, otlp_endpoint="http://127.0.0.1:9"))
assert not any(tracer.sampled() for _ in range(1000))
assert not [name for name in sys.modules if name.startswith(("opentelemetry", "requests", "aiohttp", "ray."))]
assert threading.active_count() == 1
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_sampling_ratio() -> None:
    """The decision keeps its ratio, and its ends are exact."""
    rng = random.Random(7).random
    assert not any(tracing.sampled(0.0, rng) for _ in range(100))
    assert all(tracing.sampled(1.0, rng) for _ in range(10_000))
    assert 900 < sum(tracing.sampled(0.1, rng) for _ in range(10_000)) < 1100


def test_decision_is_cheap() -> None:
    """Deciding costs less than a microsecond a query (best of ten, so that a busy machine does not fail it)."""
    tracer = Tracer("ingress", "m", config(ratio=0.001))
    best = 1.0
    for _ in range(10):
        start = time.perf_counter()
        for _ in range(10_000):
            tracing.sampled(0.001, random.random)
        best = min(best, time.perf_counter() - start)
    assert best / 10_000 < 1e-6
    assert tracer._thread is None


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=8, max_size=8), st.integers(0, 255))
def test_context_round_trip(trace_id: bytes, span_id: bytes, flags: int) -> None:
    """A context survives the option, unless one of its ids is zeros, which W3C calls invalid."""
    option = tracing.format_context(trace_id, span_id, flags)
    assert len(option) == tracing.CONTEXT_SIZE
    found = tracing.parse_context(option)
    if trace_id == bytes(16) or span_id == bytes(8):
        assert found is None
    else:
        assert found == (trace_id, span_id, flags)
        assert found is not None
        assert found.sampled is bool(flags & 1)


@given(st.binary(max_size=60))
def test_any_option_is_a_context_or_none(data: bytes) -> None:
    """Octets of any length never raise; later versions are read as far as version 0 goes, 255 is invalid."""
    found = tracing.parse_context(data)
    if found is not None:
        assert data[0] != 255
        assert len(data) >= tracing.CONTEXT_SIZE
    good = tracing.format_context(TRACE_ID, ROOT_SPAN)
    assert tracing.parse_context(b"\x01" + good[1:] + data) == (TRACE_ID, ROOT_SPAN, 1)
    assert tracing.parse_context(b"\xff" + good[1:]) is None
    assert tracing.parse_context(good + b"\x00") is None
