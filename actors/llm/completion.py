"""Reading an OpenAI-compatible chat completion, streamed or whole, octet by octet and without any IO.

Servers differ: errors arrive in an HTTP 200 body or as a stream event, usage in a last chunk without choices,
comments between events, ``content`` as null while a model reasons. Whatever is not understood is a ``Fault``.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from .faults import Fault, ProviderError, status_fault

LINE_SIZE_MAX: Final = 262_144
"""Octets of one line of a stream, or of a whole body: far above any honest one."""


@dataclass(slots=True)
class Completion:
    """What a call brought besides its text, which goes to the sink as it comes."""

    model: str = ""
    finish_reason: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    first_token_s: float = 0.0
    truncated: bool = False
    """We stopped reading at our own limit."""
    has_text: bool = False


class Reader:
    """Takes what the connection brings, gives text to ``on_text``; raises ``ProviderError``.

    Args:
        on_text: called with each piece of text.
        text_size_max: octets of text after which reading stops (``done`` becomes true).
        streamed: server-sent events, or one JSON body.
    """

    def __init__(self, on_text: Callable[[str], None], text_size_max: int, *, streamed: bool) -> None:
        self.completion = Completion()
        self.done = False
        """Nothing more needs to be read."""
        self._on_text = on_text
        self._left = text_size_max
        self._streamed = streamed
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a character may be split over segments
        self._buffer = ""
        self._data: list[str] = []
        self._finished = False

    def feed(self, data: bytes) -> None:
        """The next octets."""
        self._buffer += self._decoder.decode(data)
        if self._streamed:
            self._lines()
        if len(self._buffer) > LINE_SIZE_MAX:
            raise self._error(Fault.INVALID)

    def end(self) -> Completion:
        """The connection ended in order."""
        if self._streamed:
            self._buffer += "\n\n"
            self._lines()
            if not self._finished and not self.done:
                raise self._error(Fault.CUT if self.completion.has_text else Fault.EMPTY)
        elif not self.done:
            self._whole()
        if not self.completion.has_text:
            raise self._error(Fault.EMPTY)
        return self.completion

    def _lines(self) -> None:
        *lines, self._buffer = self._buffer.split("\n")
        for line in lines:
            if self.done:
                return
            line = line.removesuffix("\r")
            if not line:
                if self._data:
                    event, self._data = "\n".join(self._data), []
                    self._event(event)
            elif line.startswith("data:"):
                self._data.append(line[5:].removeprefix(" "))
            # Comments (":…") keep the connection alive; event names and ids tell us nothing.

    def _event(self, text: str) -> None:
        if text.strip() == "[DONE]":
            self._finished = self.done = True
            return
        body = self._parsed(text)
        choice = self._first_choice(body)
        if choice is None:  # the usage chunk
            return
        delta = choice.get("delta")
        self._take(delta if isinstance(delta, dict) else choice.get("message"))
        self._finish(choice)

    def _whole(self) -> None:
        body = self._parsed(self._buffer)
        choice = self._first_choice(body)
        if choice is None:
            raise self._error(Fault.INVALID)
        self._take(choice.get("message"))
        self._finish(choice)

    def _parsed(self, text: str) -> dict[str, Any]:
        try:
            body = json.loads(text)
        except (ValueError, RecursionError):
            raise self._error(Fault.INVALID) from None
        if not isinstance(body, dict):
            raise self._error(Fault.INVALID)
        if body.get("error"):
            raise self._reported(body["error"])
        if isinstance(body.get("model"), str):
            self.completion.model = body["model"][:128]
        usage = body.get("usage")
        if isinstance(usage, dict):
            self.completion.prompt_tokens = _count(usage.get("prompt_tokens"))
            self.completion.completion_tokens = _count(usage.get("completion_tokens"))
        return body

    def _first_choice(self, body: dict[str, Any]) -> dict[str, Any] | None:
        choices = body.get("choices")
        if isinstance(choices, list) and choices and isinstance(choices[0], dict):
            choice: dict[str, Any] = choices[0]
            if choice.get("error"):
                raise self._reported(choice["error"])
            return choice
        return None

    def _take(self, message: object) -> None:
        text = message.get("content") if isinstance(message, dict) else None
        if not isinstance(text, str) or not text:  # null while a model reasons
            return
        size = len(text.encode("utf-8", "replace"))
        if size > self._left:
            text = text.encode("utf-8", "replace")[: self._left].decode("utf-8", "ignore")
            self.completion.truncated = self.done = True
        self._left -= size
        if text.strip():
            self.completion.has_text = True
        self._on_text(text)

    def _finish(self, choice: dict[str, Any]) -> None:
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and reason:
            self.completion.finish_reason = reason[:32]
            self._finished = True
            if reason == "error":
                raise self._error(Fault.STREAM)

    def _reported(self, error: object) -> ProviderError:
        """An error object inside a body that came with status 200."""
        if self.completion.has_text:
            return self._error(Fault.STREAM)
        code = error.get("code") if isinstance(error, dict) else None
        if isinstance(code, str) and code.isdecimal() and len(code) == 3:
            code = int(code)
        fault = status_fault(code) if isinstance(code, int) and 400 <= code <= 599 else Fault.SERVER
        return ProviderError(fault)

    def _error(self, fault: Fault) -> ProviderError:
        return ProviderError(fault, text_came=self.completion.has_text)


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 1 << 31 else 0
