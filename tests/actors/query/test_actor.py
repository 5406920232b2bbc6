"""The Ray shell without Ray: a plain object that starts from what the machine last knew, refreshes and drains."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import msgspec
import pytest

from raydns.actors.query.actor import Models, QueryActor
from raydns.nodes.known import Known
from raydns.nodes.metrics import Family
from raydns.nodes.paths import StateDir
from raydns.nodes.streams import secret
from raydns.nodes.streams.requests import Requests
from raydns.schemas.batch import AnswerItem
from raydns.schemas.cluster import Endpoint, RingTable, Scale, Snapshot, Version
from raydns.schemas.config import Config
from raydns.schemas.errors import UnreachableError
from tests.actors.query.kit import ScriptedUpstream, config, good, item


def snapshot(conf: Config, number: int) -> Snapshot:
    """A cluster of nobody else."""
    return Snapshot(
        Version(1, number), conf.model_dump(mode="json"), [], [], RingTable(1, 0), [], [], Scale(1, 1, 1, 1)
    )


async def test_it_lives_as_the_plan_says() -> None:
    """Constructor, ready, a query by stream, refresh, statistics, metrics, drain."""
    upstream = await ScriptedUpstream(lambda q, _: [(0.0, good(q))]).start()
    with tempfile.TemporaryDirectory(prefix="rd-") as text:
        state_dir = StateDir(Path(text) / "s").create()
        secret.load_or_create(state_dir.secret)
        known = Known(state_dir)
        known.save(snapshot(config(("fwd.", [upstream.address])), 1))
        me = Endpoint("query", 0, 1, "n", "m", str(state_dir.stream_socket("query", 0)))
        actor = await asyncio.to_thread(QueryActor, str(state_dir.path), msgspec.msgpack.encode(me))
        asker = Requests(me, "m")
        asker.start()
        try:
            assert actor.ready()
            answers: asyncio.Queue[AnswerItem | None] = asyncio.Queue()
            for text_, rcode in (("a.fwd.", 0), ("a.other.", 5)):
                asker.send(item(text_), answers.put_nowait)
                answer = await asyncio.wait_for(answers.get(), 5)
                assert answer is not None
                assert answer.message[3] & 15 == rcode
                assert answer.began == Version(1, 1).packed
            known.save(snapshot(config(("fwd.", [upstream.address]), ("other.", [upstream.address])), 2))
            assert await asyncio.to_thread(actor.refresh) == Version(1, 2).packed
            asker.send(item("a.other."), answers.put_nowait)
            answer = await asyncio.wait_for(answers.get(), 5)
            assert answer is not None
            assert answer.message[3] & 15 == 0
            statistics = await asyncio.to_thread(actor.statistics)
            assert statistics["in_flight"] == 0.0
            assert statistics["pid"] > 1
            families = msgspec.msgpack.decode(await asyncio.to_thread(actor.metrics), type=list[Family])
            assert all(f.name.startswith("raydns_query_") and f.help.endswith(".") for f in families)
            assert all(f.name.endswith("_total") == (f.kind == "counter") for f in families)
        finally:
            await asker.close()
            assert await asyncio.to_thread(actor.drain, 1.0)
            await upstream.stop()
        assert not Path(me.path).exists()


async def test_without_an_llm_actor_the_way_says_so() -> None:
    """No endpoint of kind llm is an error with a hint, not a hang."""
    with pytest.raises(UnreachableError, match="no LLM actor"):
        await Models("raydns").ask(b"")
