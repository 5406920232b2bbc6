"""The shard with its real sockets: streams below and above, losses, drain, refresh; and the Ray shell without Ray."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from raydns.actors.cache.actor import CacheActor
from raydns.actors.cache.data_plane import DataPlane
from raydns.nodes.known import Known
from raydns.nodes.metrics import Family
from raydns.nodes.paths import StateDir
from raydns.nodes.streams import secret
from raydns.nodes.streams.requests import Requests
from raydns.nodes.streams.server import Responder, StreamServer
from raydns.nodes.streams.thread import LoopThread
from raydns.schemas import names
from raydns.schemas.batch import AnswerItem, QueryItem
from raydns.schemas.cluster import SECTIONS, Endpoint, Flush, RingTable, Scale, Snapshot, Version
from raydns.schemas.config import Config

from .world import positive, query, rcode_of, ttls

SECRET = bytes(32)


class FakeQueryActor:
    """A stream server that answers each name with an A record, or holds its answers back."""

    def __init__(self, path: Path) -> None:
        self.asked: list[QueryItem] = []
        self.held: list[tuple[QueryItem, Responder]] = []
        self.hold = False
        self.server = StreamServer(self._handle, path=path)

    def _handle(self, queries: list[QueryItem], responder: Responder) -> None:
        for item in queries:
            self.asked.append(item)
            if self.hold:
                self.held.append((item, responder))
            else:
                self.answer(item, responder)

    def answer(self, item: QueryItem, responder: Responder) -> None:
        name, _ = names.to_text(item.message[12 : item.message.index(0, 12) + 1]), None
        answer = positive(name)
        answer.slot = item.slot
        responder.answer(answer)

    def release(self) -> None:
        for item, responder in self.held:
            self.answer(item, responder)
        self.held.clear()


@pytest.fixture
def place() -> Iterator[Path]:
    """A short directory for sockets."""
    path = Path(tempfile.mkdtemp(prefix="rd-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


def endpoint(kind: str, index: int, path: Path, **fields: object) -> Endpoint:
    """An endpoint on this machine."""
    return msgspec.convert(
        {"kind": kind, "index": index, "generation": 1, "node": "n", "machine": "m", "path": str(path), **fields},
        Endpoint,
    )


def snapshot(endpoints: list[Endpoint], number: int = 1, flushes: tuple[Flush, ...] = ()) -> Snapshot:
    """What a controller would push."""
    version = Version(1, number)
    return Snapshot(
        version=version,
        config=Config().model_dump(mode="json"),
        machines=[],
        endpoints=endpoints,
        ring=RingTable(version=version.packed, seed=1, bounds=[2**64 - 1], first=[0], second=[-1]),
        zones=[],
        flushes=list(flushes),
        scale=Scale(1, 1, 1, 1),
        section_versions=dict.fromkeys(SECTIONS, version),
    )


async def until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    """Waits for a condition, with a deadline."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.002)


class House:
    """One shard, two query actors, one asker as an ingress is."""

    def __init__(self, place: Path) -> None:
        self.me = endpoint("cache", 0, place / "c.sock")
        self.ends = [endpoint("query", n, place / f"q{n}.sock") for n in range(2)]
        self.actors = [FakeQueryActor(Path(e.path)) for e in self.ends]
        self.plane = DataPlane(self.me, SECRET)
        self.asker = Requests(self.me, "m")

    async def start(self) -> None:
        for actor in self.actors:
            await actor.server.start()
        self.plane.install(snapshot(self.ends), Config())
        await self.plane.start()
        self.asker.start()
        await until(lambda: self.asker.connected and len(self.connected()) == 2)

    def connected(self) -> list[Requests]:
        return [c for c in self.plane._channels.values() if c.connected]

    async def close(self) -> None:
        await self.asker.close()
        await self.plane.close(0)
        for actor in self.actors:
            await actor.server.close()

    def ask(self, name: str, deadline_ms: int = 5000) -> Awaitable[AnswerItem | None]:
        future: asyncio.Future[AnswerItem | None] = asyncio.get_running_loop().create_future()
        self.asker.send(QueryItem(0, query(name), deadline_ms), future.set_result)
        return future

    @property
    def asked(self) -> int:
        return sum(len(actor.asked) for actor in self.actors)


@pytest.fixture
async def house(place: Path) -> AsyncIterator[House]:
    """A running house."""
    found = House(place)
    await found.start()
    yield found
    await found.close()


async def test_two_hundred_queries_over_a_stream_are_one_upstream_query(house: House) -> None:
    """From socket to socket: one item goes up, 200 answers come down, and the next is a hit."""
    found = await asyncio.gather(*(house.ask("cold.example.") for _ in range(200)))
    assert all(a is not None and ttls(a) == [300] for a in found)
    assert house.asked == 1
    hit = await house.ask("COLD.example.")
    assert hit is not None
    assert hit.fresh_s in {299, 300}
    assert house.asked == 1
    assert house.plane.core.statistics()["in_flight"] == 0


