"""Answers and failures that an LLM actor remembers, bounded in number and in octets."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from .messages import AskResult

FAILURES_MAX: Final = 1024
OVERHEAD: Final = 400
"""Octets that an entry costs beside its text: key, struct, dictionary slot, as seen with ``sys.getsizeof``."""


@dataclass(slots=True)
class _Entry:
    text: str
    model: str
    provider: str
    until: float
    size: int


class Answers:
    """Least recently used goes first; times are monotonic seconds."""

    def __init__(self, entries_max: int, size_max: int) -> None:
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._entries_max = entries_max
        self._size_max = size_max
        self.size = 0
        """Octets held; never above the maximum."""

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes, now: float) -> tuple[str, str, str, float] | None:
        """(text, model, provider, seconds left), or ``None``."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.until <= now:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry.text, entry.model, entry.provider, entry.until - now

    def put(self, key: bytes, text: str, model: str, provider: str, until: float) -> None:
        """Keeps an answer; one larger than the whole memory is not kept."""
        self._drop(key)
        size = len(text.encode()) + OVERHEAD
        if size > self._size_max:
            return
        self._entries[key] = _Entry(text, model, provider, until, size)
        self.size += size
        self._shrink()

    def resize(self, entries_max: int, size_max: int) -> None:
        """New bounds, at once."""
        self._entries_max, self._size_max = entries_max, size_max
        self._shrink()

    def clear(self) -> None:
        """Forgets all: another model answers now."""
        self._entries.clear()
        self.size = 0

    def _shrink(self) -> None:
        while self._entries and (len(self._entries) > self._entries_max or self.size > self._size_max):
            self._drop(next(iter(self._entries)))

    def _drop(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.size -= entry.size


class Failures:
    """Which prompts failed a moment ago, so that a client's retries do not become calls."""

    def __init__(self, entries_max: int = FAILURES_MAX) -> None:
        self._entries: OrderedDict[bytes, tuple[AskResult, float]] = OrderedDict()
        self._entries_max = entries_max

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes, now: float) -> tuple[AskResult, float] | None:
        """The failure and the seconds that it is still told."""
        found = self._entries.get(key)
        if found is None:
            return None
        result, until = found
        if until <= now:
            del self._entries[key]
            return None
        return result, until - now

    def put(self, key: bytes, result: AskResult, until: float) -> None:
        """Remembers a failure."""
        self._entries[key] = (result, until)
        self._entries.move_to_end(key)
        if len(self._entries) > self._entries_max:
            self._entries.popitem(last=False)

    def clear(self) -> None:
        """Forgets all."""
        self._entries.clear()
