"""The cache shard's Ray shell.

Hard state: none; a shard that is started anew begins empty, and what machines hold below (L1) bridges that. Soft
state: entries, failures, flights. Shares the fate of its machine; Ray restarts it there, on the same socket, and
ingresses ask the second shard meanwhile. A query is not a call of an actor but arrives by stream; success means
one answer for each slot, and a lost stream means that all its slots are lost and may be asked again: every method and
every query is idempotent.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from raydns.nodes import garbage, logs
from raydns.nodes.known import Known
from raydns.nodes.paths import StateDir
from raydns.nodes.streams import secret
from raydns.nodes.streams.thread import LoopThread
from raydns.nodes.tracing import Tracer
from raydns.schemas.cluster import Endpoint, Snapshot
from raydns.schemas.config import Config

from .data_plane import DataPlane

log = logging.getLogger(__name__)

CALL_TIMEOUT_S: Final = 5.0
T = TypeVar("T")


class CacheActor:
    """See the head of this file. Plain class: whoever creates it applies ``ray.remote``.

    Args:
        state_dir: the machine's state directory.
        endpoint: msgpack of this actor's own ``Endpoint``.
    """

    def __init__(self, state_dir: str, endpoint: bytes) -> None:
        self._state_dir = StateDir(state_dir)
        self._me = msgspec.msgpack.decode(endpoint, type=Endpoint)
        self._known = Known(self._state_dir)
        snapshot, config = self._read()
        logs.setup(config.telemetry.log, self._me.actor)
        self._tracer = Tracer("cache", str(self._me.index), config.telemetry.trace)
        self._plane = DataPlane(self._me, secret.load(self._state_dir.secret), self._tracer)
        self._thread = LoopThread(self._me.actor)
        try:
            self._thread.run(self._start(snapshot, config), CALL_TIMEOUT_S)
        except BaseException:
            self._thread.stop()
            raise
        self._drained = False
        garbage.settle()
        log.info("cache_shard_started", extra={"actor": self._me.actor, "path": self._me.path})

    def ready(self) -> bool:
        """Whether it listens: the constructor has not returned before it did."""
        return True

    def refresh(self) -> int:
        """Re-reads what is known: configuration, ring, flushes, endpoints; returns its packed version."""
        snapshot, config = self._read()
        logs.set_level(config.telemetry.log)
        self._tracer.configure(config.telemetry.trace)
        if not self._drained:
            self._in_loop(lambda: self._plane.install(snapshot, config))
        return snapshot.version.packed if snapshot is not None else 0

    def statistics(self) -> dict[str, float]:
        """Counts since start and what is held now; ``in_flight`` are the queries that wait."""
        # After ``drain`` its loop is gone, and nothing in it moves any more.
        read = self._plane.core.statistics
        statistics = read() if self._drained else self._in_loop(read)
        return {**statistics, "pid": float(os.getpid())}

    def metrics(self) -> bytes:
        """Msgpack of ``list[Family]``."""
        read = self._plane.core.families
        families = read() if self._drained else self._in_loop(read)
        return msgspec.msgpack.encode(families + self._tracer.metrics.families())

    def drain(self, timeout_s: float) -> bool:
        """Stops listening and lets flights land; ``True``: everybody got a real answer. It serves no more after."""
        if self._drained:
            return True
        drained = self._thread.run(self._plane.close(timeout_s), timeout_s + CALL_TIMEOUT_S)
        self._drained = True
        self._thread.stop()
        self._tracer.close()
        return drained

    async def _start(self, snapshot: Snapshot | None, config: Config) -> None:
        self._plane.install(snapshot, config)
        await self._plane.start()

    def _read(self) -> tuple[Snapshot | None, Config]:
        snapshot = self._known.load()
        return snapshot, Config() if snapshot is None else self._known.config()

    def _in_loop(self, function: Callable[[], T]) -> T:
        async def call() -> T:
            return function()

        return self._thread.run(call(), CALL_TIMEOUT_S)
