"""Those who wait for an answer from above, and the wheel that tells when their patience ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Protocol

from .asked import Asked

if TYPE_CHECKING:
    from .l1 import Key
    from .misses import Flight

TICK_S: Final = 0.05
"""Coarse on purpose: a deadline is met within a twentieth of a second, and adding costs a dictionary entry."""


class Waiter:
    """One client query that waits."""

    __slots__ = ("asked", "deadline", "fallback", "flight", "joined", "key", "limit", "stale_at", "tick")

    def __init__(self, asked: Asked, key: Key, *, limit: int, deadline: float) -> None:
        self.asked = asked
        self.key = key  # of the answer in L1
        self.limit = limit  # octets of its reply
        self.deadline = deadline
        self.stale_at = 0.0  # when a stale answer is given instead of more waiting; 0: there is none
        self.fallback = b""  # what is said instead of SERVFAIL (a zone's part of a CNAME chain)
        self.joined = False  # somebody else leads
        self.flight: Flight | None = None
        self.tick = -1  # place on the wheel


class Timed(Protocol):
    """What the wheel carries."""

    tick: int


class Wheel:
    """Deadlines in buckets of ``TICK_S``; adding and removing cost a dictionary operation, nothing is left behind."""

    def __init__(self, now: float) -> None:
        self._buckets: dict[int, dict[Timed, None]] = {}
        self._next = int(now / TICK_S)

    def __len__(self) -> int:
        return sum(len(bucket) for bucket in self._buckets.values())

    def __bool__(self) -> bool:
        return bool(self._buckets)

    def add(self, timed: Timed, when: float) -> None:
        """Puts something on the wheel, or moves it."""
        if timed.tick >= 0:
            self.remove(timed)
        tick = max(int(when / TICK_S) + 1, self._next)
        timed.tick = tick
        bucket = self._buckets.get(tick)
        if bucket is None:
            bucket = self._buckets[tick] = {}
        bucket[timed] = None

    def remove(self, timed: Timed) -> None:
        """Takes something off, if it is on."""
        bucket = self._buckets.get(timed.tick)
        if bucket is not None:
            bucket.pop(timed, None)
            if not bucket:
                del self._buckets[timed.tick]
        timed.tick = -1

    def due(self, now: float) -> Iterator[Timed]:
        """Takes off what is due, oldest first."""
        last = int(now / TICK_S)
        if last < self._next:
            return
        ticks = sorted(tick for tick in self._buckets if tick <= last)
        self._next = last + 1
        for tick in ticks:
            bucket = self._buckets.pop(tick, {})
            while bucket:  # one at a time: dealing with one may take others off
                timed, _ = bucket.popitem()
                timed.tick = -1
                yield timed
