"""The uplink: one stream to each cache shard of the cluster, as the newest snapshot names them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from raydns.nodes.streams.client import StreamClient
from raydns.nodes.streams.frames import Role
from raydns.nodes.streams.secret import ClusterContext
from raydns.schemas.cluster import Endpoint
from raydns.schemas.errors import RaydnsError

from .engine import Engine

log = logging.getLogger(__name__)

KIND: Final = "cache"

Dial = Callable[..., StreamClient]


class Uplink:
    """Keeps streams to all shards, dials anew where an endpoint moved, and tells the engine who can be reached.

    Args:
        engine: whose misses travel.
        context: makes the TLS context when the first shard on another machine appears.
        dial: makes a client; tests put their own here.
    """

    def __init__(self, engine: Engine, context: Callable[[], ClusterContext], dial: Dial = StreamClient) -> None:
        self._engine = engine
        self._context = context
        self._dial = dial
        self._tls: ClusterContext | None = None
        self._clients: dict[int, StreamClient] = {}
        self._lines: dict[int, object] = {}  # which dial of a shard counts: what an older one says is history
        self._tasks: set[asyncio.Task[None]] = set()
        engine.set_wakeup(self.wake)

    def wake(self, shard: int) -> None:
        """The engine has misses for a shard."""
        client = self._clients.get(shard)
        if client is not None:
            client.wake()

    def update(self, endpoints: Sequence[Endpoint], machine: str) -> None:
        """Takes the endpoints of a new snapshot; streams that stay are not touched."""
        wanted = newest(endpoints)
        for shard in [shard for shard, client in self._clients.items() if shard not in wanted]:
            self._drop(shard)
        for shard, endpoint in wanted.items():
            client = self._clients.get(shard)
            if client is not None and place(client.endpoint) == place(endpoint) and client.machine == machine:
                continue
            if client is not None:
                self._drop(shard)
            self._connect(shard, endpoint, machine)

    async def close(self) -> None:
        """Says goodbye to all shards."""
        for shard in list(self._clients):
            self._drop(shard)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def statistics(self) -> dict[str, Any]:
        """Each stream's state, for status."""
        return {
            client.endpoint.actor: {
                "connected": client.connected,
                "connects": client.connects,
                "problem": client.last_problem,
            }
            for client in self._clients.values()
        }

    def _connect(self, shard: int, endpoint: Endpoint, machine: str) -> None:
        line = self._lines[shard] = object()
        try:
            client = self._dial(
                endpoint,
                machine,
                pull=partial(self._pull, shard, line),
                on_batch=self._engine.deliver,
                on_state=partial(self._state, shard, line),
                ssl_context=self._context_for(endpoint, machine),
                role=Role.INGRESS,
            )
        except (RaydnsError, OSError) as error:
            # One shard that cannot be dialled must not keep the others, or the zones, from being served.
            log.error("stream cannot be made", extra={"endpoint": endpoint.actor, "problem": str(error)})
            return
        self._clients[shard] = client
        client.start()

    def _context_for(self, endpoint: Endpoint, machine: str) -> ClusterContext | None:
        if endpoint.machine == machine and endpoint.path:
            return None
        if self._tls is None:
            self._tls = self._context()
        return self._tls

    def _drop(self, shard: int) -> None:
        client = self._clients.pop(shard)
        self._lines.pop(shard, None)
        self._engine.set_shard(shard, reachable=False)
        task = asyncio.get_running_loop().create_task(client.close())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _pull(self, shard: int, line: object) -> bytes | None:
        return self._engine.take_batch(shard) if self._lines.get(shard) is line else None

    def _state(self, shard: int, line: object, up: bool) -> None:
        if self._lines.get(shard) is line:
            self._engine.set_shard(shard, reachable=up)


def newest(endpoints: Sequence[Endpoint]) -> dict[int, Endpoint]:
    """One endpoint a shard: the latest generation, and of those one that is not draining."""
    found: dict[int, Endpoint] = {}
    for endpoint in endpoints:
        if endpoint.kind != KIND:
            continue
        known = found.get(endpoint.index)
        rank = (endpoint.generation, not endpoint.draining)
        if known is None or rank > (known.generation, not known.draining):
            found[endpoint.index] = endpoint
    return found


def place(endpoint: Endpoint) -> tuple[object, ...]:
    """What makes two endpoints the same stream: an actor's restart in its place changes nothing."""
    return endpoint.index, endpoint.machine, endpoint.path, endpoint.host, endpoint.port
