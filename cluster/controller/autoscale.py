"""How many query actors the load asks for: grow soon, shrink late, one step at a time.

Growing doubles at most, so that a burst of misses cannot ask for a hundred actors on one machine; shrinking
goes by one, since every step costs connections. The pool is judged by queries in flight, not by CPU: a query
actor waits most of the time, and what it waits for shows in flight before it shows anywhere else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from raydns.schemas.config.query import QueryConfig


@dataclass(slots=True)
class Autoscaler:
    """Remembers since when the load has been above or below its target."""

    above_since: float | None = None
    below_since: float | None = None

    def decide(self, size: int, in_flight: float, config: QueryConfig, now: float) -> int:
        """The size that the pool should have.

        Args:
            size: present size.
            in_flight: queries in flight over the whole pool.
            config: bounds, target and times.
            now: seconds, monotonic.
        """
        if not config.autoscale:
            return size
        per_actor = in_flight / max(size, 1)
        self.above_since = _since(self.above_since, per_actor > config.target_in_flight, now)
        self.below_since = _since(self.below_since, per_actor < config.target_in_flight / 2, now)
        if self.above_since is not None and now - self.above_since >= config.up_after_s and size < config.pool_max:
            self.above_since = None
            return min(config.pool_max, 2 * size, max(size + 1, math.ceil(in_flight / config.target_in_flight)))
        smaller = size - 1
        # Shrinking must not lead straight back: what is left has to stay below its target.
        fits = smaller > 0 and in_flight / smaller < config.target_in_flight * 0.8
        if (
            self.below_since is not None
            and now - self.below_since >= config.down_after_s
            and smaller >= config.pool_min
            and fits
        ):
            self.below_since = now
            return smaller
        return size


def _since(since: float | None, holds: bool, now: float) -> float | None:
    if not holds:
        return None
    return now if since is None else since
