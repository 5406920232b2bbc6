"""From the configuration to providers: what is made anew on a reload, and what stays because it did not change."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from raydns.schemas.config.llm import LLMConfig
from raydns.schemas.errors import StateError

from .core import LLMCore
from .embedded import EmbeddedProvider
from .limits import Share
from .provider import ClientOptions, OpenAIProvider
from .secret import Secret, provider_key

log = logging.getLogger(__name__)

CLOSE_AFTER_S = 60.0
"""How long replaced providers live on for calls in flight; above any ``total_timeout_s`` in use it only frees later."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Who answers, as the configuration and the presence of a key decide."""

    main: ClientOptions | None
    embedded: bool
    key_problem: bool = False


def choose(config: LLMConfig, environment: Mapping[str, str]) -> Choice:
    """``auto`` takes the server if there is a key. A key that cannot be used is said, never passed over: the
    embedded model is no silent stand-in."""
    if config.provider == "embedded":
        return Choice(None, embedded=True)
    fallback = config.fallback == "embedded"
    try:
        key = provider_key(config, environment)
    except StateError as error:
        log.error("llm.key_unusable", extra={"problem": str(error)})
        return Choice(None, embedded=fallback, key_problem=True)
    if config.provider == "auto" and not key:
        return Choice(None, embedded=True)
    return Choice(_options(config, key), embedded=fallback)


def _options(config: LLMConfig, key: Secret) -> ClientOptions:
    return ClientOptions(
        config.base_url,
        key,
        config.connect_timeout_s,
        config.total_timeout_s,
        reasoning_effort=config.reasoning_effort,
    )


class Parts:
    """Holds the providers of a core and exchanges them when the configuration changes."""

    def __init__(self, core: LLMCore) -> None:
        self._core = core
        self._main: tuple[ClientOptions, OpenAIProvider] | None = None
        self.embedded: EmbeddedProvider | None = None
        self._config: LLMConfig | None = None
        self._closing: set[asyncio.Task[None]] = set()

    def apply(self, config: LLMConfig, share: Share, environment: Mapping[str, str]) -> None:
        """Makes the core follow a configuration; must run in the core's loop."""
        previous, self._config = self._config, config
        choice = choose(config, environment)
        self._core.configure(config, share)
        changed = self._set_main(choice.main)
        changed |= self._set_embedded(config, previous, wanted=choice.embedded)
        if changed or previous is None or _told_model(previous) != _told_model(config) or choice.key_problem:
            self._core.set_providers(
                self._main[1] if self._main is not None else None, self.embedded, key_problem=choice.key_problem
            )
        if self.embedded is not None:
            self.embedded.start()

    async def close(self) -> None:
        """Ends connections and the embedded model's process."""
        for task in self._closing:
            task.cancel()
        if self._main is not None:
            await self._main[1].close()
        if self.embedded is not None:
            await self.embedded.close()

    def _set_main(self, options: ClientOptions | None) -> bool:
        if (self._main[0] if self._main is not None else None) == options:
            return False
        if self._main is not None:
            self._close_later(self._main[1])
        self._main = (options, OpenAIProvider(options)) if options is not None else None
        return True

    def _set_embedded(self, config: LLMConfig, previous: LLMConfig | None, *, wanted: bool) -> bool:
        same = (
            previous is not None
            and previous.embedded == config.embedded
            and previous.total_timeout_s == config.total_timeout_s
        )
        if wanted == (self.embedded is not None) and (same or not wanted):
            return False
        if self.embedded is not None:
            self._close_later(self.embedded, after_s=0.0)
        self.embedded = EmbeddedProvider(config.embedded, config.total_timeout_s) if wanted else None
        return True

    def _close_later(self, provider: OpenAIProvider | EmbeddedProvider, after_s: float = CLOSE_AFTER_S) -> None:
        async def close() -> None:
            await asyncio.sleep(after_s)
            await provider.close()

        task = asyncio.get_running_loop().create_task(close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _told_model(config: LLMConfig) -> tuple[object, ...]:
    """What makes kept answers those of another model."""
    return (config.provider, config.fallback, config.models, config.system_prompt, config.temperature)
