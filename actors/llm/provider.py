"""The client of any OpenAI-compatible server: OpenRouter, Ollama, vLLM, llama.cpp, and our own embedded one.

One code path for all. A 429 is never tried again (the official client spends three requests of a quota on it); a
400 is tried once without ``reasoning``; a 5xx or a broken connection once, if no text came and time is left. Each
further request asks ``spend`` first, so that quotas count requests and not calls. No exception of the HTTP client
leaves this file: some carry request headers, and one of those is the key.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import aiohttp

from .completion import Completion, Reader
from .faults import CONSEQUENCES, Fault, ProviderError, status_fault
from .secret import Secret

RAW_SIZE_MAX: Final = 4 * 1024 * 1024
"""Octets read in one call: text of 16 KB in events of one token each is about 1.3 MB."""
CONNECTIONS_MAX: Final = 16
PLAIN_MODELS_MAX: Final = 64
RETRY_WAIT_S: Final = (0.3, 1.0)
_FINISH_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Call:
    """One prompt for one model."""

    prompt: str
    system_prompt: str
    model: str
    max_tokens: int
    temperature: float
    text_size_max: int


class Provider(Protocol):
    """Something that completes prompts."""

    name: str
    """``openai`` or ``embedded``: a label of metrics."""

    async def complete(self, call: Call, on_text: Callable[[str], None], spend: Callable[[], bool]) -> Completion:
        """Streams the text to ``on_text``; raises ``ProviderError`` and nothing else (beside cancellation)."""

    async def close(self) -> None:
        """Ends connections."""


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """How to reach a server."""

    base_url: str
    key: Secret
    connect_timeout_s: float
    total_timeout_s: float
    reasoning_effort: str = ""
    """Empty: not sent at all."""
    keep_alive: bool = True


class OpenAIProvider:
    """One server; made anew where its options change."""

    name = "openai"

    def __init__(
        self,
        options: ClientOptions,
        rng: random.Random | None = None,
        retry_wait_s: tuple[float, float] = RETRY_WAIT_S,
    ) -> None:
        self._options = options
        self._retry_wait_s = retry_wait_s
        self._rng = rng or random.Random()
        self._session: aiohttp.ClientSession | None = None
        self._plain_models: dict[str, None] = {}  # models that do not take ``reasoning``; bounded

    async def complete(self, call: Call, on_text: Callable[[str], None], spend: Callable[[], bool]) -> Completion:
        """See ``Provider``."""
        deadline = time.monotonic() + self._options.total_timeout_s
        retried = False
        while True:
            reasoning = bool(self._options.reasoning_effort) and call.model not in self._plain_models
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    return await self._request(call, on_text, reasoning=reasoning)
            except TimeoutError:
                raise ProviderError(Fault.TIMEOUT) from None
            except ProviderError as error:
                if error.fault is Fault.BAD_REQUEST and reasoning and not error.text_came and spend():
                    self._remember_plain(call.model)
                    continue
                pause = self._rng.uniform(*self._retry_wait_s)
                again = CONSEQUENCES[error.fault].retry and not error.text_came and not retried
                if not again or time.monotonic() + pause >= deadline or not spend():
                    raise
                retried = True
                await asyncio.sleep(pause)

    async def close(self) -> None:
        """See ``Provider``."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _request(self, call: Call, on_text: Callable[[str], None], *, reasoning: bool) -> Completion:
        body = self._body(call, reasoning=reasoning)
        reader: Reader | None = None
        started = time.monotonic()
        first = 0.0

        def text(piece: str) -> None:
            nonlocal first
            first = first or time.monotonic() - started
            on_text(piece)

        try:
            async with self._connected().post(
                f"{self._options.base_url.rstrip('/')}/chat/completions",
                json=body,
                headers=self._headers(),
                allow_redirects=False,  # the key goes to the configured host and nowhere else
            ) as response:
                if response.status != 200:
                    raise _refused(response.status, response.headers)
                kind = response.content_type
                if kind not in {"text/event-stream", "application/json"}:
                    raise ProviderError(Fault.INVALID)
                reader = Reader(text, call.text_size_max, streamed=kind == "text/event-stream")
                await _read(response, reader)
            completion = reader.end()
        except (aiohttp.ClientError, OSError, ValueError):
            # ``from None``: their text may hold the request. ValueError: a URL that is none.
            came = reader is not None and reader.completion.has_text
            raise ProviderError(Fault.CUT if came else Fault.CONNECT, text_came=came) from None
        except ProviderError as error:
            if error.fault is Fault.RATE_LIMITED and not error.retry_after_s and reader is not None:
                raise ProviderError(error.fault, retry_after_s=retry_after(response.headers, time.time())) from None
            raise
        completion.first_token_s = first
        return completion

    def _body(self, call: Call, *, reasoning: bool) -> dict[str, Any]:
        messages = [{"role": "user", "content": call.prompt}]
        if call.system_prompt:
            messages.insert(0, {"role": "system", "content": call.system_prompt})
        body: dict[str, Any] = {
            "model": call.model,
            "messages": messages,
            "max_tokens": call.max_tokens,
            "temperature": call.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if reasoning:
            # OpenRouter has an object of its own for it; everybody else follows OpenAI's name.
            if "openrouter.ai" in self._options.base_url:
                body["reasoning"] = {"effort": self._options.reasoning_effort}
            else:
                body["reasoning_effort"] = self._options.reasoning_effort
        return body

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "text/event-stream, application/json"}
        if self._options.key:
            headers["Authorization"] = f"Bearer {self._options.key.reveal()}"
        return headers

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            # The embedded server answered badly on connections that it had kept (llm.md): close each there.
            connector = aiohttp.TCPConnector(limit=CONNECTIONS_MAX, force_close=not self._options.keep_alive)
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._options.connect_timeout_s)
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session

    def _remember_plain(self, model: str) -> None:
        self._plain_models[model] = None
        if len(self._plain_models) > PLAIN_MODELS_MAX:
            self._plain_models.pop(next(iter(self._plain_models)))


