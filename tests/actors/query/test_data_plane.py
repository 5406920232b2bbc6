"""The query actor without Ray, over real streams: what comes in by batch goes out by batch."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from raydns.actors.llm.messages import AskResult, Kind, encode
from raydns.actors.query.data_plane import DataPlane
from raydns.nodes.streams.requests import Requests
from raydns.nodes.streams.server import Responder, StreamServer
from raydns.schemas import dns, loops, wire
from raydns.schemas.batch import AnswerFlag, AnswerItem, QueryItem, Right, Room, stamp, stamps
from raydns.schemas.cluster import Endpoint, RingTable, Scale, Snapshot, Version, ZoneEntry
from raydns.schemas.config import Config
from tests.actors.query.kit import (
    CNAME,
    HERE,
    TXT,
    A,
    ScriptedUpstream,
    config,
    good,
    item,
    name,
    record,
    response,
    until,
)

IP = b"\xc0\x00\x02\x01"


class Place:
    """A data plane, its socket, a zone shard beside it, and an asker."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.me = Endpoint("query", 1, 1, "n", "m", str(directory / "q.sock"))
        self.shard = Endpoint("zone", 0, 1, "n", "m", str(directory / "z.sock"))
        self.plane = DataPlane(self.me, bytes(32), self.ask_model, directory / "addresses.json")
        self.asker = Requests(self.me, "m")
        self.prompts = 0
        self.zone_delay = 0.0
        self._zone = StreamServer(self._answer_zone, path=Path(self.shard.path), identity="zone:0.g1")

    async def ask_model(self, request: bytes) -> bytes:
        """A model that always says the same."""
        self.prompts += 1
        return encode(AskResult(Kind.ANSWER, "Paris", 60))

    def _answer_zone(self, queries: list[QueryItem], responder: Responder) -> None:
        for query in queries:
            asyncio.get_running_loop().call_later(self.zone_delay, responder.answer, self._zone_answer(query))

    def _zone_answer(self, item: QueryItem) -> AnswerItem:
        query = wire.parse_query(item.message)
        question = query.key + item.message[query.question_end - 4 : query.question_end]
        alias = query.key == name("alias.example.")
        records = [record(HERE, CNAME, name("a.fwd."), 50) if alias else record(HERE, A, IP)]
        return AnswerItem(
            item.slot,
            response(b"\0\0", question, records, additional=(), flags=0x8400),
            AnswerFlag.AUTHORITATIVE,
            rooms=stamp(Room.ZONE, 0, 0, 1, 1),
        )

    def snapshot(self, conf: Config, number: int = 1, seed: int = 0) -> Snapshot:
        """A cluster of one zone and one shard."""
        return Snapshot(
            Version(1, number),
            conf.model_dump(mode="json"),
            [],
            [self.me, self.shard],
            RingTable(1, seed),
            [ZoneEntry(name("example."), 0, 0, 1, 1, None)],
            [],
            Scale(1, 1, 1, 1),
        )

    def install(self, conf: Config, number: int = 1, seed: int = 0) -> None:
        """What ``refresh`` does."""
        self.plane.install(self.snapshot(conf, number, seed), conf)

    async def start(self, conf: Config) -> None:
        """All three."""
        await self._zone.start()
        self.install(conf)
        await self.plane.start()
        self.asker.start()
        await until(lambda: self.asker.connected)

    async def ask(self, query: QueryItem) -> AnswerItem:
        """One question over the stream."""
        future: asyncio.Future[AnswerItem | None] = asyncio.get_running_loop().create_future()
        self.asker.send(query, lambda answer: future.done() or future.set_result(answer))
        answer = await asyncio.wait_for(future, 10)
        assert answer is not None
        return answer

    async def close(self) -> None:
        """Ends everything."""
        await self.asker.close()
        await self.plane.close(0.1)
        await self._zone.close()

    async def stop_zone(self) -> None:
        """The shard is gone."""
        await self._zone.close()


