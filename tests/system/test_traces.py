"""One query as one trace at an OTLP receiver (issue: what it must show, 5), and what an operator sees."""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from . import node as nodes
from .conftest import forward_to
from .load import until
from .node import Node
from .peers import Nsd

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]


class Receiver:
    """An OTLP/HTTP receiver that keeps every span it is sent."""

    def __init__(self) -> None:
        self.spans: list[tuple[dict[str, str], Any]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
                for resource in request.resource_spans:
                    about = {a.key: a.value.string_value for a in resource.resource.attributes}
                    for scope in resource.scope_spans:
                        receiver.spans += [(about, span) for span in scope.spans]
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def of(self, trace_id: str) -> dict[str, Any]:
        """The spans of one trace by name."""
        return {span.name: (about, span) for about, span in list(self.spans) if span.trace_id.hex() == trace_id}

    def stop(self) -> None:
        """Ends it."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    """A receiver."""
    made = Receiver()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def traced(upstream: Nsd, receiver: Receiver) -> Iterator[Node]:
    """A node that exports to it, and samples only what asks for it."""
    made = nodes.make(
        {
            "forward": {"rules": [forward_to(upstream.port)]},
            "telemetry": {"log": {"format": "json"}, "trace": {"otlp_endpoint": f"http://127.0.0.1:{receiver.port}"}},
        }
    )
    try:
        yield nodes.start(made)
    finally:
        nodes.end(made)


def ask(node: Node, name: str, qtype: str, flags: int = 1) -> str:
    """Asks with a trace context of its own in EDNS option 65500; returns its trace id."""
    trace = secrets.token_hex(16)
    node.dig(f"+ednsopt=65500:00{trace}{secrets.token_hex(8)}{flags:02x}", name, qtype)
    return trace


async def test_a_forwarded_query_is_one_trace_with_the_right_rooms_and_parents(
    traced: Node, receiver: Receiver
) -> None:
    """Proves the chain dns.query → cache.lookup → query.resolve → upstream.exchange, each from its own process."""
    trace = ask(traced, "t1.cold.upstream.test", "A")
    names = ["dns.query", "cache.lookup", "query.resolve", "upstream.exchange"]
    await until(lambda: set(names) <= set(receiver.of(trace)), 20, f"spans {names}; got {list(receiver.of(trace))}")
    spans = receiver.of(trace)
    for parent, child in itertools.pairwise(names):
        assert spans[child][1].parent_span_id == spans[parent][1].span_id, f"{child} below {parent}"
    instances = {about["service.instance.id"] for about, _ in spans.values()}
    assert len(instances) == 3
    attributes = {a.key: a.value for a in spans["upstream.exchange"][1].attributes}
    assert attributes["server.address"].string_value == "127.0.0.1"
    root = {a.key: a.value.string_value for a in spans["dns.query"][1].attributes}
    assert root["dns.question.name"].rstrip(".") == "t1.cold.upstream.test"


async def test_a_zone_answer_is_a_trace_of_one_room(traced: Node, receiver: Receiver) -> None:
    """Proves that what the ingress answers alone is one span, and that a cached answer does not claim an upstream."""
    trace = ask(traced, "www.raydns.example", "A")
    await until(lambda: bool(receiver.of(trace)), 20, "a span")
    assert set(receiver.of(trace)) == {"dns.query"}


@pytest.mark.model
async def test_a_prompt_s_trace_ends_at_the_model(traced: Node, receiver: Receiver) -> None:
    """Proves that an LLM call hangs below the query actor's span."""
    trace = ask(traced, "what.is.the.capital.of.italy", "TXT")
    await until(lambda: "llm.answer" in receiver.of(trace), 60, "the span of the model's call")
    spans = receiver.of(trace)
    assert spans["llm.answer"][1].parent_span_id == spans["query.resolve"][1].span_id


async def test_an_unsampled_query_makes_no_span(traced: Node, receiver: Receiver) -> None:
    """Proves that a query without a sampled context leaves no trace, nor does one whose context says not sampled."""
    sampled_before = len(receiver.spans)
    quiet = ask(traced, "t2.cold.upstream.test", "A", flags=0)
    traced.short("t3.cold.upstream.test", "A")
    marker = ask(traced, "t4.cold.upstream.test", "A")
    await until(lambda: "dns.query" in receiver.of(marker), 20, "the marker's span")
    await asyncio.sleep(0)
    assert receiver.of(quiet) == {}
    assert {span.trace_id.hex() for _, span in receiver.spans[sampled_before:]} <= {marker}


def test_the_command_line_shows_the_rooms_and_how_long_each_took(traced: Node) -> None:
    """Proves `raydns query NAME TYPE --trace`: the answer, the rooms in order, microseconds."""
    config = str(traced.config_path)
    told = traced.json("query", "t5.cold.upstream.test", "A", "--trace", "--config", config)
    rooms = [room["room"] for room in told["trace"]["rooms"]]
    assert rooms[0] == "ingress"
    assert {"cache", "query", "upstream"} <= set(rooms)
    assert all(room["duration_us"] >= 0 for room in told["trace"]["rooms"])
    text = traced.cli("query", "t5.cold.upstream.test", "A", "--trace", "--config", config).stdout
    assert "198.51.100.2" in text


def test_logs_are_structured(traced: Node) -> None:
    """Proves that every line of the node's log with JSON format is one object with time, level and event."""
    lines = [
        line for p in traced.state.logs.glob("*.log") for line in p.read_text().splitlines() if line.startswith("{")
    ]
    assert lines
    for line in lines:
        assert {"time", "level", "logger", "event"} <= set(json.loads(line))


def web(node: Node, path: str) -> tuple[int, str]:
    """GET from the machine's HTTP service."""
    url = f"http://{node.ask_supervisor('status')['web']}{path}"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_metrics_health_readiness_and_the_status_page(traced: Node) -> None:
    """Proves that port 8053 tells what ingress and actors count, whether it is ready, and shows a page."""
    traced.short("t6.cold.upstream.test", "A")
    deadline = time.monotonic() + 10
    wanted = ["raydns_ingress_queries_total", "raydns_cache_", "raydns_query_", "raydns_agent_staleness_seconds"]
    while missing := [w for w in wanted if w not in (text := web(traced, "/metrics")[1])]:
        assert time.monotonic() < deadline, f"missing {missing} in\n{text}"
        time.sleep(0.2)
    assert "upstream.test" not in text
    assert web(traced, "/health")[0] == 200
    assert web(traced, "/ready")[0] == 200
    status = json.loads(web(traced, "/status")[1])
    assert status["ingress"]["engine"] == "python"
    code, page = web(traced, "/")
    assert code == 200
    assert "<!doctype html>" in page.lower()