async def _read(response: aiohttp.ClientResponse, reader: Reader) -> None:
    left = RAW_SIZE_MAX
    async for chunk in response.content.iter_any():
        reader.feed(chunk)
        left -= len(chunk)
        if reader.done:
            if not reader.completion.truncated:
                await _finish(response)
            return
        if left < 0:
            raise ProviderError(Fault.INVALID, text_came=reader.completion.has_text)


async def _finish(response: aiohttp.ClientResponse) -> None:
    """Reads the end of the body, if it is there already: only then can the connection serve the next call."""
    with contextlib.suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(_FINISH_S):
            await response.content.readany()


def _refused(status: int, headers: Any) -> ProviderError:
    fault = status_fault(status)
    wait = retry_after(headers, time.time()) if fault in {Fault.RATE_LIMITED, Fault.PAYMENT} else 0.0
    return ProviderError(fault, retry_after_s=wait)


def retry_after(headers: Any, wall: float) -> float:
    """Seconds that the provider wants to be left alone (RFC 9110 section 10.2.3); 0 where it does not say.

    Args:
        headers: of the response. ``X-RateLimit-Reset`` is a time in seconds or milliseconds, by its size.
        wall: Unix time.
    """
    text = str(headers.get("Retry-After", "")).strip()
    if text.isdecimal() and len(text) < 10:
        return float(text)
    if text:
        try:
            return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - wall)
        except (ValueError, OverflowError):
            pass
    text = str(headers.get("X-RateLimit-Reset", "")).strip()
    if text.isdecimal() and len(text) < 16:
        value = float(text)
        if value > 1e11:
            value /= 1000.0
        return max(0.0, value - wall) if value > 1e8 else value
    return 0.0