@contextlib.asynccontextmanager
async def place(conf: Config) -> AsyncIterator[Place]:
    """A place in a short temporary directory."""
    with tempfile.TemporaryDirectory(prefix="rd-") as text:
        made = Place(Path(text))
        await made.start(conf)
        try:
            yield made
        finally:
            await made.close()


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    """A healthy upstream."""
    server = await ScriptedUpstream(lambda q, _: [(0.0, good(q))]).start()
    yield server
    await server.stop()


async def test_every_step_over_streams(upstream: ScriptedUpstream) -> None:
    """Zone, chain, rule, prompt and refusal, each by the right room."""
    conf = config(("fwd.", [upstream.address]))
    conf = conf.model_copy(update={"llm": conf.llm.model_copy(update={"enabled": True})})
    rights = Right.FORWARD | Right.CATCH_ALL | Right.LLM
    async with place(conf) as here:
        seen = {}
        for text, qtype in [
            ("www.example.", A),
            ("alias.example.", A),
            ("a.fwd.", A),
            ("capital.of.france.", TXT),
            ("x.y.", A),
        ]:
            answer = await here.ask(item(text, qtype, rights=rights))
            seen[text] = ([s.room for s in stamps(answer.rooms)], answer.message[3] & 15)
        assert seen == {
            "www.example.": ([Room.QUERY, Room.ZONE], 0),
            "alias.example.": ([Room.QUERY, Room.ZONE, Room.UPSTREAM], 0),
            "a.fwd.": ([Room.QUERY, Room.UPSTREAM], 0),
            "capital.of.france.": ([Room.QUERY, Room.LLM], 0),
            "x.y.": ([Room.QUERY], 5),
        }
        assert here.prompts == 1
        families = {family.name: family for family in here.plane.families()}
        assert sum(s.value for s in families["raydns_query_answers_total"].samples) == 5
        outcomes = families["raydns_query_upstream_requests_total"].samples
        assert [(s.labels["upstream"], s.labels["outcome"], s.value) for s in outcomes] == [
            (upstream.address, "answer", 2.0)
        ]
        assert msgspec.msgpack.encode(here.plane.families())
        assert here.plane.statistics()["in_flight"] == 0.0


async def test_queries_to_near_upstreams_are_marked_as_ours(upstream: ScriptedUpstream) -> None:
    """What goes to an address that may lead back to us carries the cluster's mark, so that a loop is noticed."""
    async with place(config(("fwd.", [upstream.address]))) as here:
        await here.ask(item("a.fwd.", A, rights=Right.FORWARD))
        marked = wire.parse_query(upstream.queries[0][1]).edns
        assert marked is not None
        assert marked.options == {dns.EdnsOption.LOOP: loops.token(0)}


async def test_upstreams_known_already_get_the_mark_of_a_new_seed(upstream: ScriptedUpstream) -> None:
    """A mark that stayed the old one would let a loop pass unnoticed: it follows the snapshot, as the ingresses do."""
    conf = config(("fwd.", [upstream.address]))
    async with place(conf) as here:
        await here.ask(item("a.fwd.", A, rights=Right.FORWARD))
        here.install(conf, number=2, seed=7)
        await here.ask(item("b.fwd.", A, rights=Right.FORWARD))
        marked = wire.parse_query(upstream.queries[1][1]).edns
        assert marked is not None
        assert marked.options == {dns.EdnsOption.LOOP: loops.token(7)}


async def test_bursts(upstream: ScriptedUpstream) -> None:
    """Bursts of 200 names, as many as the upstream's receive buffer holds, are answered rightly, each once."""
    async with place(config(("fwd.", [upstream.address]))) as here:
        for at in range(0, 800, 200):
            answers = await asyncio.gather(*(here.ask(item(f"n{n}.z{n % 50}.fwd.")) for n in range(at, at + 200)))
            assert all(answer.message[3] & 15 == 0 for answer in answers), {a.ede_text for a in answers}


