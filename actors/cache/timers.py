"""Wake-ups: things that are due at a time, in buckets of 20 ms, never cancelled but looked at when due.

A heap entry per waiter would cost as much as the rest of joining a flight; a bucket costs one append. Whoever is
no longer interested when its bucket is due ignores the call, and has let go of what is heavy by then.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Final, Generic, TypeVar

T = TypeVar("T")

PER_SECOND: Final = 50


class Timers(Generic[T]):
    """Due times in seconds of the caller's clock; a thing comes out at most one bucket late, never early."""

    def __init__(self) -> None:
        self._buckets: dict[int, list[T]] = {}
        self._order: list[int] = []

    def __len__(self) -> int:
        return sum(len(bucket) for bucket in self._buckets.values())

    def __bool__(self) -> bool:
        return bool(self._order)

    def add(self, due: float, thing: T) -> None:
        """Wants ``thing`` back at ``due`` or at most 20 ms later."""
        at = int(due * PER_SECOND) + 1
        bucket = self._buckets.get(at)
        if bucket is None:
            self._buckets[at] = [thing]
            heappush(self._order, at)
        else:
            bucket.append(thing)

    def next(self) -> float | None:
        """When the next bucket is due; ``None``: nothing waits."""
        return self._order[0] / PER_SECOND if self._order else None

    def take(self, now: float) -> list[T]:
        """Everything that is due, in order of buckets."""
        found: list[T] = []
        # The same division as in ``next``: a product could round to just below what ``next`` has promised.
        while self._order and self._order[0] / PER_SECOND <= now:
            found += self._buckets.pop(heappop(self._order))
        return found
