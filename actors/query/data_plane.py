"""The query actor without Ray: its stream server, and the pipeline with real collaborators in one event loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from raydns.nodes.metrics import Family, Metrics
from raydns.nodes.streams import secret
from raydns.nodes.streams.frames import Role
from raydns.nodes.streams.server import Responder, StreamServer, Tls
from raydns.schemas import dns, loops, names, wire
from raydns.schemas.batch import AnswerItem, QueryItem
from raydns.schemas.cluster import Endpoint, Snapshot
from raydns.schemas.config import Config
from raydns.schemas.errors import ConfigError, MessageError

from .answers import failed, malformed
from .apexes import Apexes
from .forward import own as own_addresses
from .forward.forwarder import Forwarder
from .forward.world import real_world
from .llm_front import LLMFront
from .measures import Measures
from .pipeline import Installed, Pipeline, outcome_of
from .ports import Prompts, Spans
from .zone_links import ZoneLinks

log = logging.getLogger(__name__)

Ask = Callable[[bytes], Awaitable[bytes]]
FULL: Final = "the query actor is full"


class DataPlane:
    """Made in any thread; everything else is called in the loop in which ``start`` ran.

    Args:
        me: where this actor listens.
        cluster_secret: for streams between machines.
        ask_model: sends a prompt to an LLM actor.
        addresses_file: ``run/addresses.json``: what this machine listens on.
        spans: takes the spans of sampled queries.
    """

    def __init__(
        self,
        me: Endpoint,
        cluster_secret: bytes,
        ask_model: Ask,
        addresses_file: Path,
        spans: Spans | None = None,
    ) -> None:
        self.me = me
        self.in_flight = 0
        self.measures = Measures(lambda: float(self.in_flight))
        self._ask_model = ask_model
        self._addresses_file = addresses_file
        self._spans = spans
        self._in_flight_max = 1000
        self._tasks: set[asyncio.Task[None]] = set()
        self._forwarder: Forwarder | None = None
        self._front: tuple[object, Prompts] | None = None
        self._front_metrics = Metrics()
        self._pipeline: Pipeline | None = None
        self._zones = ZoneLinks(me.machine, cluster_secret)
        self._server = StreamServer(
            self._on_queries,
            path=Path(me.path) if me.path else None,
            tls=Tls(me.host, me.port, secret.server_context(cluster_secret)) if me.host and me.port else None,
            identity=me.actor,
            role=Role.QUERY,
        )

    async def start(self) -> None:
        """Listens; raises ``SocketError`` where that is impossible. ``install`` comes first."""
        await self._server.start()

    def install(self, snapshot: Snapshot | None, config: Config) -> None:
        """Takes over what the cluster decided; queries under way finish with what they began with."""
        own = own_addresses.listening(config.server, self._addresses_file)
        mark = loops.option(snapshot.ring.seed) if snapshot is not None else b""
        if self._forwarder is None:
            self._forwarder = Forwarder(config, real_world(), own, self.measures.flight, mark=mark)
        else:
            self._forwarder.update(config, own, mark=mark)
        self._zones.update(snapshot.endpoints if snapshot is not None else ())
        self._in_flight_max = config.query.in_flight_max
        installed = Installed(
            snapshot.version.packed if snapshot is not None else 0,
            Apexes(snapshot.zones if snapshot is not None else ()),
            self._forwarder,
            self._prompts(config),
            tuple(names.key(names.from_text(zone)) for zone in config.llm.zones),
            config.llm.enabled and config.llm.catch_all != "off",
        )
        if self._pipeline is None:
            self._pipeline = Pipeline(
                installed,
                self._zones,
                identity=self.me.actor,
                index=self.me.index,
                clock=time.monotonic,
                unix_us=_unix_us,
                spans=self._spans,
            )
        else:
            self._pipeline.installed = installed

    def _prompts(self, config: Config) -> Prompts | None:
        if not config.llm.enabled:
            return None
        if self._front is None or self._front[0] != config.llm:
            self._front_metrics = Metrics()  # a front registers its counters when it is made
            self._front = (config.llm, LLMFront(config.llm, self._ask_model, metrics=self._front_metrics))
        return self._front[1]

    def _on_queries(self, queries: list[QueryItem], responder: Responder) -> None:
        loop = asyncio.get_running_loop()
        now = time.monotonic()
        for item in queries:
            if self.in_flight >= self._in_flight_max:
                self.measures.shed.inc()
                responder.answer(_shed(item))
                continue
            self.in_flight += 1
            task = loop.create_task(self._answer(item, now, responder))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, item: QueryItem, now: float, responder: Responder) -> None:
        assert self._pipeline is not None
        try:
            answer = await self._pipeline.resolve(item, now)
        except asyncio.CancelledError:
            responder.answer(_failure(item, "the query actor is closing"))
            raise
        except Exception:
            # A bug of ours costs this query, not the stream; the log has the trace, the client hears of it.
            log.exception("query_failed", extra={"actor": self.me.actor})
            self.measures.errors.inc()
            answer = _failure(item, "internal error")
        finally:
            self.in_flight -= 1
        responder.answer(answer)
        self.measures.answered(answer, outcome_of(answer), time.monotonic() - now)

    @property
    def problems(self) -> list[ConfigError]:
        """What is wrong with the forward rules in use."""
        return self._forwarder.problems if self._forwarder is not None else []

    def statistics(self) -> dict[str, float]:
        """What is in flight now, and counts since start."""
        forwarder = self._forwarder
        return {
            "in_flight": float(self.in_flight),
            "queries": float(self.measures.answers.total),
            "shed": float(self.measures.shed.total),
            "upstream_in_flight": float(forwarder.in_flight) if forwarder is not None else 0.0,
            "zone_in_flight": float(self._zones.in_flight),
        }

    def families(self) -> list[Family]:
        """All metrics as they stand now."""
        if self._forwarder is None:
            return []
        return [*self.measures.families(self._forwarder), *self._front_metrics.families()]

    async def close(self, drain_s: float) -> bool:
        """Stops listening, lets queries finish for at most ``drain_s``, ends the rest; ``True``: none was cut."""
        drained = await self._server.close(drain_s)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._zones.close()
        if self._forwarder is not None:
            await self._forwarder.close()
        return drained


def _unix_us() -> int:
    return time.time_ns() // 1000


def _shed(item: QueryItem) -> AnswerItem:
    return _failure(item, FULL)


def _failure(item: QueryItem, text: str) -> AnswerItem:
    try:
        query = wire.parse_query(item.message)
    except MessageError:
        return malformed(item.slot, item.message)
    return failed(item.slot, query, dns.Ede.OTHER, text, ours=True)
