"""The LLM actor's Ray shell.

Hard state: the day's count of model calls (a file below the state directory). Soft state: kept answers, calls in
flight, buckets. Shares the fate of its machine; the embedded model's process shares the fate of this actor's.
``ask`` succeeds with something to tell the client whatever happens to the provider; it raises only for a request
that is malformed. It is not idempotent, since it may cost a model call, but asking again joins the first call.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from typing import Final

import msgspec

from raydns.nodes import logs
from raydns.nodes.known import Known
from raydns.nodes.paths import StateDir
from raydns.nodes.tracing import Tracer
from raydns.schemas.batch import NO_SPAN
from raydns.schemas.cluster import Endpoint, Snapshot
from raydns.schemas.config import Config

from .core import Clocks, LLMCore
from .limits import Share
from .messages import AskRequest, AskResult, Kind, decode_request, encode
from .parts import Parts
from .quota import QuotaFile

log = logging.getLogger(__name__)

SPAN: Final = "llm.answer"


class LLMActor:
    """See the head of this file; an asyncio actor: all methods run in one loop.

    Args:
        state_dir: the machine's state directory.
        endpoint: msgpack of ``schemas.cluster.Endpoint``: who this actor is.
    """

    def __init__(self, state_dir: str, endpoint: bytes) -> None:
        self._endpoint = msgspec.msgpack.decode(endpoint, type=Endpoint)
        directory = StateDir(state_dir)
        self._known = Known(directory)
        snapshot = self._known.load()
        config = self._known.config()
        logs.setup(config.telemetry.log, self._endpoint.actor)
        self._version = snapshot.version.packed if snapshot is not None else 0
        store = QuotaFile(directory.path / "llm" / str(self._endpoint.index) / "quota.json")
        share = self._share(snapshot, config)
        self._core = LLMCore(config.llm, store, Clocks(time.monotonic, time.time), share)
        self._parts = Parts(self._core)
        self._tracer = Tracer("llm", self._endpoint.actor, config.telemetry.trace)
        self._config = config
        self._applied = False
        measures = self._core.measures
        measures.gauge("raydns_llm_embedded_rss_bytes", "Memory of the embedded model's process.", self._rss)
        measures.gauge("raydns_llm_embedded_restarts_total", "Ends of the embedded model's process.", self._restarts)
        with contextlib.suppress(RuntimeError):  # no loop yet: then the first call applies
            asyncio.get_running_loop()
            self._apply_once()  # after a restart nobody calls ``ready``, and the model takes a second to load

    # -- called by query actors --------------------------------------------------------------------------

    async def ask(self, request: bytes) -> bytes:
        """Answers a prompt (msgpack of ``AskRequest``) with msgpack of ``AskResult``; raises ``WireError``."""
        asked = decode_request(request)
        self._apply_once()
        began_us = time.time_ns() // 1000
        result = await self._core.ask(asked)
        if asked.trace_flags & 1:
            self._record(asked, result, began_us)
        return encode(result)

    # -- called by the controller and the agent ----------------------------------------------------------

    async def ready(self) -> bool:
        """Whether it takes prompts: always, once it runs. A model that is absent is told to those who ask."""
        self._apply_once()
        return True

    async def refresh(self) -> int:
        """Reads the configuration again; calls in flight go on; returns the version read."""
        snapshot = self._known.load()
        if snapshot is not None:
            config = self._known.config()
            logs.setup(config.telemetry.log, self._endpoint.actor)
            self._tracer.configure(config.telemetry.trace)
            self._config = config
            self._version = snapshot.version.packed
            self._apply(self._share(snapshot, config))
        return self._version

    async def statistics(self) -> dict[str, float]:
        """What load and health reports hold."""
        return {
            "in_flight": float(self._core.in_flight),
            "waiters": float(self._core.waiters),
            "queries": float(self._core.measures.queries),
            "calls": float(self._core.measures.calls),
            "pid": float(os.getpid()),
        }

    async def metrics(self) -> bytes:
        """Msgpack of ``list[Family]``."""
        return msgspec.msgpack.encode(self._core.measures.families())

    async def drain(self, timeout_s: float) -> bool:
        """Starts no call any more, waits for those in flight, ends the embedded model; whether all calls ended."""
        ended = await self._core.drain(timeout_s)
        await self._core.close()
        await self._parts.close()
        return ended

    # -- inside ------------------------------------------------------------------------------------------

    def _apply_once(self) -> None:
        """Providers need the running loop, which a constructor may lack; every other method has it."""
        if not self._applied:
            self._apply(self._share(self._known.load(), self._config))

    def _apply(self, share: Share) -> None:
        self._applied = True
        self._parts.apply(self._config.llm, share, os.environ)

    def _share(self, snapshot: Snapshot | None, config: Config) -> Share:
        actors = snapshot.scale.llm if snapshot is not None else config.llm.actors
        return Share(self._endpoint.index, max(actors, self._endpoint.index + 1, 1))

    def _rss(self) -> float:
        return float(self._parts.embedded.process.rss_octets) if self._parts.embedded is not None else 0.0

    def _restarts(self) -> float:
        return float(self._parts.embedded.process.restarts) if self._parts.embedded is not None else 0.0

    def _record(self, asked: AskRequest, result: AskResult, began_us: int) -> None:
        self._tracer.record(
            SPAN,
            kind="internal" if result.source == "hit" else "client",
            trace_id=asked.trace_id,
            span_id=self._tracer.new_span_id(),
            parent_id=asked.span_id if asked.span_id != NO_SPAN else b"",
            start_us=began_us,
            end_us=time.time_ns() // 1000,
            attributes=span_attributes(result, self._config),
            error=result.text if result.kind is Kind.ERROR else "",
        )


def span_attributes(result: AskResult, config: Config) -> dict[str, str | int | float | bool]:
    """OpenTelemetry's GenAI attributes (semantic conventions, ``gen_ai.*``); never the prompt, never the answer."""
    llm = config.llm
    embedded = result.provider == "embedded"
    found: dict[str, str | int | float | bool] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": result.provider or "none",
        "gen_ai.request.model": "embedded" if embedded else llm.models[0],
        "gen_ai.request.max_tokens": llm.embedded.max_tokens if embedded else llm.max_tokens,
        "gen_ai.request.temperature": 0.0 if embedded else llm.temperature,
        "raydns.llm.result": result.kind.value,
        "raydns.llm.source": result.source,
    }
    if result.model:
        found["gen_ai.response.model"] = result.model
    if result.completion_tokens:
        found["gen_ai.usage.input_tokens"] = result.prompt_tokens
        found["gen_ai.usage.output_tokens"] = result.completion_tokens
    if result.first_token_ms:
        found["raydns.llm.time_to_first_token_ms"] = result.first_token_ms
    return found