async def test_flights_of_a_lost_query_actor_go_to_the_other(house: House) -> None:
    """A query actor that dies with unanswered items costs nobody an answer."""
    for actor in house.actors:
        actor.hold = True
    waiting = [asyncio.ensure_future(house.ask(f"n{n}.example.")) for n in range(20)]
    await until(lambda: house.asked == 20)
    house.actors[1].hold = False
    moved = len(house.actors[0].held)
    assert moved > 0
    await house.actors[0].server.close()
    house.actors[1].release()
    found = await asyncio.gather(*waiting)
    assert all(a is not None and rcode_of(a) == 0 for a in found)
    assert house.asked == 20 + moved


async def test_a_silent_upstream_ends_in_servfail_before_the_deadline(house: House) -> None:
    """The timers run by themselves: SERVFAIL with EDE arrives before the asker's own deadline."""
    for actor in house.actors:
        actor.hold = True
    began = time.monotonic()
    answer = await house.ask("slow.example.", 400)
    assert answer is not None
    assert (rcode_of(answer), answer.ede_text) == (2, "no answer in time")
    assert time.monotonic() - began < 0.4


async def test_a_refresh_changes_the_pool_without_losing_a_query(house: House) -> None:
    """An endpoint that leaves is closed after its flights went to those that stay; a draining one gets no more."""
    house.actors[0].hold = house.actors[1].hold = True
    waiting = [asyncio.ensure_future(house.ask(f"n{n}.example.")) for n in range(10)]
    await until(lambda: house.asked == 10)
    house.actors[1].hold = False
    house.actors[1].release()
    house.plane.install(snapshot([house.ends[1]], 2), Config())
    found = await asyncio.gather(*waiting)
    assert all(a is not None and rcode_of(a) == 0 for a in found)
    draining = msgspec.structs.replace(house.ends[1], draining=True)
    house.plane.install(snapshot([draining], 3), Config())
    before = house.asked
    began = time.monotonic()
    answer = await house.ask("later.example.", 300)
    assert time.monotonic() - began < 1.0  # although a timer for a later deadline was set already
    assert answer is not None
    assert rcode_of(answer) == 2
    assert house.asked == before


async def test_drain_lets_flights_land(house: House) -> None:
    """A shard that drains answers what it has before it closes, and says that nothing was cut."""
    for actor in house.actors:
        actor.hold = True
    waiting = asyncio.ensure_future(house.ask("n.example."))
    await until(lambda: house.asked == 1)
    closing = asyncio.ensure_future(house.plane.close(5.0))
    await asyncio.sleep(0)
    for actor in house.actors:
        actor.release()
    assert await closing
    answer = await waiting
    assert answer is not None
    assert rcode_of(answer) == 0


def test_the_shell_reads_what_is_known_and_tells_what_it_does(place: Path) -> None:
    """Without Ray: starts on its socket, answers probes, refreshes (flushes included), counts, drains."""
    state = StateDir(place / "s").create()
    secret.load_or_create(state.secret)
    known = Known(state)
    me = endpoint("cache", 0, state.stream_socket("cache", 0))
    above = endpoint("query", 0, state.stream_socket("query", 0))
    known.save(snapshot([me, above]))
    thread = LoopThread("test")
    fake = FakeQueryActor(Path(above.path))
    thread.run(fake.server.start())
    actor = CacheActor(str(state.path), msgspec.msgpack.encode(me))

    async def ask(name: str) -> AnswerItem | None:
        asker = Requests(me, "m")
        asker.start()
        future: asyncio.Future[AnswerItem | None] = asyncio.get_running_loop().create_future()
        asker.send(QueryItem(0, query(name), 5000), future.set_result)
        try:
            return await asyncio.wait_for(future, 5)
        finally:
            await asker.close()

    try:
        assert actor.ready()
        for _ in range(2):
            answer = thread.run(ask("a.example."))
            assert answer is not None
            assert rcode_of(answer) == 0
        assert len(fake.asked) == 1
        known.save(snapshot([me, above], 2, (Flush(names.from_text("example."), True, Version(1, 2)),)))
        assert actor.refresh() == Version(1, 2).packed
        thread.run(ask("a.example."))
        assert len(fake.asked) == 2
        statistics = actor.statistics()
        assert (statistics["in_flight"], statistics["hits"], statistics["misses"]) == (0, 1, 2)
        families = msgspec.msgpack.decode(actor.metrics(), type=list[Family])
        assert {"raydns_cache_hits_total", "raydns_cache_latency_seconds"} <= {f.name for f in families}
        assert actor.drain(1.0)
        assert actor.drain(1.0)
        assert actor.statistics()["in_flight"] == 0
        assert actor.metrics()
        assert actor.refresh() == Version(1, 2).packed
        assert not Path(me.path).exists()
    finally:
        thread.run(fake.server.close())
        thread.stop()
