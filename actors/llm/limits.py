"""What calls may cost: token buckets a client prefix, and the bucket and the day counter of all together.

Everything takes the time as an argument; nothing sleeps. A refused call takes nothing from any bucket.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Protocol

from raydns.schemas.config.llm import LimitsConfig

CLIENTS_MAX: Final = 16_384
"""Buckets kept. A source that makes more prefixes than this still meets the bucket of all."""
DAY_S: Final = 86_400


class TokenBucket:
    """Holds at most ``burst`` tokens and gains ``rate`` of them a second."""

    __slots__ = ("_at", "_tokens", "burst", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self._tokens = burst
        self._at = now

    def level(self, now: float) -> float:
        """Tokens there are."""
        return min(self.burst, self._tokens + max(0.0, now - self._at) * self.rate)

    def take(self, now: float) -> bool:
        """Takes a token, if there is a whole one."""
        level = self.level(now)
        self._tokens, self._at = level, max(now, self._at)
        if level < 1.0 - 1e-9:
            return False
        self._tokens = level - 1.0
        return True

    def wait_s(self, now: float) -> float:
        """Seconds until there is a whole token."""
        return max(0.0, (1.0 - self.level(now)) / self.rate) if self.rate > 0 else math.inf

    def resize(self, rate: float, burst: float, now: float) -> None:
        """New limits from now on; what was spent stays spent, so that a reload gives nothing away."""
        spent = self.burst - self.level(now)
        self.rate, self.burst, self._at = rate, burst, now
        self._tokens = max(0.0, burst - spent)


class ClientBuckets:
    """A bucket a client prefix, bounded in number; the least recently used goes first."""

    def __init__(self, rate: float, burst: float, clients_max: int = CLIENTS_MAX) -> None:
        self._rate = rate
        self._burst = burst
        self._clients_max = clients_max
        self._buckets: OrderedDict[bytes, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def level(self, client: bytes, now: float) -> float:
        """Tokens that the client has."""
        bucket = self._buckets.get(client)
        return self._burst if bucket is None else bucket.level(now)

    def take(self, client: bytes, now: float) -> bool:
        """Takes one of the client's tokens, if it has one."""
        bucket = self._buckets.get(client)
        if bucket is None:
            bucket = self._buckets[client] = TokenBucket(self._rate, self._burst, now)
            if len(self._buckets) > self._clients_max:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(client)
        return bucket.take(now)

    def wait_s(self, client: bytes, now: float) -> float:
        """Seconds until the client may ask again."""
        bucket = self._buckets.get(client)
        return 0.0 if bucket is None else bucket.wait_s(now)

    def resize(self, rate: float, burst: float, now: float) -> None:
        """New limits for all, at once."""
        if (rate, burst) == (self._rate, self._burst):
            return
        self._rate, self._burst = rate, burst
        for bucket in self._buckets.values():
            bucket.resize(rate, burst, now)


class DayStore(Protocol):
    """Where the day's count survives a restart."""

    def load(self) -> tuple[int, int]:
        """(day, calls); (0, 0) where nothing is known."""

    def save(self, day: int, calls: int) -> None:
        """Keeps the count; a disk that cannot take it is said in the log, not raised."""


class DayCount:
    """Calls of one UTC day. A clock that goes back never gives calls back."""

    def __init__(self, store: DayStore) -> None:
        self._store = store
        self._day, self._calls = store.load()

    def calls(self, wall: float) -> int:
        """Calls made on the day of ``wall`` (Unix time)."""
        self._roll(wall)
        return self._calls

    def add(self, wall: float) -> None:
        """Counts a call, on disk before it is made: a crash may lose a call, never a count."""
        self._roll(wall)
        self._calls += 1
        self._store.save(self._day, self._calls)

    def _roll(self, wall: float) -> None:
        today = int(wall // DAY_S)
        if today > self._day:
            self._day, self._calls = today, 0
        elif today < self._day - 1:
            # The clock was far ahead once: without this the count would stand until that day comes.
            self._day = today


@dataclass(frozen=True, slots=True)
class Share:
    """This actor's part of the limits of all LLM actors: their sum never exceeds what is configured."""

    index: int = 0
    actors: int = 1

    def of(self, limit: int) -> int:
        """This actor's part of ``limit``."""
        return limit // self.actors + (1 if self.index < limit % self.actors else 0)


class GlobalLimit:
    """What all clients together may call: a minute's bucket and, with a store, a day's count."""

    def __init__(self, per_minute: int, per_day: int | None, day: DayCount | None, now: float) -> None:
        self._minute = TokenBucket(per_minute / 60.0, float(per_minute), now)
        self._per_day = per_day
        self._day = day

    def resize(self, per_minute: int, per_day: int | None, now: float) -> None:
        """New limits; what was spent stays spent."""
        self._per_day = per_day
        self._minute.resize(per_minute / 60.0, float(per_minute), now)

    def minute_left(self, now: float) -> int:
        """Calls that this minute allows."""
        return int(self._minute.level(now) + 1e-9)

    def day_left(self, wall: float) -> int | None:
        """Calls that this day allows; ``None`` without a day's limit."""
        if self._per_day is None or self._day is None:
            return None
        return max(0, self._per_day - self._day.calls(wall))

    def below_half(self, now: float) -> bool:
        """Whether unproven sources must prove themselves before they may spend what is left."""
        return self._minute.level(now) < self._minute.burst / 2.0

    def take(self, now: float, wall: float) -> bool:
        """Takes one call of the minute and of the day, or none of both."""
        if self.day_left(wall) == 0 or not self._minute.take(now):
            return False
        if self._day is not None and self._per_day is not None:
            self._day.add(wall)
        return True

    def wait_s(self, now: float, wall: float) -> tuple[str, float]:
        """Which window is used up (``day`` or ``minute``) and the seconds until it is not."""
        if self.day_left(wall) == 0:
            return "day", DAY_S - wall % DAY_S
        return "minute", self._minute.wait_s(now)


class Limits:
    """All limits of one LLM actor."""

    def __init__(self, config: LimitsConfig, share: Share, day: DayCount, now: float) -> None:
        self.calls = ClientBuckets(config.client_calls_per_minute / 60.0, float(config.client_burst))
        self.queries = ClientBuckets(config.client_queries_per_second, float(config.client_queries_burst))
        self.provider = GlobalLimit(share.of(config.global_per_minute), share.of(config.global_per_day), day, now)
        self.embedded = GlobalLimit(share.of(config.embedded_per_minute), None, None, now)
        self.in_flight_max = config.in_flight_max
        self.waiters_max = config.waiters_max

    def configure(self, config: LimitsConfig, share: Share, now: float) -> None:
        """Applies changed limits while calls go on."""
        self.calls.resize(config.client_calls_per_minute / 60.0, float(config.client_burst), now)
        self.queries.resize(config.client_queries_per_second, float(config.client_queries_burst), now)
        self.provider.resize(share.of(config.global_per_minute), share.of(config.global_per_day), now)
        self.embedded.resize(share.of(config.embedded_per_minute), None, now)
        self.in_flight_max = config.in_flight_max
        self.waiters_max = config.waiters_max
