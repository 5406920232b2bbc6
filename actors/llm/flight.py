"""One model call in flight, and the texts that those who wait for it get."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from raydns.schemas.config.llm import LLMConfig
from raydns.schemas.dns import Ede

from . import hygiene
from .completion import Completion
from .faults import CONSEQUENCES, Fault
from .messages import AskResult, Kind

MORE = " ...(more soon, ask again)"
CUT = " ...(cut)"
PENDING = "pending: ask again in 5 s"
ERROR_TTL_CUT_S = 5


@dataclass(slots=True, eq=False)
class Flight:
    """Who shares its key waits for the same ``done``; it goes on when nobody waits any more."""

    key: bytes
    prompt: str
    began: float
    done: asyncio.Future[AskResult]
    waiters: int = 0
    raw: list[str] = field(default_factory=list)
    """Pieces of text as they came, without hygiene."""
    provider: str = ""
    model: str = ""
    task: asyncio.Task[None] | None = None
    told: tuple[int, AskResult] | None = None
    """The newest partial text and how many pieces it was made of: 256 waiters with one deadline share it."""

    @property
    def text(self) -> str:
        """What came up to now."""
        return "".join(self.raw)


def answer(flight: Flight, completion: Completion, config: LLMConfig, label: str) -> AskResult:
    """The whole text, fit to be told; its TTL is set by whoever keeps it."""
    text = label + hygiene.clean(flight.text, ascii_only=config.ascii, token_guard=config.token_guard)
    if completion.truncated or completion.finish_reason == "length":
        text += " ..."
    return AskResult(
        Kind.ANSWER,
        text,
        0,
        model=completion.model or flight.model,
        provider=flight.provider,
        prompt_tokens=completion.prompt_tokens,
        completion_tokens=completion.completion_tokens,
        first_token_ms=round(completion.first_token_s * 1000),
    )


def so_far(flight: Flight, config: LLMConfig, label: str) -> AskResult:
    """At a waiter's deadline: the text that came, or that it is on its way."""
    if flight.told is None or flight.told[0] != len(flight.raw):
        flight.told = (len(flight.raw), _so_far(flight, config, label))
    return flight.told[1]


def _so_far(flight: Flight, config: LLMConfig, label: str) -> AskResult:
    text = hygiene.clean(flight.text, ascii_only=config.ascii, token_guard=config.token_guard)
    if not text:
        return pending(config)
    return AskResult(
        Kind.PARTIAL,
        label + text + MORE,
        config.pending_ttl_s,
        Ede.NOT_READY,
        model=flight.model,
        provider=flight.provider,
        final=False,
    )


def pending(config: LLMConfig) -> AskResult:
    """Nothing came yet."""
    return AskResult(Kind.PENDING, PENDING, config.pending_ttl_s, Ede.NOT_READY, final=False)


def cut(flight: Flight, config: LLMConfig, label: str) -> AskResult | None:
    """What came before a call broke; ``None`` where nothing readable did."""
    text = hygiene.clean(flight.text, ascii_only=config.ascii, token_guard=config.token_guard)
    if not text:
        return None
    return AskResult(
        Kind.PARTIAL,
        label + text + CUT,
        ERROR_TTL_CUT_S,
        Ede.NETWORK_ERROR,
        model=flight.model,
        provider=flight.provider,
    )


def failure(fault: Fault, config: LLMConfig, wait_s: float = 0.0, kind: Kind = Kind.ERROR) -> AskResult:
    """A fault as the client reads it."""
    consequence = CONSEQUENCES[fault]
    text = consequence.text.format(seconds=seconds(wait_s))
    return AskResult(kind, f"error: {text}", ttl_of(wait_s, config), consequence.ede, source="refused")


def refusal(kind: Kind, text: str, config: LLMConfig, wait_s: float, ede: int) -> AskResult:
    """A limit as the client reads it."""
    return AskResult(kind, f"error: {text}", ttl_of(wait_s, config), ede, source="refused")


def seconds(wait_s: float) -> int:
    """Whole seconds for a text, at least one, at most a day."""
    return max(1, min(86_400, int(min(wait_s, 86_400.0) + 0.999)))


def ttl_of(wait_s: float, config: LLMConfig) -> int:
    """The TTL of an error: never longer than what it tells of lasts."""
    return min(config.error_ttl_s, seconds(wait_s)) if wait_s > 0 else config.error_ttl_s
