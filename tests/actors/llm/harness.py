"""A core with clocks turned by hand, in front of a fake provider or of a scripted one."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any

from raydns.actors.llm.completion import Completion
from raydns.actors.llm.core import Clocks, LLMCore
from raydns.actors.llm.faults import ProviderError
from raydns.actors.llm.limits import DayStore, Share
from raydns.actors.llm.messages import AskRequest
from raydns.actors.llm.provider import Call, ClientOptions, OpenAIProvider
from raydns.actors.llm.quota import QuotaMemory
from raydns.actors.llm.secret import Secret
from raydns.schemas.config.llm import LimitsConfig, LLMConfig

from .fake_provider import KEY

DAY = 20_000
MIDNIGHT = DAY * 86_400.0


class Time:
    """Clocks that a test turns."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.wall = MIDNIGHT + 43_200.0

    def forward(self, seconds: float) -> None:
        """Both clocks."""
        self.now += seconds
        self.wall += seconds

    @property
    def clocks(self) -> Clocks:
        return Clocks(lambda: self.now, lambda: self.wall)


def wide_limits(**changes: Any) -> LimitsConfig:
    """Limits that no test meets, but for those it names."""
    fields: dict[str, Any] = {
        "client_calls_per_minute": 6000.0,
        "client_burst": 1000,
        "client_queries_per_second": 10_000.0,
        "client_queries_burst": 10_000,
        "global_per_minute": 10_000,
        "global_per_day": 100_000,
        "embedded_per_minute": 10_000,
        "in_flight_max": 100,
        "waiters_max": 10_000,
    }
    return LimitsConfig(**{**fields, **changes})


def client(number: int) -> bytes:
    """The prefix of an IPv4 client."""
    return bytes(10) + b"\xff\xff" + (0x0A000000 + number).to_bytes(4, "big")


def ask(prompt: str = "what is dns", *, wait_ms: int = 5000, who: int = 1, proven: bool = True) -> AskRequest:
    """A request."""
    return AskRequest(hashlib.sha256(prompt.encode()).digest(), prompt, client(who), wait_ms, proven=proven)


class Scripted:
    """A provider that does what the test says; counts its requests."""

    name = "openai"

    def __init__(self) -> None:
        self.calls = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.text = "text"
        self.error: ProviderError | None = None
        self.prompts: list[str] = []

    async def complete(self, call: Call, on_text: Callable[[str], None], spend: Callable[[], bool]) -> Completion:
        self.calls += 1
        self.prompts.append(call.prompt)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        on_text(self.text)
        return Completion(model=call.model, has_text=True)

    async def close(self) -> None:
        return None


def make_core(
    provider: Any,
    time: Time,
    config: LLMConfig | None = None,
    store: DayStore | None = None,
    share: Share | None = None,
    embedded: Any = None,
) -> LLMCore:
    """A core with this provider."""
    core = LLMCore(config or LLMConfig(limits=wide_limits()), store or QuotaMemory(), time.clocks, share)
    core.set_providers(provider, embedded)
    return core


def http_provider(url: str, config: LLMConfig) -> OpenAIProvider:
    """The real client for a fake server; retries wait only a moment."""
    options = ClientOptions(url, Secret(KEY), config.connect_timeout_s, config.total_timeout_s, "none")
    return OpenAIProvider(options, retry_wait_s=(0.01, 0.02))
