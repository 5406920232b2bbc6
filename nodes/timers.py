"""Wake-ups by the thousand: things that are due at a time, in buckets of 20 ms, looked at when their bucket is due.

A heap entry per waiter would cost as much as the rest of joining a flight; a bucket costs one append. Whoever is
no longer interested when its bucket is due ignores the call, and has let go of what is heavy by then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from heapq import heappop, heappush
from math import inf
from typing import Final, Generic, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

PER_SECOND: Final = 50


class Timer:
    """A call that is to be made later."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self._call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """It will not be made."""
        self._call = None

    def fire(self) -> None:
        """Makes it, unless it was cancelled."""
        if self._call is not None:
            self._call()


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


class Clockwork:
    """``loop.call_later`` for thousands of calls a second that are nearly all cancelled; for the loop's thread only.

    Args:
        loop: one timer of it is in use at any time, for the bucket that is due next.
        clock: seconds; may be another than the loop's.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float]) -> None:
        self._loop = loop
        self._clock = clock
        self._timers: Timers[Timer] = Timers()
        self._due = inf
        self._handle: asyncio.TimerHandle | None = None

    def call_later(self, delay: float, call: Callable[[], None]) -> Timer:
        """Calls after ``delay`` seconds or at most 20 ms (and the loop's own lateness) more."""
        timer = Timer(call)
        self._timers.add(self._clock() + delay, timer)
        due = self._timers.next()
        if due is not None and due < self._due:
            self._arm()
        return timer

    def _arm(self) -> None:
        due = self._timers.next()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._due = inf if due is None else due
        if due is not None:
            self._handle = self._loop.call_later(max(due - self._clock(), 0.0), self._tick)

    def _tick(self) -> None:
        self._handle = None
        self._due = inf
        try:
            for timer in self._timers.take(self._clock()):
                try:
                    timer.fire()
                except Exception:
                    log.exception("timer_failed")  # the others are due all the same
        finally:
            self._arm()