async def test_a_full_actor_sheds_at_once() -> None:
    """Beyond ``in_flight_max`` a query gets SERVFAIL with EDE, of our own making, and is counted."""
    silent = await ScriptedUpstream(lambda q, t: []).start()
    conf = config(("fwd.", [silent.address]), timeout_s=1)
    conf = conf.model_copy(update={"query": conf.query.model_copy(update={"in_flight_max": 10})})
    try:
        async with place(conf) as here:
            waiting = [asyncio.ensure_future(here.ask(item(f"a.n{n}.fwd."))) for n in range(10)]
            await until(lambda: here.plane.in_flight == 10)
            answer = await here.ask(item("one.more.fwd."))
            assert (answer.message[3] & 15, answer.ede_text) == (2, "the query actor is full")
            assert answer.flags & AnswerFlag.LOCAL_FAILURE
            await asyncio.gather(*waiting)
            assert here.plane.statistics()["shed"] == 1.0
    finally:
        await silent.stop()


async def test_refresh_loses_nothing(upstream: ScriptedUpstream) -> None:
    """New rules, zones and limits under load: every query is answered, and the new rule is used at once."""
    other = await ScriptedUpstream(lambda q, _: [(0.0, good(q))]).start()
    first, second = config(("fwd.", [upstream.address])), config(("fwd.", [other.address]))
    try:
        async with place(first) as here:
            here.zone_delay = 0.05
            tasks = []
            for n in range(300):
                text = f"n{n}.fwd." if n % 3 else f"n{n}.example."
                tasks.append(asyncio.ensure_future(here.ask(item(text))))
                if n % 50 == 49:
                    here.install(second if n % 100 == 49 else first, n)
                    await asyncio.sleep(0.002)
            answers = await asyncio.gather(*tasks)
            assert all(answer.message[3] & 15 == 0 for answer in answers)
            here.install(second, 1000)
            before = len(upstream.queries)
            answer = await here.ask(item("last.fwd."))
            assert answer.began == Version(1, 1000).packed
            assert len(upstream.queries) == before
    finally:
        await other.stop()


async def test_a_shard_that_goes_away_costs_its_names_only(upstream: ScriptedUpstream) -> None:
    """Its zone's names fail within their deadline, saying why; forwarded names go on."""
    async with place(config(("fwd.", [upstream.address]))) as here:
        assert (await here.ask(item("www.example."))).message[3] & 15 == 0
        await here.stop_zone()
        failed = await here.ask(item("www.example.", deadline_ms=300))
        assert (failed.message[3] & 15, failed.ede) == (2, 14)
        assert (await here.ask(item("a.fwd."))).message[3] & 15 == 0


async def test_an_upstream_that_is_ourselves_is_refused_and_said(upstream: ScriptedUpstream) -> None:
    """The address in ``run/addresses.json`` is ours: its rule fails, the problem is listed, other rules work."""
    conf = config(("loop.", ["127.0.0.1:5399"]), ("fwd.", [upstream.address]))
    async with place(conf) as here:
        (here.directory / "addresses.json").write_text('{"udp": [["127.0.0.1", 5399]], "tcp": []}')
        here.install(conf, 2)
        answer = await here.ask(item("a.loop."))
        assert answer.message[3] & 15 == 2
        assert answer.flags & AnswerFlag.LOCAL_FAILURE
        assert "itself listens" in here.plane.problems[0].message
        assert (await here.ask(item("a.fwd."))).message[3] & 15 == 0


async def test_a_bug_costs_one_query(upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture) -> None:
    """An exception nobody foresaw becomes SERVFAIL for its query, a line in the log, and a count."""
    async with place(config(("fwd.", [upstream.address]))) as here:
        pipeline = here.plane._pipeline
        assert pipeline is not None
        whole, pipeline.installed = pipeline.installed, None  # type: ignore[assignment]
        answer = await here.ask(item("a.fwd."))
        pipeline.installed = whole
        assert (answer.message[3] & 15, answer.ede_text) == (2, "internal error")
        assert here.plane.measures.errors.total == 1
        assert "query_failed" in caplog.text
        assert (await here.ask(item("a.fwd."))).message[3] & 15 == 0
