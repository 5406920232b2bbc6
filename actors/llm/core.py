"""The LLM actor's core: who asks the same shares one call; what may cost something is counted first.

Rules of this file: no sockets and no files; providers, clocks and the day's store come in. Nothing awaits between
looking for a flight and starting one, so that a key never has two. A call is charged to the client that leads it,
and is never cancelled because a waiter left: retries and other machines will want its answer.

    ask ─▶ answer kept? ─▶ failed a moment ago? ─▶ in flight? ─▶ may this client start a call? ─▶ call
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from raydns.schemas.config.llm import SYSTEM_PROMPT, LLMConfig
from raydns.schemas.dns import Ede

from . import flight as texts
from .completion import Completion
from .faults import CONSEQUENCES, Fault, ProviderError
from .flight import Flight
from .gate import Gate
from .limits import DayCount, DayStore, GlobalLimit, Limits, Share
from .measures import Measures
from .memory import Answers, Failures
from .messages import AskRequest, AskResult, Kind
from .provider import Call, Provider

log = logging.getLogger(__name__)

VERIFY_AFTER_CALLS: Final = 2.0
"""Calls that an unproven source may cause before it must come back by TCP (llm.md 2.3)."""
FALLBACK_TTL_S: Final = 60.0
"""How long an answer of the fall-back model stands for one of the provider."""
EMBEDDED_PROMPT: Final = "Answer in one short sentence."
"""The configured default confuses 135 million parameters: with it "what is rust" is "rusty, rusty, rusty"."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """Monotonic seconds and Unix time."""

    now: Callable[[], float]
    wall: Callable[[], float]


@dataclass(slots=True, eq=False)
class Line:
    """A provider with what guards it."""

    provider: Provider
    limit: GlobalLimit
    models: tuple[str, ...]
    label: str = ""
    embedded: bool = False
    gate: Gate = field(default_factory=Gate)


class LLMCore:
    """See the head of this file.

    Args:
        config: section ``llm``.
        store: where the day's count survives.
        clocks: time.
        share: this actor's part of the limits.
    """

    def __init__(self, config: LLMConfig, store: DayStore, clocks: Clocks, share: Share | None = None) -> None:
        self._config = config
        self._clocks = clocks
        self._limits = Limits(config.limits, share or Share(), DayCount(store), clocks.now())
        self._answers = Answers(config.cache_entries, config.cache_bytes)
        self._failures = Failures()
        self._flights: dict[bytes, Flight] = {}
        self._lines: list[Line] = []
        self._unconfigured: Fault | None = Fault.UNAUTHORISED
        self._waiters = 0
        self._draining = False
        self._salt = os.urandom(16)
        self.measures = Measures(self)

    # -- configuration -----------------------------------------------------------------------------------

    def set_providers(self, main: Provider | None, embedded: Provider | None, *, key_problem: bool = False) -> None:
        """Who answers from now on; calls in flight end with those who began them.

        Args:
            main: of the OpenAI-compatible server; ``None``: the embedded one is all there is.
            embedded: the embedded model, alone or as the fall-back.
            key_problem: a key is configured and cannot be used: say so, call nobody (but the fall-back).
        """
        config, lines = self._config, []
        if main is not None and not key_problem:
            lines.append(Line(main, self._limits.provider, config.models))
        if embedded is not None:
            lines.append(
                Line(embedded, self._limits.embedded, ("embedded",), label=config.embedded.label, embedded=True)
            )
        self._lines = lines
        self._unconfigured = Fault.UNAUTHORISED if key_problem or not lines else None
        self._answers.clear()
        self._failures.clear()

    def configure(self, config: LLMConfig, share: Share) -> None:
        """Applies changed options while calls go on; pauses end, what was spent stays spent."""
        self._config = config
        self._limits.configure(config.limits, share, self._clocks.now())
        self._answers.resize(config.cache_entries, config.cache_bytes)
        self._failures.clear()
        for line in self._lines:
            line.gate.reset()
            if line.embedded:
                line.label = config.embedded.label
            else:
                line.models = config.models

    # -- asking ------------------------------------------------------------------------------------------

    async def ask(self, request: AskRequest) -> AskResult:
        """The answer, or what can be said within ``request.wait_ms``. Never raises."""
        now = self._clocks.now()
        result = self._at_once(request, now)
        if result is None:
            flight = self._flights.get(request.key)
            joined = flight is not None
            if flight is None:
                result = self._refusal(request, now)
                if result is None:
                    flight = self._start(request, now)
            if flight is not None:
                result = await self._wait(flight, request.wait_ms / 1000.0, joined=joined)
        assert result is not None
        self.measures.asked(result)
        return result

    def _at_once(self, request: AskRequest, now: float) -> AskResult | None:
        """What needs no call: a kept answer, a failure of a moment ago, too many queries."""
        if not self._limits.queries.take(request.client, now):
            wait = self._limits.queries.wait_s(request.client, now)
            return self._limited(wait)
        kept = self._answers.get(request.key, now)
        if kept is not None:
            text, model, provider, left = kept
            ttl = max(1, min(self._config.answer_ttl_s, int(left)))
            return AskResult(Kind.ANSWER, text, ttl, model=model, provider=provider, source="hit")
        failed = self._failures.get(request.key, now)
        if failed is not None:
            result, left = failed
            return AskResult(result.kind, result.text, min(result.ttl, texts.seconds(left)), result.ede, source="hit")
        return None

    def _limited(self, wait_s: float) -> AskResult:
        text = f"rate limited, retry in {texts.seconds(wait_s)} s"
        return texts.refusal(Kind.LIMITED, text, self._config, wait_s, Ede.PROHIBITED)

    def _refusal(self, request: AskRequest, now: float) -> AskResult | None:
        """Why this client may not start a call; otherwise the call is paid for, and ``None``."""
        if self._draining:
            return texts.refusal(Kind.BUSY, "restarting", self._config, 1.0, Ede.NOT_READY)
        if self._unconfigured is not None and not self._lines:
            return texts.failure(self._unconfigured, self._config)
        line, closed = self._open_line(now)
        if line is None:
            fault, wait = closed
            return texts.failure(fault, self._config, wait)
        if len(self._flights) >= self._limits.in_flight_max:
            return texts.refusal(Kind.BUSY, "busy, ask again in 2 s", self._config, 2.0, Ede.NOT_READY)
        if not request.proven and self._must_prove(request.client, line.limit, now):
            return AskResult(Kind.VERIFY, "", 0, source="refused")
        return self._pay(request.client, line.limit, now)

    def _open_line(self, now: float) -> tuple[Line | None, tuple[Fault, float]]:
        closed = (Fault.UNAUTHORISED, 0.0)
        for index, line in enumerate(self._lines):
            refusal = line.gate.refusal(now)
            if refusal is None:
                return line, closed
            if index == 0:
                closed = refusal
        return None, closed

    def _must_prove(self, client: bytes, limit: GlobalLimit, now: float) -> bool:
        """``verify_source``: an honest client comes back by TCP, a spoofed one costs no call."""
        mode = self._config.verify_source
        if mode != "auto":
            return mode == "always"
        spent = self._config.limits.client_burst - self._limits.calls.level(client, now)
        return limit.below_half(now) or spent > VERIFY_AFTER_CALLS - 1.0

    def _pay(self, client: bytes, limit: GlobalLimit, now: float) -> AskResult | None:
        wall = self._clocks.wall()
        if self._limits.calls.level(client, now) < 1.0 - 1e-9:
            return self._limited(self._limits.calls.wait_s(client, now))
        if not limit.take(now, wall):
            window, wait = limit.wait_s(now, wall)
            text = "daily limit reached" if window == "day" else f"too many calls, retry in {texts.seconds(wait)} s"
            return texts.refusal(Kind.QUOTA, text, self._config, wait, Ede.NOT_READY)
        self._limits.calls.take(client, now)
        return None

    # -- the call ----------------------------------------------------------------------------------------

    def _start(self, request: AskRequest, now: float) -> Flight:
        loop = asyncio.get_running_loop()
        flight = Flight(request.key, request.prompt, now, loop.create_future())
        self._flights[request.key] = flight
        flight.task = loop.create_task(self._fly(flight, request.model), name="llm-call")
        return flight

    async def _wait(self, flight: Flight, wait_s: float, *, joined: bool) -> AskResult:
        source = "joined" if joined else "miss"
        if self._waiters >= self._limits.waiters_max and not flight.done.done():
            return _from(texts.so_far(flight, self._config, self._label(flight)), source)
        flight.waiters += 1
        self._waiters += 1
        try:
            # ``asyncio.wait`` cancels nothing: the call outlives its waiters.
            await asyncio.wait({flight.done}, timeout=wait_s)
        finally:
            flight.waiters -= 1
            self._waiters -= 1
        if flight.done.done() and not flight.done.cancelled():
            return _from(flight.done.result(), source)
        return _from(texts.so_far(flight, self._config, self._label(flight)), source)

    async def _fly(self, flight: Flight, alias: str) -> None:
        """Runs a call to its end and tells everybody; whatever happens, the key is free afterwards."""
        result = texts.failure(Fault.INTERNAL, self._config)
        try:
            result = await self._try_lines(flight, alias)
        except asyncio.CancelledError:
            result = texts.refusal(Kind.BUSY, "restarting", self._config, 1.0, Ede.NOT_READY)
            raise
        except Exception:
            log.exception("llm.call_failed_inside")
        finally:
            self._flights.pop(flight.key, None)
            if not flight.done.done():
                flight.done.set_result(result)

    async def _try_lines(self, flight: Flight, alias: str) -> AskResult:
        error = ProviderError(self._unconfigured or Fault.UNAUTHORISED)
        paid = True  # the first request was paid by whoever leads
        for line in list(self._lines):
            for model in self._models(line, alias):
                if line.gate.refusal(self._clocks.now()) is not None:
                    break
                if not paid and not self._spend(line):
                    break
                paid = False
                try:
                    return await self._call(flight, line, model)
                except ProviderError as failed:
                    error = failed
                    told = texts.cut(flight, self._config, line.label)
                    if told is not None:
                        return told
                    if not CONSEQUENCES[failed.fault].next_model:
                        break
        return self._failed(flight, error)

    def _models(self, line: Line, alias: str) -> tuple[str, ...]:
        if line.embedded or not alias:
            return line.models
        return (alias,) if alias in line.models else line.models

    def _spend(self, line: Line) -> bool:
        return line.limit.take(self._clocks.now(), self._clocks.wall())

    async def _call(self, flight: Flight, line: Line, model: str) -> AskResult:
        """One provider, one model: text goes into the flight, the outcome into gate, memory and metrics."""
        flight.provider, flight.model = line.provider.name, model
        flight.raw.clear()
        flight.told = None
        began = self._clocks.now()
        line.gate.started(began)
        outcome = "cancelled"
        try:
            completion = await line.provider.complete(
                self._prompt(line, flight.prompt, model), flight.raw.append, lambda: self._spend(line)
            )
            result = texts.answer(flight, completion, self._config, line.label)
            if len(result.text) <= len(line.label):
                raise ProviderError(Fault.EMPTY)  # only thoughts, or only what hygiene takes away
            outcome = "ok"
            line.gate.succeeded()
            return self._keep(flight, line, result, completion)
        except ProviderError as error:
            outcome = error.fault.value
            line.gate.failed(error, self._clocks.now())
            raise
        finally:
            if outcome == "cancelled":
                line.gate.abandoned()
            seconds = self._clocks.now() - began
            self.measures.called(line.provider.name, outcome, seconds)
            log.info(
                "llm.call",
                extra={
                    "provider": line.provider.name,
                    "model": model,
                    "outcome": outcome,
                    "seconds": round(seconds, 3),
                    "prompt": self._loggable(flight.prompt),
                },
            )

    def _prompt(self, line: Line, prompt: str, model: str) -> Call:
        config = self._config
        if not line.embedded:
            return Call(
                prompt,
                config.system_prompt,
                model,
                config.max_tokens,
                config.temperature,
                config.max_stored_bytes,
            )
        # A sentence with a capital and a question mark is what the small model was trained on.
        sentence = prompt[:1].upper() + prompt[1:] + ("" if prompt[-1:] in ".?!" else "?")
        system = EMBEDDED_PROMPT if config.system_prompt == SYSTEM_PROMPT else config.system_prompt
        return Call(sentence, system, model, config.embedded.max_tokens, 0.0, config.max_stored_bytes)

    def _keep(self, flight: Flight, line: Line, result: AskResult, completion: Completion) -> AskResult:
        stands_in = line is not self._lines[0] if self._lines else True
        keep_s = min(self._config.cache_ttl_s, FALLBACK_TTL_S) if stands_in else float(self._config.cache_ttl_s)
        self._answers.put(flight.key, result.text, result.model, result.provider, self._clocks.now() + keep_s)
        self.measures.completed(completion)
        ttl = max(1, min(self._config.answer_ttl_s, int(keep_s)))
        return _with_ttl(result, ttl)

    def _failed(self, flight: Flight, error: ProviderError) -> AskResult:
        now = self._clocks.now()
        wait = error.retry_after_s
        for line in self._lines[:1]:
            refusal = line.gate.refusal(now)
            if refusal is not None and refusal[0] is error.fault:
                wait = refusal[1]
        if error.fault is Fault.UNAUTHORISED:
            log.error("llm.not_configured", extra={"hint": "check the key, then: raydns config reload"})
        result = texts.failure(error.fault, self._config, wait if wait < 1e6 else 0.0)
        keep_s = CONSEQUENCES[error.fault].failure_ttl_s or self._config.failure_ttl_s
        if wait > 0:
            keep_s = min(keep_s, wait)
        if keep_s > 0:
            self._failures.put(flight.key, result, now + keep_s)
        return result

    def _label(self, flight: Flight) -> str:
        return self._config.embedded.label if flight.provider == "embedded" else ""

    def _loggable(self, prompt: str) -> str:
        if self._config.log_prompts:
            return prompt
        return hashlib.blake2b(prompt.encode("utf-8", "replace"), digest_size=8, key=self._salt).hexdigest()

    # -- life --------------------------------------------------------------------------------------------

    async def drain(self, timeout_s: float) -> bool:
        """Starts no call any more and lets those in flight end; whether all did."""
        self._draining = True
        waiting = {f.done for f in self._flights.values()}
        if not waiting:
            return True
        _, left = await asyncio.wait(waiting, timeout=timeout_s)
        return not left

    async def close(self) -> None:
        """Cancels all calls; who waits is told."""
        tasks = [f.task for f in self._flights.values() if f.task is not None]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    @property
    def in_flight(self) -> int:
        """Calls that are out."""
        return len(self._flights)

    @property
    def waiters(self) -> int:
        """Queries that wait for them."""
        return self._waiters

    @property
    def answers(self) -> Answers:
        """Kept answers: their number and octets are gauges."""
        return self._answers

    def closed_gates(self) -> dict[str, float]:
        """1 for each provider that may not be called now."""
        now = self._clocks.now()
        return {line.provider.name: float(line.gate.is_closed(now)) for line in self._lines}

    def quota_left(self) -> dict[str, float]:
        """Calls left, by window, of the first provider."""
        limit = self._lines[0].limit if self._lines else self._limits.provider
        left = {"minute": float(limit.minute_left(self._clocks.now()))}
        day = limit.day_left(self._clocks.wall())
        if day is not None:
            left["day"] = float(day)
        return left


def _from(result: AskResult, source: str) -> AskResult:
    return result if result.source == source else _replaced(result, source=source)


def _with_ttl(result: AskResult, ttl: int) -> AskResult:
    return _replaced(result, ttl=ttl)


def _replaced(result: AskResult, **changes: object) -> AskResult:
    return msgspec.structs.replace(result, **changes)
