"""The shard's sockets: one server for ingresses and other shards, one stream to each query actor and shard.

Everything here runs in one event loop, the data plane's; nothing in it waits for anything but its sockets.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Final

import msgspec

from raydns.nodes.streams import secret
from raydns.nodes.streams.frames import Role
from raydns.nodes.streams.requests import Requests
from raydns.nodes.streams.server import Responder, StreamServer, Tls
from raydns.schemas.batch import QueryItem
from raydns.schemas.cluster import Endpoint, RingTable, Snapshot
from raydns.schemas.config import Config

from .core import CacheCore
from .replies import SpanSink
from .settings import Settings

log = logging.getLogger(__name__)

# Half of the timers' resolution would double the wake-ups of a busy shard and move no deadline that anybody sees.
TICK_S: Final = 0.02
IDLE_TICK_S: Final = 1.0
KINDS: Final = frozenset({"query", "cache"})


class DataPlane:
    """Made in any thread; everything else is called in the loop in which ``start`` ran.

    Args:
        me: where this shard listens.
        cluster_secret: for streams between machines.
        tracer: takes the spans of sampled queries.
    """

    def __init__(self, me: Endpoint, cluster_secret: bytes, tracer: SpanSink | None = None) -> None:
        self.me = me
        self.core = CacheCore(
            me.index,
            clock=time.monotonic,
            random=random.random,
            wall_offset=time.time() - time.monotonic(),
            tracer=tracer,
        )
        self._secret = cluster_secret
        self._channels: dict[Endpoint, Requests] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._due = inf  # what the timer is set for
        self._server = StreamServer(
            self._on_queries,
            path=Path(me.path) if me.path else None,
            tls=Tls(me.host, me.port, secret.server_context(cluster_secret)) if me.host and me.port else None,
            identity=me.actor,
            role=Role.CACHE,
        )

    async def start(self) -> None:
        """Listens; raises ``SocketError`` where that is impossible."""
        await self._server.start()

    def install(self, snapshot: Snapshot | None, config: Config) -> None:
        """Takes over what the cluster decided; ``None``: nothing is known yet."""
        # The wall clock may have been set meanwhile.
        self.core.replies.wall_offset = time.time() - time.monotonic()
        if snapshot is None:
            self.core.install(Settings.of(config), RingTable(version=0, seed=0), (), 0)
            return
        self.core.install(Settings.of(config), snapshot.ring, snapshot.flushes, snapshot.version.packed)
        self._connect(snapshot.endpoints)

    async def close(self, drain_s: float) -> bool:
        """Stops listening, lets flights land for at most ``drain_s``, answers the rest; ``True``: none was cut."""
        drained = await self._server.close(drain_s)
        self.core.abandon()
        if self._timer is not None:
            self._timer.cancel()
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()
        return drained

    def _connect(self, endpoints: Sequence[Endpoint]) -> None:
        wanted: dict[Endpoint, bool] = {}
        for endpoint in endpoints:
            if endpoint.kind in KINDS and (endpoint.kind, endpoint.index) != ("cache", self.me.index):
                # One that begins to drain is the same stream as before.
                wanted[msgspec.structs.replace(endpoint, draining=False)] = endpoint.draining
        gone = [endpoint for endpoint in self._channels if endpoint not in wanted]
        closing = [self._channels.pop(endpoint) for endpoint in gone]
        for endpoint in wanted:
            if endpoint not in self._channels:
                self._channels[endpoint] = self._open(endpoint)
        channels = self._channels
        self.core.connect(
            [(channels[e], draining) for e, draining in wanted.items() if e.kind == "query"],
            {e.index: channels[e] for e, draining in wanted.items() if e.kind == "cache" and not draining},
        )
        # Closed last: what they leave unanswered goes to those that are there now.
        for channel in closing:
            task = asyncio.get_running_loop().create_task(channel.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _open(self, endpoint: Endpoint) -> Requests:
        remote = endpoint.machine != self.me.machine
        channel = Requests(
            endpoint,
            self.me.machine,
            ssl_context=secret.client_context(self._secret) if remote else None,
            role=Role.CACHE,
            on_state=self._on_state,
        )
        channel.start()
        return channel

    def _on_state(self, up: bool) -> None:
        if up:
            self.core.reachable()

    def _on_queries(self, queries: list[QueryItem], responder: Responder) -> None:
        ask, answer = self.core.ask, responder.answer
        for item in queries:
            ask(item, answer)
        due = self.core.next_wake()
        if due is not None and due < self._due:
            self._arm(due)

    def _arm(self, due: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if due is None:
            self._timer, self._due = None, inf
            return
        # An answer may have set a timer that nothing here has seen: looked at once a second at the latest.
        delay = min(max(due - time.monotonic(), TICK_S), IDLE_TICK_S)
        self._due = due
        self._timer = asyncio.get_running_loop().call_later(delay, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.core.tick()
        self._arm(self.core.next_wake())
