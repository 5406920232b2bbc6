"""Sampling at the door, spans after the answer, the memory of the last queries, and metrics."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import dns.edns

from raydns.nodes.ingress import reference
from raydns.nodes.ingress.reference import ReferenceEngine
from raydns.schemas import batch
from raydns.schemas.batch import AnswerFlag, Outcome, Room

from .harness import Counter, answer, state

TRACE_ID, PARENT = bytes(range(16)), bytes(range(8))
OPTION = dns.edns.GenericOption(65500, b"\x00" + TRACE_ID + PARENT + b"\x01")


def test_an_unsampled_query_makes_no_span_and_carries_no_trace() -> None:
    """With a ratio of 0 and no option there is no trace anywhere."""
    counter = Counter()
    counter.pending("www.example.com")
    (item,) = counter.serve()
    assert not item.sampled
    assert item.trace_id == batch.NO_TRACE
    assert counter.spans == []
    assert counter.desk.ledger.traces.sampled == 0


def test_a_sampled_query_carries_its_trace_and_leaves_one_span() -> None:
    """With a ratio of 1 the item holds trace and span id, and ``dns.query`` is recorded with both."""
    counter = Counter({"telemetry": {"trace": {"sample_ratio": 1}}})
    counter.pending("www.example.com", use_edns=0)
    (item,) = counter.serve()
    assert item.sampled
    ((name, span),) = counter.spans
    assert name == "dns.query"
    assert (span["trace_id"], span["span_id"], span["kind"]) == (item.trace_id, item.span_id, "server")
    assert span["attributes"]["dns.question.name"] == "www.example.com."
    assert span["parent_id"] == batch.NO_SPAN
    assert counter.last().options == ()  # chance is not told to the client


def test_the_ratio_is_kept() -> None:
    """A ratio of 0.25 samples about a quarter."""
    counter = Counter({"telemetry": {"trace": {"sample_ratio": 0.25}}})
    for _ in range(2000):
        counter.ask("localhost")
    assert 400 < counter.desk.ledger.traces.sampled < 600


def test_who_may_asks_by_option_and_is_told() -> None:
    """A class with the right ``trace`` names its trace and gets it back with our span; others are ignored."""
    counter = Counter()
    counter.pending("www.example.com", use_edns=0, options=[OPTION])
    (item,) = counter.serve()
    assert item.trace_id == TRACE_ID
    assert counter.spans[0][1]["parent_id"] == PARENT
    (told,) = counter.last().options
    assert told.to_wire() == b"\x00" + TRACE_ID + item.span_id + b"\x01"
    (told,) = counter.ask("localhost", use_edns=0, options=[dns.edns.GenericOption(65500, b"")]).options
    assert len(told.to_wire() or b"") == 26
    far = counter.ask("localhost", host="198.51.100.1", use_edns=0, options=[OPTION])
    assert all(int(option.otype) != 65500 for option in far.options)


def test_recent_queries_show_their_rooms() -> None:
    """The ingress's own stamp comes first, then those of the rooms above; a trace is found by its id."""
    counter = Counter()
    rooms = batch.stamp(Room.CACHE, Outcome.MISS, 0, 1, 2) + batch.stamp(Room.QUERY, Outcome.OK, 3, 4, 5)
    counter.pending("www.example.com", use_edns=0, options=[OPTION])
    counter.pending("www.example.com", port=4001)
    counter.clock.now += 0.25
    counter.serve(lambda item: answer(item, "A 192.0.2.1", rooms=rooms, flags=AnswerFlag.SHAREABLE | AnswerFlag.TRACED))
    traces = counter.desk.ledger.traces
    (traced,) = traces.recent(10, TRACE_ID.hex())
    assert [stamp.room for stamp in batch.stamps(traced.rooms)] == [Room.INGRESS, Room.CACHE, Room.QUERY]
    assert (traced.name, traced.rcode, traced.source, traced.duration_us) == (
        "www.example.com.",
        0,
        "127.0.0.1",
        250_000,
    )
    newest = traces.recent(1)[0]
    assert batch.stamps(newest.rooms)[0].outcome == Outcome.JOINED
    assert newest.trace_id == ""


def test_the_memory_is_bounded_and_cheap_for_hits() -> None:
    """At most ``recent`` queries are kept, and of a flood of hits only one in ten milliseconds."""
    counter = Counter({"telemetry": {"trace": {"recent": 5}}})
    for _ in range(50):
        counter.ask("localhost")
    assert len(counter.desk.ledger.traces.recent(100)) == 1
    for _ in range(50):
        counter.ask("localhost")
        counter.clock.now += 0.02
    assert len(counter.desk.ledger.traces.recent(100)) == 5
    counter.desk.install(state({"telemetry": {"trace": {"recent": 0}}}))
    assert counter.desk.ledger.traces.recent(100) == []


def test_metrics_have_sentences_and_bounded_labels() -> None:
    """Every family is named and told of as the style asks, and no label holds a name or a client."""
    counter = Counter()
    counter.pending("secret.example.com")
    counter.serve()
    counter.ask("secret.example.com")
    counter.ask("www.example.com", host="198.51.100.1")
    counter.raw(b"")
    families = {family.name: family for family in counter.desk.counters.families()}
    tiers = {s.labels["tier"]: s.value for s in families["raydns_ingress_answers_total"].samples}
    assert tiers == {"up": 1, "l1": 1, "refused": 1}
    assert {s.labels["tier"] for s in families["raydns_ingress_latency_seconds"].samples} == set(tiers)
    assert families["raydns_ingress_l1_hits_total"].samples[0].value == 1
    for family in families.values():
        assert family.name.startswith("raydns_ingress_")
        assert family.help.endswith(".")
        assert family.help[0].isupper()
        assert (family.kind == "counter") == family.name.endswith("_total")
        for sample in family.samples:
            assert not any("example" in value or "." in value for value in sample.labels.values())


async def test_every_metric_stands_in_the_readme() -> None:
    """The feature's README lists exactly the families that the engine shows."""
    engine = ReferenceEngine(asyncio.get_running_loop())
    engine.install(state())
    shown = {family.name for family in engine.metrics()} | {"raydns_ingress_memory_bytes"}
    readme = Path(reference.__file__).with_name("README.md").read_text()
    assert set(re.findall(r"raydns_ingress_\w+", readme)) == shown
    engine.close()
