"""Streams to the zone shards: one to each, kept while the cluster has the shard."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from raydns.nodes.streams import secret
from raydns.nodes.streams.frames import Role
from raydns.nodes.streams.requests import Requests
from raydns.schemas.batch import AnswerItem, QueryItem
from raydns.schemas.cluster import Endpoint


class ZoneLinks:
    """Implements ``ports.Zones``; used in the loop of the data plane only.

    Args:
        machine: ours; shards elsewhere are reached over TLS.
        cluster_secret: for those.
        open_stream: makes a stream that has been started; ``None``: a real one.
    """

    def __init__(
        self, machine: str, cluster_secret: bytes, open_stream: Callable[[Endpoint], Requests] | None = None
    ) -> None:
        self._machine = machine
        self._secret = cluster_secret
        self._open = open_stream or self._open_stream
        self._streams: dict[Endpoint, Requests] = {}
        self._by_shard: dict[int, Requests] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def update(self, endpoints: Iterable[Endpoint]) -> None:
        """Connects to new shards and leaves those that are gone; what is in flight at others is not touched."""
        wanted = {endpoint for endpoint in endpoints if endpoint.kind == "zone"}
        gone = [self._streams.pop(endpoint) for endpoint in set(self._streams) - wanted]
        for endpoint in wanted - set(self._streams):
            self._streams[endpoint] = self._open(endpoint)
        # A shard that is being replaced is listed twice for a while: the one that does not drain wins, then the newer.
        ranked = sorted(wanted, key=lambda e: (not e.draining, e.generation))
        self._by_shard = {endpoint.index: self._streams[endpoint] for endpoint in ranked}
        for stream in gone:
            task = asyncio.get_running_loop().create_task(stream.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def ask(self, shard: int, item: QueryItem) -> AnswerItem | None:
        """The shard's answer; ``None`` if it is unknown, away, or silent until the item's deadline."""
        stream = self._by_shard.get(shard)
        if stream is None or item.deadline_ms <= 0:
            return None
        future: asyncio.Future[AnswerItem | None] = asyncio.get_running_loop().create_future()

        def done(answer: AnswerItem | None) -> None:
            if not future.done():
                future.set_result(answer)

        deadline_s = item.deadline_ms / 1000.0
        slot = stream.send(item, done)
        try:
            async with asyncio.timeout(deadline_s):
                return await future
        except TimeoutError:
            return None
        finally:
            if not future.done() or future.cancelled():
                stream.drop(slot)

    def _open_stream(self, endpoint: Endpoint) -> Requests:
        remote = endpoint.machine != self._machine
        stream = Requests(
            endpoint,
            self._machine,
            ssl_context=secret.client_context(self._secret) if remote else None,
            role=Role.QUERY,
        )
        stream.start()
        return stream

    @property
    def in_flight(self) -> int:
        """Questions that shards have not answered yet."""
        return sum(stream.in_flight for stream in self._streams.values())

    async def close(self) -> None:
        """Leaves every shard."""
        streams = list(self._streams.values())
        self._streams.clear()
        self._by_shard.clear()
        for stream in streams:
            await stream.close()
        await asyncio.gather(*self._closing, return_exceptions=True)
