"""The query actor's Ray shell.

Hard state: none. Soft state: what is known of upstream servers, queries in flight. Shares the fate of its machine;
Ray restarts it there, on the same socket. A query is not a call of an actor but arrives by stream: success means one
answer for each slot; a lost stream means that its slots are lost, and any other member of the pool may be asked the
same, since nothing here changes anything. All methods are idempotent; ``refresh`` never costs a query in flight.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec
import ray
from ray.exceptions import RayActorError

from raydns.actors.llm.messages import decode_request
from raydns.nodes import garbage, logs
from raydns.nodes.known import Known
from raydns.nodes.paths import StateDir
from raydns.nodes.streams import secret
from raydns.nodes.streams.thread import LoopThread
from raydns.nodes.tracing import Tracer
from raydns.schemas.cluster import Endpoint, Snapshot
from raydns.schemas.config import Config
from raydns.schemas.errors import UnreachableError

from .data_plane import DataPlane

log = logging.getLogger(__name__)

CALL_TIMEOUT_S: Final = 5.0
T = TypeVar("T")


class Models:
    """The way to the LLM actors: Ray calls, since prompts are few and slow (docs/decisions).

    Args:
        namespace: Ray namespace of our actors.
    """

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._actors: list[str] = []
        self._handles: dict[str, Any] = {}

    def update(self, snapshot: Snapshot | None) -> None:
        """Takes the endpoints of kind ``llm``; handles of actors that stay are kept."""
        endpoints = [e for e in snapshot.endpoints if e.kind == "llm" and not e.draining] if snapshot else []
        self._actors = [e.actor for e in sorted(endpoints, key=lambda e: (e.index, e.generation))]
        self._handles = {name: self._handles[name] for name in self._actors if name in self._handles}

    async def ask(self, request: bytes) -> bytes:
        """Sends a prompt to the actor that its key belongs to: equal prompts meet in one flight.

        Raises:
            UnreachableError: there is no LLM actor, or it is not alive.
        """
        actors = self._actors
        if not actors:
            raise UnreachableError("there is no LLM actor", hint="raydns scale llm=1")
        name = actors[decode_request(request).key[0] % len(actors)]
        try:
            handle: Any = self._handles.get(name)
            if handle is None:
                handle = await asyncio.to_thread(ray.get_actor, name, self._namespace)
                self._handles[name] = handle
            answer: bytes = await handle.ask.remote(request)
        except (RayActorError, ValueError) as error:  # ValueError: no actor of that name yet
            self._handles.pop(name, None)
            raise UnreachableError("the LLM actor is not alive", where=name) from error
        return answer


class QueryActor:
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
        self._tracer = Tracer("query", str(self._me.index), config.telemetry.trace)
        self._models = Models(config.cluster.name)
        self._plane = DataPlane(
            self._me,
            secret.load(self._state_dir.secret),
            self._models.ask,
            self._state_dir.run / "addresses.json",
            self._tracer,
        )
        self._thread = LoopThread(self._me.actor)
        self._thread.run(self._start(snapshot, config), CALL_TIMEOUT_S)
        garbage.settle()
        log.info("query_actor_started", extra={"actor": self._me.actor, "path": self._me.path})

    def ready(self) -> bool:
        """Whether it listens: the constructor has not returned before it did."""
        return True

    def refresh(self) -> int:
        """Re-reads what is known: configuration, rules, zones, endpoints; returns its packed version."""
        snapshot, config = self._read()
        logs.set_level(config.telemetry.log)
        self._tracer.configure(config.telemetry.trace)
        self._in_loop(lambda: self._install(snapshot, config))
        return snapshot.version.packed if snapshot is not None else 0

    def statistics(self) -> dict[str, float]:
        """What is in flight now, and counts since start."""
        return {**self._in_loop(self._plane.statistics), "pid": float(os.getpid())}

    def metrics(self) -> bytes:
        """Msgpack of ``list[Family]``."""
        return self._in_loop(lambda: msgspec.msgpack.encode(self._plane.families()))

    def drain(self, timeout_s: float) -> bool:
        """Stops listening and lets queries finish; ``True``: none was cut short. It serves no more after."""
        drained = self._thread.run(self._plane.close(timeout_s), timeout_s + CALL_TIMEOUT_S)
        self._thread.stop()
        self._tracer.close()
        return drained

    async def _start(self, snapshot: Snapshot | None, config: Config) -> None:
        self._install(snapshot, config)
        await self._plane.start()

    def _install(self, snapshot: Snapshot | None, config: Config) -> None:
        self._models.update(snapshot)
        self._plane.install(snapshot, config)

    def _read(self) -> tuple[Snapshot | None, Config]:
        return self._known.load(), self._known.config()

    def _in_loop(self, function: Callable[[], T]) -> T:
        async def call() -> T:
            return function()

        return self._thread.run(call(), CALL_TIMEOUT_S)
