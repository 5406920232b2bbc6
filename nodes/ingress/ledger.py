"""The ledger: every reply is counted here, and the few that somebody may want to see are remembered."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from raydns.schemas.batch import Outcome, Room, stamp

from . import counters as tiers
from .asked import Asked
from .counters import RCODES, Counters
from .traces import Recorder, Traces

_OUTCOMES: Final = {
    tiers.L1: Outcome.HIT,
    tiers.STALE: Outcome.STALE,
    tiers.REFUSED: Outcome.REFUSED,
    tiers.FAILED: Outcome.FAILED,
    tiers.UP: Outcome.MISS,
}


class Ledger:
    """Counters, traces and the two clocks."""

    def __init__(
        self,
        clock: Callable[[], float],
        wall_us: Callable[[], int],
        recorder: Recorder | None,
        rng: random.Random,
    ) -> None:
        self.counters = Counters()
        self.traces = Traces(recorder, rng)
        self.clock = clock
        self.wall_us = wall_us
        self._tiers = self.counters.tiers.values
        self._rcodes = self.counters.responses.values

    def done(self, reply: bytes, tier: str, asked: Asked, rooms: bytes = b"", outcome: Outcome | None = None) -> bytes:
        """Counts a reply that has gone or is about to go, and gives it back."""
        now = self.clock()
        duration = now - asked.arrived
        counts = self._tiers
        counts[tier] = counts.get(tier, 0) + 1
        counts = self._rcodes
        label = RCODES[reply[3] & 15]
        counts[label] = counts.get(label, 0) + 1
        self.counters.latency.observe(duration, tier)
        if asked.trace is not None or rooms or self.traces.wants(now):
            duration_us = int(duration * 1_000_000)
            start_us = asked.wall_us or self.wall_us() - duration_us
            came = outcome if outcome is not None else _OUTCOMES.get(tier, Outcome.OK)
            own = stamp(Room.INGRESS, came, 0, start_us, duration_us)
            self.traces.note(asked, tier, reply[3] & 15, start_us=start_us, duration_us=duration_us, rooms=own + rooms)
            self.traces.noted(now)
        return reply

    def count(self, reply: bytes, tier: str, arrived: float) -> bytes:
        """Counts a reply to what was no query that could be told of."""
        self.counters.tiers.inc(tier)
        self.counters.responses.inc(RCODES[reply[3] & 15])
        self.counters.latency.observe(self.clock() - arrived, tier)
        return reply
